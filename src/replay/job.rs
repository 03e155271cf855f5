//! One replay at work: to the relay's own consumers by writing redeliveries, elsewhere by carrying the events itself.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::request::{Elsewhere, Request};
use super::{CANCELED, DONE, FAILED, Inner};
use crate::event::Position;
use crate::sink::{Link, Report};
use crate::store::replaying::{Found, Replay, Selection};
use crate::store::{Due, StoreError, Unavailable};

/// Events written in one group at most, also where nothing else bounds them.
const AT_ONCE: usize = 256;
/// How often is looked whether the relay has settled something.
const LOOK: Duration = Duration::from_millis(5);
/// How long to wait where the store takes nothing now.
const AGAIN: Duration = Duration::from_millis(500);
/// How long another exchange may take to confirm, or be blocked.
const CONFIRM: Duration = Duration::from_secs(30);

/// Why a job stops before its end.
enum Stop {
    Canceled,
    /// The daemon stops: it goes on with the next start.
    Stopping,
    Failed(String),
}

pub(super) struct Job<'i> {
    inner: &'i Arc<Inner>,
    replay: Replay,
    selection: Selection,
    up_to: Position,
    pace: Pace,
    elsewhere: Option<Elsewhere>,
    stop: CancellationToken,
}

impl<'i> Job<'i> {
    /// From what the journal keeps of it.
    ///
    /// # Errors
    /// What does not read.
    pub(super) fn read(inner: &'i Arc<Inner>, replay: Replay, stop: CancellationToken) -> Result<Self, String> {
        let kept: serde_json::Value = serde_json::from_str(&replay.request).map_err(|error| error.to_string())?;
        let request = Request::read(&kept["wanted"], inner.clock.now())?;
        let up_to = Position(kept["up_to"].as_u64().ok_or("up_to is no number")?);
        let pace = Pace::new(request.rate.0);
        // Later records of it need not repeat what the first one says.
        let replay = Replay { request: String::new(), ..replay };
        Ok(Self { inner, replay, selection: request.selection, up_to, pace, elsewhere: request.elsewhere, stop })
    }

    pub(super) async fn run(mut self) {
        let done = match self.elsewhere.clone() {
            Some(elsewhere) => self.carry(&elsewhere).await,
            None => self.write().await,
        };
        let how = match done {
            Ok(()) => DONE.to_owned(),
            Err(Stop::Canceled) => CANCELED.to_owned(),
            Err(Stop::Failed(why)) => format!("{FAILED}{why}"),
            Err(Stop::Stopping) => return,
        };
        tracing::info!(replay = self.replay.id, count = self.replay.count, how, "a replay has ended");
        let end = Replay { ended: Some(how), ..self.replay.clone() };
        // An end that was asked for is still to be told.
        self.stop = CancellationToken::new();
        let _ = self.note(&end, &[], "").await;
    }

    /// Writes redeliveries.
    async fn write(&mut self) -> Result<(), Stop> {
        let window = self.inner.relay.map_or(usize::MAX, |(_, window)| window.max(1));
        let sink = self.inner.relay.map(|(sink, _)| sink);
        let mut flying = match sink {
            Some(sink) => self.inner.store.outstanding(sink, &self.replay.id).map_err(unreadable)?,
            None => Vec::new(),
        };
        // To those that refused them, and nobody else.
        let to = if matches!(self.selection, Selection::DeadLetters(_)) { sink.unwrap_or_default() } else { "" };
        while self.replay.up_to < self.up_to {
            self.check()?;
            if let Some(sink) = sink {
                flying = self.inner.store.unsettled(sink, &flying);
            }
            // A whole window is written ahead of the one that is on its way: the relay never waits for the next group, and what
            // is new never waits for more than that.
            let allowed = if flying.len() < window { self.pace.allows(window.min(AT_ONCE), Instant::now()) } else { 0 };
            if allowed == 0 {
                self.pause(LOOK.max(self.pace.wait())).await?;
                continue;
            }
            let found = self.find(allowed).await?;
            self.pace.spent(found.events.len());
            let next = self.next(&found, found.events.len());
            if !found.events.is_empty() {
                flying.extend(self.note(&next, &found.events, to).await?);
            }
            self.replay = next;
        }
        while let Some(sink) = sink.filter(|_| !flying.is_empty()) {
            self.pause(LOOK).await?;
            flying = self.inner.store.unsettled(sink, &flying);
        }
        Ok(())
    }

