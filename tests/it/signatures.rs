//! What public integrations get wrong about signatures (protocols' last section; V1 to V4, V6, V7).

use serde_json::{Value, json};

use crate::fixtures::{
    self, LEGACY_SECRET, PAYGOL_SECRET, clickpay_body, legacy, pay_in, pay_out, paygol, vectors, with,
};
use crate::harness::Daemon;
use crate::http::{self, Answer};

#[track_caller]
fn refused(daemon: &Daemon, answer: &Answer, why: &str) {
    assert!(matches!(answer.status, 400 | 401), "{why}: {answer:?}");
    assert_ne!(answer.text(), "SUCCESS", "{why}");
    assert_ne!(answer.text(), "OK", "{why}");
    assert!(daemon.feed().is_empty(), "{why} became an event");
}

fn post_json(daemon: &Daemon, body: &Value) -> Answer {
    daemon.post("/clickpay", "application/json", body.to_string().as_bytes())
}

#[test]
fn every_broken_clickpay_signature_is_refused() {
    let daemon = Daemon::start();
    let signatures = vectors()["clickpay"]["refused"].as_object().unwrap();
    assert!(signatures.len() >= 10);
    for (why, signature) in signatures {
        let body = with(pay_in(json!({})), json!({ "platSign": signature }));
        refused(&daemon, &post_json(&daemon, &body), why);
    }
    // The result of a failed block is not that of the block before it: the second block is another's.
    let good = clickpay_body(&pay_in(json!({})), "clickpay-1024");
    let long = pay_in(json!({ "payData": "x".repeat(200) }));
    refused(&daemon, &post_json(&daemon, &with(long, json!({ "platSign": good["platSign"] }))), "a block missing");
}

#[test]
fn a_missing_empty_or_null_signature_is_refused_everywhere() {
    let daemon = Daemon::start();
    let empty = [json!(null), json!(""), json!(true), json!(0), json!({}), json!([])];
    for value in empty {
        let mut body = pay_in(json!({}));
        body.as_object_mut().unwrap().insert("platSign".into(), value.clone());
        refused(&daemon, &post_json(&daemon, &body), &format!("platSign {value}"));
    }
    refused(&daemon, &post_json(&daemon, &pay_in(json!({}))), "no platSign");
    let body = paygol(json!({})).to_string();
    refused(&daemon, &daemon.post("/paygol", "application/json", body.as_bytes()), "no X-Pg-Sig");
    for signature in ["", "0", "00", "null", "true"] {
        refused(&daemon, &daemon.paygol_with(&body, signature), "a signature that is none");
    }
    let hash_of_nothing = fixtures::paygol_signature(&paygol(json!({})), "");
    refused(&daemon, &daemon.paygol_with(&body, &hash_of_nothing), "signed with the empty secret");
    for key in [json!(null), json!("")] {
        refused(&daemon, &daemon.legacy(&legacy(json!({ "key": key }))), "a key that is none");
    }
}

#[test]
fn a_forged_failure_is_refused_like_a_forged_success() {
    let daemon = Daemon::start();
    let genuine = clickpay_body(&pay_in(json!({})), "clickpay-1024");
    let failed = with(genuine, json!({ "code": "01", "msg": "FAIL" }));
    refused(&daemon, &post_json(&daemon, &failed), "a failure with the signature of a success");
    let signature = fixtures::paygol_signature(&paygol(json!({})), PAYGOL_SECRET);
    let body = paygol(json!({ "status": "failed" })).to_string();
    refused(&daemon, &daemon.paygol_with(&body, &signature), "Paygol's failed with the signature of completed");
}

#[test]
fn a_forged_pay_out_failure_is_refused() {
    let daemon = Daemon::start();
    let other = clickpay_body(&pay_out(json!({})), "clickpay-other");
    refused(&daemon, &post_json(&daemon, &other), "signed with a key that is not configured");
    let success = clickpay_body(&pay_out(json!({ "status": "2", "statusMsg": "SUCCESS" })), "clickpay-1024");
    let forged = with(success, json!({ "status": "4", "statusMsg": "FAIL" }));
    refused(&daemon, &post_json(&daemon, &forged), "a success turned into a failure");
}

