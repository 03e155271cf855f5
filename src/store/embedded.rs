//! The embedded store: the journal is the truth, sled is its index, one thread writes.
//!
//! A start takes the lock, and everything else happens on threads of the store's own: opening the journal (again and
//! again while the disk refuses), bringing the index up, committing, indexing, retiring. Until the keys are complete
//! it answers `NotReady`; reading works as soon as the journal is open.

pub mod committer;
pub mod decide;
pub mod fields;
pub mod filter;
pub mod index;
pub mod inspect;
pub mod journal;
pub mod ledger;
pub mod lock;
pub mod operate;
pub mod overlay;
pub mod query;
pub mod raw;
pub mod rebuild;
pub mod record;
pub mod retention;
pub mod sinks;
pub mod start;
pub mod state;
pub mod status;
#[cfg(test)]
mod tests;
mod timeline;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::config::{Config, SinkStart};
use crate::event::{Digest, NotificationId, OrderId, Position, SourceName};
use crate::metrics::CommitMetrics;
use crate::provider::{Claim, Verified};
use crate::seal::Seal;
use crate::store::{
    ByHand, Committed, Due, ExpectError, FeedEntry, Figures, Filter as Wanted, Kept, Page, Pending, Readiness,
    Registered, Registration, Settled, Store, StoreError, Terms, Timeline, TimelineEntry, Unavailable,
};
use committer::{Job, Notification, Registering};
use filter::Filter;
use index::Index;
use journal::Reader;
use ledger::Ledger;
use lock::{Lock, LockError};
use overlay::Preloaded;
use query::Claimed;
use record::Expected;
use sinks::{FEED, Oldest, Sinks};
use state::{Key, Keys};
use status::Shared;

/// The name under which the journal knows how far the relay to AMQP has come.
pub const AMQP: &str = "amqp";

/// How a store is to be kept.
#[derive(Clone)]
pub struct Options {
    /// Its folder.
    pub path: PathBuf,
    /// Size at which a segment is sealed.
    pub segment_bytes: u64,
    /// What may change while it runs.
    pub terms: Terms,
    /// How often is looked for something to retire.
    pub retention_tick: Duration,
    /// The store comes from a backup: hold everything from now on, also after the next start.
    pub restored: bool,
    /// Somebody has compared it with what happened since the backup: hold no longer.
    pub restored_ended: bool,
    /// Somebody has looked: the clock is right although the newest record says otherwise.
    pub confirm_clock: bool,
    /// Which boot of the machine this is: an index of another one is not believed. Empty: none is.
    pub boot: String,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// For the histograms.
    pub metrics: Option<CommitMetrics>,
    /// Draw a progress bar while the index is built.
    pub progress_bar: bool,
    /// What the relay sends to; `None` where there is no relay.
    pub sink: Option<RelaySink>,
}

/// The sink of the relay, as far as the store is concerned.
#[derive(Clone, Debug)]
pub struct RelaySink {
    /// Its name in the journal.
    pub name: String,
    /// Where it begins if it is new to a store that holds events.
    pub start: Option<SinkStart>,
}

/// Whether the store knows where the relay's sink goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enlisted {
    /// The journal is not open yet, or not read far enough.
    NotYet,
    /// Yes; also where there is no relay.
    Yes,
    /// It is new, the store holds events, and nobody said where it begins: nothing is handed out.
    NeedsStart,
}

/// The store. A cheap clone.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    options: Options,
    terms: Current,
    lock: Lock,
    shared: Arc<Shared>,
    /// Set once the journal and the index are open.
    live: OnceLock<Live>,
    in_flight: AtomicUsize,
    head: watch::Sender<Position>,
    enlisted: watch::Sender<Enlisted>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// An open journal and what belongs to it.
struct Live {
    reader: Reader,
    index: Arc<Index>,
    filter: Arc<Filter>,
    seal: Seal,
    keys: Keys,
    sinks: Arc<Sinks>,
    ledger: Arc<Ledger>,
    turns: Arc<AtomicU64>,
    terms: Current,
    store_id: [u8; 16],
    /// Set once the keys are complete.
    jobs: OnceLock<SyncSender<Job>>,
}

/// The terms that hold now. A cheap clone.
#[derive(Clone)]
pub struct Current(Arc<RwLock<Arc<Terms>>>);

impl Current {
    fn new(terms: Terms) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(terms))))
    }
    /// Whoever needs several of them asks once.
    pub fn now(&self) -> Arc<Terms> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
    fn set(&self, terms: Terms) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(terms);
    }
}

