//! Letting in by hand what nobody could prove: appended whole, held, and telling nothing of what it says.
//!
//! Its key is the quarantine's id and no part of its content, so that a forgery that was released never takes the key of
//! the genuine notification that it pretends to be.

use tokio::sync::oneshot;

use super::super::decide::Circumstances;
use super::super::raw;
use super::super::record::{Audit, Record, Statement};
use super::super::state::{Value, View};
use super::{Committer, Group, look, sent};
use crate::event::{
    AccountName, Assurance, Details, Digest, Event, EventId, ExpectationResult, Kind, NotificationId, Reason, Status,
    Verdict,
};
use crate::store::operate::Released;
use crate::store::{ByHand, Committed, KeptOutcome, Outcome, Unavailable};

/// A request to be let in by hand.
pub struct ToRelease {
    /// What was refused.
    pub released: Released,
    /// Its source's account.
    pub account: AccountName,
    /// Who lets it in, and why.
    pub by: ByHand,
    /// Who waits.
    pub reply: oneshot::Sender<Result<Committed, Unavailable>>,
}

impl Committer {
    pub(super) fn take_release(&mut self, job: ToRelease, group: &mut Group, circumstances: &Circumstances) {
        let ToRelease { released, account, by, reply } = job;
        let position = self.position(group);
        let idempotency = Digest::of_parts([Some(b"released".as_slice()), Some(released.id.as_bytes())]);
        let key = self.keys.seen(&released.source, &idempotency);
        let mut look = look(&mut self.overlay, &self.filter, &self.index, None);
        let seen = look.get(&key);
        if look.failed.is_some() {
            // The index could not be asked, so nothing is decided.
            sent(reply.send(Err(Unavailable::Storage)));
            return;
        }
        let committed = match seen {
            Some(Value::Seen(seen)) => seen.original.committed(Outcome::Duplicate),
            _ => {
                let at = released.received.at;
                let statement = Statement {
                    id: NotificationId::new(at, position),
                    event: Some(EventId::new(at, position)),
                    source: released.source.clone(),
                    account,
                    provider: released.provider.to_owned(),
                    outcome: KeptOutcome::Released,
                    received_at: at,
                    kind: Kind::Payment,
                    status: Status::Unknown,
                    order: None,
                    transaction: None,
                    amount: None,
                    requested: None,
                    assurance: Assurance::Operator,
                    expectation: ExpectationResult::Unregistered,
                    verdict: Verdict::Hold,
                    reasons: vec![Reason::Released],
                    idempotency,
                    digest: idempotency,
                    signed: None,
                    getid: None,
                    indicator: None,
                    indicator_right: false,
                    accept_indicator: false,
                    scheme: "none".to_owned(),
                    key: 0,
                    sequence: 1,
                    stale: false,
                    settles: None,
                    by_hand: Some(Box::new(by.clone())),
                };
                let json = event(&statement, released.provider).to_json();
                let raw = raw::write(&released.received, &released.scars);
                let raw_hash = Digest::of(&raw);
                let committed = statement.committed(Outcome::New);
                let what = format!("released:{}", released.id);
                let audit = Audit { what, who: by.who().to_owned(), reason: by.reason().to_owned() };
                let record = Record::Notification(Box::new(statement));
                self.enter(record, raw, raw_hash, json, group, circumstances);
                let none = Digest::of(b"");
                self.enter(Record::Audit(audit), bytes::Bytes::new(), none, Vec::new(), group, circumstances);
                committed
            }
        };
        group.answers.push(Box::new(move |result| sent(reply.send(result.map(|()| committed)))));
    }
}

fn event(statement: &Statement, provider: &'static str) -> Event {
    Event {
        id: statement.event.unwrap_or(EventId::from_bytes([0; 16])),
        source: statement.source.clone(),
        notification_id: statement.id,
        received_at: statement.received_at,
        provider,
        account: statement.account.clone(),
        kind: statement.kind,
        status: statement.status,
        details: Details::default(),
        assurance: statement.assurance,
        unproven: Vec::new(),
        expected_amount: None,
        expectation: statement.expectation,
        verdict: statement.verdict,
        reasons: statement.reasons.clone(),
        relates_to: None,
        sequence: statement.sequence,
        stale: statement.stale,
    }
}
