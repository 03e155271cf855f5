//! What an operator ends, lets in or sends again by hand: over the API of the real daemon, and kept through a crash.

use serde_json::{Value, json};

use crate::fixtures::{self, text};
use crate::harness::{self, Config, Daemon, eventually};

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
    eventually("the replay has ended", || {
        let replay = daemon.ask(&format!("/api/v1/replays/{id}"));
        if replay["state"] == "running" { Err(replay) } else { Ok(replay) }
    })
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
    let second = daemon.admin_post("/api/v1/replays", &json!({ "order_id": "O1", "rate": "max" })).json();
    let page = daemon.ask("/api/v1/replays?limit=1");
    assert_eq!((&page["replays"][0]["id"], &page["next"]), (&json!(id), &json!(id)));
    let rest = daemon.ask(&format!("/api/v1/replays?after={id}"));
    assert_eq!((&rest["replays"][0]["id"], &rest["next"]), (&second["id"], &Value::Null));
    for bad in ["after=nonsense", "limit=0", "before=1"] {
        assert_eq!(daemon.admin_get(&format!("/api/v1/replays?{bad}")).status, 400, "{bad}");
    }
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

fn quarantined(daemon: &Daemon, count: usize) -> Vec<Value> {
    eventually("they are kept aside", || {
        let entries = daemon.ask("/api/v1/quarantine")["entries"].as_array().unwrap().clone();
        if entries.len() == count { Ok(entries) } else { Err(entries) }
    })
}

/// A daemon whose secrets are wrong: what is genuine is refused.
fn misconfigured() -> Daemon {
    let wrong = crate::harness::sources()
        .replace(fixtures::PAYGOL_SECRET, "the-secret-of-before-0000")
        .replace(fixtures::LEGACY_SECRET, "another-secret-of-before");
    Daemon::with(Config { sources: wrong, ..Config::default() })
}

#[test]
fn after_a_key_was_mended_the_genuine_are_let_in_with_their_first_arrival() {
    let mut daemon = misconfigured();
    let genuine = fixtures::paygol(json!({ "custom": "A", "transaction_id": "1" }));
    assert_eq!(daemon.paygol(&genuine).status, 401);
    let legacy = fixtures::legacy(json!({ "custom": "B" }));
    assert_eq!(daemon.legacy(&legacy).status, 401);
    let forged = fixtures::paygol(json!({ "custom": "A", "transaction_id": "2" }));
    assert_eq!(daemon.paygol_with(&forged.to_string(), &"a".repeat(64)).status, 401);
    let guessed = fixtures::legacy(json!({ "custom": "C", "key": "a-key-that-somebody-guessed" }));
    assert_eq!(daemon.legacy(&guessed).status, 401);
    let entries = quarantined(&daemon, 4);
    // Several of one millisecond are in no order.
    let of = |source: &str| entries.iter().filter(move |entry| entry["source"] == source).collect::<Vec<_>>();
    let arrivals: Vec<String> = of("paygol").iter().map(|entry| text(&entry["received_at"])).collect();
    let shown = daemon.ask(&format!("/api/v1/quarantine/{}", text(&of("paygol-ipn")[0]["id"])));
    assert!(!shown.to_string().contains(fixtures::LEGACY_SECRET), "{shown}");
    assert_eq!(shown["secrets_cut"], 1);
    // The old configuration lets nothing in.
    let again = daemon.admin_post("/api/v1/quarantine/reverify", &json!({})).json();
    assert_eq!((&again["looked_at"], &again["let_in"]), (&json!(4), &json!(0)), "{again}");

    daemon.stop();
    std::fs::write(daemon.folder().join("quittance.toml"), Config::default().render()).unwrap();
    daemon.start_again();
    let again = daemon.admin_post("/api/v1/quarantine/reverify", &json!({ "source": "paygol" })).json();
    assert_eq!(
        (&again["looked_at"], &again["let_in"], &again["refused"]),
        (&json!(2), &json!(1), &json!(1)),
        "{again}"
    );
    let again = daemon.admin_post("/api/v1/quarantine/reverify", &json!({})).json();
    assert_eq!(
        (&again["let_in"], &again["refused"], &again["undecidable"]),
        (&json!(1), &json!(1), &json!(1)),
        "{again}"
    );
    let events = daemon.feed();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["subject"], "A");
    assert!(arrivals.contains(&text(&events[0]["time"])), "{arrivals:?}");
    assert_eq!((&events[0]["data"]["verdict"], &events[0]["data"]["assurance"]), (&json!("compare"), &json!("signed")));
    assert_eq!((&events[1]["data"]["verdict"], &events[1]["data"]["assurance"]), (&json!("hold"), &json!("bearer")));
    let listed = daemon.ask("/api/v1/notifications?outcome=released");
    assert_eq!(listed["notifications"].as_array().map(Vec::len), Some(2), "{listed}");
    // They count like all that is genuine.
    for series in [
        r#"notifications_total{outcome="accepted",source="paygol"}"#,
        r#"events_total{source="paygol",verdict="compare"}"#,
        r#"verified_with_key_total{key="1",source="paygol"}"#,
    ] {
        assert_eq!(daemon.metric(&format!("quittance_{series}")), 1.0, "{series}");
    }
    assert_eq!(quarantined(&daemon, 2).len(), 2, "what was let in is there no more");
    // The provider tries once more: it is known.
    assert_eq!(daemon.paygol(&genuine).status, 200);
    assert_eq!(daemon.feed().len(), 2);
}

