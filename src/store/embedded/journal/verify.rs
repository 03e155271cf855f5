//! Walks a whole journal without changing anything, and tells apart what happened to it.
//!
//! - **Damage**: bytes that do not read, files that are missing, records that an earlier start found lost.
//! - **Retirement**: parts and heads that retention took away. Before it takes any, it appends a record that says up to
//!   where; that record is in the chain, so what is gone beyond it was not taken by retention.
//! - **Tampering**: everything reads, and yet it is not what was written: a head that does not go on from the one before
//!   it, a part that is not the one its head vouches for, something gone that nothing took.
//!
//! Whoever can write the files can write the whole chain anew. So a hash that was noted elsewhere ([`Noted`]) is looked
//! for: up to its position nothing was changed since.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::format::{FOOTER_START, Frame, Hash, Record, SegmentHeader, UNKNOWN, known};
use super::scan::{Expected, Scan, salvage_header, scan};
use super::shelf::{read_file, read_footer};
use super::transcript::parse_name;
use super::{aside, recover};
use crate::event::Digest;
use crate::store::Noted;

crate::event::status::words! {
    /// Why something is not as it was written.
    What { Damage = "damage", Tampering = "tampering" }
}

/// A place that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Which of the two.
    pub what: What,
    /// The segment's name.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: Option<u64>,
    /// The first record that is concerned, where that is known.
    pub from: Option<u64>,
    /// The last one.
    pub to: Option<u64>,
    /// What is wrong.
    pub why: &'static str,
}

/// What became of a noted hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Compared {
    /// It is this head's: nothing up to it was changed since it was noted.
    Same {
        /// The head's position.
        position: u64,
    },
    /// It is not the hash of the head at its position, or of any head: the journal was changed since.
    Changed,
    /// The journal ends before the noted position: records were taken off its end.
    Truncated,
    /// The head was retired or lost, so nobody can tell.
    Gone,
}

/// What a walk found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    /// Segment files.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Heads that read.
    pub records: u64,
    /// Of these, those whose parts retention took.
    pub parts_retired: u64,
    /// Heads that retention took.
    pub heads_retired: u64,
    /// Heads that damage took, now or before.
    pub heads_lost: u64,
    /// Bytes behind the last group: it was never answered. A daemon that is running may be writing it.
    pub torn_bytes: u64,
    /// Position of the newest head.
    pub position: u64,
    /// Its hash.
    pub hash: String,
    /// What became of the noted hash; `None` where none was given.
    pub since: Option<Compared>,
    /// Places of damage, also those beyond the list.
    pub damaged: u64,
    /// Places of tampering, likewise.
    pub tampered: u64,
    /// The first of all places.
    pub findings: Vec<Finding>,
}

/// Findings that are told one by one; a journal of which nothing is left must not fill a terminal.
const TOLD: usize = 100;

/// A file of the journal cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading {path}")]
pub struct VerifyError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Report {
    /// Whether everything is as it was written, as far as that can be told.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0
            && self.tampered == 0
            && self.since.is_none_or(|compared| matches!(compared, Compared::Same { .. }))
    }
}

/// Walks the journal of the store in `store`; a daemon may be running on it. `horizon` reads of a head's payload up to
/// where it says that parts were taken. `progress` is told how many bytes were read, and of how many.
///
/// # Errors
/// [`VerifyError`] when a file cannot be read at all; what reads wrongly is in the report.
pub fn verify(
    store: &Path,
    noted: Option<Noted>,
    horizon: &dyn Fn(&[u8]) -> Option<u64>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, VerifyError> {
    let folder = store.join("journal");
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| VerifyError { path, source }
    };
    let files = list(&folder).map_err(fail(&folder))?;
    let total = files.iter().map(|file| file.bytes).sum();
    let mut walk = Walk {
        report: Report::default(),
        noted,
        horizon,
        told_horizon: 0,
        gone: Vec::new(),
        next: 1,
        chain: None,
        store_id: recover::noted_identity(&folder),
        kept_aside: aside::segments(store),
    };
    let mut read = 0;
    for (at, file) in files.iter().enumerate() {
        let successor = files.get(at + 1).map(|next| next.first);
        let bytes = read_file(&file.path).map_err(fail(&file.path))?;
        walk.segment(file, &bytes, successor).map_err(fail(&file.path))?;
        read += file.bytes;
        progress(read, total);
    }
    Ok(walk.end())
}

/// What the heads of the last file say that holds any, oldest first; empty in an empty journal.
///
/// # Errors
/// When the folder or a file cannot be read.
pub fn newest_payloads(store: &Path) -> io::Result<Vec<Vec<u8>>> {
    let folder = store.join("journal");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    for file in list(&folder)?.iter().rev() {
        let bytes = read_file(&file.path)?;
        let Some(scan) = super::scan::read_segment(&bytes) else { continue };
        let payload = |frame: &Frame<'_>| match frame {
            Frame::Record(record) => Some(record.payload.to_vec()),
            Frame::Gone(_) => None,
        };
        let payloads: Vec<_> = scan.frames.iter().filter_map(payload).collect();
        if !payloads.is_empty() {
            return Ok(payloads);
        }
    }
    Ok(Vec::new())
}

