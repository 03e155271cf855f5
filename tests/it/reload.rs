//! SIGHUP takes new keys, sources and limits, drops nothing, and refuses a bad configuration as a whole.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fixtures::{self, LEGACY_SECRET, PAYGOL_SECRET};
use crate::harness::{Config, Daemon, eventually, signal};
use crate::http::{connect, read_answer, request, send};

const NEXT_SECRET: &str = "0f6d3a2b-next-4c5e-9a8b-7d1e2f3a4b5c";

fn legacy_source(secrets: &[&str]) -> String {
    let table =
        "[[source]]\nname = \"ipn\"\nprovider = \"paygol-legacy\"\npath = \"/paygol/ipn\"\nservice_id = \"124\"";
    format!("{table}\nsecrets = {secrets:?}\n")
}

fn paygol_source(secrets: &[&str]) -> String {
    let table = "[[source]]\nname = \"paygol\"\nprovider = \"paygol\"\npath = \"/paygol\"\nservice_id = \"123\"";
    format!("{table}\nsecrets = {secrets:?}\n")
}

fn clickpay_source(keys: &[&str]) -> String {
    let file = |key: &&str| {
        let path = fixtures::folder().join("keys").join(format!("{key}.pem"));
        format!("{{ file = \"{}\" }}", path.display())
    };
    let keys = keys.iter().map(file).collect::<Vec<_>>().join(", ");
    format!(
        "[[source]]\nname = \"clickpay\"\nprovider = \"clickpay\"\npath = \"/clickpay\"\ncurrency = \"IDR\"\n\
         order_pattern = \"^T[0-9]{{13}}$\"\namount_pattern = \"^[0-9]+[.][0-9]{{2}}$\"\npublic_keys = [{keys}]\n"
    )
}

fn with(sources: &[String]) -> Config {
    Config { sources: sources.concat(), ..Config::default() }
}

fn legacy(transaction: &str, secret: &str) -> String {
    let fields = fixtures::legacy(json!({ "transaction_id": transaction, "key": secret }));
    format!("/paygol/ipn?{}", fixtures::form(&fields))
}

/// Writes a configuration, sends SIGHUP, and gives what `/api/v1/status` says of it once it says something else.
#[track_caller]
fn reload(daemon: &Daemon, text: &str) -> Value {
    let before = daemon.ask("/api/v1/status")["config"].clone();
    std::fs::write(daemon.folder().join("quittance.toml"), text).unwrap();
    signal(daemon.pid(), Signal::HUP);
    eventually("the reload is told", || {
        let now = daemon.ask("/api/v1/status")["config"].clone();
        if now == before { Err(daemon.log()) } else { Ok(now) }
    })
}

#[track_caller]
fn taken(daemon: &Daemon, config: &Config) {
    let told = reload(daemon, &config.render());
    assert_eq!(told["last_reload_error"], Value::Null, "{told}");
    assert_eq!(daemon.metric("quittance_config_last_reload_successful"), 1.0);
}

#[track_caller]
fn refused(daemon: &Daemon, text: &str, why: &[&str]) {
    let before = daemon.ask("/api/v1/status")["config"]["loaded_at"].clone();
    let told = reload(daemon, text);
    assert_eq!(told["loaded_at"], before, "the former one is still in force");
    let said = fixtures::text(&told["last_reload_error"]);
    for why in why {
        assert!(said.contains(why), "{why} is not in {said}");
    }
    eventually("the log says it too", || {
        let log = daemon.log();
        if log.contains(why[0]) { Ok(()) } else { Err(log) }
    });
    assert_eq!(daemon.metric("quittance_config_last_reload_successful"), 0.0);
}

fn keys(daemon: &Daemon, source: &str) -> [f64; 2] {
    [1, 2].map(|key| daemon.metric(&format!("quittance_verified_with_key_total{{key=\"{key}\",source=\"{source}\"}}")))
}

