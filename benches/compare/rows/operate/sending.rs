//! Sending again: replays beside the relay's own rate, a replay that is interrupted, dead letters, what was forged.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Scene, ask, get, lines, queued, until};
use crate::Bench;
use crate::load::{self, Pace};
use crate::material::PAYGOL_SECRET;
use crate::prefill::{self, FORGOTTEN_SECRET, LETTERS, OPERATED, SPACING};
use crate::report::Goal::Least;
use crate::rows::relay::{self, BACKLOG, confirmed, drained, drained_from};
use crate::servers::{Daemon, Server};

const LOOK: Duration = Duration::from_millis(5);
/// Turns of relay and replay.
const ROUNDS: usize = 3;
/// Events of a replay at a rate, which takes as long as the rate says.
const SLOWLY: u64 = 5000;
/// Of one that is interrupted, and how fast it goes.
const INTERRUPTED: u64 = 50_000;
const INTERRUPTED_RATE: u64 = 5000;

/// When the newest notification of the store arrived. Asked before anything is sent again: what that writes lies before it.
pub fn newest(server: &Server) -> Timestamp {
    let page = get(server, "/api/v1/notifications?limit=1");
    page["notifications"][0]["received_at"].as_str().and_then(|time| time.parse().ok()).expect("a time")
}

/// A filter that takes the newest `count` of the store.
fn the_newest(count: u64, newest: Timestamp) -> Value {
    // A moment earlier: times are shown without what is below a millisecond.
    let since = prefill::arrived(OPERATED - count, newest).checked_sub(SignedDuration::from_secs(SPACING / 2));
    json!({ "source": "paygol", "since": since.expect("a time").to_string() })
}

/// Begins a replay; its id.
#[track_caller]
fn begin(server: &Server, filter: &Value, rate: &str, count: u64) -> String {
    let mut wanted = filter.clone();
    wanted["rate"] = json!(rate);
    let (status, begun) = ask(server, "POST", "/api/v1/replays", Some(&wanted));
    assert!(status == 201 && begun["matched"] == count, "{status} {begun}");
    begun["id"].as_str().expect("an id").to_owned()
}

fn replay(server: &Server, id: &str) -> Value {
    get(server, &format!("/api/v1/replays/{id}"))
}

fn redelivered(server: &Server, id: &str) -> u64 {
    replay(server, id)["redelivered"].as_u64().expect("a number")
}

pub fn replays(bench: &mut Bench, row: &str, scene: &Scene, server: &Server, newest: Timestamp) {
    let full = prefill::store(&bench.cache, &bench.material, BACKLOG, BACKLOG);
    let filter = the_newest(BACKLOG, newest);
    let (mut again, mut first) = (vec![], vec![]);
    for _ in 0..bench.rounds.min(ROUNDS) {
        let vhost = scene.node.new_vhost();
        let store = bench.folder("backlog").join("store");
        relay::copy(&full, &store);
        let broker = Some(relay::url(&scene.node, &vhost));
        let other = bench.daemon(&Daemon { store: Some(store), broker, ..Daemon::default() });
        first.push(drained(&other, BACKLOG));
        other.stop();
        scene.node.must(&["delete_vhost", &vhost]);

        let before = confirmed(server);
        let id = begin(server, &filter, "max", BACKLOG);
        again.push(drained_from(server, before, BACKLOG));
        until("the replay ends", LOOK, || replay(server, &id)["state"] == "done");
        until("all of it is in the queue", LOOK, || queued(&scene.node, &scene.vhost) >= BACKLOG);
        scene.purge();
    }
    let ratio = super::super::ratios(&again, &first);
    let report = &mut bench.report;
    report.add(row, "replay at full rate, to the relay of a backlog", "", Some(Least(0.9)), ratio);
    report.add(row, "replay at full rate", "/s", None, again);
    report.add(row, "relay of a backlog", "/s", None, first);

    let filter = the_newest(SLOWLY, newest);
    let began = Instant::now();
    let id = begin(server, &filter, "500/s", SLOWLY);
    until("the replay ends", LOOK, || replay(server, &id)["state"] == "done");
    report.add(row, "replay at 500/s", "/s", None, vec![SLOWLY as f64 / began.elapsed().as_secs_f64()]);
    scene.purge();

    let since = the_newest(BACKLOG, newest)["since"].as_str().expect("a time").to_owned();
    let (out, took) = scene.run(&["replay", "--since", &since, "--reparse", "--json"]);
    let pages = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let pages = pages.map(|line| serde_json::from_slice::<Value>(line).expect("JSON"));
    let same: u64 = pages.map(|page| page["same"].as_u64().expect("a number")).sum();
    assert_eq!(same, BACKLOG, "today's code says of all of them what it said");
    bench.report.add(row, "replay --reparse", "/s", None, vec![BACKLOG as f64 / took.as_secs_f64()]);
}

