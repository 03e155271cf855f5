//! What an operator's monitoring relies on: the metrics page, the alerts, the dashboard.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::fixtures;
use crate::harness::{Config, Daemon};

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path)
}

/// promtool of the Debian package `prometheus`.
fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(packaging("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn clean(output: &Output) {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// A page after one of everything: kept, refused, an alarm.
fn page() -> String {
    let daemon = Daemon::with(Config::default());
    let fields = fixtures::paygol(json!({}));
    assert_eq!(daemon.paygol(&fields).status, 200);
    assert_eq!(daemon.paygol_with(&fields.to_string(), &"0".repeat(64)).status, 401);
    assert_eq!(daemon.paygol(&fixtures::with(fields, json!({ "price": "9500.00" }))).status, 200);
    daemon.admin_get("/metrics").text()
}

/// Every series of a page: its name and its labels' names.
fn series(page: &str) -> BTreeSet<(String, BTreeSet<String>)> {
    let lines = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let one = |line: &str| {
        let (name, labels) = line.split_once(['{', ' ']).unwrap();
        let label = regex::Regex::new(r#"([a-z_]+)=""#).unwrap();
        let labels = if line.contains('{') { labels } else { "" };
        (name.to_owned(), label.captures_iter(labels).map(|found| found[1].to_owned()).collect())
    };
    lines.map(one).collect()
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics_page() {
    let page = page();
    let output = promtool(&["check", "metrics"], &page);
    clean(&output);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "not even a warning");
    let spoiled = promtool(&["check", "metrics"], &page.replace("quittance_refusals_total", "quittance_refusals"));
    assert!(!spoiled.status.success(), "promtool can tell");
}

#[test]
fn every_series_of_the_interface_is_on_the_page_with_its_labels() {
    let all = series(&page());
    for (name, labels) in [
        ("notifications_total", &["source", "outcome"][..]),
        ("refusals_total", &["source", "reason"]),
        ("events_total", &["source", "verdict"]),
        ("ack_seconds_bucket", &["source", "le"]),
        ("commit_seconds_bucket", &["le"]),
        ("commit_batch_size_bucket", &["le"]),
        ("verified_with_key_total", &["source", "key"]),
        ("forgery_alarms_total", &["source", "kind"]),
        ("relay_published_total", &["outcome"]),
        ("relay_backlog_events", &[]),
        ("relay_oldest_seconds", &[]),
        ("relay_connected", &[]),
        ("relay_blocked", &[]),
        ("dead_letters", &[]),
        ("journal_bytes", &[]),
        ("journal_damage_total", &[]),
        ("index_lag_records", &[]),
        ("index_rebuild_progress_ratio", &[]),
        ("quarantine_bytes", &["source"]),
        ("trace_spans_total", &["outcome"]),
        ("connections", &[]),
        ("source_silence_seconds", &["source"]),
        ("build_info", &["version"]),
        ("ready", &[]),
        ("store_free_bytes", &[]),
        ("store_size_bytes", &[]),
    ] {
        let labels: BTreeSet<String> = labels.iter().map(|&label| label.to_owned()).collect();
        assert!(all.contains(&(format!("quittance_{name}"), labels)), "{name} with its labels is not in {all:#?}");
    }
    assert!(all.iter().any(|(name, _)| name == "process_open_fds"), "{all:#?}");
}

#[test]
fn the_store_has_a_disk_and_a_daemon_that_is_ready_says_so() {
    let daemon = Daemon::start();
    let (free, size) = (daemon.metric("quittance_store_free_bytes"), daemon.metric("quittance_store_size_bytes"));
    assert!(free > 0.0 && free <= size, "{free} of {size}");
    assert_eq!(daemon.metric("quittance_ready"), 1.0);
}

#[test]
fn the_alerts_fire_when_they_must_and_not_before() {
    clean(&promtool(&["check", "rules", "alerts.yml"], ""));
    clean(&promtool(&["test", "rules", "alerts_test.yml"], ""));
    let rules = std::fs::read_to_string(packaging("prometheus/alerts.yml")).unwrap();
    let tests = std::fs::read_to_string(packaging("prometheus/alerts_test.yml")).unwrap();
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in alerts {
        // Each was seen to fire: a sample beside its name.
        let fires = tests.contains(&format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\", "))
            || tests.contains(&format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\", severity"));
        assert!(fires, "no test sees {alert} fire");
    }
}

/// Names of series with the labels that an expression selects or groups by.
fn named(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let selector = regex::Regex::new(r"\b((?:quittance|process)_[a-z_]+)(?:\{([^}]*)\})?").unwrap();
    let label = regex::Regex::new(r#"([a-z_]+)\s*(?:=~|!~|!=|=)\s*""#).unwrap();
    let group = regex::Regex::new(r"\b(?:by|without) \(([^)]*)\)").unwrap();
    let grouped: BTreeSet<String> = group
        .captures_iter(expression)
        .flat_map(|found| found[1].split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>())
        .filter(|name| !name.is_empty())
        .collect();
    let one = |found: regex::Captures<'_>| {
        let selected = found.get(2).map_or("", |labels| labels.as_str());
        let mut labels: BTreeSet<String> = label.captures_iter(selected).map(|found| found[1].to_owned()).collect();
        labels.extend(grouped.clone());
        (found[1].to_owned(), labels)
    };
    selector.captures_iter(expression).map(one).collect()
}

/// Fails for a name that the page does not show, or a label that it does not have there. What Prometheus adds is known.
#[track_caller]
fn known(expression: &str, all: &BTreeSet<(String, BTreeSet<String>)>) {
    let names = named(expression);
    assert!(!names.is_empty() || expression.contains("up{"), "{expression} asks for nothing of ours");
    for (name, mut labels) in names {
        labels.remove("instance");
        labels.remove("job");
        let found = all.iter().any(|(series, has)| *series == name && labels.is_subset(has));
        assert!(found, "{name} with {labels:?} is not on the page: {expression}");
    }
}

#[test]
fn every_expression_of_alerts_and_dashboard_asks_for_what_the_page_shows() {
    let all = series(&page());
    let rules = std::fs::read_to_string(packaging("prometheus/alerts.yml")).unwrap();
    let mut block = None::<String>;
    let mut expressions = Vec::new();
    for line in rules.lines() {
        if let Some(expression) = line.trim().strip_prefix("expr: ") {
            block = Some(expression.trim_start_matches('|').to_owned());
        } else if line.trim().starts_with("for: ") || line.trim().starts_with("labels: ") {
            expressions.extend(block.take());
        } else if let Some(block) = &mut block {
            *block += line;
        }
    }
    assert!(expressions.len() >= 15, "{expressions:#?}");
    expressions.iter().for_each(|expression| known(expression, &all));

    let text = std::fs::read_to_string(packaging("grafana/quittance.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let asked: Vec<String> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default())
        .map(|target| fixtures::text(&target["expr"]))
        .collect();
    assert!(asked.len() >= 15, "{asked:#?}");
    asked.iter().for_each(|expression| known(expression, &all));
    for expression in asked.iter().chain(&expressions) {
        let plain = expression.replace("$__rate_interval", "5m").replace("$source", "x").replace("$instance", "x");
        clean(&promtool_expression(&plain));
    }
}

/// Whether promtool can read an expression.
fn promtool_expression(expression: &str) -> Output {
    let folder = crate::harness::Folder::new();
    let file = folder.path().join("rule.yml");
    let rule = json!({ "groups": [{ "name": "g", "rules": [{ "record": "a:b", "expr": expression }] }] });
    std::fs::write(&file, rule.to_string()).unwrap();
    promtool(&["check", "rules", &file.display().to_string()], "")
}
