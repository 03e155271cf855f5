//! The store: what keeps notifications and tells whether one was seen before.
//!
//! The only thing that receiving and sending both touch. `Store` says what any implementation promises, and
//! `conformance` proves it of each; the embedded one (journal on disk, sled as its index) is the default.

#[cfg(test)]
pub mod conformance;
pub mod cursor;
pub mod embedded;
mod noted;
pub mod operate;
pub mod replaying;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::config::{Config, Retention};
use crate::event::{AccountName, EventId, Kind, Money, NotificationId, OrderId, Position, SourceName, Status, Verdict};
use crate::provider::{Bearer, Verified};
pub use noted::{HeadNote, NotNoted, Noted};
pub use operate::{ByHand, Operate};

/// What [`Store::id`] says until the journal is open.
pub const NOT_OPEN: [u8; 16] = [0; 16];

/// What a store call returns when it must wait for a disk.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps notifications durably, decides what each one is worth, and hands out what is due.
pub trait Store: Operate {
    /// Decides and keeps. Resolves only after the record is synced to disk. Dropping the future does not stop it.
    ///
    /// # Errors
    /// [`Unavailable`]; it never promises that nothing was kept.
    fn commit(&self, verified: Verified) -> Pending<'static, Result<Committed, Unavailable>>;

    /// Registers what the order system expects. Resolves only after the sync.
    ///
    /// # Errors
    /// [`ExpectError`].
    fn expect(&self, registration: Registration) -> Pending<'static, Result<Registered, ExpectError>>;

    /// Claims up to `limit` events that `sink` has not settled, in journal order and at most one of an order.
    /// What was claimed is not handed out again until it is settled or released.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn due(&self, sink: &str, limit: usize) -> Result<Vec<Due>, StoreError>;

    /// Ends a claim. The progress rides in the next group, at the latest after a second.
    fn settle(&self, sink: &str, position: Position, how: Settled);

    /// Ends all claims of a sink, as [`Settled::Released`] does: for whoever takes over from one that died.
    fn release(&self, sink: &str);

    /// Events at positions above `after`, in journal order; positions become visible in order.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn events(&self, after: Position, limit: usize) -> Result<Vec<FeedEntry>, StoreError>;

    /// Notes that `consumer` has all events up to and including `position`.
    fn acknowledge(&self, consumer: &str, position: Position);

    /// The newest visible position. A change is a wake-up: it carries no data that anyone relies on.
    fn head(&self) -> watch::Receiver<Position>;

    /// The oldest position after which the feed is complete.
    fn horizon(&self) -> Position;

    /// The store's identity, in every cursor; [`NOT_OPEN`] while it is starting and does not know it yet.
    fn id(&self) -> [u8; 16];

    /// The histories that cursors of the feed may come from, oldest first; the last one goes on. Empty until the store
    /// knows them, and its horizon: until then nothing can be said of any cursor.
    fn timelines(&self) -> Vec<Timeline>;

    /// A page of notifications, newest first, below `before`.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn notifications(&self, filter: &Filter, before: Option<Position>, limit: usize) -> Result<Page, StoreError>;

    /// One notification with everything kept about it.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn notification(&self, id: NotificationId) -> Result<Option<Kept>, StoreError>;

    /// Everything that happened to an order at a source, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn order(&self, source: &SourceName, order: &OrderId) -> Result<Vec<TimelineEntry>, StoreError>;

    /// Goes on under other terms, from the next commit on.
    fn adopt(&self, terms: Terms);

    /// Whether it can sync and its keys are complete.
    fn readiness(&self) -> Readiness;

    /// Figures for `/api/v1/status` and `/metrics`.
    fn figures(&self) -> Figures;

    /// Stops taking commits, finishes those that are queued, writes the last synced mark and the index. Blocks.
    fn close(&self);
}

/// What a configuration says to an open store, and may say anew while it runs.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The sources' accounts.
    pub accounts: BTreeMap<SourceName, AccountName>,
    /// Commits that may wait.
    pub max_in_flight: usize,
    /// Records the index may lag behind.
    pub index_lag: usize,
    /// What is kept how long.
    pub retention: Retention,
    /// `policy.fulfil = "never"`.
    pub fulfil_never: bool,
}

/// A history of a store. The first one bears the store's identity; each start from a backup begins another, since the
/// positions after it were given to other events before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Its identity, in every cursor that is given out in it.
    pub id: [u8; 16],
    /// The last position that this store shares with it.
    pub until: Position,
}

/// What came of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// New, seen before, or contradicting what was seen before.
    pub outcome: Outcome,
    /// The kept notification: the original's for a duplicate.
    pub notification: NotificationId,
    /// Its event; `None` for a conflict beyond the eighth of its key.
    pub event: Option<EventId>,
    /// The order it names.
    pub order: Option<OrderId>,
    /// What moves.
    pub kind: Kind,
    /// The state that was told.
    pub status: Status,
    /// The verdict that was told.
    pub verdict: Verdict,
    /// Click KW: the indicator is one that was registered for the order.
    pub indicator_right: bool,
    /// Some notification of this order already said `paid` with a right indicator or its equivalent.
    pub order_paid: bool,
    /// What looked like forgery, for the alarm metric.
    pub alarms: Vec<Alarm>,
}

