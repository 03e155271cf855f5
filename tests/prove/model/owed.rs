//! What the relay is owed, next to a store that says what is due: every event of which nothing was settled, the first of
//! each order, as they stand in the journal. What was settled in the last second before a crash may come again.

use std::collections::{BTreeMap, BTreeSet};

use quittance::event::Position;
use quittance::store::Due;

/// A record that the relay is owed.
#[derive(Clone, Debug)]
pub struct Owed {
    /// Where the event itself stands: elsewhere where this is a redelivery.
    pub event: Position,
    pub id: String,
    pub order: String,
    pub replay: Option<String>,
}

/// All of them, and how far the relay is.
#[derive(Debug, Default)]
pub struct Relay {
    owed: BTreeMap<Position, Owed>,
    /// Settled, and whether it was refused for good.
    settled: BTreeMap<Position, bool>,
    /// Settled before a crash that the journal may not have been told of.
    doubtful: BTreeMap<Position, bool>,
    /// What a clean stop has written down.
    written: BTreeSet<Position>,
    /// Taken at least once.
    pub delivered: BTreeSet<Position>,
    /// Events whose dead letter is open; those of a doubtful one may be.
    dead: BTreeSet<Position>,
}

impl Relay {
    pub fn owes(&mut self, at: Position, owed: Owed) {
        if owed.replay.is_some() {
            // On its way again.
            self.dead.remove(&owed.event);
        }
        self.owed.insert(at, owed);
    }

    pub fn settle(&mut self, at: Position, dead: bool) {
        self.settled.insert(at, dead);
        self.doubtful.remove(&at);
        if dead {
            self.dead.insert(self.owed[&at].event);
        } else {
            self.delivered.insert(at);
        }
    }

    pub fn at(&self, at: Position) -> Option<&Owed> {
        self.owed.get(&at)
    }

    /// A clean stop: nothing of it may come again.
    pub fn stopped(&mut self) {
        self.written.extend(self.settled.keys());
    }

    /// A crash: `letters` are the dead letters that are open afterwards.
    pub fn crashed(&mut self, letters: &BTreeSet<Position>) {
        let written = &self.written;
        let (kept, lost) = std::mem::take(&mut self.settled).into_iter().partition(|(at, _)| written.contains(at));
        self.settled = kept;
        let lost: BTreeMap<Position, bool> = lost;
        self.doubtful.extend(lost);
        // A letter and the progress that calls its event settled are in one group.
        for (at, _) in self.doubtful.clone().into_iter().filter(|(_, dead)| *dead) {
            let event = self.owed[&at].event;
            if letters.contains(&event) {
                self.dead.insert(event);
            } else {
                self.dead.remove(&event);
            }
        }
    }

    /// After a clean stop: each dead letter is there, and no other.
    ///
    /// # Panics
    /// When it is not so.
    pub fn compare_letters(&self, letters: &BTreeSet<Position>) {
        assert!(self.dead.is_subset(letters), "{:?} were refused for good, {letters:?} are dead letters", self.dead);
        // One that was asked for before its letter was written has both.
        let refused: BTreeSet<Position> =
            self.settled.iter().filter(|(_, dead)| **dead).map(|(at, _)| self.owed[at].event).collect();
        assert!(letters.is_subset(&refused), "{letters:?} are dead letters, {refused:?} were refused for good");
    }

    /// How many events are dead letters.
    pub fn dead(&self) -> usize {
        self.dead.len()
    }

    /// Whether something is still to be handed out of an event, for sure.
    pub fn needs(&self, event: Position) -> bool {
        let open = |at: &Position| !self.settled.contains_key(at) && !self.doubtful.contains_key(at);
        self.dead.contains(&event) || self.owed.iter().any(|(at, owed)| owed.event == event && open(at))
    }

    /// So many are settled although something before them is not: a store hands out only so far beyond that.
    pub fn beyond(&self) -> usize {
        let first = self.owed.keys().find(|at| !self.settled.contains_key(at));
        first.map_or(0, |first| self.settled.range(first..).count())
    }

    /// Looks at everything that may be claimed at one moment.
    ///
    /// # Panics
    /// When it is not what is owed.
    pub fn compare(&mut self, due: &[Due]) {
        assert!(due.is_sorted_by_key(|due| due.position), "not in journal order: {due:?}");
        let mut heads: BTreeMap<&str, Position> = BTreeMap::new();
        for due in due {
            let at = due.position;
            let owed = self.owed.get(&at).unwrap_or_else(|| panic!("nobody is owed {due:?}"));
            assert_eq!((&due.event.to_string(), &due.replay), (&owed.id, &owed.replay), "at {at}");
            assert!(!self.settled.contains_key(&at), "settled, and due again without a crash: {due:?}");
            let other = heads.insert(&owed.order, at);
            assert!(other.is_none(), "two of order {} at once: {other:?} and {at}", owed.order);
        }
        let mut sure = Vec::new();
        for (at, owed) in &self.owed {
            let head = heads.get(owed.order.as_str());
            if self.settled.contains_key(at) || head.is_some_and(|head| head < at) {
                continue;
            }
            match (head == Some(at), self.doubtful.contains_key(at)) {
                (true, _) => {}
                // Passed over: the journal knew of it.
                (false, true) => sure.push(*at),
                (false, false) => panic!("{owed:?} at {at} is owed, and {head:?} is handed out of its order"),
            }
        }
        for at in sure {
            let dead = self.doubtful.remove(&at).unwrap_or_default();
            self.settled.insert(at, dead);
            self.written.insert(at);
        }
        for due in due {
            self.doubtful.remove(&due.position);
        }
    }

    /// At the end of a life: what was handed out until nothing was due any more.
    ///
    /// # Panics
    /// When something was never delivered and is no dead letter either.
    pub fn all_is_told(&self) {
        for (at, owed) in &self.owed {
            let again = self.owed.iter().any(|(later, other)| later > at && other.event == owed.event);
            let told = self.delivered.contains(at) || self.dead.contains(&owed.event) || again;
            assert!(told, "{owed:?} at {at} was never delivered, and is no dead letter");
        }
    }
}
