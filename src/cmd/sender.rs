//! The providers' side, for `demo` and `send`: requests signed as the providers sign, and the demo's throw-away keys.
//!
//! Written from the protocols and not from the receiving code, so that the two can disagree.

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rsa::pkcs8::EncodePublicKey;
use rsa::rand_core::{OsRng, RngCore};
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Sign, RsaPrivateKey};
use serde_json::Value;
use sha2::Sha256;

/// Fields of a notification, in the order in which they are sent.
pub(super) type Fields = Vec<(&'static str, String)>;

/// Everything that is secret in the demo.
pub(super) struct Keys {
    /// ClickPay's platform key.
    pub(super) platform: RsaPrivateKey,
    /// The key of the source without patterns.
    pub(super) loose: RsaPrivateKey,
    /// A key that nobody trusts.
    pub(super) forger: RsaPrivateKey,
    pub(super) paygol: String,
    pub(super) paygol_ipn: String,
    pub(super) clickkw_return: String,
    pub(super) clickgem_return: String,
    pub(super) clickgem_signature: String,
}

/// A request, ready to be sent to the public listener.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Target, headers and body hold secrets.
        write!(f, "Post({})", self.method)
    }
}

impl Keys {
    /// New ones. 1024 bits, as the platform's keys are: what they sign is forgotten with them.
    pub(super) fn make() -> anyhow::Result<Self> {
        let rsa = || RsaPrivateKey::new(&mut OsRng, 1024).context("making an RSA key");
        let secret = || {
            let mut bytes = [0; 20];
            OsRng.fill_bytes(&mut bytes);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        Ok(Self {
            platform: rsa()?,
            loose: rsa()?,
            forger: rsa()?,
            paygol: secret(),
            paygol_ipn: secret(),
            clickkw_return: secret(),
            clickgem_return: secret(),
            clickgem_signature: secret(),
        })
    }
}

impl Post {
    /// A GET of path and query.
    pub(super) fn get(target: String) -> Self {
        Self { method: Method::GET, target, headers: Vec::new(), body: Vec::new() }
    }

    /// A POST of a form.
    pub(super) fn form(target: impl Into<String>, fields: &[(&'static str, String)]) -> Self {
        let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
        Self { method: Method::POST, target: target.into(), headers, body: form(fields).into_bytes() }
    }

    /// A POST of a JSON object of strings.
    pub(super) fn json(target: impl Into<String>, fields: &[(&'static str, String)]) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { method: Method::POST, target: target.into(), headers, body: json(fields).into_bytes() }
    }

    /// With one more header.
    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// The public key as ClickPay's panel shows it: base64 of the SubjectPublicKeyInfo.
pub(super) fn panel(key: &RsaPrivateKey) -> String {
    let der = key.to_public_key().to_public_key_der();
    der.map(|der| BASE64_STANDARD.encode(der.as_bytes())).unwrap_or_default()
}

/// ClickPay's `platSign`: the values in byte order of their names, joined, in blocks of k - 11 bytes with padding
/// type 1, each raised to the private exponent.
pub(super) fn plat_sign(key: &RsaPrivateKey, fields: &[(&'static str, String)]) -> String {
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_by_key(|(name, _)| name.as_bytes());
    let string: String = sorted.into_iter().map(|(_, value)| value.as_str()).collect();
    let blocks = string.as_bytes().chunks(key.size() - 11);
    let signed: Vec<u8> =
        blocks.flat_map(|block| key.sign(Pkcs1v15Sign::new_unprefixed(), block).unwrap_or_default()).collect();
    BASE64_STANDARD.encode(signed)
}

/// Paygol's `X-Pg-Sig`: HMAC-SHA256 of the object with sorted keys as PHP prints it.
pub(super) fn pg_sig(secret: &str, fields: &[(&'static str, String)]) -> String {
    let mut sorted = fields.to_vec();
    sorted.sort();
    let mut printed = String::new();
    for c in json(&sorted).chars() {
        match c {
            '/' => printed.push_str("\\/"),
            c if c.is_ascii() => printed.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| printed.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    let mac = hmac(secret, printed.as_bytes());
    mac.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A return URL's path: `<path>/<order>/<tag>`.
pub(super) fn return_path(path: &str, source: &str, secret: &str, order: &str) -> String {
    format!("{path}{}", return_tail(source, secret, order))
}

/// What follows a source's path in a return URL: `/<order>/<tag>`.
pub(super) fn return_tail(source: &str, secret: &str, order: &str) -> String {
    let mac = hmac(secret, format!("v1\0{source}\0{order}").as_bytes());
    format!("/{order}/{}", BASE64_URL_SAFE_NO_PAD.encode(mac.get(..16).unwrap_or_default()))
}

/// `a=1&b=2`, percent-encoded.
pub(super) fn form(fields: &[(&'static str, String)]) -> String {
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Another value for one of the fields.
pub(super) fn with(fields: &[(&'static str, String)], name: &str, value: &str) -> Fields {
    let change =
        |(known, old): &(&'static str, String)| (*known, if *known == name { value.to_owned() } else { old.clone() });
    fields.iter().map(change).collect()
}

/// The same text with another first character.
pub(super) fn flipped(text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    if let Some(first) = characters.first_mut() {
        *first = if *first == 'a' { 'b' } else { 'a' };
    }
    characters.into_iter().collect()
}

fn json(fields: &[(&'static str, String)]) -> String {
    let members = fields.iter().map(|(name, value)| ((*name).to_owned(), Value::String(value.clone())));
    Value::Object(members.collect()).to_string()
}

fn hmac(secret: &str, message: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    mac.map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()).unwrap_or_default()
}
