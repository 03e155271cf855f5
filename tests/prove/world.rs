//! A daemon, its broker, an order system that consumes, and senders that post through everything: what each section
//! breaks in its own way, and takes to the judge in the same.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::Signal;
use serde_json::Value;

use crate::consumer::Consumer;
use crate::harness::{Config, Daemon, eventually_within, signal, sources};
use crate::http;
use crate::judge::{Claim, History, Name, Stored};
use crate::letters::Letter;
use crate::rng::Rng;
use crate::scene::{Scene, connected};
use crate::senders::{Senders, To};

/// Of how many notifications body and event are looked at in the end.
const LOOKED_AT: usize = 2_000;
/// How long the last of the backlog may take.
const SETTLE: Duration = Duration::from_secs(180);

pub struct World<'a> {
    pub scene: Scene<'a>,
    pub daemon: Daemon,
    pub consumer: Consumer,
    pub senders: Senders,
    pub rng: Rng,
    /// Faults that really struck.
    pub faults: u64,
}

/// What makes a world.
pub struct Plan {
    pub config: Config,
    pub senders: u64,
    pub pause: Duration,
    pub seed: u64,
}

impl Plan {
    /// Small segments, so that they rotate; every provider; a broker that is silent for twice so many seconds is given
    /// up.
    pub fn new(scene: &Scene<'_>, heartbeat: u64, seed: u64) -> Self {
        let mut relay = scene.relay();
        relay.url = format!("{}?heartbeat={heartbeat}\"", relay.url.trim_end_matches('"'));
        let config = Config {
            listener: "max_body = \"4KiB\"\nmax_header = \"8KiB\"\n".into(),
            store: "segment = \"64KiB\"".into(),
            sources: sources(),
            ..relay.config()
        };
        Self { config, senders: 4, pause: Duration::from_millis(2), seed }
    }

    /// With more tables in the configuration.
    pub fn with(mut self, tables: &str) -> Self {
        self.config.tables = format!("{}\n{tables}", self.config.tables);
        self
    }
}

impl<'a> World<'a> {
    /// Everything runs. Whoever kills the broker soon waits until the queue is there for good.
    pub fn begin(scene: Scene<'a>, plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed);
        let daemon = Daemon::with(plan.config);
        connected(&daemon);
        let consumer = scene.consumer();
        consumer.wait_until_ready();
        let to = To { public: daemon.public, admin: daemon.admin };
        let senders = Senders::begin(plan.senders, to, plan.pause, &mut rng);
        Self { scene, daemon, consumer, senders, rng, faults: 0 }
    }

    /// Tells the senders where the daemon listens now.
    pub fn found_again(&self) {
        self.senders.turn_to(To { public: self.daemon.public, admin: self.daemon.admin });
    }

    /// Kills the daemon, which must not have ended by itself.
    ///
    /// # Errors
    /// It had.
    pub fn kill(&mut self) -> Result<(), String> {
        let before = self.daemon.has_ended();
        self.daemon.kill();
        match before {
            None => Ok(()),
            Some(status) => Err(format!("it had ended with {status}; it said:\n{}", tail(&self.daemon.log()))),
        }
    }

    /// Starts a daemon that has ended.
    pub fn start_again(&mut self) {
        self.daemon.start_again();
        self.found_again();
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, what: Signal) {
        signal(self.daemon.pid(), what);
    }

    /// Waits until so many more are acknowledged.
    ///
    /// # Errors
    /// It took too long.
    pub fn posted(&self, more: u64, patience: Duration) -> Result<(), String> {
        let before = self.senders.acknowledged();
        let came = eventually_within(patience, "", || {
            let now = self.senders.acknowledged() - before;
            if now >= more { Ok(()) } else { Err(now) }
        });
        came.map_err(|now| {
            format!("{now} of {more} were acknowledged within {patience:?}; it said:\n{}", tail(&self.daemon.log()))
        })
    }

    /// The faults are over: waits until everything has come that has to, and tells all that happened.
    ///
    /// # Errors
    /// What does not come to rest, in words.
    pub fn end(self, enough: u64) -> Result<History, String> {
        self.end_with(Vec::new(), enough)
    }

