//! What the journal promises, tried on small journals in temporary folders.

mod damage;
mod model;

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

/// In memory where the system has such a folder: these tests open thousands of journals, and a sync of a real disk
/// proves nothing here.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("folder")
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

#[test]
fn a_journal_cut_at_any_byte_of_its_last_group_keeps_exactly_the_earlier_groups() {
    let made = folder();
    let (mut journal, _) = open(made.path());
    fill(&mut journal, 3, 2);
    let before = journal.segments().last().expect("active").bytes;
    fill(&mut journal, 1, 2);
    drop(journal);
    let [path] = segment_paths(made.path()).try_into().expect("one segment");
    let whole = fs::read(&path).expect("reads");
    for length in before as usize..whole.len() {
        let copy = folder();
        fs::create_dir(copy.path().join("journal")).expect("makes");
        fs::write(copy.path().join("journal").join(path.file_name().expect("name")), &whole[..length]).expect("writes");
        let (mut journal, recovered) = open(copy.path());
        assert_eq!(recovered.head, Position(6), "cut at {length}");
        assert_eq!(recovered.damage, [], "cut at {length}");
        assert_eq!(
            recovered.torn_bytes,
            (length - before as usize) as u64 - trailing_zeros(&whole[before as usize..length])
        );
        assert_eq!(check(&journal), (1..=6).collect::<Vec<_>>());
        fill(&mut journal, 1, 1);
        assert_eq!(check(&journal), (1..=7).collect::<Vec<_>>());
    }
}

fn trailing_zeros(bytes: &[u8]) -> u64 {
    bytes.iter().rev().take_while(|byte| **byte == 0).count() as u64
}

/// Two sealed segments, or one that takes records, with a synced mark at its end.
fn small_journal(sealed: bool) -> tempfile::TempDir {
    let made = folder();
    let options = Options { segment_bytes: if sealed { 4096 } else { 1 << 20 }, ..SMALL };
    let (mut journal, _) = Journal::open(made.path(), options).expect("opens");
    while journal.segments().len() < 3 && (sealed || journal.next_position().0 < 9) {
        fill(&mut journal, 1, 3);
    }
    journal.close().expect("closes");
    made
}

fn flip_every_byte(made: &Path, target: &Path, step: usize) -> (usize, usize) {
    let name = target.file_name().expect("name");
    let whole = fs::read(target).expect("reads");
    let (expected, head) = {
        let copy = copy_of(made);
        let (journal, recovered) = open(copy.path());
        (check(&journal), recovered.head)
    };
    let (mut reported, mut silent) = (0, 0);
    for at in (0..whole.len()).step_by(step) {
        let copy = copy_of(made);
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(copy.path().join("journal").join(name), &bytes).expect("writes");
        let options = Options { verify: true, ..SMALL };
        let (mut journal, recovered) = Journal::open(copy.path(), options).expect("opens whatever it finds");
        let left = check(&journal);
        if recovered.damage.is_empty() {
            assert_eq!(left, expected, "records are missing without a word, byte {at} of {name:?}");
            let parts = journal.reader().records(Position(1)).flatten().all(|stored| stored.raw.is_some());
            assert!(parts, "parts are missing without a word, byte {at}");
            silent += 1;
        } else {
            assert!(recovered.damage_total >= 1);
            assert!(left.len() + 3 >= expected.len(), "byte {at}: one flip took {expected:?} down to {left:?}");
            reported += 1;
        }
        assert!(recovered.head >= head, "positions went back, byte {at}");
        fill(&mut journal, 1, 1);
        drop(journal);
        let (journal, again) = Journal::open(copy.path(), options).expect("opens again");
        assert_eq!(again.damage, [], "the same damage is not found again, byte {at}");
        assert_eq!(check(&journal).len(), left.len() + 1);
    }
    (reported, silent)
}

fn copy_of(made: &Path) -> tempfile::TempDir {
    let copy = folder();
    fs::create_dir(copy.path().join("journal")).expect("makes");
    for entry in fs::read_dir(made.join("journal")).expect("lists") {
        let path = entry.expect("entry").path();
        if !path.ends_with("reserve") {
            fs::copy(&path, copy.path().join("journal").join(path.file_name().expect("name"))).expect("copies");
        }
    }
    copy
}

