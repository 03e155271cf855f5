//! What the two browser providers share: signed return URLs, and the pages a buyer is sent to.
//!
//! Their notifications name no order, so the return URL does: `<public_url><path>/<order_id>/<tag>`. The tag is the
//! base64url of the first 16 bytes of HMAC-SHA256(return_secret, "v1\0<source>\0<order_id>"). It shows that we made
//! the URL for this order, not that anybody paid: the buyer sees it.

use std::ops::Range;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::bearer::hmac_sha256;
use super::form::{self, Field, FormError};
use super::{Cut, Place, Received, Refusal};
use crate::config::Secret;
use crate::event::{OrderId, SourceName};

const PLACEHOLDER: &str = "{order_id}";
const MAX_URL: usize = 2048;
const TAG_BYTES: usize = 16;

/// A page URL with at most `{order_id}` in its path or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageUrl(String);

impl PageUrl {
    /// Checks that it is an absolute http(s) URL and that `{order_id}` stands in path or query only.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to do.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            |what: &str| Err(format!("{what}: write it like https://shop.example.com/thanks?order={{order_id}}"));
        let Some(behind_scheme) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
            return wrong("not an absolute http or https URL");
        };
        let authority_len = behind_scheme.find(['/', '?', '#']).unwrap_or(behind_scheme.len());
        let (authority, path_and_query) = behind_scheme.split_at(authority_len);
        if authority.contains(['{', '}']) {
            return wrong("{order_id} stands in the host");
        }
        if authority.contains('@') {
            return wrong("credentials have no place in it");
        }
        let host = authority.parse::<http::uri::Authority>();
        if host.map_or(true, |host| host.host().is_empty()) {
            return wrong("its host is not one");
        }
        let (target, fragment) = path_and_query.split_once('#').unwrap_or((path_and_query, ""));
        if fragment.contains(PLACEHOLDER) {
            return wrong("{order_id} stands behind the #, which no server sees");
        }
        let plain = target.replace(PLACEHOLDER, "") + fragment;
        let fits_a_header = plain.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
        if !fits_a_header {
            return wrong("it holds a space, a brace or another character that must be percent-encoded");
        }
        if text.len() > MAX_URL {
            return wrong("longer than 2048 characters");
        }
        Ok(Self(text.to_owned()))
    }

    /// The URL with the order percent-encoded in its place; empty there for `None`.
    pub fn render(&self, order: Option<&OrderId>) -> String {
        const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');
        let order = order.map(|order| percent_encode(order.as_str().as_bytes(), ENCODED).to_string());
        self.0.replace(PLACEHOLDER, &order.unwrap_or_default())
    }
}

/// Makes and checks the return URLs of one source.
pub(super) struct ReturnUrl {
    source: SourceName,
    path: String,
    secret: Secret,
}

impl ReturnUrl {
    pub(super) fn new(source: &crate::config::Source, secret: &Secret) -> Self {
        Self { source: source.name.clone(), path: source.path.clone(), secret: secret.clone() }
    }

    /// `<path>/<order_id>/<tag>`; `None` where the order does not fit a URL.
    pub(super) fn path_of(&self, order: &OrderId) -> Option<String> {
        order.fits_url().then(|| format!("{}/{order}/{}", self.path, self.tag(order)))
    }

    /// The tag that belongs to the order in a request of which the tag was cut out.
    pub(super) fn tag_of(&self, cut: &Received) -> Option<Zeroizing<Vec<u8>>> {
        let order = cut.rest.strip_prefix('/')?.split('/').next()?;
        let order = OrderId::new(order).filter(OrderId::fits_url)?;
        Some(Zeroizing::new(self.tag(&order).into_bytes()))
    }

    /// Whether the tag belongs to the order. Constant time.
    pub(super) fn proves(&self, returned: &Returned) -> bool {
        self.tag(&returned.order).as_bytes().ct_eq(returned.tag.as_bytes()).into()
    }

    fn tag(&self, order: &OrderId) -> String {
        let message = format!("v1\0{}\0{}", self.source.as_str(), order.as_str());
        let mac = hmac_sha256(&self.secret, message.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(mac.get(..TAG_BYTES).unwrap_or_default())
    }
}

/// What stands in the URL at which a buyer's browser came back.
pub(super) struct Returned {
    pub(super) order: OrderId,
    /// As sent; not checked yet.
    pub(super) tag: String,
    /// Where the tag stands in the path.
    pub(super) tag_range: Range<usize>,
    /// What was appended to the URL.
    pub(super) fields: Vec<(Place, Field)>,
}

impl Returned {
    /// Takes the URL apart. How a gateway appends to it is not documented: `?` and `&` are taken for each other,
    /// before and within what it appends.
    ///
    /// # Errors
    /// What is missing or stands twice.
    pub(super) fn read(received: &Received, max_fields: usize) -> Result<Self, Refusal> {
        let path = received.path.as_str();
        let segments = received.rest.strip_prefix('/').filter(|_| path.ends_with(&received.rest));
        let (order, tail) = segments.and_then(|rest| rest.split_once('/')).ok_or(Refusal::NoSignature)?;
        let (tag, appended) = tail.find('&').map_or((tail, ""), |at| tail.split_at(at));
        let order =
            OrderId::new(order).filter(OrderId::fits_url).ok_or(Refusal::Malformed("not an order's return URL"))?;
        if tag.is_empty() {
            return Err(Refusal::NoSignature);
        }
        let appended_at = path.len() - appended.len();
        let tag_range = appended_at - tag.len()..appended_at;
        let mut fields: Vec<(Place, Field)> = Vec::new();
        for (place, offset, text) in
            [(Place::Path, appended_at, appended), (Place::Query, 0, received.query.as_deref().unwrap_or_default())]
        {
            for mut field in form::fields(text.replace('?', "&").as_bytes(), max_fields).map_err(refusal)? {
                if fields.iter().any(|(_, known)| known.name == field.name) {
                    return Err(refusal(FormError::Repeated));
                }
                field.range = field.range.start + offset..field.range.end + offset;
                fields.push((place, field));
            }
        }
        Ok(Self { order, tag: tag.to_owned(), tag_range, fields })
    }

