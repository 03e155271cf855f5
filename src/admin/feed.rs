//! The feed over HTTP: one question and its answer, or a stream of server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{self, HeaderMap};
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::api::{bad_query, limit};
use super::problem::Problem;
use super::{Desk, Shared};
use crate::config::{self, units};
use crate::event::Position;
use crate::sink::feed::{Batch, Feed, FeedError};

/// The feed's questions, as they are sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    after: Option<String>,
    limit: Option<String>,
    wait: Option<String>,
    consumer: Option<String>,
}

const MAX_WAIT: Duration = Duration::from_secs(60);
/// A line that says nothing, so that whatever lies between sees that the stream lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Batches that wait for a reader that is slower than the journal.
const STREAMED_AHEAD: usize = 2;

/// Events after a cursor.
pub async fn events(
    State(desk): State<Shared>,
    headers: HeaderMap,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(question) = question.map_err(bad_query)?;
    let limit = limit(question.limit.as_deref())?;
    let wait = wait(question.wait.as_deref())?;
    let streams = accepts_stream(&headers);
    // A browser that reconnects repeats its first URL: what it says it has is newer than that.
    let last_id = headers.get("last-event-id").filter(|_| streams);
    let last_id = last_id.map(|id| id.to_str().map_err(|_| FeedError::Malformed)).transpose()?;
    let after = last_id.filter(|id| !id.is_empty()).or(question.after.as_deref());
    let position = desk.feed.position(after)?;
    if let Some(consumer) = question.consumer.as_deref() {
        acknowledge(&desk, consumer, after.map(|_| position))?;
    }
    if streams {
        return Ok(stream(&desk, position, limit));
    }
    let batch = desk.feed.read(position, limit, wait).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(batch)).into_response())
}

/// Who asks without a cursor has nothing yet, but its name counts from now on.
fn acknowledge(desk: &Desk, consumer: &str, has: Option<Position>) -> Result<(), Problem> {
    if !config::is_consumer(consumer) {
        return Err(Problem::bad_request("consumer: a name of [A-Za-z0-9._-], 1 to 64 characters"));
    }
    desk.feed.acknowledge(consumer, has.unwrap_or_default());
    Ok(())
}

/// `wait`: 0s to 60s, 0s where left out.
fn wait(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text else { return Ok(Duration::ZERO) };
    let wait = units::duration(text).filter(|wait| *wait <= MAX_WAIT);
    wait.ok_or_else(|| Problem::bad_request("wait: a time from 0s to 60s"))
}

fn accepts_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut media = accepted.flat_map(|value| value.split(',')).map(|media| media.split(';').next().unwrap_or(media));
    media.any(|media| media.trim().eq_ignore_ascii_case("text/event-stream"))
}

fn stream(desk: &Desk, position: Position, limit: usize) -> Response {
    let (pieces, body) = mpsc::channel(STREAMED_AHEAD);
    desk.tasks.spawn("feed stream", tell(desk.feed.clone(), desk.tasks.stopping(), position, limit, pieces));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::new(Pieces(body))).into_response()
}

/// Reads on for as long as somebody listens.
async fn tell(
    feed: Feed,
    stopping: tokio_util::sync::CancellationToken,
    mut position: Position,
    limit: usize,
    pieces: mpsc::Sender<Bytes>,
) {
    while !stopping.is_cancelled() {
        let batch = tokio::select! {
            () = pieces.closed() => return,
            batch = feed.read(position, limit, HEARTBEAT) => batch,
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the feed's stream ends");
                return;
            }
        };
        position = batch.position;
        let Ok(piece) = render(&batch) else { return };
        if pieces.send(piece).await.is_err() {
            return;
        }
    }
}

fn render(batch: &Batch) -> Result<Bytes, serde_json::Error> {
    if batch.entries.is_empty() {
        // A comment, and the cursor up to which nothing came: a reader that reconnects need not start further back.
        return Ok(Bytes::from(format!(": nothing\nid: {}\n\n", batch.next)));
    }
    let mut out = Vec::new();
    for entry in &batch.entries {
        out.extend_from_slice(format!("id: {}\ndata: ", entry.cursor).as_bytes());
        serde_json::to_writer(&mut out, entry)?; // one line: what is kept is compact JSON
        out.extend_from_slice(b"\n\n");
    }
    Ok(out.into())
}

/// A body that comes piece by piece.
struct Pieces(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded() {
        assert_eq!(wait(None).ok(), Some(Duration::ZERO));
        assert_eq!(wait(Some("60s")).ok(), Some(MAX_WAIT));
        assert_eq!(wait(Some("1m")).ok(), Some(MAX_WAIT));
        for bad in ["61s", "5", "", "-1s", "forever"] {
            assert!(wait(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stream_is_given_to_those_who_take_one() {
        let of = |accept: &'static str| {
            accepts_stream(&[(header::ACCEPT, header::HeaderValue::from_static(accept))].into_iter().collect())
        };
        assert!(of("text/event-stream") && of("application/json, Text/Event-Stream;q=0.5"));
        assert!(!of("application/json") && !of("*/*") && !of("text/event-streams"));
    }
}
