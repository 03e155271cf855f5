//! Today's code over the requests as they were kept, and what it says otherwise. Only a look: nothing is written or sent.
//!
//! What a buyer typed is named where it differs, never shown: whoever may see it has `show`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use http::header::HeaderMap;
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::{Desk, Shared, document};
use crate::event::{Assurance, Position, Reason, Status};
use crate::provider::{Claim, Received, Verified};
use crate::replay::request::Request;
use crate::store::StoreError;
use crate::store::cursor::PageCursor;
use crate::store::replaying::{KeptWhole, Selection};

/// Notifications that one question looks at: some tens of milliseconds of signatures.
const LOOKED_AT: usize = 500;
/// Members of an event's data that say nothing of a person: they are shown.
const SHOWN: [&str; 11] = [
    "kind",
    "status",
    "order_id",
    "transaction_id",
    "amount",
    "requested_amount",
    "fee",
    "method",
    "occurred_at",
    "assurance",
    "unproven",
];
/// Why something is held whatever its fields say: then they were not looked at.
const DOUBTS: [Reason; 5] =
    [Reason::Conflict, Reason::Contradiction, Reason::WrongIndicator, Reason::Clock, Reason::Restored];
/// What a provider itself says against a notification that is authentic.
const PROBLEMS: [Reason; 4] = [Reason::FieldSet, Reason::OrderPattern, Reason::AmountUnreadable, Reason::NoOrder];

