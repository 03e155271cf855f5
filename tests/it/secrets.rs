//! No secret and no bearer value shows anywhere: not in an event, a list, a metric, a log line, an answer or on disk.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixtures::{
    self, GEM_API_SIGNATURE, GEM_RETURN_SECRET, KW_RETURN_SECRET, LEGACY_SECRET, PAYGOL_SECRET, legacy, paygol,
};
use crate::harness::Daemon;

const INDICATOR: &str = "kw-indicator-9f3e7a1c";
const WRONG_INDICATOR: &str = "kw-indicator-guessed-77";

fn every_file(folder: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            every_file(&path, into);
        } else if let Ok(bytes) = fs::read(&path) {
            into.push((path.display().to_string(), bytes));
        }
    }
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    memchr::memmem::find(bytes, needle.as_bytes()).is_some()
}

#[test]
fn bearer_secrets_are_cut_out_of_everything_that_is_kept_told_or_logged() {
    let mut daemon = Daemon::start();
    let tag_of = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    assert_eq!(daemon.legacy(&legacy(json!({}))).status, 200);
    let posted = fixtures::form(&legacy(json!({ "transaction_id": "POSTED-1" })));
    assert_eq!(daemon.post("/paygol/ipn", "application/x-www-form-urlencoded", posted.as_bytes()).status, 200);
    // Escaped in its place: the same secret in other bytes.
    let escaped: String = LEGACY_SECRET.bytes().map(|b| format!("%{b:02x}")).collect();
    let target = format!(
        "/paygol/ipn?{}&key={escaped}",
        fixtures::form(&legacy(json!({ "key": null, "transaction_id": "ESC-1" })))
    );
    assert_eq!(daemon.get(&target).status, 200);
    let kw = daemon.expects(
        "clickkw",
        "42",
        ("6.000", "KWD"),
        json!({ "session_id": "s-1", "indicator_status": INDICATOR }),
    );
    daemon.get(&format!("{kw}?message=success&message_type=success&indicator_status={WRONG_INDICATOR}"));
    daemon.get(&format!("{kw}?message=success&message_type=success&indicator_status={INDICATOR}"));
    let gem = daemon.expects("clickgem", "gem-1", ("5", "CGM"), json!({}));
    let body = format!("api_signature={GEM_API_SIGNATURE}&status=paid");
    daemon.post(&gem, "application/x-www-form-urlencoded", body.as_bytes());
    // Refused ones are talked about too.
    daemon.legacy(&legacy(json!({ "key": "a-refused-key-5a5a5a5a" })));
    assert_eq!(daemon.paygol(&paygol(json!({}))).status, 200);

    let (kw_tag, gem_tag) = (tag_of(&kw), tag_of(&gem));
    let bearers = [
        LEGACY_SECRET,
        &escaped,
        INDICATOR,
        WRONG_INDICATOR,
        GEM_API_SIGNATURE,
        &kw_tag,
        &gem_tag,
        "a-refused-key-5a5a5a5a",
    ];
    let configured = [PAYGOL_SECRET, KW_RETURN_SECRET, GEM_RETURN_SECRET];
    let mut told = vec![daemon.ask("/api/v1/status").to_string(), daemon.admin_get("/metrics").text(), daemon.log()];
    told.push(Value::from(daemon.feed()).to_string());
    let list = daemon.ask("/api/v1/notifications");
    for item in list["notifications"].as_array().unwrap() {
        use base64::Engine as _;
        let kept = daemon.ask(&format!("/api/v1/notifications/{}", fixtures::text(&item["id"])));
        let body = base64::engine::general_purpose::STANDARD.decode(fixtures::text(&kept["request"]["body"])).unwrap();
        told.push(String::from_utf8_lossy(&body).into_owned());
        told.push(kept.to_string());
    }
    told.push(list.to_string());
    for order in ["clickkw/42", "clickgem/gem-1", "paygol-ipn/100042"] {
        told.push(daemon.ask(&format!("/api/v1/orders/{order}")).to_string());
    }
    for (at, text) in told.iter().enumerate() {
        for secret in bearers.iter().chain(&configured) {
            assert!(!text.contains(secret), "{secret} shows in answer {at}:\n{text}");
        }
    }
    assert!(daemon.stop().success());
    let mut files = Vec::new();
    every_file(&daemon.store(), &mut files);
    assert!(files.iter().any(|(_, bytes)| contains(bytes, "ZISS-A7Q8-RE2Z-S73W")), "the notifications are in there");
    // What a registration says may have to be kept to be compared with; what a notification carried may not.
    for (path, bytes) in &files {
        for secret in [LEGACY_SECRET, &escaped, WRONG_INDICATOR, GEM_API_SIGNATURE].iter().chain(&configured) {
            assert!(!contains(bytes, secret), "{secret} is in {path}");
        }
        for tag in [&kw_tag, &gem_tag] {
            assert!(!contains(bytes, tag), "the return tag {tag} is in {path}");
        }
    }
}

#[test]
fn personal_data_reaches_no_log_line_and_no_metric() {
    let daemon = Daemon::start();
    let fields = fixtures::pay_in(
        json!({ "name": "Zebedee Quux", "email": "zebedee.quux@example.com", "phone": "+4915112345678" }),
    );
    assert_eq!(daemon.clickpay("/clickpay", &fields).text(), "SUCCESS");
    let seen = [daemon.log(), daemon.admin_get("/metrics").text(), daemon.ask("/api/v1/notifications").to_string()];
    for text in seen {
        for private in ["Zebedee", "zebedee", "4915112345678"] {
            assert!(!text.contains(private), "{private} shows in\n{text}");
        }
    }
}

#[test]
fn control_characters_from_outside_do_not_reach_the_log() {
    let daemon = Daemon::start();
    assert_eq!(daemon.paygol(&paygol(json!({ "custom": "a\u{1b}[31mred\u{7}\nline" }))).status, 200);
    let log = daemon.log();
    assert!(!log.contains('\u{1b}') && !log.contains('\u{7}') && !log.contains("\nline"), "{log:?}");
    assert_eq!(daemon.only_event()["order_id"], "a\u{1b}[31mred\u{7}\nline", "kept as it came");
}
