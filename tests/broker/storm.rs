//! Thousands of notifications while everything goes wrong that can: all that was acknowledged arrives, nothing else
//! does, each order in its order, and what comes again is the same event.
//!
//! A run is told by its seed (`QUITTANCE_SEED`). The long form (`QUITTANCE_LONG=1`) is 100,000 notifications with every
//! kind of fault and some of them twice.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bulk::{Notification, Poster, STATES, signed};
use crate::consumer::{self, Consumer, Message, Tally};
use crate::frames::{
    CHANNEL_OPEN, CONFIRM_SELECT, CONNECTION_CLOSE, CONNECTION_OPEN, EXCHANGE_DECLARE, QUEUE_BIND, QUEUE_DECLARE,
};
use crate::harness::{Daemon, eventually_within};
use crate::node::{self, Node, SETTLED_QUEUE};
use crate::proxy::{Fault, Towards};
use crate::rng::{Rng, base_seed, long_form};
use crate::scene::{Relay, Scene, broker_script, connected, until, until_settled, url};

const SENDERS: u64 = 4;
const PASSWORD: &str = "pw-of-the-storm-9d2c4b7a";
/// What `relay_connected` and its kin may take to show a fault.
const SHOWN: Duration = Duration::from_secs(60);

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
    BindingRemoved,
    QueueFull,
    PasswordChanged,
    WriteRightTaken,
    ConnectionsClosed,
    DaemonKilled,
    DaemonStopped,
}

const ALL: [Kind; 21] = [
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
    Kind::BindingRemoved,
    Kind::QueueFull,
    Kind::PasswordChanged,
    Kind::WriteRightTaken,
    Kind::ConnectionsClosed,
    Kind::DaemonKilled,
    Kind::DaemonStopped,
];

/// Those of the short form: ten kinds that are over soon.
const QUICK: [Kind; 10] = [
    Kind::BrokerKilled,
    Kind::Refused,
    Kind::CutAtDeclare,
    Kind::CutInPublish,
    Kind::CutBeforeConfirm,
    Kind::MemoryAlarm,
    Kind::BindingRemoved,
    Kind::QueueFull,
    Kind::DaemonKilled,
    Kind::DaemonStopped,
];

struct Storm<'a> {
    scene: Scene<'a>,
    user: String,
    daemon: Daemon,
    consumer: Consumer,
    rng: Rng,
    notifications: &'a [Notification],
    orders: u64,
    /// Where the daemon listens now; another port after each start.
    public: Mutex<SocketAddr>,
    /// Posts that had no answer of success and were posted again.
    tried_again: Mutex<u64>,
}

impl<'a> Storm<'a> {
    fn new(node: &'a Node, notifications: &'a [Notification], orders: u64, seed: u64) -> Self {
        let scene = Scene::on(node);
        let user = format!("storm-{}", scene.vhost);
        node.must(&["add_user", &user, PASSWORD]);
        node.must(&["set_permissions", "-p", &scene.vhost, &user, ".*", ".*", ".*"]);
        let address = url(&format!("{user}:{PASSWORD}"), scene.proxy.address(), &scene.vhost);
        let daemon = Relay { url: format!("\"{address}?heartbeat=5\""), lines: String::new() }.serve();
        connected(&daemon);
        let consumer = scene.consumer();
        consumer.wait_until_ready();
        thread::sleep(SETTLED_QUEUE);
        let public = Mutex::new(daemon.public);
        let rng = Rng::new(seed);
        Self { scene, user, daemon, consumer, rng, notifications, orders, public, tried_again: Mutex::new(0) }
    }

    /// Posts a slice of the notifications until each is acknowledged, those of an order one after another, while
    /// `meanwhile` happens to the daemon.
    fn post(&mut self, slice: Range<usize>, meanwhile: impl FnOnce(&mut Daemon, &mut Rng)) {
        let Self { daemon, rng, public, tried_again, notifications, orders, .. } = self;
        let slice = &notifications[slice];
        let (public, tried_again, orders) = (&*public, &*tried_again, *orders);
        thread::scope(|scope| {
            for sender in 0..SENDERS {
                scope.spawn(move || {
                    let mut poster = Poster::to(*public.lock().expect("ours"));
                    for notification in slice.iter().filter(|n| n.number % orders % SENDERS == sender) {
                        while !matches!(poster.post(notification), Ok(200)) {
                            *tried_again.lock().expect("ours") += 1;
                            thread::sleep(Duration::from_millis(20));
                            poster = Poster::to(*public.lock().expect("ours"));
                        }
                    }
                });
            }
            meanwhile(daemon, rng);
            *public.lock().expect("ours") = daemon.public;
        });
    }

