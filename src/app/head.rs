//! Notes the journal's head where whoever changes the journal does not reach: in the log, which is shipped elsewhere,
//! and, by way of the sink, in every message. `doctor --verify --since` compares it.

use std::sync::Arc;
use std::time::Duration;

use crate::drain::Tasks;
use crate::event::Position;
use crate::store::{HeadNote, Noted, Store};

/// How often.
const EVERY: Duration = Duration::from_secs(3600);

/// Notes the head when there is one, and then every hour, until it is asked to stop.
pub(super) async fn note_heads(store: Arc<dyn Store>, note: HeadNote, tasks: Tasks) {
    let stopping = tasks.stopping();
    let mut head = store.head();
    let first = head.wait_for(|head| *head > Position(0));
    tokio::select! {
        () = stopping.cancelled() => return,
        found = first => if found.is_err() { return },
    }
    loop {
        let (looked, to) = (Arc::clone(&store), note.clone());
        let _ = tasks.spawn_blocking("head note", move || note_head(&*looked, &to)).await;
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Notes the head as it is now.
pub(super) fn note_head(store: &dyn Store, note: &HeadNote) {
    let Some(noted) = store.figures().noted() else { return };
    let known = note.newest() == Some(noted);
    if !known {
        note.set(noted);
        tracing::info!(head = %noted, "the journal's head; `doctor --verify --since` compares it");
    }
}

impl crate::store::Figures {
    /// The newest head; `None` in an empty store.
    fn noted(&self) -> Option<Noted> {
        let hash = self.chain.parse::<Noted>().ok()?.hash;
        (self.head > 0).then_some(Noted { position: Some(Position(self.head)), hash })
    }
}
