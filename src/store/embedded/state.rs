//! What the committer must know of the past, by key: the contents of the index.
//!
//! Everything here follows from the journal's heads through [`apply`], which live commits and rebuilds share, so
//! the two cannot disagree. Nothing is judged here: heads carry their verdicts.

pub mod value;

use std::sync::Arc;

use super::record::{Expected, Record, ReplayJob, Stamped, Statement, millis};
use crate::event::{AccountName, Digest, EventId, Kind, OrderId, Position, SourceName, Status};
use crate::provider::SignedString;
use crate::store::{KeptOutcome, Timeline};
pub use value::{Bound, Ended, Expectation, Lane, Letter, Order, Seen, Session, SignedOnce, Summary, Told, Value};

/// A key of the index: one byte that says of what, and 16 bytes of a SHA-256 salted with the store's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key(pub [u8; 17]);

/// Histories of a store that are remembered.
const TIMELINES: usize = 1024;
/// Replays that are remembered after their end: what one was asked for can hold a request's worth of ids.
pub const ENDED_REPLAYS: usize = 256;

/// Makes keys. Salted, so that nobody outside can look for two that collide.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    store: [u8; 16],
}

/// Where values are read and changed.
pub trait View {
    /// The value of a key.
    fn get(&mut self, key: &Key) -> Option<Value>;
    /// Sets it.
    fn put(&mut self, key: Key, value: Value);
}

impl Key {
    /// Of what it is: the first byte.
    pub fn what(&self) -> u8 {
        self.0.first().copied().unwrap_or_default()
    }
    /// What filters and segment footers keep of a key.
    pub fn fingerprint(&self) -> u64 {
        super::fields::little_endian(self.0.get(1..9).unwrap_or_default())
    }
}

impl Keys {
    /// Keys of a store.
    pub fn new(store: [u8; 16]) -> Self {
        Self { store }
    }

    fn key(&self, what: u8, parts: &[&[u8]]) -> Key {
        let word = [what];
        let all = [self.store.as_slice(), &word].into_iter().chain(parts.iter().copied());
        let digest = Digest::of_parts(all.map(Some));
        let mut key = [what; 17];
        for (to, from) in key.iter_mut().skip(1).zip(digest.0) {
            *to = from;
        }
        Key(key)
    }

    /// A notification of a source was seen.
    pub fn seen(&self, source: &SourceName, idempotency: &Digest) -> Key {
        self.key(b'I', &[source.as_str().as_bytes(), &idempotency.0])
    }
    /// A string was signed by a key.
    pub fn signed(&self, signed: &SignedString) -> Key {
        self.key(b'S', &[&signed.key.0, &signed.hash.0])
    }
    /// An order of an account.
    pub fn order(&self, account: &AccountName, order: &OrderId) -> Key {
        self.order_named(account, order.as_str())
    }
    /// The same, from text.
    pub fn order_named(&self, account: &AccountName, order: &str) -> Key {
        self.key(b'O', &[account.as_str().as_bytes(), order.as_bytes()])
    }
    /// A payment's outcome was told. `None` where neither transaction nor order is named.
    pub fn told(
        &self,
        account: &AccountName,
        kind: Kind,
        transaction: Option<&str>,
        order: Option<&OrderId>,
        status: Status,
    ) -> Option<Key> {
        let (which, id): (&[u8], &str) = match (transaction, order) {
            (Some(transaction), _) => (b"transaction", transaction),
            (None, Some(order)) => (b"order", order.as_str()),
            (None, None) => return None,
        };
        let account = account.as_str().as_bytes();
        Some(self.key(b'T', &[account, &[kind.code()], which, id.as_bytes(), &[status.code()]]))
    }
    /// A `getid` of an account.
    pub fn getid(&self, account: &AccountName, getid: &str) -> Key {
        self.key(b'G', &[account.as_str().as_bytes(), getid.as_bytes()])
    }
    /// A held event was settled.
    pub fn settled(&self, event: EventId) -> Key {
        self.key(b'X', &[&event.to_bytes()])
    }
    /// How far a sink has come.
    pub fn sink(&self, sink: &str) -> Key {
        self.key(b'P', &[sink.as_bytes()])
    }
    /// The newest time that can be trusted.
    pub fn clock(&self) -> Key {
        self.key(b'C', &[])
    }
    /// An event that a sink refused for good.
    pub fn dead_letter(&self, sink: &str, event: Position) -> Key {
        self.key(b'D', &[sink.as_bytes(), &event.0.to_le_bytes()])
    }
    /// A replay.
    pub fn replay(&self, id: &str) -> Key {
        self.key(b'J', &[id.as_bytes()])
    }
    /// The replays that ended and are remembered.
    pub fn ended_replays(&self) -> Key {
        self.key(b'E', &[])
    }
    /// The accounts that an order was ever named at, whatever the configuration says now.
    pub fn accounts(&self) -> Key {
        self.key(b'A', &[])
    }
    /// Up to where parts are gone.
    pub fn horizon(&self) -> Key {
        self.key(b'H', &[])
    }
    /// The histories that cursors may come from.
    pub fn timelines(&self) -> Key {
        self.key(b'L', &[])
    }
    /// The one history of a store that was never restored.
    pub fn first_timeline(&self) -> Timeline {
        Timeline { id: self.store, until: Position(u64::MAX) }
    }
    /// Whether the store came from a backup and nobody has ended that yet.
    pub fn restored(&self) -> Key {
        self.key(b'R', &[])
    }

