//! What the sink refused for good: the list, one of them, and another try.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{bad_query, limit};
use super::problem::Problem;
use super::{Shared, document};
use crate::event::{EventId, Position};
use crate::replay::request::Request;
use crate::store::cursor::PageCursor;

/// The list's questions, as they are sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    after: Option<String>,
    limit: Option<String>,
}

/// A page of open dead letters, oldest first.
pub async fn list(
    State(desk): State<Shared>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(question) = question.map_err(bad_query)?;
    let limit = limit(question.limit.as_deref())?;
    let id = desk.store.id();
    let after = question.after.as_deref().map(|cursor| PageCursor::parse(cursor, id)).transpose();
    let after = after.map_err(|_| Problem::bad_request("after: use the \"next\" of the page before"))?;
    let after = after.unwrap_or_default();
    let mut letters = desk.read("dead letters", move |store| store.dead_letters(after, limit + 1)).await?;
    let more = letters.len() > limit;
    letters.truncate(limit);
    let last = letters.last().filter(|_| more).map(|letter| PageCursor::new(id, letter.position).to_string());
    Ok(Json(json!({ "dead_letters": letters, "next": last })))
}

/// The dead letters of one event, with the event itself.
pub async fn show(State(desk): State<Shared>, id: Result<Path<String>, PathRejection>) -> Result<Json<Value>, Problem> {
    let event = event(id)?;
    let letters = desk.read("dead letter", move |store| store.dead_letters_of(event)).await?;
    let first = letters.first().ok_or_else(missing)?;
    let before = Position(first.position.0.saturating_sub(1));
    let entries = desk.read("dead letter", move |store| store.events(before, 1)).await?;
    let json = entries.first().filter(|entry| entry.position == first.position).map(|entry| entry.event.clone());
    let json: Value = json.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    Ok(Json(json!({ "dead_letters": letters, "event": json })))
}

/// 202: it is on its way to the sink again, as a replay of its own.
pub async fn retry(
    State(desk): State<Shared>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let event = event(id)?;
    let letters = desk.read("dead letter", move |store| store.dead_letters_of(event)).await?;
    if letters.is_empty() {
        return Err(missing());
    }
    let by = document::by_hand(&headers, "dead letter tried again")?;
    let wanted = json!({ "ids": [event], "dead_letters": true, "rate": "max" });
    let request = Request::read(&wanted, desk.clock.now()).map_err(Problem::unprocessable)?;
    let replay = desk.replays.start(&request, by).await?;
    tracing::warn!(%event, replay = replay.id, "a dead letter is tried again");
    Ok((StatusCode::ACCEPTED, Json(desk.replays.shown(&replay))).into_response())
}

fn event(id: Result<Path<String>, PathRejection>) -> Result<EventId, Problem> {
    let Path(id) = id.map_err(|_| missing())?;
    EventId::parse(&id).ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::not_found("no event of this id is a dead letter")
}
