//! Rows about the relay, against a RabbitMQ of the harness' own.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::{CONNECTIONS, drive, ratios};
use crate::Bench;
use crate::amqp::{Consumer, Publisher};
use crate::load::{self, Pace};
use crate::material::run;
use crate::node::{self, Node};
use crate::prefill;
use crate::report::Goal::{Least, Most};
use crate::servers::{self, Daemon, Server};

/// As many as the daemon has unconfirmed at most, and as many events as a backlog of this row holds.
const WINDOW: u64 = 256;
pub(super) const BACKLOG: u64 = 100_000;

pub(super) fn url(node: &Node, vhost: &str) -> String {
    format!("amqp://guest:guest@{}/{vhost}", node.address())
}

/// A daemon that has reached the broker.
pub(super) fn connected(bench: &Bench, how: &Daemon) -> Server {
    let server = bench.daemon(how);
    reach(&server);
    server
}

/// Waits until the relay has reached the broker.
pub(super) fn reach(server: &Server) {
    let end = Instant::now() + Duration::from_secs(60);
    while server.metric("quittance_relay_connected") < 1.0 {
        assert!(Instant::now() < end, "the relay does not reach the broker");
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn while_relaying(bench: &mut Bench, row: &str) {
    let node = node::alone();
    let requests = bench.material.clickpay(0, bench.enough(), "/clickpay");
    let (mut ours, mut bare, mut relayed) = (vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        bare.push(drive(&servers::bare(), &requests, CONNECTIONS, Pace::Closed, bench.turn()).rate());
        let vhost = node.new_vhost();
        let server = connected(bench, &Daemon { broker: Some(url(&node, &vhost)), ..Daemon::default() });
        let outcome = drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn());
        ours.push(outcome.rate());
        let confirmed = confirmed(&server);
        relayed.push(confirmed / outcome.elapsed.as_secs_f64());
        server.stop();
        node.must(&["delete_vhost", &vhost]);
    }
    let to_bare = ratios(&ours, &bare);
    let report = &mut bench.report;
    report.add(row, "durable ClickPay answers while relaying, to bare hyper", "", Some(Least(0.3)), to_bare);
    report.add(row, "durable ClickPay answers while relaying", "/s", None, ours);
    report.add(row, "confirmed by the broker meanwhile", "/s", None, relayed);
    report.add(row, "bare hyper", "/s", None, bare);
}

pub fn backlog(bench: &mut Bench, row: &str) {
    let node = node::alone();
    let full = prefill::store(&bench.cache, &bench.material, BACKLOG, BACKLOG);
    let (mut ours, mut bare) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        let vhost = node.new_vhost();
        let store = bench.folder("backlog").join("store");
        copy(&full, &store);
        let server =
            bench.daemon(&Daemon { store: Some(store), broker: Some(url(&node, &vhost)), ..Daemon::default() });
        ours.push(drained(&server, BACKLOG));
        server.stop();
        node.must(&["purge_queue", "-p", &vhost, "payments"]);
        let mut publisher = Publisher::connect(node.address(), &vhost);
        let body = vec![b'e'; 900];
        let took = publisher.publish("payments", "payment.paid.paygol", &body, BACKLOG, WINDOW);
        bare.push(BACKLOG as f64 / took.as_secs_f64());
        node.must(&["delete_vhost", &vhost]);
    }
    let to_bare = ratios(&ours, &bare);
    let report = &mut bench.report;
    report.add(row, "relay of a backlog, to a bare client with the same window", "", Some(Least(0.9)), to_bare);
    report.add(row, "relay of a backlog", "/s", None, ours);
    report.add(row, "bare client", "/s", None, bare);
}

/// Confirms a second, from the first to the last of `count`.
pub(super) fn drained(server: &Server, count: u64) -> f64 {
    drained_from(server, 0.0, count)
}

/// What the broker has confirmed since the daemon's start.
pub(super) fn confirmed(server: &Server) -> f64 {
    server.metric("quittance_relay_published_total{outcome=\"confirmed\"}")
}

