//! What a start makes of damage (bits flipped, files lost, cut, swapped, forged): all is told, nothing is shifted.

use super::*;

#[test]
fn a_bit_flipped_anywhere_in_the_last_segment_is_told_and_costs_little() {
    let made = small_journal(false);
    let target = segment_paths(made.path()).pop().expect("last");
    let (reported, silent) = flip_every_byte(made.path(), &target, 1);
    // The last group is the synced mark itself: nothing confirms it, so it is a torn tail.
    assert_eq!(silent, format::GROUP_HEADER, "and {reported} were told");
}

#[test]
fn a_bit_flipped_anywhere_in_a_sealed_segment_is_told_and_costs_little() {
    let made = small_journal(true);
    let target = segment_paths(made.path()).remove(1);
    let (reported, silent) = flip_every_byte(made.path(), &target, 1);
    let bytes = fs::read(&target).expect("reads");
    let trailer = footer::Trailer::decode(bytes.last_chunk::<{ format::TRAILER }>().expect("long enough"));
    // The footer can be built from the rest.
    assert_eq!(silent, trailer.expect("sealed").length as usize, "and {reported} were told");
}

#[test]
fn a_damaged_record_in_a_segment_that_was_not_verified_shows_when_it_is_read_and_can_be_mended() {
    let made = small_journal(true);
    let target = segment_paths(made.path()).remove(0);
    let mut bytes = fs::read(&target).expect("reads");
    let at = memchr::memmem::find(&bytes, b"payload 4").expect("is there");
    bytes[at] ^= 1;
    fs::write(&target, &bytes).expect("writes");
    let (mut journal, recovered) = open(made.path());
    assert_eq!(recovered.damage, []);
    let errors: Vec<ReadError> = journal.reader().heads(Position(1)).filter_map(Result::err).collect();
    assert!(matches!(&errors[..], [ReadError::Damaged { position: Position(4), .. }]), "{errors:?}");
    assert!(journal.reader().read(Position(4)).is_err());
    assert!(journal.reader().read(Position(5)).expect("reads").is_some());
    let told = journal.rewrite(Position(1), &mut |_| Keep::Whole).expect("rewrites");
    assert_eq!(told.damage.len(), 1);
    assert!(journal.reader().read(Position(4)).expect("reads").is_none());
    assert_eq!(journal.reader().heads(Position(1)).filter(Result::is_err).count(), 0);
}

#[test]
fn a_missing_segment_is_told_and_shifts_no_position() {
    for missing in 0..3 {
        let made = small_journal(true);
        let (expected, head) = {
            let (journal, recovered) = open(made.path());
            (check(&journal), recovered.head)
        };
        let segments: Vec<SegmentInfo> = open(made.path()).0.segments();
        fs::remove_file(&segment_paths(made.path())[missing]).expect("removes");
        let (mut journal, recovered) = open(made.path());
        assert!(recovered.damage.iter().any(|damage| damage.what == Fault::Missing), "{:?}", recovered.damage);
        let gone = segments[missing].first.0..=segments[missing].last.0;
        let left: Vec<u64> = expected.iter().copied().filter(|position| !gone.contains(position)).collect();
        assert_eq!(check(&journal), left);
        assert!(recovered.head >= head, "a position is never given twice");
        fill(&mut journal, 1, 1);
        drop(journal);
        let (journal, again) = open(made.path());
        assert_eq!(again.damage, []);
        assert_eq!(again.damage_total, recovered.damage_total);
        assert_eq!(check(&journal).len(), left.len() + 1);
    }
}

#[test]
fn a_truncated_segment_is_told_and_shifts_no_position() {
    let made = small_journal(true);
    let target = segment_paths(made.path()).remove(0);
    let length = fs::metadata(&target).expect("is there").len();
    let second = open(made.path()).0.segments()[1].first.0;
    for keep in (0..length).step_by(97) {
        let copy = copy_of(made.path());
        let path = copy.path().join("journal").join(target.file_name().expect("name"));
        fs::File::options().write(true).open(&path).and_then(|file| file.set_len(keep)).expect("truncates");
        let (journal, recovered) = open(copy.path());
        let left = check(&journal);
        let of_first = left.iter().filter(|position| **position < second).count() as u64;
        assert_eq!(recovered.damage.is_empty(), of_first == second - 1, "cut at {keep}: {:?}", recovered.damage);
        assert!((second..=recovered.head.0).all(|position| left.contains(&position)), "cut at {keep}: {left:?}");
        drop(journal);
        assert_eq!(open(copy.path()).1.damage, []);
    }
}

#[test]
fn a_segment_of_another_store_is_moved_aside() {
    let made = small_journal(true);
    let (journal, recovered) = open(made.path());
    let before = check(&journal);
    drop(journal);
    let other = small_journal(true);
    let foreign = segment_paths(other.path()).remove(1);
    let name = made.path().join("journal").join(format!("{:020}.journal", 100_000));
    fs::copy(&foreign, &name).expect("copies");
    let (journal, after) = open(made.path());
    assert!(after.damage.iter().any(|damage| damage.what == Fault::Foreign), "{:?}", after.damage);
    assert_eq!((after.store_id, after.head), (recovered.store_id, recovered.head));
    assert_eq!(check(&journal), before);
    assert!(!name.exists());
    drop(journal);
    // In the place of one of ours too.
    let ours = segment_paths(made.path()).remove(1);
    fs::copy(&foreign, &ours).expect("copies");
    let (_, after) = open(made.path());
    let faults: Vec<Fault> = after.damage.iter().map(|damage| damage.what).collect();
    assert_eq!(faults, [Fault::Foreign, Fault::Missing]);
}

