//! Test notifications, signed by `fixtures/signer.py`: never by the code that is tested. Also the published vectors.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use serde_json::{Value, json};

/// Paygol's HMAC secret of the sources here: the one of Paygol's own documentation.
pub const PAYGOL_SECRET: &str = "7c1a6a24-7943-102d-92f8-29573711ad31";
/// The `key` of legacy notifications.
pub const LEGACY_SECRET: &str = "5d0f9c3e-legacy-4b1a-8c2d-7e6f5a4b3c2d";
/// Signs return URLs of Click KW sources.
pub const KW_RETURN_SECRET: &str = "kw-return-4f8a2c6e1b9d7305";
/// Signs return URLs of ClickGem sources.
pub const GEM_RETURN_SECRET: &str = "gem-return-93b1d5f7e2a8c604";
/// ClickGem's static secret.
pub const GEM_API_SIGNATURE: &str = "gem-api-0c7e5a3f9b1d2846";

/// The folder with keys and vectors.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures")
}

/// `vectors.json`.
pub fn vectors() -> &'static Value {
    static VECTORS: OnceLock<Value> = OnceLock::new();
    VECTORS.get_or_init(|| {
        let text = std::fs::read_to_string(folder().join("vectors.json")).expect("the vectors");
        serde_json::from_str(&text).expect("the vectors are JSON")
    })
}

/// The fields of a vector as an object of strings.
pub fn fields(vector: &Value) -> Value {
    vector["fields"].clone()
}

/// S1 of the wire facts: a paid pay-in, with `changes` laid over it (null takes a field away).
pub fn pay_in(changes: Value) -> Value {
    with(fields(&vectors()["clickpay"]["pay_in"]), changes)
}

/// S3: a failed pay-out.
pub fn pay_out(changes: Value) -> Value {
    with(fields(&vectors()["clickpay"]["pay_out_failed"]), changes)
}

/// P1: a completed Paygol payment.
pub fn paygol(changes: Value) -> Value {
    with(fields(&vectors()["paygol"]["completed"]), changes)
}

/// A legacy notification of service 124, `key` included.
pub fn legacy(changes: Value) -> Value {
    let fields = json!({
        "transaction_id": "ZISS-A7Q8-RE2Z-S73W", "service_id": "124", "country": "ES", "custom": "100042",
        "price": "6800.00", "currency": "CLP", "frmprice": "10.00", "frmcurrency": "EUR", "method": "webpay",
        "key": LEGACY_SECRET,
    });
    with(fields, changes)
}

/// `fields` with `changes` laid over them; null takes a field away.
pub fn with(mut fields: Value, changes: Value) -> Value {
    let map = fields.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            map.remove(name);
        } else {
            map.insert(name.clone(), value.clone());
        }
    }
    fields
}

/// A ClickPay body: `fields` with the `platSign` of `key`.
pub fn clickpay_body(fields: &Value, key: &str) -> Value {
    let signed = signer(&json!({ "scheme": "clickpay", "key": key, "fields": fields }));
    with(fields.clone(), json!({ "platSign": signed["platSign"] }))
}

/// `X-Pg-Sig` over PHP's canonical form of `fields`.
pub fn paygol_signature(fields: &Value, secret: &str) -> String {
    text(&signer(&json!({ "scheme": "paygol", "secret": secret, "fields": fields }))["signature"])
}

/// `X-Pg-Sig` over the bytes of `body`.
pub fn paygol_raw_signature(body: &str, secret: &str) -> String {
    text(&signer(&json!({ "scheme": "paygol-raw", "secret": secret, "body": body }))["signature"])
}

/// The tag of a return URL.
pub fn tag(secret: &str, source: &str, order_id: &str) -> String {
    text(&signer(&json!({ "scheme": "tag", "secret": secret, "source": source, "order_id": order_id }))["tag"])
}

/// `application/x-www-form-urlencoded`, everything outside `[A-Za-z0-9._-]` escaped.
pub fn form(fields: &Value) -> String {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|b| match b {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => char::from(b).to_string(),
                _ => format!("%{b:02X}"),
            })
            .collect()
    };
    let pairs = fields.as_object().expect("an object").iter();
    pairs.map(|(n, v)| format!("{}={}", escape(n), escape(&text(v)))).collect::<Vec<_>>().join("&")
}

/// The string in `value`.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}")).to_owned()
}

/// Asks the one long-lived signer of this test run.
fn signer(request: &Value) -> Value {
    struct Signer {
        child: Child,
        out: BufReader<ChildStdout>,
    }
    static SIGNER: Mutex<Option<Signer>> = Mutex::new(None);
    let mut slot = SIGNER.lock().expect("the signer did not panic");
    let signer = slot.get_or_insert_with(|| {
        let mut child = Command::new("/usr/bin/python3")
            .arg(folder().join("signer.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("/usr/bin/python3 runs");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Signer { child, out }
    });
    let input = signer.child.stdin.as_mut().expect("piped");
    writeln!(input, "{request}").expect("the signer reads");
    let mut line = String::new();
    signer.out.read_line(&mut line).expect("the signer answers");
    serde_json::from_str(&line).expect("the signer answers in JSON; is python3-cryptography installed?")
}
