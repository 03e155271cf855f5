//! What is there already, what is not, which URL, and where a new sink starts; `check --connect` tells what is wrong
//! before, `serve` tells it without ending.

use std::process::Output;

use crate::harness::{Config, Daemon, Folder, quittance};
use crate::node;
use crate::scene::{
    Relay, Scene, all_came, broker_script, connected, declare_by_hand, post, receives, until, until_settled, url,
};

#[test]
fn a_queue_and_an_exchange_with_other_arguments_are_used_as_they_are_with_a_warning() {
    let node = node::shared();
    let scene = Scene::on(&node);
    broker_script(
        &scene,
        "ch.exchange_declare('payments', 'topic', durable=True, auto_delete=True)\n\
         ch.queue_declare('payments', durable=True, arguments={'x-max-priority': 3})\n\
         ch.queue_bind('payments', 'payments', 'payment.#')",
    );
    let daemon = scene.serve();
    let consumer = scene.consumer();
    let acknowledged = post(&daemon, 0..20, 3);
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
    let log = daemon.log();
    for what in ["exchange", "queue"] {
        let warned = log.lines().any(|line| line.contains("WARN") && line.contains(what) && line.contains("payments"));
        assert!(warned, "no warning of the {what} in\n{log}");
    }
    let types = node.queues(&scene.vhost, &["name", "type"]);
    assert!(types.contains(&vec!["payments".to_owned(), "classic".to_owned()]), "{types:?}");
}

#[test]
fn an_exchange_of_another_type_is_told_and_nothing_is_lost_until_it_is_put_right() {
    let node = node::shared();
    let scene = Scene::on(&node);
    broker_script(&scene, "ch.exchange_declare('payments', 'direct', durable=True)");
    let daemon = scene.relay().serve();
    let acknowledged = post(&daemon, 0..20, 3);
    let relay = until(&daemon, "it says what is wrong", |relay| {
        relay["backlog"] == 20 && relay["last_error"].as_str().is_some_and(|said| said.contains("exchange"))
    });
    receives(&daemon);
    assert_eq!(daemon.metric("quittance_dead_letters"), 0.0, "{relay}");
    broker_script(&scene, "ch.exchange_delete('payments')");
    let consumer = scene.consumer();
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
}

#[test]
fn with_declare_false_nothing_is_declared_and_what_is_missing_is_waited_for() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let daemon = scene.relay().with("declare = false").serve();
    let acknowledged = post(&daemon, 0..20, 3);
    until(&daemon, "it says that something is missing", |relay| relay["last_error"].is_string());
    receives(&daemon);
    assert_eq!(scene.lengths(), []);
    assert_eq!(daemon.metric("quittance_dead_letters"), 0.0);
    declare_by_hand(&scene);
    let consumer = scene.consumer();
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
    assert_eq!(scene.lengths(), [("payments".to_owned(), 0)], "no dead letter queue of its own");
}

#[test]
fn of_several_urls_those_that_are_dead_are_passed_over() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let dead = crate::proxy::Proxy::before(node.address());
    dead.set(crate::proxy::Fault::Refuse);
    let urls =
        [dead.address(), scene.proxy.address()].map(|at| format!("\"{}\"", url("guest:guest", at, &scene.vhost)));
    let relay = Relay { url: format!("[{}]", urls.join(", ")), lines: String::new() };
    let daemon = relay.serve();
    connected(&daemon);
    let consumer = scene.consumer();
    let mut acknowledged = post(&daemon, 0..20, 3);
    all_came(&consumer, &acknowledged);
    assert!(dead.hits() > 0, "the first one was tried");
    // And the other way round: what it was connected to dies, the other lives.
    dead.heal();
    scene.proxy.set(crate::proxy::Fault::Refuse);
    scene.proxy.cut();
    acknowledged.extend(post(&daemon, 20..40, 3));
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
}

/// Another configuration in the daemon's folder, for its next start.
fn configure(daemon: &Daemon, relay: &Relay) {
    std::fs::write(daemon.folder().join("quittance.toml"), relay.config().render()).unwrap();
}

/// A daemon without a sink that has events, ended; the relay is added to its configuration.
#[track_caller]
fn sink_added_later(relay: &Relay) -> Daemon {
    let mut daemon = Daemon::with(Config { tables: String::new(), ..relay.config() });
    post(&daemon, 0..10, 3);
    assert!(daemon.stop().success());
    configure(&daemon, relay);
    daemon
}

