//! Retention's mechanics: a sealed segment is written anew without what is to go, synced, and takes the old one's
//! name. Where heads go, a `retired` run keeps their range and the last one's hash, so that the chain still proves.

use std::ops::RangeInclusive;

use super::format::{Frame, Gone, UNKNOWN};
use super::reader::{Stored, owned};
use super::scan::{Expected, Scan, scan};
use super::shelf::{Place, Segment, read_file};
use super::transcript::{Failed, Transcript};
use super::{AppendError, Arc, Damage, Fault, Journal, Path, PathBuf, Position, Reader, aside, io};
use crate::failpoint;

const SYNC: &str = "the sync of a rewritten segment";

/// What is to become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It stays as it is.
    Whole,
    /// Its parts go; the head stays.
    HeadOnly,
    /// It goes; its position and hash stay covered by a run of retired ones.
    Drop,
}

/// Why a segment could not be rewritten. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// There is no sealed segment of this first position.
    #[error("no sealed segment begins with record {0}")]
    NoSegment(Position),
    /// The old file could not be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The new file could not be written; try again later.
    #[error("the new segment cannot be written")]
    Full(#[source] io::Error),
    /// The new file, or its name, could not be synced: the process must end.
    #[error("the new segment cannot be synced")]
    Fatal(#[source] io::Error),
}

impl From<Failed> for RewriteError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Write(error) => Self::Full(error),
            Failed::Sync(error) => Self::Fatal(error),
        }
    }
}

/// A segment written anew and synced that has not taken the old one's place yet. Dropped, it leaves no trace.
#[derive(Debug)]
pub struct Prepared {
    transcript: Transcript,
    replaces: u64,
    last: Position,
    bytes: u64,
    /// Damage that was met on the way; kept aside.
    pub damage: Vec<Damage>,
    /// Parts that went.
    pub parts_retired: u64,
    /// Heads that went.
    pub heads_retired: u64,
}

impl Prepared {
    /// The positions that it spans.
    pub fn span(&self) -> RangeInclusive<Position> {
        Position(self.transcript.header.first)..=self.last
    }

    /// Whether anything differs from the old segment. What does not need not be installed.
    pub fn changes(&self) -> bool {
        self.parts_retired + self.heads_retired > 0 || !self.damage.is_empty()
    }
}

impl Reader {
    /// Writes a sealed segment anew under a temporary name and syncs it; any thread may do this while the writer
    /// writes on. `decide` sees every head in order, without its parts.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub fn prepare(&self, first: Position, decide: &mut dyn FnMut(&Stored) -> Keep) -> Result<Prepared, RewriteError> {
        let segment = {
            let state = self.shelf.state();
            let found = state.sealed.iter().find(|segment| segment.first == first.0);
            Arc::clone(found.ok_or(RewriteError::NoSegment(first))?)
        };
        let fail = |source| RewriteError::Read { path: segment.path.clone(), source };
        let bytes = read_file(&segment.path).map_err(fail)?;
        if !self.shelf.is_current(segment.first, Some(segment.generation)) {
            // Another rewrite was faster, and these may be its bytes.
            return Err(RewriteError::NoSegment(first));
        }
        let header = super::format::SegmentHeader::decode(&bytes);
        let expected = Expected {
            mark: segment.mark,
            first: segment.first,
            chain: header.map(|header| header.chain),
            successor: Some(segment.last + 1),
        };
        let scan = scan(&bytes, &expected);
        let damage = found_damage(&segment_file(&segment), &scan);
        keep_all(&self.shelf.store, &damage, &bytes).map_err(RewriteError::Full)?;
        // A head whose link is unknown stands first only after damage to the header.
        let chain = expected.chain.unwrap_or(UNKNOWN);
        let store_id = header.map_or_else(|| self.shelf.store_id, |header| header.store_id);
        let mut transcript = Transcript::begin(&self.shelf.folder, store_id, segment.first, chain, None)?;
        let (mut parts_retired, mut heads_retired) = (0, 0);
        let mut retired: Option<Gone> = None;
        for frame in &scan.frames {
            let frame = match frame {
                Frame::Record(record) => match decide(&owned(&super::format::Record { parts: None, ..*record }, false))
                {
                    Keep::Whole => Frame::Record(*record),
                    Keep::HeadOnly => {
                        parts_retired += u64::from(record.parts.is_some());
                        Frame::Record(super::format::Record { parts: None, ..*record })
                    }
                    Keep::Drop => {
                        heads_retired += 1;
                        let position = record.position;
                        Frame::Gone(Gone { lost: false, from: position, to: position, last: record.chain })
                    }
                },
                Frame::Gone(gone) => Frame::Gone(*gone),
            };
            match frame {
                Frame::Gone(gone) if !gone.lost => match &mut retired {
                    Some(run) => (run.to, run.last) = (gone.to, gone.last),
                    None => retired = Some(gone),
                },
                other => {
                    if let Some(run) = retired.take() {
                        transcript.push(&Frame::Gone(run))?;
                    }
                    transcript.push(&other)?;
                }
            }
        }
        if let Some(run) = retired {
            transcript.push(&Frame::Gone(run))?;
        }
        fill_up(&mut transcript, segment.last + 1, segment.chain)?;
        let bytes = transcript.finish_sealed()?;
        if let Err(failed) = transcript.sync() {
            self.shelf.fail(SYNC);
            return Err(failed.into());
        }
        let (replaces, last) = (segment.generation, Position(segment.last));
        Ok(Prepared { transcript, replaces, last, bytes, damage, parts_retired, heads_retired })
    }
}

