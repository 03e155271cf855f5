//! Messages signed by Python, judged here.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde_json::Value;

use super::*;
use crate::config::{ProviderSettings, Source};
use crate::event::{Decimal, Kind, Reason, Status, Verdict};

const ORDER: &str = "^T[0-9]{13}$";
const AMOUNT: &str = r"^[0-9]+\.[0-9]{2}$";

fn fixture(file: &str) -> Value {
    serde_json::from_str(file).expect("JSON")
}

fn vector(name: &str) -> String {
    let all = fixture(include_str!("../../../tests/it/fixtures/clickpay/vectors.json"));
    all[name].as_str().unwrap_or_else(|| panic!("no vector {name}")).to_owned()
}

fn message(name: &str) -> (String, String) {
    let all = fixture(include_str!("../../../tests/it/fixtures/clickpay/messages.json"));
    let part = |part: &str| all[name][part].as_str().unwrap_or_else(|| panic!("no message {name}")).to_owned();
    (part("content_type"), part("body"))
}

fn s1_signed_with(sign: &str) -> String {
    let mut body = fixture(&vector("s1_body"));
    body["platSign"] = sign.into();
    body.to_string()
}

fn source_with(keys: &[&str], change: impl FnOnce(&mut config::ClickPay)) -> ClickPay {
    let names = |names: &str| names.split(',').map(str::to_owned).collect();
    let mut settings = config::ClickPay {
        currency: Currency::parse("IDR").expect("a currency"),
        order_pattern: Some(ORDER.to_owned()),
        amount_pattern: Some(AMOUNT.to_owned()),
        fields: names("code,email,method,msg,name,orderNum,payData,payFee,payMoney,platOrderNum"),
        optional_fields: names("phone,status,vaNumber"),
        public_keys: keys.iter().map(|key| PublicKey::parse(key).expect("a key")).collect(),
    };
    change(&mut settings);
    let source = Source {
        name: SourceName::new("clickpay-id").expect("a name"),
        account: AccountName::new("clickpay-id").expect("a name"),
        path: "/clickpay".to_owned(),
        provider: ProviderSettings::ClickPay(settings.clone()),
    };
    ClickPay::new(&source, &settings, &Kin::of(std::slice::from_ref(&source)))
}

fn source() -> ClickPay {
    source_with(&[&vector("public_1024")], |_| {})
}

/// As a shop that said nothing about its numbers.
fn plain_source() -> ClickPay {
    source_with(&[&vector("public_1024")], |settings| {
        settings.order_pattern = None;
        settings.amount_pattern = None;
    })
}

fn request(content_type: Option<&str>, body: impl Into<Bytes>) -> Received {
    let mut headers = HeaderMap::new();
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type.parse().expect("a header"));
    }
    Received {
        method: Method::POST,
        path: "/clickpay".to_owned(),
        rest: String::new(),
        query: None,
        headers,
        body: body.into(),
        remote: IpAddr::V4(Ipv4Addr::LOCALHOST),
        at: Timestamp::UNIX_EPOCH,
    }
}

fn post(source: &ClickPay, body: &str) -> Result<Verified, Refused> {
    source.verify(request(Some("application/json"), body.to_owned()))
}

#[track_caller]
fn verified(source: &ClickPay, name: &str) -> Verified {
    let (content_type, body) = message(name);
    source.verify(request(Some(&content_type), body)).unwrap_or_else(|refused| panic!("{name}: {}", refused.refusal))
}

#[track_caller]
fn refused(source: &ClickPay, content_type: &str, body: &str) -> (&'static str, bool) {
    let refused = source.verify(request(Some(content_type), body.to_owned())).expect_err("must be refused");
    assert_eq!(refused.received.body, body.as_bytes(), "the quarantine gets the request as it came");
    (refused.refusal.label(), refused.may_be_genuine)
}

fn status(verified: &Verified) -> Status {
    match verified.claim {
        Claim::Status(status) => status,
        Claim::Indicator { .. } => panic!("ClickPay has no indicators"),
    }
}

