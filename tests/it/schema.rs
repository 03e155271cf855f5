//! The published schema and what is really emitted say the same.

use std::sync::OnceLock;

use serde_json::{Value, json};

fn validator() -> &'static jsonschema::Validator {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| {
        let schema: Value =
            serde_json::from_str(include_str!("../../schema/payment-event.v1.json")).expect("the schema is JSON");
        jsonschema::draft202012::new(&schema).expect("a JSON Schema")
    })
}

/// Fails unless `event` is what the schema says. Called for every event that any test reads.
#[track_caller]
pub fn check(event: &Value) {
    let problems: Vec<_> = validator().iter_errors(event).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(problems.is_empty(), "{problems:#?}\nin {event:#}");
    let data = &event["data"];
    assert_eq!(event["type"], format!("{}.{}", data["kind"].as_str().unwrap(), data["status"].as_str().unwrap()));
    assert_eq!(event["time"], data["received_at"]);
    assert_eq!(event.get("subject").unwrap_or(&Value::Null), &data["order_id"]);
}

/// The example of the interface's first section.
fn example() -> Value {
    json!({
        "specversion": "1.0", "id": "019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10", "source": "/sources/clickpay-id",
        "type": "payment.paid", "subject": "T1231511321515", "time": "2026-11-20T08:15:30.123Z",
        "datacontenttype": "application/json", "dataschema": "urn:quittance:payment-event:v1",
        "data": {
            "provider": "clickpay", "account": "clickpay-id", "kind": "payment", "status": "paid",
            "order_id": "T1231511321515", "transaction_id": "552538080348274688",
            "amount": { "value": "10000.00", "currency": "IDR", "minor_units": 1_000_000 },
            "requested_amount": null, "expected_amount": null,
            "fee": { "value": "250.00", "currency": "IDR", "minor_units": 25_000 },
            "method": "QRIS",
            "payer": { "name": "Neo", "email": "buyer@example.com", "phone": null, "country": null },
            "custom": null, "occurred_at": null, "received_at": "2026-11-20T08:15:30.123Z",
            "provider_fields": { "code": "00", "msg": "SUCCESS" },
            "assurance": "signed", "unproven": ["fee", "payData"],
            "expectation": "unregistered", "verdict": "compare", "reasons": [],
            "relates_to": null, "sequence": 1, "stale": false,
            "notification_id": "019aa2f4-6f0d-7a10-8d40-6a1d5a0f2b11"
        }
    })
}

/// Every object of an event that the schema closes, as JSON pointers.
const CLOSED: [&str; 4] = ["", "/data", "/data/amount", "/data/payer"];

#[test]
fn the_example_of_the_interface_is_valid() {
    check(&example());
}

#[test]
fn a_key_that_the_schema_does_not_name_is_invalid() {
    for pointer in CLOSED {
        let mut event = example();
        event.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap().insert("extra".into(), json!("x"));
        assert!(!validator().is_valid(&event), "an extra key at {pointer:?} passed");
    }
}

#[test]
fn every_key_but_subject_of_an_order_less_event_must_be_there() {
    for pointer in CLOSED {
        let keys: Vec<String> =
            example().pointer(pointer).and_then(Value::as_object).unwrap().keys().cloned().collect();
        for key in keys {
            let mut event = example();
            event.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap().remove(&key);
            assert!(!validator().is_valid(&event), "without {pointer}/{key} it passed");
        }
    }
    let mut event = example();
    event.as_object_mut().unwrap().remove("subject");
    event["data"]["order_id"] = Value::Null;
    check(&event);
}

#[test]
fn words_outside_the_closed_lists_are_invalid() {
    for (pointer, value) in [
        ("/type", json!("payment.won")),
        ("/data/provider", json!("clickpay.com.sa")),
        ("/data/kind", json!("gift")),
        ("/data/status", json!("won")),
        ("/data/assurance", json!("verified")),
        ("/data/expectation", json!("maybe")),
        ("/data/verdict", json!("ok")),
        ("/data/reasons", json!(["because"])),
        ("/data/relates_to", json!({ "id": "019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10", "as": "likes" })),
        ("/data/sequence", json!(0)),
        ("/data/amount/value", json!("-1")),
        ("/data/amount/value", json!(1)),
        ("/data/amount/minor_units", json!(1.5)),
        ("/data/provider_fields/code", json!(0)),
        ("/id", json!("552538080348274688")),
        ("/time", json!("2026-11-20 08:15:30")),
    ] {
        let mut event = example();
        *event.pointer_mut(pointer).unwrap() = value.clone();
        assert!(!validator().is_valid(&event), "{value} at {pointer} passed");
    }
}

#[test]
fn the_words_of_the_schema_are_the_words_of_the_code() {
    use quittance::event::{Assurance, ExpectationResult, Kind, Reason, Relation, Status, Verdict};
    let schema: Value = serde_json::from_str(include_str!("../../schema/payment-event.v1.json")).unwrap();
    let data = &schema["$defs"]["data"]["properties"];
    let words = |value: &Value| -> Vec<String> {
        value["enum"].as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_owned()).collect()
    };
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    macro_rules! same {
        ($schema:expr, $type:ty) => {
            assert_eq!(sorted(words($schema)), sorted(<$type>::ALL.iter().map(ToString::to_string).collect()));
        };
    }
    same!(&data["kind"], Kind);
    same!(&data["status"], Status);
    same!(&data["assurance"], Assurance);
    same!(&data["expectation"], ExpectationResult);
    same!(&data["verdict"], Verdict);
    same!(&data["reasons"]["items"], Reason);
    same!(&data["relates_to"]["properties"]["as"], Relation);
}
