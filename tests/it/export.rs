//! `quittance export`: JSON lines, by the filters of `list`.

use serde_json::{Value, json};

use crate::fixtures;
use crate::harness::{Daemon, quittance};

#[track_caller]
fn export(daemon: &Daemon, arguments: &[&str]) -> Vec<Value> {
    let all = [&["--config", "quittance.toml", "export"], arguments].concat();
    let output = quittance(daemon.folder(), &all).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_notification_is_exported_once_with_and_without_a_daemon() {
    let mut daemon = Daemon::start();
    for at in 0..7 {
        let fields =
            fixtures::paygol(json!({ "transaction_id": format!("EXPORT-{at}"), "custom": format!("o-{}", at % 2) }));
        assert_eq!(daemon.paygol(&fields).status, 200);
    }
    assert_eq!(daemon.legacy(&fixtures::legacy(json!({}))).status, 200);
    let ids = |lines: &[Value]| lines.iter().map(|line| fixtures::text(&line["id"])).collect::<Vec<_>>();
    let listed = daemon.ask("/api/v1/notifications")["notifications"].as_array().unwrap().clone();
    let all = export(&daemon, &[]);
    assert_eq!(all, listed, "the objects of the list, newest first");
    assert_eq!(export(&daemon, &["--order", "o-1"]).len(), 3);
    assert_eq!(export(&daemon, &["--source", "paygol-ipn", "--verdict", "hold"]).len(), 1);
    assert_eq!(export(&daemon, &["--until", "1h"]).len(), 0);
    assert_eq!(export(&daemon, &["--since", "1h", "--status", "paid"]).len(), 8);

    let whole = export(&daemon, &["--whole"]);
    assert_eq!(ids(&whole), ids(&all));
    for kept in &whole {
        assert_eq!(kept, &daemon.ask(&format!("/api/v1/notifications/{}", fixtures::text(&kept["id"]))));
        assert!(kept["request"]["body"].is_string() && kept["event"]["id"] == kept["event_id"]);
    }
    assert!(!json!(whole).to_string().contains(fixtures::LEGACY_SECRET), "bearer secrets are cut out of it");

    // More than a page of the API holds.
    for at in 0..1_000 {
        let fields = fixtures::legacy(json!({ "transaction_id": format!("PAGE-{at}") }));
        assert_eq!(daemon.legacy(&fields).status, 200);
    }
    let many = export(&daemon, &["--source", "paygol-ipn"]);
    let distinct: std::collections::BTreeSet<String> = ids(&many).into_iter().collect();
    assert_eq!((many.len(), distinct.len()), (1_001, 1_001));
    let all = export(&daemon, &[]);

    assert!(daemon.stop().success());
    let closed = export(&daemon, &[]);
    assert_eq!(ids(&closed), ids(&all));
    let refused =
        quittance(daemon.folder(), &["--config", "quittance.toml", "export", "--since", "yesterday"]).output();
    assert_eq!(refused.unwrap().status.code(), Some(2));
}
