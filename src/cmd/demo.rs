//! `quittance demo`: the main job in one command and with nothing else installed.
//!
//! Throw-away keys, a store in a temporary folder and the real listeners on loopback. Each case is posted over real
//! HTTP as the provider would post it, and what came of it is read back from the feed. A case says what must come of
//! it; `--break` spoils one case's input, to show that the demo can fail.

mod browser_cases;
mod cases;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::cases::Case;
use super::sender::{Keys, Post};
use super::{Failure, Out, talk};
use crate::app::{App, Options};
use crate::cli;
use crate::config::Config;

/// What came of one case.
struct Seen {
    answer: String,
    events: Vec<(String, String)>,
}

/// How long to wait for an event that must come. It is there before the answer; this is for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs all cases and prints a line for each. Exit status 2 where there is no such case to break.
///
/// # Errors
/// [`Failure::Told`] when a case did not come out as it must; [`Failure::Operation`] when the daemon cannot be started
/// or asked.
pub fn run(arguments: &cli::Demo, out: &mut Out) -> Result<(), Failure> {
    let keys = Keys::make().context("making throw-away keys")?;
    let mut cases = cases::all(&keys);
    if let Some(wanted) = &arguments.break_case {
        spoil(&mut cases, wanted)?;
    }
    let folder = tempfile::Builder::new().prefix("quittance-demo-").tempdir().context("making a temporary folder")?;
    let config = Config::parse(&cases::config(&keys), folder.path(), &|_| None).map_err(Failure::Config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let app = runtime.block_on(App::bind(config, Options::default())).context("starting the daemon")?;
    let client = Client::new(app.public_addr(), app.admin_addr());
    let stop = CancellationToken::new();
    let all_right = std::thread::scope(|scope| {
        // Whatever happens below, the daemon stops, and its folder goes after it.
        let _stop_at_the_end = stop.clone().drop_guard();
        scope.spawn(|| runtime.block_on(app.run(stop.cancelled())));
        client.wait_until_ready()?;
        let all_right = perform(&client, &cases, arguments.json, out)?;
        if arguments.stay {
            stay(&client, &runtime)?;
        }
        Ok::<_, Failure>(all_right)
    })?;
    if all_right { Ok(()) } else { Err(Failure::Told) }
}

/// Makes one case's input another one, so that the case must come out wrong.
fn spoil(cases: &mut [Case], wanted: &str) -> Result<(), Failure> {
    match cases.iter_mut().find(|case| case.full_name() == wanted) {
        Some(case) => std::mem::swap(&mut case.post, &mut case.spoilt),
        None => {
            talk("the cases are:");
            cases.iter().for_each(|case| talk(&format!("  {}", case.full_name())));
            return Err(Failure::Usage(anyhow!("--break: there is no case {wanted:?}")));
        }
    }
    Ok(())
}

/// Posts every case, prints what came of it, and counts. Whether all came out as they must.
fn perform(client: &Client, cases: &[Case], as_json: bool, out: &mut Out) -> Result<bool, Failure> {
    let (mut cursor, mut right, mut told) = (None, 0, 0);
    for case in cases {
        let seen = client.perform(case, &mut cursor).with_context(|| case.full_name())?;
        let ok = case.is_right(&seen);
        right += usize::from(ok);
        told += case.events_before + seen.events.len();
        print(case, &seen, ok, as_json, out)?;
    }
    let kept = client.count_events()?;
    if kept != told {
        return Err(anyhow!("the feed holds {kept} events, but {told} were seen one by one").into());
    }
    let summary = format!("{right} of {} as they must be", cases.len());
    if as_json {
        talk(&summary)
    } else {
        out.line(&summary)?
    }
    Ok(right == cases.len())
}

fn print(case: &Case, seen: &Seen, ok: bool, as_json: bool, out: &mut Out) -> Result<(), Failure> {
    let joined = |pick: fn(&(String, String)) -> &String| {
        let words: Vec<&str> = seen.events.iter().map(|event| pick(event).as_str()).collect();
        (!words.is_empty()).then(|| words.join("+"))
    };
    let (event, verdict) = (joined(|event| &event.0), joined(|event| &event.1));
    let Case { provider, name, .. } = case;
    let answer = &seen.answer;
    if as_json {
        return out.json(&json!({
            "provider": provider, "case": name, "answer": answer, "event": event, "verdict": verdict, "ok": ok,
        }));
    }
    let (event, verdict) = (event.as_deref().unwrap_or("-"), verdict.as_deref().unwrap_or("-"));
    let word = if ok { "ok" } else { "WRONG" };
    out.line(&format!("{provider:13}  {name:20}  {answer:50}  {event:16}  {verdict:7}  {word}"))
}

fn stay(client: &Client, runtime: &Runtime) -> anyhow::Result<()> {
    // Set before anybody is told of it: an interrupt that comes at once must end it kindly too.
    let mut interrupt = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt()).context("listening for signals")?
    };
    talk(&format!("listening on http://{}", client.public));
    talk(&format!("admin listener on http://{}", client.admin));
    talk(&format!("events at http://{}/api/v1/events", client.admin));
    talk("Ctrl-C ends it");
    runtime.block_on(interrupt.recv());
    Ok(())
}

