//! Writes a segment under a temporary name: a new one, a copy of what is left of an old one, or one without what
//! was retired. It gets its name only when all of it is on the disk.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk;
use super::footer::encode_footer;
use super::format::{Frame, GROUP_HEADER, Hash, MAX_SPAN, NO_HEAD, SEGMENT_HEADER, SegmentHeader};
use super::group::GroupWriter;

/// Groups of a copy are about this large.
const GROUP_BYTES: usize = 1 << 20;

/// Tells temporary files of this process apart.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// The name of the segment whose first record has this position.
pub fn segment_name(first: u64) -> String {
    format!("{first:020}.journal")
}

/// The position in a segment's name.
pub fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".journal").filter(|digits| digits.len() == 20)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// What stands between the position of a record and its frame, and the fingerprints: the footer's content.
#[derive(Debug, Default)]
pub struct Tables {
    /// Where the frames begin, counted from the first position.
    pub offsets: Vec<u32>,
    /// The fingerprints of all records.
    pub fingerprints: Vec<u64>,
}

impl Tables {
    /// Notes the records of a group that begins at `at`.
    pub fn note(&mut self, first: u64, at: u64, offsets: &[(u64, u32)], fingerprints: &[u64]) {
        for (position, offset) in offsets {
            let place = position.saturating_sub(first);
            if place < MAX_SPAN {
                self.offsets.resize(place as usize, NO_HEAD);
                self.offsets.push(at as u32 + offset);
            }
        }
        self.fingerprints.extend_from_slice(fingerprints);
    }
}

/// Why a segment could not be written.
#[derive(Debug)]
pub enum Failed {
    /// The file could not be made or written. Nothing else is the worse for it.
    Write(io::Error),
    /// It could not be synced.
    Sync(io::Error),
}

/// A segment in the making.
#[derive(Debug)]
pub struct Transcript {
    /// Its file, under its temporary name until `install`.
    pub file: File,
    temporary: PathBuf,
    installed: bool,
    /// Its header.
    pub header: SegmentHeader,
    /// Makes its groups.
    pub writer: GroupWriter,
    /// Offset behind its last group.
    pub end: u64,
    /// What its footer says.
    pub tables: Tables,
}

impl Transcript {
    /// Begins a segment in `folder`. With `reserve`, in the file that was preallocated for it.
    pub fn begin(
        folder: &Path,
        store_id: [u8; 16],
        first: u64,
        chain: Hash,
        reserve: Option<&Path>,
    ) -> Result<Self, Failed> {
        let mark = disk::random().map_err(Failed::Write)?;
        let header = SegmentHeader { store_id, mark, first, chain };
        let (temporary, file) = match reserve {
            Some(path) => (path.to_owned(), File::options().read(true).write(true).open(path)),
            None => {
                // Two rewrites of one segment must not share a file.
                let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
                let path = folder.join(format!("{first:020}-{number}.tmp"));
                let file = disk::create(&path);
                (path, file)
            }
        };
        let transcript = Self {
            file: file.map_err(Failed::Write)?,
            temporary,
            installed: false,
            writer: GroupWriter::new(&header),
            header,
            end: SEGMENT_HEADER as u64,
            tables: Tables::default(),
        };
        transcript.file.write_all_at(&header.encode(), 0).map_err(Failed::Write)?;
        Ok(transcript)
    }

    /// Adds a record or a run of missing ones, by rising position.
    pub fn push(&mut self, frame: &Frame<'_>) -> Result<(), Failed> {
        match frame {
            Frame::Record(record) => self.writer.copy(record),
            Frame::Gone(gone) => self.writer.gone(gone),
        }
        if self.writer.len() >= GROUP_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what was added; with nothing added, a synced mark: what stands before is synced before the file gets
    /// its name.
    pub fn flush(&mut self) -> Result<(), Failed> {
        let bytes = self.writer.finish(self.end);
        self.file.write_all_at(bytes, self.end).map_err(Failed::Write)?;
        let length = bytes.len() as u64;
        self.tables.note(self.header.first, self.end, self.writer.offsets(), self.writer.fingerprints());
        self.end += length;
        self.writer.written();
        Ok(())
    }

    /// Ends the groups so that all of them count as synced.
    pub fn finish_open(&mut self) -> Result<(), Failed> {
        if self.writer.len() > GROUP_HEADER {
            self.flush()?;
        }
        if self.end > SEGMENT_HEADER as u64 { self.flush() } else { Ok(()) }
    }

    /// Ends the groups and adds the footer; the bytes of the whole file.
    pub fn finish_sealed(&mut self) -> Result<u64, Failed> {
        if self.writer.len() > GROUP_HEADER {
            self.flush()?;
        }
        let footer = encode_footer(
            &self.header.mark,
            self.header.first,
            self.writer.next().saturating_sub(1),
            &self.writer.chain(),
            &self.tables.offsets,
            &self.tables.fingerprints,
        );
        self.file.write_all_at(&footer, self.end).map_err(Failed::Write)?;
        Ok(self.end + footer.len() as u64)
    }

    /// Syncs the file; the same one is never synced again after an error.
    pub fn sync(&self) -> Result<(), Failed> {
        self.file.sync_all().map_err(Failed::Sync)
    }

    /// Gives the synced file its name, in place of one that bears it, and syncs the folder.
    pub fn install(&mut self, folder: &Path) -> Result<PathBuf, Failed> {
        let path = folder.join(segment_name(self.header.first));
        // Opened first: a process without descriptors must not take that for a sync that failed.
        let names = File::open(folder).map_err(Failed::Write)?;
        fs::rename(&self.temporary, &path).map_err(Failed::Write)?;
        self.installed = true;
        crate::failpoint::reach("segment-named");
        names.sync_all().map_err(Failed::Sync)?;
        Ok(path)
    }

    /// A handle of the file for readers.
    pub fn handle(&self) -> Result<File, Failed> {
        self.file.try_clone().map_err(Failed::Write)
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        // The reserve keeps its name; what else did not get one is of no use to anybody.
        if !self.installed && self.temporary.extension().is_some_and(|extension| extension == "tmp") {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
