//! The admin listener over real sockets: the feed, expectations, errors, who may ask.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::app::stage::{Client, Stage, exchange, genuine, get, tomorrow};
use crate::event::Position;
use crate::store::Readiness;
use crate::store::cursor::FeedCursor;

struct Answer {
    status: u16,
    head: String,
    json: Value,
}

async fn ask(stage: &Stage, target: &str) -> Answer {
    send(stage, &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
}

async fn post(stage: &Stage, target: &str, body: &str) -> Answer {
    post_as(stage, target, "Host: localhost\r\nContent-Type: application/json", body).await
}

async fn post_as(stage: &Stage, target: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    send(
        stage,
        &format!("POST {target} HTTP/1.1\r\n{headers}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"),
    )
    .await
}

async fn send(stage: &Stage, request: &str) -> Answer {
    parse(&exchange(stage.admin, request.as_bytes()).await)
}

#[track_caller]
fn parse(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"));
    Answer { status, head: head.to_owned(), json: serde_json::from_str(body).unwrap_or(Value::Null) }
}

#[track_caller]
fn problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{} {}", answer.head, answer.json);
    assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
    assert_eq!(answer.json["status"], status, "{}", answer.json);
    assert!(answer.json["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", answer.json);
}

async fn notify(stage: &Stage, transaction: &str) {
    let mut client = Client::connect(stage.public).await;
    client.send(get(&genuine(transaction)).as_bytes()).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_feed_is_read_page_by_page_to_its_end_and_further_when_more_comes() {
    let stage = Stage::start("", "").await;
    for at in 0..3 {
        notify(&stage, &format!("A{at}")).await;
    }
    let first = ask(&stage, "/api/v1/events?limit=2").await;
    assert_eq!((first.status, first.json["entries"].as_array().map(Vec::len)), (200, Some(2)), "{}", first.json);
    assert_eq!(first.json["next"], first.json["entries"][1]["cursor"]);
    assert_eq!(first.json["entries"][0]["replay"], Value::Null);
    assert_eq!(first.json["entries"][0]["event"]["subject"], "100042");
    let next = first.json["next"].as_str().expect("text");
    let second = ask(&stage, &format!("/api/v1/events?after={next}")).await;
    assert_eq!(second.json["entries"].as_array().map(Vec::len), Some(1));
    let next = second.json["next"].as_str().expect("text");
    let end = ask(&stage, &format!("/api/v1/events?after={next}")).await;
    assert_eq!((end.json["entries"].as_array().map(Vec::len), &end.json["next"]), (Some(0), &second.json["next"]));
    notify(&stage, "B").await;
    let more = ask(&stage, &format!("/api/v1/events?after={}", end.json["next"].as_str().expect("text"))).await;
    assert_eq!(more.json["entries"].as_array().map(Vec::len), Some(1), "nothing is skipped");
}

#[tokio::test]
async fn a_long_poll_ends_when_something_comes_or_when_its_time_is_over() {
    let stage = Stage::start("", "").await;
    let begin = Instant::now();
    let nothing = ask(&stage, "/api/v1/events?wait=300ms").await;
    assert!(nothing.json["next"].is_string() && begin.elapsed() >= Duration::from_millis(300), "{}", nothing.json);
    let next = nothing.json["next"].as_str().expect("text");

    let mut waiting = Client::connect(stage.admin).await;
    let target = format!("GET /api/v1/events?wait=60s&after={next} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    waiting.send(target.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begin = Instant::now();
    notify(&stage, "A1").await;
    let answer = parse(&waiting.answer().await);
    assert_eq!(answer.json["entries"].as_array().map(Vec::len), Some(1), "{}", answer.json);
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_cursor_that_would_skip_something_is_refused_with_the_oldest_valid_one() {
    let stage = Stage::start("", "").await;
    for at in 0..3 {
        notify(&stage, &format!("A{at}")).await;
    }
    let cursor = |store: u8, position| FeedCursor::new([store; 16], Position(position)).to_string();
    for bad in ["x", "", "AAAA", &format!("{}A", cursor(9, 1))] {
        problem(&ask(&stage, &format!("/api/v1/events?after={bad}")).await, 400);
    }
    *stage.store.horizon.lock().expect("no panic") = Position(2);
    for gone in [cursor(9, 1), cursor(9, 4), cursor(8, 2)] {
        let answer = ask(&stage, &format!("/api/v1/events?after={gone}")).await;
        problem(&answer, 410);
        let oldest = answer.json["oldest"].as_str().expect("a cursor");
        let rest = ask(&stage, &format!("/api/v1/events?after={oldest}")).await;
        assert_eq!(rest.json["entries"].as_array().map(Vec::len), Some(1), "{}", rest.json);
    }
}

#[tokio::test]
async fn a_consumers_cursor_acknowledges_and_its_name_alone_is_noted() {
    let stage = Stage::start("", "").await;
    notify(&stage, "A1").await;
    let first = ask(&stage, "/api/v1/events?consumer=shop").await;
    let next = first.json["next"].as_str().expect("text");
    ask(&stage, &format!("/api/v1/events?consumer=shop&after={next}")).await;
    let told = stage.store.acknowledged.lock().expect("no panic").clone();
    assert_eq!(told, [("shop".to_owned(), Position(0)), ("shop".to_owned(), Position(1))]);
    problem(&ask(&stage, "/api/v1/events?consumer=a%20b").await, 400);
}

#[tokio::test]
async fn the_stream_tells_the_same_and_goes_on_where_it_was_left() {
    let mut stage = Stage::start("", "").await;
    notify(&stage, "A1").await;
    let mut stream = Client::connect(stage.admin).await;
    let request = |more: &str| {
        format!("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{more}\r\n")
    };
    stream.send(request("").as_bytes()).await;
    let first = read_until(&mut stream, "data: ").await;
    assert!(first.contains("content-type: text/event-stream"), "{first}");
    notify(&stage, "A2").await;
    let second = read_until(&mut stream, "data: ").await;
    let id = first.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id").trim().to_owned();
    let other = second.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id").trim().to_owned();
    assert_ne!(id, other);
    drop(stream);

    let mut again = Client::connect(stage.admin).await;
    again.send(request(&format!("Last-Event-ID: {id}\r\n")).as_bytes()).await;
    let told = read_until(&mut again, "data: ").await;
    assert!(told.contains(&format!("id: {other}")), "{told}");
    // A stop ends the streams too.
    stage.stop();
    tokio::time::timeout(Duration::from_secs(5), stage.end()).await.expect("a stream does not hold up a stop");
}

async fn read_until(client: &mut Client, mark: &str) -> String {
    use tokio::io::AsyncReadExt;
    let mut all = String::new();
    let whole = |all: &str| {
        let last = all.rsplit("id: ").next().is_some_and(|last| last.contains(mark) && last.ends_with("\n\n"));
        last || (all.contains(mark) && all.ends_with("\n\n\r\n"))
    };
    while !whole(&all) {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(20), client.0.read(&mut byte)).await;
        assert_eq!(read.expect("it goes on").expect("no reset"), 1, "closed after {all:?}");
        all.push(char::from(byte[0]));
    }
    all
}

#[tokio::test]
async fn every_error_is_a_problem_document() {
    let stage = Stage::start("", "").await;
    problem(&ask(&stage, "/nothing").await, 404);
    problem(&ask(&stage, "/api/v1/notifications/none").await, 404);
    problem(&ask(&stage, "/api/v1/notifications/019aa2f4-6f0d-7a10-8d40-6a1d5a0f2b11").await, 404);
    problem(&ask(&stage, "/api/v1/notifications/%ff").await, 404);
    problem(&ask(&stage, "/api/v1/orders/nowhere/1").await, 404);
    problem(&ask(&stage, "/api/v1/orders/ipn").await, 404);
    problem(&post(&stage, "/api/v1/status", "{}").await, 405);
    problem(&ask(&stage, "/api/v1/expectations").await, 405);
    for bad in ["limit=0", "limit=x", "wait=61s", "unknown=1", "limit=1&limit=2", "after=%ff"] {
        problem(&ask(&stage, &format!("/api/v1/events?{bad}")).await, 400);
    }
    for bad in
        ["status=gone", "verdict=x", "outcome=x", "source=A", "order_id=", "since=x", "until=1", "after=x", "sorce=a"]
    {
        problem(&ask(&stage, &format!("/api/v1/notifications?{bad}")).await, 400);
    }
    problem(&send(&stage, "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n").await, 400);
    problem(&send(&stage, "nonsense\r\n\r\n").await, 400);
    let both = "POST /api/v1/expectations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}";
    problem(&send(&stage, both).await, 400);
    problem(&post(&stage, "/api/v1/expectations", &" ".repeat(70_000)).await, 413);
    let order = ask(&stage, "/api/v1/orders/ipn/a%2Fb").await;
    assert_eq!(order.json, json!({ "source": "ipn", "order_id": "a/b", "entries": [] }));
    let list = ask(&stage, "/api/v1/notifications?since=2h&until=2026-11-20T08:15:30Z&source=ipn&limit=5").await;
    assert_eq!((list.status, &list.json), (200, &json!({ "notifications": [], "next": null })));
}

#[tokio::test]
async fn health_readiness_and_metrics_need_no_token_and_everything_else_does() {
    let stage = Stage::start("", "token = \"0123456789abcdef\"").await;
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ask(&stage, open).await.status, 200, "{open}");
    }
    let closed = ask(&stage, "/api/v1/status").await;
    problem(&closed, 401);
    assert!(closed.head.contains("www-authenticate: Bearer"), "{}", closed.head);
    let request = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer 0123456789abcdef\r\nConnection: close\r\n\r\n";
    let status = send(&stage, request).await;
    assert_eq!(status.status, 200);
    assert_eq!(status.json["store"]["id"], "09090909090909090909090909090909");
    assert_eq!(status.json["sources"][0]["url"], "https://pay.example.com/ipn");
    assert_eq!(status.json["sources"][0]["last_received_at"], Value::Null);
    assert_eq!(status.json["relay"]["sink"], "feed");
}

#[tokio::test]
async fn a_foreign_page_cannot_register_anything() {
    let stage = Stage::start("", "").await;
    let body =
        json!({ "source": "ipn", "order_id": "1", "amount": { "value": "1.00", "currency": "EUR" } }).to_string();
    for headers in ["Host: evil.example", "Host: localhost\r\nOrigin: https://evil.example"] {
        let headers = format!("{headers}\r\nContent-Type: application/json");
        problem(&post_as(&stage, "/api/v1/expectations", &headers, &body).await, 403);
    }
    let plain = post_as(&stage, "/api/v1/expectations", "Host: localhost\r\nContent-Type: text/plain", &body).await;
    problem(&plain, 415);
    assert!(stage.store.expected.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn readiness_says_why_not_and_how_far_it_is() {
    let stage = Stage::start("", "").await;
    assert_eq!(ask(&stage, "/readyz").await.json, json!({ "ready": true }));
    *stage.store.readiness.lock().expect("no panic") = Readiness::Rebuilding(0.42);
    let building = ask(&stage, "/readyz").await;
    assert_eq!((building.status, &building.json["ready"]), (503, &json!(false)));
    assert!(building.json["reason"].as_str().is_some_and(|reason| reason.contains("42 %")), "{}", building.json);
    *stage.store.readiness.lock().expect("no panic") = Readiness::Storage("no space".to_owned());
    assert_eq!(ask(&stage, "/readyz").await.status, 503);
    assert_eq!(ask(&stage, "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_store_that_is_starting_calls_no_cursor_foreign() {
    let stage = Stage::start("", "").await;
    let cursor = ask(&stage, "/api/v1/events").await.json["next"].as_str().expect("text").to_owned();
    *stage.store.id.lock().expect("no panic") = crate::store::NOT_OPEN;
    for target in [&format!("/api/v1/events?after={cursor}"), "/api/v1/events", "/api/v1/notifications"] {
        let answer = ask(&stage, target).await;
        problem(&answer, 503);
        assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    }
}

fn expectation(change: impl FnOnce(&mut Value)) -> String {
    let mut body = json!({ "source": "kw", "order_id": "1001", "amount": { "value": "6.000", "currency": "KWD" } });
    change(&mut body);
    body.to_string()
}

#[tokio::test]
async fn an_expectation_is_registered_once_and_gives_its_return_url() {
    let stage = Stage::start("", "").await;
    let full = expectation(|body| {
        body["session_id"] = json!("S1");
        body["indicator_status"] = json!("IND1");
        body["kind"] = json!("payment");
        body["expires_at"] = json!(tomorrow().to_string());
    });
    let new = post(&stage, "/api/v1/expectations", &full).await;
    assert_eq!(new.status, 201, "{}", new.json);
    let url = new.json["return_url"].as_str().expect("a URL");
    assert!(url.starts_with("https://pay.example.com/kw/1001/"), "{url}");
    assert_eq!((&new.json["source"], &new.json["order_id"]), (&json!("kw"), &json!("1001")));
    let again = post(&stage, "/api/v1/expectations", &full).await;
    assert_eq!((again.status, &again.json["return_url"]), (200, &new.json["return_url"]));
    let other = expectation(|body| body["amount"]["value"] = json!("7.000"));
    problem(&post(&stage, "/api/v1/expectations", &other).await, 409);
    let none = json!({ "source": "ipn", "order_id": "x y", "amount": { "value": "6", "currency": "CLP" } }).to_string();
    let none = post(&stage, "/api/v1/expectations", &none).await;
    assert_eq!((none.status, &none.json["return_url"]), (201, &Value::Null), "{}", none.json);
}

#[tokio::test]
async fn an_expectation_that_nothing_could_ever_match_is_refused() {
    let stage = Stage::start("", "").await;
    problem(&post(&stage, "/api/v1/expectations", "{").await, 400);
    problem(&post(&stage, "/api/v1/expectations", "").await, 400);
    problem(&post(&stage, "/api/v1/expectations", "[]").await, 422);
    type Spoil = fn(&mut Value);
    let wrong: [(&str, Spoil); 22] = [
        ("an unknown member", |b| b["amuont"] = json!(1)),
        ("no source", |b| b["source"] = Value::Null),
        ("an unknown source", |b| b["source"] = json!("nowhere")),
        ("a source that is no name", |b| b["source"] = json!("../x")),
        ("no order", |b| b["order_id"] = Value::Null),
        ("an empty order", |b| b["order_id"] = json!("")),
        ("an order that is a number", |b| b["order_id"] = json!(1001)),
        ("an order with a slash", |b| b["order_id"] = json!("10/01")),
        ("an order that Click KW cannot carry", |b| b["order_id"] = json!("A1001")),
        ("an order above Click KW's range", |b| b["order_id"] = json!("12345678901")),
        ("an unknown kind", |b| b["kind"] = json!("gift")),
        ("no amount", |b| b["amount"] = Value::Null),
        ("an amount that is a number", |b| b["amount"]["value"] = json!(6)),
        ("an amount with a sign", |b| b["amount"]["value"] = json!("-6")),
        ("nothing", |b| b["amount"]["value"] = json!("0.000")),
        ("fractions that the gateway cannot carry", |b| b["amount"]["value"] = json!("6.005")),
        ("another currency than the source's", |b| b["amount"]["currency"] = json!("EUR")),
        ("no currency", |b| b["amount"]["currency"] = json!("d")),
        ("a time that is over", |b| b["expires_at"] = json!("2020-01-01T00:00:00Z")),
        ("no time", |b| b["expires_at"] = json!("tomorrow")),
        ("an empty indicator", |b| b["indicator_status"] = json!("")),
        ("a session at a provider without", |b| {
            *b = json!({ "source": "ipn", "order_id": "1", "session_id": "s", "amount": { "value": "6", "currency": "EUR" } });
        }),
    ];
    for (case, change) in wrong {
        let answer = post(&stage, "/api/v1/expectations", &expectation(change)).await;
        assert_eq!(answer.status, 422, "{case}: {}", answer.json);
        problem(&answer, 422);
    }
    let secret = expectation(|b| {
        b["indicator_status"] = json!(["TOPSECRET"]);
        b["order_id"] = json!("TOPSECRET/");
    });
    let answer = post(&stage, "/api/v1/expectations", &secret).await;
    assert!(answer.status == 422 && !answer.json.to_string().contains("TOPSECRET"), "{}", answer.json);
    // A value may be a secret; a member's name is what has to be mended.
    let misspelt = expectation(|b| b["indicator"] = json!("TOPSECRET"));
    let answer = post(&stage, "/api/v1/expectations", &misspelt).await.json.to_string();
    assert!(answer.contains("indicator: an unknown member") && !answer.contains("TOPSECRET"), "{answer}");
    assert!(stage.store.expected.lock().expect("no panic").is_empty());
}
