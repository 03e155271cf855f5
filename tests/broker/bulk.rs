//! Notifications by the ten thousand: signed beforehand by code that is not Quittance's, posted over connections that
//! stay.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::fixtures::{self, PAYGOL_SECRET};
use crate::http;

/// A notification as it is posted.
#[derive(Clone, Debug)]
pub struct Notification {
    /// The whole request, for a connection that stays.
    pub request: Vec<u8>,
}

/// What Paygol calls the states, and what the event calls them.
pub const STATES: [(&str, &str); 3] =
    [("completed", "payment.paid"), ("created", "payment.pending"), ("failed", "payment.failed")];

/// So many notifications over so many orders, each with a transaction of its own.
pub fn signed(count: u64, orders: u64) -> Vec<Notification> {
    signed_from(0, count, orders)
}

/// The same from a number on.
pub fn signed_from(first: u64, count: u64, orders: u64) -> Vec<Notification> {
    let mut signer = Command::new("/usr/bin/python3")
        .arg(fixtures::folder().join("signer.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("/usr/bin/python3 runs");
    let mut input = signer.stdin.take().expect("piped");
    let output = BufReader::new(signer.stdout.take().expect("piped"));
    let fields = move |number: u64| {
        fixtures::paygol(json!({
            "transaction_id": format!("T-{number}"), "custom": format!("order-{}", number % orders),
            "price": format!("{}.00", number % 9_000 + 1), "status": STATES[(number % 3) as usize].0,
        }))
    };
    let writer = std::thread::spawn(move || {
        for number in first..first + count {
            let request = json!({ "scheme": "paygol", "secret": PAYGOL_SECRET, "fields": fields(number) });
            writeln!(input, "{request}").expect("the signer reads");
        }
    });
    let notifications = output.lines().take(count as usize).map(|line| {
        let signed: Value = serde_json::from_str(&line.expect("text")).expect("the signer answers in JSON");
        let (body, signature) = (fixtures::text(&signed["canonical"]), fixtures::text(&signed["signature"]));
        let head = format!(
            "POST /paygol HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-Pg-Sig: {signature}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        Notification { request: (head + &body).into_bytes() }
    });
    let notifications = notifications.collect();
    writer.join().expect("every request was written");
    signer.wait().expect("it ends with its input");
    notifications
}

/// A connection that stays, and comes again when it broke.
pub struct Poster {
    to: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Poster {
    /// Connects at the first notification.
    pub fn to(to: SocketAddr) -> Self {
        Self { to, stream: None }
    }

    /// The status of the answer.
    ///
    /// # Errors
    /// No answer: nobody knows whether it was kept.
    pub fn post(&mut self, notification: &Notification) -> io::Result<u16> {
        let answer = self.try_post(&notification.request);
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    fn try_post(&mut self, request: &[u8]) -> io::Result<u16> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = http::connect(self.to)?;
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                self.stream.insert(BufReader::new(stream))
            }
        };
        stream.get_mut().write_all(request)?;
        let (mut status, mut length, mut close) = (None, 0, false);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest.get(..3).and_then(|code| code.parse().ok());
            } else if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
            } else if line == "connection: close" {
                close = true;
            } else if line.is_empty() {
                break;
            }
        }
        io::copy(&mut stream.take(length), &mut io::sink())?;
        if close {
            self.stream = None;
        }
        status.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}
