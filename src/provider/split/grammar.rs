//! Which values a field can have, and which fields a type of message has.
//!
//! The grammars are those of the protocol's table; a source's `order_pattern` and `amount_pattern` replace two of
//! them. They are compiled once per source into automata, which are stepped from each possible start of a field and
//! so never backtrack.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::automaton::Automaton;
use super::cuts::{Part, Text};

/// Order numbers where the source says nothing.
const ORDER: &str = "[A-Za-z0-9_-]{1,32}";
/// Amounts where the source says nothing.
const AMOUNT: &str = r"(0|[1-9][0-9]{0,12})(\.[0-9]{1,2})?";
const WORDS: &[&str] = &["SUCCESS", "FAIL", "FAILED", "ERROR", "PENDING", "PROCESSING", "CANCEL"];
const STATUS: &[&str] = &["INIT_ORDER", "NO_PAY", "OPEN_PAY_URL", "SUCCESS", "PAY_CANCEL", "PAY_ERROR"];
const RESPONSE: &[&str] = &["SUCCESS", "FAIL", "UNKNOWN", "NOTEXIST", "ERROR"];
/// What a field gets that the operator named and nobody has described: any text.
const UNDESCRIBED: Grammar = Grammar::Run { longest: 1024 };

/// Every type of message that a platform key signs, with the grammars of one source.
#[derive(Debug)]
pub struct Grammars {
    types: [Message; 4],
}

/// A type of message that a platform key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// The notification of a payment to the merchant.
    PayIn,
    /// The notification of a payment by the merchant.
    PayOut,
    /// The answer to the creation of an order, which shops often hand to browsers.
    Create,
    /// The answer to a status query.
    Query,
}

/// The fields of a type in the order in which their values are signed.
#[derive(Debug)]
pub(in crate::provider) struct Message {
    pub(super) is: Type,
    pub(super) fields: Vec<Field>,
}

/// One field of a type.
#[derive(Debug)]
pub(in crate::provider) struct Field {
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) part: Part,
    pub(super) grammar: Grammar,
}

/// Which values a field can have.
#[derive(Clone, Debug)]
pub(in crate::provider) enum Grammar {
    /// Characters without controls (C0 and DEL).
    Run { longest: usize },
    /// One of these words.
    Words(&'static [&'static str]),
    /// `[^@\s]{1,60}@[^@\s]{2,60}`, at most 64 characters.
    Email,
    /// A regular expression over the whole value, at most so many characters (never more than 64).
    Pattern { automaton: Arc<Automaton>, longest: usize },
}

/// An example of a value, for `check`.
pub(in crate::provider) struct Example(pub(in crate::provider) String);

/// Whether a regular expression can serve as `order_pattern` or `amount_pattern`.
///
/// # Errors
/// A sentence that says what is wrong with it and what to do.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let grammar = Grammar::pattern(pattern, 32)?;
    match grammar.example() {
        Some(_) => Ok(()),
        None => Err("it matches no text of 1 to 32 characters, so that every notification would be held: write how \
                     the values look, for example ^T[0-9]{13}$"
            .to_owned()),
    }
}

impl Grammars {
    /// The grammars of a source. `fields` and `optional_fields` are those of its pay-ins.
    ///
    /// # Errors
    /// What [`check_pattern`] says of one of the patterns.
    pub fn new(
        order: Option<&str>,
        amount: Option<&str>,
        fields: &[String],
        optional: &[String],
    ) -> Result<Self, String> {
        let order = Grammar::pattern(order.unwrap_or(ORDER), 32)?;
        let amount = Grammar::pattern(amount.unwrap_or(AMOUNT), 18)?;
        Self::of(&order, &amount, fields, optional)
    }

    /// Grammars that no value fits, so that everything is held: for patterns that were never checked.
    pub(in crate::provider) fn hold_everything(fields: &[String], optional: &[String]) -> Self {
        let nothing = Grammar::Words(&[]);
        Self::of(&nothing, &nothing, fields, optional).unwrap_or(Self {
            types: [Type::PayIn, Type::PayOut, Type::Create, Type::Query].map(|is| Message { is, fields: Vec::new() }),
        })
    }

