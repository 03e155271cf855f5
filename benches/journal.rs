//! Groups of 256 records of 1.5 KB: the journal beside the limit of the disk, which is appending and syncing the same
//! bytes; and how fast heads and records are read back. `cargo bench --bench journal [folder]`

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quittance::event::{Digest, Position};
use quittance::store::embedded::journal::{Entry, Journal, Options};

const GROUP: usize = 256;
const GROUPS: usize = 100;
const ROUNDS: usize = 3;

fn main() {
    // `cargo bench` passes flags of its own.
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).map(PathBuf::from);
    let folder = match folder {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir_in("."),
    };
    let folder = folder.expect("a folder on the disk to be measured");
    let options = Options { segment_bytes: 64 << 20, verify: false };
    let (mut journal, _) = Journal::open(&folder.path().join("store"), options).expect("opens");
    let entries: Vec<Entry> = (0..GROUP).map(entry).collect();
    journal.append(&entries).expect("appends");
    let bytes: u64 = journal.segments().iter().map(|segment| segment.bytes).sum();
    let raw_group = vec![0x5a_u8; bytes as usize];
    let mut raw = OpenOptions::new().create(true).append(true).open(folder.path().join("raw")).expect("opens");
    // In turns, so that both see the same disk; the medians are compared.
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for _ in 0..GROUPS {
            limit.push(timed(|| {
                raw.write_all(&raw_group).expect("writes");
                raw.sync_data().expect("syncs");
            }));
            ours.push(timed(|| {
                journal.append(&entries).expect("appends");
            }));
        }
    }
    let (ours_total, limit_total) = (ours.iter().sum::<Duration>(), limit.iter().sum::<Duration>());
    println!("group of {GROUP} records, {} KiB", raw_group.len() >> 10);
    println!("raw append + fdatasync  p50 {:>6} us  p99 {:>6} us", quantile(&mut limit, 50), quantile(&mut limit, 99));
    println!("journal append          p50 {:>6} us  p99 {:>6} us", quantile(&mut ours, 50), quantile(&mut ours, 99));
    let median = quantile(&mut limit, 50) as f64 / quantile(&mut ours, 50) as f64;
    println!(
        "of the limit            p50 {median:.2}  total {:.2}",
        limit_total.as_secs_f64() / ours_total.as_secs_f64()
    );
    let records = (GROUP * GROUPS * ROUNDS) as f64;
    println!("records appended        {:.0}/s", records / ours_total.as_secs_f64());

    let reader = journal.reader();
    for (name, count) in [
        ("heads", measure(|| reader.heads(Position(1)).count())),
        ("heads, newest first", measure(|| reader.heads_back(Position(u64::MAX)).count())),
        ("records", measure(|| reader.records(Position(1)).count())),
        (
            "single reads",
            measure(|| (1..50_000).filter(|at| reader.read(Position(*at)).is_ok_and(|r| r.is_some())).count()),
        ),
    ] {
        println!("{name:<23} {count:.0}/s");
    }
    drop(journal);
    let begun = Instant::now();
    Journal::open(&folder.path().join("store"), options).expect("opens");
    println!("start                   {} ms", begun.elapsed().as_millis());
}

fn entry(number: usize) -> Entry {
    let raw = Bytes::from(vec![b'r'; 750]);
    let event = vec![b'e'; 500];
    Entry {
        payload: vec![b'p'; 120],
        raw_hash: Digest::of(&raw),
        event_hash: Digest::of(&event),
        raw,
        event,
        fingerprints: (0..4).map(|n| (number * 4 + n) as u64).collect(),
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn measure(work: impl Fn() -> usize) -> f64 {
    let begun = Instant::now();
    work() as f64 / begun.elapsed().as_secs_f64()
}

fn quantile(times: &mut [Duration], percent: usize) -> u128 {
    times.sort_unstable();
    times.get(times.len() * percent / 100).map_or(0, Duration::as_micros)
}