    /// The keys that a record touches and that a new notification may ask for: what a sealed segment's footer
    /// keeps, so that "new" can be said without the disk.
    pub fn fingerprints(&self, record: &Record) -> Vec<u64> {
        let mut keys = Vec::new();
        match record {
            Record::Notification(statement) | Record::Settlement(statement) => {
                let s = statement;
                keys.push(self.seen(&s.source, &s.idempotency));
                keys.extend(s.signed.as_ref().map(|signed| self.signed(signed)));
                keys.extend(s.order.as_ref().map(|order| self.order(&s.account, order)));
                if s.told() {
                    keys.extend(self.told(&s.account, s.kind, s.transaction.as_deref(), s.order.as_ref(), s.status));
                    keys.extend(s.getid.as_ref().map(|getid| self.getid(&s.account, getid)));
                }
                keys.extend(s.settles.map(|event| self.settled(event)));
            }
            Record::Expectation(expected) => {
                keys.push(self.order(&expected.account, &expected.order));
                keys.extend(expected.session.as_ref().map(|session| self.getid(&expected.account, session)));
            }
            _ => {}
        }
        keys.iter().map(Key::fingerprint).collect()
    }
}

/// Enters a record.
pub fn apply(view: &mut impl View, keys: &Keys, position: Position, stamped: &Stamped) {
    let clock = keys.clock();
    let confirmed = matches!(&stamped.record, Record::Audit(audit) if audit.what == "clock_confirmed");
    let newest = match view.get(&clock) {
        Some(Value::Clock(newest)) => newest,
        _ => 0,
    };
    let at = millis(stamped.committed_at);
    if confirmed || (!stamped.doubtful && at > newest) {
        view.put(clock, Value::Clock(at));
    }
    if let Record::Audit(audit) = &stamped.record
        && ["restored", "restored_ended"].contains(&audit.what.as_str())
    {
        view.put(keys.restored(), Value::Restored(audit.what == "restored"));
    }
    match &stamped.record {
        Record::Notification(statement) => {
            enter_key(view, keys, position, statement);
            enter_order(view, keys, position, statement);
            enter_account(view, keys, statement);
            enter_told(view, keys, statement);
        }
        Record::Settlement(statement) => {
            enter_order(view, keys, position, statement);
            enter_told(view, keys, statement);
            if let (Some(held), Some(by)) = (statement.settles, statement.event) {
                let (verdict, by_hand) = (statement.verdict, statement.by_hand.is_some());
                view.put(keys.settled(held), Value::Settled(Ended { by, verdict, by_hand }));
            }
        }
        Record::Expectation(expected) => enter_expectation(view, keys, position, expected, at),
        Record::Progress(progress) => view.put(keys.sink(&progress.sink), Value::Sink(progress.clone())),
        Record::SinkStart(start) => {
            let progress =
                super::record::Progress { sink: start.sink.clone(), watermark: start.after, beyond: Vec::new() };
            view.put(keys.sink(&start.sink), Value::Sink(progress));
        }
        Record::DeadLetter(dead) => {
            let letter = Letter { sink: dead.sink.clone(), event: dead.position, letter: position };
            view.put(keys.dead_letter(&dead.sink, dead.position), Value::DeadLetter(letter));
        }
        Record::Redelivery(again) => {
            // It is on its way again: what becomes of it now is told anew.
            let key = again.goes_to().map(|sink| keys.dead_letter(sink, again.position));
            if let Some(key) = key
                && view.get(&key).is_some()
            {
                view.put(key, Value::Gone);
            }
        }
        Record::ReplayJob(job) => enter_replay(view, keys, job),
        Record::Audit(_) | Record::Heartbeat => {}
        Record::Timeline(id) => enter_timeline(view, keys, position, *id),
        Record::Horizon(horizon) => view.put(keys.horizon(), Value::Horizon(*horizon)),
    }
}

