//! Click KW's returns, with tags made by the openssl command line.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::super::{Cut, Place};
use super::*;
use crate::config::{ProviderSettings, Secret, Source};
use crate::event::{Currency, EventId, NotificationId};
use crate::provider::browser::PageUrl;
use crate::provider::browser::tests::openssl_tag;
use crate::store::{Alarm, Outcome};

const SECRET: &str = "a-return-secret-of-ours";
const INDICATOR: &str = "8bd3b7a5c2f1400b";

fn provider_with(pending: Option<&str>) -> ClickKw {
    let page = |text: &str| PageUrl::parse(text).expect("a page");
    let settings = config::ClickKw {
        currency: Currency::parse("KWD").expect("a code"),
        return_secret: Secret::new(SECRET.to_owned()),
        accept_indicator: true,
        pages: Pages {
            success: page("https://shop.example.com/thanks?order={order_id}"),
            failure: page("https://shop.example.com/sorry?order={order_id}"),
            pending: pending.map(page),
        },
    };
    let source = Source {
        name: SourceName::new("clickkw").expect("a name"),
        account: AccountName::new("clickkw").expect("a name"),
        path: "/clickkw".to_owned(),
        provider: ProviderSettings::ClickKw(settings.clone()),
    };
    ClickKw::new(&source, &settings)
}

fn provider() -> ClickKw {
    provider_with(None)
}

