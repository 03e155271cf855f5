//! Section `broker`: a storm of everything that can go wrong between the relay and the order system, while senders post.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::frames::{
    CHANNEL_OPEN, CONFIRM_SELECT, CONNECTION_CLOSE, CONNECTION_OPEN, EXCHANGE_DECLARE, QUEUE_BIND, QUEUE_DECLARE,
};
use crate::harness::eventually_within;
use crate::node::{self, SETTLED_QUEUE};
use crate::proxy::{Fault, Towards};
use crate::report::{Form, Row, say};
use crate::scene::{Scene, broker_script, connected, until, url};
use crate::world::{Plan, World};

const PASSWORD: &str = "pw-of-the-storm-9d2c4b7a";
/// What `relay_connected` and its kin may take to show a fault.
const SHOWN: Duration = Duration::from_secs(60);
/// Posts in which a fault has to show itself.
const SOME: u64 = 60;
/// What a slow broker takes longer for an answer.
const SLOWED: Duration = Duration::from_secs(10);
/// Events that are on their way at most.
const WINDOW: f64 = 256.0;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    BrokerKilled,
    BrokerStopped,
    Refused,
    CutAtOpen,
    CutAtDeclare,
    CutAtConfirmSelect,
    CutInPublish,
    CutBeforeConfirm,
    HalfOpenToBroker,
    HalfOpenToDaemon,
    BlackHole,
    Slow,
    MemoryAlarm,
    QueueDeleted,
    ExchangeRedeclared,
    BindingRemoved,
    QueueFull,
    PasswordChanged,
    WriteRightTaken,
    ChannelError,
    ConnectionsClosed,
    DaemonKilled,
    DaemonStopped,
}

const ALL: [Kind; 23] = [
    Kind::BrokerKilled,
    Kind::BrokerStopped,
    Kind::Refused,
    Kind::CutAtOpen,
    Kind::CutAtDeclare,
    Kind::CutAtConfirmSelect,
    Kind::CutInPublish,
    Kind::CutBeforeConfirm,
    Kind::HalfOpenToBroker,
    Kind::HalfOpenToDaemon,
    Kind::BlackHole,
    Kind::Slow,
    Kind::MemoryAlarm,
    Kind::QueueDeleted,
    Kind::ExchangeRedeclared,
    Kind::BindingRemoved,
    Kind::QueueFull,
    Kind::PasswordChanged,
    Kind::WriteRightTaken,
    Kind::ChannelError,
    Kind::ConnectionsClosed,
    Kind::DaemonKilled,
    Kind::DaemonStopped,
];

/// Those that the short form leaves out: half a minute between them.
const LONG_ONLY: [Kind; 2] = [Kind::HalfOpenToBroker, Kind::Slow];

struct Storm<'a> {
    world: World<'a>,
    user: String,
    /// How often a fault of the proxy strikes in a row, at most.
    times: u64,
}

impl<'a> Storm<'a> {
    fn begin(scene: Scene<'a>, form: &Form) -> Self {
        let user = format!("storm-{}", scene.vhost);
        scene.node.must(&["add_user", &user, PASSWORD]);
        scene.node.must(&["set_permissions", "-p", &scene.vhost, &user, ".*", ".*", ".*"]);
        let mut plan = Plan::new(&scene, form.pick(3, 5), form.seed);
        plan.pause = Duration::from_millis(8);
        let address = url(&format!("{user}:{PASSWORD}"), scene.proxy.address(), &scene.vhost);
        let guest = url("guest:guest", scene.proxy.address(), &scene.vhost);
        plan.config.tables = plan.config.tables.replace(&guest, &address);
        let world = World::begin(scene, plan);
        thread::sleep(SETTLED_QUEUE);
        Self { world, user, times: form.pick(1, 3) }
    }

    /// Receiving does not depend on any sink.
    fn post(&self) -> Result<(), String> {
        self.world.posted(SOME, SHOWN)
    }

