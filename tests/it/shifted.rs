//! ClickPay signs values without names or borders: what can be read in two ways is never told as proven.

use serde_json::{Value, json};

use crate::fixtures::{self, clickpay_body, pay_in, with};
use crate::harness::{Config, Daemon};
use crate::http::Answer;

const STRICT: &str = "/clickpay/strict";
const LOOSE: &str = "/clickpay/loose";

/// Posts `fields` with the signature that was made for `signed`.
#[track_caller]
fn post_cut(daemon: &Daemon, path: &str, signed: &Value, fields: &Value) -> Answer {
    let sign = clickpay_body(signed, "clickpay-1024")["platSign"].clone();
    let body = with(fields.clone(), json!({ "platSign": sign }));
    daemon.post(path, "application/json", body.to_string().as_bytes())
}

fn told(verdict: &str) -> bool {
    matches!(verdict, "fulfil" | "compare")
}

#[track_caller]
fn nothing_is_told(daemon: &Daemon) {
    let verdicts = daemon.verdicts();
    assert!(!verdicts.is_empty(), "it is kept");
    assert!(!verdicts.iter().any(|v| told(v)), "{:#?}", daemon.feed());
}

/// What a shop's own page may show of an order that nobody paid: the platform signed it with the same key.
fn create_answer() -> Value {
    json!({
        "email": "00x@y.zz", "method": "QRIS", "name": "SUCCESSNeo", "orderNum": "T1231511321515",
        "payData": "https://link.example/pay", "payFee": "250.00", "payMoney": "10000.00",
        "platOrderNum": "552538080348274688", "platRespCode": "SUCCESS", "platRespMessage": "success",
        "productDetail": "1.0010000.00552538080348274688",
    })
}

/// The same bytes with the names of a paid notification, in the ways an attacker may cut them.
fn as_notifications() -> Vec<Value> {
    let common = json!({
        "code": "00", "email": "x@y.zz", "method": "QRIS", "msg": "SUCCESS", "name": "Neo",
        "orderNum": "T1231511321515", "payData": "https://link.example/pay", "payFee": "250.00",
        "payMoney": "10000.00", "platOrderNum": "552538080348274688",
    });
    let tail = "SUCCESSsuccess1.0010000.00552538080348274688";
    vec![
        // The order's own amount, fee and number, with all that follows put where names are free.
        with(
            common.clone(),
            json!({ "platRespCode": "SUCCESS", "platRespMessage": "success", "productDetail": &tail[14..] }),
        ),
        with(common.clone(), json!({ "status": tail })),
        with(common.clone(), json!({ "platOrderNum": format!("552538080348274688{tail}") })),
        with(common.clone(), json!({ "zzz": tail })),
        // Everything up to the attacker's own product text becomes payData: a reading without any fault.
        with(
            common,
            json!({
                "payData": "https://link.example/pay250.0010000.00552538080348274688SUCCESSsuccess", "payFee": "1.00",
            }),
        ),
    ]
}

#[test]
fn an_unpaid_orders_create_answer_posted_as_a_notification_is_never_told() {
    for fields in as_notifications() {
        let daemon = Daemon::start();
        let answer = post_cut(&daemon, STRICT, &create_answer(), &fields);
        assert_eq!(answer.text(), "SUCCESS", "the signature is genuine: {fields}");
        nothing_is_told(&daemon);
    }
}

#[test]
fn an_unpaid_orders_create_answer_is_not_told_either_when_the_shop_expects_the_payment() {
    for path in [STRICT, LOOSE] {
        for fields in as_notifications() {
            let daemon = Daemon::start();
            let source = if path == STRICT { "clickpay-strict" } else { "clickpay-loose" };
            daemon.expects(source, "T1231511321515", ("10000.00", "IDR"), json!({}));
            assert_eq!(post_cut(&daemon, path, &create_answer(), &fields).status, 200);
            nothing_is_told(&daemon);
        }
    }
}

