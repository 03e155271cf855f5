//! Bytes that did not read are kept aside in `<store>/damage/`, named by the segment and the place in it, so that an
//! operator can look at them and so that they are counted once.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::disk;
use super::{Damage, Fault};

/// The folder of what was kept aside.
pub fn folder(store: &Path) -> PathBuf {
    store.join("damage")
}

/// Keeps the bytes of a damaged place. The same place found again, because a start was cut short, is the same file.
pub fn keep(store: &Path, damage: &Damage, bytes: &[u8]) -> io::Result<()> {
    let folder = folder(store);
    disk::make_folder(&folder)?;
    let path = folder.join(name(damage));
    let mut file = disk::create(&path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    disk::sync_folder(&folder)
}

/// Moves a whole segment aside.
pub fn move_segment(store: &Path, damage: &Damage, segment: &Path) -> io::Result<()> {
    let folder = folder(store);
    disk::make_folder(&folder)?;
    fs::rename(segment, folder.join(name(damage)))?;
    disk::sync_folder(&folder)?;
    segment.parent().map_or(Ok(()), disk::sync_folder)
}

/// How many places are kept aside.
pub fn count(store: &Path) -> u64 {
    fs::read_dir(folder(store)).map_or(0, |entries| entries.filter(Result::is_ok).count() as u64)
}

/// The segments of which something is kept aside.
pub fn segments(store: &Path) -> Vec<String> {
    let names = fs::read_dir(folder(store)).into_iter().flatten().filter_map(Result::ok);
    let segment = |name: std::ffi::OsString| Some(name.to_str()?.split_once('-')?.0.to_owned());
    names.filter_map(|entry| segment(entry.file_name())).collect()
}

fn name(damage: &Damage) -> String {
    let Damage { file, offset, length, what } = damage;
    let what = match what {
        Fault::Unreadable => "unreadable",
        Fault::Header => "header",
        Fault::Missing => "missing",
        Fault::Foreign => "foreign",
        Fault::Overlap => "overlap",
        Fault::Chain => "chain",
    };
    format!("{file}-{offset}-{length}-{what}")
}
