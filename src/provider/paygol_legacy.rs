//! Paygol's legacy notification: a GET, or a POST of a form, with the service's secret as the parameter `key`.
//!
//! The key shows that the sender knows the secret and nothing more: no other parameter is authenticated, and the key
//! is in every access log on the way. So it is cut out of what is kept, and nothing fulfils without an expectation.

use http::Method;
use zeroize::Zeroizing;

use super::form::{self, Field, FormError};
use super::{
    Answer, Claim, Cut, Ordinary, Place, Proof, Provider, Received, Refusal, RefusalStyle, Refused, Verified, bearer,
    media_type, paygol,
};
use crate::config::{self, OrderIdFrom, Secret};
use crate::event::{
    AccountName, Assurance, Details, Digest, Kind, OrderId, Payer, Reason, SourceName, Status, Verdict,
};
use crate::store::Committed;

const WORD: &str = "paygol-legacy";
/// Sixteen parameters are documented; unknown ones are normal.
const MAX_FIELDS: usize = 64;

/// `paygol-legacy`.
pub struct PaygolLegacy {
    source: SourceName,
    account: AccountName,
    service_id: String,
    order_id_from: OrderIdFrom,
    secrets: Vec<Secret>,
}

/// What an authentic notification says.
struct Statement {
    key: u16,
    details: Details,
    problems: Vec<Reason>,
    idempotency: Digest,
}

impl PaygolLegacy {
    /// With the settings of one source.
    pub fn new(source: &config::Source, settings: &config::PaygolLegacy) -> Self {
        Self {
            source: source.name.clone(),
            account: source.account.clone(),
            service_id: settings.service_id.clone(),
            order_id_from: settings.order_id_from,
            secrets: settings.secrets.clone(),
        }
    }

    fn judge(&self, fields: &[(Place, Field)]) -> Result<Statement, Refusal> {
        let text = |name: &str| {
            let field = fields.iter().find(|(_, field)| field.name == name);
            field.map(|(_, field)| field.value.as_str()).filter(|value| !value.is_empty())
        };
        let key = text("key").ok_or(Refusal::NoSignature)?;
        let position =
            bearer::position(&self.secrets, key).ok_or(Refusal::BadSignature("key is not a secret of ours"))?;
        let repeats = |text: &str| bearer::stands_in(key.as_bytes(), text.as_bytes());
        if fields.iter().any(|(_, field)| field.name != "key" && (repeats(&field.value) || repeats(&field.name))) {
            return Err(Refusal::Malformed("the key stands in another parameter too"));
        }
        let service_id = text("service_id").ok_or(Refusal::Malformed("service_id is missing"))?;
        if service_id != self.service_id {
            return Err(Refusal::WrongService);
        }
        let transaction = match (text("transaction_id"), text("message_id")) {
            (Some(new), Some(old)) if new != old => {
                return Err(Refusal::Malformed("transaction_id and message_id differ"));
            }
            (Some(id), _) | (None, Some(id)) => id,
            (None, None) => return Err(Refusal::Malformed("transaction_id is missing")),
        };
        let order_id = match self.order_id_from {
            OrderIdFrom::Custom => text("custom").and_then(OrderId::new),
            OrderIdFrom::TransactionId => OrderId::new(transaction),
        };
        let amount = paygol::money(text("price"), text("currency"));
        let requested = text("frmprice").zip(text("frmcurrency"));
        let requested_amount = requested.and_then(|(price, currency)| paygol::money(Some(price), Some(currency)));

        let mut problems = Vec::new();
        if order_id.is_none() {
            problems.push(Reason::NoOrder);
        }
        // An expectation is compared with the requested amount: one that is there but unreadable must not make it
        // fall back to the other.
        if amount.is_none() || (requested.is_some() && requested_amount.is_none()) {
            problems.push(Reason::AmountUnreadable);
        }
        let has_its_own_place = |name: &str| match name {
            "key" | "transaction_id" | "message_id" | "custom" | "method" | "country" | "sender" => true,
            "price" | "currency" => amount.is_some(),
            "frmprice" | "frmcurrency" => requested_amount.is_some(),
            _ => false,
        };
        let others = fields.iter().filter(|(_, field)| !has_its_own_place(&field.name));
        let provider_fields = others.map(|(_, field)| (field.name.clone(), field.value.clone())).collect();
        let owned = |name| text(name).map(str::to_owned);
        let details = Details {
            transaction_id: Some(transaction.to_owned()),
            method: owned("method"),
            payer: Payer { phone: owned("sender"), country: owned("country"), ..Payer::default() },
            custom: owned("custom"),
            provider_fields,
            order_id,
            amount,
            requested_amount,
            ..Details::default()
        };
        let idempotency = Digest::of_parts([service_id, transaction].map(|part| Some(part.as_bytes())));
        Ok(Statement { key: position, details, problems, idempotency })
    }
}

