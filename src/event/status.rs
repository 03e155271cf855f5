//! Words of the event: what kind of payment movement, and in which state it is.

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* #[doc = concat!("`", $word, "`")] $variant),+ }
        impl $name {
            /// Every word, in the order of their journal codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The word as events, config and API spell it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
            /// The value for a word; `None` for any other text.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)+ _ => None }
            }
            /// One byte for the journal, fixed for ever: new words go to the end.
            pub fn code(self) -> u8 { self as u8 }
            /// The value for a journal byte.
            pub fn from_code(code: u8) -> Option<Self> {
                Self::ALL.get(usize::from(code)).copied()
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What moves: money to the merchant, from it, or back.
    Kind { Payment = "payment", Payout = "payout", Refund = "refund" }
}

words! {
    /// State of a payment, payout or refund as the notification tells it.
    Status {
        Paid = "paid", PartiallyPaid = "partially_paid", Pending = "pending", Failed = "failed",
        Canceled = "canceled", Refunded = "refunded", Unknown = "unknown",
    }
}

impl Status {
    /// Whether an order system books it: payment `paid`; payout `paid`, `failed`; refund `refunded`
    /// (design, section 5, row 3).
    pub fn is_final_of(self, kind: Kind) -> bool {
        matches!(
            (kind, self),
            (Kind::Payment, Self::Paid) | (Kind::Payout, Self::Paid | Self::Failed) | (Kind::Refund, Self::Refunded)
        )
    }
}
