//! What is handed out when the journal does not read as it was written.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;

/// Turns a byte of `text` around wherever a file of the journal holds it.
fn damage(folder: &Path, text: &str) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            if path.file_name() != Some("index".as_ref()) {
                damage(&path, text);
            }
            continue;
        }
        let bytes = std::fs::read(&path).expect("readable");
        let found = bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes());
        let file = std::fs::File::options().write(true).open(&path).expect("writable");
        for (at, _) in found {
            file.write_at(&[bytes[at] ^ 1], at as u64).expect("written");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_read_any_more_is_a_dead_letter_and_holds_nobody_up() {
    let folder = Folder::new();
    let store = folder.start_with(Options { sink: relay(None), ..folder.options() });
    pay(&store, &folder.clock, 0..3).await;
    damage(&folder.at, r#""subject":"S1""#);
    let due = store.due("amqp", 10).expect("the others read");
    let subjects: Vec<_> =
        due.iter().map(|due| String::from_utf8_lossy(&due.body).contains(r#""subject":"S1""#)).collect();
    assert_eq!(subjects, [false, false], "neither of them is the damaged one");
    assert_eq!((store.figures().backlog, store.figures().dead_letters), (2, 1), "it is not said to be delivered");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_a_sink_that_began_now_is_not_said_to_be_delivered() {
    let mut folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 0..2).await;
    store.close();
    folder.kill();
    let store = folder.start_with(Options { sink: relay(Some(SinkStart::Now)), ..folder.options() });
    pay(&store, &folder.clock, 2..3).await;
    let due = store.due("amqp", 10).expect("readable");
    assert_eq!(due.len(), 1);
    store.settle("amqp", due[0].position, Settled::Delivered);
    let page = store.notifications(&crate::store::Filter::default(), None, 10).expect("readable");
    let deliveries = || {
        let told = page.notifications.iter().map(|item| store.notification(item.id).expect("readable").expect("kept"));
        told.map(|kept| kept.deliveries.len()).collect::<Vec<_>>()
    };
    conformance::until("the new one is delivered", || deliveries()[0] == 1).await;
    assert_eq!(deliveries(), [1, 0, 0], "newest first");
    store.close();
}
