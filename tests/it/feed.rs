//! The feed: in journal order, nothing skipped silently, cursors that survive.

use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixtures::{self, paygol};
use crate::harness::{Config, Daemon, eventually};
use crate::http;

#[track_caller]
fn pay(daemon: &Daemon, number: u32) {
    let fields = paygol(json!({ "transaction_id": format!("T-{number}"), "custom": format!("order {number}") }));
    assert_eq!(daemon.paygol(&fields).status, 200);
}

fn orders(page: &Value) -> Vec<String> {
    page["entries"].as_array().unwrap().iter().map(|e| fixtures::text(&e["event"]["data"]["order_id"])).collect()
}

#[test]
fn an_empty_feed_has_a_cursor_to_go_on_from() {
    let daemon = Daemon::start();
    let page = daemon.ask("/api/v1/events");
    assert_eq!(page["entries"], json!([]));
    let next = fixtures::text(&page["next"]);
    pay(&daemon, 1);
    assert_eq!(orders(&daemon.ask(&format!("/api/v1/events?after={next}"))), ["order 1"]);
}

#[test]
fn pages_join_without_gap_or_repeat_and_cursors_survive_crash_and_rebuild() {
    let mut daemon = Daemon::start();
    for number in 1..=7 {
        pay(&daemon, number);
    }
    let first = daemon.ask("/api/v1/events?limit=3");
    assert_eq!(orders(&first), ["order 1", "order 2", "order 3"]);
    assert_eq!(first["entries"][2]["cursor"], first["next"]);
    assert_eq!(first["entries"][0]["replay"], Value::Null);
    daemon.kill();
    let _ = std::fs::remove_dir_all(daemon.store().join("index"));
    daemon.start_again();
    let rest = daemon.ask(&format!("/api/v1/events?after={}", fixtures::text(&first["next"])));
    assert_eq!(orders(&rest), ["order 4", "order 5", "order 6", "order 7"]);
    let end = daemon.ask(&format!("/api/v1/events?after={}", fixtures::text(&rest["next"])));
    assert_eq!((end["entries"].clone(), end["next"].clone()), (json!([]), rest["next"].clone()));
}

#[test]
fn a_limit_above_a_thousand_is_a_thousand_and_nonsense_is_400() {
    let daemon = Daemon::start();
    pay(&daemon, 1);
    assert_eq!(daemon.admin_get("/api/v1/events?limit=100000").status, 200);
    for bad in
        ["limit=0", "limit=-1", "limit=x", "wait=61s", "wait=x", "after=x", "after=", "after=%00", "consumer=%20"]
    {
        let answer = daemon.admin_get(&format!("/api/v1/events?{bad}"));
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
        assert!(answer.header("content-type").unwrap().starts_with("application/problem+json"));
    }
}

#[test]
fn a_cursor_of_another_store_is_410_with_the_oldest_valid_one() {
    let (one, other) = (Daemon::start(), Daemon::start());
    for number in 1..=3 {
        pay(&one, number);
        pay(&other, number);
    }
    let foreign = fixtures::text(&one.ask("/api/v1/events")["next"]);
    let answer = other.admin_get(&format!("/api/v1/events?after={foreign}"));
    assert_eq!(answer.status, 410, "{answer:?}");
    let oldest = fixtures::text(&answer.json()["oldest"]);
    let page = other.ask(&format!("/api/v1/events?after={oldest}"));
    assert_eq!(orders(&page).len(), 3, "from the oldest on");
}

