//! Every change by hand stands in the journal with who asked and why, and a reload with what it changed.

use serde_json::{Value, json};

use crate::fixtures::{self, PAYGOL_SECRET, text};
use crate::harness::{self, Daemon, eventually};
use crate::http;

/// What, who and why of every audit in the journal of a daemon that has stopped.
fn audits(daemon: &Daemon) -> Vec<(String, String, String)> {
    use quittance::event::Position;
    use quittance::store::embedded::journal::{Journal, Options};
    use quittance::store::embedded::record::{Record, Stamped};

    let options = Options { segment_bytes: 4 << 20, verify: false };
    let (journal, _) = Journal::open(&daemon.store(), options).expect("a journal");
    let heads = journal.reader().heads(Position(0)).map(|stored| stored.expect("reads"));
    let records = heads.filter_map(|stored| Stamped::decode(&stored.payload)).map(|stamped| stamped.record);
    let audits = records.filter_map(|record| match record {
        Record::Audit(audit) => Some((audit.what, audit.who, audit.reason)),
        _ => None,
    });
    audits.collect()
}

#[track_caller]
fn ask(daemon: &Daemon, method: &str, target: &str, document: &Value) -> Value {
    let headers = [("Content-Type", "application/json"), ("Quittance-Operator", "night shift")];
    let body = if document.is_null() { String::new() } else { document.to_string() };
    let answer = daemon.admin_send(&http::request(method, target, &headers, body.as_bytes()));
    assert!((200..300).contains(&answer.status), "{method} {target}: {answer:?}");
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

#[test]
fn each_change_by_hand_and_each_reload_is_in_the_journal_with_who_and_why() {
    let mut daemon = Daemon::start();
    daemon.expects("paygol", "A", ("1.00", "CLP"), json!({}));
    assert_eq!(daemon.paygol(&fixtures::paygol(json!({ "custom": "A" }))).status, 200);
    let held = text(&daemon.feed()[0]["id"]);
    let forged = fixtures::paygol(json!({ "custom": "F", "transaction_id": "F" }));
    assert_eq!(daemon.paygol_with(&forged.to_string(), &"a".repeat(64)).status, 401);
    let quarantined = eventually("it is kept", || match daemon.ask("/api/v1/quarantine")["entries"].get(0) {
        Some(entry) => Ok(text(&entry["id"])),
        None => Err(()),
    });

    const NEXT: &str = "0f6d3a2b-next-4c5e-9a8b-7d1e2f3a4b5c";
    let early = fixtures::paygol(json!({ "custom": "N", "transaction_id": "N" }));
    let signature = fixtures::paygol_signature(&early, NEXT);
    assert_eq!(daemon.paygol_with(&early.to_string(), &signature).status, 401);

    let ruling = json!({ "verdict": "refuse", "reason": "not ours" });
    ask(&daemon, "POST", &format!("/api/v1/events/{held}/settle"), &ruling);
    let release = json!({ "reason": "the provider rang up" });
    ask(&daemon, "POST", &format!("/api/v1/quarantine/{quarantined}/release"), &release);
    let wanted = json!({ "source": "paygol", "rate": 1, "reason": "books lost them" });
    let replay = text(&ask(&daemon, "POST", "/api/v1/replays", &wanted)["id"]);
    ask(&daemon, "DELETE", &format!("/api/v1/replays/{replay}"), &Value::Null);
    daemon.ask("/api/v1/events?consumer=shop");
    ask(&daemon, "DELETE", "/api/v1/consumers/shop", &Value::Null);
    // A look changes nothing, and is not audited.
    ask(&daemon, "POST", "/api/v1/replays", &json!({ "dry_run": true }));
    ask(&daemon, "POST", "/api/v1/replays/reparse", &json!({}));

    let status = || daemon.ask("/api/v1/status");
    let (loaded, head) = (status()["config"]["loaded_at"].clone(), status()["store"]["head"].as_u64());
    let file = daemon.folder().join("quittance.toml");
    let text_now = std::fs::read_to_string(&file).expect("its configuration");
    let secrets = |list: String| format!("secrets = [{list}]");
    let (one, two) = (secrets(format!("\"{PAYGOL_SECRET}\"")), secrets(format!("\"{PAYGOL_SECRET}\", \"{NEXT}\"")));
    assert!(text_now.contains(&one), "{text_now}");
    let changed = text_now.replace("\"clickpay-loose\"", "\"clickpay-new\"").replace(&one, &two);
    std::fs::write(&file, changed).expect("written");
    harness::signal(daemon.pid(), rustix::process::Signal::HUP);
    eventually("it is reloaded, and that is written", || {
        let now = status();
        let written = now["store"]["head"].as_u64() > head;
        if now["config"]["loaded_at"] != loaded && written { Ok(()) } else { Err(now["config"].clone()) }
    });
    eventually("the early one is genuine now", || {
        let page = ask(&daemon, "POST", "/api/v1/quarantine/reverify", &json!({}));
        if page["let_in"] == 1 { Ok(()) } else { Err(page) }
    });
    assert!(daemon.stop().success());

    let found = audits(&daemon);
    let one = |what: &str, who: &str, why: &str| {
        let fits = |(found, by, reason): &&(String, String, String)| {
            found.starts_with(what) && by == who && reason.contains(why)
        };
        assert_eq!(found.iter().filter(fits).count(), 1, "{what} by {who}, {why}: {found:#?}");
    };
    let shift = "night shift";
    one("settled:refuse:", shift, "not ours");
    one(&format!("released:{quarantined}"), shift, "the provider rang up");
    one(&format!("replay:{replay}"), shift, "books lost them");
    one(&format!("canceled:{replay}"), shift, "canceled");
    one("forgotten:feed:shop", shift, "");
    one("reload", "the daemon", "added: clickpay-new; removed: clickpay-loose");
    one("reverified:", shift, "verified again");
    assert_eq!(found.len(), 7, "{found:#?}");
}
