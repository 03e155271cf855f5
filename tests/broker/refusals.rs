//! The broker takes the message and does not take it: returned, nacked, above its limit. Nothing is lost, the relay
//! says so, and no message holds up those of other orders for good (D4, D7, D10).

use std::collections::BTreeSet;

use serde_json::json;

use crate::fixtures;
use crate::frames::{BASIC_NACK, BASIC_RETURN};
use crate::harness::{Daemon, eventually, eventually_within};
use crate::node::{self, MAX_MESSAGE_BYTES};
use crate::proxy::Fault;
use crate::scene::{
    MORE_THAN_ALL_ATTEMPTS, PATIENCE, Scene, all_came, broker_script, connected, declare_by_hand, post, post_one,
    receives, tried, until, until_settled,
};

fn published(daemon: &Daemon, outcome: &str) -> f64 {
    daemon.metric(&format!("quittance_relay_published_total{{outcome=\"{outcome}\"}}"))
}

#[track_caller]
fn eventually_published(daemon: &Daemon, outcome: &str) {
    eventually(outcome, || if published(daemon, outcome) >= 1.0 { Ok(()) } else { Err(daemon.log()) });
}

#[track_caller]
fn no_dead_letters(daemon: &Daemon) {
    assert_eq!(daemon.metric("quittance_dead_letters"), 0.0, "nothing is given up while nothing is confirmed");
}

/// Posts others until an event is given up.
#[track_caller]
fn uses_up_its_attempts(daemon: &Daemon, acknowledged: &mut BTreeSet<String>) {
    let mut number = 10_000;
    let dead = eventually_within(PATIENCE, "", || {
        acknowledged.insert(post_one(daemon, number, &format!("order-{}", number % 5)));
        number += 1;
        std::thread::sleep(std::time::Duration::from_millis(50));
        if daemon.metric("quittance_dead_letters") == 1.0 { Ok(()) } else { Err(()) }
    });
    dead.unwrap_or_else(|()| panic!("it is no dead letter; the daemon said:\n{}", daemon.log()));
}

#[test]
fn a_deleted_queue_loses_nothing_and_the_relay_says_that_it_is_down_until_the_queue_is_back() {
    let node = node::shared();
    let scene = Scene::on(&node);
    // A queue of someone else's: the relay does not bring it back by itself.
    declare_by_hand(&scene);
    let daemon = scene.relay().with("declare = false").serve();
    connected(&daemon);
    let first = post(&daemon, 0..5, 3);
    until_settled(&daemon);
    let consumer = scene.consumer();
    all_came(&consumer, &first);
    drop(consumer);
    node.must(&["delete_queue", "-p", &scene.vhost, "payments"]);
    let second = post(&daemon, 100..130, 3);
    eventually_published(&daemon, "returned");
    let relay = until(&daemon, "it says that it is down", |relay| relay["last_error"].is_string());
    assert_eq!(relay["backlog"], 30, "{relay}");
    receives(&daemon);
    tried(&scene, MORE_THAN_ALL_ATTEMPTS);
    no_dead_letters(&daemon);
    assert_eq!(until(&daemon, "", |_| true)["backlog"], 30);
    declare_by_hand(&scene);
    let consumer = scene.consumer();
    // The consumer is new: of what came before the queue was deleted it sees nothing.
    consumer.wait_for(second.len(), PATIENCE);
    until_settled(&daemon);
    let came: BTreeSet<String> = consumer.messages().iter().map(|m| m.transaction().to_owned()).collect();
    assert_eq!(came, second);
    let mut last = std::collections::HashMap::new();
    for message in consumer.messages() {
        let before = last.insert(message.order().to_owned(), message.sequence());
        assert!(before.is_none_or(|before| before <= message.sequence()), "{message:?} after {before:?}");
    }
    no_dead_letters(&daemon);
}

#[test]
fn a_deleted_queue_that_is_its_own_is_declared_again() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let first = post(&daemon, 0..5, 3);
    until_settled(&daemon);
    node.must(&["delete_queue", "-p", &scene.vhost, "payments"]);
    let second = post(&daemon, 100..130, 3);
    let consumer = scene.consumer();
    consumer.wait_for(second.len(), PATIENCE);
    until_settled(&daemon);
    let came: BTreeSet<String> = consumer.messages().iter().map(|m| m.transaction().to_owned()).collect();
    assert_eq!(came, second, "the first {} went with the queue", first.len());
    no_dead_letters(&daemon);
}

#[test]
fn a_missing_binding_loses_nothing_and_is_told() {
    let node = node::shared();
    let scene = Scene::on(&node);
    declare_by_hand(&scene);
    let daemon = scene.relay().with("declare = false").serve();
    connected(&daemon);
    broker_script(&scene, "ch.queue_unbind('payments', 'payments', '#')");
    let acknowledged = post(&daemon, 0..30, 3);
    eventually_published(&daemon, "returned");
    until(&daemon, "it says why", |relay| relay["last_error"].is_string() && relay["backlog"] == 30);
    receives(&daemon);
    declare_by_hand(&scene);
    let consumer = scene.consumer();
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
    no_dead_letters(&daemon);
}