impl Journal {
    /// Puts a prepared segment in the old one's place. One rename and one sync of the folder.
    ///
    /// # Errors
    /// [`RewriteError`]; no such segment, if the old one was replaced meanwhile.
    pub fn install(&mut self, prepared: Prepared) -> Result<(), RewriteError> {
        self.check().map_err(|error| match error {
            AppendError::Fatal(what, _) => RewriteError::Fatal(io::Error::other(what)),
            other => RewriteError::Fatal(io::Error::other(other)),
        })?;
        let Prepared { mut transcript, replaces, bytes, .. } = prepared;
        let first = transcript.header.first;
        let shelf = Arc::clone(&self.shelf);
        // Under the lock: no reader looks a place up between the two files.
        let mut state = shelf.change();
        let Some(place) = state.sealed.iter_mut().find(|segment| segment.generation == replaces) else {
            return Err(RewriteError::NoSegment(Position(first)));
        };
        failpoint::reach("rewrite-synced");
        let path = match transcript.install(&shelf.folder) {
            Ok(path) => path,
            Err(Failed::Write(error)) => return Err(RewriteError::Full(error)),
            Err(Failed::Sync(error)) => {
                shelf.fail(SYNC);
                return Err(RewriteError::Fatal(error));
            }
        };
        failpoint::reach("rewrite-named");
        *place = Arc::new(segment_of(&transcript, shelf.generation(), path, bytes));
        Ok(())
    }

    /// Rewrites a sealed segment at one go.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub fn rewrite(
        &mut self,
        first: Position,
        decide: &mut dyn FnMut(&Stored) -> Keep,
    ) -> Result<Rewritten, RewriteError> {
        let prepared = self.reader().prepare(first, decide)?;
        let told = Rewritten {
            damage: prepared.damage.clone(),
            parts_retired: prepared.parts_retired,
            heads_retired: prepared.heads_retired,
        };
        if prepared.changes() {
            self.install(prepared)?;
        }
        Ok(told)
    }
}

/// What a rewrite did.
#[derive(Clone, Debug, Default)]
pub struct Rewritten {
    /// Damage that was met on the way; kept aside.
    pub damage: Vec<Damage>,
    /// Parts that went.
    pub parts_retired: u64,
    /// Heads that went.
    pub heads_retired: u64,
}

/// A finished transcript as a sealed segment.
pub(super) fn segment_of(transcript: &Transcript, generation: u64, path: PathBuf, bytes: u64) -> Segment {
    let Transcript { header, writer, end, tables, .. } = transcript;
    Segment {
        generation,
        path,
        mark: header.mark,
        first: header.first,
        last: writer.next().saturating_sub(1),
        chain: writer.chain(),
        records: tables.offsets.iter().filter(|offset| **offset != super::format::NO_HEAD).count() as u64,
        bytes,
        end: *end,
        tables: Place::Footer(tables.offsets.len() as u32),
    }
}

/// Notes that everything up to `next` is lost, if the frames ended before.
pub(super) fn fill_up(transcript: &mut Transcript, next: u64, last: [u8; 32]) -> Result<(), Failed> {
    let from = transcript.writer.next();
    if from < next {
        transcript.push(&Frame::Gone(Gone { lost: true, from, to: next - 1, last }))?;
    }
    Ok(())
}

/// The damage that a scan found, as it is reported.
pub(super) fn found_damage(file: &str, scan: &Scan<'_>) -> Vec<Damage> {
    let unreadable = scan.damage.iter().map(|range| (range.start, range.len(), Fault::Unreadable));
    let breaks = scan.breaks.iter().map(|at| (*at, 0, Fault::Chain));
    unreadable
        .chain(breaks)
        .map(|(offset, length, what)| Damage {
            file: file.to_owned(),
            offset: offset as u64,
            length: length as u64,
            what,
        })
        .collect()
}

/// Keeps the bytes of all damage aside.
pub(super) fn keep_all(store: &Path, damage: &[Damage], bytes: &[u8]) -> io::Result<()> {
    damage.iter().try_for_each(|damage| {
        let start = damage.offset as usize;
        let place = bytes.get(start..start + damage.length as usize).unwrap_or_default();
        aside::keep(store, damage, place)
    })
}

fn segment_file(segment: &Segment) -> String {
    segment.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
