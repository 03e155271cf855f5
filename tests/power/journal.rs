//! Power cuts while the journal appends, rotates, rewrites, starts, and while it recovers from the one before.

use std::path::PathBuf;

use bytes::Bytes;
use quittance::event::{Digest, Position};
use quittance::store::embedded::journal::{AppendError, Entry, Journal, Keep, Options, RewriteError};

use crate::disk::{Faults, MODES, Mode};
use crate::ledger::Ledger;
use crate::mount::Mounted;
use crate::rng::{Rng, base_seed};

/// Power cuts that one journal lives through.
const CUTS_PER_LIFE: u64 = 6;

pub fn entry(rng: &mut Rng) -> Entry {
    let size = rng.between(100, 4000) as usize;
    let event = rng.below(size as u64 / 2) as usize;
    let payload = rng.between(1, 90) as usize;
    Entry {
        payload: rng.bytes(payload),
        raw: Bytes::from(rng.bytes(size - event)),
        raw_hash: Digest(rng.bytes(32).try_into().expect("32 bytes")),
        event: rng.bytes(event),
        event_hash: Digest(rng.bytes(32).try_into().expect("32 bytes")),
        fingerprints: (0..rng.below(5)).map(|_| rng.next()).collect(),
    }
}

pub fn group(rng: &mut Rng) -> Vec<Entry> {
    let size = if rng.below(8) == 0 { rng.between(1, 64) } else { rng.between(1, 4) };
    (0..size).map(|_| entry(rng)).collect()
}

/// What a rewrite does with a record; of many salts, some drop all, some nothing.
fn keep(position: Position, salt: u64) -> Keep {
    let style = salt % 5;
    match (style, Rng::new(salt ^ position.0).below(3)) {
        (0, _) | (1, 0) | (2, 0 | 1) => Keep::Drop,
        (3, _) | (1, 1) | (4, 0) => Keep::HeadOnly,
        _ => Keep::Whole,
    }
}

/// What happened in lives.
#[derive(Debug, Default)]
pub struct Tally {
    pub cuts: u64,
    pub cuts_in_a_start: u64,
    pub acknowledged: u64,
    pub rewrites: u64,
    pub rotations: u64,
    pub torn: u64,
    /// Times that a full disk took nothing.
    pub refusals: u64,
    /// Times that the journal had to be given up and opened anew.
    pub fatal: u64,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, mut other: Self) {
        self.cuts += other.cuts;
        self.cuts_in_a_start += other.cuts_in_a_start;
        self.acknowledged += other.acknowledged;
        self.rewrites += other.rewrites;
        self.rotations += other.rotations;
        self.torn += other.torn;
        self.refusals += other.refusals;
        self.fatal += other.fatal;
        self.failures.append(&mut other.failures);
    }
}

/// What is wrong with the disk besides its power.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trouble {
    No,
    /// Every write takes only a part.
    Short,
    /// It is full now and then.
    Full,
    /// Now and then a write or a sync fails, and what was to be synced is lost.
    Failing,
}

struct Life<'a> {
    mounted: &'a Mounted,
    mode: Mode,
    trouble: Trouble,
    rng: Rng,
    store: PathBuf,
    options: Options,
    ledger: Ledger,
    tally: &'a mut Tally,
}

