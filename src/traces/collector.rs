//! The thread that carries spans to the collector, and is the only one that ever waits for it.

use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use super::{Span, otlp};
use crate::metrics::TraceMetrics;

/// How long spans are gathered for one request to the collector, and how many.
const GATHER: Duration = Duration::from_secs(1);
const TOGETHER: usize = 2048;
/// How long the collector may take for one.
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_ANSWER: u64 = 64 << 10;

/// What waits for the thread.
pub(super) enum Parcel {
    /// Of one request or message.
    Spans(Vec<Span>),
    /// Everything before it is to be carried off at once; told when that was tried.
    Flush(SyncSender<()>),
}

/// Where spans go.
pub(super) struct Collector {
    url: String,
    agent: ureq::Agent,
    metrics: TraceMetrics,
    /// It took the last ones, as far as is known.
    takes: bool,
}

impl Collector {
    pub(super) fn new(endpoint: &str, metrics: TraceMetrics) -> Self {
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(true)
            .timeout_global(Some(PATIENCE))
            .user_agent(concat!("quittance/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Self { url: format!("{endpoint}/v1/traces"), agent, metrics, takes: true }
    }

    /// Ends when nobody can hand in anything any more.
    pub(super) fn run(mut self, parcels: &Receiver<Parcel>) {
        while let Ok(first) = parcels.recv() {
            let until = Instant::now() + GATHER;
            let (mut spans, mut next, mut flush) = (Vec::new(), Some(first), None);
            while let Some(parcel) = next.take() {
                match parcel {
                    Parcel::Spans(more) => spans.extend(more),
                    Parcel::Flush(done) => flush = Some(done),
                }
                if flush.is_some() || spans.len() >= TOGETHER {
                    break;
                }
                next = parcels.recv_timeout(until.saturating_duration_since(Instant::now())).ok();
            }
            if !spans.is_empty() {
                self.carry(&spans);
            }
            if let Some(done) = flush {
                let _ = done.try_send(()); // who asked may have gone on
            }
        }
    }

    fn carry(&mut self, spans: &[Span]) {
        match self.post(spans) {
            Ok(rejected) => {
                self.metrics.sent(spans.len().saturating_sub(rejected));
                self.metrics.dropped(rejected);
                if !std::mem::replace(&mut self.takes, true) {
                    tracing::info!(collector = self.url, "the collector takes spans again");
                }
            }
            Err(error) => {
                self.metrics.dropped(spans.len());
                if std::mem::replace(&mut self.takes, false) {
                    let collector = self.url.as_str();
                    tracing::warn!(collector, %error, "the collector takes no spans: they are dropped until it does");
                }
            }
        }
    }

    /// How many of them it did not take.
    fn post(&self, spans: &[Span]) -> Result<usize, ureq::Error> {
        let body = otlp::document(spans).to_string();
        let mut answer = self.agent.post(&self.url).content_type("application/json").send(body)?;
        let answer = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec()?;
        Ok(otlp::rejected(&answer))
    }
}
