//! What an operator does by hand, as promises of every store.

use super::*;
use crate::event::EventId;
use crate::store::operate::{Ruling, SettleError};
use crate::store::replaying::{Replay, Selection, Wanted};

/// Somebody with a reason.
pub fn somebody() -> ByHand {
    ByHand::new("ops", "seen in the provider's panel").expect("good")
}

/// All of them, each on a store of its own.
pub async fn suite<S: Subject>(mut fresh: impl FnMut() -> S) {
    a_hold_is_ended_once_and_by_hand(fresh()).await;
    nothing_is_told_twice_by_hand_either(fresh()).await;
    what_is_refused_is_not_told(fresh()).await;
    a_dead_letter_is_open_until_it_is_sent_again(fresh()).await;
    what_is_sent_again_is_the_same_event(fresh()).await;
    a_forgotten_reader_is_owed_nothing(fresh()).await;
}

/// A replay of which this much was written.
fn replay(id: &str, up_to: Position, count: u64) -> Replay {
    let request = r#"{"asked_by":"ops"}"#.to_owned();
    Replay { id: id.to_owned(), request, up_to, count, ended: None }
}

fn everything() -> Selection {
    Selection::Filter(Filter::default())
}

async fn a_dead_letter_is_open_until_it_is_sent_again<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    for n in 0..3 {
        store.commit(Said::paid(&format!("P{n}"), &n.to_string()).verified(at)).await.expect("kept");
    }
    let due = store.due("amqp", 10).expect("readable");
    for (due, how) in
        due.iter().zip([Settled::Dead("too large".into()), Settled::Delivered, Settled::Dead("odd".into())])
    {
        store.settle("amqp", due.position, how);
    }
    let letters = || store.dead_letters(Position(0), 10).expect("readable");
    until("the journal has them", || letters().len() == 2).await;
    let first = letters().remove(0);
    assert_eq!(
        (first.id, first.sink.as_str(), first.reason.as_deref(), first.attempts),
        (Some(due[0].event), "amqp", Some("too large"), Some(1))
    );
    assert_eq!(first.order_id.map(|order| order.to_string()).as_deref(), Some("P0"));
    assert_eq!(store.dead_letters_of(due[1].event).expect("readable").len(), 0);
    subject.kill();
    store.close();
    let store = subject.open();
    let letters = || store.dead_letters(Position(0), 10).expect("readable");
    assert_eq!((letters().len(), store.figures().dead_letters), (2, 2));
    let all = Selection::DeadLetters(Vec::new());
    let found = store.find(&all, Position(0), *store.head().borrow(), 10).expect("readable");
    assert_eq!(found.events, [due[0].position, due[2].position]);
    let feed_before = feed(&*store).len();
    let written = store.note_replay(replay("r", Position(0), 1), &found.events[..1], "amqp", Some(somebody())).await;
    let written = written.expect("written");
    assert_eq!((letters().len(), store.figures().dead_letters), (1, 1), "it is on its way");
    let again = store.due("amqp", 10).expect("readable");
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].position, again[0].event, &again[0].body), (written[0], due[0].event, &due[0].body));
    assert_eq!((again[0].replay.as_deref(), again[0].asked_by.as_deref()), (Some("r"), Some("ops")));
    assert_eq!(feed(&*store).len(), feed_before, "the feed's readers have it");
    // Refused once more it is a dead letter once more, of the same event.
    store.settle("amqp", again[0].position, Settled::Dead("still".into()));
    until("the journal has it", || letters().len() == 2).await;
    assert_eq!((letters()[0].id, letters()[0].reason.as_deref()), (Some(due[0].event), Some("still")));
    store.close();
}

