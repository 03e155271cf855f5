//! The load generator: one thread, non-blocking sockets, requests that were made before.
//!
//! Closed loop: each connection sends its next request when its answer is whole. Open loop: requests fall due at a fixed
//! rate whether or not answers come, and a latency counts from when its request fell due, so that a server that stops
//! for a moment is charged for everyone who would have come meanwhile (coordinated omission).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::material::Requests;

/// How the load comes.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Whoever was answered asks again.
    Closed,
    /// So many requests a second.
    Open(f64),
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Answers that take the notification.
    pub answers: u64,
    /// Other answers, and connections that broke.
    pub failures: u64,
    /// From the first request to the last answer that was waited for.
    pub elapsed: Duration,
    /// Nanoseconds of those that were answered rightly.
    pub latencies: Histogram<u64>,
}

impl Outcome {
    /// Right answers a second.
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }
    /// A quantile of the latency in milliseconds.
    pub fn millis(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e6
    }
}

struct Connection {
    stream: TcpStream,
    /// What is not written yet of the request that is on its way.
    unsent: usize,
    request: usize,
    since: Instant,
    busy: bool,
    answer: Vec<u8>,
}

const TIMER: Token = Token(usize::MAX);
/// How long is waited for answers when the time is over.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Sends `requests`, each once, over `connections` for at most `time`; ends early when there are no more.
pub fn run(address: SocketAddr, requests: &Requests, connections: usize, pace: Pace, time: Duration) -> Outcome {
    Generator::new(address, requests, connections, pace).run(time)
}

/// The same, and when each request was answered.
pub fn run_noting(
    address: SocketAddr,
    requests: &Requests,
    connections: usize,
    pace: Pace,
    time: Duration,
) -> (Outcome, Vec<Option<Instant>>) {
    let mut generator = Generator::new(address, requests, connections, pace);
    generator.answered = Some(vec![None; requests.len()]);
    let mut answered = None;
    let outcome = generator.run_with(time, &mut answered);
    (outcome, answered.unwrap_or_default())
}

struct Generator<'a> {
    address: SocketAddr,
    requests: &'a Requests,
    poll: Poll,
    connections: Vec<Connection>,
    free: Vec<usize>,
    pace: Pace,
    next: usize,
    /// Open loop: when requests fell due that no connection was free for.
    late: VecDeque<Instant>,
    outcome: Outcome,
    /// When each request was answered, where somebody wants to know.
    answered: Option<Vec<Option<Instant>>>,
}

impl<'a> Generator<'a> {
    fn new(address: SocketAddr, requests: &'a Requests, connections: usize, pace: Pace) -> Self {
        let latencies = Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("sound bounds");
        let outcome = Outcome { answers: 0, failures: 0, elapsed: Duration::ZERO, latencies };
        let poll = Poll::new().expect("epoll");
        let mut generator = Self {
            address,
            requests,
            poll,
            connections: Vec::with_capacity(connections),
            free: (0..connections).rev().collect(),
            pace,
            next: 0,
            late: VecDeque::new(),
            outcome,
            answered: None,
        };
        for number in 0..connections {
            let stream = generator.connect(number);
            let connection =
                Connection { stream, unsent: 0, request: 0, since: Instant::now(), busy: false, answer: Vec::new() };
            generator.connections.push(connection);
        }
        generator
    }