    /// A fault while a slice is posted; over when it returns, the backlog may not be.
    fn strike(&mut self, kind: Kind, slice: Range<usize>) {
        let n = self.rng.between(1, 40);
        match kind {
            Kind::BrokerKilled => {
                let node = self.scene.node;
                self.post(slice, |_, rng| {
                    thread::sleep(Duration::from_millis(rng.below(300)));
                    node.kill();
                });
                self.shown("it is cut off", |relay| relay["connected"] == false);
                node.start();
            }
            Kind::BrokerStopped => {
                let node = self.scene.node;
                self.post(slice, |_, _| drop(node.must(&["stop_app"])));
                self.shown("it is cut off", |relay| relay["connected"] == false);
                node.must(&["start_app"]);
            }
            Kind::Refused => self.through_proxy(Fault::Refuse, true, slice),
            Kind::CutAtOpen => {
                let at = [CONNECTION_OPEN, CHANNEL_OPEN][self.rng.below(2) as usize];
                self.through_proxy(Fault::CutAt(at), true, slice);
            }
            Kind::CutAtDeclare => {
                let at = [EXCHANGE_DECLARE, QUEUE_DECLARE, QUEUE_BIND][self.rng.below(3) as usize];
                self.through_proxy(Fault::CutAt(at), true, slice);
            }
            Kind::CutAtConfirmSelect => self.through_proxy(Fault::CutAt(CONFIRM_SELECT), true, slice),
            Kind::CutInPublish => self.through_proxy(Fault::CutInPublish(n), false, slice),
            Kind::CutBeforeConfirm => self.through_proxy(Fault::CutBeforeConfirm(n), false, slice),
            Kind::HalfOpenToBroker => self.silenced(Fault::HalfOpen(Towards::Broker), slice),
            Kind::HalfOpenToDaemon => self.silenced(Fault::HalfOpen(Towards::Daemon), slice),
            Kind::BlackHole => self.silenced(Fault::BlackHole, slice),
            Kind::Slow => {
                // Ten seconds more for each round trip; heartbeats go on, only late.
                self.scene.proxy.set(Fault::Slow(Duration::from_secs(5)));
                self.post(slice, |_, _| thread::sleep(Duration::from_secs(25)));
                self.scene.proxy.heal();
            }
            Kind::MemoryAlarm => {
                self.scene.node.raise_memory_alarm();
                self.post(slice, |_, _| {});
                self.shown("it is blocked", |relay| relay["blocked"] == true);
                self.scene.node.free_memory_alarm();
            }
            Kind::QueueDeleted => self.delete_queue(slice),
            Kind::BindingRemoved => {
                // The relay may bind anew as soon as it sees what is returned: that it was returned is what counts.
                let before = self.published("returned");
                broker_script(&self.scene, "ch.queue_unbind('payments', 'payments', '#')");
                self.post(slice, |_, _| {});
                self.counted("returned", before);
                broker_script(&self.scene, "ch.queue_bind('payments', 'payments', '#')");
            }
            Kind::QueueFull => {
                let before = self.published("nacked");
                let (node, vhost) = (self.scene.node, self.scene.vhost.clone());
                let policy = r#"{"max-length":5,"overflow":"reject-publish"}"#;
                self.consumer.pause();
                node.must(&["set_policy", "-p", &vhost, "--apply-to", "queues", "full", "^payments$", policy]);
                self.post(slice, |_, _| {});
                self.counted("nacked", before);
                node.must(&["clear_policy", "-p", &vhost, "full"]);
                self.consumer.resume();
            }
            Kind::PasswordChanged => {
                let (node, user) = (self.scene.node, self.user.clone());
                node.must(&["change_password", &user, "another-password-0815"]);
                node.close_connections_of(&user);
                self.post(slice, |_, _| {});
                self.shown("it is refused", |relay| relay["connected"] == false && relay["last_error"].is_string());
                node.must(&["change_password", &user, PASSWORD]);
            }
            Kind::WriteRightTaken => {
                let (node, vhost, user) = (self.scene.node, self.scene.vhost.clone(), self.user.clone());
                node.must(&["set_permissions", "-p", &vhost, &user, ".*", "^$", ".*"]);
                node.close_connections_of(&user);
                self.post(slice, |_, _| {});
                self.shown("it says so", |relay| relay["last_error"].is_string() && relay["backlog"] != 0);
                node.must(&["set_permissions", "-p", &vhost, &user, ".*", ".*", ".*"]);
            }
            Kind::ConnectionsClosed => {
                let (node, user) = (self.scene.node, self.user.clone());
                let before = self.scene.proxy.connections();
                self.post(slice, |_, _| node.close_connections_of(&user));
                let proxy = &self.scene.proxy;
                let again =
                    eventually_within(SHOWN, "", || if proxy.connections() > before { Ok(()) } else { Err(()) });
                again.expect("it connects again");
            }
            Kind::DaemonKilled => self.post(slice, |daemon, rng| {
                thread::sleep(Duration::from_millis(rng.below(400)));
                daemon.crash_and_restart();
            }),
            Kind::DaemonStopped => {
                // Only who is connected says goodbye.
                self.shown("it is well", |relay| relay["connected"] == true && relay["blocked"] == false);
                let before = self.scene.proxy.hits();
                self.scene.proxy.set_times(Fault::CutAt(CONNECTION_CLOSE), 1);
                self.post(slice, |daemon, rng| {
                    thread::sleep(Duration::from_millis(rng.below(400)));
                    assert!(daemon.stop().success(), "{}", daemon.log());
                    daemon.start_again();
                });
                assert_eq!(self.scene.proxy.hits(), before + 1, "it said goodbye and was cut off there");
            }
        }
    }

