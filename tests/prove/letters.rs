//! Notifications of every provider, numbered, signed beforehand by code that is not Quittance's, without end.
//!
//! A number decides everything about its notification. Twenty numbers make a block, and an order lies within one
//! block, so that whoever posts a block in its order posts each order in its order.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use serde_json::{Value, json};

use crate::bulk::STATES;
use crate::fixtures::{self, GEM_API_SIGNATURE, GEM_RETURN_SECRET, KW_RETURN_SECRET, PAYGOL_SECRET};
use crate::http;
use crate::judge::{Claim, Name};

/// Numbers of a block.
const BLOCK: u64 = 20;
/// Blocks that are signed in one go, and goes that wait to be taken.
const BLOCKS: u64 = 10;
const AHEAD: usize = 40;

/// A notification as it is posted, and what has to become of it.
#[derive(Clone, Debug)]
pub struct Letter {
    pub claim: Claim,
    /// What has to be registered before it is posted.
    pub registration: Option<Value>,
    /// The whole request.
    pub request: Vec<u8>,
    pub success: Success,
}

/// The answer that makes a delivery an obligation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// 200 with this body.
    Body(&'static str),
    /// 303 to a page that names the order. One that does not is a refusal.
    SeeOther,
}

impl Letter {
    /// Whether an answer acknowledges it.
    pub fn is_acknowledged_by(&self, answer: &http::Answer) -> bool {
        match self.success {
            Success::Body(body) => answer.status == 200 && answer.body == body.as_bytes(),
            Success::SeeOther => {
                let order = format!("?order={}", self.claim.name.order);
                answer.status == 303 && answer.header("location").is_some_and(|to| to.ends_with(&order))
            }
        }
    }
}

/// A block, in its order.
pub type Block = Vec<Letter>;

/// Signs from this number on until nobody takes any more; it begins a block.
pub fn supply(first: u64) -> Receiver<Block> {
    let (into, from) = sync_channel(AHEAD);
    thread::spawn(move || sign_on(first, &into));
    from
}

