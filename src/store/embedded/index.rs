//! The index on disk: sled and sorted runs, and nothing that is acknowledged depends on it.
//!
//! sled keeps what says how far the index goes and the handful of values that are always in memory. It is no place for
//! the keys: with at most 16 of them on a page it takes more memory for ten million notifications than the daemon may,
//! and it copies a page for each key that is written (a third of the processor's time of a notification). They are in
//! `run`s, each a sorted file that is written once; `shelf` merges them.
//!
//! sled's flush is no promise against a power loss (spacejam/sled#1452), so the index says of itself how much of the
//! journal it covers, in the same batch of the same tree as the values, and is believed only if everything about that
//! statement fits. Otherwise it is thrown away and built anew from the journal.

mod run;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::fields::{Fields, Writer, little_endian};
use super::overlay::{PINNED, is_pinned};
use super::state::{Key, Value};
use crate::event::{Digest, Position};
use shelf::{Catalogue, Shelf, catalogue};

/// Values by key, waiting to be written.
pub type Batch = HashMap<Key, Value, BuildHasherDefault<KeyHasher>>;

/// Keys are hashes already: their bytes serve as they are.
#[derive(Debug, Default)]
pub struct KeyHasher(u64);

/// The index. It can be lost while the daemon runs (a full disk, an error of sled) and be replaced by one built anew;
/// in between every look-up is an error.
#[derive(Debug)]
pub struct Index {
    held: RwLock<Option<Arc<Held>>>,
    /// The first thing that went wrong with what is held: whatever else it says is not to be believed either.
    trouble: Mutex<Option<String>>,
    store: [u8; 16],
    boot: String,
}

#[derive(Debug)]
struct Held {
    db: Database,
    shelf: Shelf,
}

/// sled flushes as it is dropped, and panics when the disk refuses that. An index may be lost; the daemon, and the
/// status that it ends with, may not.
#[derive(Debug)]
struct Database(Option<sled::Db>);

impl std::ops::Deref for Database {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.0.as_ref().expect("only a drop takes it")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let db = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!("sled panicked while it was closed");
        }
    }
}

/// What an index covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Everything up to and including.
    pub position: Position,
    /// Hash of the head there.
    pub chain: Digest,
}

/// sled or the disk answered with an error.
#[derive(Debug, thiserror::Error)]
#[error("the index in {path} failed")]
pub struct IndexError {
    path: PathBuf,
    #[source]
    source: sled::Error,
}

