//! The relay over the real store and a sink that does what it is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::*;
use crate::clock::{Clock, System};
use crate::config::Retention;
use crate::metrics::Metrics;
use crate::sink::Pending;
use crate::store::conformance::{self, Said};
use crate::store::embedded::{Embedded, Options, RelaySink};
use crate::store::{Readiness, Terms};

/// What the sink does with a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Take,
    Return,
    Break,
    /// It blocks, and confirms afterwards what it had read before.
    Block,
    Lose,
    Panic,
}

#[derive(Default)]
struct Stub {
    /// What it does, by order; everything else is taken.
    does: Mutex<BTreeMap<String, Does>>,
    /// Order and attempt of each message, in the order of arrival.
    arrived: Mutex<Vec<(String, u32)>>,
    connections: Mutex<usize>,
    away: Mutex<bool>,
    /// Making everything ready again takes for ever.
    never_renews: Mutex<bool>,
}

struct Wire {
    stub: Arc<Stub>,
    reports: VecDeque<Report>,
    came: Notify,
}

impl Stub {
    fn set(&self, order: &str, does: Does) {
        self.does.lock().unwrap_or_else(PoisonError::into_inner).insert(order.to_owned(), does);
    }
    fn orders(&self) -> Vec<String> {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.iter().map(|(order, _)| order.clone()).collect()
    }
}

struct Handed(Arc<Stub>);

impl Sink for Handed {
    fn connect(&self) -> Pending<'_, Result<Box<dyn Link>, Trouble>> {
        let away = *self.0.away.lock().unwrap_or_else(PoisonError::into_inner);
        let stub = Arc::clone(&self.0);
        Box::pin(async move {
            if away {
                return Err(Trouble { at: "stub:1".into(), what: "away".into(), remedy: "wait" });
            }
            *stub.connections.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            Ok(Box::new(Wire { stub, reports: VecDeque::new(), came: Notify::new() }) as Box<dyn Link>)
        })
    }
}

impl Link for Wire {
    fn send(&mut self, due: &Due) {
        let event: serde_json::Value = serde_json::from_slice(&due.body).expect("JSON");
        let order = event["subject"].as_str().expect("an order").to_owned();
        let does = self.stub.does.lock().unwrap_or_else(PoisonError::into_inner).get(&order).copied();
        self.stub.arrived.lock().unwrap_or_else(PoisonError::into_inner).push((order, due.attempts));
        if does == Some(Does::Break) {
            self.reports.clear();
        }
        if does == Some(Does::Block) {
            self.reports.push_back(Report::Blocked(Some("low on memory".into())));
        }
        self.reports.push_back(match does.unwrap_or(Does::Take) {
            Does::Take | Does::Block => Report::Took(due.position),
            Does::Return => Report::Returned(due.position, "no route".into()),
            Does::Break => Report::Broken("too large".into()),
            Does::Lose => Report::Lost(Trouble { at: "stub:1".into(), what: "cut".into(), remedy: "" }),
            Does::Panic => panic!("on purpose"),
        });
        self.came.notify_one();
    }
    fn next(&mut self) -> Pending<'_, Report> {
        Box::pin(async move {
            loop {
                if let Some(report) = self.reports.pop_front() {
                    return report;
                }
                self.came.notified().await;
            }
        })
    }
    fn renew(&mut self) -> Pending<'_, Result<(), Trouble>> {
        let never = *self.stub.never_renews.lock().unwrap_or_else(PoisonError::into_inner);
        Box::pin(async move { if never { std::future::pending().await } else { Ok(()) } })
    }
    fn close(self: Box<Self>) -> Pending<'static, ()> {
        Box::pin(async {})
    }
}

struct Stage {
    store: Embedded,
    stub: Arc<Stub>,
    tasks: Tasks,
    health: Health,
    folder: tempfile::TempDir,
}

