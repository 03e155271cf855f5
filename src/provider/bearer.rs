//! Shared secrets: comparing what was presented, signing with them, and keeping them out of everything that is kept.

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION};
use sha2::Sha256;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::config::Secret;

/// Which of the secrets was presented, from 1. All are compared, each in constant time for its length; an empty
/// secret is nobody's.
pub(super) fn position(secrets: &[Secret], presented: &str) -> Option<u16> {
    first(secrets.iter().map(|secret| {
        let (expected, presented) = (secret.expose().as_bytes(), presented.as_bytes());
        expected.ct_eq(presented) & Choice::from(u8::from(!expected.is_empty()))
    }))
}

/// The position from 1 of the first choice that is true, without showing in time which one.
pub(super) fn first(choices: impl IntoIterator<Item = Choice>) -> Option<u16> {
    let mut found = 0_u16;
    for (position, choice) in (1..).zip(choices) {
        found.conditional_assign(&position, choice & found.ct_eq(&0));
    }
    (found != 0).then_some(found)
}

/// HMAC-SHA256 under a secret taken as its text.
pub(super) fn hmac_sha256(secret: &Secret, message: &[u8]) -> [u8; 32] {
    match Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) {
        Ok(mac) => mac.chain_update(message).finalize().into_bytes().into(),
        Err(_) => unreachable!("HMAC takes keys of any length"),
    }
}

/// A secret in the ways in which a form or a query may carry it: as it is, and percent-encoded.
pub(super) fn as_sent(secret: &Secret) -> [Zeroizing<Vec<u8>>; 3] {
    const FORM: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'~');
    let text = secret.expose();
    let encoded = percent_encoding::utf8_percent_encode(text, FORM).to_string();
    [text.to_owned(), encoded.replace("%20", "+"), encoded].map(|text| Zeroizing::new(text.into_bytes()))
}

/// Takes out what must not be kept of the headers: the credentials of whoever sent the request, and every header that
/// repeats one of `secrets`, as a proxy's `X-Original-URI` or a browser's `Referer` does.
pub(super) fn withhold_headers(headers: &mut HeaderMap, secrets: &[&[u8]]) {
    let credentials = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];
    let repeats = |value: &[u8]| secrets.iter().any(|secret| stands_in(secret, value));
    let names: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| credentials.contains(name) || repeats(value.as_bytes()))
        .map(|(name, _)| name.clone())
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// Whether a secret stands somewhere in a text.
pub(super) fn stands_in(secret: &[u8], text: &[u8]) -> bool {
    !secret.is_empty() && memchr::memmem::find(text, secret).is_some()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_secret_is_itself_and_nothing_else() {
        let secrets = ["first-secret-of-all", "", "Second"].map(|text| Secret::new(text.to_owned()));
        assert_eq!(position(&secrets, "first-secret-of-all"), Some(1));
        assert_eq!(position(&secrets, "Second"), Some(3));
        for wrong in ["second", "SECOND", "Secon", "Second ", "", "0", "true", "first-secret-of-alL"] {
            assert_eq!(position(&secrets, wrong), None, "{wrong}");
        }
        assert_eq!(position(&[], ""), None);
    }

    #[test]
    fn headers_that_carry_secrets_are_not_kept() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("cookie", "session=1"),
            ("authorization", "Basic x"),
            ("x-original-uri", "/ipn?key=abcdefgh&a=1"),
            ("user-agent", "Paygol"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        withhold_headers(&mut headers, &[b"abcdefgh", b""]);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["user-agent"]);
    }
}
