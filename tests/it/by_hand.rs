//! What an operator ends, lets in or sends again by hand: over the API of the real daemon, and kept through a crash.

use serde_json::{Value, json};

use crate::fixtures::{self, text};
use crate::harness::{Config, Daemon, eventually};

/// A held event of an order: something else was expected.
fn held(daemon: &Daemon, order: &str, transaction: &str) -> String {
    daemon.expects("paygol", order, ("1.00", "CLP"), json!({}));
    let paid = fixtures::paygol(json!({ "custom": order, "transaction_id": transaction }));
    assert_eq!(daemon.paygol(&paid).status, 200);
    let event = daemon.feed().pop().expect("an event");
    assert_eq!(event["data"]["verdict"], "hold");
    text(&event["id"])
}

fn settle(daemon: &Daemon, event: &str, document: &Value) -> (u16, Value) {
    let answer = daemon.admin_post(&format!("/api/v1/events/{event}/settle"), document);
    (answer.status, answer.json())
}

#[test]
fn a_hold_is_settled_by_hand_and_stays_so_after_a_crash() {
    let mut daemon = Daemon::start();
    let event = held(&daemon, "A", "1");
    let ruling = json!({ "verdict": "fulfil", "reason": "the provider's panel says so" });
    let (status, settled) = settle(&daemon, &event, &ruling);
    assert_eq!((status, &settled["settles"], &settled["verdict"]), (201, &json!(event), &json!("fulfil")));
    daemon.crash_and_restart();
    let (status, again) = settle(&daemon, &event, &ruling);
    assert_eq!((status, &again), (200, &settled), "the same again is the same");
    let feed = daemon.feed();
    assert_eq!(feed.len(), 2);
    assert_eq!(feed[1]["id"], settled["id"]);
    let data = &feed[1]["data"];
    assert_eq!((&data["verdict"], &data["assurance"]), (&json!("fulfil"), &json!("operator")));
    assert_eq!((&data["reasons"], &data["relates_to"]["as"]), (&json!(["settled"]), &json!("settles")));
    let timeline = daemon.ask("/api/v1/orders/paygol/A");
    let settlement = timeline["entries"].as_array().unwrap().iter().find(|e| e["what"] == "settlement").unwrap();
    assert_eq!(settlement["by_hand"], json!({ "who": "api", "reason": "the provider's panel says so" }));
    assert!(!feed[1].to_string().contains("panel"), "the reason is no business of the order system");
}

#[test]
fn what_cannot_be_settled_is_refused_and_changes_nothing() {
    let daemon = Daemon::start();
    let event = held(&daemon, "A", "1");
    let told = fixtures::paygol(json!({ "custom": "B", "transaction_id": "2" }));
    daemon.paygol(&told);
    let compare = text(&daemon.feed()[1]["id"]);
    let before = daemon.ask("/api/v1/status")["store"]["head"].clone();
    let good = json!({ "verdict": "refuse", "reason": "not ours" });
    let long = "x".repeat(501);
    for (id, document, status) in [
        (&*event, json!({ "verdict": "refuse", "reason": "" }), 422),
        (&*event, json!({ "verdict": "refuse", "reason": " \t" }), 422),
        (&*event, json!({ "verdict": "refuse", "reason": "two\nlines" }), 422),
        (&*event, json!({ "verdict": "refuse", "reason": long }), 422),
        (&*event, json!({ "verdict": "hold", "reason": "x" }), 422),
        (&*event, json!({ "verdict": "refuse" }), 400),
        (&*event, json!({ "verdict": "refuse", "reason": 1 }), 400),
        (&*event, json!({ "verdict": "refuse", "reason": "x", "amount": "1" }), 400),
        (&*event, json!("refuse"), 400),
        (&*compare, good.clone(), 409),
        ("019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10", good.clone(), 404),
        ("nonsense", good.clone(), 404),
        ("%00", good, 404),
    ] {
        let answer = daemon.admin_post(&format!("/api/v1/events/{id}/settle"), &document);
        assert_eq!(answer.status, status, "{id} {document}: {answer:?}");
        assert!(answer.header("content-type").unwrap().starts_with("application/problem+json"), "{answer:?}");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{answer:?}");
    }
    assert_eq!(daemon.feed().len(), 2);
    assert_eq!(daemon.ask("/api/v1/status")["store"]["head"], before, "nothing was written");
}

