//! What the journal's heads say, version 1. Every kind that a rebuild must restore is here from the first day.
//!
//! A head's payload is one byte of kind and tagged fields. Times are milliseconds since 1970. Words are their fixed
//! codes (`Kind::code` and so on). The parts that may be retired hold the request (`raw`) and the event's JSON.

pub mod statement;
#[cfg(test)]
pub(crate) mod tests;

use jiff::Timestamp;

use super::fields::{Fields, Writer, little_endian};
use crate::event::{AccountName, Currency, Decimal, Kind, Money, OrderId, Position, SourceName};
pub use statement::Statement;

/// One head.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A kept notification and the event derived from it.
    Notification(Box<Statement>),
    /// An event that settles an earlier one; its request is the earlier one's.
    Settlement(Box<Statement>),
    /// What the order system expects.
    Expectation(Box<Expected>),
    /// How far a sink has come.
    Progress(Progress),
    /// An event that a sink refused for good.
    DeadLetter(DeadLetter),
    /// An event is to be handed to a sink again.
    Redelivery(Redelivery),
    /// A replay job and how far it has come.
    ReplayJob(ReplayJob),
    /// A sink began here.
    SinkStart(SinkStart),
    /// Somebody changed something.
    Audit(Audit),
    /// Parts up to here are gone: the feed begins after it.
    Horizon(Position),
    /// From here on the store tells another history than the one from which it was restored; its identity.
    Timeline([u8; 16]),
    /// The daemon was alive: what the clock rule is judged by when nothing else comes.
    Heartbeat,
}

/// A record with the time of its commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped {
    /// When the committer wrote it.
    pub committed_at: Timestamp,
    /// The clock could not be trusted then: this time must not become the measure for later ones.
    pub doubtful: bool,
    /// What it says.
    pub record: Record,
}

/// A registered expectation.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// The source at which it will arrive.
    pub source: SourceName,
    /// Its account then.
    pub account: AccountName,
    /// The order.
    pub order: OrderId,
    /// What moves.
    pub kind: Kind,
    /// How much.
    pub amount: Money,
    /// Click KW: the session; ClickGem: the getid.
    pub session: Option<String>,
    /// Click KW: hash of the indicator under the store's key.
    pub indicator: Option<[u8; 16]>,
    /// Until when.
    pub expires_at: Timestamp,
}

/// How far a sink has come: everything up to `watermark` is settled, and of what is above it `beyond`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// `amqp`, or `feed:<consumer>`.
    pub sink: String,
    /// Settled up to and including.
    pub watermark: Position,
    /// Settled above it, ascending.
    pub beyond: Vec<Position>,
}

/// An event that a sink refused for good.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The sink.
    pub sink: String,
    /// The event's own record, also where it was refused when it was sent again.
    pub position: Position,
    /// After how many attempts.
    pub attempts: u32,
    /// The sink's words.
    pub reason: String,
}

/// An event is to be handed out again.
#[derive(Clone, Debug, PartialEq)]
pub struct Redelivery {
    /// The replay.
    pub replay: String,
    /// To which sink; empty: all.
    pub sink: String,
    /// The event's record.
    pub position: Position,
    /// Another exchange than the sink's.
    pub exchange: Option<String>,
    /// Another routing key than the event's.
    pub routing_key: Option<String>,
}

/// A replay job.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayJob {
    /// Its id.
    pub replay: String,
    /// Who asked, and for what: JSON.
    pub request: String,
    /// Redelivered up to and including.
    pub up_to: Position,
    /// Redeliveries written so far.
    pub count: u64,
    /// How it ended; `None` while it runs.
    pub ended: Option<String>,
}

impl ReplayJob {
    /// What is known of it once this came: only the first record of a job says what was asked for. An end stays: a group
    /// that was under way when somebody ended the job only says how far it was.
    pub fn after(&self, known: Option<&Self>) -> Self {
        let mut job = self.clone();
        let Some(known) = known else { return job };
        if job.request.is_empty() {
            job.request.clone_from(&known.request);
        }
        job.ended = known.ended.clone().or(job.ended);
        (job.up_to, job.count) = (job.up_to.max(known.up_to), job.count.max(known.count));
        job
    }
}

impl ReplayJob {
    /// Who asked, as the request says.
    pub fn asked_by(&self) -> Option<String> {
        let request: serde_json::Value = serde_json::from_str(&self.request).ok()?;
        Some(request.get("asked_by")?.as_str()?.to_owned())
    }
}

impl Redelivery {
    /// The sink that is owed it: none where it went elsewhere.
    pub fn goes_to(&self) -> Option<&str> {
        match self.exchange {
            Some(_) => None,
            None if self.sink.is_empty() => Some(super::AMQP),
            None => Some(&self.sink),
        }
    }

