//! Section `disk`: a disk that fails, fills up and forgets how to write, under the whole daemon; and a clock that is wrong.
//!
//! What the journal could not sync ends the process, which says so; whatever else the disk refuses it lives through.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::ExitStatus;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::disk::Faults;
use crate::harness::eventually_within;
use crate::http;
use crate::judge::name_of;
use crate::mount::Mounted;
use crate::node;
use crate::report::{Form, Row};
use crate::scene::Scene;
use crate::world::{Plan, World, newest, tail};

/// How long what must come may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const DAY: i64 = 86_400;
/// What the daemon says when it ends because the disk could not sync what was written; and when it could not write.
const NOT_SYNCED: [&str; 3] = [
    "cannot be trusted any more after a sync",
    "any more after the sync of",
    "a rewritten segment could not be synced",
];
const FAILED: [&str; 4] = [NOT_SYNCED[0], NOT_SYNCED[1], NOT_SYNCED[2], "cannot be trusted any more after a write"];

/// What goes wrong while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Live {
    /// EIO from a write.
    Write,
    /// EIO from a sync: the end of the process, which asks no second time.
    Sync,
    /// EIO from the sync of a folder.
    FolderSync,
    /// Writes that take a part only.
    Short,
    /// No room, and room again.
    Full,
    /// Remounted read-only, and back.
    ReadOnly,
    /// A start on a disk that is read-only.
    ReadOnlyStart,
    /// The clock jumps by so many days, and back.
    Clock(i64),
}

/// Section `disk`: what fails while it runs.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    let kinds = [
        Live::Write,
        Live::Sync,
        Live::FolderSync,
        Live::Short,
        Live::Full,
        Live::ReadOnly,
        Live::ReadOnlyStart,
        Live::Clock(-1),
        Live::Clock(730),
    ];
    Ok(vec![failing(form, &kinds)?])
}

/// A world whose store lies on the test's disk.
pub struct Bench<'a> {
    pub world: World<'a>,
    pub mounted: Mounted,
    /// By how many seconds the daemon's clock is wrong.
    pub clock: tempfile::NamedTempFile,
}

impl<'a> Bench<'a> {
    pub fn begin(scene: Scene<'a>, seed: u64, pause: Duration) -> Self {
        let mounted = Mounted::new();
        let clock = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut plan = Plan { pause, ..Plan::new(&scene, 5, seed) };
        plan.config.store_path = mounted.path().join("store");
        plan.config.environment = vec![("QUITTANCE_CLOCK".into(), clock.path().display().to_string())];
        Self { world: World::begin(scene, plan), mounted, clock }
    }

    /// Starts what has ended. A start that ends by itself is a crash; one that hangs is none better.
    pub fn start(&mut self) -> Result<(), String> {
        if !self.world.daemon.start_unless_it_ends() {
            return Err(format!("the start ended by itself; it said:\n{}", tail(&self.world.daemon.log())));
        }
        self.world.found_again();
        Ok(())
    }

    pub fn damage(&self) -> f64 {
        self.world.daemon.metric("quittance_journal_damage_total")
    }

