//! The bytes of a segment file, format version 1: pure encoding and decoding, no I/O.
//!
//! Everything is little endian. Every length is checked against what is there before anything is made of it.
//!
//! ```text
//! segment = header, group*, [footer]
//!
//! header  = "QTNCSEG1" store:16 mark:16 first:u64 chain:32 crc:u32                     84 bytes
//!           chain is the hash of the head before the segment, crc covers what stands before it
//!
//! group   = "QGR1" mark:16 number:u64 first:u64 chain:32 synced:u64 count:u32
//!           body_len:u32 body_crc:u32 crc:u32, frame*                                 92 bytes and the body
//!           synced: end of the last group of this file that was synced when this one was written
//!           body_crc covers the frames, crc the 88 bytes before it; a group of no frames is a synced mark
//!
//! frame   = len:u32 head_crc:u32 parts_crc:u32 kind:u8 0:u8 fingerprints:u16 fingerprint:u64*
//!           kind 0, 1: head, raw, event     (1: the parts are gone, their hashes and lengths stay in the head)
//!           kind 2, 3: from:u64 to:u64 last:32     heads that were retired (2) or lost to damage (3)
//!           head_crc covers all of the frame except itself and the parts; parts_crc the parts; both are seeded
//!           with the mark, so that nobody who does not know it can write a frame inside a body
//!
//! head    = position:u64 prev:32 raw_hash:32 event_hash:32 payload_len:u32 raw_len:u32 event_len:u32 payload
//!           the chain hash of a record is SHA-256 of exactly these bytes, prev is that of the record before
//!
//! footer  = "QFT1" mark:16 offset:u32* fingerprint:u64* trailer
//! trailer = mark:16 first:u64 last:u64 chain:32 offsets:u32 fingerprints:u32 records:u32 length:u32
//!           content_crc:u32 crc:u32 "QTNCEND1"                                          96 bytes
//!           offset: where the frame of position first + n begins, u32::MAX where no head is kept; positions
//!           beyond the table up to last have no head; length is the whole footer's
//! ```

use sha2::{Digest as _, Sha256};

/// Length of a segment's header.
pub const SEGMENT_HEADER: usize = 84;
/// Length of a group's header.
pub const GROUP_HEADER: usize = 92;
/// Length of a footer's trailer.
pub const TRAILER: usize = 96;
/// Length of what stands before a footer's table.
pub const FOOTER_START: usize = 20;
/// Length of a frame before its fingerprints.
pub(super) const FRAME_START: usize = 16;
/// Length of a head without its payload.
const HEAD_FIXED: usize = 8 + 3 * 32 + 12;
/// The shortest frame of a record.
pub const MIN_FRAME: usize = FRAME_START + HEAD_FIXED;
/// Bound of one frame; far above what any request may carry.
pub const MAX_FRAME: usize = 64 << 20;
/// Bound of one group's frames.
pub const MAX_BODY: usize = 256 << 20;
/// Bound of the positions that the table of one segment spans.
pub const MAX_SPAN: u64 = 1 << 24;
/// Table entry of a position that has no head.
pub const NO_HEAD: u32 = u32::MAX;

const SEGMENT_MAGIC: &[u8; 8] = b"QTNCSEG1";
const GROUP_MAGIC: &[u8; 4] = b"QGR1";
const FOOTER_MAGIC: &[u8; 4] = b"QFT1";

/// A SHA-256 result as it stands in the file.
pub type Hash = [u8; 32];
/// Stands for a hash that nobody knows: what the first head goes on from, and what damage took.
pub const UNKNOWN: Hash = [0; 32];
/// The hash, if it is known.
pub fn known(hash: Hash) -> Option<Hash> {
    (hash != UNKNOWN).then_some(hash)
}
/// The random mark of a segment. Shown nowhere: no posted bytes can contain it.
pub type Mark = [u8; 16];

/// Takes fields off the front of bytes; `None` when they do not suffice.
pub(super) struct Take<'a>(pub(super) &'a [u8]);

