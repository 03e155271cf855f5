//! Click KW: no notification from server to server, only the buyer's browser coming back to a signed return URL.
//!
//! What it brings is a word and an indicator. The indicator was secret until the gateway sent the buyer back with it;
//! whether it is one of the order's registered sessions only the committer can tell ([`Claim::Indicator`]).

use http::Method;
use zeroize::Zeroizing;

use super::browser::{self, ReturnUrl, Returned};
use super::{
    Answer, Bearer, Claim, Ordinary, Proof, Provider, Received, Refusal, RefusalStyle, Refused, Verified, bearer,
};
use crate::config::{self, Pages};
use crate::event::{AccountName, Assurance, Details, Digest, Kind, OrderId, Reason, SourceName, Status, Verdict};
use crate::store::Committed;

const WORD: &str = "clickkw";
/// Three are documented.
const MAX_FIELDS: usize = 16;
const INDICATOR: &str = "indicator_status";

/// `clickkw`.
pub struct ClickKw {
    source: SourceName,
    account: AccountName,
    return_url: ReturnUrl,
    accept_indicator: bool,
    pages: Pages,
}

impl ClickKw {
    /// With the settings of one source.
    pub fn new(source: &config::Source, settings: &config::ClickKw) -> Self {
        Self {
            source: source.name.clone(),
            account: source.account.clone(),
            return_url: ReturnUrl::new(source, &settings.return_secret),
            accept_indicator: settings.accept_indicator,
            pages: settings.pages.clone(),
        }
    }
}

impl Provider for ClickKw {
    fn word(&self) -> &'static str {
        WORD
    }

    fn methods(&self) -> &'static [Method] {
        &[Method::GET]
    }

    fn has_return_url(&self) -> bool {
        true
    }

    fn verify(&self, mut received: Received) -> Result<Verified, Refused> {
        if received.method != Method::GET {
            let cuts = browser::cut_everything(&received);
            return Err(Refused::for_good(Refusal::Method, received).cutting(cuts));
        }
        let returned = match Returned::read(&received, MAX_FIELDS) {
            Ok(returned) => returned,
            Err(refusal) => {
                let cuts = browser::cut_everything(&received);
                bearer::withhold_headers(&mut received.headers, &[received.rest.as_bytes()]);
                return Err(Refused::for_good(refusal, received).cutting(cuts));
            }
        };
        let indicator = returned.text(INDICATOR).map(Bearer::new);
        let cuts = returned.cuts(INDICATOR);
        let secret = indicator.as_ref().map_or("", Bearer::expose);
        bearer::withhold_headers(&mut received.headers, &[returned.tag.as_bytes(), secret.as_bytes()]);
        if !self.return_url.proves(&returned) {
            return Err(Refused::for_now(Refusal::WrongTag, received).cutting(cuts));
        }
        let message = (returned.text("message"), returned.text("message_type"));
        let (word, problems, claim) = match message {
            // Nothing hangs on `message_type` where it is missing: what proves is the indicator.
            (Some("success"), Some("success") | None) => {
                ("success", vec![], Claim::Indicator { success: true, indicator })
            }
            (Some("error"), _) => ("error", vec![], Claim::Indicator { success: false, indicator }),
            // The tag is right, so it is kept and held; one of each for an order, whatever else it says.
            (Some("success"), _) => ("odd", vec![Reason::Contradiction], Claim::Status(Status::Unknown)),
            (Some(_), _) => ("other", vec![Reason::FieldSet], Claim::Status(Status::Unknown)),
            (None, _) => return Err(Refused::for_now(Refusal::Malformed("no message"), received).cutting(cuts)),
        };
        let provider_fields = returned.told(INDICATOR);
        let order = Some(returned.order.as_str().as_bytes());
        let idempotency = match claim {
            // The committer adds what the indicator is worth.
            Claim::Indicator { .. } => Digest::of_parts([order]),
            Claim::Status(_) => Digest::of_parts([order, Some(word.as_bytes())]),
        };
        let details = Details { order_id: Some(returned.order), provider_fields, ..Details::default() };
        let digest = Verified::digest_of(Kind::Payment, &[("message", word)], &details);
        Ok(Verified {
            source: self.source.clone(),
            account: self.account.clone(),
            provider: WORD,
            received,
            cuts,
            scheme: "return-url",
            key: 1,
            kind: Kind::Payment,
            claim,
            details,
            assurance: Assurance::Browser,
            unproven: Vec::new(),
            ambiguity: None,
            problems,
            idempotency,
            digest,
            signed: None,
            getid: None,
            accept_indicator: self.accept_indicator,
            proof: Proof::shown(),
        })
    }

    fn answer(&self, committed: &Committed) -> Answer {
        // Whoever is sent to the failure page pays twice: nobody who may have paid goes there. A success with a wrong
        // indicator is no such buyer, also after the order was paid: one who paid brings the right one.
        let pending = self.pages.pending.as_ref().unwrap_or(&self.pages.success);
        let page = match (committed.indicator_right, committed.status) {
            (true, Status::Paid) if committed.verdict != Verdict::Hold => &self.pages.success,
            (true, Status::Paid) => pending,
            _ if committed.order_paid && !committed.indicator_wrong() => &self.pages.success,
            (true, _) => pending,
            (false, _) => &self.pages.failure,
        };
        Answer::SeeOther(page.render(committed.order.as_ref()))
    }

    fn refusal_style(&self) -> RefusalStyle {
        RefusalStyle::Browser(self.pages.failure.render(None))
    }

    fn return_path(&self, order: &OrderId) -> Option<String> {
        self.return_url.path_of(order)
    }

    /// At the gateway an order id is an `INT(11)`: `^[1-9][0-9]{0,9}$`.
    fn carries_order(&self, order: &OrderId) -> bool {
        let order = order.as_str();
        (1..=10).contains(&order.len()) && !order.starts_with('0') && order.bytes().all(|byte| byte.is_ascii_digit())
    }

    /// The tag alone: an indicator is nobody's secret here, only its hash is known.
    fn secrets(&self, cut: &Received) -> Vec<Zeroizing<Vec<u8>>> {
        self.return_url.tag_of(cut).into_iter().collect()
    }

    fn ordinary(&self) -> Ordinary {
        let why = "only the buyer's browser comes back, with an indicator that it has seen and with no amount";
        let (with_expectation, remedy) = if self.accept_indicator {
            (
                Verdict::Fulfil,
                "register each session with its indicator (`quittance expect --session --indicator`): the right one, \
                 unused and in time, then fulfils",
            )
        } else {
            (
                Verdict::Hold,
                "register each session with its indicator and set accept_indicator = true if an indicator that was \
                 secret until the payment is proof enough; else settle against the gateway's own list",
            )
        };
        Ordinary {
            verdict: Verdict::Hold,
            with_expectation,
            why: why.to_owned(),
            remedy: remedy.to_owned(),
            neighbours: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
