//! Section `process`: the daemon is killed at random and at every named point, stopped, frozen, starved of memory and of
//! descriptors, while senders post and the relay sends.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use quittance::failpoint::POINTS;
use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::http;
use crate::letters::{Letter, supply};
use crate::node;
use crate::report::{Form, Row, say};
use crate::scene::{Scene, connected};
use crate::world::{Plan, World, tail};

/// Numbers that no sender comes to.
const FAR: u64 = 100_000_000;
/// Connections that starve it.
const CROWD: usize = 600;

/// What is done to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// SIGKILL at any moment.
    Kill,
    /// SIGKILL in the middle of a start.
    KillInAStart,
    /// SIGKILL where the code says so.
    Point(&'static str),
    /// SIGTERM under load and in the middle of a request, which is answered: it ends well and in time.
    Term,
    /// SIGSTOP for longer than any time limit that somebody waits for, then SIGCONT.
    Freeze,
    /// It may have no more memory than it has.
    Memory,
    /// It may open no more files and connections than it has.
    Descriptors,
}

/// The section.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    let began = Instant::now();
    let node = node::shared();
    let scene = Scene::on(&node);
    // Limits of time that a short sleep exceeds; bodies that are rewritten at once.
    let mut plan = Plan::new(&scene, 2, form.seed).with("[retention]\nbodies = \"1s\"\n");
    plan.config.listener +=
        "header_timeout = \"1s\"\nbody_timeout = \"2s\"\nrequest_timeout = \"3s\"\nidle_timeout = \"5s\"\n";
    plan.pause = Duration::from_millis(form.pick(5, 2));
    let mut world = World::begin(scene, plan);
    let mut faults = plan_of(form, &mut world);
    let (total, kinds) = (faults.len(), faults.iter().copied().collect::<BTreeSet<Fault>>());
    let mut struck: BTreeMap<Fault, u64> = BTreeMap::new();
    let mut missed: BTreeMap<Fault, u64> = BTreeMap::new();
    let mut letters = supply(FAR).into_iter().flatten().filter(|letter| letter.claim.body.is_some());
    let mut others = Vec::new();
    let mut at = 0;
    while let Some(fault) = faults.pop() {
        at += 1;
        let letter = letters.next().ok_or("nothing is signed any more")?;
        let hit = strike(&mut world, fault, form, &letter);
        let hit = hit.map_err(|what| format!("{fault:?}, number {at}: {what}"))?;
        if fault == Fault::Term {
            others.push(letter.claim);
        }
        let count = if hit { &mut struck } else { &mut missed };
        *count.entry(fault).or_default() += 1;
        if !hit && missed[&fault] < 4 {
            // Not reached in time, so it is tried again among the others.
            faults.insert(0, fault);
        }
        if form.long && at % 50 == 0 {
            say(format!("{at} of {total}, {} acknowledged", world.senders.acknowledged()));
        }
    }
    if let Some(kind) = kinds.iter().find(|kind| !struck.contains_key(kind)) {
        return Err(format!("{kind:?} never struck: missed {missed:?}"));
    }
    if world.daemon.metric("quittance_journal_damage_total") != 0.0 {
        return Err("what happens to a process is no damage to the journal".into());
    }
    let kills = struck.iter().filter(|(fault, _)| matches!(fault, Fault::Kill | Fault::KillInAStart | Fault::Point(_)));
    let kills: u64 = kills.map(|(_, times)| times).sum();
    world.faults = struck.values().sum();
    let history = world.end_with(others, form.pick(28, 1_050))?;
    let what = format!("{kills} SIGKILLs, {} kinds of fault", struck.len());
    Ok(vec![Row::judged("process", what, form, began, &history)?])
}

