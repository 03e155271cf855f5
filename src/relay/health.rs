//! What the relay says of itself to the status page and the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The relay's state. A cheap clone.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    connected: bool,
    blocked: bool,
    last_error: Option<String>,
    /// When the loop last turned.
    turned: Instant,
}

/// The state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The sink can be reached.
    pub connected: bool,
    /// It can be reached and takes nothing.
    pub blocked: bool,
    /// Why it is not as it should be; without secrets.
    pub last_error: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        let inner = Inner { connected: false, blocked: false, last_error: None, turned: Instant::now() };
        Self(Arc::new(Mutex::new(inner)))
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state now.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        Snapshot { connected: inner.connected, blocked: inner.blocked, last_error: inner.last_error.clone() }
    }

    /// The sink was reached. Whether that is news.
    pub fn up(&self) -> bool {
        let mut inner = self.lock();
        inner.blocked = false;
        inner.last_error = None;
        !std::mem::replace(&mut inner.connected, true)
    }

    /// The sink cannot be reached. Whether that, or the reason, is news.
    pub fn down(&self, why: &str) -> bool {
        let mut inner = self.lock();
        let news = inner.connected || inner.last_error.as_deref() != Some(why);
        (inner.connected, inner.blocked) = (false, false);
        inner.last_error = Some(why.to_owned());
        news
    }

    /// The sink takes nothing. Whether that, or the reason, is news.
    pub fn blocked(&self, why: &str) -> bool {
        let mut inner = self.lock();
        let news = !inner.blocked || inner.last_error.as_deref() != Some(why);
        inner.blocked = true;
        inner.last_error = Some(why.to_owned());
        news
    }

    /// The sink takes events. Whether that is news.
    pub fn flowing(&self) -> bool {
        let mut inner = self.lock();
        if !std::mem::take(&mut inner.blocked) {
            return false;
        }
        inner.last_error = None;
        true
    }

    /// The relay is at work.
    pub fn turned(&self) {
        self.lock().turned = Instant::now();
    }

    /// How long ago that was last said.
    pub fn since_turn(&self) -> Duration {
        self.lock().turned.elapsed()
    }
}