impl Case {
    fn is_right(&self, seen: &Seen) -> bool {
        let expected = self.event.zip(self.verdict).map(|(event, verdict)| (event.to_owned(), verdict.to_owned()));
        seen.answer == self.answer && seen.events == Vec::from_iter(expected)
    }
}

/// Speaks HTTP with the daemon, as provider and as order system.
struct Client {
    public: SocketAddr,
    admin: SocketAddr,
    agent: ureq::Agent,
}

impl Client {
    fn new(public: SocketAddr, admin: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(PATIENCE * 2))
            .build();
        Self { public, admin, agent: config.into() }
    }

    /// The store opens behind the scenes; until it is ready nothing is let in.
    fn wait_until_ready(&self) -> anyhow::Result<()> {
        let started = std::time::Instant::now();
        while self.agent.get(format!("http://{}/readyz", self.admin)).call()?.status() != http::StatusCode::OK {
            if started.elapsed() > PATIENCE {
                bail!("not ready after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Registers and posts what stands before the case, then the case itself, and sees what came of that.
    fn perform(&self, case: &Case, cursor: &mut Option<String>) -> anyhow::Result<Seen> {
        for expectation in &case.expectations {
            self.expect(expectation)?;
        }
        for post in &case.before {
            self.post(post)?;
        }
        let mut before = 0;
        while before < case.events_before {
            let events = self.events(cursor, PATIENCE)?;
            if events.is_empty() {
                bail!("{} events were to come first, {before} came", case.events_before);
            }
            before += events.len();
        }
        let answer = self.post(&case.post)?;
        let patience = if case.event.is_some() && answer == case.answer { PATIENCE } else { Duration::ZERO };
        Ok(Seen { answer, events: self.events(cursor, patience)? })
    }

    /// Sends a request of the provider's: `200 SUCCESS`, `303 <page>`.
    fn post(&self, post: &Post) -> anyhow::Result<String> {
        let mut request =
            http::Request::builder().method(post.method.clone()).uri(format!("http://{}{}", self.public, post.target));
        for (name, value) in &post.headers {
            request = request.header(*name, value);
        }
        let mut response = self.agent.run(request.body(post.body.clone())?)?;
        let status = response.status().as_u16();
        let page =
            response.headers().get(http::header::LOCATION).and_then(|page| page.to_str().ok()).map(str::to_owned);
        let said = match page {
            Some(page) => page,
            None => response.body_mut().read_to_string()?.trim_end().to_owned(),
        };
        Ok(format!("{status} {said}"))
    }

    /// Registers an expectation, as the order system would.
    fn expect(&self, expectation: &Value) -> anyhow::Result<()> {
        let mut response = self
            .agent
            .post(format!("http://{}/api/v1/expectations", self.admin))
            .header("content-type", "application/json")
            .send(expectation.to_string())?;
        if response.status() != http::StatusCode::CREATED {
            bail!("the expectation was answered {}: {}", response.status(), response.body_mut().read_to_string()?);
        }
        Ok(())
    }

    /// Type and verdict of the events after `cursor`, which moves behind them.
    fn events(&self, cursor: &mut Option<String>, patience: Duration) -> anyhow::Result<Vec<(String, String)>> {
        let after = cursor.as_ref().map(|cursor| format!("&after={cursor}")).unwrap_or_default();
        let wait = patience.as_secs();
        let url = format!("http://{}/api/v1/events?limit=1000&wait={wait}s{after}", self.admin);
        let mut response = self.agent.get(url).call()?;
        let text = response.body_mut().read_to_string()?;
        let page: BTreeMap<String, Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
        *cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        let entries = page.get("entries").and_then(Value::as_array).context("the feed has no entries")?;
        let word = |entry: &Value, at: &str| entry.pointer(at).and_then(Value::as_str).unwrap_or("?").to_owned();
        Ok(entries.iter().map(|entry| (word(entry, "/event/type"), word(entry, "/event/data/verdict"))).collect())
    }

    /// All events of the feed, read from its beginning.
    fn count_events(&self) -> anyhow::Result<usize> {
        let (mut cursor, mut count) = (None, 0);
        loop {
            match self.events(&mut cursor, Duration::ZERO)?.len() {
                0 => return Ok(count),
                more => count += more,
            }
        }
    }
}