/// Every fault of the run, in no order.
fn plan_of(form: &Form, world: &mut World<'_>) -> Vec<Fault> {
    let each = |fault, times: usize| std::iter::repeat_n(fault, times);
    let mut faults: Vec<Fault> = POINTS.iter().flat_map(|point| each(Fault::Point(point), form.pick(1, 30))).collect();
    faults.extend(each(Fault::Kill, form.pick(8, 460)));
    faults.extend(each(Fault::KillInAStart, form.pick(3, 70)));
    faults.extend(each(Fault::Term, form.pick(2, 30)));
    faults.extend(each(Fault::Freeze, form.pick(1, 4)));
    faults.extend(each(Fault::Memory, form.pick(1, 10)));
    faults.extend(each(Fault::Descriptors, form.pick(1, 10)));
    for at in (1..faults.len()).rev() {
        faults.swap(at, world.rng.below(at as u64 + 1) as usize);
    }
    faults
}

/// Whether it really struck. The daemon runs before and after. `letter` is one that nobody has posted.
fn strike(world: &mut World<'_>, fault: Fault, form: &Form, letter: &Letter) -> Result<bool, String> {
    match fault {
        Fault::Kill => {
            // Now and then nothing was acknowledged since the last one: also that is a moment.
            std::thread::sleep(Duration::from_millis(world.rng.between(0, 150)));
            world.kill()?;
            world.start_again();
            Ok(true)
        }
        Fault::KillInAStart => {
            world.kill()?;
            for _ in 0..world.rng.between(1, 3) {
                world.daemon.launch_only();
                std::thread::sleep(Duration::from_millis(world.rng.between(1, 80)));
                world.kill()?;
            }
            world.start_again();
            Ok(true)
        }
        Fault::Point(point) => at_point(world, point),
        Fault::Term => terminate(world, letter).map(|()| true),
        Fault::Freeze => freeze(world, form),
        Fault::Memory => starve_memory(world),
        Fault::Descriptors => starve_descriptors(world),
    }
}

/// SIGTERM while a request has come in part: what has begun is answered, and the process ends well and in time.
fn terminate(world: &mut World<'_>, letter: &Letter) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let (first, rest) = letter.request.split_at(letter.request.len() - 20);
    let mut stream = http::connect(world.daemon.public).map_err(failed)?;
    stream.write_all(first).map_err(failed)?;
    // What was sent after it was read: so was it.
    world.posted(4, Duration::from_secs(30))?;
    world.daemon.sigterm();
    stream.write_all(rest).map_err(failed)?;
    let answer = http::read_answer(&mut stream).map_err(failed)?;
    if !letter.is_acknowledged_by(&answer) {
        return Err(format!("what was begun before SIGTERM is answered {answer:?}"));
    }
    let status = world.daemon.wait_for_end(Duration::from_secs(15));
    if !status.success() {
        return Err(format!("SIGTERM ended with {status}; it said:\n{}", tail(&world.daemon.log())));
    }
    world.start_again();
    Ok(())
}

fn at_point(world: &mut World<'_>, point: &'static str) -> Result<bool, String> {
    // How often a point is passed in a second differs by three orders.
    let most = match point {
        "after-read" | "after-verify" | "before-answer" | "after-answer" => 60,
        "before-append" | "after-append" | "after-sync" | "after-visible" | "after-publish" | "after-confirm" => 40,
        "before-index" | "after-index" | "segment-made" | "segment-named" => 3,
        _ => 1,
    };
    let times = world.rng.between(1, most);
    world.kill()?;
    world.daemon.set_environment(&[("QUITTANCE_FAILPOINT", &format!("{point}:{times}"))]);
    let mut hit = !world.daemon.start_unless_it_ends();
    if !hit {
        world.found_again();
        let until = Instant::now() + Duration::from_secs(12);
        while !hit && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(3));
            hit = world.daemon.has_ended().is_some();
        }
    }
    if let Some(status) = world.daemon.has_ended().filter(|status| status.signal() != Some(Signal::KILL.as_raw())) {
        return Err(format!("it ended with {status}; it said:\n{}", tail(&world.daemon.log())));
    }
    world.daemon.kill();
    world.daemon.set_environment(&[]);
    world.start_again();
    Ok(hit)
}

