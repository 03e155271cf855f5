//! The values of the index and how they are written.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::super::fields::{Fields, Writer, little_endian};
use super::super::record::{Progress, ReplayJob, Statement, put_money, read_money};
use super::short;
use crate::event::{AccountName, EventId, Kind, Money, NotificationId, Position, SourceName, Status, Verdict};
use crate::store::{Committed, Outcome, Timeline};

/// What a key stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A notification that was seen.
    Seen(Seen),
    /// A string that was signed.
    Signed(SignedOnce),
    /// An outcome that was told.
    Told(Told),
    /// An order.
    Order(Order),
    /// A `getid`.
    GetId(Bound),
    /// A held event was settled.
    Settled(Ended),
    /// How far a sink has come.
    Sink(Progress),
    /// The newest time that can be trusted, milliseconds.
    Clock(u64),
    /// Up to where parts are gone.
    Horizon(Position),
    /// The store came from a backup: everything is held.
    Restored(bool),
    /// The histories that cursors may come from, oldest first.
    Timelines(Vec<Timeline>),
    /// An event that a sink refused for good.
    DeadLetter(Letter),
    /// A replay.
    Replay(ReplayJob),
    /// The replays that ended and are remembered, oldest end first.
    EndedReplays(Vec<String>),
    /// The accounts that an order was ever named at.
    Accounts(Arc<Vec<AccountName>>),
    /// Nothing any more: how a value that is always in memory is taken out of it.
    Gone,
}

/// The notifications of one idempotency key.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The original's record.
    pub position: Position,
    /// The first.
    pub original: Summary,
    /// Those that contradict it.
    pub twins: Vec<Summary>,
    /// How often the original came; a hint.
    pub times_seen: u64,
    /// When it last came, milliseconds.
    pub last_seen: u64,
}

/// What a sender is told of a kept notification.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// First half of the digest over what decides.
    pub digest: [u8; 16],
    /// The notification.
    pub id: NotificationId,
    /// Its event.
    pub event: Option<EventId>,
    /// What moves.
    pub kind: Kind,
    /// In which state.
    pub status: Status,
    /// What was told.
    pub verdict: Verdict,
    /// Click KW: its indicator was right.
    pub indicator_right: bool,
}

/// The statements made of one signed string.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedOnce {
    /// The first one's record.
    pub position: Position,
    /// First half of its digest.
    pub digest: [u8; 16],
    /// Its event.
    pub event: Option<EventId>,
    /// How many contradict it.
    pub others: u64,
    /// Something was told of it.
    pub told: bool,
}

/// An outcome that was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// By this event.
    pub event: EventId,
}

/// An event that a sink refused for good, and nobody has sent again since.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// The sink.
    pub sink: String,
    /// The event's record.
    pub event: Position,
    /// The record that says why.
    pub letter: Position,
}

/// A hold that was ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// By this event.
    pub by: EventId,
    /// Its verdict.
    pub verdict: Verdict,
    /// An operator ended it.
    pub by_hand: bool,
}

/// To which order a `getid` belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The order.
    pub order: String,
    /// It was told once.
    pub told: bool,
}

/// An order of an account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Order {
    /// One for each source that spoke of it.
    pub lanes: Vec<Lane>,
    /// At most one for each kind: the newest.
    pub expectations: Vec<Expectation>,
}

/// What one source said of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Lane {
    /// The source.
    pub source: SourceName,
    /// Events so far.
    pub sequence: u64,
    /// A final state was kept.
    pub final_kept: bool,
    /// It was `paid`.
    pub paid: bool,
    /// Browsers' returns kept that say nothing of a payment: wrong indicators, bare `getid`s.
    pub empty: u64,
    /// Its newest records, at most [`Lane::HISTORY`], ascending.
    pub history: Vec<Position>,
    /// Its newest held events that nothing settled yet, at most [`Lane::HELD`].
    pub held: Vec<(Position, EventId)>,
}

/// An expectation of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// What moves.
    pub kind: Kind,
    /// How much.
    pub amount: Money,
    /// Where it was first registered.
    pub registered: Position,
    /// Its sessions.
    pub sessions: Vec<Session>,
    /// The payment that fulfilled it.
    pub fulfilled_by: Option<[u8; 16]>,
}

