//! Section `oracle`: the judge itself. A history as it must be passes; each way to break the promise is found out.

use std::collections::BTreeSet;

use serde_json::json;

use crate::consumer::Message;
use crate::judge::{Claim, Counts, History, Name, Stored, Wrong, judge, name_of};
use crate::report::{Form, Row};
use crate::rng::Rng;

const ORDERS: u64 = 6;

fn message(claim: &Claim, id: &str) -> Message {
    let Name { source, order, transaction, event_type } = &claim.name;
    let event = json!({
        "id": id, "source": format!("/sources/{source}"), "type": event_type,
        "data": { "order_id": order, "transaction_id": transaction, "amount": { "value": claim.amount },
            "expectation": claim.expectation, "sequence": claim.number / ORDERS + 1 },
    });
    Message {
        exchange: "payments".into(),
        routing_key: format!("{event_type}.{source}"),
        redelivered: false,
        properties: json!({ "message_id": id }),
        headers: json!({}),
        event,
    }
}

/// Forty notifications of six orders, three of them delivered again.
fn sound() -> History {
    let sent: Vec<Claim> = (0..40)
        .map(|number| Claim {
            number,
            name: Name {
                source: "paygol".into(),
                order: format!("order-{}", number % ORDERS),
                transaction: Some(format!("T-{number}")),
                event_type: "payment.paid".into(),
            },
            amount: Some(format!("{number}.00")),
            body: Some(format!("body {number}").into_bytes()),
            expectation: Some("unregistered"),
        })
        .collect();
    let id = |claim: &Claim| format!("event-{}", claim.number);
    let stored = sent.iter().map(|c| Stored {
        name: c.name.clone(),
        event: id(c),
        amount: c.amount.clone(),
        body: c.body.clone(),
        told: Some(message(c, &id(c)).event),
    });
    let stored = stored.collect();
    let mut delivered: Vec<Message> = sent.iter().map(|c| message(c, &id(c))).collect();
    for at in [3, 17, 39] {
        delivered.push(delivered[at].clone());
    }
    // The last one was never acknowledged: kept and delivered it may be all the same.
    let acknowledged = (0..39).collect();
    History { sent, acknowledged, destroyed: BTreeSet::new(), stored, delivered, faults: 9, enough: 9, alive: true }
}

type Spoil = fn(&mut History, usize);
type Named = fn(&Wrong) -> bool;

/// Ways to break the promise, and whether a finding tells it by its name.
const WAYS: [(&str, Spoil, Named); 16] = [
    ("lost from the store", |h, at| drop(h.stored.remove(at)), |w| matches!(w, Wrong::Lost(_))),
    (
        "lost from store and queue",
        |h, at| {
            let event = h.stored.remove(at).event;
            h.delivered.retain(|m| m.id() != event);
        },
        |w| matches!(w, Wrong::Lost(_)),
    ),
    (
        "lost from the queue",
        |h, at| {
            let event = h.stored[at].event.clone();
            h.delivered.retain(|m| m.id() != event);
        },
        |w| matches!(w, Wrong::Undelivered(_)),
    ),
    ("invented", |h, at| drop(h.sent.remove(at)), |w| matches!(w, Wrong::Invented(_))),
    (
        "invented in the queue alone",
        |h, at| {
            let mut stranger = h.delivered[at].clone();
            stranger.event["id"] = "event-x".into();
            stranger.properties["message_id"] = "event-x".into();
            stranger.event["data"]["order_id"] = "nobody's".into();
            h.delivered.push(stranger);
        },
        |w| matches!(w, Wrong::Invented(_)),
    ),
    (
        "repeated with another id",
        |h, at| {
            let mut again = h.delivered[at].clone();
            again.event["id"] = "event-x".into();
            again.properties["message_id"] = "event-x".into();
            h.delivered.push(again);
        },
        |w| matches!(w, Wrong::Doubled(_)),
    ),
    (
        "stored twice",
        |h, at| h.stored.push(Stored { event: "event-x".into(), ..h.stored[at].clone() }),
        |w| matches!(w, Wrong::Doubled(_)),
    ),
    (
        "two of an order swapped on the way",
        |h, at| {
            let at = at % (h.sent.len() - ORDERS as usize);
            h.delivered.swap(at, at + ORDERS as usize);
        },
        |w| matches!(w, Wrong::Disordered(_)),
    ),
    (
        "two of an order swapped in the store",
        |h, at| {
            let at = at % (h.sent.len() - ORDERS as usize);
            h.stored.swap(at, at + ORDERS as usize);
        },
        |w| matches!(w, Wrong::Disordered(_)),
    ),
    (
        "altered on the way",
        |h, at| h.delivered[at].event["data"]["amount"]["value"] = "1000000.00".into(),
        |w| matches!(w, Wrong::Altered(_)),
    ),
    (
        "altered in the store",
        |h, at| h.stored[at].amount = Some("1000000.00".into()),
        |w| matches!(w, Wrong::Altered(_)),
    ),
    (
        "kept with another body",
        |h, at| h.stored[at].body = Some(b"another".to_vec()),
        |w| matches!(w, Wrong::Altered(_)),
    ),
    (
        "delivered as another event than the one that is kept",
        |h, at| {
            let id = h.delivered[at].id().to_owned();
            let all = h.delivered.iter_mut().filter(|m| m.id() == id);
            all.for_each(|m| m.event["data"]["verdict"] = "fulfil".into());
        },
        |w| matches!(w, Wrong::Altered(_)),
    ),
    (
        "a repeat that differs",
        |h, _| {
            let last = h.delivered.len() - 1;
            h.delivered[last].event["data"]["method"] = "another".into();
        },
        |w| matches!(w, Wrong::Altered(_)),
    ),
    ("too little went wrong", |h, _| h.faults -= 1, |w| matches!(w, Wrong::TooFewFaults { .. })),
    ("dead at the end", |h, _| h.alive = false, |w| matches!(w, Wrong::Dead)),
];

/// The section.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    let began = std::time::Instant::now();
    let mut rng = Rng::new(form.seed);
    let Counts { acknowledged, repeated, .. } =
        judge(&sound()).map_err(|w| format!("a sound history is refused: {w:?}"))?;
    if name_of(&sound().delivered[0].event) != sound().sent[0].name {
        return Err("an event is not told by its own name".into());
    }
    let (mut spoiled, rounds) = (0, if form.long { 200 } else { 20 });
    for _ in 0..rounds {
        for (way, spoil, is_told) in WAYS {
            let mut history = sound();
            spoil(&mut history, rng.below(38) as usize);
            match judge(&history) {
                Ok(_) => return Err(format!("the judge lets pass what was {way}")),
                Err(wrong) if wrong.iter().any(is_told) => spoiled += 1,
                Err(wrong) => return Err(format!("{way} is called {wrong:?}")),
            }
        }
    }
    // What a fault destroyed is excluded by its number alone: its neighbour is not.
    let mut history = sound();
    let gone = history.stored.remove(8).event;
    history.delivered.retain(|message| message.id() != gone);
    history.destroyed = BTreeSet::from([8]);
    judge(&history).map_err(|wrong| format!("what was destroyed is not excluded: {wrong:?}"))?;
    history.destroyed = BTreeSet::from([9]);
    if judge(&history).is_ok() {
        return Err("another one was destroyed, and the judge does not mind".into());
    }
    Ok(vec![Row {
        faults: spoiled,
        acknowledged,
        repeated,
        ..Row::new("oracle", "each way to break the promise", form, began)
    }])
}
