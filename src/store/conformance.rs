//! What every store promises, as tests: `suite` runs all of it against one that can be opened, closed and killed.
//!
//! Notifications come through a real provider (Paygol, whose HMAC is cheap), since nothing else makes a `Verified`.

pub mod by_hand;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Method};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;

use super::*;
use crate::clock::{Clock, Manual};
use crate::config::source::{CLICKPAY_FIELDS, CLICKPAY_OPTIONAL_FIELDS};
use crate::config::{
    ClickKw, ClickPay, OrderIdFrom, Pages, Paygol as PaygolSettings, ProviderSettings, Secret, Source,
};
use crate::event::{AccountName, Currency, Decimal, Reason};
use crate::provider::browser::PageUrl;
use crate::provider::rsa_recovery::PublicKey;
use crate::provider::{Provider, Received, build_all};

/// A store that can be opened again, or killed first.
pub trait Subject {
    /// Opens it, or what a kill left of it, and waits until it is ready.
    fn open(&mut self) -> Arc<dyn Store>;
    /// From now on `open` gives what a kill at this moment leaves.
    fn kill(&mut self);
    /// The clock it goes by.
    fn clock(&self) -> &Manual;
}

/// The sources that the suite's stores know: two of one account, one whose buyers' browsers come back, and two of
/// different accounts that share a ClickPay key.
pub fn accounts() -> BTreeMap<SourceName, AccountName> {
    let account = |name: &str| AccountName::new(name).expect("a name");
    [
        ("paygol", "shop"),
        ("paygol-b", "shop"),
        ("clickkw", "clickkw"),
        ("clickpay-a", "shop-a"),
        ("clickpay-b", "shop-b"),
    ]
    .into_iter()
    .map(|(source, of)| (name(source), account(of)))
    .collect()
}

/// A source's name.
pub fn name(text: &str) -> SourceName {
    SourceName::new(text).expect("a name")
}

/// What a test notification says.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its source.
    pub source: &'static str,
    /// `custom`.
    pub order: String,
    /// `transaction_id`.
    pub transaction: String,
    /// `status`.
    pub status: &'static str,
    /// `price`, CLP.
    pub price: &'static str,
    /// `method`: decides nothing.
    pub method: &'static str,
}

impl Said {
    /// An ordinary payment.
    pub fn paid(order: &str, transaction: &str) -> Self {
        Self {
            source: "paygol",
            order: order.into(),
            transaction: transaction.into(),
            status: "completed",
            price: "7500.00",
            method: "webpay",
        }
    }

