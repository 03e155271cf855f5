//! The commit of one notification, which no sender can stop half way.
//!
//! The store goes on by itself when nobody waits any more. What is done here goes on too: a sender that hangs up takes
//! neither the count nor the log line with it. No task is started for that unless it happens.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use jiff::Timestamp;

use super::routes::Endpoint;
use crate::drain::Tasks;
use crate::store::{Committed, Outcome, Pending, Unavailable};

type Result = std::result::Result<Committed, Unavailable>;

/// A commit under way. Dropped before its end, it goes on as a task of its own.
pub struct Commit {
    under_way: Option<(Pending<'static, Result>, Note)>,
    tasks: Tasks,
}

/// What is to be counted and logged when a commit ends, and its place among those in flight.
pub struct Note {
    endpoint: Arc<Endpoint>,
    at: Timestamp,
    key: u16,
    /// `None`: it waits for the committer like an operator's question, not like a sender.
    _slot: Option<Slot>,
}

/// One of the places of those that may wait for the committer.
pub struct Slot(Arc<AtomicUsize>);

impl Slot {
    /// A place, unless all `limit` are taken.
    pub fn take(taken: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let step = |taken: usize| (taken < limit).then_some(taken + 1);
        taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).ok()?;
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Note {
    /// About a notification that arrived `at` and was verified with `key`.
    pub fn new(endpoint: Arc<Endpoint>, at: Timestamp, key: u16, slot: Slot) -> Self {
        Self { endpoint, at, key, _slot: Some(slot) }
    }

    /// About one that was refused when it arrived `at`, and proves genuine now.
    pub fn of_reverified(endpoint: Arc<Endpoint>, at: Timestamp, key: u16) -> Self {
        Self { endpoint, at, key, _slot: None }
    }

    /// Counts and logs what came of it.
    pub fn write(self, result: &Result) {
        let metrics = &self.endpoint.metrics;
        metrics.verified_with(self.key);
        metrics.received_at(self.at);
        let Ok(committed) = result else { return }; // the answer's 503 is counted and logged where it is given
        metrics.kept(committed.outcome);
        if committed.outcome != Outcome::Duplicate && committed.event.is_some() {
            metrics.event(committed.verdict);
        }
        committed.alarms.iter().for_each(|alarm| metrics.alarm(*alarm));
        let (source, notification) = (self.endpoint.source.as_str(), committed.notification);
        let event = committed.event.map(tracing::field::display);
        let (kind, status, verdict) = (committed.kind.as_str(), committed.status.as_str(), committed.verdict.as_str());
        for alarm in &committed.alarms {
            let alarm = alarm.label();
            tracing::warn!(%notification, source, alarm, "a genuine notification that contradicts what is known");
        }
        match committed.outcome {
            Outcome::New => tracing::info!(%notification, source, event, kind, status, verdict, "kept"),
            Outcome::Conflict => {
                tracing::warn!(%notification, source, event, kind, status, verdict, "kept: a conflict")
            }
            Outcome::Duplicate => tracing::info!(%notification, source, kind, status, verdict, "seen before"),
        }
    }
}

impl Commit {
    /// Waits for `pending` and then writes `note`.
    pub fn new(pending: Pending<'static, Result>, note: Note, tasks: Tasks) -> Self {
        Self { under_way: Some((pending, note)), tasks }
    }
}

impl Future for Commit {
    type Output = Result;

    /// Pending for ever once it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result> {
        let Some((pending, _)) = &mut self.under_way else { return Poll::Pending };
        let Poll::Ready(result) = pending.as_mut().poll(cx) else { return Poll::Pending };
        if let Some((_, note)) = self.under_way.take() {
            note.write(&result);
        }
        Poll::Ready(result)
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if let Some((pending, note)) = self.under_way.take() {
            self.tasks.spawn("commit", async move {
                let result = pending.await;
                note.write(&result);
            });
        }
    }
}
