//! What one connection is doing, and until when it may.
//!
//! hyper's own timer knows one limit, from the end of an answer to the end of the next head; here a connection that
//! waits between two requests may wait longer than a head may take, and a body and a whole request have limits too.
//! So the bytes pass through a [`Gate`] that tells a [`Watch`] what it saw, the service tells it where it is, and
//! one timer per connection (in `connection`) asks it for the next deadline. Nothing here is touched by two threads
//! at once; the lock is what lets the parts of one task share it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::strict::Scan;

/// How long the phases of a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two requests, and before the first.
    pub idle: Duration,
    /// From the first byte of a head to its last.
    pub header: Duration,
    /// From the end of the head to the end of the body; `None`: the service sees to it.
    pub body: Option<Duration>,
    /// From the first byte to the answer; `None`: answers may stream for ever.
    pub request: Option<Duration>,
}

/// The state of one connection. A cheap clone.
#[derive(Clone)]
pub struct Watch(Arc<Mutex<State>>);

struct State {
    pace: Pace,
    phase: Phase,
    since: Instant,
    first_byte: Instant,
    scan: Scan,
    calls: u32,
    overdue: bool,
    linger: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing of a request is here.
    Idle,
    /// A part of a head is here.
    Head,
    /// The service has the head and reads the body.
    Body,
    /// The service has everything.
    Work,
    /// The answer's body is being taken.
    Answer,
    /// The answer is complete, not all of it is in the socket.
    Flush,
}

/// What a request's service is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When the first byte was read.
    pub first_byte: Instant,
    /// Why the head is refused although it could be parsed.
    pub flaw: Option<&'static str>,
}

/// What to do when the timer fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet; ask again then.
    At(Instant),
    /// Nothing at all: only the peer or the service moves this on.
    Never,
    /// Close: there is nobody to answer, or nobody who reads.
    Close,
    /// Answer that the head took too long, and close.
    SlowHead,
    /// The service has to end: poll it again.
    Overdue,
}

impl Watch {
    /// A connection that was just accepted.
    pub fn new(pace: Pace) -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State {
            pace,
            phase: Phase::Idle,
            since: now,
            first_byte: now,
            scan: Scan::default(),
            calls: 0,
            overdue: false,
            linger: false,
        })))
    }

    /// The service got a head.
    pub fn begin(&self) -> Arrival {
        let mut state = self.state();
        state.calls += 1;
        state.enter(Phase::Body);
        state.overdue = false;
        let flaw = state.scan.flaw().filter(|flaw| flaw.head == state.calls).map(|flaw| flaw.why);
        Arrival { first_byte: state.first_byte, flaw }
    }
    /// Whether a request came to the service on this connection, now or before.
    pub fn has_served(&self) -> bool {
        self.state().calls > 0
    }
    /// The body is complete.
    pub fn body_read(&self) {
        self.state().enter(Phase::Work);
    }
    /// The service's time is over.
    pub fn overdue(&self) -> bool {
        self.state().overdue
    }
    /// The answer is known; its body is not sent yet.
    pub fn answering(&self) {
        self.state().enter(Phase::Answer);
    }
    /// The whole answer was handed over.
    pub fn answered(&self) {
        self.state().enter(Phase::Flush);
    }
    /// The connection must read on for a moment before it closes, because the peer still sends what was refused:
    /// closing at once would reset the connection and take the answer with it.
    pub fn linger(&self) {
        self.state().linger = true;
    }
    /// Whether [`Watch::linger`] was called.
    pub fn lingers(&self) -> bool {
        self.state().linger
    }
    /// Whether no request is with the service: what the parser writes by itself now is a refusal of its own.
    pub fn between_requests(&self) -> bool {
        matches!(self.state().phase, Phase::Idle | Phase::Head)
    }

    /// When the timer has to fire next; `None`: not at all.
    pub fn deadline(&self) -> Option<Instant> {
        self.state().deadline()
    }
    /// What is to be done now.
    pub fn due(&self, now: Instant) -> Due {
        let mut state = self.state();
        let Some(deadline) = state.deadline() else { return Due::Never };
        if now < deadline {
            return Due::At(deadline);
        }
        match state.phase {
            Phase::Idle | Phase::Answer | Phase::Flush => Due::Close,
            Phase::Head => Due::SlowHead,
            Phase::Body | Phase::Work if state.overdue => Due::Close,
            Phase::Body | Phase::Work => {
                state.overdue = true;
                state.since = now;
                Due::Overdue
            }
        }
    }

    fn saw(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.scan.feed(bytes);
        if state.phase == Phase::Idle && !bytes.is_empty() {
            state.enter(Phase::Head);
            state.first_byte = state.since;
        }
    }
    fn flushed(&self) {
        let mut state = self.state();
        if state.phase == Phase::Flush {
            // A head that came along with the request before it has begun already.
            let begun = state.scan.heads() > state.calls;
            state.enter(if begun { Phase::Head } else { Phase::Idle });
            state.first_byte = state.since;
        }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    fn deadline(&self) -> Option<Instant> {
        let whole = self.pace.request.map(|request| self.first_byte + request);
        match self.phase {
            Phase::Idle => Some(self.since + self.pace.idle),
            Phase::Head => Some(self.first_byte + self.pace.header),
            Phase::Body | Phase::Work if self.overdue => Some(self.since + self.pace.header),
            Phase::Body => match (self.pace.body.map(|body| self.since + body), whole) {
                (Some(body), Some(whole)) => Some(body.min(whole)),
                (body, whole) => body.or(whole),
            },
            Phase::Work => whole,
            // Whoever does not read the answer is as idle as whoever does not ask.
            Phase::Answer | Phase::Flush => self.pace.request.map(|_| self.since + self.pace.idle),
        }
    }
}

/// A socket whose bytes the watch sees.
pub struct Gate {
    stream: TcpStream,
    watch: Watch,
}

impl Gate {
    /// Puts `watch` in front of `stream`.
    pub fn new(stream: TcpStream, watch: Watch) -> Self {
        Self { stream, watch }
    }
    /// The socket again.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Gate {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.watch.saw(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gate {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.watch.between_requests() {
            // The parser's own refusal of a head: `connection` writes ours in its place.
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.watch.between_requests() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.flushed(); // a TCP socket buffers nothing of its own
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // `connection` closes: it may have to say something first
    }
}
