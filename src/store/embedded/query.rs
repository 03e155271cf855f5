//! Reading for people and programs: lists, single notifications, the feed.

use std::sync::mpsc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::Live;
use super::committer::Job;
use super::journal::{ReadError, Stored};
use super::raw;
use super::record::{Record, Stamped, Statement, time};
use super::sinks::{self, Oldest, OrderKey, owed};
use super::state::{Key, Lane, Value};
use super::timeline::DELIVERY_SEARCH;
use crate::event::{NotificationId, OrderId, Position, rfc3339};
use crate::store::{Due, FeedEntry, Filter, Item, Kept, Page, Settled, StoreError, Verification};

/// Heads that one page looks at, at most: some tens of milliseconds.
pub(super) const LOOK_BACK: usize = if cfg!(test) { 400 } else { 15_000 };
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

/// What a page holds so far.
struct Found<'f> {
    filter: &'f Filter,
    limit: usize,
    statements: Vec<Statement>,
    next: Option<Position>,
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
    pub(super) fn look(&self, keys: Vec<Key>) -> Result<Vec<Option<Value>>, StoreError> {
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
                    found.push(sinks::Found { position: stored.position, order });
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

    /// A page of notifications, newest first. It ends before it is full where it has looked at [`LOOK_BACK`] heads.
    pub fn notifications(&self, filter: &Filter, before: Option<Position>, limit: usize) -> Result<Page, StoreError> {
        let from = before.map_or(self.reader.head(), |before| Position(before.0.saturating_sub(1)));
        let mut page = Found { filter, limit, statements: Vec::new(), next: None };
        let from = match &filter.order {
            Some(order) => self.of_order(order, from, &mut page)?,
            None => Some(from),
        };
        if let Some(from) = from {
            let mut looked_at = 0;
            for stored in self.reader.heads_back(from) {
                looked_at += 1;
                let Some(stored) = readable(stored)? else { continue };
                if looked_at > LOOK_BACK || page.is_full() {
                    page.next = Some(Position(stored.position.0 + 1));
                    break;
                }
                page.take(&stored);
            }
        }
        Ok(Page { notifications: self.items(&page.statements)?, next: page.next })
    }

    /// What the index knows of an order, from a position down. Gives where to look on by oneself: where the newest that
    /// are remembered end, if older ones were forgotten.
    fn of_order(&self, order: &OrderId, from: Position, page: &mut Found) -> Result<Option<Position>, StoreError> {
        let accounts = match self.look(vec![self.keys.accounts()])?.pop().flatten() {
            Some(Value::Accounts(accounts)) => accounts,
            _ => return Ok(None),
        };
        let states = self.look(accounts.iter().map(|account| self.keys.order(account, order)).collect())?;
        let (mut known, mut floor) = (Vec::new(), None);
        for state in states {
            let Some(Value::Order(state)) = state else { continue };
            let is_asked_for = |lane: &&Lane| page.filter.source.as_ref().is_none_or(|source| *source == lane.source);
            for lane in state.lanes.iter().filter(is_asked_for) {
                known.extend_from_slice(&lane.history);
                if lane.history.len() == Lane::HISTORY {
                    floor = floor.max(lane.history.first().copied());
                }
            }
        }
        known.sort_unstable();
        for at in known.into_iter().rev().filter(|at| *at <= from && floor.is_none_or(|floor| *at >= floor)) {
            if page.is_full() {
                page.next = Some(Position(at.0 + 1));
                return Ok(None);
            }
            if let Some(stored) = self.reader.head_at(at).transpose().map(readable).transpose()?.flatten() {
                page.take(&stored);
            }
        }
        Ok(floor.map(|floor| from.min(Position(floor.0.saturating_sub(1)))))
    }

    fn items(&self, statements: &[Statement]) -> Result<Vec<Item>, StoreError> {
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
        let deliveries = self.deliveries(stored.position, DELIVERY_SEARCH)?;
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
        let Some(item) = self.items(&[*statement])?.pop() else { return Ok(None) };
        Ok(Some(Kept { item, request, verification, event, deliveries }))
    }
}

impl Found<'_> {
    /// Whether what comes now belongs to the next page.
    fn is_full(&self) -> bool {
        self.statements.len() >= self.limit
    }

    fn take(&mut self, stored: &Stored) {
        if let Some(Record::Notification(statement)) = Stamped::decode(&stored.payload).map(|stamped| stamped.record)
            && matches(self.filter, &statement)
        {
            self.statements.push(*statement);
        }
    }
}

/// What was read; `None` where it is damaged, which was told when it was found.
fn readable(stored: Result<Stored, ReadError>) -> Result<Option<Stored>, StoreError> {
    match stored {
        Ok(stored) => Ok(Some(stored)),
        Err(ReadError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error.into()),
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
