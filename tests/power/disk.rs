//! The disk of the power-loss tests: folders and files with what running programs see and what would be left of it if
//! the power went now.
//!
//! The strictest reading of POSIX: a write is safe after `fsync` of its file, a name after `fsync` of its folder, and
//! neither of the two vouches for the other. A rename is one step within a folder; between two folders it is a
//! step in each, and each is safe by its own sync.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use fuser::Errno;

use crate::file::{File, Luck, PAGE};
use crate::rng::Rng;

pub type Ino = u64;
pub const ROOT: Ino = 1;

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Nothing.
    Lost,
    /// A random part of the pages, sizes and names, in no order: also a size without its data (zeros).
    Subset,
    /// The same, and pages of which only some sectors were written.
    Torn,
}

pub const MODES: [Mode; 3] = [Mode::Lost, Mode::Subset, Mode::Torn];

/// What goes wrong on a disk that has power. Each counts down: 1 is the next call of its kind.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// EIO from one `write`.
    pub write: Option<u64>,
    /// EIO from one sync of a file. As with Linux, the next one succeeds although the data is gone.
    pub sync: Option<u64>,
    /// EIO from one sync of a folder.
    pub folder_sync: Option<u64>,
    /// Every `write` takes only a part.
    pub short_writes: bool,
    /// EROFS from everything that changes something.
    pub read_only: bool,
    /// Room for so many bytes, in whole pages: ENOSPC beyond.
    pub capacity: Option<u64>,
}

pub struct Node {
    pub kind: Kind,
    pub mode: u16,
    pub links: u32,
    pub opens: u32,
    pub modified: SystemTime,
}

pub enum Kind {
    File(File),
    Folder(Folder),
}

#[derive(Default)]
pub struct Folder {
    pub names: BTreeMap<OsString, Ino>,
    safe: BTreeMap<OsString, Ino>,
    /// Steps since the last sync; each is kept whole or not at all.
    unsynced: Vec<Vec<(OsString, Option<Ino>)>>,
}

/// What is on the disk, and whether it has power.
pub struct Disk {
    pub nodes: HashMap<Ino, Node>,
    pub faults: Faults,
    /// Rises with every power cut: what was opened before it is worth nothing.
    pub generation: u64,
    /// Changes and syncs so far.
    pub steps: u64,
    pub syncs: u64,
    /// Syncs of a file whose last one had failed: whoever asks again is told a lie.
    pub syncs_after_failure: u64,
    failed: HashSet<Ino>,
    next: Ino,
    off: bool,
    cut_in: Option<u64>,
}

type Answer<T> = Result<T, Errno>;

impl Disk {
    pub fn new() -> Self {
        let root = node(Kind::Folder(Folder::default()), 0o755);
        Self {
            nodes: HashMap::from([(ROOT, root)]),
            faults: Faults::default(),
            generation: 1,
            steps: 0,
            syncs: 0,
            syncs_after_failure: 0,
            failed: HashSet::new(),
            next: ROOT + 1,
            off: false,
            cut_in: None,
        }
    }

    /// An empty one in its place. No number is used twice, so that nothing opened before finds anything.
    pub fn formatted(&self) -> Self {
        Self { generation: self.generation + 1, next: self.next, ..Self::new() }
    }

    pub fn is_off(&self) -> bool {
        self.off
    }

    pub fn cut_now(&mut self) {
        self.off = true;
    }

    /// It was off for nobody but those who used it: all is as they left it, and their handles are dead.
    pub fn power_again(&mut self) {
        (self.off, self.cut_in) = (false, None);
        self.generation += 1;
        self.nodes.values_mut().for_each(|node| node.opens = 0);
        self.sweep();
    }

    /// The power goes in the middle of the `steps`-th change or sync from now: a change may get to the disk, the
    /// caller hears EIO.
    pub fn cut_after(&mut self, steps: u64) {
        self.cut_in = Some(steps.max(1));
    }

    /// The disk as the next boot finds it, with power again and without faults.
    pub fn after_cut(&self, mode: Mode, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut left = self.formatted();
        let mut renamed = HashMap::from([(ROOT, ROOT)]);
        let mut queue = vec![ROOT];
        while let Some(old) = queue.pop() {
            let Some(Node { kind: Kind::Folder(folder), .. }) = self.nodes.get(&old) else { continue };
            let mut names = BTreeMap::new();
            for (name, ino) in folder.after_cut(mode, &mut rng) {
                let Some(node) = self.nodes.get(&ino) else { continue };
                if let Some(new) = renamed.get(&ino) {
                    if let Some(Node { kind: Kind::File(_), links, .. }) = left.nodes.get_mut(new) {
                        *links += 1;
                        names.insert(name, *new);
                    }
                    continue;
                }
                let kind = match &node.kind {
                    Kind::File(file) => Kind::File(file.after_cut(mode, &mut rng)),
                    Kind::Folder(_) => {
                        queue.push(ino);
                        Kind::Folder(Folder::default())
                    }
                };
                let new = left.fresh();
                left.nodes.insert(new, Node { modified: node.modified, ..crate::disk::node(kind, node.mode) });
                renamed.insert(ino, new);
                names.insert(name, new);
            }
            let new = renamed[&old];
            if let Some(Node { kind: Kind::Folder(folder), .. }) = left.nodes.get_mut(&new) {
                *folder = Folder { safe: names.clone(), names, unsynced: Vec::new() };
            }
        }
        left
    }

