//! The journal: the append-only record of everything that must survive.
//!
//! It knows nothing of payments. A record is a head (hashes, and a payload of the caller's) and two parts, raw and
//! event, all opaque bytes. Records are appended in groups; a group is one write and one `fdatasync`, and nothing of
//! it is visible before. [`mod@format`] tells the bytes, [`scan`] what is damage and what is a torn tail.
//!
//! ```text
//! <store>/journal/00000000000000000001.journal    segments, named by the position of their first record
//! <store>/journal/reserve                         room on the disk for progress and retirement when it is full
//! <store>/damage/                                 bytes that did not read, kept aside
//! ```
//!
//! - A start never appends to an old segment and never believes the page cache: what is whole in the last segment is
//!   copied to a new file, which is synced and takes its name.
//! - An error of `fdatasync` is the end: the journal refuses everything from then on, the process must go. A disk that
//!   is full or read-only is not: the append fails as if it had never been tried, and the next one may succeed.
//! - A segment that is full is sealed after its successor stands, so that a sealed segment without one tells that one
//!   is missing.

mod aside;
pub mod disk;
mod footer;
pub mod format;
mod group;
pub mod reader;
mod recover;
mod rewrite;
pub mod scan;
mod shelf;
mod transcript;
pub mod verify;

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::event::{Digest, Position};
use crate::failpoint;
use footer::encode_footer;
use group::{Draft, GroupWriter};
pub use reader::{ReadError, Reader, Stored};
pub use rewrite::{Keep, Prepared, RewriteError};
use shelf::{Active, Place, Segment, Shelf};
use transcript::{Failed, Transcript};

/// The reserve is this large, or a segment if that is smaller: enough for the progress of many days.
const RESERVE_BYTES: u64 = 4 << 20;
/// Bounds of `segment_bytes`: offsets in a segment are 32 bits wide.
const SEGMENT_BOUNDS: (u64, u64) = (4096, 1 << 30);

/// How a journal is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment is sealed before it grows beyond this; brought within 4 KiB and 1 GiB.
    pub segment_bytes: u64,
    /// Read every sealed segment whole at the start, not only header and footer. What is damaged in one that was not
    /// read shows when it is.
    pub verify: bool,
}

/// A record to be appended.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The caller's part of the head.
    pub payload: Vec<u8>,
    /// The raw part; may be empty.
    pub raw: Bytes,
    /// What the head says of it.
    pub raw_hash: Digest,
    /// The event part; may be empty.
    pub event: Vec<u8>,
    /// What the head says of it.
    pub event_hash: Digest,
    /// Fingerprints of its keys, for the segment's footer.
    pub fingerprints: Vec<u64>,
}

/// What an append did: the records are on the disk and visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Position of the first of the group; the others follow without gaps.
    pub first: Position,
    /// Position of the last.
    pub last: Position,
    /// Hash of the last head.
    pub chain: Digest,
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk takes no more just now. Nothing is visible; try again later.
    #[error("the disk takes no more")]
    Full(#[source] io::Error),
    /// A record or the group is beyond the format's bounds.
    #[error("a record or group is too large for the journal")]
    TooLarge,
    /// Nobody knows what is on the disk: the process must end. So fails everything that comes after.
    #[error("the journal cannot be trusted any more after {0}")]
    Fatal(&'static str, #[source] io::Error),
}

/// What a start found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The store's identity.
    pub store_id: [u8; 16],
    /// The newest position; 0 in an empty store.
    pub head: Position,
    /// Hash of the newest head; zeros in an empty store.
    pub chain: Digest,
    /// Damage found by this start. It was kept aside and will not be found again, but for [`Fault::Chain`].
    pub damage: Vec<Damage>,
    /// Places of damage since the store was made, as far as they are still kept aside.
    pub damage_total: u64,
    /// Bytes of a group that was never answered and was cut off.
    pub torn_bytes: u64,
}

/// A place in the journal that does not read although it was synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's name.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// What is wrong.
    pub what: Fault,
}

