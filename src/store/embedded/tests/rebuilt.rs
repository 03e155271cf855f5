//! The index that grew with the commits and the one that is built from the journal say the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::state::{Key, Value};
use super::*;
use crate::provider::Bearer;
use crate::store::Registration;
use crate::store::operate::{Operate as _, Ruling};

#[derive(Clone, Debug)]
enum Deed {
    Commit { second: bool, order: u8, transaction: u8, status: u8, price: u8 },
    Return { order: u8, success: bool, indicator: Option<u8>, accept: bool },
    Expect { order: u8, price: u8 },
    Session { order: u8, indicator: u8, hours: u8 },
    Settle { back: u8, fulfil: bool },
    Relay,
    Pass { hours: u8 },
    Reopen,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => (any::<bool>(), 0..3u8, 0..4u8, 0..3u8, 0..2u8).prop_map(|(second, order, transaction, status, price)| {
            Deed::Commit { second, order, transaction, status, price }
        }),
        6 => (1..3u8, any::<bool>(), prop::option::of(0..4u8), any::<bool>()).prop_map(
            |(order, success, indicator, accept)| Deed::Return { order, success, indicator, accept }
        ),
        3 => (0..3u8, 0..2u8).prop_map(|(order, price)| Deed::Expect { order, price }),
        3 => (1..3u8, 0..4u8, 1..40u8).prop_map(|(order, indicator, hours)| Deed::Session { order, indicator, hours }),
        2 => (0..4u8, any::<bool>()).prop_map(|(back, fulfil)| Deed::Settle { back, fulfil }),
        1 => Just(Deed::Relay),
        1 => (1..40u8).prop_map(|hours| Deed::Pass { hours }),
        1 => Just(Deed::Reopen),
    ]
}

/// What the index of a closed store says, but for what it says of itself to be a hint.
fn said(store: &Embedded) -> BTreeMap<Key, Value> {
    let mut all = store.0.live.get().expect("it was open").index.all();
    for value in all.values_mut() {
        if let Value::Seen(seen) = value {
            (seen.times_seen, seen.last_seen) = (1, 0);
        }
    }
    all
}

fn live(deeds: &[Deed]) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let mut folder = Folder::new();
    let mut store = folder.start();
    for deed in deeds {
        let now = folder.clock.now();
        match *deed {
            Deed::Commit { second, order, transaction, status, price } => {
                let said = Said {
                    source: if second { "paygol-b" } else { "paygol" },
                    order: format!("O{order}"),
                    transaction: transaction.to_string(),
                    status: STATUSES[usize::from(status)],
                    price: PRICES[usize::from(price)],
                    method: "webpay",
                };
                runtime.block_on(store.commit(said.verified(now))).expect("kept");
            }
            Deed::Return { order, success, indicator, accept } => {
                let indicator = indicator.map(|n| format!("indicator-{n}"));
                let word = if success { "success" } else { "error" };
                let back = conformance::returned(&order.to_string(), word, indicator.as_deref(), accept, now);
                runtime.block_on(store.commit(back)).expect("kept");
            }
            Deed::Expect { order, price } => {
                let wanted = expectation("paygol", &format!("O{order}"), PRICES[usize::from(price)], "CLP", now);
                let _ = runtime.block_on(store.expect(wanted));
            }
            Deed::Session { order, indicator, hours } => {
                let wanted = Registration {
                    session: Some(format!("session-{indicator}")),
                    indicator: Some(Bearer::new(&format!("indicator-{indicator}"))),
                    expires_at: now + SignedDuration::from_hours(hours.into()),
                    ..expectation("clickkw", &order.to_string(), "6.000", "KWD", now)
                };
                let _ = runtime.block_on(store.expect(wanted));
            }
            Deed::Settle { back, fulfil } => {
                // One of the newest events, held or not.
                let events = store.events(Position(0), 100_000).expect("readable");
                let Some(entry) = events.iter().rev().nth(usize::from(back)) else { continue };
                let event: serde_json::Value = serde_json::from_slice(&entry.event).expect("JSON");
                let id = event["id"].as_str().and_then(EventId::parse).expect("an id");
                let ruling = if fulfil { Ruling::Fulfil } else { Ruling::Refuse };
                let _ = runtime.block_on(store.settle_by_hand(id, ruling, conformance::by_hand::somebody()));
            }
            Deed::Relay => {
                for due in store.due("amqp", 3).expect("readable") {
                    store.settle("amqp", due.position, Settled::Delivered);
                }
            }
            Deed::Pass { hours } => folder.clock.set(now + SignedDuration::from_hours(hours.into())),
            Deed::Reopen => {
                store.close();
                drop(store);
                store = folder.start();
            }
        }
    }
    store.close();
    let grown = said(&store);
    folder.keep_index = false;
    folder.kill();
    drop(store);
    let store = folder.start();
    store.close();
    assert_eq!(said(&store), grown);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, ..ProptestConfig::default() })]
    #[test]
    fn a_rebuilt_index_says_what_the_one_that_grew_said(deeds in prop::collection::vec(deed(), 1..60)) {
        live(&deeds);
    }
}
