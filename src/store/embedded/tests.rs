//! The embedded store against the suite of every store, and against a model of ten lines.

mod believed;
mod by_hand;
mod doubt;
mod failures;
mod fingerprints;
mod handed_out;
mod listed;
mod rebuilt;
mod replayed;
mod restored;
mod retained;
mod whole;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{Embedded, Enlisted, Options, RelaySink};
use crate::clock::{Clock, Manual};
use crate::config::{Retention, SinkStart};
use crate::event::{EventId, Position, Verdict};
use crate::store::conformance::{self, Said, Subject, expectation, suite};
use crate::store::operate::{Operate as _, Ruling};
use crate::store::{Outcome, Readiness, Settled, Store, Terms};

const START_MS: i64 = 1_795_162_530_123;

/// A store in a temporary folder.
struct Folder {
    root: tempfile::TempDir,
    at: PathBuf,
    generation: u32,
    clock: Manual,
    keep_index: bool,
}

impl Folder {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let at = root.path().join("0");
        let clock = Manual::at(Timestamp::from_millisecond(START_MS).expect("a time"));
        Self { root, at, generation: 0, clock, keep_index: true }
    }

    fn options(&self) -> Options {
        let day = Duration::from_secs(86_400);
        Options {
            path: self.at.clone(),
            segment_bytes: 16 << 10,
            terms: Terms {
                accounts: conformance::accounts(),
                max_in_flight: 1024,
                index_lag: 65_536,
                retention: Retention { bodies: 90 * day, keys: 400 * day },
                fulfil_never: false,
            },
            retention_tick: Duration::from_millis(20),
            restored: false,
            restored_ended: false,
            confirm_clock: false,
            boot: "this boot".into(),
            clock: Arc::new(self.clock.clone()),
            metrics: None,
            progress_bar: false,
            sink: None,
        }
    }

    fn start(&self) -> Embedded {
        self.start_with(self.options())
    }

    fn start_with(&self, options: Options) -> Embedded {
        let store = Embedded::open(options).expect("not in use");
        for _ in 0..1000 {
            if store.readiness() == Readiness::Ready {
                return store;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not ready: {:?}", store.readiness());
    }
}

impl Subject for Folder {
    fn open(&mut self) -> Arc<dyn Store> {
        Arc::new(self.start())
    }

    fn kill(&mut self) {
        // What a kill leaves is what the files say now. sled's may be in the middle of something: all the better.
        self.generation += 1;
        let copy = self.root.path().join(self.generation.to_string());
        copy_folder(&self.at, &copy, self.keep_index);
        self.at = copy;
    }

    fn clock(&self) -> &Manual {
        &self.clock
    }
}

fn copy_folder(from: &Path, to: &Path, with_index: bool) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            if with_index || entry.file_name() != "index" {
                copy_folder(&entry.path(), &target, with_index);
            }
        } else {
            // A file may vanish between the listing and the copy.
            let _ = std::fs::copy(entry.path(), target);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_every_promise() {
    suite(Folder::new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_every_promise_also_with_an_index_built_anew() {
    suite(|| Folder { keep_index: false, ..Folder::new() }).await;
}

/// One step of the property test.
#[derive(Clone, Debug)]
enum Step {
    Commit { order: u8, transaction: u8, status: u8, price: u8, method: u8 },
    Expect { order: u8, price: u8 },
    Settle { back: u8, fulfil: bool },
    Relay { count: u8, dead: bool },
    Expire,
    Reopen,
    Kill { with_index: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4u8, 0..5u8, 0..3u8, 0..3u8, 0..2u8).prop_map(|(order, transaction, status, price, method)| {
            Step::Commit { order, transaction, status, price, method }
        }),
        3 => (0..4u8, 0..3u8).prop_map(|(order, price)| Step::Expect { order, price }),
        2 => (0..5u8, any::<bool>()).prop_map(|(back, fulfil)| Step::Settle { back, fulfil }),
        2 => (1..4u8, any::<bool>()).prop_map(|(count, dead)| Step::Relay { count, dead }),
        1 => Just(Step::Expire),
        1 => Just(Step::Reopen),
        1 => any::<bool>().prop_map(|with_index| Step::Kill { with_index }),
    ]
}

const PRICES: [&str; 3] = ["7500.00", "10.00", "0.01"];
const STATUSES: [&str; 3] = ["completed", "created", "failed"];

/// What the store must look like: the first statement of each key and those that contradict it.
#[derive(Default)]
struct Model {
    keys: std::collections::BTreeMap<(u8, u8), Vec<(u8, u8)>>,
    events: usize,
    settled: std::collections::BTreeSet<EventId>,
}

impl Model {
    fn commit(&mut self, order: u8, transaction: u8, status: u8, price: u8) -> Outcome {
        let said = self.keys.entry((transaction, status)).or_default();
        match said.iter().position(|known| *known == (order, price)) {
            Some(_) => Outcome::Duplicate,
            None => {
                said.push((order, price));
                self.events += usize::from(said.len() <= 9);
                if said.len() == 1 { Outcome::New } else { Outcome::Conflict }
            }
        }
    }
}

fn run(steps: Vec<Step>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let mut folder = Folder::new();
    let mut store = folder.start();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit { order, transaction, status, price, method } => {
                let said = Said {
                    source: "paygol",
                    order: format!("O{order}"),
                    transaction: transaction.to_string(),
                    status: STATUSES[usize::from(status)],
                    price: PRICES[usize::from(price)],
                    method: ["webpay", "card"][usize::from(method)],
                };
                let committed = runtime.block_on(store.commit(said.verified(folder.clock.now()))).expect("kept");
                assert_eq!(committed.outcome, model.commit(order, transaction, status, price), "{said:?}");
            }
            Step::Expect { order, price } => {
                let wanted =
                    expectation("paygol", &format!("O{order}"), PRICES[usize::from(price)], "CLP", folder.clock.now());
                let _ = runtime.block_on(store.expect(wanted));
            }
            Step::Settle { back, fulfil } => {
                let events = store.events(Position(0), 100_000).expect("readable");
                let Some(entry) = events.iter().rev().nth(usize::from(back)) else { continue };
                let event: serde_json::Value = serde_json::from_slice(&entry.event).expect("JSON");
                let id = event["id"].as_str().and_then(EventId::parse).expect("an id");
                let ruling = if fulfil { Ruling::Fulfil } else { Ruling::Refuse };
                let settled = runtime.block_on(store.settle_by_hand(id, ruling, conformance::by_hand::somebody()));
                assert!(event["data"]["verdict"] == "hold" || settled.is_err(), "{event}");
            }
            Step::Relay { count, dead } => {
                for due in store.due("amqp", usize::from(count)).expect("readable") {
                    assert!(!model.settled.contains(&due.event), "settled, and due again without a kill");
                    let how = if dead { Settled::Dead("no".into()) } else { Settled::Delivered };
                    store.settle("amqp", due.position, how);
                    model.settled.insert(due.event);
                }
            }
            Step::Expire => {
                // Slowly enough for the clock to be trusted: the order system lives on.
                for day in 0..6 {
                    let now = folder.clock.now() + SignedDuration::from_hours(40);
                    folder.clock.set(now);
                    let alive = Said::paid(&format!("alive-{now}-{day}"), &format!("alive-{now}-{day}"));
                    runtime.block_on(store.commit(alive.verified(now))).expect("kept");
                    model.events += 1;
                }
            }
            Step::Reopen => {
                store.close();
                drop(store);
                store = folder.start();
            }
            Step::Kill { with_index } => {
                folder.keep_index = with_index;
                folder.kill();
                store.close();
                store = folder.start();
                // Progress of the last second may be gone; the same events come again with the same ids.
                model.settled.clear();
            }
        }
        judge(&store, &model);
    }
    store.close();
}