    /// Fails where there is no power. For everything that changes nothing.
    pub fn powered(&self) -> Answer<()> {
        if self.off { Err(Errno::EIO) } else { Ok(()) }
    }

    pub fn look_up(&self, parent: Ino, name: &OsStr) -> Answer<Ino> {
        self.folder(parent)?.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub fn create(&mut self, parent: Ino, name: &OsStr, mode: u16, folder: bool) -> Answer<Ino> {
        self.change()?;
        if self.folder(parent)?.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let kind = if folder { Kind::Folder(Folder::default()) } else { Kind::File(File::default()) };
        let ino = self.fresh();
        self.nodes.insert(ino, node(kind, mode));
        self.folder_mut(parent)?.step(vec![(name.into(), Some(ino))]);
        self.powered()?;
        Ok(ino)
    }

    pub fn remove(&mut self, parent: Ino, name: &OsStr, folder: bool) -> Answer<()> {
        self.change()?;
        let ino = self.look_up(parent, name)?;
        self.removable(ino, folder)?;
        self.folder_mut(parent)?.step(vec![(name.into(), None)]);
        self.unlink(ino);
        self.powered()
    }

    pub fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr), replace: bool) -> Answer<()> {
        self.change()?;
        let ino = self.look_up(from.0, from.1)?;
        if let Ok(there) = self.look_up(to.0, to.1) {
            if !replace {
                return Err(Errno::EEXIST);
            }
            if there == ino {
                return self.powered();
            }
            self.removable(there, matches!(self.nodes.get(&ino), Some(Node { kind: Kind::Folder(_), .. })))?;
            self.unlink(there);
        }
        let gone = (from.1.to_owned(), None);
        let come = (to.1.to_owned(), Some(ino));
        if from.0 == to.0 {
            self.folder_mut(from.0)?.step(vec![gone, come]);
        } else {
            self.folder_mut(from.0)?.step(vec![gone]);
            self.folder_mut(to.0)?.step(vec![come]);
        }
        self.powered()
    }

    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Answer<usize> {
        self.change()?;
        if count_down(&mut self.faults.write) {
            return Err(Errno::EIO);
        }
        let part = if self.faults.short_writes { data.len().div_ceil(2) } else { data.len() };
        let free = self.free_pages();
        let written = self.file_mut(ino)?.write(offset, &data[..part], free);
        self.powered()?;
        if written == 0 && !data.is_empty() { Err(Errno::ENOSPC) } else { Ok(written) }
    }

    pub fn truncate(&mut self, ino: Ino, size: u64) -> Answer<()> {
        self.change()?;
        self.file_mut(ino)?.truncate(size);
        self.powered()
    }

    pub fn allocate(&mut self, ino: Ino, offset: u64, len: u64, keep_size: bool) -> Answer<()> {
        self.change()?;
        let free = self.free_pages();
        if !self.file_mut(ino)?.allocate(offset, len, keep_size, free) {
            return Err(Errno::ENOSPC);
        }
        self.powered()
    }

    /// `fsync`, or `fdatasync`.
    pub fn sync(&mut self, ino: Ino, data_only: bool) -> Answer<()> {
        self.sync_step()?;
        self.syncs_after_failure += u64::from(self.failed.contains(&ino));
        if count_down(&mut self.faults.sync) {
            self.failed.insert(ino);
            self.file_mut(ino)?.fail_sync();
            return Err(Errno::EIO);
        }
        let read_only = self.faults.read_only;
        let file = self.file_mut(ino)?;
        if read_only && file.unsynced() > 0 {
            return Err(Errno::EROFS);
        }
        file.sync(data_only);
        Ok(())
    }

    pub fn sync_folder(&mut self, ino: Ino) -> Answer<()> {
        self.sync_step()?;
        if count_down(&mut self.faults.folder_sync) {
            return Err(Errno::EIO);
        }
        let folder = self.folder_mut(ino)?;
        folder.safe = folder.names.clone();
        folder.unsynced.clear();
        self.sweep();
        Ok(())
    }

    pub fn file(&self, ino: Ino) -> Answer<&File> {
        match self.nodes.get(&ino) {
            Some(Node { kind: Kind::File(file), .. }) => Ok(file),
            Some(_) => Err(Errno::EISDIR),
            None => Err(Errno::EIO),
        }
    }

    pub fn folder(&self, ino: Ino) -> Answer<&Folder> {
        match self.nodes.get(&ino) {
            Some(Node { kind: Kind::Folder(folder), .. }) => Ok(folder),
            Some(_) => Err(Errno::ENOTDIR),
            None => Err(Errno::EIO),
        }
    }

    /// Pages that may still be taken.
    pub fn free_pages(&self) -> u64 {
        let Some(capacity) = self.faults.capacity else { return u64::MAX };
        (capacity / PAGE as u64).saturating_sub(self.used_pages())
    }

    pub fn used_pages(&self) -> u64 {
        let live = self.nodes.values().filter(|node| node.links > 0 || node.opens > 0);
        live.map(|node| if let Kind::File(file) = &node.kind { file.allocated() } else { 0 }).sum()
    }

    /// Forgets what no name leads to any more, neither now nor after a cut.
    pub fn sweep(&mut self) {
        let mut kept = HashSet::from([ROOT]);
        for node in self.nodes.values() {
            if let Kind::Folder(folder) = &node.kind {
                kept.extend(folder.names.values().chain(folder.safe.values()));
                kept.extend(folder.unsynced.iter().flatten().filter_map(|(_, ino)| *ino));
            }
        }
        self.nodes.retain(|ino, node| node.opens > 0 || kept.contains(ino));
    }

    fn file_mut(&mut self, ino: Ino) -> Answer<&mut File> {
        match self.nodes.get_mut(&ino) {
            Some(Node { kind: Kind::File(file), modified, .. }) => {
                *modified = now();
                Ok(file)
            }
            Some(_) => Err(Errno::EISDIR),
            None => Err(Errno::EIO),
        }
    }

    fn folder_mut(&mut self, ino: Ino) -> Answer<&mut Folder> {
        match self.nodes.get_mut(&ino) {
            Some(Node { kind: Kind::Folder(folder), modified, .. }) => {
                *modified = now();
                Ok(folder)
            }
            Some(_) => Err(Errno::ENOTDIR),
            None => Err(Errno::EIO),
        }
    }

    fn removable(&self, ino: Ino, folder: bool) -> Answer<()> {
        match self.nodes.get(&ino).map(|node| &node.kind) {
            Some(Kind::Folder(_)) if !folder => Err(Errno::EISDIR),
            Some(Kind::File(_)) if folder => Err(Errno::ENOTDIR),
            Some(Kind::Folder(there)) if !there.names.is_empty() => Err(Errno::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    fn unlink(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.links = node.links.saturating_sub(1);
        }
    }

    fn fresh(&mut self) -> Ino {
        self.next += 1;
        self.next
    }

    /// One change more. In the middle of the last one the power goes, whatever else would come of it: it may get to the
    /// disk, and `powered` tells the caller afterwards.
    fn change(&mut self) -> Answer<()> {
        self.powered()?;
        self.count();
        if self.faults.read_only && !self.off { Err(Errno::EROFS) } else { Ok(()) }
    }

    fn sync_step(&mut self) -> Answer<()> {
        self.powered()?;
        self.syncs += 1;
        self.count();
        self.powered()
    }

    fn count(&mut self) {
        self.steps += 1;
        self.off |= count_down(&mut self.cut_in);
    }
}

impl Folder {
    fn step(&mut self, step: Vec<(OsString, Option<Ino>)>) {
        apply(&mut self.names, &step);
        self.unsynced.push(step);
    }

    fn after_cut(&self, mode: Mode, rng: &mut Rng) -> BTreeMap<OsString, Ino> {
        let mut names = self.safe.clone();
        if mode == Mode::Lost {
            return names;
        }
        let luck = Luck::draw(rng);
        for step in &self.unsynced {
            let kept = match luck {
                Luck::All => true,
                Luck::Nothing => false,
                Luck::Some => rng.coin(),
            };
            if kept {
                apply(&mut names, step);
            }
        }
        names
    }
}

fn apply(names: &mut BTreeMap<OsString, Ino>, step: &[(OsString, Option<Ino>)]) {
    for (name, ino) in step {
        match ino {
            Some(ino) => names.insert(name.clone(), *ino),
            None => names.remove(name),
        };
    }
}

fn node(kind: Kind, mode: u16) -> Node {
    Node { kind, mode, links: 1, opens: 0, modified: now() }
}

fn count_down(counter: &mut Option<u64>) -> bool {
    match counter {
        Some(1) => {
            *counter = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

#[expect(clippy::disallowed_methods, reason = "a file system stamps its files with the machine's time")]
fn now() -> SystemTime {
    SystemTime::now()
}