    /// Proven by its provider.
    pub fn verified(&self, at: Timestamp) -> Verified {
        const SECRET: &str = "0123456789abcdef-conformance";
        let settings = PaygolSettings {
            service_id: "123".into(),
            order_id_from: OrderIdFrom::Custom,
            secrets: vec![Secret::new(SECRET.into())],
            bearer: false,
        };
        let body = format!(
            r#"{{"currency":"CLP","custom":"{}","method":"{}","price":"{}","service_id":"123","status":"{}","transaction_id":"{}"}}"#,
            self.order, self.method, self.price, self.status, self.transaction
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
        mac.update(body.as_bytes());
        let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("x-pg-sig", HeaderValue::from_str(&signature).expect("hex"));
        let source = source(self.source, ProviderSettings::Paygol(settings));
        let received = received(Method::POST, "/paygol", "", None, headers, body, at);
        built(&source).verify(received).map_err(|refused| refused.refusal).expect("genuine")
    }
}

fn source(of: &str, provider: ProviderSettings) -> Source {
    let account = accounts().remove(&name(of)).expect("known");
    Source { name: name(of), account, path: format!("/{of}"), provider }
}

/// The provider of a source that stands alone.
fn built(source: &Source) -> Arc<dyn Provider> {
    build_all(std::slice::from_ref(source)).remove(0)
}

fn received(
    method: Method,
    path: &str,
    rest: &str,
    query: Option<String>,
    headers: HeaderMap,
    body: String,
    at: Timestamp,
) -> Received {
    let remote = std::net::Ipv4Addr::LOCALHOST.into();
    let (path, rest, body) = (path.to_owned(), rest.to_owned(), Bytes::from(body));
    Received { method, path, rest, query, headers, body, remote, at }
}

/// A return of a buyer at Click KW; `accept` is the source's `accept_indicator`.
pub fn returned(order: &str, message: &str, indicator: Option<&str>, accept: bool, at: Timestamp) -> Verified {
    let page = |text: &str| PageUrl::parse(text).expect("a URL");
    let settings = ClickKw {
        currency: Currency::parse("KWD").expect("a code"),
        return_secret: Secret::new("return-secret-of-the-suite".into()),
        accept_indicator: accept,
        pages: Pages {
            success: page("https://shop.example/ok"),
            failure: page("https://shop.example/no"),
            pending: None,
        },
    };
    let provider = built(&source("clickkw", ProviderSettings::ClickKw(settings)));
    let path = provider.return_path(&OrderId::new(order).expect("an order")).expect("has one");
    let rest = path.strip_prefix("/clickkw").expect("under the source's path").to_owned();
    let kind = if message == "success" { "success" } else { "wrong" };
    let indicator = indicator.map(|i| format!("&indicator_status={i}")).unwrap_or_default();
    let query = Some(format!("message={message}&message_type={kind}{indicator}"));
    let received = received(Method::GET, &path, &rest, query, HeaderMap::new(), String::new(), at);
    provider.verify(received).map_err(|refused| refused.refusal).expect("the tag is right")
}

/// The protocol's sample payment S1 at `clickpay-a`, whose account shares its key with `clickpay-b`'s. Their shops write
/// order numbers as these patterns say.
pub fn clickpay(order_patterns: [Option<&str>; 2], at: Timestamp) -> Verified {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/it/fixtures/clickpay/vectors.json")).expect("JSON");
    let vector = |name: &str| vectors[name].as_str().expect("a vector").to_owned();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let settings = |order_pattern: Option<&str>| {
        ProviderSettings::ClickPay(ClickPay {
            currency: Currency::parse("IDR").expect("a code"),
            order_pattern: order_pattern.map(str::to_owned),
            amount_pattern: None,
            fields: names(&CLICKPAY_FIELDS),
            optional_fields: names(&CLICKPAY_OPTIONAL_FIELDS),
            public_keys: vec![PublicKey::parse(&vector("public_1024")).expect("a key")],
        })
    };
    let [of_a, of_b] = order_patterns.map(settings);
    let provider = build_all(&[source("clickpay-a", of_a), source("clickpay-b", of_b)]).remove(0);
    let mut body: serde_json::Value = serde_json::from_str(&vector("s1_body")).expect("JSON");
    body["platSign"] = vector("s1_sign").into();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let received = received(Method::POST, "/clickpay-a", "", None, headers, body.to_string(), at);
    provider.verify(received).map_err(|refused| refused.refusal).expect("genuine")
}

/// An expectation of 24 hours.
pub fn expectation(source: &str, order: &str, amount: &str, currency: &str, now: Timestamp) -> Registration {
    Registration {
        source: name(source),
        order: OrderId::new(order).expect("an order"),
        kind: Kind::Payment,
        amount: money(amount, currency),
        session: None,
        indicator: None,
        expires_at: now + SignedDuration::from_hours(24),
        unfit: None,
    }
}

/// Some money.
pub fn money(value: &str, currency: &str) -> Money {
    Money { value: Decimal::parse(value).expect("a number"), currency: Currency::parse(currency).expect("a code") }
}

/// The feed's events as JSON.
pub fn feed(store: &dyn Store) -> Vec<serde_json::Value> {
    let entries = store.events(Position(0), 10_000).expect("readable");
    entries.iter().map(|entry| serde_json::from_slice(&entry.event).expect("JSON")).collect()
}

fn word(event: &serde_json::Value, key: &str) -> String {
    event["data"][key].as_str().unwrap_or("null").to_owned()
}

/// All promises, each on a store of its own.
pub async fn suite<S: Subject>(mut fresh: impl FnMut() -> S) {
    a_repeat_is_no_second_event(fresh()).await;
    two_statements_of_one_key_are_a_conflict_and_kept(fresh()).await;
    sources_of_an_account_tell_a_payment_once(fresh()).await;
    an_expectation_is_fulfilled_once(fresh()).await;
    an_ambiguous_string_is_not_told_while_another_account_may_be_meant(&mut fresh).await;
    registrations_answer_as_promised(fresh()).await;
    an_expectation_that_expired_is_registered_anew(fresh()).await;
    a_late_expectation_settles_what_was_held(fresh()).await;
    indicators_count_once_and_the_right_one_is_never_shut_out(fresh()).await;
    orders_go_out_one_at_a_time_and_in_order(fresh()).await;
    progress_and_dead_letters_survive(fresh()).await;
    lists_and_timelines_show_what_happened(fresh()).await;
    a_clock_that_jumps_holds_everything(fresh()).await;
    by_hand::suite(fresh).await;
}

async fn a_repeat_is_no_second_event<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    let first = store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    assert_eq!((first.outcome, first.verdict), (Outcome::New, Verdict::Compare));
    // A repeat that differs in what decides nothing is still the same.
    let again = Said { method: "card", ..Said::paid("A", "1") };
    for _ in 0..3 {
        let repeat = store.commit(again.verified(at)).await.expect("known");
        assert_eq!((repeat.outcome, repeat.event, repeat.verdict), (Outcome::Duplicate, first.event, first.verdict));
    }
    subject.kill();
    store.close();
    let store = subject.open();
    let repeat = store.commit(again.verified(at)).await.expect("known after a kill");
    assert_eq!((repeat.outcome, repeat.event), (Outcome::Duplicate, first.event));
    assert_eq!(feed(&*store).len(), 1);
    store.close();
}