/// Killed in the middle, it goes on where it was; canceled, it stops.
pub fn interrupted(bench: &mut Bench, row: &str, scene: &Scene, server: Server, newest: Timestamp) -> Server {
    let filter = the_newest(INTERRUPTED, newest);
    let id = begin(&server, &filter, &format!("{INTERRUPTED_RATE}/s"), INTERRUPTED);
    until("some of it is sent", LOOK, || redelivered(&server, &id) > INTERRUPTED / 10);
    let before = redelivered(&server, &id);
    server.kill();
    let began = Instant::now();
    let server = scene.start(bench);
    until("it goes on", LOOK, || {
        let now = redelivered(&server, &id);
        assert!(now >= before, "{now} after {before}");
        now > before
    });
    bench.report.add(row, "from SIGKILL to a replay that goes on", "s", None, vec![began.elapsed().as_secs_f64()]);
    let began = Instant::now();
    let (status, answer) = ask(&server, "DELETE", &format!("/api/v1/replays/{id}"), None);
    assert_eq!(status, 202, "{answer}");
    until("it is canceled", LOOK, || replay(&server, &id)["state"] == "canceled");
    bench.report.add(row, "a replay canceled", "ms", None, vec![began.elapsed().as_secs_f64() * 1e3]);
    until("what was written is delivered", LOOK, || server.metric("quittance_relay_backlog_events") == 0.0);
    assert!(redelivered(&server, &id) < INTERRUPTED, "it was over before it was canceled");
    scene.purge();
    server
}

pub fn dead_letters(bench: &mut Bench, row: &str, scene: &Scene, server: &Server) {
    let before = confirmed(server);
    assert_eq!(server.metric("quittance_dead_letters"), LETTERS as f64);
    let (_, took) = scene.run(&["dead-letters", "retry", "--all", "--json"]);
    assert_eq!(server.metric("quittance_dead_letters"), 0.0);
    assert!(confirmed(server) - before >= LETTERS as f64, "the broker has them");
    bench.report.add(row, "dead-letters retry --all, 1,000 of them", "s", None, vec![took.as_secs_f64()]);
    let (out, _) = scene.run(&["dead-letters", "list", "--json"]);
    assert_eq!(lines(&out), 0);
    scene.purge();
}

pub fn forged(bench: &mut Bench, row: &str, scene: &Scene, server: &Server) {
    let count = LETTERS as usize;
    let kept = || get(server, "/api/v1/quarantine?limit=1000")["entries"].as_array().map_or(0, Vec::len);
    // Slowly: what comes faster than the disk takes it is dropped.
    let requests = bench.material.paygol_signed_with(FORGOTTEN_SECRET, 0, count);
    let refused = load::run(server.address, &requests, 8, Pace::Open(500.0), Duration::from_secs(30));
    assert_eq!(refused.answers, 0, "the daemon does not know the secret");
    until("they are kept aside", LOOK, || kept() == count);
    let both = format!("secrets = [\"{PAYGOL_SECRET}\", \"{FORGOTTEN_SECRET}\"]");
    scene.reload(server, &format!("secrets = [\"{PAYGOL_SECRET}\"]"), &both);
    let (out, took) = scene.run(&["quarantine", "reverify"]);
    let said = String::from_utf8_lossy(&out).into_owned();
    assert!(said.starts_with("1000 looked at: 1000 genuine and let in, 0 known"), "{said}");
    assert_eq!(kept(), 0);
    bench.report.add(row, "quarantine reverify, 1,000 of them genuine now", "s", None, vec![took.as_secs_f64()]);
}