#[test]
fn a_sink_that_is_added_to_a_store_with_events_asks_where_to_start() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let daemon = sink_added_later(&scene.relay());
    let output = quittance(daemon.folder(), &["--config", "quittance.toml", "serve"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    for word in ["relay.amqp", "start", "\"now\"", "\"beginning\""] {
        assert!(said.contains(word), "{word} in {said}");
    }
}

#[test]
fn a_sink_that_starts_at_the_beginning_gets_everything_and_one_that_starts_now_what_comes() {
    let node = node::shared();
    for (start, old) in [("beginning", 10), ("now", 0)] {
        let scene = Scene::on(&node);
        let consumer = scene.consumer();
        let mut daemon = sink_added_later(&scene.relay().with(&format!("start = \"{start}\"")));
        daemon.start_again();
        connected(&daemon);
        let new = post(&daemon, 100..110, 3);
        consumer.wait_for(old + new.len(), crate::scene::PATIENCE);
        consumer.wait_for_silence(std::time::Duration::from_secs(1));
        assert_eq!(consumer.distinct(), old + new.len(), "start = {start}");
        until_settled(&daemon);
        says_delivered(&daemon, old + new.len());
        // Where it started is kept: the word may go, or stay, without any effect.
        assert!(daemon.stop().success());
        configure(&daemon, &scene.relay());
        daemon.start_again();
        connected(&daemon);
        post(&daemon, 200..201, 1);
        consumer.wait_for(old + new.len() + 1, crate::scene::PATIENCE);
        assert_eq!(consumer.count(), old + new.len() + 1, "nothing came again");
    }
}

/// So many of the notifications are said to be delivered, by their own page and by their order's; never more.
#[track_caller]
fn says_delivered(daemon: &Daemon, expected: usize) {
    let listed = daemon.ask("/api/v1/notifications?limit=1000");
    let ids: Vec<String> =
        listed["notifications"].as_array().unwrap().iter().map(|n| crate::fixtures::text(&n["id"])).collect();
    crate::harness::eventually("deliveries are told", || {
        let page = |id: &String| daemon.ask(&format!("/api/v1/notifications/{id}"))["deliveries"].clone();
        let pages = ids.iter().filter(|id| page(id).as_array().is_some_and(|list| !list.is_empty())).count();
        let entries = |order: u32| daemon.ask(&format!("/api/v1/orders/paygol/order-{order}"))["entries"].clone();
        let of = |order| entries(order).as_array().into_iter().flatten().filter(|e| e["what"] == "delivery").count();
        let timelines = (0..3).map(of).sum::<usize>();
        if (pages, timelines) == (expected, expected) { Ok(()) } else { Err((pages, timelines)) }
    });
}

/// `check --connect` in a folder of its own.
fn check(relay: &Relay) -> (Output, String) {
    let folder = Folder::new();
    std::fs::write(folder.path().join("quittance.toml"), relay.config().render()).unwrap();
    let output = quittance(folder.path(), &["--config", "quittance.toml", "check", "--connect"]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

/// Fails with status 1, says one of each list of words, and no password.
#[track_caller]
fn check_fails(relay: &Relay, words: &[&[&str]]) {
    let (output, said) = check(relay);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for any in words {
        assert!(any.iter().any(|word| said.to_lowercase().contains(word)), "none of {any:?} in {said}");
    }
    for secret in ["wrong-password", "guest:guest"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}

#[test]
fn check_connect_says_what_is_wrong_and_what_helps() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let (output, said) = check(&scene.relay());
    assert_eq!(output.status.code(), Some(0), "{said}");

    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let port = nowhere.port().to_string();
    check_fails(&Relay::at(nowhere, &scene.vhost), &[&[&port], &["refused", "reach"], &["relay.amqp"]]);

    let wrong = url("guest:wrong-password", node.address(), &scene.vhost);
    let wrong = Relay { url: format!("\"{wrong}\""), lines: String::new() };
    check_fails(&wrong, &[&["refused", "credential"], &["password", "credential"], &["relay.amqp.url"]]);

    check_fails(&Relay::at(node.address(), "no-such-vhost"), &[&["vhost", "virtual host"], &["no-such-vhost"]]);

    broker_script(&scene, "ch.exchange_declare('payments', 'direct', durable=True)");
    check_fails(&scene.relay(), &[&["exchange"], &["payments"], &["direct", "type"], &["topic"]]);
}

#[test]
fn check_connect_with_declare_false_says_what_is_missing() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let relay = scene.relay().with("declare = false");
    check_fails(&relay, &[&["exchange", "queue"], &["payments"]]);
    assert_eq!(scene.lengths(), [], "a check declares nothing then");
    declare_by_hand(&scene);
    let (output, said) = check(&relay);
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn serve_with_wrong_credentials_says_so_and_goes_on_receiving() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let wrong = url("guest:wrong-password", scene.proxy.address(), &scene.vhost);
    let daemon = Relay { url: format!("\"{wrong}\""), lines: String::new() }.serve();
    post(&daemon, 0..10, 3);
    until(&daemon, "it says why", |relay| {
        relay["connected"] == false
            && relay["backlog"] == 10
            && relay["last_error"].as_str().is_some_and(|said| !said.contains("wrong-password"))
    });
    receives(&daemon);
    assert!(!daemon.log().contains("wrong-password"), "{}", daemon.log());
}
