//! The same API without a socket, for a command that has opened the store itself: so that what it prints does not depend
//! on whether a daemon runs.

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::{Desk, router};

/// Answers questions of this process. Who may ask is not its business: whoever opened the store could read its files.
pub struct Inside(Router);

impl Inside {
    /// Over a desk of this process.
    pub fn new(desk: Desk) -> Self {
        Self(router(desk.into()))
    }

    /// The answer to a question: path and query, who asks, and JSON for a POST. Total: what cannot be asked is a 400.
    pub async fn ask(&self, method: Method, target: &str, who: &str, body: Bytes) -> (StatusCode, Bytes) {
        let request = Request::builder().method(method).uri(target).header(header::CONTENT_TYPE, "application/json");
        let request = request.header(super::document::OPERATOR, who);
        let Ok(request) = request.body(Full::new(body)) else { return (StatusCode::BAD_REQUEST, Bytes::new()) };
        let response = match TowerToHyperService::new(self.0.clone()).call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (parts, body): (_, Body) = response.into_parts();
        // A body that breaks off is a stream's; nothing here streams.
        (parts.status, body.collect().await.map(|body| body.to_bytes()).unwrap_or_default())
    }
}