async fn two_statements_of_one_key_are_a_conflict_and_kept<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    let original = store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    let twin = Said { price: "1.00", ..Said::paid("A", "1") };
    let conflict = store.commit(twin.verified(at)).await.expect("kept");
    assert_eq!((conflict.outcome, conflict.verdict), (Outcome::Conflict, Verdict::Hold));
    assert_eq!(conflict.alarms, [Alarm::Conflict]);
    let repeat = store.commit(twin.verified(at)).await.expect("known");
    assert_eq!((repeat.outcome, repeat.event), (Outcome::Duplicate, conflict.event), "a conflict's repeat repeats it");
    let events = feed(&*store);
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["data"]["relates_to"]["id"].as_str(), original.event.map(|id| id.to_string()).as_deref());
    // At most eight become events.
    for n in 0..20 {
        let price: &'static str = Box::leak(format!("{}.00", n + 2).into_boxed_str());
        let more = store.commit(Said { price, ..Said::paid("A", "1") }.verified(at)).await.expect("acknowledged");
        assert_eq!(more.outcome, Outcome::Conflict);
    }
    assert_eq!(feed(&*store).len(), 1 + 8);
    store.close();
}

async fn sources_of_an_account_tell_a_payment_once<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    let one = store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    let other = Said { source: "paygol-b", ..Said::paid("A", "1") };
    let two = store.commit(other.verified(at)).await.expect("kept");
    assert_eq!((one.verdict, two.outcome, two.verdict), (Verdict::Compare, Outcome::New, Verdict::None));
    let events = feed(&*store);
    assert_eq!(events[1]["data"]["reasons"], serde_json::json!([Reason::AlreadyTold]));
    assert_eq!(events[1]["data"]["relates_to"]["as"], "repeats");
    store.close();
}

async fn an_expectation_is_fulfilled_once<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    store.expect(expectation("paygol", "A", "7500", "CLP", at)).await.expect("registered");
    let first = store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    assert_eq!(first.verdict, Verdict::Fulfil);
    subject.kill();
    store.close();
    let store = subject.open();
    let second = store.commit(Said::paid("A", "2").verified(at)).await.expect("kept");
    assert_eq!(second.verdict, Verdict::Hold, "paid twice");
    store.expect(expectation("paygol", "B", "7500", "CLP", at)).await.expect("registered");
    let wrong = store.commit(Said { price: "0.01", ..Said::paid("B", "3") }.verified(at)).await.expect("kept");
    assert_eq!(wrong.verdict, Verdict::Hold, "another amount");
    let reasons: Vec<_> = feed(&*store).iter().map(|event| event["data"]["reasons"][0].clone()).collect();
    assert_eq!(reasons[1..], ["paid_twice", "amount_mismatch"]);
    store.close();
}