impl Life<'_> {
    fn live(&mut self) -> Result<(), String> {
        for _ in 0..CUTS_PER_LIFE {
            let mut journal = self.start()?;
            let longest = [8, 60, 400][self.rng.below(3) as usize];
            self.mounted.cut_after(self.rng.between(1, longest));
            while !self.mounted.is_off() {
                match self.step(journal) {
                    Ok(next) => journal = next,
                    Err(_) if self.mounted.is_off() => break,
                    Err(what) => return Err(format!("with the power on: {what}")),
                }
            }
            self.tally.cuts += 1;
            self.mounted.restart(self.mode, self.rng.next());
        }
        self.start().map(drop)
    }

    fn step(&mut self, mut journal: Journal) -> Result<Journal, String> {
        self.make_trouble();
        let done = match self.rng.below(100) {
            0..75 => self.append(&mut journal),
            75..82 => self.told(journal.mark_idle()).map(|_| ()),
            82..92 => self.rewrite(&mut journal),
            92..96 => self.rewrite_beside(&mut journal),
            // The process ends and begins again; the power stays on.
            _ if self.rng.coin() => {
                let _ = journal.close();
                return self.restart_process();
            }
            _ => {
                drop(journal);
                return self.restart_process();
            }
        };
        match done {
            Ok(()) => Ok(journal),
            Err(Ended::Fatal) => {
                self.tally.fatal += 1;
                match journal.append(&[]) {
                    Err(AppendError::Fatal(..)) => {}
                    other => return Err(format!("goes on after an error that is fatal: {other:?}")),
                }
                drop(journal);
                self.restart_process()
            }
            Err(Ended::Wrong(what)) => Err(what),
        }
    }

    fn make_trouble(&mut self) {
        let rng = &mut self.rng;
        let used = self.mounted.disk().used_pages() * 4096;
        self.mounted.faults(|faults| match self.trouble {
            Trouble::No => {}
            Trouble::Short => faults.short_writes = true,
            Trouble::Full => match rng.below(8) {
                0 => faults.capacity = Some(used + rng.below(100_000)),
                1 => faults.read_only = true,
                2 | 3 => (faults.capacity, faults.read_only) = (None, false),
                _ => {}
            },
            Trouble::Failing => match rng.below(60) {
                0 => faults.write = Some(rng.between(1, 4)),
                1 => faults.sync = Some(rng.between(1, 4)),
                2 => faults.folder_sync = Some(1),
                _ => {}
            },
        });
    }

    fn no_trouble(&self) {
        self.mounted.faults(|faults| {
            *faults = Faults { short_writes: self.trouble == Trouble::Short, ..Faults::default() };
        });
    }

    /// Another process opens the store, on the same disk with the same page cache.
    fn restart_process(&mut self) -> Result<Journal, String> {
        if self.trouble == Trouble::Full || self.trouble == Trouble::Failing {
            // Whether this start succeeds is the disk's affair; the next one must.
            if let Ok((journal, _)) = Journal::open(&self.store, self.options)
                && self.rng.coin()
            {
                let _ = journal.close();
            }
            self.no_trouble();
        }
        self.opened()
    }

    fn opened(&mut self) -> Result<Journal, String> {
        let (journal, recovered) =
            Journal::open(&self.store, self.options).map_err(|error| format!("does not open: {error:?}"))?;
        self.tally.torn += u64::from(recovered.torn_bytes > 0);
        self.ledger.check_start(&recovered, &journal.reader())?;
        Ok(journal)
    }

    /// Starts, with the power going again a few times in the middle of it.
    fn start(&mut self) -> Result<Journal, String> {
        for _ in 0..self.rng.below(4) {
            self.no_trouble();
            self.mounted.cut_after(self.rng.between(1, 20));
            let opened = Journal::open(&self.store, self.options);
            if let (Err(error), false) = (&opened, self.mounted.is_off()) {
                return Err(format!("does not open: {error:?}"));
            }
            let torn = opened.is_ok_and(|(_, recovered)| recovered.torn_bytes > 0);
            self.tally.torn += u64::from(torn);
            self.tally.cuts_in_a_start += u64::from(self.mounted.is_off());
            self.mounted.restart(self.mode, self.rng.next());
        }
        self.no_trouble();
        self.opened()
    }

    /// Whether it was done; false where the disk refused it for now, which is allowed on a full one.
    fn told<T>(&mut self, outcome: Result<T, AppendError>) -> Result<Option<T>, Ended> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            // Without power nobody knows what got to the disk.
            Err(error) if self.mounted.is_off() => Err(Ended::Wrong(format!("{error:?}"))),
            Err(AppendError::Full(_)) if self.trouble == Trouble::Full || self.trouble == Trouble::Failing => {
                self.tally.refusals += 1;
                Ok(None)
            }
            Err(AppendError::Fatal(..)) if self.trouble == Trouble::Failing => Err(Ended::Fatal),
            Err(error) => Err(Ended::Wrong(format!("{error:?}"))),
        }
    }

    fn append(&mut self, journal: &mut Journal) -> Result<(), Ended> {
        let entries = group(&mut self.rng);
        let segments = journal.segments().len();
        self.ledger.asked(&entries);
        let appended =
            if self.rng.below(10) == 0 { journal.append_reserved(&entries) } else { journal.append(&entries) };
        match self.told(appended)? {
            Some(appended) => {
                self.ledger.answered(&appended).map_err(Ended::Wrong)?;
                self.tally.acknowledged += entries.len() as u64;
                self.tally.rotations += u64::from(journal.segments().len() > segments);
            }
            None => self.ledger.refused(),
        }
        Ok(())
    }

    fn sealed(&mut self, journal: &Journal) -> Option<Position> {
        let sealed: Vec<Position> =
            journal.segments().iter().filter(|segment| segment.sealed).map(|segment| segment.first).collect();
        sealed.get(self.rng.below(sealed.len() as u64) as usize).copied()
    }

    fn rewrite(&mut self, journal: &mut Journal) -> Result<(), Ended> {
        let Some(first) = self.sealed(journal) else { return Ok(()) };
        let salt = self.rng.next();
        let ledger = &mut self.ledger;
        let rewritten = journal.rewrite(first, &mut |stored| {
            let keep = keep(stored.position, salt);
            ledger.retiring(stored.position, keep);
            keep
        });
        match self.rewritten(rewritten)? {
            Some(rewritten) if !rewritten.damage.is_empty() => {
                Err(Ended::Wrong(format!("a rewrite found {:?}", rewritten.damage)))
            }
            _ => Ok(()),
        }
    }

    fn rewritten<T>(&mut self, outcome: Result<T, RewriteError>) -> Result<Option<T>, Ended> {
        match outcome {
            Ok(value) => {
                self.tally.rewrites += 1;
                self.ledger.retired();
                Ok(Some(value))
            }
            Err(error) if self.mounted.is_off() => Err(Ended::Wrong(format!("rewrite: {error:?}"))),
            Err(RewriteError::Full(_)) if self.trouble == Trouble::Full || self.trouble == Trouble::Failing => {
                self.tally.refusals += 1;
                self.ledger.not_retired();
                Ok(None)
            }
            Err(RewriteError::Fatal(_)) if self.trouble == Trouble::Failing => Err(Ended::Fatal),
            Err(error) => Err(Ended::Wrong(format!("rewrite: {error:?}"))),
        }
    }

    /// Another thread writes a segment anew while this one appends and rotates.
    fn rewrite_beside(&mut self, journal: &mut Journal) -> Result<(), Ended> {
        let Some(first) = self.sealed(journal) else { return Ok(()) };
        let salt = self.rng.next();
        let reader = journal.reader();
        let appends = self.rng.below(6);
        let (prepared, appended) = std::thread::scope(|scope| {
            let preparing = scope.spawn(move || {
                let mut seen = Vec::new();
                let prepared = reader.prepare(first, &mut |stored| {
                    seen.push(stored.position);
                    keep(stored.position, salt)
                });
                (prepared, seen)
            });
            let appended: Result<(), Ended> = (0..appends).try_for_each(|_| self.append(journal));
            (preparing.join().expect("no panic"), appended)
        });
        appended?;
        let (prepared, seen) = prepared;
        for position in seen {
            self.ledger.retiring(position, keep(position, salt));
        }
        let installed = prepared.and_then(|prepared| journal.install(prepared));
        self.rewritten(installed).map(|_| ())
    }
}

