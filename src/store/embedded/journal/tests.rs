//! What the journal promises, tried on small journals in temporary folders.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::*;

const SMALL: Options = Options { segment_bytes: 8 << 10, verify: false };

fn entry(number: u64) -> Entry {
    let payload = format!("payload {number}").into_bytes();
    let raw = Bytes::from(vec![number as u8; (number * 37 % 400) as usize]);
    let event = format!("{{\"event\":{number}}}").into_bytes();
    Entry {
        raw_hash: Digest::of(&raw),
        event_hash: Digest::of(&event),
        fingerprints: vec![number, number * 1000],
        payload,
        raw,
        event,
    }
}

#[track_caller]
fn open(folder: &Path) -> (Journal, Recovered) {
    Journal::open(folder, SMALL).expect("opens")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("folder")
}

#[track_caller]
fn fill(journal: &mut Journal, groups: u64, each: u64) {
    for _ in 0..groups {
        let next = journal.next_position().0;
        let entries: Vec<Entry> = (next..next + each).map(entry).collect();
        let appended = journal.append(&entries).expect("appends");
        assert_eq!((appended.first.0, appended.last.0), (next, next + each - 1));
    }
}

/// Everything that reads is what was written; gives the positions that read.
#[track_caller]
fn check(journal: &Journal) -> Vec<u64> {
    let mut positions = Vec::new();
    for stored in journal.reader().records(Position(1)).flatten() {
        let wanted = entry(stored.position.0);
        assert_eq!(stored.payload, wanted.payload, "a wrong record at {}", stored.position);
        if !stored.parts_damaged && stored.raw.is_some() {
            assert_eq!(stored.raw.as_deref(), Some(&*wanted.raw));
            assert_eq!(stored.event.as_deref(), Some(&*wanted.event));
        }
        assert_eq!((stored.raw_hash, stored.event_hash), (wanted.raw_hash, wanted.event_hash));
        positions.push(stored.position.0);
    }
    let mut back: Vec<u64> =
        journal.reader().heads_back(Position(u64::MAX)).flatten().map(|stored| stored.position.0).collect();
    back.reverse();
    let heads: Vec<u64> = journal.reader().heads(Position(1)).flatten().map(|stored| stored.position.0).collect();
    assert_eq!(back, heads);
    for position in &positions {
        let stored = journal.reader().read(Position(*position)).expect("reads").expect("is there");
        assert_eq!(stored.position.0, *position);
    }
    positions
}

fn segment_paths(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder.join("journal"))
        .expect("lists")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "journal"))
        .collect();
    found.sort();
    found
}

#[test]
fn what_was_appended_is_there_after_a_start() {
    let folder = folder();
    let (mut journal, recovered) = open(folder.path());
    assert_eq!(recovered.head, Position(0));
    fill(&mut journal, 40, 3);
    let chain = journal.chain();
    assert!(segment_paths(folder.path()).len() > 3, "segments rotate");
    assert_eq!(check(&journal), (1..=120).collect::<Vec<_>>());
    drop(journal);
    let (journal, recovered) = open(folder.path());
    assert_eq!((recovered.head, recovered.chain, recovered.torn_bytes), (Position(120), chain, 0));
    assert_eq!(recovered.damage, []);
    assert_eq!(check(&journal), (1..=120).collect::<Vec<_>>());
}
