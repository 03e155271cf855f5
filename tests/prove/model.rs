//! Section `model`: the store against a model of ten lines, on a disk whose power can be cut; what fails is shrunk to the
//! fewest steps, and its seed brings it back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use quittance::clock::{Clock, Manual};
use quittance::config::{OrderIdFrom, Paygol, ProviderSettings, Retention, Secret, Source};
use quittance::event::{AccountName, Currency, Decimal, Kind, Money, OrderId, Position, SourceName};
use quittance::provider::{Received, Verified, build_all};
use quittance::store::embedded::{Embedded, Options, RelaySink};
use quittance::store::{Committed, Outcome, Readiness, Registration, Settled, Store, Terms, Unavailable};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::disk::{MODES, Mode};
use crate::mount::Mounted;
use crate::report::{Form, Row};

const SECRET: &str = "0123456789abcdef-of-the-model";
const START_MS: i64 = 1_795_162_530_123;
const PRICES: [&str; 3] = ["7500.00", "10.00", "0.01"];
const STATUSES: [&str; 3] = ["completed", "created", "failed"];
/// A key's first statement and those that contradict it, of which events are made.
const TOLD: usize = 9;

/// What may happen to a store.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// New, a repeat or a contradiction: what was said before decides.
    Commit(Said),
    Expect {
        order: u8,
        price: u8,
    },
    /// The relay settles some, refuses some, or lets go.
    Relay {
        count: u8,
        how: u8,
    },
    /// Ten days pass.
    Expire,
    Reopen,
    /// The process dies; the machine goes on.
    Crash,
    /// The power goes, in the middle of so many more changes of the disk, while something is committed.
    PowerLoss {
        after: u8,
        mode: u8,
        said: Said,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    order: u8,
    transaction: u8,
    status: u8,
    price: u8,
    /// Decides nothing.
    method: u8,
}

