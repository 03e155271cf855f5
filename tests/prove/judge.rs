//! The judge: given everything that was posted, acknowledged, stored and delivered, says whether the promise was kept.
//!
//! A pure function over one [`History`], so that it can be shown to fail (`self_check`). An acknowledgement is an
//! obligation: acknowledged is a part of stored, stored is a part of delivered, and nothing else is in either. What
//! a fault itself destroyed on the disk is excluded by its number, never by its kind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde_json::Value;

use crate::consumer::Message;

/// What the daemon has to say of a notification: the same for every repeat of it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// From 0. Those of one order are posted one after another, by rising numbers.
    pub number: u64,
    pub name: Name,
    /// The amount as sent, where the provider says one.
    pub amount: Option<String>,
    /// The body as sent, where it is kept as it came.
    pub body: Option<Vec<u8>>,
    /// What the event has to say of the expectation: proof that an acknowledged registration is still there. `None`
    /// where the clock was wrong meanwhile.
    pub expectation: Option<&'static str>,
}

/// What tells notifications apart from outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub source: String,
    pub order: String,
    pub transaction: Option<String>,
    /// `<kind>.<status>`
    pub event_type: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transaction = self.transaction.as_deref().unwrap_or("-");
        write!(f, "{} {}/{}/{transaction}", self.event_type, self.source, self.order)
    }
}

/// A notification that the daemon lists.
#[derive(Clone, Debug)]
pub struct Stored {
    pub name: Name,
    pub event: String,
    pub amount: Option<String>,
    /// Body and event as they are kept, where they were looked at and are not retired.
    pub body: Option<Vec<u8>>,
    pub told: Option<Value>,
}

/// Everything that happened, by the time nothing more happens.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub sent: Vec<Claim>,
    /// Numbers of what was answered with success.
    pub acknowledged: BTreeSet<u64>,
    /// Numbers of what a fault destroyed where it lay; the daemon must have told so.
    pub destroyed: BTreeSet<u64>,
    /// Oldest first.
    pub stored: Vec<Stored>,
    /// As they came, repeats included.
    pub delivered: Vec<Message>,
    /// Faults that really struck, and how many are enough.
    pub faults: u64,
    pub enough: u64,
    /// A fresh notification went through at the end.
    pub alive: bool,
}

/// What is counted in a history that is as it must be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub acknowledged: u64,
    pub repeated: u64,
    pub destroyed: u64,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Acknowledged and not stored.
    Lost(Name),
    /// Stored and not delivered.
    Undelivered(Name),
    /// Delivered or stored, and nobody sent it.
    Invented(Name),
    /// Stored under two ids, or delivered under another one than stored.
    Doubled(Name),
    /// Not what was sent, or a repeat that differs from the first.
    Altered(Name),
    /// An order's first deliveries, or its records, do not come in its order.
    Disordered(Name),
    /// Too little went wrong to prove anything.
    TooFewFaults { struck: u64, enough: u64 },
    /// Nothing was acknowledged.
    NothingHappened,
    /// It takes or delivers nothing any more.
    Dead,
}

/// Whether the promise was kept.
///
/// # Errors
/// Everything that is wrong.
pub fn judge(history: &History) -> Result<Counts, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let claims: HashMap<&Name, &Claim> = history.sent.iter().map(|claim| (&claim.name, claim)).collect();
    let stored = judge_stored(history, &claims, &mut wrong);
    let repeated = judge_delivered(history, &claims, &stored, &mut wrong);
    for claim in history.sent.iter().filter(|claim| history.acknowledged.contains(&claim.number)) {
        if !stored.contains_key(&claim.name) && !history.destroyed.contains(&claim.number) {
            wrong.push(Wrong::Lost(claim.name.clone()));
        }
    }
    if history.faults < history.enough {
        wrong.push(Wrong::TooFewFaults { struck: history.faults, enough: history.enough });
    }
    if history.acknowledged.is_empty() {
        wrong.push(Wrong::NothingHappened);
    }
    if !history.alive {
        wrong.push(Wrong::Dead);
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let gone = history.acknowledged.intersection(&history.destroyed).count();
    Ok(Counts { acknowledged: history.acknowledged.len() as u64, repeated, destroyed: gone as u64 })
}

