//! A store as an operator finds it: a million notifications with their parts, all of them settled, a thousand of them as
//! dead letters.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use quittance::clock::{Clock, System};
use quittance::event::Position;
use quittance::store::embedded::record::{DeadLetter, Progress, Record, SinkStart, Stamped};
use quittance::store::embedded::state::{self, Key, Value, View};

use super::{Filler, Made, made_once};
use crate::material::Material;

/// Notifications of the store.
pub const OPERATED: u64 = 1_000_000;
/// Those among them that are open dead letters.
pub const LETTERS: u64 = 1000;
/// Of each thousand notifications these belong to one order.
pub const MANY: u64 = 10;
/// Seconds between the arrivals of two of them, so that all arrived within the time for which parts are kept.
pub const SPACING: i64 = 2;
/// One in so many says `failed`: what a filter looks for longest.
const RARE: u64 = 50_000;
/// A secret that the daemon is not told at first: what is signed with it is refused and kept aside.
pub const FORGOTTEN_SECRET: &str = "c4d0a6b2-forgotten-9e1f-4c7a-8b35-d2f16a7e90c4";

/// Its folder. Made once.
pub fn operated(cache: &Path, material: &Material) -> PathBuf {
    let what = format!("{OPERATED} notifications, {LETTERS} of them dead letters");
    made_once(cache, "store-operated", &what, |folder| fill(folder, material))
}

/// The order of a notification.
pub fn order(number: u64) -> String {
    if is_one_of_many(number) { format!("many-{}", number / 1000) } else { format!("one-{number}") }
}

/// When it arrived, where `newest` is when the last one did.
pub fn arrived(number: u64, newest: Timestamp) -> Timestamp {
    let back = SignedDuration::from_secs((OPERATED - 1 - number) as i64 * SPACING);
    newest.checked_sub(back).expect("some weeks ago")
}

fn is_one_of_many(number: u64) -> bool {
    number % 1000 < MANY
}

/// What is known of one order.
#[derive(Default)]
struct OneOrder(HashMap<Key, Value>);

impl View for OneOrder {
    fn get(&mut self, key: &Key) -> Option<Value> {
        self.0.get(key).cloned()
    }
    fn put(&mut self, key: Key, value: Value) {
        self.0.insert(key, value);
    }
}

fn fill(folder: &Path, material: &Material) {
    let mut filler = Filler::new(folder, material);
    let newest = System.now();
    let bare = |filler: &mut Filler, record| filler.add(record, Bytes::new(), Vec::new());
    bare(&mut filler, Record::SinkStart(SinkStart { sink: "amqp".to_owned(), after: Position(0) }));
    let first = filler.position().0;
    let mut known = OneOrder::default();
    for number in 0..OPERATED {
        let status = match number {
            rare if rare % RARE == RARE / 2 => "failed",
            pending if is_one_of_many(number) && pending.is_multiple_of(2) => "created",
            _ => "completed",
        };
        let made = Made {
            order: order(number),
            transaction: format!("OPERATED-{number:012}"),
            status,
            price: 1000 + number % 90_000,
            at: arrived(number, newest),
        };
        if !is_one_of_many(number) || number.is_multiple_of(1000) {
            known.0.clear();
        }
        let (statement, raw, event) = filler.decided(&mut known, &made);
        let record = Record::Notification(statement);
        if is_one_of_many(number) {
            let stamped = Stamped { committed_at: System.now(), doubtful: false, record: record.clone() };
            let (keys, position) = (filler.keys, filler.position());
            state::apply(&mut known, &keys, position, &stamped);
        }
        filler.add(record, raw, event);
    }
    let settled = Position(filler.position().0 - 1);
    let progress = Progress { sink: "amqp".to_owned(), watermark: settled, beyond: Vec::new() };
    bare(&mut filler, Record::Progress(progress));
    for letter in 0..LETTERS {
        let letter = DeadLetter {
            sink: "amqp".to_owned(),
            position: Position(first + letter * (OPERATED / LETTERS) + OPERATED / LETTERS / 3),
            attempts: 5,
            reason: "the broker refused it".to_owned(),
        };
        bare(&mut filler, Record::DeadLetter(letter));
    }
    filler.write();
    filler.journal.close().expect("closed");
}
