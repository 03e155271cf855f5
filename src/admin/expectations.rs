//! Registering what the order system expects: the HTTP around [`crate::expectation`].

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap};
use serde_json::json;

use super::problem::Problem;
use super::{Desk, Shared};
use crate::event::rfc3339;
use crate::expectation::{self, DocumentError};
use crate::store::Registration;

/// 201 with the return URL once it is synced; 200 where the same was registered before.
pub async fn register(State(desk): State<Shared>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let (registration, return_url) = read(&desk, &headers, &body)?;
    let (source, order) = (registration.source.clone(), registration.order.clone());
    let registered = desk.store.expect(registration).await?;
    let status = if registered.existed { StatusCode::OK } else { StatusCode::CREATED };
    tracing::info!(source = source.as_str(), existed = registered.existed, "expectation registered");
    let document = json!({
        "source": source,
        "order_id": order,
        "return_url": return_url,
        "expires_at": rfc3339(registered.expires_at),
    });
    Ok((status, [(header::CACHE_CONTROL, "no-store")], Json(document)).into_response())
}

fn read(desk: &Desk, headers: &HeaderMap, body: &[u8]) -> Result<(Registration, Option<String>), Problem> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json"));
    }
    let value = expectation::document(body).map_err(|error| match error {
        DocumentError::NotJson { .. } => Problem::bad_request(format!("the body {error}")),
        DocumentError::Repeated(_) => Problem::bad_request(error.to_string()),
    })?;
    let site = desk.sites.now();
    let provider_at = |at: usize| site.routes.endpoints().get(at).map(|endpoint| &*endpoint.provider);
    expectation::read(&value, &site.config.sources, provider_at, &site.config.listener.public_url, desk.clock.now())
        .map_err(Problem::unprocessable)
}
