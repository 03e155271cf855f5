//! Where events go: the feed, which is always there and is read from outside, and AMQP, which is sent to.
//!
//! [`Sink`] and [`Link`] are what the relay sees of a sink that is sent to. They say what happened to each event and
//! decide nothing: whether an event is tried again, and when, is the relay's.

pub mod amqp;
pub mod feed;

use std::future::Future;
use std::pin::Pin;

use crate::event::Position;
use crate::store::Due;

/// What a sink's call returns when it must wait for the network.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that events are sent to.
pub trait Sink: Send + Sync + 'static {
    /// Connects, and makes everything ready for sending. Tries every place there is once; bounded in time.
    ///
    /// # Errors
    /// The trouble at the last place.
    fn connect(&self) -> Pending<'_, Result<Box<dyn Link>, Trouble>>;
}

/// A connection to a sink. Dropping it cuts it.
pub trait Link: Send {
    /// Sends an event without waiting. What becomes of it comes out of [`Link::next`], once for each event, unless the
    /// link breaks first.
    fn send(&mut self, due: &Due);

    /// What happened next. May be dropped and called again: nothing is missed.
    fn next(&mut self) -> Pending<'_, Report>;

    /// Makes everything ready again after [`Report::Broken`], or where nothing could be delivered.
    ///
    /// # Errors
    /// The link is of no more use.
    fn renew(&mut self) -> Pending<'_, Result<(), Trouble>>;

    /// Takes leave, bounded in time.
    fn close(self: Box<Self>) -> Pending<'static, ()>;
}

/// What a link tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The sink has the event for good.
    Took(Position),
    /// The sink has nowhere to put the event.
    Returned(Position, String),
    /// The sink does not take the event now.
    Nacked(Position, String),
    /// The sink refused something without saying which: nothing is known of what it was sent and did not tell about.
    /// The link is of use again after [`Link::renew`].
    Broken(String),
    /// It takes nothing at the moment, and says why; `None`: it takes events again.
    Blocked(Option<String>),
    /// The link has gone, and nothing is known of what it did not tell about.
    Lost(Trouble),
}

/// Why a sink cannot be sent to. Says no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct Trouble {
    /// Which place: `host:port`.
    pub at: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it; empty where waiting is all.
    pub remedy: &'static str,
}
