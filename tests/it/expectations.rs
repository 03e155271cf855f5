//! What the order system says it expects, and what it is answered.

use serde_json::json;

use crate::fixtures;
use crate::harness::Daemon;

#[test]
fn a_registration_is_201_the_same_again_200_and_another_amount_409() {
    let mut daemon = Daemon::start();
    let mut registration = json!({ "source": "clickkw", "order_id": "42", "amount": { "value": "6.000", "currency": "KWD" },
        "session_id": "s-1", "indicator_status": "kw-indicator-0001" });
    let first = daemon.expect(&registration);
    assert_eq!(first.status, 201, "{first:?}");
    let answer = first.json();
    assert_eq!((answer["source"].as_str(), answer["order_id"].as_str()), (Some("clickkw"), Some("42")));
    assert!(answer["expires_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(answer.as_object().unwrap().len(), 4, "{answer}");
    daemon.crash_and_restart();
    let again = daemon.expect(&registration);
    assert_eq!((again.status, again.json()["return_url"].clone()), (200, answer["return_url"].clone()));

    for amount in [json!({ "value": "7", "currency": "KWD" }), json!({ "value": "6.000", "currency": "USD" })] {
        let other =
            daemon.expect(&fixtures::with(registration.clone(), json!({ "amount": amount, "session_id": "s-9" })));
        assert!(matches!(other.status, 409 | 422), "{other:?}");
        assert!(other.header("content-type").unwrap().starts_with("application/problem+json"), "{other:?}");
    }
    for number in 2..=8 {
        registration["session_id"] = json!(format!("s-{number}"));
        registration["indicator_status"] = json!(format!("kw-indicator-{number:04}"));
        assert_eq!(daemon.expect(&registration).status, 201, "session {number}");
    }
    registration["session_id"] = json!("s-9");
    registration["indicator_status"] = json!("kw-indicator-0009");
    let ninth = daemon.expect(&registration);
    assert!((400..500).contains(&ninth.status), "at most 8 open: {ninth:?}");
}

#[test]
fn another_amount_while_open_is_409_at_a_source_without_return_url_too() {
    let daemon = Daemon::start();
    daemon.expects("paygol", "order 9", ("10.00", "EUR"), json!({}));
    let registration = |value, currency| json!({ "source": "paygol", "order_id": "order 9", "amount": { "value": value, "currency": currency } });
    assert_eq!(daemon.expect(&registration("10.0", "EUR")).status, 200, "10.0 is 10.00");
    assert_eq!(daemon.expect(&registration("10.01", "EUR")).status, 409);
    assert_eq!(daemon.expect(&registration("10.00", "USD")).status, 409);
    assert_eq!(daemon.expect(&registration("10.00", "EUR")).json()["return_url"], serde_json::Value::Null);
}

#[test]
fn what_the_provider_cannot_carry_is_422() {
    let daemon = Daemon::start();
    for (source, order, value, currency) in [
        ("clickkw", "042", "6.000", "KWD"),
        ("clickkw", "T42", "6.000", "KWD"),
        ("clickkw", "12345678901", "6.000", "KWD"),
        ("clickkw", "42", "6.001", "KWD"),
        ("clickgem", "gem 7", "5", "CGM"),
        ("clickgem", "../7", "5", "CGM"),
    ] {
        let registration =
            json!({ "source": source, "order_id": order, "amount": { "value": value, "currency": currency } });
        let answer = daemon.expect(&registration);
        assert_eq!(answer.status, 422, "{registration}: {answer:?}");
    }
}

#[test]
fn what_is_no_registration_is_refused_in_problem_json() {
    let daemon = Daemon::start();
    let good = json!({ "source": "paygol", "order_id": "1", "amount": { "value": "1.00", "currency": "EUR" } });
    for changes in [
        json!({ "source": "nobody" }),
        json!({ "source": null }),
        json!({ "order_id": "" }),
        json!({ "amount": { "value": "-1", "currency": "EUR" } }),
        json!({ "amount": { "value": "1e3", "currency": "EUR" } }),
        json!({ "amount": { "value": 1, "currency": "EUR" } }),
        json!({ "amount": { "value": "1", "currency": "euro" } }),
        json!({ "kind": "gift" }),
        json!({ "expires_at": "tomorrow" }),
        json!({ "surprise": 1 }),
    ] {
        let answer = daemon.expect(&fixtures::with(good.clone(), changes.clone()));
        assert!((400..500).contains(&answer.status), "{changes}: {answer:?}");
        assert!(answer.header("content-type").unwrap().starts_with("application/problem+json"), "{answer:?}");
    }
    let cut = daemon.admin_send(&crate::http::request(
        "POST",
        "/api/v1/expectations",
        &[("Content-Type", "application/json")],
        b"{",
    ));
    assert_eq!(cut.status, 400);
}

#[test]
fn the_indicator_of_a_registration_is_never_told_back() {
    let daemon = Daemon::start();
    let session = json!({ "session_id": "s-1", "indicator_status": "kw-indicator-secret-7" });
    let path = daemon.expects("clickkw", "42", ("6.000", "KWD"), session);
    daemon.get(&format!("{path}?message=success&message_type=success&indicator_status=kw-indicator-secret-7"));
    let timeline = daemon.ask("/api/v1/orders/clickkw/42");
    let what: Vec<_> = timeline["entries"].as_array().unwrap().iter().map(|e| fixtures::text(&e["what"])).collect();
    assert_eq!(what.first().map(String::as_str), Some("expectation"), "oldest first: {timeline:#}");
    assert!(what.contains(&"notification".to_owned()) && what.contains(&"event".to_owned()), "{timeline:#}");
    assert!(!timeline.to_string().contains("kw-indicator-secret-7"));
}
