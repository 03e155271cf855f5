//! Notifications made and signed before anything is timed, by PHP and not by the code that is measured; kept in the
//! cache, since signing takes longer than sending.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::say;
use crate::servers::{GEM_SIGNATURE, LEGACY_SECRET, RETURN_SECRET};

/// Paygol's secret of the measured source.
pub const PAYGOL_SECRET: &str = "7c1a6a24-7943-102d-92f8-29573711ad31";

/// Whole requests, one after the other in memory.
pub struct Requests {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Requests {
    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    /// One of them.
    pub fn get(&self, number: usize) -> &[u8] {
        let from = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[from..self.ends[number]]
    }
    /// `count` of them from `first` on.
    pub fn part(&self, first: usize, count: usize) -> Self {
        let mut part = Self::with_capacity(count * self.get(first).len(), count);
        for number in first..first + count {
            part.bytes.extend_from_slice(self.get(number));
            part.ends.push(part.bytes.len());
        }
        part
    }

    fn with_capacity(bytes: usize, count: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    fn get_from(&mut self, target: &str) {
        use std::io::Write as _;
        write!(self.bytes, "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").expect("memory");
        self.ends.push(self.bytes.len());
    }

    fn form(&mut self, path: &str, body: &str) {
        use std::io::Write as _;
        let (kind, length) = ("application/x-www-form-urlencoded", body.len());
        let head = format_args!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.bytes.write_fmt(head).expect("memory");
        self.ends.push(self.bytes.len());
    }

    fn post(&mut self, path: &str, extra: &str, body: &str) {
        use std::io::Write as _;
        let length = body.len();
        let head = format_args!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{extra}Content-Length: {length}\r\n\r\n{body}"
        );
        self.bytes.write_fmt(head).expect("memory");
        self.ends.push(self.bytes.len());
    }
}

/// What signs, and where it is kept.
pub struct Material {
    folder: PathBuf,
}

impl Material {
    /// In the cache folder; makes the throw-away key.
    pub fn new(cache: &Path) -> Self {
        let folder = cache.join("material");
        fs::create_dir_all(&folder).expect("the cache can be made");
        let material = Self { folder };
        if !material.public_key().exists() {
            run(Command::new("openssl").args(["genrsa", "-out"]).arg(material.private_key()).arg("1024"));
            let public = material.public_key();
            run(Command::new("openssl")
                .args(["rsa", "-pubout", "-in"])
                .arg(material.private_key())
                .arg("-out")
                .arg(public));
        }
        material
    }

    /// ClickPay's public key.
    pub fn public_key(&self) -> PathBuf {
        self.folder.join("clickpay.pem")
    }
    fn private_key(&self) -> PathBuf {
        self.folder.join("clickpay-private.pem")
    }

    /// Signed ClickPay pay-ins, two blocks of RSA-1024 each, about 700 bytes.
    pub fn clickpay(&self, first: usize, count: usize, path: &str) -> Requests {
        let key = self.private_key().display().to_string();
        let text = self.signed("clickpay", &key, first, count);
        let mut requests = Requests::with_capacity(text.len() + count * 120, count);
        text.lines().for_each(|body| requests.post(path, "", body));
        requests
    }

    /// Signed Paygol notifications, about 300 bytes. `raw`: signed over the raw body, for who cannot do PHP's canonical
    /// form.
    pub fn paygol(&self, first: usize, count: usize, path: &str, raw: bool) -> Requests {
        let text = self.signed("paygol", PAYGOL_SECRET, first, count);
        let mut requests = Requests::with_capacity(text.len() + count * 150, count);
        for line in text.lines() {
            let mut parts = line.splitn(3, ' ');
            let (canonical, of_raw) = (parts.next().expect("a signature"), parts.next().expect("another"));
            let signature = if raw { of_raw } else { canonical };
            requests.post(path, &format!("X-Pg-Sig: {signature}\r\n"), parts.next().expect("a body"));
        }
        requests
    }

    /// Signed Paygol notifications with numbers that no call before had: signed by the harness, since keeping them would
    /// fill the disk.
    pub fn fresh_paygol(&self, mark: usize, count: usize) -> Requests {
        self.paygol_signed_with(PAYGOL_SECRET, mark, count)
    }

