//! New, duplicate or conflict, and what it is worth: gathers the facts of one notification and judges them.
//!
//! Called by the committer only, in queue order, against what is in the index, what is not in it yet, and the
//! earlier members of the group. Pure but for what the [`View`] reads.

use super::record::{Statement, millis};
use super::state::{
    Expectation, Key, Keys, Lane, Order, Seen, Session, SignedOnce, Summary, Value, View, payer_of, short,
};
use crate::event::{
    AccountName, Assurance, Digest, Event, EventId, ExpectationResult, Kind, Money, NotificationId, Position, Reason,
    RelatesTo, Relation, Status, Verdict,
};
use crate::provider::{Claim, Verified};
use crate::store::{Alarm, Committed, KeptOutcome, Outcome};
use crate::verdict::{Facts, Indicator, judge};
use jiff::Timestamp;

/// Conflicts of one key that become events; more are kept without one.
pub const TOLD_CONFLICTS: usize = 8;
/// Conflicts of one key that are kept at all; more are acknowledged and counted.
pub const KEPT_CONFLICTS: usize = 64;
/// Browsers' returns that say nothing of a payment, such as wrong indicators, that are kept of one order.
pub const KEPT_EMPTY: u64 = 16;

/// What holds for all notifications of a group.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The reading of the clock by which `clock_alarm` was judged: its records are stamped with no other, or one that is
    /// read after a jump would be trusted.
    pub now: Timestamp,
    /// The clock cannot be trusted.
    pub clock_alarm: bool,
    /// The store was started from a backup.
    pub restored: bool,
    /// `policy.fulfil = "never"`.
    pub fulfil_never: bool,
    /// It comes out of the quarantine: it arrived before, and what is known now was not known then.
    pub again: bool,
}

/// What becomes of a notification.
#[derive(Debug)]
pub enum Decision {
    /// Nothing is written; the sender is told this.
    Known(Committed),
    /// Kept.
    Keep {
        /// Its record.
        statement: Box<Statement>,
        /// Its event.
        event: Option<Box<Event>>,
        /// What the sender is told after the sync.
        committed: Committed,
    },
}

/// An order that another cut of an ambiguous signed string could name, and the account whose it would be.
pub type Rival = (AccountName, String);

/// A claim, read against the order's sessions.
struct Reading {
    status: Status,
    indicator: Indicator,
    right: bool,
    idempotency: Digest,
    digest: Digest,
    contradiction: bool,
}