/// Why a step did not end well.
enum Ended {
    /// The journal says that the process must end.
    Fatal,
    /// It did what it must not.
    Wrong(String),
}

fn lives(mode: Mode, trouble: Trouble, first_seed: u64, count: u64) -> Tally {
    let mounted = Mounted::new();
    let mut tally = Tally::default();
    for seed in first_seed..first_seed + count {
        mounted.format();
        let mut rng = Rng::new(seed);
        let segment_bytes = rng.between(4, 64) << 10;
        let verify = rng.coin();
        let mut life = Life {
            mounted: &mounted,
            mode,
            trouble,
            rng,
            store: mounted.path().join("store"),
            options: Options { segment_bytes, verify },
            ledger: Ledger::default(),
            tally: &mut tally,
        };
        let outcome = life.live();
        let records = life.ledger.len();
        if let Err(what) = outcome {
            tally.failures.push(format!("{mode:?}, seed {seed}, {records} records: {what}"));
        }
    }
    tally
}

/// Lives of journals in all modes side by side.
///
/// # Errors
/// Something was lost, or too little happened to say that nothing was.
pub fn run(trouble: Trouble, seed: u64, lives_per_mode: u64) -> Result<Tally, String> {
    let tallies = std::thread::scope(|scope| {
        MODES
            .map(|mode| scope.spawn(move || lives(mode, trouble, seed, lives_per_mode)))
            .map(|thread| thread.join().expect("no panic"))
    });
    let mut sum = Tally::default();
    tallies.into_iter().for_each(|tally| sum.add(tally));
    if !sum.failures.is_empty() {
        return Err(format!("{:#?}", sum.failures));
    }
    let struck = match trouble {
        Trouble::No => sum.rewrites > 0,
        Trouble::Short => true,
        Trouble::Full => sum.refusals > lives_per_mode,
        Trouble::Failing => sum.fatal > 0,
    };
    if !struck || sum.acknowledged < 25 * lives_per_mode || sum.rotations < 2 * lives_per_mode {
        return Err(format!("too little happened: {sum:?}"));
    }
    Ok(sum)
}

/// What `./prove power` does more of.
fn some_lives(trouble: Trouble) {
    let seed = base_seed();
    println!("seed {seed}");
    let tally = run(trouble, seed, 2).expect("nothing is lost");
    println!("{trouble:?}: {tally:?}");
}

#[test]
fn no_acknowledged_record_is_lost_to_a_power_cut() {
    some_lives(Trouble::No);
}

#[test]
fn writes_that_take_only_a_part_lose_nothing() {
    some_lives(Trouble::Short);
}

#[test]
fn a_disk_that_is_full_now_and_then_loses_nothing() {
    some_lives(Trouble::Full);
}

#[test]
fn a_disk_that_fails_now_and_then_loses_nothing_acknowledged() {
    some_lives(Trouble::Failing);
}
