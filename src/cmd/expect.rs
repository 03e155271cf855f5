//! `quittance expect`: registers what the order system expects, one or many, and prints the return URLs.
//!
//! Everything is judged before the first is registered, so that a file with a mistake registers nothing.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::api::{Absent, Api};
use super::{Failure, Out, chain, talk};
use crate::cli;
use crate::clock::{Clock, System};
use crate::config::Config;
use crate::event::rfc3339;
use crate::expectation::{self, DocumentError};
use crate::provider::{self, Provider};
use crate::store::Registration;

/// The largest file of expectations, and the longest indicator's file.
const MAX_FILE: u64 = 64 << 20;
const MAX_INDICATOR: u64 = 64 << 10;
const STANDARD_INPUT: &str = "-";

/// A registration as the admin API takes it, and where it came from, for errors.
struct Wanted {
    /// `expectations.jsonl:3`; empty for the command line.
    place: String,
    document: Value,
}

/// Registers.
///
/// # Errors
/// [`Failure`] when something is refused, nobody can register it, or stdout cannot be written.
pub fn run<W: Write>(config: &Config, file: &Path, arguments: &cli::Expect, out: &mut Out<W>) -> Result<(), Failure> {
    let now = System.now();
    let wanted = match &arguments.from {
        Some(file) => from_file(file)?,
        None => vec![from_arguments(arguments)?],
    };
    let wanted = with_life(wanted, arguments, now)?;
    Judge::new(config).all(&wanted, now)?;
    let api = Api::reach(file, Absent::Make)?;
    register(&wanted, out, arguments, |document| {
        let answer = api.post("/api/v1/expectations", document)?;
        if matches!(answer.status, 200 | 201) { Ok(answer.body) } else { Err(anyhow!("{}", answer.reason())) }
    })
}

