//! One request, from its first byte to its answer.

use tokio::time::Instant;
use uuid::Uuid;

use super::{Kind, Span, Traces, Value, arrival, mix, trace_of};
use crate::event::SourceName;
use crate::store::{Committed, Outcome};

/// When the steps of one request ended. Hands its spans on when it is dropped, which is when the answer is out.
pub struct Receiving(Option<Box<Marks>>);

struct Marks {
    traces: Traces,
    began: Instant,
    steps: Vec<(&'static str, Instant)>,
    attributes: Vec<(&'static str, Value)>,
    /// The event that it brought, if there is one, and whether it is the first that did.
    event: Option<(Uuid, bool)>,
    status: Option<u16>,
}

impl Receiving {
    pub(super) fn new(traces: &Traces, first_byte: Instant) -> Self {
        let marks = || Marks {
            traces: traces.clone(),
            began: first_byte,
            steps: Vec::with_capacity(4),
            attributes: Vec::with_capacity(6),
            event: None,
            status: None,
        };
        Self(traces.0.as_ref().map(|_| Box::new(marks())))
    }

    /// For who is of no interest to anybody.
    pub fn untold() -> Self {
        Self(None)
    }

    /// Which source it came to, and whose protocol that speaks.
    pub fn at(&mut self, source: &SourceName, provider: &'static str) {
        self.say(|| ("quittance.source", source.as_str().to_owned()));
        self.say(|| ("quittance.provider", provider.to_owned()));
    }

    /// A step ended now; the next one begins.
    pub fn did(&mut self, step: &'static str) {
        if let Some(marks) = &mut self.0 {
            marks.steps.push((step, Instant::now()));
        }
    }

    /// What the store made of it.
    pub fn committed(&mut self, committed: &Committed) {
        let Some(marks) = &mut self.0 else { return };
        marks.event = committed.event.map(|event| (trace_of(event), committed.outcome == Outcome::New));
        let outcome = match committed.outcome {
            Outcome::New => "accepted",
            Outcome::Duplicate => "duplicate",
            Outcome::Conflict => "conflict",
        };
        self.say(|| ("quittance.outcome", outcome.to_owned()));
        self.say(|| ("quittance.verdict", committed.verdict.as_str().to_owned()));
        if let Some(event) = committed.event {
            self.say(|| ("quittance.event_id", event.to_string()));
        }
    }

    /// Why it was refused.
    pub fn refused(&mut self, reason: &'static str) {
        self.say(|| ("quittance.outcome", "refused".to_owned()));
        self.say(|| ("error.type", reason.to_owned()));
    }

    /// What it is answered.
    pub fn answered(&mut self, status: u16) {
        if let Some(marks) = &mut self.0 {
            marks.status = Some(status);
            marks.attributes.push(("http.response.status_code", Value::Number(status.into())));
        }
    }

    fn say(&mut self, what: impl FnOnce() -> (&'static str, String)) {
        if let Some(marks) = &mut self.0 {
            let (name, text) = what();
            marks.attributes.push((name, Value::Text(text)));
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(marks) = self.0.take() {
            marks.hand_on();
        }
    }
}

impl Marks {
    fn hand_on(self) {
        let Some(inner) = &self.traces.0 else { return };
        let fresh = Uuid::new_v4();
        let (trace, root) = match self.event {
            Some((trace, true)) => (trace, arrival(trace)),
            // A repeat belongs to the trace of what it repeats, and is not what began it.
            Some((trace, false)) => (trace, mix(fresh.as_u128(), 1)),
            None => (fresh, arrival(fresh)),
        };
        if inner.kept(trace).is_none() {
            return;
        }
        let (wall, ended) = (inner.wall(), Instant::now());
        let mut spans = Vec::with_capacity(self.steps.len() + 2);
        spans.push(Span {
            trace,
            id: root,
            parent: None,
            name: "receive",
            kind: Kind::Server,
            began: wall(self.began),
            ended: wall(ended),
            attributes: self.attributes,
            // Who hung up was not answered; who was refused was answered rightly.
            failed: self.status.is_none_or(|status| status >= 500),
        });
        let mut from = self.began;
        for (number, (name, to)) in (10..).zip(self.steps.into_iter().chain([("answer", ended)])) {
            spans.push(Span {
                trace,
                id: mix(u128::from(root), number),
                parent: Some(root),
                name,
                kind: Kind::Internal,
                began: wall(from),
                ended: wall(to),
                attributes: Vec::new(),
                failed: false,
            });
            from = to;
        }
        inner.hand_on(spans);
    }
}
