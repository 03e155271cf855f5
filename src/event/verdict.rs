//! Words for how far an event can be believed. What they mean and when each applies: `crate::verdict`.

use super::status::words;

words! {
    /// How the content was authenticated.
    Assurance {
        /// The content is authenticated and reads in only one way.
        Signed = "signed",
        /// The signature is genuine, but the signed string allows more than one decision.
        Ambiguous = "ambiguous",
        /// A shared secret came along; the content itself is not authenticated.
        Bearer = "bearer",
        /// Carried by the buyer's browser.
        Browser = "browser",
        /// Released or settled by hand, with a reason.
        Operator = "operator",
        /// The provider's own status query says the same.
        Confirmed = "confirmed",
    }
}

words! {
    /// What came of comparing with what the order system told us to expect.
    ExpectationResult {
        /// Nothing was registered for this order.
        Unregistered = "unregistered",
        /// Order, kind, amount and currency were named and are equal.
        Match = "match",
        /// Something named differs.
        Mismatch = "mismatch",
        /// Registered, but the notification names no comparable amount.
        Unchecked = "unchecked",
        /// Registered, but the time was over.
        Expired = "expired",
    }
}

words! {
    /// What the order system may do with the event.
    Verdict {
        /// Book this outcome, nothing is left to check.
        Fulfil = "fulfil",
        /// The statement is proven: compare order, amount and currency with your own order, then book it.
        Compare = "compare",
        /// Do nothing until it is settled.
        Hold = "hold",
        /// For your information.
        None = "none",
    }
}

words! {
    /// Why a verdict is not `fulfil`: a closed list.
    Reason {
        Conflict = "conflict", Contradiction = "contradiction", WrongIndicator = "wrong_indicator", Clock = "clock",
        Restored = "restored", FieldSet = "field_set", OrderPattern = "order_pattern",
        AmountUnreadable = "amount_unreadable", NoOrder = "no_order", AlreadyTold = "already_told",
        PaidTwice = "paid_twice", AmountMismatch = "amount_mismatch", CurrencyMismatch = "currency_mismatch",
        Expired = "expired", Browser = "browser", AmbiguousSplit = "ambiguous_split", CrossType = "cross_type",
        Unconfirmed = "unconfirmed", BrowserError = "browser_error", CurrencyNotComparable = "currency_not_comparable",
        Settled = "settled", Released = "released",
    }
}

words! {
    /// What a later event is to an earlier one.
    Relation { Contradicts = "contradicts", Settles = "settles", Repeats = "repeats" }
}
