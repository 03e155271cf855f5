//! How far each sink has come: what is due, what is claimed, what is settled.
//!
//! At most one event of an order is claimed at a time. Memory does not grow with the backlog: what is behind a
//! claimed order is parked up to a bound, then the walk through the journal waits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::record::{DeadLetter, Progress, Record, SinkStart};
use crate::event::{Digest, Position};
use crate::store::Settled;

/// Events that may wait in memory for an earlier one of their order.
const PARKED: usize = 4096;
/// Events that may be settled beyond one that is not, at most: each costs eight bytes of every record of progress.
const BEYOND: usize = 1 << 18;

/// An order of a source, as far as order matters: a hash.
pub type OrderKey = Digest;

/// What stands before the name of a reader of the feed.
pub const FEED: &str = "feed:";
/// Where a reader of the feed stands that was forgotten: nothing is owed to it.
pub const FORGOTTEN: Position = Position(u64::MAX);

/// All sinks.
#[derive(Debug)]
pub struct Sinks {
    sinks: Mutex<BTreeMap<String, Sink>>,
    /// Events written that no sink's count holds yet.
    unseen: AtomicI64,
    /// How many events may be settled beyond one that is not.
    beyond: usize,
}

#[derive(Debug, Default)]
struct Sink {
    /// The next position to look at.
    cursor: Position,
    /// Claimed, with their order.
    claimed: BTreeMap<Position, Option<OrderKey>>,
    /// Orders of which one is claimed.
    busy: HashSet<OrderKey>,
    /// Looked at, due, and waiting for their order or for another try.
    waiting: BTreeMap<Position, Option<OrderKey>>,
    /// How many of each order wait.
    queued: HashMap<OrderKey, usize>,
    /// Settled although something before them is not.
    beyond: BTreeSet<Position>,
    attempts: HashMap<Position, u32>,
    /// Something was settled that the journal does not know. Not told by comparing watermarks: the record of a
    /// progress moves them, and would be followed by another for ever.
    dirty: bool,
    /// What else the journal must be told, together with the progress that follows from it.
    news: Vec<Record>,
    /// Events that are owed, as far as they were counted.
    owed: i64,
}

/// What was known of a reader of the feed that was forgotten.
#[derive(Debug)]
pub struct Forgotten(Sink);

/// Where the oldest event that a sink has not settled may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oldest {
    /// It is this one.
    At(Position),
    /// It is the first event here or later.
    From(Position),
}

/// An event found on the walk.
pub struct Found {
    /// Where.
    pub position: Position,
    /// Its order, if it names one.
    pub order: Option<OrderKey>,
}

