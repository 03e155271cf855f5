//! What operators ask for at once: which dead letters are open, which replays there are. Follows from the journal as the
//! index does, and shows only what is synced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::index::Batch;
use super::record::{Record, ReplayJob};
use super::state::{ENDED_REPLAYS, Letter, Value};
use crate::event::Position;

/// Open dead letters, and replays: all that run, and the newest that ended. Shared by the committer, which writes, and everybody who asks.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    /// By event and sink.
    letters: BTreeMap<(Position, String), Letter>,
    replays: BTreeMap<String, ReplayJob>,
    /// Those that ended, in that order.
    ended: VecDeque<String>,
    /// Events that became dead letters, or were to be sent again, since [`Ledger::watch`].
    asked_for: BTreeSet<Position>,
}

impl Ledger {
    /// What an index says.
    pub fn restore(&self, pinned: &Batch) {
        let mut pages = self.lock();
        for value in pinned.values() {
            match value {
                Value::DeadLetter(letter) => {
                    pages.letters.insert((letter.event, letter.sink.clone()), letter.clone());
                }
                Value::EndedReplays(ended) => pages.ended = ended.iter().cloned().collect(),
                Value::Replay(job) => drop(pages.replays.insert(job.replay.clone(), job.clone())),
                _ => {}
            }
        }
    }

    /// A record was synced. Whether it closed a dead letter.
    pub fn written(&self, position: Position, record: &Record) -> bool {
        match record {
            Record::DeadLetter(letter) => {
                let letter = Letter { sink: letter.sink.clone(), event: letter.position, letter: position };
                let mut pages = self.lock();
                pages.asked_for.insert(letter.event);
                pages.letters.insert((letter.event, letter.sink.clone()), letter);
                false
            }
            Record::Redelivery(again) => {
                let Some(sink) = again.goes_to() else { return false };
                let mut pages = self.lock();
                pages.asked_for.insert(again.position);
                pages.letters.remove(&(again.position, sink.to_owned())).is_some()
            }
            Record::ReplayJob(job) => {
                let mut pages = self.lock();
                let known = pages.replays.get(&job.replay);
                let ended = known.is_some_and(|known| known.ended.is_some());
                let job = job.after(known);
                if job.ended.is_some() && !ended {
                    pages.ended.push_back(job.replay.clone());
                }
                pages.replays.insert(job.replay.clone(), job);
                if pages.ended.len() > ENDED_REPLAYS
                    && let Some(oldest) = pages.ended.pop_front()
                {
                    pages.replays.remove(&oldest);
                }
                false
            }
            _ => false,
        }
    }

    /// Open dead letters of events above a position, in journal order.
    pub fn letters(&self, after: Position, limit: usize) -> Vec<Letter> {
        let from = (Position(after.0.saturating_add(1)), String::new());
        self.lock().letters.range(from..).take(limit).map(|(_, letter)| letter.clone()).collect()
    }

    /// The open dead letters of one event.
    pub fn letters_of(&self, event: Position) -> Vec<Letter> {
        let (from, to) = ((event, String::new()), (Position(event.0.saturating_add(1)), String::new()));
        self.lock().letters.range(from..to).map(|(_, letter)| letter.clone()).collect()
    }

    /// From here on it is noted whose bodies are asked for: whoever retires bodies looks before it judges what may go.
    pub fn watch(&self) {
        self.lock().asked_for.clear();
    }

    /// Whether a body among these was asked for since: what was judged before may be wrong.
    pub fn was_asked_for(&self, positions: RangeInclusive<Position>) -> bool {
        self.lock().asked_for.range(positions).next().is_some()
    }

    /// How many dead letters are open.
    pub fn open_letters(&self) -> u64 {
        self.lock().letters.len() as u64
    }

    /// A replay.
    pub fn replay(&self, id: &str) -> Option<ReplayJob> {
        self.lock().replays.get(id).cloned()
    }

    /// All that are remembered, oldest first: their ids are ordered by time.
    pub fn replays(&self) -> Vec<ReplayJob> {
        self.lock().replays.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
