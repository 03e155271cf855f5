//! Lists of much: pages that end in time, an order's from the index, and what was ended not kept for ever.

use std::collections::{BTreeMap, BTreeSet};

use super::super::query::LOOK_BACK;
use super::super::state::{ENDED_REPLAYS, Lane};
use super::*;
use crate::event::{NotificationId, OrderId, Status};
use crate::store::operate::ByHand;
use crate::store::replaying::Replay;
use crate::store::{Filter, Page};

fn of_order(order: &str) -> Filter {
    Filter { order: OrderId::new(order), ..Filter::default() }
}

/// All pages of a list, each at most so long.
fn pages(store: &Embedded, filter: &Filter, limit: usize) -> Vec<Page> {
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let page = store.notifications(filter, before, limit).expect("readable");
        assert!(page.notifications.len() <= limit);
        before = page.next;
        pages.push(page);
        if before.is_none() {
            return pages;
        }
    }
}

fn ids(pages: &[Page]) -> Vec<NotificationId> {
    pages.iter().flat_map(|page| &page.notifications).map(|item| item.id).collect()
}

/// One rare notification, and then more of one order than the index remembers.
async fn fill(folder: &Folder, store: &Embedded) -> usize {
    let at = folder.clock.now();
    store.commit(Said { status: "failed", ..Said::paid("rare", "rare") }.verified(at)).await.expect("kept");
    let many = Lane::HISTORY + 100;
    for chunk in (0..many).collect::<Vec<_>>().chunks(400) {
        let commits: Vec<_> =
            chunk.iter().map(|n| store.commit(Said::paid("gift", &n.to_string()).verified(at))).collect();
        for commit in commits {
            commit.await.expect("kept");
        }
    }
    many
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orders_page_comes_from_the_index_and_a_rare_ones_page_ends_in_time() {
    let folder = Folder::new();
    let store = folder.start();
    let many = fill(&folder, &store).await;
    // As if no source of that account were configured any more.
    store.adopt(Terms { accounts: BTreeMap::new(), ..folder.options().terms });
    let rare = pages(&store, &of_order("rare"), 10);
    assert_eq!((ids(&rare).len(), rare.len()), (1, 1), "at the far end of the journal, and found at once");
    let gifts = ids(&pages(&store, &of_order("gift"), 100));
    assert_eq!(gifts.len(), many, "also those that the index does not remember");
    assert_eq!(gifts.iter().collect::<BTreeSet<_>>().len(), many);
    let elsewhere = Filter { source: Some(conformance::name("paygol-ipn")), ..of_order("rare") };
    assert_eq!(ids(&pages(&store, &elsewhere, 10)).len(), 0);
    let not_failed = Filter { status: Some(Status::Paid), ..of_order("rare") };
    assert_eq!(ids(&pages(&store, &not_failed, 10)).len(), 0);
    assert_eq!(pages(&store, &of_order("never heard of"), 10).len(), 1);

    let failed = pages(&store, &Filter { status: Some(Status::Failed), ..Filter::default() }, 10);
    assert_eq!(ids(&failed), ids(&rare));
    assert!(failed.len() > many / LOOK_BACK, "{} pages: none looks at more than its share", failed.len());
    let all = ids(&pages(&store, &Filter::default(), 100));
    assert_eq!(all.len(), many + 1);
    let gifts_found = all.iter().filter(|id| gifts.contains(id)).copied().collect::<Vec<_>>();
    assert_eq!(gifts_found, gifts, "newest first, like the list of all");
    store.close();
    drop(store);
    let reopened = folder.start();
    assert_eq!(ids(&pages(&reopened, &of_order("rare"), 10)), ids(&rare), "and after a restart");
    reopened.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_remembered_within_bounds_also_by_the_index() {
    let mut folder = Folder::new();
    let store = folder.start();
    let pinned = |store: &Embedded| store.0.live.get().expect("open").index.pinned().expect("reads").len();
    let by = || ByHand::new("somebody", "a test").expect("good");
    let replay = |n: usize, ended: Option<&str>| Replay {
        id: format!("replay {n:04}"),
        request: "{}".into(),
        up_to: Position(0),
        count: 0,
        ended: ended.map(str::to_owned),
    };
    store.note_replay(replay(0, None), &[], "", Some(by())).await.expect("written");
    let many = ENDED_REPLAYS + 40;
    let notes: Vec<_> = (1..=many).map(|n| store.note_replay(replay(n, Some("done")), &[], "", Some(by()))).collect();
    for note in notes {
        note.await.expect("written");
    }
    let oldest_kept = format!("replay {:04}", many - ENDED_REPLAYS + 1);
    let check = |store: &Embedded| {
        let all = store.replays();
        assert_eq!(all.len(), ENDED_REPLAYS + 1, "those that ended last");
        assert_eq!((all[0].id.as_str(), all[0].ended.as_deref()), ("replay 0000", None), "and the one that runs");
        assert_eq!(all[1].id, oldest_kept);
    };
    check(&store);
    conformance::until("all of it is in the index", || store.figures().index_lag == 0).await;
    let bound = ENDED_REPLAYS + 8;
    assert!(pinned(&store) <= bound, "{} values", pinned(&store));
    store.close();
    drop(store);
    let store = folder.start();
    check(&store);
    store.close();
    drop(store);
    folder.keep_index = false;
    folder.kill();
    let store = folder.start();
    check(&store);
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_was_sent_again_is_forgotten_also_by_the_index() {
    let folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 0..3).await;
    let due = store.due("amqp", 10).expect("readable");
    due.iter().for_each(|due| store.settle("amqp", due.position, Settled::Dead("refused".into())));
    let open = |store: &Embedded| store.dead_letters(Position(0), 10).expect("readable").len();
    conformance::until("they are dead letters", || open(&store) == 3).await;
    let positions: Vec<Position> = due.iter().take(2).map(|due| due.position).collect();
    let job = Replay { id: "r".into(), request: "{}".into(), up_to: Position(0), count: 2, ended: None };
    store.note_replay(job, &positions, "amqp", None).await.expect("written");
    assert_eq!(open(&store), 1);
    conformance::until("all of it is in the index", || store.figures().index_lag == 0).await;
    let live = store.0.live.get().expect("open");
    let letters = live.index.pinned().expect("reads").keys().filter(|key| key.what() == b'D').count();
    assert_eq!(letters, 1, "the open one");
    store.close();
    drop(store);
    let store = folder.start();
    assert_eq!(open(&store), 1);
    store.close();
}