    /// A fault of the proxy that strikes one to three times; `reconnect`: it strikes new connections.
    fn through_proxy(&mut self, fault: Fault, reconnect: bool, slice: Range<usize>) {
        let times = self.rng.between(1, 3);
        let before = self.scene.proxy.hits();
        self.scene.proxy.set_times(fault, times);
        if reconnect {
            self.scene.proxy.cut();
        }
        self.post(slice, |_, _| {});
        let proxy = &self.scene.proxy;
        let struck = eventually_within(SHOWN, "", || {
            let hits = proxy.hits() - before;
            if hits >= times { Ok(()) } else { Err(hits) }
        });
        struck.unwrap_or_else(|hits| panic!("{fault:?} struck {hits} times only"));
    }

    /// A fault that only silence tells of.
    fn silenced(&mut self, fault: Fault, slice: Range<usize>) {
        self.scene.proxy.set(fault);
        self.post(slice, |_, _| {});
        self.shown("it does not take silence for life", |relay| relay["connected"] == false);
        self.scene.proxy.heal();
    }

    /// What is in a queue goes with it, so it is emptied first: nothing passes the proxy until it is gone.
    fn delete_queue(&mut self, slice: Range<usize>) {
        self.scene.proxy.set(Fault::BlackHole);
        self.post(slice, |_, _| {});
        let scene = &self.scene;
        let empty = eventually_within(SHOWN, "", || {
            let lengths = scene.lengths();
            if lengths.contains(&("payments".to_owned(), 0)) { Ok(()) } else { Err(lengths) }
        });
        empty.expect("the consumer empties the queue");
        scene.node.must(&["delete_queue", "-p", &scene.vhost, "payments"]);
        scene.proxy.heal();
        connected(&self.daemon);
        self.consumer.wait_until_ready();
        thread::sleep(SETTLED_QUEUE);
    }

    fn shown(&self, what: &str, is_so: impl FnMut(&Value) -> bool) {
        until(&self.daemon, what, is_so);
    }

    fn published(&self, outcome: &str) -> f64 {
        self.daemon.metric(&format!("quittance_relay_published_total{{outcome=\"{outcome}\"}}"))
    }

