//! How many different decisions a graph of cuts holds.
//!
//! A walk through the fields carries, for each position, the set of what was decided up to there as the bits of one
//! number. Every entry of that set lies on a whole cut, so that 128 of them mean 64 decisions at least: the walk ends
//! there, and its sets never outgrow the number.

use super::cuts::{Cuts, Part, Positions, bits};
use super::grammar::{Field, Grammar};

/// Where counting ends.
pub(in crate::provider) const CAP: usize = 64;
/// Two entries at most become one decision: a pay-in that is still paid, and the same that no longer is.
const MAX_PARTIAL: usize = 2 * CAP;

/// How much work was done: what the tests bound in place of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::provider) struct Steps(pub(in crate::provider) u64);

impl Steps {
    pub(super) fn add(&mut self, steps: u64) {
        self.0 += steps;
    }
}

/// What was decided so far, in numbers of the interned values; 0 for not yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Partial {
    outcome: usize,
    order: usize,
    amount: usize,
}

/// For each position from a first one on: the entries that lead there.
struct Sets {
    first: usize,
    sets: Vec<u128>,
}

/// The values of a field that were seen, by number from 0.
#[derive(Default)]
struct Interned<'a> {
    values: Vec<&'a str>,
    /// Numbers from 1 by hash; 0 is free.
    table: Vec<u8>,
}

/// The number of decisions, at most [`CAP`].
pub(super) fn decisions(cuts: &Cuts<'_>, steps: &mut Steps) -> usize {
    walk(cuts, steps).unwrap_or(CAP)
}

/// `None` once there are [`CAP`] or more.
fn walk(cuts: &Cuts<'_>, steps: &mut Steps) -> Option<usize> {
    let mut partials = vec![Partial::default()];
    let mut here = Sets { first: 0, sets: vec![1] };
    for (number, field) in cuts.message.fields.iter().enumerate() {
        let (starts, next) = (cuts.starts.get(number)?, cuts.starts.get(number + 1)?);
        let mut there = Sets::over(next);
        if field.part == Part::Other {
            for start in starts.iter().filter(|start| cuts.left_out(number, field, *start)) {
                there.add(start, here.at(start));
            }
            if let Grammar::Run { longest } = field.grammar {
                spread(cuts, &here, &mut there, next, longest, steps);
            } else {
                for start in starts.iter() {
                    for characters in bits(cuts.lengths(number, start)) {
                        steps.add(1);
                        there.add(start + characters + 1, here.at(start));
                    }
                }
            }
        } else {
            partials = decide(cuts, (number, field), partials, &here, &mut there, steps)?;
        }
        here = there;
    }
    let found = here.at(cuts.text.len()).count_ones() as usize;
    (found < CAP).then_some(found)
}

/// A run of text takes every set at most `longest` characters further, and not over a control character.
fn spread(cuts: &Cuts<'_>, here: &Sets, there: &mut Sets, next: &Positions, longest: usize, steps: &mut Steps) {
    let mut recent = 0_u128;
    let mut last_seen = [0_usize; MAX_PARTIAL];
    let Some(last) = next.last() else { return };
    let mut run_end = cuts.text.run_end(here.first);
    for end in here.first + 1..=last {
        steps.add(1);
        let start = end - 1;
        if run_end == start {
            // A control character stands at `start`: nothing reaches over it.
            recent = 0;
            run_end = cuts.text.run_end(end);
        } else {
            let added = here.at(start);
            recent |= added;
            for entry in entries(added) {
                steps.add(1);
                if let Some(seen) = last_seen.get_mut(entry) {
                    *seen = start;
                }
            }
        }
        if let Some(gone) = start.checked_sub(longest) {
            for entry in entries(here.at(gone)) {
                steps.add(1);
                if last_seen.get(entry) == Some(&gone) {
                    recent &= !(1 << entry);
                }
            }
        }
        if next.has(end) {
            there.add(end, recent);
        }
    }
}

