//! Counts the decisions that a signed string allows.

use crate::event::{Decimal, Kind};

/// What else a genuine signed string could say.
#[derive(Clone, Debug)]
pub struct Ambiguity {
    /// Another type of message is among the readings.
    pub cross_type: bool,
}

impl Ambiguity {
    /// Whether some cut of the signed string says this decision: this kind, paid (pay-out: any final state), this
    /// order, this amount.
    pub fn allows(&self, _kind: Kind, _order: &str, _amount: &Decimal) -> bool {
        todo!()
    }
    /// Every order number that some cut names, without repeats; `None` where there are more than 4096.
    pub fn candidate_orders(&self) -> Option<Vec<String>> {
        todo!()
    }
}
