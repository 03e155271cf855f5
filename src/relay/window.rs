//! What is on its way to the sink, and what a refusal means. Pure: no I/O, and the time comes from outside.
//!
//! A sink that refuses one event while it takes others has something against that event: this uses up an attempt, and
//! after the last one the event is a dead letter. A sink that takes nothing is down, and no event is to blame for it.
//! What is refused is therefore a *suspect* first: it is charged once another event that was sent after it was taken,
//! and let go without charge when nothing else gets through either.
//!
//! A return says that the event has no place to go, which does not depend on the moment: everything that was
//! returned before an event that was taken is charged. A refusal without that (a full queue, a broken channel) may
//! be over a millisecond later: it is looked into one event at a time, and a success charges only the event
//! that was refused right before it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Position;

/// Suspects that are gathered before the sink is called down, at least.
const PROBES: usize = 256;
/// Outcomes that are waited for one at a time after a nack.
const CAREFUL: usize = 16;
/// The wait of a charged event before its second attempt; it doubles with each.
const FIRST_REST: Duration = Duration::from_millis(500);

/// How an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no place to go.
    Returned,
    /// It was not taken.
    Nacked,
    /// The channel broke over it.
    Broke,
}

/// What is to be done with an event that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It used up an attempt; it rests until then, and is due again.
    Rest(Position, Instant, String),
    /// It used up its last attempt.
    Dead(Position, String),
}

/// Nothing gets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// To be let go without charge.
    pub suspects: Vec<Position>,
    /// How the last of them was refused.
    pub how: Refusal,
    /// In the sink's words.
    pub why: String,
}

/// What is on its way, what is suspected, what rests.
#[derive(Debug)]
pub struct Window {
    max: usize,
    attempts: u32,
    flying: BTreeMap<Position, Flight>,
    /// The same in the order in which they were sent.
    order: BTreeMap<u64, Position>,
    suspects: Vec<Suspect>,
    resting: BTreeMap<Position, (Instant, String)>,
    /// Events sent so far; the number of the last one.
    sent: u64,
    /// The highest number that was taken.
    taken: u64,
    /// Outcomes that are still waited for one at a time.
    alone: usize,
    /// Stalls since an event was last taken.
    stalls: u32,
    blocked: bool,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u64,
    at: Instant,
    attempts: u32,
    /// Nothing else was on its way.
    alone: bool,
}

#[derive(Debug)]
struct Suspect {
    position: Position,
    number: u64,
    attempts: u32,
    alone: bool,
    how: Refusal,
    why: String,
}

impl Window {
    /// For `max` unconfirmed events, each of which has `attempts`.
    pub fn new(max: usize, attempts: u32) -> Self {
        Self {
            max: max.max(1),
            attempts: attempts.max(1),
            flying: BTreeMap::new(),
            order: BTreeMap::new(),
            suspects: Vec::new(),
            resting: BTreeMap::new(),
            sent: 0,
            taken: 0,
            alone: 0,
            stalls: 0,
            blocked: false,
        }
    }

    /// How many more may be sent now.
    pub fn room(&self) -> usize {
        if self.blocked {
            return 0;
        }
        let one_by_one = self.alone > 0 || self.suspects.iter().any(|suspect| suspect.how != Refusal::Returned);
        let room = if one_by_one { 1 } else { self.max };
        let probes = self.probes().saturating_sub(self.suspects.len());
        room.min(if self.suspects.is_empty() { room } else { probes }).saturating_sub(self.flying.len())
    }

    /// How many suspects are gathered before the sink is called down. A nack or a broken channel is likely to hit all:
    /// two of them are enough, and more with every stall, so that a few bad events in a row cannot hide the good ones.
    fn probes(&self) -> usize {
        let returned = self.suspects.iter().all(|suspect| suspect.how == Refusal::Returned);
        let enough = self.max.max(PROBES);
        if returned { enough } else { (2usize << self.stalls.min(16)).min(enough) }
    }

    /// Notes that an event was sent, with the attempts it used up before.
    pub fn sent(&mut self, position: Position, attempts: u32, now: Instant) {
        self.sent += 1;
        let alone = self.flying.is_empty();
        self.flying.insert(position, Flight { number: self.sent, at: now, attempts, alone });
        self.order.insert(self.sent, position);
    }

    /// Events on their way.
    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// The sink has it. Returns whom that charges; `None` for an event that is not on its way.
    pub fn took(&mut self, position: Position, now: Instant) -> Option<Vec<Judgement>> {
        let flight = self.landed(position)?;
        self.taken = self.taken.max(flight.number);
        (self.stalls, self.alone) = (0, self.alone.saturating_sub(1));
        let mut charged = Vec::new();
        let mut cleared = Vec::new();
        for suspect in std::mem::take(&mut self.suspects) {
            match suspect.how {
                Refusal::Returned if suspect.number < flight.number => charged.push(suspect),
                Refusal::Returned => self.suspects.push(suspect),
                Refusal::Nacked | Refusal::Broke
                    if suspect.alone && flight.alone && suspect.number + 1 == flight.number =>
                {
                    charged.push(suspect);
                }
                Refusal::Nacked | Refusal::Broke => cleared.push(suspect),
            }
        }
        // What is let go is tried again at once, before anything that came after it.
        let now_due = cleared.into_iter().map(|suspect| (suspect.position, (now, String::new())));
        self.resting.extend(now_due);
        Some(charged.into_iter().map(|suspect| self.charge(suspect, now)).collect())
    }

