//! What writer and readers share: which segments there are and where their records lie.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::footer::Trailer;
use super::format::{FOOTER_START, Hash, Mark, NO_HEAD, TRAILER};
use super::transcript::Tables;

/// Files of sealed segments that are kept open.
const OPEN_FILES: usize = 32;

/// A segment that takes no more records.
#[derive(Debug)]
pub struct Segment {
    /// Differs for every file that ever stood under the name.
    pub generation: u64,
    /// The file.
    pub path: PathBuf,
    /// Its mark.
    pub mark: Mark,
    /// Position of its first record.
    pub first: u64,
    /// Position of its last one; `first - 1` if it has none.
    pub last: u64,
    /// Hash of the last head.
    pub chain: Hash,
    /// Heads that are kept.
    pub records: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Offset behind its groups.
    pub end: u64,
    /// Where its tables are.
    pub tables: Place,
}

impl Segment {
    /// Positions that its table spans.
    fn entries(&self) -> u64 {
        match &self.tables {
            Place::Footer(offsets) => u64::from(*offsets),
            Place::Memory(tables) => tables.offsets.len() as u64,
        }
    }
}

/// Where the tables of a sealed segment are.
#[derive(Debug)]
pub enum Place {
    /// In the footer: so many offsets.
    Footer(u32),
    /// In memory: the footer could not be written yet.
    Memory(Tables),
}

/// The segment that takes records.
#[derive(Debug)]
pub struct Active {
    /// The file.
    pub path: PathBuf,
    /// Its handle.
    pub file: Arc<File>,
    /// Its mark.
    pub mark: Mark,
    /// Position of its first record.
    pub first: u64,
    /// Offset behind its last group.
    pub end: u64,
    /// Where its visible records lie.
    pub tables: Tables,
}

/// Segments by rising position, and the one that takes records.
#[derive(Debug)]
pub struct State {
    /// Sealed ones.
    pub sealed: Vec<Arc<Segment>>,
    /// The last one.
    pub active: Active,
}

/// What writer and readers share.
#[derive(Debug)]
pub struct Shelf {
    /// The store's folder.
    pub store: PathBuf,
    /// The store's identity.
    pub store_id: [u8; 16],
    /// The folder of the segments.
    pub folder: PathBuf,
    state: RwLock<State>,
    head: AtomicU64,
    generations: AtomicU64,
    failed: OnceLock<&'static str>,
    handles: Mutex<VecDeque<(u64, Arc<File>)>>,
    /// Positions of records that did not read when somebody asked for them.
    damaged: Mutex<BTreeSet<u64>>,
}

/// Where a record lies.
#[derive(Clone, Debug)]
pub struct Spot {
    /// Which file that was; `None` for the one that takes records.
    pub generation: Option<u64>,
    /// The file's name.
    pub path: PathBuf,
    /// The segment's mark.
    pub mark: Mark,
    /// Its open file.
    pub file: Arc<File>,
}

impl Shelf {
    /// Begins with these segments.
    pub fn new(store: PathBuf, store_id: [u8; 16], folder: PathBuf, state: State, head: u64) -> Self {
        let generations = state.sealed.len() as u64;
        Self {
            store,
            store_id,
            folder,
            state: RwLock::new(state),
            head: AtomicU64::new(head),
            generations: AtomicU64::new(generations),
            failed: OnceLock::new(),
            handles: Mutex::new(VecDeque::with_capacity(OPEN_FILES)),
            damaged: Mutex::default(),
        }
    }

    /// Notes a record that does not read, which no start has seen because it reads no sealed segment whole. Told once.
    pub fn met_damage(&self, position: u64, path: &Path) {
        if self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(position) {
            tracing::error!(position, file = %path.display(),
                "the journal is damaged: a record or its body does not read and is left out wherever it is asked for");
        }
    }

