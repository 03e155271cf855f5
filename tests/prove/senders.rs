//! Who posts: threads that go on through every fault, and note each answer of success the moment it is read.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::http;
use crate::judge::Claim;
use crate::letters::{Block, Letter, supply};
use crate::rng::Rng;

/// How long an answer may take before it counts as none.
const ANSWER: Duration = Duration::from_secs(20);
/// How long the last ones may take.
const FINISH: Duration = Duration::from_secs(180);

/// What was posted, and what became of it as far as the senders were told.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub sent: Vec<Claim>,
    pub acknowledged: BTreeSet<u64>,
    /// Posts without an answer of success that were posted again.
    pub again: u64,
    /// Posts of what was acknowledged before.
    pub repeats: u64,
    /// Answers that nothing explains.
    pub odd: Vec<String>,
}

/// Where the daemon listens now; another port after each start.
#[derive(Clone, Copy, Debug)]
pub struct To {
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

struct Inner {
    to: Mutex<To>,
    stop: AtomicBool,
    /// Between two posts of a sender, in microseconds.
    pause: AtomicU64,
    record: Mutex<Record>,
    blocks: Mutex<Receiver<Block>>,
}

/// The senders.
pub struct Senders {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    /// So many, at work from now on.
    pub fn begin(count: u64, to: To, pause: Duration, rng: &mut Rng) -> Self {
        let inner = Arc::new(Inner {
            to: Mutex::new(to),
            stop: AtomicBool::new(false),
            pause: AtomicU64::new(pause.as_micros() as u64),
            record: Mutex::default(),
            blocks: Mutex::new(supply(0)),
        });
        let start = |_| {
            let (inner, rng) = (inner.clone(), rng.fork());
            thread::spawn(move || Sender { inner: &inner, rng, stream: None, letter_before: None }.work())
        };
        let threads = (0..count).map(start).collect();
        Self { inner, threads }
    }

    /// The daemon listens elsewhere now.
    pub fn turn_to(&self, to: To) {
        *lock(&self.inner.to) = to;
    }

    /// How many were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        lock(&self.inner.record).acknowledged.len() as u64
    }

    /// What was posted and acknowledged so far.
    pub fn record(&self) -> Record {
        lock(&self.inner.record).clone()
    }

    /// How many posts had no answer of success so far.
    pub fn again(&self) -> u64 {
        lock(&self.inner.record).again
    }

    /// Each finishes what it has begun: it is acknowledged, or was given up as a provider gives up.
    ///
    /// # Errors
    /// A sender panicked, or got an answer that nothing explains.
    pub fn finish(self) -> Result<(Record, Vec<Letter>), String> {
        self.inner.stop.store(true, Ordering::SeqCst);
        let until = Instant::now() + FINISH;
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if Instant::now() > until {
                return Err(format!("a sender does not get its last one through within {FINISH:?}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        for thread in self.threads {
            thread.join().map_err(|_| "a sender panicked")?;
        }
        let record = lock(&self.inner.record).clone();
        let fresh = lock(&self.inner.blocks).recv().map_err(|_| "nothing is signed any more")?;
        if record.odd.is_empty() { Ok((record, fresh)) } else { Err(format!("odd answers: {:?}", record.odd)) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Sender<'a> {
    inner: &'a Inner,
    rng: Rng,
    stream: Option<(SocketAddr, TcpStream)>,
    letter_before: Option<Letter>,
}

impl Sender<'_> {
    fn work(mut self) {
        loop {
            let Ok(block) = lock(&self.inner.blocks).recv() else { return };
            for letter in block {
                if self.is_over() {
                    return;
                }
                self.see_through(letter);
                let pause = self.inner.pause.load(Ordering::Relaxed);
                if pause > 0 {
                    thread::sleep(Duration::from_micros(self.rng.below(2 * pause)));
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.inner.stop.load(Ordering::SeqCst)
    }

    /// Posts one until it is acknowledged, as providers do; now and then gives up after a failure, as they do too.
    fn see_through(&mut self, letter: Letter) {
        if !self.register(&letter) {
            return;
        }
        lock(&self.inner.record).sent.push(letter.claim.clone());
        while !self.post(&letter) {
            if self.rng.below(20) == 0 {
                return;
            }
            thread::sleep(Duration::from_millis(self.rng.between(2, 20)));
        }
        lock(&self.inner.record).acknowledged.insert(letter.claim.number);
        // One that was acknowledged comes again.
        if self.rng.below(12) == 0
            && let Some(before) = self.letter_before.take()
        {
            lock(&self.inner.record).repeats += 1;
            let _ = self.post(&before);
        }
        self.letter_before = Some(letter);
    }

    /// Whether what has to be registered before is registered, for good: 201 is an acknowledgement too.
    fn register(&mut self, letter: &Letter) -> bool {
        let Some(registration) = &letter.registration else { return true };
        let body = registration.to_string();
        let headers = [("Content-Type", "application/json")];
        let request = http::request("POST", "/api/v1/expectations", &headers, body.as_bytes());
        loop {
            let to = lock(&self.inner.to).admin;
            match http::send(to, &request) {
                Ok(answer) if answer.status == 201 || answer.status == 200 => return true,
                Ok(answer) if answer.status == 503 => {}
                Ok(answer) => {
                    self.odd(&format!("{registration} is answered {answer:?}"));
                    return false;
                }
                Err(_) => {}
            }
            thread::sleep(Duration::from_millis(self.rng.between(2, 20)));
        }
    }

    /// Whether it was acknowledged.
    fn post(&mut self, letter: &Letter) -> bool {
        match self.exchange(&letter.request) {
            Ok(answer) if letter.is_acknowledged_by(&answer) => return true,
            // Cannot be kept now; took too long to send while the process stood still.
            Ok(answer) if answer.status == 503 || answer.status == 408 => {}
            Ok(answer) => {
                self.odd(&format!("{} is answered {} {}", letter.claim.name, answer.status, answer.text()));
            }
            Err(_) => {}
        }
        lock(&self.inner.record).again += 1;
        false
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<http::Answer> {
        let to = lock(&self.inner.to).public;
        let mut stream = match self.stream.take() {
            Some((there, stream)) if there == to => stream,
            _ => {
                let stream = http::connect(to)?;
                stream.set_read_timeout(Some(ANSWER))?;
                stream
            }
        };
        stream.write_all(request)?;
        let answer = http::read_answer(&mut stream)?;
        if answer.header("connection") != Some("close") {
            self.stream = Some((to, stream));
        }
        Ok(answer)
    }

    fn odd(&self, what: &str) {
        let mut record = lock(&self.inner.record);
        if record.odd.len() < 20 {
            record.odd.push(what.to_owned());
        }
    }
}
