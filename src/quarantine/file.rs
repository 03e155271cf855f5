//! The file of a quarantined request, format 1. All numbers are little endian.
//!
//! ```text
//! magic "QTNQUAR" and the version, 1     8 bytes
//! CRC-32C of everything behind it        4
//! length of everything behind it         4
//! arrival, milliseconds since 1970       8
//! remote address, IPv4 mapped           16
//! reason, source                         1 + n each
//! method                                 1 + n
//! path, rest                             4 + n each
//! query: 0, or 1 and                     1, 4 + n
//! headers: how many, name, value         2, (2 + n, 4 + n) each
//! body                                   4 + n
//! secrets cut out: how many, each        1, place 1, start 4, length 4, HMAC 16
//! ```
//!
//! Reading is total: any bytes give a request or a [`Damage`], and no length is believed before the bytes are there.

use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;

use crate::event::SourceName;
use crate::provider::{Place, Received};
use crate::seal::Scar;

/// The seven letters of the format and its version.
const MAGIC: [u8; 8] = *b"QTNQUAR\x01";
/// Longest reason that is kept, in bytes.
const MAX_REASON: usize = 120;
/// Where time, address and reason end at the latest: what a list needs.
pub(super) const HEAD_BYTES: usize = 8 + 4 + 4 + 8 + 16 + 1 + MAX_REASON;
/// Larger than the largest request that the config allows (16 MiB and 256 KiB).
pub(super) const MAX_BYTES: usize = 17 << 20;
const CHECKED_FROM: usize = 16;

/// A quarantined request.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The source that refused it.
    pub source: SourceName,
    /// Why.
    pub reason: String,
    /// The request as it came, bearer secrets cut out.
    pub received: Received,
    /// What is left of them.
    pub scars: Vec<Scar>,
}

/// Why a file does not read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Another kind of file, or of another version.
    #[error("not a quarantined request of version 1")]
    Magic,
    /// Shorter or longer than it says.
    #[error("its length is wrong")]
    Length,
    /// The bytes are not those that were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// A field cannot be what it says.
    #[error("its {0} cannot be read")]
    Field(&'static str),
}

/// The file of a request.
pub fn encode(source: &SourceName, reason: &str, received: &Received, scars: &[Scar]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024 + received.body.len());
    out.extend(MAGIC);
    out.extend([0; 8]);
    out.extend(received.at.as_millisecond().to_le_bytes());
    let address = match received.remote {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    out.extend(address.octets());
    put(&mut out, 1, shorten(reason).as_bytes());
    put(&mut out, 1, source.as_str().as_bytes());
    put(&mut out, 1, received.method.as_str().as_bytes());
    put(&mut out, 4, received.path.as_bytes());
    put(&mut out, 4, received.rest.as_bytes());
    out.push(u8::from(received.query.is_some()));
    if let Some(query) = &received.query {
        put(&mut out, 4, query.as_bytes());
    }
    let headers = received.headers.len().min(usize::from(u16::MAX));
    out.extend((headers as u16).to_le_bytes());
    for (name, value) in received.headers.iter().take(headers) {
        put(&mut out, 2, name.as_str().as_bytes());
        put(&mut out, 4, value.as_bytes());
    }
    put(&mut out, 4, &received.body);
    let scars = scars.get(..usize::from(u8::MAX)).unwrap_or(scars);
    out.push(scars.len() as u8);
    for scar in scars {
        out.push(scar.place.code());
        out.extend(scar.start.to_le_bytes());
        out.extend(scar.length.to_le_bytes());
        out.extend(scar.hmac);
    }
    let length = (out.len() - CHECKED_FROM) as u32;
    if let Some(place) = out.get_mut(12..16) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    let checksum = crc32c::crc32c(out.get(12..).unwrap_or_default());
    if let Some(place) = out.get_mut(8..12) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    out
}