/// What can be wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes that do not read.
    Unreadable,
    /// The header does not read; the rest may.
    Header,
    /// The file is missing, with the records from `offset` on, `length` of them at most.
    Missing,
    /// The file belongs to another store, or its name is not its own.
    Foreign,
    /// It holds records that its successor holds too.
    Overlap,
    /// The chain of hashes does not go on: two histories were mixed. There is nothing to mend, so every start that
    /// comes by tells it again.
    Chain,
}

/// A journal cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}")]
pub struct OpenError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl OpenError {
    /// Whether the disk is just full or read-only, so that the same may work later. Any other error may pass too;
    /// none of them is a reason to delete anything.
    pub fn is_refusal(&self) -> bool {
        disk::is_refusal(&self.source)
    }
}

/// A segment as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Position of its first record.
    pub first: Position,
    /// Position of its last one; `first - 1` if it has none.
    pub last: Position,
    /// Heads that are kept.
    pub records: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether it takes no more records.
    pub sealed: bool,
}

/// The one writer of a journal.
#[derive(Debug)]
pub struct Journal {
    shelf: Arc<Shelf>,
    options: Options,
    store_id: [u8; 16],
    writer: GroupWriter,
    /// Whether all groups of the active segment stand before a synced mark.
    marked: bool,
    /// The active segment was made of the reserve.
    in_reserve: bool,
}

impl Journal {
    /// Opens the journal of the store in `folder`, or makes one. Only whoever holds the store's lock may.
    ///
    /// # Errors
    /// [`OpenError`]; what was there is as it was, and the next try begins anew.
    pub fn open(folder: &Path, options: Options) -> Result<(Self, Recovered), OpenError> {
        let (low, high) = SEGMENT_BOUNDS;
        let options = Options { segment_bytes: options.segment_bytes.clamp(low, high), ..options };
        let (shelf, writer, recovered) = recover::open(folder, options)?;
        let mut journal = Self {
            shelf: Arc::new(shelf),
            options,
            store_id: recovered.store_id,
            writer,
            marked: true,
            in_reserve: false,
        };
        // Without room for it there is none; every new segment tries again.
        let _ = journal.make_reserve();
        Ok((journal, recovered))
    }

    /// The position that the next record gets.
    pub fn next_position(&self) -> Position {
        Position(self.writer.next())
    }

    /// Hash of the newest head.
    pub fn chain(&self) -> Digest {
        Digest(self.writer.chain())
    }

    /// The store's identity.
    pub fn store_id(&self) -> [u8; 16] {
        self.store_id
    }

