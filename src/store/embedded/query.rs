//! Reading for people and programs: lists, single notifications, timelines, the feed.

use std::sync::mpsc;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, json};

use super::Live;
use super::committer::Job;
use super::journal::{ReadError, Stored};
use super::raw;
use super::record::{Expected, Record, Stamped, Statement, time};
use super::sinks::{Found, Oldest, OrderKey, owed};
use super::state::{Key, Lane, Value};
use crate::event::{NotificationId, OrderId, Position, SourceName, rfc3339};
use crate::store::{
    Delivery, Due, FeedEntry, Filter, Item, Kept, Page, Settled, StoreError, TimelineEntry, Verification,
};

/// Heads that are looked at to find when a sink took an event.
const DELIVERY_SEARCH: usize = 20_000;
/// Positions that one step of the relay's walk looks at.
const WALK: usize = 2048;

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io { path, source } => Self::Read { path, source },
            ReadError::Damaged { path, offset, .. } => Self::Damaged(format!("byte {offset} of {}", path.display())),
        }
    }
}

/// A record that carries an event, or points to one.
pub(super) struct Told {
    pub(super) statement: Box<Statement>,
    pub(super) event: Bytes,
    replay: Option<String>,
    /// Whether the feed's readers are told.
    in_feed: bool,
}

/// What a claim holds.
pub enum Claimed {
    /// An event to hand out.
    Due(Due),
    /// An event that was kept and cannot be read any more, and why.
    Lost(Position, String),
    /// An event whose body was retired.
    Retired(Position),
}

