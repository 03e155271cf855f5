//! Messages on their way over one connection, and what the broker says of each.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ErrorKind, Event};
use tokio::time::timeout;

use super::FAREWELL;
use super::dial::{Cut, bounded, open, place, said};
use super::places::Step;
use super::topology::Wiring;
use crate::event::Position;
use crate::sink::{Link, Pending, Report, Trouble};
use crate::store::{Due, HeadNote};
use crate::traces::Traces;

/// How often a quiet connection is looked at.
const LOOK: Duration = Duration::from_millis(500);
const REPLAY: &str = "x-quittance-replay";
const CONTENT_TYPE: &str = "application/cloudevents+json";

type Flight = Pin<Box<dyn Future<Output = Landing> + Send>>;

/// A connection to one broker.
pub(super) struct Line {
    wiring: Arc<Wiring>,
    at: String,
    connection: Connection,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    channels: Vec<Channel>,
    /// Messages sent on this connection; the number of the last one.
    sent: u64,
    open: HashMap<u64, Open>,
    /// Which of them a return may mean.
    awaited: HashMap<Identity, Vec<u64>>,
    flying: FuturesUnordered<Flight>,
    /// Confirmed with this word, but a return may be behind it.
    told: Vec<(u64, Word)>,
    /// Likewise, and the mark that ends the doubt is on its way.
    marked: Vec<(u64, Word)>,
    reports: VecDeque<Report>,
    _cut: Cut,
}

/// A message that was not settled yet.
struct Open {
    position: Position,
    identity: Identity,
    returned: Option<String>,
}

/// What tells messages apart in a return: the event's id and the replay, if there is one. An event that is replayed
/// while it is on its way is there twice.
type Identity = (String, String);

#[derive(Clone, Copy)]
enum Word {
    Ack,
    Nack,
}

/// What comes out of the messages that are on their way.
enum Landing {
    Told(u64, Box<lapin::Result<Confirmation>>),
    /// Everything that was told before this was queued has come out.
    Mark,
}
impl Line {
    pub(super) async fn open(uri: &AMQPUri, wiring: &Arc<Wiring>) -> Result<Self, Trouble> {
        let (connection, cut) = open(uri).await?;
        let mut line = Self {
            wiring: Arc::clone(wiring),
            at: place(uri),
            events: Box::pin(connection.events_listener()),
            connection,
            channels: Vec::new(),
            sent: 0,
            open: HashMap::new(),
            awaited: HashMap::new(),
            flying: FuturesUnordered::new(),
            told: Vec::new(),
            marked: Vec::new(),
            reports: VecDeque::new(),
            _cut: cut,
        };
        line.wire().await?;
        Ok(line)
    }

    async fn wire(&mut self) -> Result<(), Trouble> {
        let declared = self.wiring.declare(&self.at, &self.connection);
        bounded(&self.at, Step::Topology, declared).await?;
        self.channels.clear();
        self.channels = bounded(&self.at, Step::Channel, self.wiring.channels(&self.at, &self.connection)).await?;
        Ok(())
    }

    fn landed(&mut self, landing: Landing) {
        match landing {
            Landing::Told(number, told) => self.heard(number, *told),
            Landing::Mark => self.settled(),
        }
        if self.marked.is_empty() && !self.told.is_empty() {
            self.look_behind();
        }
    }

    fn heard(&mut self, number: u64, what: lapin::Result<Confirmation>) {
        match what {
            Ok(Confirmation::Ack(returned)) => self.confirmed(number, Word::Ack, returned),
            Ok(Confirmation::Nack(returned)) => self.confirmed(number, Word::Nack, returned),
            // Channels without confirms are not used.
            Ok(Confirmation::NotRequested) => self.ended(None, "the channel does not confirm"),
            Err(error) => {
                let of_channel =
                    error.is_amqp_soft_error() || matches!(error.kind(), ErrorKind::InvalidChannelState(..));
                let (code, said) = said(&error);
                self.ended(Some(of_channel && self.connection.status().connected()), &told(code, &said));
            }
        }
    }

    /// Nothing can be behind these any more.
    fn settled(&mut self) {
        for (number, word) in std::mem::take(&mut self.marked) {
            let Some(open) = self.open.remove(&number) else { continue };
            if let Entry::Occupied(mut same) = self.awaited.entry(open.identity) {
                same.get_mut().retain(|other| *other != number);
                if same.get().is_empty() {
                    same.remove();
                }
            }
            self.reports.push_back(match (open.returned, word) {
                (Some(why), _) => Report::Returned(open.position, why),
                (None, Word::Ack) => Report::Took(open.position),
                (None, Word::Nack) => Report::Nacked(open.position, "the broker nacked it".to_owned()),
            });
        }
    }

    fn confirmed(&mut self, number: u64, word: Word, returned: Option<lapin::message::BasicReturnMessage>) {
        self.told.push((number, word));
        let Some(message) = returned else { return };
        let why = format!("returned: {} {}", message.reply_code, message.reply_text);
        for number in self.awaited.get(&identity(&message.delivery.properties)).into_iter().flatten() {
            if let Some(open) = self.open.get_mut(number) {
                open.returned = Some(why.clone());
            }
        }
    }

