//! A virtual host, a proxy before it, a daemon that relays through the proxy, and what tests ask of the three.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::consumer::{self, Consumer, Message};
use crate::fixtures::{self, PAYGOL_SECRET};
use crate::harness::{Config, Daemon, eventually_within};
use crate::node::Node;
use crate::proxy::Proxy;

/// How long the relay may take to see that the broker is well again, and to send what waits: reconnecting backs off
/// to 5 s, and the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `[relay.amqp]` of a test. Exchange and queue keep their default names: the virtual host is the test's own.
pub struct Relay {
    /// As TOML: a string or a list of strings.
    pub url: String,
    /// More lines.
    pub lines: String,
}

impl Relay {
    /// Through that address.
    pub fn at(address: std::net::SocketAddr, vhost: &str) -> Self {
        Self { url: format!("\"{}\"", url("guest:guest", address, vhost)), lines: String::new() }
    }

    /// With more lines in its table.
    pub fn with(mut self, lines: &str) -> Self {
        self.lines = format!("{}\n{lines}", self.lines);
        self
    }

    /// The table.
    pub fn table(&self) -> String {
        format!("[relay.amqp]\nurl = {}\n{}\n", self.url, self.lines)
    }

    /// A whole configuration with it.
    pub fn config(&self) -> Config {
        Config { tables: self.table(), store: "segment = \"4MiB\"".into(), sources: sources(), ..Config::default() }
    }

    /// A daemon with it, ready.
    #[track_caller]
    pub fn serve(&self) -> Daemon {
        Daemon::with(self.config())
    }
}

/// An AMQP URL.
pub fn url(user: &str, address: std::net::SocketAddr, vhost: &str) -> String {
    format!("amqp://{user}@{address}/{vhost}")
}

/// One source is enough here: what a notification says is tested elsewhere.
fn sources() -> String {
    format!(
        "[[source]]\nname = \"paygol\"\nprovider = \"paygol\"\npath = \"/paygol\"\nservice_id = \"123\"\n\
         secrets = [\"{PAYGOL_SECRET}\"]\n"
    )
}

/// A virtual host of the test's own, with a proxy before it.
pub struct Scene<'a> {
    pub node: &'a Node,
    pub vhost: String,
    pub proxy: Proxy,
}

impl<'a> Scene<'a> {
    /// On a node that runs.
    #[track_caller]
    pub fn on(node: &'a Node) -> Self {
        Self { node, vhost: node.new_vhost(), proxy: Proxy::before(node.address()) }
    }

    /// The relay through the proxy.
    pub fn relay(&self) -> Relay {
        Relay::at(self.proxy.address(), &self.vhost)
    }

    /// A daemon that relays through the proxy and has reached the broker.
    #[track_caller]
    pub fn serve(&self) -> Daemon {
        let daemon = self.relay().serve();
        connected(&daemon);
        daemon
    }

    /// A consumer of the queue that the relay declares; it need not be there yet.
    pub fn consumer(&self) -> Consumer {
        Consumer::of(self.node, &self.vhost, "payments")
    }

    /// Messages of each queue.
    #[track_caller]
    pub fn lengths(&self) -> Vec<(String, u64)> {
        let rows = self.node.queues(&self.vhost, &["name", "messages"]);
        rows.into_iter().map(|row| (row[0].clone(), row[1].parse().expect("a number"))).collect()
    }
}

/// Waits until the relay says that it is connected.
#[track_caller]
pub fn connected(daemon: &Daemon) {
    until(daemon, "it is connected", |relay| relay["connected"] == true);
}

/// Waits until what `/api/v1/status` says of the relay is so.
#[track_caller]
pub fn until(daemon: &Daemon, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> Value {
    let said = eventually_within(PATIENCE, what, || {
        let relay = daemon.ask("/api/v1/status")["relay"].clone();
        if is_so(&relay) { Ok(relay) } else { Err(relay) }
    });
    said.unwrap_or_else(|last| panic!("never came true: {what}; the relay said {last}"))
}

/// Waits until the relay has nothing left to send.
#[track_caller]
pub fn until_settled(daemon: &Daemon) {
    until(daemon, "nothing is left to send", |relay| relay["backlog"] == 0);
}

/// Receiving goes on, whatever the broker does.
#[track_caller]
pub fn receives(daemon: &Daemon) {
    assert_eq!(daemon.admin_get("/readyz").status, 200, "a broker that is down does not make it unready");
    assert_eq!(daemon.admin_get("/healthz").status, 200);
}

/// Posts notifications `range`, spread over `orders` orders, each acknowledged; their transactions.
#[track_caller]
pub fn post(daemon: &Daemon, range: std::ops::Range<u64>, orders: u64) -> BTreeSet<String> {
    range.map(|number| post_one(daemon, number, &format!("order-{}", number % orders))).collect()
}

/// Posts one, acknowledged; its transaction.
#[track_caller]
pub fn post_one(daemon: &Daemon, number: u64, order: &str) -> String {
    let transaction = format!("T-{number}");
    let fields = fixtures::paygol(json!({ "transaction_id": transaction, "custom": order }));
    let answer = daemon.paygol(&fields);
    assert_eq!((answer.status, answer.text().as_str()), (200, "OK"), "{answer:?}");
    transaction
}

/// Waits until everything that was acknowledged has come, and nothing else, in order and repeated only as itself.
#[track_caller]
pub fn all_came(consumer: &Consumer, acknowledged: &BTreeSet<String>) -> Vec<Message> {
    consumer.wait_for(acknowledged.len(), PATIENCE);
    consumer.wait_for_silence(Duration::from_millis(500));
    let messages = consumer.messages();
    consumer::judge(&messages).unwrap_or_else(|wrong| panic!("{wrong}"));
    let came: BTreeSet<String> = messages.iter().map(|message| message.transaction().to_owned()).collect();
    assert_eq!(&came, acknowledged, "what came is what was acknowledged");
    messages
}

/// Exchange, queue and binding, as someone else would declare them.
#[track_caller]
pub fn declare_by_hand(scene: &Scene<'_>) {
    broker_script(
        scene,
        "ch.exchange_declare('payments', 'topic', durable=True)\n\
         ch.queue_declare('payments', durable=True)\n\
         ch.queue_bind('payments', 'payments', '#')",
    );
}

/// Lines of Python with an open pika channel `ch`.
#[track_caller]
pub fn broker_script(scene: &Scene<'_>, lines: &str) {
    let script = format!(
        "import pika, sys\n\
         c = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', int(sys.argv[1]), sys.argv[2]))\n\
         ch = c.channel()\n{lines}\nc.close()\n"
    );
    let done = std::process::Command::new("/usr/bin/python3")
        .args(["-c", &script, &scene.node.address().port().to_string(), &scene.vhost])
        .output()
        .expect("/usr/bin/python3 runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Waits until the relay has tried so often, whatever came of it: published, or connected where it cannot publish.
#[track_caller]
pub fn tried(scene: &Scene<'_>, times: u64) {
    let count = || scene.proxy.published() + scene.proxy.connections();
    let before = count();
    let enough = eventually_within(PATIENCE, "", || {
        let tries = count() - before;
        if tries >= times { Ok(()) } else { Err(tries) }
    });
    enough.unwrap_or_else(|tries| panic!("it tried {tries} times only within {PATIENCE:?}"));
}

/// More tries than a window of three orders has attempts: were they counted, there would be dead letters.
pub const MORE_THAN_ALL_ATTEMPTS: u64 = 20;
