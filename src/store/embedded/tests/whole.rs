//! What is written, told or forgotten together, or not at all: on a full disk, and around a sync.

use std::sync::mpsc::sync_channel;

use super::super::committer::Job;
use super::super::journal::{Entry, Journal, Keep, Options as JournalOptions};
use super::super::record::Record;
use super::super::state::Key;
use super::*;
use crate::event::Digest;
use crate::store::Unavailable;

fn seen(store: &Embedded, said: &Said) -> Key {
    let keys = store.0.live.get().expect("open").keys;
    let at = Timestamp::from_millisecond(START_MS).expect("a time");
    keys.seen(&conformance::name(said.source), &said.verified(at).idempotency)
}

fn send(store: &Embedded, job: Job) {
    let jobs = store.0.live.get().and_then(|live| live.jobs.get()).expect("ready");
    jobs.send(job).map_err(|_| "the committer has ended").expect("takes jobs");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_horizon_are_written_to_a_full_disk_although_notifications_keep_coming() {
    let folder = Folder::new();
    let store = folder.start_with(Options { sink: relay(None), ..folder.options() });
    pay(&store, &folder.clock, 0..3).await;
    let due = store.due("amqp", 10).expect("readable");
    // What a new sink has to say first is written before the disk is full.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let before = *store.head().borrow();
    store.0.live.get().expect("open").reader.fill_disk();
    let (stop, at) = (tokio_util::sync::CancellationToken::new(), folder.clock.now());
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..4 {
        let (store, stop) = (store.clone(), stop.clone());
        senders.spawn(async move {
            let mut number = 0;
            while !stop.is_cancelled() {
                number += 1;
                let order = format!("F{sender}-{number}");
                let refused = store.commit(Said::paid(&order, &order).verified(at)).await;
                assert_eq!(refused, Err(Unavailable::Storage), "the disk is full");
            }
        });
    }
    conformance::until("it is known to be full", || store.0.shared.is_full()).await;
    store.settle("amqp", due[0].position, Settled::Delivered);
    conformance::until("progress is written into the reserve", || *store.head().borrow() > before).await;
    for _ in 0..3 {
        let (reply, answer) = tokio::sync::oneshot::channel();
        send(&store, Job::Append(vec![Record::Horizon(Position(1))], reply));
        assert!(answer.await.expect("answered").is_ok(), "room is made by what retires");
    }
    stop.cancel();
    while let Some(sender) = senders.join_next().await {
        sender.expect("only refused");
    }
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_forgotten_only_once_the_rewritten_segment_is_in_its_place() {
    let folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 0..40).await;
    conformance::until("all of it is in the index", || store.figures().index_lag == 0).await;
    let live = store.0.live.get().expect("open");
    let prepare = || live.reader.prepare(Position(1), &mut |_| Keep::HeadOnly).expect("sealed");
    let (slow, fast) = (prepare(), prepare());
    let known = Said::paid("S1", "1");
    let install = |prepared, forget| {
        let (reply, answer) = sync_channel(1);
        send(&store, Job::Install(Box::new(prepared), forget, reply));
        answer.recv().expect("answered")
    };
    assert!(install(fast, Vec::new()));
    assert!(!install(slow, vec![seen(&store, &known)]), "another one was faster");
    // Whatever is handed to the index from here on comes after what was refused.
    pay(&store, &folder.clock, 100..101).await;
    conformance::until("that is in the index", || store.figures().index_lag == 0).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let repeat = store.commit(known.verified(folder.clock.now())).await.expect("answered");
    assert_eq!(repeat.outcome, Outcome::Duplicate, "its segment still holds it");
    store.close();
}

#[test]
fn nothing_is_told_of_a_group_before_its_sync() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    let head = store.head();
    let before = store.figures().head;
    // Who looks at the head holds the committer up when the group is written, so that the next one is not begun.
    let held = head.borrow();
    let first = store.commit(Said::paid("A", "1").verified(at));
    for tries in 0.. {
        assert!(tries < 1000, "the first is not written");
        if store.figures().head > before {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    store.0.live.get().expect("open").reader.fill_disk();
    let said = Said::paid("B", "2");
    let (second, twin) = (store.commit(said.verified(at)), store.commit(said.verified(at)));
    let (reply, looked) = sync_channel(1);
    send(&store, Job::Look(vec![seen(&store, &said)], reply));
    drop(held);
    assert_eq!(runtime.block_on(first).expect("was written").outcome, Outcome::New);
    // Its repeat came while it was not on the disk: it fails with it.
    assert_eq!(runtime.block_on(second), Err(Unavailable::Storage));
    assert_eq!(runtime.block_on(twin), Err(Unavailable::Storage), "a repeat of what is not kept");
    assert!(looked.recv().is_err(), "told of what was taken back");
    assert_eq!(store.figures().head, before + 1);
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stood_before_an_idle_moment_is_no_torn_tail() {
    let mut folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 0..2).await;
    // Without a clean stop: the mark is written when nothing comes for a while.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    folder.kill();
    store.close();
    drop(store);
    let segment = folder.at.join("journal").join(format!("{:020}.journal", 1));
    let mut bytes = std::fs::read(&segment).expect("reads");
    let at = memchr::memmem::rfind(&bytes, b"S1").expect("the last record's event");
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).expect("writes");
    let store = folder.start();
    assert_eq!(store.figures().damage, 1, "what was acknowledged is not cut off without a word");
    store.close();
}

#[test]
fn what_the_index_lacks_is_bounded() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let folder = Folder::new();
    let mut options = folder.options();
    options.terms.index_lag = 0;
    let store = folder.start_with(options);
    let at = folder.clock.now();
    let head = store.head();
    let before = store.figures().head;
    // Who looks at the head holds the committer up before it hands anything to the index.
    let held = head.borrow();
    let first = store.commit(Said::paid("A", "1").verified(at));
    for tries in 0.. {
        assert!(tries < 1000, "the first is not written");
        if store.figures().head > before {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // One that was taken would wait for as long as the head is looked at.
    let second = store.commit(Said::paid("B", "2").verified(at));
    let second = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), second).await });
    drop(held);
    assert_eq!(second.ok(), Some(Err(Unavailable::Overloaded)));
    assert!(runtime.block_on(first).is_ok());
    runtime.block_on(conformance::until("the index has caught up", || store.figures().index_lag == 0));
    assert!(runtime.block_on(store.commit(Said::paid("B", "2").verified(at))).is_ok(), "and it goes on");
    store.close();
}

