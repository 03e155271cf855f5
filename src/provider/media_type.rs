//! What a request says its body is.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// A `Content-Type`: the essence in lower case (`application/json`) and what stands behind its `;`, as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    pub(super) essence: String,
    pub(super) parameters: String,
}

/// `Ok(None)` where the request says nothing; `Err` where it says two things, or something that is no text.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<MediaType>, ()> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    let text = value.to_str().map_err(|_| ())?;
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let essence = essence.trim().to_ascii_lowercase();
    Ok(Some(MediaType { essence, parameters: parameters.trim().to_owned() }))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_content_type_is_read_without_its_parameters_and_not_twice() {
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers), Ok(None));
        headers.append(CONTENT_TYPE, HeaderValue::from_static("Application/JSON ; charset=utf-8"));
        let read = of(&headers).expect("one").expect("some");
        assert_eq!((read.essence.as_str(), read.parameters.as_str()), ("application/json", "charset=utf-8"));
        headers.append(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert_eq!(of(&headers), Err(()));
    }
}
