//! Paygol v2 against the provider's published vectors and signatures made by other programs.

use std::io::Write;
use std::process::{Command, Stdio};

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::config::{ProviderSettings, Source};

const SECRET: &str = "7c1a6a24-7943-102d-92f8-29573711ad31";
const P1: &str = r#"{"country":"CL","completed_at":"2020-11-26T16:22:32-03:00","currency":"CLP","created_at":"2020-11-26T16:19:27-03:00","custom":"Pago cuenta VIP","method":"webpay","price":"7500.00","service_id":"123","status":"completed","transaction_id":"ZISS-A7Q8-RE2Z-S73W"}"#;
const P1_SIGNATURE: &str = "03d958ef530292b656d17e646aca51432a7fe39826cad355c6c207014e791c6c";
const P3: &str = r#"{"country":"ES","currency":"USD","custom":"Producto 1 - Producto 2 - Producto 3","method":"teleingreso","price":"10.00","service_id":"123","status":"completed","transaction_id":"ZISS-A7Q8-RE2Z-S73W"}"#;

fn settings(secrets: &[&str]) -> config::Paygol {
    config::Paygol {
        service_id: "123".to_owned(),
        order_id_from: OrderIdFrom::Custom,
        secrets: secrets.iter().map(|text| Secret::new((*text).to_owned())).collect(),
        bearer: false,
    }
}

fn provider(settings: config::Paygol) -> Paygol {
    let source = Source {
        name: SourceName::new("paygol").expect("a name"),
        account: AccountName::new("shop").expect("a name"),
        path: "/paygol".to_owned(),
        provider: ProviderSettings::Paygol(settings.clone()),
    };
    Paygol::new(&source, &settings)
}