    /// The sink refused it. Returns its judgement if others were taken already.
    pub fn refused(&mut self, position: Position, how: Refusal, why: String, now: Instant) -> Option<Judgement> {
        let flight = self.landed(position)?;
        self.alone = self.alone.saturating_sub(1);
        let Flight { number, attempts, alone, .. } = flight;
        let suspect = Suspect { position, number, attempts, alone, how, why };
        if how == Refusal::Nacked {
            self.alone = self.alone.max(CAREFUL);
        }
        if how == Refusal::Returned && self.taken > flight.number {
            return Some(self.charge(suspect, now));
        }
        self.suspects.push(suspect);
        None
    }

    /// The channel broke. With one event on its way that one is suspected; of several nobody knows which it was: they
    /// are returned, to be let go, and are sent one at a time.
    pub fn broke(&mut self, why: &str, now: Instant) -> Vec<Position> {
        if let (1, Some(position)) = (self.flying.len(), self.flying.keys().next().copied()) {
            self.refused(position, Refusal::Broke, why.to_owned(), now);
            return Vec::new();
        }
        let lost: Vec<Position> = std::mem::take(&mut self.flying).into_keys().collect();
        self.order.clear();
        self.alone = lost.len();
        lost
    }

    fn landed(&mut self, position: Position) -> Option<Flight> {
        let flight = self.flying.remove(&position)?;
        self.order.remove(&flight.number);
        Some(flight)
    }

    fn charge(&mut self, suspect: Suspect, now: Instant) -> Judgement {
        let used = suspect.attempts.saturating_add(1);
        if used >= self.attempts {
            return Judgement::Dead(suspect.position, suspect.why);
        }
        // Rest is limited in number: beyond it a row of bad events is through with its attempts the sooner.
        let rest = FIRST_REST.saturating_mul(1 << suspect.attempts.min(6));
        let until = if self.resting.len() < self.max.max(PROBES) { now + rest } else { now };
        self.resting.insert(suspect.position, (until, suspect.why.clone()));
        Judgement::Rest(suspect.position, until, suspect.why)
    }

    /// Those whose rest is over: `Some` with the sink's words where it cost an attempt.
    pub fn rested(&mut self, now: Instant) -> Vec<(Position, Option<String>)> {
        let over: Vec<Position> =
            self.resting.iter().filter(|(_, (until, _))| *until <= now).map(|(position, _)| *position).collect();
        let over = over.into_iter().filter_map(|position| Some((position, self.resting.remove(&position)?.1)));
        over.map(|(position, why)| (position, Some(why).filter(|why| !why.is_empty()))).collect()
    }

    /// Whether nothing gets through: nothing is on its way, all that was tried is suspected, and there is nothing else
    /// to try (`none_due`) or enough was tried.
    pub fn stall(&mut self, none_due: bool) -> Option<Stall> {
        let tried_enough = none_due || self.suspects.len() >= self.probes();
        if !self.flying.is_empty() || !tried_enough {
            return None;
        }
        let last = self.suspects.last()?;
        let (how, why) = (last.how, last.why.clone());
        self.stalls = self.stalls.saturating_add(1);
        let suspects = self.suspects.drain(..).map(|suspect| suspect.position).collect();
        Some(Stall { suspects, how, why })
    }

    /// The sink takes nothing at the moment, or does again: the clocks of what is on its way begin anew.
    pub fn block(&mut self, blocked: bool, now: Instant) {
        self.blocked = blocked;
        self.flying.values_mut().for_each(|flight| flight.at = now);
    }

    /// Whether the sink takes nothing at the moment.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// When the oldest event that is on its way was sent; `None` while blocked, since it waits with reason.
    pub fn oldest(&self) -> Option<Instant> {
        let first = self.order.values().next().filter(|_| !self.blocked)?;
        self.flying.get(first).map(|flight| flight.at)
    }

    /// When the next rest is over.
    pub fn next_rested(&self) -> Option<Instant> {
        self.resting.values().map(|(until, _)| *until).min()
    }

    /// The link has gone. Returns everything that is to be let go; what rests goes on resting.
    pub fn lost(&mut self) -> Vec<Position> {
        (self.blocked, self.alone) = (false, 0);
        let flying = std::mem::take(&mut self.flying).into_keys();
        self.order.clear();
        flying.chain(self.suspects.drain(..).map(|suspect| suspect.position)).collect()
    }
}

#[cfg(test)]
mod tests;
