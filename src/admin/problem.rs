//! Errors of the admin listener: `application/problem+json` (RFC 9457), each with a sentence that says what to do.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderValue};
use serde_json::{Map, Value, json};

use crate::listener::connection::HeadFault;
use crate::listener::respond::{self, Rejection};
use crate::replay::ReplayError;
use crate::sink::feed::FeedError;
use crate::store::operate::SettleError;
use crate::store::{ExpectError, StoreError, Unavailable};

/// An error as it is told.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    more: Map<String, Value>,
    retry_after: Option<&'static str>,
}

impl Problem {
    /// With a status and a sentence. The sentence never repeats what was sent: that may hold a secret.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), more: Map::new(), retry_after: None }
    }
    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
    /// 409.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }
    /// 422.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }
    /// 500; the reason was logged.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong here; the log says what")
    }
    /// Whether it is a 401.
    pub fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }
    /// With one more member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    fn to_json(&self) -> Vec<u8> {
        let mut document = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(document) = document.as_object_mut() {
            document.extend(self.more.clone());
        }
        document.to_string().into_bytes()
    }

    fn respond(&self) -> http::Response<Bytes> {
        let mut response = http::Response::new(Bytes::from(self.to_json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.respond().map(Body::from)
    }
}

/// The answer to a head that never became a request, as bytes for the socket.
pub fn head_fault(fault: HeadFault) -> Bytes {
    let (status, detail) = match fault {
        HeadFault::Malformed => (StatusCode::BAD_REQUEST, "not HTTP/1.1"),
        HeadFault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the head is too large"),
        HeadFault::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the head took too long"),
    };
    respond::raw(&Problem::new(status, detail).respond())
}

/// The answer to a connection above the limit, as bytes for the socket.
pub fn too_many_connections() -> Bytes {
    respond::raw(&Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections").respond())
}

impl From<Rejection> for Problem {
    /// What can go wrong while a body is taken in.
    fn from(rejection: Rejection) -> Self {
        let status = match rejection {
            Rejection::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::TooSlow => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, rejection.to_string())
    }
}

impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, unavailable.to_string());
        Self { retry_after: Some("5"), ..problem }
    }
}

impl From<ExpectError> for Problem {
    fn from(error: ExpectError) -> Self {
        match error {
            ExpectError::Contradicts | ExpectError::TooManyOpen => Self::new(StatusCode::CONFLICT, error.to_string()),
            ExpectError::Unfit(why) => Self::unprocessable(why),
            ExpectError::NoSource => Self::unprocessable("there is no such source"),
            ExpectError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<SettleError> for Problem {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::NoSuchEvent => Self::not_found(error.to_string()),
            SettleError::Settled { by, .. } => Self::conflict(error.to_string()).with("settled_by", by.to_string()),
            SettleError::NotHeld(_)
            | SettleError::NothingToBook(_)
            | SettleError::ToldBefore
            | SettleError::PaidByAnother
            | SettleError::ForeignGetId => Self::conflict(error.to_string()),
            SettleError::Unreadable => Self::internal(),
            SettleError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<ReplayError> for Problem {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::TooMany => Self::conflict(error.to_string()),
            ReplayError::NoBroker | ReplayError::Missing(_) => Self::unprocessable(error.to_string()),
            ReplayError::Store(error) => error.into(),
            ReplayError::Unavailable(unavailable) => unavailable.into(),
            ReplayError::Broken => Self::internal(),
        }
    }
}

impl From<FeedError> for Problem {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Malformed => Self::bad_request("the cursor is malformed: use one that the feed gave"),
            FeedError::Gone { why, oldest } => Self::new(StatusCode::GONE, why).with("oldest", oldest),
            FeedError::NotOpen => Unavailable::NotReady.into(),
            FeedError::Store(error) => error.into(),
            FeedError::Event(_) | FeedError::Broken => {
                tracing::error!(error = &error as &dyn std::error::Error, "the feed");
                Self::internal()
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "reading the store");
        match error {
            // Its thread builds it anew, and what was asked can be asked again.
            StoreError::Index(_) => Unavailable::Storage.into(),
            StoreError::Read { .. } | StoreError::Damaged(_) => Self::internal(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_is_built_anew_can_be_asked_again() {
        let told = |error: StoreError| {
            let problem = Problem::from(error);
            (problem.status.as_u16(), problem.retry_after.is_some())
        };
        assert_eq!(told(StoreError::Index("it fails".to_owned())), (503, true));
        assert_eq!(told(StoreError::Damaged("byte 7".to_owned())), (500, false));
    }
}
