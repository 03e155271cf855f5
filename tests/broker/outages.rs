//! A broker that is absent, dies, or hangs: receiving goes on and every event arrives once it is back (D4, D5, D6, D8).

use std::time::Duration;

use crate::bulk::{Notification, Poster, signed};
use crate::harness::{Config, Daemon, eventually};
use crate::node::{self, SETTLED_QUEUE};
use crate::proxy::{Fault, Towards};
use crate::scene::{PATIENCE, Scene, all_came, connected, post, receives, until, until_settled};

#[test]
fn a_broker_that_is_absent_at_the_start_gets_everything_once_it_is_there() {
    let node = node::shared();
    let scene = Scene::on(&node);
    scene.proxy.set(Fault::Refuse);
    let mut daemon = scene.relay().serve();
    let mut acknowledged = post(&daemon, 0..50, 5);
    receives(&daemon);
    let relay = until(&daemon, "it says why it is down", |relay| relay["last_error"].is_string());
    assert_eq!((relay["sink"].as_str(), &relay["connected"]), (Some("amqp"), &serde_json::json!(false)), "{relay}");
    assert_eq!(relay["backlog"], 50, "{relay}");
    eventually("the metrics say so", || {
        let (backlog, connected) =
            (daemon.metric("quittance_relay_backlog_events"), daemon.metric("quittance_relay_connected"));
        if backlog == 50.0 && connected == 0.0 { Ok(()) } else { Err((backlog, connected)) }
    });
    // A restart in between changes nothing.
    assert!(daemon.stop().success(), "{}", daemon.log());
    daemon.start_again();
    acknowledged.extend(post(&daemon, 50..60, 5));
    assert_eq!(until(&daemon, "it counts again", |relay| relay["backlog"] == 60)["connected"], false);
    scene.proxy.heal();
    let consumer = scene.consumer();
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
}

#[test]
fn sigkill_of_the_broker_and_a_restart_lose_nothing_and_the_relay_comes_back_by_itself() {
    let node = node::alone();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let consumer = scene.consumer();
    consumer.wait_until_ready();
    std::thread::sleep(SETTLED_QUEUE);
    let mut acknowledged = post(&daemon, 0..40, 5);
    node.kill();
    acknowledged.extend(post(&daemon, 40..80, 5));
    receives(&daemon);
    until(&daemon, "it sees that the broker is gone", |relay| relay["connected"] == false);
    node.start();
    acknowledged.extend(post(&daemon, 80..120, 5));
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
    connected(&daemon);
}

#[test]
fn a_clean_stop_of_the_broker_and_a_start_lose_nothing() {
    let node = node::alone();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let consumer = scene.consumer();
    consumer.wait_until_ready();
    std::thread::sleep(SETTLED_QUEUE);
    let mut acknowledged = post(&daemon, 0..40, 5);
    node.stop();
    acknowledged.extend(post(&daemon, 40..80, 5));
    receives(&daemon);
    node.start();
    acknowledged.extend(post(&daemon, 80..120, 5));
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
}

#[test]
fn a_connection_that_dies_in_silence_is_noticed_and_replaced() {
    let node = node::shared();
    for fault in [Fault::HalfOpen(Towards::Daemon), Fault::HalfOpen(Towards::Broker), Fault::BlackHole] {
        let scene = Scene::on(&node);
        // Silence is noticed by heartbeats; the URL may ask for faster ones than the relay's own.
        let mut relay = scene.relay();
        relay.url = relay.url.trim_end_matches('"').to_owned() + "?heartbeat=2\"";
        let daemon = relay.serve();
        connected(&daemon);
        let consumer = scene.consumer();
        let mut acknowledged = post(&daemon, 0..10, 3);
        until_settled(&daemon);
        scene.proxy.set(fault);
        acknowledged.extend(post(&daemon, 10..20, 3));
        until(&daemon, "it does not take silence for life", |relay| relay["connected"] == false);
        receives(&daemon);
        scene.proxy.heal();
        all_came(&consumer, &acknowledged);
        until_settled(&daemon);
        assert!(scene.proxy.hits() > 0 && scene.proxy.connections() > 1, "{fault:?} happened");
    }
}

#[test]
fn a_slow_broker_is_slow_and_not_dead() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let consumer = scene.consumer();
    let delay = if crate::rng::long_form() { Duration::from_secs(5) } else { Duration::from_secs(1) };
    scene.proxy.set(Fault::Slow(delay));
    let acknowledged = post(&daemon, 0..30, 30);
    consumer.wait_for(30, PATIENCE);
    until_settled(&daemon);
    let messages = all_came(&consumer, &acknowledged);
    assert_eq!((messages.len(), scene.proxy.connections()), (30, 1), "nobody was given up for being slow");
}

#[test]
fn a_memory_alarm_of_the_broker_is_told_and_waited_out() {
    let node = node::alone();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let consumer = scene.consumer();
    let mut acknowledged = post(&daemon, 0..5, 5);
    until_settled(&daemon);
    node.raise_memory_alarm();
    acknowledged.extend(post(&daemon, 5..25, 5));
    let relay = until(&daemon, "it says that it is blocked", |relay| relay["blocked"] == true);
    assert_eq!(relay["backlog"], 20, "{relay}");
    eventually("the metric says so", || {
        let blocked = daemon.metric("quittance_relay_blocked");
        if blocked == 1.0 { Ok(()) } else { Err(blocked) }
    });
    receives(&daemon);
    node.free_memory_alarm();
    all_came(&consumer, &acknowledged);
    until(&daemon, "it is not blocked any more", |relay| relay["blocked"] == false && relay["backlog"] == 0);
}