impl Committed {
    /// Click KW: a success with an indicator that was not registered for the order, although others were.
    pub fn indicator_wrong(&self) -> bool {
        self.alarms.contains(&Alarm::WrongIndicator)
    }
}

/// Whether a notification was seen before. None of these is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// First of its key: kept, one event.
    New,
    /// Same key, same digest: nothing is written.
    Duplicate,
    /// Same key or signed string, another digest: kept, held, alarmed.
    Conflict,
}

/// Kinds of `quittance_forgery_alarms_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// One key, two statements.
    Conflict,
    /// One signed string, cut in two ways.
    Restring,
    /// A signed string that can also be read as another type of message.
    CrossType,
    /// Click KW: success with an indicator that was not registered.
    WrongIndicator,
    /// ClickGem: a `getid` that belongs to another order or was told before.
    GetId,
}

impl Alarm {
    /// The label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Restring => "restring",
            Self::CrossType => "cross_type",
            Self::WrongIndicator => "wrong_indicator",
            Self::GetId => "getid",
        }
    }
}

/// Why nothing can be kept now. The sender is asked to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Too many wait for the committer, or the index lags too far behind.
    #[error("too much is waiting to be written")]
    Overloaded,
    /// The disk refuses: full, or read-only.
    #[error("the disk takes no more")]
    Storage,
    /// The keys are not complete yet.
    #[error("the keys are not complete yet")]
    NotReady,
    /// The daemon is stopping.
    #[error("stopping")]
    Draining,
}

/// What the order system wants to be told about.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The source at which it will arrive.
    pub source: SourceName,
    /// The order.
    pub order: OrderId,
    /// What moves.
    pub kind: Kind,
    /// How much.
    pub amount: Money,
    /// Click KW: the session; ClickGem: the getid.
    pub session: Option<String>,
    /// Click KW: the indicator of that session, a bearer secret.
    pub indicator: Option<Bearer>,
    /// Until when.
    pub expires_at: Timestamp,
    /// Why the source can never be paid this amount, where it cannot. It is refused then, but an order that is open
    /// with another amount or currency contradicts first: only the store knows whether one is.
    pub unfit: Option<&'static str>,
}

/// What came of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The same had been registered before: nothing was written.
    pub existed: bool,
    /// Until when it holds.
    pub expires_at: Timestamp,
}

/// Why a registration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpectError {
    /// Another amount or currency is registered and open.
    #[error("the order is already expected with another amount or currency")]
    Contradicts,
    /// Eight sessions of the order are open.
    #[error("eight sessions of this order are already open")]
    TooManyOpen,
    /// The source can never be paid this amount: [`Registration::unfit`].
    #[error("{0}")]
    Unfit(&'static str),
    /// The store has no source of that name.
    #[error("no such source")]
    NoSource,
    /// Not now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// An event that a sink has claimed.
#[derive(Clone, Debug)]
pub struct Due {
    /// Where it stands; ends the claim.
    pub position: Position,
    /// Its source, for the routing key and the header.
    pub source: SourceName,
    /// Its id.
    pub event: EventId,
    /// `<kind>.<status>`.
    pub event_type: String,
    /// When the notification arrived.
    pub received_at: Timestamp,
    /// The replay that asked for it, if one did.
    pub replay: Option<String>,
    /// Who asked for that replay, as he said of himself.
    pub asked_by: Option<String>,
    /// How often it was handed to the sink and refused before.
    pub attempts: u32,
    /// The event's JSON.
    pub body: Bytes,
}

/// How a claim ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The sink has it for good.
    Delivered,
    /// Refused by the sink while others were taken: counts as an attempt, due again.
    Refused(String),
    /// Refused for good: a dead letter.
    Dead(String),
    /// Nothing is known of it: due again, no attempt counted.
    Released,
}

/// An entry of the feed.
#[derive(Clone, Debug)]
pub struct FeedEntry {
    /// Where it stands.
    pub position: Position,
    /// The replay that asked for it, if one did.
    pub replay: Option<String>,
    /// The event's JSON.
    pub event: Bytes,
}

/// What to look for among the notifications. Empty finds all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this source.
    pub source: Option<SourceName>,
    /// Of this order.
    pub order: Option<OrderId>,
    /// `accepted`, `conflict`, `released`.
    pub outcome: Option<KeptOutcome>,
    /// In this state.
    pub status: Option<Status>,
    /// With this verdict.
    pub verdict: Option<Verdict>,
    /// Arrived then or later.
    pub since: Option<Timestamp>,
    /// Arrived before then.
    pub until: Option<Timestamp>,
}

