//! Providers: from the bytes of one request to a statement that can be believed, or a typed refusal.
//!
//! Pure and synchronous. Bytes, headers, query, source settings and the time of arrival go in; [`Verified`] or
//! [`Refused`] comes out. No I/O, no store, no async may enter this module. Wire facts: each provider's own file.

pub mod bearer;
pub mod browser;
pub mod clickgem;
pub mod clickkw;
pub mod clickpay;
pub mod form;
pub mod json;
mod media_type;
mod multipart;
pub mod paygol;
pub mod paygol_legacy;
pub mod php_json;
mod reverified;
pub mod rsa_recovery;
pub mod split;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::config::{ProviderSettings, Source};
use crate::event::{AccountName, Assurance, Details, Digest, Kind, OrderId, Reason, SourceName, Status, Verdict};
use crate::store::Committed;
pub use reverified::Reverified;

/// One HTTP request from outside at a source's path, whole.
#[derive(Clone)]
pub struct Received {
    /// Request method.
    pub method: Method,
    /// The request's path as sent, without query.
    pub path: String,
    /// What follows the source's configured path: empty, or `/<order_id>/<tag>` for return URLs.
    pub rest: String,
    /// The query without its `?`, as sent.
    pub query: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as sent; at most `listener.max_body` bytes.
    pub body: Bytes,
    /// The peer's address.
    pub remote: IpAddr,
    /// When the first byte arrived.
    pub at: Timestamp,
}

/// A notification whose authenticity was shown. Only a provider's `verify` makes one.
#[derive(Debug)]
pub struct Verified {
    /// The source that received it.
    pub source: SourceName,
    /// Its account.
    pub account: AccountName,
    /// The provider's word.
    pub provider: &'static str,
    /// The request as it came; bearer secrets are still in it, `cuts` says where.
    pub received: Received,
    /// Bearer secrets that must not be kept.
    pub cuts: Vec<Cut>,
    /// How it was authenticated, for `show`: `rsa-recovery`, `hmac-sha256-canonical`, `hmac-sha256-raw`, `key`,
    /// `return-url`.
    pub scheme: &'static str,
    /// Which of the source's keys or secrets held, its position in the config from 1.
    pub key: u16,
    /// What moves.
    pub kind: Kind,
    /// What is said to have happened.
    pub claim: Claim,
    /// Everything else that is said.
    pub details: Details,
    /// Signed, ambiguous, bearer or browser.
    pub assurance: Assurance,
    /// Fields in which possible cuts differ.
    pub unproven: Vec<String>,
    /// What else the signed string could say; only where `assurance` is ambiguous.
    pub ambiguity: Option<split::Ambiguity>,
    /// Why this must be held although it is authentic: `contradiction`, `field_set`, `order_pattern`,
    /// `amount_unreadable`, `no_order`.
    pub problems: Vec<Reason>,
    /// The idempotency key within the source, over its parts with lengths ([`Digest::of_parts`]).
    pub idempotency: Digest,
    /// The digest over what decides (design, section 1), [`Verified::digest_of`].
    pub digest: Digest,
    /// ClickPay: the signed string's hash, the same for every way to cut it.
    pub signed: Option<SignedString>,
    /// ClickGem: the `getid` that came along.
    pub getid: Option<String>,
    /// Click KW: the source says `accept_indicator = true`.
    pub accept_indicator: bool,
    /// Private, so that nothing outside this module can build the type.
    #[expect(dead_code, reason = "it is there to be needed, not to be read")]
    proof: Proof,
}

/// Shows that the code that made a [`Verified`] stands in a provider.
#[derive(Debug)]
pub struct Proof(());

/// What a notification says happened.
#[derive(Debug)]
pub enum Claim {
    /// The message itself names the state.
    Status(Status),
    /// Click KW: a word, and an indicator that only the order's registered sessions can judge. The committer does.
    Indicator {
        /// `message=success`; else `message=error`.
        success: bool,
        /// `indicator_status`, a bearer secret. `None` when missing.
        indicator: Option<Bearer>,
    },
}

/// The signed string of a scheme that signs values only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedString {
    /// SHA-256 of the key that verified it, so that sources sharing a key share the memory of what it signed.
    pub key: Digest,
    /// SHA-256 of the string.
    pub hash: Digest,
}

