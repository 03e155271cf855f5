//! Every series the daemon shows, in one struct that is passed in; nothing registers itself anywhere.
//!
//! Names and labels are a promise (interface, section 6). Labels come from closed sets: a path, an id or a text from
//! outside never becomes one. What a request touches is resolved once per source and configuration ([`SourceMetrics`]), so
//! that no label is hashed on the way to an answer.

mod source;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::config::Source;
use crate::event::SourceName;
use crate::store::Figures;
use source::Families;
pub use source::SourceMetrics;

crate::event::status::words! {
    /// The labels of `quittance_refusals_total`.
    RefusalReason {
        Malformed = "malformed", NoSignature = "no_signature", BadSignature = "bad_signature",
        WrongService = "wrong_service", WrongTag = "wrong_tag", Method = "method", ContentType = "content_type",
        TooLarge = "too_large", TooSlow = "too_slow", TooMany = "too_many", Address = "address",
        Overloaded = "overloaded", Storage = "storage", Draining = "draining", NotReady = "not_ready",
    }
}

crate::event::status::words! {
    /// The labels of `quittance_relay_published_total`.
    Published { Confirmed = "confirmed", Returned = "returned", Nacked = "nacked", Timeout = "timeout" }
}

/// All series. A cheap clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    process: Registry,
    families: Families,
    sources: RwLock<BTreeMap<SourceName, SourceMetrics>>,
    nowhere: SourceMetrics,
    commit: CommitMetrics,
    relay: RelayMetrics,
    traces: TraceMetrics,
    connections: IntGauge,
    silence_seconds: IntGaugeVec,
    quarantine_bytes: IntGaugeVec,
    journal_bytes: IntGauge,
    journal_damage: IntCounter,
    index_lag: IntGauge,
    rebuild_progress: prometheus::Gauge,
    ready: IntGauge,
    store_free: IntGauge,
    store_size: IntGauge,
    reloaded: IntGauge,
    reloaded_at: prometheus::Gauge,
}

/// What the committer measures. A cheap clone; the default one is registered nowhere.
#[derive(Clone)]
pub struct CommitMetrics {
    seconds: Histogram,
    batch_size: Histogram,
}

/// What the relay measures; zero as long as none runs. A cheap clone.
#[derive(Clone)]
pub struct RelayMetrics {
    published: Vec<IntCounter>,
    connected: IntGauge,
    blocked: IntGauge,
    backlog: IntGauge,
    oldest_seconds: prometheus::Gauge,
    dead_letters: IntGauge,
}

/// What became of spans; zero as long as no collector is configured. A cheap clone; the default one is registered nowhere.
#[derive(Clone)]
pub struct TraceMetrics {
    sent: IntCounter,
    dropped: IntCounter,
}

/// From a tenth of what one sync costs to the request timeout's order of magnitude.
const LATENCY_BUCKETS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];
const BATCH_BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