#[test]
fn another_type_among_the_readings_is_named_and_alarmed() {
    let daemon = Daemon::start();
    post_cut(&daemon, STRICT, &create_answer(), &as_notifications()[4]);
    let data = daemon.only_event();
    assert_eq!(data["assurance"], "ambiguous");
    assert!(data["reasons"].as_array().unwrap().contains(&json!("cross_type")), "{data:#}");
    assert_eq!(daemon.metric(r#"quittance_forgery_alarms_total{kind="cross_type",source="clickpay-strict"}"#), 1.0);
}

/// S1 with amounts that allow a shift of digits from the fee into the amount.
fn genuine() -> Value {
    pay_in(json!({ "payFee": "250", "payMoney": "10000" }))
}

fn shifted() -> Value {
    pay_in(json!({ "payFee": "2", "payMoney": "5010000" }))
}

#[test]
fn neither_the_shifted_message_nor_the_genuine_one_is_told_whichever_comes_first() {
    for order in [[shifted(), genuine()], [genuine(), shifted()]] {
        let daemon = Daemon::start();
        for fields in &order {
            assert_eq!(post_cut(&daemon, LOOSE, &genuine(), fields).text(), "SUCCESS");
        }
        nothing_is_told(&daemon);
        let events = daemon.events();
        assert_eq!(events.len(), 2, "both are kept");
        assert!(events[1]["reasons"].as_array().unwrap().contains(&json!("conflict")), "{:#}", events[1]);
        assert_eq!(events[0]["assurance"], "ambiguous");
        let alarms = |kind| {
            daemon.metric(&format!(r#"quittance_forgery_alarms_total{{kind="{kind}",source="clickpay-loose"}}"#))
        };
        assert!(alarms("restring") + alarms("conflict") >= 1.0);
    }
}

#[test]
fn with_patterns_a_shift_breaks_the_grammar_and_the_genuine_message_reads_in_one_way() {
    let daemon = Daemon::start();
    let fields = pay_in(json!({}));
    let cut = pay_in(json!({ "name": "Ne", "orderNum": "oT1231511321515" }));
    assert_eq!(post_cut(&daemon, STRICT, &fields, &cut).text(), "SUCCESS");
    assert_eq!(daemon.only_event()["verdict"], "hold");
    // The genuine one is the second cut of its string now: nobody can tell which is true.
    assert_eq!(daemon.clickpay(STRICT, &fields).text(), "SUCCESS");
    nothing_is_told(&daemon);
}

#[test]
fn a_shift_within_the_undecided_fields_is_the_same_decision_and_told_once() {
    let daemon = Daemon::start();
    let fields = pay_in(json!({}));
    let cut = pay_in(json!({ "payData": "https://link.example/pay2", "payFee": "50.00" }));
    assert_eq!(post_cut(&daemon, STRICT, &fields, &cut).text(), "SUCCESS");
    assert_eq!(daemon.clickpay(STRICT, &fields).text(), "SUCCESS");
    let verdicts = daemon.verdicts();
    assert_eq!(verdicts.iter().filter(|v| told(v)).count(), 1, "{:#?}", daemon.feed());
    let first = &daemon.events()[0];
    assert!(
        first["unproven"].as_array().unwrap().contains(&json!("payFee"))
            || first["unproven"].as_array().unwrap().contains(&json!("fee")),
        "{first:#}"
    );
}

#[test]
fn another_cut_of_a_told_string_with_a_key_of_its_own_is_a_restring_and_held() {
    let daemon = Daemon::start();
    // The same decision, proven; only the platform's number, and with it the idempotency key, is another.
    let cut = pay_in(json!({ "platOrderNum": "348274688", "phone": "552538080" }));
    assert_eq!(daemon.clickpay(STRICT, &pay_in(json!({}))).text(), "SUCCESS");
    assert_eq!(post_cut(&daemon, STRICT, &pay_in(json!({})), &cut).text(), "SUCCESS");
    let events = daemon.events();
    assert_eq!((events[0]["verdict"].as_str(), events[1]["verdict"].as_str()), (Some("compare"), Some("hold")));
    assert_ne!(events[0]["transaction_id"], events[1]["transaction_id"]);
    assert_eq!(events[1]["reasons"], json!(["conflict"]), "{:#}", events[1]);
    assert_eq!(events[1]["relates_to"]["as"], "contradicts");
    assert_eq!(daemon.metric(r#"quittance_forgery_alarms_total{kind="restring",source="clickpay-strict"}"#), 1.0);
}

#[test]
fn a_shift_onto_an_order_that_is_registered_later_is_not_settled() {
    let daemon = Daemon::start();
    let fields = pay_in(json!({ "name": "Neo1", "orderNum": "2345" }));
    let cut = pay_in(json!({ "name": "Neo", "orderNum": "12345" }));
    assert_eq!(post_cut(&daemon, LOOSE, &fields, &cut).text(), "SUCCESS");
    daemon.expects("clickpay-loose", "12345", ("10000.00", "IDR"), json!({}));
    // The same cut again, and the genuine message: still nothing.
    assert_eq!(post_cut(&daemon, LOOSE, &fields, &cut).text(), "SUCCESS");
    assert_eq!(daemon.clickpay(LOOSE, &fields).text(), "SUCCESS");
    daemon.expects("clickpay-loose", "2345", ("10000.00", "IDR"), json!({}));
    nothing_is_told(&daemon);
}

#[test]
fn an_expectation_registered_before_settles_which_reading_is_meant() {
    let daemon = Daemon::start();
    daemon.expects("clickpay-loose", "T1231511321515", ("10000.00", "IDR"), json!({}));
    assert_eq!(daemon.clickpay(LOOSE, &pay_in(json!({}))).text(), "SUCCESS");
    let data = daemon.only_event();
    assert_eq!((data["assurance"].as_str(), data["verdict"].as_str()), (Some("ambiguous"), Some("fulfil")), "{data:#}");
    // Another cut of the string that was told: one signed string is told once.
    let cut = pay_in(json!({ "name": "Ne", "orderNum": "oT1231511321515" }));
    daemon.expects("clickpay-loose", "oT1231511321515", ("10000.00", "IDR"), json!({}));
    post_cut(&daemon, LOOSE, &pay_in(json!({})), &cut);
    assert_eq!(daemon.verdicts().iter().filter(|v| told(v)).count(), 1);
}

#[test]
fn two_expected_orders_among_the_readings_are_held() {
    let daemon = Daemon::start();
    for order in ["2345", "12345"] {
        daemon.expects("clickpay-loose", order, ("10000.00", "IDR"), json!({}));
    }
    assert_eq!(daemon.clickpay(LOOSE, &pay_in(json!({ "name": "Neo1", "orderNum": "2345" }))).text(), "SUCCESS");
    nothing_is_told(&daemon);
}

#[test]
fn an_expected_order_of_another_account_that_shares_the_key_is_a_reading_too() {
    // Both accounts hold the same key of the platform, and no field names the merchant.
    let both = [("clickpay-loose", "T1231511321515"), ("clickpay-wide", "1231511321515")];
    for (at, expected) in [&both[..1], &both[..]].into_iter().enumerate() {
        let loose = "name = \"clickpay-loose\"\nprovider = \"clickpay\"\npath = \"/clickpay/loose\"";
        let sources = crate::harness::sources();
        let table = sources.split("[[source]]").find(|table| table.contains(loose)).expect("the loose source");
        let wide = table.replace("clickpay-loose", "clickpay-wide").replace("/clickpay/loose", "/clickpay/wide");
        let sources = format!("{sources}\n[[source]]{wide}");
        let daemon = Daemon::with(Config { sources, ..Config::default() });
        for (source, order) in expected {
            daemon.expects(source, order, ("10000.00", "IDR"), json!({}));
        }
        assert_eq!(daemon.clickpay(LOOSE, &pay_in(json!({}))).text(), "SUCCESS");
        let data = daemon.only_event();
        let wanted = [("fulfil", json!([])), ("hold", json!(["ambiguous_split"]))];
        assert_eq!((data["verdict"].as_str().unwrap(), data["reasons"].clone()), wanted[at], "{data:#}");
    }
}

#[test]
fn one_signed_string_is_told_once_across_sources_that_share_a_key() {
    let daemon = Daemon::start();
    for path in ["/clickpay", STRICT, LOOSE, "/clickpay/twin"] {
        assert_eq!(daemon.clickpay(path, &pay_in(json!({}))).text(), "SUCCESS", "{path}");
    }
    assert_eq!(daemon.verdicts().iter().filter(|v| told(v)).count(), 1, "{:#?}", daemon.feed());
    assert_eq!(fixtures::text(&daemon.events()[0]["verdict"]), "compare");
}
