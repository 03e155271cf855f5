//! Section `damage`: what a start finds on a disk that handed back something else.
//!
//! Whatever it is, the daemon comes up, tells what it found, and everything acknowledged that can still be read is there.
//! What the fault itself destroyed is excluded by its place in the journal, and by nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quittance::event::EventId;
use serde_json::Value;

use crate::disk_faults::{Bench, PATIENCE};
use crate::harness::Daemon;
use crate::judge::Name;
use crate::node;
use crate::report::{Form, Row, say};
use crate::scene::{Scene, connected};
use crate::world::{list, name_in, tail};

/// Between two posts of a sender. All that is kept is looked at after each fault, so it must not grow with the time alone.
const PAUSE: Duration = Duration::from_millis(25);

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

/// Section `damage`: what a start finds.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    let kinds = [Found::Flipped, Found::Truncated, Found::Missing, Found::Foreign, Found::NoIndex, Found::WrongIndex];
    Ok(vec![damaged(form, &kinds)?, restored(form)?])
}

/// What a start finds on a disk that handed back something else.
fn damaged(form: &Form, kinds: &[Found]) -> Result<Row, String> {
    let began = Instant::now();
    let node = node::shared();
    let mut bench = Bench::begin(Scene::on(&node), form.seed + 1, PAUSE);
    let rounds = form.pick(1, 7);
    let (mut positions, mut events) = (BTreeMap::new(), BTreeMap::new());
    let mut faults = 0;
    let mut destroyed: BTreeSet<String> = BTreeSet::new();
    for round in 0..rounds {
        for kind in kinds {
            // Enough that segments are sealed; some of it is delivered by now, and some is not.
            bench.world.posted(form.pick(90, 200), PATIENCE)?;
            for item in list(&bench.world.daemon)? {
                let event = item["event_id"].as_str().unwrap_or_default().to_owned();
                let position = EventId::parse(&event).ok_or("an id that does not read")?.position().0;
                positions.insert(event.clone(), position);
                events.insert(event, item);
            }
            bench.world.kill()?;
            let before = Instant::now();
            let listed = positions.values().max().copied().unwrap_or_default();
            let range = spoil(&mut bench, *kind, listed)?;
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
    let gone: BTreeSet<_> = destroyed.iter().filter_map(|event| events.get(event)).map(name_in).collect();
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

/// Does it to a sealed segment or to the index; the positions that it can have cost. What came after the last one that
/// was `listed` is let alone: nobody could tell that it is gone.
fn spoil(bench: &mut Bench<'_>, kind: Found, listed: u64) -> Result<std::ops::Range<u64>, String> {
    let failed = |error: std::io::Error| error.to_string();
    let journal = bench.mounted.path().join("store/journal");
    let sealed: Vec<_> = segments(&journal).into_iter().filter(|(.., end)| *end <= listed).collect();
    if sealed.is_empty() {
        return Err("no segment is sealed and known".into());
    }
    let (path, first, end) = sealed[bench.world.rng.below(sealed.len() as u64) as usize].clone();
    let length = fs::metadata(&path).map_err(failed)?.len();
    let index = bench.mounted.path().join("store/index");
    match kind {
        Found::Flipped => flip(&path, length / 4 + bench.world.rng.below(length / 2))?,
        Found::Truncated => {
            let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
            // Before the footer, whose loss is no damage: a power cut leaves segments without one.
            file.set_len(bench.world.rng.between(length / 4, length / 2)).map_err(failed)?;
        }
        Found::Missing => fs::remove_file(&path).map_err(failed)?,
        Found::Foreign => {
            // What another store wrote, under a name that no segment here bears.
            let other = tempfile::tempdir().map_err(failed)?;
            let options = quittance::store::embedded::journal::Options { segment_bytes: 64 << 10, verify: false };
            let other_journal = quittance::store::embedded::journal::Journal::open(other.path(), options);
            other_journal.map_err(|error| error.to_string())?.0.close().map_err(|error| error.to_string())?;
            let from = other.path().join("journal/00000000000000000001.journal");
            fs::copy(from, journal.join(format!("{:020}.journal", 1_u64 << 40))).map_err(failed)?;
            return Ok(0..0);
        }
        Found::NoIndex => {
            fs::remove_dir_all(&index).map_err(failed)?;
            return Ok(0..0);
        }
        Found::WrongIndex => {
            // sled's files, and the sorted ones beside them.
            for folder in [index.clone(), index.join("runs")] {
                for entry in fs::read_dir(&folder).map_err(failed)? {
                    let path = entry.map_err(failed)?.path();
                    let length = fs::metadata(&path).map_err(failed)?.len();
                    for _ in 0..if path.is_file() && length > 0 { 40 } else { 0 } {
                        flip(&path, bench.world.rng.below(length))?;
                    }
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
        // A segment of which little was left may have had nothing but its footer behind the cut.
        Found::Truncated if gone.is_empty() => {}
        Found::Truncated | Found::Missing | Found::Foreign if !says || damage == 0.0 => {
            return Err(format!("it does not tell the damage (metric {damage}); it said:\n{}", tail(&log)));
        }
        Found::Flipped if !gone.is_empty() && damage == 0.0 => {
            return Err(format!("a record does not read, and nothing tells it; it said:\n{}", tail(&log)));
        }
        _ => {}
    }
    // Told once: the next start finds nothing new, unless something was only met since.
    bench.world.kill()?;
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
    let mut bench = Bench::begin(Scene::on(&node), form.seed + 2, PAUSE);
    let store = bench.mounted.path().join("store");
    let backup = tempfile::tempdir().map_err(|e| e.to_string())?;
    let rounds = form.pick(1, 6);
    let mut acknowledged = 0;
    for round in 0..rounds {
        bench.world.posted(100, PATIENCE)?;
        // Of what the copy will hold; what comes after this may be in it too.
        let kept = ids(&list(&bench.world.daemon)?);
        bench.world.kill()?;
        let then = segments(&store.join("journal")).len();
        let copy = backup.path().join(round.to_string());
        copy_folder(&store, &copy)?;
        bench.start()?;
        bench.world.posted(100, PATIENCE)?;
        bench.world.kill()?;
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
        let before = bench.world.senders.record().acknowledged;
        let listed = ids(&list(&bench.world.daemon)?);
        if !kept.is_subset(&listed) {
            return Err(format!("something of the copy is not there ({then} segments)"));
        }
        if bench.world.daemon.ask("/api/v1/status")["store"]["restored"] != true {
            return Err("it does not tell that it was restored".into());
        }
        bench.world.posted(60, PATIENCE)?;
        let newest = list(&bench.world.daemon)?;
        let mut told = newest.iter().filter(|item| !listed.contains(item["id"].as_str().unwrap_or_default()));
        if let Some(item) = told.find(|item| item["verdict"] == "fulfil" || item["verdict"] == "compare") {
            return Err(format!("a restored store tells a payment to be booked: {item}"));
        }
        if bench.damage() != 0.0 {
            return Err("a copy is no damage".into());
        }
        // From here on an acknowledgement is an obligation again. What it says may be another thing: a registration that
        // the copy does not have no longer proves a return.
        let record = bench.world.senders.record();
        let of = |name: Name| (name.source, name.order, name.transaction);
        let stored: BTreeSet<_> = list(&bench.world.daemon)?.iter().map(|item| of(name_in(item))).collect();
        let since: Vec<_> = record.acknowledged.difference(&before).collect();
        let mut sent = record.sent.iter().filter(|claim| since.contains(&&claim.number));
        if let Some(claim) = sent.find(|claim| !stored.contains(&of(claim.name.clone()))) {
            return Err(format!("{} was acknowledged after the copy was restored, and is not there", claim.name));
        }
        acknowledged = kept.len() as u64 + since.len() as u64;
        bench.world.kill()?;
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
