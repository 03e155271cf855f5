//! The legacy notification against the published vector and every way in which its key was got wrong.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::config::{ProviderSettings, Source};
use crate::event::Money;

const SECRET: &str = "7c1a6a24-7943-102d-92f8-29573711ad31";
const L1: &str = "transaction_id=ZISS-A7Q8-RE2Z-S73W&service_id=123&country=ES&custom=100042&price=6800.00&currency=CLP\
    &frmprice=10.00&frmcurrency=EUR&method=webpay&key=7c1a6a24-7943-102d-92f8-29573711ad31";

fn provider(secrets: &[&str]) -> PaygolLegacy {
    let settings = config::PaygolLegacy {
        service_id: "123".to_owned(),
        order_id_from: OrderIdFrom::Custom,
        secrets: secrets.iter().map(|text| Secret::new((*text).to_owned())).collect(),
    };
    let source = Source {
        name: SourceName::new("paygol-ipn").expect("a name"),
        account: AccountName::new("shop").expect("a name"),
        path: "/paygol/ipn".to_owned(),
        provider: ProviderSettings::PaygolLegacy(settings.clone()),
    };
    PaygolLegacy::new(&source, &settings)
}

fn get(query: &str) -> Received {
    Received {
        method: Method::GET,
        path: "/paygol/ipn".to_owned(),
        rest: String::new(),
        query: Some(query.to_owned()),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        remote: IpAddr::from([109, 70, 3, 48]),
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn post(query: &str, body: &str) -> Received {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
    Received { method: Method::POST, headers, body: Bytes::copy_from_slice(body.as_bytes()), ..get(query) }
}

fn verify(received: Received) -> Result<Verified, Refused> {
    provider(&[SECRET]).verify(received)
}

#[track_caller]
fn refusal(received: Received) -> Refusal {
    verify(received).expect_err("it is refused").refusal
}

#[test]
fn the_published_notification_reads_as_what_it_says_and_its_key_is_cut() {
    let verified = verify(get(L1)).expect("genuine");
    let details = &verified.details;
    assert!(matches!(verified.claim, Claim::Status(Status::Paid)));
    assert_eq!((verified.scheme, verified.key, verified.assurance), ("key", 1, Assurance::Bearer));
    assert_eq!(details.order_id.as_ref().map(OrderId::as_str), Some("100042"));
    let shown = |amount: &Option<Money>| amount.as_ref().map(Money::to_string);
    assert_eq!(shown(&details.amount).as_deref(), Some("6800.00 CLP"));
    assert_eq!(shown(&details.requested_amount).as_deref(), Some("10.00 EUR"));
    assert_eq!(details.provider_fields, [("service_id".to_owned(), "123".to_owned())]);
    assert_eq!(
        verified.cuts.iter().map(|cut| (cut.place, &L1[cut.range.clone()])).collect::<Vec<_>>(),
        [(Place::Query, SECRET)]
    );
    assert!(verified.problems.is_empty());
}

#[test]
fn a_form_is_the_same_notification_wherever_its_parameters_stand() {
    let original = verify(get(L1)).expect("genuine");
    let (front, key) = L1.split_once("&key=").expect("a key");
    let in_body = verify(post("", L1)).expect("genuine");
    let split = verify(post(front, &format!("key={key}"))).expect("genuine");
    for (verified, place) in [(&in_body, Place::Body), (&split, Place::Body)] {
        assert_eq!((verified.idempotency, verified.digest), (original.idempotency, original.digest));
        assert_eq!((&verified.details, verified.cuts[0].place), (&original.details, place));
    }
}

#[test]
fn a_key_that_is_not_exactly_the_secret_is_refused() {
    let with = |key: &str| refusal(get(&L1.replace(&format!("&key={SECRET}"), key)));
    assert_eq!(with(""), Refusal::NoSignature);
    assert_eq!(with("&key="), Refusal::NoSignature);
    assert_eq!(with(&format!("&KEY={SECRET}")), Refusal::NoSignature);
    assert_eq!(with(&format!("&key[]={SECRET}")).label(), "malformed");
    assert_eq!(with(&format!("&key%5B%5D={SECRET}&key={SECRET}")).label(), "malformed");
    assert_eq!(with(&format!("&key={SECRET}&key={SECRET}")).label(), "malformed");
    for wrong in [&SECRET.to_uppercase(), "0", "true", &SECRET[..35], &format!("{SECRET}0"), &format!("+{SECRET}")] {
        assert_eq!(with(&format!("&key={wrong}")).label(), "bad_signature", "{wrong}");
    }
    let both = post(L1, &format!("key={SECRET}"));
    assert_eq!(refusal(both), Refusal::Malformed("a parameter stands in query and body"));
}

#[test]
fn an_empty_secret_is_nobodys() {
    for query in [L1.replace(SECRET, ""), L1.to_owned(), L1.replace("&key=", "&k=")] {
        assert!(provider(&[""]).verify(get(&query)).is_err(), "{query}");
    }
}

#[test]
fn a_wrong_key_is_not_kept_readable_either() {
    let query = L1.replace("ad31", "ad32");
    let mut request = get(&query);
    let uri = format!("/paygol/ipn?{query}");
    request.headers.insert("x-original-uri", HeaderValue::from_str(&uri).expect("a header"));
    let refused = verify(request).expect_err("it is refused");
    assert!(refused.may_be_genuine && refused.received.headers.is_empty());
    assert_eq!(&query[refused.cuts[0].range.clone()], SECRET.replace("ad31", "ad32"));
    let repeated = verify(get(&format!("{L1}&foo=x{SECRET}"))).expect_err("it is refused");
    assert_eq!(repeated.cuts.len(), 2, "the key, and the parameter that repeats it");
    let unreadable = verify(get(&format!("{L1}&a=%"))).expect_err("it is refused");
    assert_eq!(unreadable.cuts, [Cut { place: Place::Query, range: 0..L1.len() + 4 }]);
}

#[test]
fn the_key_is_in_nothing_that_is_relayed_or_printed() {
    let verified = verify(get(L1)).expect("genuine");
    let details = format!("{:?}{:?}", verified.details, verified.details.provider_fields);
    assert!(!details.contains(SECRET));
    for query in [format!("{L1}&message=x{SECRET}"), L1.replace("100042", SECRET), format!("{L1}&{SECRET}=1")] {
        assert_eq!(refusal(get(&query)).label(), "malformed", "{query}");
    }
}

#[test]
fn the_service_and_every_part_of_the_key_must_be_there() {
    assert_eq!(refusal(get(&L1.replace("service_id=123", "service_id=124"))), Refusal::WrongService);
    assert_eq!(refusal(get(&L1.replace("service_id=123&", ""))).label(), "malformed");
    assert_eq!(refusal(get(&L1.replace("transaction_id=ZISS-A7Q8-RE2Z-S73W", "transaction_id="))).label(), "malformed");
}

#[test]
fn message_id_is_the_older_name_of_transaction_id() {
    let original = verify(get(L1)).expect("genuine");
    let older = verify(get(&L1.replace("transaction_id", "message_id"))).expect("genuine");
    assert_eq!((older.idempotency, older.digest), (original.idempotency, original.digest));
    assert!(verify(get(&format!("{L1}&message_id=ZISS-A7Q8-RE2Z-S73W"))).is_ok());
    assert_eq!(refusal(get(&format!("{L1}&message_id=other"))).label(), "malformed");
}

#[test]
fn what_is_authentic_but_unreadable_is_kept_with_its_reason() {
    let problems = |from: &str, to: &str| verify(get(&L1.replace(from, to))).expect("authentic").problems;
    assert_eq!(problems("custom=100042", "custom="), [Reason::NoOrder]);
    assert_eq!(problems("&price=6800.00", "&price=6.800,00"), [Reason::AmountUnreadable]);
    assert_eq!(problems("&price=6800.00", ""), [Reason::AmountUnreadable]);
    assert_eq!(problems("frmprice=10.00", "frmprice=ten"), [Reason::AmountUnreadable]);
    assert!(problems("&frmprice=10.00&frmcurrency=EUR", "").is_empty());
}

#[test]
fn unknown_parameters_are_told_and_the_sender_is_personal() {
    let verified = verify(get(&format!("{L1}&sender=34600000000&points=5&new=a+b"))).expect("genuine");
    assert_eq!(verified.details.payer.phone.as_deref(), Some("34600000000"));
    for (name, value) in [("points", "5"), ("new", "a b")] {
        assert!(verified.details.provider_fields.contains(&(name.to_owned(), value.to_owned())));
    }
}

#[test]
fn another_price_under_the_same_transaction_is_another_statement() {
    let original = verify(get(L1)).expect("genuine");
    for (from, to) in
        [("6800.00", "6800.01"), ("frmprice=10.00", "frmprice=1.00"), ("=EUR", "=USD"), ("100042", "100043")]
    {
        let other = verify(get(&L1.replace(from, to))).expect("authentic");
        assert!(other.idempotency == original.idempotency && other.digest != original.digest, "{to}");
    }
}

#[test]
fn other_methods_and_bodies_are_refused() {
    assert_eq!(refusal(Received { method: Method::PUT, ..get(L1) }), Refusal::Method);
    let mut json = post("", "{}");
    json.headers.insert("content-type", HeaderValue::from_static("application/json"));
    assert_eq!(refusal(json), Refusal::ContentType);
}

proptest! {
    #[test]
    fn any_request_is_judged_without_panic(query in "[ -~]{0,200}", body in prop::collection::vec(any::<u8>(), 0..200)) {
        let request = Received { body: body.into(), ..get(&query) };
        prop_assert!(verify(request).is_err());
    }
}