#[test]
fn comparison_looks_at_case_and_at_every_byte() {
    let daemon = Daemon::start();
    refused(&daemon, &daemon.legacy(&legacy(json!({ "key": LEGACY_SECRET.to_uppercase() }))), "key in other case");
    refused(&daemon, &daemon.legacy(&legacy(json!({ "key": LEGACY_SECRET[..20] }))), "half a key");
    refused(&daemon, &daemon.legacy(&legacy(json!({ "key": format!("{LEGACY_SECRET}x") }))), "a key and a letter");
    let query = fixtures::form(&legacy(json!({ "key": null })));
    for more in
        [format!("key[]={LEGACY_SECRET}"), format!("key={LEGACY_SECRET}&key={LEGACY_SECRET}"), "key=true".into()]
    {
        refused(&daemon, &daemon.get(&format!("/paygol/ipn?{query}&{more}")), &more);
    }
    let signature = fixtures::paygol_signature(&paygol(json!({})), PAYGOL_SECRET);
    let body = paygol(json!({})).to_string();
    for changed in [signature[..63].to_owned(), format!("{signature}0"), signature.replace(&signature[..1], "g")] {
        refused(&daemon, &daemon.paygol_with(&body, &changed), "a signature nearly right");
    }
}

#[test]
fn a_parameter_in_query_and_body_is_refused() {
    let daemon = Daemon::start();
    let body = fixtures::form(&legacy(json!({ "price": "0.01" })));
    let target = format!("/paygol/ipn?{}", fixtures::form(&legacy(json!({}))));
    let answer = daemon.post(&target, "application/x-www-form-urlencoded", body.as_bytes());
    refused(&daemon, &answer, "every parameter twice");
}