async fn an_ambiguous_string_is_not_told_while_another_account_may_be_meant<S: Subject>(fresh: &mut impl FnMut() -> S) {
    const SENT: &str = "T1231511321515";
    type Expected<'a> = Option<(&'a str, &'a str, &'a str)>;
    let thirteen = Some("^[0-9]{13}$");
    // What is expected besides the sent decision, how both shops write their numbers, and what becomes of it.
    let cases: [(&str, Expected, [Option<&str>; 2], Verdict); 6] = [
        ("nothing else", None, [None, None], Verdict::Fulfil),
        ("another cut's order", Some(("clickpay-b", "1231511321515", "10000")), [None, None], Verdict::Hold),
        ("the same of another account", Some(("clickpay-b", SENT, "10000.00")), [None, None], Verdict::Hold),
        ("another amount", Some(("clickpay-b", "1231511321515", "99999")), [None, None], Verdict::Fulfil),
        (
            "what only the other shop's numbers allow",
            Some(("clickpay-b", "1231511321515", "10000")),
            [Some("^T[0-9]{13}$"), thirteen],
            Verdict::Hold,
        ),
        (
            "what the other shop's numbers do not allow",
            Some(("clickpay-b", SENT, "10000")),
            [None, thirteen],
            Verdict::Fulfil,
        ),
    ];
    for (what, other, patterns, verdict) in cases {
        let mut subject = fresh();
        let store = subject.open();
        let at = subject.clock().now();
        store.expect(expectation("clickpay-a", SENT, "10000", "IDR", at)).await.expect("registered");
        if let Some((source, order, amount)) = other {
            store.expect(expectation(source, order, amount, "IDR", at)).await.expect("registered");
        }
        let verified = clickpay(patterns, at);
        assert_eq!(verified.assurance, crate::event::Assurance::Ambiguous, "{what}");
        let told = store.commit(verified).await.expect("kept");
        assert_eq!(told.verdict, verdict, "{what}");
        store.close();
    }
}

async fn registrations_answer_as_promised<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    let register = |amount: &str, session: Option<&str>| {
        let session = session.map(str::to_owned);
        store.expect(Registration { session, ..expectation("paygol", "A", amount, "CLP", at) })
    };
    assert!(!register("7500", None).await.expect("new").existed);
    assert!(register("7500.00", None).await.expect("the same").existed);
    assert_eq!(register("7501", None).await, Err(ExpectError::Contradicts));
    for n in 1..8 {
        assert!(!register("7500", Some(&n.to_string())).await.expect("another session").existed);
    }
    assert_eq!(register("7500", Some("9")).await, Err(ExpectError::TooManyOpen));
    let unfit = |order: &str| Registration { unfit: Some("why"), ..expectation("paygol", order, "6", "KWD", at) };
    assert_eq!(store.expect(unfit("A")).await, Err(ExpectError::Contradicts), "an open order contradicts first");
    assert_eq!(store.expect(unfit("B")).await, Err(ExpectError::Unfit("why")));
    subject.clock().set(at + SignedDuration::from_hours(25));
    assert_eq!(store.expect(unfit("A")).await, Err(ExpectError::Unfit("why")), "it is open no more");
    let stranger = Registration { source: name("nobody"), ..expectation("paygol", "A", "1", "CLP", at) };
    assert_eq!(store.expect(stranger).await, Err(ExpectError::NoSource));
    store.close();
}

async fn an_expectation_that_expired_is_registered_anew<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    let first = store.expect(expectation("paygol", "A", "7500", "CLP", at)).await.expect("new");
    subject.clock().set(at + SignedDuration::from_hours(25));
    let now = subject.clock().now();
    let late = store.commit(Said::paid("A", "1").verified(now)).await.expect("kept");
    assert_eq!(late.verdict, Verdict::Hold, "its time is over");
    let again = store.expect(expectation("paygol", "A", "7500", "CLP", now)).await.expect("new again");
    assert!(!again.existed && again.expires_at > first.expires_at, "{again:?}");
    let told: Vec<_> = feed(&*store).iter().map(|event| word(event, "verdict")).collect();
    assert_eq!(told, ["hold", "fulfil"], "what came too late is settled by it");
    // What was fulfilled is not expected once more by asking again.
    subject.clock().set(now + SignedDuration::from_hours(25));
    let third = store.expect(expectation("paygol", "A", "7500", "CLP", subject.clock().now())).await.expect("known");
    assert!(third.existed);
    store.close();
}

