//! What the order system may do with an event: the table of the design's section 5 as one pure function.
//!
//! Everything that decides stands in [`Facts`]; nothing is looked up here. The committer gathers the facts, at one
//! place and in queue order, so a verdict is judged once and never again.

use crate::event::{Assurance, ExpectationResult, Kind, Reason, Status, Verdict};

/// What is known about a statement when it is judged.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What moves.
    pub kind: Kind,
    /// In which state.
    pub status: Status,
    /// How the content was authenticated.
    pub assurance: Assurance,
    /// One key or one signed string says two things.
    pub conflict: bool,
    /// The clock cannot be trusted.
    pub clock_alarm: bool,
    /// The store was started from a backup.
    pub restored: bool,
    /// Click KW: the indicator.
    pub indicator: Indicator,
    /// Why it cannot be read: `contradiction`, `field_set`, `order_pattern`, `amount_unreadable`, `no_order`.
    pub problems: Vec<Reason>,
    /// This payment (account, kind, transaction or else order, outcome) was told as fulfil or compare before, or
    /// its signed string was.
    pub already_told: bool,
    /// The expectation was fulfilled by another transaction before.
    pub paid_by_another: bool,
    /// What came of comparing with the expectation.
    pub expectation: ExpectationResult,
    /// Why that is a mismatch, or not comparable.
    pub expectation_reason: Option<Reason>,
    /// Ambiguous only: the sent decision names an open expectation registered before the signed string first
    /// arrived, no other possible decision names one, and nothing was told for the string.
    pub sole_reading: bool,
    /// Ambiguous only: another type of message is among the readings.
    pub cross_type: bool,
    /// `policy.fulfil = "never"`.
    pub fulfil_never: bool,
}

/// What an indicator is worth (Click KW).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indicator {
    /// The scheme has none, or the message said `error`.
    NotGiven,
    /// `message=success`, and no session is registered to compare with.
    Unregistered,
    /// `message=success` with one that was not registered.
    Wrong,
    /// The right one, but used before, or not within its session, or not accepted by the source.
    Right,
    /// The right one, unused, within its session, at a source with `accept_indicator = true`.
    Accepted,
}

/// The verdict and why it is not more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What the order system may do.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<Reason>,
}

impl Facts {
    /// Facts of a statement about which nothing else is known: the start of every gathering.
    pub fn of(kind: Kind, status: Status, assurance: Assurance) -> Self {
        Self {
            kind,
            status,
            assurance,
            conflict: false,
            clock_alarm: false,
            restored: false,
            indicator: Indicator::NotGiven,
            problems: Vec::new(),
            already_told: false,
            paid_by_another: false,
            expectation: ExpectationResult::Unregistered,
            expectation_reason: None,
            sole_reading: false,
            cross_type: false,
            fulfil_never: false,
        }
    }
}