impl Metrics {
    /// All series for these sources, in a registry of their own. `now` is the start from which a source that never
    /// received anything is counted as silent.
    ///
    /// # Errors
    /// When two series collide: a mistake in this file.
    pub fn new(sources: &[Source], now: Timestamp) -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("quittance".to_owned()), None)?;
        let families = Families::new(&registry)?;
        let silence_seconds = gauges(&registry, "source_silence_seconds", "Since the last authentic notification")?;
        let quarantine_bytes = gauges(&registry, "quarantine_bytes", "Bytes of refused notifications that are kept")?;
        let build = IntGaugeVec::new(Opts::new("build_info", "The running version"), &["version"])?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // The conventional names, which dashboards know, and so without our prefix.
        let process = Registry::new();
        process.register(Box::new(ProcessCollector::for_self()))?;
        let reloaded = gauge(&registry, "config_last_reload_successful", "1 unless the last reload was refused")?;
        let help = "When the running configuration was loaded, seconds since 1970";
        let reloaded_at = float(&registry, "config_last_reload_success_timestamp_seconds", help)?;
        let metrics = Self(Arc::new(Inner {
            nowhere: families.nowhere(now),
            families,
            sources: RwLock::default(),
            commit: CommitMetrics::registered(&registry)?,
            relay: RelayMetrics::registered(&registry)?,
            traces: TraceMetrics::registered(&registry)?,
            connections: gauge(&registry, "connections", "Open connections of the public listener")?,
            silence_seconds,
            quarantine_bytes,
            journal_bytes: gauge(&registry, "journal_bytes", "Bytes of the journal on disk")?,
            journal_damage: counter(&registry, "journal_damage_total", "Places of the journal found damaged")?,
            index_lag: gauge(&registry, "index_lag_records", "Records that the index does not hold yet")?,
            rebuild_progress: float(&registry, "index_rebuild_progress_ratio", "Share of the index that is built")?,
            ready: gauge(&registry, "ready", "1 while notifications can be kept")?,
            store_free: gauge(&registry, "store_free_bytes", "Room that is left on the store's disk")?,
            store_size: gauge(&registry, "store_size_bytes", "Size of the store's disk")?,
            reloaded,
            reloaded_at,
            registry,
            process,
        }));
        metrics.adopt(sources, now);
        Ok(metrics)
    }

    /// Goes on with these sources, from a configuration that was loaded `now`. Call it before their handles are asked
    /// for.
    pub fn adopt(&self, sources: &[Source], now: Timestamp) {
        let inner = &*self.0;
        let mut known = inner.sources.write().unwrap_or_else(PoisonError::into_inner);
        for (name, metrics) in known.iter().filter(|(name, _)| sources.iter().all(|source| source.name != **name)) {
            inner.families.forget(name.as_str(), metrics);
            let _ = inner.silence_seconds.remove_label_values(&[name.as_str()]);
            let _ = inner.quarantine_bytes.remove_label_values(&[name.as_str()]);
        }
        let resolved = sources.iter().map(|source| {
            inner.quarantine_bytes.with_label_values(&[source.name.as_str()]);
            (source.name.clone(), inner.families.of_source(source, known.get(&source.name), now))
        });
        let resolved = resolved.collect();
        *known = resolved;
        inner.reloaded.set(1);
        inner.reloaded_at.set(now.as_millisecond() as f64 / 1000.0);
    }
    /// Notes that a configuration was refused: the former one is still in force.
    pub fn reload_refused(&self) {
        self.0.reloaded.set(0);
    }

    /// The handles of a source; those of `none` where there is no such source.
    pub fn source(&self, name: &SourceName) -> SourceMetrics {
        let sources = self.0.sources.read().unwrap_or_else(PoisonError::into_inner);
        sources.get(name).unwrap_or(&self.0.nowhere).clone()
    }
    /// The handles for what happened at no source: unknown paths, unreadable heads.
    pub fn nowhere(&self) -> SourceMetrics {
        self.0.nowhere.clone()
    }
    /// What the committer reports to.
    pub fn commit(&self) -> CommitMetrics {
        self.0.commit.clone()
    }
    /// What the relay reports to.
    pub fn relay(&self) -> RelayMetrics {
        self.0.relay.clone()
    }
    /// What carries spans reports to.
    pub fn traces(&self) -> TraceMetrics {
        self.0.traces.clone()
    }
    /// Open connections of the public listener.
    pub fn connections(&self) -> &IntGauge {
        &self.0.connections
    }
    /// Sets the bytes that a source's quarantine holds.
    pub fn quarantine_bytes(&self, source: &SourceName, bytes: u64) {
        // Held while it is set: a source that a reload takes away must not come back by this.
        let sources = self.0.sources.read().unwrap_or_else(PoisonError::into_inner);
        if sources.contains_key(source) {
            self.0.quarantine_bytes.with_label_values(&[source.as_str()]).set(as_i64(bytes));
        }
    }

    /// Notes whether notifications can be kept, as `/readyz` says it.
    pub fn ready(&self, yes: bool) {
        self.0.ready.set(i64::from(yes));
    }
    /// Sets the room that is left on the store's disk, and its size.
    pub fn disk(&self, free_bytes: u64, size_bytes: u64) {
        self.0.store_free.set(as_i64(free_bytes));
        self.0.store_size.set(as_i64(size_bytes));
    }

    /// Everything in Prometheus' text format. The store's figures are read for it, never pushed.
    ///
    /// # Errors
    /// When a series cannot be written as text.
    pub fn page(&self, figures: &Figures, now: Timestamp) -> Result<String, prometheus::Error> {
        let inner = &*self.0;
        inner.journal_bytes.set(as_i64(figures.journal_bytes));
        inner.journal_damage.inc_by(figures.damage.saturating_sub(inner.journal_damage.get()));
        inner.index_lag.set(as_i64(figures.index_lag));
        inner.rebuild_progress.set(figures.rebuild_progress);
        inner.relay.backlog.set(as_i64(figures.backlog));
        inner.relay.oldest_seconds.set(figures.oldest.as_secs_f64());
        inner.relay.dead_letters.set(as_i64(figures.dead_letters));
        {
            let sources = inner.sources.read().unwrap_or_else(PoisonError::into_inner);
            for (name, source) in sources.iter() {
                inner.silence_seconds.with_label_values(&[name.as_str()]).set(source.silence(now));
            }
        }
        let families = [inner.registry.gather(), inner.process.gather()].concat();
        TextEncoder::new().encode_to_string(&families)
    }
}

