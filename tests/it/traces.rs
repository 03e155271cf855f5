//! Spans over OTLP: one trace for each event, nothing of a person or a secret in it, and nobody waits for a collector.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::Instant;

use serde_json::json;

use crate::collector::{Collector, Span};
use crate::fixtures::{self, PAYGOL_SECRET, text};
use crate::harness::{Config, Daemon, eventually};

fn with(tables: String) -> Daemon {
    Daemon::with(Config { tables, ..Config::default() })
}

/// The daemon's threads.
fn threads(daemon: &Daemon) -> BTreeSet<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().flatten();
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).map(|n| n.trim().into()).collect()
}

#[track_caller]
fn spans(collector: &Collector, count: usize) -> Vec<Span> {
    eventually("the collector has the spans", || {
        let spans = collector.spans();
        if spans.len() >= count { Ok(spans) } else { Err(spans) }
    })
}

/// Those of a trace, by name.
fn of_trace<'s>(spans: &'s [Span], trace: &str) -> BTreeMap<&'s str, &'s Span> {
    spans.iter().filter(|span| span.trace == trace).map(|span| (span.name.as_str(), span)).collect()
}

#[test]
fn without_a_collector_there_is_nothing_that_traces() {
    let daemon = Daemon::start();
    assert_eq!(daemon.paygol(&fixtures::paygol(json!({}))).status, 200);
    assert!(!threads(&daemon).contains("traces"), "{:?}", threads(&daemon));
    assert_eq!(daemon.metric("quittance_trace_spans_total{outcome=\"sent\"}"), 0.0);
    assert_eq!(daemon.metric("quittance_trace_spans_total{outcome=\"dropped\"}"), 0.0);
}

#[test]
fn what_is_received_is_one_trace_with_the_id_of_its_event_and_says_nothing_of_anybody() {
    let collector = Collector::new();
    let daemon = with(collector.table());
    assert!(threads(&daemon).contains("traces"), "{:?}", threads(&daemon));
    let fields = fixtures::paygol(json!({ "custom": "order-secretive", "transaction_id": "T-secretive" }));
    assert_eq!(daemon.paygol(&fields).status, 200);
    let first = spans(&collector, 5);
    let event = text(&daemon.feed()[0]["id"]);
    let trace = event.replace('-', "");
    let named = of_trace(&first, &trace);
    assert_eq!(named.keys().copied().collect::<Vec<_>>(), ["answer", "commit", "read", "receive", "verify"]);
    let root = named["receive"];
    assert_eq!((root.kind, root.parent.as_str(), root.failed), (2, "", false));
    let wanted = [
        ("http.response.status_code", "200"),
        ("quittance.event_id", &event),
        ("quittance.outcome", "accepted"),
        ("quittance.provider", "paygol"),
        ("quittance.source", "paygol"),
        ("quittance.verdict", "compare"),
    ];
    let wanted: BTreeMap<String, String> = wanted.map(|(name, value)| (name.into(), value.into())).into();
    assert_eq!(root.attributes, wanted);
    let steps = ["read", "verify", "commit", "answer"].map(|name| named[name]);
    let mut from = root.began;
    for step in steps {
        assert_eq!((&step.parent, step.kind), (&root.id, 1), "{step:?}");
        // The wall's clock is read to the millisecond once for all of them: they join without a gap.
        assert_eq!(step.began, from, "{step:?} begins where the one before it ends");
        from = step.ended;
    }
    assert_eq!(from, root.ended);

    // A repeat belongs to the same trace; what is refused has one of its own.
    assert_eq!(daemon.paygol(&fields).status, 200);
    let forged = fixtures::with(fields.clone(), json!({ "price": "1.00" }));
    assert_eq!(daemon.paygol_with(&forged.to_string(), &"0".repeat(64)).status, 401);
    assert_eq!(daemon.get("/nowhere").status, 404);
    let all = spans(&collector, 5 + 5 + 4 + 2);
    let roots: Vec<&Span> = all.iter().filter(|span| span.name == "receive").collect();
    let said = |span: &Span, name: &str| span.attributes.get(name).cloned().unwrap_or_default();
    let by_status = |status: &str| roots.iter().filter(|s| said(s, "http.response.status_code") == status).count();
    assert_eq!(["200", "401", "404"].map(by_status), [2, 1, 1], "{roots:#?}");
    let repeat = roots.iter().find(|span| said(span, "quittance.outcome") == "duplicate").expect("the repeat");
    assert!(repeat.trace == trace && repeat.id != root.id, "{repeat:?}");
    let refused = roots.iter().find(|span| said(span, "http.response.status_code") == "401").expect("the forged one");
    assert_eq!(said(refused, "error.type"), "bad_signature");
    assert!(refused.trace != trace && !refused.failed, "refusing it was right: {refused:?}");

    let signature = fixtures::paygol_signature(&fields, PAYGOL_SECRET);
    for personal in ["secretive", PAYGOL_SECRET, &signature, "webpay", "127.0.0.1", "nowhere", &text(&fields["price"])]
    {
        assert!(!collector.text().contains(personal), "{personal} in {}", collector.text());
    }
    assert_eq!(daemon.metric("quittance_trace_spans_total{outcome=\"sent\"}"), all.len() as f64);
    assert_eq!(daemon.metric("quittance_trace_spans_total{outcome=\"dropped\"}"), 0.0);
}

#[test]
fn the_last_spans_are_carried_off_at_a_stop() {
    let collector = Collector::new();
    let mut daemon = with(collector.table());
    assert_eq!(daemon.paygol(&fixtures::paygol(json!({}))).status, 200);
    assert!(daemon.stop().success());
    assert_eq!(spans(&collector, 5).len(), 5);
}

#[test]
fn a_collector_that_answers_nothing_delays_nobody_and_what_it_does_not_take_is_counted() {
    // It is listened there, and nobody ever accepts: worse than a port that is closed.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut daemon = with(format!("[traces]\nendpoint = \"http://{}\"\n", silent.local_addr().unwrap()));
    for number in 0..20 {
        let fields =
            fixtures::paygol(json!({ "transaction_id": format!("T-{number}"), "custom": format!("o-{number}") }));
        assert_eq!(daemon.paygol(&fields).status, 200);
    }
    assert_eq!(daemon.feed().len(), 20);
    let dropped = || daemon.metric("quittance_trace_spans_total{outcome=\"dropped\"}");
    eventually("what was not taken is counted", || if dropped() > 0.0 { Ok(()) } else { Err(daemon.log()) });
    let told = daemon.log().lines().filter(|line| line.contains("the collector takes no spans")).count();
    assert_eq!(told, 1, "once, not for each");
    // And more of them wait at the stop, which does not wait for them.
    assert_eq!(daemon.paygol(&fixtures::paygol(json!({ "transaction_id": "T-last" }))).status, 200);
    let began = Instant::now();
    assert!(daemon.stop().success());
    // It has 10 s for a stop in which everything hangs; the collector's share of that is a half.
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}
