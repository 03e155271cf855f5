//! What the journal does on a disk that refuses, fails or lies, one case at a time; the lives in `journal` mix them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use quittance::event::Position;
use quittance::store::embedded::journal::{AppendError, Entry, Fault, Journal, Options};

use crate::disk::Mode;
use crate::journal::entry;
use crate::ledger::Ledger;
use crate::mount::Mounted;
use crate::rng::Rng;

const OPTIONS: Options = Options { segment_bytes: 32 << 10, verify: true };

struct Bench {
    mounted: Mounted,
    store: PathBuf,
    ledger: Ledger,
    rng: Rng,
}

impl Bench {
    fn new() -> Self {
        let mounted = Mounted::new();
        let store = mounted.path().join("store");
        Self { mounted, store, ledger: Ledger::default(), rng: Rng::new(7) }
    }

    fn open(&self) -> Journal {
        Journal::open(&self.store, OPTIONS).expect("opens").0
    }

    /// A power cut, and a start that finds everything.
    #[track_caller]
    fn cut_and_check(&mut self, journal: Journal) -> Journal {
        drop(journal);
        self.mounted.restart(Mode::Lost, 1);
        let (journal, recovered) = Journal::open(&self.store, OPTIONS).expect("opens");
        self.ledger.check_start(&recovered, &journal.reader()).expect("everything is there");
        journal
    }

    #[track_caller]
    fn append(&mut self, journal: &mut Journal, count: usize) {
        let entries = self.entries(count);
        self.ledger.asked(&entries);
        let appended = journal.append(&entries).expect("room and a sound disk");
        self.ledger.answered(&appended).expect("in its place");
    }

    fn entries(&mut self, count: usize) -> Vec<Entry> {
        (0..count).map(|_| entry(&mut self.rng)).collect()
    }

    /// Files of the journal, oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.store.join("journal"))
            .expect("the journal's folder")
            .map(|file| file.expect("a file").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "journal"))
            .collect();
        files.sort();
        files
    }
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("within the file");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("written");
    file.sync_all().expect("synced");
}

#[test]
fn an_error_of_fsync_is_fatal_and_nothing_is_synced_after_it() {
    let mut bench = Bench::new();
    let mut journal = bench.open();
    bench.append(&mut journal, 3);
    let refused = bench.entries(2);
    bench.ledger.asked(&refused);
    bench.mounted.faults(|faults| faults.sync = Some(1));
    assert!(matches!(journal.append(&refused), Err(AppendError::Fatal(..))));
    let syncs = bench.mounted.disk().syncs;
    assert!(matches!(journal.append(&refused), Err(AppendError::Fatal(..))));
    assert!(matches!(journal.append_reserved(&refused), Err(AppendError::Fatal(..))));
    assert!(matches!(journal.mark_idle(), Err(AppendError::Fatal(..))));
    assert_eq!(bench.mounted.disk().syncs, syncs, "the second sync would succeed and lie");
    assert_eq!(journal.reader().head(), Position(3), "what was not synced is not visible");
    let mut journal = bench.cut_and_check(journal);
    bench.append(&mut journal, 1);
}

#[test]
fn a_start_does_not_believe_what_only_the_page_cache_holds() {
    let mut bench = Bench::new();
    let mut journal = bench.open();
    bench.append(&mut journal, 3);
    let entries = bench.entries(2);
    bench.ledger.asked(&entries);
    bench.mounted.faults(|faults| faults.sync = Some(1));
    assert!(matches!(journal.append(&entries), Err(AppendError::Fatal(..))));
    drop(journal);
    // The next process sees the group, and Linux would say of it that it is clean.
    let journal = bench.open();
    assert_eq!(journal.reader().head(), Position(5));
    bench.ledger.check(&journal.reader()).expect("the group reads");
    bench.cut_and_check(journal);
}

