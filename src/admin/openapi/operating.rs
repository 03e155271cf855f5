//! What an operator changes: settlements, replays, dead letters, readers of the feed.

use http::StatusCode;
use serde_json::{Value, json};

use super::schemas::{self, count, id, list, moment, object, or_null, text, yes_or_no};
use super::{Answer, Operation, answer, component};
use crate::event::Verdict;

/// What may go wrong with any change.
const REFUSALS: &[StatusCode] = &[
    StatusCode::BAD_REQUEST,
    StatusCode::NOT_FOUND,
    StatusCode::CONFLICT,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::SERVICE_UNAVAILABLE,
];

pub(super) fn operations() -> Vec<Operation> {
    let ok = |what, component| vec![answer(StatusCode::OK, what, component)];
    let change = |method, path, id, summary, answers| Operation {
        method,
        problems: REFUSALS,
        by_hand: true,
        ..Operation::get(path, id, summary, answers)
    };
    let missing: &[StatusCode] = &[StatusCode::NOT_FOUND];
    vec![
        Operation {
            body: Some("Ruling"),
            ..change(
                "post",
                "/api/v1/events/{id}/settle",
                "settle",
                "End a hold by hand: a new event that settles the held one.",
                vec![
                    answer(StatusCode::CREATED, "settled, and on the disk", "Settlement"),
                    answer(StatusCode::OK, "it was settled so before", "Settlement"),
                ],
            )
        },
        Operation {
            query: vec![
                ("after", "the \"next\" of the page before", text()),
                ("limit", "1 to 1000; above: 1000", json!({ "type": "integer", "minimum": 1, "default": 100 })),
            ],
            problems: &[StatusCode::BAD_REQUEST],
            ..Operation::get(
                "/api/v1/replays",
                "replays",
                "Replays, oldest first: all that run, and the 256 that ended last.",
                ok("a page", "Replays"),
            )
        },
        Operation {
            body: Some("ReplayRequest"),
            ..change(
                "post",
                "/api/v1/replays",
                "replay",
                "Send kept events again; with dry_run only count them.",
                vec![
                    answer(StatusCode::CREATED, "begun, and on the disk", "Replay"),
                    answer(StatusCode::OK, "dry_run: nothing was written", "ReplayPreview"),
                ],
            )
        },
        Operation {
            body: Some("ReparseRequest"),
            ..change(
                "post",
                "/api/v1/replays/reparse",
                "reparse",
                "Run today's code over what was kept, a page at a time, and say what differs. Nothing is written or sent.",
                ok("what differs", "Reparsed"),
            )
        },
        Operation {
            problems: missing,
            ..Operation::get("/api/v1/replays/{id}", "replay_state", "One replay.", ok("it", "Replay"))
        },
        change(
            "delete",
            "/api/v1/replays/{id}",
            "cancel_replay",
            "Stop a replay; what it has written is sent all the same.",
            vec![answer(StatusCode::ACCEPTED, "it stops", "Replay")],
        ),
        Operation {
            query: vec![
                ("after", "the \"next\" of the page before", text()),
                ("limit", "1 to 1000; above: 1000", json!({ "type": "integer", "minimum": 1, "default": 100 })),
            ],
            problems: &[StatusCode::BAD_REQUEST],
            ..Operation::get(
                "/api/v1/dead-letters",
                "dead_letters",
                "Events that the sink refused for good, oldest first.",
                ok("a page", "DeadLetters"),
            )
        },
        Operation {
            problems: missing,
            ..Operation::get(
                "/api/v1/dead-letters/{id}",
                "dead_letter",
                "The dead letters of one event, with the event.",
                ok("them", "DeadLetterWithEvent"),
            )
        },
        change(
            "post",
            "/api/v1/dead-letters/{id}/retry",
            "retry_dead_letter",
            "Hand it to the sink again, as a replay of its own.",
            vec![answer(StatusCode::ACCEPTED, "it is on its way", "Replay")],
        ),
        Operation {
            query: vec![
                ("source", "only of this source", text()),
                ("after", "the \"next\" of the page before", text()),
                ("limit", "1 to 1000; above: 1000", json!({ "type": "integer", "minimum": 1, "default": 100 })),
            ],
            problems: &[StatusCode::BAD_REQUEST, StatusCode::SERVICE_UNAVAILABLE],
            ..Operation::get(
                "/api/v1/quarantine",
                "quarantine",
                "What was refused and may yet prove genuine, oldest first.",
                ok("a page", "Quarantine"),
            )
        },
        Operation {
            body: Some("ReverifyRequest"),
            ..change(
                "post",
                "/api/v1/quarantine/reverify",
                "reverify",
                "Try today's keys on what is kept, a page at a time, and let the genuine in.",
                ok("what came of it", "Reverified"),
            )
        },
        Operation {
            problems: missing,
            ..Operation::get(
                "/api/v1/quarantine/{id}",
                "quarantined",
                "One request, its secrets cut out.",
                ok("it", "Quarantined"),
            )
        },
        Operation {
            body: Some("Release"),
            ..change(
                "post",
                "/api/v1/quarantine/{id}/release",
                "release",
                "Let one in by hand, unproven and held: its event names no order and no amount, and can only be settled as \
                 refuse.",
                vec![
                    answer(StatusCode::CREATED, "let in, and on the disk", "LetIn"),
                    answer(StatusCode::OK, "it was let in before", "LetIn"),
                ],
            )
        },
        Operation::get(
            "/api/v1/consumers",
            "consumers",
            "The readers of the feed that count.",
            ok("them", "Consumers"),
        ),
        change(
            "delete",
            "/api/v1/consumers/{name}",
            "forget_consumer",
            "Keep nothing for a reader any more.",
            vec![Answer { status: StatusCode::NO_CONTENT, what: "forgotten", media: "", component: None }],
        ),
    ]
}

