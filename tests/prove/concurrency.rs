//! Section `concurrency`: what must be decided one after another arrives all at once.

mod under_load;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::consumer::{self, Consumer};
use crate::fixtures::{self, GEM_API_SIGNATURE, PAYGOL_SECRET};
use crate::harness::Daemon;
use crate::http::{self, Answer};
use crate::letters::supply;
use crate::node;
use crate::report::{Form, Row};
use crate::scene::{Scene, connected, until_settled};
use crate::world::{Plan, World, list};

/// Identical ones that come at once.
const CROWD: usize = 200;
/// Numbers that the senders do not come to.
const FAR: u64 = 100_000_000;
/// Contradicting ones of a key: more than become events.
const TWINS: usize = 12;
/// Of contradictions of one key so many become events, besides the first statement.
const EVENTS: usize = 8;

/// The section.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    let rows = [identical, contradicting, racing, under_load::reloads, under_load::replays];
    rows.iter().map(|row| row(form)).collect()
}

/// Sends all at once, each on a connection of its own; the answers in the same order.
fn at_once(to: SocketAddr, requests: &[Vec<u8>]) -> Result<Vec<Answer>, String> {
    let ready = Barrier::new(requests.len());
    let ready = &ready;
    let answers: Vec<std::io::Result<Answer>> = std::thread::scope(|scope| {
        let send = |request: &'_ Vec<u8>| {
            let request = request.clone();
            scope.spawn(move || {
                let mut stream = http::connect(to)?;
                ready.wait();
                std::io::Write::write_all(&mut stream, &request)?;
                http::read_answer(&mut stream)
            })
        };
        let threads: Vec<_> = requests.iter().map(send).collect();
        threads.into_iter().map(|thread| thread.join().expect("no sender panics")).collect()
    });
    answers.into_iter().map(|answer| answer.map_err(|error| format!("no answer: {error}"))).collect()
}

/// Two hundred of the same, again and again, while others post: one is kept, all are acknowledged.
fn identical(form: &Form) -> Result<Row, String> {
    let began = Instant::now();
    let node = node::shared();
    let scene = Scene::on(&node);
    let plan = Plan::new(&scene, 5, form.seed);
    let mut world = World::begin(scene, plan);
    let rounds = form.pick(8, 60);
    let mut crowds = Vec::new();
    let letters = supply(FAR).into_iter().flatten().filter(|letter| letter.registration.is_none());
    for letter in letters.take(rounds) {
        let requests = vec![letter.request.clone(); CROWD];
        for answer in at_once(world.daemon.public, &requests)? {
            if !letter.is_acknowledged_by(&answer) {
                return Err(format!("one of {CROWD} identical ones is answered {answer:?}"));
            }
        }
        crowds.push(letter.claim);
        world.faults += CROWD as u64 - 1;
    }
    world.posted(form.pick(100, 2_000), Duration::from_secs(60))?;
    let history = world.end_with(crowds, (rounds * (CROWD - 1)) as u64)?;
    Row::judged("concurrency", format!("{CROWD} identical ones at once, {rounds} times"), form, began, &history)
}

/// A daemon that relays, and its events once all of them have come.
struct Small<'a> {
    scene: Scene<'a>,
    daemon: Daemon,
    consumer: Consumer,
}

impl<'a> Small<'a> {
    fn begin(scene: Scene<'a>, form: &Form) -> Self {
        let daemon = Daemon::with(Plan::new(&scene, 5, form.seed).config);
        connected(&daemon);
        let consumer = scene.consumer();
        consumer.wait_until_ready();
        Self { scene, daemon, consumer }
    }

    /// The events by their orders, each order by its sequence: as listed, and as delivered.
    fn end(self) -> Result<BTreeMap<String, Vec<Value>>, String> {
        let events: Vec<Value> = list(&self.daemon)?.into_iter().filter(|item| item["event_id"].is_string()).collect();
        self.consumer.wait_for(events.len(), Duration::from_secs(60));
        until_settled(&self.daemon);
        self.consumer.wait_for_silence(Duration::from_millis(300));
        let messages = self.consumer.messages();
        let tally = consumer::judge(&messages)?;
        if tally.delivered != events.len() {
            return Err(format!("{} events are listed, {} were delivered", events.len(), tally.delivered));
        }
        let mut orders: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for message in messages {
            let order = format!("{}", message.event["data"]["order_id"]);
            let order = orders.entry(order).or_default();
            if !order.contains(&message.event) {
                order.push(message.event);
            }
        }
        drop(self.scene);
        Ok(orders)
    }
}

