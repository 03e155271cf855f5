//! The API's own description, OpenAPI 3.1, at `/api/v1/openapi.json`.
//!
//! Words come from the enums that the answers are made from, the event from its published schema. A test asks a real
//! daemon and holds every answer against this, and looks that no route is missing.

mod operating;
mod schemas;

use axum::Json;
use http::StatusCode;
use serde_json::{Map, Value, json};

use schemas::{component, components};

/// The document.
pub async fn openapi() -> Json<Value> {
    Json(document())
}

/// What can be asked at a path.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    /// Parameters of the query: name, what it is, schema.
    query: Vec<(&'static str, &'static str, Value)>,
    /// The component that is sent.
    body: Option<&'static str>,
    /// Answers of success.
    answers: Vec<Answer>,
    /// Problems that only this question can meet.
    problems: &'static [StatusCode],
    /// Nobody is asked who they are.
    open: bool,
    /// Kept in the journal with the name of whoever asked.
    by_hand: bool,
}

struct Answer {
    status: StatusCode,
    what: &'static str,
    media: &'static str,
    /// `None`: text.
    component: Option<&'static str>,
}

const JSON: &str = "application/json";

fn answer(status: StatusCode, what: &'static str, component: &'static str) -> Answer {
    Answer { status, what, media: JSON, component: Some(component) }
}

impl Operation {
    fn get(path: &'static str, id: &'static str, summary: &'static str, answers: Vec<Answer>) -> Self {
        Self {
            method: "get",
            path,
            id,
            summary,
            query: Vec::new(),
            body: None,
            answers,
            problems: &[],
            open: false,
            by_hand: false,
        }
    }

    fn document(&self) -> Value {
        let mut parameters: Vec<Value> = named_in(self.path)
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        parameters.extend(self.query.iter().map(|(name, what, schema)| {
            json!({ "name": name, "in": "query", "required": false, "description": what, "schema": schema })
        }));
        if self.by_hand {
            let what = "who asks, for the audit; api where left out";
            parameters.push(json!({ "name": super::document::OPERATOR, "in": "header", "required": false,
                "description": what, "schema": { "type": "string" } }));
        }
        let mut responses = Map::new();
        for answer in &self.answers {
            let schema = answer.component.map_or_else(|| json!({ "type": "string" }), component);
            let mut content = Map::new();
            content.insert(answer.media.to_owned(), json!({ "schema": schema }));
            if self.id == "events" {
                content.insert("text/event-stream".to_owned(), json!({ "schema": { "type": "string" } }));
            }
            if answer.media.is_empty() {
                content.clear();
            }
            let response = json!({ "description": answer.what, "content": content });
            responses.insert(answer.status.as_str().to_owned(), response);
        }
        let asked = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        let problems = self.problems.iter().chain(if self.open { &[][..] } else { &asked });
        for status in problems {
            let reference = json!({ "$ref": "#/components/responses/Problem" });
            responses.insert(status.as_str().to_owned(), reference);
        }
        // Whatever else goes wrong is told in the same way.
        responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
        let mut document = json!({
            "operationId": self.id, "summary": self.summary, "parameters": parameters, "responses": responses,
        });
        if let Some(body) = self.body {
            document["requestBody"] = json!({ "required": true, "content": { JSON: { "schema": component(body) } } });
        }
        if self.open {
            document["security"] = json!([]);
        }
        document
    }
}

