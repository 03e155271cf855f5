//! Sections `disk` and `damage`: a disk that fails, fills up, forgets how to write, and hands back what nobody wrote, under the whole
//! daemon; and a clock that is wrong.
//!
//! Whatever is found at a start, the daemon comes up, tells what it found, and everything acknowledged that can still be
//! read is there. What the fault itself destroyed is excluded by its place in the journal, and by nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quittance::event::EventId;
use serde_json::Value;

use crate::disk::Faults;
use crate::harness::{Daemon, eventually_within};
use crate::mount::Mounted;
use crate::node;
use crate::report::{Form, Row, say};
use crate::scene::{Scene, connected};
use crate::world::{Plan, World, list, tail};

const PATIENCE: Duration = Duration::from_secs(30);
const DAY: i64 = 86_400;

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

/// What a start finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// A bit flipped in the middle of a segment.
    Flipped,
    /// A segment that ends too early.
    Truncated,
    /// A segment that is not there.
    Missing,
    /// A segment of another store.
    Foreign,
    /// No folder of the index.
    NoIndex,
    /// An index of which some bytes are others.
    WrongIndex,
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

/// Section `damage`: what a start finds.
pub fn found(form: &Form) -> Result<Vec<Row>, String> {
    let kinds = [Found::Flipped, Found::Truncated, Found::Missing, Found::Foreign, Found::NoIndex, Found::WrongIndex];
    Ok(vec![damaged(form, &kinds)?, restored(form)?])
}

/// A world whose store lies on the test's disk.
struct Bench<'a> {
    world: World<'a>,
    mounted: Mounted,
    /// By how many seconds the daemon's clock is wrong.
    clock: tempfile::NamedTempFile,
}

impl<'a> Bench<'a> {
    fn begin(scene: Scene<'a>, seed: u64) -> Self {
        let mounted = Mounted::new();
        let clock = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut plan = Plan::new(&scene, 5, seed);
        plan.config.store_path = mounted.path().join("store");
        plan.config.environment = vec![("QUITTANCE_CLOCK".into(), clock.path().display().to_string())];
        Self { world: World::begin(scene, plan), mounted, clock }
    }

    fn journal(&self) -> PathBuf {
        self.mounted.path().join("store/journal")
    }

    /// Starts what has ended. A start that ends by itself is a crash; one that hangs is none better.
    fn start(&mut self) -> Result<(), String> {
        if !self.world.daemon.start_unless_it_ends() {
            return Err(format!("the start ended by itself; it said:\n{}", tail(&self.world.daemon.log())));
        }
        self.world.found_again();
        Ok(())
    }

    fn damage(&self) -> f64 {
        self.world.daemon.metric("quittance_journal_damage_total")
    }
}

