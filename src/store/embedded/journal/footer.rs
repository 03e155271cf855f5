//! The end of a sealed segment: where its records lie, and the fingerprints of their keys. Pure.

use super::format::{FOOTER_START, Hash, Mark, NO_HEAD, TRAILER, Take, footer_start};

const END_MAGIC: &[u8; 8] = b"QTNCEND1";

/// What the end of a sealed segment says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The segment's mark.
    pub mark: Mark,
    /// Its first position.
    pub first: u64,
    /// Its last position; `first - 1` when it has none.
    pub last: u64,
    /// Hash of the head of the last.
    pub chain: Hash,
    /// Entries of the table.
    pub offsets: u32,
    /// Fingerprints.
    pub fingerprints: u32,
    /// Heads that are kept.
    pub records: u32,
    /// Bytes of the whole footer.
    pub length: u32,
    /// CRC-32C of the footer before the trailer.
    pub content_crc: u32,
}

impl Trailer {
    /// `None` unless `bytes`, the last [`TRAILER`] of a file, are a whole trailer.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = Take(bytes);
        let trailer = Self {
            mark: take.array()?,
            first: take.u64()?,
            last: take.u64()?,
            chain: take.array()?,
            offsets: take.u32()?,
            fingerprints: take.u32()?,
            records: take.u32()?,
            length: take.u32()?,
            content_crc: take.u32()?,
        };
        let crc = take.u32()?;
        take.is(END_MAGIC)?;
        let sound = take.0.is_empty()
            && crc == crc32c::crc32c(bytes.get(..TRAILER - 12)?)
            && trailer.length as u64
                == (FOOTER_START + TRAILER) as u64
                    + u64::from(trailer.offsets) * 4
                    + u64::from(trailer.fingerprints) * 8;
        sound.then_some(trailer)
    }
}

/// The footer's bytes.
pub fn encode_footer(
    mark: &Mark,
    first: u64,
    last: u64,
    chain: &Hash,
    offsets: &[u32],
    fingerprints: &[u64],
) -> Vec<u8> {
    let length = FOOTER_START + TRAILER + offsets.len() * 4 + fingerprints.len() * 8;
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(&footer_start(mark));
    offsets.iter().for_each(|offset| out.extend_from_slice(&offset.to_le_bytes()));
    fingerprints.iter().for_each(|fingerprint| out.extend_from_slice(&fingerprint.to_le_bytes()));
    let content_crc = crc32c::crc32c(&out);
    let trailer = out.len();
    out.extend_from_slice(mark);
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&last.to_le_bytes());
    out.extend_from_slice(chain);
    let records = offsets.iter().filter(|offset| **offset != NO_HEAD).count();
    for number in [offsets.len(), fingerprints.len(), records, length] {
        out.extend_from_slice(&(number as u32).to_le_bytes());
    }
    out.extend_from_slice(&content_crc.to_le_bytes());
    let crc = crc32c::crc32c(out.get(trailer..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(END_MAGIC);
    out
}
