//! Sending kept events again: jobs that write redeliveries at their rate, and only while few of them are unsettled, so
//! that live events never queue behind them.
//!
//! A replay is a write: the relay carries it like everything else, and each event keeps its id. Only what goes to another
//! exchange is carried by the job itself, over a connection of its own, so that its failure is the job's and nobody
//! else's. How far a job is stands in the journal in the same group as what it wrote, so that a crash neither loses nor
//! repeats a redelivery. It knows store and sink, and nobody else.

mod job;
pub mod request;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::drain::Tasks;
use crate::event::{Position, rfc3339};
use crate::sink::Sink;
use crate::store::replaying::{Preview, Replay};
use crate::store::{ByHand, Readiness, Store, StoreError, Unavailable};
use job::Job;
use request::{Elsewhere, Request};

/// Jobs that may run at once.
const RUNNING: usize = 8;
/// How a job ended that did all it was asked for.
const DONE: &str = "done";
/// How one ended that somebody stopped.
const CANCELED: &str = "canceled";
/// What stands before the reason of one that failed.
const FAILED: &str = "failed: ";

/// Makes the sink of another exchange.
pub type Towards = Arc<dyn Fn(&Elsewhere) -> Arc<dyn Sink> + Send + Sync>;

/// The daemon's replays. A cheap clone.
#[derive(Clone)]
pub struct Replays(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    tasks: Tasks,
    clock: Arc<dyn Clock>,
    /// The relay's sink and its window; `None`: the feed is all there is, and its readers go at their own pace.
    relay: Option<(&'static str, usize)>,
    /// Whether this process carries them: one that only holds the store for a moment leaves it to the daemon.
    carries: bool,
    /// `None` where there is no broker to send to.
    towards: Option<Towards>,
    running: Mutex<BTreeMap<String, CancellationToken>>,
}

/// Why a replay was not begun.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Enough are running.
    #[error("{RUNNING} replays are running: wait for one, or cancel one")]
    TooMany,
    /// Nothing can be sent to an exchange.
    #[error("another exchange needs a broker: [relay.amqp] is not configured")]
    NoBroker,
    /// Dead letters are the relay's.
    #[error("{0} of the ids name no event of this store: nothing is replayed")]
    Missing(u64),
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Store(#[from] StoreError),
    /// It cannot be written now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A look ended by a panic.
    #[error("looking for the events ended too early")]
    Broken,
}

impl Replays {
    /// Nothing runs before [`Replays::resume`] or [`Replays::start`].
    pub fn new(
        store: Arc<dyn Store>,
        tasks: Tasks,
        clock: Arc<dyn Clock>,
        relay: Option<(&'static str, usize)>,
        towards: Option<Towards>,
    ) -> Self {
        Self(Arc::new(Inner { store, tasks, clock, relay, carries: true, towards, running: Mutex::default() }))
    }

    /// For a process that only holds the store for a moment: what is begun is written down, and the daemon goes on with
    /// it when it starts. `towards`: whether there is a broker to send to.
    pub fn noted(store: Arc<dyn Store>, tasks: Tasks, clock: Arc<dyn Clock>, towards: Option<Towards>) -> Self {
        Self(Arc::new(Inner { store, tasks, clock, relay: None, carries: false, towards, running: Mutex::default() }))
    }

    /// What a request finds now, and up to where it looked.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub async fn preview(&self, request: &Request) -> Result<(Preview, Position), ReplayError> {
        let up_to = *self.0.store.head().borrow();
        let (store, selection) = (Arc::clone(&self.0.store), request.selection.clone());
        let look = self.0.tasks.spawn_blocking("replay look", move || store.preview(&selection, up_to));
        let preview = look.await.map_err(|_| ReplayError::Broken)??;
        if preview.missing > 0 {
            return Err(ReplayError::Missing(preview.missing));
        }
        Ok((preview, up_to))
    }

    /// Begins a replay: it is in the journal when this returns.
    ///
    /// # Errors
    /// [`ReplayError`]; nothing was begun then.
    pub async fn start(&self, request: &Request, by: ByHand) -> Result<Replay, ReplayError> {
        if request.elsewhere.is_some() && self.0.towards.is_none() {
            return Err(ReplayError::NoBroker);
        }
        let (preview, up_to) = self.preview(request).await?;
        let now = self.0.clock.now();
        let kept = json!({
            "asked_by": by.who(), "at": rfc3339(now), "wanted": request.kept, "up_to": up_to.0,
            "matched": preview.count, "gone": preview.gone,
        });
        let id = id_at(now);
        let replay = Replay { id, request: kept.to_string(), up_to: Position(0), count: 0, ended: None };
        let stop = self.reserve(&replay.id)?;
        // To its end also where whoever asks does not wait for it: what is written must be carried.
        let begin = self.clone().begin(replay.clone(), by, stop);
        self.0.tasks.spawn("replay start", begin).await.map_err(|_| ReplayError::Broken)??;
        Ok(replay)
    }

    async fn begin(self, replay: Replay, by: ByHand, stop: CancellationToken) -> Result<(), Unavailable> {
        let written = self.0.store.note_replay(replay.clone(), &[], "", Some(by)).await;
        match written {
            Ok(_) => self.carry(replay, stop),
            Err(_) => drop(self.running().remove(&replay.id)),
        }
        written.map(drop)
    }

    /// A place among those that run.
    fn reserve(&self, id: &str) -> Result<CancellationToken, ReplayError> {
        let stop = CancellationToken::new();
        let mut running = self.running();
        if running.len() >= RUNNING {
            return Err(ReplayError::TooMany);
        }
        running.insert(id.to_owned(), stop.clone());
        Ok(stop)
    }

    /// Goes on with what a former run left unfinished, once the store is ready.
    pub async fn resume(self) {
        const LOOK_AGAIN: Duration = Duration::from_millis(100);
        let stopping = self.0.tasks.stopping();
        while self.0.store.readiness() != Readiness::Ready {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
        let unfinished = self.0.store.replays().into_iter().filter(|replay| replay.ended.is_none());
        for replay in unfinished {
            let stop = CancellationToken::new();
            // One that was begun meanwhile is carried already.
            if self.running().contains_key(&replay.id) {
                continue;
            }
            self.running().insert(replay.id.clone(), stop.clone());
            tracing::info!(replay = replay.id, count = replay.count, "going on with a replay");
            self.carry(replay, stop);
        }
    }

    /// Stops a replay for good, also across a restart. What it has written is sent all the same. Whether it had not ended.
    ///
    /// # Errors
    /// When that cannot be written down; it goes on then.
    pub async fn cancel(&self, id: &str, by: ByHand) -> Result<bool, ReplayError> {
        // To its end also where whoever asks does not wait for it: one that is written down must stop.
        let cancel = self.clone().end(id.to_owned(), by);
        Ok(self.0.tasks.spawn("replay cancel", cancel).await.map_err(|_| ReplayError::Broken)??)
    }

    async fn end(self, id: String, by: ByHand) -> Result<bool, Unavailable> {
        let Some(replay) = self.0.store.replay(&id).filter(|replay| replay.ended.is_none()) else { return Ok(false) };
        let end = Replay { request: String::new(), ended: Some(CANCELED.to_owned()), ..replay };
        self.0.store.note_replay(end, &[], "", Some(by)).await?;
        if let Some(stop) = self.running().get(&id) {
            stop.cancel();
        }
        // The first end counts: it may have come to its own meanwhile.
        Ok(self.0.store.replay(&id).is_some_and(|replay| replay.ended.as_deref() == Some(CANCELED)))
    }

    /// A replay as it is shown.
    pub fn shown(&self, replay: &Replay) -> Value {
        let request: Value = serde_json::from_str(&replay.request).unwrap_or_default();
        let state = match replay.ended.as_deref() {
            None => "running",
            Some(how) if how.starts_with(FAILED) => "failed",
            Some(CANCELED) => CANCELED,
            Some(_) => DONE,
        };
        let error = replay.ended.as_deref().and_then(|how| how.strip_prefix(FAILED));
        json!({
            "id": replay.id, "state": state, "asked_by": request["asked_by"], "started_at": request["at"],
            "matched": request["matched"], "gone": request["gone"], "redelivered": replay.count,
            "request": request["wanted"], "error": error,
        })
    }

    fn carry(&self, replay: Replay, stop: CancellationToken) {
        if !self.0.carries {
            self.running().remove(&replay.id);
            return;
        }
        let replays = self.clone();
        self.0.tasks.spawn("replay", async move {
            let id = replay.id.clone();
            match Job::read(&replays.0, replay, stop) {
                Ok(job) => job.run().await,
                Err(why) => tracing::error!(replay = id, why, "what a replay was asked for does not read"),
            }
            replays.running().remove(&id);
        });
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, CancellationToken>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new id, ordered by time.
fn id_at(now: jiff::Timestamp) -> String {
    let (seconds, nanos) = (now.as_second().unsigned_abs(), now.subsec_nanosecond().unsigned_abs());
    uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos)).to_string()
}