/// Registers each in turn; what is refused is told and does not stop the rest.
fn register<W: Write>(
    wanted: &[Wanted],
    out: &mut Out<W>,
    arguments: &cli::Expect,
    registrar: impl Fn(&Value) -> anyhow::Result<Value>,
) -> Result<(), Failure> {
    let progress = progress(wanted.len());
    let mut refused = 0_usize;
    for one in wanted {
        match registrar(&one.document) {
            Ok(answer) => progress.suspend(|| show(&answer, out, arguments))?,
            Err(error) => {
                refused += 1;
                progress.suspend(|| talk(&at(&one.place, &chain(&error))));
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    if refused == 0 {
        return Ok(());
    }
    if arguments.from.is_some() {
        talk(&format!("{refused} of {} were refused; the others are registered", wanted.len()));
    }
    Err(Failure::Told)
}

fn show<W: Write>(answer: &Value, out: &mut Out<W>, arguments: &cli::Expect) -> Result<(), Failure> {
    if arguments.json {
        return out.json(answer);
    }
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let url = text("return_url");
    if arguments.from.is_some() {
        let source = text("source").unwrap_or_default();
        return out.line(&format!("{source}  {}  {}", text("order_id").unwrap_or_default(), url.unwrap_or("-")));
    }
    talk(&format!("registered until {}", text("expires_at").unwrap_or_default()));
    url.map_or(Ok(()), |url| out.line(url))
}

/// Judges by the rules of the admin API.
struct Judge<'c> {
    config: &'c Config,
    providers: Vec<Arc<dyn Provider>>,
}

impl<'c> Judge<'c> {
    fn new(config: &'c Config) -> Self {
        Self { config, providers: provider::build_all(&config.sources) }
    }

    /// A registration and its return URL, or what is wrong with it.
    fn read(&self, document: &Value, now: Timestamp) -> Result<(Registration, Option<String>), String> {
        let provider_at = |index: usize| self.providers.get(index).map(AsRef::as_ref);
        let read =
            expectation::read(document, &self.config.sources, provider_at, &self.config.listener.public_url, now)?;
        match read.0.unfit {
            None => Ok(read),
            Some(why) => Err(why.to_owned()),
        }
    }

    /// Tells everything that is wrong with any of them.
    fn all(&self, wanted: &[Wanted], now: Timestamp) -> Result<(), Failure> {
        let mut wrong = 0_usize;
        for one in wanted {
            if let Err(message) = self.read(&one.document, now) {
                talk(&at(&one.place, &message));
                wrong += 1;
            }
        }
        match wrong {
            0 => Ok(()),
            _ if wanted.len() > 1 => {
                Err(anyhow!("{wrong} of {} cannot be registered; nothing was", wanted.len()).into())
            }
            _ => Err(Failure::Told),
        }
    }
}

/// Gives those an end that name none, where `--expires` says when.
fn with_life(mut wanted: Vec<Wanted>, arguments: &cli::Expect, now: Timestamp) -> Result<Vec<Wanted>, Failure> {
    let Some(life) = arguments.expires else { return Ok(wanted) };
    let end = now.checked_add(life).context("--expires is beyond the end of time").map_err(Failure::Usage)?;
    for one in &mut wanted {
        if let Value::Object(members) = &mut one.document {
            members.entry("expires_at").or_insert_with(|| rfc3339(end).into());
        }
    }
    Ok(wanted)
}

fn from_arguments(arguments: &cli::Expect) -> Result<Wanted, Failure> {
    let mut members = Map::new();
    let mut put = |name: &str, value: Option<&str>| {
        value.map(|value| members.insert(name.to_owned(), value.into()));
    };
    put("source", arguments.source.as_deref());
    put("order_id", arguments.order.as_deref());
    put("kind", arguments.kind.as_deref());
    put("session_id", arguments.session.as_deref());
    put("indicator_status", arguments.indicator.as_ref().map(|indicator| indicator.expose()));
    if let Some(path) = &arguments.indicator_file {
        let text = read(path, MAX_INDICATOR).map_err(Failure::Usage)?;
        put("indicator_status", Some(text.trim_end_matches(['\r', '\n'])));
    }
    members.insert("amount".to_owned(), json!({ "value": arguments.amount, "currency": arguments.currency }));
    Ok(Wanted { place: String::new(), document: Value::Object(members) })
}

fn from_file(path: &Path) -> Result<Vec<Wanted>, Failure> {
    let text = read(path, MAX_FILE).map_err(Failure::Usage)?;
    let name = if path == Path::new(STANDARD_INPUT) { "stdin".to_owned() } else { path.display().to_string() };
    parse(&text, &name)
}

/// The lines of a file; empty ones are skipped.
fn parse(text: &str, name: &str) -> Result<Vec<Wanted>, Failure> {
    let mut wanted = Vec::new();
    let mut wrong = 0_usize;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{name}:{}", index + 1);
        match expectation::document(line.as_bytes()) {
            Ok(document) => wanted.push(Wanted { place, document }),
            Err(error) => {
                let told = match error {
                    DocumentError::NotJson { column, .. } => format!("is not JSON, from column {column} on"),
                    DocumentError::Repeated(_) => error.to_string(),
                };
                talk(&at(&place, &told));
                wrong += 1;
            }
        }
    }
    match (wrong, wanted.is_empty()) {
        (0, true) => Err(anyhow!("{name} holds no expectation").into()),
        (0, false) => Ok(wanted),
        (1, _) => Err(anyhow!("a line of {name} cannot be read; nothing was registered").into()),
        (wrong, _) => Err(anyhow!("{wrong} lines of {name} cannot be read; nothing was registered").into()),
    }
}

fn read(path: &Path, max: u64) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let name = path.display();
    let read = if path == Path::new(STANDARD_INPUT) {
        std::io::stdin().lock().take(max + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(max + 1).read_to_string(&mut text))
    };
    match read.with_context(|| format!("reading {name}"))? as u64 {
        length if length > max => Err(anyhow!("{name} is larger than {max} bytes")),
        _ => Ok(text),
    }
}

fn at(place: &str, message: &str) -> String {
    if place.is_empty() { format!("quittance: {message}") } else { format!("{place}: {message}") }
}

/// On a terminal, and only where there is something to wait for.
fn progress(count: usize) -> ProgressBar {
    if count < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}, {eta} left");
    ProgressBar::new(count as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests;
