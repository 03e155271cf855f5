//! Every way to cut a string into the fields of one type of message, as a graph.
//!
//! A node is a position before a field, an edge a value of that field. A pass forward finds what can be reached from
//! the start, a pass backward keeps what also leads to the end: what is left are exactly the cuts.

use super::count::Steps;
use super::grammar::{Field, Grammar, Message, Type};

/// A string of which characters are counted.
pub(in crate::provider) struct Text<'s> {
    string: &'s str,
    /// Where each character begins, and the end; empty where every character is one byte.
    offsets: Vec<usize>,
    characters: usize,
    /// Positions of control characters, rising.
    controls: Vec<usize>,
}

/// What a field is to the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Part {
    /// Pay-in: `00` or not.
    Code,
    /// Pay-in: `SUCCESS` or not.
    Message,
    /// Pay-in: `SUCCESS` or not; may be absent.
    Status,
    /// Pay-out: a digit.
    PayOutStatus,
    /// Query answer: a word.
    QueryStatus,
    /// The order number.
    Order,
    /// An amount above zero.
    Amount,
    /// An amount that may be zero.
    QueryAmount,
    /// Nothing.
    Other,
}

/// The cuts of one string into one type's fields; there is at least one.
pub(in crate::provider) struct Cuts<'a> {
    pub(super) text: &'a Text<'a>,
    pub(super) message: &'a Message,
    /// For each field, and for the end: the positions at which it starts in some cut.
    pub(super) starts: Vec<Positions>,
    /// For each field but runs: the lengths that its values have in some cut, by start from the first one.
    lengths: Vec<(usize, Vec<u64>)>,
}

/// A set of positions.
#[derive(Clone, Debug)]
pub(super) struct Positions(Vec<u64>);

impl<'s> Text<'s> {
    pub(in crate::provider) fn new(string: &'s str) -> Self {
        let offsets = if string.is_ascii() {
            Vec::new()
        } else {
            string.char_indices().map(|(at, _)| at).chain([string.len()]).collect()
        };
        let characters = if offsets.is_empty() { string.len() } else { offsets.len() - 1 };
        let is_control = |c: char| c.is_ascii_control();
        let controls = if string.bytes().any(|byte| byte.is_ascii_control()) {
            string.chars().enumerate().filter(|(_, c)| is_control(*c)).map(|(at, _)| at).collect()
        } else {
            Vec::new()
        };
        Self { string, offsets, characters, controls }
    }

    /// In characters.
    pub(in crate::provider) fn len(&self) -> usize {
        self.characters
    }

    /// Where the run without controls ends that starts at `at`.
    pub(super) fn run_end(&self, at: usize) -> usize {
        let next = self.controls.partition_point(|control| *control < at);
        self.controls.get(next).copied().unwrap_or(self.characters)
    }

    pub(super) fn from(&self, at: usize) -> &'s str {
        self.slice(at, self.characters)
    }

    /// The character that begins at a byte.
    fn position(&self, byte: usize) -> usize {
        if self.offsets.is_empty() { byte } else { self.offsets.partition_point(|offset| *offset < byte) }
    }

    pub(super) fn slice(&self, start: usize, end: usize) -> &'s str {
        let byte = |at: usize| if self.offsets.is_empty() { Some(at) } else { self.offsets.get(at).copied() };
        let range = byte(start).zip(byte(end)).map(|(start, end)| start..end);
        range.and_then(|range| self.string.get(range)).unwrap_or_default()
    }
}

impl Part {
    pub(super) fn of(is: Type, name: &str) -> Self {
        match (is, name) {
            (Type::Create, _) => Self::Other,
            (_, "orderNum") => Self::Order,
            (Type::PayIn, "code") => Self::Code,
            (Type::PayIn, "msg") => Self::Message,
            (Type::PayIn, "status") => Self::Status,
            (Type::PayOut, "status") => Self::PayOutStatus,
            (Type::Query, "status") => Self::QueryStatus,
            (Type::PayIn, "payMoney") | (Type::PayOut, "money") => Self::Amount,
            (Type::Query, "amount") => Self::QueryAmount,
            _ => Self::Other,
        }
    }

    /// Whether a value is that of a final outcome: a payment that is paid, a pay-out that succeeded or failed.
    pub(super) fn is_final(self, value: &str) -> bool {
        match self {
            Self::Code => value == "00",
            Self::Message | Self::Status => value == "SUCCESS",
            Self::PayOutStatus => matches!(value, "2" | "4"),
            _ => true,
        }
    }

    pub(super) fn must_not_be_zero(self, value: &str) -> bool {
        self == Self::Amount && value.bytes().all(|byte| matches!(byte, b'0' | b'.'))
    }
}