struct File {
    first: u64,
    path: PathBuf,
    name: String,
    bytes: u64,
}

fn list(folder: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(first) = parse_name(&name) {
            files.push(File { first, path: entry.path(), bytes: entry.metadata()?.len(), name });
        }
    }
    files.sort_by_key(|file| file.first);
    Ok(files)
}

/// Something that is gone and that retention must account for.
struct Missing {
    file: String,
    from: u64,
    to: u64,
    /// Damage was found in this file before, so that may be what took it.
    damaged: bool,
    why: &'static str,
}

struct Walk<'a> {
    report: Report,
    noted: Option<Noted>,
    horizon: &'a dyn Fn(&[u8]) -> Option<u64>,
    /// Up to where retention said that it took parts.
    told_horizon: u64,
    gone: Vec<Missing>,
    next: u64,
    chain: Option<Hash>,
    store_id: Option<[u8; 16]>,
    /// Names of segments of which an earlier start kept damaged bytes.
    kept_aside: Vec<String>,
}

impl Walk<'_> {
    fn tell(&mut self, finding: Finding) {
        match finding.what {
            What::Damage => self.report.damaged += 1,
            What::Tampering => self.report.tampered += 1,
        }
        if self.report.findings.len() < TOLD {
            self.report.findings.push(finding);
        }
    }

    fn note(&mut self, what: What, file: &File, offset: Option<usize>, range: Option<(u64, u64)>, why: &'static str) {
        let (offset, file) = (offset.map(|offset| offset as u64), file.name.clone());
        let (from, to) = (range.map(|range| range.0), range.map(|range| range.1));
        self.tell(Finding { what, file, offset, from, to, why });
    }

    fn segment(&mut self, file: &File, bytes: &[u8], successor: Option<u64>) -> io::Result<()> {
        self.report.segments += 1;
        self.report.bytes += file.bytes;
        let header = SegmentHeader::decode(bytes);
        let expected = match header {
            Some(SegmentHeader { mark, first, chain, .. }) => {
                Some(Expected { mark, first, chain: known(chain), successor })
            }
            None => salvage_header(bytes).map(|expected| Expected { successor, ..expected }),
        };
        if header.is_none() {
            let why = "the header of the file does not read";
            self.note(What::Damage, file, Some(0), None, why);
        }
        let Some(expected) = expected else { return Ok(()) };
        if expected.first != file.first {
            self.note(What::Tampering, file, None, None, "the file stands under another one's name");
            return Ok(());
        }
        if header.zip(self.store_id).is_some_and(|(header, own)| header.store_id != own) {
            self.note(What::Tampering, file, None, None, "the file belongs to another store");
            return Ok(());
        }
        if expected.first > self.next {
            self.lost(file, self.next, expected.first - 1, "the file that held these records is missing");
            self.chain = None;
        } else if expected.first < self.next {
            let range = Some((expected.first, self.next - 1));
            self.note(What::Damage, file, None, range, "it holds records that the file before it holds too");
        }
        if let (Some(before), Some(says)) = (self.chain, expected.chain)
            && before != says
        {
            let range = Some((expected.first, expected.first));
            self.note(What::Tampering, file, Some(0), range, "it does not go on from the file before it");
        }
        let expected = Expected { chain: expected.chain.or(self.chain), ..expected };
        let scan = scan(bytes, &expected);
        for range in &scan.damage {
            self.note(What::Damage, file, Some(range.start), None, "bytes do not read");
        }
        for at in &scan.breaks {
            self.note(What::Tampering, file, Some(*at), None, "a record does not go on from the one before it");
        }
        self.frames(file, bytes, &scan);
        self.next = scan.next.max(self.next);
        self.chain = scan.chain;
        match successor {
            None => self.report.torn_bytes = scan.torn.len() as u64,
            Some(successor) if scan.next < successor && scan.damage.is_empty() => {
                self.lost(file, scan.next, successor - 1, "the file ends before these records");
                (self.next, self.chain) = (successor, None);
            }
            Some(successor) => self.next = successor.max(self.next),
        }
        self.footer(file, &expected, &scan)
    }

    fn lost(&mut self, file: &File, from: u64, to: u64, why: &'static str) {
        self.report.heads_lost += to - from + 1;
        self.note(What::Damage, file, None, Some((from, to)), why);
        self.compare_gone(from, to, UNKNOWN);
    }

    fn frames(&mut self, file: &File, bytes: &[u8], scan: &Scan<'_>) {
        for frame in &scan.frames {
            match frame {
                Frame::Record(record) => self.record(file, bytes, scan, record),
                Frame::Gone(gone) if gone.lost => {
                    self.report.heads_lost += gone.to - gone.from + 1;
                    self.note(What::Damage, file, None, Some((gone.from, gone.to)), "these records were found lost");
                    self.compare_gone(gone.from, gone.to, gone.last);
                }
                Frame::Gone(gone) => {
                    self.report.heads_retired += gone.to - gone.from + 1;
                    self.missing(file, gone.from, gone.to, "these records are gone, and retention did not take them");
                    self.compare_gone(gone.from, gone.to, gone.last);
                }
            }
        }
    }

    fn record(&mut self, file: &File, bytes: &[u8], scan: &Scan<'_>, record: &Record<'_>) {
        self.report.records += 1;
        self.report.position = record.position;
        self.report.hash = Digest(record.chain).to_string();
        self.compare(record.position, record.chain);
        if let Some(up_to) = (self.horizon)(record.payload) {
            self.told_horizon = self.told_horizon.max(up_to);
        }
        let at = (record.head.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
        match record.parts {
            Some((raw, event)) => {
                let as_vouched = Hash::from(Sha256::digest(raw)) == record.raw_hash
                    && Hash::from(Sha256::digest(event)) == record.event_hash;
                if !as_vouched {
                    let range = Some((record.position, record.position));
                    let why = "a request or event is not the one that its record vouches for";
                    self.note(What::Tampering, file, Some(at), range, why);
                }
            }
            // Damaged parts were told with the bytes that do not read.
            None if scan.damage.iter().any(|range| range.contains(&at)) => {}
            None => {
                self.report.parts_retired += 1;
                let why = "a request and its event are gone, and retention did not take them";
                self.missing(file, record.position, record.position, why);
            }
        }
    }

    /// Notes what retention has to account for. Runs that touch are one.
    fn missing(&mut self, file: &File, from: u64, to: u64, why: &'static str) {
        match self.gone.last_mut() {
            Some(last) if last.to + 1 == from && last.why == why && last.file == file.name => last.to = to,
            _ => {
                let damaged = self.kept_aside.contains(&file.name);
                self.gone.push(Missing { file: file.name.clone(), from, to, damaged, why });
            }
        }
    }

    fn compare(&mut self, position: u64, hash: Hash) {
        let Some(noted) = self.noted.filter(|_| self.report.since.is_none()) else { return };
        let same = noted.hash.0 == hash;
        match noted.position {
            Some(at) if at.0 == position => {
                self.report.since = Some(if same { Compared::Same { position } } else { Compared::Changed });
            }
            None if same => self.report.since = Some(Compared::Same { position }),
            _ => {}
        }
    }

    /// A run of heads that are gone, of which at most the last one's hash is known.
    fn compare_gone(&mut self, from: u64, to: u64, last: Hash) {
        if let Some(hash) = known(last) {
            self.compare(to, hash);
        }
        let within = |noted: Noted| noted.position.is_some_and(|at| (from..=to).contains(&at.0));
        if self.report.since.is_none() && self.noted.is_some_and(within) {
            self.report.since = Some(Compared::Gone);
        }
    }

    /// The footer says where records lie and which keys they have; what it leaves out would be called new.
    fn footer(&mut self, file: &File, expected: &Expected, scan: &Scan<'_>) -> io::Result<()> {
        let opened = fs::File::open(&file.path)?;
        // One that does not read is made anew by the next start.
        let Some((trailer, content)) = read_footer(&opened, file.bytes, &expected.mark, expected.first)? else {
            return Ok(());
        };
        let fingerprints = content.get(FOOTER_START + trailer.offsets as usize * 4..).unwrap_or_default();
        let mut says: Vec<u64> =
            fingerprints.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let records = scan.frames.iter().filter_map(|frame| match frame {
            Frame::Record(record) => Some(record),
            Frame::Gone(_) => None,
        });
        let mut are: Vec<u64> = records.clone().flat_map(Record::fingerprints).collect();
        says.sort_unstable();
        are.sort_unstable();
        let as_written =
            says == are && trailer.records as usize == records.count() && Some(trailer.chain) == scan.chain;
        if !as_written && scan.damage.is_empty() && known(trailer.chain).is_some() {
            let why = "the table at the end of the file is not that of its records";
            self.note(What::Tampering, file, None, None, why);
        }
        Ok(())
    }

    fn end(mut self) -> Report {
        for missing in std::mem::take(&mut self.gone) {
            if missing.to <= self.told_horizon {
                continue;
            }
            let (from, to) = (Some(missing.from.max(self.told_horizon + 1)), Some(missing.to));
            let (what, why) = match missing.damaged {
                true => (What::Damage, "parts of these records were found damaged before"),
                false => (What::Tampering, missing.why),
            };
            self.tell(Finding { what, file: missing.file, offset: None, from, to, why });
        }
        if let Some(noted) = self.noted.filter(|_| self.report.since.is_none()) {
            let gone = self.report.heads_retired + self.report.heads_lost > 0;
            self.report.since = Some(match noted.position {
                Some(at) if at.0 > self.report.position => Compared::Truncated,
                None if gone => Compared::Gone,
                _ => Compared::Changed,
            });
        }
        self.report
    }
}
