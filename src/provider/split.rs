//! Counts the decisions that a ClickPay signed string allows.
//!
//! The signed string is values only, without names and separators: bytes can move between neighbouring fields and
//! the signature still holds. So every type of message that the key signs is laid over the string in every way that
//! its grammar allows (`cuts`), and the different decisions among them are counted (`count`). A string with one
//! decision is proven; one with more is only known to be genuine.
//!
//! `tests/it/fixtures/clickpay/decisions_oracle.py` says the same in forty lines of Python and is what the tests
//! compare with. It works on characters, and so does this.

mod automaton;
mod count;
mod cuts;
mod grammar;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

pub(super) use count::{CAP, Steps};
pub(super) use cuts::{Cuts, Part, Text};
pub use grammar::{Grammars, Type, check_pattern};

use crate::event::{AccountName, Decimal, Kind};

/// Above, [`Ambiguity::candidate_orders`] gives up.
const MAX_CANDIDATES: usize = 4096;

/// What a signed string allows.
#[derive(Debug)]
pub struct Reading {
    /// Different decisions, at most 64.
    pub decisions: usize,
    /// A type other than the one that was sent is among the readings.
    pub cross_type: bool,
    /// Fields of the sent type whose values are not the sent ones in every cut.
    pub unproven: Vec<String>,
}

/// What else a genuine signed string could say.
#[derive(Clone)]
pub struct Ambiguity {
    /// Another type of message is among the readings.
    pub cross_type: bool,
    readers: Arc<[Reader]>,
    string: Arc<str>,
}

/// Who may read a string that a key signed, and how: no field names the merchant, so it may be meant for any account
/// with a source that has the key, and each writes its numbers in its own way.
#[derive(Clone)]
pub struct Reader {
    /// The accounts whose sources read by these grammars.
    pub accounts: Vec<AccountName>,
    /// How.
    pub grammars: Arc<Grammars>,
}

impl Grammars {
    /// Reads a signed string in every possible way. `sent` is how the message cut it, by field name.
    pub fn read(&self, string: &str, sent_type: Type, sent: &[(String, String)]) -> Reading {
        self.read_counting(string, sent_type, sent).0
    }

    /// [`Grammars::read`] and how many steps it took.
    pub(super) fn read_counting(&self, string: &str, sent_type: Type, sent: &[(String, String)]) -> (Reading, Steps) {
        let text = Text::new(string);
        let mut reading = Reading { decisions: 0, cross_type: false, unproven: Vec::new() };
        let mut steps = Steps::default();
        for message in self.types() {
            let Some(cuts) = Cuts::new(&text, message, |_, _| true, &mut steps) else { continue };
            if message.is == sent_type {
                reading.unproven = cuts.differing(sent);
            } else {
                reading.cross_type = true;
            }
            if reading.decisions < CAP {
                reading.decisions = CAP.min(reading.decisions + count::decisions(&cuts, &mut steps));
            }
        }
        (reading, steps)
    }
}

impl Ambiguity {
    /// Remembers an ambiguous string and all who may read it.
    pub(super) fn new(readers: &Arc<[Reader]>, string: &str, cross_type: bool) -> Self {
        Self { cross_type, readers: Arc::clone(readers), string: string.into() }
    }

    /// Whether some cut of the signed string says this decision to `account`: this kind, paid (pay-out: any final
    /// state), this order, this amount. Exact, however many decisions there are.
    pub fn allows(&self, account: &AccountName, kind: Kind, order: &str, amount: &Decimal) -> bool {
        let wanted = match kind {
            Kind::Payment => Type::PayIn,
            Kind::Payout => Type::PayOut,
            Kind::Refund => return false,
        };
        let text = Text::new(&self.string);
        let readers = self.readers.iter().filter(|reader| reader.accounts.contains(account));
        let messages = readers.flat_map(|reader| reader.grammars.types());
        messages.filter(|message| message.is == wanted).any(|message| {
            let fits = |part: Part, value: &str| match part {
                Part::Order => value == order,
                Part::Amount => Decimal::parse(value).is_some_and(|value| value == *amount),
                other => other.is_final(value),
            };
            Cuts::new(&text, message, fits, &mut Steps::default()).is_some()
        })
    }

    /// Every order that some cut with a final outcome (payment paid; pay-out any final state) names, by the account
    /// whose it would be, without repeats; `None` where there are more than 4096.
    pub fn candidate_orders(&self) -> Option<Vec<(AccountName, String)>> {
        let text = Text::new(&self.string);
        let mut orders: HashSet<(&AccountName, &str)> = HashSet::new();
        for reader in self.readers.iter() {
            for message in reader.grammars.types().iter().filter(|m| matches!(m.is, Type::PayIn | Type::PayOut)) {
                let Some(cuts) = Cuts::new(&text, message, Part::is_final, &mut Steps::default()) else { continue };
                for order in cuts.values_of(Part::Order) {
                    let new = reader.accounts.iter().map(|account| (account, order));
                    orders.extend(new);
                    if orders.len() > MAX_CANDIDATES {
                        return None;
                    }
                }
            }
        }
        Some(orders.into_iter().map(|(account, order)| (account.clone(), order.to_owned())).collect())
    }
}

impl fmt::Debug for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The string holds names and e-mail addresses.
        f.debug_struct("Ambiguity").field("cross_type", &self.cross_type).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