impl<'a> Cuts<'a> {
    /// The cuts in which every value that takes part in the decision also `fits`; `None` where there is none.
    pub(super) fn new(
        text: &'a Text<'a>,
        message: &'a Message,
        fits: impl Fn(Part, &str) -> bool,
        steps: &mut Steps,
    ) -> Option<Self> {
        let (length, fields) = (text.len(), &message.fields);
        let (least, most) = message.bounds(0);
        if !(least..=most).contains(&length) {
            return None;
        }
        let latest = latest_starts(text, message, steps)?;
        let mut starts = vec![Positions::empty(length)];
        starts.first_mut()?.insert(0);
        let mut lengths = Vec::with_capacity(fields.len());
        for (number, field) in fields.iter().enumerate() {
            let from = starts.last()?;
            let mut to = if field.required { Positions::empty(length) } else { from.clone() };
            let first = from.next(0).unwrap_or(0);
            let mut of_field = Vec::new();
            if let Grammar::Run { longest } = field.grammar {
                let mut filled = 0;
                for start in from.iter() {
                    steps.add(1);
                    let end = text.run_end(start).min(start + longest);
                    to.insert_range(filled.max(start + 1), end);
                    filled = filled.max(end + 1);
                }
            } else {
                for start in from.iter() {
                    let (mut found, took) = field.grammar.lengths(text, start);
                    steps.add(took + 1);
                    if field.part != Part::Other {
                        for characters in bits(found) {
                            steps.add(1);
                            let value = text.slice(start, start + characters + 1);
                            if field.part.must_not_be_zero(value) || !fits(field.part, value) {
                                found &= !(1 << characters);
                            }
                        }
                    }
                    of_field.resize(start - first + 1, 0);
                    *of_field.last_mut()? = found;
                    to.insert_mask(start + 1, found);
                }
            }
            // What is too far from the end, or too near, for the fields that follow leads nowhere.
            let (least, most) = message.bounds(number + 1);
            let last = length.checked_sub(least)?.min(*latest.get(number + 1)?);
            to.keep(length.saturating_sub(most), last);
            starts.push(to);
            lengths.push((first, of_field));
        }
        let mut cuts = Self { text, message, starts, lengths };
        cuts.keep_what_ends(steps).then_some(cuts)
    }

    /// The pass backward; whether any cut is left.
    fn keep_what_ends(&mut self, steps: &mut Steps) -> bool {
        let length = self.text.len();
        let mut after = Positions::empty(length);
        match self.starts.last_mut() {
            Some(end) if end.has(length) => {
                after.insert(length);
                *end = after.clone();
            }
            _ => return false,
        }
        for (number, field) in self.message.fields.iter().enumerate().rev() {
            let (Some(reached), Some((first, lengths))) = (self.starts.get(number), self.lengths.get_mut(number))
            else {
                return false;
            };
            let mut kept = if field.required { Positions::empty(length) } else { reached.and(&after) };
            for start in reached.iter() {
                steps.add(1);
                if let Grammar::Run { longest } = field.grammar {
                    let end = self.text.run_end(start).min(start + longest);
                    if after.next(start + 1).is_some_and(|next| next <= end) {
                        kept.insert(start);
                    }
                } else if let Some(found) = lengths.get_mut(start - *first) {
                    *found &= after.mask(start + 1);
                    if *found != 0 {
                        kept.insert(start);
                    }
                }
            }
            if let Some(starts) = self.starts.get_mut(number) {
                *starts = kept.clone();
            }
            after = kept;
        }
        after.has(0)
    }

    /// The values' lengths in characters, less one, that field `number` has at `start`, as bits. Not for runs.
    pub(super) fn lengths(&self, number: usize, start: usize) -> u64 {
        let found = self.lengths.get(number).and_then(|(first, found)| found.get(start.checked_sub(*first)?));
        found.copied().unwrap_or(0)
    }

    /// Whether field `number` is left out at `at` in some cut.
    pub(super) fn left_out(&self, number: usize, field: &Field, at: usize) -> bool {
        !field.required && self.starts.get(number + 1).is_some_and(|next| next.has(at))
    }

    /// The fields that have another value than the one `sent` in some cut.
    pub(super) fn differing(&self, sent: &[(String, String)]) -> Vec<String> {
        let fields = self.message.fields.iter().enumerate().filter(|(number, field)| {
            let sent = sent.iter().find(|(name, _)| *name == field.name).map(|(_, value)| value.as_str());
            self.starts.get(*number).is_some_and(|starts| {
                starts.iter().any(|start| {
                    (sent.is_some() && self.left_out(*number, field, start))
                        || self.ends(*number, field, start).any(|end| Some(self.text.slice(start, end)) != sent)
                })
            })
        });
        fields.map(|(_, field)| field.name.clone()).collect()
    }

    /// Every value that the fields of this part have in some cut; repeats are possible.
    pub(super) fn values_of(&self, part: Part) -> impl Iterator<Item = &'a str> {
        let fields = self.message.fields.iter().enumerate().filter(move |(_, field)| field.part == part);
        fields.flat_map(move |(number, field)| {
            let starts = self.starts.get(number).into_iter().flat_map(Positions::iter);
            starts.flat_map(move |start| self.ends(number, field, start).map(move |end| self.text.slice(start, end)))
        })
    }

    fn ends(&self, number: usize, field: &Field, start: usize) -> impl Iterator<Item = usize> {
        let by_length = bits(self.lengths(number, start)).map(move |characters| start + characters + 1);
        let run = match field.grammar {
            Grammar::Run { longest } => start + 1..self.text.run_end(start).min(start + longest) + 1,
            _ => 0..0,
        };
        let next = self.starts.get(number + 1);
        let mut at = run.start;
        let in_run = std::iter::from_fn(move || {
            let end = next?.next(at).filter(|end| *end < run.end)?;
            at = end + 1;
            Some(end)
        });
        by_length.chain(in_run)
    }
}