    fn connect(&self, number: usize) -> TcpStream {
        let stream = StdStream::connect(self.address).expect("the server listens");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_nonblocking(true).expect("a socket option");
        let mut stream = TcpStream::from_std(stream);
        let registry = self.poll.registry();
        registry.register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE).expect("registered");
        stream
    }

    fn run(self, time: Duration) -> Outcome {
        self.run_with(time, &mut None)
    }

    fn run_with(mut self, time: Duration, answered: &mut Option<Vec<Option<Instant>>>) -> Outcome {
        let pacemaker = match self.pace {
            Pace::Open(rate) => Some(Pacemaker::start(&self.poll, rate)),
            Pace::Closed => None,
        };
        let mut events = Events::with_capacity(1024);
        let began = Instant::now();
        let end = began + time;
        let mut due = 0_u64;
        let mut last = began;
        loop {
            let now = Instant::now();
            let over = now >= end || self.next >= self.requests.len();
            match self.pace {
                Pace::Closed if !over => {
                    while let Some(number) = self.free.pop() {
                        if !self.send(number, Instant::now()) {
                            break;
                        }
                    }
                }
                Pace::Open(rate) if !over => {
                    let at = |number: u64| began + Duration::from_secs_f64(number as f64 / rate);
                    while at(due) <= now {
                        self.late.push_back(at(due));
                        due += 1;
                    }
                    self.send_late();
                }
                Pace::Open(_) => self.send_late(),
                Pace::Closed => {}
            }
            let idle = self.free.len() == self.connections.len();
            if over && ((idle && self.late.is_empty()) || now >= end + LAST_ANSWERS) {
                break;
            }
            self.poll.poll(&mut events, Some(Duration::from_millis(100))).or_else(interrupted).expect("epoll");
            for event in &events {
                if event.token() == TIMER {
                    continue;
                }
                self.progress(event.token().0);
                last = Instant::now();
            }
        }
        // Who was never answered counts as a failure, not as fast.
        self.outcome.failures += (self.connections.len() - self.free.len()) as u64 + self.late.len() as u64;
        drop(pacemaker);
        self.outcome.elapsed = last.min(end).saturating_duration_since(began);
        if self.next >= self.requests.len() {
            self.outcome.elapsed = last.saturating_duration_since(began);
        }
        *answered = self.answered;
        self.outcome
    }

    fn send_late(&mut self) {
        while let Some(since) = self.late.front().copied() {
            let Some(number) = self.free.pop() else { break };
            if !self.send(number, since) {
                self.late.clear();
                break;
            }
            self.late.pop_front();
        }
    }

    /// Begins the next request; `false` when there is none.
    fn send(&mut self, number: usize, since: Instant) -> bool {
        if self.next >= self.requests.len() {
            self.free.push(number);
            return false;
        }
        let request = self.next;
        self.next += 1;
        let connection = &mut self.connections[number];
        (connection.request, connection.since, connection.busy) = (request, since, true);
        connection.unsent = self.requests.get(request).len();
        connection.answer.clear();
        self.write(number);
        true
    }

    fn write(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        let request = self.requests.get(connection.request);
        while connection.unsent > 0 {
            match connection.stream.write(&request[request.len() - connection.unsent..]) {
                Ok(written) => connection.unsent -= written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.broken(number),
            }
        }
    }

    fn progress(&mut self, number: usize) {
        if self.connections[number].unsent > 0 {
            self.write(number);
        }
        let mut buffer = [0; 4096];
        loop {
            let connection = &mut self.connections[number];
            match connection.stream.read(&mut buffer) {
                Ok(0) => return self.broken(number),
                Ok(length) => {
                    connection.answer.extend_from_slice(&buffer[..length]);
                    if let Some(answer) = whole(&connection.answer) {
                        self.answered(number, answer);
                        if length < buffer.len() {
                            return;
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.broken(number),
            }
        }
    }

    fn answered(&mut self, number: usize, answer: Answer) {
        let connection = &mut self.connections[number];
        // A browser is sent on to a page.
        if matches!(answer.status, 200 | 303) {
            self.outcome.answers += 1;
            let nanos = u64::try_from(connection.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.outcome.latencies.saturating_record(nanos);
            if let Some(answered) = self.answered.as_mut().and_then(|all| all.get_mut(connection.request)) {
                *answered = Some(Instant::now());
            }
        } else {
            self.outcome.failures += 1;
        }
        connection.busy = false;
        connection.answer.clear();
        if answer.closes {
            self.renew(number);
        }
        self.free.push(number);
        if matches!(self.pace, Pace::Open(_)) {
            self.send_late();
        }
    }

    fn broken(&mut self, number: usize) {
        if self.connections[number].busy {
            self.connections[number].busy = false;
            self.outcome.failures += 1;
            self.free.push(number);
        }
        self.renew(number);
    }

    fn renew(&mut self, number: usize) {
        let stream = self.connect(number);
        self.connections[number].stream = stream;
        self.connections[number].unsent = 0;
    }
}

/// Wakes the generator when something falls due: the system's poll counts in milliseconds, which is too coarse.
struct Pacemaker {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Pacemaker {
    fn start(poll: &Poll, rate: f64) -> Self {
        let waker = Waker::new(poll.registry(), TIMER).expect("a waker");
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        // More often than every 100 us would take more of the processor than the requests.
        let beat = Duration::from_secs_f64((1.0 / rate).max(0.0001));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(beat);
                let _ = waker.wake();
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Pacemaker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn interrupted(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

struct Answer {
    status: u16,
    closes: bool,
}

/// The answer, once all of it is there.
fn whole(bytes: &[u8]) -> Option<Answer> {
    let head = memmem::find(bytes, b"\r\n\r\n")?;
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
    let (mut length, mut closes, mut chunked) = (0, false, false);
    for line in bytes[..head].split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = line[colon + 1..].trim_ascii();
        match line[..colon].len() {
            14 if line[..colon].eq_ignore_ascii_case(b"content-length") => {
                length = std::str::from_utf8(value).ok()?.parse().ok()?;
            }
            10 if line[..colon].eq_ignore_ascii_case(b"connection") => closes = value.eq_ignore_ascii_case(b"close"),
            17 if line[..colon].eq_ignore_ascii_case(b"transfer-encoding") => chunked = true,
            _ => {}
        }
    }
    let body = &bytes[head + 4..];
    let complete = if chunked { body.ends_with(b"0\r\n\r\n") } else { body.len() >= length };
    complete.then_some(Answer { status, closes })
}
