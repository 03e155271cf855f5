//! A store that was restored from a backup, while it starts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};

use super::*;
use crate::store::Unavailable;

/// A clock at which the committer stands and waits until it may go on.
struct Gate {
    clock: Manual,
    reached: AtomicBool,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Clock for Gate {
    fn now(&self) -> Timestamp {
        if std::thread::current().name() == Some("store-commit") {
            self.reached.store(true, Ordering::SeqCst);
            let open = self.open.lock().expect("whole");
            drop(self.opened.wait_while(open, |open| !*open).expect("whole"));
        }
        self.clock.now()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_before_it_is_written_that_the_store_was_restored() {
    let folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 0..1).await;
    store.close();
    drop(store);
    let gate = Arc::new(Gate {
        clock: folder.clock.clone(),
        reached: AtomicBool::new(false),
        open: Mutex::new(false),
        opened: Condvar::new(),
    });
    let clock: Arc<dyn Clock> = gate.clone();
    let store = Embedded::open(Options { restored: true, clock, ..folder.options() }).expect("not in use");
    conformance::until("the committer is about to write", || gate.reached.load(Ordering::SeqCst)).await;
    let before = store.timelines().len();
    let mut seen = Vec::new();
    for _ in 0..100 {
        seen.push(store.readiness() == Readiness::Ready);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let said = Said::paid("A", "1").verified(folder.clock.now());
    let early = tokio::time::timeout(Duration::from_millis(100), store.commit(said)).await;
    *gate.open.lock().expect("whole") = true;
    gate.opened.notify_all();
    assert_eq!(before, 1);
    assert!(!seen.contains(&true), "it would tell everything again if the power failed now");
    assert_eq!(early.ok(), Some(Err(Unavailable::NotReady)));
    conformance::until("it is ready", || store.readiness() == Readiness::Ready).await;
    assert_eq!(store.timelines().len(), 2);
    let held = store.commit(Said::paid("B", "2").verified(folder.clock.now())).await.expect("kept");
    assert_eq!(held.verdict, Verdict::Hold);
    store.close();
}