#[test]
fn what_waits_for_the_committer_is_bounded() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let folder = Folder::new();
    let mut options = folder.options();
    options.terms.max_in_flight = 2;
    let store = folder.start_with(options);
    let at = folder.clock.now();
    let head = store.head();
    // Who looks at the head holds the committer up.
    let held = head.borrow();
    let pay = |order: &str| store.commit(Said::paid(order, order).verified(at));
    let (first, second) = (pay("A"), pay("B"));
    let third = pay("C");
    let third = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), third).await });
    drop(held);
    assert_eq!(third.ok(), Some(Err(Unavailable::Overloaded)), "it would wait without end");
    assert!(runtime.block_on(first).is_ok() && runtime.block_on(second).is_ok());
    assert!(runtime.block_on(pay("C")).is_ok(), "and it goes on");
    store.close();
}

#[test]
fn a_start_refuses_a_record_that_a_newer_version_wrote() {
    let folder = Folder::new();
    let options = JournalOptions { segment_bytes: 16 << 10, verify: false };
    let (mut journal, _) = Journal::open(&folder.at, options).expect("opens");
    let newer = Entry {
        payload: vec![200, 1, 2, 3],
        raw: bytes::Bytes::new(),
        raw_hash: Digest::of(b""),
        event: Vec::new(),
        event_hash: Digest::of(b""),
        fingerprints: Vec::new(),
    };
    journal.append(&[newer]).expect("appends");
    journal.close().expect("closes");
    let store = Embedded::open(folder.options()).expect("not in use");
    for _ in 0..1000 {
        if store.fatal().borrow().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let why = store.fatal().borrow().clone().expect("its keys would be called new");
    assert!(why.contains("newer version"), "{why}");
    assert_ne!(store.readiness(), Readiness::Ready);
    store.close();
}