fn enter_replay(view: &mut impl View, keys: &Keys, job: &ReplayJob) {
    let key = keys.replay(&job.replay);
    let known = match view.get(&key) {
        Some(Value::Replay(known)) => Some(known),
        _ => None,
    };
    let now = job.after(known.as_ref());
    let ends = now.ended.is_some() && known.is_none_or(|known| known.ended.is_none());
    view.put(key, Value::Replay(now));
    if ends {
        let mut ended = match view.get(&keys.ended_replays()) {
            Some(Value::EndedReplays(ended)) => ended,
            _ => Vec::new(),
        };
        if ended.len() == ENDED_REPLAYS {
            view.put(keys.replay(&ended.remove(0)), Value::Gone);
        }
        ended.push(job.replay.clone());
        view.put(keys.ended_replays(), Value::EndedReplays(ended));
    }
}

fn enter_account(view: &mut impl View, keys: &Keys, statement: &Statement) {
    if statement.order.is_none() {
        return;
    }
    let known = match view.get(&keys.accounts()) {
        Some(Value::Accounts(known)) => known,
        _ => Arc::default(),
    };
    if !known.contains(&statement.account) {
        let all = known.iter().chain([&statement.account]).cloned().collect();
        view.put(keys.accounts(), Value::Accounts(Arc::new(all)));
    }
}

fn enter_timeline(view: &mut impl View, keys: &Keys, position: Position, id: [u8; 16]) {
    let mut timelines = match view.get(&keys.timelines()) {
        Some(Value::Timelines(timelines)) => timelines,
        _ => vec![keys.first_timeline()],
    };
    if let Some(before) = timelines.last_mut() {
        before.until = Position(position.0.saturating_sub(1));
    }
    if timelines.len() == TIMELINES {
        timelines.remove(0); // its cursors become those of another store
    }
    timelines.push(Timeline { id, until: Position(u64::MAX) });
    view.put(keys.timelines(), Value::Timelines(timelines));
}

fn enter_key(view: &mut impl View, keys: &Keys, position: Position, statement: &Statement) {
    let summary = Summary::of(statement);
    let key = keys.seen(&statement.source, &statement.idempotency);
    let seen = match view.get(&key) {
        Some(Value::Seen(mut seen)) => {
            seen.twins.push(summary);
            seen
        }
        _ => Seen {
            position,
            original: summary,
            twins: Vec::new(),
            times_seen: 1,
            last_seen: millis(statement.received_at),
        },
    };
    view.put(key, Value::Seen(seen));
    let Some(signed) = &statement.signed else { return };
    let key = keys.signed(signed);
    let mut once = match view.get(&key) {
        Some(Value::Signed(once)) => once,
        _ => SignedOnce { position, digest: short(&statement.digest), event: statement.event, others: 0, told: false },
    };
    if statement.outcome == KeptOutcome::Conflict {
        once.others += 1;
    }
    once.told |= statement.told();
    view.put(key, Value::Signed(once));
}

