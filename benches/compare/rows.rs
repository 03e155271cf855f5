//! The table: one function for each row.

mod answers;
mod growth;
mod operate;
mod relay;
mod store;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::Bench;
use crate::load::{self, Outcome, Pace};
use crate::material::Requests;
use crate::servers::{Daemon, Server};

/// A row.
pub struct Row {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows.
    pub what: &'static str,
    /// Measures it.
    pub run: fn(&mut Bench, &str),
}

/// All of them, in the order in which they run.
pub const ROWS: &[Row] = &[
    Row {
        name: "clickpay",
        what: "durable ClickPay answers/s, 64 connections, to bare hyper and to nginx with php-fpm",
        run: answers::clickpay,
    },
    Row {
        name: "relay",
        what: "the same with the relay running to a quorum queue, to bare hyper",
        run: relay::while_relaying,
    },
    Row {
        name: "paygol",
        what: "durable Paygol (HMAC) answers/s to bare hyper and to adnanh/webhook",
        run: answers::paygol,
    },
    Row { name: "wrk", what: "the first row once more, with wrk as the load generator", run: answers::wrk },
    Row {
        name: "latency",
        what: "p99 at half of the greatest rate, to bare hyper at the same rate",
        run: answers::latency,
    },
    Row {
        name: "journal",
        what: "the journal alone under 256 waiters, to a raw log that appends and syncs",
        run: store::journal,
    },
    Row { name: "syncs", what: "syncs for each answer at 256 waiters", run: store::syncs },
    Row {
        name: "backlog",
        what: "relay of a backlog to a quorum queue, to a bare client with the same window",
        run: relay::backlog,
    },
    Row { name: "delivery", what: "time from an answer to its delivery in RabbitMQ, at 1,000/s", run: relay::delivery },
    Row {
        name: "connections",
        what: "memory of an idle and of a stalled connection, above bare hyper's",
        run: answers::connections,
    },
    Row {
        name: "disk",
        what: "bytes written to the disk for each kept notification, to its own size, by part",
        run: store::disk,
    },
    Row { name: "rebuild", what: "index built from a journal of ten million keys, records/s", run: store::rebuild },
    Row {
        name: "memory",
        what: "resident memory with ten million keys and a backlog of one million events",
        run: store::memory,
    },
    Row { name: "start", what: "start after SIGKILL with ten million keys", run: store::start },
    Row { name: "keys", what: "answers/s with ten million keys to answers/s with none", run: store::keys },
    Row { name: "drain", what: "p99 at 5,000/s while a million events are drained, to p99 without", run: relay::drain },
    Row {
        name: "operate",
        what: "what operators ask for, over a store of a million notifications: lists, replays, retries, doctor",
        run: operate::operate,
    },
    Row {
        name: "growth",
        what: "plots: rate, p99, memory, disk and start against kept notifications and connections",
        run: growth::plots,
    },
];

/// Of every row that does not say otherwise.
pub const CONNECTIONS: usize = 64;
/// Notifications that a second can need at most: more than any machine that this was run on.
const PER_SECOND: f64 = 60_000.0;

impl Bench {
    /// A turn's length.
    pub fn turn(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
    /// A folder for one turn, empty.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.cache.join("run").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("made");
        folder
    }
    /// A fresh daemon, ready.
    pub fn daemon(&self, how: &Daemon) -> Server {
        how.start(&self.folder("daemon"), &self.material)
    }
    /// As many as a turn can need.
    pub fn enough(&self) -> usize {
        (self.seconds * PER_SECOND) as usize
    }
}

/// Load on a server; warm first, with what is sent again later where nobody remembers.
pub fn drive(server: &Server, requests: &Requests, connections: usize, pace: Pace, time: Duration) -> Outcome {
    let outcome = load::run(server.address, requests, connections, pace, time);
    if outcome.failures > 0 {
        eprintln!("    {} requests failed beside {} answers", outcome.failures, outcome.answers);
    }
    outcome
}

/// Round by round.
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}
