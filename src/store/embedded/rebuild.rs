//! Brings an index up to the journal's head: from what it covers, or from nothing.

use super::filter::Filter;
use super::index::{Batch, Covered, Index, IndexError};
use super::journal::{ReadError, Reader};
use super::overlay::{is_pinned, keep_pinned};
use super::record::Stamped;
use super::state::{self, Key, Keys, Value, View};
use super::status::Shared;
use crate::event::{Digest, Position};

const BATCH: usize = 50_000;

/// Why an index could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The index.
    #[error("writing the index")]
    Index(#[from] IndexError),
    /// The journal.
    #[error("reading the journal")]
    Journal(#[from] ReadError),
    /// A whole record says what this version does not know. Left out, its keys would be called new.
    #[error("the record at position {0} was written by a newer version: start that one again")]
    Newer(Position),
    /// The store is closed meanwhile. What was built stays good: the next start goes on from there.
    #[error("stopped")]
    Stopped,
}

/// Reads every head above what `covered` says and enters it. Returns the values that are always in memory.
///
/// # Errors
/// [`RebuildError`].
pub fn bring_up(
    index: &Index,
    reader: &Reader,
    keys: &Keys,
    covered: Option<Covered>,
    shared: &Shared,
) -> Result<Batch, RebuildError> {
    let head = reader.head();
    let from = covered.map_or(0, |covered| covered.position.0);
    // Nothing that this walk did not enter can be in an index that begins empty.
    let fresh = covered.is_none().then(|| Filter::for_keys(head.0.saturating_mul(3)));
    let mut build = Build { index, fresh, batch: Batch::default(), pinned: index.pinned()?, failed: None };
    let mut last = Covered { position: Position(from), chain: covered.map_or(Digest([0; 32]), |c| c.chain) };
    for stored in reader.heads(Position(from + 1)) {
        let stored = match stored {
            Ok(stored) => stored,
            // Damage was reported when it was found; what is behind it counts all the same.
            Err(ReadError::Damaged { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        if stored.position > head {
            break;
        }
        let stamped = Stamped::decode(&stored.payload).ok_or(RebuildError::Newer(stored.position))?;
        state::apply(&mut build, keys, stored.position, &stamped);
        last = Covered { position: stored.position, chain: stored.chain };
        if let Some(error) = build.failed.take() {
            return Err(error.into());
        }
        if build.batch.len() >= BATCH {
            index.write(&std::mem::take(&mut build.batch), last, &[])?;
            shared.set_progress(stored.position.0 - from, head.0 - from);
            if shared.is_draining() {
                return Err(RebuildError::Stopped);
            }
        }
    }
    if head.0 > from || covered.is_none() {
        index.write(&build.batch, last, &[])?;
    }
    shared.indexed(head);
    shared.set_progress(1, 1);
    Ok(build.pinned)
}

struct Build<'a> {
    index: &'a Index,
    fresh: Option<Filter>,
    batch: Batch,
    pinned: Batch,
    failed: Option<IndexError>,
}

impl View for Build<'_> {
    fn get(&mut self, key: &Key) -> Option<Value> {
        if is_pinned(key) {
            return self.pinned.get(key).cloned();
        }
        if let Some(value) = self.batch.get(key) {
            return Some(value.clone());
        }
        if self.fresh.as_ref().is_some_and(|fresh| !fresh.may_contain(key.fingerprint())) {
            return None;
        }
        self.index.get(key).unwrap_or_else(|error| {
            self.failed = Some(error);
            None
        })
    }

    fn put(&mut self, key: Key, value: Value) {
        if is_pinned(&key) {
            keep_pinned(&mut self.pinned, key, &value);
        }
        if let Some(fresh) = self.fresh.as_ref().filter(|fresh| !fresh.may_contain(key.fingerprint())) {
            fresh.insert(key.fingerprint());
        }
        self.batch.insert(key, value);
    }
}
