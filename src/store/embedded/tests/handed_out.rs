//! What is handed out when the journal does not read as it was written.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;
use crate::store::replaying::{Replay, Selection, Wanted};

/// Turns a byte of `text` around wherever a file of the journal holds it.
fn damage(folder: &Path, text: &str) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            if path.file_name() != Some("index".as_ref()) {
                damage(&path, text);
            }
            continue;
        }
        let bytes = std::fs::read(&path).expect("readable");
        let found = bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes());
        let file = std::fs::File::options().write(true).open(&path).expect("writable");
        for (at, _) in found {
            file.write_at(&[bytes[at] ^ 1], at as u64).expect("written");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_read_any_more_is_a_dead_letter_and_holds_nobody_up() {
    let folder = Folder::new();
    let store = folder.start_with(Options { sink: relay(None), ..folder.options() });
    pay(&store, &folder.clock, 0..3).await;
    damage(&folder.at, r#""subject":"S1""#);
    let due = store.due("amqp", 10).expect("the others read");
    let subjects: Vec<_> =
        due.iter().map(|due| String::from_utf8_lossy(&due.body).contains(r#""subject":"S1""#)).collect();
    assert_eq!(subjects, [false, false], "neither of them is the damaged one");
    assert_eq!((store.figures().backlog, store.figures().dead_letters), (2, 1), "it is not said to be delivered");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_a_sink_that_began_now_is_not_said_to_be_delivered() {
    let mut folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 0..2).await;
    store.close();
    folder.kill();
    let store = folder.start_with(Options { sink: relay(Some(SinkStart::Now)), ..folder.options() });
    pay(&store, &folder.clock, 2..3).await;
    let due = store.due("amqp", 10).expect("readable");
    assert_eq!(due.len(), 1);
    store.settle("amqp", due[0].position, Settled::Delivered);
    let page = store.notifications(&crate::store::Filter::default(), None, 10).expect("readable");
    let deliveries = || {
        let told = page.notifications.iter().map(|item| store.notification(item.id).expect("readable").expect("kept"));
        told.map(|kept| kept.deliveries.len()).collect::<Vec<_>>()
    };
    conformance::until("the new one is delivered", || deliveries()[0] == 1).await;
    assert_eq!(deliveries(), [1, 0, 0], "newest first");
    store.close();
}

/// Has the relay's events at some positions sent again, to it alone.
async fn send_again(store: &Embedded, events: &[Position]) -> Vec<Position> {
    let replay = Replay { id: "again".into(), request: "{}".into(), up_to: Position(0), count: 0, ended: None };
    let by = Some(conformance::by_hand::somebody());
    store.note_replay(replay, events, "amqp", by).await.expect("written")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_whose_body_is_damaged_stays_one_also_when_it_is_tried_again() {
    let folder = Folder::new();
    let store = folder.start_with(Options { sink: relay(None), ..folder.options() });
    pay(&store, &folder.clock, 0..2).await;
    let due = store.due("amqp", 10).expect("readable");
    due.iter().for_each(|due| store.settle("amqp", due.position, Settled::Dead("too large".into())));
    conformance::until("the journal has them", || store.dead_letters(Position(0), 9).is_ok_and(|l| l.len() == 2)).await;
    damage(&folder.at, r#""subject":"S1""#);

    // Whoever looks finds nothing to send.
    let head = *store.head().borrow();
    for selection in [Selection::DeadLetters(Vec::new()), Selection::Ids(vec![Wanted::Event(due[1].event)])] {
        let found = store.find(&selection, due[0].position, head, 10).expect("readable");
        assert_eq!((found.events.len(), found.gone), (0, 1), "{selection:?}");
    }
    // It may be damaged only after the look.
    send_again(&store, &[due[0].position, due[1].position]).await;
    let again = store.due("amqp", 10).expect("readable");
    assert_eq!(again.iter().map(|due| due.event).collect::<Vec<_>>(), [due[0].event]);
    let letters = || store.dead_letters(Position(0), 10).expect("readable");
    conformance::until("it is a dead letter once more", || letters().len() == 1).await;
    assert_eq!((letters()[0].id, letters()[0].position), (Some(due[1].event), due[1].position));
    assert_eq!(store.figures().dead_letters, 1);
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_whose_event_does_not_read_is_listed_and_hides_no_other() {
    let folder = Folder::new();
    let store = folder.start_with(Options { sink: relay(None), ..folder.options() });
    pay(&store, &folder.clock, 0..3).await;
    let due = store.due("amqp", 10).expect("readable");
    due.iter().for_each(|due| store.settle("amqp", due.position, Settled::Dead("too large".into())));
    conformance::until("the journal has them", || store.dead_letters(Position(0), 9).is_ok_and(|l| l.len() == 3)).await;
    damage(&folder.at, "S1");
    let letters = store.dead_letters(Position(0), 10).expect("the others read");
    let told = letters.iter().map(|letter| (letter.position, letter.id, letter.reason.as_deref())).collect::<Vec<_>>();
    let (first, second, third) = (&due[0], &due[1], &due[2]);
    let why = Some("too large");
    let all = [
        (first.position, Some(first.event), why),
        (second.position, None, why),
        (third.position, Some(third.event), why),
    ];
    assert_eq!(told, all);
    assert_eq!(store.dead_letters_of(second.event).expect("readable").len(), 1);
    let (every, head) = (Selection::DeadLetters(Vec::new()), *store.head().borrow());
    let found = store.find(&every, Position(0), head, 10).expect("the others read");
    assert_eq!((found.events, found.gone), (vec![first.position, third.position], 1));
    let preview = store.preview(&every, head).expect("the others read");
    assert_eq!((preview.count, preview.gone, preview.sample.len()), (2, 1, 2));
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_events_of_an_order_are_not_sent_again_at_the_same_time() {
    let folder = Folder::new();
    let store = folder.start_with(Options { sink: relay(None), ..folder.options() });
    for transaction in ["1", "2"] {
        store.commit(Said::paid("A", transaction).verified(folder.clock.now())).await.expect("kept");
    }
    pay(&store, &folder.clock, 5..6).await;
    let mut first = Vec::new();
    while let [due, ..] = &store.due("amqp", 1).expect("readable")[..] {
        first.push(due.position);
        store.settle("amqp", due.position, Settled::Delivered);
    }
    let again = send_again(&store, &first).await;
    let due = || store.due("amqp", 10).expect("readable").iter().map(|due| due.position).collect::<Vec<_>>();
    assert_eq!(due(), [again[0], again[2]], "the later one of the order must not overtake the other");
    store.settle("amqp", again[0], Settled::Delivered);
    assert_eq!(due(), [again[1]]);
    store.close();
}
