//! The index on disk: sled, and nothing that is acknowledged depends on it.
//!
//! sled's flush is no promise against a power loss (spacejam/sled#1452), so the index says of itself how much of the
//! journal it covers, in the same batch of the same tree as the values, and is believed only if everything about that
//! statement fits. Otherwise it is thrown away and built anew from the journal.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::fields::{Fields, Writer};
use super::state::{Key, Value};
use crate::event::{Digest, Position};

/// Values by key, waiting to be written.
pub type Batch = HashMap<Key, Value, BuildHasherDefault<KeyHasher>>;

/// Keys are hashes already: their bytes serve as they are.
#[derive(Debug, Default)]
pub struct KeyHasher(u64);

/// The index. It can be lost while the daemon runs (a full disk, an error of sled) and be replaced by one built anew;
/// in between every look-up is an error.
#[derive(Debug)]
pub struct Index {
    db: RwLock<Option<sled::Db>>,
    store: [u8; 16],
    boot: String,
}

/// What an index covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Everything up to and including.
    pub position: Position,
    /// Hash of the head there.
    pub chain: Digest,
}

/// sled answered with an error.
#[derive(Debug, thiserror::Error)]
#[error("the index in {path} failed")]
pub struct IndexError {
    path: PathBuf,
    #[source]
    source: sled::Error,
}

const COVERED: &[u8] = b"\0covered";

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        // `Key` hashes its length and its bytes; the bytes come last.
        if let Some(bytes) = bytes.get(1..9) {
            self.0 = super::fields::little_endian(bytes);
        }
    }
}

impl Index {
    /// Opens the index of a store, with what it covers; `None` if it cannot be believed as far as it can tell: made
    /// for another store, or before the last boot, after which nobody knows what of it reached the disk.
    ///
    /// # Errors
    /// [`IndexError`]: throw it away ([`Index::discard`]).
    pub fn open(folder: &Path, store: [u8; 16], boot: &str) -> Result<(Self, Option<Covered>), IndexError> {
        let failed = |source| IndexError { path: folder.to_owned(), source };
        let config = sled::Config::new().path(folder).cache_capacity(32 << 20).flush_every_ms(Some(1_000));
        let db = config.open().map_err(failed)?;
        let note = db.get(COVERED).map_err(failed)?;
        let covered = note.and_then(|note| {
            let fields = Fields::parse(&note)?;
            let same = fields.array(1) == Some(store) && fields.text(2) == Some(boot);
            let covered = Covered { position: Position(fields.number(3)), chain: Digest(fields.array(4)?) };
            (same && !boot.is_empty()).then_some(covered)
        });
        Ok((Self { db: RwLock::new(Some(db)), store, boot: boot.to_owned() }, covered))
    }

    /// Removes the folder of an index.
    ///
    /// # Errors
    /// What the file system says, except that it is not there.
    pub fn discard(folder: &Path) -> std::io::Result<()> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// The value of a key. One that does not read is an error, not an absence.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn get(&self, key: &Key) -> Result<Option<Value>, IndexError> {
        let bytes = self.db()?.get(key.0).map_err(|source| self.failed(source))?;
        bytes
            .map(|bytes| Value::decode(key.what(), &bytes).ok_or(sled::Error::Corruption { at: None, bt: () }))
            .transpose()
            .map_err(|source| self.failed(source))
    }

    /// The values that are always in memory: those of sinks, dead letters, replays, clock and horizon.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn pinned(&self) -> Result<Batch, IndexError> {
        let mut found = Batch::default();
        for what in [b'P', b'C', b'H', b'R', b'D', b'J', b'L'] {
            for entry in self.db()?.scan_prefix([what]) {
                let (key, bytes) = entry.map_err(|source| self.failed(source))?;
                if let Ok(key) = <[u8; 17]>::try_from(&*key)
                    && let Some(value) = Value::decode(what, &bytes)
                {
                    found.insert(Key(key), value);
                }
            }
        }
        Ok(found)
    }

    /// Everything that is in it.
    #[cfg(test)]
    pub fn all(&self) -> std::collections::BTreeMap<Key, Value> {
        let db = self.db.read().expect("whole");
        let entries = db.as_ref().expect("open").iter().map(|entry| entry.expect("readable"));
        let values = entries.filter_map(|(key, bytes)| {
            let key = Key(<[u8; 17]>::try_from(&*key).ok()?);
            Some((key, Value::decode(key.what(), &bytes).expect("reads")))
        });
        values.collect()
    }

    /// Puts something there that does not read.
    #[cfg(test)]
    pub fn spoil(&self, key: &Key) {
        let db = self.db.read().expect("whole");
        db.as_ref().expect("open").insert(key.0, b"\xff\xff").expect("written");
    }

    /// Writes values and what is covered with them, together or not at all.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn write(&self, values: &Batch, covered: Covered) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        for (key, value) in values {
            batch.insert(&key.0, value.encode());
        }
        let mut note = Writer::new();
        note.put(1, &self.store).put_text(2, Some(&self.boot));
        note.put_number(3, covered.position.0).put(4, &covered.chain.0);
        batch.insert(COVERED, note.finish());
        self.db()?.apply_batch(batch).map_err(|source| self.failed(source))
    }

    /// Takes back what it says of itself, so that nobody believes it again.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn disown(&self) -> Result<(), IndexError> {
        self.db()?.remove(COVERED).map(drop).map_err(|source| self.failed(source))
    }

    /// Forgets keys that were retired.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn remove(&self, keys: &[Key]) -> Result<(), IndexError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        keys.iter().for_each(|key| batch.remove(&key.0));
        self.db()?.apply_batch(batch).map_err(|source| self.failed(source))
    }

    /// Hands everything to the operating system, for a clean stop.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn flush(&self) -> Result<(), IndexError> {
        self.db()?.flush().map(drop).map_err(|source| self.failed(source))
    }

    fn db(&self) -> Result<sled::Db, IndexError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner).clone();
        db.ok_or_else(|| self.failed(sled::Error::Unsupported("the index was lost and is being built anew".to_owned())))
    }

    /// Lets go of a database that failed.
    pub fn lose(&self) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Goes on with the database of another one, built anew.
    pub fn adopt(&self, other: Self) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) =
            other.db.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    fn failed(&self, source: sled::Error) -> IndexError {
        IndexError { path: PathBuf::from("index"), source }
    }
}

/// Changes with every boot of the machine; empty where the system has none, and then no index is believed.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
