//! Ending a hold by hand.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap};
use serde::Deserialize;
use serde_json::json;

use super::problem::Problem;
use super::{Shared, document};
use crate::event::EventId;
use crate::store::operate::Ruling;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    verdict: String,
    reason: String,
}

/// 201 with the new event's id once it is synced; 200 where it was settled so before.
pub async fn settle(
    State(desk): State<Shared>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found("no event has this id");
    let Path(id) = id.map_err(|_| missing())?;
    let event = EventId::parse(&id).ok_or_else(missing)?;
    let document: Document = document::read(&headers, &body)?;
    let words = "verdict: fulfil, to book what the held event says, or refuse, where there is nothing to book";
    let ruling = Ruling::parse(&document.verdict).ok_or_else(|| Problem::unprocessable(words))?;
    let by = document::by_hand(&headers, &document.reason)?;
    let who = by.who().to_owned();
    let settlement = desk.store.settle_by_hand(event, ruling, by).await?;
    let (existed, new) = (settlement.existed, settlement.event);
    tracing::warn!(%event, settled_by = %new, %ruling, who, existed, "a hold was ended by hand");
    let status = if settlement.existed { StatusCode::OK } else { StatusCode::CREATED };
    let answer = json!({ "id": settlement.event, "settles": settlement.settles, "verdict": settlement.verdict });
    Ok((status, [(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}
