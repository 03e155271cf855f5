//! Rows about answers: how many, how soon, and what a connection costs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{CONNECTIONS, drive, ratios};
use crate::Bench;
use crate::load::Pace;
use crate::report::Goal::{Least, Most};
use crate::report::median;
use crate::servers::{self, Daemon, Server};

pub fn clickpay(bench: &mut Bench, row: &str) {
    let requests = bench.material.clickpay(0, bench.enough(), "/clickpay");
    let (mut ours, mut bare, mut php, mut cpu) = (vec![], vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        let server = servers::bare();
        bare.push(drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn()).rate());
        drop(server);
        let server = bench.daemon(&Daemon::default());
        let before = server.busy();
        let outcome = drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn());
        cpu.push((server.busy() - before) * 1e6 / outcome.answers as f64);
        ours.push(outcome.rate());
        server.stop();
        let server = servers::php(&bench.folder("php"), &bench.material);
        php.push(drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn()).rate());
    }
    let (to_bare, to_php) = (ratios(&ours, &bare), ratios(&ours, &php));
    let report = &mut bench.report;
    report.add(row, "durable ClickPay answers, to bare hyper", "", Some(Least(0.5)), to_bare);
    report.add(row, "the same, to the PHP handler that keeps nothing", "", Some(Least(10.0)), to_php);
    report.add(row, "durable ClickPay answers", "/s", None, ours);
    report.add(row, "processor time for each", "us", None, cpu);
    report.add(row, "bare hyper", "/s", None, bare);
    report.add(row, "nginx with php-fpm", "/s", None, php);
}

pub fn paygol(bench: &mut Bench, row: &str) {
    let requests = bench.material.paygol(0, bench.enough(), "/paygol", false);
    let raw = bench.material.paygol(0, bench.enough(), "/hooks/paygol", true);
    let (mut ours, mut bare, mut webhook) = (vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        let server = servers::bare();
        bare.push(drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn()).rate());
        drop(server);
        let server = bench.daemon(&Daemon::default());
        ours.push(drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn()).rate());
        server.stop();
        let server = servers::webhook(&bench.folder("webhook"));
        webhook.push(drive(&server, &raw, CONNECTIONS, Pace::Closed, bench.turn()).rate());
    }
    let (to_bare, to_webhook) = (ratios(&ours, &bare), ratios(&ours, &webhook));
    let report = &mut bench.report;
    report.add(row, "durable Paygol answers, to bare hyper", "", Some(Least(0.6)), to_bare);
    report.add(row, "the same, to adnanh/webhook that keeps nothing", "", None, to_webhook);
    report.add(row, "durable Paygol answers", "/s", None, ours);
    report.add(row, "bare hyper", "/s", None, bare);
    report.add(row, "adnanh/webhook", "/s", None, webhook);
}

pub fn wrk(bench: &mut Bench, row: &str) {
    let bodies = bench.material.bodies("clickpay", 0, bench.enough());
    let measure = |server: &Server| -> f64 {
        let url = format!("http://{}/", server.address);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare/post.lua");
        let output = Command::new("wrk")
            .args(["-t1", "-c64", "-s", script, &format!("-d{}s", bench.seconds.ceil()), &url])
            .env("BODIES", &bodies)
            .env("TARGET", "/clickpay")
            .stderr(Stdio::null())
            .output()
            .expect("wrk runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let refused = said.lines().find(|line| line.contains("Non-2xx"));
        refused.iter().for_each(|line| eprintln!("    {line}"));
        let rate = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse().ok());
        rate.unwrap_or_else(|| panic!("wrk said:\n{said}"))
    };
    let (mut ours, mut bare) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        bare.push(measure(&servers::bare()));
        let server = bench.daemon(&Daemon::default());
        ours.push(measure(&server));
        server.stop();
    }
    let to_bare = ratios(&ours, &bare);
    let report = &mut bench.report;
    report.add(row, "durable ClickPay answers, to bare hyper, by wrk", "", None, to_bare);
    report.add(row, "durable ClickPay answers, by wrk", "/s", None, ours);
    report.add(row, "bare hyper, by wrk", "/s", None, bare);
}

