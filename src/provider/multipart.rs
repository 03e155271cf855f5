//! `multipart/form-data` for a handful of short text fields, strictly: no files, no preamble, no transfer encodings.

use std::ops::Range;

use super::form::{Field, FormError};

/// The boundary in the parameters of a `multipart/form-data` content type: 1 to 70 characters that need no care.
pub(super) fn boundary(parameters: &str) -> Option<&str> {
    let mut found = None;
    for parameter in parameters.split(';') {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case("boundary") {
            let value = value.trim();
            let bare = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'))?;
            if found.replace(bare).is_some() {
                return None;
            }
        }
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte);
    found.filter(|text| (1..=70).contains(&text.len()) && text.bytes().all(is_plain))
}

/// The fields of a body in order, at most `max_fields`, no name twice. Ranges say where each value stands in `body`.
///
/// # Errors
/// [`FormError`]; `NotAForm` for a file, too.
pub(super) fn fields(body: &[u8], boundary: &str, max_fields: usize) -> Result<Vec<Field>, FormError> {
    let mut fields: Vec<Field> = Vec::new();
    let delimiter = format!("\r\n--{boundary}");
    let opening = delimiter.as_bytes().get(2..).unwrap_or_default();
    let mut at = if body.starts_with(opening) { opening.len() } else { return Err(FormError::NotAForm) };
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if let Some(epilogue) = rest.strip_prefix(b"--") {
            let closed = epilogue.is_empty() || epilogue == b"\r\n";
            return if closed && !fields.is_empty() { Ok(fields) } else { Err(FormError::NotAForm) };
        }
        if !rest.starts_with(b"\r\n") {
            return Err(FormError::NotAForm);
        }
        let head_end = memchr::memmem::find(rest, b"\r\n\r\n").ok_or(FormError::NotAForm)?;
        let start = at + head_end + 4;
        let value = body.get(start..).unwrap_or_default();
        let len = memchr::memmem::find(value, delimiter.as_bytes()).ok_or(FormError::NotAForm)?;
        if fields.len() >= max_fields {
            return Err(FormError::TooManyFields);
        }
        let field = field(body, at + 2..at + head_end, start..start + len)?;
        if fields.iter().any(|known| known.name == field.name) {
            return Err(FormError::Repeated);
        }
        fields.push(field);
        at = start + len + delimiter.len();
    }
}

/// One part: its header lines and its value.
fn field(body: &[u8], head: Range<usize>, range: Range<usize>) -> Result<Field, FormError> {
    let text = |range: Range<usize>| {
        body.get(range).and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or(FormError::NotAForm)
    };
    let mut name = None;
    for line in text(head)?.split("\r\n") {
        let (header, value) = line.split_once(':').ok_or(FormError::NotAForm)?;
        let well_formed = match header.to_ascii_lowercase().as_str() {
            "content-disposition" => name.replace(field_name(value).ok_or(FormError::NotAForm)?).is_none(),
            // Says how the value is encoded: taken for what it is only where that changes nothing.
            "content-transfer-encoding" => {
                ["7bit", "8bit", "binary"].iter().any(|same| value.trim().eq_ignore_ascii_case(same))
            }
            _ => true,
        };
        if !well_formed {
            return Err(FormError::NotAForm);
        }
    }
    let value = text(range.clone())?.to_owned();
    Ok(Field { name: name.ok_or(FormError::NotAForm)?.to_owned(), value, range })
}

/// `form-data; name="status"` and nothing else.
fn field_name(disposition: &str) -> Option<&str> {
    let (kind, rest) = disposition.split_once(';')?;
    let (parameter, value) = rest.split_once('=')?;
    let value = value.trim();
    let name = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => value,
    };
    let plain = !name.is_empty() && !name.contains(['"', '\\', ';', '%']) && !name.chars().any(char::is_control);
    let is_field = kind.trim().eq_ignore_ascii_case("form-data") && parameter.trim().eq_ignore_ascii_case("name");
    (is_field && plain).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &str = "--b1\r\nContent-Disposition: form-data; name=\"api_signature\"\r\n\r\nsecret\r\n\
        --b1\r\nContent-Type: text/plain; charset=UTF-8\r\ncontent-disposition: form-data; name=status\r\n\r\n\r\n--b1--\r\n";

    #[test]
    fn fields_are_read_with_their_place() {
        let fields = fields(BODY.as_bytes(), "b1", 4).expect("a form");
        let found: Vec<_> =
            fields.iter().map(|f| (f.name.as_str(), f.value.as_str(), &BODY[f.range.clone()])).collect();
        assert_eq!(found, [("api_signature", "secret", "secret"), ("status", "", "")]);
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        let part = |disposition: &str| format!("--b\r\nContent-Disposition: {disposition}\r\n\r\n1\r\n--b--");
        assert!(fields(part("form-data; name=\"a\"").as_bytes(), "b", 4).is_ok());
        for bad in [
            "form-data",
            "form-data; name=\"a\"; filename=\"x\"",
            "form-data; name=\"a\\\"b\"",
            "attachment; name=\"a\"",
            "form-data; filename=\"a\"",
            "form-data; name=\"\"",
            "form-data; name=\"a",
            "form-data; name*=utf-8''a",
            "form-data; name=a\r\nContent-Disposition: form-data; name=b",
            "form-data; name=a\r\nContent-Transfer-Encoding: base64",
            "form-data; name=a\r\nnothing",
        ] {
            assert_eq!(fields(part(bad).as_bytes(), "b", 4), Err(FormError::NotAForm), "{bad}");
        }
        let whole = part("form-data; name=\"a\"");
        for bad in [
            "".to_owned(),
            "--b--".to_owned(),
            format!("preamble\r\n{whole}"),
            format!("{whole}\r\nepilogue"),
            whole.replace("--b--", "--b"),
            whole.replace("--b--", "--bc"),
            whole.replace("\r\n", "\n"),
        ] {
            assert_eq!(fields(bad.as_bytes(), "b", 4), Err(FormError::NotAForm), "{bad:?}");
        }
        assert_eq!(
            fields(b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--b--", "b", 4),
            Err(FormError::NotAForm)
        );
        let twice = format!("{}{}", whole.trim_end_matches("--b--"), whole);
        assert_eq!(fields(twice.as_bytes(), "b", 4), Err(FormError::Repeated));
        assert_eq!(fields(BODY.as_bytes(), "b1", 1), Err(FormError::TooManyFields));
    }

    #[test]
    fn a_boundary_is_one_plain_word() {
        assert_eq!(boundary("boundary=----WebKitFormBoundaryX"), Some("----WebKitFormBoundaryX"));
        assert_eq!(boundary("charset=utf-8; Boundary=\"a b\""), None);
        assert_eq!(boundary("charset=utf-8; Boundary=\"ab\""), Some("ab"));
        for bad in ["", "boundary=", "boundary=\"a", "boundary=a; boundary=b", &format!("boundary={}", "a".repeat(71))]
        {
            assert_eq!(boundary(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_fields_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..80), at in 0..BODY.len(), mut body in Just(BODY.as_bytes().to_vec()),
        ) {
            let _ = fields(&bytes, "b1", 4);
            body.splice(at..at, bytes.iter().take(4).copied());
            for field in fields(&body, "b1", 4).unwrap_or_default() {
                prop_assert_eq!(body.get(field.range), Some(field.value.as_bytes()));
            }
        }
    }
}