    /// A handle for reading.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shelf))
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.reader().segments()
    }

    /// Appends one group and syncs it. When it returns, the records are on the disk and visible.
    ///
    /// # Errors
    /// [`AppendError`]
    pub fn append(&mut self, entries: &[Entry]) -> Result<Appended, AppendError> {
        self.stage(entries)?;
        let outcome = self.write_staged(entries, self.in_reserve);
        if outcome.is_err() {
            self.writer.abandon();
        }
        outcome
    }

    /// Appends like [`append`](Self::append), and when the disk is full into the reserve: for progress and
    /// retirement only.
    ///
    /// # Errors
    /// [`AppendError`]; full, if the reserve is used up too.
    pub fn append_reserved(&mut self, entries: &[Entry]) -> Result<Appended, AppendError> {
        self.stage(entries)?;
        let outcome = match self.write_staged(entries, false) {
            Err(AppendError::Full(error)) if !self.in_reserve => {
                self.writer.abandon();
                match self.rotate(true) {
                    Ok(()) => self.stage(entries).and_then(|()| self.write_group()),
                    Err(AppendError::Full(_)) => Err(AppendError::Full(error)),
                    Err(other) => Err(other),
                }
            }
            other => other,
        };
        if outcome.is_err() {
            self.writer.abandon();
        }
        outcome
    }

    /// Writes the synced mark if something stands behind the last one, so that damage to it will be told from a torn
    /// tail. For idle moments and a clean stop; also mends what a full disk had prevented.
    ///
    /// # Errors
    /// [`AppendError`]
    pub fn mark_idle(&mut self) -> Result<(), AppendError> {
        self.check()?;
        self.seal_pending()?;
        if !self.in_reserve {
            let _ = self.make_reserve();
        }
        if self.marked {
            return Ok(());
        }
        self.writer.abandon();
        self.write_group()?;
        Ok(())
    }

    /// Ends the journal with a synced mark.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is lost by it.
    pub fn close(mut self) -> Result<(), AppendError> {
        self.mark_idle()
    }

    fn check(&self) -> Result<(), AppendError> {
        match self.shelf.failed() {
            Some(what) => Err(AppendError::Fatal(what, io::Error::other("an earlier error"))),
            None => Ok(()),
        }
    }

    fn fatal(&mut self, what: &'static str, error: io::Error) -> AppendError {
        self.shelf.fail(what);
        AppendError::Fatal(what, error)
    }

    /// Encodes the group in memory.
    fn stage(&mut self, entries: &[Entry]) -> Result<(), AppendError> {
        self.check()?;
        self.writer.abandon();
        for entry in entries {
            let draft = Draft {
                payload: &entry.payload,
                raw_hash: &entry.raw_hash.0,
                event_hash: &entry.event_hash.0,
                raw: &entry.raw,
                event: &entry.event,
            };
            if !self.writer.push(draft, &entry.fingerprints) {
                self.writer.abandon();
                return Err(AppendError::TooLarge);
            }
        }
        Ok(())
    }

    /// Writes the staged group, into a new segment if it does not fit or must not go into this one.
    fn write_staged(&mut self, entries: &[Entry], leave: bool) -> Result<Appended, AppendError> {
        let (first, end) = {
            let state = self.shelf.state();
            (state.active.first, state.active.end)
        };
        let holds_records = self.shelf.head() >= first;
        let grown = end.saturating_add(self.writer.len() as u64);
        // A run of lost positions could make the table outgrow its bound; the half leaves room for any group.
        let wide = self.writer.next() - first > format::MAX_SPAN / 2;
        if leave || (holds_records && (wide || grown > self.options.segment_bytes)) {
            self.writer.abandon();
            if leave {
                // The reserve comes first: without one the next full disk would stop the progress too.
                self.make_reserve().map_err(AppendError::Full)?;
            }
            self.rotate(false)?;
            // Every checksum carries the segment's mark, so the group is made anew.
            self.stage(entries)?;
        }
        self.write_group()
    }

    /// One write, one `fdatasync`, then the records are visible.
    fn write_group(&mut self) -> Result<Appended, AppendError> {
        let (file, at, segment_first) = {
            let state = self.shelf.state();
            (Arc::clone(&state.active.file), state.active.end, state.active.first)
        };
        let first = self.shelf.head() + 1;
        let bytes = self.writer.finish(at);
        let end = at + bytes.len() as u64;
        if let Err(error) = file.write_all_at(bytes, at) {
            if !disk::is_refusal(&error) {
                return Err(self.fatal("a write", error));
            }
            // What is left of it is no group and will be overwritten from its first byte on. Cutting it off gives
            // its room back; if even that fails nothing is the worse.
            if !self.in_reserve {
                let _ = file.set_len(at);
            }
            return Err(AppendError::Full(error));
        }
        failpoint::reach("after-append");
        if let Err(error) = file.sync_data() {
            return Err(self.fatal("a sync", error));
        }
        failpoint::reach("after-sync");
        let next = self.writer.next();
        let chain = self.writer.chain();
        {
            let mut state = self.shelf.change();
            let active = &mut state.active;
            active.tables.note(segment_first, at, self.writer.offsets(), self.writer.fingerprints());
            active.end = end;
            self.shelf.publish(next - 1);
        }
        self.marked = self.writer.count() == 0;
        self.writer.written();
        Ok(Appended { first: Position(first), last: Position(next - 1), chain: Digest(chain) })
    }

    /// Begins a new segment, syncs it and its name, and only then seals the one before.
    fn rotate(&mut self, use_reserve: bool) -> Result<(), AppendError> {
        let folder = self.shelf.folder.clone();
        let reserve = folder.join("reserve");
        let (first, chain) = (self.writer.next(), self.writer.chain());
        let begun = Transcript::begin(&folder, self.store_id, first, chain, use_reserve.then_some(reserve.as_path()));
        let made = begun.and_then(|mut made| {
            let file = Arc::new(made.handle()?);
            made.sync()?;
            failpoint::reach("segment-made");
            let path = made.install(&folder)?;
            Ok((made, file, path))
        });
        let (made, file, path) = match made {
            Ok(made) => made,
            // Nobody saw this file yet, and nothing but it was touched.
            Err(Failed::Write(error)) => return Err(AppendError::Full(error)),
            Err(Failed::Sync(error)) => return Err(self.fatal("the sync of a new segment", error)),
        };
        let active =
            Active { path, file, mark: made.header.mark, first, end: made.end, tables: transcript::Tables::default() };
        self.writer = GroupWriter::new(&made.header);
        {
            let mut state = self.shelf.change();
            let old = std::mem::replace(&mut state.active, active);
            if old.first < first {
                let segment = Segment {
                    generation: self.shelf.generation(),
                    path: old.path,
                    mark: old.mark,
                    first: old.first,
                    last: first - 1,
                    chain,
                    records: old.tables.offsets.iter().filter(|offset| **offset != format::NO_HEAD).count() as u64,
                    bytes: old.end,
                    end: old.end,
                    tables: Place::Memory(old.tables),
                };
                state.sealed.push(Arc::new(segment));
            }
        }
        self.marked = true;
        self.in_reserve = use_reserve;
        if !use_reserve {
            let _ = self.make_reserve();
        }
        self.seal_pending()
    }

    /// Writes the footers that are not written yet. A full disk puts it off.
    fn seal_pending(&mut self) -> Result<(), AppendError> {
        let pending: Vec<Arc<Segment>> = {
            let state = self.shelf.state();
            state.sealed.iter().filter(|segment| matches!(segment.tables, Place::Memory(_))).cloned().collect()
        };
        for segment in pending {
            let Place::Memory(tables) = &segment.tables else { continue };
            let (offsets, fingerprints) = (&tables.offsets, &tables.fingerprints);
            let footer =
                encode_footer(&segment.mark, segment.first, segment.last, &segment.chain, offsets, fingerprints);
            let written = std::fs::OpenOptions::new().write(true).open(&segment.path).and_then(|file| {
                file.set_len(segment.end)?;
                file.write_all_at(&footer, segment.end)?;
                Ok(file)
            });
            // The groups are synced already; a start builds a footer that is missing.
            let Ok(file) = written else { continue };
            if let Err(error) = file.sync_data() {
                return Err(self.fatal("the sync of a footer", error));
            }
            let sealed = Segment {
                generation: self.shelf.generation(),
                path: segment.path.clone(),
                bytes: segment.end + footer.len() as u64,
                tables: Place::Footer(offsets.len() as u32),
                ..*segment
            };
            let mut state = self.shelf.change();
            if let Some(place) = state.sealed.iter_mut().find(|other| other.generation == segment.generation) {
                *place = Arc::new(sealed);
            }
        }
        Ok(())
    }

    /// Takes the reserve's room on the disk if it is not taken yet.
    fn make_reserve(&mut self) -> io::Result<()> {
        let path = self.shelf.folder.join("reserve");
        let length = RESERVE_BYTES.min(self.options.segment_bytes);
        if std::fs::metadata(&path).is_ok_and(|file| file.len() == length) {
            return Ok(());
        }
        let temporary = self.shelf.folder.join("reserve.tmp");
        let made = disk::create(&temporary).and_then(|file| {
            disk::preallocate(&file, length)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            disk::sync_folder(&self.shelf.folder)
        });
        if made.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        made
    }
}

#[cfg(test)]
impl Reader {
    /// From now on the disk takes nothing but what goes into the reserve.
    pub(super) fn fill_disk(&self) {
        let full = std::fs::File::options().read(true).write(true).open("/dev/full").expect("opens");
        self.shelf.change().active.file = Arc::new(full);
        // Where the next reserve is to be made: without one, what may not use it is refused.
        std::fs::create_dir(self.shelf.folder.join("reserve.tmp")).expect("makes");
    }
}

#[cfg(test)]
mod tests;
