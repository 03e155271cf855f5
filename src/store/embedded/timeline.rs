//! What happened to an order, and when which sink took an event.

use serde_json::{Map, json};

use super::Live;
use super::record::{Expected, Record, Stamped, Statement};
use super::state::{Lane, Value};
use crate::event::{OrderId, Position, SourceName, rfc3339};
use crate::store::{Delivery, StoreError, TimelineEntry};

/// Heads that are looked at to find when the sinks took one event: most stand right behind it.
pub(super) const DELIVERY_SEARCH: usize = 20_000;
/// And for all events of an order together: a few milliseconds.
const ORDER_SEARCH: usize = 1500;

impl Live {
    /// Which sinks have an event, and since when, as far as that is found in so many heads behind it.
    pub(super) fn deliveries(&self, position: Position, search: usize) -> Result<Vec<Delivery>, StoreError> {
        let mut open = self.sinks.settled_by(position);
        let mut deliveries = Vec::new();
        for stored in self.reader.heads(Position(position.0 + 1)).take(search) {
            if open.is_empty() {
                break;
            }
            let Ok(stored) = stored else { continue };
            let Some(stamped) = Stamped::decode(&stored.payload) else { continue };
            let (sink, how) = match &stamped.record {
                Record::Progress(progress) if progress.watermark >= position || progress.beyond.contains(&position) => {
                    (&progress.sink, Some(("delivered".to_owned(), 1)))
                }
                // The sink began later than the event: it is not due there, and was never delivered.
                Record::SinkStart(start) if start.after >= position => (&start.sink, None),
                Record::DeadLetter(letter) if letter.position == position => {
                    (&letter.sink, Some((format!("dead: {}", letter.reason), letter.attempts)))
                }
                _ => continue,
            };
            let Some(at) = open.iter().position(|waiting| waiting == sink) else { continue };
            let sink = open.swap_remove(at);
            let at = rfc3339(stamped.committed_at);
            deliveries.extend(how.map(|(result, attempt)| Delivery { sink, at, attempt, result }));
        }
        deliveries.sort_by(|a, b| a.sink.cmp(&b.sink));
        Ok(deliveries)
    }

    /// An order's timeline.
    pub fn order(&self, source: &SourceName, order: &OrderId) -> Result<Vec<TimelineEntry>, StoreError> {
        let terms = self.terms.now();
        let Some(account) = terms.accounts.get(source) else { return Ok(Vec::new()) };
        let value = self.look(vec![self.keys.order(account, order)])?.pop().flatten();
        let Some(Value::Order(state)) = value else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        let history = state.find_lane(source).map(|lane: &Lane| lane.history.clone()).unwrap_or_default();
        let search = ORDER_SEARCH / history.len().max(1);
        for position in history {
            let Some(stored) = self.reader.read(position)? else { continue };
            let Some(stamped) = Stamped::decode(&stored.payload) else { continue };
            match stamped.record {
                Record::Expectation(expected) => entries.push(expectation_entry(&expected, stamped.committed_at)),
                Record::Notification(statement) => {
                    entries.push(notification_entry(&statement));
                    entries.extend(statement.event.map(|_| event_entry(&statement, "event", stamped.committed_at)));
                    self.add_deliveries(position, search, &mut entries)?;
                }
                Record::Settlement(statement) => {
                    entries.push(event_entry(&statement, "settlement", stamped.committed_at));
                    self.add_deliveries(position, search, &mut entries)?;
                }
                _ => {}
            }
        }
        entries.sort_by(|a, b| a.at.cmp(&b.at));
        Ok(entries)
    }

    fn add_deliveries(
        &self,
        position: Position,
        search: usize,
        entries: &mut Vec<TimelineEntry>,
    ) -> Result<(), StoreError> {
        for delivery in self.deliveries(position, search)? {
            let more = object(json!({"sink": delivery.sink, "attempt": delivery.attempt, "result": delivery.result}));
            entries.push(TimelineEntry { at: delivery.at, what: "delivery", more });
        }
        Ok(())
    }
}

fn object(value: serde_json::Value) -> Map<String, serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn expectation_entry(expected: &Expected, at: jiff::Timestamp) -> TimelineEntry {
    let more = object(json!({
        "kind": expected.kind, "amount": expected.amount, "expires_at": rfc3339(expected.expires_at),
        "session_id": expected.session,
    }));
    TimelineEntry { at: rfc3339(at), what: "expectation", more }
}

fn notification_entry(statement: &Statement) -> TimelineEntry {
    let more = object(json!({
        "id": statement.id, "outcome": statement.outcome, "kind": statement.kind, "status": statement.status,
        "transaction_id": statement.transaction, "amount": statement.amount, "assurance": statement.assurance,
    }));
    TimelineEntry { at: rfc3339(statement.received_at), what: "notification", more }
}

fn event_entry(statement: &Statement, what: &'static str, at: jiff::Timestamp) -> TimelineEntry {
    let more = object(json!({
        "id": statement.event, "type": format!("{}.{}", statement.kind, statement.status),
        "verdict": statement.verdict, "reasons": statement.reasons, "expectation": statement.expectation,
        "sequence": statement.sequence, "notification_id": statement.id, "settles": statement.settles,
        "assurance": statement.assurance, "by_hand": statement.by_hand,
    }));
    TimelineEntry { at: rfc3339(at), what, more }
}