async fn a_late_expectation_settles_what_was_held<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    store.expect(expectation("paygol", "A", "1.00", "CLP", at)).await.expect("registered");
    let held = store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    assert_eq!(held.verdict, Verdict::Hold);
    subject.clock().set(at + SignedDuration::from_hours(25));
    let now = subject.clock().now();
    store.expect(expectation("paygol", "A", "7500.00", "CLP", now)).await.expect("the first has expired");
    let events = feed(&*store);
    assert_eq!(events.len(), 2);
    assert_eq!((word(&events[1], "verdict").as_str(), word(&events[1], "expectation").as_str()), ("fulfil", "match"));
    assert_eq!(events[1]["data"]["reasons"], serde_json::json!(["settled"]));
    assert_eq!(events[1]["data"]["relates_to"], serde_json::json!({"id": events[0]["id"], "as": "settles"}));
    assert_eq!(
        (&events[1]["data"]["sequence"], &events[1]["data"]["expected_amount"]["value"]),
        (&2.into(), &"7500.00".into())
    );
    // Settled once: neither a repeat nor another registration tells it again.
    store.commit(Said::paid("A", "1").verified(at)).await.expect("known");
    store.expect(expectation("paygol", "A", "7500.00", "CLP", now)).await.expect("known");
    assert_eq!(feed(&*store).len(), 2);
    store.close();
}

async fn indicators_count_once_and_the_right_one_is_never_shut_out<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    let register = |order: &str, session: &str, indicator: &str| Registration {
        session: Some(session.to_owned()),
        indicator: Some(crate::provider::Bearer::new(indicator)),
        ..expectation("clickkw", order, "6.000", "KWD", at)
    };
    store.expect(register("42", "s1", "right-1")).await.expect("registered");
    for n in 0..40 {
        let wrong =
            store.commit(returned("42", "success", Some(&format!("wrong-{n}")), true, at)).await.expect("answered");
        assert!(!wrong.indicator_right && wrong.alarms == [Alarm::WrongIndicator], "{wrong:?}");
    }
    store.commit(returned("42", "success", None, true, at)).await.expect("answered");
    assert!(feed(&*store).len() <= 16, "wrong ones are kept up to a bound, the missing one among them");
    let declined = store.commit(returned("42", "error", Some("ERROR1"), true, at)).await.expect("kept");
    let declined_again = store.commit(returned("42", "error", Some("ERROR2"), true, at)).await.expect("known");
    assert_eq!((declined.verdict, declined.status), (Verdict::None, Status::Pending));
    assert_eq!(declined_again.outcome, Outcome::Duplicate);
    let paid = store.commit(returned("42", "success", Some("right-1"), true, at)).await.expect("kept");
    assert_eq!((paid.verdict, paid.status, paid.indicator_right), (Verdict::Fulfil, Status::Paid, true));
    let back = store.commit(returned("42", "success", Some("right-1"), true, at)).await.expect("known");
    assert_eq!((back.outcome, back.order_paid), (Outcome::Duplicate, true));
    let button = store.commit(returned("42", "error", Some("ERROR3"), true, at)).await.expect("known");
    assert!(button.order_paid, "who paid is not sent to the failure page");
    let odd = store.commit(returned("42", "error", Some("right-1"), true, at)).await.expect("kept");
    assert_eq!(odd.verdict, Verdict::Hold, "the right indicator with an error contradicts itself");
    // Without accept_indicator the browser is not believed; a second session of the order is right as well.
    store.expect(register("43", "s1", "right-2")).await.expect("registered");
    store.expect(register("43", "s2", "right-3")).await.expect("registered");
    let held = store.commit(returned("43", "success", Some("right-3"), false, at)).await.expect("kept");
    assert_eq!((held.verdict, held.status), (Verdict::Hold, Status::Paid));
    // Nothing registered: unknown and held, until it is.
    let early = store.commit(returned("44", "success", Some("right-4"), true, at)).await.expect("kept");
    assert_eq!((early.verdict, early.status), (Verdict::Hold, Status::Unknown));
    store.expect(register("44", "s1", "right-4")).await.expect("registered");
    let last = feed(&*store).pop().expect("an event");
    assert_eq!((last["type"].as_str(), word(&last, "verdict").as_str()), (Some("payment.paid"), "fulfil"));
    store.close();
}

async fn orders_go_out_one_at_a_time_and_in_order<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    for (order, transaction) in [("A", "1"), ("A", "2"), ("B", "3"), ("A", "4")] {
        store.commit(Said::paid(order, transaction).verified(at)).await.expect("kept");
    }
    let first = store.due("amqp", 10).expect("readable");
    assert_eq!(first.len(), 2, "one of A, one of B");
    assert!(store.due("amqp", 10).expect("readable").is_empty(), "what is claimed is not handed out again");
    store.settle("amqp", first[0].position, Settled::Released);
    let again = store.due("amqp", 10).expect("readable");
    assert_eq!((again.len(), again[0].event, again[0].attempts), (1, first[0].event, 0));
    store.settle("amqp", again[0].position, Settled::Refused("nack".into()));
    let again = store.due("amqp", 10).expect("readable");
    assert_eq!((again[0].event, again[0].attempts), (first[0].event, 1));
    store.settle("amqp", again[0].position, Settled::Delivered);
    let second = store.due("amqp", 10).expect("readable");
    assert_eq!(second.len(), 1);
    assert!(second[0].position > again[0].position && second[0].position < store.due_head());
    store.close();
}

