//! Looks at a store from outside, also while a daemon runs on it: nothing is locked and nothing is changed.

use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::index::Index;
use super::journal::verify::{self, Report, VerifyError};
use super::lock::{Lock, LockError};
use super::record::{Record, Stamped};
use crate::store::Noted;

pub use super::journal::verify::{Compared, Finding, What};

/// Walks the whole journal ([`mod@super::journal::verify`]). `progress` is told how many bytes were read, and of how
/// many.
///
/// # Errors
/// [`VerifyError`].
pub fn verify(store: &Path, noted: Option<Noted>, progress: &mut dyn FnMut(u64, u64)) -> Result<Report, VerifyError> {
    let horizon = |payload: &[u8]| match Stamped::decode(payload)?.record {
        Record::Horizon(position) => Some(position.0),
        _ => None,
    };
    verify::verify(store, noted, &horizon, progress)
}

/// When the newest record was written, by the clock of then; `None` in an empty store.
///
/// # Errors
/// When the journal's folder or its last file cannot be read.
pub fn newest_record(store: &Path) -> io::Result<Option<Timestamp>> {
    let payloads = verify::newest_payloads(store)?;
    let trusted =
        payloads.iter().rev().filter_map(|payload| Stamped::decode(payload)).find(|stamped| !stamped.doubtful);
    Ok(trusted.map(|stamped| stamped.committed_at))
}

/// Takes the index away, so that the next start builds it from the journal.
///
/// # Errors
/// Another process has the store, or the index cannot be removed.
pub fn discard_index(store: &Path) -> Result<(), LockError> {
    let _lock = Lock::take(store)?;
    let path = store.join("index");
    Index::discard(&path).map_err(|source| LockError::Io { path, source })
}
