//! Reading: one record by its position, heads or records in order, newest first, and the fingerprints.
//!
//! A reader never waits for the disk on behalf of the writer and sees only what is synced. Every record is checked
//! when it is read; what does not read is told with its place and the next one comes all the same.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{Broken, FOOTER_START, Frame, NO_HEAD, Record, decode_frame, frame_len, seed};
use super::scan::{Expected, scan};
use super::shelf::{Place, Segment, Shelf, Spot, read_file, read_footer};
use super::{Digest, Position, SegmentInfo};

/// A single record is read with this much at once; most need no second read.
const ONE_READ: usize = 8 << 10;
/// Records in order are read in blocks of at most this size.
const BLOCK: usize = 1 << 20;
/// Records of one block at first, and at most.
const BATCH: (u64, u64) = (32, 2048);

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the journal.
    pub position: Position,
    /// Hash of its head.
    pub chain: Digest,
    /// Hash of the head before it.
    pub previous: Digest,
    /// The caller's part of the head.
    pub payload: Bytes,
    /// What the head says of the raw part.
    pub raw_hash: Digest,
    /// What the head says of the event part.
    pub event_hash: Digest,
    /// The raw part; `None` if it was retired, is damaged or was not asked for.
    pub raw: Option<Bytes>,
    /// The event part; likewise.
    pub event: Option<Bytes>,
    /// The parts are there and do not read.
    pub parts_damaged: bool,
}

/// A record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// An error of the disk or the file system.
    #[error("reading {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was read is not what was written.
    #[error("record {position} does not read at byte {offset} of {path}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The record.
        position: Position,
    },
}

/// Reads a journal; a cheap handle.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) shelf: Arc<Shelf>,
}

impl Reader {
    pub(super) fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf }
    }

    /// How many records did not read so far, of which no start had known.
    pub fn damage_met(&self) -> u64 {
        self.shelf.damage_met()
    }

    /// The newest visible position; 0 in an empty journal.
    pub fn head(&self) -> Position {
        Position(self.shelf.head())
    }

    /// The record at a position with its parts; `None` beyond the head, and where a head was retired or lost.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn read(&self, position: Position) -> Result<Option<Stored>, ReadError> {
        let mut found = self.run(position.0, position.0, true)?;
        found.pop_front().transpose()
    }

    /// The record at a position without its parts.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn head_at(&self, position: Position) -> Result<Option<Stored>, ReadError> {
        let mut found = self.run(position.0, position.0, false)?;
        found.pop_front().transpose()
    }

    /// Records from a position on without their parts, in order, up to the newest when it is reached.
    pub fn heads(&self, from: Position) -> Records {
        Records::new(self.clone(), from.0.max(1), false, false)
    }

    /// Records from a position on with their parts, in order.
    pub fn records(&self, from: Position) -> Records {
        Records::new(self.clone(), from.0.max(1), true, false)
    }

    /// Records from a position down without their parts, newest first.
    pub fn heads_back(&self, from: Position) -> Records {
        Records::new(self.clone(), from.0.min(self.shelf.head()), false, true)
    }

    /// Records from a position down with their parts, newest first.
    pub fn records_back(&self, from: Position) -> Records {
        Records::new(self.clone(), from.0.min(self.shelf.head()), true, true)
    }

    /// The fingerprints of the records of each segment, oldest segment first, the one that takes records last.
    pub fn fingerprints(&self) -> impl Iterator<Item = Result<(SegmentInfo, Vec<u64>), ReadError>> + use<> {
        let reader = self.clone();
        self.segments().into_iter().map(move |info| reader.segment_fingerprints(info.first.0))
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.shelf.state();
        let mut found: Vec<SegmentInfo> = state.sealed.iter().map(|segment| info(segment)).collect();
        found.push(self.active_info(&state.active));
        found
    }

    fn active_info(&self, active: &super::shelf::Active) -> SegmentInfo {
        SegmentInfo {
            first: Position(active.first),
            last: Position(self.shelf.head()),
            records: active.tables.offsets.iter().filter(|offset| **offset != NO_HEAD).count() as u64,
            bytes: active.end,
            sealed: false,
        }
    }

    fn segment_fingerprints(&self, first: u64) -> Result<(SegmentInfo, Vec<u64>), ReadError> {
        loop {
            let segment = {
                let state = self.shelf.state();
                match state.sealed.iter().find(|segment| segment.first == first) {
                    Some(segment) => Arc::clone(segment),
                    None => {
                        return Ok((self.active_info(&state.active), state.active.tables.fingerprints.clone()));
                    }
                }
            };
            let Place::Footer(offsets) = segment.tables else {
                let Place::Memory(tables) = &segment.tables else { continue };
                return Ok((info(&segment), tables.fingerprints.clone()));
            };
            let read = self.shelf.open(&segment).and_then(|file| {
                let footer = read_footer(&file, segment.bytes, &segment.mark, segment.first)?;
                let numbers = footer.map(|(_, content)| {
                    let bytes = content.get(FOOTER_START + offsets as usize * 4..).unwrap_or_default();
                    bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
                });
                // A footer that went bad since the start is no more than a shortcut.
                numbers.map_or_else(|| scanned_fingerprints(&segment), Ok)
            });
            // If it was rewritten under our hands, what was read means nothing.
            if self.shelf.is_current(first, Some(segment.generation)) {
                let told = read.map_err(|source| ReadError::Io { path: segment.path.clone(), source })?;
                return Ok((info(&segment), told));
            }
        }
    }

    /// Reads the records from `from` to `to` that lie in the segment of `from`, at most a block of them. Empty if
    /// there are none; the end of what was looked at is beside each.
    fn run(&self, from: u64, to: u64, parts: bool) -> Result<VecDeque<Result<Stored, ReadError>>, ReadError> {
        Ok(self.run_to(from, to, parts)?.0)
    }

    /// Like `run`, with the last position that was looked at; `None` if `from` is in no segment.
    fn run_to(&self, from: u64, to: u64, parts: bool) -> Result<(VecDeque<Found>, Option<u64>), ReadError> {
        loop {
            let looked = self.shelf.offsets(from, to);
            let (spot, offsets, last) = match looked {
                Ok(Some(found)) => found,
                Ok(None) => return Ok((VecDeque::new(), None)),
                // The path alone is not known here; the folder says enough.
                Err(source) => return Err(ReadError::Io { path: self.shelf.folder.clone(), source }),
            };
            let (found, last) = read_block(&spot, from, &offsets, last, parts)
                .map_err(|source| ReadError::Io { path: spot.path.clone(), source })?;
            // A segment may be rewritten while it is read; then what was found is of no worth.
            if self.shelf.is_current(from, spot.generation) || spot.generation.is_none() {
                found.iter().filter_map(damaged_at).for_each(|at| self.shelf.met_damage(at, &spot.path));
                return Ok((found, Some(last)));
            }
        }
    }
}