    /// A fault while senders post; over when it returns, the backlog may not be.
    fn strike(&mut self, kind: Kind) -> Result<(), String> {
        let n = self.world.rng.between(1, 40);
        match kind {
            Kind::BrokerKilled => {
                let node = self.world.scene.node;
                self.moment();
                node.kill();
                self.post()?;
                self.shown("it is cut off", |relay| relay["connected"] == false);
                node.start();
            }
            Kind::BrokerStopped => {
                let node = self.world.scene.node;
                node.must(&["stop_app"]);
                self.post()?;
                self.shown("it is cut off", |relay| relay["connected"] == false);
                node.must(&["start_app"]);
            }
            Kind::Refused => self.through_proxy(Fault::Refuse, true)?,
            Kind::CutAtOpen => {
                let at = [CONNECTION_OPEN, CHANNEL_OPEN][self.world.rng.below(2) as usize];
                self.through_proxy(Fault::CutAt(at), true)?;
            }
            Kind::CutAtDeclare => {
                let at = [EXCHANGE_DECLARE, QUEUE_DECLARE, QUEUE_BIND][self.world.rng.below(3) as usize];
                self.through_proxy(Fault::CutAt(at), true)?;
            }
            Kind::CutAtConfirmSelect => self.through_proxy(Fault::CutAt(CONFIRM_SELECT), true)?,
            Kind::CutInPublish => self.through_proxy(Fault::CutInPublish(n), false)?,
            Kind::CutBeforeConfirm => self.through_proxy(Fault::CutBeforeConfirm(n), false)?,
            Kind::HalfOpenToBroker => self.silenced(Fault::HalfOpen(Towards::Broker))?,
            Kind::HalfOpenToDaemon => self.silenced(Fault::HalfOpen(Towards::Daemon))?,
            Kind::BlackHole => self.silenced(Fault::BlackHole)?,
            Kind::Slow => self.slowed()?,
            Kind::MemoryAlarm => {
                self.world.scene.node.raise_memory_alarm();
                self.post()?;
                self.shown("it is blocked", |relay| relay["blocked"] == true);
                self.world.scene.node.free_memory_alarm();
            }
            Kind::QueueDeleted => self.delete_queue()?,
            Kind::ExchangeRedeclared => {
                self.world.scene.proxy.set(Fault::BlackHole);
                broker_script(
                    &self.world.scene,
                    "ch.exchange_delete('payments')\n\
                     ch.exchange_declare('payments', 'topic', durable=True, arguments={'alternate-exchange': 'nowhere'})\n\
                     ch.queue_bind('payments', 'payments', '#')",
                );
                self.world.scene.proxy.heal();
                self.world.scene.proxy.cut();
                self.post()?;
                // It is used as it is, and told.
                connected(&self.world.daemon);
                until_settling(&self.world)?;
                // Once by a process, however often it connects.
                if !self.world.daemon.log().contains("the exchange exists with another type or other settings") {
                    return Err("nobody noticed the other exchange".into());
                }
            }
            Kind::BindingRemoved => {
                // A relay that is just connecting would bind after this, and nothing would be returned; and it
                // may bind anew as soon as it sees what is returned: that it was returned is what counts.
                connected(&self.world.daemon);
                let before = self.published("returned");
                broker_script(&self.world.scene, "ch.queue_unbind('payments', 'payments', '#')");
                self.post()?;
                self.counted("returned", before);
                broker_script(&self.world.scene, "ch.queue_bind('payments', 'payments', '#')");
            }
            Kind::QueueFull => {
                let before = self.published("nacked");
                let (node, vhost) = (self.world.scene.node, self.world.scene.vhost.clone());
                let policy = r#"{"max-length":5,"overflow":"reject-publish"}"#;
                self.world.consumer.pause();
                node.must(&["set_policy", "-p", &vhost, "--apply-to", "queues", "full", "^payments$", policy]);
                self.post()?;
                self.counted("nacked", before);
                node.must(&["clear_policy", "-p", &vhost, "full"]);
                self.world.consumer.resume();
            }
            Kind::PasswordChanged => {
                let (node, user) = (self.world.scene.node, self.user.clone());
                node.must(&["change_password", &user, "another-password-0815"]);
                node.close_connections_of(&user);
                self.post()?;
                self.shown("it is refused", |relay| {
                    relay["connected"] == false && says(relay, "refuses the user or password")
                });
                node.must(&["change_password", &user, PASSWORD]);
            }
            Kind::WriteRightTaken => {
                let (node, vhost, user) = (self.world.scene.node, self.world.scene.vhost.clone(), self.user.clone());
                node.must(&["set_permissions", "-p", &vhost, &user, ".*", "^$", ".*"]);
                node.close_connections_of(&user);
                self.post()?;
                self.shown("it says so", |relay| says(relay, "ACCESS_REFUSED") && relay["backlog"] != 0);
                node.must(&["set_permissions", "-p", &vhost, &user, ".*", ".*", ".*"]);
            }
            Kind::ChannelError => {
                // Who publishes to an exchange that is not there has its channel closed, and no more than that.
                connected(&self.world.daemon);
                let before = self.world.scene.proxy.channel_errors();
                broker_script(&self.world.scene, "ch.exchange_delete('payments')");
                self.post()?;
                let proxy = &self.world.scene.proxy;
                let closed =
                    eventually_within(SHOWN, "", || if proxy.channel_errors() > before { Ok(()) } else { Err(()) });
                closed.map_err(|()| "no channel was closed")?;
                until_settling(&self.world)?;
            }
            Kind::ConnectionsClosed => {
                let (node, user) = (self.world.scene.node, self.user.clone());
                let before = self.world.scene.proxy.connections();
                node.close_connections_of(&user);
                self.post()?;
                let proxy = &self.world.scene.proxy;
                let again =
                    eventually_within(SHOWN, "", || if proxy.connections() > before { Ok(()) } else { Err(()) });
                again.expect("it connects again");
            }
            Kind::DaemonKilled => {
                self.moment();
                self.world.kill()?;
                self.world.start_again();
                self.post()?;
            }
            Kind::DaemonStopped => {
                // Only who is connected says goodbye.
                self.shown("it is well", |relay| relay["connected"] == true && relay["blocked"] == false);
                let before = self.world.scene.proxy.hits();
                self.world.scene.proxy.set_times(Fault::CutAt(CONNECTION_CLOSE), 1);
                self.moment();
                assert!(self.world.daemon.stop().success(), "{}", self.world.daemon.log());
                self.world.start_again();
                self.post()?;
                assert_eq!(self.world.scene.proxy.hits(), before + 1, "it said goodbye and was cut off there");
            }
        }
        Ok(())
    }

