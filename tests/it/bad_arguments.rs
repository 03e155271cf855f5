//! What nobody can mean is refused by the commands that operate it, with what to write instead, and changes nothing.

use std::fs;

use serde_json::{Value, json};

use crate::fixtures;
use crate::harness::{self, Daemon};

/// Runs a command; its exit status, and what it says.
#[track_caller]
fn run(daemon: &Daemon, line: &str) -> (i32, String, String) {
    let mut command = harness::quittance(daemon.folder(), &["--config", "quittance.toml"]);
    let output = command.args(line.split(' ')).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("it ends by itself"), text(output.stdout), text(output.stderr))
}

/// A daemon that kept one of each of two sources.
fn with_two_kept() -> Daemon {
    let daemon = Daemon::start();
    assert_eq!(daemon.paygol(&fixtures::paygol(json!({}))).status, 200);
    assert_eq!(daemon.legacy(&fixtures::legacy(json!({}))).status, 200);
    daemon
}

fn head(daemon: &Daemon) -> Value {
    daemon.ask("/api/v1/status")["store"]["head"].clone()
}

const WITH_A_SOURCE: [&str; 6] = [
    "list --source nobody",
    "export --source nobody",
    "quarantine list --source nobody",
    "quarantine reverify --source nobody",
    "replay --source nobody --dry-run",
    "replay --source nobody --yes",
];

#[track_caller]
fn names_the_configured(daemon: &Daemon, line: &str) {
    let (status, printed, said) = run(daemon, line);
    assert_eq!((status, printed.as_str()), (2, ""), "{line}: {said}");
    for name in ["\"nobody\"", "paygol", "clickpay-id", "clickgem"] {
        assert!(said.contains(name), "{line} does not name {name}: {said}");
    }
}

#[test]
fn a_source_that_nobody_has_heard_of_is_refused_and_the_configured_are_named() {
    let mut daemon = with_two_kept();
    let before = head(&daemon);
    WITH_A_SOURCE.iter().for_each(|line| names_the_configured(&daemon, line));
    assert_eq!(head(&daemon), before, "nothing was written");
    assert!(daemon.stop().success());
    WITH_A_SOURCE.iter().for_each(|line| names_the_configured(&daemon, line));

    // One that is configured no more has its notifications all the same.
    let file = daemon.folder().join("quittance.toml");
    let config = fs::read_to_string(&file).expect("its configuration");
    fs::write(&file, config.replace("\"paygol-ipn\"", "\"another\"")).expect("written");
    for line in ["list --source paygol-ipn --json", "export --source paygol-ipn"] {
        let (status, printed, said) = run(&daemon, line);
        assert_eq!((status, printed.lines().count()), (0, 1), "{line}: {said}");
    }
    let (status, _, said) = run(&daemon, "replay --source paygol-ipn --dry-run");
    assert_eq!(status, 0, "{said}");
}

#[test]
fn bad_arguments_of_the_operators_commands_change_nothing() {
    let daemon = with_two_kept();
    let before = head(&daemon);
    let id = "019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10";
    let mut wrong = Vec::new();
    for (line, status, word) in [
        ("settle 019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10 fulfil", 2, "--reason"),
        ("settle 019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10 hold --reason x", 2, "possible values"),
        ("settle nonsense refuse --reason x", 2, "UUID"),
        (&*format!("settle {id} refuse --reason x"), 1, "no event has this id"),
        ("replay", 2, "--all"),
        ("replay --all --rate 0/s", 2, "50/s"),
        ("replay --all --rate fast", 2, "50/s"),
        ("replay --since yesterday", 2, "2h"),
        ("replay --until 2026-13-01", 2, "2h"),
        ("replay --status payed", 2, "possible values"),
        ("replay --id nonsense", 2, "UUID"),
        (&*format!("replay --id {id}"), 1, "name no event"),
        (&*format!("replay --id {id} --source paygol"), 2, "cannot be used with"),
        ("replay --file no-such-file", 2, "no-such-file"),
        ("replay --all --routing-key x", 2, "--to-exchange"),
        ("replay --all --to-exchange books --yes", 1, "[relay.amqp]"),
        ("replay --cancel nonsense", 1, "no replay has this id"),
        ("dead-letters retry", 2, "EVENT"),
        ("dead-letters retry nonsense", 2, "UUID"),
        (&*format!("dead-letters show {id}"), 1, "no event of this id"),
        ("quarantine show nonsense", 1, "id"),
        ("quarantine release nonsense", 2, "--reason"),
        ("quarantine release nonsense --reason x", 1, "id"),
        ("quarantine reverify --source Pay!Gol", 2, "a-z"),
        (&*format!("settle {id} refuse --reason "), 1, "say why"),
        ("consumers forget nobody", 1, "no reader"),
        ("consumers forget ", 2, "<NAME>"),
        ("serve", 1, "in use by process"),
        ("serve --restored --restored-ended", 2, "cannot be used with"),
        ("check --live --connect", 2, "cannot be used with"),
        ("doctor --rebuild-index", 1, "only while no daemon runs"),
        ("demo --break paygol/nothing", 2, "paygol/genuine"),
        ("expect --order 1 --amount 1 --currency USD", 2, "--source"),
        ("expect --source nobody --order 1 --amount 1 --currency USD", 1, "configured are clickpay-id, "),
        ("expect --source paygol --order 1 --amount 0 --currency USD", 2, "above zero"),
        ("expect --source paygol --order 1 --amount 1 --currency dollars", 2, "ISO 4217"),
        ("expect --source paygol --order 1 --amount 1 --currency USD --expires never", 2, "24h"),
        ("expect --source paygol --order 1 --amount 1 --currency USD --session x", 1, "session_id"),
        ("expect --source clickkw --order A1 --amount 1 --currency KWD", 1, "1 to 10 digits"),
        ("expect --from no-such-file", 2, "no-such-file"),
        ("expect --from quittance.toml", 1, "is not JSON"),
        ("export --since yesterday", 2, "2h"),
        ("list --limit 0", 2, "limit"),
        ("list --after nonsense", 1, "next"),
        ("doctor --since nonsense", 2, "--since"),
    ] {
        let (ended, printed, said) = run(&daemon, line);
        if (ended, printed.as_str()) != (status, "") || !said.contains(word) {
            wrong.push(format!("{line}: {ended}, {printed}{said}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(head(&daemon), before, "nothing was written");
    assert_eq!(daemon.feed().len(), 2);
}
