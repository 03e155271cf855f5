//! What sled 0.34 alone would have lost: the reason why the journal exists. The figure stands in ARCHITECTURE.md.
//!
//! The database is treated kindly: it was made long ago, it is flushed after every group, groups come at a pace that
//! leaves it time, and its background thread, which does sync twice a second, runs. Its threads follow the clock, so a seed
//! brings back the load and the cut, not the very same loss.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::disk::{MODES, Mode};
use crate::mount::Mounted;
use crate::rng::{Rng, base_seed};

/// What became of what it had flushed.
#[derive(Default)]
pub struct Tally {
    pub cuts: u64,
    pub flushed: u64,
    pub lost: u64,
    /// Lost although flushed more than a second before: not just the newest are at risk.
    pub old_lost: u64,
    pub cuts_with_loss: u64,
    pub does_not_open: u64,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cuts, flushed, lost, old_lost, cuts_with_loss, does_not_open } = self;
        let share = 100.0 * *lost as f64 / (*flushed).max(1) as f64;
        write!(
            f,
            "{cuts} power cuts, {flushed} entries flushed, {lost} of them lost ({share:.1} %; {old_lost} were flushed more than a \
             second before), in {cuts_with_loss} of the cuts; {does_not_open} times it did not open again"
        )
    }
}

struct Entry {
    key: u64,
    value: Vec<u8>,
    flushed: Instant,
}

fn open(mounted: &Mounted) -> Option<sled::Db> {
    // It panics on some of what a power cut leaves.
    let config = sled::Config::new().path(mounted.path().join("db")).cache_capacity(8 << 20);
    catch_unwind(AssertUnwindSafe(|| config.open().ok())).ok().flatten()
}

/// One life of a database: insert and flush groups until the power goes; then look what is there.
fn one_cut(mounted: &Mounted, mode: Mode, seed: u64, tally: &mut Tally) {
    let mut rng = Rng::new(seed);
    mounted.format();
    let db = open(mounted).expect("an empty database opens");
    for folder in ["", "db", "db/blobs"] {
        let folder = std::fs::File::open(mounted.path().join(folder)).expect("sled 0.34 has this folder");
        folder.sync_all().expect("sync");
    }
    let mut acknowledged: Vec<Entry> = Vec::new();
    let mut groups_left = rng.between(20, 250);
    let mut key = 0_u64;
    while !mounted.is_off() {
        if groups_left == 1 {
            mounted.cut_after(rng.between(1, 8));
        }
        groups_left = groups_left.saturating_sub(1);
        let group: Vec<Vec<u8>> = (0..rng.between(1, 16))
            .map(|_| {
                let len = rng.between(100, 4000) as usize;
                rng.bytes(len)
            })
            .collect();
        let first = key;
        let kept = catch_unwind(AssertUnwindSafe(|| {
            for value in &group {
                db.insert(key.to_be_bytes(), value.as_slice())?;
                key += 1;
            }
            db.flush()
        }));
        if matches!(kept, Ok(Ok(_))) && !mounted.is_off() {
            let flushed = Instant::now();
            let entries = group.into_iter().zip(first..).map(|(value, key)| Entry { key, value, flushed });
            acknowledged.extend(entries);
        }
        sleep(Duration::from_millis(rng.between(1, 8)));
    }
    let cut = Instant::now();
    let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    mounted.restart(mode, rng.next());
    let found = open(mounted);
    let missing = |entry: &&Entry| {
        let Some(db) = &found else { return true };
        let found = catch_unwind(AssertUnwindSafe(|| db.get(entry.key.to_be_bytes())));
        !matches!(found, Ok(Ok(Some(found))) if found == entry.value.as_slice())
    };
    let lost: Vec<&Entry> = acknowledged.iter().filter(missing).collect();
    tally.cuts += 1;
    tally.flushed += acknowledged.len() as u64;
    tally.lost += lost.len() as u64;
    tally.old_lost +=
        lost.iter().filter(|entry| cut.duration_since(entry.flushed) > Duration::from_secs(1)).count() as u64;
    tally.cuts_with_loss += u64::from(!lost.is_empty());
    tally.does_not_open += u64::from(found.is_none());
}

/// So many power cuts in each mode, the modes side by side.
pub fn run(seed: u64, cuts_per_mode: u64) -> BTreeMap<Mode, Tally> {
    let lives = |mode: Mode| {
        let mounted = Mounted::new();
        let mut tally = Tally::default();
        for cut in 0..cuts_per_mode {
            one_cut(&mounted, mode, seed + cut * 3 + mode as u64, &mut tally);
        }
        tally
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = MODES.map(|mode| (mode, scope.spawn(move || lives(mode)))).into();
        running.into_iter().map(|(mode, life)| (mode, life.join().expect("no panic"))).collect()
    })
}

#[test]
fn sled_alone_loses_what_it_has_flushed() {
    let seed = base_seed();
    println!("seed {seed}");
    let tallies = run(seed, 8);
    for (mode, tally) in &tallies {
        println!("sled alone, {mode:?}: {tally}");
    }
    assert!(tallies.values().all(|tally| tally.flushed > 500), "the test must flush something");
    assert!(
        tallies.values().map(|tally| tally.lost).sum::<u64>() > 0,
        "sled lost nothing: then the journal would not be needed, or this test is wrong"
    );
}
