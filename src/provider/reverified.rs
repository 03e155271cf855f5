//! What was refused once and proves genuine under today's configuration.

use jiff::Timestamp;

use super::{Provider, Received, Refusal, Verified};

/// A verified notification that comes out of the quarantine: it arrived before, and what has happened since must not be
/// taken for what was known then.
#[derive(Debug)]
pub struct Reverified(Verified);

impl Reverified {
    /// Verifies a request again, whole, by the same code that takes what arrives.
    ///
    /// # Errors
    /// Why it is still refused.
    pub fn try_new(provider: &dyn Provider, received: Received) -> Result<Self, Refusal> {
        provider.verify(received).map(Self).map_err(|refused| refused.refusal)
    }

    /// When it arrived first.
    pub fn arrived(&self) -> Timestamp {
        self.0.received.at
    }

    /// Which of its source's keys holds today, from 1.
    pub fn key(&self) -> u16 {
        self.0.key
    }

    /// What was proven.
    pub fn into_verified(self) -> Verified {
        self.0
    }
}
