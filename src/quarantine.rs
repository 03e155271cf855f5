//! A bounded keep of notifications that were refused and may yet prove genuine: a wrong key in the config, a provider
//! that changed its key, a body that a later version can read.
//!
//! A ring of files beside the journal, `<store>/quarantine/<source>/<id>.request`. Nothing here is ever synced, and
//! nothing waits for it: a queue of its own feeds a thread of its own, and what does not fit is dropped and counted.
//! Bearer secrets are cut out before anything is queued and stay as HMACs under the store's key, by which a
//! re-verification can tell whether they were right; nothing but [`Quarantine::read`] shows more than when, from where,
//! why and how large.

mod file;
mod ring;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::event::SourceName;
use crate::provider::{Cut, Received};
use crate::seal::{Scar, Seal};
use ring::Ring;

pub use file::{Damage, Kept, decode, encode};

/// Offers that may wait for the writer. More are dropped: a flood of forgeries must not cost memory.
const QUEUE: usize = 64;
/// How often old entries are looked for when nothing arrives.
const SWEEP: Duration = Duration::from_secs(60);
const SUFFIX: &str = "request";

/// An entry's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuarantineId(Uuid);

/// How much of each source is kept, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Disk space of one source's entries, in bytes. One remote address holds at most an eighth of it.
    pub max_bytes: u64,
    /// Older entries go.
    pub max_age: Duration,
}

/// What a list may show of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: QuarantineId,
    /// When it arrived.
    pub received_at: Timestamp,
    /// From where.
    pub remote: IpAddr,
    /// Why it was refused.
    pub reason: String,
    /// Disk space it takes, in bytes.
    pub bytes: u64,
}

/// Figures at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Disk space by source, in bytes.
    pub bytes: BTreeMap<SourceName, u64>,
    /// Offers since the start that were not kept: too many at once, too large, or the disk refused.
    pub dropped: u64,
    /// Files since the start that did not read back.
    pub damaged: u64,
}

/// The quarantine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// A folder or file cannot be read or made.
    #[error("the quarantine in {path} cannot be used")]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What was read is not what was written.
    #[error("the quarantined request {id} is damaged")]
    Damaged {
        /// Which.
        id: QuarantineId,
        /// How.
        #[source]
        source: Damage,
    },
    /// The writer's thread cannot be started.
    #[error("the quarantine's thread cannot be started")]
    Thread(#[source] std::io::Error),
}

/// The quarantine of all sources. A cheap clone; the last one that is dropped waits for what is queued.
#[derive(Clone)]
pub struct Quarantine(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    queue: Option<SyncSender<Offer>>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    folder: PathBuf,
    bounds: RwLock<Bounds>,
    clock: Arc<dyn Clock>,
    seal: Seal,
    rings: RwLock<Rings>,
    dropped: AtomicU64,
    damaged: AtomicU64,
}

type Rings = BTreeMap<SourceName, Mutex<Ring>>;

struct Offer {
    source: SourceName,
    reason: String,
    received: Received,
    scars: Vec<Scar>,
}