crate::event::status::words! {
    /// How a notification came to be kept.
    KeptOutcome { Accepted = "accepted", Conflict = "conflict", Released = "released" }
}

/// A page of notifications.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Newest first.
    pub notifications: Vec<Item>,
    /// The position below which the next page begins; `None` at the end.
    pub next: Option<Position>,
}

/// A notification in a list.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Item {
    /// Its id.
    pub id: NotificationId,
    /// Its event.
    pub event_id: Option<EventId>,
    /// The source that received it.
    pub source: SourceName,
    /// The provider's word.
    pub provider: String,
    /// How it came to be kept.
    pub outcome: KeptOutcome,
    /// When it arrived, RFC 3339.
    pub received_at: String,
    /// What moves.
    pub kind: Kind,
    /// In which state.
    pub status: Status,
    /// The order.
    pub order_id: Option<OrderId>,
    /// The provider's number.
    pub transaction_id: Option<String>,
    /// What was paid.
    pub amount: Option<Money>,
    /// How it was authenticated.
    pub assurance: crate::event::Assurance,
    /// What came of the comparison.
    pub expectation: crate::event::ExpectationResult,
    /// What the order system may do.
    pub verdict: Verdict,
    /// Why not more.
    pub reasons: Vec<crate::event::Reason>,
    /// How often it came; a hint, exact since the index was built.
    pub times_seen: u64,
    /// When it last came, RFC 3339.
    pub last_seen_at: String,
}

/// A notification with everything that is kept about it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Kept {
    /// The list's item.
    #[serde(flatten)]
    pub item: Item,
    /// The request as it came, secrets cut out; `None` once its body was retired.
    pub request: Option<KeptRequest>,
    /// How it was authenticated.
    pub verification: Verification,
    /// The event; `None` once its body was retired.
    pub event: Option<Box<serde_json::value::RawValue>>,
    /// What became of the event at each sink.
    pub deliveries: Vec<Delivery>,
}

/// A kept request.
#[derive(Clone, Debug, serde::Serialize)]
pub struct KeptRequest {
    /// Method.
    pub method: String,
    /// Path and query as sent, secrets cut out.
    pub path: String,
    /// Headers, secrets cut out.
    pub headers: std::collections::BTreeMap<String, String>,
    /// Body, base64.
    pub body: String,
    /// The peer's address.
    pub remote: String,
}

/// How a notification was authenticated.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Verification {
    /// The scheme's word.
    pub scheme: String,
    /// Which of the source's keys, from 1.
    pub key: u16,
    /// Hash of the signed string, hex.
    pub signed_hash: Option<String>,
}

/// One try to hand an event to a sink.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Delivery {
    /// `amqp`, or `feed:<consumer>`.
    pub sink: String,
    /// When, RFC 3339.
    pub at: String,
    /// From 1.
    pub attempt: u32,
    /// `delivered`, `dead`, or the sink's reason.
    pub result: String,
}

/// Something that happened to an order.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TimelineEntry {
    /// When, RFC 3339.
    pub at: String,
    /// `expectation`, `notification`, `event`, `delivery` or `settlement`.
    pub what: &'static str,
    /// The rest, by what it is.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Terms {
    /// What a configuration says.
    pub fn of(config: &Config) -> Self {
        Self {
            accounts: config.sources.iter().map(|source| (source.name.clone(), source.account.clone())).collect(),
            max_in_flight: config.listener.max_in_flight,
            index_lag: config.store.index_lag,
            retention: config.retention,
            fulfil_never: config.fulfil_never,
        }
    }
}

/// Whether the store takes notifications.
#[derive(Clone, Debug, PartialEq)]
pub enum Readiness {
    /// It can sync and its keys are complete.
    Ready,
    /// The index is being built: this share of it is done.
    Rebuilding(f64),
    /// The disk refuses; it tries again by itself.
    Storage(String),
    /// It is stopping.
    Draining,
}

/// Figures of a store at one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Position of the newest record.
    pub head: u64,
    /// Hash of the newest head.
    pub chain: String,
    /// Bytes on disk.
    pub journal_bytes: u64,
    /// Places in the journal that were found damaged since the store was made.
    pub damage: u64,
    /// Records that the index does not hold yet.
    pub index_lag: u64,
    /// Share of the index that is built, 0 to 1.
    pub rebuild_progress: f64,
    /// The store was started from a backup and holds everything.
    pub restored: bool,
    /// Events that the relay's sink has not settled; where there is none, those that the slowest consumer of the feed
    /// has not acknowledged.
    pub backlog: u64,
    /// Age of the oldest of them.
    pub oldest: Duration,
    /// Dead letters.
    pub dead_letters: u64,
}

/// The journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An error of the disk or the file system.
    #[error("reading the journal in {path}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What was read is not what was written.
    #[error("the journal is damaged at {0}")]
    Damaged(String),
    /// The index answered with an error, or is not open yet; it is being built anew.
    #[error("the index failed: {0}")]
    Index(String),
}
