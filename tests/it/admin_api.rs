//! What the operator and the order system can ask, word for word as the interface has it.

use serde_json::{Value, json};

use crate::fixtures::{self, pay_in, paygol};
use crate::harness::{Config, Daemon, eventually};
use crate::http;

const TOKEN: &str = "admin-token-0123456789abcdef";

fn with_some(daemon: &Daemon) {
    for (number, status) in [(1, "completed"), (2, "failed"), (3, "created"), (4, "completed")] {
        let fields = paygol(
            json!({ "transaction_id": format!("T-{number}"), "custom": format!("order {number}"), "status": status }),
        );
        assert_eq!(daemon.paygol(&fields).status, 200);
    }
    assert_eq!(daemon.clickpay("/clickpay", &pay_in(json!({}))).text(), "SUCCESS");
    assert_eq!(
        daemon.paygol(&paygol(json!({ "transaction_id": "T-1", "custom": "order 1", "price": "1.00" }))).status,
        200
    );
}

fn listed(page: &Value) -> Vec<String> {
    page["notifications"].as_array().unwrap().iter().map(|n| fixtures::text(&n["order_id"])).collect()
}

#[test]
fn notifications_are_listed_newest_first_and_every_filter_filters() {
    let daemon = Daemon::start();
    with_some(&daemon);
    let list = |query: &str| listed(&daemon.ask(&format!("/api/v1/notifications?{query}")));
    assert_eq!(list(""), ["order 1", "T1231511321515", "order 4", "order 3", "order 2", "order 1"]);
    assert_eq!(list("source=clickpay-id"), ["T1231511321515"]);
    assert_eq!(list("order_id=order%201"), ["order 1", "order 1"]);
    assert_eq!(list("outcome=conflict"), ["order 1"]);
    assert_eq!(list("status=failed"), ["order 2"]);
    assert_eq!(list("verdict=none"), ["order 3", "order 2"]);
    assert_eq!(list("source=paygol&verdict=compare"), ["order 4", "order 1"]);
    assert_eq!(list("since=2h").len(), 6);
    assert_eq!(list("until=2h").len(), 0);
    let first =
        fixtures::text(&daemon.ask("/api/v1/notifications?order_id=order%204")["notifications"][0]["received_at"]);
    assert!(list(&format!("since={first}")).contains(&"order 4".to_owned()), "since is inclusive");
    assert!(!list(&format!("until={first}")).contains(&"order 4".to_owned()), "until is exclusive");
    let page = daemon.ask("/api/v1/notifications?limit=4");
    assert_eq!(listed(&page).len(), 4);
    let rest = daemon.ask(&format!("/api/v1/notifications?limit=4&after={}", fixtures::text(&page["next"])));
    assert_eq!((listed(&rest), &rest["next"]), (vec!["order 2".to_owned(), "order 1".to_owned()], &Value::Null));
    for bad in
        ["status=won", "verdict=ok", "outcome=lost", "since=yesterday", "limit=x", "source=Not%20a%20name", "after=x"]
    {
        assert_eq!(daemon.admin_get(&format!("/api/v1/notifications?{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn an_item_has_the_members_that_the_interface_names() {
    let daemon = Daemon::start();
    with_some(&daemon);
    assert_eq!(daemon.paygol(&paygol(json!({ "transaction_id": "T-4", "custom": "order 4" }))).status, 200);
    let item = daemon.ask("/api/v1/notifications?order_id=order%204")["notifications"][0].clone();
    let keys: Vec<&str> = item.as_object().unwrap().keys().map(String::as_str).collect();
    let named = [
        "id",
        "event_id",
        "source",
        "provider",
        "outcome",
        "received_at",
        "kind",
        "status",
        "order_id",
        "transaction_id",
        "amount",
        "assurance",
        "expectation",
        "verdict",
        "reasons",
        "times_seen",
        "last_seen_at",
    ];
    assert_eq!(keys, named);
    assert_eq!(item["outcome"], "accepted");
    eventually("the repeat is counted", || {
        let item = daemon.ask("/api/v1/notifications?order_id=order%204")["notifications"][0].clone();
        if item["times_seen"] == 2 { Ok(()) } else { Err(item) }
    });
    let id = fixtures::text(&item["id"]);
    let whole = daemon.ask(&format!("/api/v1/notifications/{id}"));
    for key in named.iter().chain(&["request", "verification", "event", "deliveries"]) {
        assert!(whole.get(*key).is_some(), "{key} in {whole:#}");
    }
    for key in ["method", "path", "headers", "body", "remote"] {
        assert!(whole["request"].get(key).is_some(), "request.{key}");
    }
    assert_eq!(whole["verification"]["scheme"], "hmac-sha256-canonical");
    assert_eq!(whole["verification"]["key"], 1);
    crate::schema::check(&whole["event"]);
    assert_eq!(whole["event"]["id"], item["event_id"]);
    assert_eq!(daemon.admin_get("/api/v1/notifications/019aa2f4-6f0d-7a10-8d40-6a1d5a0f2b11").status, 404);
    assert!((400..=404).contains(&daemon.admin_get("/api/v1/notifications/x").status));
}

#[test]
fn the_status_says_what_runs_and_how_it_is() {
    let daemon = Daemon::start();
    with_some(&daemon);
    let status = daemon.ask("/api/v1/status");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    for key in ["id", "head", "journal_bytes", "index_lag", "restored"] {
        assert!(status["store"].get(key).is_some(), "store.{key} in {status:#}");
    }
    let sources = status["sources"].as_array().unwrap();
    let paygol = sources.iter().find(|s| s["name"] == "paygol").unwrap();
    for key in ["name", "provider", "url", "ordinary_verdict", "last_received_at", "outcomes"] {
        assert!(paygol.get(key).is_some(), "sources[].{key} in {paygol:#}");
    }
    assert_eq!(paygol["url"], "https://pay.example.com/paygol");
    assert_eq!(paygol["ordinary_verdict"], "compare");
    assert_eq!(paygol["outcomes"]["accepted"], 4);
    for key in ["sink", "connected", "backlog", "oldest_seconds", "blocked", "last_error"] {
        assert!(status["relay"].get(key).is_some(), "relay.{key} in {status:#}");
    }
    assert!(status["config"].get("loaded_at").is_some() && status["config"].get("last_reload_error").is_some());
}

#[test]
fn the_metrics_have_exactly_the_names_of_the_interface() {
    let daemon = Daemon::start();
    with_some(&daemon);
    daemon.get("/nobody-listens-here");
    let page = daemon.admin_get("/metrics");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("text/plain"));
    let text = page.text();
    let mut series: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    series.retain(|name| !name.starts_with("process_"));
    let unknown: Vec<_> = series.iter().filter(|name| !NAMES.contains(name) && !BESIDE.contains(name)).collect();
    assert!(unknown.is_empty(), "not in the interface: {unknown:?}");
    // Series with labels show once they have a value; these have one now.
    for name in SHOWN {
        assert!(series.contains(name), "{name} is missing in\n{text}");
    }
    for line in text.lines().filter(|l| l.starts_with("quittance_")) {
        assert!(!line.contains("order 1") && !line.contains("T123") && !line.contains("nobody-listens"), "{line}");
    }
    assert_eq!(daemon.metric(r#"quittance_notifications_total{outcome="accepted",source="paygol"}"#), 4.0);
    assert_eq!(daemon.metric(r#"quittance_events_total{source="clickpay-id",verdict="compare"}"#), 1.0);
    assert_eq!(daemon.metric(&format!(r#"quittance_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"))), 1.0);
}

const NAMES: &[&str] = &[
    "quittance_notifications_total",
    "quittance_refusals_total",
    "quittance_events_total",
    "quittance_ack_seconds",
    "quittance_commit_seconds",
    "quittance_commit_batch_size",
    "quittance_verified_with_key_total",
    "quittance_forgery_alarms_total",
    "quittance_relay_published_total",
    "quittance_relay_backlog_events",
    "quittance_relay_oldest_seconds",
    "quittance_relay_connected",
    "quittance_relay_blocked",
    "quittance_dead_letters",
    "quittance_journal_bytes",
    "quittance_journal_damage_total",
    "quittance_index_lag_records",
    "quittance_index_rebuild_progress_ratio",
    "quittance_quarantine_bytes",
    "quittance_connections",
    "quittance_source_silence_seconds",
    "quittance_build_info",
];
/// Beyond the interface's table: what the alerts need (readiness, the last reload, room on the store's disk), and spans.
const BESIDE: &[&str] = &[
    "quittance_config_last_reload_success_timestamp_seconds",
    "quittance_config_last_reload_successful",
    "quittance_ready",
    "quittance_store_free_bytes",
    "quittance_store_size_bytes",
    "quittance_trace_spans_total",
];
const SHOWN: &[&str] = &[
    "quittance_notifications_total",
    "quittance_events_total",
    "quittance_ack_seconds",
    "quittance_commit_seconds",
    "quittance_commit_batch_size",
    "quittance_verified_with_key_total",
    "quittance_relay_backlog_events",
    "quittance_journal_bytes",
    "quittance_journal_damage_total",
    "quittance_index_lag_records",
    "quittance_index_rebuild_progress_ratio",
    "quittance_connections",
    "quittance_build_info",
];

#[test]
fn health_is_for_the_process_and_readiness_for_the_store() {
    let daemon = Daemon::start();
    assert_eq!(daemon.admin_get("/healthz").status, 200);
    assert_eq!(daemon.admin_get("/readyz").status, 200);
    assert_eq!(daemon.get("/healthz").status, 404, "the public listener knows no admin path");
    assert_eq!(daemon.admin_get("/clickpay").status, 404, "the admin listener knows no source");
    let unknown = daemon.admin_get("/api/v1/nothing");
    assert_eq!(unknown.status, 404);
    assert!(unknown.header("content-type").unwrap().starts_with("application/problem+json"), "{unknown:?}");
}

#[test]
fn with_a_token_everything_but_health_and_metrics_wants_it() {
    let daemon = Daemon::with(Config { admin: format!("token = \"{TOKEN}\""), ..Config::default() });
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(daemon.admin_get(open).status, 200, "{open}");
    }
    let get = |target: &str, token: &str| {
        daemon.admin_send(&http::request("GET", target, &[("Authorization", token)], b"")).status
    };
    let began = std::time::Instant::now();
    for target in ["/api/v1/events", "/api/v1/notifications", "/api/v1/status"] {
        assert_eq!(daemon.admin_get(target).status, 401, "{target}");
        for wrong in ["Bearer", "Bearer ", "Bearer x", "Basic YWRtaW46YWRtaW4=", &format!("Bearer {}", &TOKEN[1..])] {
            assert_eq!(get(target, wrong), 401, "{target} with {wrong}");
        }
        assert_eq!(get(target, &format!("Bearer {TOKEN}")), 200, "{target}");
    }
    // Fifteen guesses, each of which waited for a fifth of a second.
    assert!(began.elapsed().as_millis() >= 2500, "{:?}", began.elapsed());
    let registration = json!({ "source": "paygol", "order_id": "1", "amount": { "value": "1", "currency": "EUR" } });
    assert_eq!(daemon.expect(&registration).status, 401);
    assert!(!daemon.log().contains(TOKEN));
}

#[test]
fn an_orders_timeline_is_told_oldest_first() {
    let daemon = Daemon::start();
    daemon.expects("paygol", "order 1", ("7500.00", "CLP"), json!({}));
    with_some(&daemon);
    let timeline = daemon.ask("/api/v1/orders/paygol/order%201");
    assert_eq!((timeline["source"].as_str(), timeline["order_id"].as_str()), (Some("paygol"), Some("order 1")));
    let entries = timeline["entries"].as_array().unwrap();
    let what: Vec<_> = entries.iter().map(|e| fixtures::text(&e["what"])).collect();
    assert_eq!(what.iter().filter(|w| *w == "expectation").count(), 1, "{timeline:#}");
    assert_eq!(what.iter().filter(|w| *w == "notification").count(), 2);
    assert_eq!(what.iter().filter(|w| *w == "event").count(), 2);
    let times: Vec<_> = entries.iter().map(|e| fixtures::text(&e["at"])).collect();
    assert!(times.is_sorted(), "{times:?}");
    let nobody = daemon.admin_get("/api/v1/orders/paygol/never%20heard%20of");
    assert!(nobody.status == 404 || nobody.json()["entries"] == json!([]), "{nobody:?}");
}
