//! What is counted at one source. A reload adds sources, takes them away, and changes their keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::{LATENCY_BUCKETS, RefusalReason};
use crate::config::{ProviderSettings, Secret, Source};
use crate::event::{Digest, Verdict};
use crate::store::{Alarm, Outcome};

/// What is counted at one source, every label resolved. A cheap clone.
#[derive(Clone)]
pub struct SourceMetrics(Arc<SourceInner>);

struct SourceInner {
    accepted: IntCounter,
    duplicate: IntCounter,
    conflict: IntCounter,
    refused: IntCounter,
    refusals: Vec<IntCounter>,
    events: Vec<IntCounter>,
    keys: Vec<IntCounter>,
    alarms: Vec<IntCounter>,
    ack_seconds: Histogram,
    /// Which key stands at which position; hashes, which are shown nowhere.
    key_ids: Vec<Digest>,
    /// Milliseconds since 1970 of the newest authentic notification; `i64::MIN` before the first. Outlives a reload.
    last_received: Arc<AtomicI64>,
    /// Since when the source is there.
    since: Timestamp,
}

/// The families with a `source` label, from which the handles of each source are resolved.
pub(super) struct Families {
    notifications: IntCounterVec,
    refusals: IntCounterVec,
    events: IntCounterVec,
    keys: IntCounterVec,
    alarms: IntCounterVec,
    ack_seconds: HistogramVec,
}

const ALARMS: [Alarm; 5] = [Alarm::Conflict, Alarm::Restring, Alarm::CrossType, Alarm::WrongIndicator, Alarm::GetId];

impl SourceMetrics {
    /// Counts a kept notification by what came of it.
    pub fn kept(&self, outcome: Outcome) {
        match outcome {
            Outcome::New => self.0.accepted.inc(),
            Outcome::Duplicate => self.0.duplicate.inc(),
            Outcome::Conflict => self.0.conflict.inc(),
        }
    }
    /// Counts a refusal; `None` for a path that no source has.
    pub fn refused(&self, reason: Option<RefusalReason>) {
        self.0.refused.inc();
        if let Some(counter) = reason.and_then(|reason| self.0.refusals.get(usize::from(reason.code()))) {
            counter.inc();
        }
    }
    /// Counts an event.
    pub fn event(&self, verdict: Verdict) {
        if let Some(counter) = self.0.events.get(usize::from(verdict.code())) {
            counter.inc();
        }
    }
    /// Counts which key held, by its position in the config from 1.
    pub fn verified_with(&self, key: u16) {
        if let Some(counter) = usize::from(key).checked_sub(1).and_then(|index| self.0.keys.get(index)) {
            counter.inc();
        }
    }
    /// Counts what looked like forgery.
    pub fn alarm(&self, alarm: Alarm) {
        if let Some(counter) = ALARMS.iter().position(|known| *known == alarm).and_then(|at| self.0.alarms.get(at)) {
            counter.inc();
        }
    }
    /// Measures from a request's first byte to its answer.
    pub fn answered_after(&self, elapsed: Duration) {
        self.0.ack_seconds.observe(elapsed.as_secs_f64());
    }
    /// Notes that an authentic notification arrived; also at the start, from what the store holds.
    pub fn received_at(&self, at: Timestamp) {
        self.0.last_received.fetch_max(at.as_millisecond(), Ordering::Relaxed);
    }
    /// When the newest authentic notification arrived.
    pub fn last_received(&self) -> Option<Timestamp> {
        let millis = self.0.last_received.load(Ordering::Relaxed);
        (millis != i64::MIN).then(|| Timestamp::from_millisecond(millis).ok()).flatten()
    }
    /// How long nothing authentic arrived: since the newest, or since the source is there.
    pub(super) fn silence(&self, now: Timestamp) -> i64 {
        now.duration_since(self.last_received().unwrap_or(self.0.since)).as_secs().max(0)
    }
    /// Counts since the start: accepted, duplicate, conflict, refused.
    pub fn outcomes(&self) -> [(&'static str, u64); 4] {
        [
            ("accepted", self.0.accepted.get()),
            ("duplicate", self.0.duplicate.get()),
            ("conflict", self.0.conflict.get()),
            ("refused", self.0.refused.get()),
        ]
    }
}

impl Families {
    /// All families, registered.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let family = |name: &str, help: &str, label: &str| {
            let family = IntCounterVec::new(Opts::new(name, help), &["source", label])?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let ack = HistogramOpts::new("ack_seconds", "From a notification's first byte to its answer");
        let ack_seconds = HistogramVec::new(ack.buckets(LATENCY_BUCKETS.to_vec()), &["source"])?;
        registry.register(Box::new(ack_seconds.clone()))?;
        Ok(Self {
            notifications: family("notifications_total", "Requests, by what came of them", "outcome")?,
            refusals: family("refusals_total", "Refused requests, by reason", "reason")?,
            events: family("events_total", "Events, by verdict", "verdict")?,
            keys: family("verified_with_key_total", "Authentic notifications, by the key that held", "key")?,
            alarms: family("forgery_alarms_total", "What looked like forgery", "kind")?,
            ack_seconds,
        })
    }