fn options(path: &std::path::Path) -> Options {
    let day = Duration::from_secs(86_400);
    Options {
        path: path.to_owned(),
        segment_bytes: 1 << 20,
        terms: Terms {
            accounts: conformance::accounts(),
            max_in_flight: 64,
            index_lag: 65_536,
            retention: Retention { bodies: 90 * day, keys: 400 * day },
            fulfil_never: false,
        },
        retention_tick: day,
        restored: false,
        restored_ended: false,
        confirm_clock: false,
        boot: "this boot".into(),
        clock: Arc::new(System),
        metrics: None,
        progress_bar: false,
        sink: Some(RelaySink { name: "amqp".into(), start: None }),
    }
}

async fn ready(path: &std::path::Path) -> Embedded {
    let store = Embedded::open(options(path)).expect("free");
    until("the store is ready", || store.readiness() == Readiness::Ready).await;
    store
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ready(folder.path()).await;
        let (stub, health) = (Arc::new(Stub::default()), Health::default());
        Self { store, stub, tasks: Tasks::new(Handle::current()), health, folder }
    }

    fn start(&self) {
        let metrics = Metrics::new(&[], System.now()).expect("no collision");
        let relay = Relay {
            traces: Traces::default(),
            store: Arc::new(self.store.clone()),
            sink: Arc::new(Handed(Arc::clone(&self.stub))),
            name: "amqp",
            window: 8,
            attempts: 2,
            health: self.health.clone(),
            metrics: metrics.relay(),
            tasks: self.tasks.clone(),
        };
        self.tasks.spawn("relay supervisor", relay.run());
    }

    async fn pay(&self, orders: &[&str]) {
        for (at, order) in orders.iter().enumerate() {
            let number = format!("{order}{at}");
            self.store.commit(Said::paid(order, &number).verified(System.now())).await.expect("kept");
        }
    }

    async fn settled(&self) {
        until("nothing is owed", || self.store.figures().backlog == 0).await;
    }

    async fn stop(self) -> tempfile::TempDir {
        self.tasks.stop();
        self.tasks.wait(Duration::from_secs(5)).await.expect("it stops");
        self.store.close();
        self.folder
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_at_the_start_gets_everything_once_it_is_back() {
    let stage = Stage::new().await;
    *stage.stub.away.lock().expect("no panic") = true;
    stage.start();
    stage.pay(&["A", "B", "A"]).await;
    until("it says so", || stage.health.snapshot().last_error.as_deref() == Some("stub:1: away")).await;
    assert_eq!(stage.store.figures().backlog, 3);
    *stage.stub.away.lock().expect("no panic") = false;
    stage.settled().await;
    assert_eq!(stage.stub.orders().iter().filter(|order| *order == "A").count(), 2);
    assert!(stage.health.snapshot().connected);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_settled_is_not_sent_again_after_a_restart_and_what_was_not_is() {
    let stage = Stage::new().await;
    stage.start();
    stage.pay(&["A", "B"]).await;
    stage.settled().await;
    stage.stub.set("C", Does::Return);
    stage.pay(&["C"]).await;
    until("C was tried", || stage.stub.orders().len() > 2).await;
    let folder = stage.stop().await;
    let store = ready(folder.path()).await;
    until("the backlog is counted", || store.figures().backlog == 1).await;
    let due = store.due("amqp", 10).expect("readable");
    assert_eq!(due.len(), 1, "{due:?}");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_has_no_place_becomes_a_dead_letter_and_its_order_goes_on() {
    let stage = Stage::new().await;
    stage.stub.set("bad", Does::Return);
    stage.start();
    stage.pay(&["bad", "A"]).await;
    for n in 0..1000 {
        if stage.store.figures().dead_letters == 1 {
            break;
        }
        stage.pay(&[&format!("other{n}")]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(stage.store.figures().dead_letters, 1);
    let attempts: Vec<u32> = stage
        .stub
        .arrived
        .lock()
        .expect("no panic")
        .iter()
        .filter(|(order, _)| order == "bad")
        .map(|(_, n)| *n)
        .collect();
    assert_eq!(attempts.first(), Some(&0));
    assert_eq!(attempts.last(), Some(&1), "two attempts, counted: {attempts:?}");
    stage.stub.set("bad", Does::Take);
    stage.pay(&["x", "bad"]).await;
    stage.settled().await;
    assert_eq!(stage.stub.orders().last().map(String::as_str), Some("bad"));
    let folder = stage.stop().await;
    let store = ready(folder.path()).await;
    assert_eq!(store.figures().dead_letters, 1, "the journal knows");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_breaks_the_channel_does_not_stop_the_others() {
    let stage = Stage::new().await;
    stage.stub.set("huge", Does::Break);
    stage.pay(&["A", "B", "huge", "C", "D"]).await;
    stage.start();
    until("the others are through", || stage.store.figures().backlog == 1).await;
    // Somebody else must get through for it to be charged.
    for n in 0..1000 {
        if stage.store.figures().dead_letters == 1 {
            break;
        }
        stage.pay(&[&format!("other{n}")]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.settled().await;
    assert_eq!(stage.store.figures().dead_letters, 1);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_and_a_panic_lose_nothing() {
    let stage = Stage::new().await;
    stage.stub.set("cut", Does::Lose);
    stage.start();
    stage.pay(&["A", "cut", "B"]).await;
    until("it came back several times", || *stage.stub.connections.lock().expect("no panic") >= 3).await;
    stage.stub.set("cut", Does::Panic);
    until("it panicked", || {
        stage.stub.does.is_poisoned() || stage.stub.orders().iter().filter(|o| *o == "cut").count() > 3
    })
    .await;
    stage.stub.set("cut", Does::Take);
    stage.settled().await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nothing_is_taken_the_relay_waits_and_says_so() {
    let stage = Stage::new().await;
    for order in ["A", "B", "C"] {
        stage.stub.set(order, Does::Return);
    }
    stage.start();
    stage.pay(&["A", "B", "C"]).await;
    until("it says so", || stage.health.snapshot().blocked).await;
    let error = stage.health.snapshot().last_error.unwrap_or_default();
    assert!(error.contains("no queue takes the events"), "{error}");
    tokio::time::sleep(Duration::from_millis(600)).await;
    let figures = stage.store.figures();
    assert_eq!((figures.backlog, figures.dead_letters), (3, 0), "nobody is to blame");
    for order in ["A", "B", "C"] {
        stage.stub.set(order, Does::Take);
    }
    stage.settled().await;
    assert!(!stage.health.snapshot().blocked);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirm_of_what_was_sent_before_does_not_end_a_block() {
    let stage = Stage::new().await;
    stage.stub.set("last", Does::Block);
    stage.start();
    stage.pay(&["last"]).await;
    stage.settled().await;
    stage.pay(&["A"]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let told = stage.health.snapshot();
    assert!(told.blocked && told.last_error.is_some(), "{told:?}");
    assert_eq!(stage.stub.orders(), ["last"], "nothing is sent while it blocks");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_sink_that_never_gets_ready_again() {
    for how in [Does::Return, Does::Break] {
        let stage = Stage::new().await;
        *stage.stub.never_renews.lock().expect("no panic") = true;
        stage.stub.set("A", how);
        stage.start();
        stage.pay(&["A"]).await;
        until("it was refused", || !stage.stub.orders().is_empty()).await;
        tokio::time::sleep(Duration::from_millis(300)).await; // the wait before it renews is 0.1 s at most
        stage.tasks.stop();
        assert_eq!(stage.tasks.wait(Duration::from_secs(2)).await, Ok(()), "{how:?}");
        stage.store.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_nobody_takes_over_end_before_another_relay_begins() {
    let stage = Stage::new().await;
    stage.pay(&["A", "B"]).await;
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    let due = stage.store.due("amqp", 10).expect("readable");
    assert_eq!(due.len(), 2);
    let held = Arc::clone(&turn).try_lock_owned().expect("free");
    let claims = Claims { store: Arc::new(stage.store.clone()), name: "amqp", due, _turn: held };
    assert!(turn.try_lock().is_err(), "no other relay begins");
    assert!(stage.store.due("amqp", 10).expect("readable").is_empty());
    drop(claims);
    assert!(turn.try_lock().is_ok());
    assert_eq!(stage.store.due("amqp", 10).expect("readable").len(), 2);
    stage.stop().await;
}