/// For each field, and for the end: the last position at which it can start when what follows it is to fit behind it;
/// too late rather than too early. `None` where a required field fits nowhere.
///
/// Most of what the pass forward would reach leads nowhere, since values with a shape (words, patterns) are few and
/// runs of text are long: looking for the last place of each shape first leaves little of the string to look at, and
/// refuses most of the types that were not sent at once.
fn latest_starts(text: &Text<'_>, message: &Message, steps: &mut Steps) -> Option<Vec<usize>> {
    /// Beyond, the search for shapes would cost a hostile string more than it can save.
    const MOST_STEPS: u64 = 2048;
    let mut latest = vec![text.len(); message.fields.len() + 1];
    let mut left = MOST_STEPS;
    let mut end = text.len();
    for (number, field) in message.fields.iter().enumerate().rev() {
        if field.required {
            end = latest_start(text, &field.grammar, end, &mut left)?;
        }
        *latest.get_mut(number)? = end;
    }
    steps.add(MOST_STEPS - left);
    Some(latest)
}

/// The last position, or a later one, at which a value can start that ends at `end` or before it.
fn latest_start(text: &Text<'_>, grammar: &Grammar, end: usize, left: &mut u64) -> Option<usize> {
    let before = text.slice(0, end);
    match grammar {
        Grammar::Run { .. } => end.checked_sub(1),
        Grammar::Words(words) => {
            // Looking for each word by itself would go over the string as often as there are words.
            let bytes = before.as_bytes();
            let begins = |at: &usize| {
                let here = bytes.get(*at..).unwrap_or_default();
                words.iter().any(|word| here.first() == word.as_bytes().first() && here.starts_with(word.as_bytes()))
            };
            (0..bytes.len()).rev().find(begins).map(|last| text.position(last))
        }
        // At least one character before the sign.
        Grammar::Email => text.position(before.rfind('@')?).checked_sub(1),
        Grammar::Pattern { .. } => {
            for start in (0..end).rev() {
                let (found, took) = grammar.lengths(text, start);
                let room = end - start;
                if found & (u64::MAX >> (64 - room.min(64))) != 0 {
                    return Some(start);
                }
                let Some(rest) = left.checked_sub(took + 1) else { return Some(start) };
                *left = rest;
            }
            None
        }
    }
}

impl Positions {
    /// Room for 0 to `length`, and for a mask behind it.
    fn empty(length: usize) -> Self {
        Self(vec![0; length / 64 + 3])
    }

    fn word(&self, number: usize) -> u64 {
        self.0.get(number).copied().unwrap_or(0)
    }

    fn insert(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// `first` to `last`, both included.
    fn insert_range(&mut self, first: usize, last: usize) {
        let mut at = first;
        while at <= last {
            let count = (64 - at % 64).min(last - at + 1);
            let ones = if count == 64 { u64::MAX } else { (1 << count) - 1 };
            if let Some(word) = self.0.get_mut(at / 64) {
                *word |= ones << (at % 64);
            }
            at += count;
        }
    }

    /// The positions `at`, `at + 1`, .. whose bits are set in `mask`.
    fn insert_mask(&mut self, at: usize, mask: u64) {
        let (word, shift) = (at / 64, at % 64);
        if let Some(low) = self.0.get_mut(word) {
            *low |= mask << shift;
        }
        if shift > 0
            && let Some(high) = self.0.get_mut(word + 1)
        {
            *high |= mask >> (64 - shift);
        }
    }

    /// The 64 positions from `at` on as bits.
    fn mask(&self, at: usize) -> u64 {
        let (word, shift) = (at / 64, at % 64);
        let high = if shift == 0 { 0 } else { self.word(word + 1) << (64 - shift) };
        self.word(word) >> shift | high
    }

    fn keep(&mut self, first: usize, last: usize) {
        let mut kept = Self(vec![0; self.0.len()]);
        kept.insert_range(first, last);
        *self = self.and(&kept);
    }

    fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    pub(super) fn has(&self, at: usize) -> bool {
        self.word(at / 64) >> (at % 64) & 1 == 1
    }

    /// The first one at or behind `at`.
    pub(super) fn next(&self, at: usize) -> Option<usize> {
        let mut number = at / 64;
        let mut word = self.word(number) & u64::MAX << (at % 64);
        while word == 0 {
            number += 1;
            word = *self.0.get(number)?;
        }
        Some(number * 64 + word.trailing_zeros() as usize)
    }

    pub(super) fn last(&self) -> Option<usize> {
        let (number, word) = self.0.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        Some(number * 64 + 63 - word.leading_zeros() as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(number, word)| bits(*word).map(move |bit| number * 64 + bit))
    }
}

/// The numbers of the bits that are set, rising.
pub(super) fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let bit = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            bit
        })
    })
}