    /// A fault of the proxy that strikes once or a few times; `reconnect`: it strikes new connections.
    fn through_proxy(&mut self, fault: Fault, reconnect: bool) -> Result<(), String> {
        let times = self.world.rng.between(1, self.times);
        let before = self.world.scene.proxy.hits();
        self.world.scene.proxy.set_times(fault, times);
        if reconnect {
            self.world.scene.proxy.cut();
        }
        self.post()?;
        let proxy = &self.world.scene.proxy;
        let struck = eventually_within(SHOWN, "", || {
            let hits = proxy.hits() - before;
            if hits >= times { Ok(()) } else { Err(hits) }
        });
        struck.map_err(|hits| format!("{fault:?} struck {hits} times only"))
    }

    /// A fault that only silence tells of.
    fn silenced(&mut self, fault: Fault) -> Result<(), String> {
        connected(&self.world.daemon);
        let before = self.world.scene.proxy.hits();
        self.world.scene.proxy.set(fault);
        self.post()?;
        self.shown("it does not take silence for life", |relay| relay["connected"] == false);
        let struck = self.world.scene.proxy.hits() > before;
        self.world.scene.proxy.heal();
        if struck { Ok(()) } else { Err(format!("{fault:?} held nothing back")) }
    }

    /// Ten seconds more for each round trip; heartbeats go on, only late. Over when a confirm came of what was sent
    /// meanwhile, or when it was too slow for the relay.
    fn slowed(&mut self) -> Result<(), String> {
        connected(&self.world.daemon);
        let (began, hits) = (Instant::now(), self.world.scene.proxy.hits());
        self.world.scene.proxy.set(Fault::Slow(SLOWED / 2));
        let before = self.published("confirmed");
        self.post()?;
        let told = eventually_within(SHOWN, "", || {
            let confirmed = self.published("confirmed") - before;
            let down = self.world.daemon.ask("/api/v1/status")["relay"]["connected"] == false;
            // More than what may have been on its way.
            if down || confirmed > WINDOW && began.elapsed() >= SLOWED { Ok(()) } else { Err(confirmed) }
        });
        let struck = self.world.scene.proxy.hits() > hits;
        self.world.scene.proxy.heal();
        told.map_err(|confirmed| format!("{confirmed} confirms within {SHOWN:?}"))?;
        if struck { Ok(()) } else { Err("nothing was slowed down".into()) }
    }

