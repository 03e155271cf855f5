//! AMQP 0-9-1 by way of lapin, which is named in this file only; RabbitMQ in mind.
//!
//! lapin is kept on a short leash: its recovery is off (the relay always begins with a new connection), its sockets are
//! opened here, so that they have timeouts and can be cut, and its word for which message was returned is not
//! believed: it hands a return to whichever confirm comes next. A return is matched by its `message_id`, and a
//! confirm counts only when no return can be behind it any more (`Line::look_behind`).
//!
//! Long because lapin may be named in one file only: topology, connection and confirms all speak to it.

mod places;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_compat::{Compat, CompatExt};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::tcp::TLSConfig;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{
    AsyncTcpStream, BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind, Event,
    ExchangeKind,
};
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Link, Pending, Report, Sink, Trouble};
use crate::config;
use crate::event::Position;
use crate::store::{Due, HeadNote};
use crate::traces::Traces;
use places::{Step, trouble};

/// How long one address may take to be reached, and a broker for each step after that.
const REACH: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_millis(500);
/// How often a quiet connection is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Seconds between heartbeats unless the URL says otherwise; a peer that is silent for two of them is gone.
const HEARTBEAT: u16 = 10;
/// How long sent bytes may stay unacknowledged by the peer's system: a cable that was pulled.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// The broker and lapin both do more with several channels than with one.
const CHANNELS: usize = 4;
const REPLAY: &str = "x-quittance-replay";
const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Directives of the log: lapin logs returned messages whole, with the buyer's name and address. What there is to say of
/// a connection is said here.
pub const SILENCED: [&str; 2] = ["lapin=off", "amq_protocol_tcp=off"];

type Socket = AsyncTcpStream<Compat<TcpStream>>;
type Flight = Pin<Box<dyn Future<Output = Landing> + Send>>;

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

/// Exchange and queues.
struct Wiring {
    exchange: String,
    queue: String,
    /// Instead of each event's own.
    routing_key: Option<String>,
    declare: bool,
    /// Goes along with every message: whoever keeps messages can tell whether the journal was changed since.
    note: HeadNote,
    /// Says which span a message belongs to.
    traces: Traces,
    /// What was warned of: once is enough for as long as the process lives.
    warned: Mutex<BTreeSet<String>>,
}

/// A connection to one broker.
struct Line {
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

/// Cuts the socket when dropped, so that nothing in lapin waits on it for ever.
struct Cut(std::net::TcpStream);

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both); // it may have ended by itself
    }
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

/// `host:port`, without user and password.
fn place(uri: &AMQPUri) -> String {
    format!("{}:{}", uri.authority.host, uri.authority.port)
}

/// The host; an IPv6 address without the brackets that a URL puts around it.
fn host(uri: &AMQPUri) -> &str {
    uri.authority.host.trim_matches(['[', ']'])
}

async fn bounded<T>(at: &str, step: Step, what: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    timeout(ANSWER, what).await.unwrap_or_else(|_| Err(trouble(at, step, None, "no answer in time")))
}

/// The broker's reply code and words, or what else there is to say.
fn said(error: &lapin::Error) -> (Option<u16>, String) {
    match error.kind() {
        ErrorKind::ProtocolError(error) => (Some(error.get_id()), error.get_message().to_string()),
        ErrorKind::IOError(error) => (None, error.to_string()),
        _ => (None, error.to_string()),
    }
}

fn failed(at: &str, step: Step) -> impl Fn(lapin::Error) -> Trouble {
    move |error| {
        let (code, said) = said(&error);
        trouble(at, step, code, &said)
    }
}

/// A socket that notices when its peer has gone, and what cuts it.
async fn reach(uri: &AMQPUri, at: &str) -> Result<(TcpStream, Cut), Trouble> {
    let authority = (host(uri), uri.authority.port);
    let addresses = timeout(ANSWER, tokio::net::lookup_host(authority)).await;
    let addresses = addresses.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let addresses = addresses.map_err(|error| trouble(at, Step::Resolve, None, &error.to_string()))?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let connected = timeout(REACH, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).and_then(prepare) {
            Ok(ready) => return Ok(ready),
            Err(error) => last = error,
        }
    }
    Err(trouble(at, Step::Reach, None, &last.to_string()))
}

fn prepare(stream: TcpStream) -> io::Result<(TcpStream, Cut)> {
    stream.set_nodelay(true)?;
    let millis = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&stream, millis)?;
    let twin = stream.as_fd().try_clone_to_owned()?;
    Ok((stream, Cut(twin.into())))
}

/// A connection that is logged in.
async fn open(uri: &AMQPUri) -> Result<(Connection, Cut), Trouble> {
    let at = place(uri);
    let (stream, cut) = reach(uri, &at).await?;
    let mut socket: Socket = AsyncTcpStream::Plain(stream.compat());
    if uri.scheme == AMQPScheme::AMQPS {
        let failed = |error: io::Error| trouble(&at, Step::Tls, None, &error.to_string());
        let shaken = socket.into_tls(host(uri), TLSConfig::default());
        socket = bounded(&at, Step::Tls, shaken.map(|result| result.map_err(failed))).await?;
    }
    // lapin asks for a socket once, and again only for what is not wanted here: it gets this one or none.
    let socket = Arc::new(Mutex::new(Some(socket)));
    let hand_over = async move |_, _| {
        let socket = socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        socket.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    };
    let runtime = lapin::runtime::default_runtime().map_err(failed(&at, Step::Login))?;
    let options = ConnectionProperties::default()
        .with_connection_name("quittance".into())
        .with_client_property("product".into(), "quittance".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let connecting = Connection::connector(uri.clone(), runtime, hand_over, options);
    let connection =
        bounded(&at, Step::Login, connecting.map(|result| result.map_err(failed(&at, Step::Login)))).await?;
    Ok((connection, cut))
}

impl Wiring {
    /// Once for each thing in the life of the process.
    fn warn(&self, at: &str, what: &str, said: &str) {
        if self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned()) {
            tracing::warn!(broker = at, said, "{what}");
        }
    }

    /// Declares what is to be declared; what exists otherwise is used as it is.
    async fn declare(&self, at: &str, connection: &Connection) -> Result<(), Trouble> {
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
    async fn examine(&self, at: &str, connection: &Connection) -> Result<Vec<String>, Trouble> {
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
    async fn channels(&self, at: &str, connection: &Connection) -> Result<Vec<Channel>, Trouble> {
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

impl Line {
    async fn open(uri: &AMQPUri, wiring: &Arc<Wiring>) -> Result<Self, Trouble> {
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
