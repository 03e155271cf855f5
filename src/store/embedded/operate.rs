//! What an operator changes and looks at before: every write goes through the one committer and waits for the sync.

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::committer::{Job, ToRelease, ToRule};
use super::journal::{ReadError, Stored};
use super::ledger::Ledger;
use super::query::{item, matches};
use super::raw;
use super::record::{Audit, Progress, Record, Redelivery, ReplayJob, Stamped, Statement};
use super::sinks::{FEED, FORGOTTEN};
use super::state::Letter;
use super::{AMQP, Embedded, Live, send};
use crate::event::{AccountName, EventId, Position, rfc3339};
use crate::provider::{Received, Reverified};
use crate::seal::Scar;
use crate::store::operate::{ByHand, Operate, Released, Ruling, SettleError, Settlement};
use crate::store::replaying::{Consumer, DeadLetter, Found, KeptWhole, Preview, Replay, Selection, Wanted};
use crate::store::{Committed, Due, Pending, StoreError, Unavailable};

/// Heads that one look for a replay reads at most: some tens of milliseconds.
const LOOK: usize = 100_000;
/// Events that are shown before anything is done.
const SAMPLE: usize = 10;

impl Operate for Embedded {
    fn settle_by_hand(
        &self,
        event: EventId,
        ruling: Ruling,
        by: ByHand,
    ) -> Pending<'static, Result<Settlement, SettleError>> {
        let (reply, answer) = oneshot::channel();
        let entered = self.enter().and_then(|(in_flight, _, jobs)| {
            send(jobs, Job::Rule(Box::new(ToRule { event, ruling, by, reply }))).map(|()| in_flight)
        });
        Box::pin(async move {
            let _in_flight = entered?;
            answer.await.unwrap_or(Err(Unavailable::Draining.into()))
        })
    }

    fn readmit(&self, reverified: Reverified, by: ByHand) -> Pending<'static, Result<Committed, Unavailable>> {
        self.take_in(reverified.into_verified(), Some(by))
    }

    fn release_by_hand(&self, released: Released, by: ByHand) -> Pending<'static, Result<Committed, Unavailable>> {
        // A source that is configured no more has an account of its own, as it would have had without one.
        let account = self
            .0
            .terms
            .now()
            .accounts
            .get(&released.source)
            .cloned()
            .or_else(|| AccountName::new(released.source.as_str()));
        let Some(account) = account else { return Box::pin(std::future::ready(Err(Unavailable::NotReady))) };
        let (reply, answer) = oneshot::channel();
        let entered = self.enter().and_then(|(in_flight, _, jobs)| {
            send(jobs, Job::Release(Box::new(ToRelease { released, account, by, reply }))).map(|()| in_flight)
        });
        Box::pin(async move {
            let _in_flight = entered?;
            answer.await.unwrap_or(Err(Unavailable::Draining))
        })
    }

    fn dead_letters(&self, after: Position, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let live = self.live()?;
        live.ledger.letters(after, limit).iter().map(|letter| live.letter(letter)).collect()
    }

    fn dead_letters_of(&self, event: EventId) -> Result<Vec<DeadLetter>, StoreError> {
        let live = self.live()?;
        let letters = live.ledger.letters_of(event.position());
        let letters = letters.iter().map(|letter| live.letter(letter));
        letters.filter(|letter| !matches!(letter, Ok(letter) if letter.id.is_some_and(|id| id != event))).collect()
    }

    fn find(&self, selection: &Selection, after: Position, up_to: Position, limit: usize) -> Result<Found, StoreError> {
        let live = self.live()?;
        let mut found = Found { looked_up_to: after, ..Found::default() };
        match selection {
            Selection::Filter(filter) => {
                for stored in live.reader.heads(Position(after.0 + 1)).take(LOOK) {
                    let Some((at, statement)) = told(stored)? else { continue };
                    if at > up_to {
                        found.looked_up_to = up_to;
                        return Ok(found);
                    }
                    match statement {
                        Some(statement) if matches(filter, &statement) => {
                            if self.take(live, &mut found, at, &statement)? >= limit {
                                return Ok(found);
                            }
                        }
                        _ => found.looked_up_to = at,
                    }
                }
                if found.looked_up_to == after || found.looked_up_to >= live.reader.head() {
                    found.looked_up_to = up_to; // nothing more
                }
            }
            Selection::Ids(ids) => {
                for at in positions(ids).into_iter().filter(|at| *at > after && *at <= up_to) {
                    match live.named(at, ids)? {
                        Named::By(statement) if statement.event.is_some() => {
                            found.take_up(at, live.has_whole_body(at)?)
                        }
                        Named::Damaged => found.take_up(at, false),
                        Named::By(_) | Named::Not => {}
                    }
                    if found.events.len() >= limit {
                        return Ok(found);
                    }
                }
                found.looked_up_to = up_to;
            }
            Selection::DeadLetters(ids) => {
                let wanted = positions(ids);
                let letters = live.ledger.letters(after, LOOK);
                for letter in letters.into_iter().filter(|letter| letter.sink == AMQP && letter.event <= up_to) {
                    if !wanted.is_empty() && wanted.binary_search(&letter.event).is_err() {
                        found.looked_up_to = letter.event;
                        continue;
                    }
                    // What does not read stays a dead letter: sent again, it would only be closed and lost.
                    let body = live.statement(letter.event)?.is_some() && live.has_whole_body(letter.event)?;
                    found.take_up(letter.event, body);
                    if found.events.len() >= limit {
                        return Ok(found);
                    }
                }
                found.looked_up_to = up_to;
            }
        }
        Ok(found)
    }

    fn preview(&self, selection: &Selection, up_to: Position) -> Result<Preview, StoreError> {
        let live = self.live()?;
        let mut preview = Preview::default();
        let mut after = Position(0);
        while after < up_to {
            let found = self.find(selection, after, up_to, LOOK)?;
            for at in found.events.iter().take(SAMPLE.saturating_sub(preview.sample.len())) {
                if let Some(statement) = live.statement(*at)? {
                    preview.sample.push(item(&statement, None));
                }
            }
            preview.count += found.events.len() as u64;
            preview.gone += found.gone;
            after = found.looked_up_to;
        }
        if let Selection::Ids(ids) = selection {
            for id in ids {
                let at = positions(std::slice::from_ref(id)).pop().unwrap_or_default();
                preview.missing += u64::from(matches!(live.named(at, std::slice::from_ref(id))?, Named::Not));
            }
        }
        Ok(preview)
    }

    fn handed(&self, events: &[Position], replay: &Replay) -> Result<Vec<Due>, StoreError> {
        let live = self.live()?;
        let mut handed = Vec::with_capacity(events.len());
        for at in events {
            if let Some(told) = live.reader.read(*at)?.map(|stored| live.told(stored)).transpose()?.flatten() {
                let asked_by = live.ledger.replay(&replay.id).and_then(|job| job.asked_by());
                let due = live.due_of(*at, told, 0);
                handed.extend(due.map(|due| Due { replay: Some(replay.id.clone()), asked_by, ..due }));
            }
        }
        Ok(handed)
    }

    fn kept_whole(&self, at: Position) -> Result<Option<KeptWhole>, StoreError> {
        let live = self.live()?;
        let stored = match live.reader.read(at) {
            Ok(Some(stored)) => stored,
            Ok(None) | Err(ReadError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(Record::Notification(statement)) = Stamped::decode(&stored.payload).map(|stamped| stamped.record)
        else {
            return Ok(None);
        };
        let raw = stored.raw.filter(|raw| !raw.is_empty());
        Ok(Some(KeptWhole {
            item: item(&statement, None),
            request: raw.and_then(|raw| raw::received(&raw, statement.received_at)),
            event: stored.event.and_then(|event| serde_json::from_slice(&event).ok()),
            scheme: statement.scheme.clone(),
            idempotency: statement.idempotency,
            digest: statement.digest,
            signed: statement.signed,
            getid: statement.getid.clone(),
        }))
    }

    fn heal(&self, kept: &Received, scars: &[Scar], candidates: &[Zeroizing<Vec<u8>>]) -> Option<Received> {
        self.live().ok()?.seal.heal(kept, scars, candidates)
    }

    fn note_replay(
        &self,
        replay: Replay,
        redeliver: &[Position],
        sink: &str,
        asked: Option<ByHand>,
    ) -> Pending<'static, Result<Vec<Position>, Unavailable>> {
        let again = |position: &Position| {
            Record::Redelivery(Redelivery {
                replay: replay.id.clone(),
                sink: sink.to_owned(),
                position: *position,
                exchange: None,
                routing_key: None,
            })
        };
        let count = redeliver.len() as u64;
        let mut records: Vec<Record> = redeliver.iter().map(again).collect();
        if let Some(by) = asked {
            let what = if replay.ended.is_some() { "canceled" } else { "replay" };
            records.push(audit(&format!("{what}:{}", replay.id), &by));
        }
        records.push(Record::ReplayJob(record(replay)));
        let written = self.append(records);
        Box::pin(async move {
            let first = written.await?;
            Ok((first.0..first.0 + count).map(Position).collect())
        })
    }

    fn audit(&self, what: &str, by: ByHand) -> Pending<'static, Result<(), Unavailable>> {
        let written = self.append(vec![audit(what, &by)]);
        Box::pin(async move { written.await.map(drop) })
    }

    fn replays(&self) -> Vec<Replay> {
        self.live().map(|live| live.ledger.replays().into_iter().map(shown).collect()).unwrap_or_default()
    }

    fn replay(&self, id: &str) -> Option<Replay> {
        self.live().ok()?.ledger.replay(id).map(shown)
    }

    fn unsettled(&self, sink: &str, positions: &[Position]) -> Vec<Position> {
        self.live().map(|live| live.sinks.unsettled(sink, positions)).unwrap_or_default()
    }

    fn outstanding(&self, sink: &str, replay: &str) -> Result<Vec<Position>, StoreError> {
        let live = self.live()?;
        let mut positions = Vec::new();
        for stored in live.reader.heads(Position(live.sinks.watermark(sink).0 + 1)) {
            let stored = match stored {
                Ok(stored) => stored,
                Err(ReadError::Damaged { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            match Stamped::decode(&stored.payload).map(|stamped| stamped.record) {
                Some(Record::Redelivery(again)) if again.replay == replay => positions.push(stored.position),
                _ => {}
            }
        }
        Ok(live.sinks.unsettled(sink, &positions))
    }

    fn consumers(&self) -> Vec<Consumer> {
        let consumers = self.live().map(|live| live.sinks.consumers()).unwrap_or_default();
        consumers.into_iter().map(|(name, position)| Consumer { name, position }).collect()
    }

    fn forget_consumer(&self, name: &str, by: ByHand) -> Pending<'static, Result<bool, Unavailable>> {
        let Ok(live) = self.live() else { return Box::pin(std::future::ready(Err(Unavailable::NotReady))) };
        // First, so that no progress of it can be written after what ends it.
        let Some(before) = live.sinks.forget(name) else { return Box::pin(std::future::ready(Ok(false))) };
        let sink = format!("{FEED}{name}");
        let audit = audit(&format!("forgotten:{sink}"), &by);
        let end = Record::Progress(Progress { sink, watermark: FORGOTTEN, beyond: Vec::new() });
        let written = self.append(vec![audit, end]);
        let (store, name) = (self.clone(), name.to_owned());
        Box::pin(async move {
            let written = written.await;
            if written.is_err()
                && let Ok(live) = store.live()
            {
                live.sinks.remember(&name, before);
            }
            written.map(|_| true)
        })
    }
}

impl Embedded {
    /// Writes records; gives the first one's position, after the sync.
    pub(super) fn append(&self, records: Vec<Record>) -> Pending<'static, Result<Position, Unavailable>> {
        let (reply, answer) = oneshot::channel();
        let entered =
            self.enter().and_then(|(in_flight, _, jobs)| send(jobs, Job::Append(records, reply)).map(|()| in_flight));
        Box::pin(async move {
            let _in_flight = entered?;
            answer.await.unwrap_or(Err(Unavailable::Draining))
        })
    }

    /// Takes an event up; gives how many there are. Whether its body reads is seen when it is handed out.
    fn take(&self, live: &Live, found: &mut Found, at: Position, statement: &Statement) -> Result<usize, StoreError> {
        found.looked_up_to = at;
        if statement.event.is_some() {
            found.take_up(at, self.has_body(live, at)?);
        }
        Ok(found.events.len())
    }

    /// Whether there is anything left to send of an event: bodies are retired up to the horizon, but for those that are
    /// still needed.
    fn has_body(&self, live: &Live, at: Position) -> Result<bool, StoreError> {
        if at.0 > self.0.shared.horizon() {
            return Ok(true);
        }
        live.has_whole_body(at)
    }
}