#[test]
fn a_key_is_rotated_without_a_restart() {
    let old = with(&[clickpay_source(&["clickpay-1024"]), paygol_source(&[PAYGOL_SECRET])]);
    let both =
        with(&[clickpay_source(&["clickpay-1024", "clickpay-2048"]), paygol_source(&[PAYGOL_SECRET, NEXT_SECRET])]);
    let new = with(&[clickpay_source(&["clickpay-2048"]), paygol_source(&[NEXT_SECRET])]);
    let daemon = Daemon::with(old);
    let mut number = 0;
    let mut clickpay = |key: &str| {
        number += 1;
        let fields = fixtures::pay_in(json!({ "platOrderNum": format!("9{number:017}"),
            "orderNum": format!("T{number:013}") }));
        daemon
            .post("/clickpay", "application/json", fixtures::clickpay_body(&fields, key).to_string().as_bytes())
            .status
    };
    let mut transaction = 0;
    let mut paygol = |secret: &str| {
        transaction += 1;
        let fields = fixtures::paygol(json!({ "transaction_id": format!("ROT-{transaction}") }));
        let signature = fixtures::paygol_signature(&fields, secret);
        daemon.paygol_with(&fields.to_string(), &signature).status
    };
    assert_eq!((clickpay("clickpay-1024"), clickpay("clickpay-2048")), (200, 401));
    assert_eq!((paygol(PAYGOL_SECRET), paygol(NEXT_SECRET)), (200, 401));

    taken(&daemon, &both);
    assert_eq!((keys(&daemon, "clickpay"), keys(&daemon, "paygol")), ([1.0, 0.0], [1.0, 0.0]), "counting goes on");
    assert_eq!((clickpay("clickpay-1024"), clickpay("clickpay-2048")), (200, 200));
    assert_eq!((paygol(PAYGOL_SECRET), paygol(NEXT_SECRET)), (200, 200));
    assert_eq!((keys(&daemon, "clickpay"), keys(&daemon, "paygol")), ([2.0, 1.0], [2.0, 1.0]));

    taken(&daemon, &new);
    assert_eq!((clickpay("clickpay-1024"), clickpay("clickpay-2048")), (401, 200), "the old key is retired");
    assert_eq!((paygol(PAYGOL_SECRET), paygol(NEXT_SECRET)), (401, 200));
    let page = daemon.admin_get("/metrics").text();
    assert_eq!(keys(&daemon, "clickpay"), [1.0, 0.0], "another key stands first, and counts from zero");
    assert!(!page.contains("verified_with_key_total{key=\"2\""), "{page}");
    assert_eq!(daemon.feed().len(), 8);
}

#[test]
fn a_bad_configuration_is_refused_whole_and_the_old_one_stays() {
    let good = with(&[legacy_source(&[LEGACY_SECRET])]);
    let daemon = Daemon::with(good.clone());
    // The first source would be right, and its new key must not be taken all the same.
    let mixed = with(&[legacy_source(&[NEXT_SECRET]), paygol_source(&["changeme"])]);
    refused(&daemon, &mixed.render(), &["source[1].secrets", "placeholder"]);
    assert_eq!(daemon.get(&legacy("A-1", LEGACY_SECRET)).status, 200);
    assert_eq!(daemon.get(&legacy("A-2", NEXT_SECRET)).status, 401);
    assert_eq!(daemon.get("/paygol").status, 404);
    refused(&daemon, "[listener", &["is not TOML"]);
    assert!(!daemon.log().contains(NEXT_SECRET));
    std::fs::remove_file(daemon.folder().join("quittance.toml")).unwrap();
    signal(daemon.pid(), Signal::HUP);
    eventually("a file that is gone is told", || {
        let told = daemon.ask("/api/v1/status")["config"]["last_reload_error"].to_string();
        if told.contains("cannot be read") { Ok(()) } else { Err(told) }
    });
    assert_eq!(daemon.get(&legacy("A-3", LEGACY_SECRET)).status, 200);
    taken(&daemon, &good);
}