#[test]
fn a_start_writes_the_last_segment_anew() {
    use std::os::unix::fs::MetadataExt as _;
    let made = folder();
    let (mut journal, _) = open(made.path());
    fill(&mut journal, 2, 2);
    drop(journal);
    let path = segment_paths(made.path()).remove(0);
    let before = fs::File::open(&path).expect("opens");
    let (_, _) = open(made.path());
    let after = fs::metadata(&path).expect("is there");
    assert_ne!(before.metadata().expect("metadata").ino(), after.ino(), "the page cache was believed");
    assert_eq!(after.mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(made.path().join("journal")).expect("folder").mode() & 0o777, 0o700);
}

#[test]
fn a_start_that_was_cut_short_leaves_nothing_behind() {
    let made = small_journal(true);
    let stray = made.path().join("journal").join("00000000000000000001.tmp");
    fs::write(&stray, b"half a segment").expect("writes");
    let (journal, recovered) = open(made.path());
    assert_eq!(recovered.damage, []);
    assert!(!stray.exists());
    check(&journal);
}

/// Puts another file in the place of the one that takes records.
fn swap_active(journal: &Journal, file: fs::File) -> Arc<fs::File> {
    std::mem::replace(&mut journal.shelf.change().active.file, Arc::new(file))
}

fn full() -> fs::File {
    fs::File::options().read(true).write(true).open("/dev/full").expect("opens")
}

#[test]
fn a_full_disk_refuses_and_it_goes_on_when_there_is_room() {
    let made = folder();
    let (mut journal, _) = open(made.path());
    fill(&mut journal, 1, 2);
    let room = swap_active(&journal, full());
    let refused = journal.append(&[entry(3), entry(4)]).expect_err("no room");
    assert!(matches!(refused, AppendError::Full(_)), "{refused:?}");
    assert_eq!((journal.next_position(), journal.reader().head()), (Position(3), Position(2)));
    // Bytes of the refused group stay behind.
    room.write_all_at(b"left over from the write that failed", journal.segments()[0].bytes).expect("writes");
    journal.shelf.change().active.file = room;
    fill(&mut journal, 1, 1);
    assert_eq!(check(&journal), [1, 2, 3]);
    drop(journal);
    let (journal, recovered) = open(made.path());
    assert_eq!((recovered.head, recovered.damage), (Position(3), vec![]));
    assert_eq!(check(&journal), [1, 2, 3]);
}

#[test]
fn progress_is_written_into_the_reserve_and_only_progress() {
    let made = folder();
    let (mut journal, _) = open(made.path());
    fill(&mut journal, 1, 2);
    swap_active(&journal, full());
    assert!(matches!(journal.append(&[entry(3)]), Err(AppendError::Full(_))));
    assert_eq!(journal.append_reserved(&[entry(3)]).expect("the reserve takes it").last, Position(3));
    assert_eq!(journal.append_reserved(&[entry(4)]).expect("and more").last, Position(4));
    // No room for a new reserve: what can wait has to.
    let obstacle = made.path().join("journal/reserve.tmp");
    fs::create_dir(&obstacle).expect("makes");
    assert!(matches!(journal.append(&[entry(5)]), Err(AppendError::Full(_))));
    assert_eq!(journal.append_reserved(&[entry(5)]).expect("the reserve takes it").last, Position(5));
    fs::remove_dir(&obstacle).expect("removes");
    fill(&mut journal, 1, 1);
    assert!(made.path().join("journal/reserve").exists(), "the next reserve was made first");
    assert_eq!(check(&journal), (1..=6).collect::<Vec<_>>());
    drop(journal);
    let (journal, recovered) = open(made.path());
    assert_eq!((recovered.damage, recovered.torn_bytes), (vec![], 0));
    assert_eq!(check(&journal), (1..=6).collect::<Vec<_>>());
}

#[test]
fn a_sync_that_fails_is_the_end_and_shows_nothing() {
    let made = folder();
    let (mut journal, _) = open(made.path());
    fill(&mut journal, 1, 2);
    // It takes every write and refuses to sync.
    let null = fs::File::options().read(true).write(true).open("/dev/null").expect("opens");
    let room = swap_active(&journal, null);
    assert!(matches!(journal.append(&[entry(3)]), Err(AppendError::Fatal(..))));
    assert_eq!(journal.reader().head(), Position(2));
    journal.shelf.change().active.file = room;
    assert!(matches!(journal.append(&[entry(3)]), Err(AppendError::Fatal(..))), "never tried again");
    assert!(matches!(journal.append_reserved(&[entry(3)]), Err(AppendError::Fatal(..))));
    assert!(matches!(journal.mark_idle(), Err(AppendError::Fatal(..))));
}

