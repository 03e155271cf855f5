//! Who may ask. With a token: whoever has it. Without one the listener is on loopback, and what has to be kept out is
//! the web page that an operator happens to look at: its browser reaches loopback too.

use std::net::IpAddr;

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{StatusCode, Version};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::config::Secret;

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