#[test]
fn an_error_of_write_is_fatal() {
    let mut bench = Bench::new();
    let mut journal = bench.open();
    bench.append(&mut journal, 3);
    let entries = bench.entries(2);
    bench.mounted.faults(|faults| faults.write = Some(1));
    assert!(matches!(journal.append(&entries), Err(AppendError::Fatal(..))));
    assert!(matches!(journal.append(&entries), Err(AppendError::Fatal(..))));
    bench.cut_and_check(journal);
}

#[test]
fn a_full_disk_refuses_keeps_progress_going_in_the_reserve_and_goes_on_when_there_is_room() {
    let mut bench = Bench::new();
    let mut journal = bench.open();
    bench.append(&mut journal, 3);
    let used = bench.mounted.disk().used_pages() * 4096;
    bench.mounted.faults(|faults| faults.capacity = Some(used + 20_000));
    let mut refused = 0;
    for _ in 0..40 {
        let entries = bench.entries(1);
        bench.ledger.asked(&entries);
        match journal.append(&entries) {
            Ok(appended) => bench.ledger.answered(&appended).expect("in its place"),
            Err(AppendError::Full(_)) => {
                bench.ledger.refused();
                refused += 1;
            }
            Err(error) => panic!("a full disk is not fatal: {error:?}"),
        }
    }
    assert!(refused > 20, "the disk was not full: refused {refused} of 40");
    let mut reserved = 0;
    for _ in 0..40 {
        let mut entries = bench.entries(1);
        entries[0].raw.truncate(400);
        entries[0].event.truncate(100);
        bench.ledger.asked(&entries);
        match journal.append_reserved(&entries) {
            Ok(appended) => bench.ledger.answered(&appended).expect("in its place"),
            Err(AppendError::Full(_)) => {
                bench.ledger.refused();
                continue;
            }
            Err(error) => panic!("a full disk is not fatal: {error:?}"),
        }
        reserved += 1;
    }
    assert!(reserved >= 25, "the reserve of 32 KiB took {reserved} small records");
    bench.ledger.check(&journal.reader()).expect("everything is there");
    bench.mounted.faults(|faults| faults.capacity = None);
    bench.append(&mut journal, 5);
    bench.ledger.check(&journal.reader()).expect("everything is there");
    assert!(bench.store.join("journal/reserve").exists(), "the next full disk finds a reserve again");
    bench.cut_and_check(journal);
}

#[test]
fn a_read_only_disk_refuses_and_a_start_on_it_fails_without_harm() {
    let mut bench = Bench::new();
    let mut journal = bench.open();
    bench.append(&mut journal, 3);
    bench.mounted.faults(|faults| faults.read_only = true);
    let entries = bench.entries(1);
    assert!(matches!(journal.append(&entries), Err(AppendError::Full(_))));
    drop(journal);
    for _ in 0..3 {
        assert!(Journal::open(&bench.store, OPTIONS).expect_err("read-only").is_refusal());
    }
    bench.mounted.faults(|faults| faults.read_only = false);
    let mut journal = bench.open();
    bench.append(&mut journal, 1);
    bench.ledger.check(&journal.reader()).expect("everything is there");
    bench.cut_and_check(journal);
}

#[test]
fn a_flipped_bit_costs_one_record_and_is_told_once() {
    let mut bench = Bench::new();
    let mut journal = bench.open();
    for _ in 0..40 {
        bench.append(&mut journal, 2);
    }
    journal.close().expect("closes");
    let pristine: Vec<(PathBuf, Vec<u8>)> =
        bench.segments().into_iter().map(|path| (path.clone(), fs::read(path).expect("reads"))).collect();
    assert!(pristine.len() > 3, "several segments");
    for _ in 0..60 {
        let (path, bytes) = &pristine[bench.rng.below(pristine.len() as u64) as usize];
        let at = bench.rng.below(bytes.len() as u64);
        flip(path, at);
        let (journal, first) = Journal::open(&bench.store, OPTIONS).expect("opens");
        let lost = bench.ledger.compare(&journal.reader()).expect("what reads is what was written");
        let place = format!("byte {at} of {}: lost {lost:?}, {:?}", path.display(), first.damage);
        // The checksum of the frame is over all of it; a group's header may hide where its first record begins.
        assert!(lost.len() <= 2, "{place}");
        assert!(lost.is_empty() || !first.damage.is_empty(), "{place}");
        assert_eq!(journal.next_position(), Position(81), "positions never shift: {place}");
        journal.close().expect("closes");
        let (journal, second) = Journal::open(&bench.store, OPTIONS).expect("opens");
        assert!(second.damage.is_empty(), "told again: {place}: {:?}", second.damage);
        assert_eq!(second.damage_total, first.damage_total, "{place}");
        drop(journal);
        fs::remove_dir_all(&bench.store).expect("removed");
        fs::create_dir_all(bench.store.join("journal")).expect("made");
        for (path, bytes) in &pristine {
            fs::write(path, bytes).expect("written");
        }
    }
}

