//! AMQP 0-9-1 by way of lapin, which is named here and in the files below only; RabbitMQ in mind.
//!
//! lapin is kept on a short leash: its recovery is off (the relay always begins with a new connection), its sockets are
//! opened here, so that they have timeouts and can be cut, and its word for which message was returned is not
//! believed: it hands a return to whichever confirm comes next. A return is matched by its `message_id`, and a
//! confirm counts only when no return can be behind it any more (`line`).

mod dial;
mod line;
mod places;
mod topology;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::uri::AMQPUri;
use tokio::time::timeout;

use self::dial::{bounded, open, place};
use self::line::Line;
use self::places::{Step, trouble};
use self::topology::Wiring;
use super::{Link, Pending, Sink, Trouble};
use crate::config;
use crate::store::HeadNote;
use crate::traces::Traces;

/// How long a broker may take to hear that a connection ends.
const FAREWELL: Duration = Duration::from_millis(500);
/// Seconds between heartbeats unless the URL says otherwise; a peer that is silent for two of them is gone.
const HEARTBEAT: u16 = 10;

/// Directives of the log: lapin logs returned messages whole, with the buyer's name and address. What there is to say of
/// a connection is said here.
pub const SILENCED: [&str; 2] = ["lapin=off", "amq_protocol_tcp=off"];

/// Brokers that are tried in turn.
pub struct Amqp {
    brokers: Vec<AMQPUri>,
    /// Which one is tried first.
    first: AtomicUsize,
    wiring: Arc<Wiring>,
}

/// A broker's URL that does not read.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("broker URL {number} does not read as amqp(s)://user:password@host:port/vhost")]
pub struct WrongUrl {
    /// Which one, from 0.
    pub number: usize,
}

/// What a look at a broker found, without changing anything there.
#[derive(Debug)]
pub struct Examined {
    /// `host:port`.
    pub at: String,
    /// Notes, or what is wrong.
    pub found: Result<Vec<String>, Trouble>,
}
impl Amqp {
    /// For what the configuration says.
    ///
    /// # Errors
    /// [`WrongUrl`].
    pub fn new(settings: &config::Amqp, note: HeadNote, traces: Traces) -> Result<Self, WrongUrl> {
        let read = |(number, url): (usize, &config::Secret)| {
            let mut uri: AMQPUri = url.expose().parse().map_err(|_| WrongUrl { number })?;
            uri.query.heartbeat.get_or_insert(HEARTBEAT);
            Ok(uri)
        };
        let brokers = settings.urls.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        let wiring = Wiring {
            exchange: settings.exchange.clone(),
            queue: settings.queue.clone(),
            routing_key: None,
            declare: settings.declare,
            note,
            traces,
            warned: Mutex::default(),
        };
        Ok(Self { brokers, first: AtomicUsize::new(0), wiring: Arc::new(wiring) })
    }

    /// The same brokers, but another exchange, which must exist, and perhaps one routing key for all.
    pub fn towards(self, exchange: &str, routing_key: Option<&str>) -> Self {
        let wiring = Wiring {
            exchange: exchange.to_owned(),
            queue: String::new(),
            routing_key: routing_key.map(str::to_owned),
            declare: false,
            note: self.wiring.note.clone(),
            traces: self.wiring.traces.clone(),
            warned: Mutex::default(),
        };
        Self { wiring: Arc::new(wiring), ..self }
    }

    /// Looks at every broker, at exchange and queue too, and changes nothing.
    pub async fn examine(&self) -> Vec<Examined> {
        let mut all = Vec::new();
        for uri in &self.brokers {
            let at = place(uri);
            let found = match open(uri).await {
                Ok((connection, _cut)) => {
                    let found = bounded(&at, Step::Topology, self.wiring.examine(&at, &connection)).await;
                    let _ = timeout(FAREWELL, connection.close(200, "bye".into())).await;
                    found
                }
                Err(trouble) => Err(trouble),
            };
            all.push(Examined { at, found });
        }
        all
    }

    async fn dial(&self) -> Result<Box<dyn Link>, Trouble> {
        let first = self.first.load(Ordering::Relaxed);
        let mut troubles = Vec::new();
        for turn in 0..self.brokers.len() {
            let number = (first + turn) % self.brokers.len();
            let Some(uri) = self.brokers.get(number) else { continue };
            match Line::open(uri, &self.wiring).await {
                Ok(line) => {
                    self.first.store(number, Ordering::Relaxed);
                    return Ok(Box::new(line));
                }
                Err(trouble) => troubles.push(trouble),
            }
        }
        // Whoever reads it must learn of each broker what is wrong there.
        let mut troubles = troubles.into_iter();
        let none = || trouble("relay.amqp.url", Step::Reach, None, "no broker is configured");
        let mut told = troubles.next().unwrap_or_else(none);
        troubles.for_each(|other| told.what = format!("{}; {other}", told.what));
        Err(told)
    }
}

impl Sink for Amqp {
    fn connect(&self) -> Pending<'_, Result<Box<dyn Link>, Trouble>> {
        Box::pin(self.dial())
    }
}