pub(super) fn components() -> Vec<(&'static str, Value)> {
    let states = json!({ "enum": ["running", "done", "canceled", "failed"] });
    let rate = json!({ "anyOf": [text(), { "type": "number" }], "description": "events a second, or max" });
    vec![
        ("Ruling", object([("verdict", json!({ "enum": ["fulfil", "refuse"] })), ("reason", text())])),
        ("Settlement", object([("id", id()), ("settles", or_null(id())), ("verdict", schemas::words(Verdict::ALL))])),
        (
            "ReplayRequest",
            object([
                ("source?", schemas::source()),
                ("order_id?", text()),
                ("outcome?", schemas::outcome()),
                ("status?", schemas::status()),
                ("verdict?", schemas::verdict()),
                ("since?", text()),
                ("until?", text()),
                ("ids?", list(text())),
                ("dead_letters?", yes_or_no()),
                ("dry_run?", yes_or_no()),
                ("rate?", rate),
                ("exchange?", text()),
                ("routing_key?", text()),
                ("reason?", text()),
            ]),
        ),
        (
            "ReparseRequest",
            object([
                ("source?", schemas::source()),
                ("order_id?", text()),
                ("outcome?", schemas::outcome()),
                ("status?", schemas::status()),
                ("verdict?", schemas::verdict()),
                ("since?", text()),
                ("until?", text()),
                ("ids?", list(text())),
                ("after?", text()),
            ]),
        ),
        (
            "Reparsed",
            object([
                ("looked_at", count()),
                ("same", count()),
                ("differ", count()),
                ("refused", count()),
                ("undecidable", count()),
                ("gone", count()),
                ("differences", list(component("Reparse"))),
                ("next", or_null(text())),
            ]),
        ),
        (
            "Reparse",
            object([
                ("id", id()),
                ("event_id", or_null(id())),
                ("source", schemas::source()),
                ("order_id", or_null(text())),
                ("received_at", moment()),
                ("today", json!({ "enum": ["differs", "refused", "undecidable"] })),
                ("reason", or_null(text())),
                (
                    "fields",
                    list(object([
                        ("name", text()),
                        // Of a person nothing is shown but that it differs.
                        ("shown", yes_or_no()),
                        ("kept", json!({})),
                        ("today", json!({})),
                    ])),
                ),
            ]),
        ),
        ("ReplayPreview", object([("matched", count()), ("gone", count()), ("sample", list(component("Item")))])),
        (
            "Replay",
            object([
                ("id", text()),
                ("state", states),
                ("asked_by", or_null(text())),
                ("started_at", or_null(moment())),
                ("matched", or_null(count())),
                ("gone", or_null(count())),
                ("redelivered", count()),
                ("request", json!({ "description": "as it was asked for" })),
                ("error", or_null(text())),
            ]),
        ),
        ("Replays", object([("replays", list(component("Replay"))), ("next", or_null(text()))])),
        (
            "DeadLetter",
            object([
                // All but the sink are null where the record that says them is damaged.
                ("id", or_null(id())),
                ("sink", text()),
                ("at", or_null(moment())),
                ("attempts", or_null(count())),
                ("reason", or_null(text())),
                ("source", or_null(schemas::source())),
                ("type", or_null(text())),
                ("order_id", or_null(text())),
                ("notification_id", or_null(id())),
            ]),
        ),
        ("DeadLetters", object([("dead_letters", list(component("DeadLetter"))), ("next", or_null(text()))])),
        (
            "DeadLetterWithEvent",
            object([("dead_letters", list(component("DeadLetter"))), ("event", or_null(component("PaymentEvent")))]),
        ),
        (
            "Quarantine",
            object([
                (
                    "entries",
                    list(object([
                        ("id", text()),
                        ("source", schemas::source()),
                        ("received_at", moment()),
                        ("remote", text()),
                        ("reason", text()),
                        ("bytes", count()),
                    ])),
                ),
                ("next", or_null(text())),
            ]),
        ),
        (
            "Quarantined",
            object([
                ("source", schemas::source()),
                ("reason", text()),
                ("received_at", moment()),
                ("secrets_cut", count()),
                ("request", json!({ "description": "method, path, headers, body (base64), remote" })),
            ]),
        ),
        ("Release", object([("reason", text())])),
        ("ReverifyRequest", object([("source?", or_null(text())), ("after?", or_null(text()))])),
        ("LetIn", object([("id", id()), ("event_id", or_null(id())), ("verdict", schemas::verdict())])),
        (
            "Reverified",
            object([
                ("looked_at", count()),
                ("let_in", count()),
                ("known", count()),
                ("refused", count()),
                ("undecidable", count()),
                ("notifications", list(component("LetIn"))),
                ("next", or_null(text())),
            ]),
        ),
        (
            "Consumers",
            object([(
                "consumers",
                list(object([("name", text()), ("cursor", text()), ("behind", count()), ("configured", yes_or_no())])),
            )]),
        ),
    ]
}