    /// The value of a parameter; an empty one is none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(_, field)| field.name == name);
        field.map(|(_, field)| field.value.as_str()).filter(|value| !value.is_empty())
    }

    /// The tag, the parameter `name`, and every other parameter that repeats it.
    pub(super) fn cuts(&self, name: &str) -> Vec<Cut> {
        let tag = Cut { place: Place::Path, range: self.tag_range.clone() };
        let secret = self.fields.iter().filter(|(_, field)| self.is_secret(field, name) && !field.range.is_empty());
        std::iter::once(tag)
            .chain(secret.map(|(place, field)| Cut { place: *place, range: field.range.clone() }))
            .collect()
    }

    /// Every parameter that is not secret.
    pub(super) fn told(&self, name: &str) -> Vec<(String, String)> {
        let told = self.fields.iter().filter(|(_, field)| !self.is_secret(field, name));
        told.map(|(_, field)| (field.name.clone(), field.value.clone())).collect()
    }

    fn is_secret(&self, field: &Field, name: &str) -> bool {
        let repeats = |secret: &str| {
            let secret = secret.as_bytes();
            super::bearer::stands_in(secret, field.value.as_bytes())
                || super::bearer::stands_in(secret, field.name.as_bytes())
        };
        // `api_signature[]`, too: whoever misspells the name has written the secret all the same.
        field.name.contains(name)
            || repeats(&self.tag)
            || self.text(name).is_some_and(|secret| secret.len() >= 8 && repeats(secret))
    }
}

/// Why a form refuses a request.
pub(super) fn refusal(error: FormError) -> Refusal {
    match error {
        FormError::NotAForm => Refusal::Malformed("not a form"),
        FormError::Repeated => Refusal::Malformed("a parameter stands twice"),
        FormError::TooManyFields => Refusal::Malformed("too many parameters"),
    }
}

/// Everything in which a bearer secret could stand, for requests that cannot be read.
pub(super) fn cut_everything(received: &Received) -> Vec<Cut> {
    let path = received.path.len();
    let query = received.query.as_ref().map_or(0, String::len);
    let cuts = [
        (Place::Path, path.saturating_sub(received.rest.len())..path),
        (Place::Query, 0..query),
        (Place::Body, 0..received.body.len()),
    ];
    cuts.into_iter().filter(|(_, range)| !range.is_empty()).map(|(place, range)| Cut { place, range }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// A return URL's tag as the openssl command line makes it.
    pub(in crate::provider) fn openssl_tag(secret: &str, source: &str, order: &str) -> String {
        let mut openssl = Command::new("openssl")
            .args(["dgst", "-sha256", "-binary", "-hmac", secret])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        let message = format!("v1\0{source}\0{order}");
        openssl.stdin.take().expect("a pipe").write_all(message.as_bytes()).expect("openssl reads");
        let mac = openssl.wait_with_output().expect("openssl runs").stdout;
        BASE64_URL_SAFE_NO_PAD.encode(&mac[..16])
    }

    #[test]
    fn a_page_url_carries_the_order_encoded_and_nowhere_else() {
        let page =
            PageUrl::parse("https://shop.example.com/{order_id}/thanks?order={order_id}&x=1#top").expect("a page");
        let order = OrderId::new("a/b?é\r\n&..").expect("an order");
        let encoded = "a%2Fb%3F%C3%A9%0D%0A%26%2E%2E";
        assert_eq!(
            page.render(Some(&order)),
            format!("https://shop.example.com/{encoded}/thanks?order={encoded}&x=1#top")
        );
        assert_eq!(page.render(None), "https://shop.example.com//thanks?order=&x=1#top");
        assert!(PageUrl::parse("http://localhost:8080").is_ok());
    }

    #[test]
    fn what_is_no_page_is_refused_with_a_remedy() {
        for bad in [
            "",
            "/thanks",
            "shop.example.com/thanks",
            "javascript:alert(1)",
            "ftp://shop.example.com/",
            "https://",
            "https:///thanks",
            "https://{order_id}.example.com/",
            "https://shop.example.com:{order_id}/",
            "https://user:pass@shop.example.com/",
            "https://shop.example.com/#/{order_id}",
            "https://shop.example.com/{order}",
            "https://shop.example.com/a b",
            "https://shop.example.com/\r\nx: y",
            "https://shop.example.com/é",
            "https://shop.example.com/{{order_id}}",
            "HTTPS//x",
            &format!("https://x/{}", "a".repeat(2048)),
        ] {
            let why = PageUrl::parse(bad).expect_err(bad);
            assert!(why.contains("https://shop.example.com/thanks"), "{bad}: {why}");
        }
    }
}