fn judge_stored<'a>(
    history: &'a History,
    claims: &HashMap<&Name, &Claim>,
    wrong: &mut Vec<Wrong>,
) -> HashMap<&'a Name, &'a Stored> {
    let mut found: HashMap<&Name, &Stored> = HashMap::new();
    let mut newest: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for stored in &history.stored {
        let name = &stored.name;
        let Some(claim) = claims.get(name) else {
            wrong.push(Wrong::Invented(name.clone()));
            continue;
        };
        if found.insert(name, stored).is_some() {
            wrong.push(Wrong::Doubled(name.clone()));
        }
        let other_body = stored.body.as_ref().zip(claim.body.as_ref()).is_some_and(|(kept, sent)| kept != sent);
        if stored.amount != claim.amount || other_body {
            wrong.push(Wrong::Altered(name.clone()));
        }
        let last = newest.entry((&name.source, &name.order)).or_default();
        if claim.number < *last {
            wrong.push(Wrong::Disordered(name.clone()));
        }
        *last = claim.number;
    }
    found
}

/// The number of repeats.
fn judge_delivered(
    history: &History,
    claims: &HashMap<&Name, &Claim>,
    stored: &HashMap<&Name, &Stored>,
    wrong: &mut Vec<Wrong>,
) -> u64 {
    let destroyed: BTreeSet<&Name> =
        history.sent.iter().filter(|c| history.destroyed.contains(&c.number)).map(|c| &c.name).collect();
    // Where the newest of an order is destroyed, and the index with it, nothing tells that its number was given away.
    let ruined: BTreeSet<_> = destroyed.iter().map(|name| (&name.source, &name.order)).collect();
    let mut firsts: HashMap<&str, &Message> = HashMap::new();
    let mut ids: HashMap<Name, &str> = HashMap::new();
    let mut orders: HashMap<(String, String), (u64, u64)> = HashMap::new();
    let mut repeated = 0;
    for message in &history.delivered {
        let name = name_of(&message.event);
        if let Some(first) = firsts.insert(message.id(), message) {
            repeated += 1;
            if first.event != message.event || first.routing_key != message.routing_key {
                wrong.push(Wrong::Altered(name));
            }
            continue;
        }
        let Some(claim) = claims.get(&name) else {
            wrong.push(Wrong::Invented(name));
            continue;
        };
        let kept = stored.get(&name);
        let other = ids.insert(name.clone(), message.id()).is_some();
        if other || kept.is_some_and(|stored| stored.event != message.id()) {
            wrong.push(Wrong::Doubled(name.clone()));
        }
        if kept.is_none() && !destroyed.contains(&name) {
            wrong.push(Wrong::Lost(name.clone()));
        }
        let data = &message.event["data"];
        let right = data["amount"]["value"].as_str() == claim.amount.as_deref()
            && kept.and_then(|stored| stored.told.as_ref()).is_none_or(|told| *told == message.event)
            && claim.expectation.is_none_or(|word| data["expectation"] == word)
            && message.routing_key == format!("{}.{}", name.event_type, name.source)
            && message.properties["message_id"] == message.event["id"];
        if !right {
            wrong.push(Wrong::Altered(name.clone()));
        }
        // By the daemon's own count without a gap, and by the order in which they were posted.
        let sequence = data["sequence"].as_u64().unwrap_or_default();
        let (last, number) = orders.entry((name.source.clone(), name.order.clone())).or_default();
        let whole = !ruined.contains(&(&name.source, &name.order));
        if (whole && sequence != *last + 1) || (*last > 0 && claim.number <= *number) {
            wrong.push(Wrong::Disordered(name));
        }
        (*last, *number) = (sequence, claim.number);
    }
    for (name, stored) in stored {
        if !firsts.contains_key(stored.event.as_str()) && !destroyed.contains(*name) {
            wrong.push(Wrong::Undelivered((*name).clone()));
        }
    }
    repeated
}

/// What tells an event apart.
pub fn name_of(event: &Value) -> Name {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let source = text(&event["source"]);
    Name {
        source: source.strip_prefix("/sources/").unwrap_or(&source).to_owned(),
        order: text(&event["data"]["order_id"]),
        transaction: event["data"]["transaction_id"].as_str().map(str::to_owned),
        event_type: text(&event["type"]),
    }
}

/// The first few of many, for a message.
pub fn in_short(wrong: &[Wrong]) -> String {
    let some: Vec<String> = wrong.iter().take(8).map(|wrong| format!("{wrong:?}")).collect();
    format!("{} broken promises: {}{}", wrong.len(), some.join("; "), if wrong.len() > 8 { "; .." } else { "" })
}
