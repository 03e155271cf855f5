//! What an operator can change: the writes by hand, each with a name and a reason, each audited in the journal.
//!
//! Part of what every store promises ([`super::Store`]), in a file of its own because nothing that receives or relays
//! may need it.

use crate::event::status::words;
use crate::event::{EventId, Position, SourceName, Status, Verdict};
use crate::provider::{Received, Reverified};
use crate::seal::Scar;
use zeroize::Zeroizing;

use super::replaying::{Consumer, DeadLetter, Found, KeptWhole, Preview, Replay, Selection};
use super::{Committed, Due, Pending, StoreError, Unavailable};

/// What an operator can change.
pub trait Operate: Send + Sync + 'static {
    /// Ends a hold by hand: a new event that settles the held one. Resolves only after the sync. The same again gives the
    /// first one's answer.
    ///
    /// # Errors
    /// [`SettleError`]; nothing was changed then.
    fn settle_by_hand(
        &self,
        event: EventId,
        ruling: Ruling,
        by: ByHand,
    ) -> Pending<'static, Result<Settlement, SettleError>>;

    /// Lets in what was refused once and proves genuine today: decided like new, with its first arrival's time. Who had
    /// it let in is written with it, in the same sync, unless it was known already.
    ///
    /// # Errors
    /// [`Unavailable`]; it never promises that nothing was kept.
    fn readmit(&self, reverified: Reverified, by: ByHand) -> Pending<'static, Result<Committed, Unavailable>>;

    /// Lets in by hand what nobody could prove: its event says nothing of what it says, not even its order, and is held
    /// until somebody refuses it: there is nothing that could be booked. The same again is a duplicate.
    ///
    /// # Errors
    /// [`Unavailable`].
    fn release_by_hand(&self, released: Released, by: ByHand) -> Pending<'static, Result<Committed, Unavailable>>;

    /// Open dead letters of events that stand above a position, in journal order.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn dead_letters(&self, after: Position, limit: usize) -> Result<Vec<DeadLetter>, StoreError>;

    /// The open dead letters of one event: one for each sink that refused it.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn dead_letters_of(&self, event: EventId) -> Result<Vec<DeadLetter>, StoreError>;

    /// What a selection finds above `after` and up to `up_to`: at most `limit` events, and no more of the journal than is
    /// read in a moment.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn find(&self, selection: &Selection, after: Position, up_to: Position, limit: usize) -> Result<Found, StoreError>;

    /// What a selection finds in all.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn preview(&self, selection: &Selection, up_to: Position) -> Result<Preview, StoreError>;

    /// Events as a sink is handed them, for a replay that carries them itself. Those without a body are left out.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn handed(&self, events: &[Position], replay: &Replay) -> Result<Vec<Due>, StoreError>;

    /// The notification at a position with its request; `None` where another record stands there.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn kept_whole(&self, at: Position) -> Result<Option<KeptWhole>, StoreError>;

    /// A kept request with its secrets put back, where they are among the candidates.
    fn heal(&self, kept: &Received, scars: &[Scar], candidates: &[Zeroizing<Vec<u8>>]) -> Option<Received>;

    /// Writes how far a replay is, together with redeliveries of some events to `sink` (empty: the relay's, and the feed),
    /// and who asked where that is new, or who ended it. An end stays, whatever is written of it later. Gives where the
    /// redeliveries stand, after the sync.
    ///
    /// # Errors
    /// [`Unavailable`].
    fn note_replay(
        &self,
        replay: Replay,
        redeliver: &[Position],
        sink: &str,
        asked: Option<ByHand>,
    ) -> Pending<'static, Result<Vec<Position>, Unavailable>>;

    /// Writes that somebody changed something that is not in the journal otherwise.
    ///
    /// # Errors
    /// [`Unavailable`].
    fn audit(&self, what: &str, by: ByHand) -> Pending<'static, Result<(), Unavailable>>;

    /// Replays, oldest first: all that run, and those that ended last.
    fn replays(&self) -> Vec<Replay>;

    /// A replay.
    fn replay(&self, id: &str) -> Option<Replay>;

    /// Those of some positions that a sink has not settled.
    fn unsettled(&self, sink: &str, positions: &[Position]) -> Vec<Position>;

    /// Where redeliveries of a replay stand that a sink has not settled: what a start finds.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    fn outstanding(&self, sink: &str, replay: &str) -> Result<Vec<Position>, StoreError>;

    /// The readers of the feed whose acknowledgement counts.
    fn consumers(&self) -> Vec<Consumer>;

    /// Forgets a reader of the feed: nothing is kept for it any more. Whether it was known. To be awaited to its end.
    ///
    /// # Errors
    /// [`Unavailable`]; the reader is known then as before.
    fn forget_consumer(&self, name: &str, by: ByHand) -> Pending<'static, Result<bool, Unavailable>>;
}

