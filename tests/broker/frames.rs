//! AMQP 0-9-1 on the wire, as far as a proxy must know it to tell what passes: frames and the numbers of methods
//! (AMQP 0-9-1 specification, sections 2.3 and 4.2).

/// Class and method number.
pub type Method = (u16, u16);

pub const CONNECTION_OPEN: Method = (10, 40);
pub const CONNECTION_CLOSE: Method = (10, 50);
pub const CHANNEL_OPEN: Method = (20, 10);
pub const CHANNEL_CLOSE: Method = (20, 40);
pub const EXCHANGE_DECLARE: Method = (40, 10);
pub const QUEUE_DECLARE: Method = (50, 10);
pub const QUEUE_BIND: Method = (50, 20);
pub const BASIC_PUBLISH: Method = (60, 40);
pub const BASIC_RETURN: Method = (60, 50);
pub const BASIC_ACK: Method = (60, 80);
pub const BASIC_NACK: Method = (60, 120);
pub const CONFIRM_SELECT: Method = (85, 10);

/// One piece of the stream.
#[derive(Debug)]
pub struct Frame {
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// The channel it belongs to; 0 is the connection itself.
    pub channel: u16,
    /// What it says.
    pub what: What,
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The eight bytes before the first frame.
    Greeting,
    /// A method.
    Method(Method),
    /// Properties of a message whose body has so many bytes.
    Header(u64),
    /// So many bytes of a body.
    Body(u64),
    /// A heartbeat.
    Heartbeat,
}

/// Cuts one direction of a connection into frames.
#[derive(Debug, Default)]
pub struct Splitter {
    held: Vec<u8>,
}

impl Splitter {
    /// Takes what was read, gives the frames that are whole now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.held.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some((len, channel, what)) = first_frame(&self.held[at..]) {
            frames.push(Frame { bytes: self.held[at..at + len].to_vec(), channel, what });
            at += len;
        }
        self.held.drain(..at);
        frames
    }
}

/// Length, channel and meaning of the frame at the beginning, once it is whole.
fn first_frame(bytes: &[u8]) -> Option<(usize, u16, What)> {
    if bytes.starts_with(b"AMQP") {
        return (bytes.len() >= 8).then_some((8, 0, What::Greeting));
    }
    let (kind, size) = (bytes.first()?, u32::from_be_bytes(bytes.get(3..7)?.try_into().ok()?));
    let len = 7 + size as usize + 1;
    let payload = bytes.get(..len)?.get(7..len - 1)?;
    assert_eq!(bytes[len - 1], 0xce, "a frame ends with its mark: {bytes:02x?}");
    let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    let what = match kind {
        1 => What::Method((number(0), number(2))),
        2 => What::Header(u64::from_be_bytes(payload[4..12].try_into().expect("eight bytes"))),
        3 => What::Body(u64::from(size)),
        8 => What::Heartbeat,
        other => panic!("no frame of AMQP 0-9-1: {other}"),
    };
    Some((len, u16::from_be_bytes([bytes[1], bytes[2]]), what))
}

#[test]
fn frames_are_found_however_the_stream_is_cut() {
    // The greeting, basic.publish with nothing but its numbers, a header that announces 5 bytes, the body, a heartbeat.
    let mut stream = b"AMQP\0\0\x09\x01".to_vec();
    stream.extend([1, 0, 1, 0, 0, 0, 4, 0, 60, 0, 40, 0xce]);
    stream.extend([2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0xce]);
    stream.extend([3, 0, 1, 0, 0, 0, 5, b'h', b'e', b'l', b'l', b'o', 0xce]);
    stream.extend([8, 0, 0, 0, 0, 0, 0, 0xce]);
    let expected = [What::Greeting, What::Method(BASIC_PUBLISH), What::Header(5), What::Body(5), What::Heartbeat];
    for step in 1..=stream.len() {
        let mut splitter = Splitter::default();
        let frames: Vec<Frame> = stream.chunks(step).flat_map(|chunk| splitter.push(chunk)).collect();
        assert_eq!(frames.iter().map(|frame| frame.what).collect::<Vec<_>>(), expected, "in steps of {step}");
        let all: Vec<u8> = frames.into_iter().flat_map(|frame| frame.bytes).collect();
        assert_eq!(all, stream);
    }
}
