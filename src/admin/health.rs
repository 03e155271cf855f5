//! What machines ask every few seconds: is it alive, does it take notifications, how much of everything.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::problem::Problem;
use super::{Desk, Shared};
use crate::store::Readiness;

/// 200 while the process works.
pub async fn healthz() -> Json<Value> {
    Json(json!({ "alive": true }))
}

/// 200 when notifications can be kept, else 503 with the reason and, while keys are read, how far that is. A broker
/// that is down does not count: nothing is lost by it.
pub async fn readyz(State(desk): State<Shared>) -> Response {
    let (status, document) = readiness(&desk);
    (status, [(header::CACHE_CONTROL, "no-store")], Json(document)).into_response()
}

fn readiness(desk: &Desk) -> (StatusCode, Value) {
    let readiness = if desk.draining.is_cancelled() { Readiness::Draining } else { desk.store.readiness() };
    let not_ready = |reason: &str| (StatusCode::SERVICE_UNAVAILABLE, json!({ "ready": false, "reason": reason }));
    match readiness {
        Readiness::Ready => (StatusCode::OK, json!({ "ready": true })),
        Readiness::Rebuilding(share) => {
            let (status, mut document) = not_ready(&format!("the keys are being read: {:.0} %", share * 100.0));
            document["progress"] = json!(share);
            (status, document)
        }
        Readiness::Storage(why) => not_ready(&format!("the disk refuses: {why}")),
        Readiness::Draining => not_ready("stopping"),
    }
}

/// Prometheus' text format.
pub async fn metrics(State(desk): State<Shared>) -> Result<Response, Problem> {
    // The process's own figures and the store's come from files: off the connection's task.
    let read = desk.clone();
    let page = desk.tasks.spawn_blocking("metrics page", move || {
        for (source, bytes) in read.quarantine.iter().flat_map(|quarantine| quarantine.figures().bytes) {
            read.metrics.quarantine_bytes(&source, bytes);
        }
        read.metrics.ready(readiness(&read).0 == StatusCode::OK);
        // A disk that is asked for nothing says nothing: the figures stay what they were.
        if let Ok(disk) = rustix::fs::statvfs(&read.sites.now().config.store.path) {
            read.metrics.disk(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        }
        read.metrics.page(&read.store.figures(), read.clock.now())
    });
    match page.await {
        Ok(Ok(page)) => {
            Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response())
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the metrics page");
            Err(Problem::internal())
        }
        Err(_) => Err(Problem::internal()),
    }
}
