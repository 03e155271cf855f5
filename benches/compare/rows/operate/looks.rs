//! Lists, pages and figures, as they are asked for at the admin listener; and a configuration taken while it runs.

use std::time::Instant;

use serde_json::Value;

use super::{Scene, ask, get};
use crate::Bench;
use crate::prefill::{LETTERS, MANY, OPERATED, order};
use crate::report::Goal::{self, Most};
use crate::servers::Server;

/// Looks at each page.
const LOOKS: u64 = 60;
const RELOADS: usize = 10;
const PAGE: Goal = Most(50.0);
const BY_ORDER: Goal = Most(5.0);

pub fn pages(bench: &mut Bench, row: &str, server: &Server) {
    let list = "/api/v1/notifications?limit=100";
    let full = |page: &Value| page["notifications"].as_array().map_or(0, Vec::len) == 100;
    looks(bench, row, server, ("a list page, newest first", PAGE), |_| list.to_owned(), full);
    let filtered = |_| format!("{list}&source=paygol&verdict=none&status=pending");
    looks(bench, row, server, ("a list page, by source, verdict and status", PAGE), filtered, |page| {
        page["notifications"].as_array().is_some_and(|items| items.iter().all(|item| item["status"] == "pending"))
    });
    // Where what is asked for is rare a page ends before it is full: all of them are told with the exports.
    let rare = |_| format!("{list}&status=failed");
    looks(bench, row, server, ("a list page, by a status that is rare", PAGE), rare, |page| page["next"].is_string());
    let middle = get(server, &format!("{list}&status=failed"))["next"].as_str().map(str::to_owned).expect("more");
    let deep = |_| format!("{list}&after={middle}");
    looks(bench, row, server, ("a list page, further back", PAGE), deep, full);
    // Every other one of those that have several notifications, the rest of those that have one.
    let named = |look: u64| {
        let thousand = look * (OPERATED / LOOKS / 1000) * 1000;
        order(if look.is_multiple_of(2) { thousand } else { thousand + 500 })
    };
    let several = |look: u64, count: usize| count == if look.is_multiple_of(2) { MANY as usize } else { 1 };
    let by_order = |look| format!("{list}&order_id={}", named(look));
    let mut look = 0..;
    looks(bench, row, server, ("the notifications of an order", BY_ORDER), by_order, |page| {
        several(look.next().unwrap_or_default(), page["notifications"].as_array().map_or(0, Vec::len))
    });
    let timeline = |look| format!("/api/v1/orders/paygol/{}", named(look));
    looks(bench, row, server, ("the timeline of an order", BY_ORDER), timeline, |page| {
        page["entries"].as_array().is_some_and(|entries| !entries.is_empty())
    });
    let letters = |_| "/api/v1/dead-letters?limit=100".to_owned();
    looks(bench, row, server, ("a page of dead letters", PAGE), letters, |page| {
        page["dead_letters"].as_array().is_some_and(|letters| letters.len() == 100)
    });
    assert!(
        get(server, "/api/v1/dead-letters?limit=1000")["dead_letters"].as_array().map_or(0, Vec::len) as u64 == LETTERS
    );
    looks(bench, row, server, ("/metrics", PAGE), |_| "/metrics".to_owned(), Value::is_null);
    looks(
        bench,
        row,
        server,
        ("/api/v1/status", PAGE),
        |_| "/api/v1/status".to_owned(),
        |page| page["store"].is_object(),
    );
}

/// Milliseconds of each look, its connection included.
fn looks(
    bench: &mut Bench,
    row: &str,
    server: &Server,
    (what, goal): (&str, Goal),
    path: impl Fn(u64) -> String,
    mut is_right: impl FnMut(&Value) -> bool,
) {
    let mut millis = Vec::new();
    for look in 0..LOOKS {
        let path = path(look);
        let began = Instant::now();
        let (status, page) = ask(server, "GET", &path, None);
        millis.push(began.elapsed().as_secs_f64() * 1e3);
        assert!(status == 200 && is_right(&page), "{path}: {status} {page}");
    }
    let mut sorted = millis.clone();
    sorted.sort_by(f64::total_cmp);
    let late = sorted[(sorted.len() * 99).div_ceil(100) - 1];
    bench.report.add(row, what, "ms", Some(goal), millis);
    bench.report.add(row, &format!("{what}: p99"), "ms", None, vec![late]);
}

pub fn reloads(bench: &mut Bench, row: &str, scene: &Scene, server: &Server) {
    let mut millis = Vec::new();
    let mut before = "[listener]".to_owned();
    for turn in 0..RELOADS {
        let after = format!("[listener]\nmax_connections = {}", 4000 + turn);
        millis.push(scene.reload(server, &before, &after).as_secs_f64() * 1e3);
        before = after;
    }
    bench.report.add(row, "from SIGHUP to the new configuration in force", "ms", None, millis);
}