/// A session of an expectation.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Click KW: the session; ClickGem: the getid.
    pub session: Option<String>,
    /// Click KW: hash of its indicator.
    pub indicator: Option<[u8; 16]>,
    /// Milliseconds.
    pub expires_at: u64,
    /// Its indicator was accepted once.
    pub used: bool,
}

impl Summary {
    /// Of a statement.
    pub fn of(statement: &Statement) -> Self {
        Self {
            digest: short(&statement.digest),
            id: statement.id,
            event: statement.event,
            kind: statement.kind,
            status: statement.status,
            verdict: statement.verdict,
            indicator_right: statement.indicator_right,
        }
    }

    /// What its sender is told when it comes again.
    pub fn committed(&self, outcome: Outcome) -> Committed {
        Committed {
            outcome,
            notification: self.id,
            event: self.event,
            order: None,
            kind: self.kind,
            status: self.status,
            verdict: self.verdict,
            indicator_right: self.indicator_right,
            order_paid: false,
            alarms: Vec::new(),
        }
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.put(1, &self.digest).put(2, &self.id.to_bytes());
        out.put_some(3, self.event.map(EventId::to_bytes).as_ref().map(<[u8; 16]>::as_slice));
        out.put(4, &[self.kind.code(), self.status.code(), self.verdict.code(), self.indicator_right.into()]);
        out.finish()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let fields = Fields::parse(bytes)?;
        let [kind, status, verdict, right] = fields.array(4)?;
        Some(Self {
            digest: fields.array(1)?,
            id: NotificationId::from_bytes(fields.array(2)?),
            event: fields.array(3).map(EventId::from_bytes),
            kind: Kind::from_code(kind)?,
            status: Status::from_code(status)?,
            verdict: Verdict::from_code(verdict)?,
            indicator_right: right != 0,
        })
    }
}

impl Lane {
    /// Records of an order that are remembered; older ones are still in the journal.
    pub const HISTORY: usize = 1024;
    /// Held events of an order that a late expectation may settle.
    pub const HELD: usize = 64;

    /// Notes a record.
    pub fn remember(&mut self, position: Position) {
        if self.history.len() == Self::HISTORY {
            self.history.remove(0);
        }
        self.history.push(position);
    }

    /// Notes a held event.
    pub fn hold(&mut self, position: Position, event: EventId) {
        if self.held.len() == Self::HELD {
            self.held.remove(0);
        }
        self.held.push((position, event));
    }
}

impl Order {
    /// The lane of a source, made where there is none.
    pub fn lane(&mut self, source: &SourceName) -> &mut Lane {
        let index = self.lanes.iter().position(|lane| lane.source == *source).unwrap_or_else(|| {
            self.lanes.push(Lane {
                source: source.clone(),
                sequence: 0,
                final_kept: false,
                paid: false,
                empty: 0,
                history: Vec::new(),
                held: Vec::new(),
            });
            self.lanes.len() - 1
        });
        &mut self.lanes[index]
    }

    /// The lane of a source, if it spoke of the order.
    pub fn find_lane(&self, source: &SourceName) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.source == *source)
    }

    /// The sessions (Click KW), `getid`s (ClickGem) that are registered for it.
    pub fn sessions(&self) -> impl Iterator<Item = &str> {
        self.expectations.iter().flat_map(|e| &e.sessions).filter_map(|session| session.session.as_deref())
    }

    /// The expectation of a kind.
    pub fn expectation(&self, kind: Kind) -> Option<&Expectation> {
        self.expectations.iter().find(|e| e.kind == kind)
    }

    /// The expectation of a kind, to be changed.
    pub fn expectation_mut(&mut self, kind: Kind) -> Option<&mut Expectation> {
        self.expectations.iter_mut().find(|e| e.kind == kind)
    }
}

impl Expectation {
    /// Sessions that are remembered: many more than may be open at once.
    pub const SESSIONS: usize = 64;

    /// Whether it can still be fulfilled at a time.
    pub fn is_open(&self, at: u64) -> bool {
        self.fulfilled_by.is_none() && !self.is_expired(at)
    }

    /// Adds a session; of those before it, the oldest is forgotten beyond [`Expectation::SESSIONS`].
    pub fn add(&mut self, session: Session) {
        if self.sessions.len() == Self::SESSIONS {
            self.sessions.remove(0);
        }
        self.sessions.push(session);
    }

