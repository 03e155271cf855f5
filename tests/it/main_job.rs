//! A genuine notification of every provider is on disk, answered in the provider's own words, and one event; a repeat
//! is answered the same and is no second event; a forgery is refused.

use serde_json::{Value, json};

use crate::fixtures::{self, GEM_API_SIGNATURE, fields, legacy, pay_in, pay_out, paygol, vectors};
use crate::harness::Daemon;
use crate::http::Answer;

/// Sends the same twice: both must be answered alike, and one event remains, also after a crash.
#[track_caller]
fn twice(daemon: &mut Daemon, send: impl Fn(&Daemon) -> Answer) -> (Answer, Value) {
    let known = daemon.feed().len();
    let first = send(daemon);
    let second = send(daemon);
    assert_eq!((first.status, first.text()), (second.status, second.text()));
    assert_eq!(first.header("location"), second.header("location"));
    let before = daemon.feed();
    assert_eq!(before.len(), known + 1, "one event, not {before:#?}");
    daemon.crash_and_restart();
    assert_eq!(daemon.feed(), before, "a crash changes nothing that was told");
    (first, before.last().unwrap()["data"].clone())
}

#[test]
fn a_clickpay_payment_is_kept_answered_success_and_told_once() {
    let mut daemon = Daemon::start();
    let (answer, data) = twice(&mut daemon, |d| d.clickpay("/clickpay", &pay_in(json!({}))));
    assert_eq!((answer.status, answer.text().as_str()), (200, "SUCCESS"));
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
    assert_eq!(data["assurance"], "signed");
    assert_eq!(data["verdict"], "compare");
    assert_eq!(data["order_id"], "T1231511321515");
    assert_eq!(data["transaction_id"], "552538080348274688");
    assert_eq!(data["amount"], json!({ "value": "10000.00", "currency": "IDR", "minor_units": 1_000_000 }));
    assert_eq!(data["fee"], json!({ "value": "250.00", "currency": "IDR", "minor_units": 25_000 }));
    assert_eq!(data["payer"]["name"], "Neo");
    assert_eq!(
        data["provider_fields"],
        json!({ "code": "00", "msg": "SUCCESS", "payData": "https://link.example/pay" })
    );
}

#[test]
fn a_clickpay_form_with_unescaped_plus_signs_is_the_same_notification() {
    let mut daemon = Daemon::start();
    let body = fixtures::clickpay_body(&pay_in(json!({})), "clickpay-1024");
    let sign = fixtures::text(&body["platSign"]);
    assert!(sign.contains('+'), "the vector shows the case");
    let form = format!("{}&platSign={}", fixtures::form(&pay_in(json!({}))), sign.replace('=', "%3D"));
    let (answer, _) = twice(&mut daemon, |d| d.post("/clickpay", "application/x-www-form-urlencoded", form.as_bytes()));
    assert_eq!(answer.text(), "SUCCESS");
    assert_eq!(daemon.clickpay("/clickpay", &pay_in(json!({}))).text(), "SUCCESS");
    assert_eq!(daemon.feed().len(), 1, "JSON and form say the same thing");
}

