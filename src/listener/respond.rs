//! Every answer of the public listener. Its status codes stand here and nowhere else.
//!
//! The sender is told a fixed short phrase. *Why* something was refused goes to the log and the metrics only: an
//! answer that explains a signature helps whoever forges one.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use crate::metrics::RefusalReason;
use crate::provider::{Answer, Refusal, RefusalStyle};
use crate::store::Unavailable;

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The provider refuses it.
    #[error(transparent)]
    Provider(Refusal),
    /// HTTP that is not to be trusted, or not HTTP at all.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// A head above `listener.max_header`.
    #[error("the head is too large")]
    HeadTooLarge,
    /// No source has this path.
    #[error("no source has this path")]
    NoSuchPath,
    /// The source's provider takes these methods only.
    #[error("method not allowed")]
    Method(&'static [Method]),
    /// A body that is encoded: what is signed is what was sent.
    #[error("a content-encoding other than identity")]
    Encoding,
    /// A body above `listener.max_body`.
    #[error("the body is too large")]
    BodyTooLarge,
    /// A head, a body or a request that took too long.
    #[error("too slow")]
    TooSlow,
    /// More connections than `listener.max_connections`.
    #[error("too many connections")]
    Connections,
    /// It cannot be kept now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl Rejection {
    /// The label of `quittance_refusals_total`; `None` for what is at no source's path.
    pub fn reason(self) -> Option<RefusalReason> {
        Some(match self {
            Self::Provider(Refusal::Malformed(_)) | Self::Malformed(_) => RefusalReason::Malformed,
            Self::Provider(Refusal::NoSignature) => RefusalReason::NoSignature,
            Self::Provider(Refusal::BadSignature(_)) => RefusalReason::BadSignature,
            Self::Provider(Refusal::WrongService) => RefusalReason::WrongService,
            Self::Provider(Refusal::WrongTag) => RefusalReason::WrongTag,
            Self::Provider(Refusal::Method) | Self::Method(_) => RefusalReason::Method,
            Self::Provider(Refusal::ContentType) | Self::Encoding => RefusalReason::ContentType,
            Self::HeadTooLarge | Self::BodyTooLarge => RefusalReason::TooLarge,
            Self::TooSlow => RefusalReason::TooSlow,
            Self::NoSuchPath => return None,
            Self::Connections | Self::Unavailable(Unavailable::Overloaded) => RefusalReason::Overloaded,
            Self::Unavailable(Unavailable::Storage) => RefusalReason::Storage,
            Self::Unavailable(Unavailable::NotReady) => RefusalReason::NotReady,
            Self::Unavailable(Unavailable::Draining) => RefusalReason::Draining,
        })
    }

    /// The one place where a refusal becomes a status.
    fn status(self) -> StatusCode {
        match self {
            Self::Provider(Refusal::Malformed(_)) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Provider(
                Refusal::NoSignature | Refusal::BadSignature(_) | Refusal::WrongService | Refusal::WrongTag,
            ) => StatusCode::UNAUTHORIZED,
            Self::Provider(Refusal::Method) | Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Provider(Refusal::ContentType) | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeadTooLarge | Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::Connections | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Seconds after which to come again, where coming again helps.
    fn retry_after(self) -> Option<&'static str> {
        match self {
            Self::Connections | Self::Unavailable(Unavailable::Overloaded) => Some("2"),
            Self::Unavailable(Unavailable::NotReady | Unavailable::Draining) => Some("5"),
            Self::Unavailable(Unavailable::Storage) => Some("30"),
            Self::Provider(_)
            | Self::Malformed(_)
            | Self::HeadTooLarge
            | Self::NoSuchPath
            | Self::Method(_)
            | Self::Encoding
            | Self::BodyTooLarge
            | Self::TooSlow => None,
        }
    }
}

/// What is said where no source can say it in its provider's words.
const NOWHERE: RefusalStyle = RefusalStyle::Phrase("REFUSED");
const WAITING_PAGE: &str = "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>One moment</title>\
    <p>One moment, please. This page tries again by itself.</p></html>\n";

/// The answer to a kept notification.
pub fn accepted(answer: Answer) -> Response<Bytes> {
    match answer {
        Answer::Phrase(phrase) => text(StatusCode::OK, phrase),
        Answer::SeeOther(page) => see_other(&page),
    }
}

/// The answer to a refused request, in the source's style; `None` where there is no source.
pub fn refused(rejection: Rejection, style: Option<&RefusalStyle>) -> Response<Bytes> {
    let status = rejection.status();
    let mut response = match style.unwrap_or(&NOWHERE) {
        RefusalStyle::Phrase(phrase) => text(status, phrase),
        RefusalStyle::Browser(page) => match status {
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => see_other(page),
            StatusCode::SERVICE_UNAVAILABLE => waiting_page(),
            // Whatever else it is, the browser did not get here by paying.
            _ => text(status, "REFUSED"),
        },
    };
    if let Some(seconds) = rejection.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
    }
    if let Rejection::Method(methods) = rejection {
        let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        if let Ok(allow) = HeaderValue::from_str(&allow) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    response
}

/// The answer to what never became a request, as bytes for the socket. It closes the connection.
pub fn refused_raw(rejection: Rejection) -> Bytes {
    raw(&refused(rejection, None))
}

/// An answer that closes its connection, as bytes for a socket.
pub(crate) fn raw(response: &Response<Bytes>) -> Bytes {
    let status = response.status();
    let mut out = BytesMut::with_capacity(512);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or("Error").as_bytes());
    let length = response.body().len().to_string();
    let fields = response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    for (name, value) in fields.chain([("content-length", length.as_bytes()), ("connection", b"close")]) {
        out.put_slice(b"\r\n");
        out.put_slice(name.as_bytes());
        out.put_slice(b": ");
        out.put_slice(value);
    }
    out.put_slice(b"\r\n\r\n");
    out.put_slice(response.body());
    out.freeze()
}

