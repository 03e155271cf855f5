//! What was refused and may yet prove genuine: the list, one request, letting one in by hand, trying today's keys on all.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::{bad_query, limit};
use super::problem::Problem;
use super::{Desk, Shared, document};
use crate::event::{SourceName, rfc3339};
use crate::listener::Endpoint;
use crate::listener::commit::Note;
use crate::provider::Reverified;
use crate::quarantine::{Entry, Kept, Quarantine, QuarantineError, QuarantineId};
use crate::store::operate::Released;
use crate::store::{ByHand, Committed, Outcome, Unavailable};

/// The list's questions, as they are sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    source: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    source: Option<String>,
    after: Option<String>,
}

/// Requests that one question looks at again: some tens of milliseconds of signatures, and a commit for each genuine one.
const LOOKED_AT: usize = 500;

/// A page, oldest first.
pub async fn list(
    State(desk): State<Shared>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(question) = question.map_err(bad_query)?;
    let limit = limit(question.limit.as_deref())?;
    let entries = entries(&quarantine(&desk)?, question.source.as_deref(), question.after.as_deref(), limit + 1)?;
    let next =
        (entries.len() > limit).then(|| entries.get(limit.saturating_sub(1)).map(|(_, entry)| entry.id.to_string()));
    let shown: Vec<Value> = entries.iter().take(limit).map(|(source, entry)| shown(source, entry)).collect();
    Ok(Json(json!({ "entries": shown, "next": next.flatten() })))
}

/// One of them with its request, secrets cut out.
pub async fn show(State(desk): State<Shared>, id: Result<Path<String>, PathRejection>) -> Result<Json<Value>, Problem> {
    let (_, kept) = read(&desk, id).await?;
    let request = &kept.received;
    let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut headers = Map::new();
    for (name, value) in &request.headers {
        headers.insert(name.to_string(), String::from_utf8_lossy(value.as_bytes()).into());
    }
    Ok(Json(json!({
        "source": kept.source, "reason": kept.reason, "received_at": rfc3339(request.at),
        "secrets_cut": kept.scars.len(),
        "request": {
            "method": request.method.as_str(), "path": format!("{}{query}", request.path), "headers": headers,
            "body": BASE64_STANDARD.encode(&request.body), "remote": request.remote.to_string(),
        },
    })))
}

/// 201: let in by hand, unproven and held. 200 where it was let in before.
pub async fn release(
    State(desk): State<Shared>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let document: Reason = document::read(&headers, &body)?;
    let by = document::by_hand(&headers, &document.reason)?;
    let who = by.who().to_owned();
    let (id, kept) = read(&desk, id).await?;
    let site = desk.sites.now();
    let endpoint = site.routes.endpoints().iter().find(|endpoint| endpoint.source == kept.source);
    let endpoint = endpoint.ok_or_else(|| Problem::conflict("its source is configured no more"))?;
    let provider = endpoint.provider.word();
    let released =
        Released { id: id.to_string(), source: kept.source, provider, received: kept.received, scars: kept.scars };
    let committed = desk.store.release_by_hand(released, by).await?;
    // Written first, then removed: a crash in between lets nothing in twice, since its key is its id.
    remove(&desk, id).await?;
    tracing::warn!(quarantined = %id, notification = %committed.notification, who, "released by hand");
    let status = if committed.outcome == Outcome::New { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [(header::CACHE_CONTROL, "no-store")], Json(let_in(&committed))).into_response())
}

/// Tries today's configuration on what is kept, and lets the genuine in. A page at a time: `next` says where to go on.
pub async fn reverify(State(desk): State<Shared>, headers: HeaderMap, body: Bytes) -> Result<Json<Value>, Problem> {
    let which: Which = document::read(&headers, &body)?;
    let by = document::by_hand(&headers, "verified again")?;
    let quarantine = quarantine(&desk)?;
    let mut page = entries(&quarantine, which.source.as_deref(), which.after.as_deref(), LOOKED_AT + 1)?;
    let more = page.len() > LOOKED_AT;
    page.truncate(LOOKED_AT);
    let next = page.last().filter(|_| more).map(|(_, entry)| entry.id.to_string());
    // Who asks may hang up: what has begun is done to its end, and each that is let in says by whom.
    let task = desk.tasks.spawn("reverify", let_in_the_genuine(Arc::clone(&desk), quarantine, page, by));
    let Outcomes { looked_at, let_in, known, refused, undecidable } = task.await.map_err(|_| Problem::internal())??;
    Ok(Json(json!({
        "looked_at": looked_at, "let_in": let_in.len(), "known": known, "refused": refused,
        "undecidable": undecidable, "notifications": let_in, "next": next,
    })))
}

/// What came of a page.
#[derive(Default)]
struct Outcomes {
    looked_at: usize,
    let_in: Vec<Value>,
    /// Told before, or one contradiction of many: nobody is told more.
    known: usize,
    refused: usize,
    undecidable: usize,
}

