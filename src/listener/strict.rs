//! What the HTTP parser forgives and this listener does not.
//!
//! hyper resolves a request with both `Content-Length` and `Transfer-Encoding` silently (RFC 9112, section 6.3), takes
//! equal repeated lengths, a line that ends without a carriage return, and cuts a fragment off the target. A proxy
//! in front may resolve each of these differently: that is how one request is made to look like two. So this scanner
//! reads the same bytes beside the parser and says which head is flawed. It never decides that a head is right, and
//! where it cannot follow (after a chunked body) it stops: such a connection ends with its answer.

/// Longest start of a line that is looked at: `transfer-encoding:`, or `content-length:` and its digits.
const LINE_START: usize = 64;

/// Follows the heads of one connection. Feed it every byte that was read, in order.
pub struct Scan {
    mode: Mode,
    /// Start of the current line, across reads.
    line: [u8; LINE_START],
    /// Length of the current line so far, also where it is longer than what is kept.
    line_len: usize,
    /// Whether the byte before was a carriage return.
    after_cr: bool,
    /// Lines of this head that are complete.
    lines: u32,
    content_length: Option<u64>,
    chunked: bool,
    /// Heads that began.
    heads: u32,
    flaw: Option<Flaw>,
}

/// A head that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Which head of the connection, from 1.
    pub head: u32,
    /// What is wrong with it.
    pub why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Head,
    Body(u64),
    /// Nothing more is followed.
    Blind,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            mode: Mode::Head,
            line: [0; LINE_START],
            line_len: 0,
            after_cr: false,
            lines: 0,
            content_length: None,
            chunked: false,
            heads: 0,
            flaw: None,
        }
    }
}

impl Scan {
    /// The first flawed head.
    pub fn flaw(&self) -> Option<Flaw> {
        self.flaw
    }
    /// Heads that began so far.
    pub fn heads(&self) -> u32 {
        self.heads
    }

    /// Reads on.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.mode {
                Mode::Blind => return,
                Mode::Body(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let left = left - here as u64;
                    self.mode = if left == 0 { Mode::Head } else { Mode::Body(left) };
                    bytes = bytes.get(here..).unwrap_or_default();
                }
                Mode::Head => match memchr::memchr(b'\n', bytes) {
                    Some(end) => {
                        let (line, rest) = bytes.split_at(end);
                        self.keep(line);
                        self.end_of_line();
                        bytes = rest.get(1..).unwrap_or_default();
                    }
                    None => {
                        self.keep(bytes);
                        return;
                    }
                },
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        if self.lines == 0 && self.line_len == 0 && part.first().is_some_and(|byte| *byte != b'\r') {
            self.heads += 1;
        }
        if self.lines == 0 && memchr::memchr(b'#', part).is_some() {
            self.flawed("a fragment in the target");
        }
        let room = self.line.get_mut(self.line_len.min(LINE_START)..).unwrap_or_default();
        for (slot, byte) in room.iter_mut().zip(part) {
            *slot = *byte;
        }
        self.line_len += part.len();
        if let Some(last) = part.last() {
            self.after_cr = *last == b'\r';
        }
    }

    fn end_of_line(&mut self) {
        let bare = !std::mem::take(&mut self.after_cr);
        let length = std::mem::take(&mut self.line_len).saturating_sub(usize::from(!bare));
        if length == 0 && self.lines == 0 {
            return; // an empty line before the request line is ignored (RFC 9112, section 2.2)
        }
        if bare {
            return self.flawed("a line ends without a carriage return");
        }
        if length == 0 {
            return self.end_of_head();
        }
        self.lines += 1;
        if self.lines > 1 {
            let line = self.line;
            self.field(line.get(..length.min(LINE_START)).unwrap_or_default(), length > LINE_START);
        }
    }

    fn field(&mut self, line: &[u8], cut: bool) {
        let Some(colon) = memchr::memchr(b':', line) else { return };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            match length {
                Some(length) if !cut && self.content_length.is_none() => self.content_length = Some(length),
                Some(_) | None => return self.flawed("content-length is repeated or no number"),
            }
        }
        if self.chunked && self.content_length.is_some() {
            self.flawed("both content-length and transfer-encoding");
        }
    }

    fn end_of_head(&mut self) {
        self.lines = 0;
        self.mode = match (std::mem::take(&mut self.chunked), self.content_length.take()) {
            (true, _) => Mode::Blind,
            (false, Some(length)) if length > 0 => Mode::Body(length),
            (false, _) => Mode::Head,
        };
    }

    fn flawed(&mut self, why: &'static str) {
        // The first one stays, or what is said would depend on how the line was cut into reads.
        self.flaw.get_or_insert(Flaw { head: self.heads, why });
        self.mode = Mode::Blind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flaw must not depend on how the bytes were cut into reads.
    #[track_caller]
    fn flaw_of(bytes: &[u8]) -> Option<Flaw> {
        let whole = {
            let mut scan = Scan::default();
            scan.feed(bytes);
            scan.flaw()
        };
        for size in [1, 2, 3, 7, 19] {
            let mut scan = Scan::default();
            bytes.chunks(size).for_each(|part| scan.feed(part));
            assert_eq!(scan.flaw(), whole, "in reads of {size}");
        }
        whole
    }

    #[track_caller]
    fn refused(head: u32, bytes: &[u8]) {
        assert_eq!(flaw_of(bytes).map(|flaw| flaw.head), Some(head), "{}", bytes.escape_ascii());
    }

    #[test]
    fn two_ways_to_measure_a_body_are_a_flaw_in_either_order() {
        refused(1, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n");
        refused(1, b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n");
        refused(1, b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n");
        refused(1, b"POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n");
    }

    #[test]
    fn bare_line_feeds_and_fragments_are_flaws() {
        refused(1, b"GET / HTTP/1.1\nHost: a\n\n");
        refused(1, b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n");
        refused(1, b"GET / HTTP/1.1\r\nHost: a\r\n\n");
        refused(1, b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n");
        refused(1, b"GET /a#b HTTP/1.1\nHost: a\r\n\r\n");
    }

    #[test]
    fn the_flawed_one_of_several_requests_is_named() {
        let good = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nTransfer-Encoding: x\n#\nabcd";
        let bad = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(flaw_of(&good.repeat(3)), None, "a body is not looked at");
        refused(3, &[good.as_slice(), good, bad].concat());
        refused(2, &[b"\r\n\r\n".as_slice(), good, b"\r\n", bad].concat());
    }

    #[test]
    fn ordinary_requests_have_no_flaw() {
        assert_eq!(flaw_of(b"\r\nGET /a?b=c HTTP/1.1\r\nHost: a\r\nX-Content-Length: 1\r\n\r\n"), None);
        let long = format!("GET /{} HTTP/1.1\r\nCookie: {}#\r\n\r\n", "a".repeat(300), "b".repeat(300));
        assert_eq!(flaw_of(long.repeat(4).as_bytes()), None);
        assert_eq!(flaw_of(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na\n0\n\n"), None);
    }
}
