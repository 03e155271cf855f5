//! `quittance doctor`: what is wrong, and what to do about it. Asks everybody who can know: the files, the running
//! daemon, the broker, the operating system.

mod machine;
mod peers;
mod rebuild;
mod verify;

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::daemon::Daemon;
use super::{Failure, Out, talk};
use crate::cli;
use crate::config::{Config, Contact};

crate::event::status::words! {
    /// How it stands.
    State { Ok = "ok", Note = "note", Wrong = "wrong" }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    state: State,
    what: String,
    remedy: Option<String>,
}

/// What the running daemon says of itself.
struct Running {
    pid: u32,
    /// `None` when ready.
    not_ready: Option<String>,
    /// `/api/v1/status`.
    status: Value,
    /// `/metrics`.
    metrics: String,
}

/// Looks at everything, or does what the flags say.
///
/// # Errors
/// [`Failure::Told`] if something is wrong; [`Failure`] when stdout cannot be written, or the journal cannot be read.
pub fn run<W: Write>(config: &Config, file: &Path, arguments: &cli::Doctor, out: &mut Out<W>) -> Result<(), Failure> {
    if arguments.verify {
        return verify::run(config, arguments, out);
    }
    if arguments.rebuild_index {
        return rebuild::run(config, arguments.json, out);
    }
    let mut checks = Vec::new();
    let running = match running(config) {
        Ok(running) => running,
        Err(error) => {
            let what = format!("a daemon holds the store and does not answer: {}", super::chain(&error));
            checks.push(Check::wrong(
                "daemon",
                what,
                "look at its log; if it hangs, restart it: nothing acknowledged is lost",
            ));
            None
        }
    };
    let running = running.as_ref();
    checks.extend(machine::daemon(running));
    checks.extend(machine::store(config, running));
    checks.extend(machine::index(config, running));
    checks.extend(peers::broker(config, running)?);
    checks.push(machine::clock(config, running));
    checks.extend(peers::keys(config, running));
    checks.extend(machine::rights(config, file));
    checks.extend(machine::disk(config));

    let wrong = checks.iter().filter(|check| check.state == State::Wrong).count();
    checks.iter().try_for_each(|check| if arguments.json { out.json(check) } else { check.print(out) })?;
    match wrong {
        0 => {
            talk("nothing is wrong");
            Ok(())
        }
        1 => {
            talk("1 thing is wrong");
            Err(Failure::Told)
        }
        more => {
            talk(&format!("{more} things are wrong"));
            Err(Failure::Told)
        }
    }
}

fn running(config: &Config) -> anyhow::Result<Option<Running>> {
    let contact = Contact { store: config.store.path.clone(), token: config.admin.token.clone() };
    let Some(daemon) = Daemon::find(&contact)? else { return Ok(None) };
    let ready = daemon.get("/readyz")?;
    Ok(Some(Running {
        pid: daemon.pid,
        not_ready: (ready.status != 200).then(|| ready.reason()),
        status: daemon.get("/api/v1/status")?.body,
        metrics: daemon.text("/metrics")?,
    }))
}

impl Running {
    /// The sum of all series of a name whose labels contain a text; `None` where there is none.
    fn metric(&self, name: &str, label: &str) -> Option<f64> {
        let values = self.metrics.lines().filter_map(|line| {
            let rest = line.strip_prefix("quittance_")?.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let ours = (labels.is_empty() || labels.starts_with('{')) && labels.contains(label);
            ours.then(|| value.parse::<f64>().ok()).flatten()
        });
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }
}

impl Check {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, state: State::Ok, what: what.into(), remedy: None }
    }
    fn note(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into()).filter(|remedy: &String| !remedy.is_empty());
        Self { check, state: State::Note, what: what.into(), remedy }
    }
    fn wrong(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Wrong, ..Self::note(check, what, remedy) }
    }

    fn print<W: Write>(&self, out: &mut Out<W>) -> Result<(), Failure> {
        let state = match self.state {
            State::Wrong => "WRONG",
            other => other.as_str(),
        };
        out.line(&format!("{:7} {state:5}  {}", self.check, self.what))?;
        self.remedy.as_ref().map_or(Ok(()), |remedy| out.line(&format!("               {remedy}")))
    }
}
