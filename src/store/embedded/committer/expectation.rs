//! Registering what the order system expects, and judging again what was held for want of it.

use bytes::Bytes;

use super::super::decide::{Circumstances, next_sequence, redecide, settle_json};
use super::super::journal::ReadError;
use super::super::record::{Record, Stamped, Statement, millis, time};
use super::super::state::{self, Key, Value, View};
use super::{Committer, Group, Registering, chain_of, look, sent};
use crate::event::{AccountName, Digest, Kind, OrderId, Position, Status, Verdict};
use crate::store::{ExpectError, Registered, Unavailable};

/// Sessions of one order that may be open at once.
const OPEN_SESSIONS: usize = 8;

impl Committer {
    pub(super) fn take_expectation(&mut self, job: Registering, group: &mut Group, circumstances: &Circumstances) {
        let Registering { expected, unfit, reply } = job;
        let now = millis(self.clock.now());
        let key = self.keys.order(&expected.account, &expected.order);
        // What entering it changes is looked up now, so that it cannot fail half way.
        let getid = expected.session.as_ref().map(|session| self.keys.getid(&expected.account, session));
        let mut ahead = look(&mut self.overlay, &self.filter, &self.index, None);
        getid.into_iter().for_each(|key| drop(ahead.get(&key)));
        let failed = ahead.failed.is_some();
        let Some(order) = self.order(&key).filter(|_| !failed) else {
            // The index could not be asked, so nothing is decided.
            sent(reply.send(Err(ExpectError::Unavailable(Unavailable::Storage))));
            return;
        };
        if let Some(known) = order.expectation(expected.kind) {
            let same = |session: &&state::Session| {
                session.session == expected.session && session.indicator == expected.indicator
            };
            let existing = known.sessions.iter().find(same).filter(|_| known.amount == expected.amount);
            if let Some(session) = existing.filter(|s| s.expires_at > now || known.fulfilled_by.is_some()) {
                let expires_at = time(session.expires_at);
                let registered = Registered { existed: true, expires_at };
                group.answers.push(Box::new(move |result| {
                    sent(reply.send(result.map(|()| registered).map_err(ExpectError::from)));
                }));
                return;
            }
            let open = known.is_open(now);
            let sessions = known.sessions.iter().filter(|session| session.expires_at > now).count();
            let refusal = match open {
                true if known.amount != expected.amount => Some(ExpectError::Contradicts),
                true if sessions >= OPEN_SESSIONS => Some(ExpectError::TooManyOpen),
                _ => None,
            };
            if let Some(refusal) = refusal {
                let _ = reply.send(Err(refusal));
                return;
            }
        }
        if let Some(why) = unfit {
            let _ = reply.send(Err(ExpectError::Unfit(why)));
            return;
        }
        let registered = Registered { existed: false, expires_at: expected.expires_at };
        let (account, order_id, kind) = (expected.account.clone(), expected.order.clone(), expected.kind);
        let record = Record::Expectation(Box::new(expected));
        self.enter(record, Bytes::new(), Digest::of(b""), Vec::new(), group, circumstances);
        self.settle_held(&account, &order_id, kind, group, circumstances);
        group.answers.push(Box::new(move |result| {
            sent(reply.send(result.map(|()| registered).map_err(ExpectError::from)));
        }));
    }

    /// Judges the order's held events again, now that something is expected.
    fn settle_held(
        &mut self,
        account: &AccountName,
        order_id: &OrderId,
        kind: Kind,
        group: &mut Group,
        circumstances: &Circumstances,
    ) {
        let key = self.keys.order(account, order_id);
        let Some(order) = self.order(&key) else { return };
        let mut held: Vec<Position> = order.lanes.iter().flat_map(|lane| &lane.held).map(|(at, _)| *at).collect();
        // The oldest first, whichever source it came to: what fulfils the expectation is what came first.
        held.sort_unstable();
        for at in held {
            let Some((statement, event)) = self.held(at, group).filter(|(held, _)| held.kind == kind) else { continue };
            if let Some((settled, json)) = self.judge_again(&key, &statement, &event, group, circumstances) {
                let record = Record::Settlement(Box::new(settled));
                self.enter(record, Bytes::new(), Digest::of(b""), json, group, circumstances);
            }
        }
    }

    /// A held statement and its event's JSON, as far as it can be read.
    fn held(&self, at: Position, group: &Group) -> Option<(Box<Statement>, Bytes)> {
        self.statement(at, group).unwrap_or_else(|error| {
            tracing::warn!(error = %chain_of(&error), "a held event could not be read to be judged again");
            None
        })
    }

    /// A statement and its event's JSON: from the journal, or from the group that is not in it yet.
    pub(super) fn statement(&self, at: Position, group: &Group) -> Result<Option<(Box<Statement>, Bytes)>, ReadError> {
        let in_group = at.0.checked_sub(self.journal.next_position().0);
        let found = match in_group.and_then(|index| group.entries.get(usize::try_from(index).ok()?)) {
            Some(entry) => Some((Bytes::copy_from_slice(&entry.payload), Bytes::copy_from_slice(&entry.event))),
            None => self.reader.read(at)?.map(|stored| (stored.payload, stored.event.unwrap_or_default())),
        };
        let Some((payload, event)) = found else { return Ok(None) };
        Ok(match Stamped::decode(&payload).map(|stamped| stamped.record) {
            Some(Record::Notification(statement) | Record::Settlement(statement)) => Some((statement, event)),
            _ => None,
        })
    }

    fn judge_again(
        &mut self,
        order: &Key,
        held: &Statement,
        event: &Bytes,
        group: &mut Group,
        circumstances: &Circumstances,
    ) -> Option<(Statement, Vec<u8>)> {
        let position = self.position(group);
        let state = self.order(order)?;
        let mut look = look(&mut self.overlay, &self.filter, &self.index, None);
        let expectation = state.expectation(held.kind)?;
        let told = [held.status, Status::Paid].into_iter().any(|status| {
            let (transaction, order) = (held.transaction.as_deref(), held.order.as_ref());
            let key = self.keys.told(&held.account, held.kind, transaction, order, status);
            key.is_some_and(|key| look.get(&key).is_some())
        });
        let string_told = held.signed.as_ref().is_some_and(|signed| {
            matches!(look.get(&self.keys.signed(signed)), Some(Value::Signed(once)) if once.told || once.others > 0)
        });
        // What was contradicted meanwhile is in doubt like what contradicts it: nobody can tell which of them is true.
        let seen = look.get(&self.keys.seen(&held.source, &held.idempotency));
        let contradicted = matches!(seen, Some(Value::Seen(seen)) if !seen.twins.is_empty());
        if let Some(error) = look.failed.take() {
            // The expectation is in the group already, and what it settles belongs to it: nothing of it may last.
            tracing::warn!(error = %chain_of(&error), "a held event could not be judged again: its group is refused");
            group.spoiled = true;
            return None;
        }
        if contradicted {
            return None;
        }
        let mut settled = redecide(position, held, expectation, circumstances, told || string_told)?;
        let lane = state.find_lane(&held.source);
        settled.sequence = next_sequence(lane);
        settled.stale = lane.is_some_and(|lane| lane.final_kept) && held.status != settled.status;
        let json = settle_json(event, &settled, Some(&expectation.amount))?;
        debug_assert!(settled.verdict != Verdict::Hold, "only what is told settles");
        Some((settled, json))
    }
}
