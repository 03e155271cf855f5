//! What was refused and may yet prove genuine is kept in a bounded place, and costs nobody else anything.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};

use crate::fixtures::{self, clickpay_body, pay_in, text};
use crate::harness::{Config, Daemon, eventually};
use crate::http::{self, Answer};

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

/// Posts a forged notification from one of this machine's own addresses.
#[track_caller]
fn forged_from(daemon: &Daemon, last: u8, transaction: &str, padding: usize) -> Answer {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    use std::io::Write as _;

    let fields = json!({ "custom": transaction, "transaction_id": transaction, "note": "x".repeat(padding) });
    let body = fixtures::paygol(fields).to_string();
    let headers = [("Content-Type", "application/json"), ("X-Pg-Sig", &*"a".repeat(64))];
    let request = http::request("POST", "/paygol", &headers, body.as_bytes());
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from(([127, 0, 0, last], 0))).expect("all of 127/8 is this machine");
    connect(&socket, &daemon.public).expect("it listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("set");
    stream.write_all(&request).expect("sent");
    http::read_answer(&mut stream).expect("answered")
}

/// What is kept of a source, oldest first.
fn entries(daemon: &Daemon, source: &str) -> Vec<Value> {
    let page = daemon.ask(&format!("/api/v1/quarantine?limit=1000&source={source}"));
    assert_eq!(page["next"], Value::Null);
    page["entries"].as_array().expect("a list").clone()
}

#[test]
fn one_address_cannot_push_out_what_others_sent() {
    const BOUND: u64 = 640 << 10;
    const FLOOD: usize = 300;
    let tables = "[quarantine]\nbytes = \"640KiB\"".to_owned();
    let daemon = Daemon::with(Config { tables, ..Config::default() });
    // First, so that they are the oldest when the flood comes.
    for number in 0..5 {
        assert_eq!(forged_from(&daemon, 2, &format!("victim-{number}"), 0).status, 401);
    }
    let mut victims = BTreeSet::new();
    eventually("the first are kept", || {
        victims = entries(&daemon, "paygol").iter().map(|entry| text(&entry["id"])).collect();
        if victims.len() == 5 { Ok(()) } else { Err(victims.clone()) }
    });
    let flooded = || entries(&daemon, "paygol").iter().filter(|entry| entry["remote"] == "127.0.0.3").count();
    for number in 0..FLOOD {
        assert_eq!(forged_from(&daemon, 3, &format!("flood-{number}"), 4000).status, 401);
    }
    // More than a million bytes were sent: twice the bound.
    eventually("some of the flood is kept", || if flooded() > 0 { Ok(()) } else { Err(()) });
    assert_eq!(forged_from(&daemon, 4, "after", 0).status, 401);
    eventually("another address still finds room", || {
        let all = entries(&daemon, "paygol");
        if all.iter().any(|entry| entry["remote"] == "127.0.0.4") { Ok(()) } else { Err(all.len()) }
    });
    let left: BTreeSet<String> = entries(&daemon, "paygol").iter().map(|entry| text(&entry["id"])).collect();
    assert!(victims.is_subset(&left), "what others sent is still there");
    assert!(flooded() < FLOOD, "the flood has its share and no more");
    assert!(bytes_below(&daemon.store().join("quarantine/paygol")) <= BOUND);
    // Another source's room is its own.
    let signed = clickpay_body(&pay_in(json!({})), "clickpay-other");
    assert_eq!(daemon.post("/clickpay", "application/json", signed.to_string().as_bytes()).status, 401);
    eventually("it is kept", || if entries(&daemon, "clickpay-id").len() == 1 { Ok(()) } else { Err(()) });
}

#[test]
fn what_is_older_than_its_age_goes() {
    let tables = "[quarantine]\nage = \"2s\"".to_owned();
    let daemon = Daemon::with(Config { tables, ..Config::default() });
    assert_eq!(forged_from(&daemon, 2, "old", 0).status, 401);
    let old = eventually("it is kept", || match entries(&daemon, "paygol").first() {
        Some(entry) => Ok(text(&entry["id"])),
        None => Err(()),
    });
    eventually("it is gone, and newer ones are there", || {
        assert_eq!(forged_from(&daemon, 2, "new", 0).status, 401);
        let left: Vec<String> = entries(&daemon, "paygol").iter().map(|entry| text(&entry["id"])).collect();
        if !left.is_empty() && !left.contains(&old) { Ok(()) } else { Err(left) }
    });
}
