//! Reads a segment from its bytes alone: what is whole, what is damaged, what is a torn tail. Pure and total.
//!
//! What lies before the highest synced mark and does not read is damage: it is told with its place and skipped, the
//! next header that bears the segment's mark is where reading goes on. What lies behind that mark is a torn tail: the
//! group was never answered. In a segment that has a successor everything was synced.

use std::ops::Range;

use memchr::memmem;

use super::footer::Trailer;
use super::format::{
    Broken, Frame, GROUP_HEADER, Gone, GroupHeader, Hash, MAX_SPAN, Mark, SEGMENT_HEADER, SegmentHeader, TRAILER,
    UNKNOWN, decode_frame, footer_start, frame_len, group_start, known, seed,
};

/// What is known of a segment before it is scanned.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Its mark.
    pub mark: Mark,
    /// Position of its first record.
    pub first: u64,
    /// Hash of the head before that one, where it is known.
    pub chain: Option<Hash>,
    /// Position of the next segment's first record; `None` for the last segment, whose tail may be torn.
    pub successor: Option<u64>,
}

/// What a segment holds.
#[derive(Clone, Debug, Default)]
pub struct Scan<'a> {
    /// Records and runs of missing heads, by rising position, without gaps.
    pub frames: Vec<Frame<'a>>,
    /// Bytes that do not read although they were synced.
    pub damage: Vec<Range<usize>>,
    /// Places where the hash of the head before is not that of the head before: two histories were mixed.
    pub breaks: Vec<usize>,
    /// Bytes behind the last group that count for nothing: a torn tail, or a footer that was not finished.
    pub torn: Range<usize>,
    /// Position of the next record.
    pub next: u64,
    /// Hash of the newest head, if any is known.
    pub chain: Option<Hash>,
}

/// Reads a whole segment file of which nothing else is known; `None` if not even its mark can be found. For fuzzing,
/// and for looking at a file that was kept aside.
pub fn read_segment(bytes: &[u8]) -> Option<Scan<'_>> {
    let expected = match SegmentHeader::decode(bytes) {
        Some(header) => Expected { mark: header.mark, first: header.first, chain: Some(header.chain), successor: None },
        None => salvage_header(bytes)?,
    };
    Some(scan(bytes, &expected))
}

/// What a segment whose header is damaged still tells of itself: its first group stands at a fixed place, its
/// trailer at the end, and neither can be forged by what is posted into the middle.
pub fn salvage_header(bytes: &[u8]) -> Option<Expected> {
    let group = bytes.get(SEGMENT_HEADER..).and_then(GroupHeader::decode).filter(|group| group.number == 1);
    if let Some(group) = group {
        return Some(Expected { mark: group.mark, first: group.first, chain: Some(group.chain), successor: None });
    }
    let trailer = Trailer::decode(bytes.last_chunk::<TRAILER>()?)?;
    Some(Expected { mark: trailer.mark, first: trailer.first, chain: None, successor: None })
}

/// Reads a segment.
pub fn scan<'a>(bytes: &'a [u8], expected: &Expected) -> Scan<'a> {
    let start = group_start(&expected.mark);
    let headers: Vec<(usize, GroupHeader)> = memmem::find_iter(bytes, &start)
        .filter(|at| *at >= SEGMENT_HEADER)
        .filter_map(|at| Some((at, GroupHeader::decode(bytes.get(at..)?)?)))
        .filter(|(at, group)| group.synced <= *at as u64)
        .collect();
    let content_end = content_end(bytes, expected, &headers);
    let synced = if expected.successor.is_some() {
        content_end
    } else {
        headers.iter().map(|(_, group)| group.synced as usize).max().unwrap_or(0)
    };
    let mut scan = Scan { next: expected.first, chain: expected.chain, ..Scan::default() };
    let mut reading = Reading {
        bytes: bytes.get(..content_end).unwrap_or_default(),
        seed: seed(&expected.mark),
        limit: expected.successor.unwrap_or(u64::MAX).min(expected.first.saturating_add(MAX_SPAN)),
        scan: &mut scan,
    };
    let mut at = SEGMENT_HEADER;
    let mut number = 0;
    let mut headers = headers.into_iter().peekable();
    // Once the successor's first record is next, all of this segment's were read. What may follow is a footer of
    // which a power cut left a part, or a group that a full disk cut short before the successor was begun.
    while at < content_end && Some(reading.scan.next) != expected.successor {
        while headers.next_if(|(offset, _)| *offset < at).is_some() {}
        let here =
            headers.next_if(|(offset, group)| *offset == at && group.number > number && reading.takes(group.first));
        let Some((_, group)) = here else {
            // Unused room of a preallocated file holds zeros.
            let rest = bytes.get(at..content_end).unwrap_or_default();
            if at >= synced || rest.iter().all(|byte| *byte == 0) {
                break;
            }
            // Go on at the next header of this segment; those that stand inside a whole group were passed already.
            while headers.next_if(|(offset, _)| *offset == at).is_some() {}
            let resume = headers.peek().map_or(content_end, |(offset, _)| *offset);
            reading.damaged(at..resume);
            at = resume;
            continue;
        };
        let body = at + GROUP_HEADER..(at + GROUP_HEADER).saturating_add(group.body_len as usize);
        let whole = bytes
            .get(body.clone())
            .is_some_and(|bytes| body.end <= content_end && crc32c::crc32c(bytes) == group.body_crc);
        if !whole && at >= synced {
            // Torn, but its header is whole, and what it says of the heads before it was true.
            reading.gap(group.first, Some(group.chain));
            break;
        }
        number = group.number;
        reading.gap(group.first, Some(group.chain));
        reading.group(at, body.clone(), whole);
        at = if body.end <= content_end { body.end } else { headers.peek().map_or(content_end, |(offset, _)| *offset) };
    }
    let rest = bytes.get(at..content_end).unwrap_or_default();
    let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    scan.torn = at..at + used;
    scan
}