#[test]
fn what_needs_a_restart_is_refused_with_a_sentence_that_says_so() {
    let daemon = Daemon::with(with(&[legacy_source(&[LEGACY_SECRET])]));
    let config = with(&[legacy_source(&[LEGACY_SECRET])]);
    let relay = Config { tables: "[relay.amqp]\nurl = \"amqp://127.0.0.1:1\"\n".to_owned(), ..config.clone() };
    let elsewhere = Config { store_path: "elsewhere".into(), ..config.clone() };
    let queue = Config { listener: "max_in_flight = 4096".to_owned(), ..config.clone() };
    let segment = Config { store: "segment = \"32MiB\"".to_owned(), ..config.clone() };
    let account = with(&[legacy_source(&[LEGACY_SECRET]) + "account = \"another\"\n"]);
    let provider = with(&[legacy_source(&[LEGACY_SECRET]).replace("paygol-legacy", "paygol")]);
    for (text, path) in [
        (config.render().replacen("127.0.0.1:0", "127.0.0.1:1", 1), "listener.address"),
        (
            config.render().replace("[admin]\naddress = \"127.0.0.1:0\"", "[admin]\naddress = \"127.0.0.1:1\""),
            "admin.address",
        ),
        (elsewhere.render(), "store.path"),
        (segment.render(), "store.segment"),
        (relay.render(), "relay.amqp"),
        (queue.render(), "listener.max_in_flight"),
        (account.render(), "source[0].account"),
        (provider.render(), "source[0].provider"),
    ] {
        refused(&daemon, &text, &[path, "restart"]);
        assert_eq!(daemon.get(&legacy(path, LEGACY_SECRET)).status, 200, "{path}");
    }
    assert!(!daemon.folder().join("elsewhere").exists());
}

#[test]
fn sources_come_and_go_and_limits_change() {
    let token = "a-token-of-the-admin-listener";
    let daemon = Daemon::with(with(&[legacy_source(&[LEGACY_SECRET])]));
    assert_eq!(daemon.get(&legacy("A-1", LEGACY_SECRET)).status, 200);
    let expectation =
        json!({ "source": "paygol", "order_id": "100042", "amount": { "value": "7500.00", "currency": "CLP" } });
    assert_eq!(daemon.expect(&expectation).status, 422, "there is no such source yet");

    let more = Config {
        listener: "max_body = \"1KiB\"".to_owned(),
        tables: "[policy]\nfulfil = \"never\"\n".to_owned(),
        ..with(&[paygol_source(&[PAYGOL_SECRET]), legacy_source(&[LEGACY_SECRET])])
    };
    taken(&daemon, &more);
    assert_eq!(daemon.expect(&expectation).status, 201);
    assert_eq!(daemon.paygol(&fixtures::paygol(json!({ "custom": "100042" }))).status, 200);
    let event = daemon.last_event();
    assert_eq!((&event["expectation"], &event["verdict"]), (&json!("match"), &json!("compare")), "{event}");
    assert_eq!(daemon.post("/paygol", "application/json", &[b' '; 2000]).status, 413);
    assert_eq!(daemon.metric("quittance_events_total{source=\"ipn\",verdict=\"hold\"}"), 1.0, "counting goes on");
    assert_eq!(daemon.ask("/api/v1/status")["sources"].as_array().map(Vec::len), Some(2));

    let locked = Config { admin: format!("token = \"{token}\""), ..with(&[paygol_source(&[PAYGOL_SECRET])]) };
    std::fs::write(daemon.folder().join("quittance.toml"), locked.render()).unwrap();
    signal(daemon.pid(), Signal::HUP);
    eventually("the token is asked for", || match daemon.admin_get("/api/v1/status").status {
        401 => Ok(()),
        other => Err(other),
    });
    let bearer = format!("Bearer {token}");
    let ask = |target: &str| {
        let bytes = request("GET", target, &[("Authorization", &bearer)], b"");
        daemon.admin_send(&bytes).json()
    };
    assert_eq!(daemon.get(&legacy("A-2", LEGACY_SECRET)).status, 404, "the source is gone");
    assert_eq!(ask("/api/v1/events")["entries"].as_array().map(Vec::len), Some(2), "what it received is not");
    assert_eq!(ask("/api/v1/orders/ipn/100042")["entries"].as_array().map(|e| !e.is_empty()), Some(true));
    let page = daemon.admin_get("/metrics").text();
    assert!(!page.contains("source=\"ipn\""), "nobody is woken by the silence of a source that is gone: {page}");
}

#[test]
fn a_new_source_that_has_no_quarantine_is_told_and_takes_no_other_ones_away() {
    let daemon = Daemon::with(with(&[legacy_source(&[LEGACY_SECRET])]));
    std::fs::write(daemon.store().join("quarantine/clickpay"), b"no folder").unwrap();
    let all = [legacy_source(&[LEGACY_SECRET]), clickpay_source(&["clickpay-1024"]), paygol_source(&[PAYGOL_SECRET])];
    let told = reload(&daemon, &with(&all).render());
    let said = fixtures::text(&told["last_reload_error"]);
    assert!(said.contains("in force") && said.contains("quarantine/clickpay"), "{said}");
    assert_eq!(daemon.paygol_with(&fixtures::paygol(json!({})).to_string(), &"a".repeat(64)).status, 401);
    eventually("what the other new one refuses is kept", || {
        let entries = daemon.ask("/api/v1/quarantine?source=paygol")["entries"].clone();
        if entries.as_array().is_some_and(|entries| entries.len() == 1) { Ok(()) } else { Err(entries) }
    });
}

