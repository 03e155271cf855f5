//! Credentials and rights that go away, while connected and at the next connection: told without the secret, waited
//! out, nothing lost and nothing called a dead letter.

use crate::harness::{Daemon, eventually};
use crate::node::{self, Node};
use crate::scene::{
    MORE_THAN_ALL_ATTEMPTS, Relay, Scene, all_came, connected, post, receives, tried, until, until_settled, url,
};

const PASSWORD: &str = "pw-of-the-shop-4f8a2c6e";

/// A user of the test's own, who may do everything in its virtual host.
#[track_caller]
fn with_user(node: &Node, scene: &Scene<'_>) -> (String, Relay) {
    let user = format!("shop-{}", scene.vhost);
    node.must(&["add_user", &user, PASSWORD]);
    node.must(&["set_permissions", "-p", &scene.vhost, &user, ".*", ".*", ".*"]);
    let address = url(&format!("{user}:{PASSWORD}"), scene.proxy.address(), &scene.vhost);
    (user, Relay { url: format!("\"{address}\""), lines: String::new() })
}

#[track_caller]
fn tells_no_secret(daemon: &Daemon) {
    assert!(!daemon.log().contains(PASSWORD), "in the log");
    for page in ["/api/v1/status", "/metrics", "/readyz"] {
        assert!(!daemon.admin_get(page).text().contains(PASSWORD), "in {page}");
    }
}

/// Takes something away, posts, sees the relay down with a word about it, gives it back: all arrives.
#[track_caller]
fn survives(take: impl Fn(&Node, &str, &str), words: &[&str], give: impl Fn(&Node, &str, &str)) {
    let node = node::shared();
    let scene = Scene::on(&node);
    let (user, relay) = with_user(&node, &scene);
    let daemon = relay.serve();
    connected(&daemon);
    let consumer = scene.consumer();
    let mut acknowledged = post(&daemon, 0..10, 3);
    all_came(&consumer, &acknowledged);
    take(&node, &scene.vhost, &user);
    node.close_connections(&scene.vhost);
    acknowledged.extend(post(&daemon, 10..40, 3));
    let relay = until(&daemon, "it says what is wrong", |relay| {
        let said = relay["last_error"].as_str().unwrap_or_default().to_lowercase();
        relay["backlog"] == 30 && words.iter().any(|word| said.contains(word))
    });
    receives(&daemon);
    tried(&scene, 5);
    assert_eq!(daemon.metric("quittance_dead_letters"), 0.0, "{relay}");
    tells_no_secret(&daemon);
    give(&node, &scene.vhost, &user);
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
}

#[test]
fn a_password_that_was_changed_is_told_and_waited_out() {
    survives(
        |node, _, user| drop(node.must(&["change_password", user, "another-password-0815"])),
        &["credential", "refused", "password"],
        |node, _, user| drop(node.must(&["change_password", user, PASSWORD])),
    );
}

#[test]
fn rights_that_were_cleared_are_told_and_waited_out() {
    survives(
        |node, vhost, user| drop(node.must(&["clear_permissions", "-p", vhost, user])),
        &["not_allowed", "not allowed", "refused", "permission", "access"],
        |node, vhost, user| drop(node.must(&["set_permissions", "-p", vhost, user, ".*", ".*", ".*"])),
    );
}

#[test]
fn the_right_to_write_that_was_taken_makes_no_dead_letters() {
    survives(
        |node, vhost, user| drop(node.must(&["set_permissions", "-p", vhost, user, ".*", "^$", ".*"])),
        &["refused", "permission", "access"],
        |node, vhost, user| drop(node.must(&["set_permissions", "-p", vhost, user, ".*", ".*", ".*"])),
    );
}

#[test]
fn rights_that_are_taken_while_connected_are_noticed_without_a_new_connection() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let (user, relay) = with_user(&node, &scene);
    let daemon = relay.serve();
    connected(&daemon);
    let consumer = scene.consumer();
    // No event was published on this channel yet, so the broker has cached no right.
    node.must(&["set_permissions", "-p", &scene.vhost, &user, ".*", "^$", ".*"]);
    let acknowledged = post(&daemon, 0..20, 3);
    eventually("it says what is wrong", || {
        let relay = daemon.ask("/api/v1/status")["relay"].clone();
        if relay["last_error"].is_string() && relay["backlog"] == 20 { Ok(()) } else { Err(relay) }
    });
    tried(&scene, MORE_THAN_ALL_ATTEMPTS);
    assert_eq!(daemon.metric("quittance_dead_letters"), 0.0);
    receives(&daemon);
    node.must(&["set_permissions", "-p", &scene.vhost, &user, ".*", ".*", ".*"]);
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
    tells_no_secret(&daemon);
}
