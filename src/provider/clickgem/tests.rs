//! ClickGem's two ways back, with tags made by the openssl command line.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::super::Cut;
use super::*;
use crate::config::{ProviderSettings, Source};
use crate::event::{EventId, NotificationId};
use crate::provider::browser::PageUrl;
use crate::provider::browser::tests::openssl_tag;
use crate::store::Outcome;

const SECRET: &str = "a-return-secret-of-ours";
const API_SIGNATURE: &str = "Sig-0123456789abcdef";
const GETID: &str = "25271cc72dca94b28ead9829fb317e06";

fn provider_with(api_signature: &str) -> ClickGem {
    let page = |text: &str| PageUrl::parse(text).expect("a page");
    let settings = config::ClickGem {
        api_signature: Secret::new(api_signature.to_owned()),
        return_secret: Secret::new(SECRET.to_owned()),
        pages: Pages {
            success: page("https://shop.example.com/thanks?order={order_id}"),
            failure: page("https://shop.example.com/sorry?order={order_id}"),
            pending: Some(page("https://shop.example.com/wait?order={order_id}")),
        },
    };
    let source = Source {
        name: SourceName::new("clickgem").expect("a name"),
        account: AccountName::new("clickgem").expect("a name"),
        path: "/clickgem".to_owned(),
        provider: ProviderSettings::ClickGem(settings.clone()),
    };
    ClickGem::new(&source, &settings)
}

fn provider() -> ClickGem {
    provider_with(API_SIGNATURE)
}