impl Live {
    /// Whether one of the ids names what is at a position.
    fn named(&self, at: Position, ids: &[Wanted]) -> Result<Named, StoreError> {
        if at.0 == 0 || at > self.reader.head() {
            return Ok(Named::Not);
        }
        let stored = match self.reader.head_at(at) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(Named::Not),
            // Nobody can tell any more whether it is meant.
            Err(ReadError::Damaged { .. }) => return Ok(Named::Damaged),
            Err(error) => return Err(error.into()),
        };
        let (statement, own) = match Stamped::decode(&stored.payload).map(|stamped| stamped.record) {
            Some(Record::Notification(statement)) => (statement, true),
            // Its notification's id is that of the event that it settles.
            Some(Record::Settlement(statement)) => (statement, false),
            _ => return Ok(Named::Not),
        };
        let is_meant = |wanted: &Wanted| match wanted {
            Wanted::Event(id) => statement.event == Some(*id),
            Wanted::Notification(id) => own && statement.id == *id && statement.event.is_some(),
        };
        Ok(if ids.iter().any(is_meant) { Named::By(statement) } else { Named::Not })
    }

    /// The record at a position; `None` where it does not read.
    fn record_at(&self, at: Position) -> Result<Option<Stamped>, StoreError> {
        match self.reader.head_at(at) {
            Ok(stored) => Ok(stored.and_then(|stored| Stamped::decode(&stored.payload))),
            Err(ReadError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The statement at a position, if it reads.
    fn statement(&self, at: Position) -> Result<Option<Box<Statement>>, StoreError> {
        Ok(match self.record_at(at)?.map(|stamped| stamped.record) {
            Some(Record::Notification(statement) | Record::Settlement(statement)) => Some(statement),
            _ => None,
        })
    }

    /// Whether the body of the event at a position is there and reads.
    fn has_whole_body(&self, at: Position) -> Result<bool, StoreError> {
        match self.reader.read(at) {
            Ok(stored) => Ok(stored.and_then(|stored| stored.event).is_some_and(|event| !event.is_empty())),
            Err(ReadError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A dead letter as it is shown: one whose event, or whose own record, does not read is shown all the same.
    fn letter(&self, letter: &Letter) -> Result<DeadLetter, StoreError> {
        let (at, dead) = match self.record_at(letter.letter)? {
            Some(Stamped { committed_at, record: Record::DeadLetter(dead), .. }) => {
                (Some(rfc3339(committed_at)), Some(dead))
            }
            _ => (None, None),
        };
        let statement = self.statement(letter.event)?;
        let statement = statement.as_deref();
        Ok(DeadLetter {
            id: statement.and_then(|statement| statement.event),
            sink: letter.sink.clone(),
            at,
            attempts: dead.as_ref().map(|dead| dead.attempts),
            reason: dead.map(|dead| dead.reason),
            source: statement.map(|statement| statement.source.clone()),
            event_type: statement.map(|statement| format!("{}.{}", statement.kind, statement.status)),
            order_id: statement.and_then(|statement| statement.order.clone()),
            notification_id: statement.map(|statement| statement.id),
            position: letter.event,
        })
    }
}

/// What an id is found to name.
enum Named {
    /// This.
    By(Box<Statement>),
    /// A record that does not read any more.
    Damaged,
    /// Nothing.
    Not,
}

impl Found {
    /// Takes an event up: to be sent, or gone.
    fn take_up(&mut self, at: Position, body: bool) {
        self.looked_up_to = at;
        if body { self.events.push(at) } else { self.gone += 1 }
    }
}

impl Ledger {
    /// Whether what stands at a position must keep its body for a sink that may yet be sent it.
    pub fn needs(&self, event: Position) -> bool {
        !self.letters_of(event).is_empty()
    }
}

/// A statement and where it stands; `Some((_, None))` for another record, `None` for one that is damaged.
#[expect(clippy::type_complexity, reason = "two kinds of nothing")]
fn told(stored: Result<Stored, ReadError>) -> Result<Option<(Position, Option<Box<Statement>>)>, StoreError> {
    let stored = match stored {
        Ok(stored) => stored,
        Err(ReadError::Damaged { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let statement = match Stamped::decode(&stored.payload).map(|stamped| stamped.record) {
        Some(Record::Notification(statement) | Record::Settlement(statement)) => Some(statement),
        _ => None,
    };
    Ok(Some((stored.position, statement)))
}

/// Where the records of some ids stand, in order, each once.
fn positions(ids: &[Wanted]) -> Vec<Position> {
    let position = |wanted: &Wanted| match wanted {
        Wanted::Event(id) => id.position(),
        Wanted::Notification(id) => id.position(),
    };
    let mut positions: Vec<Position> = ids.iter().map(position).collect();
    positions.sort_unstable();
    positions.dedup();
    positions
}

fn audit(what: &str, by: &ByHand) -> Record {
    Record::Audit(Audit { what: what.to_owned(), who: by.who().to_owned(), reason: by.reason().to_owned() })
}

fn shown(job: ReplayJob) -> Replay {
    Replay { id: job.replay, request: job.request, up_to: job.up_to, count: job.count, ended: job.ended }
}

fn record(replay: Replay) -> ReplayJob {
    ReplayJob {
        replay: replay.id,
        request: replay.request,
        up_to: replay.up_to,
        count: replay.count,
        ended: replay.ended,
    }
}
