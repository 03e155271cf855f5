//! Cursors: places in a store that outsiders carry around, opaque to them.
//!
//! A cursor names its store, so that one of another store is told apart from one that is merely old, and carries a
//! checksum, so that a cut or mistyped one is told apart from both. What is a place in the feed is no place in a list
//! of notifications: the two are types of their own.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::event::Position;

/// The identity of a store.
pub type StoreId = [u8; 16];

/// A place in the feed: everything up to and including it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedCursor(Place);

/// A place in a list of notifications, newest first: the next page begins below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCursor(Place);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    store: StoreId,
    position: Position,
}

/// Why a cursor names no place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not a cursor, or not one for this.
    #[error("this is no cursor of this list")]
    Malformed,
    /// A cursor of another store.
    #[error("this cursor belongs to another store")]
    OtherStore,
}

const FEED: u8 = 1;
const PAGE: u8 = 2;
/// Type, store, position, checksum.
const LENGTH: usize = 1 + 16 + 8 + 4;

impl FeedCursor {
    /// The place after `position`.
    pub fn new(store: StoreId, position: Position) -> Self {
        Self(Place { store, position })
    }
    /// The position that a text from outside names in `store`.
    ///
    /// # Errors
    /// [`CursorError`].
    pub fn parse(text: &str, store: StoreId) -> Result<Position, CursorError> {
        Place::parse(FEED, text, store)
    }
}

impl PageCursor {
    /// The place below `position`.
    pub fn new(store: StoreId, position: Position) -> Self {
        Self(Place { store, position })
    }
    /// The position that a text from outside names in `store`.
    ///
    /// # Errors
    /// [`CursorError`].
    pub fn parse(text: &str, store: StoreId) -> Result<Position, CursorError> {
        Place::parse(PAGE, text, store)
    }
}

impl fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_text(FEED))
    }
}

impl fmt::Display for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_text(PAGE))
    }
}

impl Place {
    fn to_text(self, kind: u8) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(kind);
        bytes.extend_from_slice(&self.store);
        bytes.extend_from_slice(&self.position.0.to_be_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn parse(kind: u8, text: &str, store: StoreId) -> Result<Position, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Malformed)?;
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(CursorError::Malformed)?.to_owned();
        if bytes.len() != LENGTH || crc32c::crc32c(body).to_be_bytes() != *checksum {
            return Err(CursorError::Malformed);
        }
        let (head, position) = body.split_last_chunk::<8>().ok_or(CursorError::Malformed)?;
        let (found, of) = head.split_first().ok_or(CursorError::Malformed)?;
        match (*found == kind, of == store) {
            (false, _) => Err(CursorError::Malformed),
            (true, false) => Err(CursorError::OtherStore),
            (true, true) => Ok(Position(u64::from_be_bytes(*position))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: StoreId = [7; 16];

    #[test]
    fn a_cursor_names_its_place_in_its_own_store_and_list_only() {
        let text = FeedCursor::new(HERE, Position(77)).to_string();
        assert_eq!(FeedCursor::parse(&text, HERE), Ok(Position(77)));
        assert_eq!(FeedCursor::parse(&text, [8; 16]), Err(CursorError::OtherStore));
        assert_eq!(PageCursor::parse(&text, HERE), Err(CursorError::Malformed));
        let page = PageCursor::new(HERE, Position(u64::MAX)).to_string();
        assert_eq!(PageCursor::parse(&page, HERE), Ok(Position(u64::MAX)));
    }

    #[test]
    fn no_changed_cut_or_lengthened_cursor_is_taken_for_another_place() {
        let text = FeedCursor::new(HERE, Position(77)).to_string();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(FeedCursor::parse(&changed, HERE), Err(CursorError::Malformed), "{changed}");
            assert_eq!(FeedCursor::parse(&text[..at], HERE), Err(CursorError::Malformed));
        }
        for bad in ["", "77", "=", "\u{1F4B0}", &format!("{text}A"), &format!("{text}=")] {
            assert_eq!(FeedCursor::parse(bad, HERE), Err(CursorError::Malformed), "{bad}");
        }
    }
}
