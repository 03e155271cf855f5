//! The raw part of a record: the request as it came, bearer secrets cut out.
//!
//! Beside the bytes stand place, length and HMAC of what was cut, so that a re-verification can tell whether a secret
//! was the right one without anybody being able to read it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;

use super::fields::{Fields, Writer};
use crate::provider::{Cut, Place, Received};
use crate::seal::{SECRET_HEADERS, Scar, Seal};
use crate::store::KeptRequest;

/// The raw part of a request.
pub fn encode(received: &Received, cuts: &[Cut], seal: &Seal) -> Bytes {
    let must_cut = !cuts.is_empty() || SECRET_HEADERS.iter().any(|name| received.headers.contains_key(name));
    if must_cut {
        let (kept, scars) = seal.cut(received, cuts);
        write(&kept, &scars)
    } else {
        write(received, &[])
    }
}

/// The raw part of a request whose secrets were cut out before.
pub fn write(received: &Received, scars: &[Scar]) -> Bytes {
    let mut out = Writer::new();
    out.put_text(1, Some(received.method.as_str())).put_text(2, Some(&received.path));
    out.put_text(3, received.query.as_deref());
    for (name, value) in &received.headers {
        let mut header = Writer::new();
        header.put_text(1, Some(name.as_str())).put(2, value.as_bytes());
        out.put(4, &header.finish());
    }
    out.put_text(5, Some(&received.remote.to_string()));
    for scar in scars {
        let mut note = Writer::new();
        note.put(1, &[scar.place.code()]).put_number(2, scar.start.into()).put_number(3, scar.length.into());
        note.put(4, &scar.hmac);
        out.put(6, &note.finish());
    }
    out.put(7, &received.body);
    out.finish().into()
}

/// The request for people; `None` for what does not read.
pub fn decode(raw: &[u8]) -> Option<KeptRequest> {
    let fields = Fields::parse(raw)?;
    let mut path = String::from_utf8_lossy(fields.get(2)?).into_owned();
    if let Some(query) = fields.get(3) {
        path.push('?');
        path.push_str(&String::from_utf8_lossy(query));
    }
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for header in fields.all(4) {
        let header = Fields::parse(header)?;
        let value = String::from_utf8_lossy(header.get(2)?).into_owned();
        headers
            .entry(header.text(1)?.to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert(value);
    }
    Some(KeptRequest {
        method: fields.text(1)?.to_owned(),
        path,
        headers,
        body: STANDARD.encode(fields.get(7)?),
        remote: fields.text(5)?.to_owned(),
    })
}

/// The request for a machine, and what is left of its secrets; `None` for what does not read. What of its path follows
/// the source's own is for whoever knows that one.
pub fn received(raw: &[u8], at: Timestamp) -> Option<(Received, Vec<Scar>)> {
    let fields = Fields::parse(raw)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let mut headers = HeaderMap::new();
    for header in fields.all(4) {
        let header = Fields::parse(header)?;
        let name = HeaderName::from_bytes(header.get(1)?).ok()?;
        headers.append(name, HeaderValue::from_bytes(header.get(2)?).ok()?);
    }
    let scar = |note: &[u8]| {
        let note = Fields::parse(note)?;
        let number = |tag| u32::try_from(note.number(tag)).ok();
        Some(Scar {
            place: Place::from_code(note.code(1)?)?,
            start: number(2)?,
            length: number(3)?,
            hmac: note.array(4)?,
        })
    };
    let request = Received {
        method: Method::from_bytes(fields.get(1)?).ok()?,
        path: text(fields.get(2)?)?,
        rest: String::new(),
        query: fields.get(3).map(text).map_or(Some(None), |query| query.map(Some))?,
        headers,
        body: Bytes::copy_from_slice(fields.get(7)?),
        remote: fields.text(5)?.parse().ok()?,
        at,
    };
    Some((request, fields.all(6).map(scar).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Place;
    use http::{HeaderMap, HeaderValue, Method};

    #[test]
    fn secrets_are_not_in_what_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let seal = Seal::open(folder.path()).expect("a key");
        let mut headers = HeaderMap::new();
        headers.insert("cookie", HeaderValue::from_static("session=hunter2"));
        headers.insert("x-a", HeaderValue::from_static("b"));
        let received = Received {
            method: Method::GET,
            path: "/k/42/TAGTAG".into(),
            rest: "/42/TAGTAG".into(),
            query: Some("key=SECRET&x=1".into()),
            headers,
            body: Bytes::from_static(b"api_signature=SECRET2&status=paid"),
            remote: "127.0.0.1".parse().expect("an address"),
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        let cuts = [
            Cut { place: Place::Path, range: 6..12 },
            Cut { place: Place::Query, range: 4..10 },
            Cut { place: Place::Body, range: 14..21 },
        ];
        let raw = encode(&received, &cuts, &seal);
        let text = String::from_utf8_lossy(&raw);
        for secret in ["SECRET", "TAGTAG", "hunter2"] {
            assert!(!text.contains(secret), "{secret} was kept");
        }
        let kept = decode(&raw).expect("reads");
        assert_eq!((kept.path.as_str(), kept.method.as_str()), ("/k/42/?key=&x=1", "GET"));
        assert_eq!(STANDARD.decode(kept.body).expect("base64"), b"api_signature=&status=paid");
        assert_eq!(kept.headers.get("cookie").map(String::as_str), Some(""));
        let (again, scars) = super::received(&raw, received.at).expect("reads");
        let again = Received { rest: "/42/".into(), ..again };
        let secrets = ["SECRET", "TAGTAG", "SECRET2"].map(|secret| zeroize::Zeroizing::new(secret.as_bytes().to_vec()));
        let whole = seal.heal(&again, &scars, &secrets).expect("whole again");
        assert_eq!((&whole.path, &whole.query, &whole.body), (&received.path, &received.query, &received.body));
        assert_eq!((&whole.rest, &whole.method, whole.remote), (&received.rest, &received.method, received.remote));
        assert_eq!(Seal::open(folder.path()).expect("again").of("cut", b"x"), seal.of("cut", b"x"));
    }
}