    /// The handles for what belongs to no source.
    pub(super) fn nowhere(&self, now: Timestamp) -> SourceMetrics {
        self.resolve("none", Vec::new(), Arc::new(AtomicI64::new(i64::MIN)), now)
    }

    /// The handles of a source that may have been there `before`. Everything goes on counting; but a position at which
    /// another key stands now counts from zero, as after a restart: what it counted was the other one's.
    pub(super) fn of_source(&self, source: &Source, before: Option<&SourceMetrics>, now: Timestamp) -> SourceMetrics {
        let name = source.name.as_str();
        let key_ids = key_ids(&source.provider);
        let Some(before) = before else {
            return self.resolve(name, key_ids, Arc::new(AtomicI64::new(i64::MIN)), now);
        };
        for (at, former) in before.0.key_ids.iter().enumerate() {
            if key_ids.get(at) != Some(former) {
                let _ = self.keys.remove_label_values(&[name, &(at + 1).to_string()]);
            }
        }
        self.resolve(name, key_ids, Arc::clone(&before.0.last_received), before.0.since)
    }

    /// Takes the series of a source away that is no longer configured: nobody is to be woken by its silence.
    pub(super) fn forget(&self, name: &str, metrics: &SourceMetrics) {
        let outcomes = metrics.outcomes();
        let keys: Vec<String> = (1..=metrics.0.key_ids.len()).map(|key| key.to_string()).collect();
        let take = |family: &IntCounterVec, labels: &mut dyn Iterator<Item = &str>| {
            for label in labels {
                let _ = family.remove_label_values(&[name, label]);
            }
        };
        take(&self.notifications, &mut outcomes.iter().map(|(word, _)| *word));
        take(&self.refusals, &mut RefusalReason::ALL.iter().map(|reason| reason.as_str()));
        take(&self.events, &mut Verdict::ALL.iter().map(|verdict| verdict.as_str()));
        take(&self.keys, &mut keys.iter().map(String::as_str));
        take(&self.alarms, &mut ALARMS.iter().map(|alarm| alarm.label()));
        let _ = self.ack_seconds.remove_label_values(&[name]);
    }

    fn resolve(
        &self,
        name: &str,
        key_ids: Vec<Digest>,
        last_received: Arc<AtomicI64>,
        since: Timestamp,
    ) -> SourceMetrics {
        let resolve = |family: &IntCounterVec, labels: &[&str]| {
            labels.iter().map(|label| family.with_label_values(&[name, label])).collect::<Vec<_>>()
        };
        let outcome = |label| self.notifications.with_label_values(&[name, label]);
        let keys: Vec<String> = (1..=key_ids.len()).map(|key| key.to_string()).collect();
        SourceMetrics(Arc::new(SourceInner {
            accepted: outcome("accepted"),
            duplicate: outcome("duplicate"),
            conflict: outcome("conflict"),
            refused: outcome("refused"),
            refusals: resolve(&self.refusals, &RefusalReason::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>()),
            events: resolve(&self.events, &Verdict::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>()),
            keys: resolve(&self.keys, &keys.iter().map(String::as_str).collect::<Vec<_>>()),
            alarms: resolve(&self.alarms, &ALARMS.map(Alarm::label)),
            ack_seconds: self.ack_seconds.with_label_values(&[name]),
            key_ids,
            last_received,
            since,
        }))
    }
}

/// The keys by position. A source that has no list of them has one.
fn key_ids(provider: &ProviderSettings) -> Vec<Digest> {
    let of = |secret: &Secret| Digest::of(secret.expose().as_bytes());
    match provider {
        ProviderSettings::ClickPay(settings) => settings.public_keys.iter().map(|key| key.fingerprint()).collect(),
        ProviderSettings::Paygol(settings) => settings.secrets.iter().map(of).collect(),
        ProviderSettings::PaygolLegacy(settings) => settings.secrets.iter().map(of).collect(),
        ProviderSettings::ClickKw(settings) => vec![of(&settings.return_secret)],
        ProviderSettings::ClickGem(settings) => vec![of(&settings.api_signature)],
    }
}
