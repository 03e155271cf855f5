//! `serve --restored`: a backup goes on under a timeline of its own. What was read before the backup stays read, what
//! was read after it is told to be lost, and no payment is booked twice by itself.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixtures::{self, paygol};
use crate::harness::{Config, Daemon, Folder, eventually, quittance};

#[track_caller]
fn pay(daemon: &Daemon, number: u32) {
    let fields = paygol(json!({ "transaction_id": format!("T-{number}"), "custom": format!("order {number}") }));
    assert_eq!(daemon.paygol(&fields).status, 200);
}

fn orders(page: &Value) -> Vec<String> {
    page["entries"].as_array().unwrap().iter().map(|e| fixtures::text(&e["event"]["data"]["order_id"])).collect()
}

#[track_caller]
fn newest(daemon: &Daemon) -> String {
    fixtures::text(&daemon.ask("/api/v1/events")["next"])
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Asks with a cursor that must be 410 for a reason that names this; the orders after the cursor that it offers.
#[track_caller]
fn gone(daemon: &Daemon, cursor: &str, why: &str) -> Vec<String> {
    let answer = daemon.admin_get(&format!("/api/v1/events?after={cursor}"));
    assert_eq!(answer.status, 410, "{answer:?}");
    assert!(answer.text().contains(why), "{answer:?}");
    let oldest = fixtures::text(&answer.json()["oldest"]);
    orders(&daemon.ask(&format!("/api/v1/events?after={oldest}")))
}

#[track_caller]
fn after(daemon: &Daemon, cursor: &str) -> Vec<String> {
    orders(&daemon.ask(&format!("/api/v1/events?after={cursor}")))
}

fn numbered(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| format!("order {number}")).collect()
}

#[test]
fn a_copy_goes_on_from_cursors_of_before_it_and_tells_those_of_the_lost_history() {
    let original = Daemon::start();
    (1..=3).for_each(|number| pay(&original, number));
    let page = original.ask("/api/v1/events?limit=2");
    let (second, third) = (fixtures::text(&page["next"]), newest(&original));
    // As a backup does it: while it runs.
    let backup = Folder::new();
    let store = backup.path().join("store");
    copy(&original.store(), &store);
    (4..=6).for_each(|number| pay(&original, number));
    let page = original.ask("/api/v1/events?limit=5");
    let (fifth, sixth) = (fixtures::text(&page["next"]), newest(&original));
    assert_eq!(after(&original, &third), numbered(4..=6));
    drop(original);

    let arguments = vec!["--restored".to_owned()];
    let mut restored = Daemon::with(Config { store_path: store, arguments, ..Config::default() });
    assert_eq!(after(&restored, &second), numbered(3..=3));
    assert_eq!(after(&restored, &third), Vec::<String>::new(), "nothing came since");
    for lost in [&fifth, &sixth] {
        assert_eq!(gone(&restored, lost, "backup"), numbered(1..=3));
    }
    // Where the lost events stood others come to stand: a cursor from there would skip them.
    (11..=16).for_each(|number| pay(&restored, number));
    let since = [numbered(1..=3), numbered(11..=16)].concat();
    assert_eq!(after(&restored, &second), since[2..]);
    for lost in [&fifth, &sixth] {
        assert_eq!(gone(&restored, lost, "backup"), since);
    }
    // Where a reader stands is told in a cursor that is good for going on.
    let here = newest(&restored);
    restored.ask(&format!("/api/v1/events?consumer=books&after={here}"));
    eventually("it is written", || {
        let books = restored.ask("/api/v1/consumers")["consumers"][0].clone();
        if books["cursor"] == here.as_str() { Ok(()) } else { Err(books) }
    });
    // What was told since is found by its event's id, as what was told before is, and the newest are the newest.
    let run = |arguments: &[&str]| {
        let arguments = [&["--config", "quittance.toml"], arguments].concat();
        let output = quittance(restored.folder(), &arguments).output().expect("runs");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    for event in restored.feed() {
        let (id, order) = (fixtures::text(&event["id"]), fixtures::text(&event["data"]["order_id"]));
        let shown = run(&["show", &id]);
        assert!(shown.contains(&order), "{order}: {shown}");
    }
    assert!(run(&["tail", "--no-follow", "--lines", "1"]).contains("order 16"));
    // Whoever follows the daemon's own stream is told the same.
    let headers = [("Accept", "text/event-stream"), ("Last-Event-ID", fifth.as_str())];
    assert_eq!(restored.admin_send(&crate::http::request("GET", "/api/v1/events", &headers, b"")).status, 410);

    // Every payment holds, registered or not, until somebody has compared: also after the next start.
    let paid = |restored: &Daemon, number: u32| {
        pay(restored, number);
        let data = restored.last_event();
        (fixtures::text(&data["verdict"]), data["reasons"].clone())
    };
    restored.expects("paygol", "order 21", ("7500", "CLP"), json!({}));
    assert_eq!(paid(&restored, 21), ("hold".to_owned(), json!(["restored"])));
    let now = newest(&restored);
    restored.set_arguments(&[]);
    restored.crash_and_restart();
    assert_eq!(paid(&restored, 22), ("hold".to_owned(), json!(["restored"])));
    assert_eq!(restored.ask("/api/v1/status")["store"]["restored"], true);
    restored.set_arguments(&["--restored-ended"]);
    restored.crash_and_restart();
    assert_eq!(restored.ask("/api/v1/status")["store"]["restored"], false);
    assert_eq!(paid(&restored, 23).0, "compare");
    restored.expects("paygol", "order 24", ("7500", "CLP"), json!({}));
    assert_eq!(paid(&restored, 24).0, "fulfil");
    // The doubt has ended; what is lost stays lost, and what was read stays read.
    assert_eq!(after(&restored, &now), numbered(22..=24));
    assert_eq!(after(&restored, &third)[..6], numbered(11..=16));
    gone(&restored, &sixth, "backup");
}

#[test]
fn restored_on_the_store_of_a_running_daemon_is_refused_and_changes_nothing() {
    let mut daemon = Daemon::start();
    pay(&daemon, 1);
    let arguments = ["--config", "quittance.toml", "serve", "--restored"];
    let output = quittance(daemon.folder(), &arguments).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&daemon.pid().to_string()), "it names who has the store: {said}");
    pay(&daemon, 2);
    assert_eq!(daemon.verdicts(), ["compare", "compare"]);
    assert_eq!(daemon.ask("/api/v1/status")["store"]["restored"], false);
    daemon.crash_and_restart();
    pay(&daemon, 3);
    assert_eq!(daemon.last_event()["verdict"], "compare", "nothing was written by who was refused");
}

