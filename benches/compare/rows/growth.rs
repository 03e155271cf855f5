//! How cost grows: with what is kept, and with connections. The plots are the result.

use std::path::Path;
use std::time::Instant;

use super::store::{MANY_KEYS, size};
use super::{CONNECTIONS, drive};
use crate::load::Pace;
use crate::plot::{self, Series};
use crate::report::median;
use crate::servers::Daemon;
use crate::{Bench, prefill};

pub fn plots(bench: &mut Bench, row: &str) {
    kept(bench, row);
    connections(bench, row);
}

fn kept(bench: &mut Bench, row: &str) {
    let names = ["answers/s", "p99, us", "resident, KiB", "disk, KiB", "start, ms"];
    let mut lines = names.map(|name| Series { name: name.to_owned(), points: vec![] });
    let mut keys = 10_000;
    while keys <= MANY_KEYS {
        let store = prefill::store(&bench.cache, &bench.material, keys, keys.min(10_000));
        let daemon = Daemon { store: Some(store.clone()), ..Daemon::default() };
        bench.daemon(&daemon).stop(); // the index is built once
        let mut found = [(); 5].map(|()| Vec::new());
        for round in 0..bench.rounds {
            let requests = bench.material.fresh_paygol(round + keys as usize, bench.enough());
            let began = Instant::now();
            let server = bench.daemon(&daemon);
            let start = began.elapsed().as_secs_f64() * 1e3;
            let resident = server.resident() as f64 / 1024.0;
            let outcome = drive(&server, &requests, CONNECTIONS, Pace::Closed, bench.turn());
            server.stop();
            let figures = [outcome.rate(), outcome.millis(0.99) * 1e3, resident, size(&store) / 1024.0, start];
            found.iter_mut().zip(figures).for_each(|(found, figure)| found.push(figure));
        }
        for ((line, name), found) in lines.iter_mut().zip(names).zip(found) {
            line.points.push((keys as f64, median(&found)));
            bench.report.add(row, &format!("{keys} kept: {name}"), "", None, found);
        }
        keys *= 10;
    }
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/growth-kept.svg"));
    plot::write(file, "Cost against kept notifications", "kept notifications", "see the lines' names", &lines);
}

fn connections(bench: &mut Bench, row: &str) {
    let names = ["answers/s", "p99, us", "resident, KiB"];
    let mut lines = names.map(|name| Series { name: name.to_owned(), points: vec![] });
    let requests = bench.material.paygol(0, bench.enough(), "/paygol", false);
    let daemon =
        Daemon { listener: "max_connections = 11000\nmax_in_flight = 11000\n".to_owned(), ..Daemon::default() };
    for count in [1, 10, 100, 1000, 10_000] {
        let mut found = [(); 3].map(|()| Vec::new());
        for _ in 0..bench.rounds {
            let server = bench.daemon(&daemon);
            let outcome = drive(&server, &requests, count, Pace::Closed, bench.turn());
            let figures = [outcome.rate(), outcome.millis(0.99) * 1e3, server.resident() as f64 / 1024.0];
            found.iter_mut().zip(figures).for_each(|(found, figure)| found.push(figure));
            server.stop();
        }
        for ((line, name), found) in lines.iter_mut().zip(names).zip(found) {
            line.points.push((count as f64, median(&found)));
            bench.report.add(row, &format!("{count} connections: {name}"), "", None, found);
        }
    }
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/growth-connections.svg"));
    plot::write(file, "Cost against connections", "connections", "see the lines' names", &lines);
}
