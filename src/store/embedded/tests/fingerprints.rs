//! What a segment's footer keeps of a record is enough to say "new" of everything else.

use std::collections::BTreeMap;

use super::super::overlay::is_pinned;
use super::super::record::tests::statement;
use super::super::record::{Expected, Record, Stamped, Statement, time};
use super::super::state::{Key, Keys, Value, View, apply};
use crate::event::{Digest, Position, Status, Verdict};
use crate::store::KeptOutcome;

#[derive(Default)]
struct Noted {
    values: BTreeMap<Key, Value>,
    changed: Vec<Key>,
}

impl View for Noted {
    fn get(&mut self, key: &Key) -> Option<Value> {
        self.values.get(key).cloned()
    }
    fn put(&mut self, key: Key, value: Value) {
        self.changed.push(key);
        self.values.insert(key, value);
    }
}

fn every_shape() -> Vec<Record> {
    let mut records = Vec::new();
    let base = Statement { settles: None, ..statement() };
    let expected = |session: Option<&str>| {
        Record::Expectation(Box::new(Expected {
            source: base.source.clone(),
            account: base.account.clone(),
            order: base.order.clone().expect("set"),
            kind: base.kind,
            amount: base.amount.clone().expect("set"),
            session: session.map(str::to_owned),
            indicator: None,
            expires_at: time(1_795_162_530_123),
        }))
    };
    records.extend([expected(None), expected(Some("s"))]);
    for verdict in [Verdict::Fulfil, Verdict::Compare, Verdict::Hold, Verdict::None] {
        for outcome in [KeptOutcome::Accepted, KeptOutcome::Conflict, KeptOutcome::Released] {
            // Each of what may be left out is left out once, alone; then all of it.
            for left_out in 0..7 {
                let is = |n| left_out == n || left_out == 6;
                let mut s = Statement { verdict, outcome, ..base.clone() };
                s.idempotency = Digest::of(format!("{verdict:?} {outcome:?} {left_out}").as_bytes());
                s.status = Status::Paid;
                s.order = s.order.filter(|_| !is(1));
                s.transaction = s.transaction.filter(|_| !is(2));
                s.signed = s.signed.filter(|_| !is(3));
                s.getid = s.getid.filter(|_| !is(4));
                s.indicator = s.indicator.filter(|_| !is(5));
                let settlement = Statement { settles: s.event, ..s.clone() };
                records.extend([Record::Notification(Box::new(s)), Record::Settlement(Box::new(settlement))]);
            }
        }
    }
    records
}

#[test]
fn every_key_that_a_record_changes_has_its_fingerprint_in_the_footer() {
    let keys = Keys::new([7; 16]);
    let records = every_shape();
    // Alone, and with everything before it known.
    for mut before in [None, Some(Noted::default())] {
        for (position, record) in (1..).zip(&records) {
            let mut fresh = Noted::default();
            let view = before.as_mut().unwrap_or(&mut fresh);
            view.changed.clear();
            let committed_at = time(1_795_162_530_123 + position);
            let stamped = Stamped { committed_at, doubtful: false, record: record.clone() };
            apply(view, &keys, Position(position), &stamped);
            let kept = keys.fingerprints(record);
            for key in view.changed.iter().filter(|key| !is_pinned(key)) {
                assert!(kept.contains(&key.fingerprint()), "{} of {record:?}", char::from(key.what()));
            }
        }
    }
}
