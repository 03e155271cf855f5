//! What was refused and may yet prove genuine is kept in a bounded place, and costs nobody else anything.

use std::path::Path;

use serde_json::json;

use crate::fixtures::{self, clickpay_body, pay_in};
use crate::harness::{Config, Daemon, eventually};

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { bytes_below(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) }).sum()
}

fn kept(daemon: &Daemon, source: &str) -> f64 {
    daemon.metric(&format!(r#"quittance_quarantine_bytes{{source="{source}"}}"#))
}

#[test]
fn a_bad_signature_is_kept_aside_and_what_can_never_be_genuine_is_not() {
    let daemon = Daemon::start();
    daemon.get("/clickpay");
    daemon.post("/clickpay", "application/json", pay_in(json!({})).to_string().as_bytes());
    let unsigned = daemon.post("/paygol", "application/json", fixtures::paygol(json!({})).to_string().as_bytes());
    assert_eq!(unsigned.status, 401);
    let signed = clickpay_body(&pay_in(json!({ "name": "Kept Aside" })), "clickpay-other");
    assert_eq!(daemon.post("/clickpay", "application/json", signed.to_string().as_bytes()).status, 401);
    let quarantine = daemon.store().join("quarantine");
    eventually(
        "it is kept",
        || if kept(&daemon, "clickpay-id") > 0.0 { Ok(()) } else { Err(bytes_below(&quarantine)) },
    );
    assert_eq!(kept(&daemon, "paygol"), 0.0);
    let files = std::fs::read_dir(quarantine.join("clickpay-id")).unwrap().count();
    assert_eq!(files, 1, "one of the three");
    assert!(daemon.feed().is_empty());
}

#[test]
fn a_flood_of_forgeries_stays_within_its_bytes_and_disturbs_nobody() {
    let daemon = Daemon::with(Config { tables: "[quarantine]\nbytes = \"640KiB\"".into(), ..Config::default() });
    let filler = "x".repeat(8000);
    for number in 0..200 {
        let body = clickpay_body(&pay_in(json!({ "payData": "x" })), "clickpay-other");
        let body = fixtures::with(body, json!({ "payData": format!("{filler}{number}") }));
        assert_eq!(daemon.post("/clickpay", "application/json", body.to_string().as_bytes()).status, 401);
    }
    let quarantine = daemon.store().join("quarantine");
    eventually("something is kept", || if kept(&daemon, "clickpay-id") > 0.0 { Ok(()) } else { Err(()) });
    assert!(bytes_below(&quarantine) <= 640 * 1024, "{} bytes", bytes_below(&quarantine));
    assert!(kept(&daemon, "clickpay-id") <= 640.0 * 1024.0);
    assert_eq!(daemon.clickpay("/clickpay", &pay_in(json!({}))).text(), "SUCCESS");
    assert_eq!(daemon.only_event()["verdict"], "compare");
}