#[test]
fn who_asks_for_another_look_and_hangs_up_has_it_done_all_the_same() {
    use std::io::Write as _;
    const MANY: usize = 60;
    let mut daemon = misconfigured();
    for number in 0..MANY {
        let genuine = fixtures::paygol(json!({ "custom": "A", "transaction_id": number.to_string() }));
        assert_eq!(daemon.paygol(&genuine).status, 401);
    }
    quarantined(&daemon, MANY);
    daemon.stop();
    std::fs::write(daemon.folder().join("quittance.toml"), Config::default().render()).unwrap();
    daemon.start_again();
    let headers = [("content-type", "application/json")];
    let mut impatient = crate::http::connect(daemon.admin).unwrap();
    impatient.write_all(&crate::http::request("POST", "/api/v1/quarantine/reverify", &headers, b"{}")).unwrap();
    drop(impatient);
    eventually("all are let in", || {
        let (kept, left) = (daemon.feed().len(), daemon.ask("/api/v1/quarantine")["entries"].as_array().map(Vec::len));
        if (kept, left) == (MANY, Some(0)) { Ok(()) } else { Err((kept, left)) }
    });
}

#[test]
fn what_nobody_can_prove_is_released_by_hand_and_held() {
    let mut daemon = Daemon::start();
    let forged = fixtures::paygol(json!({ "custom": "A", "transaction_id": "1" }));
    assert_eq!(daemon.paygol_with(&forged.to_string(), &"a".repeat(64)).status, 401);
    let id = text(&quarantined(&daemon, 1)[0]["id"]);
    let target = format!("/api/v1/quarantine/{id}/release");
    for (document, status) in [(json!({ "reason": "" }), 422), (json!({}), 400), (json!({ "reason": 1 }), 400)] {
        assert_eq!(daemon.admin_post(&target, &document).status, status, "{document}");
    }
    let nobody = "/api/v1/quarantine/019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10/release";
    assert_eq!(daemon.admin_post(nobody, &json!({ "reason": "x" })).status, 404);
    assert!(daemon.feed().is_empty());
    let released = daemon.admin_post(&target, &json!({ "reason": "the provider rang up" }));
    assert_eq!(released.status, 201, "{released:?}");
    assert_eq!(daemon.admin_post(&target, &json!({ "reason": "again" })).status, 404);
    daemon.crash_and_restart();
    let event = daemon.feed().pop().expect("an event");
    let data = &event["data"];
    assert_eq!(released.json()["event_id"], event["id"]);
    assert_eq!((&data["verdict"], &data["assurance"]), (&json!("hold"), &json!("operator")));
    assert_eq!((&data["reasons"], &data["order_id"]), (&json!(["released"]), &Value::Null));
    // It takes nothing from the genuine one, and no expectation makes more of it.
    daemon.expects("paygol", "A", ("7500.00", "CLP"), json!({}));
    assert_eq!(daemon.paygol(&forged).status, 200);
    assert_eq!(daemon.verdicts(), ["hold", "fulfil"]);
    let (status, _) = settle(&daemon, &text(&event["id"]), &json!({ "verdict": "fulfil", "reason": "x" }));
    assert_eq!(status, 409, "it says nothing that could be booked");
    let (status, _) = settle(&daemon, &text(&event["id"]), &json!({ "verdict": "refuse", "reason": "x" }));
    assert_eq!(status, 201);
}

