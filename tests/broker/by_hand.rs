//! What an operator sends again, over a real RabbitMQ: what the broker once refused for good.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::consumer::{self, Consumer, Message};
use crate::fixtures::{self, text};
use crate::harness::{Daemon, eventually_within};
use crate::http;
use crate::node;
use crate::pages::page;
use crate::scene::{PATIENCE, Scene, broker_script, connected, post};

/// The id of the page's examples.
const SHOWN: &str = "019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10";

/// Asks for a replay in somebody's name; its id, once it has ended as it should.
#[track_caller]
fn replayed(daemon: &Daemon, target: &str, document: &serde_json::Value) -> String {
    let headers = [("Content-Type", "application/json"), ("Quittance-Operator", "night shift")];
    let begun = daemon.admin_send(&http::request("POST", target, &headers, document.to_string().as_bytes()));
    assert!(matches!(begun.status, 201 | 202), "{begun:?}");
    let id = text(&begun.json()["id"]);
    let ended = eventually_within(PATIENCE, "it has ended", || {
        let replay = daemon.ask(&format!("/api/v1/replays/{id}"));
        if replay["state"] == "running" { Err(replay) } else { Ok(replay) }
    });
    let ended = ended.unwrap_or_else(|last| panic!("it has not ended: {last}"));
    assert_eq!((&ended["state"], &ended["asked_by"]), (&json!("done"), &json!("night shift")), "{ended}");
    id
}

#[test]
fn a_dead_letter_that_is_tried_again_arrives_where_the_reason_was_mended() {
    let node = node::shared();
    let scene = Scene::on(&node);
    // Failed payments end in a queue that is full, the others in one that has room.
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
    for number in 0..2 {
        let (order, transaction) = (format!("order-f{number}"), format!("T-f{number}"));
        let failed = json!({ "transaction_id": transaction, "custom": order, "status": "failed" });
        assert_eq!(daemon.paygol(&fixtures::paygol(failed)).status, 200);
    }
    let mut posted = 0;
    let dead = eventually_within(PATIENCE, "", || {
        // What is refused costs an attempt only while something else is taken.
        post(&daemon, 1000 + posted..1001 + posted, 5);
        posted += 1;
        std::thread::sleep(Duration::from_millis(50));
        let letters = daemon.ask("/api/v1/dead-letters")["dead_letters"].as_array().cloned().unwrap_or_default();
        if letters.len() == 2 { Ok(letters) } else { Err(letters) }
    });
    let dead = dead.unwrap_or_else(|last| panic!("they are no dead letters: {last:?}\n{}", daemon.log()));
    let ids: Vec<String> = dead.iter().map(|letter| text(&letter["id"])).collect();
    consumer.wait_for(usize::try_from(posted).expect("few"), PATIENCE);
    let before = consumer.distinct();
    // The reason is mended: there is room now.
    broker_script(
        &scene,
        "ch.queue_unbind('full', 'payments', 'payment.failed.*')\n\
         ch.queue_bind('payments', 'payments', 'payment.failed.*')",
    );
    // As the page on operations says it, of a letter that is there.
    let (_, blocks) = page("docs/operations.md");
    let block = blocks.iter().find(|block| block.mark == "test=needs-one").expect("the commands for one letter");
    let executable = std::path::Path::new(env!("CARGO_BIN_EXE_quittance")).parent().expect("its folder");
    let script = format!("PATH={}:$PATH\n{}", executable.display(), block.text.replace(SHOWN, &ids[0]));
    assert_eq!(script.matches(&ids[0]).count(), 2, "{script}");
    let mut bash = Command::new("bash");
    bash.args(["-euc", &script]).env("QUITTANCE_CONFIG", daemon.folder().join("quittance.toml"));
    let output = bash.output().expect("bash runs");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("order-f"), "{output:?}");
    consumer.wait_for(before + 1, PATIENCE);
    let rest = daemon.ask("/api/v1/dead-letters")["dead_letters"].clone();
    assert_eq!(rest.as_array().map(Vec::len), Some(1), "the other one is as it was: {rest}");
    let all = replayed(&daemon, "/api/v1/replays", &json!({ "dead_letters": true, "rate": "max" }));
    consumer.wait_for(before + 2, PATIENCE);
    let came = |id: &str| {
        let messages = consumer.messages();
        messages.into_iter().find(|message| message.id() == id).expect("it came, with its own id").headers
    };
    assert!(came(&ids[0])["x-quittance-replay"].is_string());
    assert_eq!(came(&ids[1])["x-quittance-replay"], json!(all));
    assert_eq!(came(&ids[1])["x-quittance-replay-by"], "night shift");
    assert_eq!(daemon.ask("/api/v1/dead-letters"), json!({ "dead_letters": [], "next": null }));
    assert_eq!(daemon.metric("quittance_dead_letters"), 0.0);
}

#[test]
fn a_replay_to_another_exchange_brings_each_order_in_its_order_and_says_whose_it_is() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let acknowledged = post(&daemon, 0..400, 7);
    let relayed = scene.consumer();
    relayed.wait_for(acknowledged.len(), PATIENCE);
    broker_script(
        &scene,
        "ch.exchange_declare('books', 'fanout', durable=True)\n\
         ch.queue_declare('books', durable=True)\n\
         ch.queue_bind('books', 'books')",
    );
    let books = Consumer::of(scene.node, &scene.vhost, "books");
    books.wait_until_ready();
    let wanted = json!({ "rate": "max", "exchange": "books", "routing_key": "import" });
    let replay = replayed(&daemon, "/api/v1/replays", &wanted);
    books.wait_for(acknowledged.len(), PATIENCE);
    let messages = books.messages();
    // Its judge knows of each order what has to come next.
    assert_eq!(consumer::judge(&messages).map(|tally| tally.delivered), Ok(acknowledged.len()));
    let ids = |messages: &[Message]| messages.iter().map(|message| message.id().to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(ids(&messages), ids(&relayed.messages()), "events keep their ids");
    for message in &messages {
        let said = (&message.headers["x-quittance-replay"], &message.headers["x-quittance-replay-by"]);
        assert_eq!((said, message.routing_key.as_str()), ((&json!(replay), &json!("night shift")), "import"));
    }
    assert_eq!(relayed.count(), acknowledged.len(), "the relay's own consumers get nothing again");
}