/// Decides one notification that would stand at `position`. `indicator` is the hash of Click KW's indicator under
/// the store's key; `rivals` the orders that other cuts of an ambiguous signed string could name to any account that
/// shares the key, `None` where they are too many to look at.
pub fn decide(
    view: &mut impl View,
    keys: &Keys,
    position: Position,
    verified: &Verified,
    indicator: Option<[u8; 16]>,
    rivals: Option<&[Rival]>,
    circumstances: &Circumstances,
) -> Decision {
    let at = millis(verified.received.at);
    let order_id = verified.details.order_id.as_ref();
    let order = order_id.and_then(|order| match view.get(&keys.order(&verified.account, order)) {
        Some(Value::Order(order)) => Some(order),
        _ => None,
    });
    let order = order.unwrap_or_default();
    let lane = order.find_lane(&verified.source);
    let reading = read(verified, indicator, order.expectation(Kind::Payment), at);
    let mut alarms = Vec::new();
    if reading.indicator == Indicator::Wrong {
        alarms.push(Alarm::WrongIndicator);
    }
    let order_paid = lane.is_some_and(|lane| lane.paid);
    let finish = |mut committed: Committed, alarms: Vec<Alarm>| {
        committed.order = order_id.cloned();
        committed.order_paid = order_paid;
        committed.alarms = alarms;
        committed
    };

    // Seen before?
    let key = keys.seen(&verified.source, &reading.idempotency);
    let digest = short(&reading.digest);
    let seen = match view.get(&key) {
        Some(Value::Seen(seen)) => Some(seen),
        _ => None,
    };
    if let Some(known) = seen.as_ref().and_then(|seen| repeat_of(view, key, seen, &digest, at)) {
        let mut committed = known.committed(Outcome::Duplicate);
        // Its original would be told no more today, nor held: something settled it meanwhile.
        if committed.verdict == Verdict::Hold && told_before(view, keys, verified, reading.status).is_some() {
            committed.verdict = Verdict::None;
        }
        return Decision::Known(finish(committed, alarms));
    }
    let signed = verified.signed.as_ref().and_then(|signed| match view.get(&keys.signed(signed)) {
        Some(Value::Signed(once)) => Some(once),
        _ => None,
    });
    let restring = signed.as_ref().is_some_and(|once| once.digest != digest);
    let conflict = seen.is_some() || restring;
    if seen.is_some() {
        alarms.push(Alarm::Conflict);
    }
    if restring {
        alarms.push(Alarm::Restring);
    }
    let twins = seen.as_ref().map_or(0, |seen| seen.twins.len());
    let twins = twins.max(signed.as_ref().map_or(0, |once| usize::try_from(once.others).unwrap_or(usize::MAX)));
    let empty = verified.assurance == Assurance::Browser && reading.status == Status::Unknown;
    // The right one is never refused, however many others came before it.
    let right = verified.getid.as_deref().is_some_and(|getid| order.sessions().any(|known| known == getid));
    let too_many = empty && !right && lane.is_some_and(|lane| lane.empty >= KEPT_EMPTY);
    if (conflict && twins >= KEPT_CONFLICTS) || (!conflict && too_many) {
        // Acknowledged and counted, not kept: whoever can make one can make thousands.
        let outcome = if conflict { Outcome::Conflict } else { Outcome::Duplicate };
        return Decision::Known(finish(unkept(verified, &reading, outcome), alarms));
    }

    // What is known about it?
    let payer = payer(verified, &reading);
    let comparison = compare(verified, order.expectation(verified.kind), at);
    let told = told_before(view, keys, verified, reading.status);
    let mut facts = Facts::of(verified.kind, reading.status, verified.assurance);
    facts.conflict = conflict;
    facts.clock_alarm = circumstances.clock_alarm;
    facts.restored = circumstances.restored;
    facts.fulfil_never = circumstances.fulfil_never;
    facts.indicator = reading.indicator;
    facts.problems.clone_from(&verified.problems);
    if foreign_getid(view, keys, verified, &order) {
        alarms.push(Alarm::GetId);
        push_once(&mut facts.problems, Reason::Contradiction);
    }
    if reading.contradiction {
        push_once(&mut facts.problems, Reason::Contradiction);
    }
    // A signed string is told once, whatever its cut and whichever source it came to; the ambiguous are held instead.
    let string_told = signed.as_ref().is_some_and(|once| once.told);
    facts.already_told = told.is_some() || (string_told && verified.assurance != Assurance::Ambiguous);
    let expectation = order.expectation(verified.kind);
    facts.paid_by_another = expectation.is_some_and(|e| e.fulfilled_by.is_some_and(|by| by != payer));
    facts.expectation = comparison.result;
    facts.expectation_reason = comparison.reason;
    if let Some(ambiguity) = &verified.ambiguity {
        facts.cross_type = ambiguity.cross_type;
        if ambiguity.cross_type {
            alarms.push(Alarm::CrossType);
        }
        // When its string first arrived nothing was written, so nobody can say that the expectation was there before.
        facts.sole_reading = comparison.result == ExpectationResult::Match
            && !circumstances.again
            && !string_told
            && expectation.is_some_and(|e| signed.as_ref().is_none_or(|once| e.registered < once.position))
            && no_rival(view, keys, verified, rivals, at);
    }
    let judgement = judge(&facts);

    // What is written?
    let event_id = (!conflict || twins < TOLD_CONFLICTS).then(|| EventId::new(verified.received.at, position));
    let sequence = lane.map_or(0, |lane| lane.sequence) + u64::from(event_id.is_some());
    let statement = Statement {
        id: NotificationId::new(verified.received.at, position),
        event: event_id,
        source: verified.source.clone(),
        account: verified.account.clone(),
        provider: verified.provider.to_owned(),
        outcome: match (conflict, circumstances.again) {
            (true, _) => KeptOutcome::Conflict,
            (false, true) => KeptOutcome::Released,
            (false, false) => KeptOutcome::Accepted,
        },
        received_at: verified.received.at,
        kind: verified.kind,
        status: reading.status,
        order: order_id.cloned(),
        transaction: verified.details.transaction_id.clone(),
        amount: verified.details.amount.clone(),
        requested: verified.details.requested_amount.clone(),
        assurance: verified.assurance,
        expectation: comparison.result,
        verdict: judgement.verdict,
        reasons: judgement.reasons,
        idempotency: reading.idempotency,
        digest: reading.digest,
        signed: verified.signed,
        getid: verified.getid.clone(),
        indicator: indicator.filter(|_| reading.indicator != Indicator::NotGiven),
        indicator_right: reading.right,
        accept_indicator: verified.accept_indicator,
        scheme: verified.scheme.to_owned(),
        key: verified.key,
        sequence: if order_id.is_some() { sequence } else { 1 },
        stale: lane.is_some_and(|lane| lane.final_kept),
        settles: None,
        by_hand: None,
    };
    let relates_to = relation(&statement, seen.as_ref(), signed.as_ref(), told);
    let event = event_id.map(|id| Box::new(event(id, &statement, verified, comparison.expected, relates_to)));
    let outcome = if conflict { Outcome::Conflict } else { Outcome::New };
    let mut committed = finish(statement.committed(outcome), alarms);
    committed.order_paid |= !conflict && statement.status == Status::Paid && statement.kind == Kind::Payment;
    Decision::Keep { statement: Box::new(statement), event, committed }
}

