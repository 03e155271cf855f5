//! One sorted file of keys and values, written once and never changed.
//!
//! ```text
//! run     = block* fence* trailer
//! block   = crc32c:u32 entry*                        about 8 KiB; the checksum is over the entries
//! entry   = key:17 varint(0 | length + 1) value      0: the key was forgotten
//! fence   = prefix:u64 offset:u64                    first 8 bytes of a block's first key, and where the block begins
//! trailer = fences:u64 entries:u64 crc32c:u32 magic:8    the checksum is over fences and counts
//! ```
//!
//! Nothing is synced: whoever opens a run must know that it was written within the same boot, and reads what the page
//! cache holds. The checksums are for everything else that can happen to a file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::fields::{little_endian, read_varint, varint};
use super::super::state::Key;

const BLOCK: usize = 8 << 10;
const MAGIC: &[u8; 8] = b"QINDEX1\n";
const TRAILER: usize = 28;
const KEY: usize = 17;

/// An open run.
#[derive(Debug)]
pub struct Run {
    /// Its file's number.
    pub number: u64,
    /// How many times what is in it was merged.
    pub level: u32,
    file: File,
    /// By block: prefix and offset; the end of the last block closes the list.
    fences: Vec<(u64, u64)>,
    end: u64,
}

/// Writes a run, keys ascending.
pub struct RunWriter {
    out: BufWriter<File>,
    block: Vec<u8>,
    first: u64,
    at: u64,
    fences: Vec<(u64, u64)>,
    entries: u64,
}

/// Goes through a run from its first key to its last.
pub struct Cursor<'a> {
    run: &'a Run,
    place: Place,
}

/// Where a walk through a run is, without the run.
#[derive(Debug, Default)]
pub struct Place {
    next_block: usize,
    block: Vec<u8>,
    at: usize,
}

/// A key, and its value unless it was forgotten.
pub type KeyValue<'a> = (Key, Option<&'a [u8]>);

fn prefix(key: &Key) -> u64 {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(key.0) {
        *to = from;
    }
    u64::from_be_bytes(first)
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl RunWriter {
    /// Into a new file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let out = BufWriter::with_capacity(16 * BLOCK, file);
        Ok(Self { out, block: vec![0; 4], first: 0, at: 0, fences: Vec::new(), entries: 0 })
    }

    /// Adds a key, which must be above the one before; `None` where it is to be forgotten.
    ///
    /// # Errors
    /// What the disk says.
    pub fn put(&mut self, key: &Key, value: Option<&[u8]>) -> io::Result<()> {
        if self.block.len() >= BLOCK {
            self.end_block()?;
        }
        if self.block.len() == 4 {
            self.first = prefix(key);
        }
        self.block.extend_from_slice(&key.0);
        varint(&mut self.block, value.map_or(0, |value| value.len() as u64 + 1));
        self.block.extend_from_slice(value.unwrap_or_default());
        self.entries += 1;
        Ok(())
    }

    /// Ends the file and opens it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(mut self, number: u64, level: u32) -> io::Result<Run> {
        self.end_block()?;
        let mut tail = Vec::with_capacity(self.fences.len() * 16 + TRAILER);
        for (prefix, offset) in &self.fences {
            tail.extend_from_slice(&prefix.to_le_bytes());
            tail.extend_from_slice(&offset.to_le_bytes());
        }
        tail.extend_from_slice(&(self.fences.len() as u64).to_le_bytes());
        tail.extend_from_slice(&self.entries.to_le_bytes());
        let crc = crc32c::crc32c(&tail);
        tail.extend_from_slice(&crc.to_le_bytes());
        tail.extend_from_slice(MAGIC);
        self.out.write_all(&tail)?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Run { number, level, file, fences: self.fences, end: self.at })
    }

    fn end_block(&mut self) -> io::Result<()> {
        let Some((crc, entries)) = self.block.split_at_mut_checked(4) else { return Ok(()) };
        if entries.is_empty() {
            return Ok(());
        }
        crc.copy_from_slice(&crc32c::crc32c(entries).to_le_bytes());
        self.fences.push((self.first, self.at));
        self.out.write_all(&self.block)?;
        self.at += self.block.len() as u64;
        self.block.truncate(4);
        Ok(())
    }
}