#[test]
fn the_sample_pay_in_is_signed_and_read_whole() {
    for sign in ["s1_sign", "s1_sign_url_safe"] {
        let verified = post(&source(), &s1_signed_with(&vector(sign))).expect("genuine");
        assert_eq!((verified.kind, status(&verified)), (Kind::Payment, Status::Paid));
        assert_eq!((verified.assurance, verified.scheme, verified.key), (Assurance::Signed, "rsa-recovery", 1));
        assert!(verified.problems.is_empty() && verified.cuts.is_empty() && verified.ambiguity.is_none());
        let details = &verified.details;
        assert_eq!(details.order_id.as_ref().map(|order| order.as_str()), Some("T1231511321515"));
        assert_eq!(details.transaction_id.as_deref(), Some("552538080348274688"));
        assert_eq!(details.amount.as_ref().map(ToString::to_string).as_deref(), Some("10000.00 IDR"));
        assert_eq!(details.fee.as_ref().map(ToString::to_string).as_deref(), Some("250.00 IDR"));
        assert_eq!(details.method.as_deref(), Some("QRIS"));
        assert_eq!(details.payer.email.as_deref(), Some("buyer@example.com"));
        assert_eq!((details.payer.name.as_deref(), details.payer.phone.as_deref()), (Some("Neo"), None));
        let others: Vec<(&str, &str)> = details.provider_fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(others, [("code", "00"), ("msg", "SUCCESS"), ("payData", "https://link.example/pay")]);
        assert!(verified.unproven.contains(&"fee".to_owned()) && verified.unproven.contains(&"payData".to_owned()));
        assert!(!verified.unproven.contains(&"amount".to_owned()));
        assert_eq!(verified.signed.map(|signed| signed.hash), Some(Digest::of(vector("s1_string").as_bytes())));
    }
}

#[test]
fn the_sample_pay_out_failed() {
    let patterned = source_with(&[&vector("public_1024")], |settings| settings.amount_pattern = None);
    let held = verified(&patterned, "pay_out");
    assert!(message("pay_out").1.contains(&vector("s3_sign")), "Python signed what the protocol's vector says");
    assert_eq!((held.kind, status(&held)), (Kind::Payout, Status::Failed));
    assert_eq!(held.problems, [Reason::OrderPattern], "W0001 is no order of this shop's pay-ins");
    let verified = verified(&plain_source(), "pay_out");
    assert!(verified.problems.is_empty());
    assert_eq!(verified.details.amount.as_ref().map(ToString::to_string).as_deref(), Some("200000 IDR"));
    assert_eq!(verified.details.transaction_id.as_deref(), Some("W06202407231625189096419"));
}

#[test]
fn a_key_of_2048_bits_verifies_the_same_message() {
    let source = source_with(&[&vector("public_1024"), &vector("public_2048")], |_| {});
    for _ in 0..2 {
        let verified = post(&source, &s1_signed_with(&vector("s5_sign"))).expect("genuine");
        assert_eq!((verified.key, verified.assurance), (2, Assurance::Signed));
    }
    let verified = post(&source, &s1_signed_with(&vector("s1_sign"))).expect("the old key still holds");
    assert_eq!(verified.key, 1);
}

#[test]
fn what_another_key_or_padding_made_is_refused_and_may_be_genuine() {
    for sign in ["other_key", "padding_2", "junk_behind", "s5_sign"] {
        let answer = refused(&source(), "application/json", &s1_signed_with(&vector(sign)));
        assert_eq!(answer, ("bad_signature", true), "{sign}");
    }
    let good = vector("s1_sign");
    let mixed = good.replacen('+', "-", 1);
    let unpadded = good.trim_end_matches('=').to_owned();
    let padded_url_safe = format!("{}=", vector("s1_sign_url_safe"));
    for sign in [mixed, unpadded, padded_url_safe, format!("{good}\n"), format!(" {good}"), good.replace('+', " ")] {
        let answer = refused(&source(), "application/json", &s1_signed_with(&sign));
        assert_eq!(answer, ("bad_signature", true), "{sign}");
    }
}

