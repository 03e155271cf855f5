//! The journal against a list in memory, and the scanner against bytes that nobody wrote.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Idle,
    Reopen,
    /// A start after a crash in mid write: so many bytes of a group, or of noise.
    Crash(Vec<u8>),
    /// Of the n-th segment; what becomes of a record hangs on its position.
    Rewrite(usize, u64),
    Full(u64),
    Reserved(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..12).prop_map(Step::Append),
        1 => Just(Step::Idle),
        1 => Just(Step::Reopen),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Step::Crash),
        2 => (any::<usize>(), 2_u64..7).prop_map(|(segment, modulus)| Step::Rewrite(segment, modulus)),
        1 => (1_u64..4).prop_map(Step::Full),
        1 => (1_u64..4).prop_map(Step::Reserved),
    ]
}

fn decide(position: u64, modulus: u64) -> Keep {
    match position % modulus {
        0 => Keep::Drop,
        1 => Keep::HeadOnly,
        _ => Keep::Whole,
    }
}

fn judge(journal: &Journal, model: &[Keep]) {
    let expected: Vec<u64> =
        (1..).zip(model).filter(|(_, keep)| **keep != Keep::Drop).map(|(position, _)| position).collect();
    assert_eq!(check(journal), expected);
    let reader = journal.reader();
    for (position, keep) in (1..).zip(model) {
        let stored = reader.read(Position(position)).expect("reads");
        assert_eq!(stored.and_then(|stored| stored.raw).is_some(), *keep == Keep::Whole, "{position}");
    }
    assert_eq!(reader.read(Position(model.len() as u64 + 1)).expect("reads"), None);
    let fingerprints: usize = reader.fingerprints().map(|segment| segment.expect("reads").1.len()).sum();
    assert_eq!(fingerprints, expected.len() * 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_journal_holds_what_the_model_holds(
        steps in prop::collection::vec(step(), 1..40), verify: bool,
    ) {
        let made = folder();
        let options = Options { verify, ..SMALL };
        let reopen = |journal: Journal| {
            let chain = journal.chain();
            drop(journal);
            let (journal, recovered) = Journal::open(made.path(), options).expect("opens");
            assert_eq!((recovered.damage, recovered.chain), (vec![], chain));
            journal
        };
        let mut model: Vec<Keep> = Vec::new();
        let (mut journal, _) = Journal::open(made.path(), options).expect("opens");
        for step in steps {
            let entries = |count: u64| -> Vec<Entry> {
                (model.len() as u64 + 1..).take(count as usize).map(entry).collect()
            };
            match step {
                Step::Append(count) => {
                    journal.append(&entries(count)).expect("appends");
                    model.extend((0..count).map(|_| Keep::Whole));
                }
                Step::Idle => journal.mark_idle().expect("marks"),
                Step::Reopen => journal = reopen(journal),
                Step::Crash(noise) => {
                    let end = journal.segments().last().expect("active").bytes;
                    let active = swap_active(&journal, full());
                    active.write_all_at(&noise, end).expect("writes");
                    journal = reopen(journal);
                }
                Step::Rewrite(nth, modulus) => {
                    let sealed: Vec<SegmentInfo> =
                        journal.segments().into_iter().filter(|segment| segment.sealed).collect();
                    if sealed.is_empty() {
                        continue;
                    }
                    let segment = sealed[nth % sealed.len()];
                    journal
                        .rewrite(segment.first, &mut |head| decide(head.position.0, modulus))
                        .expect("rewrites");
                    for position in segment.first.0..=segment.last.0 {
                        let kept = &mut model[position as usize - 1];
                        *kept = match (*kept, decide(position, modulus)) {
                            (Keep::Drop, _) | (_, Keep::Drop) => Keep::Drop,
                            (Keep::HeadOnly, _) | (_, Keep::HeadOnly) => Keep::HeadOnly,
                            _ => Keep::Whole,
                        };
                    }
                }
                Step::Full(count) => {
                    let room = swap_active(&journal, full());
                    // A group that needs a new segment finds room there.
                    match journal.append(&entries(count)) {
                        Err(AppendError::Full(_)) => {
                            journal.shelf.change().active.file = room;
                        }
                        outcome => {
                            outcome.expect("appends");
                            model.extend((0..count).map(|_| Keep::Whole));
                        }
                    }
                }
                Step::Reserved(count) => {
                    // The room of the reserve is there even when there is no other.
                    if !journal.in_reserve {
                        swap_active(&journal, full());
                    }
                    journal.append_reserved(&entries(count)).expect("appends");
                    model.extend((0..count).map(|_| Keep::Whole));
                }
            }
            prop_assert_eq!(journal.next_position().0, model.len() as u64 + 1);
        }
        judge(&journal, &model);
        journal = reopen(journal);
        judge(&journal, &model);
    }

    #[test]
    fn arbitrary_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        scan::read_segment(&bytes);
    }

    #[test]
    fn a_mangled_segment_never_yields_a_record_that_was_not_written(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let made = folder();
        let (mut journal, _) = open(made.path());
        fill(&mut journal, 4, 4);
        let path = segment_paths(made.path()).pop().expect("last");
        let mut bytes = fs::read(&path).expect("reads");
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        for (from, to, how) in cuts {
            let (from, to) = (from.index(end), to.index(end));
            match how % 4 {
                0 => bytes.truncate(from.max(1)),
                1 if from < bytes.len() => bytes[from] ^= how | 1,
                2 => { let part: Vec<u8> = bytes.iter().skip(from).take(to.min(300)).copied().collect(); bytes.splice(to.min(bytes.len())..to.min(bytes.len()), part); }
                _ => { let at = from.min(bytes.len()); bytes.drain(at..(at + to % 90).min(bytes.len())); }
            }
        }
        let found = scan::read_segment(&bytes);
        let mut before = 0;
        for frame in found.iter().flat_map(|scan| &scan.frames) {
            prop_assert!(frame.first() > before);
            before = frame.first();
            if let format::Frame::Record(record) = frame {
                let wanted = entry(record.position);
                prop_assert_eq!(record.payload, &wanted.payload[..]);
                if let Some((raw, event)) = record.parts {
                    prop_assert_eq!((raw, event), (&wanted.raw[..], &wanted.event[..]));
                }
            }
        }
    }
}