impl Quarantine {
    /// Opens or makes the quarantine in `folder`, with what an earlier run left there, also of sources that are no
    /// longer configured: their entries age like all others. Blocks.
    ///
    /// # Errors
    /// [`QuarantineError`] when a folder cannot be made or read. Damaged files are no error.
    pub fn open<'s>(
        folder: &Path,
        sources: impl IntoIterator<Item = &'s SourceName>,
        bounds: Bounds,
        clock: Arc<dyn Clock>,
        seal: Seal,
    ) -> Result<Self, QuarantineError> {
        let failed = |source| QuarantineError::Folder { path: folder.to_owned(), source };
        make_folder(folder).map_err(failed)?;
        let mut names: BTreeSet<SourceName> = sources.into_iter().cloned().collect();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            names.extend(entry.file_name().to_str().and_then(SourceName::new).filter(|_| is_folder));
        }
        let shared = Shared {
            folder: folder.to_owned(),
            bounds: RwLock::new(bounds),
            clock,
            seal,
            rings: RwLock::default(),
            dropped: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        };
        for name in names {
            shared.add(name, bounds)?;
        }
        let shared = Arc::new(shared);
        shared.sweep();
        let (queue, offers) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new().name("quarantine".to_owned());
        let for_writer = Arc::clone(&shared);
        let writer = writer.spawn(move || for_writer.write_all(&offers)).map_err(QuarantineError::Thread)?;
        Ok(Self(Arc::new(Inner { shared, queue: Some(queue), writer: Some(writer) })))
    }

    /// Offers a refused request, whose bearer secrets stand at `cuts`. Never waits: what cannot be taken now is
    /// dropped and counted.
    pub fn offer(&self, source: &SourceName, reason: &str, received: &Received, cuts: &[Cut]) {
        let (received, scars) = self.0.shared.seal.cut(received, cuts);
        let offer = Offer { source: source.clone(), reason: reason.to_owned(), received, scars };
        let taken = self.0.queue.as_ref().is_some_and(|queue| queue.try_send(offer).is_ok());
        if !taken {
            self.0.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Goes on with these sources and bounds. What is above a smaller bound goes when the next entry comes; what lies of
    /// a source that is configured no more ages like all others. Blocks.
    ///
    /// # Errors
    /// [`QuarantineError`] when the folder of a new source cannot be made or read: the first of them. The bounds and the
    /// other sources hold all the same.
    pub fn adopt<'s>(
        &self,
        sources: impl IntoIterator<Item = &'s SourceName>,
        bounds: Bounds,
    ) -> Result<(), QuarantineError> {
        let shared = &self.0.shared;
        *shared.bounds.write().unwrap_or_else(PoisonError::into_inner) = bounds;
        shared.rings().values().for_each(|ring| lock(ring).bound(bounds.max_bytes));
        let mut first = Ok(());
        for name in sources {
            let known = shared.rings().contains_key(name);
            if !known && let Err(error) = shared.add(name.clone(), bounds) {
                first = first.and(Err(error));
            }
        }
        first
    }

    /// What is kept of a source, oldest first.
    pub fn entries(&self, source: &SourceName) -> Vec<Entry> {
        self.0.shared.rings().get(source).map(|ring| lock(ring).entries().cloned().collect()).unwrap_or_default()
    }

    /// An entry with its request as it came; `None` when there is none of that name. Blocks.
    ///
    /// # Errors
    /// [`QuarantineError`] when its file cannot be read, or is damaged.
    pub fn read(&self, id: QuarantineId) -> Result<Option<Kept>, QuarantineError> {
        let shared = &self.0.shared;
        let rings = shared.rings();
        let Some(source) = rings.iter().find_map(|(name, ring)| lock(ring).has(id).then_some(name)) else {
            return Ok(None);
        };
        let path = shared.path(source, id);
        let bytes = match read_bounded(&path, file::MAX_BYTES) {
            // It was evicted in the meantime.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| QuarantineError::Folder { path, source })?,
        };
        match decode(&bytes) {
            Ok(kept) if kept.source == *source => Ok(Some(kept)),
            Ok(_) => Err(QuarantineError::Damaged { id, source: Damage::Field("source") }),
            Err(damage) => {
                shared.damaged.fetch_add(1, Ordering::Relaxed);
                Err(QuarantineError::Damaged { id, source: damage })
            }
        }
    }

    /// The sources of which something may be kept, also such as are configured no more.
    pub fn sources(&self) -> Vec<SourceName> {
        self.0.shared.rings().keys().cloned().collect()
    }

    /// A kept request with its secrets put back, where they are among the candidates: [`Seal::heal`].
    pub fn whole(&self, kept: &Kept, candidates: &[Zeroizing<Vec<u8>>]) -> Option<Received> {
        self.0.shared.seal.heal(&kept.received, &kept.scars, candidates)
    }

    /// Removes an entry: it was let in. Blocks.
    pub fn remove(&self, id: QuarantineId) {
        let shared = &self.0.shared;
        for (source, ring) in shared.rings().iter() {
            if lock(ring).remove(id) {
                remove(&shared.path(source, id));
            }
        }
    }

    /// Figures for metrics.
    pub fn figures(&self) -> Figures {
        let shared = &self.0.shared;
        Figures {
            bytes: shared.rings().iter().map(|(name, ring)| (name.clone(), lock(ring).bytes())).collect(),
            dropped: shared.dropped.load(Ordering::Relaxed),
            damaged: shared.damaged.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the quarantine's thread panicked");
        }
    }
}

impl Shared {
    fn rings(&self) -> RwLockReadGuard<'_, Rings> {
        self.rings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a source, with what lies there already.
    fn add(&self, name: SourceName, bounds: Bounds) -> Result<(), QuarantineError> {
        let ring = self.scan(&name, bounds)?;
        self.rings.write().unwrap_or_else(PoisonError::into_inner).insert(name, Mutex::new(ring));
        Ok(())
    }

    fn path(&self, source: &SourceName, id: QuarantineId) -> PathBuf {
        self.folder.join(source.as_str()).join(format!("{id}.{SUFFIX}"))
    }