#[test]
fn every_changed_value_breaks_the_signature() {
    let (_, body) = message("pay_in");
    let fields = fixture(&body);
    for name in fields.as_object().expect("an object").keys().filter(|name| *name != "platSign") {
        let mut changed = fields.clone();
        changed[name] = format!("{}1", fields[name].as_str().expect("text")).into();
        assert_eq!(refused(&source(), "application/json", &changed.to_string()), ("bad_signature", true), "{name}");
        changed.as_object_mut().expect("an object").remove(name);
        assert_eq!(refused(&source(), "application/json", &changed.to_string()), ("bad_signature", true), "no {name}");
    }
    let failed =
        body.replace("\"code\": \"00\"", "\"code\": \"01\"").replace("\"msg\": \"SUCCESS\"", "\"msg\": \"FAIL\"");
    assert_ne!(failed, body);
    assert_eq!(refused(&source(), "application/json", &failed).0, "bad_signature", "a forged failure counts as little");
}

#[test]
fn no_signature_is_no_reason_to_believe() {
    let body = vector("s1_body");
    assert_eq!(refused(&source(), "application/json", &body), ("no_signature", false));
    assert_eq!(refused(&source(), "application/json", &s1_signed_with("")), ("no_signature", false));
    let null = body.replacen('{', "{\"platSign\":null,", 1);
    assert_eq!(refused(&source(), "application/json", &null), ("no_signature", false));
    let number = body.replacen('{', "{\"platSign\":1,", 1);
    assert_eq!(refused(&source(), "application/json", &number).0, "malformed");
    let other_case = s1_signed_with(&vector("s1_sign")).replace("platSign", "platsign");
    assert_eq!(refused(&source(), "application/json", &other_case), ("no_signature", false));
    let repeated = s1_signed_with(&vector("s1_sign")).replacen('{', "{\"platSign\":\"\",", 1);
    assert_eq!(refused(&source(), "application/json", &repeated), ("malformed", true));
    let no_key = source_with(&[], |_| {});
    let signed = s1_signed_with(&vector("s1_sign"));
    assert_eq!(refused(&no_key, "application/json", &signed).0, "bad_signature", "no key verifies nothing");
}

#[test]
fn nothing_signed_is_nothing() {
    assert_eq!(refused(&source(), "application/json", &message("empty").1).0, "bad_signature");
}

#[test]
fn bodies_that_cannot_be_read_in_one_way_are_malformed() {
    for name in ["nested", "repeated_key", "too_many_fields"] {
        assert_eq!(refused(&source(), "application/json", &message(name).1), ("malformed", true), "{name}");
    }
    let most = verified(&source(), "most_fields");
    assert_eq!(most.problems, [Reason::FieldSet]);
    for body in ["", "[]", "null", "{", "{}x", "\u{feff}{}"] {
        assert_eq!(refused(&source(), "application/json", body), ("malformed", false), "{body}");
    }
    assert_eq!(refused(&source(), "application/json", "{}"), ("no_signature", false));
    assert_eq!(refused(&source(), "application/json", "{\"platSign\":"), ("malformed", true));
    let form = "application/x-www-form-urlencoded";
    assert_eq!(refused(&source(), form, "a=%zz"), ("malformed", false));
    assert_eq!(refused(&source(), form, "a=1&a=2&platSign=x"), ("malformed", true));
}

#[test]
fn only_post_of_json_or_a_form_is_taken() {
    let body = s1_signed_with(&vector("s1_sign"));
    for content_type in ["text/plain", "multipart/form-data; boundary=x", "application/jsonx", ""] {
        assert_eq!(refused(&source(), content_type, &body), ("content_type", false), "{content_type}");
    }
    assert!(source().verify(request(None, body.clone())).is_ok());
    assert!(source().verify(request(Some("Application/JSON; charset=UTF-8"), body.clone())).is_ok());
    for method in [Method::GET, Method::PUT, Method::HEAD] {
        let mut request = request(Some("application/json"), body.clone());
        request.method = method;
        assert_eq!(source().verify(request).expect_err("another method").refusal, Refusal::Method);
    }
}

#[test]
fn a_form_says_the_same_as_json_even_with_bare_plus_signs() {
    let expected = verified(&source(), "pay_in");
    for name in ["form", "form_with_bare_plus", "json_called_form", "pay_in_with_null_and_empty"] {
        let verified = verified(&source(), name);
        assert_eq!((verified.idempotency, verified.digest), (expected.idempotency, expected.digest), "{name}");
        assert_eq!((verified.assurance, &verified.details), (Assurance::Signed, &expected.details), "{name}");
    }
    let (form, body) = message("form_with_bare_plus");
    assert_ne!(body.matches('+').count(), 0, "the signature has plus signs");
    let other = body.replace("name=Neo", "name=N+o");
    assert_eq!(refused(&source(), &form, &other).0, "bad_signature", "spaces stay spaces elsewhere");
}