/// One of the jobs that may wait; counts itself out when dropped.
struct InFlight(Arc<Inner>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Options {
    /// What a configuration says.
    pub fn of(config: &Config, clock: Arc<dyn Clock>) -> Self {
        Self {
            path: config.store.path.clone(),
            segment_bytes: config.store.segment_bytes,
            terms: Terms::of(config),
            retention_tick: Duration::from_secs(60),
            restored: false,
            restored_ended: false,
            confirm_clock: false,
            boot: index::boot_id(),
            clock,
            metrics: None,
            progress_bar: false,
            sink: config.amqp.as_ref().map(|amqp| RelaySink { name: AMQP.to_owned(), start: amqp.start }),
        }
    }
}

impl Embedded {
    /// Takes the store's lock and starts its threads; the rest happens behind the scenes.
    ///
    /// # Errors
    /// [`LockError`]: another process has the store, or its folder cannot be made.
    pub fn open(options: Options) -> Result<Self, LockError> {
        let lock = Lock::take(&options.path)?;
        let inner = Arc::new(Inner {
            terms: Current::new(options.terms.clone()),
            options,
            lock,
            shared: Arc::new(Shared::default()),
            live: OnceLock::new(),
            in_flight: AtomicUsize::new(0),
            head: watch::Sender::new(Position(0)),
            enlisted: watch::Sender::new(Enlisted::NotYet),
            threads: Mutex::new(Vec::new()),
        });
        start::begin(&inner);
        Ok(Self(inner))
    }

    /// Notes in the lock file where the admin API listens.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn announce(&self, admin: &str) -> Result<(), LockError> {
        self.0.lock.announce(admin)
    }

    /// Why the store failed for good; the process must end when it is told.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.0.shared.fatal()
    }

    /// Whether it is known where the relay's sink goes on.
    pub fn enlisted(&self) -> watch::Receiver<Enlisted> {
        self.0.enlisted.subscribe()
    }

    fn live(&self) -> Result<&Live, StoreError> {
        self.0.live.get().ok_or_else(|| StoreError::Index("the journal is not open yet".to_owned()))
    }

    /// Counts a job in, unless too many wait or the store does not take any.
    fn enter(&self) -> Result<(InFlight, &Live, &SyncSender<Job>), Unavailable> {
        let inner = &self.0;
        if inner.shared.is_draining() {
            return Err(Unavailable::Draining);
        }
        if inner.shared.has_failed() {
            return Err(Unavailable::Storage);
        }
        let live = inner.live.get();
        let Some((live, jobs)) = live.and_then(|live| Some((live, live.jobs.get()?))) else {
            let refused = inner.shared.is_full();
            return Err(if refused { Unavailable::Storage } else { Unavailable::NotReady });
        };
        let terms = inner.terms.now();
        if inner.in_flight.fetch_add(1, Ordering::AcqRel) >= terms.max_in_flight {
            inner.in_flight.fetch_sub(1, Ordering::AcqRel);
            return Err(Unavailable::Overloaded);
        }
        let entered = InFlight(Arc::clone(inner));
        if inner.shared.lag() > terms.index_lag as u64 {
            return Err(Unavailable::Overloaded);
        }
        Ok((entered, live, jobs))
    }
}

fn send(jobs: &SyncSender<Job>, job: Job) -> Result<(), Unavailable> {
    jobs.try_send(job).map_err(|error| match error {
        TrySendError::Full(_) => Unavailable::Overloaded,
        TrySendError::Disconnected(_) => Unavailable::Draining,
    })
}

/// Does on the caller's thread what needs no order: hashes, cuts secrets, finds which keys may be known.
fn prepare(
    live: &Live,
    verified: Verified,
    again: Option<ByHand>,
    reply: oneshot::Sender<Result<Committed, Unavailable>>,
) -> (Box<Notification>, Vec<Key>) {
    let raw = raw::encode(&verified.received, &verified.cuts, &live.seal);
    let indicator = match &verified.claim {
        Claim::Indicator { indicator: Some(bearer), .. } => Some(live.seal.of("indicator", bearer.expose().as_bytes())),
        Claim::Indicator { indicator: None, .. } | Claim::Status(_) => None,
    };
    let keys = &live.keys;
    let (account, details) = (&verified.account, &verified.details);
    let mut wanted = vec![keys.seen(&verified.source, &verified.idempotency)];
    wanted.extend(details.order_id.as_ref().map(|order| keys.order(account, order)));
    wanted.extend(verified.signed.as_ref().map(|signed| keys.signed(signed)));
    wanted.extend(verified.getid.as_ref().map(|getid| keys.getid(account, getid)));
    if let Claim::Status(status) = verified.claim {
        let (transaction, order) = (details.transaction_id.as_deref(), details.order_id.as_ref());
        wanted.extend(keys.told(account, verified.kind, transaction, order, status));
    }
    wanted.retain(|key| live.filter.may_contain(key.fingerprint()));
    let rivals = verified.ambiguity.as_ref().and_then(|ambiguity| ambiguity.candidate_orders());
    let raw_hash = Digest::of(&raw);
    let preloaded = Preloaded { turn: live.turns.load(Ordering::Acquire), ..Preloaded::default() };
    (Box::new(Notification { verified, raw, raw_hash, indicator, rivals, again, preloaded, reply }), wanted)
}

