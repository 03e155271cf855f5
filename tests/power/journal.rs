//! Power cuts while the journal appends, rotates, rewrites, starts, and while it recovers from the one before.

use std::path::PathBuf;

use bytes::Bytes;
use quittance::event::{Digest, Position};
use quittance::store::embedded::journal::{Entry, Journal, Keep, Options};

use crate::disk::{MODES, Mode};
use crate::ledger::Ledger;
use crate::mount::Mounted;
use crate::rng::{Rng, base_seed, long_form};

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

#[derive(Default)]
struct Tally {
    cuts: u64,
    cuts_in_a_start: u64,
    acknowledged: u64,
    rewrites: u64,
    rotations: u64,
    torn: u64,
    failures: Vec<String>,
}

struct Life<'a> {
    mounted: &'a Mounted,
    mode: Mode,
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
                let went_wrong = match self.rng.below(100) {
                    0..75 => self.append(&mut journal),
                    75..82 => journal.mark_idle().map_err(|error| format!("mark_idle: {error}")),
                    82..92 => self.rewrite(&mut journal),
                    92..96 => self.rewrite_beside(&mut journal),
                    _ => {
                        // The process ends and begins again; the power stays on.
                        if self.rng.coin() {
                            let _ = journal.close();
                        } else {
                            drop(journal);
                        }
                        match Journal::open(&self.store, self.options) {
                            Ok((next, recovered)) => {
                                journal = next;
                                match self.ledger.check_start(&recovered, &journal.reader()) {
                                    Err(what) if !self.mounted.is_off() => return Err(format!("restarted: {what}")),
                                    _ => Ok(()),
                                }
                            }
                            Err(_) if self.mounted.is_off() => break,
                            Err(error) => return Err(format!("does not open: {error:?}")),
                        }
                    }
                };
                if let Err(what) = went_wrong
                    && !self.mounted.is_off()
                {
                    return Err(format!("with the power on: {what}"));
                }
            }
            self.tally.cuts += 1;
            self.mounted.restart(self.mode, self.rng.next());
        }
        self.start().map(drop)
    }

    /// Starts, with the power going again a few times in the middle of it.
    fn start(&mut self) -> Result<Journal, String> {
        for _ in 0..self.rng.below(4) {
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
        let (journal, recovered) =
            Journal::open(&self.store, self.options).map_err(|error| format!("does not open: {error:?}"))?;
        self.tally.torn += u64::from(recovered.torn_bytes > 0);
        self.ledger.check_start(&recovered, &journal.reader())?;
        Ok(journal)
    }

    fn append(&mut self, journal: &mut Journal) -> Result<(), String> {
        let entries = group(&mut self.rng);
        let segments = journal.segments().len();
        self.ledger.asked(&entries);
        let appended =
            if self.rng.below(10) == 0 { journal.append_reserved(&entries) } else { journal.append(&entries) };
        let appended = appended.map_err(|error| format!("append: {error:?}"))?;
        self.tally.acknowledged += entries.len() as u64;
        self.tally.rotations += u64::from(journal.segments().len() > segments);
        self.ledger.answered(&appended)
    }

    fn sealed(&mut self, journal: &Journal) -> Option<Position> {
        let sealed: Vec<Position> =
            journal.segments().iter().filter(|segment| segment.sealed).map(|segment| segment.first).collect();
        sealed.get(self.rng.below(sealed.len() as u64) as usize).copied()
    }

    fn rewrite(&mut self, journal: &mut Journal) -> Result<(), String> {
        let Some(first) = self.sealed(journal) else { return Ok(()) };
        let salt = self.rng.next();
        let ledger = &mut self.ledger;
        let rewritten = journal.rewrite(first, &mut |stored| {
            let keep = keep(stored.position, salt);
            ledger.retiring(stored.position, keep);
            keep
        });
        let rewritten = rewritten.map_err(|error| format!("rewrite: {error:?}"))?;
        self.tally.rewrites += 1;
        self.ledger.retired();
        if rewritten.damage.is_empty() { Ok(()) } else { Err(format!("rewrite found {:?}", rewritten.damage)) }
    }

    /// Another thread writes a segment anew while this one appends and rotates.
    fn rewrite_beside(&mut self, journal: &mut Journal) -> Result<(), String> {
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
            let appended: Result<(), String> = (0..appends).try_for_each(|_| self.append(journal));
            (preparing.join().expect("no panic"), appended)
        });
        appended?;
        let (prepared, seen) = prepared;
        let prepared = prepared.map_err(|error| format!("prepare: {error:?}"))?;
        for position in seen {
            self.ledger.retiring(position, keep(position, salt));
        }
        journal.install(prepared).map_err(|error| format!("install: {error:?}"))?;
        self.tally.rewrites += 1;
        self.ledger.retired();
        Ok(())
    }
}

fn lives(mode: Mode, first_seed: u64, count: u64) -> Tally {
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

#[test]
fn no_acknowledged_record_is_lost_to_a_power_cut() {
    let lives_per_mode = match std::env::var("QUITTANCE_LIVES") {
        Ok(text) => text.parse().expect("QUITTANCE_LIVES is a number"),
        Err(_) if long_form() => 60,
        Err(_) => 8,
    };
    let seed = base_seed();
    println!("seed {seed}");
    let tallies = std::thread::scope(|scope| {
        MODES
            .map(|mode| (mode, scope.spawn(move || lives(mode, seed, lives_per_mode))))
            .map(|(mode, thread)| (mode, thread.join().expect("no panic")))
    });
    let mut failures = Vec::new();
    for (mode, tally) in tallies {
        println!(
            "journal, {mode:?}: {} power cuts and {} in the middle of a start, {} records acknowledged, {} rotations, {} \
             rewrites, {} torn tails cut off, {} failures",
            tally.cuts,
            tally.cuts_in_a_start,
            tally.acknowledged,
            tally.rotations,
            tally.rewrites,
            tally.torn,
            tally.failures.len()
        );
        assert!(tally.acknowledged > 100 && tally.rotations > 10 && tally.rewrites > 3, "too little happened");
        failures.extend(tally.failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