/// What came of comparing with an expectation.
pub struct Comparison {
    /// The word.
    pub result: ExpectationResult,
    /// Why it is a mismatch or not comparable.
    pub reason: Option<Reason>,
    /// What was expected.
    pub expected: Option<Money>,
}

/// Compares what a notification names with what is registered.
fn compare(verified: &Verified, expectation: Option<&Expectation>, at: u64) -> Comparison {
    let Some(expectation) = expectation else {
        return Comparison { result: ExpectationResult::Unregistered, reason: None, expected: None };
    };
    let asked = verified.details.requested_amount.as_ref();
    let comparable = asked.or(verified.details.amount.as_ref());
    // Legacy Paygol converts: without frmprice the buyer's currency says nothing about the merchant's.
    let converted = verified.provider == "paygol-legacy" && asked.is_none();
    let (result, reason) = compare_amounts(comparable, expectation, at, converted);
    Comparison { result, reason, expected: Some(expectation.amount.clone()) }
}

/// The same from the amounts alone; a re-decision has no more.
pub fn compare_amounts(
    comparable: Option<&Money>,
    expectation: &Expectation,
    at: u64,
    converted: bool,
) -> (ExpectationResult, Option<Reason>) {
    if expectation.fulfilled_by.is_none() && expectation.is_expired(at) {
        return (ExpectationResult::Expired, None);
    }
    match comparable {
        None => (ExpectationResult::Unchecked, None),
        Some(money) if money.currency != expectation.amount.currency && converted => {
            (ExpectationResult::Unchecked, Some(Reason::CurrencyNotComparable))
        }
        Some(money) if money.currency != expectation.amount.currency => {
            (ExpectationResult::Mismatch, Some(Reason::CurrencyMismatch))
        }
        Some(money) if money.value != expectation.amount.value => {
            (ExpectationResult::Mismatch, Some(Reason::AmountMismatch))
        }
        Some(_) => (ExpectationResult::Match, None),
    }
}