/// Its number is that of what the index holds: one that was built for less is built anew.
const COVERED: &[u8] = b"\0covered2";
/// Numbers and levels of the runs, in the same batch as what they cover.
const RUNS: &[u8] = b"\0runs";

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
        let opened = guarded(|| {
            let config = sled::Config::new().path(folder).cache_capacity(32 << 20).flush_every_ms(Some(1_000));
            let db = Database(Some(config.open()?));
            let note = db.get(COVERED)?;
            let runs = db.get(RUNS)?.map(|runs| read_catalogue(&runs)).unwrap_or_default();
            let covered = note.and_then(|note| {
                let fields = Fields::parse(&note)?;
                let same = fields.array(1) == Some(store) && fields.text(2) == Some(boot);
                let covered = Covered { position: Position(fields.number(3)), chain: Digest(fields.array(4)?) };
                (same && !boot.is_empty()).then_some(covered)
            });
            // Of another boot nothing is believed: then what runs there are may not even be whole.
            let runs = covered.map(|_| runs).unwrap_or_default();
            let shelf = Shelf::open(&folder.join("runs"), &runs)?;
            Ok((Held { db, shelf }, covered))
        });
        let (held, covered) = opened.map_err(|source| IndexError { path: folder.to_owned(), source })?;
        let held = RwLock::new(Some(Arc::new(held)));
        Ok((Self { held, trouble: Mutex::default(), store, boot: boot.to_owned() }, covered))
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
        let held = self.held()?;
        self.asked(|| {
            if is_pinned(key) {
                held.db.get(key.0)?.map(|bytes| decode(key.what(), &bytes)).transpose()
            } else {
                held.shelf.get(key)?.map(|bytes| decode(key.what(), &bytes)).transpose()
            }
        })
    }

    /// The values that are always in memory: those of sinks, open dead letters, replays, accounts, clock and horizon.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn pinned(&self) -> Result<Batch, IndexError> {
        let held = self.held()?;
        self.asked(|| {
            let mut found = Batch::default();
            for what in PINNED {
                for entry in held.db.scan_prefix([what]) {
                    let (key, bytes) = entry?;
                    if let Ok(key) = <[u8; 17]>::try_from(&*key) {
                        found.insert(Key(key), decode(what, &bytes)?);
                    }
                }
            }
            Ok(found)
        })
    }

    /// Everything that is in it.
    #[cfg(test)]
    pub fn all(&self) -> std::collections::BTreeMap<Key, Value> {
        let held = self.held().expect("open");
        let mut found = std::collections::BTreeMap::new();
        for (key, bytes) in held.db.iter().map(|entry| entry.expect("readable")) {
            if let Ok(key) = <[u8; 17]>::try_from(&*key) {
                found.insert(Key(key), Some(bytes.to_vec()));
            }
        }
        for run in held.shelf.runs().iter() {
            let mut cursor = run.cursor(run::Place::default());
            while let Some((key, value)) = cursor.peek().expect("reads") {
                found.insert(key, value.map(<[u8]>::to_vec));
                cursor.step().expect("reads");
            }
        }
        let kept = found.into_iter().filter_map(|(key, bytes)| Some((key, bytes?)));
        kept.map(|(key, bytes)| (key, Value::decode(key.what(), &bytes).expect("reads"))).collect()
    }

    /// Puts something there that does not read.
    #[cfg(test)]
    pub fn spoil(&self, key: &Key) {
        const NOTHING: &[u8] = b"\xff\xff";
        let held = self.held().expect("open");
        if is_pinned(key) {
            held.db.insert(key.0, NOTHING).expect("written");
        } else {
            held.shelf.show(held.shelf.add(vec![(*key, Some(NOTHING.to_vec()))]).expect("written"));
        }
    }

    /// Writes values and what is covered with them, together or not at all, and forgets keys that were retired.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn write(&self, values: &Batch, covered: Covered, forget: &[Key]) -> Result<(), IndexError> {
        let held = self.held()?;
        let mut batch = sled::Batch::default();
        let mut entries: HashMap<Key, Option<Vec<u8>>, BuildHasherDefault<KeyHasher>> = HashMap::default();
        for (key, value) in values {
            if *value == Value::Gone {
                batch.remove(&key.0);
            } else if is_pinned(key) {
                batch.insert(&key.0, value.encode());
            } else {
                entries.insert(*key, Some(value.encode()));
            }
        }
        // What was written anew since is none that was retired: forgetting it would make a payment new once more.
        let retired = forget.iter().filter(|key| !is_pinned(key) && !values.contains_key(*key));
        entries.extend(retired.map(|key| (*key, None)));
        self.asked(move || {
            let runs = held.shelf.add(entries.into_iter().collect())?;
            let mut note = Writer::new();
            note.put(1, &self.store).put_text(2, Some(&self.boot));
            note.put_number(3, covered.position.0).put(4, &covered.chain.0);
            batch.insert(COVERED, note.finish());
            batch.insert(RUNS, write_catalogue(&catalogue(&runs)));
            held.db.apply_batch(batch)?;
            held.shelf.show(runs);
            let replaced = held.shelf.take_replaced();
            if !replaced.is_empty() {
                // A kill throws the newest of what sled was told away: then the catalogue before this one must still be true.
                held.db.flush()?;
                held.shelf.remove(&replaced);
            }
            Ok(())
        })
    }

    /// Takes back what it says of itself, so that nobody believes it again.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn disown(&self) -> Result<(), IndexError> {
        let held = self.held()?;
        self.asked(|| held.db.remove(COVERED).map(drop))
    }

    /// Hands everything to the operating system, for a clean stop.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn flush(&self) -> Result<(), IndexError> {
        let held = self.held()?;
        self.asked(|| held.db.flush().map(drop))
    }

    /// What went wrong since it was opened or built anew: a look-up that failed for one must not fail for all that come.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn held(&self) -> Result<Arc<Held>, IndexError> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner).clone();
        let lost = || sled::Error::Unsupported("the index was lost and is being built anew".to_owned());
        held.ok_or_else(|| IndexError { path: PathBuf::from("index"), source: lost() })
    }

    /// Asks what is held, and remembers that it failed.
    fn asked<T>(&self, what: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
        guarded(what).map_err(|source| {
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            trouble.get_or_insert_with(|| source.to_string());
            IndexError { path: PathBuf::from("index"), source }
        })
    }

    /// Lets go of a database that failed.
    pub fn lose(&self) {
        drop(self.held.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Goes on with the database of another one, built anew.
    pub fn adopt(&self, other: Self) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) =
            other.held.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// sled panics where its files or the disk surprise it: that is an error of the index, and of nothing else.
fn guarded<T>(what: impl FnOnce() -> sled::Result<T>) -> sled::Result<T> {
    catch_unwind(AssertUnwindSafe(what)).unwrap_or_else(|_| Err(sled::Error::ReportableBug("sled panicked".to_owned())))
}

fn decode(what: u8, bytes: &[u8]) -> sled::Result<Value> {
    Value::decode(what, bytes).ok_or(sled::Error::Corruption { at: None, bt: () })
}

/// Changes with every boot of the machine; empty where the system has none, and then no index is believed.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn write_catalogue(runs: &Catalogue) -> Vec<u8> {
    runs.iter().flat_map(|(number, level)| [*number, u64::from(*level)]).flat_map(u64::to_le_bytes).collect()
}

fn read_catalogue(bytes: &[u8]) -> Catalogue {
    let entries = bytes.chunks_exact(16).map(|entry| entry.split_at(8));
    entries.map(|(number, level)| (little_endian(number), little_endian(level) as u32)).collect()
}
