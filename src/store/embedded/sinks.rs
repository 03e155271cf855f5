//! How far each sink has come: what is due, what is claimed, what is settled.
//!
//! At most one event of an order is claimed at a time. Memory does not grow with the backlog: what is behind a
//! claimed order is parked up to a bound, then the walk through the journal waits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record::{DeadLetter, Progress, Record};
use crate::event::{Digest, Position};
use crate::store::Settled;

/// Events that may wait in memory for an earlier one of their order.
const PARKED: usize = 4096;

/// An order of a source, as far as order matters: a hash.
pub type OrderKey = Digest;

/// All sinks.
#[derive(Debug, Default)]
pub struct Sinks {
    sinks: Mutex<BTreeMap<String, Sink>>,
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
    /// Settled although something before them is not.
    beyond: BTreeSet<Position>,
    attempts: HashMap<Position, u32>,
    /// Something was settled that the journal does not know. Not told by comparing watermarks: the record of a
    /// progress moves them, and would be followed by another for ever.
    dirty: bool,
}

/// An event found on the walk.
pub struct Found {
    /// Where.
    pub position: Position,
    /// Its order, if it names one.
    pub order: Option<OrderKey>,
}

impl Sinks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Sink>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Restores a sink from its last progress.
    pub fn restore(&self, progress: Progress) {
        let sink = Sink {
            cursor: Position(progress.watermark.0 + 1),
            beyond: progress.beyond.iter().copied().collect(),
            ..Sink::default()
        };
        self.lock().insert(progress.sink, sink);
    }

    /// Whether a sink is known.
    pub fn knows(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Up to where every sink has settled everything; `None` where there is no sink.
    pub fn settled_by_all(&self) -> Option<Position> {
        self.lock().values().map(Sink::watermark).min()
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
    /// Those of `walk`.
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
                sink.waiting.remove(&position);
                sink.take(position, order, &mut claimed);
            } else {
                passed.extend(order);
            }
        }
        while claimed.len() < limit && sink.waiting.len() < PARKED {
            let (found, next) = walk(sink.cursor, limit - claimed.len())?;
            for Found { position, order } in found {
                if sink.beyond.contains(&position) {
                    continue;
                }
                let blocked = order.is_some_and(|order| {
                    sink.busy.contains(&order) || sink.waiting.values().any(|waiting| *waiting == Some(order))
                });
                if blocked {
                    sink.waiting.insert(position, order);
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

    /// Ends a claim. Returns the dead letter to write, if it became one.
    pub fn settle(&self, name: &str, position: Position, how: Settled) -> Option<DeadLetter> {
        let mut sinks = self.lock();
        let sink = sinks.get_mut(name)?;
        let order = sink.claimed.remove(&position)?;
        if let Some(order) = order {
            sink.busy.remove(&order);
        }
        match how {
            Settled::Delivered => {
                sink.dirty = true;
                sink.beyond.insert(position);
                sink.attempts.remove(&position);
                None
            }
            Settled::Dead(reason) => {
                sink.dirty = true;
                sink.beyond.insert(position);
                let attempts = sink.attempts.remove(&position).unwrap_or(0) + 1;
                Some(DeadLetter { sink: name.to_owned(), position, attempts, reason })
            }
            Settled::Refused(_) => {
                *sink.attempts.entry(position).or_default() += 1;
                sink.waiting.insert(position, order);
                None
            }
            Settled::Released => {
                sink.waiting.insert(position, order);
                None
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

    /// Progress that the journal does not know yet.
    pub fn unwritten(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (name, sink) in self.lock().iter_mut().filter(|(_, sink)| sink.dirty) {
            let watermark = sink.watermark();
            sink.beyond.retain(|position| *position > watermark);
            let beyond = sink.beyond.iter().copied().collect();
            records.push(Record::Progress(Progress { sink: name.clone(), watermark, beyond }));
            sink.dirty = false;
        }
        records
    }

    /// Progress could not be written: it is due again.
    pub fn not_written(&self, records: &[Record]) {
        let mut sinks = self.lock();
        for record in records {
            if let Record::Progress(progress) = record
                && let Some(sink) = sinks.get_mut(&progress.sink)
            {
                sink.dirty = true;
            }
        }
    }
}

impl Sink {
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
    fn a_consumer_that_only_asked_is_still_owed_everything_after_a_restart() {
        let sinks = Sinks::default();
        sinks.acknowledge("feed:shop", Position(0));
        let records = sinks.unwritten();
        assert!(sinks.unwritten().is_empty(), "once is enough");
        let after_restart = Sinks::default();
        for record in records {
            if let Record::Progress(progress) = record {
                after_restart.restore(progress);
            }
        }
        assert_eq!(after_restart.settled_by_all(), Some(Position(0)), "nothing may be retired without it");
    }
}