/// The names between braces.
fn named_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn operations() -> Vec<Operation> {
    let text = || json!({ "type": "string" });
    let when = "RFC 3339, or how long ago, like 2h";
    let filters = vec![
        ("source", "of this source", schemas::source()),
        ("order_id", "of this order", text()),
        ("outcome", "kept in this way", schemas::outcome()),
        ("status", "in this state", schemas::status()),
        ("verdict", "with this verdict", schemas::verdict()),
        ("since", when, text()),
        ("until", when, text()),
    ];
    let page = [
        ("after", "the \"next\" of the page before", text()),
        ("limit", "1 to 1000; above: 1000", json!({ "type": "integer", "minimum": 1, "default": 100 })),
    ];
    let ok = |what, component| vec![answer(StatusCode::OK, what, component)];
    vec![
        Operation {
            open: true,
            ..Operation::get("/healthz", "healthz", "Does the process work?", ok("it does", "Alive"))
        },
        Operation {
            open: true,
            answers: vec![
                answer(StatusCode::OK, "notifications can be kept", "Readiness"),
                answer(StatusCode::SERVICE_UNAVAILABLE, "they cannot, and why", "Readiness"),
            ],
            ..Operation::get("/readyz", "readyz", "Can notifications be kept?", Vec::new())
        },
        Operation {
            open: true,
            answers: vec![Answer {
                status: StatusCode::OK,
                what: "Prometheus' text format",
                media: "text/plain",
                component: None,
            }],
            ..Operation::get("/metrics", "metrics", "Figures for Prometheus.", Vec::new())
        },
        Operation {
            query: vec![
                ("after", "a cursor that the feed gave; without it from the oldest kept", text()),
                ("limit", "1 to 1000; above: 1000", json!({ "type": "integer", "minimum": 1, "default": 100 })),
                ("wait", "0s to 60s: how long to wait for something to come", text()),
                ("consumer", "a name of [A-Za-z0-9._-]: `after` acknowledges up to there for it", text()),
            ],
            problems: &[StatusCode::BAD_REQUEST, StatusCode::GONE],
            ..Operation::get("/api/v1/events", "events", "The feed, in journal order.", ok("events", "Feed"))
        },
        Operation {
            query: filters.into_iter().chain(page).collect(),
            problems: &[StatusCode::BAD_REQUEST, StatusCode::GONE],
            ..Operation::get(
                "/api/v1/notifications",
                "notifications",
                "What was kept, newest first. A page may end before it is full, or be empty: only a next of null is the end.",
                ok("a page", "Page"),
            )
        },
        Operation {
            problems: &[StatusCode::NOT_FOUND],
            ..Operation::get(
                "/api/v1/notifications/{id}",
                "notification",
                "One notification with everything that is kept about it.",
                ok("it", "Kept"),
            )
        },
        Operation {
            problems: &[StatusCode::NOT_FOUND],
            ..Operation::get(
                "/api/v1/orders/{source}/{order_id}",
                "order",
                "What happened to an order, oldest first.",
                ok("its history", "Order"),
            )
        },
        Operation {
            method: "post",
            body: Some("Expectation"),
            answers: vec![
                answer(StatusCode::CREATED, "registered, and on the disk", "Registered"),
                answer(StatusCode::OK, "the same was registered before", "Registered"),
            ],
            problems: &[
                StatusCode::BAD_REQUEST,
                StatusCode::CONFLICT,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                StatusCode::UNPROCESSABLE_ENTITY,
                StatusCode::SERVICE_UNAVAILABLE,
            ],
            ..Operation::get("/api/v1/expectations", "expect", "Say which payment is expected.", Vec::new())
        },
        Operation::get("/api/v1/status", "status", "What runs.", ok("the whole daemon on a page", "Status")),
        Operation::get("/api/v1/openapi.json", "openapi", "This document.", ok("OpenAPI 3.1", "OpenApi")),
    ]
}

fn document() -> Value {
    let mut paths = Map::new();
    for operation in operations().into_iter().chain(operating::operations()) {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.document();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Quittance",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The admin listener: what the order system and the operator ask. Keys that are null are present.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "security": [{ "token": [] }],
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "Once admin.token is set; else loopback alone." },
            },
            "responses": {
                "Problem": {
                    "description": "RFC 9457; `detail` says what to do.",
                    "content": { "application/problem+json": { "schema": component("Problem") } },
                },
            },
            "schemas": components(),
        },
    })
}
