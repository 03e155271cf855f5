//! What somebody does by hand: bound by the same rules, and never without a name.

use super::doubt::{came_back, clickgem, with_clickgem};
use super::*;
use crate::provider::Reverified;
use crate::store::Registration;
use crate::store::conformance::by_hand::somebody;
use crate::store::embedded::record::{Record, Stamped};
use crate::store::operate::SettleError;

const PAID: Option<&str> = Some("api_signature=api-signature-of-the-test&status=paid");

fn registered(order: &str, getid: u32, at: Timestamp) -> Registration {
    Registration { session: Some(format!("{getid:032x}")), ..expectation("clickgem", order, "6.00", "EUR", at) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_with_the_getid_of_another_order_is_booked_by_nobody() {
    let folder = Folder::new();
    let store = with_clickgem(&folder);
    let at = folder.clock.now();
    for (order, getid) in [("42", 99), ("44", 98)] {
        store.expect(registered(order, getid, at)).await.expect("registered");
    }
    let held = async |order: &str, getid: u32| {
        let verified = clickgem().verify(came_back(order, getid, PAID, at)).map_err(|refused| refused.refusal);
        let held = store.commit(verified.expect("genuine")).await.expect("kept");
        assert_eq!(held.verdict, Verdict::Hold);
        held.event.expect("told")
    };
    // Of an order that registered none, of one that registered another, and of its own.
    let (carried, other, own) = (held("43", 99).await, held("44", 5).await, held("42", 99).await);
    for foreign in [carried, other] {
        let settled = store.settle_by_hand(foreign, Ruling::Fulfil, somebody()).await;
        assert_eq!(settled, Err(SettleError::ForeignGetId));
    }
    assert_eq!(
        store.settle_by_hand(own, Ruling::Fulfil, somebody()).await.map(|settled| settled.verdict),
        Ok(Verdict::Fulfil)
    );
    // A second session that the shop forgot to tell, and one that can only be refused.
    store.expect(registered("44", 5, at)).await.expect("registered");
    assert!(store.settle_by_hand(other, Ruling::Fulfil, somebody()).await.is_ok());
    assert!(store.settle_by_hand(carried, Ruling::Refuse, somebody()).await.is_ok());
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_let_in_again_stands_beside_the_name_of_who_wanted_it() {
    let folder = Folder::new();
    let store = with_clickgem(&folder);
    let at = folder.clock.now();
    let again = || Reverified::try_new(&*clickgem(), came_back("42", 7, None, at)).expect("genuine");
    let kept = store.readmit(again(), somebody()).await.expect("kept");
    let known = store.readmit(again(), somebody()).await.expect("known");
    assert_eq!((kept.outcome, known.outcome), (Outcome::New, Outcome::Duplicate));
    let live = store.0.live.get().expect("open");
    let heads = live.reader.heads(Position(1)).map(|head| head.expect("reads"));
    let audits: Vec<_> = heads
        .filter_map(|head| match Stamped::decode(&head.payload).expect("reads").record {
            Record::Audit(audit) => Some((head.position, audit.what, audit.who)),
            _ => None,
        })
        .collect();
    let beside = Position(kept.notification.position().0 + 1);
    assert_eq!(audits, [(beside, format!("reverified:{}", kept.notification), "ops".to_owned())]);
    store.close();
}
