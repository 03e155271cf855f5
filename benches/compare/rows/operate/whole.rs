//! What reads the journal from end to end.

use super::{Scene, lines, size};
use crate::Bench;
use crate::prefill::{OPERATED, order};

/// With no daemon. Gives the head of then.
pub fn before_the_daemon(bench: &mut Bench, row: &str, scene: &Scene) -> String {
    let (built, _) = scene.json(&["doctor", "--rebuild-index"]);
    let seconds = built["seconds"].as_f64().expect("seconds");
    bench.report.add(row, "doctor --rebuild-index", "s", None, vec![seconds]);
    let records = built["records"].as_u64().expect("records") as f64;
    bench.report.add(row, "the same, records", "/s", None, vec![records / seconds]);

    let (report, took) = scene.json(&["doctor", "--verify"]);
    let records = report["records"].as_u64().expect("records") as f64;
    assert!(records >= OPERATED as f64, "{report}");
    let seconds = took.as_secs_f64();
    let megabytes = size(scene.daemon.store.as_deref().expect("a store")) / 1e6;
    bench.report.add(row, "doctor --verify", "s", None, vec![seconds]);
    bench.report.add(row, "the same, records", "/s", None, vec![records / seconds]);
    bench.report.add(row, "the same", "MB/s", None, vec![megabytes / seconds]);
    format!("{}:{}", report["position"], report["hash"].as_str().expect("a hash"))
}

/// With the daemon running.
pub fn beside_the_daemon(bench: &mut Bench, row: &str, scene: &Scene) {
    let (out, took) = scene.run(&["export"]);
    assert_eq!(lines(&out) as u64, OPERATED, "each once");
    bench.report.add(row, "export of all", "s", None, vec![took.as_secs_f64()]);
    bench.report.add(row, "the same, notifications", "/s", None, vec![OPERATED as f64 / took.as_secs_f64()]);

    let (out, took) = scene.run(&["export", "--status", "failed"]);
    assert_eq!(lines(&out), 20, "the rare ones");
    bench.report.add(row, "export of 20 among them by a status that is rare", "s", None, vec![took.as_secs_f64()]);

    let (out, took) = scene.run(&["export", "--order", &order(500_000)]);
    assert_eq!(lines(&out), 10, "one order's");
    bench.report.add(
        row,
        "export of an order, the command's start included",
        "ms",
        None,
        vec![took.as_secs_f64() * 1e3],
    );

    let (look, took) = scene.json(&["replay", "--all", "--dry-run"]);
    assert_eq!(look["matched"], OPERATED);
    bench.report.add(row, "replay --all --dry-run", "s", None, vec![took.as_secs_f64()]);
}

/// After all that was done: nothing of what was there before was changed.
pub fn since(bench: &mut Bench, row: &str, scene: &Scene, noted: &str) {
    let (report, took) = scene.json(&["doctor", "--verify", "--since", noted]);
    assert_eq!(report["since"]["result"], "same", "{report}");
    bench.report.add(row, "doctor --verify --since a head noted before", "s", None, vec![took.as_secs_f64()]);
}