#[test]
fn a_record_beyond_the_bounds_is_refused_whole() {
    let made = folder();
    let (mut journal, _) = open(made.path());
    let huge = Entry { payload: vec![0; format::MAX_FRAME], ..entry(2) };
    assert!(matches!(journal.append(&[entry(1), huge]), Err(AppendError::TooLarge)));
    fill(&mut journal, 1, 1);
    assert_eq!(check(&journal), [1]);
}

#[test]
fn fingerprints_of_all_segments_are_told() {
    let made = small_journal(true);
    let (journal, recovered) = open(made.path());
    let mut found: Vec<u64> = journal.reader().fingerprints().flat_map(|segment| segment.expect("reads").1).collect();
    let mut wanted: Vec<u64> = (1..=recovered.head.0).flat_map(|number| [number, number * 1000]).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

#[test]
fn the_chain_proves_across_retired_heads() {
    let made = small_journal(true);
    let (mut journal, _) = open(made.path());
    let before: Vec<Stored> = journal.reader().heads(Position(1)).flatten().collect();
    for segment in journal.segments().iter().filter(|segment| segment.sealed) {
        let told = journal
            .rewrite(segment.first, &mut |head| match head.position.0 % 5 {
                0 | 1 => Keep::Drop,
                2 => Keep::HeadOnly,
                _ => Keep::Whole,
            })
            .expect("rewrites");
        assert!(told.heads_retired > 0 && told.parts_retired > 0);
    }
    let last = journal.segments().pop().expect("active").first;
    drop(journal);
    let (journal, recovered) = Journal::open(made.path(), Options { verify: true, ..SMALL }).expect("opens");
    assert_eq!(recovered.damage, [], "every link still holds");
    for stored in &before {
        let left = journal.reader().read(stored.position).expect("reads");
        let dropped = stored.position < last && stored.position.0 % 5 < 2;
        assert_eq!(left.is_none(), dropped, "{}", stored.position);
        if let Some(left) = left {
            assert_eq!((left.chain, left.previous, &left.payload), (stored.chain, stored.previous, &stored.payload));
            assert_eq!(left.raw.is_none(), stored.position < last && stored.position.0 % 5 == 2);
            assert!(!left.parts_damaged);
        }
    }
}

#[test]
fn a_rewrite_that_was_overtaken_is_not_installed() {
    let made = small_journal(true);
    let (mut journal, _) = open(made.path());
    let reader = journal.reader();
    let mut drop_parts = |_: &Stored| Keep::HeadOnly;
    let slow = reader.prepare(Position(1), &mut drop_parts).expect("prepares");
    fill(&mut journal, 1, 2);
    let fast = reader.prepare(Position(1), &mut |head| match head.position {
        Position(2) => Keep::Drop,
        _ => Keep::Whole,
    });
    let all = check(&journal);
    journal.install(fast.expect("prepares")).expect("installs");
    assert!(matches!(journal.install(slow), Err(RewriteError::NoSegment(Position(1)))));
    let left: Vec<u64> = all.into_iter().filter(|position| *position != 2).collect();
    assert_eq!(check(&journal), left);
    assert!(reader.read(Position(1)).expect("reads").is_some_and(|stored| stored.raw.is_some()));
    drop(journal);
    let stray = fs::read_dir(made.path().join("journal")).expect("lists").flatten();
    assert!(stray.into_iter().all(|entry| entry.path().extension().is_none_or(|extension| extension != "tmp")));
}

#[test]
fn fingerprints_are_found_without_their_footer() {
    let made = small_journal(true);
    let (journal, _) = open(made.path());
    let told = |journal: &Journal| -> Vec<Vec<u64>> {
        journal.reader().fingerprints().map(|segment| segment.expect("reads").1).collect()
    };
    let before = told(&journal);
    let path = segment_paths(made.path()).remove(0);
    let file = fs::File::options().write(true).open(&path).expect("opens");
    let end = file.metadata().expect("metadata").len();
    file.write_all_at(&[0; 20], end - 120).expect("writes");
    assert_eq!(told(&journal), before);
}

#[test]
fn zeros_at_the_end_of_the_last_record_are_part_of_it() {
    let made = folder();
    let (mut journal, _) = open(made.path());
    journal.append(&[Entry { event: vec![0; 64], ..entry(1) }]).expect("appends");
    drop(journal);
    let (journal, recovered) = open(made.path());
    assert_eq!((recovered.head, recovered.torn_bytes), (Position(1), 0));
    let stored = journal.reader().read(Position(1)).expect("reads").expect("is there");
    assert_eq!(stored.event.as_deref(), Some(&[0; 64][..]));
}
