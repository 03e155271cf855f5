//! What fails beside the journal: the index, a thread, a reader that holds a lock.

use std::sync::mpsc::sync_channel;

use super::super::index::Index;
use super::super::{Live, start};
use super::*;
use crate::event::OrderId;
use crate::store::{ExpectError, Unavailable};

#[tokio::test(flavor = "multi_thread")]
async fn what_an_unreadable_index_would_have_told_is_neither_kept_nor_answered() {
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    store.expect(expectation("paygol", "A", "7500", "CLP", at)).await.expect("registered");
    store.close();
    drop(store);
    let store = folder.start();
    let live = store.0.live.get().expect("open");
    let account = conformance::accounts().remove(&conformance::name("paygol")).expect("known");
    live.index.spoil(&live.keys.order(&account, &OrderId::new("A").expect("an order")));
    let head = store.figures().head;
    // Taken for an unknown order, another amount would be registered beside the first.
    let other = store.expect(expectation("paygol", "A", "1", "CLP", at)).await;
    assert_eq!(other, Err(ExpectError::Unavailable(Unavailable::Storage)));
    assert_eq!(store.figures().head, head);
    // Nor for ever: it is built anew without anybody's help.
    conformance::until("the index is built anew", || live.index.trouble().is_none()).await;
    let other = store.expect(expectation("paygol", "A", "1", "CLP", at)).await;
    assert_eq!(other, Err(ExpectError::Contradicts));
    assert_eq!(*store.fatal().borrow(), None);
    store.close();
}

/// A group of which something was entered already when the index failed: none of it lasts, and the process goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_fails_while_a_held_event_is_judged_again_takes_the_expectation_back() {
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    let paid = Said::paid("A", "1").verified(at);
    let seen = |live: &Live| live.keys.seen(&paid.source, &paid.idempotency);
    store.expect(expectation("paygol", "A", "1.00", "CLP", at)).await.expect("registered");
    store.commit(Said::paid("A", "1").verified(at)).await.expect("held");
    folder.clock.set(at + SignedDuration::from_hours(25));
    store.close();
    drop(store);
    let store = folder.start();
    let live = store.0.live.get().expect("open");
    live.index.spoil(&seen(live));
    let head = store.figures().head;
    let wanted = || expectation("paygol", "A", "7500", "CLP", folder.clock.now());
    assert_eq!(store.expect(wanted()).await, Err(ExpectError::Unavailable(Unavailable::Storage)));
    assert_eq!(store.figures().head, head);
    conformance::until("the index is built anew", || live.index.trouble().is_none()).await;
    let registered = store.expect(wanted()).await.expect("registered");
    assert!(!registered.existed, "what was taken back was not there");
    assert_eq!(store.events(Position(0), 10).expect("readable").len(), 2, "the held event is settled now");
    assert_eq!(*store.fatal().borrow(), None);
    store.close();
}

/// sled opens, says that it fits the journal, and holds something that does not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_builds_an_index_anew_that_fits_and_does_not_read() {
    let folder = Folder::new();
    let options = Options { sink: relay(None), ..folder.options() };
    let store = folder.start_with(options);
    pay(&store, &folder.clock, 0..3).await;
    for due in store.due("amqp", 2).expect("readable") {
        store.settle("amqp", due.position, Settled::Delivered);
    }
    store.close();
    let (keys, id) = (store.0.live.get().expect("open").keys, store.id());
    drop(store);
    // Which key: one that is looked for at once, and one that only all of them together show.
    for key in [keys.sink("amqp"), keys.clock()] {
        let (index, _) = Index::open(&folder.at.join("index"), id, "this boot").expect("opens");
        index.spoil(&key);
        index.flush().expect("flushed");
        drop(index);
        let again = folder.start_with(Options { sink: relay(None), ..folder.options() });
        assert_eq!(*again.fatal().borrow(), None);
        let due: Vec<_> = again.due("amqp", 10).expect("readable").into_iter().map(|due| due.position).collect();
        assert_eq!(due.len(), 1, "the relay goes on where it was: {due:?}");
        again.release("amqp");
        let known = again.commit(Said::paid("S1", "1").verified(folder.clock.now())).await.expect("known");
        assert_eq!(known.outcome, Outcome::Duplicate);
        again.close();
    }
}