/// Where the groups end: at the footer, if there is one, else at the end of the file.
fn content_end(bytes: &[u8], expected: &Expected, headers: &[(usize, GroupHeader)]) -> usize {
    let trailer = bytes.last_chunk::<TRAILER>().and_then(|bytes| Trailer::decode(bytes));
    if let Some(trailer) = trailer.filter(|trailer| trailer.mark == expected.mark) {
        return bytes.len().saturating_sub(trailer.length as usize).max(SEGMENT_HEADER.min(bytes.len()));
    }
    let last = headers.last().map_or(SEGMENT_HEADER, |(at, _)| *at);
    if let Some(at) = memmem::rfind(bytes, &footer_start(&expected.mark)).filter(|at| *at > last) {
        return at;
    }
    bytes.len()
}

struct Reading<'a, 's> {
    bytes: &'a [u8],
    seed: u32,
    /// Positions at or beyond it do not belong here.
    limit: u64,
    scan: &'s mut Scan<'a>,
}

impl<'a> Reading<'a, '_> {
    fn takes(&self, position: u64) -> bool {
        position >= self.scan.next && position <= self.limit
    }

    fn damaged(&mut self, range: Range<usize>) {
        match self.scan.damage.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.scan.damage.push(range),
        }
    }

    /// Notes that the heads before `position` are lost, if they were not read.
    fn gap(&mut self, position: u64, prev: Option<Hash>) {
        if position > self.scan.next {
            let last = prev.unwrap_or(UNKNOWN);
            self.scan.frames.push(Frame::Gone(Gone { lost: true, from: self.scan.next, to: position - 1, last }));
            self.scan.next = position;
            self.scan.chain = known(last);
        }
    }

    /// Takes the frames of a group; of a damaged one those that are whole by themselves.
    fn group(&mut self, at: usize, body: Range<usize>, whole: bool) {
        let mut cursor = body.start;
        let end = body.end.min(self.bytes.len());
        let mut bad = None::<usize>;
        while cursor < end {
            let rest = self.bytes.get(cursor..end).unwrap_or_default();
            let length = match decode_frame(rest, self.seed, true) {
                Ok((frame, length)) if self.frame(cursor, &frame) => length,
                Err(Broken::Parts(record)) if self.frame(cursor, &Frame::Record(record)) => {
                    // The head stands: only the parts are lost.
                    let length = frame_len(rest).unwrap_or(rest.len());
                    self.damaged(cursor..cursor + length);
                    cursor += length;
                    continue;
                }
                _ => {
                    bad = Some(cursor);
                    // The length may be what is damaged: believe it only if a frame follows where it points.
                    let follows = frame_len(rest).filter(|length| {
                        rest.get(*length..).is_some_and(|next| {
                            next.is_empty()
                                || decode_frame(next, self.seed, false)
                                    .is_ok_and(|(frame, _)| frame.first() > self.scan.next)
                        })
                    });
                    match follows {
                        Some(length) => {
                            self.damaged(cursor..cursor + length);
                            cursor += length;
                            continue;
                        }
                        None => break,
                    }
                }
            };
            cursor += length;
        }
        if cursor < body.end {
            self.damaged(cursor..end.max(cursor));
        } else if !whole && bad.is_none() && self.scan.damage.last().is_none_or(|last| last.end <= at) {
            // Every frame is whole, the checksum over them is not: cannot be, unless the header lied.
            self.damaged(at..body.end.min(self.bytes.len()));
        }
    }

    /// Takes one frame if it belongs here.
    fn frame(&mut self, at: usize, frame: &Frame<'a>) -> bool {
        let (first, next, prev, chain) = match frame {
            Frame::Record(record) => {
                (record.position, record.position.saturating_add(1), Some(record.prev), record.chain)
            }
            Frame::Gone(gone) => (gone.from, gone.to.saturating_add(1), None, gone.last),
        };
        if first < self.scan.next || first >= self.limit || next <= first {
            return false;
        }
        self.gap(first, prev);
        if prev.is_some() && self.scan.chain.is_some() && prev != self.scan.chain {
            self.scan.breaks.push(at);
        }
        self.scan.frames.push(*frame);
        self.scan.next = next;
        self.scan.chain = known(chain);
        true
    }
}
