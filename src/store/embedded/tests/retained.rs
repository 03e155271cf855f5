//! Bodies that stay beyond their time because something unsettled needs them, and go when nothing does any more.

use super::super::committer::Job;
use super::super::journal::Keep;
use super::*;
use crate::event::NotificationId;
use crate::store::replaying::Replay;

/// Times that two days pass.
const STEPS: usize = 4;

/// Bodies are kept for three days, and the relay is a sink where one is asked for.
fn options(folder: &Folder, sink: Option<RelaySink>) -> Options {
    let mut options = Options { sink, ..folder.options() };
    options.terms.retention.bodies = Duration::from_secs(3 * 86_400);
    options
}

/// Days pass, and somebody pays every other one, so that the clock stays trusted: bodies from before are old at their end.
async fn days_pass(store: &Embedded, clock: &Manual) {
    for n in 0..60 {
        store.commit(Said::paid(&format!("O{n}"), &format!("x{n}")).verified(clock.now())).await.expect("kept");
    }
    conformance::until("all of it is in the index", || store.figures().index_lag == 0).await;
    for _ in 0..STEPS {
        pass_two_days(store, clock).await;
    }
}

/// A segment is looked at once a day, and what is held is told by the index: that must know what came before.
async fn two_days(store: &Embedded, clock: &Manual) {
    conformance::until("all of it is in the index", || store.figures().index_lag == 0).await;
    pass_two_days(store, clock).await;
}

async fn pass_two_days(store: &Embedded, clock: &Manual) {
    let now = clock.now() + SignedDuration::from_hours(44);
    clock.set(now);
    let alive = format!("alive{now}");
    store.commit(Said::paid(&alive, &alive).verified(now)).await.expect("kept");
}

async fn paid(store: &Embedded, order: &str, at: Timestamp) -> NotificationId {
    store.commit(Said::paid(order, order).verified(at)).await.expect("kept").notification
}

#[track_caller]
fn is_whole(store: &Embedded, id: NotificationId) -> bool {
    let kept = store.notification(id).expect("readable").expect("there");
    assert_eq!(kept.request.is_some(), kept.event.is_some(), "half of it went");
    kept.event.is_some()
}

/// Ends whatever is due, as a broker that takes everything.
fn deliver_all(store: &Embedded) {
    loop {
        let due = store.due("amqp", 64).expect("readable");
        if due.is_empty() {
            return;
        }
        due.iter().for_each(|due| store.settle("amqp", due.position, Settled::Delivered));
    }
}