fn enter_told(view: &mut impl View, keys: &Keys, statement: &Statement) {
    if !statement.told() {
        return;
    }
    let Some(event) = statement.event else { return };
    let (transaction, order) = (statement.transaction.as_deref(), statement.order.as_ref());
    if let Some(key) = keys.told(&statement.account, statement.kind, transaction, order, statement.status) {
        view.put(key, Value::Told(Told { event }));
    }
    if let Some(getid) = &statement.getid {
        let key = keys.getid(&statement.account, getid);
        let mut bound = match view.get(&key) {
            Some(Value::GetId(bound)) => bound,
            _ => Bound { order: order.map(|order| order.as_str().to_owned()).unwrap_or_default(), told: false },
        };
        bound.told = true;
        view.put(key, Value::GetId(bound));
    }
    if let Some(signed) = &statement.signed
        && let Some(Value::Signed(mut once)) = view.get(&keys.signed(signed))
    {
        once.told = true;
        view.put(keys.signed(signed), Value::Signed(once));
    }
}

fn enter_order(view: &mut impl View, keys: &Keys, position: Position, statement: &Statement) {
    let Some(order_id) = &statement.order else { return };
    let key = keys.order(&statement.account, order_id);
    let mut order = match view.get(&key) {
        Some(Value::Order(order)) => order,
        _ => Order::default(),
    };
    let lane = order.lane(&statement.source);
    lane.sequence = lane.sequence.max(statement.sequence);
    lane.remember(position);
    if statement.status.is_final_of(statement.kind) && statement.counts() {
        lane.final_kept = true;
        lane.paid |= statement.status == Status::Paid;
    }
    if statement.says_nothing() {
        lane.empty = lane.empty.saturating_add(1);
    }
    if let Some(settled) = statement.settles {
        lane.held.retain(|(_, event)| *event != settled);
    }
    if statement.verdict == crate::event::Verdict::Hold
        && let Some(event) = statement.event
    {
        lane.hold(position, event);
    }
    if statement.told()
        && let Some(expectation) = order.expectation_mut(statement.kind)
        && expectation.fulfilled_by.is_none()
    {
        expectation.fulfilled_by = Some(payer_of(statement));
        for session in &mut expectation.sessions {
            session.used |= session.indicator.is_some() && session.indicator == statement.indicator;
        }
    }
    view.put(key, Value::Order(order));
}

fn enter_expectation(view: &mut impl View, keys: &Keys, position: Position, expected: &Expected, now: u64) {
    let key = keys.order(&expected.account, &expected.order);
    let mut order = match view.get(&key) {
        Some(Value::Order(order)) => order,
        _ => Order::default(),
    };
    order.lane(&expected.source).remember(position);
    let known = order.expectations.iter().position(|e| e.kind == expected.kind);
    let mut known = known.map(|index| order.expectations.swap_remove(index));
    let mut expectation = match known.take_if(|known| known.is_open(now) && known.amount == expected.amount) {
        Some(open) => open,
        // Another expectation, also where only its time had passed: what was signed meanwhile came before it.
        None => Expectation {
            kind: expected.kind,
            amount: expected.amount.clone(),
            registered: position,
            sessions: known.map(Expectation::into_past_sessions).unwrap_or_default(),
            fulfilled_by: None,
        },
    };
    // An indicator counts once, however often it is registered.
    let used = expected.indicator.is_some()
        && expectation.sessions.iter().any(|session| session.used && session.indicator == expected.indicator);
    expectation.add(Session {
        session: expected.session.clone(),
        indicator: expected.indicator,
        expires_at: millis(expected.expires_at),
        used,
    });
    order.expectations.push(expectation);
    view.put(key, Value::Order(order));
    if let Some(session) = &expected.session {
        let key = keys.getid(&expected.account, session);
        if view.get(&key).is_none() {
            view.put(key, Value::GetId(Bound { order: expected.order.as_str().to_owned(), told: false }));
        }
    }
}

/// Which payment a statement speaks of: its transaction, or else its notification.
pub fn payer_of(statement: &Statement) -> [u8; 16] {
    match &statement.transaction {
        Some(transaction) => short(&Digest::of_parts([Some(b"transaction".as_slice()), Some(transaction.as_bytes())])),
        None => short(&Digest::of_parts([Some(b"key".as_slice()), Some(&statement.idempotency.0)])),
    }
}

/// The first half of a digest: enough to tell two statements of one key apart.
pub fn short(digest: &Digest) -> [u8; 16] {
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(digest.0) {
        *to = from;
    }
    half
}