    fn of(order: &Grammar, amount: &Grammar, fields: &[String], optional: &[String]) -> Result<Self, String> {
        let pattern = |text, longest| Grammar::pattern(text, longest);
        let code = pattern("[0-9]{2}", 2)?;
        let method = pattern("[A-Z][A-Z0-9-]{1,19}", 20)?;
        let platform_number = pattern("([A-Z]{1,8}_?)?[0-9]{8,24}", 33)?;
        let phone = pattern(r"\+?[0-9]{6,16}", 17)?;
        let number = pattern("[0-9]{6,32}", 32)?;
        let bank_code = pattern("[0-9]{3,4}", 4)?;
        let fee_type = pattern("[01]", 1)?;
        let digit = pattern("[0-9]", 1)?;
        let described = |name: &str| match name {
            "code" => code.clone(),
            "msg" | "statusMsg" => Grammar::Words(WORDS),
            "email" => Grammar::Email,
            "method" => method.clone(),
            "name" | "description" | "platRespMessage" => Grammar::Run { longest: 64 },
            "productDetail" => Grammar::Run { longest: 32 },
            "originData" => Grammar::Run { longest: 512 },
            "orderNum" => order.clone(),
            "platOrderNum" => platform_number.clone(),
            "phone" => phone.clone(),
            "status" => Grammar::Words(STATUS),
            "vaNumber" | "number" => number.clone(),
            "bankCode" => bank_code.clone(),
            "feeType" => fee_type.clone(),
            "platRespCode" => Grammar::Words(RESPONSE),
            "payFee" | "payMoney" | "money" | "fee" | "amount" => amount.clone(),
            _ => UNDESCRIBED,
        };
        let message = |is, names: Vec<(&str, bool)>| {
            let fields = names.into_iter().map(|(name, required)| Field {
                name: name.to_owned(),
                required,
                part: Part::of(is, name),
                grammar: match (is, name) {
                    (Type::PayOut, "status") => digit.clone(),
                    (Type::Query, "msg") => Grammar::Run { longest: 32 },
                    _ => described(name),
                },
            });
            Message { is, fields: fields.collect() }
        };
        let pay_in: BTreeSet<&str> = fields.iter().chain(optional).map(String::as_str).collect();
        let pay_in = pay_in.into_iter().map(|name| (name, fields.iter().any(|field| field == name))).collect();
        let pay_out = [
            "bankCode",
            "description",
            "fee",
            "feeType",
            "money",
            "name",
            "number",
            "orderNum",
            "platOrderNum",
            "status",
            "statusMsg",
        ];
        let create = [
            "email",
            "method",
            "name",
            "orderNum",
            "originData",
            "payData",
            "payFee",
            "payMoney",
            "platOrderNum",
            "platRespCode",
            "platRespMessage",
            "productDetail",
        ];
        let query = ["amount", "fee", "msg", "orderNum", "platOrderNum", "platRespCode", "platRespMessage", "status"];
        Ok(Self {
            types: [
                message(Type::PayIn, pay_in),
                message(Type::PayOut, pay_out.map(|name| (name, !matches!(name, "description" | "name"))).to_vec()),
                message(Type::Create, create.map(|name| (name, name != "originData")).to_vec()),
                message(Type::Query, query.map(|name| (name, true)).to_vec()),
            ],
        })
    }

    pub(super) fn types(&self) -> &[Message] {
        &self.types
    }

    /// The fields of a type in signing order, and whether each is required.
    pub(in crate::provider) fn fields(&self, is: Type) -> impl Iterator<Item = (&str, bool)> {
        self.types.iter().filter(move |m| m.is == is).flat_map(|m| &m.fields).map(|f| (f.name.as_str(), f.required))
    }

    /// Whether a whole value fits the grammar of its field; `None` for a field that the type does not have.
    pub(in crate::provider) fn fits(&self, is: Type, name: &str, value: &str) -> Option<bool> {
        self.field(is, name).map(|field| field.fits(value))
    }