fn received(body: &[u8], headers: &[(&'static str, &str)]) -> Received {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).expect("a header"));
    }
    Received {
        method: Method::POST,
        path: "/paygol".to_owned(),
        rest: String::new(),
        query: None,
        headers: map,
        body: bytes::Bytes::copy_from_slice(body),
        remote: std::net::IpAddr::from([203, 0, 113, 7]),
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// The HMAC as the openssl command line makes it.
fn openssl(body: &[u8]) -> String {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-r", "-hmac", SECRET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    openssl.stdin.take().expect("a pipe").write_all(body).expect("openssl reads");
    let output = openssl.wait_with_output().expect("openssl runs");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().expect("a digest").to_owned()
}

/// The signature as the merchant's PHP would check it.
fn php(body: &str) -> String {
    let script = "$f = json_decode($argv[1], true); ksort($f); echo hash_hmac('sha256', json_encode($f), $argv[2]);";
    let output = Command::new("php").args(["-n", "-r", script, "--", body, SECRET]).output().expect("php is installed");
    String::from_utf8(output.stdout).expect("hex")
}

fn verify(body: &str, signature: &str) -> Result<Verified, Refused> {
    provider(settings(&[SECRET])).verify(received(body.as_bytes(), &[(SIGNATURE, signature)]))
}

/// A body of ours with some fields replaced, signed by PHP.
#[track_caller]
fn signed(changes: &[(&str, Option<&str>)]) -> Result<Verified, Refused> {
    let mut body: serde_json::Map<String, serde_json::Value> = serde_json::from_str(P1).expect("JSON");
    for (name, value) in changes {
        match value {
            Some(text) => body.insert((*name).to_owned(), (*text).into()),
            None => body.remove(*name),
        };
    }
    let body = serde_json::to_string(&body).expect("JSON");
    verify(&body, &php(&body))
}

#[track_caller]
fn refusal(result: Result<Verified, Refused>) -> (Refusal, bool) {
    let refused = result.expect_err("it is refused");
    (refused.refusal, refused.may_be_genuine)
}

#[test]
fn the_published_notification_reads_as_what_it_says() {
    let verified = verify(P1, P1_SIGNATURE).expect("genuine");
    let details = &verified.details;
    assert!(matches!(verified.claim, Claim::Status(Status::Paid)));
    assert_eq!((verified.scheme, verified.key, verified.assurance), ("hmac-sha256-canonical", 1, Assurance::Signed));
    assert_eq!(details.order_id.as_ref().map(OrderId::as_str), Some("Pago cuenta VIP"));
    assert_eq!(details.transaction_id.as_deref(), Some("ZISS-A7Q8-RE2Z-S73W"));
    assert_eq!(details.amount.as_ref().map(Money::to_string).as_deref(), Some("7500.00 CLP"));
    assert_eq!(details.occurred_at.as_deref(), Some("2020-11-26T16:22:32-03:00"));
    assert_eq!((details.method.as_deref(), details.payer.country.as_deref()), (Some("webpay"), Some("CL")));
    let kept = [("created_at", "2020-11-26T16:19:27-03:00"), ("service_id", "123"), ("status", "completed")];
    assert_eq!(details.provider_fields, kept.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert!(verified.problems.is_empty() && verified.cuts.is_empty());
}

#[test]
fn the_other_published_signatures_hold_and_belong_to_their_body_only() {
    let p3 = "4b92508e5e8758643eaaca5c53de34dfd577ab551643b8aeb69c871741913594";
    let p4 = "ad9379a7daf2a13d3403387143de9bfb029dc9dc6ab76e34fd29f6fa2e6be113";
    let failed = P3.replace("completed", "failed");
    assert!(matches!(verify(P3, p3).expect("genuine").claim, Claim::Status(Status::Paid)));
    assert!(matches!(verify(&failed, p4).expect("genuine").claim, Claim::Status(Status::Failed)));
    // A forged failure must not kill a real payment: the check is done on every branch.
    assert_eq!(refusal(verify(&failed, p3)).0.label(), "bad_signature");
    assert_eq!(refusal(verify(P3, p4)).0.label(), "bad_signature");
}

#[test]
fn the_raw_body_is_taken_too_and_only_with_the_secret() {
    let body = P1.replace("\"7500.00\"", "7500.00").replace("{\"country", "{ \"country");
    let verified = verify(&body, &openssl(body.as_bytes())).expect("genuine");
    assert_eq!(verified.scheme, "hmac-sha256-raw");
    assert_eq!(verified.problems, [Reason::AmountUnreadable], "a number is not read as a price");
    assert!(verified.details.provider_fields.contains(&("price".to_owned(), "7500.00".to_owned())));
    assert_eq!(refusal(verify(&body, &openssl(b""))).0.label(), "bad_signature");
}

#[test]
fn a_signature_that_is_missing_or_not_ours_is_refused() {
    let provider = provider(settings(&[SECRET]));
    let with = |headers: &[(&'static str, &str)]| refusal(provider.verify(received(P1.as_bytes(), headers)));
    assert_eq!(with(&[]), (Refusal::NoSignature, false));
    assert_eq!(with(&[(SIGNATURE, "")]), (Refusal::NoSignature, false));
    assert_eq!(with(&[(SIGNATURE, P1_SIGNATURE), (SIGNATURE, P1_SIGNATURE)]).0.label(), "malformed");
    let mut flipped = P1_SIGNATURE.to_owned();
    flipped.replace_range(63.., "d");
    assert_eq!(with(&[(SIGNATURE, &flipped)]), (Refusal::BadSignature("no secret gives this signature"), true));
    let upper = P1_SIGNATURE.to_uppercase();
    for bad in [&upper, "0", "true", &P1_SIGNATURE[..62], &format!("{P1_SIGNATURE}00"), &"0".repeat(64)] {
        assert_eq!(with(&[(SIGNATURE, bad)]).0.label(), "bad_signature", "{bad}");
    }
}

#[test]
fn an_empty_secret_is_nobodys() {
    let empty = || provider(settings(&["", ""]));
    let script = "$f = json_decode($argv[1], true); ksort($f); echo hash_hmac('sha256', json_encode($f), '');";
    let output = Command::new("php").args(["-n", "-r", script, "--", P1]).output().expect("php is installed");
    let signature = String::from_utf8(output.stdout).expect("hex");
    assert_eq!(refusal(empty().verify(received(P1.as_bytes(), &[(SIGNATURE, &signature)]))).0.label(), "bad_signature");
}

#[test]
fn any_of_several_secrets_holds_and_says_which() {
    let provider = provider(settings(&["another-secret-of-ours", SECRET]));
    let verified = provider.verify(received(P1.as_bytes(), &[(SIGNATURE, P1_SIGNATURE)])).expect("genuine");
    assert_eq!(verified.key, 2);
}

#[test]
fn the_service_is_compared_after_the_signature() {
    assert_eq!(refusal(signed(&[("service_id", Some("124"))])), (Refusal::WrongService, true));
    assert_eq!(refusal(signed(&[("service_id", None)])).0.label(), "malformed");
    let foreign = P1.replace("\"123\"", "\"124\"");
    assert_eq!(refusal(verify(&foreign, P1_SIGNATURE)).0.label(), "bad_signature");
}

#[test]
fn a_missing_part_of_the_key_is_an_error_and_never_the_empty_string() {
    for name in ["transaction_id", "status", "service_id"] {
        for value in [None, Some("")] {
            let (refusal, may_be_genuine) = refusal(signed(&[(name, value)]));
            assert_eq!((refusal.label(), may_be_genuine), ("malformed", true), "{name} {value:?}");
        }
    }
}

#[test]
fn what_is_authentic_but_unreadable_is_kept_with_its_reason() {
    for price in
        [None, Some(""), Some("-1"), Some("1e3"), Some("7.500,00"), Some("12345678901234"), Some("1.123456789")]
    {
        let verified = signed(&[("price", price)]).expect("authentic");
        assert_eq!(
            (&verified.problems[..], &verified.details.amount),
            (&[Reason::AmountUnreadable][..], &None),
            "{price:?}"
        );
    }
    for currency in [None, Some("clp"), Some("C"), Some("US1")] {
        let verified = signed(&[("currency", currency)]).expect("authentic");
        assert_eq!(verified.problems, [Reason::AmountUnreadable], "{currency:?}");
        assert!(verified.details.provider_fields.iter().any(|(name, _)| name == "price"), "what was sent is told");
    }
    for custom in [None, Some("")] {
        let verified = signed(&[("custom", custom)]).expect("authentic");
        assert_eq!((&verified.problems[..], verified.details.order_id), (&[Reason::NoOrder][..], None), "{custom:?}");
    }
}

#[test]
fn statuses_mean_what_they_say_and_others_are_unknown() {
    let words = [
        ("completed", Status::Paid),
        ("created", Status::Pending),
        ("failed", Status::Failed),
        ("rejected", Status::Failed),
        ("refunded", Status::Unknown),
        ("Completed", Status::Unknown),
    ];
    for (word, status) in words {
        let verified = signed(&[("status", Some(word))]).expect("authentic");
        assert!(matches!(verified.claim, Claim::Status(claimed) if claimed == status), "{word}");
    }
}

#[test]
fn the_key_is_the_transaction_in_its_state_and_the_digest_what_decides() {
    let of = |changes: &[(&str, Option<&str>)]| signed(changes).map(|v| (v.idempotency, v.digest)).expect("authentic");
    let original = of(&[]);
    assert_eq!(of(&[("completed_at", Some("2020-11-27T00:00:00Z")), ("tomorrow", Some("new"))]), original);
    assert_eq!(of(&[("price", Some("7500.0"))]), original, "the same number");
    let other_price = of(&[("price", Some("7500.01"))]);
    assert!(other_price.0 == original.0 && other_price.1 != original.1, "one key, two statements");
    for part in ["status", "transaction_id"] {
        assert_ne!(of(&[(part, Some("created"))]).0, original.0, "{part}");
    }
}

#[test]
fn dates_are_told_only_where_they_are_dates() {
    let of = |changes: &[(&str, Option<&str>)]| signed(changes).expect("authentic").details;
    assert_eq!(of(&[("completed_at", None)]).occurred_at.as_deref(), Some("2020-11-26T16:19:27-03:00"));
    for bad in [
        "yesterday",
        "2020-11-26 16:22:32-03:00",
        "2020-11-26T16:22:32",
        "2020-13-26T16:22:32Z",
        "2020-11-26T16:22:32Z[UTC]",
    ] {
        let details = of(&[("completed_at", Some(bad))]);
        assert_eq!(details.occurred_at, None, "{bad}");
        assert!(details.provider_fields.contains(&("completed_at".to_owned(), bad.to_owned())), "{bad}");
    }
}

#[test]
fn the_order_may_be_the_transaction() {
    let provider = provider(config::Paygol { order_id_from: OrderIdFrom::TransactionId, ..settings(&[SECRET]) });
    let verified = provider.verify(received(P1.as_bytes(), &[(SIGNATURE, P1_SIGNATURE)])).expect("genuine");
    assert_eq!(verified.details.order_id.as_ref().map(OrderId::as_str), Some("ZISS-A7Q8-RE2Z-S73W"));
    assert_eq!(verified.details.custom.as_deref(), Some("Pago cuenta VIP"));
}

#[test]
fn values_that_are_no_strings_are_told_but_decide_nothing() {
    let body = P1.replace(
        "\"completed\"",
        "\"completed\",\"attempt\":2,\"test\":true,\"none\":null,\"more\":{\"status\":\"failed\"}",
    );
    let verified = verify(&body, &php(&body)).expect("genuine");
    let fields = &verified.details.provider_fields;
    for (name, value) in [("attempt", "2"), ("test", "true"), ("more", "{\"status\":\"failed\"}")] {
        assert!(fields.contains(&(name.to_owned(), value.to_owned())), "{name}");
    }
    assert!(matches!(verified.claim, Claim::Status(Status::Paid)));
    let loose = P1.replace("\"completed\"", "true");
    assert_eq!(refusal(verify(&loose, &php(&loose))).0.label(), "malformed", "true is not a status");
}

#[test]
fn bodies_with_two_readings_and_other_requests_are_refused() {
    let twice = P1.replace("{\"country\"", "{\"price\":\"0.01\",\"country\"");
    assert_eq!(refusal(verify(&twice, &openssl(twice.as_bytes()))), (Refusal::Malformed("a key stands twice"), true));
    let provider = provider(settings(&[SECRET]));
    let typed = |content_type| {
        provider.verify(received(P1.as_bytes(), &[(SIGNATURE, P1_SIGNATURE), ("content-type", content_type)]))
    };
    assert!(typed("application/json; charset=utf-8").is_ok() && typed("Application/JSON").is_ok());
    assert_eq!(refusal(typed("application/x-www-form-urlencoded")), (Refusal::ContentType, true));
    let get = Received { method: Method::GET, ..received(P1.as_bytes(), &[(SIGNATURE, P1_SIGNATURE)]) };
    assert_eq!(refusal(provider.verify(get)), (Refusal::Method, false));
}

#[test]
fn a_secret_that_a_legacy_source_shares_is_worth_no_more_than_a_bearer() {
    let provider = provider(config::Paygol { bearer: true, ..settings(&[SECRET]) });
    let verified = provider.verify(received(P1.as_bytes(), &[(SIGNATURE, P1_SIGNATURE)])).expect("genuine");
    assert_eq!(verified.assurance, Assurance::Bearer);
    assert_eq!(provider.ordinary().verdict, Verdict::Hold);
}

proptest! {
    #[test]
    fn any_request_is_judged_without_panic(body in prop::collection::vec(any::<u8>(), 0..300), signature in "[ -~]{0,70}") {
        prop_assert!(verify(&String::from_utf8_lossy(&body), signature.trim()).is_err());
    }

    #[test]
    fn no_changed_byte_passes(at in 0..P1.len(), byte in any::<u8>()) {
        let mut body = P1.as_bytes().to_vec();
        prop_assume!(body[at] != byte);
        body[at] = byte;
        let read = |bytes: &[u8]| json::object(bytes, MAX_FIELDS).ok();
        // White space between the fields is not signed, and changes nothing.
        prop_assume!(read(&body) != read(P1.as_bytes()));
        let headers = [(SIGNATURE, P1_SIGNATURE)];
        prop_assert!(provider(settings(&[SECRET])).verify(received(&body, &headers)).is_err());
    }
}
