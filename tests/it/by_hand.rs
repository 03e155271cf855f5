//! What an operator ends, lets in or sends again by hand: over the API of the real daemon, and kept through a crash.

use serde_json::{Value, json};

use crate::fixtures::{self, text};
use crate::harness::Daemon;

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