    /// How many records did not read.
    pub fn damage_met(&self) -> u64 {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    // Nothing panics while it holds these locks; if it did, what they guard would still be whole.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest visible position.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }
    /// Makes records visible.
    pub fn publish(&self, head: u64) {
        self.head.store(head, Ordering::Release);
    }
    /// Notes an error after which nobody may write on, whichever thread met it.
    pub fn fail(&self, what: &'static str) {
        let _ = self.failed.set(what);
    }
    /// What failed for good.
    pub fn failed(&self) -> Option<&'static str> {
        self.failed.get().copied()
    }
    /// A number that no segment file had before.
    pub fn generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// Offsets of the records from `from` to at most `to` that lie in the segment of `from`, and the last position
    /// they stand for. A position without a head has [`NO_HEAD`]; behind the last head of a segment there are no
    /// offsets, however long the run of lost ones is.
    pub fn offsets(&self, from: u64, to: u64) -> io::Result<Option<(Spot, Vec<u32>, u64)>> {
        let segment = {
            let state = self.state();
            if from >= state.active.first {
                let active = &state.active;
                let last = self.head().min(to);
                if from > last {
                    return Ok(None);
                }
                let start = (from - active.first) as usize;
                let count = (last - from + 1) as usize;
                let offsets = slice(&active.tables.offsets, start, count);
                let spot = Spot {
                    generation: None,
                    path: active.path.clone(),
                    mark: active.mark,
                    file: Arc::clone(&active.file),
                };
                return Ok(Some((spot, offsets, last)));
            }
            let Some(segment) = holding(&state, from) else { return Ok(None) };
            Arc::clone(segment)
        };
        let file = self.open(&segment)?;
        let start = from - segment.first;
        let entries = segment.entries();
        let present = entries.saturating_sub(start);
        let last = if present == 0 { segment.last } else { (from + present - 1).min(to).min(segment.last) };
        let count = if present == 0 { 0 } else { (last - from + 1) as usize };
        let offsets = match &segment.tables {
            Place::Memory(tables) => slice(&tables.offsets, start as usize, count),
            Place::Footer(_) => {
                let mut bytes = vec![0; count * 4];
                file.read_exact_at(&mut bytes, segment.end + FOOTER_START as u64 + start * 4)?;
                bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
            }
        };
        let spot = Spot { generation: Some(segment.generation), path: segment.path.clone(), mark: segment.mark, file };
        Ok(Some((spot, offsets, last)))
    }

    /// The newest position at or below `position` that may have a head: skips the run of lost ones at the end of a
    /// segment.
    pub fn below_gap(&self, position: u64) -> u64 {
        let state = self.state();
        match holding(&state, position) {
            Some(segment) => position.min((segment.first + segment.entries()).saturating_sub(1)),
            None => position,
        }
    }

    /// Whether `position` still lies in the file that `spot` names.
    pub fn is_current(&self, position: u64, generation: Option<u64>) -> bool {
        let state = self.state();
        if position >= state.active.first {
            return generation.is_none();
        }
        holding(&state, position).map(|segment| segment.generation) == generation
    }

    /// The segment's open file.
    pub fn open(&self, segment: &Segment) -> io::Result<Arc<File>> {
        if let Some((_, file)) = self.handles().iter().find(|(generation, _)| *generation == segment.generation) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(&segment.path)?);
        let mut handles = self.handles();
        if handles.len() >= OPEN_FILES {
            handles.pop_front();
        }
        handles.push_back((segment.generation, Arc::clone(&file)));
        Ok(file)
    }

    fn handles(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<File>)>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slice(offsets: &[u32], start: usize, count: usize) -> Vec<u32> {
    let mut found: Vec<u32> = offsets.iter().skip(start).take(count).copied().collect();
    found.resize(count, NO_HEAD);
    found
}

/// The sealed segment that holds a position.
fn holding(state: &State, position: u64) -> Option<&Arc<Segment>> {
    let after = state.sealed.partition_point(|segment| segment.first <= position);
    state.sealed.get(after.checked_sub(1)?).filter(|segment| segment.last >= position)
}

/// Reads the footer of a segment file and checks all of it: its trailer, and the bytes before that. `None` if it has
/// none that is whole.
pub fn read_footer(file: &File, bytes: u64, mark: &Mark, first: u64) -> io::Result<Option<(Trailer, Vec<u8>)>> {
    let Some(at) = bytes.checked_sub(TRAILER as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER];
    file.read_exact_at(&mut trailer, at)?;
    let Some(trailer) = Trailer::decode(&trailer)
        .filter(|trailer| trailer.mark == *mark && trailer.first == first && u64::from(trailer.length) <= bytes)
        .filter(|trailer| trailer.last.checked_add(1).is_some_and(|next| next >= first))
    else {
        return Ok(None);
    };
    let mut content = vec![0; (trailer.length as usize).saturating_sub(TRAILER)];
    file.read_exact_at(&mut content, bytes.saturating_sub(u64::from(trailer.length)))?;
    Ok((crc32c::crc32c(&content) == trailer.content_crc).then_some((trailer, content)))
}

/// Reads a whole segment file. What lies beyond the offsets that the format can name is left out.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    File::open(path)?.take(u64::from(u32::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