/// A secret that travelled in a request. Never printed, wiped when dropped.
#[derive(Clone)]
pub struct Bearer(Zeroizing<String>);

/// A bearer secret to be cut out of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where it stood.
    pub place: Place,
    /// Byte range within that place.
    pub range: std::ops::Range<usize>,
}

/// A part of a request from which something is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The path.
    Path,
    /// The query string.
    Query,
    /// The body.
    Body,
}

impl Place {
    /// One byte for what is kept, fixed for ever.
    pub fn code(self) -> u8 {
        match self {
            Self::Path => 0,
            Self::Query => 1,
            Self::Body => 2,
        }
    }
    /// The place of a kept byte.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Path, Self::Query, Self::Body].into_iter().find(|place| place.code() == code)
    }
}

/// Why a request at a known path is not let in, and whether it may yet prove genuine.
#[derive(Debug)]
pub struct Refused {
    /// The reason: for log and metrics, never for the sender.
    pub refusal: Refusal,
    /// The request, for the quarantine.
    pub received: Box<Received>,
    /// A signature was there, and the key, not the sender, may be what is wrong.
    pub may_be_genuine: bool,
    /// What looks like a bearer secret in it: a wrong key may be tomorrow's right one, so the quarantine must not
    /// keep it readable either.
    pub cuts: Vec<Cut>,
}

/// The reasons for which a provider refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What cannot be authenticated because it cannot be read.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// No signature, key or tag at all.
    #[error("no signature")]
    NoSignature,
    /// A signature that no configured key verifies.
    #[error("bad signature: {0}")]
    BadSignature(&'static str),
    /// Authentic, but for another service than the source's.
    #[error("service_id is not the source's")]
    WrongService,
    /// The return URL's tag does not belong to its order.
    #[error("the return URL's tag is wrong")]
    WrongTag,
    /// Another method than the provider's.
    #[error("method not allowed")]
    Method,
    /// Another content type than the provider's.
    #[error("content type not supported")]
    ContentType,
}

/// What the sender is told after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200 with this text.
    Phrase(&'static str),
    /// 303 to this page.
    SeeOther(String),
}

/// How a source answers what it does not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalStyle {
    /// One fixed short phrase, whatever the reason.
    Phrase(&'static str),
    /// A buyer's browser: 400 and 401 become 303 to this page, 503 a page that tries again.
    Browser(String),
}

/// What verdict a genuine, ordinary payment of a source gets, why, and what would make it better. Printed by
/// `check` and `serve`.
#[derive(Clone, Debug)]
pub struct Ordinary {
    /// Without an expectation.
    pub verdict: Verdict,
    /// With a matching expectation.
    pub with_expectation: Verdict,
    /// Why, in a sentence.
    pub why: String,
    /// What to set for a better one; empty where nothing can be done.
    pub remedy: String,
    /// ClickPay: neighbouring fields between which bytes can move under this source's grammars, a line each.
    pub neighbours: Vec<String>,
}

/// One protocol with the settings of one source.
pub trait Provider: Send + Sync + 'static {
    /// The provider's word: `clickpay`, `paygol`, `paygol-legacy`, `clickkw`, `clickgem`.
    fn word(&self) -> &'static str;
    /// The methods it takes, for 405's `Allow`.
    fn methods(&self) -> &'static [Method];
    /// Whether notifications arrive at `<path>/<order_id>/<tag>` rather than at the path itself.
    fn has_return_url(&self) -> bool {
        false
    }
    /// Proves a request or refuses it. Total: any bytes give one or the other, never a panic.
    ///
    /// # Errors
    /// [`Refused`] with the request and the reason.
    fn verify(&self, received: Received) -> Result<Verified, Refused>;
    /// The answer to a kept notification, in the provider's own words. A duplicate gets what its original would
    /// get today.
    fn answer(&self, committed: &Committed) -> Answer;
    /// How refusals are answered.
    fn refusal_style(&self) -> RefusalStyle;
    /// The path of the return URL for an order, `<path>/<order_id>/<tag>`; `None` where the provider has none.
    fn return_path(&self, _order: &OrderId) -> Option<String> {
        None
    }
    /// Whether the provider can carry this order id.
    fn carries_order(&self, _order: &OrderId) -> bool {
        true
    }
    /// The bearer secrets, as they would be sent, that today's configuration takes for this request, of which those
    /// were cut out: by them another look can tell whether one of these was in it.
    fn secrets(&self, _cut: &Received) -> Vec<Zeroizing<Vec<u8>>> {
        Vec::new()
    }
    /// See [`Ordinary`].
    fn ordinary(&self) -> Ordinary;
}

