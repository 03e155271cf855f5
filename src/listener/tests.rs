//! The listener over real sockets: framing, limits, refusals, and what a slow or hostile peer costs.

use std::time::{Duration, Instant};

use crate::app::stage::{Client, KEY, Stage, exchange, genuine, get};
use crate::store::Unavailable;

#[track_caller]
fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").or_else(|| answer.strip_prefix("HTTP/1.0 "));
    status.and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

/// Whatever it says, it says it with the closed headers.
#[track_caller]
fn closed(answer: &str) {
    for header in ["cache-control: no-store", "referrer-policy: no-referrer", "x-content-type-options: nosniff"] {
        assert!(answer.contains(&format!("\r\n{header}\r\n")), "{header} is missing in {answer}");
    }
}

fn form(body: &str) -> String {
    format!(
        "POST /ipn HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn genuine_body(transaction: &str) -> String {
    genuine(transaction).split_once('?').expect("a query").1.to_owned()
}

#[tokio::test]
async fn a_genuine_notification_is_kept_and_a_repeat_is_answered_the_same() {
    let stage = Stage::start("", "").await;
    let mut client = Client::connect(stage.public).await;
    for _ in 0..2 {
        client.send(get(&genuine("A1")).as_bytes()).await;
        let answer = client.answer().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nOK"), "{answer}");
        assert!(answer.contains("\r\ncontent-type: text/plain; charset=utf-8\r\n"), "{answer}");
        closed(&answer);
    }
    assert_eq!(stage.store.count(), 1);
    assert_eq!(stage.metric("notifications_total{outcome=\"duplicate\",source=\"ipn\"}").await, 1.0);
    assert_eq!(stage.metric("events_total{source=\"ipn\",verdict=\"hold\"}").await, 1.0);
    assert_eq!(stage.metric("verified_with_key_total{key=\"1\",source=\"ipn\"}").await, 2.0);
    assert_eq!(stage.metric("ack_seconds_count{source=\"ipn\"}").await, 2.0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let stage = Stage::start("", "").await;
    let bad = get("/ipn?key=wrong");
    let both = [get(&genuine("A1")), bad, form(&genuine_body("A2")), get("/nowhere")].concat();
    let mut client = Client::connect(stage.public).await;
    client.send(both.as_bytes()).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(status(&client.answer().await));
    }
    assert_eq!(answers[0], 200);
    assert!(answers[1] == 400 || answers[1] == 401, "{answers:?}");
    assert_eq!(&answers[2..], [200, 404]);
    assert_eq!(stage.store.count(), 2);
}

#[tokio::test]
async fn a_path_is_matched_byte_for_byte() {
    let stage = Stage::start("", "").await;
    for path in [
        "//ipn",
        "/ipn/",
        "/ipn/../ipn",
        "/./ipn",
        "/%69pn",
        "/IPN",
        "/ipn;a",
        "/ip",
        "/ipn%00",
        "/",
        "/kw",
        "/kw/",
        "/kw/1",
        "/kw/1/",
        "/kw//x",
        "/kw/1/x/y",
        "/kw/1/x/",
        "//kw/1/x",
    ] {
        let answer =
            exchange(stage.public, get(path).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(status(&answer), 404, "{path}: {answer}");
        assert!(answer.ends_with("REFUSED"), "{answer}");
        closed(&answer);
    }
    assert_eq!(stage.metric("notifications_total{outcome=\"refused\",source=\"none\"}").await, 18.0);
}

#[tokio::test]
async fn only_the_providers_methods_are_taken() {
    let stage = Stage::start("", "").await;
    for method in ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "QUITTANCE"] {
        let request = format!("{method} {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", genuine("A1"));
        let answer = exchange(stage.public, request.as_bytes()).await;
        assert_eq!(status(&answer), 405, "{method}: {answer}");
        assert!(answer.contains("\r\nallow: GET, POST\r\n"), "{answer}");
        closed(&answer);
    }
    let connect = exchange(stage.public, b"CONNECT pay.example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&connect), 400, "{connect}");
    let star = exchange(stage.public, b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&star), 404, "{star}");
    assert_eq!(stage.store.count(), 0);
}

#[tokio::test]
async fn framing_that_reads_in_two_ways_is_refused_and_ends_the_connection() {
    let stage = Stage::start("", "").await;
    let body = genuine_body("A1");
    let (length, hidden) = (body.len(), get(&genuine("HIDDEN")));
    let chunks = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let head = "POST /ipn HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let cases = [
        ("both, length first", format!("{head}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")),
        ("both, coding first", format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{chunks}")),
        ("two lengths", format!("{head}Content-Length: {length}\r\nContent-Length: 5\r\n\r\n{body}")),
        ("the same length twice", format!("{head}Content-Length: {length}\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("a list of lengths", format!("{head}Content-Length: {length}, {length}\r\n\r\n{body}")),
        ("a signed length", format!("{head}Content-Length: +{length}\r\n\r\n{body}")),
        ("identity after chunked", format!("{head}Transfer-Encoding: chunked, identity\r\n\r\n{chunks}")),
        ("chunked twice", format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")),
        ("another coding first", format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n{chunks}")),
        ("identity alone", format!("{head}Transfer-Encoding: identity\r\n\r\n{chunks}")),
        ("a space before the colon", format!("{head}Content-Length : {length}\r\n\r\n{body}")),
        ("a folded line", format!("{head}X-A: b\r\n c\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("a bare line feed", format!("{head}X-A: b\nContent-Length: {length}\r\n\r\n{body}")),
        ("bare line feeds only", format!("{head}Content-Length: {length}\r\n\r\n{body}").replace("\r\n", "\n")),
        ("a carriage return inside", format!("{head}X-A: b\rc\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("a NUL inside", format!("{head}X-A: b\0c\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("no host", format!("{head}Content-Length: {length}\r\n\r\n{body}").replace("Host: a\r\n", "")),
        ("two hosts", format!("{head}Host: a\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("two content types", format!("{head}Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("a fragment", format!("{head}Content-Length: {length}\r\n\r\n{body}").replace("/ipn ", "/ipn#a ")),
        ("chunked in HTTP/1.0", format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}").replace("/1.1", "/1.0")),
        ("HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("another version", format!("{head}Content-Length: {length}\r\n\r\n{body}").replace("/1.1", "/1.2")),
        ("no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned()),
        ("a bad chunk size", format!("{head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n{body}\r\n0\r\n\r\n")),
    ];
    for (case, request) in &cases {
        let answer = exchange(stage.public, format!("{request}{hidden}").as_bytes()).await;
        assert_eq!(status(&answer), 400, "{case}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{case}: one answer only, {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{case}: {answer}");
        closed(&answer);
    }
    assert_eq!(stage.store.count(), 0, "nothing of it was let in");
    let counted = stage.metric("refusals_total{reason=\"malformed\",source=\"none\"}").await
        + stage.metric("refusals_total{reason=\"malformed\",source=\"ipn\"}").await;
    assert_eq!(counted, cases.len() as f64);
}

#[tokio::test]
async fn a_good_request_before_a_flawed_one_is_answered() {
    let stage = Stage::start("", "").await;
    let flawed = "POST /ipn HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = exchange(stage.public, format!("{}{flawed}", get(&genuine("A1"))).as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("HTTP/1.1 400 Bad Request"), "{answer}");
    assert_eq!(stage.store.count(), 1);
}

#[tokio::test]
async fn chunked_bodies_old_http_full_targets_and_continue_are_understood() {
    let stage = Stage::start("", "").await;
    let body = genuine_body("A1");
    let head = "POST /ipn HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let (a, b) = body.split_at(20);
    let chunked =
        format!("{head}Transfer-Encoding: Chunked\r\n\r\n14;x=y\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\nX-T: a\r\n\r\n", b.len());
    let answer = exchange(stage.public, chunked.as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");

    let old = format!("GET {} HTTP/1.0\r\n\r\n", genuine("A2"));
    assert_eq!(status(&exchange(stage.public, old.as_bytes()).await), 200, "proxies speak HTTP/1.0 by default");

    let full =
        get(&format!("http://pay.example.com{}", genuine("A3"))).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&exchange(stage.public, full.as_bytes()).await), 200, "RFC 9112, section 3.2.2");

    let mut client = Client::connect(stage.public).await;
    let body = genuine_body("A4");
    client.send(format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).await;
    assert_eq!(status(&client.answer().await), 100);
    client.send(body.as_bytes()).await;
    assert_eq!(status(&client.answer().await), 200);

    let upgrade = get(&genuine("A5")).replace("\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    client.send(upgrade.as_bytes()).await;
    assert_eq!(status(&client.answer().await), 200, "an upgrade is not taken, the request is");
    assert_eq!(stage.store.count(), 5);
}

#[tokio::test]
async fn a_continue_is_not_asked_for_when_the_request_is_refused_anyway() {
    let stage = Stage::start("", "").await;
    let head = "POST /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n";
    assert_eq!(status(&exchange(stage.public, head.as_bytes()).await), 404);
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_refusal_can_be_read() {
    let stage = Stage::start("max_body = \"10KiB\"\nmax_header = \"9KiB\"", "").await;
    let answer = exchange(stage.public, form(&"a".repeat(900_000)).as_bytes()).await;
    assert_eq!(status(&answer), 413, "{answer}");
    closed(&answer);
    let chunk = format!("1000\r\n{}\r\n", "a".repeat(4096));
    let chunked = format!("POST /ipn HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(100));
    assert_eq!(status(&exchange(stage.public, chunked.as_bytes()).await), 413);
    let long = get(&genuine("A1")).replace("\r\n\r\n", &format!("\r\nCookie: {}\r\n\r\n", "a".repeat(9_300)));
    let answer = exchange(stage.public, long.as_bytes()).await;
    assert_eq!(status(&answer), 413, "{answer}");
    closed(&answer);
    let fits = get(&genuine("A1"))
        .replace("\r\n\r\n", &format!("\r\nConnection: close\r\nCookie: {}\r\n\r\n", "a".repeat(8_500)));
    assert_eq!(status(&exchange(stage.public, fits.as_bytes()).await), 200);
    let whole = form(&format!("{}&message={}", genuine_body("A2"), "a".repeat(9_000)));
    let mut client = Client::connect(stage.public).await;
    client.send(whole.as_bytes()).await;
    assert_eq!(status(&client.answer().await), 200, "a body just below the limit");
    assert_eq!(stage.metric("refusals_total{reason=\"too_large\",source=\"ipn\"}").await, 2.0);
    assert_eq!(stage.metric("refusals_total{reason=\"too_large\",source=\"none\"}").await, 1.0);
}

#[tokio::test]
async fn encoded_bodies_are_refused() {
    let stage = Stage::start("", "").await;
    let encoded = |coding: &str| {
        form(&genuine_body("A1"))
            .replace("Host: localhost", &format!("Host: a\r\nConnection: close\r\nContent-Encoding: {coding}"))
    };
    assert_eq!(status(&exchange(stage.public, encoded("gzip").as_bytes()).await), 415);
    assert_eq!(status(&exchange(stage.public, encoded("Identity").as_bytes()).await), 200);
}

#[tokio::test]
async fn a_slow_head_a_slow_body_and_an_idle_connection_each_have_their_own_time() {
    let times =
        "header_timeout = \"300ms\"\nbody_timeout = \"600ms\"\nidle_timeout = \"1200ms\"\nrequest_timeout = \"5s\"";
    let stage = Stage::start(times, "").await;
    let timed = async |client: &mut Client| {
        let begin = Instant::now();
        let said = client.rest().await;
        (said, begin.elapsed())
    };
    // One byte after the other does not help: the whole head has a time.
    let mut slow = Client::connect(stage.public).await;
    let begin = Instant::now();
    for byte in get(&genuine("A1")).bytes().take(12) {
        slow.send(&[byte]).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let said = slow.rest().await;
    assert_eq!(status(&said), 408, "{said}");
    closed(&said);
    assert!(begin.elapsed() < Duration::from_millis(1100), "{:?}", begin.elapsed());

    let mut slow = Client::connect(stage.public).await;
    slow.send(b"POST /ipn HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc").await;
    let (said, took) = timed(&mut slow).await;
    assert_eq!(status(&said), 408, "{said}");
    assert!((Duration::from_millis(550)..Duration::from_millis(1150)).contains(&took), "{took:?}");

    let mut idle = Client::connect(stage.public).await;
    idle.send(get(&genuine("A2")).as_bytes()).await;
    assert_eq!(status(&idle.answer().await), 200);
    let (said, took) = timed(&mut idle).await;
    assert_eq!(said, "", "an idle connection is closed without a word");
    assert!((Duration::from_millis(1100)..Duration::from_secs(3)).contains(&took), "{took:?}");

    // After an answer a new head has its own time again, not what is left of the idle one.
    let mut second = Client::connect(stage.public).await;
    second.send(get(&genuine("A3")).as_bytes()).await;
    second.answer().await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    second.send(b"GET /ipn HT").await;
    let (said, took) = timed(&mut second).await;
    assert_eq!(status(&said), 408);
    assert!((Duration::from_millis(250)..Duration::from_millis(900)).contains(&took), "{took:?}");
    assert_eq!(stage.metric("refusals_total{reason=\"too_slow\",source=\"none\"}").await, 2.0);
    assert_eq!(stage.metric("refusals_total{reason=\"too_slow\",source=\"ipn\"}").await, 1.0);
}

#[tokio::test]
async fn many_slow_peers_cost_the_others_nothing() {
    let stage = Stage::start(
        "max_connections = 3000\nheader_timeout = \"1m\"\nbody_timeout = \"1m\"\nrequest_timeout = \"2m\"",
        "",
    )
    .await;
    let mut stalled = Vec::new();
    for at in 0..800 {
        let mut client = Client::connect(stage.public).await;
        let part: &[u8] =
            if at % 2 == 0 { b"POST /ipn HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\nx" } else { b"GET /i" };
        client.send(part).await;
        stalled.push(client);
    }
    stage.metric_becomes("connections", 800.0).await;
    for at in 0..50 {
        let mut client = Client::connect(stage.public).await;
        client.send(get(&genuine(&format!("A{at}"))).as_bytes()).await;
        assert_eq!(status(&client.answer().await), 200);
    }
    // None of them was waited for: they are all still there.
    assert!(stage.metric("connections").await >= 800.0);
    drop(stalled);
    stage.metric_becomes("connections", 0.0).await;
}

#[tokio::test]
async fn connections_above_the_limit_are_told_so_and_closed() {
    let stage = Stage::start("max_connections = 2", "").await;
    let (one, _two) = (Client::connect(stage.public).await, Client::connect(stage.public).await);
    stage.metric_becomes("connections", 2.0).await;
    let answer = Client::connect(stage.public).await.rest().await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("\r\nretry-after: "), "{answer}");
    closed(&answer);
    drop(one);
    stage.metric_becomes("connections", 1.0).await;
    let mut again = Client::connect(stage.public).await;
    again.send(get(&genuine("A1")).as_bytes()).await;
    assert_eq!(status(&again.answer().await), 200);
    assert_eq!(stage.metric("refusals_total{reason=\"overloaded\",source=\"none\"}").await, 1.0);
}

#[tokio::test]
async fn more_than_may_wait_for_the_committer_are_asked_to_come_again() {
    let stage = Stage::start("max_in_flight = 2", "").await;
    stage.store.open.send_replace(false);
    let mut waiting = Vec::new();
    for at in 0..2 {
        let mut client = Client::connect(stage.public).await;
        client.send(get(&genuine(&format!("A{at}"))).as_bytes()).await;
        waiting.push(client);
    }
    for _ in 0..200 {
        if stage.store.count() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut third = Client::connect(stage.public).await;
    third.send(get(&genuine("B")).as_bytes()).await;
    let answer = third.answer().await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("\r\nretry-after: 2\r\n"), "{answer}");
    assert_eq!(stage.store.count(), 2, "what was shed was not kept");
    stage.store.open.send_replace(true);
    for client in &mut waiting {
        assert_eq!(status(&client.answer().await), 200);
    }
    third.send(get(&genuine("B")).as_bytes()).await;
    assert_eq!(status(&third.answer().await), 200, "the places are free again");
}

#[tokio::test]
async fn a_peer_that_hangs_up_stops_neither_the_commit_nor_its_count() {
    let stage = Stage::start("", "").await;
    stage.store.open.send_replace(false);
    let mut client = Client::connect(stage.public).await;
    client.send(get(&genuine("A1")).as_bytes()).await;
    for _ in 0..200 {
        if stage.store.count() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(client);
    stage.metric_becomes("connections", 0.0).await;
    assert_eq!(stage.metric("notifications_total{outcome=\"accepted\",source=\"ipn\"}").await, 0.0);
    stage.store.open.send_replace(true);
    stage.metric_becomes("notifications_total{outcome=\"accepted\",source=\"ipn\"}", 1.0).await;
}

#[tokio::test]
async fn a_commit_that_takes_too_long_is_answered_with_503() {
    let stage =
        Stage::start("request_timeout = \"400ms\"\nheader_timeout = \"300ms\"\nbody_timeout = \"300ms\"", "").await;
    stage.store.open.send_replace(false);
    let mut client = Client::connect(stage.public).await;
    client.send(get(&genuine("A1")).as_bytes()).await;
    let answer = client.answer().await;
    assert_eq!(status(&answer), 503, "{answer}");
    stage.store.open.send_replace(true);
    stage.metric_becomes("notifications_total{outcome=\"accepted\",source=\"ipn\"}", 1.0).await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_answered_with_503_and_its_reason_is_counted() {
    let stage = Stage::start("", "").await;
    for (why, label) in [
        (Unavailable::Overloaded, "overloaded"),
        (Unavailable::Storage, "storage"),
        (Unavailable::NotReady, "not_ready"),
        (Unavailable::Draining, "draining"),
    ] {
        *stage.store.refuse.lock().expect("no panic") = Some(why);
        let mut client = Client::connect(stage.public).await;
        client.send(get(&genuine("A1")).as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!(status(&answer), 503, "{answer}");
        assert!(answer.contains("\r\nretry-after: "), "{answer}");
        closed(&answer);
        assert_eq!(stage.metric(&format!("refusals_total{{reason=\"{label}\",source=\"ipn\"}}")).await, 1.0);
    }
    assert_eq!(stage.metric("notifications_total{outcome=\"accepted\",source=\"ipn\"}").await, 0.0);
}

#[tokio::test]
async fn a_buyers_browser_is_sent_to_a_page_and_never_told_why() {
    let stage = Stage::start("", "").await;
    let mut client = Client::connect(stage.public).await;
    client.send(get("/kw/1001/AAAAAAAAAAAAAAAAAAAAAA?message=success&indicator_status=x").as_bytes()).await;
    let answer = client.answer().await;
    assert_eq!(status(&answer), 303, "{answer}");
    assert!(answer.contains("\r\nlocation: https://shop.example.com/sorry?order=\r\n"), "{answer}");
    closed(&answer);
    assert_eq!(stage.metric("refusals_total{reason=\"wrong_tag\",source=\"kw\"}").await, 1.0);
}

#[tokio::test]
async fn a_refusal_tells_neither_reason_nor_key() {
    let stage = Stage::start("", "").await;
    let mut client = Client::connect(stage.public).await;
    client.send(get(&genuine("A1").replace("7c1a", "7C1A")).as_bytes()).await;
    let answer = client.answer().await;
    assert_eq!(status(&answer), 401, "{answer}");
    let body = answer.rsplit("\r\n\r\n").next().expect("a body");
    assert!(body.len() < 10 && !answer.to_lowercase().contains(&KEY.to_lowercase()), "{answer}");
    assert_eq!(stage.metric("notifications_total{outcome=\"refused\",source=\"ipn\"}").await, 1.0);
    assert_eq!(stage.store.count(), 0);
}

#[tokio::test]
async fn a_stop_lets_the_request_in_flight_finish_and_then_closes_the_store() {
    let mut stage = Stage::start("", "").await;
    let mut idle = Client::connect(stage.public).await;
    stage.store.open.send_replace(false);
    let mut busy = Client::connect(stage.public).await;
    busy.send(get(&genuine("A1")).as_bytes()).await;
    for _ in 0..200 {
        if stage.store.count() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.stop();
    assert_eq!(idle.rest().await, "", "who is idle is closed at once");
    let ready = exchange(stage.admin, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(status(&ready) == 503 && ready.contains("\"stopping\""), "{ready}");
    assert!(tokio::net::TcpStream::connect(stage.public).await.is_err(), "nobody new is let in");
    assert_eq!(stage.store.closed.load(std::sync::atomic::Ordering::SeqCst), 0);
    stage.store.open.send_replace(true);
    let answer = busy.rest().await;
    assert!(status(&answer) == 200 && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    stage.end().await;
    assert_eq!(stage.store.closed.load(std::sync::atomic::Ordering::SeqCst), 1);
}