impl Live {
    /// The values of some keys as they stand now, the committer's memory included.
    fn look(&self, keys: Vec<Key>) -> Result<Vec<Option<Value>>, StoreError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let sent = self.jobs.get().is_some_and(|jobs| jobs.send(Job::Look(keys.clone(), reply)).is_ok());
        match answer.recv() {
            Ok(values) if sent => Ok(values),
            _ => {
                let read = |key: &Key| self.index.get(key).map_err(|error| StoreError::Index(error.to_string()));
                keys.iter().map(read).collect()
            }
        }
    }

    pub(super) fn told(&self, stored: Stored) -> Result<Option<Told>, StoreError> {
        let Some(stamped) = Stamped::decode(&stored.payload) else { return Ok(None) };
        match stamped.record {
            Record::Notification(statement) | Record::Settlement(statement) => {
                let event = stored.event.filter(|event| !event.is_empty());
                Ok(event.map(|event| Told { statement, event, replay: None, in_feed: true }))
            }
            Record::Redelivery(again) if again.position < stored.position => {
                let told = self.reader.read(again.position)?.map(|stored| self.told(stored)).transpose()?.flatten();
                let in_feed = again.is_in_feed();
                Ok(told.map(|told| Told { replay: Some(again.replay), in_feed, ..told }))
            }
            _ => Ok(None),
        }
    }

    /// The feed above a position.
    pub fn events(&self, after: Position, limit: usize) -> Result<Vec<FeedEntry>, StoreError> {
        let mut entries = Vec::new();
        for stored in self.reader.records(Position(after.0 + 1)) {
            let stored = match stored {
                Ok(stored) => stored,
                Err(ReadError::Damaged { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let position = stored.position;
            if let Some(told) = self.told(stored)?.filter(|told| told.in_feed) {
                entries.push(FeedEntry { position, replay: told.replay, event: told.event });
            }
            if entries.len() >= limit {
                break;
            }
        }
        Ok(entries)
    }

    /// Claims what is due. An event that is in the journal and does not read any more is given with why.
    pub fn due(&self, sink: &str, limit: usize) -> Result<Vec<Claimed>, StoreError> {
        let claimed = self.sinks.claim(sink, limit, |from, limit| {
            let (mut found, mut next) = (Vec::new(), from);
            for stored in self.reader.heads(from).take(WALK) {
                let stored = match stored {
                    Ok(stored) => stored,
                    Err(ReadError::Damaged { position, .. }) => {
                        next = Position(position.0 + 1);
                        continue;
                    }
                    Err(error) => return Err(StoreError::from(error)),
                };
                next = Position(stored.position.0 + 1);
                if let Some(stamped) = Stamped::decode(&stored.payload)
                    && let Some(order) = owed(&stamped.record)
                {
                    let order = match &stamped.record {
                        Record::Redelivery(again) => self.order_at(again.position)?,
                        _ => order,
                    };
                    found.push(Found { position: stored.position, order });
                }
                if found.len() >= limit {
                    break;
                }
            }
            Ok((found, next))
        })?;
        let read = |(position, attempts): &(Position, u32)| self.claimed(*position, *attempts);
        let due: Result<Vec<_>, _> = claimed.iter().map(read).collect();
        if due.is_err() {
            // Nobody hears of these claims, so nobody would ever end them.
            for (position, _) in claimed {
                self.sinks.settle(sink, position, position, Settled::Released);
            }
        }
        due
    }

    /// The order of the event at a position. One whose record does not read has none: it is handed out to nobody.
    fn order_at(&self, position: Position) -> Result<Option<OrderKey>, StoreError> {
        let head = match self.reader.head_at(position) {
            Ok(head) => head,
            Err(ReadError::Damaged { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let record = head.and_then(|stored| Stamped::decode(&stored.payload)).map(|stamped| stamped.record);
        Ok(record.and_then(|record| owed(&record)).flatten())
    }

    fn claimed(&self, position: Position, attempts: u32) -> Result<Claimed, StoreError> {
        let lost = |why: &str| Ok(Claimed::Lost(position, why.to_owned()));
        let stored = match self.reader.read(position) {
            Ok(Some(stored)) => stored,
            Ok(None) => return lost("its record is not in the journal any more"),
            Err(ReadError::Damaged { .. }) => return lost("its record in the journal is damaged"),
            Err(error) => return Err(error.into()),
        };
        let damaged = stored.parts_damaged;
        let again = match Stamped::decode(&stored.payload).map(|stamped| stamped.record) {
            Some(Record::Redelivery(again)) => Some(again),
            _ => None,
        };
        let told = match (self.told(stored), again) {
            (Ok(Some(told)), _) => told,
            (Err(StoreError::Damaged(_)), _) => return lost("the record that it repeats is damaged"),
            (Err(error), _) => return Err(error),
            // Its dead letter was closed because it was on its way again: it must not vanish now.
            (Ok(None), Some(again)) if !again.sink.is_empty() || self.is_damaged(again.position)? => {
                return lost("the body of the event that it repeats is damaged or gone");
            }
            (Ok(None), None) if damaged => return lost("its body in the journal is damaged"),
            // Its body was retired, which happens only to what every sink has settled: this one began after that, or it
            // was to be sent again without need.
            (Ok(None), _) => {
                tracing::warn!(%position, "the body of an event was retired: it is not handed out");
                return Ok(Claimed::Retired(position));
            }
        };
        self.due_of(position, told, attempts)
            .map_or_else(|| lost("its record names no event"), |due| Ok(Claimed::Due(due)))
    }

    /// Whether something of a record does not read, or it is not there at all.
    fn is_damaged(&self, position: Position) -> Result<bool, StoreError> {
        match self.reader.read(position) {
            Ok(stored) => Ok(stored.is_none_or(|stored| stored.parts_damaged)),
            Err(ReadError::Damaged { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// What a sink is handed of an event that is claimed at a position.
    pub(super) fn due_of(&self, position: Position, told: Told, attempts: u32) -> Option<Due> {
        let asked_by =
            told.replay.as_ref().and_then(|replay| self.ledger.replay(replay)).and_then(|job| job.asked_by());
        Some(Due {
            position,
            source: told.statement.source.clone(),
            event: told.statement.event?,
            event_type: format!("{}.{}", told.statement.kind, told.statement.status),
            received_at: told.statement.received_at,
            replay: told.replay,
            asked_by,
            attempts,
            body: told.event,
        })
    }

    /// The record of the event that is claimed at a position: another one's where that is a redelivery.
    pub fn event_at(&self, position: Position) -> Position {
        let stored = self.reader.read(position).ok().flatten();
        match stored.and_then(|stored| Stamped::decode(&stored.payload)).map(|stamped| stamped.record) {
            Some(Record::Redelivery(again)) => again.position,
            _ => position,
        }
    }

    /// When the oldest event arrived that a sink has not settled, as far as a look at the next records finds it.
    pub fn oldest(&self, oldest: Oldest) -> Option<jiff::Timestamp> {
        let (from, limit) = match oldest {
            Oldest::At(position) => (position, 1),
            Oldest::From(position) => (position, WALK),
        };
        let heads = self.reader.heads(from).take(limit).filter_map(Result::ok);
        heads.filter_map(|stored| Stamped::decode(&stored.payload)).find_map(|stamped| match &stamped.record {
            Record::Notification(statement) | Record::Settlement(statement) => {
                owed(&stamped.record).map(|_| statement.received_at)
            }
            Record::Redelivery(_) => Some(stamped.committed_at),
            _ => None,
        })
    }

    /// A page of notifications, newest first.
    pub fn notifications(&self, filter: &Filter, before: Option<Position>, limit: usize) -> Result<Page, StoreError> {
        let from = before.map_or(self.reader.head(), |before| Position(before.0.saturating_sub(1)));
        let mut found: Vec<Box<Statement>> = Vec::new();
        let mut next = None;
        for stored in self.reader.heads_back(from) {
            let stored = match stored {
                Ok(stored) => stored,
                Err(ReadError::Damaged { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            if found.len() == limit {
                next = Some(Position(stored.position.0 + 1));
                break;
            }
            if let Some(Record::Notification(statement)) = Stamped::decode(&stored.payload).map(|s| s.record)
                && matches(filter, &statement)
            {
                found.push(statement);
            }
        }
        Ok(Page { notifications: self.items(&found)?, next })
    }

    fn items(&self, statements: &[Box<Statement>]) -> Result<Vec<Item>, StoreError> {
        let keys = statements.iter().map(|s| self.keys.seen(&s.source, &s.idempotency)).collect();
        let seen = self.look(keys)?;
        Ok(statements.iter().zip(seen).map(|(statement, seen)| item(statement, seen)).collect())
    }

    /// One notification.
    pub fn notification(&self, id: NotificationId) -> Result<Option<Kept>, StoreError> {
        let Some(stored) = self.reader.read(id.position())? else { return Ok(None) };
        let Some(Stamped { record: Record::Notification(statement), .. }) = Stamped::decode(&stored.payload) else {
            return Ok(None);
        };
        if statement.id != id {
            return Ok(None);
        }
        let deliveries = self.deliveries(stored.position)?;
        let event = stored
            .event
            .as_deref()
            .filter(|event| !event.is_empty())
            .and_then(|event| RawValue::from_string(String::from_utf8_lossy(event).into_owned()).ok());
        let verification = Verification {
            scheme: statement.scheme.clone(),
            key: statement.key,
            signed_hash: statement.signed.map(|signed| signed.hash.to_string()),
        };
        let request = stored.raw.as_deref().filter(|raw| !raw.is_empty()).and_then(raw::decode);
        let Some(item) = self.items(&[statement])?.pop() else { return Ok(None) };
        Ok(Some(Kept { item, request, verification, event, deliveries }))
    }

    /// Which sinks have an event, and since when, as far as that is found near it.
    fn deliveries(&self, position: Position) -> Result<Vec<Delivery>, StoreError> {
        let mut deliveries = Vec::new();
        for sink in self.sinks.settled_by(position) {
            let mut at = None;
            for stored in self.reader.heads(Position(position.0 + 1)).take(DELIVERY_SEARCH) {
                let Ok(stored) = stored else { continue };
                let Some(stamped) = Stamped::decode(&stored.payload) else { continue };
                match &stamped.record {
                    Record::Progress(progress)
                        if progress.sink == sink
                            && (progress.watermark >= position || progress.beyond.contains(&position)) =>
                    {
                        at = Some((stamped.committed_at, "delivered".to_owned(), 1));
                        break;
                    }
                    // The sink began later than the event: it is not due there, and was never delivered.
                    Record::SinkStart(start) if start.sink == sink && start.after >= position => break,
                    Record::DeadLetter(letter) if letter.sink == sink && letter.position == position => {
                        at = Some((stamped.committed_at, format!("dead: {}", letter.reason), letter.attempts));
                        break;
                    }
                    _ => {}
                }
            }
            if let Some((at, result, attempt)) = at {
                deliveries.push(Delivery { sink, at: rfc3339(at), attempt, result });
            }
        }
        Ok(deliveries)
    }

    /// An order's timeline.
    pub fn order(&self, source: &SourceName, order: &OrderId) -> Result<Vec<TimelineEntry>, StoreError> {
        let terms = self.terms.now();
        let Some(account) = terms.accounts.get(source) else { return Ok(Vec::new()) };
        let value = self.look(vec![self.keys.order(account, order)])?.pop().flatten();
        let Some(Value::Order(state)) = value else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for position in state.find_lane(source).map(|lane: &Lane| lane.history.clone()).unwrap_or_default() {
            let Some(stored) = self.reader.read(position)? else { continue };
            let Some(stamped) = Stamped::decode(&stored.payload) else { continue };
            match stamped.record {
                Record::Expectation(expected) => entries.push(expectation_entry(&expected, stamped.committed_at)),
                Record::Notification(statement) => {
                    entries.push(notification_entry(&statement));
                    entries.extend(statement.event.map(|_| event_entry(&statement, "event", stamped.committed_at)));
                    self.add_deliveries(position, &mut entries)?;
                }
                Record::Settlement(statement) => {
                    entries.push(event_entry(&statement, "settlement", stamped.committed_at));
                    self.add_deliveries(position, &mut entries)?;
                }
                _ => {}
            }
        }
        entries.sort_by(|a, b| a.at.cmp(&b.at));
        Ok(entries)
    }

    fn add_deliveries(&self, position: Position, entries: &mut Vec<TimelineEntry>) -> Result<(), StoreError> {
        for delivery in self.deliveries(position)? {
            let more = object(json!({"sink": delivery.sink, "attempt": delivery.attempt, "result": delivery.result}));
            entries.push(TimelineEntry { at: delivery.at, what: "delivery", more });
        }
        Ok(())
    }
}

pub(super) fn matches(filter: &Filter, statement: &Statement) -> bool {
    filter.source.as_ref().is_none_or(|source| *source == statement.source)
        && filter.order.as_ref().is_none_or(|order| statement.order.as_ref() == Some(order))
        && filter.outcome.is_none_or(|outcome| outcome == statement.outcome)
        && filter.status.is_none_or(|status| status == statement.status)
        && filter.verdict.is_none_or(|verdict| verdict == statement.verdict)
        && filter.since.is_none_or(|since| statement.received_at >= since)
        && filter.until.is_none_or(|until| statement.received_at < until)
}

pub(super) fn item(statement: &Statement, seen: Option<Value>) -> Item {
    let (times_seen, last_seen) = match seen {
        Some(Value::Seen(seen)) if seen.original.id == statement.id => (seen.times_seen, time(seen.last_seen)),
        _ => (1, statement.received_at),
    };
    Item {
        id: statement.id,
        event_id: statement.event,
        source: statement.source.clone(),
        provider: statement.provider.clone(),
        outcome: statement.outcome,
        received_at: rfc3339(statement.received_at),
        kind: statement.kind,
        status: statement.status,
        order_id: statement.order.clone(),
        transaction_id: statement.transaction.clone(),
        amount: statement.amount.clone(),
        assurance: statement.assurance,
        expectation: statement.expectation,
        verdict: statement.verdict,
        reasons: statement.reasons.clone(),
        times_seen,
        last_seen_at: rfc3339(last_seen),
    }
}

fn object(value: serde_json::Value) -> Map<String, serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn expectation_entry(expected: &Expected, at: jiff::Timestamp) -> TimelineEntry {
    let more = object(json!({
        "kind": expected.kind, "amount": expected.amount, "expires_at": rfc3339(expected.expires_at),
        "session_id": expected.session,
    }));
    TimelineEntry { at: rfc3339(at), what: "expectation", more }
}

fn notification_entry(statement: &Statement) -> TimelineEntry {
    let more = object(json!({
        "id": statement.id, "outcome": statement.outcome, "kind": statement.kind, "status": statement.status,
        "transaction_id": statement.transaction, "amount": statement.amount, "assurance": statement.assurance,
    }));
    TimelineEntry { at: rfc3339(statement.received_at), what: "notification", more }
}

fn event_entry(statement: &Statement, what: &'static str, at: jiff::Timestamp) -> TimelineEntry {
    let more = object(json!({
        "id": statement.event, "type": format!("{}.{}", statement.kind, statement.status),
        "verdict": statement.verdict, "reasons": statement.reasons, "expectation": statement.expectation,
        "sequence": statement.sequence, "notification_id": statement.id, "settles": statement.settles,
        "assurance": statement.assurance, "by_hand": statement.by_hand,
    }));
    TimelineEntry { at: rfc3339(at), what, more }
}