impl Store for Embedded {
    fn commit(&self, verified: Verified) -> Pending<'static, Result<Committed, Unavailable>> {
        self.take_in(verified, None)
    }

    fn expect(&self, registration: Registration) -> Pending<'static, Result<Registered, ExpectError>> {
        let Some(account) = self.0.terms.now().accounts.get(&registration.source).cloned() else {
            return Box::pin(std::future::ready(Err(ExpectError::NoSource)));
        };
        let (reply, answer) = oneshot::channel();
        let entered = self.enter().and_then(|(in_flight, live, jobs)| {
            let (indicator, unfit) = (registration.indicator.as_ref(), registration.unfit);
            let expected = Expected {
                source: registration.source,
                account,
                order: registration.order,
                kind: registration.kind,
                amount: registration.amount,
                session: registration.session,
                indicator: indicator.map(|bearer| live.seal.of("indicator", bearer.expose().as_bytes())),
                expires_at: registration.expires_at,
            };
            send(jobs, Job::Expectation(Box::new(Registering { expected, unfit, reply }))).map(|()| in_flight)
        });
        Box::pin(async move {
            let _in_flight = entered?;
            answer.await.unwrap_or(Err(ExpectError::Unavailable(Unavailable::Draining)))
        })
    }

    fn due(&self, sink: &str, limit: usize) -> Result<Vec<Due>, StoreError> {
        let live = self.live()?;
        // How far the relay's sink has come is looked up first of all; of others that is known with the keys.
        let relays = self.0.options.sink.as_ref().is_some_and(|relay| relay.name == sink);
        let known = live.jobs.get().is_some() || relays;
        let known = known && !(relays && *self.0.enlisted.borrow() != Enlisted::Yes);
        if !known {
            return Ok(Vec::new());
        }
        let mut due = Vec::new();
        loop {
            let claimed = match live.due(sink, limit - due.len()) {
                Ok(claimed) => claimed,
                // What is claimed already must be heard of, or nobody would ever end its claim.
                Err(error) if due.is_empty() => return Err(error),
                Err(_) => break,
            };
            let found = claimed.len();
            let before = due.len();
            for claimed in claimed {
                match claimed {
                    Claimed::Due(event) => due.push(event),
                    Claimed::Retired(position) => self.settle(sink, position, Settled::Delivered),
                    // What was acknowledged and is lost all the same must be seen, and must not hold the others up.
                    Claimed::Lost(position, why) => {
                        tracing::error!(sink, %position, why, "an event cannot be handed out: it is a dead letter now");
                        self.settle(sink, position, Settled::Dead(why));
                    }
                }
            }
            // What was settled here and now made room, also for the next one of its order.
            if due.len() - before == found {
                break;
            }
        }
        due.sort_by_key(|due| due.position);
        Ok(due)
    }

    fn settle(&self, sink: &str, position: Position, how: Settled) {
        let Ok(live) = self.live() else { return };
        let event = match how {
            Settled::Dead(_) => live.event_at(position),
            Settled::Delivered | Settled::Refused(_) | Settled::Released => position,
        };
        if live.sinks.settle(sink, position, event, how) {
            self.0.shared.dead_letter();
        }
    }

    fn release(&self, sink: &str) {
        if let Ok(live) = self.live() {
            live.sinks.release(sink);
        }
    }

    fn events(&self, after: Position, limit: usize) -> Result<Vec<FeedEntry>, StoreError> {
        self.live()?.events(after, limit)
    }

    fn acknowledge(&self, consumer: &str, position: Position) {
        if let Ok(live) = self.live() {
            live.sinks.acknowledge(&format!("{FEED}{consumer}"), position);
        }
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.0.head.subscribe()
    }

    fn horizon(&self) -> Position {
        Position(self.0.shared.horizon())
    }

    fn id(&self) -> [u8; 16] {
        self.0.live.get().map_or([0; 16], |live| live.store_id)
    }

    fn timelines(&self) -> Vec<Timeline> {
        self.0.shared.timelines()
    }

    fn notifications(&self, filter: &Wanted, before: Option<Position>, limit: usize) -> Result<Page, StoreError> {
        self.live()?.notifications(filter, before, limit)
    }

    fn notification(&self, id: NotificationId) -> Result<Option<Kept>, StoreError> {
        self.live()?.notification(id)
    }

    fn order(&self, source: &SourceName, order: &OrderId) -> Result<Vec<TimelineEntry>, StoreError> {
        self.live()?.order(source, order)
    }

    fn adopt(&self, mut terms: Terms) {
        // What was kept of a source that is configured no more can be looked at all the same.
        for (name, account) in &self.0.terms.now().accounts {
            terms.accounts.entry(name.clone()).or_insert_with(|| account.clone());
        }
        self.0.terms.set(terms);
    }

    fn readiness(&self) -> Readiness {
        let shared = &self.0.shared;
        if shared.is_draining() {
            return Readiness::Draining;
        }
        if let Some(why) = shared.refusal() {
            return Readiness::Storage(why);
        }
        if shared.has_failed() {
            return Readiness::Storage("the store has failed; the process is ending".to_owned());
        }
        if shared.index_lost() {
            return Readiness::Storage("the index failed and is being built anew".to_owned());
        }
        let ready = self.0.live.get().is_some_and(|live| live.jobs.get().is_some());
        if ready { Readiness::Ready } else { Readiness::Rebuilding(shared.progress()) }
    }

    fn figures(&self) -> Figures {
        let shared = &self.0.shared;
        let (head, chain) = shared.newest();
        let live = self.0.live.get();
        let segments = live.map(|live| live.reader.segments()).unwrap_or_default();
        let (backlog, at) = match &self.0.options.sink {
            Some(relay) => {
                live.and_then(|live| live.sinks.backlog(&relay.name)).unwrap_or((0, Oldest::From(Position(0))))
            }
            None => {
                let (events, acknowledged) = shared.feed_backlog();
                (events, Oldest::From(Position(acknowledged.0 + 1)))
            }
        };
        let oldest = live.filter(|_| backlog > 0).and_then(|live| live.oldest(at));
        let age = oldest.map(|at| self.0.options.clock.now().duration_since(at));
        Figures {
            backlog,
            oldest: age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default(),
            dead_letters: shared.dead_letters(),
            head: head.0,
            chain: chain.to_string(),
            journal_bytes: segments.iter().map(|segment| segment.bytes).sum(),
            damage: shared.damage() + live.map_or(0, |live| live.reader.damage_met()),
            index_lag: shared.lag(),
            rebuild_progress: shared.progress(),
            restored: shared.restored(),
        }
    }

    fn close(&self) {
        self.0.shared.drain();
        if let Some(jobs) = self.0.live.get().and_then(|live| live.jobs.get()) {
            let _ = jobs.send(Job::Close);
        }
        // A start that is still under way makes more threads before its own ends.
        loop {
            let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
            if threads.is_empty() {
                break;
            }
            for thread in threads {
                let name = thread.thread().name().unwrap_or("a thread").to_owned();
                // One that waits to try something again looks up.
                thread.thread().unpark();
                if thread.join().is_err() {
                    tracing::error!(thread = name, "a thread of the store panicked");
                }
            }
        }
    }
}