fn sign_on(mut first: u64, into: &SyncSender<Block>) {
    let mut signer = Command::new("/usr/bin/python3")
        .arg(fixtures::folder().join("signer.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("/usr/bin/python3 runs");
    let mut input = signer.stdin.take().expect("piped");
    let mut output = BufReader::new(signer.stdout.take().expect("piped")).lines();
    let mut taken = true;
    while taken {
        let drafts: Vec<Draft> = (first..first + BLOCKS * BLOCK).map(draft).collect();
        let questions: Vec<u8> = drafts.iter().flat_map(|draft| format!("{}\n", draft.question).into_bytes()).collect();
        let letters: Vec<Letter> = thread::scope(|scope| {
            scope.spawn(|| input.write_all(&questions).expect("the signer reads"));
            let mut answer = || {
                let line = output.next().expect("an answer to each question").expect("text");
                serde_json::from_str(&line).expect("the signer answers in JSON; is python3-cryptography installed?")
            };
            drafts.into_iter().map(|draft| draft.sign(&answer())).collect()
        });
        first += BLOCKS * BLOCK;
        taken = letters.chunks(BLOCK as usize).all(|block| into.send(block.to_vec()).is_ok());
    }
    drop(input);
    let _ = signer.wait();
}

/// A notification before it is signed.
struct Draft {
    claim: Claim,
    registration: Option<Value>,
    question: Value,
    kind: Kind,
}

enum Kind {
    Clickpay(Value),
    Paygol,
    Legacy(Value),
    ClickKw { indicator: String },
    ClickGem,
}

/// Half of them are Paygol's, which are cheap to sign and share an order.
fn draft(number: u64) -> Draft {
    let block = number / BLOCK;
    let price = format!("{}.00", number % 9_000 + 1);
    let claim = |source: &str, order: String, transaction: Option<String>, event_type: &str, amount| Claim {
        number,
        name: Name { source: source.into(), order, transaction, event_type: event_type.into() },
        amount,
        body: None,
        expectation: Some("unregistered"),
    };
    match number % 10 {
        0 => {
            let (order, transaction) = (format!("T{number:013}"), format!("55{number:016}"));
            let changes = json!({ "orderNum": order, "platOrderNum": transaction, "payMoney": price });
            let fields = fixtures::pay_in(changes);
            Draft {
                claim: claim("clickpay-id", order, Some(transaction), "payment.paid", Some(price)),
                registration: None,
                question: json!({ "scheme": "clickpay", "key": "clickpay-1024", "fields": fields }),
                kind: Kind::Clickpay(fields),
            }
        }
        1..=5 => {
            let (state, event_type) = STATES[(number % 3) as usize];
            let (order, transaction) = (format!("order-{block}"), format!("T-{number}"));
            let fields = fixtures::paygol(json!({
                "transaction_id": transaction, "custom": order, "price": price, "status": state
            }));
            Draft {
                claim: claim("paygol", order, Some(transaction), event_type, Some(price)),
                registration: None,
                question: json!({ "scheme": "paygol", "secret": PAYGOL_SECRET, "fields": fields }),
                kind: Kind::Paygol,
            }
        }
        6 | 7 => {
            let (order, transaction) = (format!("order-{block}"), format!("L-{number}"));
            let fields = fixtures::legacy(json!({ "transaction_id": transaction, "custom": order, "price": price }));
            Draft {
                claim: claim("paygol-ipn", order, Some(transaction), "payment.paid", Some(price)),
                registration: None,
                // Its key is all its signature; the answer is not looked at.
                question: json!({ "scheme": "paygol-raw", "secret": "-", "body": "-" }),
                kind: Kind::Legacy(fields),
            }
        }
        8 => {
            let (order, indicator) = ((number + 1).to_string(), format!("kw-indicator-{number:08}"));
            Draft {
                registration: Some(json!({
                    "source": "clickkw", "order_id": order, "amount": { "value": "6.000", "currency": "KWD" },
                    "session_id": format!("session-{number}"), "indicator_status": indicator,
                })),
                question: json!({ "scheme": "tag", "secret": KW_RETURN_SECRET, "source": "clickkw", "order_id": order }),
                claim: Claim { expectation: Some("unchecked"), ..claim("clickkw", order, None, "payment.paid", None) },
                kind: Kind::ClickKw { indicator },
            }
        }
        _ => {
            let order = format!("gem-{number}");
            Draft {
                registration: Some(json!({
                    "source": "clickgem", "order_id": order, "amount": { "value": "5", "currency": "CGM" },
                })),
                question: json!({ "scheme": "tag", "secret": GEM_RETURN_SECRET, "source": "clickgem", "order_id": order }),
                claim: Claim { expectation: Some("unchecked"), ..claim("clickgem", order, None, "payment.paid", None) },
                kind: Kind::ClickGem,
            }
        }
    }
}

impl Draft {
    fn sign(mut self, signed: &Value) -> Letter {
        let post =
            |target: &str, headers: &[(&str, &str)], body: &str| staying("POST", target, headers, body.as_bytes());
        let order = self.claim.name.order.clone();
        let mut plain = None;
        let (request, success) = match self.kind {
            Kind::Clickpay(fields) => {
                let body = fixtures::with(fields, json!({ "platSign": signed["platSign"] })).to_string();
                let request = post("/clickpay", &[("Content-Type", "application/json")], &body);
                plain = Some(body.into_bytes());
                (request, Success::Body("SUCCESS"))
            }
            Kind::Paygol => {
                let (body, signature) = (fixtures::text(&signed["canonical"]), fixtures::text(&signed["signature"]));
                let headers = [("Content-Type", "application/json"), ("X-Pg-Sig", signature.as_str())];
                let request = post("/paygol", &headers, &body);
                plain = Some(body.into_bytes());
                (request, Success::Body("OK"))
            }
            Kind::Legacy(fields) => {
                let target = format!("/paygol/ipn?{}", fixtures::form(&fields));
                (staying("GET", &target, &[], b""), Success::Body("OK"))
            }
            Kind::ClickKw { indicator } => {
                let tag = fixtures::text(&signed["tag"]);
                let query = format!("message=success&message_type=success&indicator_status={indicator}");
                (staying("GET", &format!("/clickkw/{order}/{tag}?{query}"), &[], b""), Success::SeeOther)
            }
            Kind::ClickGem => {
                let target = format!("/clickgem/{order}/{}", fixtures::text(&signed["tag"]));
                let body = format!("api_signature={GEM_API_SIGNATURE}&status=paid");
                let form = [("Content-Type", "application/x-www-form-urlencoded")];
                (post(&target, &form, &body), Success::SeeOther)
            }
        };
        self.claim.body = plain;
        Letter { claim: self.claim, registration: self.registration, request, success }
    }
}

/// A request on a connection that stays.
fn staying(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let bytes = http::request(method, target, headers, body);
    let text = b"Connection: close\r\n";
    let at = bytes.windows(text.len()).position(|window| window == text).expect("it is in the head");
    [&bytes[..at], &bytes[at + text.len()..]].concat()
}