/// A field that takes part in the decision: each value makes other entries of the ones before it.
fn decide<'a>(
    cuts: &Cuts<'a>,
    (number, field): (usize, &Field),
    before: Vec<Partial>,
    here: &Sets,
    there: &mut Sets,
    steps: &mut Steps,
) -> Option<Vec<Partial>> {
    let mut after: Vec<Partial> = Vec::new();
    let mut place = |partial: Partial| -> Option<usize> {
        if let Some(known) = after.iter().position(|known| *known == partial) {
            return Some(known);
        }
        after.push(partial);
        (after.len() < MAX_PARTIAL).then_some(after.len() - 1)
    };
    let mut values = Interned::default();
    // Which entry value `v` makes of entry `p`: `made[v * MAX_PARTIAL + p]`, in numbers from 1.
    let mut made: Vec<u8> = Vec::new();
    for start in cuts.starts.get(number)?.iter() {
        let set = here.at(start);
        if cuts.left_out(number, field, start) {
            let mut unchanged = 0;
            for entry in entries(set) {
                unchanged |= 1 << place(*before.get(entry)?)?;
            }
            there.add(start, unchanged);
        }
        for characters in bits(cuts.lengths(number, start)) {
            let end = start + characters + 1;
            let value = cuts.text.slice(start, end);
            // Each value of a field lies on a whole cut: so many of them are as many decisions.
            let value_number = match field.part {
                Part::Code | Part::Message | Part::Status => usize::from(field.part.is_final(value)),
                Part::Amount | Part::QueryAmount => values.number(canonical(value))?,
                _ => values.number(value)?,
            };
            made.resize(made.len().max((value_number + 1) * MAX_PARTIAL), 0);
            let mut reached = 0;
            for entry in entries(set) {
                steps.add(1);
                let known = made.get_mut(value_number * MAX_PARTIAL + entry)?;
                if *known == 0 {
                    let made = before.get(entry)?.with(field.part, value_number);
                    *known = u8::try_from(place(made)? + 1).ok()?;
                }
                reached |= 1 << (*known - 1);
            }
            there.add(end, reached);
        }
    }
    Some(after)
}

impl Partial {
    fn with(self, part: Part, value: usize) -> Self {
        match part {
            // 0: paid so far; 1: no longer.
            Part::Code | Part::Message | Part::Status => Self { outcome: self.outcome.max(1 - value), ..self },
            Part::PayOutStatus | Part::QueryStatus => Self { outcome: value + 1, ..self },
            Part::Order => Self { order: value + 1, ..self },
            Part::Amount | Part::QueryAmount => Self { amount: value + 1, ..self },
            Part::Other => self,
        }
    }
}

impl Sets {
    fn over(positions: &Positions) -> Self {
        let first = positions.next(0).unwrap_or(0);
        let last = positions.last().unwrap_or(first);
        Self { first, sets: vec![0; last - first + 1] }
    }

    fn at(&self, position: usize) -> u128 {
        position.checked_sub(self.first).and_then(|at| self.sets.get(at)).copied().unwrap_or(0)
    }

    fn add(&mut self, position: usize, entries: u128) {
        if let Some(set) = position.checked_sub(self.first).and_then(|at| self.sets.get_mut(at)) {
            *set |= entries;
        }
    }
}

impl<'a> Interned<'a> {
    /// The number of a value; `None` for the [`CAP`]th and later ones.
    fn number(&mut self, value: &'a str) -> Option<usize> {
        self.table.resize(4 * CAP, 0);
        let mut hash = value.len() as u64;
        for chunk in value.as_bytes().chunks(8) {
            let word = chunk.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
            hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        let mut slot = (hash >> 32) as usize % self.table.len();
        loop {
            match self.table.get(slot).copied()? {
                0 => {
                    self.values.push(value);
                    *self.table.get_mut(slot)? = u8::try_from(self.values.len()).ok()?;
                    return (self.values.len() < CAP).then_some(self.values.len() - 1);
                }
                number => {
                    let number = usize::from(number) - 1;
                    if self.values.get(number) == Some(&value) {
                        return Some(number);
                    }
                }
            }
            slot = (slot + 1) % self.table.len();
        }
    }
}

/// The digits that make a number what it is: equal for equal numbers (`10.50` and `10.5`).
fn canonical(amount: &str) -> &str {
    let whole = amount.trim_start_matches('0');
    if whole.contains('.') { whole.trim_end_matches('0').trim_end_matches('.') } else { whole }
}

/// The numbers of the entries in a set.
fn entries(set: u128) -> impl Iterator<Item = usize> {
    let (low, high) = (set as u64, (set >> 64) as u64);
    bits(low).chain(bits(high).map(|bit| bit + 64))
}