impl Run {
    /// Opens one that was written before.
    ///
    /// # Errors
    /// When it cannot be read, or is not whole.
    pub fn open(path: &Path, number: u64, level: u32) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut trailer = [0; TRAILER];
        let trailer_at =
            length.checked_sub(TRAILER as u64).ok_or_else(|| damaged("a run of the index is too short"))?;
        file.read_exact_at(&mut trailer, trailer_at)?;
        let field = |from: usize, to: usize| little_endian(trailer.get(from..to).unwrap_or_default());
        let (count, crc) = (field(0, 8), field(16, 20));
        let room = count.checked_mul(16).filter(|room| *room <= trailer_at && trailer.ends_with(MAGIC));
        let room = room.ok_or_else(|| damaged("a run of the index does not end as it must"))?;
        let end = trailer_at - room;
        let mut tail = vec![0; usize::try_from(room + 16).map_err(|_| damaged("a run of the index is too large"))?];
        file.read_exact_at(&mut tail, end)?;
        if u64::from(crc32c::crc32c(&tail)) != crc {
            return Err(damaged("the fences of a run of the index do not read"));
        }
        let fences = tail.chunks_exact(16).take(usize::try_from(count).unwrap_or_default());
        let fences = fences.map(|fence| fence.split_at(8)).map(|(p, o)| (little_endian(p), little_endian(o))).collect();
        Ok(Self { number, level, file, fences, end })
    }

    /// What stands under a key: nothing here, forgotten, or a value.
    ///
    /// # Errors
    /// When a block does not read.
    pub fn get(&self, key: &Key) -> io::Result<Option<Option<Vec<u8>>>> {
        let wanted = prefix(key);
        // A prefix can begin at the end of the block before the one whose fence it is.
        let mut number = self.fences.partition_point(|(first, _)| *first < wanted).saturating_sub(1);
        let mut block = Vec::new();
        while self.fences.get(number).is_some_and(|(first, _)| *first <= wanted) {
            self.read_block(number, &mut block)?;
            let mut rest = block.get(4..).unwrap_or_default();
            while let Some((found, value, after)) = split_entry(rest)? {
                if found == *key {
                    return Ok(Some(value.map(<[u8]>::to_vec)));
                }
                if found > *key {
                    return Ok(None);
                }
                rest = after;
            }
            number += 1;
        }
        Ok(None)
    }

    /// From the first key on.
    pub fn cursor(&self, place: Place) -> Cursor<'_> {
        Cursor { run: self, place }
    }

    fn read_block(&self, number: usize, block: &mut Vec<u8>) -> io::Result<()> {
        let (_, from) = self.fences.get(number).ok_or_else(|| damaged("no such block"))?;
        let to = self.fences.get(number + 1).map_or(self.end, |(_, next)| *next);
        let length = to.checked_sub(*from).and_then(|length| usize::try_from(length).ok());
        // A block holds one value more than its bound at most, and values are far below a megabyte.
        let length = length.filter(|length| (4..=16 << 20).contains(length));
        block.clear();
        block.resize(length.ok_or_else(|| damaged("a block of the index has no sound length"))?, 0);
        self.file.read_exact_at(block, *from)?;
        let (crc, entries) = block.split_at_checked(4).unwrap_or_default();
        if little_endian(crc) != u64::from(crc32c::crc32c(entries)) {
            return Err(damaged("a block of the index does not read"));
        }
        Ok(())
    }
}

impl Cursor<'_> {
    /// The entry here; `None` at the end.
    ///
    /// # Errors
    /// When a block does not read.
    pub fn peek(&mut self) -> io::Result<Option<KeyValue<'_>>> {
        if self.place.at >= self.place.block.len() {
            if self.place.next_block >= self.run.fences.len() {
                return Ok(None);
            }
            self.run.read_block(self.place.next_block, &mut self.place.block)?;
            self.place.next_block += 1;
            self.place.at = 4;
        }
        let rest = self.place.block.get(self.place.at..).unwrap_or_default();
        Ok(split_entry(rest)?.map(|(key, value, _)| (key, value)))
    }

    /// Goes on behind the entry here.
    ///
    /// # Errors
    /// When it does not read.
    pub fn step(&mut self) -> io::Result<()> {
        let rest = self.place.block.get(self.place.at..).unwrap_or_default();
        if let Some((_, _, after)) = split_entry(rest)? {
            self.place.at = self.place.block.len() - after.len();
        }
        Ok(())
    }

    /// Where it is.
    pub fn into_place(self) -> Place {
        self.place
    }
}

type Entry<'a> = (Key, Option<&'a [u8]>, &'a [u8]);

/// The first entry and what is behind it; `None` where there is nothing.
fn split_entry(bytes: &[u8]) -> io::Result<Option<Entry<'_>>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let cut = || damaged("an entry of the index is cut");
    let (key, rest) = bytes.split_first_chunk::<KEY>().ok_or_else(cut)?;
    let (length, rest) = read_varint(rest).ok_or_else(cut)?;
    let Some(length) = length.checked_sub(1) else { return Ok(Some((Key(*key), None, rest))) };
    let length = usize::try_from(length).map_err(|_| cut())?;
    let (value, after) = rest.split_at_checked(length).ok_or_else(cut)?;
    Ok(Some((Key(*key), Some(value), after)))
}