    fn counted(&self, outcome: &str, before: f64) {
        let counted = eventually_within(SHOWN, "", || if self.published(outcome) > before { Ok(()) } else { Err(()) });
        counted.unwrap_or_else(|()| panic!("nothing was {outcome}; it said:\n{}", self.daemon.log()));
    }
}

/// Every acknowledged notification came as the event of the journal, in its place; nothing else came.
fn verdict(
    feed: Vec<Value>,
    notifications: &[Notification],
    orders: u64,
    messages: &[Message],
) -> Result<Tally, String> {
    let tally = consumer::judge(messages)?;
    let feed: HashMap<String, Value> =
        feed.into_iter().map(|event| (event["id"].as_str().unwrap_or_default().to_owned(), event)).collect();
    let mut by_transaction: HashMap<&str, &Message> = HashMap::new();
    for message in messages {
        if feed.get(message.id()) != Some(&message.event) {
            return Err(format!("{} is not the journal's event", message.id()));
        }
        by_transaction.insert(message.transaction(), message);
    }
    let (mut lost, mut wrong) = (Vec::new(), Vec::new());
    for sent in notifications {
        let Some(message) = by_transaction.remove(sent.transaction.as_str()) else {
            lost.push(&sent.transaction);
            continue;
        };
        let word = STATES.iter().find(|(state, _)| *state == sent.status).map(|(_, word)| *word);
        let data = &message.event["data"];
        let right = data["order_id"] == sent.order
            && data["amount"]["value"] == sent.price
            && message.properties["type"].as_str() == word
            && message.sequence() == sent.number / orders + 1;
        if !right {
            wrong.push(&sent.transaction);
        }
    }
    let invented: Vec<_> = by_transaction.keys().collect();
    if lost.is_empty() && invented.is_empty() && wrong.is_empty() {
        return Ok(tally);
    }
    let some = |list: &[&String]| format!("{} ({:?} ..)", list.len(), list.iter().take(5).collect::<Vec<_>>());
    Err(format!("lost {}, wrong {}, invented {}", some(&lost), some(&wrong), invented.len()))
}

struct Machine;

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let (processor, memory) =
            (field(&read("/proc/cpuinfo"), "model name"), field(&read("/proc/meminfo"), "MemTotal"));
        write!(f, "{processor}, {cores} cores, {memory}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
    }
}

#[test]
fn in_a_storm_of_faults_every_acknowledged_notification_arrives_and_nothing_else_does() {
    let (seed, long) = (base_seed(), long_form());
    let mut rng = Rng::new(seed);
    let (count, orders) = if long { (100_000, 8_000) } else { (5_000, 400) };
    let mut faults = if long { ALL.to_vec() } else { QUICK.to_vec() };
    if long {
        faults.extend((0..9).map(|_| ALL[rng.below(ALL.len() as u64) as usize]));
    }
    for at in (1..faults.len()).rev() {
        faults.swap(at, rng.below(at as u64 + 1) as usize);
    }

    let node = node::alone();
    let notifications = signed(count, orders);
    let mut storm = Storm::new(&node, &notifications, orders, rng.next());
    let began = Instant::now();
    let mut by_kind: BTreeMap<Kind, u64> = BTreeMap::new();
    let slices = faults.len() + 1;
    let slice = |number: usize| number * notifications.len() / slices..(number + 1) * notifications.len() / slices;
    for (number, kind) in faults.iter().enumerate() {
        let at = Instant::now();
        storm.strike(*kind, slice(number));
        *by_kind.entry(*kind).or_default() += 1;
        tell(&format!("  {:>5.1} s  {kind:?}", at.elapsed().as_secs_f64()));
        // Some faults meet what the former one left, others a relay that is well again.
        if rng.coin() {
            connected(&storm.daemon);
        }
    }
    storm.post(slice(slices - 1), |_, _| {});
    let posted = began.elapsed();
    storm.consumer.wait_for(notifications.len(), Duration::from_secs(if long { 600 } else { 120 }));
    until_settled(&storm.daemon);
    storm.consumer.wait_for_silence(Duration::from_secs(2));
    let messages = storm.consumer.messages();
    let tally = verdict(storm.daemon.feed(), &notifications, orders, &messages)
        .unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    assert_eq!(storm.daemon.metric("quittance_dead_letters"), 0.0, "seed {seed}");

    tell(&format!("storm, seed {seed}: {Machine}"));
    for (kind, times) in &by_kind {
        tell(&format!("  {times:>3} x {kind:?}"));
    }
    let (total, kinds) = (by_kind.values().sum::<u64>(), by_kind.len());
    let tried_again = *storm.tried_again.lock().expect("ours");
    tell(&format!(
        "  {total} faults of {kinds} kinds; {} acknowledged ({tried_again} posts again), {} delivered, {} repeated, 0 lost, 0 invented; \
         {:.0} s, settled {:.0} s after the last post",
        notifications.len(),
        tally.delivered,
        tally.repeated,
        began.elapsed().as_secs_f64(),
        (began.elapsed() - posted).as_secs_f64(),
    ));
}

