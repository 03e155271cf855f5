//! What `check` and `serve` say of a source: the verdict of an ordinary payment, and where bytes can move.

use std::sync::Arc;

use super::super::Ordinary;
use super::super::split::{Grammars, Type};
use crate::event::Verdict;

/// Typical values, after the provider's own sample; what a source's patterns rule out is replaced by what they allow.
const TYPICAL: [(&str, &[&str]); 13] = [
    ("code", &["00"]),
    ("email", &["buyer@example.com"]),
    ("method", &["QRIS"]),
    ("msg", &["SUCCESS"]),
    ("name", &["Neo"]),
    ("orderNum", &["T1231511321515", "21161500247208"]),
    ("payData", &["https://link.example/pay"]),
    ("payFee", &["250.00", "250"]),
    ("payMoney", &["10000.00", "10000"]),
    ("phone", &["082113086611"]),
    ("platOrderNum", &["552538080348274688"]),
    ("status", &["SUCCESS"]),
    ("vaNumber", &["8808082113086611"]),
];

/// What [`super::super::Provider::ordinary`] promises, from an example.
pub(super) fn of(grammars: &Arc<Grammars>, has_order_pattern: bool, has_amount_pattern: bool) -> Ordinary {
    let examples = [0, 1].map(|variant| example(grammars, variant));
    // What is ordinary here is not known, so that the worst example counts.
    let decisions = match examples.each_ref().map(|example| decisions(grammars, example)) {
        [0, _] | [_, 0] => 0,
        [one, other] => one.max(other),
    };
    let mut neighbours: Vec<String> = Vec::new();
    for line in examples.iter().flat_map(|example| self::neighbours(grammars, example)) {
        if !neighbours.contains(&line) {
            neighbours.push(line);
        }
    }
    let numbers_can_move = examples.iter().any(|e| self::decisions(grammars, &with_name_in_digits(e)) > 1);
    let missing: Vec<&str> = [(has_order_pattern, "order_pattern"), (has_amount_pattern, "amount_pattern")]
        .into_iter()
        .filter_map(|(there, name)| (!there).then_some(name))
        .collect();
    let shared = "No field names the merchant: should ClickPay use one key for several merchants, another's genuine \
                  notification verifies here too.";
    let (verdict, why) = match decisions {
        1 => (Verdict::Compare, "the signed string of an ordinary payment reads in one way only".to_owned()),
        0 => (Verdict::Hold, "an ordinary payment does not fit the source's fields and patterns".to_owned()),
        _ => {
            let how_many = if decisions >= 64 { "64 or more".to_owned() } else { decisions.to_string() };
            (Verdict::Hold, format!("the signed string of an ordinary payment allows {how_many} decisions"))
        }
    };
    let mut remedy = Vec::new();
    if decisions == 0 {
        remedy.push("Check fields, order_pattern and amount_pattern against a notification that came.".to_owned());
    } else if decisions > 1 || numbers_can_move {
        if !missing.is_empty() {
            remedy.push(format!("Set {} to how this shop and this platform write them.", missing.join(" and ")));
        } else if decisions > 1 {
            remedy.push("Write order_pattern and amount_pattern more narrowly.".to_owned());
        }
        if numbers_can_move {
            remedy.push(
                "Order numbers without a letter prefix stay ambiguous beside a name that ends in digits.".to_owned(),
            );
        }
        remedy.push("Register expectations before the payment.".to_owned());
    }
    Ordinary {
        verdict,
        with_expectation: if decisions == 0 { Verdict::Hold } else { Verdict::Fulfil },
        why: format!("{why}. {shared}"),
        remedy: remedy.join(" "),
        neighbours,
    }
}

/// An ordinary pay-in of the source, in signing order, without optional fields.
fn example(grammars: &Grammars, variant: usize) -> Vec<(String, String)> {
    let required = grammars.fields(Type::PayIn).filter(|(_, required)| *required);
    required.map(|(name, _)| (name.to_owned(), typical(grammars, name, variant))).collect()
}

fn typical(grammars: &Grammars, name: &str, variant: usize) -> String {
    let known = TYPICAL.iter().find(|(field, _)| *field == name).map_or(&[][..], |(_, values)| values);
    let from_variant = known.iter().skip(variant).chain(known);
    let fitting = from_variant.into_iter().find(|value| grammars.fits(Type::PayIn, name, value) == Some(true));
    match (fitting, grammars.example(Type::PayIn, name)) {
        (Some(value), _) => (*value).to_owned(),
        (None, Some(value)) => value.0,
        (None, None) => String::new(),
    }
}

fn with_name_in_digits(example: &[(String, String)]) -> Vec<(String, String)> {
    let change = |(name, value): &(String, String)| {
        (name.clone(), if name == "name" { "Neo 724424035".to_owned() } else { value.clone() })
    };
    example.iter().map(change).collect()
}

/// How many decisions a message's string allows; 0 where the message does not fit itself.
fn decisions(grammars: &Grammars, message: &[(String, String)]) -> usize {
    if message.iter().any(|(name, value)| grammars.fits(Type::PayIn, name, value) != Some(true)) {
        return 0;
    }
    let string: String = message.iter().map(|(_, value)| value.as_str()).collect();
    grammars.read(&string, Type::PayIn, message).decisions
}

/// Pairs of neighbours between which bytes of the example can move, one line each.
fn neighbours(grammars: &Grammars, example: &[(String, String)]) -> Vec<String> {
    let fits = |name: &str, value: &str| grammars.fits(Type::PayIn, name, value) == Some(true);
    let digits = with_name_in_digits(example);
    let mut lines = Vec::new();
    for (at, pair) in example.windows(2).enumerate() {
        let [(left, left_value), (right, right_value)] = pair else { continue };
        let moves = |left_value: &str, right_value: &str| {
            let both = format!("{left_value}{right_value}");
            let border = left_value.len();
            both.char_indices().skip(1).any(|(cut, _)| {
                let (a, b) = both.split_at(cut);
                cut != border && fits(left, a) && fits(right, b)
            })
        };
        let in_digits = digits.get(at).is_some_and(|(_, value)| value != left_value && moves(value, right_value));
        if moves(left_value, right_value) {
            lines.push(format!("{left} | {right}: {}", remedy(left, right)));
        } else if in_digits {
            lines.push(format!("{left} | {right}: only after a {left} that ends in digits; {}", remedy(left, right)));
        }
    }
    // A field that may be absent can take the end of its neighbour.
    for (name, _) in grammars.fields(Type::PayIn).filter(|(_, required)| !required) {
        let before = example.iter().rev().find(|(field, _)| field.as_str() < name);
        let Some((field, value)) = before else { continue };
        if value.char_indices().skip(1).any(|(cut, _)| fits(field, &value[..cut]) && fits(name, &value[cut..])) {
            lines.push(format!(
                "{field} | {name} (optional): take {name} out of optional_fields if the platform never sends it"
            ));
        }
    }
    lines
}

/// What settles a pair, in the words of the config.
fn remedy(left: &str, right: &str) -> &'static str {
    match (left, right) {
        (_, "orderNum") | ("orderNum", _) => "an order_pattern with a letter prefix and a fixed length settles it",
        (_, "payMoney") | ("payMoney", _) | ("payFee", _) => "an amount_pattern with fixed decimals settles it",
        _ => "no decision hangs on it; the values are marked as unproven",
    }
}