/// First line of the table that applies.
pub fn judge(facts: &Facts) -> Judgement {
    let told = |verdict| {
        let verdict = if verdict == Verdict::Fulfil && facts.fulfil_never { Verdict::Compare } else { verdict };
        Judgement { verdict, reasons: Vec::new() }
    };
    let held = |reasons: Vec<Reason>| Judgement { verdict: Verdict::Hold, reasons };
    let matches = facts.expectation == ExpectationResult::Match;

    // Row 1: what nobody can tell yet.
    let doubts: Vec<Reason> = [
        (facts.conflict, Reason::Conflict),
        (facts.problems.contains(&Reason::Contradiction), Reason::Contradiction),
        (facts.indicator == Indicator::Wrong, Reason::WrongIndicator),
        (facts.clock_alarm, Reason::Clock),
        (facts.restored, Reason::Restored),
    ]
    .into_iter()
    .filter_map(|(applies, reason)| applies.then_some(reason))
    .collect();
    if !doubts.is_empty() {
        return held(doubts);
    }
    // Row 2: authentic, but not readable. A state that nobody knows belongs here: the design's section 4 holds it.
    if !facts.problems.is_empty() {
        return held(facts.problems.clone());
    }
    if facts.status == Status::Unknown {
        let reason = if facts.assurance == Assurance::Browser { Reason::Browser } else { Reason::FieldSet };
        return held(vec![reason]);
    }
    // Row 3: nothing to book.
    if !facts.status.is_final_of(facts.kind) {
        let from_browser = facts.assurance == Assurance::Browser && facts.status == Status::Pending;
        let reasons = if from_browser { vec![Reason::BrowserError] } else { Vec::new() };
        return Judgement { verdict: Verdict::None, reasons };
    }
    // Row 4.
    if facts.already_told {
        return Judgement { verdict: Verdict::None, reasons: vec![Reason::AlreadyTold] };
    }
    // Row 5.
    if facts.paid_by_another {
        return held(vec![Reason::PaidTwice]);
    }
    // Row 6.
    match facts.expectation {
        ExpectationResult::Mismatch => return held(facts.expectation_reason.into_iter().collect()),
        ExpectationResult::Expired => return held(vec![Reason::Expired]),
        ExpectationResult::Match | ExpectationResult::Unchecked | ExpectationResult::Unregistered => {}
    }
    match facts.assurance {
        // Row 7.
        Assurance::Browser if facts.indicator == Indicator::Accepted => told(Verdict::Fulfil),
        Assurance::Browser => held(vec![Reason::Browser]),
        // Row 8.
        // Another type names no order of its own that could be expected, so the expectation settles nothing: an unpaid
        // order's create answer names just the order and the amount that the shop waits for.
        Assurance::Ambiguous if facts.cross_type => held(vec![Reason::AmbiguousSplit, Reason::CrossType]),
        Assurance::Ambiguous if facts.sole_reading && matches => told(Verdict::Fulfil),
        Assurance::Ambiguous => held(vec![Reason::AmbiguousSplit]),
        // Row 9.
        Assurance::Bearer if matches => told(Verdict::Fulfil),
        Assurance::Bearer => held(std::iter::once(Reason::Unconfirmed).chain(facts.expectation_reason).collect()),
        // Row 10.
        Assurance::Signed | Assurance::Confirmed | Assurance::Operator => {
            told(if matches { Verdict::Fulfil } else { Verdict::Compare })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Assurance::{Ambiguous, Bearer, Browser, Signed};
    use ExpectationResult::{Expired, Match, Mismatch, Unchecked};

    fn paid(assurance: Assurance) -> Facts {
        Facts::of(Kind::Payment, Status::Paid, assurance)
    }

    #[track_caller]
    fn is(facts: &Facts, verdict: Verdict, reasons: &[Reason]) {
        assert_eq!(judge(facts), Judgement { verdict, reasons: reasons.to_vec() }, "{facts:?}");
    }

    #[test]
    fn row_1_doubt_comes_before_everything_else() {
        let best = Facts { expectation: Match, ..paid(Signed) };
        is(&Facts { conflict: true, ..best.clone() }, Verdict::Hold, &[Reason::Conflict]);
        is(&Facts { clock_alarm: true, ..best.clone() }, Verdict::Hold, &[Reason::Clock]);
        is(&Facts { restored: true, ..best.clone() }, Verdict::Hold, &[Reason::Restored]);
        is(&Facts { problems: vec![Reason::Contradiction], ..best.clone() }, Verdict::Hold, &[Reason::Contradiction]);
        is(
            &Facts { indicator: Indicator::Wrong, ..Facts::of(Kind::Payment, Status::Unknown, Browser) },
            Verdict::Hold,
            &[Reason::WrongIndicator],
        );
        is(
            &Facts { conflict: true, restored: true, already_told: true, ..best },
            Verdict::Hold,
            &[Reason::Conflict, Reason::Restored],
        );
    }

    #[test]
    fn row_2_what_cannot_be_read_is_held_even_with_a_match() {
        for reason in [Reason::FieldSet, Reason::OrderPattern, Reason::AmountUnreadable, Reason::NoOrder] {
            is(&Facts { problems: vec![reason], expectation: Match, ..paid(Signed) }, Verdict::Hold, &[reason]);
        }
        is(&Facts::of(Kind::Payment, Status::Unknown, Signed), Verdict::Hold, &[Reason::FieldSet]);
        is(&Facts::of(Kind::Payment, Status::Unknown, Browser), Verdict::Hold, &[Reason::Browser]);
    }

    #[test]
    fn row_3_what_is_not_final_is_for_information() {
        use Status::{Canceled, Failed, Paid, PartiallyPaid, Pending, Refunded};
        for status in [PartiallyPaid, Pending, Failed, Canceled, Refunded] {
            is(&Facts { expectation: Match, ..Facts::of(Kind::Payment, status, Signed) }, Verdict::None, &[]);
        }
        is(&Facts::of(Kind::Payout, Status::Pending, Signed), Verdict::None, &[]);
        is(&Facts::of(Kind::Payout, Failed, Signed), Verdict::Compare, &[]);
        is(&Facts::of(Kind::Payout, Paid, Signed), Verdict::Compare, &[]);
        is(&Facts::of(Kind::Refund, Refunded, Signed), Verdict::Compare, &[]);
        is(&Facts::of(Kind::Refund, Paid, Signed), Verdict::None, &[]);
        is(&Facts::of(Kind::Payment, Pending, Browser), Verdict::None, &[Reason::BrowserError]);
    }

    #[test]
    fn row_4_nothing_is_told_twice() {
        is(&Facts { already_told: true, expectation: Match, ..paid(Signed) }, Verdict::None, &[Reason::AlreadyTold]);
        is(
            &Facts { already_told: true, paid_by_another: true, expectation: Mismatch, ..paid(Bearer) },
            Verdict::None,
            &[Reason::AlreadyTold],
        );
    }

    #[test]
    fn row_5_a_second_transaction_for_a_paid_order_is_held() {
        is(&Facts { paid_by_another: true, expectation: Match, ..paid(Signed) }, Verdict::Hold, &[Reason::PaidTwice]);
    }

    #[test]
    fn row_6_a_mismatch_is_held_whatever_the_assurance() {
        for assurance in [Signed, Bearer, Browser, Ambiguous] {
            for reason in [Reason::AmountMismatch, Reason::CurrencyMismatch] {
                let facts = Facts { expectation: Mismatch, expectation_reason: Some(reason), ..paid(assurance) };
                is(&facts, Verdict::Hold, &[reason]);
            }
            is(&Facts { expectation: Expired, ..paid(assurance) }, Verdict::Hold, &[Reason::Expired]);
        }
    }

    #[test]
    fn row_7_the_browser_is_believed_only_with_an_accepted_indicator() {
        is(&Facts { expectation: Unchecked, ..paid(Browser) }, Verdict::Hold, &[Reason::Browser]);
        is(&Facts { indicator: Indicator::Right, ..paid(Browser) }, Verdict::Hold, &[Reason::Browser]);
        is(&Facts { expectation: Match, ..paid(Browser) }, Verdict::Hold, &[Reason::Browser]);
        is(&Facts { indicator: Indicator::Accepted, expectation: Unchecked, ..paid(Browser) }, Verdict::Fulfil, &[]);
    }

    #[test]
    fn row_8_an_ambiguous_string_fulfils_only_as_its_sole_reading() {
        is(&Facts { sole_reading: true, expectation: Match, ..paid(Ambiguous) }, Verdict::Fulfil, &[]);
        is(&Facts { expectation: Match, ..paid(Ambiguous) }, Verdict::Hold, &[Reason::AmbiguousSplit]);
        is(&paid(Ambiguous), Verdict::Hold, &[Reason::AmbiguousSplit]);
        is(&Facts { cross_type: true, ..paid(Ambiguous) }, Verdict::Hold, &[Reason::AmbiguousSplit, Reason::CrossType]);
        is(
            &Facts { cross_type: true, sole_reading: true, expectation: Match, ..paid(Ambiguous) },
            Verdict::Hold,
            &[Reason::AmbiguousSplit, Reason::CrossType],
        );
    }

    #[test]
    fn row_9_a_bearer_secret_needs_a_match() {
        is(&Facts { expectation: Match, ..paid(Bearer) }, Verdict::Fulfil, &[]);
        is(&paid(Bearer), Verdict::Hold, &[Reason::Unconfirmed]);
        is(
            &Facts { expectation: Unchecked, expectation_reason: Some(Reason::CurrencyNotComparable), ..paid(Bearer) },
            Verdict::Hold,
            &[Reason::Unconfirmed, Reason::CurrencyNotComparable],
        );
    }

    #[test]
    fn row_10_a_signature_is_compared_and_with_a_match_fulfilled() {
        for assurance in [Signed, Assurance::Confirmed, Assurance::Operator] {
            is(&paid(assurance), Verdict::Compare, &[]);
            is(&Facts { expectation: Match, ..paid(assurance) }, Verdict::Fulfil, &[]);
        }
    }

    #[test]
    fn with_the_policy_never_every_fulfil_is_a_compare() {
        for assurance in [Signed, Bearer] {
            let facts = Facts { fulfil_never: true, expectation: Match, ..paid(assurance) };
            is(&facts, Verdict::Compare, &[]);
        }
    }
}