impl Provider for PaygolLegacy {
    fn word(&self) -> &'static str {
        WORD
    }

    fn methods(&self) -> &'static [Method] {
        &[Method::GET, Method::POST]
    }

    fn verify(&self, mut received: Received) -> Result<Verified, Refused> {
        if ![Method::GET, Method::POST].contains(&received.method) {
            return Err(Refused::for_good(Refusal::Method, received));
        }
        let fields = match parameters(&received) {
            Ok(fields) => fields,
            Err(refusal) => return Err(unread(refusal, received)),
        };
        let is_key = |name: &str| name.to_ascii_lowercase().starts_with("key");
        let keys = || fields.iter().filter(|(_, field)| is_key(&field.name) && !field.value.is_empty());
        let secrets: Vec<&[u8]> = keys().map(|(_, field)| field.value.as_bytes()).collect();
        // A parameter that repeats the key is refused, and what is refused may be kept.
        let repeats =
            |value: &str| secrets.iter().any(|key| key.len() >= 8 && bearer::stands_in(key, value.as_bytes()));
        let secret = fields
            .iter()
            .filter(|(_, field)| !field.value.is_empty() && (is_key(&field.name) || repeats(&field.value)));
        let cuts: Vec<Cut> = secret.map(|(place, field)| Cut { place: *place, range: field.range.clone() }).collect();
        bearer::withhold_headers(&mut received.headers, &secrets);
        let statement = match self.judge(&fields) {
            Ok(statement) => statement,
            Err(Refusal::NoSignature) => {
                return Err(Refused::for_good(Refusal::NoSignature, received).cutting(cuts));
            }
            Err(refusal) => return Err(Refused::for_now(refusal, received).cutting(cuts)),
        };
        let digest = Verified::digest_of(Kind::Payment, &[], &statement.details);
        Ok(Verified {
            source: self.source.clone(),
            account: self.account.clone(),
            provider: WORD,
            received,
            cuts,
            scheme: "key",
            key: statement.key,
            kind: Kind::Payment,
            claim: Claim::Status(Status::Paid), // it is sent on completion only
            details: statement.details,
            assurance: Assurance::Bearer,
            unproven: Vec::new(),
            ambiguity: None,
            problems: statement.problems,
            idempotency: statement.idempotency,
            digest,
            signed: None,
            getid: None,
            accept_indicator: false,
            proof: Proof::shown(),
        })
    }

    fn answer(&self, _committed: &Committed) -> Answer {
        Answer::Phrase("OK")
    }

    fn refusal_style(&self) -> RefusalStyle {
        RefusalStyle::Phrase("refused")
    }

    fn secrets(&self, _cut: &Received) -> Vec<Zeroizing<Vec<u8>>> {
        self.secrets.iter().flat_map(bearer::as_sent).collect()
    }

    fn ordinary(&self) -> Ordinary {
        Ordinary {
            verdict: Verdict::Hold,
            with_expectation: Verdict::Fulfil,
            why: "the key that comes along proves that the sender knows the secret, not what the sender says"
                .to_owned(),
            remedy: "register each order with `quittance expect`, or move the service to Paygol's API v2".to_owned(),
            neighbours: Vec::new(),
        }
    }
}

/// The parameters of query and body together, no name in both.
fn parameters(received: &Received) -> Result<Vec<(Place, Field)>, Refusal> {
    let malformed = |error| match error {
        FormError::NotAForm => Refusal::Malformed("not a form"),
        FormError::Repeated => Refusal::Malformed("a parameter stands twice"),
        FormError::TooManyFields => Refusal::Malformed("too many parameters"),
    };
    let query = received.query.as_deref().unwrap_or_default();
    let mut fields: Vec<(Place, Field)> = Vec::new();
    fields
        .extend(form::fields(query.as_bytes(), MAX_FIELDS).map_err(malformed)?.into_iter().map(|f| (Place::Query, f)));
    if !received.body.is_empty() {
        match media_type::of(&received.headers) {
            Ok(None) => {}
            Ok(Some(media_type)) if media_type.essence == "application/x-www-form-urlencoded" => {}
            Ok(Some(_)) | Err(()) => return Err(Refusal::ContentType),
        }
        for field in form::fields(&received.body, MAX_FIELDS).map_err(malformed)? {
            if fields.iter().any(|(_, known)| known.name == field.name) {
                return Err(Refusal::Malformed("a parameter stands in query and body"));
            }
            fields.push((Place::Body, field));
        }
    }
    // PHP makes a list of `key[]`, and some comparisons then find it equal to anything.
    if fields.iter().any(|(_, field)| field.name.starts_with("key[")) {
        return Err(Refusal::Malformed("key is a list"));
    }
    Ok(fields)
}

/// A request that cannot be read has no parameters to look at: what might hold the key is cut as a whole.
fn unread(refusal: Refusal, mut received: Received) -> Refused {
    let whole = |place, len| Cut { place, range: 0..len };
    let query_len = received.query.as_ref().map_or(0, String::len);
    let cuts = vec![whole(Place::Query, query_len), whole(Place::Body, received.body.len())];
    let query = received.query.clone().unwrap_or_default();
    bearer::withhold_headers(&mut received.headers, &[query.as_bytes()]);
    Refused::for_good(refusal, received).cutting(cuts.into_iter().filter(|cut| !cut.range.is_empty()).collect())
}

#[cfg(test)]
mod tests;