impl<'a> Take<'a> {
    pub(super) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    pub(super) fn is(&mut self, magic: &[u8]) -> Option<()> {
        (self.bytes(magic.len())? == magic).then_some(())
    }
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store it belongs to.
    pub store_id: [u8; 16],
    /// Its random mark.
    pub mark: Mark,
    /// Position of its first record.
    pub first: u64,
    /// Hash of the head before that one.
    pub chain: Hash,
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER);
        out.extend_from_slice(SEGMENT_MAGIC);
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.mark);
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        let mut bytes = [0; SEGMENT_HEADER];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// `None` unless `bytes` begin with a whole, undamaged header.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = Take(bytes);
        take.is(SEGMENT_MAGIC)?;
        let header = Self { store_id: take.array()?, mark: take.array()?, first: take.u64()?, chain: take.array()? };
        (take.u32()? == crc32c::crc32c(bytes.get(..SEGMENT_HEADER - 4)?)).then_some(header)
    }
}

/// What a group says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// The segment's mark.
    pub mark: Mark,
    /// Counts the groups of the segment from 1.
    pub number: u64,
    /// Position of its first record; of the next one where it has none.
    pub first: u64,
    /// Hash of the head before that one.
    pub chain: Hash,
    /// End of the last synced group of the file.
    pub synced: u64,
    /// Frames.
    pub count: u32,
    /// Their bytes.
    pub body_len: u32,
    /// CRC-32C of them.
    pub body_crc: u32,
}

impl GroupHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; GROUP_HEADER] {
        let mut out = Vec::with_capacity(GROUP_HEADER);
        out.extend_from_slice(GROUP_MAGIC);
        out.extend_from_slice(&self.mark);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&self.synced.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.body_len.to_le_bytes());
        out.extend_from_slice(&self.body_crc.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        let mut bytes = [0; GROUP_HEADER];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// `None` unless `bytes` begin with a whole, undamaged header that bears a mark, whichever it is.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = Take(bytes);
        take.is(GROUP_MAGIC)?;
        let header = Self {
            mark: take.array()?,
            number: take.u64()?,
            first: take.u64()?,
            chain: take.array()?,
            synced: take.u64()?,
            count: take.u32()?,
            body_len: take.u32()?,
            body_crc: take.u32()?,
        };
        let whole = take.u32()? == crc32c::crc32c(bytes.get(..GROUP_HEADER - 4)?);
        (whole && header.body_len as usize <= MAX_BODY).then_some(header)
    }
}

/// What every group's header begins with in the segment of this mark.
pub fn group_start(mark: &Mark) -> [u8; 20] {
    start(GROUP_MAGIC, mark)
}

/// What the footer begins with in the segment of this mark.
pub fn footer_start(mark: &Mark) -> [u8; FOOTER_START] {
    start(FOOTER_MAGIC, mark)
}

fn start(magic: &[u8; 4], mark: &Mark) -> [u8; 20] {
    let mut bytes = [0; 20];
    let (front, back) = bytes.split_at_mut(4);
    front.copy_from_slice(magic);
    back.copy_from_slice(mark);
    bytes
}

/// A record as it stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the journal.
    pub position: u64,
    /// Hash of the head before it.
    pub prev: Hash,
    /// Hash of its own head.
    pub chain: Hash,
    /// The head's bytes.
    pub head: &'a [u8],
    /// The caller's part of the head.
    pub payload: &'a [u8],
    /// Hash of the raw part.
    pub raw_hash: Hash,
    /// Hash of the event part.
    pub event_hash: Hash,
    /// The parts, raw and event; `None` where they are retired.
    pub parts: Option<(&'a [u8], &'a [u8])>,
    /// The fingerprints as bytes, eight for each.
    pub fingerprints: &'a [u8],
}

impl Record<'_> {
    /// The fingerprints as numbers.
    pub fn fingerprints(&self) -> impl Iterator<Item = u64> + '_ {
        self.fingerprints.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A record.
    Record(Record<'a>),
    /// A run of heads that are gone.
    Gone(Gone),
}

/// A run of positions without heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Whether damage took them; otherwise they were retired.
    pub lost: bool,
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Hash of the head of the last: what the next head goes on from.
    pub last: Hash,
}

