//! The words of replays and dead letters: what to send again, what is written of it, what an operator is shown.

use crate::event::{Digest, EventId, NotificationId, OrderId, Position, SourceName};
use crate::provider::{Received, SignedString};
use crate::seal::Scar;

use super::{Filter, Item};

/// Which events are to be sent again.
#[derive(Clone, Debug)]
pub enum Selection {
    /// Those that fit.
    Filter(Filter),
    /// These: a notification's id stands for its event.
    Ids(Vec<Wanted>),
    /// Those that a sink refused for good: all, or these.
    DeadLetters(Vec<Wanted>),
}

/// An event by its own id or by its notification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its own.
    Event(EventId),
    /// Its notification's.
    Notification(NotificationId),
}

/// A part of what a selection finds, in journal order.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Where the events stand.
    pub events: Vec<Position>,
    /// The last position that was looked at.
    pub looked_up_to: Position,
    /// Events that fit, but whose bodies were retired or do not read any more: nothing is left to send.
    pub gone: u64,
}

/// A replay, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Its id.
    pub id: String,
    /// Who asked, and for what: JSON of whoever runs it.
    pub request: String,
    /// Done with every event up to and including.
    pub up_to: Position,
    /// Events written so far.
    pub count: u64,
    /// How it ended; `None` while it runs.
    pub ended: Option<String>,
}

/// An event that a sink refused for good. What the journal cannot tell any more, because a record is damaged, is `None`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DeadLetter {
    /// The event's id.
    pub id: Option<EventId>,
    /// The sink.
    pub sink: String,
    /// When it was given up, RFC 3339.
    pub at: Option<String>,
    /// After how many attempts.
    pub attempts: Option<u32>,
    /// The sink's words.
    pub reason: Option<String>,
    /// The event's source.
    pub source: Option<SourceName>,
    /// `<kind>.<status>`.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// Its order.
    pub order_id: Option<OrderId>,
    /// Its notification.
    pub notification_id: Option<NotificationId>,
    /// Where the event stands; for the next page.
    #[serde(skip)]
    pub position: Position,
}

/// A notification as it was kept, for a look with today's code.
pub struct KeptWhole {
    /// As in a list.
    pub item: Item,
    /// The request and what is left of the secrets that were cut out; `None` once it was retired, or does not read.
    pub request: Option<(Received, Vec<Scar>)>,
    /// The event; likewise.
    pub event: Option<serde_json::Value>,
    /// How it was authenticated.
    pub scheme: String,
    /// The idempotency key within the source.
    pub idempotency: Digest,
    /// The digest over what decides.
    pub digest: Digest,
    /// The signed string.
    pub signed: Option<SignedString>,
    /// ClickGem: the `getid`.
    pub getid: Option<String>,
}

/// A named reader of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// It has everything up to and including.
    pub position: Position,
}

/// What a selection finds, for a look before anything is done.
#[derive(Clone, Debug, Default)]
pub struct Preview {
    /// How many.
    pub count: u64,
    /// How many more have no body any more.
    pub gone: u64,
    /// How many of the ids name no event.
    pub missing: u64,
    /// The first of them.
    pub sample: Vec<Item>,
}
