//! Every value of the index is read as it was written.

use super::super::super::record::tests::statement;
use super::*;

#[test]
fn every_value_is_read_as_it_was_written() {
    let statement = statement();
    let mut order = Order::default();
    let lane = order.lane(&statement.source);
    lane.remember(Position(3));
    lane.hold(Position(3), statement.event.expect("set"));
    (lane.sequence, lane.paid, lane.empty) = (2, true, 16);
    let session = Session { session: None, indicator: Some([1; 16]), expires_at: 9, used: true };
    order.expectations.push(Expectation {
        kind: Kind::Payout,
        amount: statement.amount.clone().expect("set"),
        registered: Position(2),
        sessions: vec![session.clone(), Session { session: Some("s".into()), ..session }],
        fulfilled_by: Some([2; 16]),
    });
    let values = [
        Value::Seen(Seen {
            position: Position(1),
            original: Summary::of(&statement),
            twins: vec![Summary { event: None, ..Summary::of(&statement) }],
            times_seen: 3,
            last_seen: 4,
        }),
        Value::Signed(SignedOnce { position: Position(1), digest: [3; 16], event: None, others: 1, told: true }),
        Value::Told(Told { event: statement.event.expect("set") }),
        Value::Order(order),
        Value::GetId(Bound { order: "42".into(), told: false }),
        Value::Settled(Ended { by: statement.event.expect("set"), verdict: Verdict::None, by_hand: true }),
        Value::Sink(Progress { sink: "amqp".into(), watermark: Position(1), beyond: vec![Position(5)] }),
        Value::Clock(1_795_162_530_123),
        Value::Horizon(Position(4)),
        Value::Restored(true),
        Value::DeadLetter(Letter { sink: "amqp".into(), event: Position(1), letter: Position(4) }),
        Value::Replay(ReplayJob {
            replay: "r".into(),
            request: "{}".into(),
            up_to: Position(9),
            count: 3,
            ended: Some("done".into()),
        }),
        Value::Timelines(vec![Timeline { id: [4; 16], until: Position(5) }]),
        Value::EndedReplays(vec!["r".into(), "s".into()]),
        Value::Accounts(Arc::new(vec![statement.account.clone()])),
    ];
    for (value, what) in values.into_iter().zip(*b"ISTOGXPCHRDJLEA") {
        assert_eq!(Value::decode(what, &value.encode()), Some(value));
    }
}
