//! Ending a hold by hand: judged here, in queue order, so that what is told once is told once whoever tells it.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::decide::{Circumstances, next_sequence, settle_json};
use super::super::record::{Audit, Record, Statement};
use super::super::state::{Bound, Order, Value, View, payer_of};
use super::{Committer, Group, look, sent};
use crate::event::{Assurance, Digest, EventId, Reason, Verdict};
use crate::store::operate::{ByHand, Ruling, SettleError, Settlement};
use crate::store::{StoreError, Unavailable};

type Reply = oneshot::Sender<Result<Settlement, SettleError>>;

/// A hold to be ended.
pub struct ToRule {
    /// The held event.
    pub event: EventId,
    /// How it ends.
    pub ruling: Ruling,
    /// Who says so, and why.
    pub by: ByHand,
    /// Who waits.
    pub reply: Reply,
}

/// What is to be written, or was written before.
enum Ruled {
    Known(Settlement),
    New(Box<Statement>, Vec<u8>),
}

impl Committer {
    pub(super) fn take_ruling(&mut self, job: ToRule, group: &mut Group, circumstances: &Circumstances) {
        let ToRule { event, ruling, by, reply } = job;
        let settlement = match self.rule(event, ruling, &by, group, circumstances) {
            Ok(Ruled::Known(settlement)) => settlement,
            Ok(Ruled::New(statement, json)) => {
                let verdict = statement.verdict;
                let Some(new) = statement.event else { return };
                let audit = Audit {
                    what: format!("settled:{ruling}:{event}"),
                    who: by.who().into(),
                    reason: by.reason().into(),
                };
                self.enter(Record::Settlement(statement), Bytes::new(), Digest::of(b""), json, group, circumstances);
                self.enter(Record::Audit(audit), Bytes::new(), Digest::of(b""), Vec::new(), group, circumstances);
                Settlement { event: new, settles: event, verdict, existed: false }
            }
            Err(error) => {
                sent(reply.send(Err(error)));
                return;
            }
        };
        group.answers.push(Box::new(move |result| {
            sent(reply.send(result.map(|()| settlement).map_err(SettleError::from)));
        }));
    }

    fn rule(
        &mut self,
        event: EventId,
        ruling: Ruling,
        by: &ByHand,
        group: &Group,
        circumstances: &Circumstances,
    ) -> Result<Ruled, SettleError> {
        let at = event.position();
        if at.0 == 0 || at >= self.position(group) {
            return Err(SettleError::NoSuchEvent);
        }
        let (held, json) = self.statement(at, group).map_err(StoreError::from)?.ok_or(SettleError::NoSuchEvent)?;
        if held.event != Some(event) {
            return Err(SettleError::NoSuchEvent);
        }
        let position = self.position(group);
        let order_key = held.order.as_ref().map(|order| self.keys.order(&held.account, order));
        let told_key = {
            let (transaction, order) = (held.transaction.as_deref(), held.order.as_ref());
            self.keys.told(&held.account, held.kind, transaction, order, held.status)
        };
        // Everything that decides, and everything that entering it will ask for, is looked up before anything is decided.
        let mut look = look(&mut self.overlay, &self.filter, &self.index, None);
        let ended = look.get(&self.keys.settled(event));
        let told = told_key.is_some_and(|key| look.get(&key).is_some());
        let once = held.signed.as_ref().and_then(|signed| look.get(&self.keys.signed(signed)));
        let bound = held.getid.as_ref().and_then(|getid| look.get(&self.keys.getid(&held.account, getid)));
        let order = match order_key.and_then(|key| look.get(&key)) {
            Some(Value::Order(order)) => order,
            _ => Order::default(),
        };
        if look.failed.is_some() {
            return Err(Unavailable::Storage.into());
        }
        if let Some(Value::Settled(ended)) = ended {
            let same = ended.by_hand && (ended.verdict == Verdict::None) == (ruling == Ruling::Refuse);
            return match same {
                true => {
                    let (event, settles, verdict) = (ended.by, event, ended.verdict);
                    Ok(Ruled::Known(Settlement { event, settles, verdict, existed: true }))
                }
                false => Err(SettleError::Settled { by: ended.by, verdict: ended.verdict }),
            };
        }
        if held.verdict != Verdict::Hold {
            return Err(SettleError::NotHeld(held.verdict));
        }
        let verdict = match ruling {
            Ruling::Refuse => Verdict::None,
            Ruling::Fulfil => {
                if !held.status.is_final_of(held.kind) {
                    return Err(SettleError::NothingToBook(held.status));
                }
                if told || matches!(once, Some(Value::Signed(once)) if once.told) {
                    return Err(SettleError::ToldBefore);
                }
                let bound = match &bound {
                    Some(Value::GetId(bound)) => Some(bound),
                    _ => None,
                };
                if is_foreign(&held, bound, &order) {
                    return Err(SettleError::ForeignGetId);
                }
                let fulfilled_by = order.expectation(held.kind).and_then(|expectation| expectation.fulfilled_by);
                if fulfilled_by.is_some_and(|payer| payer != payer_of(&held)) {
                    return Err(SettleError::PaidByAnother);
                }
                if circumstances.fulfil_never { Verdict::Compare } else { Verdict::Fulfil }
            }
        };
        let sequence = if held.order.is_some() { next_sequence(order.find_lane(&held.source)) } else { 1 };
        let settled = Statement {
            event: Some(EventId::new(held.received_at, position)),
            assurance: Assurance::Operator,
            verdict,
            reasons: vec![Reason::Settled],
            sequence,
            settles: Some(event),
            by_hand: Some(Box::new(by.clone())),
            ..*held
        };
        // Parts stay for as long as an event is held: one that does not read is damage.
        let json = settle_json(&json, &settled, None).ok_or(SettleError::Unreadable)?;
        Ok(Ruled::New(Box::new(settled), json))
    }
}

/// Whether a statement came back with a `getid` that is not its order's: a buyer who paid one order may have carried the
/// number of that payment to another. One that was registered for the order since is the order's.
fn is_foreign(held: &Statement, bound: Option<&Bound>, order: &Order) -> bool {
    let (Some(getid), Some(of)) = (&held.getid, &held.order) else { return false };
    match bound {
        Some(bound) => bound.order != of.as_str(),
        None => order.sessions().next().is_some() && !order.sessions().any(|known| known == getid),
    }
}