/// The same in the sorted files, met by a start that has to go on from what they hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_goes_on_from_an_index_that_does_not_read_builds_it_anew() {
    let folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 0..3).await;
    store.close();
    drop(store);
    let index = folder.at.join("index");
    let older = folder.root.path().join("older");
    copy_folder(&index, &older, true);
    let store = folder.start();
    store.commit(Said::paid("S1", "another").verified(folder.clock.now())).await.expect("kept");
    store.close();
    drop(store);
    std::fs::remove_dir_all(&index).expect("removed");
    copy_folder(&older, &index, true);
    for run in std::fs::read_dir(index.join("runs")).expect("listed") {
        let path = run.expect("listed").path();
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[30] ^= 0x10;
        std::fs::write(&path, bytes).expect("written");
    }
    let store = folder.start();
    assert_eq!(*store.fatal().borrow(), None);
    let known = store.commit(Said::paid("S1", "another").verified(folder.clock.now())).await.expect("known");
    assert_eq!(known.outcome, Outcome::Duplicate);
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_index_is_lost_stops_without_waiting_for_it() {
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let folder = Folder::new();
        let store = folder.start();
        // Neither written to nor built anew: a file stands where its folder has to be.
        let index = folder.options().path.join("index");
        std::fs::rename(&index, index.with_extension("aside")).expect("moved");
        std::fs::write(&index, b"").expect("written");
        pay(&store, &folder.clock, 0..2).await;
        conformance::until("the index is lost", || store.readiness() != Readiness::Ready).await;
        let began = std::time::Instant::now();
        store.close();
        quickest = quickest.min(began.elapsed());
    }
    assert!(quickest < Duration::from_millis(1_500), "it waited {quickest:?} for an index that does not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_panics_ends_the_process_instead_of_being_waited_for() {
    let folder = Folder::new();
    let store = folder.start();
    start::spawn(&store.0, "store-index", || panic!("as sled does"));
    conformance::until("the store fails", || store.fatal().borrow().is_some()).await;
    assert_eq!(store.commit(Said::paid("A", "1").verified(folder.clock.now())).await, Err(Unavailable::Storage));
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_reads_the_disk_holds_no_answer_up() {
    let folder = Folder::new();
    let store = folder.start();
    let (began, begun) = sync_channel(1);
    let (go_on, wait) = sync_channel::<()>(1);
    let sinks = Arc::clone(&store.0.live.get().expect("open").sinks);
    let claiming = std::thread::spawn(move || {
        let _ = sinks.claim("amqp", 1, |from, _| {
            began.send(()).expect("heard");
            let _ = wait.recv_timeout(Duration::from_secs(20));
            Ok::<_, ()>((Vec::new(), from))
        });
    });
    begun.recv().expect("the claim is under way");
    let answer = store.commit(Said::paid("A", "1").verified(folder.clock.now()));
    let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
    let _ = go_on.send(());
    claiming.join().expect("ends");
    assert!(answer.expect("answered meanwhile").is_ok());
    store.close();
}

#[test]
fn a_store_that_is_closed_while_it_starts_leaves_no_thread_behind() {
    let folder = Folder::new();
    for _ in 0..20 {
        let store = Embedded::open(folder.options()).expect("not in use");
        store.close();
        assert!(store.0.threads.lock().expect("whole").is_empty());
        assert_eq!(Arc::strong_count(&store.0), 1, "a thread is still at work");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_could_not_be_forgotten_is_owed_what_it_was_owed() {
    let folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 0..2).await;
    store.acknowledge("books", Position(1));
    let terms = folder.options().terms;
    store.adopt(Terms { max_in_flight: 0, ..terms.clone() });
    let refused = store.forget_consumer("books", conformance::by_hand::somebody()).await;
    assert_eq!(refused, Err(Unavailable::Overloaded));
    let known = store.consumers().into_iter().map(|consumer| (consumer.name, consumer.position)).collect::<Vec<_>>();
    assert_eq!(known, [("books".to_owned(), Position(1))]);
    store.adopt(terms);
    assert_eq!(store.forget_consumer("books", conformance::by_hand::somebody()).await, Ok(true));
    assert!(store.consumers().is_empty());
    store.close();
}
