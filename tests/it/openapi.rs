//! The API's description says what the API does: every route is in it, and real answers are as it says.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixtures;
use crate::harness::{Config, Daemon};
use crate::http::{Answer, request};

/// Every method and path of the router, from its source.
fn routes() -> BTreeSet<(String, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin.rs");
    let text = std::fs::read_to_string(source).unwrap();
    let route = regex::Regex::new(r#"\.route\(\s*"([^"]+)",\s*([^\n]+)\)"#).unwrap();
    let method = regex::Regex::new(r"\b(get|post|put|delete|patch)\(").unwrap();
    let of = |found: regex::Captures<'_>| {
        let path = found[1].to_owned();
        let methods = method.captures_iter(&found[2]).map(|found| found[1].to_owned()).collect::<Vec<_>>();
        methods.into_iter().map(move |method| (method, path.clone())).collect::<Vec<_>>()
    };
    let all: BTreeSet<_> = route.captures_iter(&text).flat_map(of).collect();
    assert!(all.len() >= 10 && all.contains(&("delete".to_owned(), "/api/v1/replays/{id}".to_owned())), "{all:?}");
    all
}

fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let methods = |(path, item): (&String, &Value)| {
        let path = path.clone();
        item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
    };
    paths.flat_map(methods).collect()
}

#[test]
fn every_route_is_described_and_every_description_has_a_route() {
    let daemon = Daemon::start();
    let document = daemon.ask("/api/v1/openapi.json");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(operations(&document), routes());
    let mut ids = BTreeSet::new();
    for (method, path) in operations(&document) {
        let operation = &document["paths"][&path][&method];
        assert!(ids.insert(fixtures::text(&operation["operationId"])), "{path}: an id stands twice");
        let asked: Vec<&Value> = operation["parameters"].as_array().unwrap().iter().collect();
        let named = path.split('/').filter(|part| part.starts_with('{')).count();
        assert_eq!(asked.iter().filter(|parameter| parameter["in"] == "path").count(), named, "{path}");
        // Something answers there: neither "nothing at this path" nor "another method".
        let target = path.replace("{source}", "paygol").replace(['{', '}'], "");
        let answer = daemon.admin_send(&request(&method.to_uppercase(), &target, &[], b""));
        assert_ne!(answer.status, 405, "{method} {path}");
        assert!(answer.status != 404 || !answer.text().contains("at this path"), "{method} {path}: {answer:?}");
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    let reference = regex::Regex::new(r##""\$ref":"#(/components/[^"]+)""##).unwrap();
    for found in reference.captures_iter(&text) {
        assert!(document.pointer(&found[1]).is_some(), "{} leads nowhere", &found[1]);
    }
}

/// Holds an answer against what the document says of it.
#[track_caller]
fn fits(document: &Value, method: &str, path: &str, answer: &Answer) {
    let operation = &document["paths"][path][method];
    let responses = operation["responses"].as_object().unwrap_or_else(|| panic!("{method} {path} is not described"));
    let mut response = responses.get(&answer.status.to_string()).unwrap_or(&responses["default"]);
    if let Some(reference) = response["$ref"].as_str() {
        response = document.pointer(&reference[1..]).unwrap();
    }
    let media = answer.header("content-type").unwrap().split(';').next().unwrap();
    let schema = &response["content"][media]["schema"];
    assert!(schema.is_object(), "{method} {path}: {} as {media} is not described", answer.status);
    if media == "text/plain" {
        return;
    }
    let whole = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": schema["$ref"],
        "components": document["components"] });
    let validator = jsonschema::draft202012::new(&whole).expect("a schema");
    let body = answer.json();
    let problems: Vec<_> = validator.iter_errors(&body).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(problems.is_empty(), "{method} {path}: {problems:#?}\nin {body:#}");
}

