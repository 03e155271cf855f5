//! A real journal, damaged as the input says, and what must hold of its recovery.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use quittance::event::{Digest, Position};
use quittance::store::embedded::journal::{Entry, Journal, Options, Reader, Stored};

const OPTIONS: Options = Options { segment_bytes: 4096, verify: true };
const RECORDS: u8 = 24;

/// A store's files, by their paths below it, and its records in order.
type Original = (Vec<(PathBuf, Vec<u8>)>, Vec<Stored>);

fn entry(number: u8) -> Entry {
    let (raw, event) = (vec![number; 200], vec![number; 150]);
    Entry {
        payload: vec![number; 40],
        raw_hash: Digest::of(&raw),
        event_hash: Digest::of(&event),
        raw: Bytes::from(raw),
        event,
        fingerprints: vec![u64::from(number), u64::from(number) << 32],
    }
}

fn folder() -> tempfile::TempDir {
    // In memory where there is such a place: a sync of a real disk would be most of the time.
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

fn original() -> &'static Original {
    static ORIGINAL: OnceLock<Original> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        let store = folder();
        let (mut journal, _) = Journal::open(store.path(), OPTIONS).expect("a new journal");
        for number in 1..=RECORDS {
            journal.append(&[entry(number)]).expect("room");
        }
        let records = all(&journal.reader());
        assert_eq!(records.len(), usize::from(RECORDS));
        drop(journal);
        let mut files = Vec::new();
        for file in fs::read_dir(store.path().join("journal")).expect("there").flatten() {
            if file.path().extension().is_some_and(|ending| ending == "journal") {
                files.push((Path::new("journal").join(file.file_name()), fs::read(file.path()).expect("readable")));
            }
        }
        files.sort();
        assert!(files.len() > 2, "several segments");
        (files, records)
    })
}

fn all(reader: &Reader) -> Vec<Stored> {
    reader.records(Position(1)).flatten().collect()
}

/// Four bytes of the input are one act of damage: a file, what is done to it, and where.
fn damage(files: &mut [(PathBuf, Vec<u8>)], data: &[u8]) {
    for act in data.chunks_exact(4).take(64) {
        let count = files.len();
        let (_, bytes) = &mut files[usize::from(act[0] & 0x0f) % count];
        let at = (usize::from(act[1]) << 8 | usize::from(act[2])) % (bytes.len() + 1);
        match act[0] >> 4 {
            0..=7 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= act[3] | 1),
            8 | 9 => bytes.truncate(at),
            10 | 11 => bytes.iter_mut().skip(at).take(usize::from(act[3]) * 4).for_each(|byte| *byte = 0),
            12 => bytes.splice(at..at, vec![act[3]; usize::from(act[3])]).for_each(drop),
            13 => bytes.extend_from_within(..at),
            14 => bytes.extend_from_slice(data),
            _ => bytes.clear(),
        }
    }
}

/// Recovery ends; whatever it gives back is what was written; a second start finds the same and nothing new.
pub fn recover(data: &[u8]) {
    let (files, records) = original();
    let mut files = files.clone();
    damage(&mut files, data);
    let store = folder();
    fs::create_dir(store.path().join("journal")).expect("new");
    for (path, bytes) in &files {
        fs::write(store.path().join(path), bytes).expect("room");
    }
    let Ok((mut journal, first)) = Journal::open(store.path(), OPTIONS) else { return };
    let found = all(&journal.reader());
    for record in &found {
        let written = records.iter().find(|written| written.position == record.position);
        let written = written.expect("a position that nobody wrote");
        assert_eq!((&record.payload, record.chain), (&written.payload, written.chain));
        assert!(record.raw.is_none() || record.raw == written.raw);
        assert!(record.event.is_none() || record.event == written.event);
    }
    let added = journal.append(&[entry(200)]).expect("it goes on after damage");
    assert!(added.first > first.head);
    journal.close().expect("room");
    let (journal, second) = Journal::open(store.path(), OPTIONS).expect("the second start");
    assert_eq!(second.store_id, first.store_id);
    assert!(second.damage.is_empty(), "found again: {:?}, first {:?}", second.damage, first.damage);
    assert_eq!(second.head, added.last);
    let again = all(&journal.reader());
    assert_eq!(again.len(), found.len() + 1);
    assert!(again.iter().zip(&found).all(|(now, then)| now.position == then.position && now.payload == then.payload));
}

#[cfg(test)]
mod tests {
    /// The properties hold without damage, and with the plainest of each kind.
    #[test]
    fn an_undamaged_journal_is_recovered_whole() {
        super::recover(b"");
        for act in 0..=255 {
            super::recover(&[act, 3, 7, 9]);
        }
    }
}