/// Waits until the journal says of every notification that it was delivered.
#[track_caller]
fn progress_is_kept(daemon: &Daemon) {
    let listed = daemon.ask("/api/v1/notifications?limit=1000");
    for notification in listed["notifications"].as_array().unwrap() {
        let path = format!("/api/v1/notifications/{}", notification["id"].as_str().unwrap());
        eventually("the journal knows", || {
            let deliveries = daemon.ask(&path)["deliveries"].clone();
            if deliveries.as_array().is_some_and(|list| !list.is_empty()) { Ok(()) } else { Err(deliveries) }
        });
    }
}

/// Bytes that a process holds: `VmRSS` now, `VmHWM` at most so far.
fn memory(daemon: &Daemon, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn hours_of_outage_cost_disk_and_no_memory() {
    let node = node::shared();
    let scene = Scene::on(&node);
    scene.proxy.set(Fault::Refuse);
    let (warm, count) = if crate::rng::long_form() { (10_000_u64, 110_000_u64) } else { (5_000, 25_000) };
    let notifications = signed(count, 500);
    let bytes: usize = notifications.iter().map(|n| n.request.len()).sum();
    // What keys and index cost is there without any relay too: two daemons, one with a broker that is away.
    let grown = |config: Config| {
        let daemon = Daemon::with(config);
        let mut poster = Poster::to(daemon.public);
        let mut post = |slice: &[Notification]| slice.iter().for_each(|n| assert_eq!(poster.post(n).unwrap(), 200));
        post(&notifications[..warm as usize]);
        let before = memory(&daemon, "VmRSS");
        post(&notifications[warm as usize..]);
        let grown = memory(&daemon, "VmRSS").saturating_sub(before);
        (daemon, grown)
    };
    let (_, without) = grown(Config { tables: String::new(), ..scene.relay().config() });
    let (daemon, with) = grown(scene.relay().config());
    assert_eq!(until(&daemon, "it counts", |_| true)["backlog"], count);
    let allowed = 12 << 20;
    eprintln!(
        "outage: {count} events waiting, {bytes} bytes of notifications; {without} bytes more without a relay, {with} with"
    );
    assert!(
        with < without + allowed,
        "{bytes} bytes of notifications: {without} bytes more without a relay, {with} with"
    );
    let before = memory(&daemon, "VmRSS");
    scene.proxy.heal();
    let consumer = scene.consumer();
    consumer.wait_for(count as usize, PATIENCE * 3);
    until_settled(&daemon);
    crate::consumer::judge(&consumer.messages()).unwrap();
    let most = memory(&daemon, "VmHWM");
    eprintln!("outage: {before} bytes before it sent what waited, {most} at most");
    assert!(most < before + (32 << 20), "{before} bytes before it sent what waited, {most} at most");
}

#[test]
fn a_memory_alarm_that_is_older_than_the_connection_is_told_and_waited_out() {
    let node = node::alone();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let consumer = scene.consumer();
    node.raise_memory_alarm();
    scene.proxy.cut();
    let acknowledged = post(&daemon, 0..20, 5);
    let relay = until(&daemon, "it says that it is blocked", |relay| relay["blocked"] == true);
    assert_eq!(relay["backlog"], 20, "{relay}");
    receives(&daemon);
    node.free_memory_alarm();
    all_came(&consumer, &acknowledged);
    until(&daemon, "it is not blocked any more", |relay| relay["blocked"] == false && relay["backlog"] == 0);
}

#[test]
fn a_daemon_that_is_killed_sends_what_was_not_settled_and_repeats_only_with_the_same_id() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let mut daemon = scene.serve();
    let consumer = scene.consumer();
    let mut acknowledged = std::collections::BTreeSet::new();
    for round in 0..4 {
        acknowledged.extend(post(&daemon, round * 30..round * 30 + 30, 4));
        daemon.crash_and_restart();
    }
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
    // Settled is settled: another start sends nothing again.
    let before = consumer.count();
    progress_is_kept(&daemon);
    daemon.crash_and_restart();
    connected(&daemon);
    acknowledged.extend(post(&daemon, 1000..1001, 1));
    all_came(&consumer, &acknowledged);
    assert_eq!(consumer.count(), before + 1, "nothing that was settled came again");
}

#[test]
fn a_clean_stop_in_mid_stream_loses_nothing_and_repeats_nothing() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let mut daemon = scene.serve();
    let consumer = scene.consumer();
    let mut acknowledged = post(&daemon, 0..300, 11);
    assert!(daemon.stop().success(), "{}", daemon.log());
    daemon.start_again();
    acknowledged.extend(post(&daemon, 300..310, 11));
    let messages = all_came(&consumer, &acknowledged);
    assert_eq!(messages.len(), acknowledged.len(), "a clean stop waits for its confirms and keeps its progress");
}

#[test]
fn a_stop_while_the_broker_hangs_ends_in_time_and_loses_nothing() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let consumer = scene.consumer();
    let mut daemon = scene.serve();
    scene.proxy.set(Fault::BlackHole);
    let acknowledged = post(&daemon, 0..60, 7);
    let began = std::time::Instant::now();
    assert!(daemon.stop().success(), "{}", daemon.log());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}: {}", began.elapsed(), daemon.log());
    assert!(!daemon.log().contains("left behind"), "{}", daemon.log());
    scene.proxy.heal();
    daemon.start_again();
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
}