/// Confirms a second of the `count` that come after `before`, from the first to the last of them.
pub(super) fn drained_from(server: &Server, before: f64, count: u64) -> f64 {
    let confirmed = || confirmed(server) - before;
    let (mut first, end) = (None, Instant::now() + Duration::from_secs(600));
    loop {
        let now = confirmed();
        if first.is_none() && now > 0.0 {
            first = Some((Instant::now(), now));
        }
        if now >= count as f64 {
            let (began, already) = first.unwrap_or((Instant::now(), 0.0));
            return (count as f64 - already) / began.elapsed().as_secs_f64();
        }
        assert!(Instant::now() < end, "the backlog is not drained: {now} of {count}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-r").arg(from).arg(to));
}

pub fn delivery(bench: &mut Bench, row: &str) {
    const RATE: f64 = 1000.0;
    let node = node::alone();
    let count = (bench.seconds * RATE) as usize;
    let requests = bench.material.paygol(0, count, "/paygol", false);
    let (mut middle, mut late) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        let vhost = node.new_vhost();
        let server = connected(bench, &Daemon { broker: Some(url(&node, &vhost)), ..Daemon::default() });
        let mut consumer = Consumer::connect(node.address(), &vhost, "payments");
        let over = AtomicBool::new(false);
        let (answered, delivered) = thread::scope(|scope| {
            let listening = scope.spawn(|| consumer.arrivals(count, &over));
            let (outcome, answered) =
                load::run_noting(server.address, &requests, CONNECTIONS, Pace::Open(RATE), bench.turn());
            assert_eq!(outcome.failures, 0, "every one is answered");
            thread::sleep(Duration::from_secs(3));
            over.store(true, Ordering::Relaxed);
            (answered, listening.join().expect("it listened"))
        });
        let mut times = Histogram::<u64>::new(3).expect("sound");
        let delivered: HashMap<usize, Instant> = delivered.into_iter().collect();
        for (number, at) in answered.iter().enumerate().filter_map(|(number, at)| Some((number, (*at)?))) {
            let came = delivered.get(&number).unwrap_or_else(|| panic!("order-{number} was not delivered"));
            // A message can overtake its own answer.
            times.saturating_record(came.saturating_duration_since(at).as_micros() as u64);
        }
        middle.push(times.value_at_quantile(0.5) as f64 / 1000.0);
        late.push(times.value_at_quantile(0.99) as f64 / 1000.0);
        server.stop();
        node.must(&["delete_vhost", &vhost]);
    }
    bench.report.add(row, "from the answer to the delivery, at 1,000/s: p50", "ms", Some(Most(5.0)), middle);
    bench.report.add(row, "the same: p99", "ms", Some(Most(20.0)), late);
}

pub fn drain(bench: &mut Bench, row: &str) {
    const EVENTS: u64 = 1_000_000;
    const RATE: f64 = 5000.0;
    let node = node::alone();
    let full = prefill::store(&bench.cache, &bench.material, EVENTS, EVENTS);
    let count = (RATE * bench.seconds) as usize + 1;
    let requests = bench.material.paygol(0, count, "/paygol", false);
    let (mut draining, mut calm) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        let server = bench.daemon(&Daemon::default());
        calm.push(drive(&server, &requests, CONNECTIONS, Pace::Open(RATE), bench.turn()).millis(0.99));
        server.stop();
        let vhost = node.new_vhost();
        let store = bench.folder("drain").join("store");
        copy(&full, &store);
        let server =
            connected(bench, &Daemon { store: Some(store), broker: Some(url(&node, &vhost)), ..Daemon::default() });
        draining.push(drive(&server, &requests, CONNECTIONS, Pace::Open(RATE), bench.turn()).millis(0.99));
        let left = server.metric("quittance_relay_backlog_events");
        assert!(left > 0.0, "the drain was over before the load");
        server.stop();
        node.must(&["delete_vhost", &vhost]);
    }
    let rise = ratios(&draining, &calm);
    let report = &mut bench.report;
    report.add(row, "p99 at 5,000/s while a million events are drained, to p99 without", "", Some(Most(2.0)), rise);
    report.add(row, "p99 while draining", "ms", None, draining);
    report.add(row, "p99 without", "ms", None, calm);
}
