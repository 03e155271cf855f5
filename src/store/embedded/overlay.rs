//! What the index does not hold yet, and the way from a key to its value that never needs the disk for what is new.
//!
//! Values go through three hands: `current` (changed since the last hand-over), `flushing` (with the index's thread)
//! and `recent` (just written; kept one turn longer, so that a look-up begun before that write is still answered
//! rightly). A group that could not be synced is taken back as if it had never been looked at.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::filter::Filter;
use super::index::{Batch, Index, IndexError, KeyHasher};
use super::state::{Key, Value, View};

/// Values that are not, or not surely, in the index.
#[derive(Debug, Default)]
pub struct Overlay {
    current: Batch,
    flushing: Option<Arc<Batch>>,
    recent: Option<Arc<Batch>>,
    /// Sinks, open dead letters, replays, accounts, the clock, the horizon: a handful that is always in memory.
    pinned: Batch,
    /// What this group read from the index: entering a record must find what deciding it found.
    memo: HashMap<Key, Option<Value>, BuildHasherDefault<KeyHasher>>,
    undo: Vec<(Key, Option<Value>, Option<Value>)>,
    /// Hand-overs that are known to be finished.
    turn: u64,
}

/// Values that were looked up in the index ahead of the committer, on the caller's thread.
#[derive(Debug, Default)]
pub struct Preloaded {
    /// Hand-overs finished before the look-up began.
    pub turn: u64,
    /// What was found.
    pub values: HashMap<Key, Option<Value>>,
}

/// One look at everything, for one job.
pub struct Look<'a> {
    /// What is not in the index.
    pub overlay: &'a mut Overlay,
    /// What was ever kept.
    pub filter: &'a Filter,
    /// The index.
    pub index: &'a Index,
    /// What the caller looked up ahead.
    pub preloaded: Option<&'a Preloaded>,
    /// An error that made a look-up fail; the caller must not believe what it decided.
    pub failed: Option<IndexError>,
}

/// What the keys begin with whose values are always in memory.
pub const PINNED: [u8; 9] = *b"PCHRDJLEA";

/// Whether a key's value is always in memory.
pub fn is_pinned(key: &Key) -> bool {
    PINNED.contains(&key.what())
}

impl Overlay {
    /// Begins with the pinned values of an index.
    pub fn new(pinned: Batch) -> Self {
        Self { pinned, ..Self::default() }
    }

    /// A pinned value.
    pub fn pinned(&self, key: &Key) -> Option<&Value> {
        self.pinned.get(key)
    }

    /// All pinned values.
    pub fn all_pinned(&self) -> &Batch {
        &self.pinned
    }

    /// What stands in one of the three hands.
    pub fn find(&self, key: &Key) -> Option<&Value> {
        self.current
            .get(key)
            .or_else(|| self.flushing.as_ref().and_then(|batch| batch.get(key)))
            .or_else(|| self.recent.as_ref().and_then(|batch| batch.get(key)))
    }

    /// The group is synced: what it changed stays. Returns the changed keys' fingerprints for the filter.
    pub fn keep(&mut self) -> Vec<u64> {
        self.memo.clear();
        self.undo.drain(..).filter(|(key, ..)| !is_pinned(key)).map(|(key, ..)| key.fingerprint()).collect()
    }

    /// The group is not synced: everything is as before.
    pub fn take_back(&mut self) {
        self.memo.clear();
        for (key, current, pinned) in self.undo.drain(..).rev() {
            match current {
                Some(value) => drop(self.current.insert(key, value)),
                None => drop(self.current.remove(&key)),
            }
            if is_pinned(&key) {
                match pinned {
                    Some(value) => drop(self.pinned.insert(key, value)),
                    None => drop(self.pinned.remove(&key)),
                }
            }
        }
    }

    /// Values waiting for the next hand-over.
    pub fn waiting(&self) -> usize {
        self.current.len()
    }

    /// Whether the index's thread has a batch.
    pub fn is_flushing(&self) -> bool {
        self.flushing.is_some()
    }

    /// Hands over everything that waits.
    pub fn hand_over(&mut self) -> Arc<Batch> {
        let batch = Arc::new(std::mem::take(&mut self.current));
        self.flushing = Some(Arc::clone(&batch));
        batch
    }

    /// Notes that `turn` hand-overs are in the index.
    pub fn finished(&mut self, turn: u64) {
        if turn > self.turn {
            self.turn = turn;
            self.recent = self.flushing.take();
        }
    }
}

/// Sets a value that is always in memory, or lets go of it; gives the one before.
pub fn keep_pinned(pinned: &mut Batch, key: Key, value: &Value) -> Option<Value> {
    if *value == Value::Gone { pinned.remove(&key) } else { pinned.insert(key, value.clone()) }
}

impl View for Look<'_> {
    fn get(&mut self, key: &Key) -> Option<Value> {
        if is_pinned(key) {
            return self.overlay.pinned.get(key).cloned();
        }
        if let Some(value) = self.overlay.find(key) {
            return Some(value.clone());
        }
        if !self.filter.may_contain(key.fingerprint()) {
            return None;
        }
        if let Some(value) = self.overlay.memo.get(key) {
            return value.clone();
        }
        if let Some(preloaded) = self.preloaded.filter(|preloaded| self.overlay.turn <= preloaded.turn + 1)
            && let Some(value) = preloaded.values.get(key)
        {
            self.overlay.memo.insert(*key, value.clone());
            return value.clone();
        }
        match self.index.get(key) {
            Ok(value) => {
                self.overlay.memo.insert(*key, value.clone());
                value
            }
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    fn put(&mut self, key: Key, value: Value) {
        let pinned = if is_pinned(&key) { keep_pinned(&mut self.overlay.pinned, key, &value) } else { None };
        let before = self.overlay.current.insert(key, value);
        self.overlay.undo.push((key, before, pinned));
    }
}