fn said() -> impl Strategy<Value = Said> {
    (0..4u8, 0..5u8, 0..3u8, 0..3u8, 0..2u8).prop_map(|(order, transaction, status, price, method)| Said {
        order,
        transaction,
        status,
        price,
        method,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => said().prop_map(Step::Commit),
        3 => (0..4u8, 0..3u8).prop_map(|(order, price)| Step::Expect { order, price }),
        3 => (1..4u8, 0..4u8).prop_map(|(count, how)| Step::Relay { count, how }),
        1 => Just(Step::Expire),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        2 => (1..40u8, 0..3u8, said()).prop_map(|(after, mode, said)| Step::PowerLoss { after, mode, said }),
    ]
}

impl Said {
    fn body(self) -> String {
        let method = ["webpay", "card"][usize::from(self.method)];
        json!({
            "currency": "CLP", "custom": format!("O{}", self.order), "method": method,
            "price": PRICES[usize::from(self.price)], "service_id": "123", "status": STATUSES[usize::from(self.status)],
            "transaction_id": self.transaction.to_string(),
        })
        .to_string()
    }
}

/// Proven by its provider, as nothing else can be.
fn verified(body: String, at: Timestamp) -> Verified {
    let settings = Paygol {
        service_id: "123".into(),
        order_id_from: OrderIdFrom::Custom,
        secrets: vec![Secret::new(SECRET.into())],
        bearer: false,
    };
    let source = Source {
        name: source(),
        account: AccountName::new("paygol").expect("a name"),
        path: "/paygol".into(),
        provider: ProviderSettings::Paygol(settings),
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(body.as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-pg-sig", HeaderValue::from_str(&signature).expect("hex"));
    let received = Received {
        method: Method::POST,
        path: "/paygol".into(),
        rest: String::new(),
        query: None,
        headers,
        body: Bytes::from(body),
        remote: [127, 0, 0, 1].into(),
        at,
    };
    let provider = build_all(&[source]).remove(0);
    provider.verify(received).map_err(|refused| refused.refusal).expect("genuine")
}

fn source() -> SourceName {
    SourceName::new("paygol").expect("a name")
}

/// What the store must look like: the first statement of each key, and those that contradict it, in their order.
#[derive(Default)]
struct Model {
    keys: BTreeMap<(u8, u8), Vec<(u8, u8)>>,
    /// Of the order system that lives on while time passes.
    alive: usize,
    settled: BTreeSet<String>,
}

impl Model {
    fn commit(&mut self, said: Said) -> Outcome {
        let told = self.keys.entry((said.transaction, said.status)).or_default();
        if told.contains(&(said.order, said.price)) {
            return Outcome::Duplicate;
        }
        told.push((said.order, said.price));
        if told.len() == 1 { Outcome::New } else { Outcome::Conflict }
    }

    fn events(&self) -> usize {
        self.alive + self.keys.values().map(|told| told.len().min(TOLD)).sum::<usize>()
    }
}

/// What happened in all cases together.
#[derive(Default)]
struct Tally {
    faults: u64,
    acknowledged: u64,
}

/// A store, its model, and the disk they live on.
struct Case<'a> {
    mounted: &'a Mounted,
    runtime: &'a tokio::runtime::Runtime,
    clock: Manual,
    boots: u64,
    store: Embedded,
    model: Model,
    tally: &'a RefCell<Tally>,
}

fn options(mounted: &Mounted, clock: &Manual, boots: u64) -> Options {
    let day = Duration::from_secs(86_400);
    Options {
        path: mounted.path().join("store"),
        segment_bytes: 8 << 10,
        terms: Terms {
            accounts: BTreeMap::from([(source(), AccountName::new("paygol").expect("a name"))]),
            max_in_flight: 1024,
            index_lag: 65_536,
            retention: Retention { bodies: 90 * day, keys: 400 * day },
            fulfil_never: false,
        },
        retention_tick: Duration::from_millis(20),
        restored: false,
        restored_ended: false,
        confirm_clock: false,
        boot: format!("boot {boots}"),
        clock: Arc::new(clock.clone()),
        metrics: None,
        progress_bar: false,
        sink: Some(RelaySink { name: "amqp".into(), start: None }),
    }
}

fn opened(mounted: &Mounted, clock: &Manual, boots: u64) -> Embedded {
    let store = Embedded::open(options(mounted, clock, boots)).expect("not in use");
    let until = Instant::now() + Duration::from_secs(20);
    while store.readiness() != Readiness::Ready {
        assert!(Instant::now() < until, "not ready: {:?}", store.readiness());
        std::thread::sleep(Duration::from_millis(3));
    }
    store
}

impl<'a> Case<'a> {
    fn begin(mounted: &'a Mounted, runtime: &'a tokio::runtime::Runtime, tally: &'a RefCell<Tally>) -> Self {
        mounted.format();
        let clock = Manual::at(Timestamp::from_millisecond(START_MS).expect("a time"));
        let store = opened(mounted, &clock, 0);
        Self { mounted, runtime, clock, boots: 0, store, model: Model::default(), tally }
    }

    fn commit(&self, body: String) -> Result<Committed, Unavailable> {
        self.runtime.block_on(self.store.commit(verified(body, self.clock.now())))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Commit(said) => {
                let committed = self.commit(said.body()).expect("kept");
                assert_eq!(committed.outcome, self.model.commit(said), "{said:?}");
                self.tally.borrow_mut().acknowledged += 1;
            }
            Step::Expect { order, price } => {
                let value = Decimal::parse(PRICES[usize::from(price)]).expect("a number");
                let registration = Registration {
                    source: source(),
                    order: OrderId::new(&format!("O{order}")).expect("an order"),
                    kind: Kind::Payment,
                    amount: Money { value, currency: Currency::parse("CLP").expect("a currency") },
                    session: None,
                    indicator: None,
                    unfit: None,
                    expires_at: self.clock.now() + SignedDuration::from_hours(24),
                };
                let _ = self.runtime.block_on(self.store.expect(registration));
            }
            Step::Relay { count, how } => {
                for due in self.store.due("amqp", usize::from(count)).expect("readable") {
                    let event = due.event.to_string();
                    assert!(!self.model.settled.contains(&event), "settled, and due again without a crash");
                    let how = match how {
                        0 => Settled::Delivered,
                        1 => Settled::Dead("no".into()),
                        2 => Settled::Refused("not now".into()),
                        _ => Settled::Released,
                    };
                    if matches!(how, Settled::Delivered | Settled::Dead(_)) {
                        self.model.settled.insert(event);
                    }
                    self.store.settle("amqp", due.position, how);
                }
            }
            Step::Expire => {
                // Slowly enough for the clock to be trusted: the order system lives on.
                for _ in 0..6 {
                    let now = self.clock.now() + SignedDuration::from_hours(40);
                    self.clock.set(now);
                    let body = json!({
                        "currency": "CLP", "custom": format!("alive-{now}"), "price": "1.00", "service_id": "123",
                        "status": "completed", "transaction_id": format!("alive-{now}"),
                    });
                    self.commit(body.to_string()).expect("kept");
                    self.model.alive += 1;
                    self.tally.borrow_mut().acknowledged += 1;
                }
            }
            Step::Reopen => {
                self.store.close();
                self.reopen();
            }
            Step::Crash => {
                self.mounted.disk().cut_now();
                self.store.close();
                self.mounted.restart_process();
                self.died();
            }
            Step::PowerLoss { after, mode, said } => {
                let mode: Mode = MODES[usize::from(mode)];
                let claimed = self.store.due("amqp", 2).expect("readable");
                claimed.iter().for_each(|due| self.store.settle("amqp", due.position, Settled::Delivered));
                self.mounted.cut_after(u64::from(after));
                let outcome = self.commit(said.body()).map(|committed| committed.outcome);
                self.mounted.disk().cut_now();
                self.store.close();
                self.mounted.restart(mode, u64::from(after));
                self.boots += 1;
                self.died();
                match outcome {
                    Ok(outcome) => assert_eq!(outcome, self.model.commit(said), "{said:?}"),
                    // Nobody was told whether it is kept: its repeat tells.
                    Err(_) => drop(self.commit(said.body()).map(|_| self.model.commit(said)).expect("kept")),
                }
                self.tally.borrow_mut().acknowledged += 1;
            }
        }
        self.judge();
    }

    /// Progress of the last second may be gone; the same events come again with the same ids.
    fn died(&mut self) {
        self.tally.borrow_mut().faults += 1;
        self.model.settled.clear();
        self.reopen();
    }

    fn reopen(&mut self) {
        // The former one holds the lock until it is dropped.
        let mounted = self.mounted;
        let (clock, boots) = (self.clock.clone(), self.boots);
        let nobody = tempfile::tempdir().expect("a folder");
        let idle = Options { path: nobody.path().join("store"), ..options(mounted, &clock, boots) };
        let former = std::mem::replace(&mut self.store, Embedded::open(idle).expect("not in use"));
        drop(former);
        let store = opened(mounted, &clock, boots);
        std::mem::replace(&mut self.store, store).close();
    }

    fn judge(&self) {
        let entries = self.store.events(Position(0), 100_000).expect("readable");
        let read = |entry: &quittance::store::FeedEntry| serde_json::from_slice(&entry.event).expect("JSON");
        let events: Vec<Value> = entries.iter().map(read).collect();
        let derived = events.iter().filter(|event| event["data"]["relates_to"]["as"] != "settles").count();
        assert_eq!(derived, self.model.events(), "every kept notification is one event");
        let (mut told, mut sequences) = (BTreeSet::new(), BTreeMap::<String, u64>::new());
        for event in &events {
            let data = &event["data"];
            if data["verdict"] == "fulfil" || data["verdict"] == "compare" {
                let payment = (data["transaction_id"].to_string(), data["status"].to_string());
                assert!(told.insert(payment), "told twice: {event}");
            }
            assert!(data["verdict"] != "fulfil" || data["expectation"] == "match", "{event}");
            let last = sequences.entry(data["order_id"].to_string()).or_default();
            assert_eq!(data["sequence"], *last + 1, "{event}");
            *last += 1;
        }
        assert_eq!(self.store.figures().damage, 0, "a crash is no damage");
    }
}

/// The section.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let _inside = runtime.enter();
    let (mounted, tally) = (Mounted::new(), RefCell::new(Tally::default()));
    let (cases, steps) = form.pick((12, 30), (300, 60));
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&form.seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let outcome = runner.run(&prop::collection::vec(step(), 10..steps), |steps| {
        let mut case = Case::begin(&mounted, &runtime, &tally);
        steps.into_iter().for_each(|step| case.step(step));
        case.store.close();
        Ok::<(), TestCaseError>(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => return Err(format!("{why}, with these steps:\n{steps:#?}")),
        Err(TestError::Abort(why)) => return Err(format!("given up: {why}")),
    }
    let Tally { faults, acknowledged } = tally.into_inner();
    if faults < u64::from(cases) {
        return Err(format!("too little happened: {faults} crashes in {cases} cases"));
    }
    let what = format!("{cases} lives of a store against a model");
    Ok(vec![Row { faults, acknowledged, ..Row::new("model", what, form, began) }])
}