#[test]
fn a_waiting_reader_is_answered_as_soon_as_there_is_something() {
    let daemon = Daemon::start();
    let next = fixtures::text(&daemon.ask("/api/v1/events")["next"]);
    let target = format!("/api/v1/events?after={next}&wait=30s");
    let began = Instant::now();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| daemon.ask(&target));
        eventually("the reader waits", || {
            let page = daemon.admin_get("/metrics").text();
            if page.contains("quittance_") && began.elapsed() > Duration::from_millis(200) { Ok(()) } else { Err(()) }
        });
        assert!(!reader.is_finished(), "there was nothing to tell yet");
        pay(&daemon, 1);
        assert_eq!(orders(&reader.join().unwrap()), ["order 1"]);
    });
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let began = Instant::now();
    let page = daemon.ask(&format!("/api/v1/events?after={next}&limit=1&wait=30s"));
    assert!(began.elapsed() < Duration::from_secs(5), "at once when there is something");
    let empty = daemon.ask(&format!("/api/v1/events?after={}&wait=1s", fixtures::text(&page["next"])));
    assert_eq!(empty["entries"], json!([]));
    assert!(began.elapsed() >= Duration::from_secs(1), "it waited");
}

#[test]
fn the_stream_of_server_sent_events_tells_the_same_and_goes_on_from_its_last_id() {
    let daemon = Daemon::start();
    pay(&daemon, 1);
    pay(&daemon, 2);
    let page = daemon.ask("/api/v1/events");
    let cursors: Vec<_> = page["entries"].as_array().unwrap().iter().map(|e| fixtures::text(&e["cursor"])).collect();
    let read = |last: Option<&str>, count: usize| -> Vec<(String, Value)> {
        let mut headers = vec![("Accept", "text/event-stream")];
        headers.extend(last.map(|id| ("Last-Event-ID", id)));
        let mut stream = http::connect(daemon.admin).unwrap();
        stream.write_all(&http::request("GET", "/api/v1/events", &headers, b"")).unwrap();
        let (mut id, mut found, mut head) = (String::new(), Vec::new(), String::new());
        for line in BufReader::new(stream).lines() {
            let line = line.unwrap();
            head.push_str(&line);
            if let Some(value) = line.strip_prefix("id:") {
                id = value.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data:") {
                found.push((id.clone(), serde_json::from_str(data.trim()).unwrap()));
                if found.len() == count {
                    break;
                }
            }
        }
        assert!(head.contains("text/event-stream"), "{head}");
        found
    };
    let all = read(None, 2);
    assert_eq!(all.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), cursors);
    let event = |data: &Value| data.get("event").unwrap_or(data).clone();
    assert_eq!(event(&all[0].1), page["entries"][0]["event"]);
    let rest = read(Some(&cursors[0]), 1);
    assert_eq!(rest[0].0, cursors[1]);
}

#[test]
fn a_consumers_acknowledgement_is_kept_and_shows_as_a_delivery() {
    let mut daemon = Daemon::start();
    pay(&daemon, 1);
    let page = daemon.ask("/api/v1/events?consumer=shop");
    daemon.ask(&format!("/api/v1/events?consumer=shop&after={}", fixtures::text(&page["next"])));
    let id = fixtures::text(&page["entries"][0]["event"]["data"]["notification_id"]);
    let deliveries = |daemon: &Daemon| daemon.ask(&format!("/api/v1/notifications/{id}"))["deliveries"].clone();
    eventually("the delivery shows", || {
        let list = deliveries(&daemon);
        if list.to_string().contains("shop") { Ok(()) } else { Err(list) }
    });
    assert!(daemon.stop().success());
    daemon.start_again();
    assert!(deliveries(&daemon).to_string().contains("shop"), "progress is a record of the journal");
}

#[test]
fn a_configured_consumer_counts_before_it_ever_asked() {
    let plain = Daemon::start();
    assert_eq!(plain.metric("quittance_relay_connected"), 1.0, "status and metrics agree: the feed is always there");
    assert_eq!(plain.ask("/api/v1/status")["relay"]["connected"], true);
    let tables = "[relay.feed]\nconsumers = [\"shop\"]\n".to_owned();
    let daemon = Daemon::with(Config { tables, ..Config::default() });
    // Its progress, nothing acknowledged yet, is the first record of the journal.
    let head = |daemon: &Daemon| daemon.ask("/api/v1/status")["store"]["head"].clone();
    eventually("it is noted", || if head(&daemon) == 1 { Ok(()) } else { Err(head(&daemon)) });
    assert_eq!(head(&plain), 0);
}