/// The providers of all sources of a configuration, in its order. They are built together, since what a key of ClickPay
/// signed may be meant for any source that has the key.
pub fn build_all(sources: &[Source]) -> Vec<Arc<dyn Provider>> {
    let kin = clickpay::Kin::of(sources);
    sources.iter().map(|source| build(source, &kin)).collect()
}

fn build(source: &Source, kin: &clickpay::Kin) -> Arc<dyn Provider> {
    match &source.provider {
        ProviderSettings::ClickPay(settings) => Arc::new(clickpay::ClickPay::new(source, settings, kin)),
        ProviderSettings::Paygol(settings) => Arc::new(paygol::Paygol::new(source, settings)),
        ProviderSettings::PaygolLegacy(settings) => Arc::new(paygol_legacy::PaygolLegacy::new(source, settings)),
        ProviderSettings::ClickKw(settings) => Arc::new(clickkw::ClickKw::new(source, settings)),
        ProviderSettings::ClickGem(settings) => Arc::new(clickgem::ClickGem::new(source, settings)),
    }
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Path, query, headers and body carry bearer secrets and personal data.
        write!(f, "Received({} of {} bytes at {})", self.method, self.body.len(), self.at)
    }
}

impl Refusal {
    /// The label of `quittance_refusals_total`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::NoSignature => "no_signature",
            Self::BadSignature(_) => "bad_signature",
            Self::WrongService => "wrong_service",
            Self::WrongTag => "wrong_tag",
            Self::Method => "method",
            Self::ContentType => "content_type",
        }
    }
}

impl Refused {
    /// A refusal of something that can never prove genuine.
    pub fn for_good(refusal: Refusal, received: Received) -> Self {
        Self { refusal, received: Box::new(received), may_be_genuine: false, cuts: Vec::new() }
    }
    /// A refusal of something that a corrected key may yet prove genuine.
    pub fn for_now(refusal: Refusal, received: Received) -> Self {
        Self { refusal, received: Box::new(received), may_be_genuine: true, cuts: Vec::new() }
    }
    /// The same, with the places of what must not be kept readable.
    #[must_use]
    pub fn cutting(self, cuts: Vec<Cut>) -> Self {
        Self { cuts, ..self }
    }
}

impl Proof {
    /// Only providers call this, after authentication held.
    fn shown() -> Self {
        Self(())
    }
}

impl Verified {
    /// The digest over what decides: kind, the provider's status words, order, transaction, amounts and
    /// currencies, each with name and length. Amounts go in by value, so `10.0` repeats `10.00`.
    pub fn digest_of(kind: Kind, words: &[(&str, &str)], details: &Details) -> Digest {
        let amounts = [&details.amount, &details.requested_amount, &details.fee]
            .map(|money| money.as_ref().map(|m| format!("{} {}", m.value.canonical(), m.currency)));
        let mut parts: Vec<Option<&[u8]>> = vec![Some(b"kind"), Some(kind.as_str().as_bytes())];
        for (name, word) in words {
            parts.extend([Some(name.as_bytes()), Some(word.as_bytes())]);
        }
        parts.extend([Some(b"order".as_slice()), details.order_id.as_ref().map(|o| o.as_str().as_bytes())]);
        parts.extend([Some(b"transaction".as_slice()), details.transaction_id.as_ref().map(|t| t.as_bytes())]);
        for (name, amount) in [b"amount".as_slice(), b"requested", b"fee"].into_iter().zip(&amounts) {
            parts.extend([Some(name), amount.as_ref().map(|a| a.as_bytes())]);
        }
        Digest::of_parts(parts)
    }
}

impl Bearer {
    /// Takes a secret out of a request.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
    /// The secret, for comparison and hashing only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer(..)")
    }
}