    /// As [`World::end`], with what others than the senders posted and were acknowledged.
    ///
    /// # Errors
    /// As there.
    pub fn end_with(self, others: Vec<Claim>, enough: u64) -> Result<History, String> {
        let Self { daemon, consumer, senders, faults, .. } = self;
        connected(&daemon);
        let (record, fresh) = senders.finish()?;
        let mut history = History {
            sent: record.sent,
            acknowledged: record.acknowledged,
            destroyed: BTreeSet::new(),
            stored: Vec::new(),
            delivered: Vec::new(),
            faults,
            enough,
            alive: false,
        };
        history.acknowledged.extend(others.iter().map(|claim| claim.number));
        history.sent.extend(others);
        history.alive = post_fresh(&daemon, &fresh, &mut history);
        history.stored = stored(&daemon)?;
        let all = history.stored.len();
        let rest = eventually_within(SETTLE, "", || {
            let backlog = daemon.ask("/api/v1/status")["relay"]["backlog"].clone();
            if backlog == 0 && consumer.distinct() >= all { Ok(()) } else { Err((backlog, consumer.distinct())) }
        });
        if let Err((backlog, distinct)) = rest {
            if distinct >= all {
                return Err(format!("everything came, and {backlog} are still called owed after {SETTLE:?}"));
            }
            // The judge names what is missing.
            crate::report::say(format!("backlog {backlog}, {distinct} of {all} came within {SETTLE:?}"));
        }
        consumer.wait_for_silence(Duration::from_millis(800));
        history.delivered = consumer.messages();
        Ok(history)
    }
}

/// Whether notifications go through that nobody has posted yet.
fn post_fresh(daemon: &Daemon, fresh: &[Letter], history: &mut History) -> bool {
    let letters = fresh.iter().filter(|letter| letter.registration.is_none()).take(3);
    let mut alive = true;
    for letter in letters {
        history.sent.push(letter.claim.clone());
        let until = Instant::now() + Duration::from_secs(20);
        let taken = loop {
            let answer = http::send(daemon.public, &letter.request);
            match answer {
                Ok(answer) if letter.is_acknowledged_by(&answer) => break true,
                _ if Instant::now() > until => break false,
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        alive &= taken;
        if taken {
            history.acknowledged.insert(letter.claim.number);
        }
    }
    alive
}

/// What the daemon lists, oldest first; body and event of [`LOOKED_AT`] of them, evenly.
///
/// # Errors
/// It does not answer.
pub fn stored(daemon: &Daemon) -> Result<Vec<Stored>, String> {
    let items = list(daemon)?;
    let every = items.len().div_ceil(LOOKED_AT).max(1);
    let found = items.iter().rev().enumerate();
    found.filter_map(|(at, item)| stored_as(daemon, item, at % every == 0).transpose()).collect()
}

/// The whole list of notifications, newest first.
///
/// # Errors
/// It does not answer.
pub fn list(daemon: &Daemon) -> Result<Vec<Value>, String> {
    let (mut items, mut next) = page(daemon, 1000, "")?;
    while let Some(after) = next {
        let (more, then) = page(daemon, 1000, &format!("&after={after}"))?;
        items.extend(more);
        next = then;
    }
    Ok(items)
}

/// The newest notifications, at most so many.
///
/// # Errors
/// It does not answer.
pub fn newest(daemon: &Daemon, limit: u16) -> Result<Vec<Value>, String> {
    Ok(page(daemon, limit, "")?.0)
}

/// A page of the list, and where the next one begins.
fn page(daemon: &Daemon, limit: u16, after: &str) -> Result<(Vec<Value>, Option<String>), String> {
    let target = format!("/api/v1/notifications?limit={limit}{after}");
    let answer = http::send(daemon.admin, &http::request("GET", &target, &[], b"")).map_err(|e| e.to_string())?;
    if answer.status != 200 {
        return Err(format!("{target}: {answer:?}"));
    }
    let page = answer.json();
    let items = page["notifications"].as_array().ok_or("no list")?.clone();
    Ok((items, page["next"].as_str().map(str::to_owned)))
}

/// What tells an item of the list apart.
pub fn name_in(item: &Value) -> Name {
    let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
    Name {
        source: text("source"),
        order: text("order_id"),
        transaction: item["transaction_id"].as_str().map(str::to_owned),
        event_type: format!("{}.{}", text("kind"), text("status")),
    }
}

fn stored_as(daemon: &Daemon, item: &Value, look: bool) -> Result<Option<Stored>, String> {
    let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let (mut body, mut told) = (None, None);
    if look {
        let whole = daemon.admin_get(&format!("/api/v1/notifications/{}", text("id")));
        if whole.status != 200 {
            // Listed, and not there: the judge calls it lost unless it was destroyed.
            crate::report::say(format!("{item} is listed, and is answered {whole:?}"));
            return Ok(None);
        }
        let whole = whole.json();
        let kept = whole["request"]["body"].as_str().map(|kept| BASE64_STANDARD.decode(kept));
        body = kept.transpose().map_err(|error| error.to_string())?;
        told = Some(whole["event"].clone()).filter(Value::is_object);
    }
    let amount = item["amount"]["value"].as_str().map(str::to_owned);
    Ok(Some(Stored { name: name_in(item), event: text("event_id"), amount, body, told }))
}

/// The end of a log.
pub fn tail(log: &str) -> &str {
    &log[log.char_indices().rev().nth(3000).map_or(0, |(at, _)| at)..]
}
