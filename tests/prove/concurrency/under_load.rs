//! What is changed and what is asked for while senders post: other configurations, and the past once more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::FAR;
use crate::consumer::Message;
use crate::fixtures::{self, PAYGOL_SECRET};
use crate::harness::{Config, Daemon, eventually_within, signal};
use crate::http;
use crate::judge::name_of;
use crate::letters::supply;
use crate::node;
use crate::report::{Form, Row};
use crate::scene::Scene;
use crate::world::{Plan, World, tail};

const NEXT_SECRET: &str = "0f6d3a2b-next-4c5e-9a8b-7d1e2f3a4b5c";
/// What a reload or a replay may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Configurations that take turns, and whether each is taken. What is wrong with a bad one stands behind a key that
/// nobody signs with: were it taken by halves, the senders would be refused.
fn configurations(usual: &Config) -> [(String, bool); 4] {
    let sources = |secrets: &str| usual.sources.replace(&format!("[\"{PAYGOL_SECRET}\"]"), secrets);
    let rotated = Config {
        sources: sources(&format!("[\"{NEXT_SECRET}\", \"{PAYGOL_SECRET}\"]")),
        listener: format!("{}max_connections = 300\nmax_in_flight = 900\n", usual.listener),
        tables: format!("{}\n[quarantine]\nage = \"7d\"\n", usual.tables),
        ..usual.clone()
    };
    let foreign = Config { sources: sources(&format!("[\"{NEXT_SECRET}\"]")), ..usual.clone() };
    let unknown = Config { tables: format!("{}\n[feeds]\n", foreign.tables), ..foreign.clone() };
    let restart = Config { store: "segment = \"128KiB\"".into(), ..foreign };
    [(rotated.render(), true), (unknown.render(), false), (usual.render(), true), (restart.render(), false)]
}

/// Puts a configuration where the daemon reads it and waits until it says that it took it, or did not.
fn reload(daemon: &Daemon, text: &str, is_taken: bool) -> Result<(), String> {
    let before = daemon.ask("/api/v1/status")["config"]["loaded_at"].clone();
    std::fs::write(daemon.folder().join("quittance.toml"), text).map_err(|error| error.to_string())?;
    signal(daemon.pid(), Signal::HUP);
    let told = eventually_within(PATIENCE, "", || {
        let now = daemon.ask("/api/v1/status")["config"].clone();
        let (loaded, refused) = (now["loaded_at"] != before, now["last_reload_error"].is_string());
        if (loaded, refused) == (is_taken, !is_taken) { Ok(()) } else { Err(now) }
    });
    told.map_err(|now| format!("a configuration that is to be taken: {is_taken}; it says {now}"))
}

/// SIGHUP again and again: what is good is in force, what is bad is refused as a whole, and no sender notices.
pub(super) fn reloads(form: &Form) -> Result<Row, String> {
    let began = Instant::now();
    let node = node::shared();
    let scene = Scene::on(&node);
    let plan = Plan::new(&scene, 5, form.seed);
    let configurations = configurations(&plan.config);
    let mut world = World::begin(scene, plan);
    let rounds = form.pick(8, 100);
    let mut letters = supply(FAR).into_iter().flatten().filter(|letter| letter.registration.is_none());
    let (mut others, mut by_second_key) = (Vec::new(), 0.0);
    for _ in 0..rounds {
        for (text, is_taken) in &configurations {
            reload(&world.daemon, text, *is_taken)?;
            world.faults += 1;
            // On a connection of its own: what is accepted from now on goes by what is in force now.
            let letter = letters.next().ok_or("nothing is signed any more")?;
            let answer = http::send(world.daemon.public, &letter.request).map_err(|error| error.to_string())?;
            if !letter.is_acknowledged_by(&answer) {
                return Err(format!("{} is answered {answer:?}", letter.claim.name));
            }
            others.push(letter.claim);
            // A key that is configured no more is counted no more.
            by_second_key += world.daemon.metric("quittance_verified_with_key_total{key=\"2\",source=\"paygol\"}");
        }
    }
    world.posted(form.pick(20, 200), PATIENCE)?;
    let again = world.senders.again();
    if again > 0 {
        let said = world.daemon.log();
        return Err(format!("{again} posts were not answered with success; it said:\n{}", tail(&said)));
    }
    if by_second_key == 0.0 {
        return Err("the rotated key was never the second one: its configuration was not in force".into());
    }
    let history = world.end_with(others, 4 * rounds)?;
    Row::judged("concurrency", format!("reload during load, {} refused", 2 * rounds), form, began, &history)
}

