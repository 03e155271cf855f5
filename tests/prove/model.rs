//! Section `model`: the store against a model of ten lines, on a disk whose power can be cut; what fails is shrunk to the
//! fewest steps, and its seed brings it back.

mod made;
mod owed;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use quittance::clock::{Clock, Manual};
use quittance::event::{Currency, Decimal, Kind, Money, OrderId, Position};
use quittance::store::embedded::{AMQP, Embedded, Options};
use quittance::store::operate::{ByHand, Operate as _};
use quittance::store::replaying::{Replay, Selection};
use quittance::store::{Committed, Due, Filter, Outcome, Registration, Settled, Store, Unavailable};
use serde_json::{Value, json};

use crate::disk::{MODES, Mode};
use crate::mount::Mounted;
use crate::report::{Form, Row};
use made::{BODIES, PATIENCE, opened, options, source, verified};
use owed::{Owed, Relay};

const START_MS: i64 = 1_795_162_530_123;
const PRICES: [&str; 3] = ["7500.00", "10.00", "0.01"];
const STATUSES: [&str; 3] = ["completed", "created", "failed"];
/// More than the relay is owed at once.
const ALL: usize = 100_000;
/// The store hands nothing out beyond so many that were settled out of order.
const BEYOND: usize = 100;
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
    /// Ten days pass; the relay may have been through with everything before.
    Expire {
        through: bool,
    },
    /// Somebody asks for some of what was refused for good.
    Retry {
        count: u8,
    },
    /// Somebody asks for some of an order's events, or of all, once more.
    Replay {
        order: Option<u8>,
        count: u8,
    },
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
        2 => prop::bool::weighted(0.7).prop_map(|through| Step::Expire { through }),
        2 => (1..4u8).prop_map(|count| Step::Retry { count }),
        2 => (prop::option::of(0..4u8), 1..6u8).prop_map(|(order, count)| Step::Replay { order, count }),
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

/// What the store must look like: the first statement of each key, and those that contradict it, in their order.
#[derive(Default)]
struct Model {
    keys: BTreeMap<(u8, u8), Vec<(u8, u8)>>,
    /// Of the order system that lives on while time passes.
    alive: usize,
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

    /// How many notifications are kept, and how many events were made of them.
    fn kept(&self) -> (usize, usize) {
        let lengths = self.keys.values().map(Vec::len);
        (self.alive + lengths.clone().sum::<usize>(), self.alive + lengths.map(|told| told.min(TOLD)).sum::<usize>())
    }
}

/// An event as it was when it was new.
struct Told {
    body: Bytes,
    event: Value,
    at: Timestamp,
}

/// What happened in all cases together.
#[derive(Default)]
struct Tally {
    faults: u64,
    acknowledged: u64,
    /// Events that were sent once more because somebody asked.
    redelivered: u64,
    /// Bodies that retention took.
    expired: u64,
}

/// A store, its model, and the disk they live on.
struct Case<'a> {
    mounted: &'a Mounted,
    runtime: &'a tokio::runtime::Runtime,
    clock: Manual,
    boots: u64,
    store: Embedded,
    model: Model,
    told: BTreeMap<Position, Told>,
    /// The feed was read up to here.
    looked: Position,
    relay: Relay,
    replays: u32,
    tally: &'a RefCell<Tally>,
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        self.store.close();
    }
}

