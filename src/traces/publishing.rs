//! Messages on their way to a sink, from being sent to what the sink said of them.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{Kind, Span, Traces, Value, arrival, message, trace_of};
use crate::event::{EventId, Position};
use crate::metrics::Published;
use crate::store::Due;

/// What one connection to a sink has sent and not heard of.
pub struct Publishing {
    traces: Traces,
    flying: HashMap<Position, Sent>,
}

struct Sent {
    event: EventId,
    attempts: u32,
    at: Instant,
    attributes: Vec<(&'static str, Value)>,
}

impl Publishing {
    pub(super) fn new(traces: Traces) -> Self {
        Self { traces, flying: HashMap::new() }
    }

    /// A message was sent.
    pub fn sent(&mut self, due: &Due, at: Instant) {
        if self.traces.0.as_ref().and_then(|inner| inner.kept(trace_of(due.event))).is_none() {
            return;
        }
        let attributes = vec![
            ("quittance.source", Value::Text(due.source.as_str().to_owned())),
            ("quittance.event_id", Value::Text(due.event.to_string())),
            ("quittance.attempt", Value::Number(i64::from(due.attempts) + 1)),
            ("quittance.replay", Value::Flag(due.replay.is_some())),
        ];
        self.flying.insert(due.position, Sent { event: due.event, attempts: due.attempts, at, attributes });
    }

    /// What the sink said of one.
    pub fn ended(&mut self, position: Position, how: Published) {
        let Some(mut sent) = self.flying.remove(&position) else { return };
        sent.attributes.push(("quittance.outcome", Value::Text(how.as_str().to_owned())));
        self.hand_on(position, sent, how != Published::Confirmed);
    }

    /// The connection has gone, and nobody knows what became of those that were on their way.
    pub fn lost(&mut self) {
        let flying = std::mem::take(&mut self.flying);
        flying.into_iter().for_each(|(position, sent)| self.hand_on(position, sent, true));
    }

    fn hand_on(&self, position: Position, sent: Sent, failed: bool) {
        let Some(inner) = &self.traces.0 else { return };
        let (trace, wall) = (trace_of(sent.event), inner.wall());
        inner.hand_on(vec![Span {
            trace,
            id: message(trace, position, sent.attempts),
            parent: Some(arrival(trace)),
            name: "publish",
            kind: Kind::Producer,
            began: wall(sent.at),
            ended: wall(Instant::now()),
            attributes: sent.attributes,
            failed,
        }]);
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.lost();
    }
}
