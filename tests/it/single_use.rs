//! An order system never does the same thing twice unknowingly (M1, M2, M4).

use std::thread;

use serde_json::{Value, json};

use crate::fixtures::{self, legacy, pay_in, pay_out, paygol};
use crate::harness::{Config, Daemon};

fn told(verdicts: &[String]) -> usize {
    verdicts.iter().filter(|v| matches!(v.as_str(), "fulfil" | "compare")).count()
}

#[test]
fn thirty_two_deliveries_at_once_are_one_event() {
    let daemon = Daemon::start();
    let fields = pay_in(json!({}));
    let body = fixtures::clickpay_body(&fields, "clickpay-1024").to_string();
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                assert_eq!(daemon.post("/clickpay", "application/json", body.as_bytes()).text(), "SUCCESS");
            });
        }
    });
    daemon.only_event();
    let count = |outcome| {
        daemon.metric(&format!(r#"quittance_notifications_total{{outcome="{outcome}",source="clickpay-id"}}"#))
    };
    assert_eq!((count("accepted"), count("duplicate")), (1.0, 31.0));
}

#[test]
fn one_transaction_told_by_two_sources_of_an_account_is_told_once_even_at_the_same_moment() {
    let daemon = Daemon::start();
    let body = fixtures::clickpay_body(&pay_in(json!({})), "clickpay-1024").to_string();
    thread::scope(|scope| {
        for path in ["/clickpay", "/clickpay/twin"] {
            let (daemon, body) = (&daemon, &body);
            scope.spawn(move || assert_eq!(daemon.post(path, "application/json", body.as_bytes()).text(), "SUCCESS"));
        }
    });
    let events = daemon.events();
    assert_eq!(events.len(), 2, "each source tells what it heard");
    assert_eq!(told(&daemon.verdicts()), 1, "{events:#?}");
}

#[test]
fn two_transactions_for_one_expected_order_are_paid_twice() {
    let daemon = Daemon::start();
    daemon.expects("clickpay-id", "T1231511321515", ("10000", "IDR"), json!({}));
    assert_eq!(daemon.clickpay("/clickpay", &pay_in(json!({}))).text(), "SUCCESS");
    assert_eq!(
        daemon.clickpay("/clickpay", &pay_in(json!({ "platOrderNum": "552538080348274699" }))).text(),
        "SUCCESS"
    );
    let events = daemon.events();
    assert_eq!((events[0]["verdict"].as_str(), events[0]["expectation"].as_str()), (Some("fulfil"), Some("match")));
    assert_eq!((events[1]["verdict"].as_str(), &events[1]["reasons"]), (Some("hold"), &json!(["paid_twice"])));
    assert_eq!((events[0]["sequence"].as_u64(), events[1]["sequence"].as_u64()), (Some(1), Some(2)));
    assert_eq!(events[1]["stale"], true);
}

#[test]
fn what_was_said_before_a_crash_is_not_said_again_after_it() {
    let mut daemon = Daemon::start();
    daemon.expects("clickpay-id", "T1231511321515", ("10000.00", "IDR"), json!({}));
    assert_eq!(daemon.clickpay("/clickpay", &pay_in(json!({}))).text(), "SUCCESS");
    daemon.crash_and_restart();
    assert_eq!(daemon.clickpay("/clickpay", &pay_in(json!({}))).text(), "SUCCESS");
    assert_eq!(daemon.clickpay("/clickpay/twin", &pay_in(json!({}))).text(), "SUCCESS");
    assert_eq!(
        daemon.clickpay("/clickpay", &pay_in(json!({ "platOrderNum": "552538080348274699" }))).text(),
        "SUCCESS"
    );
    assert_eq!(daemon.verdicts()[0], "fulfil");
    assert_eq!(told(&daemon.verdicts()), 1, "{:#?}", daemon.feed());
}

#[test]
fn without_its_index_the_store_still_knows_what_it_said() {
    let mut daemon = Daemon::start();
    assert_eq!(daemon.clickpay("/clickpay", &pay_in(json!({}))).text(), "SUCCESS");
    let before = daemon.feed();
    assert!(daemon.stop().success());
    let index = daemon.store().join("index");
    assert!(index.is_dir(), "the index is a folder of the store");
    std::fs::remove_dir_all(index).unwrap();
    daemon.start_again();
    assert_eq!(daemon.clickpay("/clickpay", &pay_in(json!({}))).text(), "SUCCESS");
    assert_eq!(daemon.feed(), before);
}

#[test]
fn the_parts_of_a_key_are_joined_with_their_lengths() {
    let daemon = Daemon::start();
    for (transaction, status) in [("X-1", "completed"), ("X-1c", "ompleted"), ("X-", "1completed")] {
        assert_eq!(daemon.paygol(&paygol(json!({ "transaction_id": transaction, "status": status }))).status, 200);
    }
    let events = daemon.events();
    assert_eq!(events.len(), 3, "{events:#?}");
    let accepted = daemon.metric(r#"quittance_notifications_total{outcome="accepted",source="paygol"}"#);
    assert_eq!(accepted, 3.0, "none of them contradicts another");
    assert_eq!([&events[0], &events[1], &events[2]].map(|e| e["status"].clone()), ["paid", "unknown", "unknown"]);
}

#[test]
fn the_same_key_with_another_amount_is_a_conflict_and_held_and_its_repeat_is_a_duplicate() {
    let daemon = Daemon::start();
    assert_eq!(daemon.paygol(&paygol(json!({}))).status, 200);
    for _ in 0..2 {
        assert_eq!(daemon.paygol(&paygol(json!({ "price": "75.00" }))).status, 200);
    }
    let events = daemon.events();
    assert_eq!(events.len(), 2, "{events:#?}");
    assert_eq!((events[1]["verdict"].as_str(), &events[1]["reasons"]), (Some("hold"), &json!(["conflict"])));
    assert_eq!(events[1]["relates_to"]["as"], "contradicts");
    assert_eq!(daemon.metric(r#"quittance_forgery_alarms_total{kind="conflict",source="paygol"}"#), 1.0);
    assert_eq!(daemon.metric(r#"quittance_notifications_total{outcome="conflict",source="paygol"}"#), 1.0);
}

#[test]
fn at_most_eight_conflicts_of_a_key_become_events() {
    let daemon = Daemon::start();
    for cents in 10..30 {
        assert_eq!(daemon.paygol(&paygol(json!({ "price": format!("75.{cents}") }))).status, 200);
    }
    assert_eq!(daemon.feed().len(), 9, "the first and eight that contradict it");
}

#[test]
fn a_repeat_that_differs_in_what_does_not_decide_is_a_duplicate() {
    let daemon = Daemon::start();
    assert_eq!(daemon.paygol(&paygol(json!({}))).status, 200);
    let later = paygol(json!({ "completed_at": "2020-11-26T16:23:00-03:00", "price": "7500.0", "country": null }));
    assert_eq!(daemon.paygol(&later).status, 200);
    daemon.only_event();
}

#[test]
fn a_late_message_does_not_drag_a_paid_order_back() {
    let daemon = Daemon::start();
    assert_eq!(daemon.clickpay("/clickpay", &pay_in(json!({}))).text(), "SUCCESS");
    for late in [
        json!({ "code": "01", "msg": "FAIL" }),
        json!({ "code": "02", "msg": "PENDING", "status": "NO_PAY" }),
        json!({ "code": "03", "msg": "CANCEL", "status": "PAY_CANCEL" }),
    ] {
        assert_eq!(daemon.clickpay("/clickpay", &pay_in(late)).text(), "SUCCESS");
    }
    let events = daemon.events();
    let statuses: Vec<&Value> = events.iter().map(|e| &e["status"]).collect();
    assert_eq!(statuses, ["paid", "failed", "pending", "canceled"]);
    assert_eq!(events[0]["stale"], false);
    for (at, event) in events.iter().enumerate().skip(1) {
        assert_eq!((event["verdict"].as_str(), event["stale"].as_bool()), (Some("none"), Some(true)), "{event:#}");
        assert_eq!(event["sequence"], at + 1);
    }
}

#[test]
fn what_contradicts_itself_is_unknown_and_never_told() {
    let daemon = Daemon::start();
    for (at, changes) in
        [json!({ "code": "00", "msg": "FAIL" }), json!({ "code": "00", "msg": "SUCCESS", "status": "PAY_ERROR" })]
            .into_iter()
            .enumerate()
    {
        let changes = fixtures::with(changes, json!({ "platOrderNum": format!("55253808034827470{at}") }));
        assert_eq!(daemon.clickpay("/clickpay", &pay_in(changes)).text(), "SUCCESS");
        assert_eq!(daemon.last_event()["status"], "unknown");
    }
    assert_eq!(told(&daemon.verdicts()), 0);
}

#[test]
fn paygol_with_a_foreign_custom_and_a_cent_is_held_where_the_amount_is_expected() {
    let daemon = Daemon::start();
    daemon.expects("paygol", "order 9", ("7500.00", "CLP"), json!({}));
    daemon.expects("paygol", "order 10", ("0.01", "USD"), json!({}));
    for (order, transaction, reason) in
        [("order 9", "T-1", "amount_mismatch"), ("order 10", "T-2", "currency_mismatch")]
    {
        let fields = paygol(json!({ "custom": order, "transaction_id": transaction, "price": "0.01" }));
        assert_eq!(daemon.paygol(&fields).status, 200);
        let data = daemon.last_event();
        assert_eq!((data["verdict"].as_str(), data["expectation"].as_str()), (Some("hold"), Some("mismatch")));
        assert!(data["reasons"].as_array().unwrap().contains(&json!(reason)), "{data:#}");
    }
}

#[test]
fn an_amount_is_compared_as_a_decimal_and_a_kind_with_its_own_kind() {
    let daemon = Daemon::start();
    daemon.expects("paygol", "Pago cuenta VIP", ("7500", "CLP"), json!({}));
    assert_eq!(daemon.paygol(&paygol(json!({}))).status, 200);
    assert_eq!(daemon.last_event()["verdict"], "fulfil");
    daemon.expects("clickpay-out", "W0001", ("200000", "IDR"), json!({ "kind": "payout" }));
    assert_eq!(daemon.clickpay("/clickpay/out", &pay_out(json!({}))).text(), "SUCCESS");
    let data = daemon.last_event();
    assert_eq!((data["kind"].as_str(), data["expectation"].as_str()), (Some("payout"), Some("match")), "{data:#}");
}

#[test]
fn an_expectation_registered_later_settles_what_was_held_for_want_of_it() {
    let daemon = Daemon::start();
    assert_eq!(daemon.legacy(&legacy(json!({}))).status, 200);
    let held = daemon.feed()[0].clone();
    assert_eq!(held["data"]["verdict"], "hold");
    daemon.expects("paygol-ipn", "100042", ("10.00", "EUR"), json!({}));
    let feed = daemon.feed();
    assert_eq!(feed.len(), 2, "{feed:#?}");
    assert_eq!(feed[0], held, "an event never changes");
    assert_eq!(feed[1]["data"]["verdict"], "fulfil");
    assert_eq!(feed[1]["data"]["relates_to"], json!({ "id": held["id"], "as": "settles" }));
    assert!(feed[1]["data"]["reasons"].as_array().unwrap().iter().all(|r| r == "settled"));
}

#[test]
fn a_legacy_price_in_another_currency_is_not_comparable_rather_than_wrong() {
    let daemon = Daemon::start();
    daemon.expects("paygol-ipn", "100042", ("10.00", "EUR"), json!({}));
    assert_eq!(daemon.legacy(&legacy(json!({ "frmprice": null, "frmcurrency": null }))).status, 200);
    let data = daemon.only_event();
    assert_eq!((data["verdict"].as_str(), data["expectation"].as_str()), (Some("hold"), Some("unchecked")));
    assert!(data["reasons"].as_array().unwrap().contains(&json!("currency_not_comparable")), "{data:#}");
}

#[test]
fn an_expectation_that_is_over_holds() {
    let daemon = Daemon::start();
    let soon = jiff_now_plus_ms(900);
    daemon.expects("paygol", "Pago cuenta VIP", ("7500", "CLP"), json!({ "expires_at": soon }));
    std::thread::sleep(std::time::Duration::from_millis(1000)); // time itself is what is waited for
    assert_eq!(daemon.paygol(&paygol(json!({}))).status, 200);
    let data = daemon.only_event();
    assert_eq!((data["verdict"].as_str(), data["expectation"].as_str()), (Some("hold"), Some("expired")));
    assert_eq!(data["reasons"], json!(["expired"]));
}

fn jiff_now_plus_ms(milliseconds: i64) -> String {
    use quittance::clock::Clock as _;
    let now = quittance::clock::System.now();
    quittance::event::rfc3339(now + jiff::SignedDuration::from_millis(milliseconds))
}

#[test]
fn with_the_policy_never_every_fulfil_is_compare() {
    let daemon = Daemon::with(Config { tables: "[policy]\nfulfil = \"never\"".into(), ..Config::default() });
    daemon.expects("paygol", "Pago cuenta VIP", ("7500", "CLP"), json!({}));
    assert_eq!(daemon.paygol(&paygol(json!({}))).status, 200);
    let data = daemon.only_event();
    assert_eq!((data["verdict"].as_str(), data["expectation"].as_str()), (Some("compare"), Some("match")));
}

#[test]
fn a_signature_worth_no_more_than_a_key_in_a_url_is_bearer() {
    let secret = fixtures::PAYGOL_SECRET;
    let sources = format!(
        r#"
[[source]]
name = "paygol"
provider = "paygol"
path = "/paygol"
service_id = "123"
shared_secret = true
secrets = ["{secret}"]

[[source]]
name = "paygol-ipn"
provider = "paygol-legacy"
path = "/paygol/ipn"
service_id = "123"
shared_secret = true
secrets = ["{secret}"]
"#
    );
    let daemon = Daemon::with(Config { sources, ..Config::default() });
    assert_eq!(daemon.paygol(&paygol(json!({}))).status, 200);
    let data = daemon.only_event();
    assert_eq!((data["assurance"].as_str(), data["verdict"].as_str()), (Some("bearer"), Some("hold")));
    assert_eq!(data["reasons"], json!(["unconfirmed"]));
}
