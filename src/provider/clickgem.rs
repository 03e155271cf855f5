//! ClickGem PayGate: a POST of `api_signature` and `status`, or a GET with `getid`, both at a signed return URL.
//!
//! Neither names the invoice or an amount, and `api_signature` is a static secret that may travel through the buyer's
//! browser: a buyer who cancels may see it and post `paid` himself. So both ways are worth what a browser says.

use http::Method;
use zeroize::Zeroizing;

use super::browser::{self, ReturnUrl, Returned};
use super::form::{self, Field};
use super::{
    Answer, Claim, Ordinary, Place, Proof, Provider, Received, Refusal, RefusalStyle, Refused, Verified, bearer,
    media_type, multipart,
};
use crate::config::{self, Pages, Secret};
use crate::event::{AccountName, Assurance, Details, Digest, Kind, OrderId, SourceName, Status, Verdict};
use crate::store::Committed;

const WORD: &str = "clickgem";
/// Three are documented.
const MAX_FIELDS: usize = 16;
const SIGNATURE: &str = "api_signature";

/// `clickgem`.
pub struct ClickGem {
    source: SourceName,
    account: AccountName,
    return_url: ReturnUrl,
    api_signature: Secret,
    pages: Pages,
}

/// What an authentic return says.
struct Statement {
    scheme: &'static str,
    kind: Kind,
    status: Status,
    idempotency: Digest,
    words: Vec<(&'static str, String)>,
    getid: Option<String>,
}

impl ClickGem {
    /// With the settings of one source.
    pub fn new(source: &config::Source, settings: &config::ClickGem) -> Self {
        Self {
            source: source.name.clone(),
            account: source.account.clone(),
            return_url: ReturnUrl::new(source, &settings.return_secret),
            api_signature: settings.api_signature.clone(),
            pages: settings.pages.clone(),
        }
    }

    fn judge(&self, method: &Method, returned: &Returned) -> Result<Statement, Refusal> {
        if !self.return_url.proves(returned) {
            return Err(Refusal::WrongTag);
        }
        let getid = match returned.text("getid") {
            Some(text) => Some(getid(text).ok_or(Refusal::Malformed("getid is not 32 hexadecimal digits"))?),
            None => None,
        };
        let order = returned.order.as_str();
        let key = |parts: [&str; 3]| Digest::of_parts(parts.map(|part| Some(part.as_bytes())));
        if *method == Method::GET {
            let id = getid.as_deref().ok_or(Refusal::Malformed("getid is missing"))?;
            return Ok(Statement {
                scheme: "return-url",
                kind: Kind::Payment,
                status: Status::Unknown,
                idempotency: key(["get", order, id]),
                words: vec![("getid", id.to_owned())],
                getid,
            });
        }
        let presented = returned.text(SIGNATURE).ok_or(Refusal::NoSignature)?;
        if bearer::position(std::slice::from_ref(&self.api_signature), presented).is_none() {
            return Err(Refusal::BadSignature("api_signature is not ours"));
        }
        let word = returned.text("status").ok_or(Refusal::Malformed("status is missing"))?;
        let (kind, status) = match word {
            "paid" => (Kind::Payment, Status::Paid),
            "partial_paid" => (Kind::Payment, Status::PartiallyPaid),
            "cancelled" | "canceled" => (Kind::Payment, Status::Canceled),
            "refunded" => (Kind::Refund, Status::Refunded),
            _ => (Kind::Payment, Status::Unknown),
        };
        let idempotency = key(["post", order, word]);
        Ok(Statement { scheme: "key", kind, status, idempotency, words: vec![("status", word.to_owned())], getid })
    }
}

impl Provider for ClickGem {
    fn word(&self) -> &'static str {
        WORD
    }