impl Sinks {
    /// For a journal whose segments have this size: a record of progress must stay a small part of one.
    pub fn for_segments(bytes: u64) -> Self {
        let share = usize::try_from(bytes / 64).unwrap_or(BEYOND);
        Self { sinks: Mutex::default(), unseen: AtomicI64::new(0), beyond: share.clamp(64, BEYOND) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Sink>> {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let unseen = self.unseen.swap(0, Ordering::AcqRel);
        if unseen != 0 {
            sinks.values_mut().for_each(|sink| sink.owed += unseen);
        }
        sinks
    }

    /// Restores a sink from its last progress. One that is at work already knows better.
    pub fn restore(&self, progress: Progress) {
        let next = Position(progress.watermark.0 + 1);
        let mut sinks = self.lock();
        match sinks.get_mut(&progress.sink) {
            None => {
                let beyond = progress.beyond.iter().copied().collect();
                sinks.insert(progress.sink, Sink { cursor: next, beyond, ..Sink::default() });
            }
            Some(sink) if sink.claimed.is_empty() && sink.waiting.is_empty() => sink.cursor = sink.cursor.max(next),
            Some(_) => {}
        }
    }

    /// Begins a sink that the store does not know: nothing up to `after` is owed to it.
    pub fn begin(&self, name: &str, after: Position) {
        let start = Record::SinkStart(SinkStart { sink: name.to_owned(), after });
        let sink = Sink { cursor: Position(after.0 + 1), news: vec![start], ..Sink::default() };
        self.lock().insert(name.to_owned(), sink);
    }

    /// What of a sink's events is settled although something before it is not.
    pub fn beyond(&self, name: &str) -> BTreeSet<Position> {
        self.lock().get(name).map(|sink| sink.beyond.clone()).unwrap_or_default()
    }

    /// Everything up to here is settled by a sink.
    pub fn watermark(&self, name: &str) -> Position {
        self.lock().get(name).map_or(Position(0), Sink::watermark)
    }

    /// Events were found in the journal that a sink had not settled.
    pub fn counted(&self, name: &str, events: i64) {
        if let Some(sink) = self.lock().get_mut(name) {
            sink.owed += events;
        }
    }

    /// Events were written: every sink is owed them.
    pub fn written(&self, events: usize) {
        // Counted by whoever has the lock next: a claim reads the disk under it, and no answer waits for that.
        self.unseen.fetch_add(i64::try_from(events).unwrap_or(i64::MAX), Ordering::AcqRel);
    }

    /// How many events a sink is owed, and where the oldest of them may be.
    pub fn backlog(&self, name: &str) -> Option<(u64, Oldest)> {
        let sinks = self.lock();
        let sink = sinks.get(name)?;
        let open = [sink.claimed.keys().next(), sink.waiting.keys().next()];
        let oldest = open.into_iter().flatten().min().map_or(Oldest::From(sink.cursor), |at| Oldest::At(*at));
        Some((u64::try_from(sink.owed).unwrap_or(0), oldest))
    }

    /// Ends all claims of a sink: due again, no attempt counted.
    pub fn release(&self, name: &str) {
        if let Some(sink) = self.lock().get_mut(name) {
            for (position, order) in std::mem::take(&mut sink.claimed) {
                sink.wait(position, order);
            }
            sink.busy.clear();
        }
    }

    /// Whether a sink is known.
    pub fn knows(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Up to where every sink has settled everything; `None` where there is no sink. A dead letter that the journal does
    /// not know yet is not settled: nobody else knows that its body is needed.
    pub fn settled_by_all(&self) -> Option<Position> {
        let sinks = self.lock();
        let letters = sinks.values().flat_map(|sink| &sink.news).filter_map(|news| match news {
            Record::DeadLetter(letter) => Some(Position(letter.position.0.saturating_sub(1))),
            _ => None,
        });
        sinks.values().map(Sink::watermark).chain(letters).min()
    }

    /// Up to where the slowest of the sinks whose names begin so has settled everything.
    pub fn slowest(&self, prefix: &str) -> Option<Position> {
        self.lock().iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, sink)| sink.watermark()).min()
    }

    /// Those of some positions that a sink has not settled.
    pub fn unsettled(&self, name: &str, positions: &[Position]) -> Vec<Position> {
        let sinks = self.lock();
        let Some(sink) = sinks.get(name) else { return Vec::new() };
        let watermark = sink.watermark();
        let open = |position: &&Position| **position > watermark && !sink.beyond.contains(position);
        positions.iter().filter(open).copied().collect()
    }

    /// The readers of the feed, and what each has.
    pub fn consumers(&self) -> Vec<(String, Position)> {
        let sinks = self.lock();
        let consumer = |(name, sink): (&String, &Sink)| {
            Some((name.strip_prefix(FEED)?.to_owned(), Position(sink.cursor.0.saturating_sub(1))))
        };
        sinks.iter().filter_map(consumer).collect()
    }

    /// Forgets a reader of the feed; gives what was known of it.
    pub fn forget(&self, name: &str) -> Option<Forgotten> {
        self.lock().remove(&format!("{FEED}{name}")).map(Forgotten)
    }

    /// It could not be written down that a reader was forgotten: it is as it was, or further where it asked meanwhile.
    pub fn remember(&self, name: &str, Forgotten(before): Forgotten) {
        let mut sinks = self.lock();
        let sink = sinks.entry(format!("{FEED}{name}")).or_default();
        sink.cursor = sink.cursor.max(before.cursor);
        sink.owed = sink.owed.saturating_add(before.owed);
        // Nobody knows whether its end was written all the same: what it has is told once more.
        sink.dirty = true;
    }

    /// The sinks that have settled a position.
    pub fn settled_by(&self, position: Position) -> Vec<String> {
        let sinks = self.lock();
        let has = |sink: &Sink| position <= sink.watermark() || sink.beyond.contains(&position);
        sinks.iter().filter(|(_, sink)| has(sink)).map(|(name, _)| name.clone()).collect()
    }

    /// Claims up to `limit`: first what waits, then what `walk` finds from a position on. `walk` gives the next event
    /// at or after a position, and the position after the last one it looked at.
    ///
    /// # Errors
    /// Those of `walk`, if nothing was claimed before.
    pub fn claim<E>(
        &self,
        name: &str,
        limit: usize,
        mut walk: impl FnMut(Position, usize) -> Result<(Vec<Found>, Position), E>,
    ) -> Result<Vec<(Position, u32)>, E> {
        let mut sinks = self.lock();
        let sink = sinks.entry(name.to_owned()).or_default();
        let mut claimed = Vec::new();
        let mut passed = HashSet::new();
        let waiting: Vec<_> = sink.waiting.iter().map(|(position, order)| (*position, *order)).collect();
        for (position, order) in waiting {
            if claimed.len() == limit {
                break;
            }
            // An earlier one of the same order may still wait although nothing of it is claimed.
            let free = order.is_none_or(|order| !sink.busy.contains(&order) && !passed.contains(&order));
            if free {
                sink.forget_waiting(position, order);
                sink.take(position, order, &mut claimed);
            } else {
                passed.extend(order);
            }
        }
        if sink.beyond.len() >= self.beyond {
            let watermark = sink.watermark();
            sink.beyond.retain(|position| *position > watermark);
        }
        // What lies before the last settled one is looked at even if the bound is reached: a start knows nothing of what
        // was waiting, and what all the others wait for would never be handed out again.
        let bound = |sink: &Sink| {
            sink.beyond.len() < self.beyond || sink.beyond.last().is_some_and(|last| sink.cursor <= *last)
        };
        while claimed.len() < limit && sink.waiting.len() < PARKED && bound(sink) {
            let (found, next) = match walk(sink.cursor, limit - claimed.len()) {
                Ok(walked) => walked,
                // What is claimed already must be heard of, or nobody would ever end its claim.
                Err(error) if claimed.is_empty() => return Err(error),
                Err(_) => break,
            };
            for Found { position, order } in found {
                if sink.beyond.contains(&position) {
                    continue;
                }
                let blocked = order.is_some_and(|order| sink.busy.contains(&order) || sink.queued.contains_key(&order));
                if blocked {
                    sink.wait(position, order);
                } else {
                    sink.take(position, order, &mut claimed);
                }
            }
            if next <= sink.cursor {
                break;
            }
            sink.cursor = next;
        }
        Ok(claimed)
    }

    /// Ends a claim; `event` is the record of the event itself, where `position` is that of a redelivery. Whether it
    /// became a dead letter.
    pub fn settle(&self, name: &str, position: Position, event: Position, how: Settled) -> bool {
        let mut sinks = self.lock();
        let Some(sink) = sinks.get_mut(name) else { return false };
        let Some(order) = sink.claimed.remove(&position) else { return false };
        if let Some(order) = order {
            sink.busy.remove(&order);
        }
        match how {
            Settled::Delivered => {
                sink.dirty = true;
                sink.beyond.insert(position);
                sink.attempts.remove(&position);
                sink.owed -= 1;
                false
            }
            Settled::Dead(reason) => {
                sink.dirty = true;
                sink.beyond.insert(position);
                let attempts = sink.attempts.remove(&position).unwrap_or(0) + 1;
                // In the same group as the progress that calls it settled: neither is ever there without the other.
                let letter = DeadLetter { sink: name.to_owned(), position: event, attempts, reason };
                sink.news.push(Record::DeadLetter(letter));
                sink.owed -= 1;
                true
            }
            Settled::Refused(_) => {
                *sink.attempts.entry(position).or_default() += 1;
                sink.wait(position, order);
                false
            }
            Settled::Released => {
                sink.wait(position, order);
                false
            }
        }
    }

    /// Notes that a consumer has everything up to a position. Its name alone is worth keeping too: what it has not
    /// acknowledged counts as unsettled from its first question on, also after a restart.
    pub fn acknowledge(&self, name: &str, position: Position) {
        let mut sinks = self.lock();
        let is_new = !sinks.contains_key(name);
        let sink = sinks.entry(name.to_owned()).or_default();
        let next = Position(position.0 + 1);
        sink.dirty |= is_new || next > sink.cursor;
        sink.cursor = sink.cursor.max(next);
    }

    /// Starts, dead letters and progress that the journal does not know yet.
    pub fn unwritten(&self) -> Vec<Record> {
        let mut records = Vec::new();
        // A claim reads the disk under this lock, and no answer waits for that: the next group tries again.
        let mut sinks = match self.sinks.try_lock() {
            Ok(sinks) => sinks,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return records,
        };
        for (name, sink) in sinks.iter_mut() {
            records.append(&mut sink.news);
            if !sink.dirty {
                continue;
            }
            let watermark = sink.watermark();
            sink.beyond.retain(|position| *position > watermark);
            let beyond = sink.beyond.iter().copied().collect();
            records.push(Record::Progress(Progress { sink: name.clone(), watermark, beyond }));
            sink.dirty = false;
        }
        records
    }

    /// They could not be written: they are due again.
    pub fn not_written(&self, records: &[Record]) {
        let mut sinks = self.lock();
        for record in records {
            let name = match record {
                Record::Progress(progress) => &progress.sink,
                Record::DeadLetter(letter) => &letter.sink,
                Record::SinkStart(start) => &start.sink,
                _ => continue,
            };
            let Some(sink) = sinks.get_mut(name) else { continue };
            match record {
                Record::Progress(_) => sink.dirty = true,
                news => sink.news.push(news.clone()),
            }
        }
    }
}

/// The order of a record that is owed to the sinks: `None` if nothing is owed, `Some(None)` if it names no order. A
/// redelivery names none itself: its order is that of the event that it repeats.
pub fn owed(record: &Record) -> Option<Option<OrderKey>> {
    match record {
        Record::Notification(s) | Record::Settlement(s) => {
            s.event?;
            let source = s.source.as_str().as_bytes();
            Some(s.order.as_ref().map(|order| Digest::of_parts([Some(source), Some(order.as_str().as_bytes())])))
        }
        Record::Redelivery(again) => again.goes_to().map(|_| None),
        _ => None,
    }
}

impl Sink {
    fn wait(&mut self, position: Position, order: Option<OrderKey>) {
        if self.waiting.insert(position, order).is_none()
            && let Some(order) = order
        {
            *self.queued.entry(order).or_default() += 1;
        }
    }

