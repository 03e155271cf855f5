//! Those it talks to: the broker, and the providers by their keys.

use anyhow::Context;

use super::super::Failure;
use super::{Check, Running};
use crate::config::{Config, ProviderSettings, Source};
use crate::sink::amqp::Amqp;
use crate::store::HeadNote;
use crate::traces::Traces;

/// An event that waits longer than this is late.
const LATE_SECONDS: u64 = 300;

/// Whether the broker can be published to, and whether the relay does.
pub(super) fn broker(config: &Config, running: Option<&Running>) -> Result<Vec<Check>, Failure> {
    const CHECK: &str = "broker";
    let Some(amqp) = &config.amqp else {
        return Ok(vec![Check::ok(CHECK, "none is configured: events go to the feed alone")]);
    };
    let mut checks = Vec::new();
    match Amqp::new(amqp, HeadNote::default(), Traces::default()) {
        Err(wrong) => checks.push(Check::wrong(CHECK, wrong.to_string(), "mend relay.amqp.url")),
        Ok(sink) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            for looked in runtime.context("starting the runtime")?.block_on(sink.examine()) {
                checks.push(match looked.found {
                    Ok(notes) if notes.is_empty() => Check::ok(CHECK, format!("{} may be published to", looked.at)),
                    Ok(notes) => Check::note(CHECK, format!("{} may be published to", looked.at), notes.join("; ")),
                    Err(trouble) => Check::wrong(CHECK, trouble.to_string(), trouble.remedy),
                });
            }
        }
    }
    let Some(running) = running else { return Ok(checks) };
    let relay = &running.status["relay"];
    let why = relay["last_error"].as_str().unwrap_or("it gives no reason");
    if relay["connected"] == false {
        let what = format!("the relay is not connected: {why}");
        checks.push(Check::wrong(CHECK, what, "events wait on the disk, nothing is lost; see to the broker"));
    } else if relay["blocked"] == true {
        let what = format!("the broker takes nothing: {why}");
        checks.push(Check::wrong(CHECK, what, "see to its memory and disk alarms, and to its queue"));
    }
    let (backlog, oldest) = (relay["backlog"].as_u64().unwrap_or(0), relay["oldest_seconds"].as_u64().unwrap_or(0));
    if backlog > 0 && oldest > LATE_SECONDS {
        let what = format!("{backlog} events wait, the oldest for {oldest} s");
        checks.push(Check::wrong(CHECK, what, "nothing is lost; see to what keeps the broker from taking them"));
    }
    Ok(checks)
}

/// Whether each source's keys are the right ones, as far as what arrived tells.
pub(super) fn keys(config: &Config, running: Option<&Running>) -> Vec<Check> {
    config.sources.iter().map(|source| of_source(source, running)).collect()
}

fn of_source(source: &Source, running: Option<&Running>) -> Check {
    const CHECK: &str = "keys";
    let name = &source.name;
    let count = match &source.provider {
        ProviderSettings::ClickPay(settings) => settings.public_keys.len(),
        ProviderSettings::Paygol(settings) => settings.secrets.len(),
        ProviderSettings::PaygolLegacy(settings) => settings.secrets.len(),
        ProviderSettings::ClickKw(_) | ProviderSettings::ClickGem(_) => 1,
    };
    let Some(running) = running else {
        return Check::ok(
            CHECK,
            format!("{name}: {count} can be read; whether they are right shows when something arrives"),
        );
    };
    let of_key = |key: usize| {
        let labels = format!("{{key=\"{key}\",source=\"{name}\"}}");
        running.metric("verified_with_key_total", &labels).unwrap_or(0.0)
    };
    let held: Vec<f64> = (1..=count).map(of_key).collect();
    let refused = |reason: &str| {
        running.metric("refusals_total", &format!("{{reason=\"{reason}\",source=\"{name}\"}}")).unwrap_or(0.0)
    };
    let refused = refused("bad_signature") + refused("wrong_tag");
    let all: f64 = held.iter().sum();
    if all == 0.0 && refused > 0.0 {
        let what = format!("{name}: no key held for any of {refused} notifications since the start");
        return Check::wrong(
            CHECK,
            what,
            "compare the key with the provider's panel; after mending it, quarantine reverify",
        );
    }
    let idle: Vec<String> =
        (1..=count).zip(&held).filter(|(_, held)| **held == 0.0).map(|(key, _)| key.to_string()).collect();
    if count > 1 && all > 0.0 && !idle.is_empty() {
        let what = format!("{name}: of {count} keys number {} held for nothing since the start", idle.join(", "));
        return Check::note(CHECK, what, "a key that is retired at the provider can be taken out: edit and reload");
    }
    Check::ok(
        CHECK,
        format!("{name}: {count} held for {all} notifications since the start, {refused} forged or with another key"),
    )
}
