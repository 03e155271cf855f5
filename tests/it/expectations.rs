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
        assert_eq!(other.status, 409, "{other:?}");
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
    assert_eq!(ninth.status, 409, "at most 8 open: {ninth:?}");
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
fn another_currency_at_a_source_of_one_currency_is_409_while_the_order_is_open_and_422_else() {
    let daemon = Daemon::start();
    let registration = |source: &str, order: &str, value: &str, currency: &str| {
        let amount = json!({ "value": value, "currency": currency });
        daemon.expect(&json!({ "source": source, "order_id": order, "amount": amount }))
    };
    for (source, order, currency) in [("clickpay-id", "T1231511321515", "IDR"), ("clickkw", "42", "KWD")] {
        assert_eq!(registration(source, order, "6.00", "EUR").status, 422, "{source}: nothing is open");
        assert_eq!(registration(source, order, "6.001", currency).status, 422, "{source}: more digits than are paid");
        assert_eq!(registration(source, order, "6.00", currency).status, 201);
        let other = registration(source, order, "6.00", "EUR");
        assert_eq!(other.status, 409, "{source}: {other:?}");
        assert_eq!(other.header("content-type"), Some("application/problem+json"));
        assert_eq!(registration(source, order, "6.001", currency).status, 409, "{source}: another amount");
        assert_eq!(registration(source, order, "6", currency).status, 200, "the first is untouched");
    }
}

#[test]
fn a_key_that_stands_twice_or_is_unknown_is_refused_by_name() {
    let daemon = Daemon::start();
    let post = |body: &str| {
        let headers = [("Content-Type", "application/json")];
        daemon.admin_send(&crate::http::request("POST", "/api/v1/expectations", &headers, body.as_bytes()))
    };
    let amount = r#"{"value":"1.00","currency":"EUR"}"#;
    for (body, named) in [
        (format!(r#"{{"source":"paygol","order_id":"1","order_id":"2","amount":{amount}}}"#), "order_id"),
        (format!(r#"{{"source":"paygol","order_id":"1","\u006frder_id":"2","amount":{amount}}}"#), "order_id"),
        (format!(r#"{{"source":"paygol","order_id":"1","amount":{amount},"amount":{amount}}}"#), "amount"),
        (
            r#"{"source":"paygol","order_id":"1","amount":{"value":"1","value":"2","currency":"EUR"}}"#.into(),
            "amount.value",
        ),
        (format!(r#"{{"source":"paygol","order_id":"1","ammount":1,"amount":{amount}}}"#), "ammount"),
        (
            r#"{"source":"paygol","order_id":"1","amount":{"value":"1","currency":"EUR","unit":1}}"#.into(),
            "amount.unit",
        ),
    ] {
        let answer = post(&body);
        assert!(matches!(answer.status, 400 | 422), "{body}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{body}");
        let detail = fixtures::text(&answer.json()["detail"]);
        assert!(detail.starts_with(&format!("{named}: ")), "{body}: {detail}");
    }
    for order in ["1", "2"] {
        assert_eq!(
            daemon.ask(&format!("/api/v1/orders/paygol/{order}"))["entries"],
            json!([]),
            "nothing is registered"
        );
    }
}

#[test]
fn clickgems_session_is_the_getid_of_creates_answer_in_whatever_case() {
    let daemon = Daemon::start();
    let registration = |session: &str| {
        let amount = json!({ "value": "5", "currency": "CGM" });
        json!({ "source": "clickgem", "order_id": "gem-1", "amount": amount, "session_id": session })
    };
    for bad in ["s-1", "", &"a".repeat(31), &"a".repeat(33), &"g".repeat(32)] {
        let answer = daemon.expect(&registration(bad));
        assert_eq!(answer.status, 422, "{bad}: {answer:?}");
        assert!(fixtures::text(&answer.json()["detail"]).starts_with("session_id: "), "{answer:?}");
    }
    let getid = "0123456789ABCDEF0123456789abcdef";
    let answer = daemon.expect(&registration(getid));
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(daemon.expect(&registration(&getid.to_lowercase())).status, 200, "the same");
    let url = fixtures::text(&answer.json()["return_url"]);
    let path = url.strip_prefix("https://pay.example.com").unwrap().to_owned();
    assert_eq!(daemon.get(&format!("{path}?getid={getid}")).status, 303);
    assert_eq!(daemon.only_event()["reasons"], json!(["browser"]), "it is the order's own");
    assert_eq!(daemon.metric(r#"quittance_forgery_alarms_total{kind="getid",source="clickgem"}"#), 0.0);
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
