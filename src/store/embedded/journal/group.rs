//! Puts groups together: one buffer, used again and again, that becomes one write. Pure.

use sha2::{Digest as _, Sha256};

use super::format::{
    FRAME_START, GROUP_HEADER, Gone, GroupHeader, Hash, MAX_BODY, MAX_FRAME, MIN_FRAME, Mark, Record, SegmentHeader,
    frame_crc, seed,
};

/// A record as it is to be written. The head's place in the chain is the group's business.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The caller's part of the head.
    pub payload: &'a [u8],
    /// Hash of the raw part.
    pub raw_hash: &'a Hash,
    /// Hash of the event part.
    pub event_hash: &'a Hash,
    /// The raw part.
    pub raw: &'a [u8],
    /// The event part.
    pub event: &'a [u8],
}

/// Puts groups together in one buffer that is used again and again.
#[derive(Debug)]
pub struct GroupWriter {
    mark: Mark,
    seed: u32,
    number: u64,
    first: u64,
    next: u64,
    chain_before: Hash,
    chain: Hash,
    count: u32,
    buffer: Vec<u8>,
    offsets: Vec<(u64, u32)>,
    fingerprints: Vec<u64>,
}

impl GroupWriter {
    /// The first group of the segment of this header.
    pub fn new(header: &SegmentHeader) -> Self {
        Self {
            mark: header.mark,
            seed: seed(&header.mark),
            number: 1,
            first: header.first,
            next: header.first,
            chain_before: header.chain,
            chain: header.chain,
            count: 0,
            buffer: vec![0; GROUP_HEADER],
            offsets: Vec::new(),
            fingerprints: Vec::new(),
        }
    }

    /// Position of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }
    /// Hash of the newest head.
    pub fn chain(&self) -> Hash {
        self.chain
    }
    /// Bytes of the group so far.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }
    /// Frames of the group so far.
    pub fn count(&self) -> u32 {
        self.count
    }
    /// Positions of the group's records and where their frames begin, counted from the group's begin.
    pub fn offsets(&self) -> &[(u64, u32)] {
        &self.offsets
    }
    /// The group's fingerprints.
    pub fn fingerprints(&self) -> &[u64] {
        &self.fingerprints
    }

    /// Adds a new record. `false` if it is too large; nothing was added then.
    pub fn push(&mut self, draft: Draft<'_>, fingerprints: &[u64]) -> bool {
        let Draft { payload, raw_hash, event_hash, raw, event } = draft;
        let total = [payload.len(), raw.len(), event.len(), fingerprints.len() * 8]
            .iter()
            .try_fold(MIN_FRAME, |sum, length| sum.checked_add(*length))
            .unwrap_or(usize::MAX);
        let Ok(count) = u16::try_from(fingerprints.len()) else { return false };
        if total > MAX_FRAME || self.buffer.len().saturating_add(total) > MAX_BODY {
            return false;
        }
        let parts_crc = crc32c::crc32c_append(crc32c::crc32c_append(self.seed, raw), event);
        let at = self.frame(total, parts_crc, 0, count);
        for fingerprint in fingerprints {
            self.buffer.extend_from_slice(&fingerprint.to_le_bytes());
        }
        let head = self.buffer.len();
        self.buffer.extend_from_slice(&self.next.to_le_bytes());
        self.buffer.extend_from_slice(&self.chain);
        self.buffer.extend_from_slice(raw_hash);
        self.buffer.extend_from_slice(event_hash);
        for length in [payload.len(), raw.len(), event.len()] {
            self.buffer.extend_from_slice(&(length as u32).to_le_bytes());
        }
        self.buffer.extend_from_slice(payload);
        let chain = Sha256::digest(self.buffer.get(head..).unwrap_or_default()).into();
        self.seal_frame(at);
        self.buffer.extend_from_slice(raw);
        self.buffer.extend_from_slice(event);
        self.fingerprints.extend_from_slice(fingerprints);
        self.note(at, self.next, chain);
        true
    }

    /// Adds a record that has its place in the chain already. The caller keeps the order of positions.
    pub fn copy(&mut self, record: &Record<'_>) {
        let (raw, event) = record.parts.unwrap_or_default();
        let total = FRAME_START + record.fingerprints.len() + record.head.len() + raw.len() + event.len();
        let parts_crc = crc32c::crc32c_append(crc32c::crc32c_append(self.seed, raw), event);
        let kind = u8::from(record.parts.is_none());
        let at = self.frame(total, parts_crc, kind, (record.fingerprints.len() / 8) as u16);
        self.buffer.extend_from_slice(record.fingerprints);
        self.buffer.extend_from_slice(record.head);
        self.seal_frame(at);
        self.buffer.extend_from_slice(raw);
        self.buffer.extend_from_slice(event);
        self.fingerprints.extend(record.fingerprints());
        self.note(at, record.position, record.chain);
    }

    /// Adds a run of heads that are gone.
    pub fn gone(&mut self, gone: &Gone) {
        let at = self.frame(FRAME_START + 48, self.seed, if gone.lost { 3 } else { 2 }, 0);
        self.buffer.extend_from_slice(&gone.from.to_le_bytes());
        self.buffer.extend_from_slice(&gone.to.to_le_bytes());
        self.buffer.extend_from_slice(&gone.last);
        self.seal_frame(at);
        self.count += 1;
        self.next = gone.to.saturating_add(1);
        self.chain = gone.last;
    }

    fn frame(&mut self, total: usize, parts_crc: u32, kind: u8, fingerprints: u16) -> usize {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(&(total as u32).to_le_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&parts_crc.to_le_bytes());
        self.buffer.extend_from_slice(&[kind, 0]);
        self.buffer.extend_from_slice(&fingerprints.to_le_bytes());
        at
    }

    fn seal_frame(&mut self, at: usize) {
        let frame = self.buffer.get_mut(at..).unwrap_or_default();
        let crc = frame_crc(frame, frame.len(), self.seed).unwrap_or_default();
        if let Some(place) = frame.get_mut(4..8) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }

    fn note(&mut self, at: usize, position: u64, chain: Hash) {
        self.offsets.push((position, at as u32));
        self.count += 1;
        self.next = position + 1;
        self.chain = chain;
    }

    /// The group's bytes, to be written at one go. `synced` is the end of the last synced group of the file.
    pub fn finish(&mut self, synced: u64) -> &[u8] {
        let body = self.buffer.get(GROUP_HEADER..).unwrap_or_default();
        let header = GroupHeader {
            mark: self.mark,
            number: self.number,
            first: self.first,
            chain: self.chain_before,
            synced,
            count: self.count,
            body_len: body.len() as u32,
            body_crc: crc32c::crc32c(body),
        };
        if let Some(place) = self.buffer.get_mut(..GROUP_HEADER) {
            place.copy_from_slice(&header.encode());
        }
        &self.buffer
    }

    /// The group was written: begins the next one.
    pub fn written(&mut self) {
        self.number += 1;
        self.first = self.next;
        self.chain_before = self.chain;
        self.clear();
    }

    /// The group was not written: as if it had never begun.
    pub fn abandon(&mut self) {
        self.next = self.first;
        self.chain = self.chain_before;
        self.clear();
    }

    fn clear(&mut self) {
        self.count = 0;
        self.buffer.truncate(GROUP_HEADER);
        self.offsets.clear();
        self.fingerprints.clear();
        // One huge group must not hold its memory for ever.
        self.buffer.shrink_to(8 << 20);
    }
}
