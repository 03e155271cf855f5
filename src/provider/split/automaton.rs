//! A regular expression as a table, for matching whole values from many starts.
//!
//! `regex-automata` compiles it; its states are then copied into a table with one look-up per byte, since the counter
//! takes tens of thousands of such steps for a hostile string and needs nothing of a search but "does it end here".

use std::collections::HashMap;

use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};

/// Bounds on what a pattern of the config may cost.
const MAX_PATTERN_BYTES: usize = 1024;
const MAX_TABLE_BYTES: usize = 1 << 20;
const DEAD: u16 = 0;

/// A compiled pattern that must match the whole of a value.
#[derive(Debug)]
pub(super) struct Automaton {
    /// The class of each byte.
    classes: [u8; 256],
    /// By state and class; a row has `stride` entries.
    next: Vec<u16>,
    stride: usize,
    /// By state: whether a value may end there.
    accepts: Vec<bool>,
    start: u16,
}

impl Automaton {
    /// # Errors
    /// A sentence that says what is wrong with the pattern.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!("it is longer than {MAX_PATTERN_BYTES} characters: write it shorter"));
        }
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .start_kind(StartKind::Anchored)
            .dfa_size_limit(Some(MAX_TABLE_BYTES))
            .determinize_size_limit(Some(8 * MAX_TABLE_BYTES));
        let nfa = regex_automata::nfa::thompson::Config::new().nfa_size_limit(Some(MAX_TABLE_BYTES));
        let dfa = dense::Builder::new().configure(config).thompson(nfa).build(pattern).map_err(|error| {
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            format!("it is no regular expression that can be used here (no \\b, nothing large): {why}")
        })?;
        let anchored = start::Config::new().anchored(Anchored::Yes);
        let first = dfa.start_state(&anchored).map_err(|error| format!("it cannot be used here: {error}"))?;

        let mut classes = [0; 256];
        let mut one_of_class: Vec<u8> = Vec::new();
        for (byte, class) in (0..=u8::MAX).zip(&mut classes) {
            *class = dfa.byte_classes().get(byte);
            if usize::from(*class) == one_of_class.len() {
                one_of_class.push(byte);
            }
        }
        let stride = one_of_class.len();
        let mut numbers = HashMap::from([(first, DEAD + 1)]);
        let mut states = vec![first];
        let (mut next, mut accepts) = (vec![DEAD; stride], vec![false]);
        let mut at = 0;
        while let Some(state) = states.get(at).copied() {
            accepts.push(dfa.is_match_state(dfa.next_eoi_state(state)));
            for byte in &one_of_class {
                let after = dfa.next_state(state, *byte);
                if dfa.is_dead_state(after) || dfa.is_quit_state(after) {
                    next.push(DEAD);
                    continue;
                }
                let new = u16::try_from(states.len() + 1).map_err(|_| "it is too large: write it shorter")?;
                let number = *numbers.entry(after).or_insert_with(|| {
                    states.push(after);
                    new
                });
                next.push(number);
            }
            at += 1;
        }
        Ok(Self { classes, next, stride, accepts, start: DEAD + 1 })
    }

    fn step(&self, state: u16, byte: u8) -> u16 {
        let class = usize::from(self.classes[usize::from(byte)]);
        self.next.get(usize::from(state) * self.stride + class).copied().unwrap_or(DEAD)
    }

    fn accepts(&self, state: u16) -> bool {
        self.accepts.get(usize::from(state)).copied().unwrap_or(false)
    }

    /// Which lengths in characters, up to `longest` (at most 64), a match at the start of `text` can have: bit 0 is
    /// one character. And the steps it took.
    pub(super) fn lengths(&self, text: &str, longest: usize) -> (u64, u64) {
        let (mut state, mut lengths, mut characters, mut steps) = (self.start, 0_u64, 0, 0);
        let mut bytes = text.bytes().peekable();
        while let Some(byte) = bytes.next() {
            state = self.step(state, byte);
            steps += 1;
            if state == DEAD {
                break;
            }
            if bytes.peek().is_none_or(|next| next & 0xC0 != 0x80) {
                lengths |= u64::from(self.accepts(state)) << characters;
                characters += 1;
                if characters == longest {
                    break;
                }
            }
        }
        (lengths, steps)
    }

    /// A match of 1 to `longest` characters, as short as possible, of digits and letters before all else.
    pub(super) fn example(&self, longest: usize) -> Option<String> {
        let plain = (b'1'..=b'9').chain(*b"0").chain(b'A'..=b'Z').chain(b'a'..=b'z');
        let alphabet: Vec<u8> = plain.chain(b'!'..=b'/').chain(b':'..=b'~').chain(*b" ").chain(0x80..=0xFF).collect();
        let mut seen = std::collections::HashSet::from([self.start]);
        let mut level = vec![(self.start, Vec::new())];
        for _ in 0..longest * 4 {
            let mut next = Vec::new();
            for (state, bytes) in &level {
                for byte in &alphabet {
                    let after = self.step(*state, *byte);
                    let longer = || bytes.iter().copied().chain([*byte]).collect::<Vec<u8>>();
                    if self.accepts(after) {
                        let text = String::from_utf8(longer()).ok()?;
                        return (text.chars().count() <= longest).then_some(text);
                    }
                    if after != DEAD && seen.insert(after) {
                        next.push((after, longer()));
                    }
                }
            }
            level = next;
        }
        None
    }
}
