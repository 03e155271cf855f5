//! Rows about what is kept: the journal, the index, and millions of keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{CONNECTIONS, drive, ratios};
use crate::Bench;
use crate::load::Pace;
use crate::report::Goal::{Least, Most};
use crate::report::number;
use crate::servers::Daemon;
use crate::{prefill, rawlog};

const WAITERS: usize = 256;
/// What the large rows keep.
pub const MANY_KEYS: u64 = 10_000_000;
const BACKLOG: u64 = 1_000_000;
/// A broker that is away: nobody listens there.
const NOBODY: &str = "amqp://guest:guest@127.0.0.1:9/%2f";

pub fn journal(bench: &mut Bench, row: &str) {
    let (mut ours, mut raw, mut syncs) = (vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        raw.push(rawlog::raw(&bench.folder("log"), WAITERS, bench.turn()).rate);
        let logged = rawlog::journal(&bench.folder("log"), WAITERS, bench.turn());
        ours.push(logged.rate);
        syncs.push(logged.syncs);
    }
    let _ = fs::remove_dir_all(bench.folder("log"));
    let to_raw = ratios(&ours, &raw);
    let report = &mut bench.report;
    report.add(row, "journal alone, 256 waiters, to the raw log", "", Some(Least(0.8)), to_raw);
    report.add(row, "journal alone", "/s", None, ours);
    report.add(row, "raw log", "/s", None, raw);
    report.add(row, "syncs for each answer, journal alone", "", None, syncs);
}

pub fn syncs(bench: &mut Bench, row: &str) {
    let requests = bench.material.paygol(0, bench.enough(), "/paygol", false);
    let (mut syncs, mut rate) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        let server = bench.daemon(&Daemon::default());
        let outcome = drive(&server, &requests, WAITERS, Pace::Closed, bench.turn());
        syncs.push(server.metric("quittance_commit_seconds_count") / outcome.answers as f64);
        rate.push(outcome.rate());
        server.stop();
    }
    bench.report.add(row, "syncs for each answer, 256 connections", "", Some(Most(0.01)), syncs);
    bench.report.add(row, "answers", "/s", None, rate);
}

pub fn disk(bench: &mut Bench, row: &str) {
    let requests = bench.material.clickpay(0, bench.enough(), "/clickpay");
    let (mut all, mut journal, mut index, mut log) = (vec![], vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        let server = bench.daemon(&Daemon::default());
        let folder = server.folder().expect("its folder").to_owned();
        let before = server.written() as f64;
        let outcome = drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn());
        // What is still in memory is written too, sooner or later.
        while server.metric("quittance_index_lag_records") > 0.0 {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_millis(1500));
        let own = outcome.answers as f64 * requests.get(0).len() as f64;
        let (in_all, in_journal) = (server.written() as f64 - before, size(&folder.join("store/journal")));
        let in_log = size(&folder.join("log"));
        all.push(in_all / own);
        journal.push(in_journal / own);
        log.push(in_log / own);
        index.push((in_all - in_journal - in_log) / own);
        server.stop();
    }
    let report = &mut bench.report;
    report.add(row, "written for each kept notification, to its request's size", "", Some(Most(3.0)), all);
    report.add(row, "of that, the journal", "", None, journal);
    report.add(row, "of that, the index (the rest)", "", None, index);
    report.add(row, "of that, the log", "", None, log);
}

/// The store with many keys; its index is built if it was never started.
fn large(bench: &Bench) -> PathBuf {
    let store = prefill::store(&bench.cache, &bench.material, MANY_KEYS, BACKLOG);
    if !store.join("indexed").exists() {
        build(bench, &store);
    }
    store
}

fn owing(store: &Path) -> Daemon {
    Daemon { store: Some(store.to_owned()), broker: Some(NOBODY.to_owned()), ..Daemon::default() }
}