    /// Whether the feed shows it: what is meant for one sink alone is no business of its readers.
    pub fn is_in_feed(&self) -> bool {
        self.sink.is_empty() && self.exchange.is_none()
    }
}

/// A sink began at a position.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkStart {
    /// The sink.
    pub sink: String,
    /// Nothing up to and including this is owed to it.
    pub after: Position,
}

/// Somebody changed something.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// What: `restored`, `clock_confirmed`, ...
    pub what: String,
    /// Who.
    pub who: String,
    /// Why, in their words.
    pub reason: String,
}

impl Stamped {
    /// The head's payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.put_number(tag::COMMITTED_AT, millis(self.committed_at)).put_number(tag::DOUBTFUL, self.doubtful.into());
        let kind = match &self.record {
            Record::Notification(statement) => {
                statement.write(&mut out);
                1
            }
            Record::Settlement(statement) => {
                statement.write(&mut out);
                2
            }
            Record::Expectation(expected) => {
                expected.write(&mut out);
                3
            }
            Record::Progress(progress) => {
                out.put_text(tag::SINK, Some(&progress.sink));
                out.put_number(tag::POSITION, progress.watermark.0);
                let beyond: Vec<u8> = progress.beyond.iter().flat_map(|p| p.0.to_le_bytes()).collect();
                out.put(tag::BEYOND, &beyond);
                4
            }
            Record::DeadLetter(letter) => {
                out.put_text(tag::SINK, Some(&letter.sink)).put_number(tag::POSITION, letter.position.0);
                out.put_number(tag::ATTEMPTS, letter.attempts.into()).put_text(tag::REASON, Some(&letter.reason));
                5
            }
            Record::Redelivery(again) => {
                out.put_text(tag::REPLAY, Some(&again.replay)).put_text(tag::SINK, Some(&again.sink));
                out.put_number(tag::POSITION, again.position.0);
                out.put_text(tag::EXCHANGE, again.exchange.as_deref());
                out.put_text(tag::ROUTING_KEY, again.routing_key.as_deref());
                6
            }
            Record::ReplayJob(job) => {
                out.put_text(tag::REPLAY, Some(&job.replay)).put_text(tag::REQUEST, Some(&job.request));
                out.put_number(tag::POSITION, job.up_to.0).put_number(tag::COUNT, job.count);
                out.put_text(tag::ENDED, job.ended.as_deref());
                7
            }
            Record::SinkStart(start) => {
                out.put_text(tag::SINK, Some(&start.sink)).put_number(tag::POSITION, start.after.0);
                8
            }
            Record::Audit(audit) => {
                out.put_text(tag::WHAT, Some(&audit.what)).put_text(tag::WHO, Some(&audit.who));
                out.put_text(tag::REASON, Some(&audit.reason));
                9
            }
            Record::Heartbeat => 10,
            Record::Horizon(position) => {
                out.put_number(tag::POSITION, position.0);
                11
            }
            Record::Timeline(id) => {
                out.put(tag::TIMELINE, id);
                12
            }
        };
        let mut payload = vec![kind];
        payload.extend(out.finish());
        payload
    }

    /// `None` for what this version cannot read.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (kind, rest) = payload.split_first()?;
        let fields = Fields::parse(rest)?;
        let text = |tag| fields.text(tag).map(str::to_owned);
        let position = Position(fields.number(tag::POSITION));
        let record = match kind {
            1 => Record::Notification(Box::new(Statement::read(&fields)?)),
            2 => Record::Settlement(Box::new(Statement::read(&fields)?)),
            3 => Record::Expectation(Box::new(Expected::read(&fields)?)),
            4 => Record::Progress(Progress {
                sink: text(tag::SINK)?,
                watermark: position,
                beyond: fields.get(tag::BEYOND)?.chunks(8).map(|bytes| Position(little_endian(bytes))).collect(),
            }),
            5 => Record::DeadLetter(DeadLetter {
                sink: text(tag::SINK)?,
                position,
                attempts: fields.number(tag::ATTEMPTS) as u32,
                reason: text(tag::REASON)?,
            }),
            6 => Record::Redelivery(Redelivery {
                replay: text(tag::REPLAY)?,
                sink: text(tag::SINK)?,
                position,
                exchange: text(tag::EXCHANGE),
                routing_key: text(tag::ROUTING_KEY),
            }),
            7 => Record::ReplayJob(ReplayJob {
                replay: text(tag::REPLAY)?,
                request: text(tag::REQUEST)?,
                up_to: position,
                count: fields.number(tag::COUNT),
                ended: text(tag::ENDED),
            }),
            8 => Record::SinkStart(SinkStart { sink: text(tag::SINK)?, after: position }),
            9 => Record::Audit(Audit { what: text(tag::WHAT)?, who: text(tag::WHO)?, reason: text(tag::REASON)? }),
            10 => Record::Heartbeat,
            11 => Record::Horizon(position),
            12 => Record::Timeline(fields.array(tag::TIMELINE)?),
            _ => return None,
        };
        let committed_at = time(fields.number(tag::COMMITTED_AT));
        Some(Self { committed_at, doubtful: fields.number(tag::DOUBTFUL) != 0, record })
    }
}

