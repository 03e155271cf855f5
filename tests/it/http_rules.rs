//! The table of refusals, strict HTTP/1.1, and senders that are slow, idle or many.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fixtures::{self, clickpay_body, pay_in};
use crate::harness::{Config, Daemon, eventually};
use crate::http::{self, Answer, request};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn good() -> Vec<u8> {
    clickpay_body(&pay_in(json!({})), "clickpay-1024").to_string().into_bytes()
}

/// Sends bytes and gives the status, 0 where the connection is closed without one.
fn status(daemon: &Daemon, bytes: &[u8]) -> u16 {
    http::status(daemon.public, bytes).unwrap_or(0)
}

#[test]
fn every_refusal_has_its_status() {
    let daemon = Daemon::start();
    let big = vec![b'x'; 65 * 1024];
    for (wanted, what, bytes) in [
        (404, "another path", request("POST", "/nobody", &[JSON], &good())),
        (404, "a path below", request("POST", "/clickpay/below", &[JSON], &good())),
        (404, "a slash behind", request("POST", "/clickpay/", &[JSON], &good())),
        (404, "another case", request("POST", "/ClickPay", &[JSON], &good())),
        (404, "an escaped letter", request("POST", "/%63lickpay", &[JSON], &good())),
        (404, "dots", request("POST", "/x/../clickpay", &[JSON], &good())),
        (404, "two slashes", request("POST", "//clickpay", &[JSON], &good())),
        (405, "GET", request("GET", "/clickpay", &[], b"")),
        (405, "HEAD", request("HEAD", "/clickpay", &[], b"")),
        (405, "PUT", request("PUT", "/clickpay", &[JSON], &good())),
        (405, "DELETE of a return", request("DELETE", "/clickkw/42/AAAAAAAAAAAAAAAAAAAAAA", &[], b"")),
        (413, "a large body", request("POST", "/clickpay", &[JSON], &big)),
        (415, "XML", request("POST", "/clickpay", &[("Content-Type", "text/xml")], &good())),
        (415, "gzip", request("POST", "/clickpay", &[JSON, ("Content-Encoding", "gzip")], &good())),
        (400, "no JSON", request("POST", "/clickpay", &[JSON], b"{")),
        (400, "an empty body", request("POST", "/clickpay", &[JSON], b"")),
        (400, "a list", request("POST", "/clickpay", &[JSON], b"[]")),
        (400, "not UTF-8", request("POST", "/clickpay", &[FORM], b"code=%ff%fe&platSign=x")),
        (400, "deeply nested", request("POST", "/clickpay", &[JSON], &b"[".repeat(60_000))),
    ] {
        let got = status(&daemon, &bytes);
        assert_eq!(got, wanted, "{what}");
    }
    let answer = daemon.get("/clickpay");
    assert_eq!(answer.header("allow"), Some("POST"));
    assert!(daemon.feed().is_empty());
    let reason =
        |reason: &str| daemon.metric(&format!(r#"quittance_refusals_total{{reason="{reason}",source="clickpay-id"}}"#));
    assert_eq!([reason("too_large"), reason("content_type"), reason("method")], [1.0, 2.0, 4.0]);
    assert_eq!(daemon.clickpay("/clickpay", &pay_in(json!({}))).text(), "SUCCESS", "after all that");
}

#[test]
fn every_answer_forbids_storing_referring_and_guessing() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw", "42", ("6.000", "KWD"), json!({}));
    let answers = [
        daemon.clickpay("/clickpay", &pay_in(json!({}))),
        daemon.post("/clickpay", "application/json", b"{"),
        daemon.get(&format!("{path}?message=success")),
        daemon.get("/clickkw/42/AAAAAAAAAAAAAAAAAAAAAA?message=success"),
        daemon.get("/nobody"),
        daemon.get("/clickpay"),
    ];
    for answer in answers {
        let header = |name| answer.header(name).unwrap_or("-").to_owned();
        assert_eq!(
            [header("cache-control"), header("referrer-policy"), header("x-content-type-options")],
            ["no-store", "no-referrer", "nosniff"],
            "{answer:?}"
        );
        assert!(answer.header("server").is_none(), "{answer:?}");
    }
}

#[test]
fn a_request_that_two_servers_could_cut_differently_is_refused() {
    let daemon = Daemon::start();
    let body = String::from_utf8(good()).unwrap();
    let (length, host) = (body.len(), "Host: pay.example.com\r\n");
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    for (what, text) in [
        (
            "length and chunks",
            format!(
                "POST /clickpay HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
            ),
        ),
        (
            "two lengths",
            format!(
                "POST /clickpay HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: {length}\r\nContent-Length: 5\r\n\r\n{body}"
            ),
        ),
        (
            "a length with a sign",
            format!(
                "POST /clickpay HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: +{length}\r\n\r\n{body}"
            ),
        ),
        (
            "a space before the colon",
            format!(
                "POST /clickpay HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length : {length}\r\n\r\n{body}"
            ),
        ),
        (
            "an unknown coding",
            format!(
                "POST /clickpay HTTP/1.1\r\n{host}Content-Type: application/json\r\nTransfer-Encoding: xchunked\r\n\r\n{chunked}"
            ),
        ),
        (
            "chunked twice",
            format!(
                "POST /clickpay HTTP/1.1\r\n{host}Content-Type: application/json\r\nTransfer-Encoding: chunked, chunked\r\n\r\n{chunked}"
            ),
        ),
        (
            "a folded header",
            format!(
                "POST /clickpay HTTP/1.1\r\n{host}Content-Type: application/json\r\nX-A: b\r\n c\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
        ),
        (
            "no host",
            format!(
                "POST /clickpay HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
        ),
        (
            "two hosts",
            format!(
                "POST /clickpay HTTP/1.1\r\n{host}{host}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
        ),
        (
            "a bare newline",
            format!(
                "POST /clickpay HTTP/1.1\nHost: pay.example.com\nContent-Type: application/json\nContent-Length: {length}\n\n{body}"
            ),
        ),
        ("another protocol", format!("POST /clickpay HTTP/3.0\r\n{host}Content-Length: {length}\r\n\r\n{body}")),
        ("noise", "\x16\x03\x01\x02\x00\x01\x00".to_owned()),
    ] {
        let got = status(&daemon, text.as_bytes());
        assert!(got == 400 || got == 505 || got == 0, "{what}: {got}");
    }
    assert!(daemon.feed().is_empty());
}

#[test]
fn what_follows_a_refused_body_is_not_a_request() {
    let daemon = Daemon::start();
    let inner = request("POST", "/clickpay", &[JSON], &good());
    // The outer request is refused before its body is read: the inner one is body, and stays that.
    let mut outer = request("POST", "/nobody", &[JSON], &inner);
    let head = String::from_utf8_lossy(&outer).replacen("Connection: close\r\n", "", 1).into_bytes();
    outer = head;
    let mut stream = http::connect(daemon.public).unwrap();
    stream.write_all(&outer).unwrap();
    let answer = http::read_answer(&mut stream).unwrap();
    assert_eq!(answer.status, 404);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("SUCCESS"), "the body was taken for a request");
    assert!(daemon.feed().is_empty());
}

#[test]
fn requests_of_one_connection_are_answered_in_turn() {
    let daemon = Daemon::start();
    let body = good();
    let head = format!(
        "POST /clickpay HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let one = [head.as_bytes(), &body].concat();
    let mut stream = http::connect(daemon.public).unwrap();
    stream.write_all(&[&one[..], &one[..], &one[..]].concat()).unwrap();
    for _ in 0..3 {
        assert_eq!(http::read_answer(&mut stream).unwrap().text(), "SUCCESS");
    }
    daemon.only_event();
}

fn quick(listener: &str) -> Daemon {
    Daemon::with(Config { listener: listener.into(), ..Config::default() })
}

#[test]
fn a_slow_head_and_a_slow_body_end_with_408() {
    let daemon = quick("header_timeout = \"1s\"\nbody_timeout = \"1s\"");
    let began = Instant::now();
    for started in [
        "POST /clickpay HTTP/1.1\r\nHost: x\r\n",
        "POST /clickpay HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 700\r\n\r\n{\"code\":",
    ] {
        let mut stream = http::connect(daemon.public).unwrap();
        stream.write_all(started.as_bytes()).unwrap();
        assert_eq!(http::read_answer(&mut stream).unwrap().status, 408, "{started:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(daemon.metric(r#"quittance_refusals_total{reason="too_slow",source="clickpay-id"}"#), 1.0);
}

#[test]
fn a_head_above_its_limit_is_refused() {
    let daemon = Daemon::start();
    let long = "x".repeat(20 * 1024);
    let got = status(&daemon, &request("POST", "/clickpay", &[JSON, ("X-Long", &long)], &good()));
    assert_eq!(got, 413, "too large is 413, whatever of it is");
    assert_eq!(daemon.metric(r#"quittance_refusals_total{reason="too_large",source="none"}"#), 1.0);
    assert!(daemon.feed().is_empty());
}

#[test]
fn slow_and_idle_connections_cost_others_nothing() {
    let daemon = quick("idle_timeout = \"30s\"");
    let idle: Vec<TcpStream> = (0..600)
        .map(|number| {
            let mut stream = http::connect(daemon.public).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"POST /clickpay HTTP/1.1\r\nHost: x\r\nContent-Le").unwrap();
            }
            stream
        })
        .collect();
    let began = Instant::now();
    assert_eq!(daemon.clickpay("/clickpay", &pay_in(json!({}))).text(), "SUCCESS");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(daemon.metric("quittance_connections") >= 300.0);
    drop(idle);
    eventually("the connections are gone", || {
        let left = daemon.metric("quittance_connections");
        if left < 10.0 { Ok(()) } else { Err(left) }
    });
}

#[test]
fn an_idle_connection_is_closed() {
    let daemon = quick("idle_timeout = \"1s\"");
    let body = good();
    let head = format!(
        "POST /clickpay HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = http::connect(daemon.public).unwrap();
    stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    assert_eq!(http::read_answer(&mut stream).unwrap().text(), "SUCCESS");
    let began = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(began.elapsed() < Duration::from_secs(10), "it stayed open");
}

#[test]
fn a_connection_above_the_limit_is_told_to_come_again() {
    let daemon = quick("max_connections = 4");
    let held: Vec<TcpStream> = (0..4).map(|_| http::connect(daemon.public).unwrap()).collect();
    eventually("they are counted", || if daemon.metric("quittance_connections") >= 4.0 { Ok(()) } else { Err(()) });
    let mut stream = http::connect(daemon.public).unwrap();
    let answer: std::io::Result<Answer> = http::read_answer(&mut stream);
    if let Ok(answer) = answer {
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").is_some());
    }
    drop(held);
    eventually("there is room again", || {
        let answer = http::send(daemon.public, &request("POST", "/clickpay", &[JSON], &good()));
        answer.ok().filter(|a| a.text() == "SUCCESS").ok_or(())
    });
}

#[test]
fn a_sender_that_hangs_up_cannot_stop_the_commit_half_way() {
    let daemon = Daemon::start();
    for number in 0..40 {
        let fields =
            fixtures::paygol(json!({ "transaction_id": format!("T-{number}"), "custom": format!("o {number}") }));
        let signature = fixtures::paygol_signature(&fields, fixtures::PAYGOL_SECRET);
        let bytes = request("POST", "/paygol", &[JSON, ("X-Pg-Sig", &signature)], fields.to_string().as_bytes());
        let mut stream = http::connect(daemon.public).unwrap();
        stream.write_all(&bytes).unwrap();
        drop(stream);
    }
    // Each was kept whole or not at all, and what comes again is told once.
    for number in 0..40 {
        let fields =
            fixtures::paygol(json!({ "transaction_id": format!("T-{number}"), "custom": format!("o {number}") }));
        assert_eq!(daemon.paygol(&fields).status, 200);
    }
    assert_eq!(daemon.feed().len(), 40);
}
