//! Names and numbers that identify things. Each has one checked constructor and a `Display` that is safe to log.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serializer;
use uuid::Uuid;

/// A source's name, `[a-z0-9-]{1,32}`. It is for ever: journal, metrics and routing keys carry it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName(Arc<str>);

/// A merchant account's name, `[a-z0-9-]{1,32}`; sources of one account share single use.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(Arc<str>);

/// The merchant's order number as the notification carried it: any non-empty text from outside.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderId(Arc<str>);

/// Identifies a kept notification: UUIDv7, made at commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NotificationId(Uuid);

/// Identifies an event: UUIDv7, made at commit, never changes; `message_id` on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

/// Place of a record in the journal, counted from 1 without gaps. The only order there is: never a time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

/// A SHA-256 result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl SourceName {
    /// `None` unless `text` is `[a-z0-9-]{1,32}`.
    pub fn new(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.into()))
    }
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AccountName {
    /// `None` unless `text` is `[a-z0-9-]{1,32}`.
    pub fn new(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.into()))
    }
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl OrderId {
    /// `None` for the empty text: a missing order is `Option::None`, never an empty string.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.into()))
    }
    /// The order number exactly as received. Not safe to print: use `Display` for people.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether a return URL can carry it: `^[A-Za-z0-9_-]{1,64}$`.
    pub fn fits_url(&self) -> bool {
        (1..=64).contains(&self.0.len()) && self.0.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }
}

impl NotificationId {
    /// A new id for what will stand at `position`, ordered by time.
    pub fn new(at: Timestamp, position: Position) -> Self {
        Self(uuid_at(at, position, false))
    }
}

impl EventId {
    /// A new id for what will stand at `position`, ordered by time.
    pub fn new(at: Timestamp, position: Position) -> Self {
        Self(uuid_at(at, position, true))
    }
    /// Whether a store made it for an event, and not for a notification.
    pub fn is_events(self) -> bool {
        self.0.as_u128() >> 17 & 1 == 1
    }
}

/// UUIDv7 whose random part holds the position (44 bits) and which of a record's two ids it is (1 bit), so that a
/// record is found by its id without an index; 29 bits are random. Whoever looks one up compares the whole id.
fn uuid_at(at: Timestamp, position: Position, event: bool) -> Uuid {
    let random = Uuid::new_v4().as_u128();
    let low = u128::from(position.0 & POSITION_MASK) << 18 | u128::from(event) << 17 | (random & 0x1_ffff);
    let millis = u128::from(u64::try_from(at.as_millisecond()).unwrap_or(0) & 0xffff_ffff_ffff);
    let high = millis << 16 | 0x7000 | (random >> 64 & 0xfff);
    Uuid::from_u128(high << 64 | 0b10 << 62 | low)
}

const POSITION_MASK: u64 = (1 << 44) - 1;

macro_rules! uuid_id {
    ($name:ident) => {
        impl $name {
            /// `None` unless `text` is a hyphenated UUID.
            pub fn parse(text: &str) -> Option<Self> {
                (text.len() == 36).then(|| Uuid::try_parse(text).ok().map(Self)).flatten()
            }
            /// Where the record with this id would stand, if this store made it.
            pub fn position(self) -> Position {
                Position((self.0.as_u128() >> 18) as u64 & POSITION_MASK)
            }
            /// The sixteen bytes kept in the journal.
            pub fn to_bytes(self) -> [u8; 16] {
                *self.0.as_bytes()
            }
            /// From the sixteen bytes kept in the journal.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
uuid_id!(NotificationId);
uuid_id!(EventId);

macro_rules! text_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Control characters from outside never reach a terminal or a log unescaped.
                if self.0.chars().any(char::is_control) { self.0.escape_debug().fmt(f) } else { f.write_str(&self.0) }
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}
text_id!(SourceName);
text_id!(AccountName);
text_id!(OrderId);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Digest {
    /// SHA-256 over parts, each written as its length (u64, little endian) and its bytes, so that no two lists of
    /// parts share an input. An absent part is the length `u64::MAX` alone, which no present part can have.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = Option<&'a [u8]>>) -> Self {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new();
        for part in parts {
            match part {
                Some(bytes) => {
                    hash.update((bytes.len() as u64).to_le_bytes());
                    hash.update(bytes);
                }
                None => hash.update(u64::MAX.to_le_bytes()),
            }
        }
        Self(hash.finalize().into())
    }
    /// SHA-256 of one piece of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl serde::Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_of_version_7_that_knows_its_place() {
        let at = Timestamp::from_millisecond(1_795_162_530_123).expect("a time");
        let (one, two) = (NotificationId::new(at, Position(77)), EventId::new(at, Position(77)));
        assert_eq!((one.position(), two.position()), (Position(77), Position(77)));
        assert_ne!(one.to_bytes(), two.to_bytes());
        let uuid = Uuid::parse_str(&one.to_string()).expect("a UUID");
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
        assert_eq!(uuid.get_timestamp().map(|t| t.to_unix().0), Some(1_795_162_530));
        assert_ne!(NotificationId::new(at, Position(77)), one, "two of one place differ");
    }

    #[test]
    fn names_are_checked() {
        assert!(SourceName::new("clickpay-id").is_some());
        for bad in ["", "A", "a_b", "a b", &"a".repeat(33)] {
            assert!(SourceName::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_order_from_outside_cannot_forge_a_log_line() {
        let order = OrderId::new("1\n2026 ERROR all is lost\u{1b}[2J").expect("not empty");
        assert!(!order.to_string().contains('\n') && !order.to_string().contains('\u{1b}'));
    }

    #[test]
    fn parts_do_not_run_together() {
        let of = |parts: &[Option<&str>]| Digest::of_parts(parts.iter().map(|p| p.map(str::as_bytes)));
        assert_ne!(of(&[Some("ab"), Some("c")]), of(&[Some("a"), Some("bc")]));
        assert_ne!(of(&[Some("")]), of(&[None]), "an absent part is not the empty one");
        assert_ne!(of(&[Some("a"), None]), of(&[Some("a")]));
    }
}
