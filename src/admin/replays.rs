//! Sending kept events again: looking first, beginning, watching, stopping.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{bad_query, limit};
use super::problem::Problem;
use super::{Shared, document};
use crate::replay::request::Request;

/// The list's questions, as they are sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    after: Option<String>,
    limit: Option<String>,
}

/// 201 with the replay once it is in the journal; with `dry_run` 200, a count and a sample, and nothing is written.
pub async fn start(State(desk): State<Shared>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let value: Value = document::read(&headers, &body)?;
    let request = Request::read(&value, desk.clock.now()).map_err(Problem::unprocessable)?;
    if request.dry_run {
        let (preview, _) = desk.replays.preview(&request).await?;
        let answer = json!({ "matched": preview.count, "gone": preview.gone, "sample": preview.sample });
        return Ok(Json(answer).into_response());
    }
    let reason = if request.reason.is_empty() { "no reason given" } else { &request.reason };
    let by = document::by_hand(&headers, reason)?;
    let who = by.who().to_owned();
    let replay = desk.replays.start(&request, by).await?;
    tracing::warn!(replay = replay.id, who, "a replay was begun");
    let place = format!("/api/v1/replays/{}", replay.id);
    let headers = [(header::LOCATION, place), (header::CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::CREATED, headers, Json(desk.replays.shown(&replay))).into_response())
}

/// A page, oldest first; `next` is the last one's id, and ids are ordered by time.
pub async fn list(
    State(desk): State<Shared>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(question) = question.map_err(bad_query)?;
    let limit = limit(question.limit.as_deref())?;
    let after = question.after.unwrap_or_default();
    if !after.is_empty() && uuid::Uuid::try_parse(&after).is_err() {
        return Err(Problem::bad_request("after: use the \"next\" of the page before"));
    }
    let mut replays = desk.store.replays();
    replays.retain(|replay| replay.id > after);
    let more = replays.len() > limit;
    replays.truncate(limit);
    let next = replays.last().filter(|_| more).map(|replay| replay.id.clone());
    let shown: Vec<Value> = replays.iter().map(|replay| desk.replays.shown(replay)).collect();
    Ok(Json(json!({ "replays": shown, "next": next })))
}

/// One of them.
pub async fn show(State(desk): State<Shared>, id: Result<Path<String>, PathRejection>) -> Result<Json<Value>, Problem> {
    let Path(id) = id.map_err(|_| missing())?;
    let replay = desk.store.replay(&id).ok_or_else(missing)?;
    Ok(Json(desk.replays.shown(&replay)))
}

/// 202: it stops; what it has written is sent all the same. 409 for one that has ended.
pub async fn cancel(
    State(desk): State<Shared>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|_| missing())?;
    let replay = desk.store.replay(&id).ok_or_else(missing)?;
    let by = document::by_hand(&headers, "canceled")?;
    let who = by.who().to_owned();
    if replay.ended.is_some() || !desk.replays.cancel(&id, by).await? {
        return Err(Problem::conflict("this replay has ended").with("replay", desk.replays.shown(&replay)));
    }
    tracing::warn!(replay = id, who, "a replay was canceled");
    Ok((StatusCode::ACCEPTED, Json(desk.replays.shown(&replay))).into_response())
}

fn missing() -> Problem {
    Problem::not_found("no replay has this id")
}
