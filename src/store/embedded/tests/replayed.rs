//! Replays over the store that keeps them: what was begun is carried, and what was canceled stays so, whoever hangs up
//! and whatever stops on the way.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use serde_json::{Value, json};

use super::*;
use crate::drain::Tasks;
use crate::replay::request::Request;
use crate::replay::{Replays, Towards};
use crate::sink::{Link, Report, Sink, Trouble};
use crate::store::replaying::Replay;
use crate::store::{Due, Pending};

/// An exchange that takes events and confirms none.
struct Silent;

impl Sink for Silent {
    fn connect(&self) -> Pending<'_, Result<Box<dyn Link>, Trouble>> {
        Box::pin(async { Ok(Box::new(Self) as Box<dyn Link>) })
    }
}

impl Link for Silent {
    fn send(&mut self, _: &Due) {}
    fn next(&mut self) -> Pending<'_, Report> {
        Box::pin(std::future::pending())
    }
    fn renew(&mut self) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }
    fn close(self: Box<Self>) -> Pending<'static, ()> {
        Box::pin(async {})
    }
}

/// A store with some events, and what replays them.
async fn scene(folder: &Folder) -> (Embedded, Replays, Tasks) {
    let store = folder.start();
    pay(&store, &folder.clock, 0..4).await;
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let towards: Towards = Arc::new(|_| Arc::new(Silent) as Arc<dyn Sink>);
    let clock = Arc::new(folder.clock.clone());
    let replays = Replays::new(Arc::new(store.clone()), tasks.clone(), clock, None, Some(towards));
    (store, replays, tasks)
}

fn request(folder: &Folder, document: &Value) -> Request {
    Request::read(document, folder.clock.now()).expect("good")
}

fn only(store: &Embedded) -> Option<Replay> {
    store.replays().pop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_carried_although_nobody_waits_for_the_answer() {
    let folder = Folder::new();
    let (store, replays, _tasks) = scene(&folder).await;
    let request = request(&folder, &json!({ "rate": "max" }));
    {
        let mut start = pin!(replays.start(&request, conformance::by_hand::somebody()));
        let mut context = Context::from_waker(Waker::noop());
        while only(&store).is_none() {
            assert!(start.as_mut().poll(&mut context).is_pending(), "it is hung up on before it is answered");
            // Whatever was asked for by now comes, before it is asked for the answer.
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(2)).await;
                if only(&store).is_some() {
                    break;
                }
            }
        }
    }
    conformance::until("it is through", || only(&store).is_some_and(|replay| replay.ended.is_some())).await;
    assert_eq!(only(&store).map(|replay| (replay.ended, replay.count)), Some((Some("done".into()), 4)));
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_canceled_although_nobody_waits_for_the_answer() {
    let folder = Folder::new();
    let (store, replays, tasks) = scene(&folder).await;
    pay(&store, &folder.clock, 4..44).await;
    let request = request(&folder, &json!({ "rate": 1 }));
    let begun = replays.start(&request, conformance::by_hand::somebody()).await.expect("begun");
    {
        let mut cancel = pin!(replays.cancel(&begun.id, conformance::by_hand::somebody()));
        assert!(cancel.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    conformance::until("it has ended", || only(&store).is_some_and(|replay| replay.ended.is_some())).await;
    assert_eq!(only(&store).and_then(|replay| replay.ended).as_deref(), Some("canceled"));
    tasks.wait(Duration::from_secs(10)).await.expect("what is canceled is carried no further");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_as_canceled_is_so_after_a_crash() {
    let mut folder = Folder::new();
    let (store, replays, tasks) = scene(&folder).await;
    // It waits for a confirm that never comes, and writes nothing of itself any more.
    let request = request(&folder, &json!({ "exchange": "elsewhere", "rate": "max" }));
    let begun = replays.start(&request, conformance::by_hand::somebody()).await.expect("begun");
    assert!(replays.cancel(&begun.id, conformance::by_hand::somebody()).await.expect("written"));
    folder.kill();
    assert!(!replays.cancel(&begun.id, conformance::by_hand::somebody()).await.expect("looked up"), "once");
    tasks.stop();
    tasks.wait(Duration::from_secs(10)).await.expect("it has stopped");
    store.close();
    let store = folder.start();
    assert_eq!(only(&store).and_then(|replay| replay.ended).as_deref(), Some("canceled"));
    // What was under way then says how far it came, and does not begin it again.
    let late = Replay { request: String::new(), up_to: Position(2), count: 2, ended: None, ..begun.clone() };
    store.note_replay(late, &[], "", None).await.expect("written");
    assert_eq!(only(&store).map(|replay| (replay.ended, replay.count)), Some((Some("canceled".into()), 2)));
    store.close();
    drop(store);
    let store = folder.start();
    assert_eq!(only(&store).map(|replay| (replay.ended, replay.count)), Some((Some("canceled".into()), 2)));
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_waits_for_a_confirm_does_not_hold_the_stop_up() {
    let folder = Folder::new();
    let (store, replays, tasks) = scene(&folder).await;
    let request = request(&folder, &json!({ "exchange": "elsewhere", "rate": "max" }));
    replays.start(&request, conformance::by_hand::somebody()).await.expect("begun");
    tokio::time::sleep(Duration::from_millis(200)).await;
    tasks.stop();
    tasks.wait(Duration::from_secs(10)).await.expect("it stops, and goes on with the next start");
    assert_eq!(only(&store).and_then(|replay| replay.ended), None);
    store.close();
}
