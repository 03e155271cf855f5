//! What is on the wire: properties, routing keys, headers, and what the relay declares (interface, section 2).

use std::collections::BTreeSet;

use serde_json::json;

use crate::collector::Collector;
use crate::fixtures;
use crate::harness::{Config, Daemon, eventually};
use crate::node;
use crate::scene::{Scene, all_came, broker_script, connected, post, post_one, until_settled};

#[test]
fn a_message_has_the_properties_of_the_interface() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let consumer = scene.consumer();
    let fields = fixtures::paygol(json!({ "transaction_id": "T-1", "custom": "order-1" }));
    assert_eq!(daemon.paygol(&fields).status, 200);
    let failed = fixtures::with(fields, json!({ "transaction_id": "T-2", "status": "failed" }));
    assert_eq!(daemon.paygol(&failed).status, 200);
    let messages = all_came(&consumer, &BTreeSet::from(["T-1".to_owned(), "T-2".to_owned()]));

    let feed = daemon.feed();
    for (at, (routing_key, word)) in
        [("payment.paid.paygol", "payment.paid"), ("payment.failed.paygol", "payment.failed")].into_iter().enumerate()
    {
        let message = &messages[at];
        assert_eq!(message.event, feed[at], "the body is the event of the journal");
        assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("payments", routing_key));
        let received_at: jiff::Timestamp = fixtures::text(&message.event["data"]["received_at"]).parse().unwrap();
        let expected = json!({
            "content_type": "application/cloudevents+json",
            "delivery_mode": 2,
            "message_id": message.event["id"],
            "type": word,
            "timestamp": received_at.as_second(),
            "app_id": "quittance",
        });
        assert_eq!(message.properties, expected, "these properties and no other");
        let mut found = message.headers.clone();
        // The head that was noted last goes along, once there is one.
        found.as_object_mut().unwrap().remove("x-quittance-head");
        let headers = json!({ "x-quittance-source": "paygol", "x-quittance-attempt": 1 });
        assert_eq!(found, headers, "these headers and no other");
        assert!(!message.redelivered);
    }
}

#[test]
fn the_head_that_was_noted_in_the_log_goes_along_with_every_message() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let consumer = scene.consumer();
    let pay = |transaction: &str| {
        let fields = fixtures::paygol(json!({ "transaction_id": transaction }));
        assert_eq!(daemon.paygol(&fields).status, 200);
    };
    pay("T-1");
    let noted = eventually("a head is noted", || {
        let log = daemon.log();
        let noted = log.lines().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line["head"].as_str().filter(|head| head.contains(':')).map(str::to_owned)
        });
        noted.ok_or(log)
    });
    pay("T-2");
    let messages = all_came(&consumer, &BTreeSet::from(["T-1".to_owned(), "T-2".to_owned()]));
    assert_eq!(messages[1].headers["x-quittance-head"], noted.as_str());
}

#[test]
fn with_a_collector_every_message_names_its_own_span_in_the_trace_of_its_event() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let collector = Collector::new();
    let relay = scene.relay().config();
    let daemon = Daemon::with(Config { tables: collector.table() + &relay.tables, ..relay });
    connected(&daemon);
    let consumer = scene.consumer();
    post_one(&daemon, 1, "order-1");
    until_settled(&daemon);
    let again = daemon.admin_post("/api/v1/replays", &json!({ "rate": "max" }));
    assert_eq!(again.status, 201, "{again:?}");
    let messages = eventually("it came twice", || {
        let messages = consumer.messages();
        if messages.len() == 2 { Ok(messages) } else { Err(messages.len()) }
    });
    let published = eventually("both are told", || {
        let spans = collector.spans();
        let published: Vec<_> = spans.iter().filter(|span| span.name == "publish").cloned().collect();
        let received = spans.iter().find(|span| span.name == "receive").map(|span| span.id.clone());
        received.filter(|_| published.len() == 2).map(|received| (received, published)).ok_or(spans)
    });
    let (received, published) = published;
    let trace = fixtures::text(&messages[0].event["id"]).replace('-', "");
    let mut named: Vec<String> =
        messages.iter().map(|message| fixtures::text(&message.headers["traceparent"])).collect();
    let mut told: Vec<String> = published.iter().map(|span| format!("00-{}-{}-01", span.trace, span.id)).collect();
    named.sort();
    told.sort();
    assert_eq!(named, told);
    assert_ne!(named[0], named[1], "a replay is another message");
    for span in published {
        assert_eq!((span.trace.as_str(), span.parent.as_str(), span.kind), (trace.as_str(), received.as_str(), 4));
        assert_eq!((span.attributes["quittance.outcome"].as_str(), span.failed), ("confirmed", false));
    }
}

#[test]
fn it_declares_a_durable_topic_exchange_and_a_quorum_queue_with_a_dead_letter_queue_behind_it() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let _daemon = scene.serve();
    let exchanges = node.must(&["list_exchanges", "-p", &scene.vhost, "--no-table-headers", "name", "type", "durable"]);
    assert!(exchanges.lines().any(|line| line == "payments\ttopic\ttrue"), "{exchanges}");
    let mut queues = node.queues(&scene.vhost, &["name", "type", "durable", "arguments"]);
    queues.sort();
    let names: Vec<&str> = queues.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, ["payments", "payments.dead"]);
    for row in &queues {
        assert_eq!(row[2], "true", "{row:?}");
    }
    assert_eq!(queues[0][1], "quorum", "{queues:?}");
    for argument in ["x-dead-letter-exchange", "reject-publish", "at-least-once"] {
        assert!(queues[0][3].contains(argument), "{argument} in {}", queues[0][3]);
    }
    let bindings = node.must(&[
        "list_bindings",
        "-p",
        &scene.vhost,
        "--no-table-headers",
        "source_name",
        "destination_name",
        "routing_key",
    ]);
    assert!(bindings.lines().any(|line| line == "payments\tpayments\t#"), "{bindings}");
}

#[test]
fn what_a_consumer_rejects_ends_in_the_dead_letter_queue() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    post_one(&daemon, 1, "order-1");
    until_settled(&daemon);
    broker_script(&scene, "m, p, b = ch.basic_get('payments')\nch.basic_reject(m.delivery_tag, requeue=False)");
    crate::harness::eventually("it is in the dead letter queue", || {
        let lengths = scene.lengths();
        if lengths.contains(&("payments.dead".to_owned(), 1)) { Ok(()) } else { Err(lengths) }
    });
}

#[test]
fn hundreds_of_events_come_in_the_order_of_their_orders() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let daemon = scene.serve();
    let consumer = scene.consumer();
    let acknowledged = post(&daemon, 0..400, 7);
    let messages = all_came(&consumer, &acknowledged);
    assert_eq!(messages.len(), acknowledged.len(), "nothing went wrong, so nothing came twice");
    until_settled(&daemon);
    connected(&daemon);
    assert_eq!(daemon.metric(r#"quittance_relay_published_total{outcome="confirmed"}"#), 400.0);
    assert_eq!(daemon.metric("quittance_relay_backlog_events"), 0.0);
    assert_eq!(daemon.metric("quittance_relay_connected"), 1.0);
}
