//! Notes the journal's head where whoever changes the journal does not reach: in the log, which is shipped elsewhere,
//! and, by way of the sink, in every message. `doctor --verify --since` compares it.

use std::sync::Arc;
use std::time::Duration;

use crate::drain::Tasks;
use crate::event::Position;
use crate::store::{HeadNote, Noted, Store};

/// How often.
pub(super) const EVERY: Duration = Duration::from_secs(3600);

/// Notes the head when there is one, and then again and again, until it is asked to stop.
pub(super) async fn note_heads(store: Arc<dyn Store>, note: HeadNote, tasks: Tasks, every: Duration) {
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
            () = tokio::time::sleep(every) => {}
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::runtime::Handle;

    use super::*;
    use crate::clock::{Clock, System};
    use crate::config::Config;
    use crate::store::Readiness;
    use crate::store::conformance::{Said, until};
    use crate::store::embedded::{Embedded, Options};

    #[tokio::test]
    async fn the_head_is_noted_once_there_is_one_and_again_whenever_it_is_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "[listener]\npublic_url = \"https://pay.example.com\"\n[store]\npath = \"{}\"\n[[source]]\nname = \"paygol\"\n\
             provider = \"paygol\"\npath = \"/paygol\"\nservice_id = \"1\"\nsecrets = [\"7c1a6a24-7943-102d\"]\n",
            folder.path().join("store").display()
        );
        let config = Config::parse(&text, Path::new(""), &|_| None).expect("a configuration");
        let store = Embedded::open(Options::of(&config, Arc::new(System))).expect("free");
        until("the store is ready", || store.readiness() == Readiness::Ready).await;
        let (note, tasks) = (HeadNote::default(), Tasks::new(Handle::current()));
        let noting = note_heads(Arc::new(store.clone()), note.clone(), tasks.clone(), Duration::from_millis(5));
        tasks.spawn("head notes", noting);
        assert_eq!(note.newest(), None, "there is none yet");
        for number in 0..3 {
            let said = Said::paid("order", &number.to_string());
            store.commit(said.verified(System.now())).await.expect("kept");
            let head = *store.head().borrow();
            let is_newest = |noted: Noted| noted.position.is_some_and(|position| position >= head);
            until("its head is noted", || note.newest().is_some_and(is_newest)).await;
        }
        tasks.stop();
        tasks.wait(Duration::from_secs(5)).await.expect("it stops");
        store.close();
    }
}
