//! `quittance doctor` says what is wrong and what to do, and `--rebuild-index` mends an index.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fixtures;
use crate::harness::{Config, Daemon, eventually, quittance, signal};

/// Runs it in the daemon's folder; its exit status and what it says of each thing.
fn doctor(daemon: &Daemon) -> (i32, Vec<Value>) {
    let output = quittance(daemon.folder(), &["--config", "quittance.toml", "doctor", "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let checks: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let status = output.status.code().unwrap();
    let wrong = checks.iter().any(|check| check["state"] == "wrong");
    assert_eq!(status, i32::from(wrong), "{checks:#?}\n{}", String::from_utf8_lossy(&output.stderr));
    for check in &checks {
        let keys: Vec<&str> = check.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["check", "state", "what", "remedy"]);
        assert!(check["state"] != "wrong" || check["remedy"].is_string(), "what to do is missing: {check}");
    }
    (status, checks)
}

/// What is wrong, but for the disk of whoever runs the tests.
fn wrong(daemon: &Daemon) -> Vec<String> {
    let wrong = doctor(daemon).1.into_iter().filter(|check| check["state"] == "wrong" && check["check"] != "disk");
    wrong.map(|check| format!("{}: {}", fixtures::text(&check["check"]), fixtures::text(&check["what"]))).collect()
}

#[track_caller]
fn says(daemon: &Daemon, check: &str, what: &str) {
    let wrong = wrong(daemon);
    let found = wrong.iter().any(|line| line.starts_with(&format!("{check}: ")) && line.contains(what));
    assert!(found, "{check}: ..{what}.. is not in {wrong:#?}");
}

#[test]
fn a_healthy_daemon_has_nothing_wrong_and_everything_is_looked_at() {
    let mut daemon = Daemon::start();
    assert_eq!(daemon.paygol(&fixtures::paygol(json!({}))).status, 200);
    assert_eq!(wrong(&daemon), Vec::<String>::new());
    let looked: Vec<String> = doctor(&daemon).1.iter().map(|check| fixtures::text(&check["check"])).collect();
    for check in ["daemon", "store", "index", "broker", "clock", "keys", "rights", "disk"] {
        assert!(looked.iter().any(|looked| looked == check), "{check} is not in {looked:?}");
    }
    assert!(daemon.stop().success());
    assert_eq!(wrong(&daemon), Vec::<String>::new(), "that nobody runs it is not wrong by itself");
    let said = quittance(daemon.folder(), &["--config", "quittance.toml", "doctor"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&said.stdout).contains(fixtures::PAYGOL_SECRET));
}

#[test]
fn each_thing_that_is_wrong_is_found() {
    let mut daemon = Daemon::start();
    let store = daemon.store();
    let mode = |mode| fs::set_permissions(&store, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    says(&daemon, "rights", "755");
    mode(0o700);
    let file = daemon.folder().join("quittance.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    says(&daemon, "rights", "written by others");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

    let damage = store.join("damage");
    fs::create_dir(&damage).unwrap();
    fs::write(damage.join("00000000000000000001.journal-100-20-unreadable"), b"x").unwrap();
    says(&daemon, "store", "damaged places");
    fs::remove_dir_all(&damage).unwrap();

    let forged = daemon.paygol_with(&fixtures::paygol(json!({})).to_string(), &"0".repeat(64));
    assert_eq!(forged.status, 401);
    says(&daemon, "keys", "paygol: no key held");
    assert_eq!(daemon.paygol(&fixtures::paygol(json!({}))).status, 200);
    assert_eq!(wrong(&daemon), Vec::<String>::new(), "one forgery beside a genuine one says nothing of the key");

    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("/paygol/ipn", "/paygol")).unwrap();
    signal(daemon.pid(), Signal::HUP);
    eventually("the reload is refused", || {
        let told = daemon.ask("/api/v1/status")["config"]["last_reload_error"].clone();
        if told.is_string() { Ok(()) } else { Err(told) }
    });
    fs::write(&file, &good).unwrap();
    says(&daemon, "daemon", "last reload was refused");

    assert!(daemon.stop().success());
    fs::rename(store.join("seal.key"), daemon.folder().join("seal.key")).unwrap();
    says(&daemon, "store", "seal.key");
    fs::rename(daemon.folder().join("seal.key"), store.join("seal.key")).unwrap();
    fs::write(&file, good + "\n[relay.amqp]\nurl = \"amqp://127.0.0.1:1\"\n").unwrap();
    says(&daemon, "broker", "127.0.0.1:1");
}

#[test]
fn an_index_is_built_anew_from_the_journal_alone() {
    let mut daemon = Daemon::with(Config::default());
    let pay = |daemon: &Daemon, at: u32| {
        daemon.paygol(&fixtures::paygol(json!({ "transaction_id": format!("INDEX-{at}") }))).status
    };
    for at in 0..5 {
        assert_eq!(pay(&daemon, at), 200);
    }
    let rebuild = |daemon: &Daemon| {
        quittance(daemon.folder(), &["--config", "quittance.toml", "doctor", "--rebuild-index", "--json"])
            .output()
            .unwrap()
    };
    let refused = rebuild(&daemon);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&daemon.pid().to_string()), "it names who has the store: {said}");
    assert_eq!(daemon.admin_get("/readyz").status, 200);
    assert!(daemon.stop().success());

    for entry in fs::read_dir(daemon.store().join("index")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::write(path, b"not sled").unwrap();
        }
    }
    let built = rebuild(&daemon);
    assert_eq!(built.status.code(), Some(0), "{}", String::from_utf8_lossy(&built.stderr));
    let told: Value = serde_json::from_slice(&built.stdout).unwrap();
    assert!(told["records"].as_u64() >= Some(5), "{told}");
    daemon.start_again();
    for at in 0..5 {
        assert_eq!(pay(&daemon, at), 200);
    }
    assert_eq!(daemon.feed().len(), 5, "each was known");
    assert!(!daemon.log().contains("does not fit"), "the daemon takes the index as it was built");
}