/// What today's code says of one.
enum Today {
    Same,
    Differs(Vec<Value>),
    Refused(&'static str),
    /// Its source is gone, or a secret that was cut out of it is none of today's.
    Undecidable,
    /// Nothing is left of the request.
    Gone,
}

/// A page: counts, what differs, and where to go on. The document is a replay's, with `after`.
pub async fn reparse(State(desk): State<Shared>, headers: HeaderMap, body: Bytes) -> Result<Json<Value>, Problem> {
    let mut value: Map<String, Value> = document::read(&headers, &body)?;
    let id = desk.store.id();
    let after = match value.remove("after") {
        None | Some(Value::Null) => Position(0),
        Some(after) => after
            .as_str()
            .and_then(|text| PageCursor::parse(text, id).ok())
            .ok_or_else(|| Problem::bad_request("after: use the \"next\" of the page before"))?,
    };
    if let Some(other) =
        ["dead_letters", "dry_run", "rate", "exchange", "routing_key"].iter().find(|n| value.contains_key(**n))
    {
        return Err(Problem::unprocessable(format!("{other}: nothing is sent, leave it out")));
    }
    let request = Request::read(&Value::Object(value), desk.clock.now()).map_err(Problem::unprocessable)?;
    let at = Arc::clone(&desk);
    let page = desk.tasks.spawn_blocking("reparse", move || look(&at, &request.selection, after));
    let mut page = page.await.map_err(|_| Problem::internal())??;
    page.next = page.next.filter(|at| *at < *desk.store.head().borrow());
    let next = page.next.map(|at| PageCursor::new(id, at).to_string());
    Ok(Json(json!({
        "looked_at": page.looked_at, "same": page.same, "differ": page.differ, "refused": page.refused,
        "undecidable": page.undecidable, "gone": page.gone, "differences": page.differences, "next": next,
    })))
}

#[derive(Default)]
struct Page {
    looked_at: u64,
    same: u64,
    differ: u64,
    refused: u64,
    undecidable: u64,
    gone: u64,
    differences: Vec<Value>,
    next: Option<Position>,
}

fn look(desk: &Desk, selection: &Selection, after: Position) -> Result<Page, StoreError> {
    let up_to = *desk.store.head().borrow();
    let found = desk.store.find(selection, after, up_to, LOOKED_AT)?;
    let mut page = Page { gone: found.gone, next: Some(found.looked_up_to), ..Page::default() };
    for at in found.events {
        // What was settled by hand came in no request.
        let Some(kept) = desk.store.kept_whole(at)? else { continue };
        page.looked_at += 1;
        let (word, reason, fields) = match today(desk, &kept) {
            Today::Same => {
                page.same += 1;
                continue;
            }
            Today::Gone => {
                page.gone += 1;
                continue;
            }
            Today::Differs(fields) => {
                page.differ += 1;
                ("differs", None, fields)
            }
            Today::Refused(reason) => {
                page.refused += 1;
                ("refused", Some(reason), Vec::new())
            }
            Today::Undecidable => {
                page.undecidable += 1;
                ("undecidable", None, Vec::new())
            }
        };
        let item = &kept.item;
        page.differences.push(json!({
            "id": item.id, "event_id": item.event_id, "source": item.source, "order_id": item.order_id,
            "received_at": item.received_at, "today": word, "reason": reason, "fields": fields,
        }));
    }
    Ok(page)
}

fn today(desk: &Desk, kept: &KeptWhole) -> Today {
    let (Some((request, scars)), Some(event)) = (&kept.request, &kept.event) else { return Today::Gone };
    let site = desk.sites.now();
    let endpoint = site.routes.endpoints().iter().find(|endpoint| endpoint.source == kept.item.source);
    let Some(endpoint) = endpoint else { return Today::Undecidable };
    let rest = request.path.strip_prefix(&endpoint.path).unwrap_or_default().to_owned();
    let request = Received { rest, ..request.clone() };
    let secrets = endpoint.provider.secrets(&request);
    let Some(whole) = desk.store.heal(&request, scars, &secrets) else { return Today::Undecidable };
    match endpoint.provider.verify(whole) {
        Ok(_) if kept.item.assurance == Assurance::Operator => {
            Today::Differs(vec![differs("assurance", Some((json!("operator"), json!("proven"))))])
        }
        Ok(now) => match differences(kept, event, &now) {
            fields if fields.is_empty() => Today::Same,
            fields => Today::Differs(fields),
        },
        // Nobody could prove it then either.
        Err(_) if kept.item.assurance == Assurance::Operator => Today::Same,
        Err(refused) => Today::Refused(refused.refusal.label()),
    }
}

/// A member that differs, with both values where they may be shown.
fn differs(name: &str, shown: Option<(Value, Value)>) -> Value {
    let is_shown = shown.is_some();
    let (kept, today) = shown.unwrap_or_default();
    json!({ "name": name, "shown": is_shown, "kept": kept, "today": today })
}

fn differences(kept: &KeptWhole, event: &Value, now: &Verified) -> Vec<Value> {
    let (then, today) = (&event["data"], said(now));
    // What a browser's return says is for its order's expectation to tell.
    let by_indicator = matches!(now.claim, Claim::Indicator { .. });
    let mut fields = Vec::new();
    for name in SHOWN.iter().filter(|name| !(by_indicator && **name == "status")) {
        if then[*name] != today[*name] {
            fields.push(differs(name, Some((then[*name].clone(), today[*name].clone()))));
        }
    }
    if then["custom"] != today["custom"] {
        fields.push(differs("custom", None));
    }
    for group in ["payer", "provider_fields"] {
        let members = |value: &Value| value[group].as_object().cloned().unwrap_or_default();
        let (then, today) = (members(then), members(&today));
        let names: BTreeSet<&String> = then.keys().chain(today.keys()).collect();
        let other = names.into_iter().filter(|name| then.get(*name) != today.get(*name));
        fields.extend(other.map(|name| differs(&format!("{group}.{name}"), None)));
    }
    if kept.scheme != now.scheme {
        fields.push(differs("scheme", Some((json!(kept.scheme), json!(now.scheme)))));
    }
    // How repeats and contradictions are told: hashes, which say nothing to anybody.
    let hashes = [
        ("idempotency", !by_indicator && kept.idempotency != now.idempotency),
        ("digest", !by_indicator && kept.digest != now.digest),
        ("signed", kept.signed != now.signed),
        ("getid", kept.getid != now.getid),
    ];
    fields.extend(hashes.iter().filter(|(_, other)| *other).map(|(name, _)| differs(name, None)));
    if !kept.item.reasons.iter().any(|reason| DOUBTS.contains(reason)) {
        let only = |reasons: &[Reason]| -> BTreeSet<String> {
            reasons.iter().filter(|reason| PROBLEMS.contains(reason)).map(Reason::to_string).collect()
        };
        let (then, now) = (only(&kept.item.reasons), only(&problems(now)));
        if then != now {
            fields.push(differs("problems", Some((json!(then), json!(now)))));
        }
    }
    fields
}

/// What speaks against it, a state that nobody knows included.
fn problems(now: &Verified) -> Vec<Reason> {
    let unknown = matches!(now.claim, Claim::Status(Status::Unknown)) && now.assurance != Assurance::Browser;
    if now.problems.is_empty() && unknown { vec![Reason::FieldSet] } else { now.problems.clone() }
}

/// What it says today, in an event's words.
fn said(now: &Verified) -> Value {
    let details = &now.details;
    let status = match &now.claim {
        Claim::Status(status) => Some(*status),
        Claim::Indicator { .. } => None,
    };
    let provider_fields: BTreeMap<&String, &String> = details.provider_fields.iter().map(|(n, v)| (n, v)).collect();
    json!({
        "kind": now.kind, "status": status, "order_id": details.order_id, "transaction_id": details.transaction_id,
        "amount": details.amount, "requested_amount": details.requested_amount, "fee": details.fee,
        "method": details.method, "payer": details.payer, "custom": details.custom, "occurred_at": details.occurred_at,
        "provider_fields": provider_fields, "assurance": now.assurance, "unproven": now.unproven,
    })
}