/// The request in a file.
///
/// # Errors
/// [`Damage`].
pub fn decode(bytes: &[u8]) -> Result<Kept, Damage> {
    if bytes.len() > MAX_BYTES {
        return Err(Damage::Length);
    }
    let mut rest = bytes;
    if take(&mut rest, 8) != Some(&MAGIC) {
        return Err(Damage::Magic);
    }
    let checksum = number(&mut rest, 4).ok_or(Damage::Length)?;
    let checked = rest;
    let length = number(&mut rest, 4).ok_or(Damage::Length)?;
    if rest.len() != length {
        return Err(Damage::Length);
    }
    if crc32c::crc32c(checked) as usize != checksum {
        return Err(Damage::Checksum);
    }
    let (at, remote, reason) = decode_head(bytes)?;
    take(&mut rest, 8 + 16 + 1 + reason.len()).ok_or(Damage::Length)?;
    let source = text(&mut rest, 1).as_deref().and_then(SourceName::new).ok_or(Damage::Field("source"))?;
    let method = field(&mut rest, 1).and_then(|bytes| Method::from_bytes(bytes).ok()).ok_or(Damage::Field("method"))?;
    let path = text(&mut rest, 4).ok_or(Damage::Field("path"))?;
    let tail = text(&mut rest, 4).ok_or(Damage::Field("path's rest"))?;
    let query = match number(&mut rest, 1) {
        Some(0) => None,
        Some(1) => Some(text(&mut rest, 4).ok_or(Damage::Field("query"))?),
        _ => return Err(Damage::Field("query")),
    };
    let count = number(&mut rest, 2).ok_or(Damage::Field("headers"))?;
    let mut headers = HeaderMap::new();
    for _ in 0..count {
        let name = field(&mut rest, 2).and_then(|bytes| HeaderName::from_bytes(bytes).ok());
        let value = field(&mut rest, 4).and_then(|bytes| HeaderValue::from_bytes(bytes).ok());
        let (Some(name), Some(value)) = (name, value) else { return Err(Damage::Field("headers")) };
        headers.try_append(name, value).map_err(|_| Damage::Field("headers"))?;
    }
    let body = field(&mut rest, 4).map(Bytes::copy_from_slice).ok_or(Damage::Field("body"))?;
    let mut scars = Vec::new();
    for _ in 0..number(&mut rest, 1).ok_or(Damage::Field("cuts"))? {
        scars.push(scar(&mut rest).ok_or(Damage::Field("cuts"))?);
    }
    if !rest.is_empty() {
        return Err(Damage::Length);
    }
    let received = Received { method, path, rest: tail, query, headers, body, remote, at };
    Ok(Kept { source, reason, received, scars })
}

fn scar(rest: &mut &[u8]) -> Option<Scar> {
    let place = Place::from_code(u8::try_from(number(rest, 1)?).ok()?)?;
    let (start, length) = (u32::try_from(number(rest, 4)?).ok()?, u32::try_from(number(rest, 4)?).ok()?);
    Some(Scar { place, start, length, hmac: take(rest, 16)?.try_into().ok()? })
}

/// Time, address and reason from a file's first [`HEAD_BYTES`], unchecked but for their form.
pub(super) fn decode_head(bytes: &[u8]) -> Result<(Timestamp, IpAddr, String), Damage> {
    let mut rest = bytes;
    if take(&mut rest, 8) != Some(&MAGIC) {
        return Err(Damage::Magic);
    }
    take(&mut rest, 8).ok_or(Damage::Length)?;
    let at = take(&mut rest, 8).and_then(|bytes| bytes.try_into().ok()).map(i64::from_le_bytes);
    let at = at.and_then(|at| Timestamp::from_millisecond(at).ok()).ok_or(Damage::Field("time"))?;
    let remote =
        take(&mut rest, 16).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).ok_or(Damage::Field("address"))?;
    let reason =
        text(&mut rest, 1).filter(|reason| reason.len() <= MAX_REASON && !reason.chars().any(char::is_control));
    Ok((at, IpAddr::V6(Ipv6Addr::from(remote)).to_canonical(), reason.ok_or(Damage::Field("reason"))?))
}

/// As much of a reason as is kept.
pub(super) fn shorten(reason: &str) -> &str {
    let end = reason.floor_char_boundary(MAX_REASON);
    reason.get(..end).unwrap_or_default()
}

/// A length of `width` bytes and that many bytes; what no width can tell is cut off, and cannot occur: every part is
/// bounded by the listener.
fn put(out: &mut Vec<u8>, width: usize, bytes: &[u8]) {
    let most = 1_usize.checked_shl(8 * width as u32).map_or(usize::MAX, |limit| limit - 1);
    let bytes = bytes.get(..most).unwrap_or(bytes);
    out.extend(bytes.len().to_le_bytes().iter().take(width));
    out.extend(bytes);
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn number(rest: &mut &[u8], width: usize) -> Option<usize> {
    let bytes = take(rest, width)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

fn field<'b>(rest: &mut &'b [u8], width: usize) -> Option<&'b [u8]> {
    let length = number(rest, width)?;
    take(rest, length)
}

fn text(rest: &mut &[u8], width: usize) -> Option<String> {
    field(rest, width).and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::to_owned)
}