impl Expected {
    fn write(&self, out: &mut Writer) {
        out.put_text(tag::SOURCE, Some(self.source.as_str())).put_text(tag::ACCOUNT, Some(self.account.as_str()));
        out.put_text(tag::ORDER, Some(self.order.as_str())).put(tag::KIND, &[self.kind.code()]);
        put_money(out, tag::AMOUNT, Some(&self.amount));
        out.put_text(tag::SESSION, self.session.as_deref());
        out.put_some(tag::INDICATOR, self.indicator.as_ref().map(<[u8; 16]>::as_slice));
        out.put_number(tag::EXPIRES_AT, millis(self.expires_at));
    }

    fn read(fields: &Fields<'_>) -> Option<Self> {
        Some(Self {
            source: SourceName::new(fields.text(tag::SOURCE)?)?,
            account: AccountName::new(fields.text(tag::ACCOUNT)?)?,
            order: OrderId::new(fields.text(tag::ORDER)?)?,
            kind: Kind::from_code(fields.code(tag::KIND)?)?,
            amount: read_money(fields, tag::AMOUNT)?,
            session: fields.text(tag::SESSION).map(str::to_owned),
            indicator: fields.array(tag::INDICATOR),
            expires_at: time(fields.number(tag::EXPIRES_AT)),
        })
    }
}

/// Milliseconds since 1970; earlier times are 1970.
pub fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// The time of some milliseconds since 1970.
pub fn time(millis: u64) -> Timestamp {
    i64::try_from(millis).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

/// Writes money as `<value> <currency>`.
pub fn put_money(out: &mut Writer, tag: u8, money: Option<&Money>) {
    if let Some(money) = money {
        out.put(tag, format!("{} {}", money.value, money.currency).as_bytes());
    }
}

/// Reads what [`put_money`] wrote.
pub fn read_money(fields: &Fields<'_>, tag: u8) -> Option<Money> {
    let (value, currency) = fields.text(tag)?.split_once(' ')?;
    Some(Money { value: Decimal::parse(value)?, currency: Currency::parse(currency)? })
}

/// Tags of heads: fixed for ever, new ones go to the end.
#[rustfmt::skip]
pub(super) mod tag {
    pub const COMMITTED_AT: u8 = 1;   pub const ID: u8 = 2;             pub const EVENT: u8 = 3;
    pub const SOURCE: u8 = 4;         pub const ACCOUNT: u8 = 5;        pub const PROVIDER: u8 = 6;
    pub const OUTCOME: u8 = 7;        pub const RECEIVED_AT: u8 = 8;    pub const KIND: u8 = 9;
    pub const STATUS: u8 = 10;        pub const ORDER: u8 = 11;         pub const TRANSACTION: u8 = 12;
    pub const AMOUNT: u8 = 13;        pub const REQUESTED: u8 = 14;     pub const ASSURANCE: u8 = 15;
    pub const EXPECTATION: u8 = 16;   pub const VERDICT: u8 = 17;       pub const REASONS: u8 = 18;
    pub const IDEMPOTENCY: u8 = 19;   pub const DIGEST: u8 = 20;        pub const SIGNED_KEY: u8 = 21;
    pub const SIGNED_HASH: u8 = 22;   pub const GETID: u8 = 23;         pub const INDICATOR: u8 = 24;
    pub const FLAGS: u8 = 25;         pub const SCHEME: u8 = 26;        pub const KEY: u8 = 27;
    pub const SEQUENCE: u8 = 28;      pub const SETTLES: u8 = 29;       pub const SESSION: u8 = 30;
    pub const EXPIRES_AT: u8 = 31;    pub const SINK: u8 = 32;          pub const POSITION: u8 = 33;
    pub const BEYOND: u8 = 34;        pub const ATTEMPTS: u8 = 35;      pub const REASON: u8 = 36;
    pub const REPLAY: u8 = 37;        pub const EXCHANGE: u8 = 38;      pub const ROUTING_KEY: u8 = 39;
    pub const REQUEST: u8 = 40;       pub const ENDED: u8 = 41;         pub const WHAT: u8 = 42;
    pub const WHO: u8 = 43;           pub const DOUBTFUL: u8 = 44;        pub const COUNT: u8 = 45;
    pub const TIMELINE: u8 = 46;
}