    /// The same, with another secret.
    pub fn paygol_signed_with(&self, secret: &str, mark: usize, count: usize) -> Requests {
        use hmac::{Hmac, KeyInit, Mac};
        let mut requests = Requests::with_capacity(count * 450, count);
        for number in 0..count {
            let body = format!(
                r#"{{"country":"CL","completed_at":"2026-11-20T16:22:32-03:00","currency":"CLP","created_at":"2026-11-20T16:19:27-03:00","custom":"fresh-{mark}-{number}","method":"webpay","price":"{}.00","service_id":"123","status":"completed","transaction_id":"FRESH-{mark}-{number}"}}"#,
                1000 + number % 90_000
            );
            let mut hmac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
            hmac.update(body.as_bytes());
            let signature: String = hmac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            requests.post("/paygol", &format!("X-Pg-Sig: {signature}\r\n"), &body);
        }
        requests
    }

    /// Legacy notifications of Paygol, whose secret is one of their parameters.
    pub fn legacy(&self, count: usize) -> Requests {
        let mut requests = Requests::with_capacity(count * 300, count);
        for number in 0..count {
            requests.get_from(&format!(
                "/ipn?transaction_id=ZISS-{number:012}&service_id=124&country=ES&custom=order-{number}&price=6800.00&currency=CLP\
                 &frmprice=10.00&frmcurrency=EUR&method=webpay&key={LEGACY_SECRET}"
            ));
        }
        requests
    }

    /// Buyers' returns from Click KW.
    pub fn clickkw(&self, count: usize) -> Requests {
        let mut requests = Requests::with_capacity(count * 200, count);
        for number in 1..=count {
            let tag = tag("clickkw", &number.to_string());
            let path = format!("/clickkw/{number}/{tag}");
            requests.get_from(&format!("{path}?message=success&message_type=success&indicator_status=IND{number:016}"));
        }
        requests
    }

    /// ClickGem's returns.
    pub fn clickgem(&self, count: usize) -> Requests {
        let mut requests = Requests::with_capacity(count * 250, count);
        for number in 1..=count {
            let order = format!("G{number}");
            let path = format!("/clickgem/{order}/{}", tag("clickgem", &order));
            requests.form(&path, &format!("api_signature={GEM_SIGNATURE}&status=paid"));
        }
        requests
    }

    /// A file with signed bodies, one on each line.
    pub fn bodies(&self, what: &str, first: usize, count: usize) -> PathBuf {
        let text = self.signed(what, &self.private_key().display().to_string(), first, count);
        let file = self.folder.join(format!("{what}-bodies"));
        fs::write(&file, text).expect("the cache can be written");
        file
    }

    fn signed(&self, what: &str, key: &str, first: usize, count: usize) -> String {
        const PIECE: usize = 10_000;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare/php/sign.php");
        let mut text = String::new();
        let pieces: Vec<usize> = (first / PIECE..(first + count).div_ceil(PIECE)).collect();
        let file = |piece: usize| self.folder.join(format!("{what}-{piece}"));
        let missing: Vec<usize> = pieces.iter().copied().filter(|piece| !file(*piece).exists()).collect();
        if !missing.is_empty() {
            say(&format!("signing {} {what} notifications (kept for the next time)", missing.len() * PIECE));
        }
        for pair in missing.chunks(2) {
            let children: Vec<_> = pair
                .iter()
                .map(|piece| {
                    let (part, done) = (file(*piece).with_extension("part"), file(*piece));
                    let out = fs::File::create(&part).expect("the cache can be written");
                    let numbers = [(piece * PIECE).to_string(), PIECE.to_string()];
                    let child = Command::new("php").args([script, what, key]).args(numbers).stdout(out).spawn();
                    (child.expect("php runs"), part, done)
                })
                .collect();
            for (mut child, part, done) in children {
                assert!(child.wait().expect("waited").success(), "php cannot sign");
                fs::rename(part, done).expect("renamed");
            }
        }
        for piece in pieces {
            let whole = fs::read_to_string(file(piece)).expect("the cache can be read");
            let (from, to) = (first.max(piece * PIECE), (first + count).min((piece + 1) * PIECE));
            for line in whole.lines().skip(from - piece * PIECE).take(to - from) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

/// The tag of a return URL.
fn tag(source: &str, order: &str) -> String {
    use base64::Engine as _;
    use hmac::{Hmac, KeyInit, Mac};
    let mut hmac = Hmac::<sha2::Sha256>::new_from_slice(RETURN_SECRET.as_bytes()).expect("any length");
    hmac.update(format!("v1\0{source}\0{order}").as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&hmac.finalize().into_bytes()[..16])
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
