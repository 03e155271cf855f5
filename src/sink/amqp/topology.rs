//! Exchange, queues and channels at a broker: what is declared, what is used as it is, and what `check` says of them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::dial::{failed, said};
use super::places::Step;
use crate::sink::Trouble;
use crate::store::HeadNote;
use crate::traces::Traces;

/// The broker and lapin both do more with several channels than with one.
const CHANNELS: usize = 4;

/// Exchange and queues.
pub(super) struct Wiring {
    pub(super) exchange: String,
    pub(super) queue: String,
    /// Instead of each event's own.
    pub(super) routing_key: Option<String>,
    pub(super) declare: bool,
    /// Goes along with every message: whoever keeps messages can tell whether the journal was changed since.
    pub(super) note: HeadNote,
    /// Says which span a message belongs to.
    pub(super) traces: Traces,
    /// What was warned of: once is enough for as long as the process lives.
    pub(super) warned: Mutex<BTreeSet<String>>,
}
impl Wiring {
    /// Once for each thing in the life of the process.
    fn warn(&self, at: &str, what: &str, said: &str) {
        if self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned()) {
            tracing::warn!(broker = at, said, "{what}");
        }
    }

    /// Declares what is to be declared; what exists otherwise is used as it is.
    pub(super) async fn declare(&self, at: &str, connection: &Connection) -> Result<(), Trouble> {
        let wrong = failed(at, Step::Topology);
        let look = match self.exchange(connection, self.declare.then_some(true)).await {
            Ok(()) => false,
            Err(error) => match said(&error) {
                (Some(406), said) => {
                    self.warn(at, "the exchange exists with another type or other settings: used as it is", &said);
                    false
                }
                (Some(403), said) => {
                    self.warn(at, "the user may not declare or look at the exchange: used as it is", &said);
                    self.declare
                }
                _ => return Err(wrong(error)),
            },
        };
        if look
            && let Err(error) = self.exchange(connection, None).await
            && said(&error).0 != Some(403)
        {
            return Err(wrong(error));
        }
        if !self.declare {
            return Ok(());
        }
        for declared in [self.dead_queue(connection).await, self.main_queue(connection).await] {
            match declared.as_ref().map_err(said) {
                Ok(()) => {}
                Err((Some(406), said)) => {
                    self.warn(at, "a queue exists with other settings: used as it is", &said);
                }
                Err((Some(403), said)) => self.warn(at, "the user may not declare a queue: used as it is", &said),
                Err(_) => return declared.map_err(wrong),
            }
        }
        let channel = connection.create_channel().await.map_err(failed(at, Step::Channel))?;
        let (queue, exchange) = (self.queue.as_str().into(), self.exchange.as_str().into());
        let bound =
            channel.queue_bind(queue, exchange, "#".into(), QueueBindOptions::default(), FieldTable::default()).await;
        match bound.as_ref().map_err(said) {
            Ok(()) => Ok(()),
            Err((Some(403), said)) => {
                self.warn(at, "the user may not bind the queue: used as it is", &said);
                Ok(())
            }
            Err(_) => bound.map_err(wrong),
        }
    }

    /// The exchange: declared, or only looked for. Each question has a channel of its own, since a "no" closes it.
    async fn exchange(&self, connection: &Connection, declare: Option<bool>) -> lapin::Result<()> {
        let channel = connection.create_channel().await?;
        let passive = declare.is_none();
        let options = ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
        let name = self.exchange.as_str().into();
        channel.exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default()).await
    }

    async fn queue(&self, connection: &Connection, name: &str, arguments: Option<FieldTable>) -> lapin::Result<()> {
        let channel = connection.create_channel().await?;
        let passive = arguments.is_none();
        let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.into(), options, arguments.unwrap_or_default()).await.map(|_| ())
    }

    fn dead_name(&self) -> String {
        format!("{}.dead", self.queue)
    }

    async fn dead_queue(&self, connection: &Connection) -> lapin::Result<()> {
        let arguments = table(&[("x-queue-type", "quorum")]);
        self.queue(connection, &self.dead_name(), Some(arguments)).await
    }

    /// At-least-once dead-lettering came with RabbitMQ 3.10; an older broker does not know its argument.
    async fn main_queue(&self, connection: &Connection) -> lapin::Result<()> {
        let dead = self.dead_name();
        let mut arguments = vec![
            ("x-queue-type", "quorum"),
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", dead.as_str()),
            ("x-overflow", "reject-publish"),
            ("x-dead-letter-strategy", "at-least-once"),
        ];
        let declared = self.queue(connection, &self.queue, Some(table(&arguments))).await;
        match declared.as_ref().map_err(said) {
            Err((Some(406), _)) => {
                arguments.pop();
                self.queue(connection, &self.queue, Some(table(&arguments))).await
            }
            _ => declared,
        }
    }

    /// Says what `serve` would find. Looks before it declares, so that only what exists already is asked about.
    pub(super) async fn examine(&self, at: &str, connection: &Connection) -> Result<Vec<String>, Trouble> {
        let wrong = failed(at, Step::Topology);
        let mut notes = Vec::new();
        match self.exchange(connection, None).await {
            Ok(()) if self.declare => self.exchange(connection, Some(true)).await.map_err(&wrong)?,
            Ok(()) => {}
            Err(error) if said(&error).0 == Some(404) && self.declare => {
                notes.push(format!("exchange {:?} does not exist yet: serve declares it", self.exchange));
            }
            Err(error) => return Err(wrong(error)),
        }
        if !self.declare {
            return Ok(notes);
        }
        match self.queue(connection, &self.queue, None).await {
            Ok(()) => match self.main_queue(connection).await {
                Err(error) if said(&error).0 == Some(406) => {
                    notes.push(format!(
                        "queue {:?} exists with other settings and is used as it is: {}",
                        self.queue,
                        said(&error).1
                    ));
                }
                other => other.map_err(wrong)?,
            },
            Err(error) if said(&error).0 == Some(404) => {
                notes.push(format!("queue {:?} does not exist yet: serve declares it", self.queue));
            }
            Err(error) => return Err(wrong(error)),
        }
        Ok(notes)
    }

    /// Channels that confirm.
    pub(super) async fn channels(&self, at: &str, connection: &Connection) -> Result<Vec<Channel>, Trouble> {
        let mut channels = Vec::with_capacity(CHANNELS);
        for _ in 0..CHANNELS {
            let channel = connection.create_channel().await.map_err(failed(at, Step::Channel))?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed(at, Step::Channel))?;
            channels.push(channel);
        }
        Ok(channels)
    }
}

fn table(arguments: &[(&str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    table
}
