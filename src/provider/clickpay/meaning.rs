//! What an authentic message says: its kind, its state, and everything besides.

use super::super::split::{Grammars, Type};
use crate::event::{Currency, Decimal, Details, Kind, Money, OrderId, Payer, Reason, Status};

/// Without these a pay-in cannot be told from anything else.
const PAY_IN: [&str; 5] = ["code", "msg", "orderNum", "payMoney", "platOrderNum"];
/// Likewise for a pay-out.
const PAY_OUT: [&str; 4] = ["money", "orderNum", "platOrderNum", "status"];

/// What an authentic message says.
pub(super) struct Meaning {
    pub(super) is: Type,
    pub(super) kind: Kind,
    pub(super) status: Status,
    pub(super) details: Details,
    /// The provider's status words as sent, `None` for an absent one.
    pub(super) words: Vec<(&'static str, Option<String>)>,
    /// Why it must be held.
    pub(super) problems: Vec<Reason>,
    /// How many of them say that the message is none that the grammars describe.
    pub(super) problems_of_grammar: usize,
}

impl Meaning {
    /// Reads the signed values.
    ///
    /// # Errors
    /// Which message it is not, for the log.
    pub(super) fn of(
        fields: &[(String, String)],
        grammars: &Grammars,
        currency: Currency,
    ) -> Result<Self, &'static str> {
        let has = |name: &str| fields.iter().any(|(field, _)| field == name);
        let value = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
        let is = if PAY_IN.iter().all(|name| has(name)) {
            Type::PayIn
        } else if PAY_OUT.iter().all(|name| has(name)) && !has("code") && !has("payMoney") {
            Type::PayOut
        } else {
            return Err("neither a pay-in's nor a pay-out's fields");
        };
        let (kind, status, words, contradiction) = match is {
            Type::PayIn => {
                let (code, msg, status) = (value("code"), value("msg"), value("status"));
                let (read, contradiction) = pay_in_status(
                    code.as_deref().unwrap_or_default(),
                    msg.as_deref().unwrap_or_default(),
                    status.as_deref(),
                );
                (Kind::Payment, read, vec![("code", code), ("msg", msg), ("status", status)], contradiction)
            }
            _ => {
                let (status, message) = (value("status"), value("statusMsg"));
                let (read, contradiction) = pay_out_status(status.as_deref().unwrap_or_default(), message.as_deref());
                (Kind::Payout, read, vec![("status", status), ("statusMsg", message)], contradiction)
            }
        };
        let mut problems = problems_of_grammar(fields, is, grammars);
        let problems_of_grammar = problems.len();
        if contradiction {
            problems.insert(0, Reason::Contradiction);
        }
        let money = |name: &str| Some(Money { value: Decimal::parse(&value(name)?)?, currency });
        let (amount, fee) = match is {
            Type::PayIn => (money("payMoney"), money("payFee")),
            _ => (money("money"), money("fee")),
        };
        let mut details = Details {
            order_id: value("orderNum").and_then(|order| OrderId::new(&order)),
            transaction_id: value("platOrderNum"),
            amount,
            fee,
            ..Details::default()
        };
        if is == Type::PayIn {
            details.method = value("method");
            details.payer = Payer { name: value("name"), email: value("email"), phone: value("phone"), country: None };
        }
        let elsewhere = |name: &str| match name {
            // An amount that is no number is shown as it came, since it has no other place.
            "payMoney" | "money" => details.amount.is_some(),
            "payFee" | "fee" => details.fee.is_some(),
            name => name_in_event(is, name) != name || name == "method" && is == Type::PayIn,
        };
        let others = fields.iter().filter(|(name, _)| !elsewhere(name)).cloned().collect();
        details.provider_fields = others;
        Ok(Self { is, kind, status, details, words, problems, problems_of_grammar })
    }
}

/// Where an event shows a field: under a name of its own, or under the provider's in `provider_fields`.
pub(super) fn name_in_event(is: Type, field: &str) -> &str {
    match (is, field) {
        (_, "orderNum") => "order_id",
        (_, "platOrderNum") => "transaction_id",
        (Type::PayIn, "payMoney") | (Type::PayOut, "money") => "amount",
        (Type::PayIn, "payFee") => "fee",
        (Type::PayIn, "name") => "payer.name",
        (Type::PayIn, "email") => "payer.email",
        (Type::PayIn, "phone") => "payer.phone",
        (_, other) => other,
    }
}

/// Why an authentic message is not one that the source's grammars describe.
fn problems_of_grammar(fields: &[(String, String)], is: Type, grammars: &Grammars) -> Vec<Reason> {
    let (mut field_set, mut order, mut amount) = (false, false, false);
    for (name, required) in grammars.fields(is) {
        field_set |= required && !fields.iter().any(|(field, _)| field == name);
    }
    for (name, value) in fields {
        match (grammars.fits(is, name, value), name.as_str()) {
            (Some(true), _) => {}
            (Some(false), "orderNum") => order = true,
            (Some(false), "payMoney" | "payFee" | "money" | "fee" | "amount") => amount = true,
            (Some(false) | None, _) => field_set = true,
        }
    }
    let found = [(field_set, Reason::FieldSet), (order, Reason::OrderPattern), (amount, Reason::AmountUnreadable)];
    found.into_iter().filter(|(found, _)| *found).map(|(_, reason)| reason).collect()
}

/// What `msg` and `statusMsg` claim.
fn claimed(word: &str) -> Option<Status> {
    match word {
        "SUCCESS" => Some(Status::Paid),
        "FAIL" | "FAILED" | "ERROR" => Some(Status::Failed),
        "CANCEL" => Some(Status::Canceled),
        "PENDING" | "PROCESSING" => Some(Status::Pending),
        _ => None,
    }
}

/// The state of a pay-in, and whether its words contradict each other.
fn pay_in_status(code: &str, msg: &str, status: Option<&str>) -> (Status, bool) {
    let by_status = match status {
        None => {
            return match (code, claimed(msg)) {
                ("00", Some(Status::Paid)) => (Status::Paid, false),
                ("00", claim) => (Status::Unknown, matches!(claim, Some(Status::Failed | Status::Canceled))),
                _ => (Status::Failed, false),
            };
        }
        Some("SUCCESS") => Status::Paid,
        Some("INIT_ORDER" | "NO_PAY" | "OPEN_PAY_URL") => Status::Pending,
        Some("PAY_CANCEL") => Status::Canceled,
        Some("PAY_ERROR") => Status::Failed,
        Some(_) => return (Status::Unknown, false),
    };
    let agrees = match by_status {
        Status::Paid => code == "00" && msg == "SUCCESS",
        Status::Pending => claimed(msg) == Some(Status::Pending),
        _ => code != "00" && matches!(claimed(msg), Some(Status::Failed | Status::Canceled)),
    };
    if agrees { (by_status, false) } else { (Status::Unknown, true) }
}

/// The state of a pay-out, and whether its words contradict each other.
fn pay_out_status(status: &str, message: Option<&str>) -> (Status, bool) {
    let by_status = match status {
        "0" | "1" | "5" => Status::Pending,
        "2" => Status::Paid,
        "4" => Status::Failed,
        _ => return (Status::Unknown, false),
    };
    match (by_status, message.and_then(claimed)) {
        (Status::Failed, Some(Status::Canceled)) | (_, None) => (by_status, false),
        (read, Some(claim)) if read == claim => (read, false),
        _ => (Status::Unknown, true),
    }
}