    /// What a later expectation of the order must know of this one: whoever comes back with an indicator of it has
    /// still the right one, although it fulfils nothing any more.
    pub fn into_past_sessions(self) -> Vec<Session> {
        let past = self.sessions.into_iter().filter(|session| session.indicator.is_some());
        past.map(|session| Session { session: None, expires_at: 0, used: true, ..session }).collect()
    }

    /// Whether every session's time is over.
    pub fn is_expired(&self, at: u64) -> bool {
        self.sessions.iter().all(|session| session.expires_at <= at)
    }
}

fn positions(list: &[Position]) -> Vec<u8> {
    list.iter().flat_map(|p| p.0.to_le_bytes()).collect()
}

fn read_positions(bytes: &[u8]) -> Vec<Position> {
    bytes.chunks(8).map(|chunk| Position(little_endian(chunk))).collect()
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

fn read_timeline(bytes: &[u8]) -> Option<Timeline> {
    let (id, until) = bytes.split_at_checked(16)?;
    Some(Timeline { id: id.try_into().ok()?, until: Position(little_endian(until)) })
}

impl Value {
    /// As the index keeps it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Seen(seen) => {
                out.put_number(1, seen.position.0).put(2, &seen.original.write());
                for twin in &seen.twins {
                    out.put(3, &twin.write());
                }
                out.put_number(4, seen.times_seen).put_number(5, seen.last_seen);
            }
            Self::Signed(once) => {
                out.put_number(1, once.position.0).put(2, &once.digest);
                out.put_number(3, once.others).put_number(4, once.told.into());
                out.put_some(5, once.event.map(EventId::to_bytes).as_ref().map(<[u8; 16]>::as_slice));
            }
            Self::Told(told) => {
                out.put(1, &told.event.to_bytes());
            }
            Self::Order(order) => {
                for lane in &order.lanes {
                    out.put(1, &lane.write());
                }
                for expectation in &order.expectations {
                    out.put(2, &expectation.write());
                }
            }
            Self::GetId(bound) => {
                out.put_text(1, Some(&bound.order)).put_number(2, bound.told.into());
            }
            Self::Settled(ended) => {
                out.put(1, &ended.by.to_bytes()).put(2, &[ended.verdict.code(), ended.by_hand.into()]);
            }
            Self::Sink(progress) => {
                out.put_text(1, Some(&progress.sink)).put_number(2, progress.watermark.0);
                out.put(3, &positions(&progress.beyond));
            }
            Self::Horizon(position) => {
                out.put_number(1, position.0);
            }
            Self::Timelines(timelines) => {
                for Timeline { id, until } in timelines {
                    out.put(1, &[id.as_slice(), &until.0.to_le_bytes()].concat());
                }
            }
            Self::Restored(restored) => {
                out.put_number(1, (*restored).into());
            }
            Self::Clock(number) => {
                out.put_number(1, *number);
            }
            Self::DeadLetter(letter) => {
                out.put_text(1, Some(&letter.sink)).put_number(2, letter.event.0).put_number(3, letter.letter.0);
            }
            Self::Replay(job) => {
                out.put_text(1, Some(&job.replay)).put_text(2, Some(&job.request)).put_number(3, job.up_to.0);
                out.put_number(4, job.count).put_text(5, job.ended.as_deref());
            }
            Self::EndedReplays(ended) => {
                for id in ended {
                    out.put_text(1, Some(id));
                }
            }
            Self::Accounts(accounts) => {
                for account in accounts.iter() {
                    out.put_text(1, Some(account.as_str()));
                }
            }
            Self::Gone => {}
        }
        out.finish()
    }

    /// Reads the value of a key that begins with `what`; `None` for what does not read.
    pub fn decode(what: u8, bytes: &[u8]) -> Option<Self> {
        let fields = Fields::parse(bytes)?;
        let position = |tag| Position(fields.number(tag));
        Some(match what {
            b'I' => Self::Seen(Seen {
                position: position(1),
                original: Summary::read(fields.get(2)?)?,
                twins: fields.all(3).map(Summary::read).collect::<Option<_>>()?,
                times_seen: fields.number(4),
                last_seen: fields.number(5),
            }),
            b'S' => Self::Signed(SignedOnce {
                position: position(1),
                digest: fields.array(2)?,
                event: fields.array(5).map(EventId::from_bytes),
                others: fields.number(3),
                told: fields.number(4) != 0,
            }),
            b'T' => Self::Told(Told { event: EventId::from_bytes(fields.array(1)?) }),
            b'O' => Self::Order(Order {
                lanes: fields.all(1).map(Lane::read).collect::<Option<_>>()?,
                expectations: fields.all(2).map(Expectation::read).collect::<Option<_>>()?,
            }),
            b'G' => Self::GetId(Bound { order: fields.text(1)?.to_owned(), told: fields.number(2) != 0 }),
            b'X' => {
                let [verdict, by_hand] = fields.array(2)?;
                let by = EventId::from_bytes(fields.array(1)?);
                Self::Settled(Ended { by, verdict: Verdict::from_code(verdict)?, by_hand: by_hand != 0 })
            }
            b'P' => Self::Sink(Progress {
                sink: fields.text(1)?.to_owned(),
                watermark: position(2),
                beyond: read_positions(fields.get(3)?),
            }),
            b'L' => Self::Timelines(fields.all(1).map(read_timeline).collect::<Option<_>>()?),
            b'R' => Self::Restored(fields.number(1) != 0),
            b'H' => Self::Horizon(position(1)),
            b'C' => Self::Clock(fields.number(1)),
            b'D' => {
                Self::DeadLetter(Letter { sink: fields.text(1)?.to_owned(), event: position(2), letter: position(3) })
            }
            b'J' => Self::Replay(ReplayJob {
                replay: fields.text(1)?.to_owned(),
                request: fields.text(2)?.to_owned(),
                up_to: position(3),
                count: fields.number(4),
                ended: fields.text(5).map(str::to_owned),
            }),
            b'E' => Self::EndedReplays(fields.all(1).map(text).collect::<Option<_>>()?),
            b'A' => {
                let accounts = fields.all(1).map(|name| AccountName::new(&text(name)?));
                Self::Accounts(Arc::new(accounts.collect::<Option<_>>()?))
            }
            _ => return None,
        })
    }
}

