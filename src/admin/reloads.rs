//! When the configuration in force was loaded, and why the last one that was offered is not in force.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

/// What became of reloads. A cheap clone.
#[derive(Clone)]
pub struct Reloads(Arc<Mutex<State>>);

struct State {
    loaded_at: Timestamp,
    last_error: Option<String>,
}

impl Reloads {
    /// A configuration that was loaded at the start.
    pub fn new(loaded_at: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(State { loaded_at, last_error: None })))
    }
    /// Another one is in force, perhaps short of something. `short_of` names no secret.
    pub fn taken(&self, at: Timestamp, short_of: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State { loaded_at: at, last_error: short_of };
    }
    /// One was refused. `why` names no secret.
    pub fn refused(&self, why: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some(why);
    }
    /// When what is in force was loaded, and why the last reload was refused or not taken whole; `None` when it was.
    pub fn snapshot(&self) -> (Timestamp, Option<String>) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.loaded_at, state.last_error.clone())
    }
}
