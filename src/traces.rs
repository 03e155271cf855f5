//! Spans for a collector of the operator's own, over OTLP; none unless one is configured.
//!
//! What is handed on is queued within a bound and carried by a thread of its own: nothing waits for it, and what does not
//! fit is dropped and counted. Span and attribute say which source, what came of it, and the event's id; nothing that a
//! sender or a buyer wrote.
//!
//! An event's id is its trace's. So what was received and what is relayed of it are one trace, also after a restart and
//! without anything being kept for it, and whoever has an event's id finds its trace.

mod collector;
mod otlp;
mod publishing;
mod receiving;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::Clock;
use crate::config;
use crate::event::{EventId, Position};
use crate::metrics::TraceMetrics;
use collector::{Collector, Parcel};
pub use publishing::Publishing;
pub use receiving::Receiving;

/// Requests and messages whose spans may wait for the collector.
const QUEUE: usize = 4096;

/// Where spans are handed in. A cheap clone; the default one wants none.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

struct Inner {
    queue: SyncSender<Parcel>,
    /// Of so many traces one is kept.
    one_in: u64,
    clock: Arc<dyn Clock>,
    metrics: TraceMetrics,
}

/// Something that took time.
#[derive(Clone, Debug)]
struct Span {
    trace: Uuid,
    id: u64,
    parent: Option<u64>,
    name: &'static str,
    kind: Kind,
    /// Nanoseconds since 1970.
    began: i128,
    ended: i128,
    attributes: Vec<(&'static str, Value)>,
    failed: bool,
}

/// OTLP's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Internal = 1,
    Server = 2,
    Producer = 4,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl Traces {
    /// Begins with the thread that carries them; with no settings nothing is begun and nothing is wanted.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(settings: Option<&config::Traces>, clock: Arc<dyn Clock>, metrics: TraceMetrics) -> io::Result<Self> {
        let Some(settings) = settings else { return Ok(Self::default()) };
        let (queue, parcels) = sync_channel(QUEUE);
        let collector = Collector::new(&settings.endpoint, metrics.clone());
        std::thread::Builder::new().name("traces".to_owned()).spawn(move || collector.run(&parcels))?;
        Ok(Self(Some(Arc::new(Inner { queue, one_in: settings.one_in.max(1), clock, metrics }))))
    }

    /// For one request, whose first byte came then.
    pub fn receiving(&self, first_byte: Instant) -> Receiving {
        Receiving::new(self, first_byte)
    }

    /// For the messages of one connection to a sink.
    pub fn publishing(&self) -> Publishing {
        Publishing::new(self.clone())
    }

    /// What a message says of its span, as W3C's `traceparent`; `None` where no trace of its event is kept.
    pub fn parent_of_consumers(&self, event: EventId, position: Position, attempts: u32) -> Option<String> {
        let trace = self.0.as_ref().and_then(|inner| inner.kept(trace_of(event)))?;
        Some(format!("00-{:032x}-{:016x}-01", trace.as_u128(), message(trace, position, attempts)))
    }

    /// Has what waits carried off, at most for `bound`: what a dead collector does not take is lost.
    pub fn flush(&self, bound: Duration) {
        let Some(inner) = &self.0 else { return };
        let (done, told) = sync_channel(1);
        if inner.queue.try_send(Parcel::Flush(done)).is_ok() {
            let _ = told.recv_timeout(bound);
        }
    }
}

impl Inner {
    /// A trace, if it is one of those that are kept: everybody who asks about it is told the same.
    fn kept(&self, trace: Uuid) -> Option<Uuid> {
        mix(trace.as_u128(), 0).is_multiple_of(self.one_in).then_some(trace)
    }

    /// Never waits.
    fn hand_on(&self, spans: Vec<Span>) {
        let count = spans.len();
        if self.queue.try_send(Parcel::Spans(spans)).is_err() {
            self.metrics.dropped(count);
        }
    }

    /// Nanoseconds since 1970 of moments: right to the millisecond, and to each other exact.
    fn wall(&self) -> impl Fn(Instant) -> i128 + use<> {
        let (now, here) = (self.clock.now().as_nanosecond(), Instant::now());
        move |at| now - here.saturating_duration_since(at).as_nanos() as i128
    }
}

fn trace_of(event: EventId) -> Uuid {
    Uuid::from_bytes(event.to_bytes())
}

/// The span of the request that brought an event first.
fn arrival(trace: Uuid) -> u64 {
    mix(trace.as_u128(), 1)
}

/// The span of one message with an event: each try of each time that it is sent has its own.
fn message(trace: Uuid, position: Position, attempts: u32) -> u64 {
    mix(trace.as_u128() ^ u128::from(position.0) << 32 ^ u128::from(attempts), 2)
}

/// A number that looks like none of its neighbours, and is not 0 (splitmix64).
fn mix(of: u128, salt: u64) -> u64 {
    let step = |number: u64| {
        let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ number >> 31
    };
    step(step(step(salt) ^ (of >> 64) as u64) ^ of as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_traces_is_kept_and_everybody_says_the_same() {
        let (queue, _parcels) = sync_channel(1);
        let clock = Arc::new(crate::clock::System);
        let inner =
            |one_in| Inner { queue: queue.clone(), one_in, clock: clock.clone(), metrics: TraceMetrics::default() };
        let (all, some) = (inner(1), inner(10));
        let now = clock.now();
        let events = (1..=10_000).map(|position| trace_of(EventId::new(now, Position(position))));
        let kept = events.inspect(|trace| assert!(all.kept(*trace).is_some())).filter(|t| some.kept(*t).is_some());
        let kept = kept.count();
        assert!((850..=1150).contains(&kept), "{kept} of 10,000");
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (queue, _parcels) = sync_channel(1);
        let metrics = TraceMetrics::default();
        let inner = Inner { queue, one_in: 1, clock: Arc::new(crate::clock::System), metrics: metrics.clone() };
        let began = Instant::now();
        let traces = Traces(Some(Arc::new(inner)));
        (0..3).for_each(|_| drop(traces.receiving(began)));
        // One waits; of the others all spans are counted, and nobody waited.
        assert_eq!(metrics.counted_as_dropped(), 4);
        traces.flush(Duration::from_secs(600)); // nobody takes it: no reason to wait either
    }
}
