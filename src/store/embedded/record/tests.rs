//! Heads are read as they were written, and nothing else is.

use super::*;
use crate::event::{Assurance, Digest, EventId, ExpectationResult, NotificationId, Reason, Status, Verdict};
use crate::provider::SignedString;
use crate::store::{ByHand, KeptOutcome};

pub(crate) fn statement() -> Statement {
    let money = |value: &str| Money {
        value: Decimal::parse(value).expect("a number"),
        currency: Currency::parse("IDR").expect("a code"),
    };
    Statement {
        id: NotificationId::new(time(1_795_162_530_123), Position(7)),
        event: Some(EventId::new(time(1_795_162_530_123), Position(7))),
        source: SourceName::new("clickpay-id").expect("a name"),
        account: AccountName::new("shop").expect("a name"),
        provider: "clickpay".into(),
        outcome: KeptOutcome::Conflict,
        received_at: time(1_795_162_530_123),
        kind: Kind::Payout,
        status: Status::Unknown,
        order: OrderId::new("T1231511321515"),
        transaction: Some("552538080348274688".into()),
        amount: Some(money("10000.00")),
        requested: Some(money("1")),
        assurance: Assurance::Ambiguous,
        expectation: ExpectationResult::Mismatch,
        verdict: Verdict::Hold,
        reasons: vec![Reason::Conflict, Reason::Released],
        idempotency: Digest::of(b"a"),
        digest: Digest::of(b"b"),
        signed: Some(SignedString { key: Digest::of(b"c"), hash: Digest::of(b"d") }),
        getid: Some("25271cc72dca94b28ead9829fb317e06".into()),
        indicator: Some([7; 16]),
        indicator_right: true,
        accept_indicator: false,
        scheme: "rsa-recovery".into(),
        key: 2,
        sequence: 300,
        stale: true,
        settles: Some(EventId::new(time(1_795_162_530_123), Position(7))),
        by_hand: Some(Box::new(ByHand::new("ops", "seen in the panel").expect("good"))),
    }
}

fn every_kind() -> Vec<Record> {
    let plain = Statement {
        event: None,
        order: None,
        transaction: None,
        amount: None,
        requested: None,
        signed: None,
        getid: None,
        indicator: None,
        reasons: vec![],
        settles: None,
        by_hand: None,
        account: AccountName::new("clickpay-id").expect("a name"),
        ..statement()
    };
    let expected = Expected {
        source: plain.source.clone(),
        account: plain.account.clone(),
        order: OrderId::new("42").expect("not empty"),
        kind: Kind::Payment,
        amount: statement().amount.expect("set"),
        session: Some("s".into()),
        indicator: None,
        expires_at: time(1),
    };
    vec![
        Record::Notification(Box::new(plain)),
        Record::Settlement(Box::new(statement())),
        Record::Expectation(Box::new(expected)),
        Record::Progress(Progress { sink: "amqp".into(), watermark: Position(7), beyond: vec![Position(9)] }),
        Record::DeadLetter(DeadLetter {
            sink: "amqp".into(),
            position: Position(7),
            attempts: 5,
            reason: "nack".into(),
        }),
        Record::Redelivery(Redelivery {
            replay: "r".into(),
            sink: String::new(),
            position: Position(7),
            exchange: Some("e".into()),
            routing_key: None,
        }),
        Record::ReplayJob(ReplayJob {
            replay: "r".into(),
            request: "{}".into(),
            up_to: Position(3),
            count: 2,
            ended: Some("done".into()),
        }),
        Record::SinkStart(SinkStart { sink: "amqp".into(), after: Position(0) }),
        Record::Audit(Audit { what: "restored".into(), who: "cli".into(), reason: "backup".into() }),
        Record::Heartbeat,
        Record::Horizon(Position(70_000)),
    ]
}

#[test]
fn every_kind_of_head_is_read_as_it_was_written() {
    for record in every_kind() {
        let stamped = Stamped { committed_at: time(1_795_162_530_123), doubtful: true, record };
        assert_eq!(Stamped::decode(&stamped.encode()), Some(stamped));
    }
}

#[test]
fn a_cut_or_foreign_head_is_never_taken_for_the_whole_one() {
    for record in every_kind() {
        let stamped = Stamped { committed_at: time(1), doubtful: false, record };
        let bytes = stamped.encode();
        for end in 0..bytes.len() {
            assert_ne!(Stamped::decode(&bytes[..end]).as_ref(), Some(&stamped));
        }
    }
    assert_eq!(Stamped::decode(&[250, 1, 1, 1]), None);
}