async fn what_is_sent_again_is_the_same_event<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    for n in 0..5 {
        let said = Said { status: ["completed", "failed"][n % 2], ..Said::paid(&format!("P{n}"), &n.to_string()) };
        store.commit(said.verified(at)).await.expect("kept");
    }
    let due = store.due("amqp", 10).expect("readable");
    due.iter().for_each(|due| store.settle("amqp", due.position, Settled::Delivered));
    let head = *store.head().borrow();
    let failed = Selection::Filter(Filter { status: Some(Status::Failed), ..Filter::default() });
    let preview = store.preview(&failed, head).expect("readable");
    assert_eq!((preview.count, preview.gone, preview.sample.len()), (2, 0, 2));
    // Bit by bit it is the same as at once.
    let (mut bits, mut after) = (Vec::new(), Position(0));
    while after < head {
        let found = store.find(&everything(), after, head, 2).expect("readable");
        assert!(found.events.len() <= 2 && found.looked_up_to > after);
        bits.extend(found.events);
        after = found.looked_up_to;
    }
    assert_eq!(bits, store.find(&everything(), Position(0), head, 100).expect("readable").events);
    assert_eq!(bits.len(), 5);
    let two = [Wanted::Event(due[3].event), Wanted::Event(due[1].event), Wanted::Event(due[3].event)];
    let ids = Selection::Ids(two.to_vec());
    assert_eq!(store.find(&ids, Position(0), head, 10).expect("readable").events, [due[1].position, due[3].position]);
    let nobody = Selection::Ids(vec![two[0], Wanted::Event(EventId::new(at, due[0].position))]);
    assert_eq!(store.preview(&nobody, head).expect("readable").missing, 1);
    let events = [due[1].position, due[3].position];
    let written = store.note_replay(replay("r", events[1], 2), &events, "", Some(somebody())).await.expect("written");
    assert_eq!(store.unsettled("amqp", &written), written);
    subject.kill();
    store.close();
    let store = subject.open();
    assert_eq!(store.replay("r").map(|r| (r.up_to, r.count, r.ended)), Some((events[1], 2, None)));
    assert_eq!(store.outstanding("amqp", "r").expect("readable"), written);
    let again: Vec<_> = store.due("amqp", 10).expect("readable");
    let again: Vec<_> = again.iter().filter(|due| due.replay.is_some()).collect();
    assert_eq!(again.iter().map(|due| due.event).collect::<Vec<_>>(), [due[1].event, due[3].event]);
    store.settle("amqp", written[0], Settled::Delivered);
    assert_eq!(store.unsettled("amqp", &written), written[1..]);
    let entries = store.events(Position(0), 100).expect("readable");
    let replayed: Vec<_> = entries.iter().filter(|entry| entry.replay.as_deref() == Some("r")).collect();
    assert_eq!(replayed.iter().map(|entry| &entry.event).collect::<Vec<_>>(), [&due[1].body, &due[3].body]);
    let end = Replay { request: String::new(), ended: Some("done".into()), ..replay("r", events[1], 2) };
    store.note_replay(end, &[], "", None).await.expect("written");
    let ended = store.replay("r").expect("known");
    assert_eq!((ended.ended.as_deref(), ended.request.as_str()), (Some("done"), r#"{"asked_by":"ops"}"#));
    store.close();
}

async fn a_forgotten_reader_is_owed_nothing<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    let kept = store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    store.acknowledge("books", Position(0));
    store.acknowledge("mail", kept.notification.position());
    let names = |store: &Arc<dyn Store>| store.consumers().into_iter().map(|c| c.name).collect::<Vec<_>>();
    assert_eq!(names(&store), ["books", "mail"]);
    let before = *store.head().borrow();
    until("both are written", || store.head().borrow().0 >= before.0 + 2).await;
    assert_eq!(store.forget_consumer("books", somebody()).await, Ok(true));
    assert_eq!(store.forget_consumer("books", somebody()).await, Ok(false));
    subject.kill();
    store.close();
    let store = subject.open();
    assert_eq!(names(&store), ["mail"]);
    store.acknowledge("books", Position(0));
    assert_eq!(names(&store), ["books", "mail"], "it may begin anew");
    store.close();
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