/// Everything that goes wrong while it runs, mixed, under load.
fn failing(form: &Form, kinds: &[Live]) -> Result<Row, String> {
    let began = Instant::now();
    let node = node::shared();
    let mut bench = Bench::begin(Scene::on(&node), form.seed);
    let rounds = form.pick(2, 40);
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
    // Expectations that expired by a wrong clock say so.
    history.sent.iter_mut().for_each(|claim| claim.expectation = None);
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
        Live::ReadOnlyStart => {
            bench.world.daemon.kill();
            bench.mounted.faults(|faults| faults.read_only = true);
            bench.world.daemon.launch_only();
            std::thread::sleep(Duration::from_secs(2));
            let ended = bench.world.daemon.has_ended();
            bench.mounted.faults(|faults| faults.read_only = false);
            if let Some(status) = ended {
                return Err(format!(
                    "it ends with {status} in place of waiting; it said:\n{}",
                    bench.world.daemon.log()
                ));
            }
            bench.world.daemon.wait_for_start();
            bench.world.found_again();
            bench.world.posted(20, PATIENCE)?;
            Ok(true)
        }
        Live::Clock(days) => {
            fs::write(bench.clock.path(), (days * DAY).to_string()).map_err(|e| e.to_string())?;
            bench.world.posted(60, PATIENCE)?;
            let held = list(&bench.world.daemon)?;
            let reason = Value::from("clock");
            let hit = held.iter().take(40).any(|item| item["reasons"].as_array().is_some_and(|r| r.contains(&reason)));
            if bench.world.rng.coin() {
                // Also a start with a wrong clock is a start.
                bench.world.daemon.kill();
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
    let left = |faults: &Faults| faults.write.or(faults.sync).or(faults.folder_sync);
    let until = Instant::now() + Duration::from_secs(6);
    while left(&bench.mounted.disk().faults).is_some() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let hit = left(&bench.mounted.disk().faults).is_none();
    // It has its time to stop: requests in flight, confirms.
    let until = Instant::now() + Duration::from_secs(12);
    let works = |daemon: &Daemon| daemon.metric("quittance_index_lag_records") < 1000.0;
    let ended = loop {
        if let Some(status) = bench.world.daemon.has_ended() {
            break Some(status);
        }
        let over = !hit || (bench.world.posted(30, Duration::from_millis(1500)).is_ok() && works(&bench.world.daemon));
        if over || Instant::now() > until {
            break None;
        }
    };
    bench.mounted.faults(|faults| (faults.write, faults.sync, faults.folder_sync) = (None, None, None));
    let retried = bench.mounted.disk().syncs_after_failure - before;
    if retried > 0 {
        return Err(format!("what had failed to sync was synced again, {retried} times"));
    }
    match ended {
        Some(status) if status.code() == Some(1) => {
            let log = bench.world.daemon.log();
            if !log.contains("ERROR") && !log.contains("error") {
                return Err(format!("it ended without a word:\n{}", tail(&log)));
            }
            bench.start()?;
        }
        Some(status) => return Err(format!("it ended with {status}; it said:\n{}", tail(&bench.world.daemon.log()))),
        None => {}
    }
    bench.world.posted(20, PATIENCE)?;
    Ok(hit)
}

/// A disk that takes nothing for a while: 503, not ready, alive; and on it goes by itself.
fn refuses(bench: &mut Bench<'_>, fault: impl FnOnce(&mut Faults)) -> Result<bool, String> {
    bench.mounted.faults(fault);
    let unready = eventually_within(Duration::from_secs(15), "", || {
        if bench.world.daemon.admin_get("/readyz").status == 503 { Ok(()) } else { Err(()) }
    });
    std::thread::sleep(Duration::from_millis(bench.world.rng.between(100, 1500)));
    let ended = bench.world.daemon.has_ended();
    bench.mounted.faults(|faults| (faults.capacity, faults.read_only) = (None, false));
    if let Some(status) = ended {
        // What was written just before could not be synced: nobody knows what is on the disk, so it had to end.
        if status.code() == Some(1) && bench.world.daemon.log().contains("cannot be trusted any more after a sync") {
            bench.start()?;
            return bench.world.posted(20, PATIENCE).map(|()| true);
        }
        return Err(format!("it ended with {status}; it said:\n{}", tail(&bench.world.daemon.log())));
    }
    bench.world.posted(20, PATIENCE)?;
    let ready = eventually_within(PATIENCE, "", || {
        if bench.world.daemon.admin_get("/readyz").status == 200 { Ok(()) } else { Err(()) }
    });
    ready.map_err(|()| "it does not become ready again".to_owned())?;
    Ok(unready.is_ok())
}

/// What a start finds on a disk that handed back something else.
fn damaged(form: &Form, kinds: &[Found]) -> Result<Row, String> {
    let began = Instant::now();
    let node = node::shared();
    let mut bench = Bench::begin(Scene::on(&node), form.seed + 1);
    let rounds = form.pick(2, 25);
    let (mut positions, mut events) = (BTreeMap::new(), BTreeMap::new());
    let mut faults = 0;
    let mut destroyed: BTreeSet<String> = BTreeSet::new();
    for round in 0..rounds {
        for kind in kinds {
            // Enough that segments are sealed; some of it is delivered by now, and some is not.
            bench.world.posted(form.pick(120, 200), PATIENCE)?;
            for item in list(&bench.world.daemon)? {
                let event = item["event_id"].as_str().unwrap_or_default().to_owned();
                let position = EventId::parse(&event).ok_or("an id that does not read")?.position().0;
                positions.insert(event.clone(), position);
                events.insert(event, item);
            }
            bench.world.daemon.kill();
            let before = Instant::now();
            let range = spoil(&mut bench, *kind)?;
            bench.start().map_err(|what| format!("{kind:?}: {what}"))?;
            let took = before.elapsed();
            faults += 1;
            let gone = told(&mut bench, *kind, range, &positions).map_err(|what| format!("{kind:?}: {what}"))?;
            // What is gone is gone: the next fault need not have touched it.
            positions.retain(|event, _| !gone.contains(event));
            destroyed.extend(gone);
            if form.long && round % 5 == 0 {
                say(format!("{kind:?}: ready after {:.1} s, {} destroyed so far", took.as_secs_f64(), destroyed.len()));
            }
        }
    }
    bench.world.faults = faults;
    let Bench { world, mounted, clock } = bench;
    let mut history = world.end(rounds * kinds.len() as u64)?;
    let gone: BTreeSet<_> = destroyed.iter().filter_map(|event| events.get(event)).map(crate::world::name_in).collect();
    history.destroyed = history.sent.iter().filter(|c| gone.contains(&c.name)).map(|claim| claim.number).collect();
    drop((mounted, clock));
    let what = format!("{} kinds of damage found by a start", kinds.len());
    Row::judged("damage", what, form, began, &history)
}

/// Segments, oldest first, with the position after their last one.
fn segments(journal: &Path) -> Vec<(PathBuf, u64, u64)> {
    let mut firsts: Vec<(u64, PathBuf)> = fs::read_dir(journal)
        .expect("the journal's folder")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let first = path.file_name()?.to_str()?.strip_suffix(".journal")?.parse().ok()?;
            Some((first, path))
        })
        .collect();
    firsts.sort();
    let ends: Vec<u64> = firsts.iter().skip(1).map(|(first, _)| *first).collect();
    firsts.into_iter().zip(ends).map(|((first, path), end)| (path, first, end)).collect()
}