async fn let_in_the_genuine(
    desk: Shared,
    quarantine: Quarantine,
    page: Vec<(SourceName, Entry)>,
    by: ByHand,
) -> Result<Outcomes, Problem> {
    let (stopping, mut outcomes) = (desk.tasks.stopping(), Outcomes::default());
    for (_, entry) in &page {
        if stopping.is_cancelled() {
            return Err(Unavailable::Draining.into()); // what is left stays where it is
        }
        outcomes.looked_at += 1;
        match again(&desk, &quarantine, entry.id).await? {
            Again::Genuine(reverified, endpoint) => {
                let note = Note::of_reverified(endpoint, reverified.arrived(), reverified.key());
                let committed = desk.store.readmit(*reverified, by.clone()).await;
                note.write(&committed);
                let committed = committed?;
                remove(&desk, entry.id).await?;
                if committed.outcome == Outcome::Duplicate || committed.event.is_none() {
                    outcomes.known += 1;
                } else {
                    let (quarantined, who) = (entry.id, by.who());
                    tracing::warn!(%quarantined, notification = %committed.notification, who, "genuine now: let in");
                    outcomes.let_in.push(let_in(&committed));
                }
            }
            Again::Refused => outcomes.refused += 1,
            Again::Undecidable => outcomes.undecidable += 1,
            Again::Gone => {}
        }
    }
    Ok(outcomes)
}

/// What another look says of a request.
enum Again {
    Genuine(Box<Reverified>, Arc<Endpoint>),
    Refused,
    /// A secret that was cut out of it is none that today's configuration knows.
    Undecidable,
    Gone,
}

async fn again(desk: &Desk, quarantine: &Quarantine, id: QuarantineId) -> Result<Again, Problem> {
    let (quarantine, site) = (quarantine.clone(), desk.sites.now());
    let look = move || -> Result<Again, QuarantineError> {
        let kept = match quarantine.read(id) {
            Ok(Some(kept)) => kept,
            Ok(None) => return Ok(Again::Gone),
            Err(QuarantineError::Damaged { .. }) => return Ok(Again::Undecidable),
            Err(error) => return Err(error),
        };
        let endpoint = site.routes.endpoints().iter().find(|endpoint| endpoint.source == kept.source);
        let Some(endpoint) = endpoint else { return Ok(Again::Undecidable) };
        Ok(verify(&quarantine, endpoint, &kept))
    };
    let looked = desk.tasks.spawn_blocking("reverify", look).await.map_err(|_| Problem::internal())?;
    looked.map_err(unusable)
}

fn verify(quarantine: &Quarantine, endpoint: &Arc<Endpoint>, kept: &Kept) -> Again {
    let provider = &*endpoint.provider;
    let Some(whole) = quarantine.whole(kept, &provider.secrets(&kept.received)) else { return Again::Undecidable };
    match Reverified::try_new(provider, whole) {
        Ok(reverified) => Again::Genuine(Box::new(reverified), Arc::clone(endpoint)),
        Err(_) => Again::Refused,
    }
}

fn quarantine(desk: &Desk) -> Result<Quarantine, Problem> {
    desk.quarantine.clone().ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the quarantine could not be opened; the log says why")
    })
}

/// Entries with ids above one, oldest first, of one source or of all that there are.
fn entries(
    quarantine: &Quarantine,
    source: Option<&str>,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(SourceName, Entry)>, Problem> {
    let wrong = || Problem::bad_request("source: a name of [a-z0-9-], 1 to 32 characters");
    let source = source.map(|name| SourceName::new(name).ok_or_else(wrong)).transpose()?;
    let after = after.map(|id| QuarantineId::parse(id).ok_or_else(|| Problem::bad_request("after: an id of the list")));
    let after = after.transpose()?;
    let sources = quarantine.sources().into_iter().filter(|name| source.as_ref().is_none_or(|wanted| wanted == name));
    let mut all: Vec<(SourceName, Entry)> = sources
        .flat_map(|name| quarantine.entries(&name).into_iter().map(move |entry| (name.clone(), entry)))
        .collect();
    all.retain(|(_, entry)| after.is_none_or(|after| entry.id > after));
    all.sort_by_key(|(_, entry)| entry.id);
    all.truncate(limit);
    Ok(all)
}

fn shown(source: &SourceName, entry: &Entry) -> Value {
    json!({
        "id": entry.id.to_string(), "source": source, "received_at": rfc3339(entry.received_at),
        "remote": entry.remote.to_string(), "reason": entry.reason, "bytes": entry.bytes,
    })
}

async fn read(desk: &Desk, id: Result<Path<String>, PathRejection>) -> Result<(QuarantineId, Kept), Problem> {
    let missing = || Problem::not_found("nothing in the quarantine has this id");
    let Path(id) = id.map_err(|_| missing())?;
    let id = QuarantineId::parse(&id).ok_or_else(missing)?;
    let quarantine = quarantine(desk)?;
    let read = desk.tasks.spawn_blocking("quarantine read", move || quarantine.read(id)).await;
    let kept = read.map_err(|_| Problem::internal())?.map_err(unusable)?;
    Ok((id, kept.ok_or_else(missing)?))
}

async fn remove(desk: &Desk, id: QuarantineId) -> Result<(), Problem> {
    let quarantine = quarantine(desk)?;
    desk.tasks.spawn_blocking("quarantine remove", move || quarantine.remove(id)).await.map_err(|_| Problem::internal())
}

fn let_in(committed: &Committed) -> Value {
    json!({ "id": committed.notification, "event_id": committed.event, "verdict": committed.verdict })
}

fn unusable(error: QuarantineError) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "the quarantine");
    match error {
        QuarantineError::Damaged { .. } => Problem::conflict("the quarantined request is damaged"),
        QuarantineError::Folder { .. } | QuarantineError::Thread(_) => Problem::internal(),
    }
}