fn text(status: StatusCode, phrase: &'static str) -> Response<Bytes> {
    respond(status, "text/plain; charset=utf-8", phrase)
}

fn see_other(page: &str) -> Response<Bytes> {
    let mut response = text(StatusCode::SEE_OTHER, "");
    match HeaderValue::from_str(page) {
        Ok(page) => {
            response.headers_mut().insert(header::LOCATION, page);
            response
        }
        // Page URLs are checked with the config and orders are percent-encoded in them.
        Err(_) => text(StatusCode::OK, "OK"),
    }
}

fn waiting_page() -> Response<Bytes> {
    let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, "text/html; charset=utf-8", WAITING_PAGE);
    response.headers_mut().insert(HeaderName::from_static("refresh"), HeaderValue::from_static("5"));
    response
}

fn respond(status: StatusCode, content_type: &'static str, body: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(body.as_bytes()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(6);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAIL: RefusalStyle = RefusalStyle::Phrase("FAIL");
    const GET_POST: &[Method] = &[Method::GET, Method::POST];

    fn browser() -> RefusalStyle {
        RefusalStyle::Browser("https://shop.example.com/sorry?order=".to_owned())
    }

    fn all() -> Vec<(Rejection, u16)> {
        vec![
            (Rejection::Provider(Refusal::Malformed("x")), 400),
            (Rejection::Provider(Refusal::NoSignature), 401),
            (Rejection::Provider(Refusal::BadSignature("x")), 401),
            (Rejection::Provider(Refusal::WrongService), 401),
            (Rejection::Provider(Refusal::WrongTag), 401),
            (Rejection::Provider(Refusal::Method), 405),
            (Rejection::Provider(Refusal::ContentType), 415),
            (Rejection::Malformed("x"), 400),
            (Rejection::HeadTooLarge, 413),
            (Rejection::NoSuchPath, 404),
            (Rejection::Method(GET_POST), 405),
            (Rejection::Encoding, 415),
            (Rejection::BodyTooLarge, 413),
            (Rejection::TooSlow, 408),
            (Rejection::Connections, 503),
            (Rejection::Unavailable(Unavailable::Overloaded), 503),
            (Rejection::Unavailable(Unavailable::Storage), 503),
            (Rejection::Unavailable(Unavailable::NotReady), 503),
            (Rejection::Unavailable(Unavailable::Draining), 503),
        ]
    }

    #[test]
    fn every_refusal_has_its_status_one_phrase_and_the_closed_headers() {
        for (rejection, status) in all() {
            for style in [Some(&FAIL), None, Some(&browser())] {
                let response = refused(rejection, style);
                let headers = response.headers();
                assert_eq!(headers["cache-control"], "no-store");
                assert_eq!(headers["referrer-policy"], "no-referrer");
                assert_eq!(headers["x-content-type-options"], "nosniff");
                assert_eq!(headers.contains_key("retry-after"), status == 503, "{rejection:?}");
                if style == Some(&FAIL) {
                    assert_eq!((response.status().as_u16(), response.body().as_ref()), (status, b"FAIL".as_slice()));
                    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
                }
            }
        }
    }

    #[test]
    fn no_answer_tells_why() {
        for (rejection, _) in all() {
            let body = refused(rejection, Some(&FAIL)).into_body();
            assert!(!String::from_utf8_lossy(&body).contains(&rejection.to_string()));
        }
    }

    #[test]
    fn a_browser_is_sent_to_a_page_or_asked_to_wait() {
        for (rejection, status) in all() {
            let response = refused(rejection, Some(&browser()));
            match status {
                400 | 401 => {
                    assert_eq!(response.status(), StatusCode::SEE_OTHER);
                    assert_eq!(response.headers()["location"], "https://shop.example.com/sorry?order=");
                }
                503 => {
                    assert_eq!(
                        (response.status().as_u16(), &response.headers()["refresh"]),
                        (503, &"5".parse().unwrap())
                    );
                    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
                }
                _ => assert_eq!(response.status().as_u16(), status),
            }
        }
    }

    #[test]
    fn a_method_that_is_not_taken_is_told_those_that_are() {
        let response = refused(Rejection::Method(GET_POST), Some(&FAIL));
        assert_eq!(response.headers()["allow"], "GET, POST");
    }

    #[test]
    fn raw_answers_are_whole_http() {
        let bytes = refused_raw(Rejection::TooSlow);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{text}");
        assert!(text.contains("\r\ncontent-length: 7\r\nconnection: close\r\n\r\nREFUSED"), "{text}");
        assert!(text.contains("\r\ncache-control: no-store\r\n"), "{text}");
    }
}
