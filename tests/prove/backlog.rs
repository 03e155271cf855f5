//! Section `backlog`: a broker that is gone while a million notifications are acknowledged, and comes back: what the daemon
//! needs meanwhile, how long the drain takes, and that nothing is missing.
//!
//! A million messages are not kept: of each event its id is, by the number of its notification.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::bulk::{Poster, signed_from};
use crate::harness::{Daemon, eventually_within};
use crate::node::{self, Node, SETTLED_QUEUE};
use crate::report::{Form, Row, say};
use crate::scene::{Scene, connected, until};
use crate::world::Plan;

/// Who posts at once.
const POSTERS: usize = 48;
/// Notifications that are signed in one go.
const GO: u64 = 10_000;
/// Notifications of an order.
const OF_AN_ORDER: u64 = 8;
/// What one post may take.
const SOON: Duration = Duration::from_secs(120);
/// Longer than anything else here may take.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Prints id, transaction, order and sequence of each event.
const CONSUMER: &str = "import json, pika, sys\n\
    c = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', int(sys.argv[1]), sys.argv[2], heartbeat=60))\n\
    ch = c.channel()\n\
    ch.basic_qos(prefetch_count=1000)\n\
    unacknowledged = 0\n\
    def took(ch, method, properties, body):\n\
    \x20   global unacknowledged\n\
    \x20   e = json.loads(body)\n\
    \x20   d = e['data']\n\
    \x20   print(e['id'], d['transaction_id'][2:], d['order_id'][6:], d['sequence'], flush=False)\n\
    \x20   unacknowledged += 1\n\
    \x20   if unacknowledged == 200:\n\
    \x20       acknowledge()\n\
    def acknowledge():\n\
    \x20   global unacknowledged\n\
    \x20   sys.stdout.flush()\n\
    \x20   if unacknowledged:\n\
    \x20       ch.basic_ack(0, multiple=True)\n\
    \x20   unacknowledged = 0\n\
    def now_and_then():\n\
    \x20   acknowledge()\n\
    \x20   c.call_later(0.2, now_and_then)\n\
    c.call_later(0.2, now_and_then)\n\
    ch.basic_consume('payments', took)\n\
    ch.start_consuming()\n";

/// What came, in few bytes.
#[derive(Default)]
struct Came {
    /// By the notification's number.
    ids: HashMap<u64, u128>,
    /// The newest of each order.
    orders: HashMap<u64, u64>,
    repeated: u64,
    wrong: Vec<String>,
}

impl Came {
    fn take(&mut self, line: &str) {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let id = u128::from_str_radix(&word().replace('-', ""), 16);
        let [number, order, sequence] = [word(), word(), word()].map(str::parse::<u64>);
        let (Ok(id), Ok(number), Ok(order), Ok(sequence)) = (id, number, order, sequence) else {
            self.wrong.push(format!("no event: {line}"));
            return;
        };
        match self.ids.insert(number, id) {
            Some(former) if former == id => self.repeated += 1,
            Some(_) => self.wrong.push(format!("doubled: {line}")),
            None => {
                let last = self.orders.entry(order).or_default();
                if sequence != *last + 1 {
                    self.wrong.push(format!("after {last} of its order: {line}"));
                }
                *last = sequence;
            }
        }
    }
}

struct Consumer {
    child: Child,
    came: Arc<Mutex<Came>>,
}

impl Consumer {
    fn of(node: &Node, vhost: &str) -> Self {
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", CONSUMER, &node.address().port().to_string(), vhost])
            .stdout(Stdio::piped())
            .spawn()
            .expect("/usr/bin/python3 runs");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let came = Arc::new(Mutex::new(Came::default()));
        let into = came.clone();
        thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| lock(&into).take(&line)));
        Self { child, came }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A figure of `/proc/<pid>/status`, in MiB.
fn memory(daemon: &Daemon, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap_or_default().div_ceil(1024)
}

/// Posts so many from a number on, each until it is acknowledged.
fn post(daemon: &Daemon, first: u64, count: u64) {
    let (into, from) = sync_channel(2 * GO as usize);
    let from = Mutex::new(from);
    thread::scope(|scope| {
        for _ in 0..POSTERS {
            scope.spawn(|| {
                let mut poster = Poster::to(daemon.public);
                loop {
                    let Ok(notification) = lock(&from).recv() else { return };
                    let taken = eventually_within(SOON, "", || match poster.post(&notification) {
                        Ok(200) => Ok(()),
                        other => Err(other),
                    });
                    taken.expect("it is acknowledged");
                }
            });
        }
        for go in (first..first + count).step_by(GO as usize) {
            let some = GO.min(first + count - go);
            signed_from(go, some, count.div_ceil(OF_AN_ORDER)).into_iter().for_each(|it| into.send(it).expect("taken"));
        }
        drop(into);
    });
}

/// The section.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    let began = Instant::now();
    let count = form.pick(20_000, 1_000_000);
    let node = node::alone();
    let scene = Scene::on(&node);
    let mut plan = Plan::new(&scene, 5, form.seed);
    plan.config.store = "segment = \"64MiB\"".into();
    let daemon = Daemon::with(plan.config);
    connected(&daemon);
    thread::sleep(SETTLED_QUEUE);
    let before = memory(&daemon, "VmRSS:");
    node.stop();
    until(&daemon, "it is cut off", |relay| relay["connected"] == false);
    let posting = Instant::now();
    post(&daemon, 0, count);
    let posted = posting.elapsed().as_secs_f64();
    let owed = until(&daemon, "all of it waits", |relay| relay["backlog"].as_u64() >= Some(count));
    let with = memory(&daemon, "VmRSS:");
    say(format!(
        "{count} acknowledged in {posted:.0} s, {} wait; {before} MiB before, {with} MiB now",
        owed["backlog"]
    ));
    node.start();
    let draining = Instant::now();
    connected(&daemon);
    let consumer = Consumer::of(&node, &scene.vhost);
    let drained = eventually_within(PATIENCE, "", || {
        thread::sleep(Duration::from_millis(50));
        let backlog = daemon.ask("/api/v1/status")["relay"]["backlog"].clone();
        if backlog == 0 { Ok(()) } else { Err(backlog) }
    });
    drained.map_err(|left| format!("{left} are left after {PATIENCE:?}"))?;
    let drained = draining.elapsed().as_secs_f64();
    let all = eventually_within(PATIENCE, "", || {
        let came = lock(&consumer.came).ids.len() as u64;
        if came >= count { Ok(()) } else { Err(came) }
    });
    all.map_err(|came| format!("{came} of {count} events came"))?;
    let most = memory(&daemon, "VmHWM:");
    let came = lock(&consumer.came);
    let missing = (0..count).filter(|number| !came.ids.contains_key(number)).count();
    if missing > 0 || came.ids.len() as u64 != count || !came.wrong.is_empty() {
        let some: Vec<_> = came.wrong.iter().take(5).collect();
        return Err(format!(
            "{missing} are missing of {count}, {} came, {} are wrong: {some:?}",
            came.ids.len(),
            came.wrong.len()
        ));
    }
    say(format!("drained in {drained:.0} s; {most} MiB at most"));
    let what = format!("{count} drained in {drained:.0} s, {before}/{with}/{most} MiB");
    let repeated = came.repeated;
    Ok(vec![Row { faults: 1, acknowledged: count, repeated, ..Row::new("backlog", what, form, began) }])
}
