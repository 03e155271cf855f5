//! The runs of an index, newest last, and how few become of many.
//!
//! Each batch is a run of its own. [`FAN`] runs of a level are merged into one of the next, so a key is rewritten as
//! often as there are levels, and levels grow with the logarithm of what is kept. Merging goes on a little with each
//! batch, on every level at once: no batch waits for a large merge, and no level gets more than twice its runs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::super::state::Key;
use super::run::{Place, Run, RunWriter};

/// Runs of a level that are merged into one.
const FAN: usize = 8;
/// Entries that a level's merge moves for each entry of a batch: two, so that it ends before the level has [`FAN`] more.
const PACE: u64 = 2;
/// And at least so many, so that small batches do not keep merges for ever.
const LEAST_MOVED: u64 = 4096;

/// The runs.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    /// Oldest first; what is newer hides what is older.
    runs: RwLock<Arc<Vec<Arc<Run>>>>,
    work: Mutex<Work>,
}

#[derive(Debug, Default)]
struct Work {
    next_number: u64,
    merges: BTreeMap<u32, Merge>,
    /// Merged into others: not to be removed before the catalogue without them is safe.
    replaced: Vec<u64>,
}

struct Merge {
    sources: Vec<(Arc<Run>, Place)>,
    out: RunWriter,
    number: u64,
    /// Nothing is older, so nothing needs to be remembered as forgotten.
    oldest: bool,
}

impl std::fmt::Debug for Merge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Merge into {}", self.number)
    }
}

/// The runs by number and level, oldest first: what must be noted for them to be found again.
pub type Catalogue = Vec<(u64, u32)>;

impl Shelf {
    /// Opens the runs of a catalogue and removes what it does not name.
    ///
    /// # Errors
    /// When one is missing or not whole.
    pub fn open(folder: &Path, catalogue: &Catalogue) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let open = |(number, level): &(u64, u32)| Run::open(&path(folder, *number), *number, *level).map(Arc::new);
        let runs = catalogue.iter().map(open).collect::<io::Result<Vec<_>>>()?;
        let mut next_number = 1;
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
            next_number = next_number.max(number + 1);
            if !catalogue.iter().any(|(known, _)| *known == number) {
                fs::remove_file(path(folder, number))?;
            }
        }
        let work = Mutex::new(Work { next_number, ..Work::default() });
        Ok(Self { folder: folder.to_owned(), runs: RwLock::new(Arc::new(runs)), work })
    }

    /// The newest value of a key.
    ///
    /// # Errors
    /// When a run does not read.
    pub fn get(&self, key: &Key) -> io::Result<Option<Vec<u8>>> {
        for run in self.runs().iter().rev() {
            if let Some(found) = run.get(key)? {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Makes a run of a batch, goes on with the merges, and returns the runs that there are then. They are not to be seen
    /// before [`Shelf::show`].
    ///
    /// # Errors
    /// What the disk says.
    pub fn add(&self, mut batch: Vec<(Key, Option<Vec<u8>>)>) -> io::Result<Arc<Vec<Arc<Run>>>> {
        let mut runs = self.runs().as_ref().clone();
        let mut work = self.work();
        let moved = (batch.len() as u64 * PACE).max(LEAST_MOVED);
        if !batch.is_empty() {
            batch.sort_unstable_by_key(|(key, _)| *key);
            let number = work.number();
            let mut out = RunWriter::create(&path(&self.folder, number))?;
            for (key, value) in &batch {
                out.put(key, value.as_deref())?;
            }
            runs.push(Arc::new(out.finish(number, 0)?));
        }
        let levels = runs.iter().map(|run| run.level).max().unwrap_or(0);
        for level in 0..=levels {
            self.merge(level, moved, &mut runs, &mut work)?;
        }
        Ok(Arc::new(runs))
    }

    /// Lets everybody see these runs.
    pub fn show(&self, runs: Arc<Vec<Arc<Run>>>) {
        *self.runs.write().unwrap_or_else(PoisonError::into_inner) = runs;
    }

    /// What is no longer in the catalogue, to be removed once that is safe.
    pub fn take_replaced(&self) -> Vec<u64> {
        std::mem::take(&mut self.work().replaced)
    }

    /// Removes them. One that cannot be removed is removed by the next start.
    pub fn remove(&self, replaced: &[u64]) {
        for number in replaced {
            let _ = fs::remove_file(path(&self.folder, *number));
        }
    }

    /// The runs, oldest first.
    pub fn runs(&self) -> Arc<Vec<Arc<Run>>> {
        Arc::clone(&self.runs.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the merge of a level if it is due, goes on with it, and puts its result in place if it is done.
    fn merge(&self, level: u32, moved: u64, runs: &mut Vec<Arc<Run>>, work: &mut Work) -> io::Result<()> {
        let mut merge = match work.merges.remove(&level) {
            Some(merge) => merge,
            None => {
                let sources: Vec<_> = runs.iter().filter(|run| run.level == level).take(FAN).cloned().collect();
                if sources.len() < FAN {
                    return Ok(());
                }
                let oldest = sources.first().map(|run| run.number) == runs.first().map(|run| run.number);
                let number = work.number();
                let out = RunWriter::create(&path(&self.folder, number))?;
                let sources = sources.into_iter().map(|run| (run, Place::default())).collect();
                Merge { sources, out, number, oldest }
            }
        };
        if !merge.go_on(moved)? {
            work.merges.insert(level, merge);
            return Ok(());
        }
        let Merge { sources, out, number, .. } = merge;
        let merged = Arc::new(out.finish(number, level + 1)?);
        let gone: Vec<u64> = sources.iter().map(|(run, _)| run.number).collect();
        let place = runs.iter().position(|run| gone.contains(&run.number)).unwrap_or(0);
        runs.retain(|run| !gone.contains(&run.number));
        runs.insert(place, merged);
        work.replaced.extend(gone);
        Ok(())
    }
}

/// What must be noted of these runs.
pub fn catalogue(runs: &[Arc<Run>]) -> Catalogue {
    runs.iter().map(|run| (run.number, run.level)).collect()
}

impl Work {
    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}

impl Merge {
    /// Moves so many entries; whether that were all.
    fn go_on(&mut self, moved: u64) -> io::Result<bool> {
        let Self { sources, out, oldest, .. } = self;
        let places = sources.iter_mut().map(|(run, place)| run.cursor(std::mem::take(place)));
        let mut cursors: Vec<_> = places.collect();
        let mut done = false;
        for _ in 0..moved {
            let mut least: Option<(usize, Key)> = None;
            for (number, cursor) in cursors.iter_mut().enumerate() {
                if let Some((key, _)) = cursor.peek()?
                    // Of equal keys the newest one's value counts.
                    && least.is_none_or(|(_, least)| key <= least)
                {
                    least = Some((number, key));
                }
            }
            let Some((newest, key)) = least else {
                done = true;
                break;
            };
            for (number, cursor) in cursors.iter_mut().enumerate() {
                let Some((found, value)) = cursor.peek()? else { continue };
                if found != key {
                    continue;
                }
                if number == newest && !(*oldest && value.is_none()) {
                    out.put(&key, value)?;
                }
                cursor.step()?;
            }
        }
        let places: Vec<Place> = cursors.into_iter().map(super::run::Cursor::into_place).collect();
        sources.iter_mut().zip(places).for_each(|((_, old), place)| *old = place);
        Ok(done)
    }
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(number.to_string())
}