    /// Sends to another exchange.
    async fn carry(&mut self, elsewhere: &Elsewhere) -> Result<(), Stop> {
        let towards = self.inner.towards.as_ref().ok_or_else(|| Stop::Failed("no broker is configured".to_owned()))?;
        let sink = towards(elsewhere);
        let connected = tokio::select! {
            connected = sink.connect() => connected,
            stop = self.stopped() => return Err(stop),
        };
        let mut link = connected.map_err(|trouble| Stop::Failed(trouble.to_string()))?;
        let done = self.carry_over(&mut *link).await;
        link.close().await;
        done
    }

    async fn carry_over(&mut self, link: &mut dyn Link) -> Result<(), Stop> {
        while self.replay.up_to < self.up_to {
            self.check()?;
            let allowed = self.pace.allows(AT_ONCE, Instant::now());
            if allowed == 0 {
                self.pause(self.pace.wait()).await?;
                continue;
            }
            let found = self.find(allowed).await?;
            self.pace.spent(found.events.len());
            let handed = self.inner.store.handed(&found.events, &self.replay).map_err(unreadable)?;
            let mut flight = Flight::default();
            handed.iter().for_each(|due| flight.send(due, link));
            while !flight.flying.is_empty() {
                let report = tokio::select! {
                    report = tokio::time::timeout(CONFIRM, link.next()) => report,
                    // What is not confirmed is not counted; the next start sends it once more.
                    stop = self.stopped() => return Err(stop),
                };
                match report.map_err(|_| Stop::Failed("no confirm came in time".to_owned()))? {
                    Report::Took(position) => flight.taken(position, link),
                    Report::Returned(_, why) => {
                        return Err(Stop::Failed(format!("no queue takes the events ({why})")));
                    }
                    Report::Nacked(_, why) => return Err(Stop::Failed(format!("an event is not taken ({why})"))),
                    Report::Broken(why) => return Err(Stop::Failed(why)),
                    Report::Lost(trouble) => return Err(Stop::Failed(trouble.to_string())),
                    // What comes of it comes, or the time is over.
                    Report::Blocked(_) => {}
                }
            }
            let next = self.next(&found, handed.len());
            if !handed.is_empty() {
                self.note(&next, &[], "").await?;
            }
            self.replay = next;
        }
        Ok(())
    }

    async fn find(&self, limit: usize) -> Result<Found, Stop> {
        let (store, selection) = (Arc::clone(&self.inner.store), self.selection.clone());
        let (after, up_to) = (self.replay.up_to, self.up_to);
        let find = move || store.find(&selection, after, up_to, limit);
        let found = tokio::select! {
            found = self.inner.tasks.spawn_blocking("replay look", find) => found,
            stop = self.stopped() => return Err(stop),
        };
        found.map_err(|_| Stop::Failed("looking for the events ended too early".to_owned()))?.map_err(unreadable)
    }

    /// Writes redeliveries, and how far it is; where the store takes nothing just now, later.
    async fn note(&self, now: &Replay, events: &[Position], sink: &str) -> Result<Vec<Position>, Stop> {
        loop {
            match self.inner.store.note_replay(now.clone(), events, sink, None).await {
                Ok(positions) => return Ok(positions),
                Err(Unavailable::Draining) => return Err(Stop::Stopping),
                Err(Unavailable::Overloaded | Unavailable::Storage | Unavailable::NotReady) => {
                    self.pause(AGAIN).await?;
                }
            }
        }
    }

    fn next(&self, found: &Found, sent: usize) -> Replay {
        let count = self.replay.count + sent as u64;
        Replay { up_to: found.looked_up_to, count, ..self.replay.clone() }
    }

    fn check(&self) -> Result<(), Stop> {
        if self.inner.tasks.stopping().is_cancelled() {
            return Err(Stop::Stopping);
        }
        if self.stop.is_cancelled() { Err(Stop::Canceled) } else { Ok(()) }
    }