    /// The ring of what lies in a source's folder. Only heads are read: a damaged rest shows when it is wanted.
    fn scan(&self, source: &SourceName, bounds: Bounds) -> Result<Ring, QuarantineError> {
        let folder = self.folder.join(source.as_str());
        let failed = |source| QuarantineError::Folder { path: folder.clone(), source };
        make_folder(&folder).map_err(failed)?;
        let mut ring = Ring::new(bounds.max_bytes);
        let mut too_many = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SUFFIX));
            let Some(id) = name.and_then(|name| name.strip_suffix('.')).and_then(QuarantineId::parse) else {
                // A file that was being written when the last run ended, or nothing of ours: only the former goes.
                if path.extension().is_some_and(|extension| extension == "tmp") {
                    remove(&path);
                }
                continue;
            };
            let length = path.metadata().map_err(failed)?.len();
            let head = read_prefix(&path, file::HEAD_BYTES).map_err(failed)?;
            let (received_at, remote, reason) = file::decode_head(&head).unwrap_or_else(|_| {
                // It still takes room, so it stays in the ring and goes in its turn.
                self.damaged.fetch_add(1, Ordering::Relaxed);
                (id.time(), IpAddr::V6(Ipv6Addr::UNSPECIFIED), "damaged".to_owned())
            });
            let entry = Entry { id, received_at, remote, reason, bytes: ring::disk_space(length) };
            too_many.extend(ring.make_room(remote, entry.bytes).into_iter().flatten());
            ring.insert(entry);
        }
        for id in too_many {
            remove(&self.path(source, id));
        }
        Ok(ring)
    }

    fn write_all(&self, offers: &Receiver<Offer>) {
        let mut refused_before = false;
        loop {
            match offers.recv_timeout(SWEEP) {
                Ok(offer) => {
                    let source = offer.source.clone();
                    let result = self.write(offer);
                    if let Err(error) = &result {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                        if !refused_before {
                            tracing::warn!(%source, %error, "the disk refuses what the quarantine wants to keep");
                        }
                    }
                    refused_before = result.is_err();
                }
                Err(RecvTimeoutError::Timeout) => self.sweep(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write(&self, offer: Offer) -> std::io::Result<()> {
        self.sweep();
        let rings = self.rings();
        let Some(ring) = rings.get(&offer.source) else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        let id = QuarantineId::at(offer.received.at);
        let (at, remote) = (offer.received.at, offer.received.remote);
        let bytes = encode(&offer.source, &offer.reason, &offer.received, &offer.scars);
        let space = ring::disk_space(bytes.len() as u64);
        let Some(evicted) = lock(ring).make_room(remote, space) else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        for id in evicted {
            remove(&self.path(&offer.source, id));
        }
        // Under its name only when it is whole. No sync: after a power loss it may be damaged, and is then skipped.
        let path = self.path(&offer.source, id);
        let unfinished = path.with_extension("tmp");
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| std::fs::rename(&unfinished, &path));
        if written.is_err() {
            remove(&unfinished);
            return written;
        }
        let reason = file::shorten(&offer.reason).to_owned();
        lock(ring).insert(Entry { id, received_at: at, remote, reason, bytes: space });
        Ok(())
    }

    /// Removes what is older than it may be.
    fn sweep(&self) {
        let max_age = self.bounds.read().unwrap_or_else(PoisonError::into_inner).max_age;
        let age = jiff::SignedDuration::try_from(max_age).unwrap_or(jiff::SignedDuration::MAX);
        let Ok(oldest) = self.clock.now().checked_sub(age) else { return };
        for (source, ring) in self.rings().iter() {
            let old = lock(ring).take_older(oldest);
            for id in old {
                remove(&self.path(source, id));
            }
        }
    }
}

impl QuarantineId {
    /// A new id, ordered by time of arrival.
    fn at(time: Timestamp) -> Self {
        let seconds = u64::try_from(time.as_second()).unwrap_or_default();
        let nanos = u32::try_from(time.subsec_nanosecond()).unwrap_or_default();
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos)))
    }

    /// `None` unless `text` is a hyphenated UUID.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 36).then(|| Uuid::try_parse(text).ok().map(Self)).flatten()
    }

    /// The time in the id; long ago where it holds none.
    fn time(self) -> Timestamp {
        let time = self.0.get_timestamp().map(|time| time.to_unix());
        time.and_then(|(seconds, nanos)| Timestamp::new(seconds.try_into().ok()?, nanos.try_into().ok()?).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for QuarantineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for QuarantineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A ring is a list of names: after a panic it is at worst short of one file, which the next start finds.
fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Private from the start, and made so where an earlier hand was careless.
fn make_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a quarantined request cannot be removed");
        }
        _ => {}
    }
}

fn read_bounded(path: &Path, max: usize) -> std::io::Result<Vec<u8>> {
    // One byte more than any file may have, so that a longer one is seen to be none.
    read_prefix(path, max + 1)
}

fn read_prefix(path: &Path, max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
