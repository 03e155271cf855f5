//! The feed: events in journal order, read by whoever asks, from wherever its cursor says.
//!
//! Never skips silently: a cursor that no complete answer can follow is refused together with the oldest one that is
//! valid. It keeps no state of a reader except what a named consumer acknowledges, and that is the store's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::drain::Tasks;
use crate::event::Position;
use crate::store::cursor::{CursorError, FeedCursor};
use crate::store::{FeedEntry, Store, StoreError};

/// Reads events. A cheap clone.
#[derive(Clone)]
pub struct Feed {
    store: Arc<dyn Store>,
    tasks: Tasks,
}

/// What one question gives.
#[derive(Debug, Serialize)]
pub struct Batch {
    /// In journal order.
    pub entries: Vec<Entry>,
    /// The cursor to ask with next; there even when nothing came.
    pub next: String,
    /// The same as a position.
    #[serde(skip)]
    pub position: Position,
}

/// An event of the feed.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// The place after this event.
    pub cursor: String,
    /// The replay that asked for it, if one did.
    pub replay: Option<String>,
    /// The event, byte for byte as it was kept.
    pub event: Box<RawValue>,
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// No cursor of this feed.
    #[error("the cursor is malformed")]
    Malformed,
    /// A cursor that no complete answer can follow.
    #[error("{why}")]
    Gone {
        /// What is wrong with it.
        why: &'static str,
        /// The oldest valid cursor.
        oldest: String,
    },
    /// The journal is not open yet: nothing can be said about any cursor.
    #[error("the journal is not open yet")]
    NotOpen,
    /// The journal cannot be read.
    #[error("the feed cannot be read")]
    Store(#[from] StoreError),
    /// What is kept is not JSON.
    #[error("an event of the journal is not readable")]
    Event(#[source] serde_json::Error),
    /// Reading ended by a panic.
    #[error("reading ended too early")]
    Broken,
}

impl Feed {
    /// Over `store`; its reads are among `tasks`.
    pub fn new(store: Arc<dyn Store>, tasks: Tasks) -> Self {
        Self { store, tasks }
    }

    /// The position that a cursor names; without one the oldest after which the feed is complete.
    ///
    /// # Errors
    /// [`FeedError::Malformed`], [`FeedError::Gone`], or [`FeedError::NotOpen`] as long as a store that is starting
    /// does not know its timelines and its horizon: a good cursor must not be called foreign then, nor one that is too
    /// old be taken for good.
    pub fn position(&self, cursor: Option<&str>) -> Result<Position, FeedError> {
        let timelines = self.store.timelines();
        if timelines.is_empty() {
            return Err(FeedError::NotOpen);
        }
        let horizon = self.store.horizon();
        let Some(cursor) = cursor else { return Ok(horizon) };
        let gone = |why| FeedError::Gone { why, oldest: self.cursor(horizon) };
        let position = FeedCursor::parse(cursor, &timelines).map_err(|error| match error {
            CursorError::Malformed => FeedError::Malformed,
            CursorError::OtherStore => gone("the cursor belongs to another store"),
            CursorError::Abandoned => gone("the cursor is of a time that the restored backup does not hold"),
        })?;
        if position < horizon {
            return Err(gone("events after this cursor are no longer kept"));
        }
        if position > *self.store.head().borrow() {
            return Err(gone("the cursor is ahead of everything that is kept"));
        }
        Ok(position)
    }

    /// Notes that `consumer` has everything up to `position`.
    pub fn acknowledge(&self, consumer: &str, position: Position) {
        self.store.acknowledge(consumer, position);
    }

    /// Up to `limit` events after `position`; waits up to `wait` for the first one.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn read(&self, position: Position, limit: usize, wait: Duration) -> Result<Batch, FeedError> {
        let deadline = Instant::now() + wait;
        let stopping = self.tasks.stopping();
        let mut head = self.store.head();
        let mut position = position;
        loop {
            let seen = *head.borrow_and_update();
            let entries = self.entries(position, limit).await?;
            if !entries.is_empty() || Instant::now() >= deadline || stopping.is_cancelled() {
                return self.batch(entries, position.max(seen));
            }
            // Positions become visible in order: up to the head that was seen before reading there is nothing.
            position = position.max(seen);
            tokio::select! {
                changed = head.changed() => if changed.is_err() {
                    return self.batch(Vec::new(), position);
                },
                () = tokio::time::sleep_until(deadline) => {}
                () = stopping.cancelled() => {}
            }
        }
    }

    async fn entries(&self, after: Position, limit: usize) -> Result<Vec<FeedEntry>, FeedError> {
        if after >= *self.store.head().borrow() {
            return Ok(Vec::new());
        }
        let store = Arc::clone(&self.store);
        let read = self.tasks.spawn_blocking("feed read", move || store.events(after, limit));
        Ok(read.await.map_err(|_| FeedError::Broken)??)
    }

    fn batch(&self, entries: Vec<FeedEntry>, nothing_up_to: Position) -> Result<Batch, FeedError> {
        let position = entries.last().map_or(nothing_up_to, |entry| entry.position);
        let timeline = self.timeline();
        let entries = entries.into_iter().map(|entry| {
            let cursor = FeedCursor::new(timeline, entry.position).to_string();
            Ok(Entry { cursor, replay: entry.replay, event: raw(&entry.event)? })
        });
        Ok(Batch { entries: entries.collect::<Result<_, FeedError>>()?, next: self.cursor(position), position })
    }

    /// The cursor of a position, in the timeline that goes on.
    pub(crate) fn cursor(&self, position: Position) -> String {
        FeedCursor::new(self.timeline(), position).to_string()
    }

    /// Who reads has asked with a cursor or without one, and neither is answered before it is known.
    fn timeline(&self) -> [u8; 16] {
        self.store.timelines().last().map_or_else(|| self.store.id(), |timeline| timeline.id)
    }
}

fn raw(event: &Bytes) -> Result<Box<RawValue>, FeedError> {
    serde_json::from_slice(event).map_err(FeedError::Event)
}