impl Lane {
    fn write(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.put_text(1, Some(self.source.as_str())).put_number(2, self.sequence);
        out.put_number(3, u64::from(self.final_kept) | u64::from(self.paid) << 1).put_number(4, self.empty);
        out.put(5, &positions(&self.history));
        for (position, event) in &self.held {
            let mut held = position.0.to_le_bytes().to_vec();
            held.extend(event.to_bytes());
            out.put(6, &held);
        }
        out.finish()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let fields = Fields::parse(bytes)?;
        let held = |bytes: &[u8]| {
            let (position, event) = bytes.split_at_checked(8)?;
            Some((Position(little_endian(position)), EventId::from_bytes(event.try_into().ok()?)))
        };
        Some(Self {
            source: SourceName::new(fields.text(1)?)?,
            sequence: fields.number(2),
            final_kept: fields.number(3) & 1 != 0,
            paid: fields.number(3) & 2 != 0,
            empty: fields.number(4),
            history: read_positions(fields.get(5)?),
            held: fields.all(6).map(held).collect::<Option<_>>()?,
        })
    }
}

impl Expectation {
    fn write(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.put(1, &[self.kind.code()]).put_number(3, self.registered.0);
        put_money(&mut out, 2, Some(&self.amount));
        out.put_some(4, self.fulfilled_by.as_ref().map(<[u8; 16]>::as_slice));
        for session in &self.sessions {
            let mut inner = Writer::new();
            inner.put_text(1, session.session.as_deref());
            inner.put_some(2, session.indicator.as_ref().map(<[u8; 16]>::as_slice));
            inner.put_number(3, session.expires_at).put_number(4, session.used.into());
            out.put(5, &inner.finish());
        }
        out.finish()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let fields = Fields::parse(bytes)?;
        let session = |bytes: &[u8]| {
            let fields = Fields::parse(bytes)?;
            Some(Session {
                session: fields.text(1).map(str::to_owned),
                indicator: fields.array(2),
                expires_at: fields.number(3),
                used: fields.number(4) != 0,
            })
        };
        Some(Self {
            kind: Kind::from_code(fields.code(1)?)?,
            amount: read_money(&fields, 2)?,
            registered: Position(fields.number(3)),
            fulfilled_by: fields.array(4),
            sessions: fields.all(5).map(session).collect::<Option<_>>()?,
        })
    }
}
