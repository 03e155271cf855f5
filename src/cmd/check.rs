//! `quittance check`: everything that can be known before a start, or whether the running daemon is ready.

use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde_json::json;

use super::daemon::Daemon;
use super::{Failure, Out, serve, talk};
use crate::cli;
use crate::config::{Config, Contact, Problem, Problems};
use crate::event::Verdict;
use crate::provider;
use crate::sink::amqp::{Amqp, Examined};
use crate::store::HeadNote;
use crate::traces::Traces;

/// A source as an operator wants to know it.
#[derive(Debug, Serialize)]
struct Described {
    name: String,
    provider: &'static str,
    url: String,
    ordinary_verdict: Verdict,
    verdict_with_expectation: Verdict,
    why: String,
    remedy: Option<String>,
    neighbours: Vec<String>,
}

/// Checks what the flags say. The configuration was validated when it was read.
///
/// # Errors
/// [`Failure`] when the store's folder cannot be used, the daemon is not ready, or stdout cannot be written.
pub fn run<W: Write>(config: &Config, file: &Path, arguments: &cli::Check, out: &mut Out<W>) -> Result<(), Failure> {
    let sink = config.amqp.as_ref().map(|amqp| Amqp::new(amqp, HeadNote::default(), Traces::default())).transpose();
    let sink = sink.map_err(|wrong| serve::failure(wrong.into(), file))?;
    // Looked at first: a reader that closes the pipe early must not turn a useless folder into success.
    let store = check_store(&config.store.path).map_err(|error| error.failure(file));
    let printed = describe(config).try_for_each(|source| match arguments.json {
        true => out.json(&source),
        false => source.print(out),
    });
    store?;
    printed?;
    match sink {
        Some(sink) if arguments.connect => connect(&sink, arguments.json, out)?,
        None if arguments.connect => {
            talk("no [relay.amqp]: there is no broker to reach, events go to the feed alone");
        }
        _ => {}
    }
    let count = config.sources.len();
    talk(&format!("{count} {}, nothing is wrong", if count == 1 { "source" } else { "sources" }));
    Ok(())
}

fn describe(config: &Config) -> impl Iterator<Item = Described> + '_ {
    config.sources.iter().zip(provider::build_all(&config.sources)).map(|(source, provider)| {
        let ordinary = provider.ordinary();
        let tail = if provider.has_return_url() { "/<order_id>/<tag>" } else { "" };
        Described {
            name: source.name.to_string(),
            provider: provider.word(),
            url: format!("{}{}{tail}", config.listener.public_url, source.path),
            ordinary_verdict: ordinary.verdict,
            verdict_with_expectation: ordinary.with_expectation,
            why: ordinary.why,
            remedy: Some(ordinary.remedy).filter(|remedy| !remedy.is_empty()),
            neighbours: ordinary.neighbours,
        }
    })
}

impl Described {
    fn print<W: Write>(&self, out: &mut Out<W>) -> Result<(), Failure> {
        out.line(&format!("{}  {}  {}", self.name, self.provider, self.url))?;
        let (alone, expected) = (self.ordinary_verdict, self.verdict_with_expectation);
        out.line(&format!("    verdict    {alone}; with a matching expectation: {expected}"))?;
        out.line(&format!("    why        {}", self.why))?;
        if let Some(remedy) = &self.remedy {
            out.line(&format!("    better     {remedy}"))?;
        }
        for neighbour in &self.neighbours {
            out.line(&format!("    ambiguous  {neighbour}"))?;
        }
        Ok(())
    }
}

/// Why the store cannot be made or written where the configuration has it.
#[derive(Debug)]
pub(super) enum StoreTrouble {
    /// There is no such place, or no right to it: the configuration names a wrong one.
    Place { message: String, remedy: &'static str },
    /// The place is right, but the disk does not take anything now.
    Disk(anyhow::Error),
}

impl StoreTrouble {
    /// What is wrong, and what to do.
    pub(super) fn told(self) -> (String, &'static str) {
        match self {
            Self::Place { message, remedy } => (message, remedy),
            Self::Disk(error) => (super::chain(&error), "look at the disk (dmesg, df)"),
        }
    }