#[test]
fn a_message_of_several_blocks_with_characters_across_their_border_is_signed() {
    let verified = verified(&source(), "long");
    assert_eq!((verified.assurance, status(&verified)), (Assurance::Signed, Status::Paid));
    assert_eq!(verified.details.payer.name.as_deref(), Some("Zo\u{eb} \u{6771}\u{4eac}"));
}

#[test]
fn numbers_are_tried_as_written_and_as_php_prints_them() {
    let source = plain_source();
    for (name, amount) in [
        ("numbers_as_written", "10000.00"),
        ("numbers_as_php_prints", "10000"),
        ("number_with_exponent", "10000"),
        ("integers", "10000"),
    ] {
        let verified = verified(&source, name);
        assert_eq!(verified.details.amount.map(|amount| amount.value.as_str().to_owned()).as_deref(), Some(amount));
    }
    let (content_type, body) = message("number_that_was_not_signed");
    assert_eq!(refused(&source, &content_type, &body), ("bad_signature", true));
}

#[test]
fn numbers_are_printed_as_php_prints_them() {
    let literals = [
        "0",
        "-0",
        "7",
        "-7",
        "20000",
        "20000.00",
        "1.50",
        "1e3",
        "1E+3",
        "1.5e-3",
        "0.0001",
        "0.00001",
        "0.00012345",
        "123456789012345678",
        "9223372036854775807",
        "9223372036854775808",
        "1e14",
        "1e15",
        "1e16",
        "123456789012345.6",
        "12345678901234.56",
        "999999999999999.9",
        "0.1",
        "100.10",
        "1e100",
        "-2.5",
        "-0.0",
        "1e-7",
        "3.0e0",
        "10000.005",
        "99999999999999.5",
        "999999999999995.0",
        "123456789012344e0",
    ];
    let code = "foreach (explode(' ', $argv[1]) as $n) echo json_decode($n), ' ';";
    let php = Command::new("php")
        .args(["-n", "-r", code, "--", &literals.join(" ")])
        .output()
        .expect("php must be installed");
    assert!(php.status.success());
    let printed = String::from_utf8(php.stdout).expect("UTF-8");
    let ours: Vec<String> = literals.iter().map(|n| message::php_number(n).unwrap_or_default()).collect();
    assert_eq!(ours.join(" "), printed.trim_end());
}

#[test]
fn words_of_a_pay_in_say_its_state() {
    use Status::{Canceled, Failed, Paid, Pending, Unknown};
    for (words, expected, contradicts) in [
        ("00 SUCCESS -", Paid, false),
        ("00 SUCCESS SUCCESS", Paid, false),
        ("01 FAIL -", Failed, false),
        ("99 ERROR -", Failed, false),
        ("01 SUCCESS -", Failed, false),
        ("00 FAIL -", Unknown, true),
        ("00 PENDING -", Unknown, false),
        ("00 SUCCESS PAY_ERROR", Unknown, true),
        ("00 SUCCESS NO_PAY", Unknown, true),
        ("01 SUCCESS SUCCESS", Unknown, true),
        ("00 FAIL SUCCESS", Unknown, true),
        ("01 FAIL PAY_ERROR", Failed, false),
        ("01 CANCEL PAY_CANCEL", Canceled, false),
        ("00 PENDING NO_PAY", Pending, false),
        ("00 PROCESSING INIT_ORDER", Pending, false),
        ("01 PENDING OPEN_PAY_URL", Pending, false),
    ] {
        let verified = verified(&source(), &format!("pay_in {words}"));
        let problems: &[Reason] = if contradicts { &[Reason::Contradiction] } else { &[] };
        assert_eq!((status(&verified), &verified.problems[..]), (expected, problems), "{words}");
    }
    for words in ["00 success -", "00 SUCCESS success", "0 SUCCESS -", "00 OK -"] {
        let verified = verified(&source(), &format!("pay_in {words}"));
        assert_ne!(status(&verified), Paid, "{words}: no loose comparison");
        assert_eq!(verified.problems, [Reason::FieldSet], "{words}");
    }
}

