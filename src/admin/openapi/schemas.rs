//! The shapes of questions and answers. Every object is closed: what is not told here is not answered.

use serde_json::{Map, Value, json};

use crate::event::{Assurance, ExpectationResult, Kind, Reason, Status, Verdict};
use crate::store::KeptOutcome;

/// A reference to a component.
pub(super) fn component(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

pub(super) fn words<T: std::fmt::Display>(all: &[T]) -> Value {
    json!({ "type": "string", "enum": all.iter().map(T::to_string).collect::<Vec<_>>() })
}
pub(super) fn source() -> Value {
    json!({ "type": "string", "pattern": "^[a-z0-9-]{1,32}$" })
}
pub(super) fn outcome() -> Value {
    words(KeptOutcome::ALL)
}
pub(super) fn status() -> Value {
    words(Status::ALL)
}
pub(super) fn verdict() -> Value {
    words(Verdict::ALL)
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}
pub(super) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}
pub(super) fn yes_or_no() -> Value {
    json!({ "type": "boolean" })
}
pub(super) fn moment() -> Value {
    json!({ "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$", "format": "date-time" })
}
pub(super) fn id() -> Value {
    json!({ "type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$" })
}
fn hash() -> Value {
    json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
}
pub(super) fn or_null(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}
pub(super) fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// A closed object; a name that ends with `?` may be absent.
pub(super) fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, schema) in members {
        let plain = name.trim_end_matches('?');
        if plain == name {
            required.push(name.to_owned());
        }
        properties.insert(plain.to_owned(), schema);
    }
    json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties })
}

fn item() -> Vec<(&'static str, Value)> {
    vec![
        ("id", id()),
        ("event_id", or_null(id())),
        ("source", source()),
        ("provider", text()),
        ("outcome", outcome()),
        ("received_at", moment()),
        ("kind", words(Kind::ALL)),
        ("status", status()),
        ("order_id", or_null(text())),
        ("transaction_id", or_null(text())),
        ("amount", or_null(component("Money"))),
        ("assurance", words(Assurance::ALL)),
        ("expectation", words(ExpectationResult::ALL)),
        ("verdict", verdict()),
        ("reasons", list(words(Reason::ALL))),
        ("times_seen", count()),
        ("last_seen_at", moment()),
    ]
}

fn closed(members: Vec<(&'static str, Value)>) -> Value {
    let required: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties })
}

/// The event's published schema, as a part of this document: its own references lead through it.
fn event() -> Value {
    let mut event: Value =
        serde_json::from_str(include_str!("../../../schema/payment-event.v1.json")).unwrap_or_default();
    if let Some(members) = event.as_object_mut() {
        members.shift_remove("$schema");
        members.shift_remove("$id");
    }
    lead_through(&mut event, "#/components/schemas/PaymentEvent");
    event
}

fn lead_through(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get_mut("$ref")
                && let Some(rest) = reference.strip_prefix('#')
            {
                *reference = format!("{place}{rest}");
            }
            members.values_mut().for_each(|member| lead_through(member, place));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| lead_through(item, place)),
        _ => {}
    }
}

/// All components by name.
pub(super) fn components() -> Map<String, Value> {
    let mut kept = item();
    kept.push((
        "request",
        or_null(object([
            ("method", text()),
            ("path", text()),
            ("headers", json!({ "type": "object", "additionalProperties": text() })),
            ("body", json!({ "type": "string", "contentEncoding": "base64" })),
            ("remote", text()),
        ])),
    ));
    let verification = object([("scheme", text()), ("key", count()), ("signed_hash", or_null(hash()))]);
    kept.push(("verification", verification));
    kept.push(("event", or_null(component("PaymentEvent"))));
    let delivery = object([("sink", text()), ("at", moment()), ("attempt", count()), ("result", text())]);
    kept.push(("deliveries", list(delivery)));
    let outcomes = object([("accepted", count()), ("duplicate", count()), ("conflict", count()), ("refused", count())]);
    let entry_words = json!({ "enum": ["expectation", "notification", "event", "delivery", "settlement"] });
    let all = [
        ("PaymentEvent", event()),
        (
            "Money",
            object([("value", text()), ("currency", text()), ("minor_units", or_null(json!({ "type": "integer" })))]),
        ),
        ("Item", closed(item())),
        ("Kept", closed(kept)),
        ("Page", object([("notifications", list(component("Item"))), ("next", or_null(text()))])),
        (
            "Feed",
            object([
                (
                    "entries",
                    list(object([
                        ("cursor", text()),
                        ("replay", or_null(text())),
                        ("event", component("PaymentEvent")),
                    ])),
                ),
                ("next", text()),
            ]),
        ),
        (
            "Order",
            object([
                ("source", source()),
                ("order_id", text()),
                // The rest of an entry depends on what it is.
                (
                    "entries",
                    list(json!({ "type": "object", "required": ["at", "what"],
                        "properties": { "at": moment(), "what": entry_words } })),
                ),
            ]),
        ),
        (
            "Expectation",
            object([
                ("source", source()),
                ("order_id", text()),
                ("kind?", words(Kind::ALL)),
                ("amount", object([("value", text()), ("currency", text())])),
                ("session_id?", text()),
                ("indicator_status?", text()),
                ("expires_at?", moment()),
            ]),
        ),
        (
            "Registered",
            object([
                ("source", source()),
                ("order_id", text()),
                ("return_url", or_null(text())),
                ("expires_at", moment()),
            ]),
        ),
        (
            "Status",
            object([
                ("version", text()),
                ("started_at", moment()),
                (
                    "store",
                    object([
                        ("id", json!({ "type": "string", "pattern": "^[0-9a-f]{32}$" })),
                        ("head", count()),
                        ("journal_bytes", count()),
                        ("index_lag", count()),
                        ("restored", yes_or_no()),
                    ]),
                ),
                (
                    "sources",
                    list(object([
                        ("name", source()),
                        ("provider", text()),
                        ("url", text()),
                        ("ordinary_verdict", verdict()),
                        ("last_received_at", or_null(moment())),
                        ("outcomes", outcomes),
                    ])),
                ),
                (
                    "relay",
                    object([
                        ("sink", json!({ "enum": ["amqp", "feed"] })),
                        ("connected", yes_or_no()),
                        ("backlog", count()),
                        ("oldest_seconds", count()),
                        ("blocked", yes_or_no()),
                        ("last_error", or_null(text())),
                    ]),
                ),
                ("config", object([("loaded_at", moment()), ("last_reload_error", or_null(text()))])),
            ]),
        ),
        ("Alive", object([("alive", yes_or_no())])),
        (
            "Readiness",
            object([
                ("ready", yes_or_no()),
                ("reason?", text()),
                ("progress?", json!({ "type": "number", "minimum": 0, "maximum": 1 })),
            ]),
        ),
        (
            "Problem",
            json!({
                "type": "object",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    "type": text(),
                    "title": text(),
                    "status": { "type": "integer", "minimum": 400, "maximum": 599 },
                    "detail": text(),
                    "oldest": { "type": "string", "description": "410: the oldest cursor that is valid" },
                },
            }),
        ),
        ("OpenApi", json!({ "type": "object", "required": ["openapi", "info", "paths", "components"] })),
    ];
    let all = all.into_iter().chain(super::operating::components());
    all.map(|(name, schema)| (name.to_owned(), schema)).collect()
}