/// What an indicator is worth against the sessions of an order (protocols, Click KW).
pub fn weigh(indicator: Option<[u8; 16]>, accept: bool, expectation: Option<&Expectation>, at: u64) -> Indicator {
    use subtle::ConstantTimeEq;
    let sessions = expectation.map(|e| e.sessions.as_slice()).unwrap_or_default();
    if !sessions.iter().any(|session| session.indicator.is_some()) {
        return Indicator::Unregistered;
    }
    let right = sessions.iter().filter(|session| match (session.indicator, indicator) {
        (Some(expected), Some(given)) => expected.ct_eq(&given).into(),
        _ => false,
    });
    // One indicator may stand in several sessions: an expired one that was registered again.
    let acceptable = |session: &Session| accept && !session.used && session.expires_at > at;
    let right: Vec<bool> = right.map(acceptable).collect();
    match right.as_slice() {
        [] => Indicator::Wrong,
        right if right.contains(&true) => Indicator::Accepted,
        _ => Indicator::Right,
    }
}

fn read(verified: &Verified, indicator: Option<[u8; 16]>, expectation: Option<&Expectation>, at: u64) -> Reading {
    let success = match &verified.claim {
        Claim::Status(status) => {
            return Reading {
                status: *status,
                indicator: Indicator::NotGiven,
                right: false,
                idempotency: verified.idempotency,
                digest: verified.digest,
                contradiction: false,
            };
        }
        Claim::Indicator { success, .. } => *success,
    };
    let worth = weigh(indicator, verified.accept_indicator, expectation, at);
    let right = matches!(worth, Indicator::Right | Indicator::Accepted);
    let (word, status, by_indicator) = match (success, right) {
        (true, true) => ("paid", Status::Paid, true),
        // Each wrong one has a key of its own, so it never takes the right one's.
        (true, false) => ("wrong", Status::Unknown, true),
        (false, true) => ("contradiction", Status::Pending, false),
        (false, false) => ("error", Status::Pending, false),
    };
    let hash = indicator.as_ref().filter(|_| by_indicator).map(<[u8; 16]>::as_slice);
    let extended = |base: &Digest| Digest::of_parts([Some(base.0.as_slice()), Some(word.as_bytes()), hash]);
    Reading {
        status,
        indicator: if success { worth } else { Indicator::NotGiven },
        right,
        idempotency: extended(&verified.idempotency),
        digest: extended(&verified.digest),
        contradiction: !success && right,
    }
}

fn repeat_of(view: &mut impl View, key: Key, seen: &Seen, digest: &[u8; 16], at: u64) -> Option<Summary> {
    if seen.original.digest == *digest {
        let again = Seen { times_seen: seen.times_seen + 1, last_seen: seen.last_seen.max(at), ..seen.clone() };
        view.put(key, Value::Seen(again));
        return Some(seen.original.clone());
    }
    seen.twins.iter().find(|twin| twin.digest == *digest).cloned()
}

fn unkept(verified: &Verified, reading: &Reading, outcome: Outcome) -> Committed {
    Committed {
        outcome,
        notification: NotificationId::from_bytes([0; 16]),
        event: None,
        order: None,
        kind: verified.kind,
        status: reading.status,
        verdict: Verdict::Hold,
        indicator_right: reading.right,
        order_paid: false,
        alarms: Vec::new(),
    }
}

fn payer(verified: &Verified, reading: &Reading) -> [u8; 16] {
    match &verified.details.transaction_id {
        Some(transaction) => short(&Digest::of_parts([Some(b"transaction".as_slice()), Some(transaction.as_bytes())])),
        None => short(&Digest::of_parts([Some(b"key".as_slice()), Some(&reading.idempotency.0)])),
    }
}