    /// What is in a queue goes with it, so it is emptied first: nothing passes the proxy until it is gone.
    fn delete_queue(&mut self) -> Result<(), String> {
        self.world.scene.proxy.set(Fault::BlackHole);
        self.post()?;
        let scene = &self.world.scene;
        let empty = eventually_within(SHOWN, "", || {
            let lengths = scene.lengths();
            if lengths.contains(&("payments".to_owned(), 0)) { Ok(()) } else { Err(lengths) }
        });
        empty.expect("the consumer empties the queue");
        scene.node.must(&["delete_queue", "-p", &scene.vhost, "payments"]);
        scene.proxy.heal();
        let again = eventually_within(SHOWN, "", || {
            let lengths = scene.lengths();
            if lengths.iter().any(|(name, _)| name == "payments") { Ok(()) } else { Err(()) }
        });
        again.map_err(|()| "the relay does not declare its queue again")?;
        connected(&self.world.daemon);
        self.world.consumer.wait_until_ready();
        thread::sleep(SETTLED_QUEUE);
        Ok(())
    }

    /// Some time passes, in which senders post.
    fn moment(&mut self) {
        thread::sleep(Duration::from_millis(self.world.rng.below(400)));
    }

    fn shown(&self, what: &str, is_so: impl FnMut(&Value) -> bool) {
        until(&self.world.daemon, what, is_so);
    }

    fn published(&self, outcome: &str) -> f64 {
        self.world.daemon.metric(&format!("quittance_relay_published_total{{outcome=\"{outcome}\"}}"))
    }

    fn counted(&self, outcome: &str, before: f64) {
        let counted = eventually_within(SHOWN, "", || if self.published(outcome) > before { Ok(()) } else { Err(()) });
        counted.unwrap_or_else(|()| {
            let relay = self.world.daemon.ask("/api/v1/status")["relay"].clone();
            let said = self.world.daemon.log();
            let said: Vec<_> = said
                .lines()
                .filter(|line| line.contains("quittance::relay") || line.contains("quittance::sink"))
                .collect();
            panic!("nothing was {outcome}; the relay is {relay} and said:\n{}", said.join("\n"))
        });
    }
}

/// Something is confirmed again.
fn until_settling(world: &World<'_>) -> Result<(), String> {
    let before = world.consumer.distinct();
    let came = eventually_within(SHOWN, "", || if world.consumer.distinct() > before + 20 { Ok(()) } else { Err(()) });
    came.map_err(|()| "nothing is delivered any more".to_owned())
}

/// The section.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    let began = Instant::now();
    let node = node::alone();
    let mut storm = Storm::begin(Scene::on(&node), form);
    let kinds: Vec<Kind> = ALL.into_iter().filter(|kind| form.long || !LONG_ONLY.contains(kind)).collect();
    let mut faults = kinds.repeat(form.pick(1, 3));
    for at in (1..faults.len()).rev() {
        faults.swap(at, storm.world.rng.below(at as u64 + 1) as usize);
    }
    let mut by_kind: BTreeMap<Kind, u64> = BTreeMap::new();
    for kind in &faults {
        let at = Instant::now();
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| storm.strike(*kind)));
        let outcome = outcome.unwrap_or_else(|panic| Err(crate::words_of(&*panic)));
        outcome.map_err(|what| format!("{kind:?} did not strike, or nothing came back: {what}"))?;
        *by_kind.entry(*kind).or_default() += 1;
        say(format!("{:>5.1} s  {kind:?}", at.elapsed().as_secs_f64()));
        // Some faults meet what the former one left, others a relay that is well again.
        if storm.world.rng.coin() {
            connected(&storm.world.daemon);
        }
    }
    let mut world = storm.world;
    world.faults = by_kind.values().sum();
    let history = world.end(faults.len() as u64)?;
    let what = format!("{} kinds of fault", by_kind.len());
    Ok(vec![Row::judged("broker", what, form, began, &history)?])
}

/// Whether the relay's last error names it.
fn says(relay: &Value, what: &str) -> bool {
    relay["last_error"].as_str().is_some_and(|error| error.contains(what))
}