    fn methods(&self) -> &'static [Method] {
        &[Method::GET, Method::POST]
    }

    fn has_return_url(&self) -> bool {
        true
    }

    fn verify(&self, mut received: Received) -> Result<Verified, Refused> {
        let methods = [Method::GET, Method::POST];
        let read = if methods.contains(&received.method) { read(&received) } else { Err(Refusal::Method) };
        let returned = match read {
            Ok(returned) => returned,
            Err(refusal) => {
                let cuts = browser::cut_everything(&received);
                bearer::withhold_headers(&mut received.headers, &[received.rest.as_bytes()]);
                return Err(Refused::for_good(refusal, received).cutting(cuts));
            }
        };
        let cuts = returned.cuts(SIGNATURE);
        let secret = returned.text(SIGNATURE).unwrap_or_default();
        bearer::withhold_headers(&mut received.headers, &[returned.tag.as_bytes(), secret.as_bytes()]);
        let statement = match self.judge(&received.method, &returned) {
            Ok(statement) => statement,
            Err(refusal) => return Err(Refused::for_now(refusal, received).cutting(cuts)),
        };
        let provider_fields = returned.told(SIGNATURE);
        let details = Details { order_id: Some(returned.order), provider_fields, ..Details::default() };
        let words: Vec<(&str, &str)> = statement.words.iter().map(|(name, word)| (*name, word.as_str())).collect();
        let digest = Verified::digest_of(statement.kind, &words, &details);
        Ok(Verified {
            source: self.source.clone(),
            account: self.account.clone(),
            provider: WORD,
            received,
            cuts,
            scheme: statement.scheme,
            key: 1,
            kind: statement.kind,
            claim: Claim::Status(statement.status),
            details,
            assurance: Assurance::Browser,
            unproven: Vec::new(),
            ambiguity: None,
            problems: Vec::new(),
            idempotency: statement.idempotency,
            digest,
            signed: None,
            getid: statement.getid,
            accept_indicator: false,
            proof: Proof::shown(),
        })
    }

    fn answer(&self, committed: &Committed) -> Answer {
        // Whoever is sent to the failure page pays twice: nobody who may have paid goes there.
        let pending = self.pages.pending.as_ref().unwrap_or(&self.pages.success);
        let page = match committed.status {
            Status::Paid if committed.verdict != Verdict::Hold => &self.pages.success,
            Status::Paid => pending,
            _ if committed.order_paid => &self.pages.success,
            Status::PartiallyPaid | Status::Pending | Status::Unknown => pending,
            Status::Failed | Status::Canceled | Status::Refunded => &self.pages.failure,
        };
        Answer::SeeOther(page.render(committed.order.as_ref()))
    }

    fn refusal_style(&self) -> RefusalStyle {
        RefusalStyle::Browser(self.pages.failure.render(None))
    }

    fn return_path(&self, order: &OrderId) -> Option<String> {
        self.return_url.path_of(order)
    }

    fn carries_order(&self, order: &OrderId) -> bool {
        order.fits_url()
    }

    fn secrets(&self, cut: &Received) -> Vec<Zeroizing<Vec<u8>>> {
        let tag = self.return_url.tag_of(cut);
        tag.into_iter().chain(bearer::as_sent(&self.api_signature)).collect()
    }

    fn ordinary(&self) -> Ordinary {
        Ordinary {
            verdict: Verdict::Hold,
            with_expectation: Verdict::Hold,
            why: "the buyer's browser may have written it, and it names no amount to compare".to_owned(),
            remedy: "register each order with its getid (`quittance expect --session`), which shows a return that \
                     belongs to another order, and settle against ClickGem's own list"
                .to_owned(),
            neighbours: Vec::new(),
        }
    }
}

/// The return URL with what was appended to it and what was posted.
fn read(received: &Received) -> Result<Returned, Refusal> {
    let mut returned = Returned::read(received, MAX_FIELDS)?;
    if received.method == Method::POST && !received.body.is_empty() {
        for field in posted(received)? {
            if returned.fields.iter().any(|(_, known)| known.name == field.name) {
                return Err(Refusal::Malformed("a parameter stands twice"));
            }
            returned.fields.push((Place::Body, field));
        }
    }
    Ok(returned)
}

/// The fields of a body, urlencoded or multipart.
fn posted(received: &Received) -> Result<Vec<Field>, Refusal> {
    let media_type = media_type::of(&received.headers).map_err(|()| Refusal::ContentType)?;
    let fields = match media_type.as_ref().map(|known| (known.essence.as_str(), known.parameters.as_str())) {
        None | Some(("application/x-www-form-urlencoded", _)) => form::fields(&received.body, MAX_FIELDS),
        Some(("multipart/form-data", parameters)) => {
            let boundary = multipart::boundary(parameters).ok_or(Refusal::Malformed("no multipart boundary"))?;
            multipart::fields(&received.body, boundary, MAX_FIELDS)
        }
        Some(_) => return Err(Refusal::ContentType),
    };
    fields.map_err(browser::refusal)
}

/// A `getid`: 32 hexadecimal digits, in lower case whatever was sent; `None` for anything else.
pub fn getid(text: &str) -> Option<String> {
    (text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
