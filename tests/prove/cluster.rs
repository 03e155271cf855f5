//! Section `cluster`: three brokers, a queue that each of them keeps, and its leader killed again and again while senders
//! post.

use std::time::{Duration, Instant};

use crate::consumer::Consumer;
use crate::harness::{Daemon, eventually_within};
use crate::node::{Node, SETTLED_QUEUE};
use crate::proxy::Proxy;
use crate::report::{Form, Row, say};
use crate::rng::Rng;
use crate::scene::{Scene, connected, url};
use crate::senders::{Senders, To};
use crate::world::{Plan, World};

/// What an election, or the return of a broker, may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Posts while a leader is gone.
const SOME: u64 = 60;

/// The section.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    let began = Instant::now();
    let nodes = Node::cluster();
    let first = &nodes[0];
    let vhost = first.new_vhost();
    // The world's proxy is not used: the daemon knows all three, as it would.
    let scene = Scene { node: first, vhost: vhost.clone(), proxy: Proxy::before(first.address()) };
    let mut plan = Plan::new(&scene, 5, form.seed);
    let urls: Vec<String> =
        nodes.iter().map(|node| format!("\"{}?heartbeat=5\"", url("guest:guest", node.address(), &vhost))).collect();
    plan.config.tables = format!("[relay.amqp]\nurl = [{}]\n", urls.join(", "));
    let mut rng = Rng::new(form.seed);
    let daemon = Daemon::with(plan.config);
    connected(&daemon);
    let consumer = Consumer::of_any(&nodes.iter().collect::<Vec<_>>(), &vhost, "payments");
    consumer.wait_until_ready();
    let to = To { public: daemon.public, admin: daemon.admin };
    let senders = Senders::begin(plan.senders, to, Duration::from_millis(8), &mut rng);
    let mut world = World { scene, daemon, consumer, senders, rng, faults: 0 };
    let kills = form.pick(2, 18);
    for kill in 1..=kills {
        let leader = leader(&nodes, &vhost)?;
        std::thread::sleep(SETTLED_QUEUE + Duration::from_millis(world.rng.below(500)));
        let at = Instant::now();
        leader.kill();
        world.posted(SOME, PATIENCE)?;
        let before = world.consumer.distinct();
        let came = eventually_within(PATIENCE, "", || {
            let now = world.consumer.distinct() - before;
            if now as u64 >= SOME { Ok(()) } else { Err(now) }
        });
        came.map_err(|now| format!("kill {kill}: {now} events came after the leader was gone"))?;
        say(format!("{:>5.1} s  kill {kill}: delivered again by the other two", at.elapsed().as_secs_f64()));
        leader.start();
        world.faults += 1;
    }
    let history = world.end(kills)?;
    let what = format!("three brokers, the leader killed {kills} times");
    Ok(vec![Row::judged("cluster", what, form, began, &history)?])
}

/// The broker that leads the queue, once all three keep it.
fn leader<'n>(nodes: &'n [Node], vhost: &str) -> Result<&'n Node, String> {
    let found = eventually_within(PATIENCE, "", || {
        let rows = nodes[0].queues(vhost, &["name", "leader", "online"]);
        let row = rows.iter().find(|row| row[0] == "payments");
        let whole = row.filter(|row| nodes.iter().all(|node| row[2].contains(node.name())));
        let leader = whole.and_then(|row| nodes.iter().find(|node| row[1] == node.name()));
        leader.ok_or(rows)
    });
    found.map_err(|rows| format!("the queue has no leader and two followers: {rows:?}"))
}