    /// Waits until so many more are acknowledged: more than may have been on their way when a fault struck. Where the
    /// daemon ends meanwhile, as it may after what failed, it is started again.
    fn goes_on(&mut self, more: u64, may_end: &[&str]) -> Result<(), String> {
        let (before, until) = (self.world.senders.acknowledged(), Instant::now() + PATIENCE);
        while self.world.senders.acknowledged() < before + more {
            if let Some(status) = self.world.daemon.has_ended() {
                explained(status, &self.world.daemon.log(), may_end)?;
                self.start()?;
            }
            if Instant::now() > until {
                let log = self.world.daemon.log();
                return Err(format!("not {more} were acknowledged within {PATIENCE:?}; it said:\n{}", tail(&log)));
            }
            sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn becomes_ready(&self) -> Result<(), String> {
        let ready = eventually_within(PATIENCE, "", || if self.is_ready() == Some(true) { Ok(()) } else { Err(()) });
        ready.map_err(|()| format!("it does not become ready again; it said:\n{}", tail(&self.world.daemon.log())))
    }

    /// Whether it says that it is ready; `None` where it does not answer, because it has ended or is about to.
    fn is_ready(&self) -> Option<bool> {
        let answer = http::send(self.world.daemon.admin, &http::request("GET", "/readyz", &[], b"")).ok()?;
        Some(answer.status == 200)
    }
}

/// Whether an end is one that what had failed must have.
fn explained(status: ExitStatus, log: &str, may_end: &[&str]) -> Result<(), String> {
    if status.code() == Some(1) && may_end.iter().any(|why| log.contains(why)) {
        return Ok(());
    }
    Err(format!("it ended with {status}; it said:\n{}", tail(log)))
}

/// Everything that goes wrong while it runs, mixed, under load.
fn failing(form: &Form, kinds: &[Live]) -> Result<Row, String> {
    let began = Instant::now();
    let node = node::shared();
    let mut bench = Bench::begin(Scene::on(&node), form.seed, Duration::from_millis(form.pick(2, 8)));
    let rounds = form.pick(2, 25);
    let mut struck: BTreeMap<Live, u64> = BTreeMap::new();
    for _ in 0..rounds {
        let mut order = kinds.to_vec();
        for at in (1..order.len()).rev() {
            order.swap(at, bench.world.rng.below(at as u64 + 1) as usize);
        }
        for kind in order {
            let hit = strike(&mut bench, kind).map_err(|what| format!("{kind:?}: {what}"))?;
            *struck.entry(kind).or_default() += u64::from(hit);
        }
    }
    if let Some(kind) = kinds.iter().find(|kind| struck.get(kind).is_none_or(|times| *times == 0)) {
        return Err(format!("{kind:?} never struck: {struck:?}"));
    }
    if bench.damage() != 0.0 {
        return Err("a disk that fails is no damage to what it holds".into());
    }
    bench.world.faults = struck.values().sum();
    let Bench { world, mounted, clock } = bench;
    let mut history = world.end(rounds * kinds.len() as u64 * 3 / 4)?;
    // Expectations that expired by a wrong clock say so; that there was one they still know.
    let unregistered =
        history.delivered.iter().filter(|message| message.event["data"]["expectation"] == "unregistered");
    let unregistered: BTreeSet<_> = unregistered.map(|message| name_of(&message.event)).collect();
    for claim in history.sent.iter_mut().filter(|claim| claim.expectation == Some("unchecked")) {
        claim.expectation = None;
        if unregistered.contains(&claim.name) {
            return Err(format!("{}: its registration is forgotten", claim.name));
        }
    }
    drop((mounted, clock));
    let what = format!("{} ways to fail while it runs, clock too", kinds.len());
    Row::judged("disk", what, form, began, &history)
}

/// Whether it really struck. The daemon is well before and after.
fn strike(bench: &mut Bench<'_>, kind: Live) -> Result<bool, String> {
    bench.world.posted(20, PATIENCE)?;
    match kind {
        Live::Write | Live::Sync | Live::FolderSync => fail_once(bench, kind),
        Live::Short => {
            bench.mounted.faults(|faults| faults.short_writes = true);
            let done = bench.world.posted(100, PATIENCE);
            bench.mounted.faults(|faults| faults.short_writes = false);
            done.map(|()| true)
        }
        Live::Full => {
            let room = bench.world.rng.between(0, 120_000);
            let used = bench.mounted.disk().used_pages() * 4096;
            refuses(bench, |faults| faults.capacity = Some(used + room))
        }
        Live::ReadOnly => refuses(bench, |faults| faults.read_only = true),
        Live::ReadOnlyStart => start_read_only(bench),
        Live::Clock(days) => {
            fs::write(bench.clock.path(), (days * DAY).to_string()).map_err(|e| e.to_string())?;
            bench.world.posted(60, PATIENCE)?;
            // Not at once where what was struck before had the index built anew.
            let held = eventually_within(PATIENCE, "", || newest(&bench.world.daemon, 40))?;
            let reason = Value::from("clock");
            let hit = held.iter().any(|item| item["reasons"].as_array().is_some_and(|r| r.contains(&reason)));
            if bench.world.rng.coin() {
                // Also a start with a wrong clock is a start.
                bench.world.kill()?;
                bench.start()?;
                bench.world.posted(20, PATIENCE)?;
            }
            fs::write(bench.clock.path(), "0").map_err(|e| e.to_string())?;
            bench.world.posted(20, PATIENCE)?;
            Ok(hit)
        }
    }
}

/// One call fails: a write or a sync of the journal ends the process, one of the index has it built anew.
fn fail_once(bench: &mut Bench<'_>, kind: Live) -> Result<bool, String> {
    let before = bench.mounted.disk().syncs_after_failure;
    let n = bench.world.rng.between(1, 30);
    bench.mounted.faults(|faults| match kind {
        Live::Write => faults.write = Some(n),
        Live::Sync => faults.sync = Some(n),
        _ => faults.folder_sync = Some(1),
    });
    let waiting = |faults: &Faults| faults.write.or(faults.sync).or(faults.folder_sync).is_some();
    let until = Instant::now() + PATIENCE;
    while bench.mounted.faults(|faults| waiting(faults)) && Instant::now() < until {
        sleep(Duration::from_millis(5));
    }
    // Taken back and looked at in one: what strikes in between has struck.
    let hit = bench.mounted.faults(|faults| {
        let missed = waiting(faults);
        (faults.write, faults.sync, faults.folder_sync) = (None, None, None);
        !missed
    });
    bench.goes_on(30, &FAILED)?;
    // Where the index was struck it takes what is new at once, and what is known once the index is built anew.
    bench.becomes_ready()?;
    match bench.mounted.disk().syncs_after_failure - before {
        0 => Ok(hit),
        retried => Err(format!("what had failed to sync was synced again, {retried} times")),
    }
}

/// A disk that takes nothing for a while: 503, not ready, alive; and on it goes by itself. Where something was written
/// just before and could not be synced nobody knows what is on the disk, and it has to end.
fn refuses(bench: &mut Bench<'_>, fault: impl FnOnce(&mut Faults)) -> Result<bool, String> {
    bench.mounted.faults(fault);
    let until = Instant::now() + PATIENCE;
    let mut unready = false;
    while !unready && bench.world.daemon.has_ended().is_none() && Instant::now() < until {
        unready = bench.is_ready() == Some(false);
        sleep(Duration::from_millis(5));
    }
    // It stays so for a while.
    sleep(Duration::from_millis(bench.world.rng.between(100, 1500)));
    bench.mounted.faults(|faults| (faults.capacity, faults.read_only) = (None, false));
    let ended = bench.world.daemon.has_ended().is_some();
    bench.goes_on(30, &NOT_SYNCED)?;
    bench.becomes_ready()?;
    Ok(unready || ended)
}

/// A start on a disk that takes nothing waits until it does.
fn start_read_only(bench: &mut Bench<'_>) -> Result<bool, String> {
    bench.world.kill()?;
    bench.mounted.faults(|faults| faults.read_only = true);
    bench.world.daemon.launch_only();
    let until = Instant::now() + PATIENCE;
    let waits = loop {
        let ended = bench.world.daemon.has_ended();
        let log = bench.world.daemon.log();
        if let Some(status) = ended {
            break Err(format!("it ends with {status} in place of waiting; it said:\n{}", tail(&log)));
        }
        if log.contains("the disk takes no more") {
            break Ok(true);
        }
        if Instant::now() > until {
            break Err(format!("it does not say that it waits; it said:\n{}", tail(&log)));
        }
        sleep(Duration::from_millis(5));
    };
    bench.mounted.faults(|faults| faults.read_only = false);
    waits?;
    bench.world.daemon.wait_for_start();
    bench.world.found_again();
    bench.goes_on(20, &[])?;
    Ok(true)
}