/// Does it to a sealed segment or to the index; the positions that it can have cost.
fn spoil(bench: &mut Bench<'_>, kind: Found) -> Result<std::ops::Range<u64>, String> {
    let failed = |error: std::io::Error| error.to_string();
    let sealed = segments(&bench.journal());
    if sealed.is_empty() {
        return Err("no segment is sealed".into());
    }
    let (path, first, end) = sealed[bench.world.rng.below(sealed.len() as u64) as usize].clone();
    let length = fs::metadata(&path).map_err(failed)?.len();
    let index = bench.mounted.path().join("store/index");
    match kind {
        Found::Flipped => flip(&path, length / 4 + bench.world.rng.below(length / 2))?,
        Found::Truncated => {
            let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
            file.set_len(bench.world.rng.between(length / 4, length - 1)).map_err(failed)?;
        }
        Found::Missing => fs::remove_file(&path).map_err(failed)?,
        Found::Foreign => {
            // What another store wrote, under a name that no segment here bears.
            let other = tempfile::tempdir().map_err(failed)?;
            let options = quittance::store::embedded::journal::Options { segment_bytes: 64 << 10, verify: false };
            let journal = quittance::store::embedded::journal::Journal::open(other.path(), options);
            journal.map_err(|error| error.to_string())?.0.close().map_err(|error| error.to_string())?;
            let from = other.path().join("journal/00000000000000000001.journal");
            fs::copy(from, bench.journal().join(format!("{:020}.journal", 1_u64 << 40))).map_err(failed)?;
            return Ok(0..0);
        }
        Found::NoIndex => {
            fs::remove_dir_all(&index).map_err(failed)?;
            return Ok(0..0);
        }
        Found::WrongIndex => {
            for entry in fs::read_dir(&index).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let length = fs::metadata(&path).map_err(failed)?.len();
                for _ in 0..if path.is_file() { 40 } else { 0 } {
                    flip(&path, bench.world.rng.below(length))?;
                }
            }
            return Ok(0..0);
        }
    }
    Ok(first..end)
}

fn flip(path: &Path, at: u64) -> Result<(), String> {
    let flipped = File::options().read(true).write(true).open(path).and_then(|file| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 0x10], at)
    });
    flipped.map_err(|error| format!("{}: {error}", path.display()))
}

/// Whether the daemon told what it found; the events that are gone, all of them within `range`.
fn told(
    bench: &mut Bench<'_>,
    kind: Found,
    range: std::ops::Range<u64>,
    positions: &BTreeMap<String, u64>,
) -> Result<Vec<String>, String> {
    connected(&bench.world.daemon);
    let listed = list(&bench.world.daemon)?;
    let id = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let listed: BTreeMap<String, String> = listed.iter().map(|item| (id(item, "event_id"), id(item, "id"))).collect();
    let within = |position: &u64| range.contains(position);
    let mut gone: Vec<String> = Vec::new();
    for (event, position) in positions {
        // A head may read, and its parts not.
        let whole = listed.get(event).is_some_and(|id| !within(position) || is_whole(&bench.world.daemon, id));
        if whole {
            continue;
        }
        if !within(position) {
            return Err(format!("record {position} is gone, which the fault did not touch ({range:?})"));
        }
        gone.push(event.clone());
    }
    let log = bench.world.daemon.log();
    let (damage, says) = (bench.damage(), log.contains("the journal is damaged here"));
    match kind {
        Found::NoIndex | Found::WrongIndex if !gone.is_empty() => {
            return Err("something is gone with the index, which is nobody's truth".into());
        }
        Found::Flipped if gone.len() > 2 => return Err(format!("one bit cost {} records", gone.len())),
        Found::Truncated | Found::Missing | Found::Foreign if !says || damage == 0.0 => {
            return Err(format!("it does not tell the damage (metric {damage}); it said:\n{}", tail(&log)));
        }
        Found::Flipped if !gone.is_empty() && damage == 0.0 => {
            return Err(format!("a record does not read, and nothing tells it; it said:\n{}", tail(&log)));
        }
        _ => {}
    }
    // Told once: the next start finds nothing new, unless something was only met since.
    bench.world.daemon.kill();
    bench.start()?;
    let again = bench.world.daemon.log().contains("the journal is damaged here");
    if again && kind != Found::Flipped {
        return Err(format!("the same damage is found again; it said:\n{}", tail(&bench.world.daemon.log())));
    }
    bench.world.posted(20, PATIENCE)?;
    Ok(gone)
}

