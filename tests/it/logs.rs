//! The log of a process that is not on a terminal: JSON, and every line about a notification names it.

use serde_json::{Value, json};

use crate::fixtures::{self, clickpay_body, pay_in, paygol, with};
use crate::harness::{Daemon, eventually};

fn lines(daemon: &Daemon) -> Vec<Value> {
    let log = daemon.log();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
    log.lines().filter(|line| line.starts_with('{')).map(parse).collect()
}

#[test]
fn every_line_about_a_notification_names_it_and_a_refusal_says_why() {
    let daemon = Daemon::start();
    assert_eq!(daemon.paygol(&paygol(json!({}))).status, 200);
    assert_eq!(daemon.paygol(&paygol(json!({}))).status, 200);
    assert_eq!(daemon.paygol(&paygol(json!({ "price": "1.00" }))).status, 200);
    let forged = with(clickpay_body(&pay_in(json!({})), "clickpay-1024"), json!({ "payMoney": "1.00" }));
    assert_eq!(daemon.post("/clickpay", "application/json", forged.to_string().as_bytes()).status, 401);
    let ids: Vec<String> = daemon.events().iter().map(|e| fixtures::text(&e["notification_id"])).collect();
    let about = |id: &str| lines(&daemon).into_iter().filter(|line| line["notification"] == *id).collect::<Vec<_>>();
    eventually("they are logged", || {
        if about(&ids[0]).len() >= 2 && !about(&ids[1]).is_empty() { Ok(()) } else { Err(lines(&daemon)) }
    });
    for line in about(&ids[0]).iter().chain(&about(&ids[1])) {
        for key in ["timestamp", "level", "message", "source"] {
            assert!(line[key].is_string(), "{key} in {line}");
        }
    }
    assert!(about(&ids[1]).iter().any(|line| line["level"] == "WARN"), "a conflict is a warning");
    let refused = eventually("the refusal is logged", || {
        lines(&daemon).into_iter().find(|line| line["reason"] == "bad_signature").ok_or(())
    });
    assert_eq!(refused["source"], "clickpay-id");
    assert!(refused["why"].is_string(), "{refused}");
}