    /// A return reaches the client before the confirm of its message, but lapin attaches it to the confirm that it works
    /// off next: of several that one `multiple` settles, to any. All of them are worked off under one lock, which
    /// `wait_for_confirms` asks for; so once it was had, every message that was settled together with those in `told` is
    /// queued, and a mark that is queued now comes out after them.
    fn look_behind(&mut self) {
        for channel in &self.channels {
            drop(channel.wait_for_confirms().now_or_never());
        }
        self.marked = std::mem::take(&mut self.told);
        self.flying.push(Box::pin(std::future::ready(Landing::Mark)));
    }

    /// The channel (`Some(true)`) or the connection is of no more use. Nothing is known of what was not told.
    fn ended(&mut self, of_channel: Option<bool>, why: &str) {
        self.forget();
        let report = match of_channel {
            Some(true) => Report::Broken(why.to_owned()),
            _ => Report::Lost(Trouble { at: self.at.clone(), what: format!("connection lost ({why})"), remedy: "" }),
        };
        self.reports.push_back(report);
    }

    fn forget(&mut self) {
        self.open.clear();
        self.awaited.clear();
        self.told.clear();
        self.marked.clear();
        self.flying = FuturesUnordered::new();
    }

    fn happened(&mut self, event: Option<Event>) {
        match event {
            Some(Event::ConnectionBlocked(why)) => self.reports.push_back(Report::Blocked(Some(why))),
            Some(Event::ConnectionUnblocked) => self.reports.push_back(Report::Blocked(None)),
            Some(Event::Error(error)) if !self.connection.status().connected() => {
                let (code, said) = said(&error);
                self.ended(None, &told(code, &said));
            }
            None => self.ended(None, "it ended"),
            Some(_) => {}
        }
    }
}

fn told(code: Option<u16>, said: &str) -> String {
    code.map_or_else(|| said.to_owned(), |code| format!("{code} {said}"))
}

fn identity(properties: &BasicProperties) -> Identity {
    let id = properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
    let replay = match properties.headers().as_ref().and_then(|headers| headers.inner().get(REPLAY)) {
        Some(AMQPValue::LongString(replay)) => replay.to_string(),
        _ => String::new(),
    };
    (id, replay)
}

fn properties(due: &Due, note: &HeadNote, traces: &Traces) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("x-quittance-source".into(), AMQPValue::LongString(due.source.as_str().into()));
    let attempt = due.attempts.saturating_add(1);
    headers.insert("x-quittance-attempt".into(), AMQPValue::LongLongInt(attempt.into()));
    if let Some(by) = &due.asked_by {
        headers.insert("x-quittance-replay-by".into(), AMQPValue::LongString(by.as_str().into()));
    }
    if let Some(replay) = &due.replay {
        headers.insert(REPLAY.into(), AMQPValue::LongString(replay.as_str().into()));
    }
    if let Some(noted) = note.newest() {
        headers.insert("x-quittance-head".into(), AMQPValue::LongString(noted.to_string().into()));
    }
    if let Some(parent) = traces.parent_of_consumers(due.event, due.position, due.attempts) {
        headers.insert("traceparent".into(), AMQPValue::LongString(parent.into()));
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type(CONTENT_TYPE.into())
        .with_message_id(due.event.to_string().into())
        .with_type(due.event_type.as_str().into())
        .with_timestamp(u64::try_from(due.received_at.as_second()).unwrap_or(0))
        .with_app_id("quittance".into())
        .with_headers(headers)
}

impl Link for Line {
    fn send(&mut self, due: &Due) {
        self.sent += 1;
        let number = self.sent;
        let turn = usize::try_from(number).unwrap_or(0) % self.channels.len().max(1);
        let Some(channel) = self.channels.get(turn).cloned() else { return };
        let (exchange, properties, body) = (
            self.wiring.exchange.as_str().into(),
            properties(due, &self.wiring.note, &self.wiring.traces),
            due.body.clone(),
        );
        let identity = identity(&properties);
        self.awaited.entry(identity.clone()).or_default().push(number);
        self.open.insert(number, Open { position: due.position, identity, returned: None });
        let own = || format!("{}.{}", due.event_type, due.source);
        let routing_key = self.wiring.routing_key.clone().unwrap_or_else(own).into();
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        self.flying.push(Box::pin(async move {
            let told = match channel.basic_publish(exchange, routing_key, options, &body, properties).await {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            Landing::Told(number, Box::new(told))
        }));
    }

    fn next(&mut self) -> Pending<'_, Report> {
        Box::pin(async move {
            loop {
                if let Some(report) = self.reports.pop_front() {
                    return report;
                }
                tokio::select! {
                    biased;
                    Some(landing) = self.flying.next(), if !self.flying.is_empty() => self.landed(landing),
                    event = self.events.next() => self.happened(event),
                    // Not every way to lose a connection is an event.
                    () = tokio::time::sleep(LOOK) => if !self.connection.status().connected() {
                        self.ended(None, "it is not connected any more");
                    },
                }
            }
        })
    }

    fn renew(&mut self) -> Pending<'_, Result<(), Trouble>> {
        self.forget();
        self.reports.retain(|report| matches!(report, Report::Lost(_) | Report::Blocked(_)));
        Box::pin(self.wire())
    }

    fn close(self: Box<Self>) -> Pending<'static, ()> {
        Box::pin(async move {
            // A broker that takes nothing takes no farewell either.
            if self.connection.status().connected() && !self.connection.status().blocked() {
                let _ = timeout(FAREWELL, self.connection.close(200, "bye".into())).await;
            }
        })
    }
}