#[test]
fn restored_on_a_store_that_lost_nothing_invalidates_no_cursor() {
    let mut daemon = Daemon::start();
    (1..=3).for_each(|number| pay(&daemon, number));
    let page = daemon.ask("/api/v1/events?limit=1");
    let (first, third) = (fixtures::text(&page["next"]), newest(&daemon));
    assert!(daemon.stop().success());
    for round in 0..2 {
        daemon.set_arguments(&["--restored"]);
        daemon.start_again();
        pay(&daemon, 4 + round);
        assert_eq!(after(&daemon, &first), numbered(2..=4 + round), "round {round}");
        assert_eq!(after(&daemon, &third), numbered(4..=4 + round), "round {round}");
        daemon.kill();
    }
}

#[test]
fn a_cursor_is_not_judged_while_the_store_does_not_know_its_history() {
    let mut daemon = Daemon::start();
    (1..=2).for_each(|number| pay(&daemon, number));
    let page = daemon.ask("/api/v1/events?limit=1");
    let first = fixtures::text(&page["next"]);
    assert!(daemon.stop().success());
    // A disk that does not come up: the journal cannot be opened yet.
    let (journal, aside) = (daemon.store().join("journal"), daemon.store().join("aside"));
    fs::rename(&journal, &aside).unwrap();
    fs::write(&journal, b"").unwrap();
    daemon.launch_again();
    for target in ["/api/v1/events".to_owned(), format!("/api/v1/events?after={first}")] {
        let answer = daemon.admin_get(&target);
        assert_eq!(answer.status, 503, "neither gone nor empty: {answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        let headers = [("Accept", "text/event-stream")];
        assert_eq!(daemon.admin_send(&crate::http::request("GET", &target, &headers, b"")).status, 503);
    }
    fs::remove_file(&journal).unwrap();
    fs::rename(&aside, &journal).unwrap();
    daemon.wait_until_ready();
    assert_eq!(after(&daemon, &first), numbered(2..=2));
}