/// Who did something by hand, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ByHand {
    who: String,
    reason: String,
}

/// A refused request that somebody wants in.
#[derive(Clone, Debug)]
pub struct Released {
    /// Its name in the quarantine: its key here.
    pub id: String,
    /// The source that refused it.
    pub source: SourceName,
    /// The provider's word.
    pub provider: &'static str,
    /// The request, bearer secrets cut out.
    pub received: Received,
    /// What is left of them.
    pub scars: Vec<Scar>,
}

words! {
    /// How a hold is ended by hand.
    Ruling {
        /// Book the outcome that the held event names.
        Fulfil = "fulfil",
        /// There is nothing to book.
        Refuse = "refuse",
    }
}

/// A hold that was ended by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The new event.
    pub event: EventId,
    /// The held one.
    pub settles: EventId,
    /// What the order system may do now.
    pub verdict: Verdict,
    /// It had been settled so before: nothing was written.
    pub existed: bool,
}

/// Why a hold was not ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// No event has this id.
    #[error("no event has this id")]
    NoSuchEvent,
    /// It waits for nothing.
    #[error("the event is not held: its verdict is {0}")]
    NotHeld(Verdict),
    /// Another event has settled it.
    #[error("the event was settled before, by {by}: {verdict}")]
    Settled {
        /// Which.
        by: EventId,
        /// What that one says.
        verdict: Verdict,
    },
    /// What it says is no outcome that anybody could book.
    #[error("the event says {0}, which is no final outcome: there is nothing to book, it can only be refused")]
    NothingToBook(Status),
    /// The payment, or its signed string, was told as `fulfil` or `compare` before.
    #[error("this payment was told before: an order system must not be told twice; it can only be refused")]
    ToldBefore,
    /// The expectation of its order was fulfilled by another payment.
    #[error("its order's expectation was fulfilled by another payment; this one can only be refused")]
    PaidByAnother,
    /// It came back with a `getid` that is another order's, or none of those that are registered for its own.
    #[error(
        "it came back with a getid that is not its order's; it can only be refused, unless that getid is registered for \
         the order first"
    )]
    ForeignGetId,
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Unreadable,
    /// Not now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<StoreError> for SettleError {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "reading the store");
        Self::Unreadable
    }
}

impl ByHand {
    /// Longest reason, in characters.
    pub const MAX_REASON: usize = 500;
    /// Longest name, in characters.
    pub const MAX_WHO: usize = 100;

    /// Who, and why.
    ///
    /// # Errors
    /// What is wrong with the name or the reason: one is empty, too long, or holds control characters.
    pub fn new(who: &str, reason: &str) -> Result<Self, &'static str> {
        let (who, reason) = (who.trim(), reason.trim());
        if !is_line(who, Self::MAX_WHO) {
            return Err("who: a name of 1 to 100 characters in one line");
        }
        if !is_line(reason, Self::MAX_REASON) {
            return Err("reason: say why, in 1 to 500 characters in one line");
        }
        Ok(Self { who: who.to_owned(), reason: reason.to_owned() })
    }

    /// As it was kept.
    pub(super) fn kept(who: &str, reason: &str) -> Self {
        Self { who: who.to_owned(), reason: reason.to_owned() }
    }

    /// Who.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

fn is_line(text: &str, max: usize) -> bool {
    !text.is_empty() && text.chars().count() <= max && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_that_says_something() {
        let long = "ü".repeat(ByHand::MAX_REASON);
        for good in ["x", "  seen in the provider's panel  ", &long] {
            assert_eq!(ByHand::new("ops", good).map(|by| by.reason().to_owned()), Ok(good.trim().to_owned()));
        }
        for bad in ["", "   ", "two\nlines", "\u{1b}[2J", &format!("{long}x")] {
            assert!(ByHand::new("ops", bad).is_err(), "{bad:?}");
            assert!(bad.len() > 100 || ByHand::new(bad, "reason").is_err(), "{bad:?}");
        }
    }
}