#[test]
fn words_of_a_pay_out_say_its_state() {
    use Status::{Failed, Paid, Pending, Unknown};
    for (words, expected, contradicts) in [
        ("0 PENDING", Pending, false),
        ("1 PROCESSING", Pending, false),
        ("2 SUCCESS", Paid, false),
        ("4 FAIL", Failed, false),
        ("5 PROCESSING", Pending, false),
        ("4 SUCCESS", Unknown, true),
        ("2 FAIL", Unknown, true),
        ("3 PENDING", Unknown, false),
        ("7 SUCCESS", Unknown, false),
    ] {
        let verified = verified(&plain_source(), &format!("pay_out {words}"));
        let problems: &[Reason] = if contradicts { &[Reason::Contradiction] } else { &[] };
        assert_eq!((verified.kind, status(&verified)), (Kind::Payout, expected), "{words}");
        assert_eq!(verified.problems, problems, "{words}");
    }
    let verified = verified(&plain_source(), "pay_out SUCCESS SUCCESS");
    assert_eq!((status(&verified), &verified.problems[..]), (Unknown, &[Reason::FieldSet][..]));
}

#[test]
fn a_field_that_the_provider_adds_tomorrow_is_kept_and_held() {
    let verified = verified(&source(), "new_field");
    assert_eq!((verified.problems, verified.assurance), (vec![Reason::FieldSet], Assurance::Ambiguous));
    assert!(verified.details.provider_fields.contains(&("channel".to_owned(), "qr".to_owned())));
    let told = source_with(&[&vector("public_1024")], |settings| settings.optional_fields.push("channel".to_owned()));
    assert!(self::verified(&told, "new_field").problems.is_empty(), "until the operator names it");
    assert_eq!(self::verified(&source(), "without_fee").problems, [Reason::FieldSet]);
}

#[test]
fn values_outside_their_grammar_are_kept_and_held() {
    for (name, reason, amount) in [
        ("zero", Reason::AmountUnreadable, Some("0.00")),
        ("not_an_amount", Reason::AmountUnreadable, None),
        ("negative", Reason::AmountUnreadable, None),
        ("other_order", Reason::OrderPattern, Some("10000.00")),
        ("whole_amounts", Reason::AmountUnreadable, Some("10000")),
    ] {
        let verified = verified(&source(), name);
        assert_eq!((verified.assurance, &verified.problems[..]), (Assurance::Ambiguous, &[reason][..]), "{name}");
        let value = verified.details.amount.map(|amount| amount.value.as_str().to_owned());
        assert_eq!(value.as_deref(), amount, "{name}");
    }
    let unreadable = verified(&source(), "not_an_amount");
    assert!(unreadable.details.provider_fields.contains(&("payMoney".to_owned(), "ten".to_owned())));
}

#[test]
fn a_shifted_message_is_ambiguous_and_shares_the_signed_hash_of_the_genuine_one() {
    let source = plain_source();
    let (genuine, shifted) = (verified(&source, "whole_amounts"), verified(&source, "shifted"));
    assert_eq!(genuine.signed, shifted.signed);
    assert_ne!(genuine.digest, shifted.digest);
    assert_eq!(shifted.details.amount.as_ref().map(ToString::to_string).as_deref(), Some("5010000 IDR"));
    for verified in [genuine, shifted] {
        assert_eq!(verified.assurance, Assurance::Ambiguous);
        let ambiguity = verified.ambiguity.expect("another reading");
        for amount in ["10000", "5010000"] {
            let amount = Decimal::parse(amount).expect("a decimal");
            assert!(ambiguity.allows(&verified.account, Kind::Payment, "T1231511321515", &amount));
        }
    }
    assert_eq!(verified(&self::source(), "shifted").problems, [Reason::AmountUnreadable], "with two decimals settled");
}