async fn send_again(store: &Embedded, event: Position) -> Position {
    let id = format!("replay-of-{event}");
    let replay = Replay { id, request: "{}".into(), up_to: event, count: 1, ended: None };
    let by = Some(conformance::by_hand::somebody());
    store.note_replay(replay, &[event], "amqp", by).await.expect("written")[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_keeps_its_body_until_it_was_sent_again() {
    let mut folder = Folder::new();
    let store = folder.start_with(options(&folder, relay(None)));
    let (dead, other) = (paid(&store, "A", folder.clock.now()).await, paid(&store, "B", folder.clock.now()).await);
    let due = store.due("amqp", 10).expect("readable");
    due.iter().for_each(|due| store.settle("amqp", due.position, Settled::Dead("too large".into())));
    conformance::until("they are written", || store.dead_letters(Position(0), 9).is_ok_and(|l| l.len() == 2)).await;
    days_pass(&store, &folder.clock).await;
    deliver_all(&store);
    two_days(&store, &folder.clock).await;
    conformance::until("bodies are retired", || store.horizon() > Position(30)).await;
    assert!(is_whole(&store, dead) && is_whole(&store, other), "there would be nothing left to send");
    // Also where the dead letters are known from the journal alone.
    folder.keep_index = false;
    folder.kill();
    store.close();
    drop(store);
    let store = folder.start_with(options(&folder, relay(None)));
    two_days(&store, &folder.clock).await;

    let first = send_again(&store, due[1].position).await;
    deliver_all(&store);
    let second = send_again(&store, due[0].position).await;
    let again = store.due("amqp", 10).expect("readable");
    let (position, body) = (again[0].position, again[0].body.clone());
    assert_eq!((again.len(), position, &body), (1, second, &due[0].body));
    assert!(first < second);
    two_days(&store, &folder.clock).await;
    conformance::until("the one that was taken is retired", || !is_whole(&store, other)).await;
    assert!(is_whole(&store, dead), "it is on its way, and may be refused or sent once more");
    store.release("amqp");
    assert_eq!(store.due("amqp", 1).expect("readable")[0].body, due[0].body);
    store.settle("amqp", second, Settled::Delivered);
    deliver_all(&store);
    two_days(&store, &folder.clock).await;
    conformance::until("nothing needs it any more", || !is_whole(&store, dead)).await;
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_keeps_its_body_until_it_is_settled() {
    let folder = Folder::new();
    let store = folder.start_with(options(&folder, None));
    let at = folder.clock.now();
    let mut held = Vec::new();
    for order in ["A", "B"] {
        store.expect(expectation("paygol", order, "1.00", "CLP", at)).await.expect("registered");
        let said = store.commit(Said::paid(order, order).verified(at)).await.expect("kept");
        assert_eq!(said.verdict, Verdict::Hold);
        held.push(said);
    }
    let rule = |n: usize| {
        let event = held[n].event.expect("has one");
        store.settle_by_hand(event, Ruling::Refuse, conformance::by_hand::somebody())
    };
    rule(1).await.expect("settled");
    days_pass(&store, &folder.clock).await;
    conformance::until("what was settled is retired", || !is_whole(&store, held[1].notification)).await;
    assert!(is_whole(&store, held[0].notification), "whoever settles it must see what it says");
    rule(0).await.expect("settled");
    two_days(&store, &folder.clock).await;
    conformance::until("nothing needs it any more", || !is_whole(&store, held[0].notification)).await;
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_relayed_keeps_its_body_however_long_the_relay_is_away() {
    let folder = Folder::new();
    let store = folder.start_with(options(&folder, relay(None)));
    let mut kept = Vec::new();
    for n in 0..60 {
        kept.push(paid(&store, &format!("P{n}"), folder.clock.now()).await);
    }
    let relayed = store.due("amqp", 40).expect("readable");
    relayed.iter().for_each(|due| store.settle("amqp", due.position, Settled::Delivered));
    days_pass(&store, &folder.clock).await;
    conformance::until("what was relayed is retired", || !is_whole(&store, kept[0])).await;
    assert!(kept[40..].iter().all(|id| is_whole(&store, *id)), "nothing would be left to relay");
    let mut late = Vec::new();
    loop {
        let due = store.due("amqp", 64).expect("readable");
        if due.is_empty() {
            break;
        }
        for due in due {
            late.push(due.position);
            store.settle("amqp", due.position, Settled::Delivered);
        }
    }
    let told: Vec<Position> =
        store.events(store.horizon(), 1000).expect("readable").iter().map(|e| e.position).collect();
    assert_eq!(late[..20], kept[40..].iter().map(|id| id.position()).collect::<Vec<_>>());
    assert!(told.iter().all(|position| late.contains(position) || *position <= relayed[39].position));
    assert_eq!(late.len(), 20 + 60 + STEPS);
    two_days(&store, &folder.clock).await;
    conformance::until("nothing needs them any more", || !is_whole(&store, kept[40])).await;
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_asked_for_while_its_segment_is_rewritten_stays() {
    let folder = Folder::new();
    let store = folder.start_with(options(&folder, relay(None)));
    let dead = paid(&store, "A", folder.clock.now()).await;
    let letter = store.due("amqp", 1).expect("readable").remove(0);
    store.settle("amqp", letter.position, Settled::Dead("too large".into()));
    conformance::until("the journal has it", || store.figures().dead_letters == 1).await;
    pay(&store, &folder.clock, 0..40).await;
    deliver_all(&store);
    let live = store.0.live.get().expect("open");
    // Judged before, and put in its place after it was asked for: the letter is closed, its redelivery is not settled.
    live.ledger.watch();
    let prepared = live.reader.prepare(Position(1), &mut |_| Keep::HeadOnly).expect("sealed");
    let again = send_again(&store, letter.position).await;
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    let jobs = live.jobs.get().expect("ready");
    jobs.send(Job::Install(Box::new(prepared), Vec::new(), reply)).map_err(|_| "ended").expect("takes jobs");
    assert!(!answer.recv().expect("answered"), "what the redelivery is to send would be gone");
    assert!(is_whole(&store, dead));
    let due = store.due("amqp", 10).expect("readable");
    assert_eq!((due[0].position, &due[0].body), (again, &letter.body));
    store.close();
}