fn get(rest: &str, query: Option<&str>) -> Received {
    Received {
        method: Method::GET,
        path: format!("/clickkw{rest}"),
        rest: rest.to_owned(),
        query: query.map(str::to_owned),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        remote: std::net::IpAddr::from([203, 0, 113, 7]),
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn rest(order: &str) -> String {
    format!("/{order}/{}", openssl_tag(SECRET, "clickkw", order))
}

fn success() -> String {
    format!("message=success&message_type=success&indicator_status={INDICATOR}")
}

#[track_caller]
fn refusal(rest: &str, query: &str) -> Refusal {
    provider().verify(get(rest, Some(query))).expect_err("it is refused").refusal
}

#[test]
fn the_return_url_is_the_one_that_openssl_makes() {
    let order = OrderId::new("42").expect("an order");
    assert_eq!(provider().return_path(&order), Some(format!("/clickkw{}", rest("42"))));
    assert_eq!(provider().return_path(&OrderId::new("4/2").expect("an order")), None);
}

#[test]
fn a_return_names_its_order_its_word_and_its_indicator_which_is_cut() {
    let rest = rest("42");
    let verified = provider().verify(get(&rest, Some(&success()))).expect("its tag is right");
    let Claim::Indicator { success: true, indicator: Some(indicator) } = &verified.claim else { panic!("a claim") };
    assert_eq!(indicator.expose(), INDICATOR);
    assert_eq!(verified.details.order_id.as_ref().map(OrderId::as_str), Some("42"));
    assert_eq!(
        (verified.assurance, verified.scheme, verified.accept_indicator),
        (Assurance::Browser, "return-url", true)
    );
    assert_eq!(verified.details.amount, None);
    let cut = |cut: &Cut| match cut.place {
        Place::Path => verified.received.path[cut.range.clone()].to_owned(),
        Place::Query => success()[cut.range.clone()].to_owned(),
        Place::Body => String::new(),
    };
    assert_eq!(verified.cuts.iter().map(cut).collect::<Vec<_>>(), [&rest[4..], INDICATOR]);
    let told = [("message", "success"), ("message_type", "success")];
    assert_eq!(verified.details.provider_fields, told.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn an_error_is_an_error_and_its_indicator_goes_along() {
    let query = "message=error&message_type=wrong&indicator_status=ERROR17";
    let verified = provider().verify(get(&rest("42"), Some(query))).expect("its tag is right");
    let Claim::Indicator { success: false, indicator: Some(indicator) } = &verified.claim else { panic!("a claim") };
    assert_eq!(indicator.expose(), "ERROR17");
    let without =
        provider().verify(get(&rest("42"), Some("message=error&indicator_status="))).expect("its tag is right");
    assert!(matches!(without.claim, Claim::Indicator { success: false, indicator: None }));
}

#[test]
fn it_does_not_matter_how_the_gateway_appends() {
    let (rest, success) = (rest("42"), success());
    let plain = provider().verify(get(&rest, Some(&success))).expect("its tag is right");
    for (rest, query) in [
        (rest.clone(), Some(format!("utm=1?{success}"))),
        (rest.clone(), Some(success.replace('&', "?"))),
        (format!("{rest}&{success}"), None),
        (format!("{rest}&message=success"), Some(success.replace("message=success&", ""))),
    ] {
        let request = get(&rest, query.as_deref());
        let verified = provider().verify(request.clone()).expect("its tag is right");
        assert_eq!((verified.idempotency, verified.digest), (plain.idempotency, plain.digest));
        let kept = |cut: &Cut| match cut.place {
            Place::Path => request.path[cut.range.clone()].to_owned(),
            Place::Query => query.as_deref().unwrap_or_default()[cut.range.clone()].to_owned(),
            Place::Body => String::new(),
        };
        assert!(verified.cuts.iter().map(kept).any(|cut| cut == INDICATOR), "{rest} {query:?}");
    }
}

#[test]
fn a_tag_belongs_to_one_order_of_one_source() {
    let tag = |source: &str, order: &str| openssl_tag(SECRET, source, order);
    for wrong in [
        format!("/43/{}", tag("clickkw", "42")),
        format!("/42/{}", tag("other", "42")),
        format!("/42/{}", openssl_tag("another-secret-of-ours", "clickkw", "42")),
        "/42/x".to_owned(),
        format!("/42/{}=", tag("clickkw", "42")),
        format!("/42/{}", tag("clickkw", "42").to_lowercase()),
        format!("/42/{}", &tag("clickkw", "42")[..21]),
        format!("/42/{}/", tag("clickkw", "42")),
    ] {
        let refused = provider().verify(get(&wrong, Some(&success()))).expect_err("it is refused");
        assert_eq!((refused.refusal, refused.may_be_genuine), (Refusal::WrongTag, true), "{wrong}");
        assert!(refused.cuts.iter().any(|cut| cut.place == Place::Query && success()[cut.range.clone()] == *INDICATOR));
    }
    for missing in ["", "/", "/42", "/42/"] {
        assert_eq!(refusal(missing, &success()), Refusal::NoSignature, "{missing}");
    }
    assert_eq!(refusal("/4%32/x", &success()).label(), "malformed");
}

#[test]
fn what_says_nothing_or_cannot_be_read_is_refused() {
    for query in [
        "",
        "message[]=success&message_type=success",
        "message=success&message=error&message_type=success",
        "message=success&message_type=success&x=%",
    ] {
        assert_eq!(refusal(&rest("42"), query).label(), "malformed", "{query}");
    }
    let post = Received { method: Method::POST, ..get(&rest("42"), Some(&success())) };
    assert_eq!(provider().verify(post).expect_err("it is refused").refusal, Refusal::Method);
}

#[test]
fn a_message_that_nobody_knows_is_kept_and_held_once_for_an_order() {
    let of = |query: &str| provider().verify(get(&rest("42"), Some(query))).expect("its tag is right");
    let contradicting =
        ["message=success&message_type=error", "message=success&message_type=wrong&indicator_status=x"].map(of);
    let unknown = ["message=Success&message_type=success", "message=1&message_type=success"].map(of);
    for (verified, problem) in
        contradicting.iter().zip([Reason::Contradiction; 2]).chain(unknown.iter().zip([Reason::FieldSet; 2]))
    {
        assert!(matches!(verified.claim, Claim::Status(Status::Unknown)));
        assert_eq!(verified.problems, [problem]);
    }
    assert_eq!(contradicting[0].idempotency, contradicting[1].idempotency);
    assert_eq!(unknown[0].idempotency, unknown[1].idempotency);
    assert_ne!(unknown[0].idempotency, contradicting[0].idempotency);
}

#[test]
fn secrets_that_stand_twice_are_kept_nowhere() {
    let rest = rest("42");
    let mut request = get(&rest, Some(&format!("{}&session={INDICATOR}&back={}", success(), &rest[4..])));
    for (name, value) in [("referer", &rest), ("cookie", &"a=b".to_owned()), ("x-uri", &success())] {
        request.headers.insert(name, HeaderValue::from_str(value).expect("a header"));
    }
    let verified = provider().verify(request).expect("its tag is right");
    assert!(verified.received.headers.is_empty());
    assert!(verified.details.provider_fields.iter().all(|(name, _)| name.starts_with("message")));
    assert_eq!(verified.cuts.len(), 4);
    assert!(!format!("{verified:?}").contains(INDICATOR));
}

fn committed(status: Status, verdict: Verdict, indicator_right: bool, order_paid: bool) -> Committed {
    Committed {
        outcome: Outcome::New,
        notification: NotificationId::from_bytes([1; 16]),
        event: Some(EventId::from_bytes([2; 16])),
        order: OrderId::new("42"),
        kind: Kind::Payment,
        status,
        verdict,
        indicator_right,
        order_paid,
        alarms: Vec::new(),
    }
}

#[test]
fn nobody_who_may_have_paid_is_sent_to_the_failure_page() {
    let provider = provider_with(Some("https://shop.example.com/wait?order={order_id}"));
    let page = |committed: &Committed| match provider.answer(committed) {
        Answer::SeeOther(page) => page.split(['/', '?']).nth(3).expect("a page").to_owned(),
        Answer::Phrase(phrase) => panic!("{phrase}"),
    };
    let cases = [
        (Status::Paid, Verdict::Fulfil, true, true, "thanks"),
        (Status::Paid, Verdict::None, true, true, "thanks"),
        (Status::Paid, Verdict::Hold, true, true, "wait"),
        (Status::Unknown, Verdict::Hold, true, false, "wait"),
        (Status::Unknown, Verdict::Hold, false, false, "sorry"),
        (Status::Unknown, Verdict::Hold, false, true, "thanks"),
        (Status::Pending, Verdict::None, false, false, "sorry"),
        (Status::Pending, Verdict::None, false, true, "thanks"),
    ];
    for (status, verdict, right, paid, expected) in cases {
        assert_eq!(page(&committed(status, verdict, right, paid)), expected, "{status} {verdict} {right} {paid}");
    }
    let forged =
        Committed { alarms: vec![Alarm::WrongIndicator], ..committed(Status::Unknown, Verdict::Hold, false, true) };
    assert_eq!(page(&forged), "sorry", "a wrong indicator is no sign of a payment, also where there was one");
    let held = committed(Status::Paid, Verdict::Hold, true, true);
    assert_eq!(self::provider().answer(&held), Answer::SeeOther("https://shop.example.com/thanks?order=42".to_owned()));
    let empty = RefusalStyle::Browser("https://shop.example.com/sorry?order=".to_owned());
    assert_eq!(self::provider().refusal_style(), empty, "a refusal names no order");
}

#[test]
fn the_gateway_carries_small_numbers_only() {
    let carries = |order: &str| provider().carries_order(&OrderId::new(order).expect("an order"));
    assert!(carries("1") && carries("9999999999"));
    for bad in ["0", "01", "12345678901", "T1", "-1", "1 "] {
        assert!(!carries(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_request_is_judged_without_panic(rest in "[ -~]{0,60}", query in "[ -~]{0,100}") {
        prop_assert!(provider().verify(get(&rest, Some(&query))).is_err());
    }

    #[test]
    fn any_query_at_a_right_url_is_judged_without_panic(query in "[ -~]{0,100}", tail in "[ -~]{0,40}") {
        let rest = format!("{}&{tail}", provider().return_path(&OrderId::new("42").expect("an order")).expect("a path").split_off(8));
        let request = get(&rest, Some(&query));
        let cuts = match provider().verify(request.clone()) {
            Ok(verified) => verified.cuts,
            Err(refused) => refused.cuts,
        };
        for cut in cuts {
            let place = match cut.place { Place::Path => &request.path, _ => &query };
            prop_assert!(place.get(cut.range).is_some());
        }
    }
}
