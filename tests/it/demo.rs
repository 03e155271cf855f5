//! `quittance demo` shows the main job with nothing else installed, and leaves nothing behind. That each of its cases
//! can fail is `process`'s to show.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;

use crate::harness;

fn demo(folder: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quittance"));
    command.arg("demo").args(arguments).env_clear().env("TMPDIR", folder.path()).current_dir(folder.path());
    command
}

fn ran(arguments: &[&str]) -> (Output, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = demo(&folder, arguments).output().expect("it runs");
    let left = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 0, "the demo leaves something behind");
    let stdout = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    (output, stdout)
}

fn cases() -> Vec<String> {
    let (output, _) = ran(&["--break", "nothing"]);
    assert_eq!(output.status.code(), Some(2), "an unknown case is a mistake on the command line");
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    told.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect()
}

#[test]
fn the_demo_needs_nothing_and_everything_is_as_it_must_be() {
    let (output, stdout) = ran(&[]);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let lines: Vec<Vec<&str>> =
        stdout.lines().map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
    let (summary, lines) = lines.split_last().expect("lines");
    assert_eq!(summary.concat(), format!("{0} of {0} as they must be", lines.len()));
    let names: Vec<String> = lines.iter().map(|line| format!("{}/{}", line[0], line[1])).collect();
    assert_eq!(names, cases());
    assert!(lines.iter().all(|line| line.len() == 6 && line[5] == "ok"), "{stdout}");
    let providers: BTreeSet<&str> = lines.iter().map(|line| line[0]).collect();
    assert_eq!(providers, BTreeSet::from(["clickgem", "clickkw", "clickpay", "paygol", "paygol-legacy"]));
    for provider in providers {
        let of = |name: &str| lines.iter().find(|line| line[0] == provider && line[1] == name);
        let genuine = of("genuine").or_else(|| of("right-indicator")).expect("a genuine one");
        assert_eq!(genuine[3], "payment.paid", "{provider}");
        let repeat = of("repeat").expect("a repeat");
        assert_eq!(repeat[3..5], ["-", "-"], "a repeat is no second event: {provider}");
        let forged = of("forged").or_else(|| of("wrong-tag")).expect("a forged one");
        assert!(forged[3] == "-" && !forged[2].starts_with("200"), "{provider}");
    }
    assert!(lines.iter().filter(|line| line[1].contains("shifted")).all(|line| line[4] == "hold"), "{stdout}");
}

#[test]
fn the_demo_stays_until_it_is_interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = demo(&folder, &["--stay"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut lines = stderr.lines().map(|line| line.expect("a line"));
    let told = lines.by_ref().take_while(|line| !line.contains("Ctrl-C")).collect::<Vec<_>>();
    let events = told.iter().find_map(|line| line.strip_prefix("events at ")).expect("where the events are");
    let feed = ureq::get(events).call().expect("it still answers").body_mut().read_to_string().expect("a page");
    assert!(feed.contains("payment.paid"), "{feed}");
    // At once: whoever is told of Ctrl-C may press it.
    harness::signal(child.id(), Signal::INT);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
