//! Does the test's own disk forget what it should, and only that? Without this the other tests would prove nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::disk::{MODES, Mode};
use crate::mount::Mounted;

fn sync_folder(path: &Path) {
    File::open(path).and_then(|folder| folder.sync_all()).expect("a folder can be synced");
}

/// A file with a safe name and safe contents.
fn safe_file(path: &Path, contents: &[u8]) -> File {
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path).expect("a new file");
    file.write_all(contents).expect("room");
    file.sync_all().expect("sync");
    sync_folder(path.parent().expect("a folder"));
    file
}

#[test]
fn what_was_synced_survives_and_what_was_not_is_lost() {
    let mounted = Mounted::new();
    let path = mounted.path().join("a");
    let file = safe_file(&path, b"safe");
    file.write_all_at(b"LOST", 0).expect("write");
    file.write_all_at(b"and longer", 4).expect("write");
    assert_eq!(fs::read(&path).expect("read"), b"LOSTand longer", "a running program sees what was written");
    drop(file);
    mounted.restart(Mode::Lost, 1);
    assert_eq!(fs::read(&path).expect("read"), b"safe");
}

#[test]
fn a_name_is_lost_although_its_file_was_synced() {
    let mounted = Mounted::new();
    let mut file = File::create(mounted.path().join("a")).expect("create");
    file.write_all(b"safe").expect("write");
    file.sync_all().expect("sync");
    drop(file);
    mounted.restart(Mode::Lost, 1);
    assert_eq!(fs::read_dir(mounted.path()).expect("a folder").count(), 0);
}

#[test]
fn a_name_survives_without_the_contents_that_were_not_synced() {
    let mounted = Mounted::new();
    fs::write(mounted.path().join("a"), b"lost").expect("write");
    sync_folder(mounted.path());
    mounted.restart(Mode::Lost, 1);
    assert_eq!(fs::read(mounted.path().join("a")).expect("read"), b"");
}

#[test]
fn renames_and_removals_come_undone_unless_the_folder_was_synced() {
    let mounted = Mounted::new();
    let (a, b) = (mounted.path().join("a"), mounted.path().join("b"));
    drop(safe_file(&a, b"new"));
    drop(safe_file(&b, b"old"));
    fs::rename(&a, &b).expect("rename");
    assert_eq!(fs::read(&b).expect("read"), b"new");
    mounted.restart(Mode::Lost, 1);
    assert_eq!(fs::read(&a).expect("read"), b"new");
    assert_eq!(fs::read(&b).expect("read"), b"old");

    fs::rename(&a, &b).expect("rename");
    sync_folder(mounted.path());
    fs::remove_file(&b).expect("remove");
    mounted.restart(Mode::Lost, 1);
    assert!(!a.exists());
    assert_eq!(fs::read(&b).expect("read"), b"new");
}

#[test]
fn a_subset_may_keep_a_size_without_its_data_and_data_without_its_name() {
    let (mut zeros, mut kept, mut nothing, mut no_name) = (0, 0, 0, 0);
    let mounted = Mounted::new();
    for seed in 0..60 {
        mounted.format();
        let path = mounted.path().join("a");
        let file = safe_file(&path, b"");
        file.write_all_at(&[7; 4096], 0).expect("write");
        fs::write(mounted.path().join("b"), b"b").expect("write");
        mounted.restart(Mode::Subset, seed);
        match fs::read(&path).expect("read").as_slice() {
            [] => nothing += 1,
            bytes if bytes.iter().all(|byte| *byte == 0) => zeros += 1,
            bytes if bytes == [7; 4096] => kept += 1,
            bytes => panic!("neither nothing nor zeros nor all of it: {} bytes", bytes.len()),
        }
        no_name += u32::from(!mounted.path().join("b").exists());
    }
    println!("kept {kept}, zeros {zeros}, nothing {nothing}, second name lost {no_name} of 60");
    assert!(kept > 5 && zeros > 5 && nothing > 5 && (10..50).contains(&no_name));
}

#[test]
fn a_torn_page_mixes_sectors_of_old_and_new() {
    let mut torn = 0;
    let mounted = Mounted::new();
    for seed in 0..30 {
        mounted.format();
        let path = mounted.path().join("a");
        let file = safe_file(&path, &[1; 4096]);
        file.write_all_at(&[2; 4096], 0).expect("write");
        mounted.restart(Mode::Torn, seed);
        let bytes = fs::read(&path).expect("read");
        for sector in bytes.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is whole");
        }
        torn += u32::from(bytes.contains(&1) && bytes.contains(&2));
    }
    assert!((3..27).contains(&torn), "torn {torn} times of 30");
}