#[test]
fn a_missing_segment_a_cut_one_and_a_foreign_one_are_told_and_the_rest_is_kept() {
    let mut bench = Bench::new();
    let mut journal = bench.open();
    for _ in 0..60 {
        bench.append(&mut journal, 2);
    }
    journal.close().expect("closes");
    let files = bench.segments();
    assert!(files.len() > 5, "several segments");
    let foreign = bench.mounted.path().join("foreign");
    let mut other = Journal::open(&foreign, OPTIONS).expect("opens").0;
    other.append(&[entry(&mut bench.rng)]).expect("appended");
    other.close().expect("closes");

    fs::remove_file(&files[1]).expect("removed");
    let cut = OpenOptions::new().write(true).open(&files[3]).expect("opens");
    cut.set_len(5000).expect("cut");
    let name = format!("{:020}.journal", 1_000_000);
    fs::copy(foreign.join("journal").join(format!("{:020}.journal", 1)), bench.store.join("journal").join(name))
        .expect("copied");

    let (mut journal, recovered) = Journal::open(&bench.store, OPTIONS).expect("opens");
    for what in [Fault::Missing, Fault::Foreign] {
        assert!(recovered.damage.iter().any(|damage| damage.what == what), "{what:?} in {:?}", recovered.damage);
    }
    assert!(recovered.damage.len() >= 3, "{:?}", recovered.damage);
    let lost = bench.ledger.compare(&journal.reader()).expect("what reads is what was written");
    assert!(!lost.is_empty() && lost.len() < 60, "lost {lost:?}");
    assert_eq!(journal.next_position(), Position(121), "no position is given away twice");
    journal.append(&[entry(&mut bench.rng)]).expect("it goes on");
    drop(journal);
    let (_, again) = Journal::open(&bench.store, OPTIONS).expect("opens");
    assert!(again.damage.is_empty(), "{:?}", again.damage);
}

#[test]
fn a_last_record_that_ends_with_zeros_survives_a_cut_before_the_footer() {
    let mut bench = Bench::new();
    let mut journal = bench.open();
    loop {
        let mut entries = bench.entries(1);
        entries[0].event = vec![0; 700];
        bench.ledger.asked(&entries);
        let segments = journal.segments().len();
        let appended = journal.append(&entries).expect("appended");
        bench.ledger.answered(&appended).expect("in its place");
        if journal.segments().len() > segments {
            break;
        }
    }
    drop(journal);
    // As if the power had gone after the new segment stood and before the old one's footer was synced.
    let old = &bench.segments()[0];
    let bytes = fs::read(old).expect("reads");
    let footer = bytes.windows(4).rposition(|window| window == b"QFT1").expect("a footer");
    for keep in [footer, footer + 30] {
        fs::write(old, &bytes[..keep]).expect("written");
        if keep > footer {
            // Of the footer only a later sector was written.
            let file = OpenOptions::new().write(true).open(old).expect("opens");
            file.write_all_at(&[0; 24], footer as u64).expect("written");
        }
        let (journal, recovered) = Journal::open(&bench.store, OPTIONS).expect("opens");
        bench.ledger.check_start(&recovered, &journal.reader()).expect("everything is there");
    }
}