/// One confirm settles many messages of a channel here, and each of them was returned: whose return is whose must not
/// matter.
#[test]
fn a_whole_window_that_is_returned_loses_nothing() {
    let node = node::shared();
    let scene = Scene::on(&node);
    broker_script(&scene, "ch.exchange_declare('payments', 'topic', durable=True)");
    scene.proxy.set(Fault::Refuse);
    let daemon = scene.relay().with("declare = false").serve();
    let acknowledged = post(&daemon, 0..400, 400);
    scene.proxy.set(Fault::OneConfirmForAll);
    until(&daemon, "it says why", |relay| relay["blocked"] == true);
    tried(&scene, 1500);
    assert!(scene.proxy.hits() > 100, "{} confirms were one with others", scene.proxy.hits());
    assert_eq!(until(&daemon, "", |_| true)["backlog"], 400);
    assert_eq!(published(&daemon, "confirmed"), 0.0, "nothing was taken");
    scene.proxy.heal();
    declare_by_hand(&scene);
    let consumer = scene.consumer();
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
    no_dead_letters(&daemon);
}

#[test]
fn a_full_queue_that_rejects_loses_nothing_and_goes_on_when_there_is_room() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let policy = r#"{"max-length":3,"overflow":"reject-publish"}"#;
    node.must(&["set_policy", "-p", &scene.vhost, "--apply-to", "queues", "full", "^payments$", policy]);
    let acknowledged = post(&daemon, 0..60, 60);
    eventually_published(&daemon, "nacked");
    until(&daemon, "it says why", |relay| relay["last_error"].is_string());
    receives(&daemon);
    tried(&scene, MORE_THAN_ALL_ATTEMPTS);
    no_dead_letters(&daemon);
    let consumer = scene.consumer();
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
    no_dead_letters(&daemon);
}

#[test]
fn a_message_above_the_brokers_limit_becomes_a_dead_letter_and_all_others_pass() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let consumer = scene.consumer();
    let mut acknowledged = post(&daemon, 0..40, 7);
    let poison = fixtures::paygol(json!({
        "transaction_id": "poison", "custom": "order-poisoned", "note": "x".repeat(MAX_MESSAGE_BYTES),
    }));
    assert_eq!(daemon.paygol(&poison).status, 200);
    acknowledged.extend(post(&daemon, 40..80, 7));
    // The next of the poisoned order waits for it, and then goes. What is refused while nothing else is taken costs no
    // attempt, so others go on coming.
    acknowledged.insert(post_one(&daemon, 1000, "order-poisoned"));
    uses_up_its_attempts(&daemon, &mut acknowledged);
    consumer.wait_for(acknowledged.len(), PATIENCE);
    until_settled(&daemon);
    consumer.wait_for_silence(std::time::Duration::from_millis(500));
    let came: BTreeSet<String> = consumer.messages().iter().map(|m| m.transaction().to_owned()).collect();
    assert_eq!(came, acknowledged, "all but the poison");
    assert_eq!(daemon.metric("quittance_dead_letters"), 1.0);
    // Why is told where an operator looks.
    let listed = daemon.ask("/api/v1/notifications?order_id=order-poisoned&source=paygol");
    let poisoned = listed["notifications"].as_array().unwrap().iter().find(|n| n["transaction_id"] == "poison");
    let id = fixtures::text(&poisoned.expect("it is kept")["id"]);
    let deliveries = daemon.ask(&format!("/api/v1/notifications/{id}"))["deliveries"].clone();
    let last = deliveries.as_array().and_then(|list| list.last()).cloned().unwrap_or_default();
    assert_eq!((last["sink"].as_str(), last["attempt"].as_u64()), (Some("amqp"), Some(5)), "{deliveries}");
    // And it stays dead after a restart.
    let mut daemon = daemon;
    assert!(daemon.stop().success());
    daemon.start_again();
    connected(&daemon);
    acknowledged.extend(post(&daemon, 2000..2010, 7));
    consumer.wait_for(acknowledged.len(), PATIENCE);
    assert_eq!(daemon.metric("quittance_dead_letters"), 1.0);
}

