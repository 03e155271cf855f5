//! Cursors: places in a store that outsiders carry around, opaque to them.
//!
//! A cursor names its store, so that one of another store is told apart from one that is merely old (one of the feed:
//! the store's timeline, so that one from beyond the backup that was restored is told apart too), and carries a checksum, so that a cut or mistyped one is told apart from both. What is a place in the feed is no place in a list
//! of notifications: the two are types of their own.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Timeline;
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
    /// A cursor of events that were told after the backup which this store was restored from.
    #[error("this cursor is of a time that the restored backup does not hold")]
    Abandoned,
}

const FEED: u8 = 1;
const PAGE: u8 = 2;
/// Type, store, position, checksum.
const LENGTH: usize = 1 + 16 + 8 + 4;

impl FeedCursor {
    /// The place after `position` in a timeline.
    pub fn new(timeline: StoreId, position: Position) -> Self {
        Self(Place { store: timeline, position })
    }
    /// The timeline that a cursor was given out in, whoever gave it out.
    pub fn timeline(text: &str) -> Option<StoreId> {
        Place::parse(FEED, text).ok().map(|place| place.store)
    }
    /// The position that a text from outside names in a store of these timelines.
    ///
    /// # Errors
    /// [`CursorError`].
    pub fn parse(text: &str, timelines: &[Timeline]) -> Result<Position, CursorError> {
        let place = Place::parse(FEED, text)?;
        let of = timelines.iter().find(|timeline| timeline.id == place.store).ok_or(CursorError::OtherStore)?;
        if place.position <= of.until { Ok(place.position) } else { Err(CursorError::Abandoned) }
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
        let place = Place::parse(PAGE, text)?;
        if place.store == store { Ok(place.position) } else { Err(CursorError::OtherStore) }
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

    fn parse(kind: u8, text: &str) -> Result<Self, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Malformed)?;
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(CursorError::Malformed)?.to_owned();
        if bytes.len() != LENGTH || crc32c::crc32c(body).to_be_bytes() != *checksum {
            return Err(CursorError::Malformed);
        }
        let (head, position) = body.split_last_chunk::<8>().ok_or(CursorError::Malformed)?;
        let (found, of) = head.split_first().ok_or(CursorError::Malformed)?;
        let store = of.try_into().map_err(|_| CursorError::Malformed)?;
        let place = Self { store, position: Position(u64::from_be_bytes(*position)) };
        if *found == kind { Ok(place) } else { Err(CursorError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: StoreId = [7; 16];
    const NOW: [Timeline; 1] = [Timeline { id: HERE, until: Position(u64::MAX) }];

    #[test]
    fn a_cursor_names_its_place_in_its_own_store_and_list_only() {
        let text = FeedCursor::new(HERE, Position(77)).to_string();
        assert_eq!(FeedCursor::parse(&text, &NOW), Ok(Position(77)));
        assert_eq!(FeedCursor::timeline(&text), Some(HERE));
        assert_eq!(FeedCursor::parse(&text, &[Timeline { id: [8; 16], ..NOW[0] }]), Err(CursorError::OtherStore));
        assert_eq!(PageCursor::parse(&text, HERE), Err(CursorError::Malformed));
        let page = PageCursor::new(HERE, Position(u64::MAX)).to_string();
        assert_eq!(PageCursor::parse(&page, HERE), Ok(Position(u64::MAX)));
    }

    #[test]
    fn a_cursor_from_before_the_backup_holds_and_one_from_after_it_is_told() {
        let [first, second] = [[1; 16], [2; 16]];
        let restored =
            [Timeline { id: first, until: Position(10) }, Timeline { id: second, until: Position(u64::MAX) }];
        let parse = |id, position| FeedCursor::parse(&FeedCursor::new(id, Position(position)).to_string(), &restored);
        assert_eq!(parse(first, 10), Ok(Position(10)));
        assert_eq!(parse(first, 11), Err(CursorError::Abandoned));
        assert_eq!(parse(second, 11), Ok(Position(11)));
    }

    #[test]
    fn no_changed_cut_or_lengthened_cursor_is_taken_for_another_place() {
        let text = FeedCursor::new(HERE, Position(77)).to_string();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(FeedCursor::parse(&changed, &NOW), Err(CursorError::Malformed), "{changed}");
            assert_eq!(FeedCursor::parse(&text[..at], &NOW), Err(CursorError::Malformed));
        }
        for bad in ["", "77", "=", "\u{1F4B0}", &format!("{text}A"), &format!("{text}=")] {
            assert_eq!(FeedCursor::parse(bad, &NOW), Err(CursorError::Malformed), "{bad}");
        }
    }
}