#[test]
fn a_clickpay_signature_of_2048_bits_and_in_url_safe_letters_holds() {
    let daemon = Daemon::start();
    let vector = &vectors()["clickpay"]["pay_in_2048"];
    let sign = fixtures::text(&vector["platSign"]).replace('+', "-").replace('/', "_").replace('=', "");
    let body = fixtures::with(fields(vector), json!({ "platSign": sign }));
    assert_eq!(daemon.post("/clickpay", "application/json", body.to_string().as_bytes()).text(), "SUCCESS");
    assert_eq!(daemon.only_event()["verdict"], "compare");
    assert_eq!(daemon.metric(r#"quittance_verified_with_key_total{key="1",source="clickpay-id"}"#), 1.0);
}

#[test]
fn a_failed_clickpay_pay_out_is_told_as_a_payout() {
    let mut daemon = Daemon::start();
    let (answer, data) = twice(&mut daemon, |d| d.clickpay("/clickpay/out", &pay_out(json!({}))));
    assert_eq!(answer.text(), "SUCCESS", "a failed pay-out that was kept was processed");
    assert_eq!((data["kind"].as_str(), data["status"].as_str()), (Some("payout"), Some("failed")));
    assert_eq!(data["amount"]["value"], "200000");
}

#[test]
fn a_paygol_payment_is_kept_answered_and_told_once() {
    let mut daemon = Daemon::start();
    let (answer, data) = twice(&mut daemon, |d| d.paygol(&paygol(json!({}))));
    assert_eq!((answer.status, answer.text().as_str()), (200, "OK"));
    assert_eq!((data["assurance"].as_str(), data["verdict"].as_str()), (Some("signed"), Some("compare")));
    assert_eq!(data["order_id"], "Pago cuenta VIP");
    assert_eq!(data["amount"], json!({ "value": "7500.00", "currency": "CLP", "minor_units": 7500 }));
}

#[test]
fn paygol_may_sign_the_raw_body_too() {
    let daemon = Daemon::start();
    // A number that PHP would print differently: only the raw form can be meant.
    let body = r#"{"service_id":"123","transaction_id":"RAW-1","status":"completed","custom":"order 9","price":"7.50","currency":"EUR","rate":7500.00}"#;
    let signature = fixtures::paygol_raw_signature(body, fixtures::PAYGOL_SECRET);
    assert_eq!(daemon.paygol_with(body, &signature).status, 200);
    assert_eq!(daemon.only_event()["order_id"], "order 9");
}

#[test]
fn a_legacy_paygol_ipn_is_kept_answered_and_held() {
    let mut daemon = Daemon::start();
    let (answer, data) = twice(&mut daemon, |d| d.legacy(&legacy(json!({}))));
    assert_eq!((answer.status, answer.text().as_str()), (200, "OK"));
    assert_eq!((data["assurance"].as_str(), data["verdict"].as_str()), (Some("bearer"), Some("hold")));
    assert_eq!(data["reasons"], json!(["unconfirmed"]));
    assert_eq!(data["requested_amount"], json!({ "value": "10.00", "currency": "EUR", "minor_units": 1000 }));
}

#[test]
fn legacy_parameters_may_come_as_post_and_message_id_is_the_same_field() {
    let daemon = Daemon::start();
    assert_eq!(daemon.legacy(&legacy(json!({}))).status, 200);
    let older = legacy(json!({ "transaction_id": null, "message_id": "ZISS-A7Q8-RE2Z-S73W" }));
    let answer = daemon.post("/paygol/ipn", "application/x-www-form-urlencoded", fixtures::form(&older).as_bytes());
    assert_eq!(answer.status, 200);
    daemon.only_event();
}

#[test]
fn a_click_kw_return_sends_the_buyer_to_the_thanks_page_and_holds() {
    let mut daemon = Daemon::start();
    let session = json!({ "session_id": "s-1", "indicator_status": "kw-indicator-0001" });
    let path = daemon.expects("clickkw", "42", ("6.000", "KWD"), session);
    let target = format!("{path}?message=success&message_type=success&indicator_status=kw-indicator-0001");
    let (answer, data) = twice(&mut daemon, |d| d.get(&target));
    assert_eq!((answer.status, answer.location()), (303, "https://shop.example.com/thanks?order=42"));
    assert_eq!((data["status"].as_str(), data["verdict"].as_str()), (Some("paid"), Some("hold")));
    assert_eq!(data["reasons"], json!(["browser"]));
    assert_eq!(data["amount"], Value::Null);
    assert_eq!(data["expected_amount"], json!({ "value": "6.000", "currency": "KWD", "minor_units": 6000 }));
}

#[test]
fn a_clickgem_return_sends_the_buyer_to_the_thanks_page_and_holds() {
    let mut daemon = Daemon::start();
    let path = daemon.expects("clickgem", "gem-7", ("5", "CGM"), json!({}));
    let body = format!("api_signature={GEM_API_SIGNATURE}&status=paid");
    let (answer, data) = twice(&mut daemon, |d| d.post(&path, "application/x-www-form-urlencoded", body.as_bytes()));
    assert_eq!((answer.status, answer.location()), (303, "https://shop.example.com/thanks?order=gem-7"));
    assert_eq!((data["status"].as_str(), data["verdict"].as_str()), (Some("paid"), Some("hold")));
    assert_eq!(data["expectation"], "unchecked");
}

#[test]
fn clickgem_posts_multipart_too() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickgem", "gem-8", ("5", "CGM"), json!({}));
    let part = |name: &str, value: &str| {
        format!("--b0undary\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body = part("api_signature", GEM_API_SIGNATURE) + &part("status", "paid") + "--b0undary--\r\n";
    let answer = daemon.post(&path, "multipart/form-data; boundary=b0undary", body.as_bytes());
    assert_eq!((answer.status, answer.location()), (303, "https://shop.example.com/thanks?order=gem-8"));
    assert_eq!(daemon.only_event()["status"], "paid");
}

#[test]
fn forgeries_of_every_provider_are_refused_and_told_nobody() {
    let daemon = Daemon::start();
    let signed = fixtures::clickpay_body(&pay_in(json!({})), "clickpay-1024");
    let changed = fixtures::with(signed, json!({ "payMoney": "99999.00" }));
    let answer = daemon.post("/clickpay", "application/json", changed.to_string().as_bytes());
    assert_eq!((answer.status, answer.text().as_str()), (401, "FAIL"));

    let signature = fixtures::paygol_signature(&paygol(json!({})), fixtures::PAYGOL_SECRET);
    assert_eq!(daemon.paygol_with(&paygol(json!({ "price": "1.00" })).to_string(), &signature).status, 401);

    assert_eq!(daemon.legacy(&legacy(json!({ "key": "not the key at all" }))).status, 401);

    for target in ["/clickkw/42/AAAAAAAAAAAAAAAAAAAAAA", "/clickgem/gem-7/AAAAAAAAAAAAAAAAAAAAAA"] {
        let answer = daemon.get(&format!("{target}?message=success&getid=0123456789abcdef0123456789abcdef"));
        assert_eq!((answer.status, answer.location()), (303, "https://shop.example.com/sorry?order="));
    }
    let path = daemon.expects("clickgem", "gem-9", ("5", "CGM"), json!({}));
    let answer =
        daemon.post(&path, "application/x-www-form-urlencoded", b"api_signature=wrong-wrong-wrong&status=paid");
    assert_eq!((answer.status, answer.location()), (303, "https://shop.example.com/sorry?order="));

    assert_eq!(daemon.feed(), Vec::<Value>::new());
    let refused = |source: &str| {
        daemon.metric(&format!(r#"quittance_notifications_total{{outcome="refused",source="{source}"}}"#))
    };
    assert_eq!(["clickpay-id", "paygol", "paygol-ipn", "clickkw", "clickgem"].map(refused), [1.0, 1.0, 1.0, 1.0, 2.0]);
}