#[test]
fn real_answers_are_as_they_are_described() {
    let daemon = Daemon::start();
    let document = daemon.ask("/api/v1/openapi.json");
    let fields = fixtures::paygol(json!({ "custom": "100042" }));
    let expectation = json!({ "source": "paygol", "order_id": "100042",
        "amount": { "value": "7500.00", "currency": "CLP" }, "kind": "payment" });
    for status in [201, 200] {
        let answer = daemon.expect(&expectation);
        assert_eq!(answer.status, status);
        fits(&document, "post", "/api/v1/expectations", &answer);
    }
    assert_eq!(daemon.paygol(&fields).status, 200);
    assert_eq!(daemon.paygol(&fixtures::with(fields, json!({ "price": "9500.00" }))).status, 200);
    assert_eq!(daemon.legacy(&fixtures::legacy(json!({}))).status, 200);
    let signed = fixtures::clickpay_body(&fixtures::pay_in(json!({})), "clickpay-1024");
    assert_eq!(daemon.post("/clickpay", "application/json", signed.to_string().as_bytes()).status, 200);

    for (path, target) in [
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
        ("/metrics", "/metrics"),
        ("/api/v1/events", "/api/v1/events"),
        ("/api/v1/events", "/api/v1/events?limit=1&consumer=shop"),
        ("/api/v1/notifications", "/api/v1/notifications"),
        ("/api/v1/notifications", "/api/v1/notifications?limit=1&verdict=hold"),
        ("/api/v1/orders/{source}/{order_id}", "/api/v1/orders/paygol/100042"),
        ("/api/v1/status", "/api/v1/status"),
        ("/api/v1/openapi.json", "/api/v1/openapi.json"),
        ("/api/v1/replays", "/api/v1/replays"),
        ("/api/v1/dead-letters", "/api/v1/dead-letters"),
        ("/api/v1/consumers", "/api/v1/consumers"),
    ] {
        let answer = daemon.admin_get(target);
        assert_eq!(answer.status, 200, "{target}");
        fits(&document, "get", path, &answer);
    }
    for (document_of, status) in
        [(json!({ "dry_run": true, "source": "paygol" }), 200), (json!({ "source": "paygol" }), 201)]
    {
        let answer = daemon.admin_post("/api/v1/replays", &document_of);
        assert_eq!(answer.status, status, "{answer:?}");
        fits(&document, "post", "/api/v1/replays", &answer);
    }
    let answer = daemon.admin_post("/api/v1/replays/reparse", &json!({ "source": "paygol" }));
    assert_eq!(answer.status, 200, "{answer:?}");
    fits(&document, "post", "/api/v1/replays/reparse", &answer);
    let replays = daemon.ask("/api/v1/replays");
    let replay = fixtures::text(&replays["replays"][0]["id"]);
    fits(&document, "get", "/api/v1/replays/{id}", &daemon.admin_get(&format!("/api/v1/replays/{replay}")));
    let held = daemon.ask("/api/v1/notifications?verdict=hold&source=paygol-ipn");
    let held = fixtures::text(&held["notifications"][0]["event_id"]);
    let settle = json!({ "verdict": "refuse", "reason": "a test" });
    let answer = daemon.admin_post(&format!("/api/v1/events/{held}/settle"), &settle);
    assert_eq!(answer.status, 201, "{answer:?}");
    fits(&document, "post", "/api/v1/events/{id}/settle", &answer);
    let page = daemon.ask("/api/v1/notifications?source=paygol");
    let items = page["notifications"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    for item in items {
        let answer = daemon.admin_get(&format!("/api/v1/notifications/{}", fixtures::text(&item["id"])));
        fits(&document, "get", "/api/v1/notifications/{id}", &answer);
    }
}

#[test]
fn every_error_is_a_problem_document() {
    let daemon = Daemon::with(Config { admin: "token = \"0123456789abcdef-token\"".to_owned(), ..Config::default() });
    let bearer = [("Authorization", "Bearer 0123456789abcdef-token"), ("Content-Type", "application/json")];
    let ask = |method: &str, target: &str, body: &[u8]| daemon.admin_send(&request(method, target, &bearer, body));
    let document = ask("GET", "/api/v1/openapi.json", b"").json();
    let get = |path: &'static str, target: &'static str, status: u16| ("get", path, target, &b""[..], status);
    let post =
        |body: &'static [u8], status: u16| ("post", "/api/v1/expectations", "/api/v1/expectations", body, status);
    for (method, path, target, body, status) in [
        get("/api/v1/events", "/api/v1/events?after=nonsense", 400),
        get("/api/v1/events", "/api/v1/events?limit=0", 400),
        get("/api/v1/notifications", "/api/v1/notifications?colour=red", 400),
        get("/api/v1/notifications", "/api/v1/notifications?verdict=red", 400),
        get("/api/v1/notifications/{id}", "/api/v1/notifications/1", 404),
        get("/api/v1/orders/{source}/{order_id}", "/api/v1/orders/nobody/1", 404),
        post(b"{", 400),
        post(b"{}", 422),
    ] {
        let answer = ask(&method.to_uppercase(), target, body);
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{target}");
        fits(&document, method, path, &answer);
    }
    for (method, target, status) in [("GET", "/nowhere", 404), ("DELETE", "/api/v1/status", 405)] {
        let answer = ask(method, target, b"");
        assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/problem+json")));
        assert_eq!(answer.json()["status"], status);
    }
    let unknown = daemon.admin_get("/api/v1/status");
    assert_eq!((unknown.status, unknown.header("content-type")), (401, Some("application/problem+json")));
    fits(&document, "get", "/api/v1/status", &unknown);
}
