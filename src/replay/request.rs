//! What a replay is asked for: the document of the API, as it is also kept in the journal. Pure.

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::units;
use crate::event::{EventId, NotificationId, OrderId, SourceName, Status, Verdict};
use crate::store::replaying::{Selection, Wanted};
use crate::store::{Filter, KeptOutcome};

/// Ids in one replay: as many as fit into a request of the API.
pub const MAX_IDS: usize = 1500;
const DEFAULT_RATE: Rate = Rate(NonZeroU32::new(50));
const MAX_RATE: u32 = 1_000_000;
/// AMQP's short strings.
const MAX_NAME: usize = 255;

/// How many events a second; `None`: as many as are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub Option<NonZeroU32>);

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which events.
    pub selection: Selection,
    /// How fast.
    pub rate: Rate,
    /// To where, if not to the relay's own consumers.
    pub elsewhere: Option<Elsewhere>,
    /// Only look.
    pub dry_run: bool,
    /// Why; kept with the audit.
    pub reason: String,
    /// The document itself, times made absolute: what the journal keeps.
    pub kept: Value,
}

/// An exchange that is not the relay's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its name; empty: the broker's default one, which takes a queue's name as its key.
    pub exchange: String,
    /// Instead of each event's own key.
    pub routing_key: Option<String>,
}

impl Request {
    /// Reads a document. Unknown members are refused: a filter that was not understood would replay everything.
    ///
    /// # Errors
    /// What is wrong, in a sentence that says what to write.
    pub fn read(document: &Value, now: Timestamp) -> Result<Self, String> {
        let members = document.as_object().ok_or("the document is an object")?;
        let mut reader = Reader { members, used: Vec::new(), now, absolute: Map::new() };
        let filter = Filter {
            source: reader.parsed("source", SourceName::new, "a name of [a-z0-9-], 1 to 32 characters")?,
            order: reader.parsed("order_id", OrderId::new, "at least one character")?,
            outcome: reader.word("outcome", KeptOutcome::parse, KeptOutcome::ALL)?,
            status: reader.word("status", Status::parse, Status::ALL)?,
            verdict: reader.word("verdict", Verdict::parse, Verdict::ALL)?,
            since: reader.time("since")?,
            until: reader.time("until")?,
        };
        let ids = reader.ids()?;
        let dead = reader.flag("dead_letters")?;
        let dry_run = reader.flag("dry_run")?;
        let rate = reader.rate()?;
        let elsewhere = reader.elsewhere()?;
        let reason = reader.text("reason")?.unwrap_or_default().trim().to_owned();
        if reason.chars().count() > 500 || reason.chars().any(char::is_control) {
            return Err("reason: at most 500 characters in one line".to_owned());
        }
        let filtered = reader.used.iter().any(|name| FILTERS.contains(name));
        if filtered && (ids.is_some() || dead) {
            return Err("filters stand alone: leave ids and dead_letters out".to_owned());
        }
        if dead && elsewhere.is_some() {
            return Err("dead letters go to the sink that refused them: leave exchange and routing_key out".to_owned());
        }
        if let Some(unknown) = members.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            let unknown: String = unknown.chars().take(40).collect();
            return Err(format!("{}: there is no such member", unknown.escape_debug()));
        }
        let mut kept = members.clone();
        kept.extend(reader.absolute);
        kept.remove("dry_run");
        let selection = match (ids, dead) {
            (Some(ids), false) => Selection::Ids(ids),
            (ids, true) => Selection::DeadLetters(ids.unwrap_or_default()),
            (None, false) => Selection::Filter(filter),
        };
        Ok(Self { selection, rate, elsewhere, dry_run, reason, kept: Value::Object(kept) })
    }
}

const FILTERS: [&str; 7] = ["source", "order_id", "outcome", "status", "verdict", "since", "until"];
const KNOWN: [&str; 14] = [
    "source",
    "order_id",
    "outcome",
    "status",
    "verdict",
    "since",
    "until",
    "ids",
    "dead_letters",
    "dry_run",
    "rate",
    "exchange",
    "routing_key",
    "reason",
];

struct Reader<'d> {
    members: &'d Map<String, Value>,
    used: Vec<&'static str>,
    now: Timestamp,
    /// Times that were said relative to now.
    absolute: Map<String, Value>,
}

impl<'d> Reader<'d> {
    fn value(&mut self, name: &'static str) -> Option<&'d Value> {
        let value = self.members.get(name).filter(|value| !value.is_null())?;
        self.used.push(name);
        Some(value)
    }

    fn text(&mut self, name: &'static str) -> Result<Option<&'d str>, String> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| format!("{name}: a text"))
    }