#[test]
fn the_create_answer_of_an_unpaid_order_never_proves_a_payment() {
    let source = source();
    let (content_type, body) = message("create_answer");
    assert_eq!(refused(&source, &content_type, &body), ("malformed", false), "genuine, but no notification");
    let (content_type, body) = message("query_answer");
    assert_eq!(refused(&source, &content_type, &body), ("malformed", false), "genuine, but no notification");
    let cut = verified(&source, "create_answer_cut_as_pay_in");
    assert_eq!((cut.assurance, &cut.problems[..]), (Assurance::Ambiguous, &[Reason::FieldSet][..]));
    let fitting = verified(&source, "create_answer_cut_to_fit");
    assert_eq!((status(&fitting), fitting.assurance), (Status::Paid, Assurance::Ambiguous));
    assert!(fitting.problems.is_empty() && fitting.ambiguity.is_some_and(|ambiguity| ambiguity.cross_type));
}

#[test]
fn a_repeat_is_the_same_and_another_state_is_not() {
    let source = source();
    let (one, again) = (verified(&source, "pay_in"), verified(&source, "pay_in"));
    assert_eq!((one.idempotency, one.digest), (again.idempotency, again.digest));
    let failed = verified(&source, "pay_in 01 FAIL -");
    assert_ne!(one.idempotency, failed.idempotency);
    let with_status = verified(&source, "pay_in 00 SUCCESS SUCCESS");
    assert_ne!(one.idempotency, with_status.idempotency, "an absent status is not an empty one");
}

#[test]
fn check_says_what_an_ordinary_payment_gets_and_what_would_be_better() {
    let ordinary = source().ordinary();
    assert_eq!((ordinary.verdict, ordinary.with_expectation), (Verdict::Compare, Verdict::Fulfil));
    assert!(ordinary.why.contains("No field names the merchant"));
    assert!(ordinary.neighbours.iter().any(|line| line.starts_with("payData | payFee")), "{:?}", ordinary.neighbours);
    assert!(!ordinary.neighbours.iter().any(|line| line.starts_with("name | orderNum")), "{:?}", ordinary.neighbours);
    let plain = plain_source().ordinary();
    assert_eq!((plain.verdict, plain.with_expectation), (Verdict::Hold, Verdict::Fulfil));
    assert!(plain.remedy.contains("Set order_pattern and amount_pattern"), "{}", plain.remedy);
    for pair in ["name | orderNum", "orderNum | payData", "payFee | payMoney", "payMoney | platOrderNum"] {
        assert!(plain.neighbours.iter().any(|line| line.starts_with(pair)), "{pair}: {:?}", plain.neighbours);
    }
    let digits = source_with(&[], |settings| settings.order_pattern = Some("^[0-9]{8,14}$".to_owned())).ordinary();
    assert!(digits.remedy.contains("without a letter prefix"), "{}", digits.remedy);
    assert!(digits.neighbours.iter().any(|line| line.starts_with("name | orderNum")), "{:?}", digits.neighbours);
    let narrow = source_with(&[], |settings| settings.order_pattern = Some("^INV-[0-9]{4}$".to_owned())).ordinary();
    assert_eq!(narrow.verdict, Verdict::Compare, "the example follows the pattern: {}", narrow.why);
    let impossible = source_with(&[], |settings| settings.order_pattern = Some("(".to_owned())).ordinary();
    assert_eq!((impossible.verdict, impossible.with_expectation), (Verdict::Hold, Verdict::Hold));
}

#[test]
fn answers_are_the_providers_own_words() {
    assert_eq!(source().refusal_style(), RefusalStyle::Phrase("FAIL"));
    assert_eq!(source().methods(), [Method::POST]);
    assert!(!source().has_return_url());
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(body: Vec<u8>, json: bool, fields in "[a-z]{1,4}", value in "\\PC{0,40}") {
        let content_type = if json { "application/json" } else { "application/x-www-form-urlencoded" };
        let source = source();
        proptest::prop_assert!(source.verify(request(Some(content_type), body)).is_err());
        let object = serde_json::json!({ &fields: value, "platSign": "AAAA" });
        proptest::prop_assert!(source.verify(request(Some(content_type), object.to_string())).is_err());
        let _ = message::php_number(&value);
    }

    #[test]
    fn no_number_makes_the_printer_panic(number: f64) {
        let _ = message::php_number(&format!("{number:e}"));
        let _ = message::php_number(&number.to_string());
    }
}
