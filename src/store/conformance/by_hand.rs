//! What an operator does by hand, as promises of every store.

use super::*;
use crate::event::EventId;
use crate::store::operate::{Ruling, SettleError};

/// Somebody with a reason.
pub fn somebody() -> ByHand {
    ByHand::new("ops", "seen in the provider's panel").expect("good")
}

/// All of them, each on a store of its own.
pub async fn suite<S: Subject>(mut fresh: impl FnMut() -> S) {
    a_hold_is_ended_once_and_by_hand(fresh()).await;
    nothing_is_told_twice_by_hand_either(fresh()).await;
    what_is_refused_is_not_told(fresh()).await;
}

async fn held<S: Subject>(store: &Arc<dyn Store>, subject: &S, said: &Said) -> EventId {
    let at = subject.clock().now();
    let _ = store.expect(expectation("paygol", &said.order, "1.00", "CLP", at)).await;
    let held = store.commit(said.verified(at)).await.expect("kept");
    assert_eq!(held.verdict, Verdict::Hold);
    held.event.expect("told")
}

async fn a_hold_is_ended_once_and_by_hand<S: Subject>(mut subject: S) {
    let store = subject.open();
    let event = held(&store, &subject, &Said::paid("A", "1")).await;
    let settled = store.settle_by_hand(event, Ruling::Fulfil, somebody()).await.expect("held");
    assert_eq!((settled.settles, settled.verdict, settled.existed), (event, Verdict::Fulfil, false));
    let events = feed(&*store);
    let (before, after) = (&events[0], &events[1]);
    assert_eq!(after["id"], settled.event.to_string());
    assert_eq!(after["data"]["relates_to"], serde_json::json!({"id": event.to_string(), "as": "settles"}));
    for (key, value) in [("verdict", "fulfil"), ("assurance", "operator"), ("status", "paid")] {
        assert_eq!(word(after, key), value);
    }
    assert_eq!(after["data"]["reasons"], serde_json::json!(["settled"]));
    assert_eq!(after["data"]["sequence"], 2);
    for same in ["amount", "order_id", "transaction_id", "expected_amount", "expectation", "notification_id"] {
        assert_eq!(after["data"][same], before["data"][same], "{same}");
    }
    subject.kill();
    store.close();
    let store = subject.open();
    let again = store.settle_by_hand(event, Ruling::Fulfil, somebody()).await.expect("the same again");
    assert_eq!((again.event, again.existed), (settled.event, true));
    let other = store.settle_by_hand(event, Ruling::Refuse, somebody()).await;
    assert_eq!(other, Err(SettleError::Settled { by: settled.event, verdict: Verdict::Fulfil }));
    assert_eq!(feed(&*store).len(), 2);
    let order = OrderId::new("A").expect("an order");
    let timeline = store.order(&name("paygol"), &order).expect("readable");
    let settlement = timeline.iter().find(|entry| entry.what == "settlement").expect("it is told");
    assert_eq!(settlement.more["by_hand"]["reason"], "seen in the provider's panel");
    // Another transaction of the order finds its expectation fulfilled.
    let second = store.commit(Said { price: "1.00", ..Said::paid("A", "2") }.verified(subject.clock().now())).await;
    assert_eq!(second.expect("kept").verdict, Verdict::Hold, "paid twice");
    store.close();
}

async fn nothing_is_told_twice_by_hand_either<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    let told = store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    let compare = told.event.expect("told");
    let refused = store.settle_by_hand(compare, Ruling::Fulfil, somebody()).await;
    assert_eq!(refused, Err(SettleError::NotHeld(Verdict::Compare)));
    // What contradicts it is held, and speaks of the same payment.
    let twin = store.commit(Said { price: "1.00", ..Said::paid("A", "1") }.verified(at)).await.expect("kept");
    let twin = twin.event.expect("told");
    assert_eq!(store.settle_by_hand(twin, Ruling::Fulfil, somebody()).await, Err(SettleError::ToldBefore));
    // A second payment for what was paid already.
    store.expect(expectation("paygol", "B", "7500", "CLP", at)).await.expect("registered");
    store.commit(Said::paid("B", "2").verified(at)).await.expect("kept");
    let twice = store.commit(Said::paid("B", "3").verified(at)).await.expect("kept").event.expect("told");
    assert_eq!(store.settle_by_hand(twice, Ruling::Fulfil, somebody()).await, Err(SettleError::PaidByAnother));
    // Two held statements of one payment: one of them at most.
    let one = held(&store, &subject, &Said::paid("C", "4")).await;
    let other = store.commit(Said { price: "2.00", ..Said::paid("C", "4") }.verified(at)).await.expect("kept");
    let other = other.event.expect("told");
    store.settle_by_hand(other, Ruling::Fulfil, somebody()).await.expect("held");
    assert_eq!(store.settle_by_hand(one, Ruling::Fulfil, somebody()).await, Err(SettleError::ToldBefore));
    store.settle_by_hand(one, Ruling::Refuse, somebody()).await.expect("held");
    // What an expectation settled is settled.
    let late = Said { source: "paygol-b", ..Said::paid("D", "5") };
    store.expect(expectation("paygol", "D", "1.00", "CLP", at)).await.expect("registered");
    let late_held = store.commit(late.verified(at)).await.expect("kept").event.expect("told");
    subject.clock().set(at + SignedDuration::from_hours(25));
    store.expect(expectation("paygol", "D", "7500", "CLP", subject.clock().now())).await.expect("registered");
    let refused = store.settle_by_hand(late_held, Ruling::Fulfil, somebody()).await;
    assert!(matches!(refused, Err(SettleError::Settled { verdict: Verdict::Fulfil, .. })), "{refused:?}");
    store.close();
}

async fn what_is_refused_is_not_told<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    let event = held(&store, &subject, &Said::paid("A", "1")).await;
    for unknown in [EventId::new(at, event.position()), EventId::new(at, Position(4711)), EventId::new(at, Position(0))]
    {
        assert_eq!(store.settle_by_hand(unknown, Ruling::Refuse, somebody()).await, Err(SettleError::NoSuchEvent));
    }
    let before = feed(&*store).len();
    let refused = store.settle_by_hand(event, Ruling::Refuse, somebody()).await.expect("held");
    assert_eq!(refused.verdict, Verdict::None);
    let events = feed(&*store);
    assert_eq!((events.len(), word(&events[before], "verdict").as_str()), (before + 1, "none"));
    // It is over: a later expectation settles nothing any more.
    subject.clock().set(at + SignedDuration::from_hours(25));
    store.expect(expectation("paygol", "A", "7500", "CLP", subject.clock().now())).await.expect("registered");
    assert_eq!(feed(&*store).len(), before + 1);
    // A state that is none cannot be booked.
    let unknown = store.commit(returned("44", "success", Some("x"), true, subject.clock().now())).await.expect("kept");
    let unknown = unknown.event.expect("told");
    let fulfil = store.settle_by_hand(unknown, Ruling::Fulfil, somebody()).await;
    assert_eq!(fulfil, Err(SettleError::NothingToBook(Status::Unknown)));
    assert!(store.settle_by_hand(unknown, Ruling::Refuse, somebody()).await.is_ok());
    store.close();
}