    fn parsed<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        what: &str,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| format!("{name}: {what}"))
    }

    fn word<T: std::fmt::Display>(
        &mut self,
        name: &'static str,
        parse: fn(&str) -> Option<T>,
        all: &[T],
    ) -> Result<Option<T>, String> {
        let words = all.iter().map(T::to_string).collect::<Vec<_>>().join(", ");
        self.parsed(name, parse, &format!("one of {words}"))
    }

    fn time(&mut self, name: &'static str) -> Result<Option<Timestamp>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let ago = || units::duration(text).and_then(|ago| self.now.checked_sub(ago).ok());
        let time: Timestamp = text
            .parse()
            .ok()
            .or_else(ago)
            .ok_or_else(|| format!("{name}: a time like 2026-11-20T08:15:30Z, or how long ago, like 2h"))?;
        self.absolute.insert(name.to_owned(), json!(time.to_string()));
        Ok(Some(time))
    }

    fn flag(&mut self, name: &'static str) -> Result<bool, String> {
        let Some(value) = self.value(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| format!("{name}: true or false"))
    }

    fn ids(&mut self) -> Result<Option<Vec<Wanted>>, String> {
        let Some(value) = self.value("ids") else { return Ok(None) };
        let list = value.as_array().filter(|list| !list.is_empty() && list.len() <= MAX_IDS);
        let list = list.ok_or_else(|| format!("ids: a list of 1 to {MAX_IDS} ids"))?;
        let wanted = list
            .iter()
            .enumerate()
            .map(|(at, id)| id.as_str().and_then(wanted).ok_or_else(|| format!("ids: number {} is no id", at + 1)));
        wanted.collect::<Result<_, _>>().map(Some)
    }

    fn rate(&mut self) -> Result<Rate, String> {
        let wrong = || format!("rate: events a second, like 50/s, up to {MAX_RATE}/s, or max");
        match self.value("rate") {
            None => Ok(DEFAULT_RATE),
            Some(Value::String(text)) => rate(text).ok_or_else(wrong),
            Some(Value::Number(number)) => number.as_u64().and_then(|n| rate(&n.to_string())).ok_or_else(wrong),
            Some(_) => Err(wrong()),
        }
    }

    fn elsewhere(&mut self) -> Result<Option<Elsewhere>, String> {
        let exchange = self.text("exchange")?;
        let routing_key = self.text("routing_key")?;
        for (name, text) in [("exchange", exchange), ("routing_key", routing_key)] {
            if text.is_some_and(|text| text.len() > MAX_NAME || text.chars().any(char::is_control)) {
                return Err(format!("{name}: at most {MAX_NAME} bytes in one line"));
            }
        }
        match (exchange, routing_key) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err("routing_key: say to which exchange too".to_owned()),
            (Some(""), None) => Err("exchange: the default exchange wants a queue's name as routing_key".to_owned()),
            (Some(exchange), routing_key) => {
                Ok(Some(Elsewhere { exchange: exchange.to_owned(), routing_key: routing_key.map(str::to_owned) }))
            }
        }
    }
}

/// An id of a notification or of an event.
pub fn wanted(text: &str) -> Option<Wanted> {
    let (event, notification) = (EventId::parse(text)?, NotificationId::parse(text)?);
    Some(if event.is_events() { Wanted::Event(event) } else { Wanted::Notification(notification) })
}

/// `50/s`, `50` or `max`.
pub fn rate(text: &str) -> Option<Rate> {
    if text == "max" {
        return Some(Rate(None));
    }
    let number = text.strip_suffix("/s").unwrap_or(text);
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|number| digits && *number <= MAX_RATE)?;
    NonZeroU32::new(number).map(|number| Rate(Some(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-20T08:00:00Z".parse().expect("a time")
    }

    #[track_caller]
    fn refused(document: Value, why: &str) {
        let error = Request::read(&document, now()).map(|_| ()).expect_err("must be refused");
        assert!(error.contains(why), "{document}: {error}");
    }

    #[test]
    fn what_is_not_understood_replays_nothing() {
        refused(json!([]), "object");
        refused(json!({ "sourse": "paygol" }), "no such member");
        refused(json!({ "source": "Pay Gol" }), "source");
        refused(json!({ "source": 1 }), "text");
        refused(json!({ "order_id": "" }), "order_id");
        refused(json!({ "status": "payed" }), "one of paid");
        refused(json!({ "verdict": "refuse" }), "one of fulfil");
        refused(json!({ "since": "yesterday" }), "since");
        refused(json!({ "ids": [] }), "ids");
        refused(json!({ "ids": ["x"] }), "number 1");
        refused(json!({ "ids": vec!["019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10"; MAX_IDS + 1] }), "ids");
        refused(json!({ "ids": ["019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10"], "status": "paid" }), "alone");
        refused(json!({ "dead_letters": true, "source": "paygol" }), "alone");
        refused(json!({ "dead_letters": true, "exchange": "x" }), "dead letters");
        refused(json!({ "dry_run": "yes" }), "true or false");
        for rate in ["0/s", "0", "-1", "1.5", "1/m", "", "1000001", " 1"] {
            refused(json!({ "rate": rate }), "rate");
        }
        refused(json!({ "rate": 0 }), "rate");
        refused(json!({ "rate": 1.5 }), "rate");
        refused(json!({ "routing_key": "x" }), "exchange");
        refused(json!({ "exchange": "" }), "routing_key");
        refused(json!({ "exchange": "x".repeat(256) }), "exchange");
        refused(json!({ "reason": "a\nb" }), "reason");
    }

    #[test]
    fn what_the_journal_keeps_means_the_same_later() {
        let document = json!({ "source": "paygol", "since": "2h", "rate": "max", "dry_run": true });
        let request = Request::read(&document, now()).expect("good");
        assert!(request.dry_run && request.rate == Rate(None));
        let later = now() + jiff::SignedDuration::from_hours(50);
        let again = Request::read(&request.kept, later).expect("reads");
        let Selection::Filter(filter) = again.selection else { panic!("a filter") };
        assert_eq!(filter.since, Some("2026-11-20T06:00:00Z".parse().expect("a time")));
        assert!(!again.dry_run);
        assert_eq!(Request::read(&json!({}), now()).expect("everything").rate, DEFAULT_RATE);
    }
}
