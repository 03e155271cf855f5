//! Who may ask. With a token: whoever has it. Without one the listener is on loopback, and what has to be kept out is
//! the web page that an operator happens to look at: its browser reaches loopback too.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{StatusCode, Version};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::config::Secret;

/// What a wrong token costs: so many tries a second of one address, however many connections it has.
const PENALTY: Duration = Duration::from_millis(200);
/// Tries of one address that may wait; more are turned away at once.
const PATIENT: u32 = 25;
/// Addresses that are remembered; what is above shares one.
const ADDRESSES: usize = 4096;

/// Slows down whoever guesses tokens. Who has the right one never waits.
#[derive(Debug, Default)]
pub struct Patience(Mutex<HashMap<IpAddr, Instant>>);

impl Patience {
    /// How long the answer to a wrong token from an address must wait; `None`: too many of its answers wait already.
    pub fn wrong(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= ADDRESSES {
            until.retain(|_, until| *until > now);
        }
        let known = until.contains_key(&from) || until.len() < ADDRESSES;
        let free = until.entry(if known { from } else { Ipv4Addr::UNSPECIFIED.into() }).or_insert(now);
        let next = (*free).max(now) + PENALTY;
        if next > now + PENALTY * PATIENT {
            return None;
        }
        *free = next;
        Some(next - now)
    }
}

/// Whether a request presents a token at all: only a wrong one is a guess.
pub fn guesses(parts: &Parts) -> bool {
    parts.headers.contains_key(header::AUTHORIZATION)
}

/// Paths that say nothing about anyone and are asked by machines that hold no token.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Lets a request pass, or says why not.
///
/// # Errors
/// 401 without the token; 403 from a foreign page; 400 without a host.
pub fn check(parts: &Parts, token: Option<&Secret>) -> Result<(), Problem> {
    let headers = &parts.headers;
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && parts.version >= Version::HTTP_11) {
        return Err(Problem::bad_request("a request names exactly one host"));
    }
    if OPEN.contains(&parts.uri.path()) {
        return Ok(());
    }
    match token {
        Some(token) if bears(headers, token) => Ok(()),
        Some(_) => Err(Problem::new(StatusCode::UNAUTHORIZED, "send the token as \"Authorization: Bearer <token>\"")),
        None if from_here(headers) => Ok(()),
        None => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "without a token only 127.0.0.1, [::1] and localhost may be asked, and not by a page from elsewhere",
        )),
    }
}

fn bears(headers: &HeaderMap, token: &Secret) -> bool {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (sent.next(), sent.next()) else { return false };
    let Some((scheme, credentials)) = value.as_bytes().split_at_checked(7) else { return false };
    let same: bool = credentials.ct_eq(token.expose().as_bytes()).into();
    scheme.eq_ignore_ascii_case(b"bearer ") && same
}

/// A name that was made to point at loopback ("DNS rebinding") shows in `Host`; a page from elsewhere in `Origin`.
fn from_here(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST);
    let same_origin = |origin: &str| {
        let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        rest.is_some_and(|authority| Some(authority) == host)
    };
    host.is_none_or(is_loopback) && text(header::ORIGIN).is_none_or(same_origin)
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(host, _)| host),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[track_caller]
    fn status(path: &str, headers: &[(&str, &str)], token: Option<&str>) -> u16 {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let token = token.map(|token| Secret::new(token.to_owned()));
        let response = check(&parts, token.as_ref()).map_err(axum::response::IntoResponse::into_response);
        response.map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn guessing_is_slow_however_many_connections_guess_and_disturbs_no_other_address() {
        let patience = Patience::default();
        let now = Instant::now();
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let waits: Vec<_> = (0..PATIENT).map(|_| patience.wrong(one, now).expect("it may wait")).collect();
        assert_eq!((waits.first(), waits.last()), (Some(&PENALTY), Some(&(PENALTY * PATIENT))));
        assert_eq!(patience.wrong(one, now), None, "more of them do not even wait");
        assert_eq!(patience.wrong(other, now), Some(PENALTY));
        assert_eq!(patience.wrong(one, now + PENALTY * PATIENT), Some(PENALTY), "later it begins anew");
        for n in 0..20_000_u32 {
            patience.wrong(IpAddr::from(n.to_be_bytes()), now);
        }
        assert!(patience.0.lock().expect("no panic").len() <= ADDRESSES + 1, "and costs no memory");
    }

    const HERE: (&str, &str) = ("host", "127.0.0.1:9090");
    const TOKEN: Option<&str> = Some("0123456789abcdef");

    #[test]
    fn a_token_is_asked_for_once_it_is_set() {
        assert_eq!(status("/api/v1/status", &[HERE], TOKEN), 401);
        assert_eq!(status("/api/v1/status", &[HERE, ("authorization", "Bearer 0123456789abcdeF")], TOKEN), 401);
        assert_eq!(status("/api/v1/status", &[HERE, ("authorization", "Bearer ")], TOKEN), 401);
        assert_eq!(status("/api/v1/status", &[HERE, ("authorization", "Basic 0123456789abcdef")], TOKEN), 401);
        assert_eq!(status("/nothing", &[HERE], TOKEN), 401, "what exists is not told either");
        assert_eq!(status("/api/v1/status", &[HERE, ("authorization", "Bearer 0123456789abcdef")], TOKEN), 200);
        assert_eq!(
            status("/api/v1/status", &[("host", "x.example"), ("authorization", "bearer 0123456789abcdef")], TOKEN),
            200
        );
        for open in OPEN {
            assert_eq!(status(open, &[HERE], TOKEN), 200);
        }
    }

    #[test]
    fn a_page_from_elsewhere_cannot_use_the_operators_browser() {
        for host in ["127.0.0.1:9090", "127.0.0.1", "localhost:9090", "LOCALHOST", "[::1]:9090", "[::1]"] {
            assert_eq!(status("/api/v1/expectations", &[("host", host)], None), 200, "{host}");
            let origin = format!("http://{host}");
            assert_eq!(status("/api/v1/expectations", &[("host", host), ("origin", &origin)], None), 200, "{host}");
        }
        for host in ["rebound.example:9090", "127.0.0.1.example", "localhost.example", "[::2]", "", "192.0.2.1"] {
            assert_eq!(status("/api/v1/expectations", &[("host", host)], None), 403, "{host}");
        }
        for origin in ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1", ""] {
            assert_eq!(status("/api/v1/expectations", &[HERE, ("origin", origin)], None), 403, "{origin}");
        }
        assert_eq!(status("/api/v1/status", &[], None), 400);
        assert_eq!(status("/api/v1/status", &[HERE, HERE], None), 400);
    }
}