#[test]
fn a_seed_brings_the_same_image_back() {
    let mounted = Mounted::new();
    let image = |mode, seed| {
        mounted.format();
        let file = safe_file(&mounted.path().join("a"), &[0; 40_000]);
        for at in 0..40 {
            file.write_all_at(&[at as u8 + 1; 1000], at * 1000).expect("write");
            fs::write(mounted.path().join(format!("f{at}")), b"x").expect("write");
        }
        mounted.restart(mode, seed);
        let names: Vec<_> =
            fs::read_dir(mounted.path()).expect("folder").map(|entry| entry.expect("entry").file_name()).collect();
        (fs::read(mounted.path().join("a")).expect("read"), names)
    };
    for mode in MODES {
        assert_eq!(image(mode, 5), image(mode, 5), "{mode:?}");
    }
    assert_ne!(image(Mode::Torn, 5), image(Mode::Torn, 6));
}

#[test]
fn nothing_works_on_a_disk_without_power_and_old_files_stay_dead() {
    let mounted = Mounted::new();
    let path = mounted.path().join("a");
    let mut file = safe_file(&path, b"safe");
    mounted.cut_after(2);
    file.write_all_at(b"1", 0).expect("the first step still works");
    assert_eq!(file.sync_all().expect_err("the power goes in this one").raw_os_error(), Some(5));
    assert!(mounted.is_off());
    assert_eq!(fs::read(&path).expect_err("off").raw_os_error(), Some(5));
    mounted.restart(Mode::Lost, 1);
    assert_eq!(fs::read(&path).expect("read"), b"safe");
    let mut byte = [0];
    assert_eq!(
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read(&mut byte)).expect_err("dead").raw_os_error(),
        Some(5)
    );
    assert_eq!(file.write_all_at(b"x", 0).expect_err("dead").raw_os_error(), Some(5));
}

#[test]
fn the_power_goes_in_the_middle_of_a_change_that_is_refused_too() {
    let mounted = Mounted::new();
    let path = mounted.path().join("a");
    let file = safe_file(&path, b"safe");
    mounted.faults(|faults| faults.write = Some(1));
    mounted.cut_after(1);
    file.write_all_at(b"1", 0).expect_err("it fails by itself");
    assert!(mounted.is_off());
}

#[test]
fn a_failed_sync_is_told_once_and_the_next_one_lies() {
    let mounted = Mounted::new();
    let path = mounted.path().join("a");
    let file = safe_file(&path, b"safe");
    file.write_all_at(b"LOST", 0).expect("write");
    mounted.faults(|faults| faults.sync = Some(1));
    assert_eq!(file.sync_data().expect_err("fails").raw_os_error(), Some(5));
    file.sync_data().expect("the second one succeeds, as with Linux");
    mounted.restart(Mode::Lost, 1);
    assert_eq!(fs::read(&path).expect("read"), b"safe", "although the data never got to the disk");
}

#[test]
fn a_full_disk_takes_what_fits_and_overwrites_still_work() {
    let mounted = Mounted::new();
    let path = mounted.path().join("a");
    let mut file = safe_file(&path, &[1; 8192]);
    mounted.faults(|faults| faults.capacity = Some(12_288));
    file.write_all_at(&[2; 8192], 0).expect("what has its place keeps it");
    file.seek(SeekFrom::End(0)).expect("seek");
    assert_eq!(file.write(&[3; 10_000]).expect("a part fits"), 4096);
    assert_eq!(file.write(&[3]).expect_err("full").kind(), ErrorKind::StorageFull);
    mounted.faults(|faults| faults.capacity = None);
    file.write_all(&[3]).expect("room again");
    mounted.faults(|faults| faults.short_writes = true);
    assert_eq!(file.write(&[3; 100]).expect("short"), 50);
    mounted.faults(|faults| faults.read_only = true);
    assert_eq!(file.write(&[3]).expect_err("read-only").kind(), ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn a_file_cut_short_by_fdatasync_alone_may_be_long_again() {
    let mounted = Mounted::new();
    let path = mounted.path().join("a");
    let file = safe_file(&path, &[1; 10_000]);
    file.set_len(100).expect("truncate");
    file.sync_data().expect("sync");
    mounted.restart(Mode::Lost, 1);
    assert_eq!(fs::read(&path).expect("read").len(), 10_000);
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    file.set_len(100).expect("truncate");
    file.sync_all().expect("sync");
    mounted.restart(Mode::Lost, 1);
    assert_eq!(fs::read(&path).expect("read"), [1; 100]);
}
