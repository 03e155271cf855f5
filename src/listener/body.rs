//! Takes a request's body in, up to a limit, with as little copying as the network allows.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};

use super::respond::Rejection;
use super::watch::Watch;

/// The whole body.
///
/// One that came in one piece is that piece, not copied. Otherwise memory grows with what was received, never with
/// what was announced: a sender who promises 64 KiB and stalls costs what it sent.
///
/// # Errors
/// Above `limit` bytes, after the watch's time, or framing that cannot be read.
pub async fn collect(mut body: Incoming, limit: usize, watch: &Watch) -> Result<Bytes, Rejection> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(Rejection::BodyTooLarge);
    }
    let mut whole = Bytes::new();
    let mut grown = BytesMut::new();
    while let Some(piece) = next_piece(&mut body, watch).await? {
        let length = whole.len() + grown.len() + piece.len();
        if length > limit {
            return Err(Rejection::BodyTooLarge);
        }
        if whole.is_empty() && grown.is_empty() {
            whole = piece;
            continue;
        }
        if grown.is_empty() {
            let announced = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(limit);
            grown.reserve(announced.min(length * 4).max(length));
            grown.extend_from_slice(&std::mem::take(&mut whole));
        }
        grown.extend_from_slice(&piece);
    }
    Ok(if grown.is_empty() { whole } else { grown.freeze() })
}

/// The next bytes; `None` at the end. Looks at the watch each time it is polled, and the connection polls it once the
/// time is over.
async fn next_piece(body: &mut Incoming, watch: &Watch) -> Result<Option<Bytes>, Rejection> {
    loop {
        let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending if watch.overdue() => Poll::Ready(Err(Rejection::TooSlow)),
            Poll::Pending => Poll::Pending,
        });
        match frame.await? {
            None => return Ok(None),
            Some(Err(_)) => return Err(Rejection::Malformed("the body broke off or its framing is wrong")),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Ok(Some(piece)),
                Err(_trailers) => {} // trailers say nothing that anyone reads here
            },
        }
    }
}
