//! What a journal must hold, kept beside it by somebody whom no power cut touches.

use std::collections::BTreeMap;

use quittance::event::Position;
use quittance::store::embedded::journal::{Appended, Entry, Keep, Reader, Recovered, Stored};
use sha2::{Digest as _, Sha256};

/// Every record that was acknowledged, and what may have become of it.
#[derive(Default)]
pub struct Ledger {
    lines: BTreeMap<u64, Line>,
    /// The group that was handed over and not answered yet: after a cut it may be there, whole, or not.
    unanswered: Vec<Entry>,
    chain: [u8; 32],
}

struct Line {
    entry: Entry,
    chain: [u8; 32],
    fate: Fate,
    /// What a rewrite that was not finished may have made of it.
    perhaps: Option<Fate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    HeadOnly,
    Gone,
}

impl Ledger {
    pub fn len(&self) -> u64 {
        self.lines.len() as u64
    }

    /// A group is about to be appended.
    pub fn asked(&mut self, entries: &[Entry]) {
        self.unanswered = entries.to_vec();
    }

    /// It was refused as if it had never been tried.
    pub fn refused(&mut self) {
        self.unanswered.clear();
    }

    /// It was acknowledged.
    pub fn answered(&mut self, appended: &Appended) -> Result<(), String> {
        let first = self.head() + 1;
        self.take_unanswered();
        if appended.first.0 != first || appended.last.0 != self.head() {
            return Err(format!("{appended:?} where records {first} to {} were appended", self.head()));
        }
        if appended.chain.0 != self.chain { Err(format!("{appended:?} tells another chain")) } else { Ok(()) }
    }

    /// A rewrite is about to do this to a record.
    pub fn retiring(&mut self, position: Position, keep: Keep) {
        if let Some(line) = self.lines.get_mut(&position.0) {
            line.perhaps = match (keep, line.fate) {
                (Keep::Drop, _) => Some(Fate::Gone),
                (Keep::HeadOnly, Fate::Whole) => Some(Fate::HeadOnly),
                _ => None,
            };
        }
    }

    /// The rewrite is done.
    pub fn retired(&mut self) {
        for line in self.lines.values_mut() {
            line.fate = line.perhaps.take().unwrap_or(line.fate);
        }
    }

    /// The rewrite left everything as it was.
    pub fn not_retired(&mut self) {
        for line in self.lines.values_mut() {
            line.perhaps = None;
        }
    }

    /// Whether a start after a plain power cut found what it should, and nothing that it calls damage.
    pub fn check_start(&mut self, recovered: &Recovered, reader: &Reader) -> Result<(), String> {
        if !recovered.damage.is_empty() || recovered.damage_total != 0 {
            return Err(format!(
                "a power cut is no damage: {:?} (in all {})",
                recovered.damage, recovered.damage_total
            ));
        }
        if recovered.head != reader.head() {
            return Err(format!("the start tells head {:?}, the reader {:?}", recovered.head, reader.head()));
        }
        self.check(reader)?;
        if recovered.chain.0 != self.chain { Err("the start tells another chain".into()) } else { Ok(()) }
    }

    /// Whether the journal holds every acknowledged record with identical bytes at its place, and nothing else.
    pub fn check(&mut self, reader: &Reader) -> Result<(), String> {
        let head = reader.head().0;
        let with_unanswered = self.head() + self.unanswered.len() as u64;
        if head == with_unanswered {
            self.take_unanswered();
        } else if head == self.head() {
            self.unanswered.clear();
        } else {
            return Err(format!("head {head} where {} or {with_unanswered} was acknowledged", self.head()));
        }
        let mut found = BTreeMap::new();
        for stored in reader.records(Position(1)) {
            let stored = stored.map_err(|error| format!("does not read: {error}"))?;
            found.insert(stored.position.0, stored);
        }
        if let Some(invented) = found.keys().find(|position| !self.lines.contains_key(position)) {
            return Err(format!("record {invented} was never appended"));
        }
        let mut previous = [0; 32];
        for (position, line) in &mut self.lines {
            line.settle(found.get(position), &previous).map_err(|what| format!("record {position}: {what}"))?;
            previous = line.chain;
        }
        self.check_fingerprints(reader)
    }

