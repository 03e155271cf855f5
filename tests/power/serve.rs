//! Power cuts under the whole daemon: whatever it answered with 2xx is there after the next start, once.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Daemon, Machine, end, post, price};
use crate::disk::{MODES, Mode};
use crate::mount::Mounted;
use crate::rng::{Rng, base_seed};

const SENDERS: u64 = 6;

/// What happened in a life.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub cuts: u64,
    pub cuts_in_a_start: u64,
    pub kills: u64,
    pub acknowledged: u64,
    pub repeats: u64,
    /// Segments that were begun, and notifications whose bodies went, by the end.
    pub segments: u64,
    pub retired: u64,
}

impl Tally {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.cuts += other.cuts;
        self.cuts_in_a_start += other.cuts_in_a_start;
        self.kills += other.kills;
        self.acknowledged += other.acknowledged;
        self.repeats += other.repeats;
        self.segments += other.segments;
        self.retired += other.retired;
    }
}

struct Life<'a> {
    mounted: &'a Mounted,
    mode: Mode,
    machine: Machine,
    rng: Rng,
    /// Bodies are retired, so the feed need not hold everything; the list of notifications does.
    retires: bool,
    next: AtomicU64,
    acknowledged: Mutex<BTreeSet<u64>>,
    tally: Tally,
}