    async fn pause(&self, time: Duration) -> Result<(), Stop> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            stop = self.stopped() => Err(stop),
        }
    }

    /// Resolves when it is to stop.
    async fn stopped(&self) -> Stop {
        let stopping = self.inner.tasks.stopping();
        tokio::select! {
            () = self.stop.cancelled() => Stop::Canceled,
            () = stopping.cancelled() => Stop::Stopping,
        }
    }
}

/// Events on their way to another exchange. A link has several channels, so of an order only one is on its way: the next
/// one goes when it was taken, as in the relay.
#[derive(Default)]
struct Flight<'d> {
    flying: BTreeMap<Position, Option<String>>,
    /// Behind the one of their order that is on its way.
    behind: BTreeMap<String, VecDeque<&'d Due>>,
}

impl<'d> Flight<'d> {
    fn send(&mut self, due: &'d Due, link: &mut dyn Link) {
        let order = order_of(due);
        if let Some(order) = &order {
            if let Some(behind) = self.behind.get_mut(order) {
                return behind.push_back(due);
            }
            self.behind.insert(order.clone(), VecDeque::new());
        }
        link.send(due);
        self.flying.insert(due.position, order);
    }

    fn taken(&mut self, position: Position, link: &mut dyn Link) {
        let Some(Some(order)) = self.flying.remove(&position) else { return };
        match self.behind.get_mut(&order).and_then(VecDeque::pop_front) {
            Some(next) => {
                link.send(next);
                self.flying.insert(next.position, Some(order));
            }
            None => drop(self.behind.remove(&order)),
        }
    }
}

/// Its order. That two sources may mean two orders by one word costs a moment only.
fn order_of(due: &Due) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Event {
        data: Data,
    }
    #[derive(serde::Deserialize)]
    struct Data {
        order_id: Option<String>,
    }
    serde_json::from_slice(&due.body).ok().and_then(|event: Event| event.data.order_id)
}

fn unreadable(error: StoreError) -> Stop {
    tracing::error!(error = &error as &dyn std::error::Error, "a replay cannot read the journal");
    Stop::Failed("the journal cannot be read; the log says why".to_owned())
}

/// So many a second, saved up for a tenth of one.
struct Pace {
    rate: Option<NonZeroU32>,
    began: Instant,
    spent: u64,
}

impl Pace {
    fn new(rate: Option<NonZeroU32>) -> Self {
        Self { rate, began: Instant::now(), spent: 0 }
    }

    /// How many may go now, of those that are wanted.
    fn allows(&mut self, wanted: usize, now: Instant) -> usize {
        let Some(rate) = self.rate else { return wanted };
        let rate = f64::from(rate.get());
        let earned = now.duration_since(self.began).as_secs_f64() * rate;
        // What was not used is lost: a broker that comes back after an hour is not met by an hour's worth.
        let saved = (rate / 10.0).max(1.0);
        let lost = (earned - self.spent as f64 - saved).max(0.0);
        self.spent += lost as u64;
        let free = (earned - self.spent as f64).clamp(0.0, saved + 1.0);
        wanted.min(free as usize)
    }

    fn spent(&mut self, count: usize) {
        self.spent += count as u64;
    }

    /// Until the next one.
    fn wait(&self) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        Duration::from_secs_f64(1.0 / f64::from(rate.get())).clamp(Duration::from_millis(1), Duration::from_millis(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_and_nothing_is_saved_up_for_long() {
        let mut pace = Pace::new(NonZeroU32::new(50));
        let mut sent = 0;
        for millis in 0..4000 {
            let some = pace.allows(1000, pace.began + Duration::from_millis(millis));
            pace.spent(some);
            sent += some;
        }
        assert!((195..=201).contains(&sent), "{sent} in four seconds");
        let later = pace.began + Duration::from_secs(3600);
        assert!((1..=6).contains(&pace.allows(1000, later)), "an hour of waiting is no hour's worth");
        assert_eq!(Pace::new(None).allows(1000, later), 1000);
    }
}