impl Frame<'_> {
    /// The first position it stands for.
    pub fn first(&self) -> u64 {
        match self {
            Self::Record(record) => record.position,
            Self::Gone(gone) => gone.from,
        }
    }
}

/// Why a frame could not be decoded.
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one look; a box would cost each good frame")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken<'a> {
    /// Neither its length nor anything else can be believed.
    Frame,
    /// The head is whole, the parts are not.
    Parts(Record<'a>),
}

/// The seed of a segment's frame checksums.
pub fn seed(mark: &Mark) -> u32 {
    crc32c::crc32c(mark)
}

/// The length that a frame claims at the front of `bytes`, if it is possible at all.
pub fn frame_len(bytes: &[u8]) -> Option<usize> {
    let length = Take(bytes).u32()? as usize;
    (FRAME_START..=MAX_FRAME).contains(&length).then_some(length)
}

/// Decodes the frame at the front of `bytes`; its length beside it. `parts` says whether the parts matter: without
/// them they are neither checked nor given.
///
/// # Errors
/// [`Broken`].
#[expect(clippy::result_large_err, reason = "as large as the good result, and both borrow")]
pub fn decode_frame(bytes: &[u8], seed: u32, parts: bool) -> Result<(Frame<'_>, usize), Broken<'_>> {
    let length = frame_len(bytes).ok_or(Broken::Frame)?;
    let bytes = bytes.get(..length).ok_or(Broken::Frame)?;
    let (frame, parts_crc, whole) = decode_head(bytes, seed).ok_or(Broken::Frame)?;
    match frame {
        Frame::Record(mut record) => {
            let Some((raw, event)) = whole else { return Ok((frame, length)) };
            if !parts {
                return Ok((frame, length));
            }
            if crc32c::crc32c_append(crc32c::crc32c_append(seed, raw), event) != parts_crc {
                return Err(Broken::Parts(record));
            }
            record.parts = Some((raw, event));
            Ok((Frame::Record(record), length))
        }
        Frame::Gone(_) => Ok((frame, length)),
    }
}

type Parts<'a> = Option<(&'a [u8], &'a [u8])>;

fn decode_head(bytes: &[u8], seed: u32) -> Option<(Frame<'_>, u32, Parts<'_>)> {
    let mut take = Take(bytes);
    take.u32()?;
    let head_crc = take.u32()?;
    let parts_crc = take.u32()?;
    let [kind, zero] = take.array()?;
    let fingerprints = take.u16()?;
    let fingerprints = take.bytes(usize::from(fingerprints) * 8)?;
    if zero != 0 {
        return None;
    }
    if kind > 1 {
        let gone = Gone { lost: kind == 3, from: take.u64()?, to: take.u64()?, last: take.array()? };
        let sound = kind <= 3 && gone.from <= gone.to && take.0.is_empty();
        return (sound && frame_crc(bytes, bytes.len(), seed)? == head_crc).then_some((
            Frame::Gone(gone),
            parts_crc,
            None,
        ));
    }
    let head_at = bytes.len() - take.0.len();
    let position = take.u64()?;
    let (prev, raw_hash, event_hash) = (take.array()?, take.array()?, take.array()?);
    let (payload, raw, event) = (take.u32()? as usize, take.u32()? as usize, take.u32()? as usize);
    let payload = take.bytes(payload)?;
    let head_end = bytes.len() - take.0.len();
    if frame_crc(bytes, head_end, seed)? != head_crc {
        return None;
    }
    let parts = if kind == 0 { Some((take.bytes(raw)?, take.bytes(event)?)) } else { None };
    if !take.0.is_empty() {
        return None;
    }
    let head = bytes.get(head_at..head_end)?;
    let chain = Sha256::digest(head).into();
    let record = Record { position, prev, chain, head, payload, raw_hash, event_hash, parts: None, fingerprints };
    Some((Frame::Record(record), parts_crc, parts))
}

/// Checksum of a frame up to `end`, itself left out.
pub(super) fn frame_crc(bytes: &[u8], end: usize, seed: u32) -> Option<u32> {
    Some(crc32c::crc32c_append(crc32c::crc32c_append(seed, bytes.get(..4)?), bytes.get(8..end)?))
}
