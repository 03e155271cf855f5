//! What the store's threads tell the rest of the program about themselves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::event::{Digest, Position};
use crate::store::Timeline;

/// Shared by the store's threads and its callers.
#[derive(Debug)]
pub struct Shared {
    head: AtomicU64,
    covered: AtomicU64,
    /// The newest head's position and hash, which belong together.
    newest: Mutex<(Position, Digest)>,
    /// Why nothing can be written just now.
    full: Mutex<Option<String>>,
    /// Thousandths of the index that are built.
    progress: AtomicU64,
    draining: AtomicBool,
    clock_alarm: AtomicBool,
    trusted_at: AtomicU64,
    restored: AtomicBool,
    index_lost: AtomicBool,
    damage: AtomicU64,
    horizon: AtomicU64,
    dead_letters: AtomicU64,
    timelines: Mutex<Vec<Timeline>>,
    /// Events that the slowest consumer of the feed has not acknowledged, and up to where it has.
    feed_backlog: Mutex<(u64, Position)>,
    fatal: watch::Sender<Option<String>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            head: AtomicU64::new(0),
            covered: AtomicU64::new(0),
            newest: Mutex::new((Position(0), Digest([0; 32]))),
            full: Mutex::new(None),
            progress: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            clock_alarm: AtomicBool::new(false),
            trusted_at: AtomicU64::new(0),
            restored: AtomicBool::new(false),
            index_lost: AtomicBool::new(false),
            damage: AtomicU64::new(0),
            horizon: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            timelines: Mutex::default(),
            feed_backlog: Mutex::default(),
            fatal: watch::Sender::new(None),
        }
    }
}

impl Shared {
    /// The newest written position.
    pub fn head(&self) -> Position {
        Position(self.head.load(Ordering::Acquire))
    }
    /// The newest head: its position and its hash.
    pub fn newest(&self) -> (Position, Digest) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What a start found.
    pub fn found(&self, head: Position, chain: Digest, damage: u64) {
        self.head.store(head.0, Ordering::Release);
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = (head, chain);
        self.damage.store(damage, Ordering::Release);
    }
    /// A group was synced.
    pub fn wrote(&self, head: Position, chain: Digest) {
        self.head.store(head.0, Ordering::Release);
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = (head, chain);
    }
    /// The disk takes what it is given.
    pub fn recovered(&self) {
        if self.full.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!("the disk takes notifications again");
        }
    }
    /// The index holds everything up to here.
    pub fn indexed(&self, position: Position) {
        self.covered.fetch_max(position.0, Ordering::AcqRel);
    }
    /// Records that the index does not hold yet.
    pub fn lag(&self) -> u64 {
        self.head.load(Ordering::Acquire).saturating_sub(self.covered.load(Ordering::Acquire))
    }
    /// The disk takes no more.
    pub fn full(&self, why: &str) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        if full.is_none() {
            tracing::error!(error = why, "the disk takes no more: answering 503 until it does");
        }
        *full = Some(why.to_owned());
    }
    /// Why the disk takes no more, if so.
    pub fn refusal(&self) -> Option<String> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Whether the disk takes no more.
    pub fn is_full(&self) -> bool {
        self.full.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
    /// Nothing can be trusted any more: the process must end.
    pub fn fail(&self, why: &str) {
        self.fatal.send_if_modified(|fatal| {
            if fatal.is_some() {
                return false;
            }
            tracing::error!(error = why, "the store has failed for good; the process must end and start anew");
            *fatal = Some(why.to_owned());
            true
        });
    }
    /// Why the store failed for good.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }
    /// Whether it failed for good.
    pub fn has_failed(&self) -> bool {
        self.fatal.borrow().is_some()
    }
    /// Share of the index that is built.
    pub fn set_progress(&self, done: u64, of: u64) {
        let share = done.saturating_mul(1000).checked_div(of).unwrap_or(1000);
        self.progress.store(share.min(1000), Ordering::Release);
    }
    /// The same, 0 to 1.
    pub fn progress(&self) -> f64 {
        self.progress.load(Ordering::Acquire) as f64 / 1000.0
    }
    /// No more commits.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
    /// Whether commits are no longer taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
    /// Notes whether the clock can be trusted.
    pub fn set_clock_alarm(&self, alarm: bool) {
        if self.clock_alarm.swap(alarm, Ordering::AcqRel) != alarm {
            if alarm {
                tracing::error!(
                    "the clock is before the newest record or more than 48 h after it: every event is held and \
                     nothing expires until it is set right, or confirmed with `quittance serve --confirm-clock`"
                );
            } else {
                tracing::info!("the clock is trusted again");
            }
        }
    }
    /// Notes when the newest trusted record was written, in milliseconds; 0 where there is none.
    pub fn set_trusted_at(&self, at: u64) {
        self.trusted_at.store(at, Ordering::Release);
    }

    /// When the newest trusted record was written, for whoever judges a reading of the clock of its own.
    pub fn trusted_at(&self) -> u64 {
        self.trusted_at.load(Ordering::Acquire)
    }

    /// Whether the clock cannot be trusted.
    pub fn clock_alarm(&self) -> bool {
        self.clock_alarm.load(Ordering::Acquire)
    }
    /// Up to where parts are gone.
    pub fn horizon(&self) -> u64 {
        self.horizon.load(Ordering::Acquire)
    }
    /// Notes up to where parts are gone.
    pub fn set_horizon(&self, position: Position) {
        self.horizon.fetch_max(position.0, Ordering::AcqRel);
    }
    /// Notes whether the index is being built anew because it failed.
    pub fn set_index_lost(&self, lost: bool) {
        self.index_lost.store(lost, Ordering::Release);
    }
    /// Whether it is.
    pub fn index_lost(&self) -> bool {
        self.index_lost.load(Ordering::Acquire)
    }
    /// Notes whether the store came from a backup.
    pub fn set_restored(&self, restored: bool) {
        self.restored.store(restored, Ordering::Release);
    }
    /// Whether everything is held because the store came from a backup.
    pub fn restored(&self) -> bool {
        self.restored.load(Ordering::Acquire)
    }
    /// How many dead letters are open.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Acquire)
    }
    /// A start found so many dead letters open.
    pub fn dead_letters_found(&self, count: u64) {
        self.dead_letters.fetch_add(count, Ordering::AcqRel);
    }
    /// A sink refused an event for good.
    pub fn dead_letter(&self) {
        self.dead_letters.fetch_add(1, Ordering::AcqRel);
    }
    /// A dead letter is on its way again.
    pub fn dead_letter_closed(&self) {
        let less = |count: u64| Some(count.saturating_sub(1));
        let _ = self.dead_letters.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }
    /// Notes how many events the slowest consumer of the feed has not acknowledged, and up to where it has.
    pub fn set_feed_backlog(&self, events: u64, acknowledged: Position) {
        *self.feed_backlog.lock().unwrap_or_else(PoisonError::into_inner) = (events, acknowledged);
    }
    /// The same.
    pub fn feed_backlog(&self) -> (u64, Position) {
        *self.feed_backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Notes the histories that cursors may come from.
    pub fn set_timelines(&self, timelines: &[Timeline]) {
        let mut known = self.timelines.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != timelines {
            *known = timelines.to_vec();
        }
    }
    /// The histories that cursors may come from; none until they are known.
    pub fn timelines(&self) -> Vec<Timeline> {
        self.timelines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Places of damage since the store was made.
    pub fn damage(&self) -> u64 {
        self.damage.load(Ordering::Acquire)
    }
}
