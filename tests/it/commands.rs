//! `list`, `show`, `tail`, `completions`, `man`: what they print, with a daemon and without one.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::fixtures;
use crate::harness::{self, Daemon, eventually};
use crate::{expected, http};

fn command(folder: &Path, line: &str) -> Command {
    let mut command = harness::quittance(folder, &["--config", "quittance.toml"]);
    command.args(line.split(' ')).env("TZ", "UTC").env("COLUMNS", "120");
    command
}

fn run(folder: &Path, line: &str) -> Output {
    command(folder, line).output().expect("it runs")
}

#[track_caller]
fn done(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{line}: {told}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What a person has before them: the data, and behind it what is said beside it.
#[track_caller]
fn seen(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    let (data, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{line}: {told}");
    if told.is_empty() { data.into_owned() } else { format!("{data}--- on stderr\n{told}") }
}

#[track_caller]
fn failed(folder: &Path, line: &str, status: i32) -> String {
    let output = run(folder, line);
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(status), "{line}: {told}");
    assert!(output.stdout.is_empty(), "{line}: data although it failed");
    told
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

/// Every command, those within a command by both their words.
fn commands() -> Vec<String> {
    let cli = <quittance::cli::Cli as clap::CommandFactory>::command();
    let mut names = Vec::new();
    for command in cli.get_subcommands() {
        names.push(command.get_name().to_owned());
        names.extend(command.get_subcommands().map(|inner| format!("{} {}", command.get_name(), inner.get_name())));
    }
    assert!(names.len() > 20, "{names:?}");
    names
}

/// A day at the shop: an expectation met, a repeat, a held one, a conflict, and a name that means harm.
fn a_day() -> Daemon {
    let daemon = Daemon::start();
    daemon.expects("paygol", "100042", ("7500.00", "CLP"), json!({}));
    let paid = fixtures::paygol(json!({ "custom": "100042" }));
    assert_eq!(daemon.paygol(&paid).status, 200);
    assert_eq!(daemon.paygol(&paid).status, 200);
    assert_eq!(daemon.paygol(&fixtures::with(paid, json!({ "price": "1.00" }))).status, 200);
    assert_eq!(daemon.legacy(&fixtures::legacy(json!({ "custom": "100043" }))).status, 200);
    assert_eq!(daemon.clickpay("/clickpay", &fixtures::pay_in(json!({}))).status, 200);
    let evil = fixtures::paygol(json!({ "custom": "\u{1b}[2J\u{202e}x", "transaction_id": "E1", "status": "failed" }));
    assert_eq!(daemon.paygol(&evil).status, 200);
    daemon
}

#[test]
fn what_a_person_sees_is_what_was_agreed() {
    let daemon = a_day();
    let folder = daemon.folder();
    expected::same("list.txt", &seen(folder, "list"));
    expected::same("list-hold.txt", &seen(folder, "list --verdict hold"));
    expected::same("order.txt", &seen(folder, "show --order paygol/100042"));
    expected::same("tail.txt", &seen(folder, "tail --no-follow"));
    let of_clickpay = objects(&done(folder, "list --source clickpay-id --json"));
    let id = of_clickpay[0]["id"].as_str().expect("an id");
    expected::same("show.txt", &seen(folder, &format!("show {id}")));
    for name in commands() {
        expected::same(&format!("help-{}.txt", name.replace(' ', "-")), &seen(folder, &format!("{name} --help")));
    }
    expected::same("help.txt", &seen(folder, "--help"));
    expected::same("expect.txt", &seen(folder, "expect --source clickkw --order 77 --amount 6.000 --currency KWD"));
    let send = format!("send paygol --to http://{} --order 100099 --transaction T-1", daemon.public);
    expected::same("send.txt", &seen(folder, &send));
    expected::same("check.txt", &seen(folder, "check"));
}

#[test]
fn what_an_operator_sees_is_what_was_agreed() {
    let daemon = a_day();
    let folder = daemon.folder();
    let forged = [("Content-Type", "application/json"), ("X-Pg-Sig", &"ab".repeat(32))];
    let forged = http::request("POST", "/paygol", &forged, fixtures::paygol(json!({})).to_string().as_bytes());
    assert_ne!(daemon.send(&forged).status, 200);
    let cursor = daemon.ask("/api/v1/events?consumer=shop")["next"].as_str().expect("a cursor").to_owned();
    daemon.ask(&format!("/api/v1/events?consumer=shop&after={cursor}"));
    expected::same("quarantine-list.txt", &seen(folder, "quarantine list"));
    let quarantined = objects(&done(folder, "quarantine list --json"))[0]["id"].as_str().expect("an id").to_owned();
    expected::same("quarantine-show.txt", &seen(folder, &format!("quarantine show {quarantined}")));
    expected::same("quarantine-reverify.txt", &seen(folder, "quarantine reverify"));
    expected::same(
        "quarantine-release.txt",
        &seen(folder, &format!("quarantine release {quarantined} --reason asked")),
    );
    let held = objects(&done(folder, "list --verdict hold --source paygol-ipn --json"));
    let held = held[0]["event_id"].as_str().expect("an event");
    expected::same("settle.txt", &seen(folder, &format!("settle {held} refuse --reason unpaid")));
    expected::same("dead-letters-list.txt", &seen(folder, "dead-letters list"));
    expected::same("dead-letters-retry.txt", &seen(folder, "dead-letters retry --all"));
    eventually("the acknowledgement counts", || {
        let consumers = objects(&done(folder, "consumers list --json"));
        if consumers.is_empty() { Err(()) } else { Ok(()) }
    });
    expected::same("consumers-list.txt", &seen(folder, "consumers list"));
    expected::same("consumers-forget.txt", &seen(folder, "consumers forget shop"));
    expected::same("replay-dry-run.txt", &seen(folder, "replay --source paygol --dry-run"));
    expected::same("replay.txt", &seen(folder, "replay --order 100042 --rate max"));
}

#[test]
fn json_is_the_apis_own_objects_one_a_line_with_a_daemon_and_without_one() {
    let mut daemon = a_day();
    let listed = daemon.ask("/api/v1/notifications?limit=1000")["notifications"].as_array().expect("a list").clone();
    let history = daemon.ask("/api/v1/orders/paygol/100042");
    let id = listed[0]["id"].as_str().expect("an id").to_owned();
    let shown = daemon.ask(&format!("/api/v1/notifications/{id}"));
    let feed = daemon.ask("/api/v1/events?limit=1000")["entries"].as_array().expect("entries").clone();
    for running in [true, false] {
        if !running {
            assert!(daemon.stop().success());
        }
        let folder = daemon.folder();
        assert_eq!(objects(&done(folder, "list --json")), listed, "running: {running}");
        assert_eq!(objects(&done(folder, "show --order paygol/100042 --json")), std::slice::from_ref(&history));
        assert_eq!(objects(&done(folder, &format!("show {id} --json"))), std::slice::from_ref(&shown));
        let event = shown["event"]["id"].as_str().expect("an id");
        assert_eq!(
            objects(&done(folder, &format!("show {event} --json"))),
            std::slice::from_ref(&shown),
            "an event's id will do"
        );
        assert_eq!(objects(&done(folder, "tail -n all --no-follow --json")), feed);
        assert_eq!(objects(&done(folder, "tail -n 2 --no-follow --json")), feed[feed.len() - 2..]);
        let after = feed[1]["cursor"].as_str().expect("a cursor");
        assert_eq!(objects(&done(folder, &format!("tail --after {after} --no-follow --json"))), feed[2..]);
        assert_eq!(objects(&done(folder, "list --json --limit 2")), listed[..2]);
        assert_eq!(objects(&done(folder, "list --json --source paygol --status failed")).len(), 1);
        assert_eq!(objects(&done(folder, "list --json --since 1h --until 30m")).len(), 0);
    }
    // Without a daemon nothing can come: it says so and ends by itself.
    assert_eq!(objects(&done(daemon.folder(), "tail --json")), feed);
}

#[test]
fn a_list_goes_on_where_it_ended_and_all_is_all() {
    let daemon = Daemon::start();
    for at in 0..7 {
        let fields = fixtures::paygol(json!({ "transaction_id": format!("T{at}"), "custom": format!("O{at}") }));
        assert_eq!(daemon.paygol(&fields).status, 200);
    }
    let folder = daemon.folder();
    let all = done(folder, "list --json --all");
    let output = run(folder, "list --json --limit 4");
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    let next = told.split(' ').find(|word| word.starts_with('A')).expect("a cursor").trim_end_matches(',').to_owned();
    let first = String::from_utf8(output.stdout).expect("UTF-8");
    let second = done(folder, &format!("list --json --limit 4 --after {next}"));
    assert_eq!(first + &second, all);
    assert_eq!(all.lines().count(), 7);
}

#[test]
fn tail_tells_each_event_as_it_comes_and_ends_when_nobody_reads() {
    let daemon = Daemon::start();
    assert_eq!(daemon.paygol(&fixtures::paygol(json!({ "transaction_id": "T0" }))).status, 200);
    let mut tail = command(daemon.folder(), "tail -n 0 --json");
    let mut tail = tail.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(tail.stdout.take().expect("piped"));
    // It asks from where the feed ends at its start: what it tells first must be what came after that.
    let mut told = String::new();
    let mut at = 0;
    while told.is_empty() {
        at += 1;
        assert!(at < 100, "it tells nothing");
        let fields = fixtures::paygol(json!({ "transaction_id": format!("T{at}") }));
        assert_eq!(daemon.paygol(&fields).status, 200);
        let waiting = rustix::event::PollFlags::IN;
        let mut watched = [rustix::event::PollFd::new(lines.get_ref(), waiting)];
        let patience = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        if rustix::event::poll(&mut watched, Some(&patience)).expect("poll") > 0 {
            lines.read_line(&mut told).expect("a line");
        }
    }
    let entry: Value = serde_json::from_str(&told).expect("an entry");
    assert_ne!(entry["event"]["data"]["transaction_id"], "T0", "what was there before was not asked for");
    drop(lines);
    let status = eventually("it ends although nothing comes", || tail.try_wait().expect("ours").ok_or(()));
    assert_eq!(status.code(), Some(0), "a closed pipe is success");
}

#[test]
fn tail_ends_with_success_when_it_is_interrupted() {
    let daemon = a_day();
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut tail = command(daemon.folder(), "tail").stdout(Stdio::piped()).spawn().expect("it runs");
        let mut lines = BufReader::new(tail.stdout.take().expect("piped"));
        lines.read_line(&mut String::new()).expect("a line");
        harness::signal(tail.id(), signal);
        assert_eq!(tail.wait().expect("ours").code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_closed_pipe_is_success_for_every_command_that_prints() {
    let daemon = a_day();
    for line in ["list", "list --json", "show --order paygol/100042", "tail", "completions bash", "man", "check"] {
        let mut child =
            command(daemon.folder(), line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        drop(child.stdout.take());
        let status = eventually("it ends", || child.try_wait().expect("ours").ok_or(()));
        let mut told = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut told).expect("UTF-8");
        assert_eq!(status.code(), Some(0), "{line}: {told}");
    }
}

#[test]
fn nothing_from_outside_moves_a_cursor_or_changes_a_colour() {
    let daemon = a_day();
    let newest = objects(&done(daemon.folder(), "list --json --status failed"));
    let id = newest[0]["id"].as_str().expect("an id");
    assert_eq!(newest[0]["order_id"], "\u{1b}[2J\u{202e}x", "a program reads what was sent");
    for line in ["list", "tail --no-follow", &format!("show {id}"), "list --json", &format!("show {id} --json")] {
        let text = done(daemon.folder(), line);
        let bad = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(bad, None, "{line}: {text}");
    }
}

#[test]
fn a_mistake_is_told_with_its_remedy_and_changes_nothing() {
    let daemon = a_day();
    let folder = daemon.folder();
    let before = daemon.ask("/api/v1/status")["store"]["head"].clone();
    for (line, status, why) in [
        ("show 019aa2f4-6f0d-7a10-8d40-6a1d5a0f2b11", 1, "list"),
        ("show nonsense", 1, "no notification and no event has the id"),
        ("show ../../x?y", 1, "no notification and no event has the id"),
        ("show", 2, "<ID|--order"),
        ("show --order paygol", 2, "SOURCE/ORDER"),
        ("show --order paygol/7", 1, "nothing is known of order \"7\" at source paygol"),
        ("show --order nowhere/7", 1, "no such source"),
        ("list --source No", 2, "[a-z0-9-]"),
        ("list --verdict maybe", 2, "possible values: fulfil, compare, hold, none"),
        ("list --since yesterday", 2, "like 2h"),
        ("list --after x", 1, "next"),
        ("list --limit 0", 2, "1..=1000"),
        ("list --limit 5 --all", 2, "cannot be used with"),
        ("tail --after x", 1, "cursor"),
        ("tail -n -1", 2, "-1"),
        ("tail -n few", 2, "write a number, or all"),
        ("completions tcsh", 2, "bash, zsh, fish"),
        ("man --dir /nowhere/at/all", 1, "/nowhere/at/all"),
    ] {
        let told = failed(folder, line, status);
        assert!(told.contains(why), "{line}: {told}");
    }
    assert_eq!(daemon.ask("/api/v1/status")["store"]["head"], before);
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_looking() {
    let folder = harness::Folder::new();
    std::fs::write(folder.path().join("quittance.toml"), harness::Config::default().render()).expect("written");
    for line in ["list", "tail", "show --order paygol/7"] {
        assert!(failed(folder.path(), line, 1).contains("there is no store"), "{line}");
    }
    assert!(!folder.path().join("store").exists());
    let told =
        String::from_utf8(harness::quittance(folder.path(), &["list"]).output().expect("runs").stderr).expect("UTF-8");
    assert!(told.contains("--config"), "without a configuration it says how to name one: {told}");
}

/// At a shell the secrets of the sources are often out of reach: systemd hands them to the daemon alone.
#[test]
fn a_running_daemon_is_asked_without_the_secrets_of_its_sources() {
    let daemon = a_day();
    let file = daemon.folder().join("quittance.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, text.replace(&format!("\"{}\"", fixtures::PAYGOL_SECRET), "{ credential = \"paygol\" }"))
        .expect("written");
    assert!(!done(daemon.folder(), "list").is_empty());
    assert!(done(daemon.folder(), "check --live").contains("ready"));
    assert!(
        failed(daemon.folder(), "check", 2).contains("LoadCredential"),
        "what starts a daemon needs them all the same"
    );
}

#[test]
fn the_token_of_the_configuration_opens_the_admin_api() {
    let token = "0123456789abcdef-token";
    let daemon = Daemon::with(harness::Config { admin: format!("token = \"{token}\""), ..harness::Config::default() });
    assert_eq!(
        http::send(daemon.admin, &http::request("GET", "/api/v1/status", &[], b"")).expect("answered").status,
        401
    );
    done(daemon.folder(), "list --json");
    let file = daemon.folder().join("quittance.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, text.replace(token, "another-token-of-16")).expect("written");
    let told = failed(daemon.folder(), "list", 1);
    assert!(told.contains("token") && !told.contains("another-token"), "{told}");
}

#[test]
fn completions_and_manual_know_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let commands = commands();
    for shell in ["bash", "zsh", "fish"] {
        let script = done(folder.path(), &format!("completions {shell}"));
        let known = |name: &&String| name.split(' ').all(|word| script.contains(word));
        assert_eq!(commands.iter().find(|name| !known(name)), None, "{shell}");
    }
    let bash = folder.path().join("quittance.bash");
    std::fs::write(&bash, done(folder.path(), "completions bash")).expect("written");
    // bash itself completes it.
    let complete = r#"source "$0"; COMP_WORDS=(quittance expe); COMP_CWORD=1; _quittance quittance expe quittance; echo "${COMPREPLY[@]}""#;
    let completed = Command::new("bash").arg("-c").arg(complete).arg(&bash).output().expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "expect", "{completed:?}");
    let page = done(folder.path(), "man");
    assert!(page.starts_with(".ie") || page.contains(".TH quittance 1"), "{page}");
    done(folder.path(), &format!("man --dir {}", folder.path().display()));
    for name in commands {
        let name = name.replace(' ', "-");
        let page = std::fs::read_to_string(folder.path().join(format!("quittance-{name}.1"))).expect("its page");
        assert!(page.contains(&format!("quittance\\-{}", name.replace('-', "\\-"))), "{name}");
    }
}
