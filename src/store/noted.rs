//! A head of the journal that was noted somewhere else: in the log, in a message, on paper. What is found changed up to
//! it was changed after it was noted.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Digest, Position};

/// A head that was noted: `<position>:<hash>`, or its hash alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Where it stands; `None` where only the hash was noted.
    pub position: Option<Position>,
    /// SHA-256 of the head, and through it of all heads before.
    pub hash: Digest,
}

/// A text is no noted head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write the hash of a head as it was noted: 64 hex digits, best with its position before it, as in 4711:9f86d0.."
)]
pub struct NotNoted;

/// The newest head that the daemon noted, for whoever can carry it elsewhere. A cheap clone.
#[derive(Clone, Debug, Default)]
pub struct HeadNote(Arc<Mutex<Option<Noted>>>);

impl HeadNote {
    /// The newest one; `None` before the first.
    pub fn newest(&self) -> Option<Noted> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Another one.
    pub fn set(&self, noted: Noted) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(noted);
    }
}

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.position.map_or(Ok(()), |position| write!(f, "{}:", position.0))?;
        self.hash.fmt(f)
    }
}

impl FromStr for Noted {
    type Err = NotNoted;

    fn from_str(text: &str) -> Result<Self, NotNoted> {
        let (position, hash) = match text.trim().split_once(':') {
            Some((position, hash)) => (Some(Position(position.parse().map_err(|_| NotNoted)?)), hash),
            None => (None, text.trim()),
        };
        let digits = hash.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 32];
        if digits.0.len() != bytes.len() || !digits.1.is_empty() {
            return Err(NotNoted);
        }
        for (byte, digits) in bytes.iter_mut().zip(digits.0) {
            let text = std::str::from_utf8(digits).map_err(|_| NotNoted)?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return Err(NotNoted);
            }
            *byte = u8::from_str_radix(text, 16).map_err(|_| NotNoted)?;
        }
        Ok(Self { position, hash: Digest(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_head_reads_as_it_was_written_and_nothing_else_does() {
        let hash = Digest(std::array::from_fn(|at| at as u8 * 7));
        for position in [None, Some(Position(4711))] {
            let noted = Noted { position, hash };
            assert_eq!(noted.to_string().parse(), Ok(noted));
            assert_eq!(noted.to_string().to_uppercase().parse(), Ok(noted));
        }
        let hex = hash.to_string();
        for bad in [
            "",
            "abc",
            &hex[1..],
            &format!("{hex}0"),
            &format!("x:{hex}"),
            &format!("1:2:{hex}"),
            &hex.replace('0', "g"),
        ] {
            assert_eq!(bad.parse::<Noted>(), Err(NotNoted), "{bad}");
        }
    }
}