type Found = Result<Stored, ReadError>;

/// The position of a record of which something does not read.
fn damaged_at(found: &Found) -> Option<u64> {
    match found {
        Ok(stored) => stored.parts_damaged.then_some(stored.position.0),
        Err(ReadError::Damaged { position, .. }) => Some(position.0),
        Err(ReadError::Io { .. }) => None,
    }
}

fn scanned_fingerprints(segment: &Segment) -> io::Result<Vec<u64>> {
    let bytes = read_file(&segment.path)?;
    let (mark, first, successor) = (segment.mark, segment.first, Some(segment.last + 1));
    let scan = scan(&bytes, &Expected { mark, first, chain: None, successor });
    let records = scan.frames.iter().filter_map(|frame| match frame {
        Frame::Record(record) => Some(record),
        Frame::Gone(_) => None,
    });
    Ok(records.flat_map(Record::fingerprints).collect())
}

fn info(segment: &Segment) -> SegmentInfo {
    SegmentInfo {
        first: Position(segment.first),
        last: Position(segment.last),
        records: segment.records,
        bytes: segment.bytes,
        sealed: true,
    }
}

/// Reads the frames at `offsets`, whose positions begin with `from`; stops when a block is full.
fn read_block(
    spot: &Spot,
    from: u64,
    offsets: &[u32],
    mut last: u64,
    parts: bool,
) -> io::Result<(VecDeque<Found>, u64)> {
    let seed = seed(&spot.mark);
    let mut found = VecDeque::with_capacity(offsets.len());
    let mut present =
        offsets.iter().zip(from..).filter(|(offset, _)| **offset != NO_HEAD).map(|(at, p)| (*at as usize, p));
    let Some((start, position)) = present.next() else { return Ok((found, last)) };
    let end = present.clone().last().map_or(start, |(at, _)| at);
    let length = end.saturating_sub(start).saturating_add(ONE_READ).min(BLOCK);
    let mut block = vec![0; length];
    let read = fill(&spot.file, &mut block, start as u64)?;
    block.truncate(read);
    for (at, position) in std::iter::once((start, position)).chain(present) {
        let rest = at.checked_sub(start).and_then(|skip| block.get(skip..)).unwrap_or_default();
        let whole = frame_len(rest).is_some_and(|length| length <= rest.len());
        if whole {
            found.push_back(stored(decode_frame(rest, seed, parts), position, spot, at));
        } else if at.saturating_sub(start) < BLOCK / 2 || found.is_empty() {
            let frame = one_frame(&spot.file, at as u64)?;
            found.push_back(stored(decode_frame(&frame, seed, parts), position, spot, at));
        } else {
            last = position - 1;
            break;
        }
    }
    Ok((found, last))
}