#[test]
fn a_request_that_has_begun_ends_under_the_configuration_it_began_with() {
    let daemon = Daemon::with(with(&[legacy_source(&[LEGACY_SECRET])]));
    let mut idle = connect(daemon.public).unwrap();
    let ask = |stream: &mut TcpStream, target: &str| {
        write!(stream, "GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_answer(stream).unwrap().status
    };
    assert_eq!(ask(&mut idle, &legacy("A-1", LEGACY_SECRET)), 200);
    let mut begun = connect(daemon.public).unwrap();
    let body = fixtures::form(&fixtures::legacy(json!({ "transaction_id": "A-2" })));
    let head = format!(
        "POST /paygol/ipn HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    begun.write_all(head.as_bytes()).unwrap();
    // The invitation to send the body says that the request has begun.
    assert_eq!(read_answer(&mut begun).unwrap().status, 100);

    taken(&daemon, &with(&[legacy_source(&[NEXT_SECRET])]));
    begun.write_all(body.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut begun).unwrap().status, 200);
    assert_eq!(ask(&mut begun, &legacy("A-3", LEGACY_SECRET)), 401, "the next one on the same connection");
    assert_eq!(ask(&mut idle, &legacy("A-4", NEXT_SECRET)), 200, "an idle connection was left open");
    assert_eq!(daemon.feed().len(), 3);
}

#[test]
fn no_notification_is_refused_or_dropped_while_reload_follows_reload() {
    let both = with(&[legacy_source(&[LEGACY_SECRET, NEXT_SECRET])]);
    let turned = with(&[paygol_source(&[PAYGOL_SECRET]), legacy_source(&[NEXT_SECRET, LEGACY_SECRET])]);
    let daemon = Daemon::with(both.clone());
    let (done, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for sender in 0..4 {
            let (daemon, done, sent) = (&daemon, &done, &sent);
            scope.spawn(move || {
                let mut kept = connect(daemon.public).unwrap();
                for turn in 0.. {
                    if done.load(Ordering::Acquire) {
                        return;
                    }
                    let secret = if turn % 2 == 0 { LEGACY_SECRET } else { NEXT_SECRET };
                    let target = legacy(&format!("L-{sender}-{turn}"), secret);
                    // One connection that stays, and one of its own for every fourth: neither is dropped.
                    let answer = if turn % 4 == 0 {
                        send(daemon.public, &request("GET", &target, &[], b"")).unwrap()
                    } else {
                        write!(kept, "GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                        read_answer(&mut kept).unwrap()
                    };
                    assert_eq!((answer.status, answer.text().as_str()), (200, "OK"), "sender {sender}, turn {turn}");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for turn in 0..20 {
                let before = sent.load(Ordering::Relaxed);
                taken(&daemon, if turn % 2 == 0 { &turned } else { &both });
                eventually("notifications go on", || {
                    if sent.load(Ordering::Relaxed) > before + 8 { Ok(()) } else { Err(()) }
                });
            }
        }));
        done.store(true, Ordering::Release);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    let sent = sent.load(Ordering::Relaxed);
    assert_eq!(daemon.feed().len() as u64, sent, "each is kept once");
    assert_eq!(daemon.metric("quittance_notifications_total{outcome=\"refused\",source=\"ipn\"}"), 0.0);
    assert_eq!(daemon.metric("quittance_notifications_total{outcome=\"accepted\",source=\"ipn\"}"), sent as f64);
}

/// What waits for a disk is left behind at the end of the time to drain: a service manager would kill the daemon.
#[test]
fn a_stop_does_not_wait_for_a_reload_that_hangs() {
    let mut daemon = Daemon::start();
    let file = daemon.folder().join("quittance.toml");
    std::fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status().expect("mkfifo runs");
    assert!(made.success());
    signal(daemon.pid(), Signal::HUP);
    // Opens only once somebody reads, and keeps the reader waiting.
    let _silent =
        eventually("the reload reads", || rustix::fs::open(&file, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()));
    assert!(daemon.stop().success());
}
