//! `doctor --rebuild-index`: the index from the journal alone.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde_json::json;

use super::super::{Failure, Out};
use crate::clock::System;
use crate::config::Config;
use crate::store::embedded::{Embedded, Options, inspect};
use crate::store::{Readiness, Store};

/// How often is looked whether it is done.
const LOOK: Duration = Duration::from_millis(20);

/// Throws the index away, builds it, and says how long that took.
///
/// # Errors
/// [`Failure`] when a daemon has the store, or the disk refuses.
pub fn run<W: Write>(config: &Config, as_json: bool, out: &mut Out<W>) -> Result<(), Failure> {
    let path = &config.store.path;
    if !path.join("journal").exists() {
        return Err(anyhow!("there is no store in {}", path.display()).into());
    }
    let began = Instant::now();
    inspect::discard_index(path).context("the index can be built anew only while no daemon runs")?;
    // Without a relay: this start sends nothing, and need not know where a sink goes on.
    let options =
        Options { sink: None, progress_bar: std::io::stderr().is_terminal(), ..Options::of(config, Arc::new(System)) };
    let store = Embedded::open(options).context("opening the store")?;
    let outcome = loop {
        if let Some(why) = store.fatal().borrow().clone() {
            break Err(anyhow!("the store failed: {why}"));
        }
        match store.readiness() {
            Readiness::Ready => break Ok(store.figures().head),
            Readiness::Storage(why) => break Err(anyhow!("the disk refuses: {why}")),
            Readiness::Rebuilding(_) | Readiness::Draining => std::thread::sleep(LOOK),
        }
    };
    store.close();
    let (records, seconds) = (outcome?, began.elapsed().as_secs_f64());
    match as_json {
        true => out.json(&json!({ "records": records, "seconds": seconds })),
        false => out.line(&format!("the index is built anew: {records} records in {seconds:.1} s")),
    }
}
