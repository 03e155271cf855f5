//! Stores that hold millions of notifications, written through the journal's own API and kept in the cache.
//!
//! What is old has no parts any more, as retention leaves it; what is owed to the relay has them. Every record is one
//! that the committer would have written: the first is verified and decided by the code that does it in the daemon, the
//! others differ from it in what makes a notification another one.

mod operated;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use quittance::clock::{Clock, System};
use quittance::config::Config;
use quittance::event::{Digest, EventId, NotificationId, OrderId, Position};
use quittance::provider::{self, Provider, Received};
use quittance::store::embedded::decide::{Circumstances, Decision, decide};
use quittance::store::embedded::journal::{Entry, Journal, Options};
use quittance::store::embedded::raw;
use quittance::store::embedded::record::{Progress, Record, SinkStart, Stamped, Statement};
use quittance::store::embedded::state::{Key, Keys, Value, View};

use crate::material::{Material, PAYGOL_SECRET};
use crate::say;
use crate::servers::Daemon;

const GROUP: usize = 1000;

/// The folder of a store with `keys` notifications, of which the last `backlog` are owed to the relay. Made once.
pub fn store(cache: &Path, material: &Material, keys: u64, backlog: u64) -> PathBuf {
    let what = format!("{keys} notifications, {backlog} of them owed to the relay");
    made_once(cache, &format!("store-{keys}-{backlog}"), &what, |folder| fill(folder, material, keys, backlog))
}

pub use operated::{FORGOTTEN_SECRET, LETTERS, MANY, OPERATED, SPACING, arrived, operated, order};

fn made_once(cache: &Path, name: &str, what: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let folder = cache.join(name);
    let done = folder.join("prefilled");
    if done.exists() {
        return folder;
    }
    say(&format!("writing {what} (kept for the next time)"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("made");
    fill(&folder);
    fs::write(done, "").expect("written");
    folder
}

/// Nothing is known of anything: every notification here is the first of its order.
struct Nothing;

impl View for Nothing {
    fn get(&mut self, _: &Key) -> Option<Value> {
        None
    }
    fn put(&mut self, _: Key, _: Value) {}
}

/// What tells one notification from another.
struct Made {
    order: String,
    transaction: String,
    status: &'static str,
    price: u64,
    at: Timestamp,
}

impl Made {
    fn old(number: u64) -> Self {
        let (order, transaction) = (format!("old-{number}"), format!("OLD-{number:012}"));
        Self { order, transaction, status: "completed", price: 1000 + number % 90000, at: System.now() }
    }
}

struct Filler {
    journal: Journal,
    keys: Keys,
    provider: Arc<dyn Provider>,
    group: Vec<Entry>,
}

impl Filler {
    /// A store in a folder, as a daemon of the harness' own would make it.
    fn new(folder: &Path, material: &Material) -> Self {
        let file = Daemon::default().configure(folder, material);
        let config = Config::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
        let place = config.sources.iter().position(|source| source.name.as_str() == "paygol").expect("configured");
        let provider = provider::build_all(&config.sources).swap_remove(place);
        let options = Options { segment_bytes: config.store.segment_bytes, verify: false };
        let (journal, _) = Journal::open(folder, options).expect("a journal");
        let keys = Keys::new(journal.store_id());
        Self { journal, keys, provider, group: Vec::with_capacity(GROUP) }
    }

    fn position(&self) -> Position {
        Position(self.journal.next_position().0 + self.group.len() as u64)
    }

    fn add(&mut self, record: Record, raw: Bytes, event: Vec<u8>) {
        let fingerprints = self.keys.fingerprints(&record);
        let payload = Stamped { committed_at: System.now(), doubtful: false, record }.encode();
        let (raw_hash, event_hash) = (Digest::of(&raw), Digest::of(&event));
        self.group.push(Entry { payload, raw, raw_hash, event, event_hash, fingerprints });
        if self.group.len() == GROUP {
            self.write();
        }
    }

    /// A notification that was verified and decided.
    fn decided(&self, view: &mut impl View, made: &Made) -> (Box<Statement>, Bytes, Vec<u8>) {
        let Made { order, transaction, status, price, at } = made;
        let body = format!(
            r#"{{"country":"CL","completed_at":"2026-11-20T16:22:32-03:00","currency":"CLP","created_at":"2026-11-20T16:19:27-03:00","custom":"{order}","method":"webpay","price":"{price}.00","service_id":"123","status":"{status}","transaction_id":"{transaction}"}}"#
        );
        let mut hmac = Hmac::<sha2::Sha256>::new_from_slice(PAYGOL_SECRET.as_bytes()).expect("any length");
        hmac.update(body.as_bytes());
        let signature: String = hmac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("x-pg-sig", HeaderValue::from_str(&signature).expect("hex"));
        let received = Received {
            method: Method::POST,
            path: "/paygol".to_owned(),
            rest: String::new(),
            query: None,
            headers,
            body: Bytes::from(body),
            remote: IpAddr::V4(Ipv4Addr::LOCALHOST),
            at: *at,
        };
        // Nothing in it is a secret: nothing is cut out.
        let raw = raw::write(&received, &[]);
        let verified = self.provider.verify(received).unwrap_or_else(|_| panic!("a genuine notification was refused"));
        let calm =
            Circumstances { now: System.now(), clock_alarm: false, restored: false, fulfil_never: false, again: false };
        match decide(view, &self.keys, self.position(), &verified, None, None, &calm) {
            Decision::Keep { statement, event: Some(event), .. } => (statement, raw, event.to_json()),
            _ => panic!("a first notification is kept and told"),
        }
    }

    fn write(&mut self) {
        self.journal.append(&self.group).expect("the journal takes it");
        self.group.clear();
    }
}

fn fill(folder: &Path, material: &Material, keys: u64, backlog: u64) {
    let mut filler = Filler::new(folder, material);
    let template = filler.decided(&mut Nothing, &Made::old(0)).0;
    filler.add(Record::SinkStart(SinkStart { sink: "amqp".to_owned(), after: Position(0) }), Bytes::new(), vec![]);
    for number in 0..keys - backlog {
        let statement = another(&template, number, filler.position());
        filler.add(Record::Notification(Box::new(statement)), Bytes::new(), Vec::new());
    }
    let settled = Position(filler.position().0 - 1);
    let progress = Progress { sink: "amqp".to_owned(), watermark: settled, beyond: Vec::new() };
    filler.add(Record::Progress(progress), Bytes::new(), Vec::new());
    filler.add(Record::Horizon(settled), Bytes::new(), Vec::new());
    for number in keys - backlog..keys {
        let (statement, raw, event) = filler.decided(&mut Nothing, &Made::old(number));
        filler.add(Record::Notification(statement), raw, event);
    }
    filler.write();
    filler.journal.close().expect("closed");
}

/// The same for another order, transaction and key.
fn another(template: &Statement, number: u64, position: Position) -> Statement {
    Statement {
        id: NotificationId::new(template.received_at, position),
        event: Some(EventId::new(template.received_at, position)),
        order: OrderId::new(&format!("old-{number}")),
        transaction: Some(format!("OLD-{number:012}")),
        idempotency: Digest::of_parts([Some(b"key".as_slice()), Some(&number.to_le_bytes())]),
        digest: Digest::of_parts([Some(b"digest".as_slice()), Some(&number.to_le_bytes())]),
        ..template.clone()
    }
}