/// Whether request and event of a listed notification still read.
fn is_whole(daemon: &Daemon, id: &str) -> bool {
    let answer = daemon.admin_get(&format!("/api/v1/notifications/{id}"));
    answer.status == 200 && answer.json()["request"].is_object() && answer.json()["event"].is_object()
}

/// A copy of yesterday in place of today's store.
fn restored(form: &Form) -> Result<Row, String> {
    let began = Instant::now();
    let node = node::shared();
    let mut bench = Bench::begin(Scene::on(&node), form.seed + 2);
    let store = bench.mounted.path().join("store");
    let backup = tempfile::tempdir().map_err(|e| e.to_string())?;
    let rounds = form.pick(1, 20);
    let mut acknowledged = 0;
    for round in 0..rounds {
        bench.world.posted(100, PATIENCE)?;
        bench.world.daemon.kill();
        let then = segments(&store.join("journal")).len();
        let copy = backup.path().join(round.to_string());
        copy_folder(&store, &copy)?;
        bench.start()?;
        let kept = ids(&list(&bench.world.daemon)?);
        bench.world.posted(100, PATIENCE)?;
        bench.world.daemon.kill();
        // The index is now and then the newer one: it speaks of records that the journal does not have.
        fs::remove_dir_all(store.join("journal")).map_err(|e| e.to_string())?;
        copy_folder(&copy.join("journal"), &store.join("journal"))?;
        if bench.world.rng.coin() {
            fs::remove_dir_all(store.join("index")).map_err(|e| e.to_string())?;
            copy_folder(&copy.join("index"), &store.join("index"))?;
        }
        bench.world.daemon.set_arguments(&["--restored"]);
        bench.start()?;
        bench.world.daemon.set_arguments(&[]);
        let listed = list(&bench.world.daemon)?;
        if !kept.is_subset(&ids(&listed)) {
            return Err(format!("something of the copy is not there ({then} segments)"));
        }
        if bench.world.daemon.ask("/api/v1/status")["store"]["restored"] != true {
            return Err("it does not tell that it was restored".into());
        }
        bench.world.posted(60, PATIENCE)?;
        let newest = list(&bench.world.daemon)?;
        let told = newest.iter().filter(|item| !kept.contains(item["id"].as_str().unwrap_or_default()));
        if let Some(item) = told.clone().find(|item| item["verdict"] == "fulfil" || item["verdict"] == "compare") {
            return Err(format!("a restored store tells a payment to be booked: {item}"));
        }
        if bench.damage() != 0.0 {
            return Err("a copy is no damage".into());
        }
        acknowledged += kept.len() as u64 + told.count() as u64;
        bench.world.daemon.kill();
        bench.world.daemon.set_arguments(&["--restored-ended"]);
        bench.start()?;
        bench.world.daemon.set_arguments(&[]);
    }
    // What was acknowledged after a copy went with it, and comes again with another id: the judge of one history
    // has no word for that, so what the copy held is compared above.
    let Bench { world, mounted, clock } = bench;
    let _ = world.senders.finish()?;
    drop((mounted, clock));
    let what = "a restored older copy of the store";
    Ok(Row { faults: rounds, acknowledged, ..Row::new("damage", what, form, began) })
}

fn ids(items: &[Value]) -> BTreeSet<String> {
    items.iter().filter_map(|item| item["id"].as_str()).map(str::to_owned).collect()
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", from.display());
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target).map_err(failed)?;
        }
    }
    Ok(())
}