#[test]
fn a_message_that_one_queue_rejects_is_tried_again_as_the_next_attempt() {
    // The route of failed payments ends in a queue that is full, the others' in one that has room.
    let node = node::shared();
    let scene = Scene::on(&node);
    broker_script(
        &scene,
        "ch.exchange_declare('payments', 'topic', durable=True)\n\
         ch.queue_declare('payments', durable=True)\n\
         ch.queue_bind('payments', 'payments', 'payment.paid.*')\n\
         ch.queue_declare('full', durable=True, arguments={'x-max-length': 0, 'x-overflow': 'reject-publish'})\n\
         ch.queue_bind('full', 'payments', 'payment.failed.*')",
    );
    let daemon = scene.relay().with("declare = false").serve();
    connected(&daemon);
    let consumer = scene.consumer();
    let failed = fixtures::paygol(json!({ "transaction_id": "T-f", "custom": "order-f", "status": "failed" }));
    assert_eq!(daemon.paygol(&failed).status, 200);
    let mut acknowledged = BTreeSet::new();
    uses_up_its_attempts(&daemon, &mut acknowledged);
    all_came(&consumer, &acknowledged);
    assert!(published(&daemon, "nacked") >= 5.0, "{}", published(&daemon, "nacked"));
}

#[test]
fn a_connection_that_dies_between_return_and_confirm_or_before_a_nack_loses_nothing() {
    let node = node::shared();
    for refusal in [BASIC_RETURN, BASIC_NACK] {
        let scene = Scene::on(&node);
        declare_by_hand(&scene);
        match refusal {
            BASIC_RETURN => broker_script(&scene, "ch.queue_unbind('payments', 'payments', '#')"),
            _ => {
                let policy = r#"{"max-length":0,"overflow":"reject-publish"}"#;
                drop(node.must(&["set_policy", "-p", &scene.vhost, "full", "^payments$", policy]));
            }
        }
        let daemon = scene.relay().with("declare = false").serve();
        connected(&daemon);
        scene.proxy.set_times(Fault::CutAt(refusal), 2);
        let acknowledged = post(&daemon, 0..20, 3);
        eventually("it struck", || if scene.proxy.hits() == 2 { Ok(()) } else { Err(scene.proxy.hits()) });
        receives(&daemon);
        match refusal {
            BASIC_RETURN => declare_by_hand(&scene),
            _ => drop(node.must(&["clear_policy", "-p", &scene.vhost, "full"])),
        }
        let consumer = scene.consumer();
        all_came(&consumer, &acknowledged);
        until_settled(&daemon);
        no_dead_letters(&daemon);
    }
}

/// One event that has no place to go and nothing else to compare it with: nobody can say whose fault it is.
#[test]
fn a_lone_message_that_nobody_takes_waits_and_says_so_without_end_and_without_blame() {
    let node = node::shared();
    let scene = Scene::on(&node);
    broker_script(
        &scene,
        "ch.exchange_declare('payments', 'topic', durable=True)\n\
         ch.queue_declare('payments', durable=True)\n\
         ch.queue_bind('payments', 'payments', 'payment.paid.*')",
    );
    let daemon = scene.relay().with("declare = false").serve();
    connected(&daemon);
    let failed = fixtures::paygol(json!({ "transaction_id": "T-f", "custom": "order-f", "status": "failed" }));
    assert_eq!(daemon.paygol(&failed).status, 200);
    let relay = until(&daemon, "it says that it waits", |relay| relay["blocked"] == true);
    let why = relay["last_error"].as_str().unwrap_or_default();
    assert!(why.contains("no queue takes the events") && why.contains("NO_ROUTE"), "{relay}");
    assert_eq!((&relay["connected"], &relay["backlog"]), (&json!(true), &json!(1)), "{relay}");
    tried(&scene, 8);
    let relay = until(&daemon, "it goes on saying so", |relay| relay["blocked"] == true);
    assert!(relay["oldest_seconds"].as_f64().is_some_and(|age| age > 0.0), "{relay}");
    eventually("the metrics say so", || {
        let series = ["quittance_relay_blocked", "quittance_relay_backlog_events", "quittance_relay_connected"];
        let now = series.map(|name| daemon.metric(name));
        if now == [1.0; 3] && daemon.metric("quittance_relay_oldest_seconds") > 0.0 { Ok(()) } else { Err(now) }
    });
    let log = daemon.log();
    let told = log.lines().filter(|line| line.contains("WARN") && line.contains("the sink takes nothing")).count();
    assert_eq!(told, 1, "once, however often it is tried: {log}");
    receives(&daemon);
    no_dead_letters(&daemon);
    // Each try begins with new channels; the old ones must not stay behind.
    let channels = || node.must(&["list_channels", "-p", &scene.vhost, "--no-table-headers", "number"]);
    eventually("its channels are few", || {
        let list = channels();
        if list.lines().count() <= 4 { Ok(()) } else { Err(list) }
    });
    broker_script(&scene, "ch.queue_bind('payments', 'payments', '#')");
    let consumer = scene.consumer();
    let messages = all_came(&consumer, &BTreeSet::from(["T-f".to_owned()]));
    assert_eq!(messages[0].headers["x-quittance-attempt"], 1, "no attempt was used up");
    until(&daemon, "it is well again", |relay| relay["blocked"] == false && relay["last_error"].is_null());
}
