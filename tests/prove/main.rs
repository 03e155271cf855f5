//! The proof that nothing acknowledged is ever lost: sections that break what can break, one oracle that judges, a table.
//!
//! `./prove --help` tells how to run it. Each section closes by itself: it fails on its own account, also when too few
//! of its faults really struck, and a seed brings a run back. What sections are made of stands where it is used first:
//! the disk whose power can be cut in `tests/power`, broker, proxy and consumer in `tests/broker`, the executable in
//! `tests/it`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expected by panicking")]

macro_rules! shared {
    ($($path:literal $name:ident),* $(,)?) => {
        $(
            #[allow(dead_code, unused_imports, reason = "the tests beside it use more of it")]
            #[path = $path]
            mod $name;
        )*
    };
}

shared! {
    "../it/fixtures.rs" fixtures,
    "../it/harness.rs" harness,
    "../it/http.rs" http,
    "../it/schema.rs" schema,
    "../power/daemon.rs" daemon,
    "../power/disk.rs" disk,
    "../power/file.rs" file,
    "../power/journal.rs" journal,
    "../power/ledger.rs" ledger,
    "../power/mount.rs" mount,
    "../power/rng.rs" rng,
    "../power/serve.rs" serve,
    "../power/sled_alone.rs" sled_alone,
    "../broker/bulk.rs" bulk,
    "../broker/certificates.rs" certificates,
    "../broker/consumer.rs" consumer,
    "../broker/frames.rs" frames,
    "../broker/node.rs" node,
    "../broker/proxy.rs" proxy,
    "../broker/scene.rs" scene,
}

mod judge;
mod letters;
mod machine;
mod report;
mod senders;
mod watch;
mod world;

mod backlog;
mod broker;
mod cluster;
mod concurrency;
mod damage;
mod disk_faults;
mod model;
mod power;
mod process;
mod self_check;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use machine::Machine;
use report::{Form, Row};
use serde_json::json;
use watch::Watch;

type Section = fn(&Form) -> Result<Vec<Row>, String>;

/// Sections in the order of the table, what they do, and whether the short form has them.
const SECTIONS: [(&str, &str, bool, Section); 10] = [
    ("oracle", "the judge finds out each way to break the promise", true, self_check::run),
    ("process", "SIGKILL at random and at each named point, SIGTERM, SIGSTOP, memory, descriptors", true, process::run),
    ("power", "power cuts under the daemon and the journal alone, in three ways; sled beside them", true, power::run),
    ("disk", "a disk that fails or fills up while it runs; a wrong clock", true, disk_faults::run),
    (
        "damage",
        "what a start finds: flipped bits, segments cut, gone or foreign, no index, an older copy",
        true,
        damage::run,
    ),
    ("broker", "everything between the relay and the order system", true, broker::run),
    ("cluster", "three brokers, and the one that leads the queue killed under load", false, cluster::run),
    ("backlog", "a broker that is gone for a million notifications, and comes back", false, backlog::run),
    ("model", "the store against a model of ten lines, with crashes and power cuts", true, model::run),
    (
        "concurrency",
        "all at once: the same, contradicting, racing; reload and replay under load",
        true,
        concurrency::run,
    ),
];

const USAGE: &str = "\
usage: ./prove [--long] [--seed N] [--json] [SECTION...]

Proves that nothing acknowledged is ever lost: posts notifications of every provider while a section breaks what it
breaks, takes all that was acknowledged, stored and delivered to a judge, and prints a table. Exit status 0 only if
every section is as it must be; a section also fails when too few of its faults really struck.

  --long      the long form: hours; for all sections, or those named
  --seed N    another run than the usual one (20261120); a failure tells its seed
  --json      a JSON object a line in place of the table
  --help      this

Sections:
";

fn main() -> ExitCode {
    match Arguments::read(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments.run(),
        Ok(None) => {
            print!("{}", usage());
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprint!("{what}\n\n{}", usage());
            ExitCode::from(2)
        }
    }
}

fn usage() -> String {
    let line = |(name, what, short, _): &(&str, &str, bool, Section)| {
        format!("  {name:<12} {what}{}\n", if *short { "" } else { " (long form only)" })
    };
    USAGE.to_owned() + &SECTIONS.iter().map(line).collect::<String>()
}

struct Arguments {
    form: Form,
    json: bool,
    names: Vec<String>,
}

impl Arguments {
    /// `None`: help is wanted.
    fn read(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut read = Self { form: Form { long: false, seed: rng::base_seed() }, json: false, names: Vec::new() };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--long" => read.form.long = true,
                "--json" => read.json = true,
                "--seed" => {
                    let number = words.next().and_then(|number| number.parse().ok());
                    read.form.seed = number.ok_or("--seed: a whole number")?;
                }
                name if SECTIONS.iter().any(|(known, ..)| *known == name) => read.names.push(word),
                other => return Err(format!("no such section or option: {other}")),
            }
        }
        Ok(Some(read))
    }

    fn run(self) -> ExitCode {
        let Self { form, json, names } = self;
        let machine = Machine::here();
        if json {
            println!("{}", json!({ "machine": machine.json(), "long": form.long, "seed": form.seed }));
        } else {
            eprintln!("{} form, seed {}: {machine}", form.pick("short", "long"), form.seed);
            println!("{}", Row::heading());
        }
        let mut failed = Vec::new();
        for (name, what, short, section) in SECTIONS {
            let wanted = if names.is_empty() { short || form.long } else { names.iter().any(|n| n == name) };
            if !wanted {
                continue;
            }
            eprintln!("==> {name}: {what}");
            let (began, _watch) = (Instant::now(), Watch::over(name, &form));
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| section(&form)));
            let seconds = began.elapsed().as_secs_f64();
            // A row stands as soon as it is there: a run that is ended by hand has told what it found.
            match outcome.unwrap_or_else(|panic| Err(words_of(&*panic))) {
                Ok(rows) if json => rows.iter().for_each(|row| println!("{}", row.json())),
                Ok(rows) => rows.iter().for_each(|row| println!("{row}")),
                Err(what) => {
                    eprintln!("{name} FAILED after {seconds:.1} s, seed {}:\n{what}", form.seed);
                    failed.push(name);
                    if json {
                        println!("{}", json!({ "section": name, "failed": what, "seed": form.seed }));
                    } else {
                        println!("{name:<12} FAILED");
                    }
                }
            }
        }
        if failed.is_empty() {
            return ExitCode::SUCCESS;
        }
        eprintln!("FAILED: {}", failed.join(", "));
        ExitCode::FAILURE
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_else(|| "a panic".to_owned())
}
