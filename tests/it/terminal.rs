//! What is asked and drawn on a terminal only, and what comes from a file instead. `script`, which every Debian has, gives a
//! command a terminal.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fixtures::{self, text};
use crate::harness::{self, Daemon};

fn with_payments(count: usize) -> Daemon {
    let daemon = Daemon::start();
    for n in 0..count {
        let paid = json!({ "custom": format!("O{n}"), "transaction_id": format!("T{n}") });
        assert_eq!(daemon.paygol(&fixtures::paygol(paid)).status, 200);
    }
    daemon
}

/// What the feed told, repeats too.
fn told(daemon: &Daemon) -> Vec<Value> {
    daemon.ask("/api/v1/events?limit=1000")["entries"].as_array().expect("a list").clone()
}

/// Runs a command on a terminal on which `typed` is typed; whether it succeeded, and what was to be seen.
fn on_a_terminal(daemon: &Daemon, arguments: &str, typed: &str) -> (bool, String) {
    let line = format!("'{}' --config quittance.toml {arguments}", harness::executable().display());
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .current_dir(daemon.folder())
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("script runs");
    // Left open until it ends: what is typed may be asked for late.
    let mut input = script.stdin.take().expect("piped");
    input.write_all(typed.as_bytes()).expect("typed");
    let output = script.wait_with_output().expect("it ends");
    drop(input);
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn above_ten_matches_a_person_is_asked_and_no_is_no() {
    let daemon = with_payments(11);
    for no in ["n\n", "\n", "what?\n"] {
        let (done, seen) = on_a_terminal(&daemon, "replay --all --rate max", no);
        assert!(!done && seen.contains("11 events are sent again. Go on? [y/N]"), "{seen}");
        assert!(seen.contains("nothing was sent"), "{seen}");
    }
    assert_eq!(told(&daemon).len(), 11);
    assert_eq!(daemon.ask("/api/v1/replays")["replays"], json!([]), "nothing was begun");
    let (done, seen) = on_a_terminal(&daemon, "replay --all --rate max", "y\n");
    assert!(done && seen.contains("11 sent again"), "{seen}");
    assert_eq!(told(&daemon).len(), 22);
    // Nobody is asked whether ten may go, or where it was said already.
    for unasked in ["replay --order O1 --rate max", "replay --all --rate max --yes"] {
        let (done, seen) = on_a_terminal(&daemon, unasked, "");
        assert!(done && seen.contains("sent again") && !seen.contains("Go on?"), "{seen}");
    }
    assert_eq!(told(&daemon).len(), 22 + 1 + 11);
}

#[test]
fn a_terminal_shows_how_far_a_replay_is_and_a_pipe_does_not() {
    let daemon = with_payments(10);
    let (done, seen) = on_a_terminal(&daemon, "replay --all --rate 10/s", "");
    assert!(done, "{seen}");
    let bar = regex::Regex::new(r"[0-9]+/10, [^ ]+ left").expect("a pattern");
    assert!(bar.is_match(&seen), "{seen:?}");
    let mut piped = harness::quittance(daemon.folder(), &["--config", "quittance.toml"]);
    let piped = piped.args(["replay", "--all", "--rate", "10/s"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&piped.stderr);
    assert!(piped.status.success() && !said.contains("left"), "{said}");
}

#[test]
fn a_file_says_which_events_are_sent_again() {
    let daemon = with_payments(4);
    let items = daemon.ask("/api/v1/notifications")["notifications"].as_array().expect("a list").clone();
    let newest_first = |at: usize, name: &str| text(&items[at][name]);
    // An event's id and a notification's; what is empty says nothing.
    let ids = format!("{}\n\n  {}\n", newest_first(3, "event_id"), newest_first(1, "id"));
    let file = daemon.folder().join("ids.txt");
    std::fs::write(&file, &ids).expect("written");
    let run = |arguments: &[&str], input: &str| {
        let mut command = harness::quittance(daemon.folder(), &["--config", "quittance.toml", "replay"]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("read");
        child.wait_with_output().expect("it ends")
    };
    for (place, input) in [("ids.txt", ""), ("-", ids.as_str())] {
        let sent = run(&["--file", place, "--rate", "max", "--json"], input);
        assert_eq!(sent.status.code(), Some(0), "{sent:?}");
        let sent: Value = serde_json::from_slice(&sent.stdout).expect("JSON");
        assert_eq!((&sent["state"], &sent["redelivered"]), (&json!("done"), &json!(2)));
    }
    let subjects: Vec<String> = told(&daemon)[4..].iter().map(|entry| text(&entry["event"]["subject"])).collect();
    assert_eq!(subjects, ["O0", "O2", "O0", "O2"], "in the journal's order");

    let many = "019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10\n".repeat(1501);
    for (wrong, code, why) in [("", 2, "holds no id"), ("O1\n", 1, "number 1 is no id"), (&many, 2, "at most 1500")] {
        std::fs::write(&file, wrong).expect("written");
        let refused = run(&["--file", "ids.txt"], "");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(code) && said.contains(why), "{why}: {refused:?}");
    }
    assert_eq!(run(&["--file", "nowhere.txt"], "").status.code(), Some(2));
    assert_eq!(told(&daemon).len(), 8, "nothing of that was sent");
}
