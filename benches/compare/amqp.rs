//! A bare AMQP 0-9-1 publisher, the yardstick of the relay: one connection, one channel, persistent and mandatory
//! messages, publisher confirms, so many unconfirmed at most. Nothing is encoded twice and nothing is allocated for a
//! message, so that what is left is the broker's own speed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memchr::memmem;

/// A channel with confirms.
pub struct Publisher {
    input: BufReader<TcpStream>,
    output: TcpStream,
    frame_max: usize,
}

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

impl Publisher {
    /// As `guest` in a virtual host.
    pub fn connect(address: SocketAddr, vhost: &str) -> Self {
        let output = TcpStream::connect(address).expect("the broker listens");
        output.set_nodelay(true).expect("set");
        let input = BufReader::with_capacity(1 << 16, output.try_clone().expect("cloned"));
        let mut this = Self { input, output, frame_max: 131_072 };
        this.output.write_all(b"AMQP\0\0\x09\x01").expect("sent");
        this.expect(10, 10);
        let mut start_ok = vec![0, 0, 0, 0];
        short(&mut start_ok, "PLAIN");
        long(&mut start_ok, b"\0guest\0guest");
        short(&mut start_ok, "en_US");
        this.method(0, 10, 11, &start_ok);
        this.expect(10, 30);
        let tune = [0, 1, 0, 2, 0, 0, 0, 0]; // one channel, frames of 131,072 bytes, no heartbeat
        this.method(0, 10, 31, &tune);
        let mut open = Vec::new();
        short(&mut open, vhost);
        open.extend([0, 0]);
        this.method(0, 10, 40, &open);
        this.expect(10, 41);
        this.method(1, 20, 10, &[0]);
        this.expect(20, 11);
        this.method(1, 85, 10, &[0]);
        this.expect(85, 11);
        this
    }

    /// Publishes `count` messages of `body` and waits for their confirms, `window` on their way at most; how long it
    /// took.
    pub fn publish(&mut self, exchange: &str, routing_key: &str, body: &[u8], count: u64, window: u64) -> Duration {
        let mut message = Vec::new();
        let mut publish = vec![0, 0];
        short(&mut publish, exchange);
        short(&mut publish, routing_key);
        publish.push(1); // mandatory
        frame(&mut message, METHOD, 1, &[&[0, 60, 0, 40], publish.as_slice()]);
        let length = (body.len() as u64).to_be_bytes();
        // Content type and delivery mode: persistent.
        let mut properties = vec![0x90, 0x00];
        short(&mut properties, "application/cloudevents+json");
        properties.push(2);
        frame(&mut message, HEADER, 1, &[&[0, 60, 0, 0], &length, &properties]);
        assert!(body.len() + 8 < self.frame_max, "one frame");
        frame(&mut message, BODY, 1, &[body]);
        let (mut sent, mut confirmed) = (0, 0);
        let mut batch = Vec::new();
        let began = Instant::now();
        while confirmed < count {
            batch.clear();
            while sent < count && sent - confirmed < window {
                batch.extend_from_slice(&message);
                sent += 1;
            }
            self.output.write_all(&batch).expect("sent");
            loop {
                confirmed = confirmed.max(self.confirm(confirmed));
                if self.input.buffer().is_empty() || confirmed == count {
                    break;
                }
            }
        }
        began.elapsed()
    }

    /// The highest message that the next confirm tells of. Confirms of single messages can come out of order; the
    /// window is then kept by their number.
    fn confirm(&mut self, confirmed: u64) -> u64 {
        let (kind, payload) = self.frame();
        if kind == METHOD && payload.starts_with(&[0, 60, 0, 80]) {
            let tag = payload.get(4..12).and_then(|tag| tag.try_into().ok()).map_or(0, u64::from_be_bytes);
            let multiple = payload.get(12).is_some_and(|flags| flags & 1 == 1);
            return if multiple { tag } else { confirmed + 1 };
        }
        assert!(kind == HEARTBEAT, "the broker said something else: {payload:?}");
        confirmed
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let mut out = Vec::new();
        frame(&mut out, METHOD, channel, &[&class.to_be_bytes(), &method.to_be_bytes(), arguments]);
        self.output.write_all(&out).expect("sent");
    }

    fn expect(&mut self, class: u16, method: u16) {
        let (kind, payload) = self.frame();
        let wanted = [class.to_be_bytes(), method.to_be_bytes()].concat();
        assert!(kind == METHOD && payload.starts_with(&wanted), "expected {class}.{method}, got {payload:?}");
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 7];
        self.input.read_exact(&mut head).expect("a frame");
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut payload = vec![0; length + 1];
        self.input.read_exact(&mut payload).expect("a frame");
        payload.pop();
        (head[0], payload)
    }
}

/// Takes messages as they come, unacknowledged: the broker forgets them as it sends them.
pub struct Consumer(Publisher);

impl Consumer {
    /// Of a queue.
    pub fn connect(address: SocketAddr, vhost: &str, queue: &str) -> Self {
        let mut this = Publisher::connect(address, vhost);
        let mut consume = vec![0, 0];
        short(&mut consume, queue);
        short(&mut consume, "");
        consume.push(2); // no acknowledgements
        consume.extend([0, 0, 0, 0]);
        this.method(1, 60, 20, &consume);
        this.expect(60, 21);
        Self(this)
    }

    /// The numbers of the orders `order-<number>` and when each came, until `count` came or it is over.
    pub fn arrivals(&mut self, count: usize, over: &AtomicBool) -> Vec<(usize, Instant)> {
        let mut arrivals = Vec::with_capacity(count);
        self.0.output.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
        while arrivals.len() < count {
            // Only the first byte may be waited for in vain: a frame that has begun comes whole.
            match self.0.input.fill_buf() {
                Ok(_) => {}
                Err(_) if over.load(Ordering::Relaxed) => break,
                Err(_) => continue,
            }
            let (kind, payload) = self.0.frame();
            let at = Instant::now();
            let order = memmem::find(&payload, b"\"order-").filter(|_| kind == BODY);
            let digits = order.and_then(|from| payload.get(from + 7..)).unwrap_or_default();
            let digits: String =
                digits.iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect();
            arrivals.extend(digits.parse().ok().map(|number: usize| (number, at)));
        }
        arrivals
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(kind);
    out.extend(channel.to_be_bytes());
    out.extend(u32::try_from(length).expect("a frame").to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.push(0xce);
}

fn short(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("short"));
    out.extend_from_slice(text.as_bytes());
}

fn long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).expect("long").to_be_bytes());
    out.extend_from_slice(bytes);
}