pub fn latency(bench: &mut Bench, row: &str) {
    let requests = bench.material.clickpay(0, bench.enough(), "/clickpay");
    let mut most = vec![];
    for _ in 0..bench.rounds.min(3) {
        let server = bench.daemon(&Daemon::default());
        most.push(drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn()).rate());
        server.stop();
    }
    let rate = median(&most) / 2.0;
    let pace = Pace::Open(rate);
    let (mut ours, mut bare, mut middle) = (vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        bare.push(drive(&servers::bare(), &requests, CONNECTIONS, pace, bench.turn()).millis(0.99));
        let server = bench.daemon(&Daemon::default());
        let outcome = drive(&server, &requests, CONNECTIONS, pace, bench.turn());
        ours.push(outcome.millis(0.99));
        middle.push(outcome.millis(0.5));
        server.stop();
    }
    let to_bare = ratios(&ours, &bare);
    let report = &mut bench.report;
    report.add(row, "p99 at half of the greatest rate, to bare hyper", "", Some(Most(1.5)), to_bare);
    report.add(row, "that rate", "/s", None, vec![rate]);
    report.add(row, "p50, from when the request fell due", "ms", None, middle);
    report.add(row, "p99, from when the request fell due", "ms", None, ours);
    report.add(row, "p99 of bare hyper", "ms", None, bare);
}

pub fn connections(bench: &mut Bench, row: &str) {
    const HELD: usize = 2000;
    let daemon = Daemon { listener: format!("max_connections = {}\n", HELD + 100), ..Daemon::default() };
    let requests = bench.material.clickpay(0, HELD, "/clickpay");
    let costs = |server: &Server| {
        // What a first request makes for ever belongs to no connection.
        let _ = drive(server, &requests, CONNECTIONS, Pace::Closed, Duration::from_millis(100));
        let idle = held(server, HELD, requests.get(HELD - 1), true);
        let stalled = held(server, HELD, &requests.get(HELD - 2)[..200], false);
        (idle, stalled)
    };
    let (mut idle, mut stalled, mut bare_idle, mut bare_stalled) = (vec![], vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        let (of_idle, of_stalled) = costs(&servers::bare());
        bare_idle.push(of_idle);
        bare_stalled.push(of_stalled);
        let server = bench.daemon(&daemon);
        let (of_idle, of_stalled) = costs(&server);
        idle.push(of_idle);
        stalled.push(of_stalled);
        server.stop();
    }
    let above = |ours: &[f64], bare: &[f64]| ours.iter().zip(bare).map(|(ours, bare)| ours - bare).collect::<Vec<_>>();
    let (more_idle, more_stalled) = (above(&idle, &bare_idle), above(&stalled, &bare_stalled));
    let report = &mut bench.report;
    report.add(row, "an idle connection, above bare hyper", "KiB", Some(Most(1.0)), more_idle);
    report.add(row, "a connection stalled in mid body, above bare hyper", "KiB", Some(Most(2.0)), more_stalled);
    report.add(row, "an idle connection", "KiB", None, idle);
    report.add(row, "a stalled connection", "KiB", None, stalled);
    report.add(row, "an idle connection of bare hyper", "KiB", None, bare_idle);
    report.add(row, "a stalled connection of bare hyper", "KiB", None, bare_stalled);
}

/// KiB of resident memory for each of `count` connections that sent `bytes` and then fell silent.
fn held(server: &Server, count: usize, bytes: &[u8], answered: bool) -> f64 {
    let before = server.resident();
    let mut streams: Vec<TcpStream> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(server.address).expect("connected");
        stream.write_all(bytes).expect("sent");
        if answered {
            let _ = stream.read(&mut [0; 1024]).expect("answered");
        }
        streams.push(stream);
    }
    std::thread::sleep(Duration::from_millis(300));
    server.resident().saturating_sub(before) as f64 / 1024.0 / count as f64
}
