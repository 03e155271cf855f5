//! The runs against a map, through many merges, lost processes and damage.

use std::collections::BTreeMap;
use std::path::Path;

use super::shelf::{Shelf, catalogue};
use super::*;

fn key(number: u64) -> Key {
    let mut key = [b'I'; 17];
    key[1..].copy_from_slice(&Digest::of(&number.to_le_bytes()).0[..16]);
    Key(key)
}

/// Adds a batch and shows it.
fn add(shelf: &Shelf, batch: Vec<(Key, Option<Vec<u8>>)>) {
    shelf.show(shelf.add(batch).expect("written"));
    shelf.remove(&shelf.take_replaced());
}

#[test]
fn every_key_has_its_newest_value_through_many_merges() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Shelf::open(folder.path(), &Vec::new()).expect("opened");
    let mut model: BTreeMap<Key, Option<Vec<u8>>> = BTreeMap::new();
    let mut seed = 1_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for round in 0..700_u64 {
        let mut batch = BTreeMap::new();
        for _ in 0..40 {
            // Some keys come again and again, some are forgotten, most come once.
            let number = if random(3) == 0 { random(200) } else { 1_000 + round * 40 + random(40) };
            let value = (random(5) != 0).then(|| vec![round as u8; random(300) as usize]);
            batch.insert(key(number), value);
        }
        model.extend(batch.clone());
        add(&shelf, batch.into_iter().collect());
    }
    let runs = shelf.runs();
    assert!(runs.iter().any(|run| run.level >= 2), "the test must merge what was merged");
    assert!(runs.len() <= 3 * 16, "{} runs", runs.len());
    let check = |shelf: &Shelf| {
        for (key, value) in model.iter().step_by(7) {
            assert_eq!(shelf.get(key).expect("reads"), *value);
        }
        for number in 500..900 {
            assert_eq!(shelf.get(&key(number)).expect("reads"), None);
        }
    };
    check(&shelf);
    let named = catalogue(&shelf.runs());
    drop(shelf);
    // A merge that was under way has left a file behind, and nothing else.
    check(&Shelf::open(folder.path(), &named).expect("opened"));
    let files = std::fs::read_dir(folder.path()).expect("listed").count();
    assert_eq!(files, named.len(), "what the catalogue does not name is removed");
}

#[test]
fn keys_that_share_their_first_bytes_are_told_apart_across_blocks() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Shelf::open(folder.path(), &Vec::new()).expect("opened");
    let like = |number: u16| {
        let mut key = [7; 17];
        key[15..].copy_from_slice(&number.to_be_bytes());
        Key(key)
    };
    // Hundreds of kilobytes of them: dozens of blocks with one and the same fence.
    add(&shelf, (0..2000).map(|number| (like(number * 2), Some(vec![number as u8; 100]))).collect());
    for number in 0..2000_u16 {
        assert_eq!(shelf.get(&like(number * 2)).expect("reads"), Some(vec![number as u8; 100]));
        assert_eq!(shelf.get(&like(number * 2 + 1)).expect("reads"), None);
    }
}

#[test]
fn a_changed_byte_anywhere_is_an_error_and_never_an_absence() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Shelf::open(folder.path(), &Vec::new()).expect("opened");
    add(&shelf, (0..400).map(|number| (key(number), Some(vec![1; 60]))).collect());
    let named = catalogue(&shelf.runs());
    let file = folder.path().join(named[0].0.to_string());
    let whole = std::fs::read(&file).expect("read");
    for at in (0..whole.len()).step_by(97).chain(whole.len() - 28..whole.len()) {
        let mut spoiled = whole.clone();
        spoiled[at] ^= 0x10;
        std::fs::write(&file, &spoiled).expect("written");
        let reads_wrongly = |shelf: &Shelf| {
            (0..400).any(|number| shelf.get(&key(number)).is_ok_and(|found| found != Some(vec![1; 60])))
        };
        assert!(!Shelf::open(folder.path(), &named).is_ok_and(|shelf| reads_wrongly(&shelf)), "byte {at}");
    }
    std::fs::write(&file, &whole[..whole.len() - 5]).expect("written");
    assert!(Shelf::open(folder.path(), &named).is_err(), "a cut file does not open");
    std::fs::remove_file(&file).expect("removed");
    assert!(Shelf::open(folder.path(), &named).is_err(), "nor one that is missing");
}

#[test]
fn an_index_is_found_again_with_all_it_covers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: &Path = folder.path();
    let covered = |position| Covered { position: Position(position), chain: Digest([3; 32]) };
    let (index, none) = Index::open(path, [1; 16], "boot").expect("opened");
    assert_eq!(none, None);
    let value = |number| Value::GetId(super::super::state::Bound { order: format!("order-{number}"), told: true });
    let key = |number| Key([b'G', number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for number in 1..=60 {
        index
            .write(&Batch::from_iter([(key(number), value(number))]), covered(u64::from(number)), &[])
            .expect("written");
    }
    index.write(&Batch::default(), covered(61), &[key(7)]).expect("written");
    // Retired, and written anew before the index had its turn.
    index.write(&Batch::from_iter([(key(9), value(9))]), covered(61), &[key(9)]).expect("written");
    index.flush().expect("flushed");
    drop(index);
    let (index, found) = Index::open(path, [1; 16], "boot").expect("opened");
    assert_eq!(found, Some(covered(61)));
    for number in 1..=60 {
        let wanted = (number != 7).then(|| value(number));
        assert_eq!(index.get(&key(number)).expect("reads"), wanted);
    }
    drop(index);
    let (index, found) = Index::open(path, [1; 16], "another boot").expect("opened");
    assert_eq!(found, None);
    assert_eq!(index.get(&key(1)).expect("reads"), None, "nothing of another boot is looked at");
}