impl Life<'_> {
    fn live(&mut self, cuts: u64) -> Result<(), String> {
        for round in 0..cuts {
            let mut daemon = self.start()?;
            self.check(&daemon).map_err(|what| format!("round {round}: {what}\nit said:\n{}", daemon.said()))?;
            let longest = [20, 120, 600][self.rng.below(3) as usize];
            self.mounted.cut_after(self.rng.between(1, longest));
            self.load(&mut daemon)?;
            self.tally.cuts += 1;
            self.come_up_again();
        }
        let daemon = self.start()?;
        self.check(&daemon).map_err(|what| format!("at the end: {what}\nit said:\n{}", daemon.said()))
    }

    fn come_up_again(&mut self) {
        self.mounted.restart(self.mode, self.rng.next());
        self.machine.boot();
    }

    /// Starts, with the power going, or the process, now and then in the middle of it.
    fn start(&mut self) -> Result<Daemon, String> {
        for _ in 0..self.rng.below(3) {
            self.mounted.cut_after(self.rng.between(1, 80));
            let (mut child, _) = self.machine.launch();
            let patience = self.rng.between(30, 200);
            for _ in 0..patience {
                if self.mounted.is_off() {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
            end(&mut child);
            if self.mounted.is_off() {
                self.tally.cuts_in_a_start += 1;
                self.come_up_again();
            } else {
                // The process was killed, the machine goes on: same boot, same page cache.
                self.mounted.disk().cut_after(u64::MAX);
                self.tally.kills += 1;
            }
        }
        self.machine.start(self.mounted)
    }

    /// Senders post until the power is gone and the daemon with it.
    fn load(&mut self, daemon: &mut Daemon) -> Result<(), String> {
        let public = daemon.public;
        let (next, acknowledged) = (&self.next, &self.acknowledged);
        let linger = self.rng.below(30);
        let (repeats, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let (repeats, over, mounted) = (&repeats, &over, self.mounted);
        thread::scope(|scope| {
            for sender in 0..SENDERS {
                let mut rng = self.rng.fork();
                scope.spawn(move || {
                    // Another process may listen at its port when it is gone: nothing is begun after that.
                    while !over.load(Ordering::SeqCst) {
                        // Now and then one that was acknowledged comes again.
                        let known = acknowledged.lock().expect("nobody panics with it").iter().next_back().copied();
                        let number = match known {
                            Some(known) if sender == 0 && rng.below(4) == 0 => {
                                repeats.fetch_add(1, Ordering::Relaxed);
                                known
                            }
                            _ => next.fetch_add(1, Ordering::Relaxed),
                        };
                        match post(public, number) {
                            Ok(answer) if answer.status == 200 => {
                                acknowledged.lock().expect("nobody panics with it").insert(number);
                            }
                            Ok(answer) if answer.status == 503 => thread::sleep(Duration::from_millis(2)),
                            Ok(_) | Err(_) => return,
                        }
                    }
                });
            }
            for _ in 0..20_000 {
                if mounted.is_off() {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
            // Whatever it still answers now, it must not be 2xx for something that is not on the disk.
            thread::sleep(Duration::from_millis(linger));
            over.store(true, Ordering::SeqCst);
            daemon.kill();
        });
        self.tally.repeats += repeats.load(Ordering::Relaxed);
        if self.mounted.is_off() { Ok(()) } else { Err(format!("the daemon stopped writing:\n{}", daemon.said())) }
    }

    fn check(&mut self, daemon: &Daemon) -> Result<(), String> {
        let acknowledged = self.acknowledged.lock().expect("nobody panics with it").clone();
        self.tally.acknowledged = acknowledged.len() as u64;
        let sent = self.next.load(Ordering::Relaxed);
        if daemon.metric("quittance_journal_damage_total")? != 0.0 {
            return Err("a power cut is called damage".into());
        }
        let listed = once(daemon.list()?.iter(), sent, "listed")?;
        missing(&acknowledged, &listed, "in the list of notifications")?;
        let files = std::fs::read_dir(self.mounted.path().join("store/journal")).map_err(|error| error.to_string())?;
        self.tally.segments = files.count() as u64;
        let feed = daemon.feed()?;
        let told = once(feed.iter().map(|event| &event["data"]), sent, "in the feed")?;
        self.tally.retired = listed.difference(&told).count() as u64;
        if !self.retires {
            missing(&acknowledged, &told, "in the feed")?;
        }
        // What was kept before the cut is known after it: its repeat is no second one.
        let known: Vec<u64> = acknowledged.into_iter().collect();
        for _ in 0..known.len().min(25) {
            let number = &known[self.rng.below(known.len() as u64) as usize];
            let answer = post(daemon.public, *number).map_err(|error| error.to_string())?;
            if answer.status != 200 {
                return Err(format!("the repeat of {number} is answered {answer:?}"));
            }
        }
        // Not the feed: retired bodies leave it meanwhile.
        let after = once(daemon.list()?.iter(), sent, "listed")?;
        if after == listed { Ok(()) } else { Err("a repeat was kept as a new one".into()) }
    }
}

/// The numbers of notifications; each must be one that was sent, with its own contents, and stand there once.
fn once<'a>(data: impl Iterator<Item = &'a Value>, sent: u64, place: &str) -> Result<BTreeSet<u64>, String> {
    let mut numbers = BTreeSet::new();
    for data in data {
        let number = data["transaction_id"].as_str().and_then(|id| id.strip_prefix("T-")?.parse().ok());
        let number: u64 =
            number.filter(|number| *number < sent).ok_or(format!("nobody sent what is {place}: {data}"))?;
        if data["order_id"] != format!("order-{number}") || data["amount"]["value"] != price(number) {
            return Err(format!("{number} is {place} with other contents: {data}"));
        }
        if !numbers.insert(number) {
            return Err(format!("{number} is {place} twice"));
        }
    }
    Ok(numbers)
}

fn missing(acknowledged: &BTreeSet<u64>, found: &BTreeSet<u64>, place: &str) -> Result<(), String> {
    let lost: Vec<_> = acknowledged.difference(found).collect();
    if lost.is_empty() {
        Ok(())
    } else {
        Err(format!("acknowledged and not {place}: {lost:?} of {}", acknowledged.len()))
    }
}

/// A store that lives through so many power cuts; with `retires`, its bodies go after a second.
///
/// # Panics
/// When anything acknowledged is lost or doubled.
pub fn life(mode: Mode, seed: u64, cuts: u64, retires: bool) -> Tally {
    let mounted = Mounted::new();
    let machine = Machine::new(&mounted, if retires { "1s" } else { "90d" });
    let mut life = Life {
        mounted: &mounted,
        mode,
        machine,
        rng: Rng::new(seed),
        retires,
        next: AtomicU64::new(0),
        acknowledged: Mutex::default(),
        tally: Tally::default(),
    };
    if let Err(what) = life.live(cuts) {
        panic!("{mode:?}, seed {seed}, after {} power cuts: {what}", life.tally.cuts);
    }
    life.tally
}

#[test]
fn what_was_answered_with_200_is_there_after_a_power_cut_once() {
    // `./prove power` does more of it.
    let (cuts, mut all) = (3, Tally::default());
    let seed = base_seed();
    println!("seed {seed}");
    for mode in MODES {
        let sum = life(mode, seed + mode as u64, cuts, mode == Mode::Torn);
        println!(
            "daemon, {mode:?}: {} power cuts under load and {} in the middle of a start, {} kills, {} notifications acknowledged, \
             {} repeated meanwhile, 0 lost, 0 doubled",
            sum.cuts, sum.cuts_in_a_start, sum.kills, sum.acknowledged, sum.repeats
        );
        all.add(&sum);
    }
    assert!(all.cuts == 9 && all.acknowledged > 50, "too little happened");
}
