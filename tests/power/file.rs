//! One file of the test's disk: what programs see of it, and what of it would survive.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::disk::Mode;
use crate::rng::Rng;

/// The unit in which a kernel writes back.
pub const PAGE: usize = 4096;
/// The unit that a drive writes whole or not at all.
pub const SECTOR: usize = 512;
/// How many earlier states of an unsynced page are remembered: a kernel may have written back any of them.
const VERSIONS: usize = 6;

type Page = Arc<[u8; PAGE]>;

/// Pages that were never written are holes and read as zeros.
#[derive(Clone, Default)]
pub struct File {
    seen: BTreeMap<u64, Page>,
    size: u64,
    safe: BTreeMap<u64, Page>,
    safe_size: u64,
    /// Pages changed since the last sync, with the states that they went through since (the newest is in `seen`).
    dirty: BTreeMap<u64, Vec<Option<Page>>>,
    /// Sizes that it had since the last sync.
    sizes: Vec<u64>,
}

impl File {
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn allocated(&self) -> u64 {
        self.seen.len() as u64
    }

    pub fn unsynced(&self) -> usize {
        self.dirty.len() + usize::from(self.size != self.safe_size)
    }

    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = self.size.min(offset.saturating_add(len as u64));
        let mut out = vec![0; end.saturating_sub(offset) as usize];
        let mut done = 0;
        while done < out.len() {
            let (index, within, count) = span(offset + done as u64, out.len() - done);
            if let Some(page) = self.seen.get(&index) {
                out[done..done + count].copy_from_slice(&page[within..within + count]);
            }
            done += count;
        }
        out
    }

    /// Writes as long as there are pages to be had; says how many bytes it took.
    pub fn write(&mut self, offset: u64, data: &[u8], mut free_pages: u64) -> usize {
        let mut done = 0;
        while done < data.len() {
            let (index, within, count) = span(offset + done as u64, data.len() - done);
            if !self.seen.contains_key(&index) {
                if free_pages == 0 {
                    break;
                }
                free_pages -= 1;
            }
            self.remember(index);
            let page = self.seen.entry(index).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + count].copy_from_slice(&data[done..done + count]);
            done += count;
        }
        if done > 0 {
            self.resize(self.size.max(offset + done as u64));
        }
        done
    }

    /// Gives the range pages of zeros where it has none. False, and nothing done, where there is no room.
    pub fn allocate(&mut self, offset: u64, len: u64, keep_size: bool, free_pages: u64) -> bool {
        let pages = offset / PAGE as u64..(offset + len).div_ceil(PAGE as u64);
        let missing: Vec<u64> = pages.filter(|index| !self.seen.contains_key(index)).collect();
        if missing.len() as u64 > free_pages {
            return false;
        }
        for index in missing {
            self.remember(index);
            self.seen.insert(index, Arc::new([0; PAGE]));
        }
        if !keep_size {
            self.resize(self.size.max(offset + len));
        }
        true
    }

    pub fn truncate(&mut self, size: u64) {
        let keep = size.div_ceil(PAGE as u64);
        let gone: Vec<u64> = self.seen.range(keep..).map(|(index, _)| *index).collect();
        for index in gone {
            self.remember(index);
            self.seen.remove(&index);
        }
        let within = (size % PAGE as u64) as usize;
        if size < self.size && within > 0 && self.seen.contains_key(&(size / PAGE as u64)) {
            let index = size / PAGE as u64;
            self.remember(index);
            if let Some(page) = self.seen.get_mut(&index) {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.resize(size);
    }

    /// What `fsync` promises, or `fdatasync`: that does not promise that a file stays as short as it was cut.
    pub fn sync(&mut self, data_only: bool) {
        let shorter = data_only && self.size < self.safe_size;
        let end = self.size.div_ceil(PAGE as u64);
        let mut left = BTreeMap::new();
        for (index, versions) in std::mem::take(&mut self.dirty) {
            match self.seen.get(&index) {
                Some(page) => {
                    self.safe.insert(index, page.clone());
                }
                None if shorter && index >= end => {
                    left.insert(index, versions);
                }
                None => {
                    self.safe.remove(&index);
                }
            }
        }
        self.dirty = left;
        if !shorter {
            self.safe_size = self.size;
            self.sizes.clear();
        }
    }

    /// What Linux does when a write-back fails: `fsync` reports it once, the pages count as clean, and are not.
    pub fn fail_sync(&mut self) {
        self.dirty.clear();
        self.sizes.clear();
    }

    /// What is left of it after a power cut.
    pub fn after_cut(&self, mode: Mode, rng: &mut Rng) -> Self {
        let mut pages = self.safe.clone();
        let mut size = self.safe_size;
        if mode != Mode::Lost {
            let luck = Luck::draw(rng);
            for (index, versions) in &self.dirty {
                match self.survivor(*index, versions, mode, luck, rng) {
                    Some(page) => pages.insert(*index, page),
                    None => pages.remove(index),
                };
            }
            // With a luck of its own: a size may be kept without its data.
            size = self.surviving_size(Luck::draw(rng), rng);
        }
        // Nothing of the past shines through where the file grows again.
        pages.retain(|index, _| index * (PAGE as u64) < size);
        if !size.is_multiple_of(PAGE as u64)
            && let Some(page) = pages.get_mut(&(size / PAGE as u64))
        {
            Arc::make_mut(page)[(size % PAGE as u64) as usize..].fill(0);
        }
        Self { seen: pages.clone(), size, safe: pages, safe_size: size, dirty: BTreeMap::new(), sizes: Vec::new() }
    }

    fn survivor(&self, index: u64, between: &[Option<Page>], mode: Mode, luck: Luck, rng: &mut Rng) -> Option<Page> {
        let mut states: Vec<Option<&Page>> = vec![self.safe.get(&index)];
        states.extend(between.iter().map(Option::as_ref));
        states.push(self.seen.get(&index));
        if mode != Mode::Torn || rng.coin() {
            return states[luck.pick(states.len(), rng)].cloned();
        }
        let mut torn = Box::new([0; PAGE]);
        for sector in 0..PAGE / SECTOR {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            if let Some(page) = states[luck.pick(states.len(), rng)] {
                torn[range.clone()].copy_from_slice(&page[range]);
            }
        }
        Some(Arc::new(*torn))
    }

    fn surviving_size(&self, luck: Luck, rng: &mut Rng) -> u64 {
        let mut sizes = vec![self.safe_size];
        sizes.extend(&self.sizes);
        if self.size > self.safe_size {
            // Write-back in the middle of a long append leaves the size at a page's edge.
            let edge = rng.between(self.safe_size, self.size) / PAGE as u64 * PAGE as u64;
            sizes.push(edge.max(self.safe_size));
        }
        sizes.push(self.size);
        sizes[luck.pick(sizes.len(), rng)]
    }

    fn remember(&mut self, index: u64) {
        match self.dirty.entry(index) {
            Entry::Vacant(entry) => {
                entry.insert(Vec::new());
            }
            Entry::Occupied(mut entry) => {
                let versions = entry.get_mut();
                if versions.len() == VERSIONS {
                    versions.remove(0);
                }
                versions.push(self.seen.get(&index).cloned());
            }
        }
    }

    fn resize(&mut self, size: u64) {
        if size != self.size {
            if self.sizes.len() == VERSIONS {
                self.sizes.remove(0);
            }
            self.sizes.push(self.size);
            self.size = size;
        }
    }
}

/// How much of a file or a folder got to the disk in time. Whole files that made it, or did not, find other faults than
/// a fair coin for every page.
#[derive(Clone, Copy, PartialEq)]
pub enum Luck {
    All,
    Nothing,
    Some,
}

impl Luck {
    pub fn draw(rng: &mut Rng) -> Self {
        match rng.below(4) {
            0 => Self::All,
            1 => Self::Nothing,
            _ => Self::Some,
        }
    }

    /// Which of `count` states, oldest first, is the one on the disk.
    fn pick(self, count: usize, rng: &mut Rng) -> usize {
        match self {
            Self::All => count - 1,
            Self::Nothing => 0,
            Self::Some => rng.below(count as u64) as usize,
        }
    }
}

/// The page of `offset`, where in it, and how many bytes of `len` lie in it.
fn span(offset: u64, len: usize) -> (u64, usize, usize) {
    let within = (offset % PAGE as u64) as usize;
    (offset / PAGE as u64, within, len.min(PAGE - within))
}