fn judge(store: &Embedded, model: &Model) {
    let entries = store.events(Position(0), 100_000).expect("readable");
    let events: Vec<serde_json::Value> =
        entries.iter().map(|entry| serde_json::from_slice(&entry.event).expect("JSON")).collect();
    let derived = events.iter().filter(|event| event["data"]["relates_to"]["as"] != "settles").count();
    assert_eq!(derived, model.events, "every kept notification is one event");
    let mut told = std::collections::BTreeSet::new();
    let mut sequences = std::collections::BTreeMap::<String, u64>::new();
    let mut settled = std::collections::BTreeSet::new();
    for event in &events {
        let data = &event["data"];
        if data["relates_to"]["as"] == "settles" {
            assert!(settled.insert(data["relates_to"]["id"].to_string()), "settled twice: {event}");
        }
        if ["fulfil", "compare"].contains(&data["verdict"].as_str().expect("a word")) {
            let payment = (data["transaction_id"].to_string(), data["status"].to_string());
            assert!(told.insert(payment), "told twice: {event}");
        }
        let order = data["order_id"].to_string();
        let before = sequences.insert(order, data["sequence"].as_u64().expect("a number")).unwrap_or(0);
        assert_eq!(data["sequence"], before + 1, "{event}");
    }
    let fulfilled = events.iter().filter(|event| event["data"]["verdict"] == "fulfil");
    let fulfilled = fulfilled.filter(|event| event["data"]["assurance"] != "operator");
    assert!(fulfilled.clone().all(|event| event["data"]["expectation"] == "match"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn behaves_as_its_model(steps in prop::collection::vec(step(), 1..40)) {
        run(steps);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_identical_notifications_at_once_are_one_event() {
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    let sent: Vec<_> = (0..200).map(|_| store.commit(Said::paid("A", "1").verified(at))).collect();
    let mut new = 0;
    for answer in sent {
        new += usize::from(answer.await.expect("answered").outcome == Outcome::New);
    }
    assert_eq!((new, store.events(Position(0), 10).expect("readable").len()), (1, 1));
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_expire_and_keys_of_what_was_told_stay_for_ever() {
    let folder = Folder::new();
    let store = folder.start();
    let began = folder.clock.now();
    for n in 0..60 {
        store.commit(Said::paid(&format!("O{n}"), &n.to_string()).verified(folder.clock.now())).await.expect("kept");
        let pending = Said { status: "created", ..Said::paid(&format!("O{n}"), &n.to_string()) };
        store.commit(pending.verified(folder.clock.now())).await.expect("kept");
    }
    // 401 days pass, two a step, so that the clock stays trusted.
    for day in 0..220 {
        folder.clock.set(folder.clock.now() + SignedDuration::from_hours(44));
        let alive = Said::paid(&format!("alive{day}"), &format!("alive{day}"));
        store.commit(alive.verified(folder.clock.now())).await.expect("kept");
    }
    assert!(folder.clock.now().duration_since(began) > SignedDuration::from_hours(401 * 24));
    conformance::until("bodies are retired", || store.horizon() > Position(100)).await;
    let old = store.commit(Said::paid("O3", "3").verified(folder.clock.now())).await.expect("known");
    assert_eq!(old.outcome, Outcome::Duplicate, "an old notification on day 401");
    let damage = store.figures().damage;
    store.close();
    drop(store);
    let mut again = folder;
    again.keep_index = false;
    again.kill();
    let store = again.start();
    let old = store.commit(Said::paid("O3", "3").verified(again.clock.now())).await.expect("known");
    assert_eq!((old.outcome, store.figures().damage), (Outcome::Duplicate, damage), "also after a rebuild");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store_holds_every_payment() {
    let folder = Folder::new();
    let store = folder.start();
    store.close();
    drop(store);
    let store = folder.start_with(Options { restored: true, ..folder.options() });
    let at = folder.clock.now();
    store.expect(expectation("paygol", "A", "7500", "CLP", at)).await.expect("registered");
    let held = store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    assert_eq!(held.verdict, Verdict::Hold);
    store.close();
    drop(store);
    let store = folder.start();
    let held = store.commit(Said::paid("B", "2").verified(at)).await.expect("kept");
    assert_eq!(held.verdict, Verdict::Hold, "also after the next start");
    store.close();
    drop(store);
    let store = folder.start_with(Options { restored_ended: true, ..folder.options() });
    let told = store.commit(Said::paid("C", "3").verified(at)).await.expect("kept");
    assert_eq!(told.verdict, Verdict::Compare, "until somebody ends it");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store_knows_the_cursors_of_before_the_backup_and_no_later_ones() {
    use crate::store::cursor::{CursorError, FeedCursor};
    let mut folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 0..3).await;
    let newest = |store: &Embedded| store.timelines().last().expect("known").id;
    let cursor = |store: &Embedded, at: Position| FeedCursor::new(newest(store), at).to_string();
    let before = (cursor(&store, Position(3)), Position(3));
    store.close();
    drop(store);
    // The backup is the older folder; the store lives on in the newer one, and is lost.
    let backup = folder.at.clone();
    folder.kill();
    let store = folder.start();
    pay(&store, &folder.clock, 3..6).await;
    let lost = cursor(&store, Position(5));
    assert_eq!(FeedCursor::parse(&lost, &store.timelines()), Ok(Position(5)));
    store.close();
    drop(store);
    folder.at = backup;
    let store = folder.start_with(Options { restored: true, ..folder.options() });
    pay(&store, &folder.clock, 10..30).await;
    let since = cursor(&store, Position(7));
    store.close();
    drop(store);
    for keep_index in [true, false] {
        folder.keep_index = keep_index;
        folder.kill();
        let store = folder.start();
        let timelines = store.timelines();
        assert_eq!(FeedCursor::parse(&before.0, &timelines), Ok(before.1), "index kept: {keep_index}");
        assert_eq!(FeedCursor::parse(&lost, &timelines), Err(CursorError::Abandoned), "index kept: {keep_index}");
        assert_eq!(FeedCursor::parse(&since, &timelines), Ok(Position(7)), "index kept: {keep_index}");
        store.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_feed_is_the_only_sink_the_backlog_is_what_its_slowest_consumer_lacks() {
    let folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 0..5).await;
    assert_eq!(store.figures().backlog, 0, "nobody is owed anything");
    store.acknowledge("shop", Position(0));
    conformance::until("all of it is owed", || store.figures().backlog == 5).await;
    let third = store.events(Position(0), 3).expect("readable").pop().expect("the third").position;
    store.acknowledge("shop", third);
    store.acknowledge("books", *store.head().borrow());
    conformance::until("two are left", || store.figures().backlog == 2).await;
    folder.clock.set(folder.clock.now() + SignedDuration::from_secs(90));
    assert!(store.figures().oldest >= Duration::from_secs(90));
    pay(&store, &folder.clock, 5..6).await;
    conformance::until("one more came", || store.figures().backlog == 3).await;
    store.acknowledge("late", Position(0));
    conformance::until("a new one is owed everything", || store.figures().backlog == 6).await;
    store.close();
    drop(store);
    let store = folder.start();
    conformance::until("also after a start", || store.figures().backlog == 6).await;
    for consumer in ["shop", "books", "late"] {
        store.acknowledge(consumer, *store.head().borrow());
    }
    conformance::until("all of it is acknowledged", || store.figures().backlog == 0).await;
    assert_eq!(store.figures().oldest, Duration::ZERO);
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubtful_clock_is_trusted_again_when_somebody_confirms_it() {
    let folder = Folder::new();
    let store = folder.start();
    store.commit(Said::paid("A", "1").verified(folder.clock.now())).await.expect("kept");
    store.close();
    drop(store);
    folder.clock.set(folder.clock.now() + SignedDuration::from_hours(72));
    let store = folder.start();
    let held = store.commit(Said::paid("B", "2").verified(folder.clock.now())).await.expect("kept");
    assert_eq!(held.verdict, Verdict::Hold);
    store.close();
    drop(store);
    let store = folder.start_with(Options { confirm_clock: true, ..folder.options() });
    let told = store.commit(Said::paid("C", "3").verified(folder.clock.now())).await.expect("kept");
    assert_eq!(told.verdict, Verdict::Compare);
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_fails_is_built_anew_and_nothing_known_becomes_new() {
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    let said: Vec<Said> = (0..50).map(|n| Said::paid(&format!("O{n}"), &n.to_string())).collect();
    for said in &said {
        store.commit(said.verified(at)).await.expect("kept");
    }
    conformance::until("all of it is in the index", || store.figures().index_lag == 0).await;
    store.fail_index();
    for said in &said {
        // Not known for sure until the index is back: turned away, never taken for new.
        match store.commit(said.verified(at)).await {
            Ok(committed) => assert_eq!(committed.outcome, Outcome::Duplicate),
            Err(unavailable) => assert_eq!(unavailable, crate::store::Unavailable::Storage),
        }
    }
    for tries in 0.. {
        assert!(tries < 500, "the index does not come back");
        if store.commit(said[0].verified(at)).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for said in &said {
        assert_eq!(store.commit(said.verified(at)).await.expect("known").outcome, Outcome::Duplicate);
    }
    assert_eq!(store.events(Position(0), 1000).expect("readable").len(), 50);
    store.close();
}

#[test]
fn a_second_store_on_the_same_folder_is_refused() {
    let folder = Folder::new();
    let store = folder.start();
    let error = Embedded::open(folder.options()).expect_err("in use").to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    store.close();
}

fn relay(start: Option<SinkStart>) -> Option<RelaySink> {
    Some(RelaySink { name: "amqp".into(), start })
}

async fn pay(store: &Embedded, clock: &Manual, orders: std::ops::Range<u32>) {
    for order in orders {
        store.commit(Said::paid(&format!("S{order}"), &order.to_string()).verified(clock.now())).await.expect("kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_new_to_a_store_with_events_is_asked_where_it_begins() {
    let mut folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 0..3).await;
    store.close();
    for (start, expected) in [(None, None), (Some(SinkStart::Now), Some(0)), (Some(SinkStart::Beginning), Some(3))] {
        folder.kill();
        let store = folder.start_with(Options { sink: relay(start), ..folder.options() });
        let due = store.due("amqp", 10).expect("readable").len();
        match expected {
            None => assert_eq!((*store.enlisted().borrow(), due), (Enlisted::NeedsStart, 0)),
            Some(count) => assert_eq!((*store.enlisted().borrow(), due), (Enlisted::Yes, count)),
        }
        store.close();
        drop(store);
        if start == Some(SinkStart::Now) {
            // It has begun: whatever is said later changes nothing.
            for later in [None, Some(SinkStart::Beginning)] {
                let store = folder.start_with(Options { sink: relay(later), ..folder.options() });
                assert_eq!(*store.enlisted().borrow(), Enlisted::Yes);
                assert!(store.due("amqp", 10).expect("readable").is_empty());
                store.close();
            }
            folder.at = folder.root.path().join((folder.generation - 1).to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_of_a_new_store_needs_no_start_also_when_it_never_delivered() {
    let folder = Folder::new();
    let options = || Options { sink: relay(None), ..folder.options() };
    let store = folder.start_with(options());
    pay(&store, &folder.clock, 0..3).await;
    store.close();
    drop(store);
    let store = folder.start_with(options());
    assert_eq!(*store.enlisted().borrow(), Enlisted::Yes);
    assert_eq!(store.due("amqp", 10).expect("readable").len(), 3);
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_goes_on_where_it_was_also_without_an_index() {
    for keep_index in [true, false] {
        let mut folder = Folder { keep_index, ..Folder::new() };
        let options = |folder: &Folder| Options { sink: relay(None), ..folder.options() };
        let store = folder.start_with(options(&folder));
        pay(&store, &folder.clock, 0..6).await;
        let due = store.due("amqp", 10).expect("readable");
        store.settle("amqp", due[0].position, Settled::Delivered);
        store.settle("amqp", due[2].position, Settled::Dead("refused".into()));
        assert_eq!((store.figures().backlog, store.figures().dead_letters), (4, 1));
        store.release("amqp");
        store.close();
        drop(store);
        folder.kill();
        let store = folder.start_with(options(&folder));
        let mut backlog = 0;
        for _ in 0..500 {
            backlog = store.figures().backlog;
            if backlog == 4 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((backlog, store.figures().dead_letters), (4, 1), "index kept: {keep_index}");
        let again: Vec<_> = store.due("amqp", 10).expect("readable").iter().map(|due| due.event).collect();
        let expected: Vec<_> = [1, 3, 4, 5].map(|n: usize| due[n].event).into();
        assert_eq!(again, expected);
        pay(&store, &folder.clock, 6..8).await;
        assert_eq!(store.figures().backlog, 6);
        folder.clock.set(folder.clock.now() + SignedDuration::from_secs(90));
        assert!(store.figures().oldest >= Duration::from_secs(90));
        store.close();
    }
}