impl CommitMetrics {
    /// Measures one group, from the moment its first member was taken to the end of its sync.
    pub fn observe_commit(&self, elapsed: Duration) {
        self.seconds.observe(elapsed.as_secs_f64());
    }
    /// Measures how many records one group had.
    pub fn observe_batch(&self, records: usize) {
        self.batch_size.observe(records as f64);
    }

    fn new() -> Result<Self, prometheus::Error> {
        let seconds = HistogramOpts::new("commit_seconds", "Appending and syncing one group");
        let batch = HistogramOpts::new("commit_batch_size", "Records in one group");
        Ok(Self {
            seconds: Histogram::with_opts(seconds.buckets(LATENCY_BUCKETS.to_vec()))?,
            batch_size: Histogram::with_opts(batch.buckets(BATCH_BUCKETS.to_vec()))?,
        })
    }
    fn registered(registry: &Registry) -> Result<Self, prometheus::Error> {
        let this = Self::new()?;
        registry.register(Box::new(this.seconds.clone()))?;
        registry.register(Box::new(this.batch_size.clone()))?;
        Ok(this)
    }
}

impl Default for CommitMetrics {
    #[expect(clippy::expect_used, reason = "the names above are constants, and a test makes one")]
    fn default() -> Self {
        Self::new().expect("constant names are valid")
    }
}

impl RelayMetrics {
    /// Counts what the broker said about one message.
    pub fn published(&self, how: Published) {
        if let Some(counter) = self.published.get(usize::from(how.code())) {
            counter.inc();
        }
    }
    /// Whether the sink is connected.
    pub fn connected(&self, yes: bool) {
        self.connected.set(i64::from(yes));
    }
    /// Whether nothing gets through although the sink is there.
    pub fn blocked(&self, yes: bool) {
        self.blocked.set(i64::from(yes));
    }

    fn registered(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new("relay_published_total", "What became of messages handed to the sink");
        let published = IntCounterVec::new(opts, &["outcome"])?;
        registry.register(Box::new(published.clone()))?;
        Ok(Self {
            published: Published::ALL.iter().map(|how| published.with_label_values(&[how.as_str()])).collect(),
            connected: gauge(registry, "relay_connected", "1 while the sink is connected")?,
            blocked: gauge(registry, "relay_blocked", "1 while the sink takes nothing")?,
            backlog: gauge(registry, "relay_backlog_events", "Events that the sink has not settled")?,
            oldest_seconds: float(registry, "relay_oldest_seconds", "Age of the oldest unsettled event")?,
            dead_letters: gauge(registry, "dead_letters", "Events that the sink refused for good")?,
        })
    }
}

impl TraceMetrics {
    /// Counts spans that the collector took.
    pub fn sent(&self, spans: usize) {
        self.sent.inc_by(spans as u64);
    }
    /// Counts spans that there was no room for, or that the collector did not take.
    pub fn dropped(&self, spans: usize) {
        self.dropped.inc_by(spans as u64);
    }
    /// How many were counted as dropped.
    #[cfg(test)]
    pub fn counted_as_dropped(&self) -> u64 {
        self.dropped.get()
    }

    fn new() -> Result<(Self, IntCounterVec), prometheus::Error> {
        let spans = IntCounterVec::new(Opts::new("trace_spans_total", "What became of spans"), &["outcome"])?;
        let this = Self { sent: spans.with_label_values(&["sent"]), dropped: spans.with_label_values(&["dropped"]) };
        Ok((this, spans))
    }
    fn registered(registry: &Registry) -> Result<Self, prometheus::Error> {
        let (this, spans) = Self::new()?;
        registry.register(Box::new(spans))?;
        Ok(this)
    }
}