    /// A value that fits, as plain as possible.
    pub(in crate::provider) fn example(&self, is: Type, name: &str) -> Option<Example> {
        self.field(is, name)?.grammar.example()
    }

    fn field(&self, is: Type, name: &str) -> Option<&Field> {
        self.types.iter().find(|m| m.is == is)?.fields.iter().find(|field| field.name == name)
    }
}

impl Message {
    /// The fewest and the most characters that a message of the type can have from its `from`th field on.
    pub(super) fn bounds(&self, from: usize) -> (usize, usize) {
        let fields = self.fields.iter().skip(from);
        fields.fold((0, 0), |(least, most), field| {
            (least + usize::from(field.required) * field.grammar.shortest(), most + field.grammar.longest())
        })
    }
}

impl Field {
    fn fits(&self, value: &str) -> bool {
        let text = Text::new(value);
        let length = text.len();
        match self.grammar {
            Grammar::Run { longest } => (1..=longest).contains(&length) && text.run_end(0) == length,
            _ => {
                let lengths = self.grammar.lengths(&text, 0).0;
                let fits = (1..=64).contains(&length) && lengths >> (length - 1) & 1 == 1;
                fits && !(self.part == Part::Amount && self.part.must_not_be_zero(value))
            }
        }
    }
}

impl Grammar {
    fn pattern(pattern: &str, longest: usize) -> Result<Self, String> {
        Ok(Self::Pattern { automaton: Arc::new(Automaton::new(pattern)?), longest })
    }

    fn shortest(&self) -> usize {
        match self {
            Self::Run { .. } | Self::Pattern { .. } => 1,
            Self::Words(words) => words.iter().map(|word| word.len()).min().unwrap_or(1),
            Self::Email => 4,
        }
    }

    pub(super) fn longest(&self) -> usize {
        match self {
            Self::Run { longest } | Self::Pattern { longest, .. } => *longest,
            Self::Words(words) => words.iter().map(|word| word.len()).max().unwrap_or(0),
            Self::Email => 64,
        }
    }

    /// Which lengths a value that starts at character `at` can have: bit 0 is one character. And the steps it took.
    /// Not for runs, which can be longer than 64.
    pub(super) fn lengths(&self, text: &Text, at: usize) -> (u64, u64) {
        match self {
            Self::Run { .. } => (0, 0),
            Self::Words(words) => {
                let rest = text.from(at).as_bytes();
                let fits = words.iter().filter(|word| rest.starts_with(word.as_bytes()));
                (fits.fold(0, |lengths, word| lengths | 1 << (word.len() - 1)), words.len() as u64)
            }
            Self::Email => email_lengths(text.from(at)),
            Self::Pattern { automaton, longest } => automaton.lengths(text.from(at), *longest),
        }
    }

    /// A value that fits, as plain as possible.
    fn example(&self) -> Option<Example> {
        match self {
            Self::Run { .. } => Some(Example("sample".to_owned())),
            Self::Words(words) => words.first().map(|word| Example((*word).to_owned())),
            Self::Email => Some(Example("buyer@example.com".to_owned())),
            Self::Pattern { automaton, longest } => automaton.example(*longest).map(Example),
        }
    }
}

/// As [`Grammar::lengths`] for `[^@\s]{1,60}@[^@\s]{2,60}` of at most 64 characters. The oracle's `\s` has four
/// separators of ASCII that Unicode's white space has not.
fn email_lengths(rest: &str) -> (u64, u64) {
    let (mut local, mut domain, mut lengths, mut steps) = (0_usize, None, 0_u64, 0_u64);
    for character in rest.chars().take(64) {
        steps += 1;
        if character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character) {
            break;
        }
        match (&mut domain, character) {
            (None, '@') if (1..=60).contains(&local) => domain = Some(0_usize),
            (_, '@') => break,
            (None, _) if local == 60 => break,
            (None, _) => local += 1,
            (Some(60), _) => break,
            (Some(domain), _) => {
                *domain += 1;
                lengths |= u64::from(*domain >= 2) << (local + *domain);
            }
        }
    }
    (lengths, steps)
}