impl<'a> Case<'a> {
    fn begin(mounted: &'a Mounted, runtime: &'a tokio::runtime::Runtime, tally: &'a RefCell<Tally>) -> Self {
        mounted.format();
        let clock = Manual::at(Timestamp::from_millisecond(START_MS).expect("a time"));
        let store = opened(mounted, &clock, 0);
        Self {
            mounted,
            runtime,
            clock,
            boots: 0,
            store,
            model: Model::default(),
            told: BTreeMap::new(),
            looked: Position(0),
            relay: Relay::default(),
            replays: 0,
            tally,
        }
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
                for due in self.store.due(AMQP, usize::from(count)).expect("readable") {
                    let how = match how {
                        0 => Settled::Delivered,
                        1 => Settled::Dead("no".into()),
                        2 => Settled::Refused("not now".into()),
                        _ => Settled::Released,
                    };
                    self.settle(&due, how);
                }
            }
            Step::Retry { count } => {
                if self.letters().len() < self.relay.dead() {
                    // They are told a second later at the latest, and by a stop at once.
                    self.stop_and_start();
                }
                let letters: Vec<Position> = self.letters().into_iter().take(usize::from(count)).collect();
                self.redeliver(&letters, AMQP);
            }
            Step::Replay { order, count } => {
                let order = order.map(|order| OrderId::new(&format!("O{order}")).expect("an order"));
                let wanted = |told: &Told| order.as_ref().is_none_or(|o| told.event["data"]["order_id"] == o.as_str());
                let all = self.told.values().filter(|told| wanted(told)).count();
                let selection = Selection::Filter(Filter { order: order.clone(), ..Filter::default() });
                let head = *self.store.head().borrow();
                let mut found = self.store.find(&selection, Position(0), head, ALL).expect("readable");
                assert_eq!(found.events.len() + found.gone as usize, all, "of {order:?}, {found:?}");
                found.events.truncate(usize::from(count));
                self.redeliver(&found.events, "");
            }
            Step::Expire { through } => {
                if through {
                    self.deliver_all();
                }
                // Slowly enough for the clock to be trusted: the order system lives on.
                (0..6).for_each(|_| self.live_on(40));
                if through {
                    self.wait_for_retention();
                }
                // Whatever went, what was told once is told once.
                for (&(transaction, status), told) in &self.model.keys {
                    let (order, price) = told[0];
                    let again = Said { order, transaction, status, price, method: 1 };
                    assert_eq!(self.commit(again.body()).expect("known").outcome, Outcome::Duplicate, "{again:?}");
                }
            }
            Step::Reopen => self.stop_and_start(),
            Step::Crash => {
                self.mounted.disk().cut_now();
                self.store.close();
                self.mounted.restart_process();
                self.died();
            }
            Step::PowerLoss { after, mode, said } => {
                let mode: Mode = MODES[usize::from(mode)];
                for due in self.store.due(AMQP, 2).expect("readable") {
                    self.settle(&due, Settled::Delivered);
                }
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

    fn settle(&mut self, due: &Due, how: Settled) {
        match how {
            Settled::Delivered | Settled::Dead(_) => self.relay.settle(due.position, how != Settled::Delivered),
            Settled::Refused(_) | Settled::Released => {}
        }
        self.store.settle(AMQP, due.position, how);
    }

    /// The relay gets through with everything.
    fn deliver_all(&mut self) {
        loop {
            let due = self.store.due(AMQP, ALL).expect("readable");
            if due.is_empty() {
                return;
            }
            due.iter().for_each(|due| self.settle(due, Settled::Delivered));
        }
    }

    fn letters(&self) -> BTreeSet<Position> {
        let letters = self.store.dead_letters(Position(0), ALL).expect("readable");
        letters.into_iter().map(|letter| letter.position).collect()
    }

    /// Asks for events once more, for the sink or for everybody.
    fn redeliver(&mut self, events: &[Position], sink: &str) {
        if events.is_empty() {
            return;
        }
        self.replays += 1;
        let replay = Replay {
            id: format!("replay-{}", self.replays),
            request: json!({ "asked_by": "model" }).to_string(),
            up_to: *self.store.head().borrow(),
            count: events.len() as u64,
            ended: Some("done".into()),
        };
        let by = ByHand::new("model", "asked for").expect("good");
        let written = self.store.note_replay(replay.clone(), events, sink, Some(by));
        let places = self.runtime.block_on(written).expect("kept");
        self.tally.borrow_mut().redelivered += events.len() as u64;
        for (at, event) in places.into_iter().zip(events) {
            let data = &self.told[event].event;
            let (id, order) = (text(&data["id"]), text(&data["data"]["order_id"]));
            // One whose body went between the look and the write is not sent, and nothing is owed.
            if self.has_body(*event) {
                self.relay.owes(at, Owed { event: *event, id, order, replay: Some(replay.id.clone()) });
            }
        }
    }

    fn has_body(&self, event: Position) -> bool {
        let entries = self.store.events(Position(event.0 - 1), 1).expect("readable");
        entries.first().is_some_and(|entry| entry.position == event)
    }

    /// Time passes, and the order system lives on: so slowly that the clock is trusted.
    fn live_on(&mut self, hours: i64) {
        let now = self.clock.now() + SignedDuration::from_hours(hours);
        self.clock.set(now);
        let body = json!({
            "currency": "CLP", "custom": format!("alive-{now}"), "price": "1.00", "service_id": "123",
            "status": "completed", "transaction_id": format!("alive-{now}"),
        });
        self.commit(body.to_string()).expect("kept");
        self.model.alive += 1;
        self.tally.borrow_mut().acknowledged += 1;
        self.look();
    }

    /// What nobody needs any more goes, once all of its segment is old.
    fn wait_for_retention(&mut self) {
        let old = self.clock.now() - SignedDuration::from_hours(24 * 9);
        let places: Vec<Position> = self.told.keys().copied().collect();
        let letters = self.letters();
        let is_free = |at: Position| !self.is_held(at) && !self.relay.needs(at) && !letters.contains(&at);
        // Sixteen events fill more than a segment: that of the first one is sealed, and all of it is old.
        let first = places.windows(16).map(|some| (some[0], some[10])).find(|(first, _)| is_free(*first));
        let Some((first, _)) = first.filter(|(_, tenth)| self.told[tenth].at < old) else { return };
        let (until, mut soon) = (Instant::now() + PATIENCE, Instant::now() + PATIENCE / 10);
        while self.has_body(first) {
            if self.letters().contains(&first) {
                // Refused for good and asked for once more before its letter was written: the letter keeps it.
                return;
            }
            if Instant::now() > soon {
                // A segment is looked at once a day, and at this one while something in it was still needed.
                self.live_on(25);
                soon = Instant::now() + PATIENCE / 10;
            }
            assert!(Instant::now() < until, "the body of {first} is needed by nobody, and does not go");
            std::thread::sleep(Duration::from_millis(3));
        }
        self.tally.borrow_mut().expired += 1;
    }

    /// Whether an event waits for somebody's word.
    fn is_held(&self, at: Position) -> bool {
        let event = &self.told[&at].event;
        let settles = |told: &Told| {
            let about = &told.event["data"]["relates_to"];
            about["as"] == "settles" && about["id"] == event["id"]
        };
        event["data"]["verdict"] == "hold" && !self.told.values().any(settles)
    }

    /// A clean stop, after which nothing is in doubt.
    fn stop_and_start(&mut self) {
        self.store.close();
        self.relay.stopped();
        self.reopen();
        self.relay.compare_letters(&self.letters());
    }

    /// Progress of the last second may be gone; the same events come again with the same ids.
    fn died(&mut self) {
        self.tally.borrow_mut().faults += 1;
        self.reopen();
        self.relay.crashed(&self.letters());
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

    /// Takes up what is new in the feed; what was there is as it was, or gone because its time is over.
    fn look(&mut self) {
        for entry in self.store.events(self.looked, ALL).expect("readable") {
            self.looked = entry.position;
            let event: Value = serde_json::from_slice(&entry.event).expect("JSON");
            if entry.replay.is_none() {
                let (id, order) = (text(&event["id"]), text(&event["data"]["order_id"]));
                self.relay.owes(entry.position, Owed { event: entry.position, id, order, replay: None });
                self.told.insert(entry.position, Told { body: entry.event, event, at: self.clock.now() });
            }
        }
    }

    fn judge(&mut self) {
        self.look();
        let listed = self.store.notifications(&Filter::default(), None, ALL).expect("readable").notifications.len();
        let derived = self.told.values().filter(|told| told.event["data"]["relates_to"]["as"] != "settles").count();
        assert_eq!((listed, derived), self.model.kept(), "notifications that are listed, and events of them");
        let (mut told, mut sequences) = (BTreeSet::new(), BTreeMap::<String, u64>::new());
        for Told { event, .. } in self.told.values() {
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
        self.judge_relay();
        self.judge_bodies();
        assert_eq!(self.store.figures().damage, 0, "a crash is no damage");
    }

    /// Everything that could be handed out now is what is owed, word for word.
    fn judge_relay(&mut self) {
        if self.relay.beyond() > BEYOND {
            return;
        }
        let due = self.store.due(AMQP, ALL).expect("readable");
        for due in &due {
            if let Some(owed) = self.relay.at(due.position) {
                assert_eq!(due.body, self.told[&owed.event].body, "{owed:?}");
            }
            self.store.settle(AMQP, due.position, Settled::Released);
        }
        self.relay.compare(&due);
    }

    /// What the feed still shows is as it was; what it does not show any more is old, and nobody needs it.
    fn judge_bodies(&self) {
        let shown = self.store.events(Position(0), ALL).expect("readable");
        let shown: BTreeMap<Position, _> = shown.into_iter().map(|entry| (entry.position, entry)).collect();
        let recent = self.clock.now() - SignedDuration::try_from(BODIES).expect("five days");
        for (at, told) in &self.told {
            match shown.get(at) {
                Some(entry) => assert_eq!(entry.event, told.body, "at {at}"),
                None => {
                    let may_go = told.at < recent && !self.is_held(*at) && !self.relay.needs(*at);
                    assert!(may_go, "the body at {at} is gone, and is needed: {}", told.event);
                }
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The section.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let _inside = runtime.enter();
    let (mounted, tally) = (Mounted::new(), RefCell::new(Tally::default()));
    let (cases, steps) = form.pick((14, 40), (250, 60));
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        max_shrink_time: 180_000,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&form.seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let outcome = runner.run(&prop::collection::vec(step(), 1..steps), |steps| {
        let mut case = Case::begin(&mounted, &runtime, &tally);
        steps.into_iter().for_each(|step| case.step(step));
        case.deliver_all();
        case.relay.all_is_told();
        Ok::<(), TestCaseError>(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => {
            let steps: String =
                steps.iter().enumerate().map(|(at, step)| format!("{:>4}. {step:?}\n", at + 1)).collect();
            return Err(format!("{why}, with these steps and no fewer:\n{steps}"));
        }
        Err(TestError::Abort(why)) => return Err(format!("given up: {why}")),
    }
    let Tally { faults, acknowledged, redelivered, expired } = tally.into_inner();
    if faults < u64::from(cases) || redelivered < u64::from(cases) || expired == 0 {
        let what = format!("{faults} crashes, {redelivered} events asked for again, {expired} waits for retention");
        return Err(format!("too little happened in {cases} cases: {what}"));
    }
    let what = format!("{cases} lives of a store against a model");
    Ok(vec![Row { faults, acknowledged, repeated: redelivered, ..Row::new("model", what, form, began) }])
}