    /// For a journal that was damaged: the positions of which something is lost. What reads must be what was written.
    pub fn compare(&self, reader: &Reader) -> Result<Vec<u64>, String> {
        let mut lost: Vec<u64> = self.lines.keys().copied().collect();
        for stored in reader.records(Position(1)).flatten() {
            let position = stored.position.0;
            let line = self.lines.get(&position).ok_or(format!("record {position} was never appended"))?;
            if stored.payload != line.entry.payload || stored.chain.0 != line.chain {
                return Err(format!("record {position} has another head"));
            }
            match (&stored.raw, &stored.event) {
                (Some(raw), Some(event)) if *raw == line.entry.raw && *event == line.entry.event => {
                    lost.retain(|at| *at != position);
                }
                (None, None) => {}
                _ => return Err(format!("record {position} has other parts")),
            }
        }
        Ok(lost)
    }

    fn check_fingerprints(&self, reader: &Reader) -> Result<(), String> {
        let mut kept = std::collections::HashSet::new();
        for segment in reader.fingerprints() {
            kept.extend(segment.map_err(|error| format!("fingerprints: {error}"))?.1);
        }
        let missing =
            |line: &&Line| line.fate != Fate::Gone && !line.entry.fingerprints.iter().all(|f| kept.contains(f));
        match self.lines.iter().find(|(_, line)| missing(line)) {
            Some((position, _)) => Err(format!("the fingerprints of record {position} are lost")),
            None => Ok(()),
        }
    }

    fn head(&self) -> u64 {
        self.lines.last_key_value().map_or(0, |(position, _)| *position)
    }

    fn take_unanswered(&mut self) {
        for entry in std::mem::take(&mut self.unanswered) {
            let position = self.head() + 1;
            self.chain = head_hash(position, &self.chain, &entry);
            let line = Line { entry, chain: self.chain, fate: Fate::Whole, perhaps: None };
            self.lines.insert(position, line);
        }
    }
}

impl Line {
    fn settle(&mut self, found: Option<&Stored>, previous: &[u8; 32]) -> Result<(), String> {
        let fate = match found {
            None => Fate::Gone,
            Some(stored) => {
                if stored.payload != self.entry.payload
                    || stored.raw_hash != self.entry.raw_hash
                    || stored.event_hash != self.entry.event_hash
                {
                    return Err("another head".into());
                }
                if stored.chain.0 != self.chain || stored.previous.0 != *previous {
                    return Err("the chain is broken".into());
                }
                match (&stored.raw, &stored.event) {
                    (None, None) if !stored.parts_damaged => Fate::HeadOnly,
                    (Some(raw), Some(event)) if *raw == self.entry.raw && *event == self.entry.event => Fate::Whole,
                    _ => return Err("other parts".into()),
                }
            }
        };
        if fate != self.fate && self.perhaps != Some(fate) {
            return Err(format!("is {fate:?}, should be {:?} (or {:?})", self.fate, self.perhaps));
        }
        self.fate = fate;
        self.perhaps = None;
        Ok(())
    }
}

/// The hash of a record's head as format.rs documents it, computed by other code.
fn head_hash(position: u64, previous: &[u8; 32], entry: &Entry) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(position.to_le_bytes());
    hash.update(previous);
    hash.update(entry.raw_hash.0);
    hash.update(entry.event_hash.0);
    for len in [entry.payload.len(), entry.raw.len(), entry.event.len()] {
        hash.update((len as u32).to_le_bytes());
    }
    hash.update(&entry.payload);
    hash.finalize().into()
}
