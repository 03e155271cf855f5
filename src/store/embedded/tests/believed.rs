//! When an index is taken as it is, and when it is built anew: seen by something in it that no journal says.

use std::fs;

use super::super::index::{Batch, Covered};
use super::super::state::{Bound, Key, Value};
use super::*;

const STRAY: Key = Key([b'G'; 17]);

/// A store of some records whose index holds a key that no record accounts for.
async fn with_a_stray_key(folder: &Folder) {
    let store = folder.start();
    pay(&store, &folder.clock, 0..3).await;
    conformance::until("all of it is in the index", || store.figures().index_lag == 0).await;
    let live = store.0.live.get().expect("open");
    let covered = Covered { position: store.0.shared.head(), chain: store.0.shared.newest().1 };
    let stray: Batch = [(STRAY, Value::GetId(Bound { order: "stray".into(), told: false }))].into_iter().collect();
    live.index.write(&stray, covered, &[]).expect("written");
    store.close();
}

/// Whether the index that a start works with is the one that was there.
fn was_believed(folder: &Folder, options: Options) -> bool {
    let store = folder.start_with(options);
    let found = store.0.live.get().expect("open").index.get(&STRAY).expect("reads").is_some();
    let known = store.events(Position(0), 10).expect("readable").len();
    assert!(known >= 3, "{known}");
    store.close();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_taken_as_it_is_within_one_boot_only() {
    let folder = Folder::new();
    with_a_stray_key(&folder).await;
    assert!(was_believed(&folder, folder.options()), "a clean stop and the same boot");
    let other = Options { boot: "another boot".into(), ..folder.options() };
    assert!(!was_believed(&folder, other), "nobody knows what of it reached the disk");
    let folder = Folder::new();
    with_a_stray_key(&folder).await;
    let unknown = || Options { boot: String::new(), ..folder.options() };
    assert!(!was_believed(&folder, unknown()), "a system without boot ids");
    assert!(!was_believed(&folder, unknown()), "two of them are no better");
}

fn replace(folder: &Path, by: &Path) {
    fs::remove_dir_all(folder).expect("removed");
    copy_folder(by, folder, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_another_journal_is_built_anew() {
    // Of a store whose journal was restored from an older copy: it covers more than there is.
    let mut folder = Folder::new();
    let store = folder.start();
    pay(&store, &folder.clock, 10..13).await;
    store.close();
    drop(store);
    let older = folder.at.clone();
    folder.kill();
    with_a_stray_key(&folder).await;
    let newer = folder.root.path().join("newer");
    copy_folder(&folder.at, &newer, true);
    replace(&folder.at.join("journal"), &older.join("journal"));
    assert!(!was_believed(&folder, folder.options()), "covers more than there is");
    // The older copy lived on: as long as the other, with another history.
    folder.at = older;
    let store = folder.start();
    pay(&store, &folder.clock, 20..40).await;
    store.close();
    drop(store);
    replace(&folder.at.join("index"), &newer.join("index"));
    assert!(!was_believed(&folder, folder.options()), "another history");
    // Of another store altogether.
    let other = Folder::new();
    let store = other.start();
    pay(&store, &other.clock, 0..20).await;
    store.close();
    drop(store);
    replace(&other.at.join("index"), &newer.join("index"));
    assert!(!was_believed(&other, other.options()), "another store");
}