    fn forget_waiting(&mut self, position: Position, order: Option<OrderKey>) {
        self.waiting.remove(&position);
        if let Some(order) = order
            && let Some(count) = self.queued.get_mut(&order)
        {
            *count -= 1;
            if *count == 0 {
                self.queued.remove(&order);
            }
        }
    }

    fn take(&mut self, position: Position, order: Option<OrderKey>, claimed: &mut Vec<(Position, u32)>) {
        self.claimed.insert(position, order);
        self.busy.extend(order);
        claimed.push((position, self.attempts.get(&position).copied().unwrap_or(0)));
    }

    /// Everything up to here is settled.
    fn watermark(&self) -> Position {
        let open = [self.claimed.keys().next(), self.waiting.keys().next(), Some(&self.cursor)];
        Position(open.into_iter().flatten().min().map_or(0, |first| first.0.saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_claimed_before_the_walk_failed_is_handed_out() {
        let sinks = Sinks::for_segments(64 << 20);
        let one = |from: Position, _| {
            let found = (from.0 <= 1).then_some(Found { position: Position(1), order: None });
            Ok::<_, ()>((found.into_iter().collect(), Position(2)))
        };
        assert_eq!(sinks.claim("amqp", 1, one), Ok(vec![(Position(1), 0)]));
        sinks.settle("amqp", Position(1), Position(1), Settled::Refused("no".into()));
        assert_eq!(sinks.claim("amqp", 9, |_, _| Err("disk")), Ok(vec![(Position(1), 1)]));
        sinks.settle("amqp", Position(1), Position(1), Settled::Delivered);
        assert_eq!(sinks.claim("amqp", 9, |_, _| Err("disk")), Err("disk"));
    }

    #[test]
    fn a_start_hands_out_what_a_full_window_of_settled_ones_waits_for() {
        let sinks = Sinks::for_segments(0);
        let settled = 2..=1 + sinks.beyond as u64;
        let last = *settled.end();
        let beyond = settled.map(Position).collect();
        sinks.lock().insert("amqp".to_owned(), Sink { cursor: Position(1), beyond, ..Sink::default() });
        let all = |from: Position, limit: usize| {
            let found = (from.0..=last + 9).take(limit).map(|at| Found { position: Position(at), order: None });
            let found: Vec<_> = found.collect();
            let next = found.last().map_or(from, |found| Position(found.position.0 + 1));
            Ok::<_, ()>((found, next))
        };
        assert_eq!(sinks.claim("amqp", 1, all), Ok(vec![(Position(1), 0)]));
        assert_eq!(sinks.claim("amqp", 1, all), Ok(vec![]), "the bound holds");
        sinks.settle("amqp", Position(1), Position(1), Settled::Delivered);
        assert_eq!(sinks.claim("amqp", 1, all), Ok(vec![(Position(last + 1), 0)]));
    }

    #[test]
    fn a_dead_letter_that_is_not_written_yet_is_not_settled() {
        let sinks = Sinks::for_segments(64 << 20);
        let two = |from: Position, _| {
            let found = [1, 2].map(|at| Found { position: Position(at), order: None });
            Ok::<_, ()>((found.into_iter().filter(|found| found.position >= from).collect(), Position(3)))
        };
        assert_eq!(sinks.claim("amqp", 2, two).map(|claimed| claimed.len()), Ok(2));
        sinks.settle("amqp", Position(1), Position(1), Settled::Delivered);
        sinks.settle("amqp", Position(2), Position(2), Settled::Dead("no".into()));
        assert_eq!(sinks.settled_by_all(), Some(Position(1)), "its body would be retired");
        let written = sinks.unwritten();
        assert_eq!(sinks.settled_by_all(), Some(Position(2)), "now the journal keeps it");
        sinks.not_written(&written);
        assert_eq!(sinks.settled_by_all(), Some(Position(1)));
    }

    #[test]
    fn a_consumer_that_only_asked_is_still_owed_everything_after_a_restart() {
        let sinks = Sinks::for_segments(64 << 20);
        sinks.acknowledge("feed:shop", Position(0));
        let records = sinks.unwritten();
        assert!(sinks.unwritten().is_empty(), "once is enough");
        let after_restart = Sinks::for_segments(64 << 20);
        for record in records {
            if let Record::Progress(progress) = record {
                after_restart.restore(progress);
            }
        }
        assert_eq!(after_restart.settled_by_all(), Some(Position(0)), "nothing may be retired without it");
    }
}