#[test]
fn the_commands_do_what_the_api_does() {
    let daemon = Daemon::start();
    pay(&daemon, 12);
    let event = held(&daemon, "H", "H1");
    let run = |arguments: &[&str]| {
        let mut command = harness::quittance(daemon.folder(), &["--config", "quittance.toml"]);
        command.args(arguments).output().expect("it runs")
    };
    let settled = run(&["settle", &event, "fulfil", "--reason", "seen"]);
    assert_eq!(settled.status.code(), Some(0), "{settled:?}");
    let twice = run(&["settle", &event, "refuse", "--reason", "seen"]);
    assert_eq!(twice.status.code(), Some(1), "{twice:?}");
    assert_eq!(run(&["settle", "nonsense", "fulfil", "--reason", "x"]).status.code(), Some(2));
    let look = run(&["replay", "--source", "paygol", "--dry-run", "--json"]);
    let looked: Value = serde_json::from_slice(&look.stdout).expect("JSON");
    assert_eq!(looked["matched"], 14);
    let unasked = run(&["replay", "--source", "paygol"]);
    assert_eq!(unasked.status.code(), Some(1), "above ten it asks: {unasked:?}");
    assert_eq!(run(&["replay"]).status.code(), Some(2), "everything is said in so many words");
    let sent = run(&["replay", "--order", "H", "--rate", "max", "--json"]);
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    let sent: Value = serde_json::from_slice(&sent.stdout).expect("JSON");
    assert_eq!((&sent["state"], &sent["redelivered"]), (&json!("done"), &json!(2)));
    assert_eq!(run(&["replay", "--id", "019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10"]).status.code(), Some(1));
    for list in [&["dead-letters", "list"][..], &["quarantine", "list"], &["consumers", "list", "--json"]] {
        assert_eq!(run(list).status.code(), Some(0), "{list:?}");
    }
    assert_eq!(run(&["dead-letters", "retry", &event]).status.code(), Some(1));
    // What is released says what is left to do, and that is what works.
    let forged = fixtures::paygol(json!({ "custom": "R", "transaction_id": "R1" }));
    assert_eq!(daemon.paygol_with(&forged.to_string(), &"a".repeat(64)).status, 401);
    let id = text(&quarantined(&daemon, 1)[0]["id"]);
    let released = run(&["quarantine", "release", &id, "--reason", "the provider rang up"]);
    let (said, printed) = (String::from_utf8_lossy(&released.stderr), String::from_utf8_lossy(&released.stdout));
    assert!(said.contains("no order and no amount"), "{released:?}");
    let advice: Vec<Vec<&str>> = said.split('`').skip(1).step_by(2).map(|it| it.split(' ').skip(1).collect()).collect();
    let [show, end] = &advice[..] else { panic!("{said}") };
    let shown = run(&[show, &["--json"][..]].concat());
    assert!(shown.status.success() && String::from_utf8_lossy(&shown.stdout).contains("request"), "{shown:?}");
    assert_eq!((end[0], end[1]), ("settle", printed.trim()));
    assert_eq!(run(&["settle", end[1], "fulfil", "--reason", "x"]).status.code(), Some(1));
    assert_eq!(run(end).status.code(), Some(0), "{end:?}");
    assert_eq!(run(&["quarantine", "reverify"]).status.code(), Some(0));
    assert_eq!(run(&["consumers", "forget", "nobody"]).status.code(), Some(1));
}