/// One key, many statements, all at once: one is the first, eight are told as contradictions, all are kept.
fn contradicting(form: &Form) -> Result<Row, String> {
    let began = Instant::now();
    let node = node::shared();
    let small = Small::begin(Scene::on(&node), form);
    let rounds = form.pick(15, 200);
    for round in 0..rounds {
        let twin = |at: usize| {
            let fields = fixtures::paygol(json!({
                "transaction_id": format!("T-{round}"), "custom": format!("order-{round}"), "price": format!("{}.00", at + 1)
            }));
            let signature = fixtures::paygol_signature(&fields, PAYGOL_SECRET);
            let headers = [("Content-Type", "application/json"), ("X-Pg-Sig", signature.as_str())];
            http::request("POST", "/paygol", &headers, fields.to_string().as_bytes())
        };
        let requests: Vec<_> = (0..TWINS).map(twin).collect();
        for answer in at_once(small.daemon.public, &requests)? {
            if answer.status != 200 {
                return Err(format!("a contradiction is authentic too, and is answered {answer:?}"));
            }
        }
    }
    let kept = list(&small.daemon)?;
    let count = |outcome: &str| kept.iter().filter(|item| item["outcome"] == outcome).count();
    if (count("accepted"), count("conflict")) != (rounds, rounds * (TWINS - 1)) {
        return Err(format!("{} accepted and {} conflicts of {rounds} keys", count("accepted"), count("conflict")));
    }
    let orders = small.end()?;
    for events in orders.values() {
        let first = &events[0];
        let contradict = |event: &&Value| {
            let data = &event["data"];
            let about = data["relates_to"]["id"] == first["id"] && data["relates_to"]["as"] == "contradicts";
            about && data["verdict"] == "hold" && data["reasons"] == json!(["conflict"])
        };
        let held = events.iter().skip(1).filter(contradict).count();
        if first["data"]["verdict"] != "compare" || held != EVENTS || events.len() != EVENTS + 1 {
            return Err(format!("{held} contradictions of {events:#?}"));
        }
    }
    let faults = rounds * (TWINS - 1);
    let what = format!("{TWINS} that contradict each other at once, {rounds} times");
    Ok(Row {
        faults: faults as u64,
        acknowledged: (rounds * TWINS) as u64,
        ..Row::new("concurrency", what, form, began)
    })
}

/// Return and notification of one order at once, and one payment at two sources of an account: it is told to be booked
/// once at most.
fn racing(form: &Form) -> Result<Row, String> {
    let began = Instant::now();
    let node = node::shared();
    let small = Small::begin(Scene::on(&node), form);
    let rounds = form.pick(15, 200);
    let mut acknowledged = 0;
    for round in 1..=rounds {
        let daemon = &small.daemon;
        let form_of = [("Content-Type", "application/x-www-form-urlencoded")];
        let session = json!({ "session_id": format!("{round:032x}") });
        let gem = daemon.expects("clickgem", &format!("gem-{round}"), ("5", "CGM"), session);
        let indicator = format!("kw-indicator-{round:08}");
        let session = json!({ "session_id": format!("s-{round}"), "indicator_status": indicator });
        let kw = daemon.expects("clickkw-trust", &round.to_string(), ("6.000", "KWD"), session);
        let paid =
            fixtures::pay_in(json!({ "orderNum": format!("T{round:013}"), "platOrderNum": format!("55{round:016}") }));
        let paid = fixtures::clickpay_body(&paid, "clickpay-1024").to_string();
        let post = |path: &str| http::request("POST", path, &[("Content-Type", "application/json")], paid.as_bytes());
        let returned = format!("{kw}?message=success&message_type=success&indicator_status={indicator}");
        let declined = format!("{kw}?message=error&message_type=wrong&indicator_status=ERROR5");
        let requests = [
            http::request("POST", &gem, &form_of, format!("api_signature={GEM_API_SIGNATURE}&status=paid").as_bytes()),
            http::request("GET", &format!("{gem}?getid={round:032x}"), &[], b""),
            http::request("GET", &returned, &[], b""),
            http::request("GET", &declined, &[], b""),
            post("/clickpay"),
            post("/clickpay/twin"),
        ];
        for (at, answer) in at_once(daemon.public, &requests)?.iter().enumerate() {
            let page = answer.header("location").unwrap_or_default();
            let taken = if at < 4 { answer.status == 303 && !page.ends_with("order=") } else { answer.status == 200 };
            if !taken {
                return Err(format!("request {at} of a race is answered {answer:?}"));
            }
            acknowledged += 1;
        }
    }
    let kept = list(&small.daemon)?.len() as u64;
    if kept != acknowledged {
        return Err(format!("{acknowledged} different ones were acknowledged, {kept} are kept"));
    }
    let orders = small.end()?;
    let told = |events: &Vec<Value>| {
        events
            .iter()
            .filter(|event| event["data"]["verdict"] == "fulfil" || event["data"]["verdict"] == "compare")
            .count()
    };
    let orders_told = orders.values().filter(|events| told(events) == 1).count();
    if let Some(twice) = orders.values().find(|events| told(events) > 1) {
        return Err(format!("one payment is told to be booked twice: {twice:#?}"));
    }
    // Click KW by its indicator, ClickPay by its signature; ClickGem is held for ever.
    if orders_told != 2 * rounds {
        return Err(format!("{orders_told} of {} payments are told to be booked", 2 * rounds));
    }
    let what = format!("return and notification of an order at once, {rounds} times");
    Ok(Row { faults: 3 * rounds as u64, acknowledged, ..Row::new("concurrency", what, form, began) })
}
