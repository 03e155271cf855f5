//! The readers of the feed whose acknowledgement counts: nothing is retired that one of them has not acknowledged.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::StatusCode;
use http::header::HeaderMap;
use serde_json::{Value, json};

use super::problem::Problem;
use super::{Desk, Shared, document};

/// Each with the cursor up to which it has everything.
pub async fn list(State(desk): State<Shared>) -> Json<Value> {
    let head = *desk.store.head().borrow();
    let consumer = |consumer: crate::store::replaying::Consumer| {
        json!({
            "name": consumer.name,
            "cursor": desk.feed.cursor(consumer.position),
            "behind": head.0.saturating_sub(consumer.position.0),
            "configured": is_configured(&desk, &consumer.name),
        })
    };
    Json(json!({ "consumers": desk.store.consumers().into_iter().map(consumer).collect::<Vec<_>>() }))
}

/// 204 once it is forgotten: nothing is kept for it any more. One that asks again is added again.
pub async fn forget(
    State(desk): State<Shared>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let missing = || Problem::not_found("no reader of the feed has this name");
    let Path(name) = name.map_err(|_| missing())?;
    if is_configured(&desk, &name) {
        return Err(Problem::conflict("it is in the configuration: take it out of relay.feed.consumers first"));
    }
    let by = document::by_hand(&headers, "forgotten")?;
    let who = by.who().to_owned();
    let forget = desk.store.forget_consumer(&name, by);
    // To its end also where whoever asks hangs up: what cannot be written down is taken back.
    let forgotten = desk.tasks.spawn("forget consumer", forget).await;
    if !forgotten.map_err(|_| Problem::internal())?? {
        return Err(missing());
    }
    tracing::warn!(consumer = name, who, "a reader of the feed was forgotten");
    Ok(StatusCode::NO_CONTENT)
}

fn is_configured(desk: &Desk, name: &str) -> bool {
    desk.sites.now().config.feed_consumers.iter().any(|configured| configured == name)
}
