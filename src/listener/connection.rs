//! One connection: the one place that builds hyper's, with the one timer that bounds everything on it.
//!
//! Used by both listeners. hyper's own header timer is switched off here on purpose: [`Pace`] has what it cannot tell
//! apart (`watch` says why), and one timer instead of one per request keeps an idle connection cheap.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::watch::{Due, Gate, Pace, Watch};
use crate::failpoint;
use crate::traces::Receiving;

/// What happened to a connection before anything could be asked of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// Not HTTP/1.1.
    Malformed,
    /// Above the limit.
    TooLarge,
    /// Not complete in time.
    TooSlow,
}

/// How a listener's connections are served.
#[derive(Clone)]
pub struct Http {
    builder: http1::Builder,
    pace: Pace,
}

/// How long after a stop a connection that was let in before it may take for its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// How long a connection is read on after its last answer, and how much of it, so that the peer can read that answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;
/// The smallest buffer that hyper takes.
const MIN_BUFFER: usize = 8192;

impl Http {
    /// Connections with heads of at most `max_header_bytes`.
    pub fn new(pace: Pace, max_header_bytes: usize) -> Self {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_header_size(max_header_bytes)
            .max_buf_size(max_header_bytes.max(MIN_BUFFER))
            .half_close(false);
        Self { builder, pace }
    }

    /// Serves one connection to its end: the peer's, a limit's, or `stop`, which lets the request in flight finish.
    /// `fault` renders the answer to a head that no service can be asked about.
    pub async fn serve<S, B>(
        &self,
        stream: TcpStream,
        stop: CancellationToken,
        service: impl FnOnce(Watch) -> S,
        fault: impl Fn(HeadFault) -> Bytes,
    ) where
        S: Service<Request<Incoming>, Response = Response<Tracked<B>>, Error = Infallible>,
        B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static,
    {
        let watch = Watch::new(self.pace);
        let io = TokioIo::new(Gate::new(stream, watch.clone()));
        let mut connection = self.builder.serve_connection(io, service(watch.clone()));
        let end = {
            let mut sleep = pin!(tokio::time::sleep_until(Instant::now() + self.pace.idle));
            let mut stopped = pin!(stop.cancelled());
            let mut stopping = false;
            // Set from the stop until hyper was told of it.
            let mut grace: Option<Pin<Box<Sleep>>> = None;
            poll_fn(|cx| {
                if !stopping && stopped.as_mut().poll(cx).is_ready() {
                    stopping = true;
                    grace = Some(Box::pin(tokio::time::sleep(FIRST_REQUEST)));
                }
                loop {
                    if leaves(&mut grace, &watch, cx) {
                        Pin::new(&mut connection).graceful_shutdown();
                    }
                    if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
                        return Poll::Ready(ended(result, &watch));
                    }
                    if grace.is_some() && watch.has_served() {
                        continue;
                    }
                    match poll_timer(sleep.as_mut(), &watch, cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Timer::Overdue) => {}
                        Poll::Ready(Timer::Close) => return Poll::Ready(None),
                        Poll::Ready(Timer::SlowHead) => return Poll::Ready(Some(HeadFault::TooSlow)),
                    }
                }
            })
            .await
        };
        if end.is_some() || watch.lingers() {
            let stream = connection.into_parts().io.into_inner().into_stream();
            Box::pin(part(stream, end.map(fault).unwrap_or_default())).await;
        }
    }
}

/// Whether hyper is to be told of the stop now: once the first request has arrived or its time is over. Told before, it
/// would close a connection on which nothing was read yet, and whoever had just been let in would see it reset.
fn leaves(grace: &mut Option<Pin<Box<Sleep>>>, watch: &Watch, cx: &mut Context<'_>) -> bool {
    let over = grace.as_mut().is_some_and(|grace| watch.has_served() || grace.as_mut().poll(cx).is_ready());
    if over {
        *grace = None;
    }
    over
}

enum Timer {
    Overdue,
    Close,
    SlowHead,
}

/// Moves the timer only when it would fire too late: a deadline that went further away is looked at when the nearer
/// one is over, so that a busy connection touches the timer wheel seldom.
fn poll_timer(mut sleep: Pin<&mut Sleep>, watch: &Watch, cx: &mut Context<'_>) -> Poll<Timer> {
    loop {
        let Some(deadline) = watch.deadline() else { return Poll::Pending };
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        match watch.due(Instant::now()) {
            Due::At(next) => sleep.as_mut().reset(next),
            Due::Never => return Poll::Pending,
            Due::Close => return Poll::Ready(Timer::Close),
            Due::SlowHead => return Poll::Ready(Timer::SlowHead),
            Due::Overdue => {
                if let Some(next) = watch.deadline() {
                    sleep.as_mut().reset(next);
                }
                return Poll::Ready(Timer::Overdue);
            }
        }
    }
}

/// What is left to say after hyper is done with a connection.
fn ended(result: hyper::Result<()>, watch: &Watch) -> Option<HeadFault> {
    let error = result.err()?;
    tracing::debug!(%error, "connection ended");
    if !watch.between_requests() {
        return None;
    }
    match (error.is_parse_too_large(), error.is_parse()) {
        (true, _) => Some(HeadFault::TooLarge),
        (false, true) => Some(HeadFault::Malformed),
        (false, false) => None,
    }
}

/// Says the last words and reads on for a moment: closing a socket that holds unread bytes resets the connection, and
/// the peer may never see what was said.
async fn part(mut stream: TcpStream, last_words: Bytes) {
    let talk = async {
        stream.write_all(&last_words).await?;
        stream.shutdown().await?;
        let mut unread = 0;
        let mut sink = [0; 1024];
        while unread < LINGER_BYTES {
            match stream.read(&mut sink).await? {
                0 => break,
                length => unread += length,
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // Whether the peer was still there to read makes no difference to anything.
    let _ = tokio::time::timeout(LINGER, talk).await;
}

/// An answer's body that tells the watch, and the request's trace, when hyper has taken all of it.
pub struct Tracked<B> {
    body: B,
    watch: Watch,
    /// Ends when it is dropped.
    _receiving: Receiving,
}

impl<B> Tracked<B> {
    /// Puts `watch` behind `body`.
    pub fn new(body: B, watch: Watch) -> Self {
        Self::traced(body, watch, Receiving::untold())
    }

    /// The same with the request's trace.
    pub fn traced(body: B, watch: Watch, receiving: Receiving) -> Self {
        watch.answering();
        Self { body, watch, _receiving: receiving }
    }
}

impl<B> Drop for Tracked<B> {
    fn drop(&mut self) {
        self.watch.answered();
        failpoint::reach("after-answer");
    }
}

impl<B: Body + Unpin> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