/// Entries of the feed with their replay.
fn entries(daemon: &Daemon) -> Vec<Value> {
    daemon.ask("/api/v1/events?limit=1000")["entries"].as_array().unwrap().clone()
}

fn pay(daemon: &Daemon, count: usize) {
    for n in 0..count {
        let status = ["completed", "failed"][n % 2];
        let paid = json!({ "custom": format!("O{n}"), "transaction_id": format!("T{n}"), "status": status });
        assert_eq!(daemon.paygol(&fixtures::paygol(paid)).status, 200);
    }
}

#[track_caller]
fn ended(daemon: &Daemon, id: &str) -> Value {
    let shown = eventually("the replay has ended", || {
        let replay = daemon.ask(&format!("/api/v1/replays/{id}"));
        if replay["state"] == "running" { Err(replay) } else { Ok(replay) }
    });
    shown
}

#[test]
fn a_replay_is_looked_at_first_and_then_sends_the_same_events_again() {
    let daemon = Daemon::start();
    pay(&daemon, 6);
    let before = daemon.feed();
    let head = daemon.ask("/api/v1/status")["store"]["head"].clone();
    let filter = json!({ "source": "paygol", "status": "failed", "dry_run": true });
    let look = daemon.admin_post("/api/v1/replays", &filter);
    assert_eq!((look.status, &look.json()["matched"]), (200, &json!(3)), "{look:?}");
    assert_eq!(look.json()["sample"].as_array().map(Vec::len), Some(3));
    assert_eq!(daemon.ask("/api/v1/status")["store"]["head"], head, "a look writes nothing");

    let begun = daemon.admin_send(&crate::http::request(
        "POST",
        "/api/v1/replays",
        &[("Content-Type", "application/json"), ("Quittance-Operator", "night shift")],
        json!({ "source": "paygol", "status": "failed", "rate": "max" }).to_string().as_bytes(),
    ));
    assert_eq!(begun.status, 201, "{begun:?}");
    let id = text(&begun.json()["id"]);
    assert_eq!(begun.header("location"), Some(&*format!("/api/v1/replays/{id}")));
    let replay = ended(&daemon, &id);
    assert_eq!((&replay["state"], &replay["redelivered"]), (&json!("done"), &json!(3)), "{replay}");
    assert_eq!(replay["asked_by"], "night shift");
    let all = entries(&daemon);
    assert_eq!(all.len(), 9);
    for (again, original) in all[6..].iter().zip([&before[1], &before[3], &before[5]]) {
        assert_eq!((&again["replay"], &again["event"]), (&json!(id), original));
    }
    assert!(all[..6].iter().all(|entry| entry["replay"].is_null()));
    assert_eq!(daemon.ask("/api/v1/replays")["replays"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_replay_keeps_its_rate_is_canceled_and_goes_on_after_a_crash() {
    let mut daemon = Daemon::start();
    pay(&daemon, 40);
    let begun = daemon.admin_post("/api/v1/replays", &json!({ "rate": "20/s" }));
    let id = text(&begun.json()["id"]);
    let target = format!("/api/v1/replays/{id}");
    eventually("some are sent", || {
        let replay = daemon.ask(&target);
        if replay["redelivered"].as_u64() >= Some(4) { Ok(()) } else { Err(replay) }
    });
    daemon.crash_and_restart();
    assert_ne!(daemon.ask(&target)["redelivered"], 40, "it is not through yet");
    let replay = ended(&daemon, &id);
    assert_eq!((&replay["state"], &replay["redelivered"]), (&json!("done"), &json!(40)));
    let all = entries(&daemon);
    let ids = |part: &[Value]| part.iter().map(|e| text(&e["event"]["id"])).collect::<Vec<_>>();
    assert_eq!(ids(&all[40..]), ids(&all[..40]), "each once, although the daemon was killed on the way");

    let begun = daemon.admin_post("/api/v1/replays", &json!({ "rate": 1 }));
    let id = text(&begun.json()["id"]);
    let target = format!("/api/v1/replays/{id}");
    let cancel = |daemon: &Daemon| daemon.admin_send(&crate::http::request("DELETE", &target, &[], b"")).status;
    assert_eq!(cancel(&daemon), 202);
    assert_eq!(ended(&daemon, &id)["state"], "canceled");
    assert_eq!(cancel(&daemon), 409);
    let count = entries(&daemon).len();
    assert!(count < 90, "{count}");
    daemon.crash_and_restart();
    assert_eq!(daemon.ask(&target)["state"], "canceled", "and stays so");
}

#[test]
fn a_replay_that_is_not_understood_sends_nothing() {
    let daemon = Daemon::start();
    pay(&daemon, 2);
    let head = daemon.ask("/api/v1/status")["store"]["head"].clone();
    for (document, status) in [
        (json!({ "sorce": "paygol" }), 422),
        (json!({ "status": "payed" }), 422),
        (json!({ "since": "yesterday" }), 422),
        (json!({ "rate": "0/s" }), 422),
        (json!({ "ids": ["019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10"] }), 422),
        (json!({ "exchange": "elsewhere" }), 422),
        (json!([]), 422),
        (json!({ "reason": "x".repeat(501) }), 422),
    ] {
        let answer = daemon.admin_post("/api/v1/replays", &document);
        assert_eq!(answer.status, status, "{document}: {answer:?}");
        assert!(answer.header("content-type").unwrap().starts_with("application/problem+json"), "{answer:?}");
    }
    let no_json = crate::http::request("POST", "/api/v1/replays", &[("Content-Type", "application/json")], b"{");
    assert_eq!(daemon.admin_send(&no_json).status, 400);
    assert_eq!(daemon.admin_get("/api/v1/replays/nonsense").status, 404);
    for target in ["/api/v1/replays/nonsense", "/api/v1/consumers/nobody"] {
        assert_eq!(daemon.admin_send(&crate::http::request("DELETE", target, &[], b"")).status, 404);
    }
    let retry = "/api/v1/dead-letters/019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10/retry";
    assert_eq!(daemon.admin_post(retry, &json!({})).status, 404);
    assert_eq!(daemon.ask("/api/v1/dead-letters"), json!({ "dead_letters": [], "next": null }));
    assert_eq!(daemon.ask("/api/v1/status")["store"]["head"], head, "nothing was written");
    assert_eq!(daemon.feed().len(), 2);
}

#[test]
fn a_reader_of_the_feed_is_forgotten() {
    let daemon = Daemon::with(Config { tables: "[relay.feed]\nconsumers = [\"shop\"]".into(), ..Config::default() });
    pay(&daemon, 1);
    daemon.ask("/api/v1/events?consumer=books");
    let names = |daemon: &Daemon| {
        let all = daemon.ask("/api/v1/consumers");
        all["consumers"].as_array().unwrap().iter().map(|c| text(&c["name"])).collect::<Vec<_>>()
    };
    eventually("both are known", || if names(&daemon) == ["books", "shop"] { Ok(()) } else { Err(names(&daemon)) });
    let forget = |name: &str| {
        daemon.admin_send(&crate::http::request("DELETE", &format!("/api/v1/consumers/{name}"), &[], b"")).status
    };
    assert_eq!((forget("shop"), forget("books"), forget("books")), (409, 204, 404));
    assert_eq!(names(&daemon), ["shop"]);
}