impl Default for TraceMetrics {
    #[expect(clippy::expect_used, reason = "the names above are constants, and a test makes one")]
    fn default() -> Self {
        Self::new().expect("constant names are valid").0
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn float(registry: &Registry, name: &str, help: &str) -> Result<prometheus::Gauge, prometheus::Error> {
    let gauge = prometheus::Gauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauges(registry: &Registry, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
    let gauges = IntGaugeVec::new(Opts::new(name, help), &["source"])?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

fn as_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OrderIdFrom, Paygol, ProviderSettings, Secret};
    use crate::event::{AccountName, Verdict};
    use crate::store::{Alarm, Outcome};

    fn source() -> Source {
        let secret = || Secret::new("0123456789abcdef".to_owned());
        Source {
            name: SourceName::new("shop").expect("a name"),
            account: AccountName::new("shop").expect("a name"),
            path: "/paygol".to_owned(),
            provider: ProviderSettings::Paygol(Paygol {
                service_id: "123".to_owned(),
                order_id_from: OrderIdFrom::Custom,
                secrets: vec![secret(), secret()],
                bearer: false,
            }),
        }
    }

    #[test]
    fn the_page_shows_every_promised_series_before_anything_happened() {
        let metrics = Metrics::new(&[source()], Timestamp::UNIX_EPOCH).expect("no collision");
        let page = metrics.page(&Figures::default(), Timestamp::UNIX_EPOCH).expect("text");
        for series in [
            "notifications_total{outcome=\"accepted\",source=\"shop\"} 0",
            "notifications_total{outcome=\"refused\",source=\"none\"} 0",
            "refusals_total{reason=\"not_ready\",source=\"shop\"} 0",
            "events_total{source=\"shop\",verdict=\"hold\"} 0",
            "ack_seconds_count{source=\"shop\"} 0",
            "commit_seconds_count 0",
            "commit_batch_size_count 0",
            "verified_with_key_total{key=\"2\",source=\"shop\"} 0",
            "forgery_alarms_total{kind=\"restring\",source=\"shop\"} 0",
            "relay_published_total{outcome=\"returned\"} 0",
            "relay_backlog_events 0",
            "relay_oldest_seconds 0",
            "relay_connected 0",
            "relay_blocked 0",
            "dead_letters 0",
            "journal_bytes 0",
            "journal_damage_total 0",
            "index_lag_records 0",
            "index_rebuild_progress_ratio 0",
            "quarantine_bytes{source=\"shop\"} 0",
            "trace_spans_total{outcome=\"dropped\"} 0",
            "connections 0",
            "ready 0",
            "store_free_bytes 0",
            "store_size_bytes 0",
            "config_last_reload_successful 1",
            "config_last_reload_success_timestamp_seconds 0",
            "source_silence_seconds{source=\"shop\"} 0",
            "build_info{version=",
        ] {
            assert!(page.lines().any(|line| line.starts_with(&format!("quittance_{series}"))), "{series}\n{page}");
        }
        assert!(page.lines().any(|line| line.starts_with("process_resident_memory_bytes ")), "{page}");
    }

    #[test]
    fn what_is_counted_shows_under_its_own_label_only() {
        let metrics = Metrics::new(&[source()], Timestamp::UNIX_EPOCH).expect("no collision");
        let shop = metrics.source(&SourceName::new("shop").expect("a name"));
        shop.kept(Outcome::Duplicate);
        shop.refused(Some(RefusalReason::TooSlow));
        shop.verified_with(2);
        shop.verified_with(0);
        shop.verified_with(9);
        shop.alarm(Alarm::GetId);
        shop.event(Verdict::Hold);
        metrics.nowhere().refused(None);
        let figures = Figures { damage: 3, oldest: Duration::from_millis(1500), ..Figures::default() };
        let page = metrics.page(&figures, Timestamp::UNIX_EPOCH).expect("text");
        for (series, value) in [
            ("notifications_total{outcome=\"duplicate\",source=\"shop\"}", "1"),
            ("notifications_total{outcome=\"accepted\",source=\"shop\"}", "0"),
            ("notifications_total{outcome=\"refused\",source=\"none\"}", "1"),
            ("refusals_total{reason=\"too_slow\",source=\"shop\"}", "1"),
            ("refusals_total{reason=\"too_slow\",source=\"none\"}", "0"),
            ("verified_with_key_total{key=\"1\",source=\"shop\"}", "0"),
            ("verified_with_key_total{key=\"2\",source=\"shop\"}", "1"),
            ("forgery_alarms_total{kind=\"getid\",source=\"shop\"}", "1"),
            ("events_total{source=\"shop\",verdict=\"hold\"}", "1"),
            ("journal_damage_total", "3"),
            ("relay_oldest_seconds", "1.5"),
        ] {
            let line = format!("quittance_{series} {value}");
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        let again = metrics.page(&figures, Timestamp::UNIX_EPOCH).expect("text");
        assert!(again.contains("quittance_journal_damage_total 3"), "a scrape counts no damage twice");
    }

    #[test]
    fn a_source_that_never_received_anything_is_silent_since_the_start() {
        let metrics = Metrics::new(&[source()], Timestamp::UNIX_EPOCH).expect("no collision");
        let at = |seconds| Timestamp::from_second(seconds).expect("in range");
        let silence = |now| {
            let page = metrics.page(&Figures::default(), at(now)).expect("text");
            let line = page.lines().find(|line| line.starts_with("quittance_source_silence_seconds{")).expect("there");
            line.rsplit(' ').next().map(str::to_owned)
        };
        assert_eq!(silence(90).as_deref(), Some("90"));
        let shop = metrics.source(&SourceName::new("shop").expect("a name"));
        shop.received_at(at(80));
        shop.received_at(at(10)); // an older one that came late takes nothing back
        assert_eq!(silence(90).as_deref(), Some("10"));
    }
}