async fn progress_and_dead_letters_survive<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    for n in 0..3 {
        store.commit(Said::paid(&format!("P{n}"), &n.to_string()).verified(at)).await.expect("kept");
    }
    let due = store.due("amqp", 10).expect("readable");
    let before = *store.head().borrow();
    store.settle("amqp", due[1].position, Settled::Dead("refused".into()));
    store.settle("amqp", due[2].position, Settled::Delivered);
    store.acknowledge("books", due[0].position);
    until("progress is written", || store.head().borrow().0 >= before.0 + 3).await;
    subject.kill();
    store.close();
    let store = subject.open();
    let due = store.due("amqp", 10).expect("readable");
    assert_eq!(due.len(), 1, "only what is not settled comes again");
    let kept = store.notifications(&Filter::default(), None, 10).expect("readable").notifications;
    let deliveries = store.notification(kept[2].id).expect("readable").expect("kept").deliveries;
    assert_eq!(deliveries.iter().map(|d| d.sink.as_str()).collect::<Vec<_>>(), ["feed:books"]);
    let dead = store.notification(kept[1].id).expect("readable").expect("kept").deliveries;
    assert_eq!(dead.iter().map(|d| d.result.as_str()).collect::<Vec<_>>(), ["dead: refused"]);
    store.close();
}

async fn lists_and_timelines_show_what_happened<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    store.expect(expectation("paygol", "A", "7500", "CLP", at)).await.expect("registered");
    let paid = store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    store.commit(Said::paid("A", "1").verified(at)).await.expect("known");
    store.commit(Said { status: "failed", ..Said::paid("B", "2") }.verified(at)).await.expect("kept");
    let order = OrderId::new("A").expect("an order");
    let what: Vec<_> = store.order(&name("paygol"), &order).expect("readable").iter().map(|entry| entry.what).collect();
    assert_eq!(what, ["expectation", "notification", "event"]);
    let kept = store.notification(paid.notification).expect("readable").expect("there");
    assert_eq!((kept.item.times_seen, kept.item.verdict), (2, Verdict::Fulfil));
    assert!(kept.request.is_some_and(|request| request.method == "POST"));
    let failed = Filter { status: Some(Status::Failed), ..Filter::default() };
    let page = store.notifications(&failed, None, 10).expect("readable");
    assert_eq!((page.notifications.len(), page.next), (1, None));
    let page = store.notifications(&Filter::default(), None, 1).expect("readable");
    assert_eq!(page.notifications[0].order_id.as_ref().map(OrderId::as_str), Some("B"), "newest first");
    let rest = store.notifications(&Filter::default(), page.next, 10).expect("readable");
    assert_eq!(rest.notifications.len(), 1);
    store.close();
}

async fn a_clock_that_jumps_holds_everything<S: Subject>(mut subject: S) {
    let store = subject.open();
    let at = subject.clock().now();
    store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    for (jump, order) in [(SignedDuration::from_hours(-24), "B"), (SignedDuration::from_hours(24 * 730), "C")] {
        subject.clock().set(at + jump);
        let held = store.commit(Said::paid(order, order).verified(subject.clock().now())).await.expect("kept");
        assert_eq!(held.verdict, Verdict::Hold, "{jump:?}");
    }
    subject.clock().set(at + SignedDuration::from_hours(1));
    let fine = store.commit(Said::paid("D", "4").verified(subject.clock().now())).await.expect("kept");
    assert_eq!(fine.verdict, Verdict::Compare, "the doubtful times did not become the measure");
    store.close();
}

/// Waits for something that happens on another thread.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within ten seconds: {what}");
}

/// A small addition for the suite's own reading.
trait Head {
    fn due_head(&self) -> Position;
}

impl Head for Arc<dyn Store> {
    fn due_head(&self) -> Position {
        Position(self.head().borrow().0 + 1)
    }
}
