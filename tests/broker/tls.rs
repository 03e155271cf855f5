//! AMQP over TLS: a broker whose certificate can be believed gets everything; one whose certificate cannot is refused
//! with words and a remedy, before the password is sent, and tried again.

use std::path::Path;
use std::process::Output;

use crate::certificates::Server;
use crate::harness::{Config, Daemon, Folder, quittance};
use crate::node::{self, Node};
use crate::proxy::Proxy;
use crate::scene::{Relay, Scene, all_came, connected, post, receives, until, until_settled};

/// A URL of an amqps port.
fn url(host: &str, port: u16, vhost: &str) -> String {
    format!("amqps://guest:guest@{host}:{port}/{vhost}")
}

fn relay(host: &str, port: u16, vhost: &str) -> Relay {
    Relay { url: format!("\"{}\"", url(host, port, vhost)), lines: String::new() }
}

/// A configuration that trusts an authority of its own.
fn trusting(relay: &Relay, authority: &Path) -> Config {
    let trusted = authority.to_str().expect("UTF-8").to_owned();
    Config { environment: vec![("SSL_CERT_FILE".into(), trusted)], ..relay.config() }
}

/// `check --connect`.
fn check(relay: &Relay, authority: &Path) -> (Output, String) {
    let folder = Folder::new();
    std::fs::write(folder.path().join("quittance.toml"), relay.config().render()).unwrap();
    let mut command = quittance(folder.path(), &["--config", "quittance.toml", "check", "--connect"]);
    let output = command.env("SSL_CERT_FILE", authority).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

/// Connections of a virtual host that are encrypted, and all of them.
fn encrypted(node: &Node, vhost: &str) -> (usize, usize) {
    let listed = node.must(&["list_connections", "--no-table-headers", "vhost", "ssl", "client_properties"]);
    let ours = listed.lines().filter(|line| line.starts_with(&format!("{vhost}\t")) && line.contains("quittance"));
    let all: Vec<&str> = ours.collect();
    (all.iter().filter(|line| line.contains("\ttrue\t")).count(), all.len())
}

#[test]
fn a_broker_with_a_certificate_from_an_authority_of_ones_own_gets_everything_encrypted() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let relay = relay("localhost", node.tls_address().port(), &scene.vhost);
    let (output, said) = check(&relay, &node.certificates().authority());
    assert_eq!(output.status.code(), Some(0), "{said}");
    let mut daemon = Daemon::with(trusting(&relay, &node.certificates().authority()));
    connected(&daemon);
    let consumer = scene.consumer();
    let mut acknowledged = post(&daemon, 0..300, 7);
    all_came(&consumer, &acknowledged);
    assert_eq!(encrypted(&node, &scene.vhost), (1, 1), "the one connection is encrypted");
    // A lost connection and a restart are no other matter than without TLS.
    node.close_connections(&scene.vhost);
    acknowledged.extend(post(&daemon, 300..400, 7));
    all_came(&consumer, &acknowledged);
    assert!(daemon.stop().success(), "{}", daemon.log());
    daemon.start_again();
    acknowledged.extend(post(&daemon, 400..410, 7));
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
    assert_eq!(daemon.metric("quittance_dead_letters"), 0.0);
}

/// `check --connect` refuses what is shown there with these words; `serve` says them, receives, and comes through as
/// soon as there is a broker whose certificate is right.
#[track_caller]
fn is_refused(shown: &str, words: &[&str]) {
    let node = node::shared();
    let scene = Scene::on(&node);
    let server = Server::showing(&node.certificates().shown(shown));
    let proxy = Proxy::opaque(server.address());
    let relay = relay("localhost", proxy.address().port(), &scene.vhost);
    let (output, said) = check(&relay, &node.certificates().authority());
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words.iter().chain(&["TLS", "relay.amqp.url", "SSL_CERT_FILE"]) {
        assert!(said.contains(word), "{word} in {said}");
    }
    assert!(!said.contains("guest:guest"), "{said}");
    let daemon = Daemon::with(trusting(&relay, &node.certificates().authority()));
    let acknowledged = post(&daemon, 0..20, 3);
    until(&daemon, "it says what is wrong", |relay| {
        let said = relay["last_error"].as_str().unwrap_or_default();
        relay["connected"] == false && relay["backlog"] == 20 && words.iter().all(|word| said.contains(word))
    });
    receives(&daemon);
    let tried = proxy.connections();
    crate::harness::eventually("it is tried again and again", || {
        if proxy.connections() > tried + 1 { Ok(()) } else { Err(proxy.connections()) }
    });
    proxy.redirect(node.tls_address());
    let consumer = scene.consumer();
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_and_told() {
    is_refused("unknown", &["invalid peer certificate", "UnknownIssuer"]);
}

#[test]
fn a_certificate_for_another_host_is_refused_and_told() {
    is_refused("elsewhere", &["invalid peer certificate", "not valid for name", "broker.example.net"]);
}

#[test]
fn an_expired_certificate_is_refused_and_told() {
    is_refused("expired", &["invalid peer certificate", "expired"]);
}

#[test]
fn the_brokers_address_is_no_name_in_its_certificate() {
    let node = node::shared();
    let (output, said) = check(&relay("127.0.0.1", node.tls_address().port(), "/"), &node.certificates().authority());
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not valid for name"), "{said}");
}

#[test]
fn a_wrong_port_and_a_file_that_is_missing_are_told() {
    let node = node::shared();
    let authority = node.certificates().authority();
    let (output, said) = check(&relay("localhost", node.address().port(), "/"), &authority);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the TLS handshake failed") && said.contains("amqps port"), "{said}");

    let plain = url("localhost", node.tls_address().port(), "/").replace("amqps:", "amqp:");
    let (output, said) = check(&Relay { url: format!("\"{plain}\""), lines: String::new() }, &authority);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("does not finish the AMQP handshake") && said.contains("amqps"), "{said}");

    let (output, said) =
        check(&relay("localhost", node.tls_address().port(), "/"), Path::new("/nowhere/authority.pem"));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/nowhere/authority.pem") && said.contains("SSL_CERT_FILE"), "{said}");
}
