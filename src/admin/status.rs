//! One page about the whole daemon, for an operator and for `check --live`.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::{Desk, Shared};
use crate::event::rfc3339;
use crate::relay::health::{Health, Snapshot};

/// Version, store, sources, relay and config.
pub async fn status(State(desk): State<Shared>) -> Result<Json<Value>, Problem> {
    let read = desk.clone();
    let document = desk.tasks.spawn_blocking("status", move || document(&read)).await;
    document.map(Json).map_err(|_| Problem::internal())
}

fn document(desk: &Desk) -> Value {
    let figures = desk.store.figures();
    // The feed is read from here: whoever reads this is connected to it.
    let feed = Snapshot { connected: true, blocked: false, last_error: None };
    let relay = desk.relay.as_ref().map_or(feed, Health::snapshot);
    let (loaded_at, last_reload_error) = desk.reloads.snapshot();
    let id: String = desk.store.id().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": rfc3339(desk.started_at),
        "store": {
            "id": id,
            "head": figures.head,
            "journal_bytes": figures.journal_bytes,
            "index_lag": figures.index_lag,
            "restored": figures.restored,
        },
        "sources": sources(desk),
        "relay": {
            "sink": if desk.relay.is_some() { "amqp" } else { "feed" },
            "connected": relay.connected,
            "backlog": figures.backlog,
            "oldest_seconds": figures.oldest.as_secs(),
            "blocked": relay.blocked,
            "last_error": relay.last_error,
        },
        "config": { "loaded_at": rfc3339(loaded_at), "last_reload_error": last_reload_error },
    })
}

fn sources(desk: &Desk) -> Vec<Value> {
    let site = desk.sites.now();
    let source = |endpoint: &crate::listener::Endpoint| {
        let outcomes = endpoint.metrics.outcomes().into_iter();
        let outcomes: Map<String, Value> = outcomes.map(|(word, count)| (word.to_owned(), count.into())).collect();
        json!({
            "name": endpoint.source,
            "provider": endpoint.provider.word(),
            "url": format!("{}{}", site.config.listener.public_url, endpoint.path),
            "ordinary_verdict": endpoint.provider.ordinary().verdict,
            "last_received_at": endpoint.metrics.last_received().map(rfc3339),
            "outcomes": outcomes,
        })
    };
    site.routes.endpoints().iter().map(|endpoint| source(endpoint)).collect()
}