fn freeze(world: &mut World<'_>, form: &Form) -> Result<bool, String> {
    connected(&world.daemon);
    let before = world.scene.proxy.connections();
    world.signal(Signal::STOP);
    // Longer than heartbeats and time limits of requests; in the long form than the relay's confirms and its watchdog too.
    std::thread::sleep(Duration::from_secs(form.pick(7, 100)));
    world.signal(Signal::CONT);
    world.posted(20, Duration::from_secs(30))?;
    connected(&world.daemon);
    if let Some(status) = world.daemon.has_ended() {
        return Err(format!("it woke up and ended with {status}; it said:\n{}", tail(&world.daemon.log())));
    }
    Ok(world.scene.proxy.connections() > before || !form.long)
}

/// From now on an allocation that needs a new page of the system fails.
fn starve_memory(world: &mut World<'_>) -> Result<bool, String> {
    // Its allocator takes much from the system ahead; one that does not has to ask for each bit.
    world.kill()?;
    world.daemon.set_environment(&[("MIMALLOC_ARENA_EAGER_COMMIT", "0"), ("MIMALLOC_ALLOW_THP", "0")]);
    world.start_again();
    world.posted(20, Duration::from_secs(30))?;
    let pid = pid_of(world)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.daemon.pid())).map_err(|e| e.to_string())?;
    let kilobytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default()
    };
    let allowed = (kilobytes("VmData:") + 512) * 1024;
    let limit = Rlimit { current: Some(allowed), maximum: None };
    rustix::process::prlimit(Some(pid), Resource::Data, limit).map_err(|e| e.to_string())?;
    // Bodies that never end keep what they have sent so far in memory.
    let mut crowd = Vec::new();
    let body = [b'x'; 3_900];
    let head =
        http::request("POST", "/paygol", &[("Content-Type", "application/json"), ("X-Pg-Sig", "0")], &[b'x'; 4_000]);
    let end = head.len() - 4_000;
    for _ in 0..CROWD {
        let Ok(mut stream) = TcpStream::connect(world.daemon.public) else { break };
        let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
        let _ = stream.write_all(&[&head[..end], &body[..]].concat());
        crowd.push(stream);
        if world.daemon.has_ended().is_some() {
            break;
        }
    }
    let until = Instant::now() + Duration::from_secs(3);
    while world.daemon.has_ended().is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = world.daemon.has_ended();
    world.daemon.kill();
    world.daemon.set_environment(&[]);
    world.start_again();
    match ended {
        Some(status) if status.signal() == Some(Signal::ABORT.as_raw()) => Ok(true),
        Some(status) => Err(format!("without memory it ended with {status}; it said:\n{}", tail(&world.daemon.log()))),
        None => Ok(false),
    }
}

/// What would open another file or connection fails; it goes on when there are descriptors again.
fn starve_descriptors(world: &mut World<'_>) -> Result<bool, String> {
    let pid = pid_of(world)?;
    let folder = format!("/proc/{}/fd", world.daemon.pid());
    let open = || std::fs::read_dir(&folder).map_or(0, |entries| entries.count() as u64);
    let limit = open() + 8;
    let old = rustix::process::getrlimit(Resource::Nofile);
    let tight = Rlimit { current: Some(limit), maximum: old.maximum };
    rustix::process::prlimit(Some(pid), Resource::Nofile, tight).map_err(|e| e.to_string())?;
    let crowd: Vec<_> = (0..40).filter_map(|_| TcpStream::connect(world.daemon.public).ok()).collect();
    let until = Instant::now() + Duration::from_secs(4);
    let mut used_up = false;
    while Instant::now() < until {
        // Kept by connections, or wanted by a new segment or a new connection to the broker.
        used_up |= open() + 1 >= limit;
        std::thread::sleep(Duration::from_millis(20));
    }
    rustix::process::prlimit(Some(pid), Resource::Nofile, old).map_err(|e| e.to_string())?;
    drop(crowd);
    if let Some(status) = world.daemon.has_ended() {
        return Err(format!("without descriptors it ended with {status}; it said:\n{}", tail(&world.daemon.log())));
    }
    world.posted(20, Duration::from_secs(30))?;
    connected(&world.daemon);
    Ok(used_up)
}

fn pid_of(world: &World<'_>) -> Result<Pid, String> {
    i32::try_from(world.daemon.pid()).ok().and_then(Pid::from_raw).ok_or_else(|| "no pid".to_owned())
}