fn told_before(view: &mut impl View, keys: &Keys, verified: &Verified, status: Status) -> Option<EventId> {
    let details = &verified.details;
    let transaction = details.transaction_id.as_deref();
    let key = keys.told(&verified.account, verified.kind, transaction, details.order_id.as_ref(), status)?;
    match view.get(&key) {
        Some(Value::Told(told)) => Some(told.event),
        _ => None,
    }
}

/// Whether the `getid` that came along belongs to another order, or was told before (protocols, ClickGem).
fn foreign_getid(view: &mut impl View, keys: &Keys, verified: &Verified, order: &Order) -> bool {
    let (Some(getid), Some(order_id)) = (&verified.getid, &verified.details.order_id) else { return false };
    let mut registered = order.sessions().peekable();
    if registered.peek().is_some() && !registered.any(|known| known == getid) {
        return true;
    }
    match view.get(&keys.getid(&verified.account, getid)) {
        Some(Value::GetId(bound)) => bound.order != order_id.as_str(),
        _ => false,
    }
}

/// Whether no other decision that the signed string allows names an open expectation.
fn no_rival(view: &mut impl View, keys: &Keys, verified: &Verified, rivals: Option<&[Rival]>, at: u64) -> bool {
    let (Some(rivals), Some(ambiguity)) = (rivals, &verified.ambiguity) else { return false };
    let sent = &verified.details;
    rivals.iter().all(|(account, rival)| {
        let Some(Value::Order(order)) = view.get(&keys.order_named(account, rival)) else { return true };
        order.expectations.iter().filter(|e| e.is_open(at)).all(|expectation| {
            // The same order number and amount of another account is another one's payment.
            let is_sent = *account == verified.account
                && expectation.kind == verified.kind
                && sent.order_id.as_ref().is_some_and(|order| order.as_str() == rival)
                && sent.amount.as_ref() == Some(&expectation.amount);
            is_sent || !ambiguity.allows(account, expectation.kind, rival, &expectation.amount.value)
        })
    })
}

fn relation(
    statement: &Statement,
    seen: Option<&Seen>,
    signed: Option<&SignedOnce>,
    told: Option<EventId>,
) -> Option<RelatesTo> {
    let contradicted = seen.and_then(|seen| seen.original.event).or(signed.and_then(|once| once.event));
    if statement.outcome == KeptOutcome::Conflict {
        return contradicted.map(|id| RelatesTo { id, relation: Relation::Contradicts });
    }
    let repeated =
        told.or(signed.and_then(|once| once.event)).filter(|_| statement.reasons.contains(&Reason::AlreadyTold));
    repeated.map(|id| RelatesTo { id, relation: Relation::Repeats })
}

fn event(
    id: EventId,
    statement: &Statement,
    verified: &Verified,
    expected_amount: Option<Money>,
    relates_to: Option<RelatesTo>,
) -> Event {
    Event {
        id,
        source: statement.source.clone(),
        notification_id: statement.id,
        received_at: statement.received_at,
        provider: verified.provider,
        account: statement.account.clone(),
        kind: statement.kind,
        status: statement.status,
        details: verified.details.clone(),
        assurance: statement.assurance,
        unproven: verified.unproven.clone(),
        expected_amount,
        expectation: statement.expectation,
        verdict: statement.verdict,
        reasons: statement.reasons.clone(),
        relates_to,
        sequence: statement.sequence,
        stale: statement.stale,
    }
}

fn push_once(reasons: &mut Vec<Reason>, reason: Reason) {
    if !reasons.contains(&reason) {
        reasons.push(reason);
    }
}