#[test]
fn an_older_copy_of_a_segment_breaks_the_chain_and_is_told() {
    let made = small_journal(true);
    let copy = copy_of(made.path());
    for (folder, flavour) in [(made.path(), 1_u8), (copy.path(), 2)] {
        let (mut journal, _) = open(folder);
        let last = journal.segments().len();
        while journal.segments().len() < last + 2 {
            let entry = Entry { payload: vec![flavour; 300], ..entry(journal.next_position().0) };
            journal.append(std::slice::from_ref(&entry)).expect("appends");
        }
    }
    // The segment after the fork comes from the other history.
    let (ours, theirs) = (segment_paths(made.path()), segment_paths(copy.path()));
    let fork = ours.len() - 1;
    assert_eq!(ours[fork].file_name(), theirs[fork].file_name());
    fs::copy(&theirs[fork], &ours[fork]).expect("copies");
    let (_, recovered) = open(made.path());
    assert!(recovered.damage.iter().any(|damage| damage.what == Fault::Chain), "{:?}", recovered.damage);
}

/// Damages the header of a segment so that only its trailer still tells its mark.
fn lose_header(path: &Path) {
    let mut bytes = fs::read(path).expect("reads");
    bytes.splice(10..10, [0x1a; 26]);
    fs::write(path, bytes).expect("writes");
}

#[test]
fn a_header_lost_behind_a_lost_tail_is_damage_told_once_and_breaks_no_chain() {
    let made = small_journal(true);
    let (first, second) = (segment_paths(made.path()).remove(0), segment_paths(made.path()).remove(1));
    let length = fs::metadata(&first).expect("is there").len();
    let cut = length / 2;
    fs::File::options().write(true).open(&first).and_then(|file| file.set_len(cut)).expect("truncates");
    lose_header(&second);
    let options = Options { verify: true, ..SMALL };
    let (mut journal, recovered) = Journal::open(made.path(), options).expect("opens");
    let faults: Vec<Fault> = recovered.damage.iter().map(|damage| damage.what).collect();
    assert!(faults.contains(&Fault::Header) && !faults.contains(&Fault::Chain), "{:?}", recovered.damage);
    fill(&mut journal, 1, 1);
    drop(journal);
    let (_, again) = Journal::open(made.path(), options).expect("opens");
    assert_eq!(again.damage, [], "what the first start did not tell");
}

#[test]
fn a_segment_of_another_history_is_told_by_the_first_start_although_its_header_is_lost() {
    let made = small_journal(true);
    let copy = copy_of(made.path());
    for (folder, flavour) in [(made.path(), 1_u8), (copy.path(), 2)] {
        let (mut journal, _) = open(folder);
        let last = journal.segments().len();
        while journal.segments().len() < last + 3 {
            let entry = Entry { payload: vec![flavour; 300], ..entry(journal.next_position().0) };
            journal.append(std::slice::from_ref(&entry)).expect("appends");
        }
    }
    let (ours, theirs) = (segment_paths(made.path()), segment_paths(copy.path()));
    // From here on all of it is the other history: the one link that does not hold is behind the lost header.
    let fork = ours.len() - 2;
    for (theirs, ours) in theirs.iter().zip(&ours).skip(fork) {
        assert_eq!(ours.file_name(), theirs.file_name());
        fs::copy(theirs, ours).expect("copies");
    }
    lose_header(&ours[fork]);
    for _ in 0..2 {
        let (_, recovered) = Journal::open(made.path(), Options { verify: true, ..SMALL }).expect("opens");
        let chains = recovered.damage.iter().filter(|damage| damage.what == Fault::Chain).count();
        assert!(chains >= 1, "{:?}", recovered.damage);
    }
}

#[test]
fn bytes_that_imitate_a_group_do_not_pass_for_one() {
    let made = folder();
    let (mut journal, _) = open(made.path());
    // What another journal wrote is as good an imitation as anyone can post without the segment's mark.
    let other = small_journal(false);
    let forged = fs::read(segment_paths(other.path()).remove(0)).expect("reads");
    let mut hostile = entry(1);
    hostile.raw = Bytes::copy_from_slice(&forged[format::SEGMENT_HEADER..]);
    hostile.raw_hash = Digest::of(&hostile.raw);
    journal.append(&[hostile, entry(2)]).expect("appends");
    journal.append(&[entry(3)]).expect("appends");
    journal.close().expect("closes");
    let path = segment_paths(made.path()).remove(0);
    let mut bytes = fs::read(&path).expect("reads");
    // Break the group's header and the frame's length, so that recovery searches through the posted bytes.
    bytes[format::SEGMENT_HEADER] ^= 1;
    fs::write(&path, &bytes).expect("writes");
    let (journal, recovered) = open(made.path());
    assert_eq!(recovered.damage.len(), 1, "{:?}", recovered.damage);
    assert_eq!(check(&journal), [3]);
}

#[test]
fn records_lost_right_before_a_torn_group_keep_their_positions() {
    let made = folder();
    let (mut journal, _) = open(made.path());
    fill(&mut journal, 1, 2);
    let second = journal.segments()[0].bytes as usize;
    fill(&mut journal, 2, 2);
    drop(journal);
    let path = segment_paths(made.path()).remove(0);
    let mut bytes = fs::read(&path).expect("reads");
    bytes[second] ^= 1;
    bytes.truncate(bytes.len() - 1);
    fs::write(&path, &bytes).expect("writes");
    let (journal, recovered) = open(made.path());
    assert_eq!((recovered.head, recovered.damage.len()), (Position(4), 1));
    assert_eq!(check(&journal), [1, 2]);
}