#[test]
fn a_key_that_stands_twice_in_a_body_is_refused() {
    let daemon = Daemon::start();
    let signed = clickpay_body(&pay_in(json!({})), "clickpay-1024").to_string();
    let twice = signed.replacen('{', r#"{"payMoney":"1.00","#, 1);
    refused(&daemon, &daemon.post("/clickpay", "application/json", twice.as_bytes()), "payMoney twice");
    let body = paygol(json!({})).to_string();
    let signature = fixtures::paygol_signature(&paygol(json!({})), PAYGOL_SECRET);
    let twice = body.replacen('{', r#"{"price":"1.00","#, 1);
    refused(&daemon, &daemon.paygol_with(&twice, &signature), "price twice");
}

#[test]
fn another_service_is_refused_although_signed() {
    let daemon = Daemon::start();
    refused(&daemon, &daemon.paygol(&paygol(json!({ "service_id": "124" }))), "Paygol's service 124");
    refused(&daemon, &daemon.legacy(&legacy(json!({ "service_id": "123" }))), "legacy service 123");
    let count = |source: &str| {
        daemon.metric(&format!(r#"quittance_refusals_total{{reason="wrong_service",source="{source}"}}"#))
    };
    assert_eq!((count("paygol"), count("paygol-ipn")), (1.0, 1.0));
}

#[test]
fn the_raw_body_is_what_is_verified_not_a_new_print_of_it() {
    // V1: spaces, order and escapes of the body are the sender's; the kept bytes are too.
    let daemon = Daemon::start();
    let body = clickpay_body(&pay_in(json!({})), "clickpay-1024");
    let pretty = serde_json::to_string_pretty(&body).unwrap().replace("Neo", "\\u004eeo");
    assert_eq!(daemon.post("/clickpay", "application/json", pretty.as_bytes()).text(), "SUCCESS");
    let id = fixtures::text(&daemon.only_event()["notification_id"]);
    let kept = daemon.ask(&format!("/api/v1/notifications/{id}"));
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(fixtures::text(&kept["request"]["body"])).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), pretty);
    assert_eq!(kept["verification"]["scheme"], "rsa-recovery");
    // A number that every JSON library prints anew as 7500 or 7500.0.
    let body = paygol(json!({})).to_string().replace("\"7500.00\"", "7500.00").replace(':', " : ");
    let signature = fixtures::paygol_raw_signature(&body, PAYGOL_SECRET);
    assert_eq!(daemon.paygol_with(&body, &signature).status, 200);
    let printed_anew = serde_json::from_str::<serde_json::Value>(&body).unwrap().to_string();
    assert_ne!(printed_anew, body);
    let signature = fixtures::paygol_raw_signature(&printed_anew, PAYGOL_SECRET);
    assert_eq!(daemon.paygol_with(&body, &signature).status, 401, "signed over a new print");
    assert_eq!(daemon.feed().len(), 2);
}

#[test]
fn no_answer_tells_what_would_have_been_right() {
    // V3: every refusal of a source is the same few bytes, whatever the reason.
    let daemon = Daemon::start();
    let body = paygol(json!({})).to_string();
    let right = fixtures::paygol_signature(&paygol(json!({})), PAYGOL_SECRET);
    let mut answers = vec![daemon.paygol_with(&body, "00"), daemon.paygol(&paygol(json!({ "service_id": "9" })))];
    answers.push(daemon.paygol_with("{", &right));
    for answer in &answers {
        assert!(answer.body.len() < 40, "{answer:?}");
        assert_eq!(answer.text(), answers[0].text());
        let all = format!("{answer:?}");
        assert!(!all.contains(&right) && !all.contains(PAYGOL_SECRET) && !all.contains("service"), "{all}");
    }
}

#[test]
fn the_signature_must_come_in_its_own_field_and_once() {
    // V4: presence is not proof, and another header's signature is none.
    let daemon = Daemon::start();
    let body = paygol(json!({})).to_string();
    let right = fixtures::paygol_signature(&paygol(json!({})), PAYGOL_SECRET);
    for headers in [
        vec![("X-Signature", right.as_str())],
        vec![("Authorization", right.as_str())],
        vec![("X-Pg-Sig", "00"), ("X-Pg-Sig", right.as_str())],
        vec![("X-Pg-Sig", right.as_str()), ("X-Pg-Sig", "00")],
    ] {
        let headers: Vec<_> = [vec![("Content-Type", "application/json")], headers].concat();
        refused(&daemon, &daemon.send(&http::request("POST", "/paygol", &headers, body.as_bytes())), "another header");
    }
}

#[test]
fn accounts_of_one_provider_do_not_verify_each_others_notifications() {
    // V6: each source knows its own keys, and says in its own metrics that they were wrong.
    let daemon = Daemon::start();
    let vector = &vectors()["clickpay"]["pay_in_2048"];
    let body = with(fixtures::fields(vector), json!({ "platSign": vector["platSign"] })).to_string();
    let answer = daemon.post("/clickpay/strict", "application/json", body.as_bytes());
    refused(&daemon, &answer, "signed with a key of another source");
    assert_eq!(daemon.metric(r#"quittance_refusals_total{reason="bad_signature",source="clickpay-strict"}"#), 1.0);
    assert_eq!(daemon.metric(r#"quittance_refusals_total{reason="bad_signature",source="clickpay-id"}"#), 0.0);
}

#[test]
fn a_test_message_that_nobody_signed_is_never_told_as_real() {
    // V7: panels send unsigned test messages; they are refused like any other forgery.
    let daemon = Daemon::start();
    let test = json!({ "code": "00", "msg": "SUCCESS", "orderNum": "TEST", "payMoney": "1.00", "platOrderNum": "1", "platSign": "TEST" });
    refused(&daemon, &post_json(&daemon, &test), "a test message");
    refused(&daemon, &daemon.paygol_with(r#"{"service_id":"123","status":"completed","test":"1"}"#, "test"), "a test");
    // Those that look like a payment in everything but the signature.
    refused(&daemon, &post_json(&daemon, &pay_in(json!({ "platSign": "TEST" }))), "a whole test message");
    refused(&daemon, &daemon.paygol_with(&paygol(json!({})).to_string(), &"0".repeat(64)), "a whole test message");
    refused(&daemon, &daemon.legacy(&legacy(json!({ "key": "TEST" }))), "a whole test message");
}

#[test]
fn a_new_field_that_the_provider_adds_is_kept_acknowledged_and_held() {
    let daemon = Daemon::start();
    let answer = daemon.clickpay("/clickpay", &pay_in(json!({ "loyalty": "gold" })));
    assert_eq!(answer.text(), "SUCCESS");
    let data = daemon.only_event();
    assert_eq!((data["verdict"].as_str(), &data["reasons"]), (Some("hold"), &json!(["field_set"])));
    assert_eq!(data["provider_fields"]["loyalty"], "gold");
}

#[test]
fn a_new_field_of_paygol_changes_nothing() {
    let daemon = Daemon::start();
    assert_eq!(daemon.paygol(&paygol(json!({ "loyalty": "gold" }))).status, 200);
    let data = daemon.only_event();
    assert_eq!(
        (data["verdict"].as_str(), data["provider_fields"]["loyalty"].as_str()),
        (Some("compare"), Some("gold"))
    );
}

#[test]
fn what_is_authentic_and_unreadable_is_kept_and_held() {
    let daemon = Daemon::start();
    for (changes, reason) in [
        (json!({ "orderNum": "INV-77" }), "order_pattern"),
        (json!({ "payMoney": "-5.00", "platOrderNum": "552538080348274689" }), "amount_unreadable"),
    ] {
        assert_eq!(daemon.clickpay("/clickpay/strict", &pay_in(changes)).text(), "SUCCESS");
        let data = daemon.last_event();
        assert_eq!(data["verdict"], "hold");
        assert!(data["reasons"].as_array().unwrap().contains(&json!(reason)), "{data:#}");
    }
    assert_eq!(daemon.last_event()["amount"], Value::Null);
    assert_eq!(daemon.paygol(&paygol(json!({ "price": "1e3" }))).status, 200);
    assert!(daemon.last_event()["reasons"].as_array().unwrap().contains(&json!("amount_unreadable")));
    assert_eq!(daemon.paygol(&paygol(json!({ "custom": null, "transaction_id": "X-2" }))).status, 200);
    assert!(daemon.last_event()["reasons"].as_array().unwrap().contains(&json!("no_order")));
}