/// Seconds to ready without an index.
fn build(bench: &Bench, store: &Path) -> f64 {
    let _ = fs::remove_dir_all(store.join("index"));
    let began = Instant::now();
    let server = bench.daemon(&owing(store));
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("    built in {} s, then resident {} MiB", number(seconds), server.resident() >> 20);
    server.stop();
    fs::write(store.join("indexed"), "").expect("written");
    seconds
}

pub fn rebuild(bench: &mut Bench, row: &str) {
    let store = prefill::store(&bench.cache, &bench.material, MANY_KEYS, BACKLOG);
    // One round takes long enough for its own mean.
    let rate = MANY_KEYS as f64 / build(bench, &store);
    bench.report.add(
        row,
        "index built from the journal, ten million notifications",
        "/s",
        Some(Least(300_000.0)),
        vec![rate],
    );
    let mut rates = vec![];
    let small = prefill::store(&bench.cache, &bench.material, 100_000, 100_000);
    for _ in 0..bench.rounds {
        rates.push(100_000.0 / build(bench, &small));
    }
    bench.report.add(row, "index built from the journal, a hundred thousand", "/s", None, rates);
}

pub fn memory(bench: &mut Bench, row: &str) {
    let store = large(bench);
    let requests = bench.material.paygol(0, 20_000, "/paygol", false);
    let (mut resident, mut loaded) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        let server = bench.daemon(&owing(&store));
        std::thread::sleep(Duration::from_secs(2));
        resident.push(server.resident() as f64 / f64::from(1 << 20));
        let backlog = server.metric("quittance_relay_backlog_events");
        assert!(backlog >= BACKLOG as f64, "a backlog of {backlog}");
        let _ = drive(&server, &requests, CONNECTIONS, Pace::Open(1000.0), bench.turn());
        loaded.push(server.resident() as f64 / f64::from(1 << 20));
        server.stop();
    }
    let goal = Some(Most(256.0));
    bench.report.add(row, "resident, ten million keys, a million events owed", "MiB", goal, resident);
    bench.report.add(row, "the same after some seconds at 1,000/s", "MiB", goal, loaded);
}

pub fn start(bench: &mut Bench, row: &str) {
    let store = large(bench);
    let mut seconds = vec![];
    let requests = bench.material.paygol(0, 2000, "/paygol", false);
    for _ in 0..bench.rounds {
        let server = bench.daemon(&owing(&store));
        let _ = drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn());
        server.kill();
        let began = Instant::now();
        let server = bench.daemon(&owing(&store));
        seconds.push(began.elapsed().as_secs_f64());
        server.stop();
    }
    bench.report.add(row, "from the start of the process to ready, after SIGKILL", "s", Some(Most(1.0)), seconds);
}

pub fn keys(bench: &mut Bench, row: &str) {
    let store = large(bench);
    let (mut many, mut none) = (vec![], vec![]);
    for round in 0..bench.rounds {
        // The store remembers what it was sent in earlier calls: these numbers were never sent to it.
        let since = jiff::Timestamp::UNIX_EPOCH.duration_until(quittance::clock::Clock::now(&quittance::clock::System));
        let first = since.as_secs() as usize % 100_000_000 * 10 + round;
        let requests = bench.material.fresh_paygol(first, bench.enough());
        let server = bench.daemon(&Daemon::default());
        none.push(drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn()).rate());
        server.stop();
        let server = bench.daemon(&owing(&store));
        many.push(drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn()).rate());
        server.stop();
    }
    let share = ratios(&many, &none);
    bench.report.add(row, "answers with ten million keys, to answers with none", "", Some(Least(0.85)), share);
    bench.report.add(row, "answers with ten million keys", "/s", None, many);
    bench.report.add(row, "answers with none", "/s", None, none);
}

/// Bytes of a file, or of all files of a folder.
pub fn size(path: &Path) -> f64 {
    if path.is_file() {
        return fs::metadata(path).map_or(0.0, |data| data.len() as f64);
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}