/// A held statement, judged again because `expectation` was registered after it. `Some` when it is now told, as an
/// event that would stand at `position`.
///
/// Never between several cuts of one signed string: what is ambiguous or in conflict stays held.
pub fn redecide(
    position: Position,
    held: &Statement,
    expectation: &Expectation,
    circumstances: &Circumstances,
    already_told: bool,
) -> Option<Statement> {
    let hopeless = [
        Reason::Conflict,
        Reason::Contradiction,
        Reason::FieldSet,
        Reason::OrderPattern,
        Reason::AmountUnreadable,
        Reason::NoOrder,
        Reason::AmbiguousSplit,
        Reason::CrossType,
        Reason::WrongIndicator,
        Reason::Clock,
        Reason::Restored,
        Reason::Released,
    ];
    if held.reasons.iter().any(|reason| hopeless.contains(reason)) || held.assurance == Assurance::Ambiguous {
        return None;
    }
    let at = millis(held.received_at);
    let mut facts = Facts::of(held.kind, held.status, held.assurance);
    if held.indicator.is_some() {
        facts.indicator = weigh(held.indicator, held.accept_indicator, Some(expectation), at);
        if matches!(facts.indicator, Indicator::Right | Indicator::Accepted) {
            facts.status = Status::Paid;
        }
    }
    let converted = held.provider == "paygol-legacy" && held.requested.is_none();
    (facts.expectation, facts.expectation_reason) = compare_amounts(held.comparable(), expectation, at, converted);
    facts.clock_alarm = circumstances.clock_alarm;
    facts.restored = circumstances.restored;
    facts.fulfil_never = circumstances.fulfil_never;
    facts.already_told = already_told;
    facts.paid_by_another = expectation.fulfilled_by.is_some_and(|by| by != payer_of(held));
    let judgement = judge(&facts);
    matches!(judgement.verdict, Verdict::Fulfil | Verdict::Compare).then(|| Statement {
        event: Some(EventId::new(held.received_at, position)),
        status: facts.status,
        expectation: facts.expectation,
        verdict: judgement.verdict,
        reasons: vec![Reason::Settled],
        indicator_right: facts.indicator == Indicator::Right || facts.indicator == Indicator::Accepted,
        sequence: held.sequence,
        settles: held.event,
        ..held.clone()
    })
}

/// The lane's next sequence number for an event of an order.
pub fn next_sequence(lane: Option<&Lane>) -> u64 {
    lane.map_or(0, |lane| lane.sequence) + 1
}

/// An event's JSON, changed into that of the event that settles it; `expected`: the amount that it was compared with now.
/// `None` if it does not read.
pub fn settle_json(held: &[u8], settled: &Statement, expected: Option<&Money>) -> Option<Vec<u8>> {
    let mut event: serde_json::Value = serde_json::from_slice(held).ok()?;
    let relates = RelatesTo { id: settled.settles?, relation: Relation::Settles };
    let set = |event: &mut serde_json::Value, key: &str, value: serde_json::Value| {
        if let Some(slot) = event.get_mut(key) {
            *slot = value;
        }
    };
    let id = settled.event?.to_string();
    set(&mut event, "id", id.into());
    set(&mut event, "type", format!("{}.{}", settled.kind, settled.status).into());
    let data = event.get_mut("data")?;
    set(data, "status", settled.status.as_str().into());
    if let Some(expected) = expected {
        set(data, "expected_amount", serde_json::to_value(expected).ok()?);
    }
    set(data, "assurance", settled.assurance.as_str().into());
    set(data, "expectation", settled.expectation.as_str().into());
    set(data, "verdict", settled.verdict.as_str().into());
    set(data, "reasons", serde_json::to_value(&settled.reasons).ok()?);
    set(data, "relates_to", serde_json::to_value(relates).ok()?);
    set(data, "sequence", settled.sequence.into());
    set(data, "stale", settled.stale.into());
    serde_json::to_vec(&event).ok()
}

/// Whether a time lies outside what the newest trusted record allows: before it, or more than 48 h after it.
/// A few seconds back are what clock synchronization does every day.
pub fn clock_is_doubtful(now: Timestamp, newest: u64) -> bool {
    const BACK_MS: u64 = 5_000;
    const AHEAD_MS: u64 = 48 * 3_600_000;
    let now = millis(now);
    newest != 0 && (now + BACK_MS < newest || now > newest + AHEAD_MS)
}