/// The past is asked for again and again: each of its events comes once more as itself, and nothing else changes.
pub(super) fn replays(form: &Form) -> Result<Row, String> {
    let began = Instant::now();
    let node = node::shared();
    let scene = Scene::on(&node);
    let mut plan = Plan::new(&scene, 5, form.seed);
    // The past grows while it is asked for.
    plan.pause = Duration::from_millis(form.pick(4, 20));
    let mut world = World::begin(scene, plan);
    let rounds = form.pick(2, 10);
    let mut matched: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..rounds {
        world.posted(form.pick(100, 200), PATIENCE)?;
        let wanted = [
            json!({ "rate": "max" }),
            json!({ "source": "paygol", "rate": "max" }),
            json!({ "status": "paid", "rate": "400/s" }),
        ];
        let ids = wanted.iter().map(|wanted| begin(&world.daemon, wanted)).collect::<Result<Vec<_>, _>>()?;
        for id in ids {
            let count = finished(&world.daemon, &id)?;
            world.faults += count;
            matched.insert(id, count);
        }
    }
    if world.senders.again() > 0 {
        return Err(format!("{} posts were not answered with success", world.senders.again()));
    }
    let history = world.end(100 * rounds)?;
    for (id, count) in matched {
        let again = came_again(&history.delivered, &id)?;
        if again != count {
            return Err(format!("replay {id} says that it sent {count} events, and {again} came"));
        }
    }
    let what = format!("replay during load, {} replays", 3 * rounds);
    Row::judged("concurrency", what, form, began, &history)
}

/// Begins a replay; its id.
fn begin(daemon: &Daemon, wanted: &Value) -> Result<String, String> {
    let answer = daemon.admin_post("/api/v1/replays", wanted);
    if answer.status == 201 { Ok(fixtures::text(&answer.json()["id"])) } else { Err(format!("{wanted}: {answer:?}")) }
}

/// Waits for the end of a replay; how many events it sent again, which is all that it found.
fn finished(daemon: &Daemon, id: &str) -> Result<u64, String> {
    let ended = eventually_within(PATIENCE, "", || {
        let replay = daemon.ask(&format!("/api/v1/replays/{id}"));
        if replay["state"] == "running" { Err(replay) } else { Ok(replay) }
    });
    let replay = ended.map_err(|replay| format!("it does not end: {replay}"))?;
    let all = replay["state"] == "done" && replay["gone"] == 0 && replay["redelivered"] == replay["matched"];
    let count = replay["redelivered"].as_u64().filter(|count| all && *count > 0);
    count.ok_or_else(|| format!("not everything was sent again: {replay}"))
}

/// How many different events a replay brought: each was there before, and those of an order come in its order.
fn came_again(delivered: &[Message], replay: &str) -> Result<u64, String> {
    let (mut before, mut again) = (BTreeSet::new(), BTreeSet::new());
    let mut orders: BTreeMap<(String, String), u64> = BTreeMap::new();
    for message in delivered {
        if message.headers["x-quittance-replay"] != replay {
            before.insert(message.id());
            continue;
        }
        let name = name_of(&message.event);
        if !before.contains(message.id()) {
            return Err(format!("{name} came with a replay and never before"));
        }
        if again.insert(message.id()) {
            let last = orders.entry((name.source.clone(), name.order.clone())).or_default();
            if message.sequence() <= *last {
                return Err(format!("{name}: replayed as {} after {last}", message.sequence()));
            }
            *last = message.sequence();
        }
    }
    Ok(again.len() as u64)
}