/// To the terminal, also while a test's own output is kept back.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What came of six notifications of two orders when all is well: the feed, and the messages.
fn all_well(notifications: &[Notification]) -> (Vec<Value>, Vec<Message>) {
    let event = |sent: &Notification| {
        json!({
            "id": format!("event-{}", sent.number), "source": "/sources/paygol",
            "data": {
                "transaction_id": sent.transaction, "order_id": sent.order, "amount": { "value": sent.price },
                "sequence": sent.number / 2 + 1, "notification_id": format!("notification-{}", sent.number),
            },
        })
    };
    let message = |sent: &Notification| Message {
        exchange: "payments".into(),
        routing_key: "payment.paid.paygol".into(),
        redelivered: false,
        properties: json!({ "type": STATES.iter().find(|(state, _)| *state == sent.status).map(|(_, word)| *word) }),
        headers: json!({}),
        event: event(sent),
    };
    (notifications.iter().map(event).collect(), notifications.iter().map(message).collect())
}

#[test]
fn the_judge_of_the_storm_sees_what_is_lost_doubled_swapped_changed_or_invented() {
    let notifications = signed(6, 2);
    let (feed, messages) = all_well(&notifications);
    let judge = |feed: &[Value], messages: &[Message]| verdict(feed.to_vec(), &notifications, 2, messages);
    let tally = judge(&feed, &messages).expect("nothing is wrong");
    assert_eq!((tally.delivered, tally.repeated), (6, 0));
    let again = judge(&feed, &[&messages[..], &messages[2..4]].concat()).expect("a repeat is allowed");
    assert_eq!((again.delivered, again.repeated), (6, 2));

    let refuses = |what: &str, feed: &[Value], messages: &[Message], word: &str| {
        let said = judge(feed, messages).expect_err(what);
        assert!(said.contains(word), "{what}: {said}");
    };
    for lost in 0..6 {
        let mut fewer = messages.clone();
        fewer.remove(lost);
        // The last of an order leaves no gap behind it.
        refuses("one is lost", &feed, &fewer, if lost < 4 { "came after" } else { "lost 1" });
    }
    let mut doubled = messages.clone();
    doubled.push(messages[5].clone());
    doubled[6].event["id"] = json!("event-new");
    refuses("one came as two events", &feed, &doubled, "the same notification");
    doubled[6].event["data"]["notification_id"] = json!("notification-new");
    refuses("one came as another notification too", &feed, &doubled, "came after");
    doubled[6].event["data"]["sequence"] = json!(4);
    refuses("one was made up", &feed, &doubled, "is not the journal's event");
    doubled[6].event["data"]["transaction_id"] = json!("T-never");
    let journal = [&feed[..], &[doubled[6].event.clone()]].concat();
    refuses("one that nobody posted", &journal, &doubled, "invented 1");
    let mut swapped = messages.clone();
    swapped.swap(1, 3);
    refuses("two of an order are swapped", &feed, &swapped, "came after");
    let mut changed = [&messages[..], &messages[..1]].concat();
    changed[6].event["data"]["amount"]["value"] = json!("1000000.00");
    refuses("a repeat says something else", &feed, &changed, "another content");
    let mut wrong = (feed.clone(), messages.clone());
    wrong.0[5]["data"]["amount"]["value"] = json!("1000000.00");
    wrong.1[5].event = wrong.0[5].clone();
    refuses("another amount was kept than posted", &wrong.0, &wrong.1, "wrong 1");
}