fn get(order: &str, query: &str) -> Received {
    let rest = format!("/{order}/{}", openssl_tag(SECRET, "clickgem", order));
    Received {
        method: Method::GET,
        path: format!("/clickgem{rest}"),
        rest,
        query: Some(query.to_owned()),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        remote: std::net::IpAddr::from([203, 0, 113, 7]),
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn post_as(order: &str, query: &str, content_type: &str, body: &str) -> Received {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_str(content_type).expect("a header"));
    Received { method: Method::POST, headers, body: Bytes::copy_from_slice(body.as_bytes()), ..get(order, query) }
}

fn post(body: &str) -> Received {
    post_as("42", "", "application/x-www-form-urlencoded", body)
}

fn paid() -> String {
    format!("api_signature={API_SIGNATURE}&status=paid")
}

#[track_caller]
fn verified(received: Received) -> Verified {
    provider().verify(received).expect("it is let in")
}

#[track_caller]
fn refusal(received: Received) -> Refusal {
    provider().verify(received).expect_err("it is refused").refusal
}

#[test]
fn a_post_names_its_order_and_status_and_its_signature_is_cut() {
    let read = verified(post(&paid()));
    assert!(matches!(read.claim, Claim::Status(Status::Paid)));
    assert_eq!((read.kind, read.assurance, read.getid.as_deref()), (Kind::Payment, Assurance::Browser, None));
    assert_eq!(read.details.order_id.as_ref().map(OrderId::as_str), Some("42"));
    assert_eq!((read.details.amount, read.details.transaction_id), (None, None));
    assert_eq!(read.details.provider_fields, [("status".to_owned(), "paid".to_owned())]);
    let body = paid();
    let in_body = read.cuts.iter().filter(|cut| cut.place == Place::Body).map(|cut| &body[cut.range.clone()]);
    assert_eq!(in_body.collect::<Vec<_>>(), [API_SIGNATURE]);
    assert!(read.cuts.iter().any(|cut| cut.place == Place::Path));
}

#[test]
fn a_multipart_post_is_the_same_notification() {
    let part =
        |name: &str, value: &str| format!("--b0\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let body = format!("{}{}--b0--\r\n", part(SIGNATURE, API_SIGNATURE), part("status", "paid"));
    let (multipart, form) =
        (verified(post_as("42", "", "multipart/form-data; boundary=b0", &body)), verified(post(&paid())));
    assert_eq!((multipart.idempotency, multipart.digest), (form.idempotency, form.digest));
    assert!(multipart.cuts.iter().any(|cut| cut.place == Place::Body && &body[cut.range.clone()] == API_SIGNATURE));
    assert_eq!(refusal(post_as("42", "", "multipart/form-data", &body)).label(), "malformed");
    assert_eq!(refusal(post_as("42", "", "application/json", "{}")), Refusal::ContentType);
}

#[test]
fn a_get_says_nothing_about_the_state_and_never_takes_a_posts_key() {
    let read = verified(get("42", &format!("getid={GETID}")));
    assert!(matches!(read.claim, Claim::Status(Status::Unknown)));
    assert_eq!(read.getid.as_deref(), Some(GETID));
    let status_as_getid = verified(post(&format!("api_signature={API_SIGNATURE}&status={GETID}")));
    assert_ne!(read.idempotency, status_as_getid.idempotency);
    let posted_by_get = verified(get("42", &format!("getid={GETID}&{}", paid())));
    assert!(matches!(posted_by_get.claim, Claim::Status(Status::Unknown)));
    assert!(posted_by_get.details.provider_fields.iter().all(|(name, _)| name != SIGNATURE));
    for bad in ["", "getid=", "getid=25271", &format!("getid={GETID}0"), &format!("getid={}g", &GETID[..31])] {
        assert_eq!(refusal(get("42", bad)).label(), "malformed", "{bad}");
    }
    assert_eq!(verified(get("42", &format!("getid={}", GETID.to_uppercase()))).idempotency, read.idempotency);
}

#[test]
fn a_post_may_bring_its_getid_in_query_or_body() {
    let in_query = verified(post_as("42", &format!("getid={GETID}"), "application/x-www-form-urlencoded", &paid()));
    let in_body = verified(post(&format!("{}&getid={GETID}", paid())));
    for read in [in_query, in_body] {
        assert_eq!(read.getid.as_deref(), Some(GETID));
        assert!(read.details.provider_fields.contains(&("getid".to_owned(), GETID.to_owned())));
        assert_eq!(read.idempotency, verified(post(&paid())).idempotency);
    }
    assert_eq!(refusal(post(&format!("{}&getid=42", paid()))).label(), "malformed");
}

#[test]
fn statuses_mean_what_they_say_and_others_are_unknown() {
    for (word, kind, status) in [
        ("paid", Kind::Payment, Status::Paid),
        ("partial_paid", Kind::Payment, Status::PartiallyPaid),
        ("cancelled", Kind::Payment, Status::Canceled),
        ("canceled", Kind::Payment, Status::Canceled),
        ("refunded", Kind::Refund, Status::Refunded),
        ("PAID", Kind::Payment, Status::Unknown),
        ("true", Kind::Payment, Status::Unknown),
    ] {
        let read = verified(post(&format!("api_signature={API_SIGNATURE}&status={word}")));
        assert!(read.kind == kind && matches!(read.claim, Claim::Status(told) if told == status), "{word}");
    }
}

#[test]
fn a_signature_that_is_not_exactly_ours_is_refused() {
    assert_eq!(refusal(post("status=paid")), Refusal::NoSignature);
    assert_eq!(refusal(post("api_signature=&status=paid")), Refusal::NoSignature);
    for wrong in [&API_SIGNATURE.to_lowercase(), "0", "true", &API_SIGNATURE[1..]] {
        assert_eq!(refusal(post(&format!("api_signature={wrong}&status=paid"))).label(), "bad_signature", "{wrong}");
        assert_eq!(
            refusal(post(&format!("api_signature={wrong}&status=cancelled"))).label(),
            "bad_signature",
            "{wrong}"
        );
    }
    let twice = post_as("42", &format!("api_signature={API_SIGNATURE}"), "application/x-www-form-urlencoded", &paid());
    assert_eq!(refusal(twice).label(), "malformed");
    assert!(provider_with("").verify(post("api_signature=&status=paid")).is_err());
    assert_eq!(refusal(post(&format!("api_signature={API_SIGNATURE}"))).label(), "malformed");
}

#[test]
fn a_tag_belongs_to_one_order() {
    let (here, there) = (get("42", ""), get("43", ""));
    for (rest, path) in [
        (here.rest.replace("/42/", "/43/"), here.path.replace("/42/", "/43/")),
        ("/43/x".into(), "/clickgem/43/x".into()),
    ] {
        assert_eq!(refusal(Received { rest, path, ..post(&paid()) }), Refusal::WrongTag);
    }
    assert_ne!(
        verified(Received { rest: there.rest, path: there.path, ..post(&paid()) }).idempotency,
        verified(post(&paid())).idempotency
    );
    assert_eq!(refusal(Received { method: Method::PUT, ..post(&paid()) }), Refusal::Method);
}

#[test]
fn a_refused_request_is_not_kept_readable() {
    let body = paid().replace("Sig-", "Sog-");
    let mut request = post(&body);
    let referer = request.path.clone();
    request.headers.insert("referer", HeaderValue::from_str(&referer).expect("a header"));
    let refused = provider().verify(request).expect_err("it is refused");
    assert!(refused.may_be_genuine && !refused.received.headers.contains_key("referer"));
    assert!(refused.cuts.contains(&Cut { place: Place::Body, range: 14..34 }));
    let misspelt = provider().verify(post("api_signature[]=abcdefgh")).expect_err("it is refused");
    assert!(misspelt.cuts.contains(&Cut { place: Place::Body, range: 16..24 }));
    let unreadable = provider().verify(post("api_signature=%")).expect_err("it is refused");
    assert!(unreadable.cuts.contains(&Cut { place: Place::Body, range: 0..15 }));
}

#[test]
fn nobody_who_may_have_paid_is_sent_to_the_failure_page() {
    let page = |status, verdict, order_paid| {
        let committed = Committed {
            outcome: Outcome::New,
            notification: NotificationId::from_bytes([1; 16]),
            event: Some(EventId::from_bytes([2; 16])),
            order: OrderId::new("42"),
            kind: Kind::Payment,
            status,
            verdict,
            indicator_right: false,
            order_paid,
            alarms: Vec::new(),
        };
        match provider().answer(&committed) {
            Answer::SeeOther(page) => page.split(['/', '?']).nth(3).expect("a page").to_owned(),
            Answer::Phrase(phrase) => panic!("{phrase}"),
        }
    };
    assert_eq!(page(Status::Paid, Verdict::Hold, true), "wait");
    assert_eq!(page(Status::Paid, Verdict::None, true), "thanks");
    assert_eq!(page(Status::PartiallyPaid, Verdict::None, false), "wait");
    assert_eq!(page(Status::Unknown, Verdict::None, false), "wait");
    assert_eq!(page(Status::Unknown, Verdict::None, true), "thanks");
    assert_eq!(page(Status::Canceled, Verdict::None, false), "sorry");
    assert_eq!(page(Status::Canceled, Verdict::None, true), "thanks");
}

proptest! {
    #[test]
    fn any_request_is_judged_without_panic(query in "[ -~]{0,60}", body in prop::collection::vec(any::<u8>(), 0..200), multipart in any::<bool>()) {
        let content_type = if multipart { "multipart/form-data; boundary=b" } else { "application/x-www-form-urlencoded" };
        let rest = "/42/AAAAAAAAAAAAAAAAAAAAAA".to_owned();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        let request = Received {
            method: Method::POST, path: format!("/clickgem{rest}"), rest, query: Some(query), headers, body: body.into(),
            remote: std::net::IpAddr::from([203, 0, 113, 7]), at: jiff::Timestamp::UNIX_EPOCH,
        };
        prop_assert!(provider().verify(request).is_err());
    }
}