    fn failure(self, file: &Path) -> Failure {
        match self {
            Self::Disk(error) => Failure::Operation(error),
            Self::Place { message, remedy } => {
                let path = "store.path".to_owned();
                let problem = Problem { path, line: None, message, remedy: remedy.to_owned() };
                Failure::Config(Problems { file: file.display().to_string(), list: vec![problem] })
            }
        }
    }
}

/// Whether the store can be made or written there. Leaves nothing behind.
pub(super) fn check_store(path: &Path) -> Result<(), StoreTrouble> {
    let existing = path.ancestors().find(|place| place.exists() && !place.as_os_str().is_empty());
    let place = existing.unwrap_or(Path::new("."));
    let shown = place.display();
    if !place.is_dir() {
        let message = format!("{shown} is not a folder");
        return Err(StoreTrouble::Place { message, remedy: "name another one, or move it away" });
    }
    let error = match tempfile::tempfile_in(place) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let verb = if place == path { "write to" } else { "make the store's folder in" };
    let message = format!("cannot {verb} {shown}");
    Err(match is_wrong_place(&error) {
        true => {
            StoreTrouble::Place { message: format!("{message}: {error}"), remedy: "give this user the right to it" }
        }
        false => StoreTrouble::Disk(anyhow::Error::new(error).context(format!("store.path: {message}"))),
    })
}

/// Whether a folder cannot be used because the configuration names a wrong one, rather than because its disk is full or
/// fails.
pub(super) fn is_wrong_place(error: &std::io::Error) -> bool {
    use ErrorKind::{AlreadyExists, NotADirectory, NotFound, PermissionDenied, Unsupported};
    matches!(error.kind(), AlreadyExists | NotADirectory | NotFound | PermissionDenied | Unsupported)
}

/// Looks at every broker: one that cannot be used is a failure, also when another one can.
fn connect<W: Write>(sink: &Amqp, as_json: bool, out: &mut Out<W>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let looked = runtime.context("starting the runtime")?.block_on(sink.examine());
    let mut all_well = true;
    for Examined { at, found } in looked {
        let ok = found.is_ok();
        all_well &= ok;
        let (notes, remedy) = match found {
            Ok(notes) => (notes, None),
            Err(trouble) => (vec![trouble.what], Some(trouble.remedy).filter(|remedy| !remedy.is_empty())),
        };
        if as_json {
            out.json(&json!({ "broker": at, "ok": ok, "notes": notes, "remedy": remedy }))?;
            continue;
        }
        let place = if ok { "broker" } else { "relay.amqp.url" };
        let mut line = format!("{place}  {at}  {}", if ok { "reached, and may be published to" } else { "FAILED" });
        for note in notes {
            line.push_str("; ");
            line.push_str(&note);
        }
        if let Some(remedy) = remedy {
            line.push_str("; ");
            line.push_str(remedy);
        }
        if ok { out.line(&line)? } else { talk(&line) }
    }
    if all_well { Ok(()) } else { Err(Failure::Told) }
}

/// Whether the running daemon takes notifications. Asks for nothing that only the daemon can read: this is what a
/// container's health check runs.
///
/// # Errors
/// [`Failure`] when there is none, it is not ready, or stdout cannot be written.
pub fn live<W: Write>(contact: &Contact, as_json: bool, out: &mut Out<W>) -> Result<(), Failure> {
    let daemon = Daemon::find(contact)?
        .ok_or_else(|| anyhow!("no daemon holds the store in {}; start one with serve", contact.store.display()))?;
    let answer = daemon.get("/readyz")?;
    let (pid, ready) = (daemon.pid, answer.status == 200);
    let reason = if ready { None } else { Some(answer.reason()) };
    if as_json {
        out.json(&json!({ "ready": ready, "reason": reason, "pid": pid }))?;
    } else if ready {
        out.line(&format!("ready: process {pid} takes notifications"))?;
    }
    match reason {
        None => Ok(()),
        Some(_) if as_json => Err(Failure::Told),
        Some(reason) => Err(anyhow!("process {pid} is not ready: {reason}").into()),
    }
}

#[cfg(test)]
mod tests;