/// Reads one frame, as long as it says it is.
fn one_frame(file: &File, at: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; ONE_READ];
    let read = fill(file, &mut bytes, at)?;
    bytes.truncate(read);
    let Some(length) = frame_len(&bytes).filter(|length| *length > bytes.len()) else { return Ok(bytes) };
    // A damaged length must not ask for memory that the file cannot fill.
    let length = (length as u64).min(file.metadata()?.len().saturating_sub(at)) as usize;
    bytes.resize(length, 0);
    let read = fill(file, &mut bytes, at)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn stored(decoded: Result<(Frame<'_>, usize), Broken<'_>>, position: u64, spot: &Spot, at: usize) -> Found {
    let (record, parts_damaged) = match decoded {
        Ok((Frame::Record(record), _)) if record.position == position => (record, false),
        Err(Broken::Parts(record)) if record.position == position => (record, true),
        _ => {
            return Err(ReadError::Damaged {
                path: spot.path.clone(),
                offset: at as u64,
                position: Position(position),
            });
        }
    };
    Ok(owned(&record, parts_damaged))
}

/// A record with bytes of its own.
pub(super) fn owned(record: &Record<'_>, parts_damaged: bool) -> Stored {
    Stored {
        position: Position(record.position),
        chain: Digest(record.chain),
        previous: Digest(record.prev),
        payload: Bytes::copy_from_slice(record.payload),
        raw_hash: Digest(record.raw_hash),
        event_hash: Digest(record.event_hash),
        raw: record.parts.map(|(raw, _)| Bytes::copy_from_slice(raw)),
        event: record.parts.map(|(_, event)| Bytes::copy_from_slice(event)),
        parts_damaged,
    }
}

/// Records in order. An error stands for one record; an error of the disk ends the walk.
#[derive(Debug)]
pub struct Records {
    reader: Reader,
    /// The next position to look at; going back, 0 is the end.
    at: u64,
    parts: bool,
    back: bool,
    batch: u64,
    found: VecDeque<Found>,
    ended: bool,
}

impl Records {
    fn new(reader: Reader, at: u64, parts: bool, back: bool) -> Self {
        Self { reader, at, parts, back, batch: BATCH.0, found: VecDeque::new(), ended: false }
    }

    fn fill(&mut self) {
        while self.found.is_empty() && !self.ended {
            let outcome = if self.back { self.fill_back() } else { self.fill_on() };
            if let Err(error) = outcome {
                self.ended = true;
                self.found.push_back(Err(error));
            }
            self.batch = (self.batch * 2).min(BATCH.1);
        }
    }

    fn fill_on(&mut self) -> Result<(), ReadError> {
        let head = self.reader.shelf.head();
        if self.at > head {
            self.ended = true;
            return Ok(());
        }
        let to = self.at.saturating_add(self.batch - 1).min(head);
        let (found, last) = self.reader.run_to(self.at, to, self.parts)?;
        self.found = found;
        self.at = last.unwrap_or(to).max(self.at) + 1;
        Ok(())
    }

    fn fill_back(&mut self) -> Result<(), ReadError> {
        if self.at == 0 {
            self.ended = true;
            return Ok(());
        }
        let to = self.reader.shelf.below_gap(self.at);
        let mut from = to.saturating_sub(self.batch - 1).max(1);
        let mut all = VecDeque::new();
        // The run may end before `to`, at a segment's end or a full block.
        while from <= to {
            let (mut found, last) = self.reader.run_to(from, to, self.parts)?;
            all.append(&mut found);
            from = last.unwrap_or(to).max(from) + 1;
        }
        self.at = to.saturating_sub(self.batch);
        self.found = all.into_iter().rev().collect();
        Ok(())
    }
}

impl Iterator for Records {
    type Item = Result<Stored, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.found.is_empty() {
            self.fill();
        }
        self.found.pop_front()
    }
}