impl Embedded {
    /// Has a notification decided and kept; `again`: it comes out of the quarantine, and who wants that.
    fn take_in(&self, verified: Verified, again: Option<ByHand>) -> Pending<'static, Result<Committed, Unavailable>> {
        let (reply, answer) = oneshot::channel();
        let entered = match self.enter() {
            Err(unavailable) => return Box::pin(std::future::ready(Err(unavailable))),
            Ok((in_flight, live, jobs)) => {
                let (job, known) = prepare(live, verified, again, reply);
                if known.is_empty() {
                    // New as far as memory knows: nothing is read, nothing is waited for.
                    send(jobs, Job::Notification(job)).map(|()| in_flight)
                } else {
                    let store = self.clone();
                    tokio::task::spawn_blocking(move || store.look_ahead(job, &known));
                    Ok(in_flight)
                }
            }
        };
        Box::pin(async move {
            let _in_flight = entered?;
            answer.await.unwrap_or(Err(Unavailable::Draining))
        })
    }

    /// Reads from the index what the committer will ask for, so that it need not wait for the disk itself.
    fn look_ahead(&self, mut job: Box<Notification>, known: &[Key]) {
        let Ok(live) = self.live() else { return };
        for key in known {
            // What fails here the committer will see fail, and answer.
            if let Ok(value) = live.index.get(key) {
                job.preloaded.values.insert(*key, value);
            }
        }
        if let Some(jobs) = live.jobs.get()
            && let Err(TrySendError::Full(Job::Notification(job)) | TrySendError::Disconnected(Job::Notification(job))) =
                jobs.try_send(Job::Notification(job))
        {
            let _ = job.reply.send(Err(Unavailable::Overloaded));
        }
    }
}

#[cfg(test)]
impl Embedded {
    /// Takes the index away as an error of sled would.
    fn fail_index(&self) {
        if let Ok(live) = self.live() {
            live.index.lose();
        }
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Embedded({})", self.0.options.path.display())
    }
}
