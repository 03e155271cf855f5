//! What an order system sees: `consumer.py` consumes, every event that it prints is checked against the schema, and
//! the promise of the relay is checked over all of them.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::eventually_within;
use crate::node::Node;

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Message {
    pub exchange: String,
    pub routing_key: String,
    /// The broker says that it may have delivered it before.
    pub redelivered: bool,
    pub properties: Value,
    pub headers: Value,
    pub event: Value,
}

impl Message {
    /// The event's id.
    pub fn id(&self) -> &str {
        self.event["id"].as_str().expect("the schema says so")
    }
    /// The provider's number.
    pub fn transaction(&self) -> &str {
        self.event["data"]["transaction_id"].as_str().expect("every notification of the tests has one")
    }
    /// The order.
    pub fn order(&self) -> &str {
        self.event["data"]["order_id"].as_str().expect("every notification of the tests has one")
    }
    /// Its number within the order.
    pub fn sequence(&self) -> u64 {
        self.event["data"]["sequence"].as_u64().expect("the schema says so")
    }
}

/// A running consumer.
pub struct Consumer {
    child: Child,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    messages: Vec<Message>,
    ids: HashSet<String>,
    ready: bool,
    last: Option<Instant>,
}

impl Seen {
    fn take(&mut self, message: Message) {
        self.ids.insert(message.id().to_owned());
        self.messages.push(message);
    }
}

impl Consumer {
    /// Consumes `queue` of a virtual host, directly from the node.
    pub fn of(node: &Node, vhost: &str, queue: &str) -> Self {
        Self::of_any(&[node], vhost, queue)
    }

    /// The same from whichever of some nodes is there.
    pub fn of_any(nodes: &[&Node], vhost: &str, queue: &str) -> Self {
        let ports: Vec<String> = nodes.iter().map(|node| node.address().port().to_string()).collect();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broker/consumer.py");
        let mut child = Command::new("/usr/bin/python3")
            .arg(script)
            .args(["127.0.0.1", &ports.join(","), vhost, queue])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("/usr/bin/python3 runs");
        let out = child.stdout.take().expect("piped");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let into = seen.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // What does not read ends this thread with the lock in its hands, and whoever asks next is told.
                let mut seen = into.lock().expect("nobody else panics with it");
                let line: Value = serde_json::from_str(&line).expect("the consumer prints JSON");
                match line.as_str() {
                    Some(state) => seen.ready = state == "ready",
                    None => seen.take(message(&line)),
                }
                seen.last = Some(Instant::now());
            }
        });
        Self { child, seen }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("everything that came is an event that reads")
    }

    /// Everything that came so far, in the order in which it came.
    pub fn messages(&self) -> Vec<Message> {
        self.seen().messages.clone()
    }

    /// How many came so far, repeats included.
    pub fn count(&self) -> usize {
        self.seen().messages.len()
    }

    /// How many different events came so far.
    pub fn distinct(&self) -> usize {
        self.seen().ids.len()
    }

    /// Waits until it is connected and the queue is there.
    #[track_caller]
    pub fn wait_until_ready(&self) {
        let ready = eventually_within(Duration::from_secs(30), "", || if self.seen().ready { Ok(()) } else { Err(()) });
        assert!(ready.is_ok(), "the consumer finds no queue: is python3-pika installed?");
    }

    /// Waits until so many different events came.
    #[track_caller]
    pub fn wait_for(&self, events: usize, patience: Duration) {
        let all = eventually_within(patience, "", || {
            let came = self.distinct();
            if came >= events { Ok(()) } else { Err(came) }
        });
        if let Err(came) = all {
            panic!("{came} of {events} events came within {patience:?}");
        }
    }

    /// Waits until nothing has come for so long.
    pub fn wait_for_silence(&self, silence: Duration) {
        let began = Instant::now();
        while self.seen().last.unwrap_or(began).max(began).elapsed() < silence {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the process without telling the broker, so that its queue fills.
    pub fn pause(&self) {
        crate::harness::signal(self.child.id(), rustix::process::Signal::STOP);
    }

    /// The end of [`Consumer::pause`].
    pub fn resume(&self) {
        crate::harness::signal(self.child.id(), rustix::process::Signal::CONT);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a line and checks what holds for every message (interface, sections 1 and 2).
fn message(line: &Value) -> Message {
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let event: Value = serde_json::from_str(&text("body")).expect("a body is JSON");
    crate::schema::check(&event);
    let message = Message {
        exchange: text("exchange"),
        routing_key: text("routing_key"),
        redelivered: line["redelivered"] == true,
        properties: line["properties"].clone(),
        headers: line["headers"].clone(),
        event,
    };
    assert_eq!(message.properties["message_id"], message.event["id"], "{line}");
    message
}

/// What a relay has promised of all messages together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Different events.
    pub delivered: usize,
    /// Messages beyond the first of an event.
    pub repeated: usize,
}

/// Repeats are the same event word for word, the first deliveries of an order come by `sequence` without a gap, and no
/// two events tell the same notification.
///
/// # Errors
/// What is wrong, in words.
pub fn judge(messages: &[Message]) -> Result<Tally, String> {
    let mut events: HashMap<&str, &Message> = HashMap::new();
    let mut notifications: HashMap<&Value, &str> = HashMap::new();
    let mut last: HashMap<(&Value, &str), u64> = HashMap::new();
    let mut repeated = 0;
    for message in messages {
        if let Some(first) = events.get(message.id()) {
            repeated += 1;
            if first.event != message.event || first.routing_key != message.routing_key {
                return Err(format!("{} was repeated with another content", message.id()));
            }
            continue;
        }
        events.insert(message.id(), message);
        if let Some(other) = notifications.insert(&message.event["data"]["notification_id"], message.id()) {
            return Err(format!("{other} and {} tell the same notification", message.id()));
        }
        let order = last.entry((&message.event["source"], message.order())).or_default();
        if message.sequence() != *order + 1 {
            return Err(format!("order {}: {} came after {order}", message.order(), message.sequence()));
        }
        *order += 1;
    }
    Ok(Tally { delivered: events.len(), repeated })
}

/// Four notifications of two orders, as they come when all is well.
fn all_well() -> Vec<Message> {
    let message = |number: u64| Message {
        exchange: "payments".into(),
        routing_key: "payment.paid.paygol".into(),
        redelivered: false,
        properties: Value::Null,
        headers: Value::Null,
        event: serde_json::json!({
            "id": format!("event-{number}"), "source": "/sources/paygol", "data": {
                "order_id": format!("order-{}", number % 2), "sequence": number / 2 + 1,
                "notification_id": format!("notification-{number}"),
            },
        }),
    };
    (0..4).map(message).collect()
}

#[test]
fn the_judge_sees_what_is_missing_doubled_swapped_or_changed() {
    let tally = judge(&[&all_well()[..], &all_well()[1..3]].concat()).expect("a repeat is allowed");
    assert_eq!((tally.delivered, tally.repeated), (4, 2));
    let refuses = |word: &str, spoil: &dyn Fn(&mut Vec<Message>)| {
        let mut messages = all_well();
        spoil(&mut messages);
        let said = judge(&messages).expect_err(word);
        assert!(said.contains(word), "{said}");
    };
    refuses("came after", &|messages| drop(messages.remove(0)));
    refuses("came after", &|messages| messages.swap(1, 3));
    refuses("the same notification", &|messages| {
        messages.push(messages[3].clone());
        messages[4].event["id"] = "event-new".into();
    });
    refuses("another content", &|messages| {
        messages.push(messages[0].clone());
        messages[4].event["data"]["method"] = "another".into();
    });
}
