//! Paygol API v2: a POST of one JSON object, signed in the header `X-Pg-Sig`.
//!
//! The signature is the HMAC-SHA256 of the body as PHP would print it with its keys sorted ([`super::php_json`]); the
//! raw body is taken too, since either needs the secret. It proves what Paygol says, but the buyer's browser carried
//! price and currency to Paygol: only an expectation shows that the right amount was paid.

use http::{HeaderMap, Method};
use subtle::{Choice, ConstantTimeEq};

use super::bearer::hmac_sha256;
use super::json::{self, Value};
use super::{
    Answer, Claim, Ordinary, Proof, Provider, Received, Refusal, RefusalStyle, Refused, Verified, bearer, media_type,
    php_json,
};
use crate::config::{self, OrderIdFrom, Secret};
use crate::event::{
    AccountName, Assurance, Currency, Decimal, Details, Digest, Kind, Money, OrderId, Payer, Reason, SourceName,
    Status, Verdict,
};
use crate::store::Committed;

const WORD: &str = "paygol";
/// Ten fields are documented.
const MAX_FIELDS: usize = 64;
const SIGNATURE: &str = "x-pg-sig";

/// `paygol`.
pub struct Paygol {
    source: SourceName,
    account: AccountName,
    service_id: String,
    order_id_from: OrderIdFrom,
    secrets: Vec<Secret>,
    bearer: bool,
}

/// A signature that held: which secret, over which form of the body.
struct Signed {
    key: u16,
    scheme: &'static str,
}

impl Paygol {
    /// With the settings of one source.
    pub fn new(source: &config::Source, settings: &config::Paygol) -> Self {
        Self {
            source: source.name.clone(),
            account: source.account.clone(),
            service_id: settings.service_id.clone(),
            order_id_from: settings.order_id_from,
            secrets: settings.secrets.clone(),
            bearer: settings.bearer,
        }
    }

    /// Which secret signed the body, and in which form. All secrets and both forms are computed, so that the time
    /// tells nothing.
    fn signed(&self, signature: &[u8; 32], canonical: Option<&[u8]>, raw: &[u8]) -> Option<Signed> {
        let position = |message: &[u8]| {
            bearer::first(self.secrets.iter().map(|secret| {
                let is_set = Choice::from(u8::from(!secret.expose().is_empty()));
                hmac_sha256(secret, message).ct_eq(signature) & is_set
            }))
        };
        let canonical = canonical.map(position);
        let raw = position(raw).map(|key| Signed { key, scheme: "hmac-sha256-raw" });
        canonical.flatten().map(|key| Signed { key, scheme: "hmac-sha256-canonical" }).or(raw)
    }

    fn judge(&self, received: &Received) -> Result<(Signed, Statement), Refusal> {
        let signature = signature(&received.headers)?;
        match media_type::of(&received.headers) {
            Ok(None) => {}
            Ok(Some(media_type)) if media_type.essence == "application/json" => {}
            Ok(Some(_)) | Err(()) => return Err(Refusal::ContentType),
        }
        let fields = json::object(&received.body, MAX_FIELDS).map_err(|error| match error {
            json::JsonError::NotAnObject => Refusal::Malformed("not a JSON object"),
            json::JsonError::RepeatedKey => Refusal::Malformed("a key stands twice"),
            json::JsonError::TooManyFields => Refusal::Malformed("too many fields"),
        })?;
        let canonical = php_json::canonical(&fields);
        let signed = self
            .signed(&signature, canonical.as_deref(), &received.body)
            .ok_or(Refusal::BadSignature("no secret gives this signature"))?;
        Ok((signed, self.read(fields)?))
    }

    /// What an authentic body says.
    fn read(&self, fields: Vec<(String, Value)>) -> Result<Statement, Refusal> {
        let text = |name: &str| {
            let field = fields.iter().find(|(known, _)| known == name);
            field.and_then(|(_, value)| value.as_text()).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let service_id = text("service_id").ok_or(Refusal::Malformed("service_id is missing"))?;
        if service_id != self.service_id {
            return Err(Refusal::WrongService);
        }
        let transaction = text("transaction_id").ok_or(Refusal::Malformed("transaction_id is missing"))?;
        let word = text("status").ok_or(Refusal::Malformed("status is missing"))?;
        let status = match word.as_str() {
            "completed" => Status::Paid,
            "created" => Status::Pending,
            "failed" | "rejected" => Status::Failed,
            _ => Status::Unknown,
        };
        let custom = text("custom");
        let order_id = match self.order_id_from {
            OrderIdFrom::Custom => custom.as_deref().and_then(OrderId::new),
            OrderIdFrom::TransactionId => OrderId::new(&transaction),
        };
        let amount = money(text("price").as_deref(), text("currency").as_deref());
        let dates = if text("completed_at").is_some() { "completed_at" } else { "created_at" };
        let occurred_at = text(dates).filter(|date| is_rfc3339(date));

        let mut problems = Vec::new();
        if order_id.is_none() {
            problems.push(Reason::NoOrder);
        }
        if amount.is_none() {
            problems.push(Reason::AmountUnreadable);
        }
        let has_its_own_place = |name: &str, value: &Value| {
            value.as_text().is_some()
                && match name {
                    "transaction_id" | "custom" | "method" | "country" => true,
                    "price" | "currency" => amount.is_some(),
                    date => date == dates && occurred_at.is_some(),
                }
        };
        let provider_fields = fields.iter().filter_map(|(name, value)| match value {
            known if has_its_own_place(name, known) => None,
            Value::Text(text) | Value::Number(text) | Value::Nested(text) => Some((name.clone(), text.clone())),
            Value::Bool(value) => Some((name.clone(), value.to_string())),
            Value::Null => None,
        });
        let provider_fields: Vec<(String, String)> = provider_fields.collect();
        let details = Details {
            order_id,
            amount,
            method: text("method"),
            payer: Payer { country: text("country"), ..Payer::default() },
            occurred_at,
            provider_fields,
            custom,
            transaction_id: Some(transaction.clone()),
            ..Details::default()
        };
        let idempotency = Digest::of_parts([&service_id, &transaction, &word].map(|part| Some(part.as_bytes())));
        Ok(Statement { status, word, details, problems, idempotency })
    }
}

/// What a body says.
struct Statement {
    status: Status,
    word: String,
    details: Details,
    problems: Vec<Reason>,
    idempotency: Digest,
}

impl Provider for Paygol {
    fn word(&self) -> &'static str {
        WORD
    }

    fn methods(&self) -> &'static [Method] {
        &[Method::POST]
    }

    fn verify(&self, mut received: Received) -> Result<Verified, Refused> {
        if received.method != Method::POST {
            return Err(Refused::for_good(Refusal::Method, received));
        }
        bearer::withhold_headers(&mut received.headers, &[]);
        let (signed, statement) = match self.judge(&received) {
            Ok(judged) => judged,
            // Whatever has a signature may be genuine, and only our secret or our reading of it wrong.
            Err(refusal) if signature(&received.headers).is_ok() => return Err(Refused::for_now(refusal, received)),
            Err(refusal) => return Err(Refused::for_good(refusal, received)),
        };
        let digest = Verified::digest_of(Kind::Payment, &[("status", &statement.word)], &statement.details);
        Ok(Verified {
            source: self.source.clone(),
            account: self.account.clone(),
            provider: WORD,
            received,
            cuts: Vec::new(),
            scheme: signed.scheme,
            key: signed.key,
            kind: Kind::Payment,
            claim: Claim::Status(statement.status),
            details: statement.details,
            assurance: if self.bearer { Assurance::Bearer } else { Assurance::Signed },
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

    fn ordinary(&self) -> Ordinary {
        let (verdict, why, remedy) = if self.bearer {
            (
                Verdict::Hold,
                "a legacy source has the same secret, which every access log on the way of a legacy notification \
                 holds, so a signature proves no more than the key does",
                "give the legacy service a secret of its own and drop shared_secret; until then register each order \
                 with `quittance expect`",
            )
        } else {
            (
                Verdict::Compare,
                "the signature proves what Paygol says, but the buyer's browser carried price and currency to Paygol",
                "register each order with `quittance expect`",
            )
        };
        Ordinary {
            verdict,
            with_expectation: Verdict::Fulfil,
            why: why.to_owned(),
            remedy: remedy.to_owned(),
            neighbours: Vec::new(),
        }
    }
}

/// Price and currency as Paygol writes them: `^[0-9]{1,13}(\.[0-9]{1,8})?$` and `^[A-Z]{2,8}$`.
pub(super) fn money(price: Option<&str>, currency: Option<&str>) -> Option<Money> {
    let (price, currency) = (price?, currency?);
    let (whole, fraction) = price.split_once('.').map_or((price, 1), |(whole, fraction)| (whole, fraction.len()));
    let fits = (1..=13).contains(&whole.len()) && (1..=8).contains(&fraction);
    let letters = currency.bytes().all(|byte| byte.is_ascii_uppercase());
    let value = Decimal::parse(price).filter(|_| fits)?;
    Some(Money { value, currency: Currency::parse(currency).filter(|_| letters)? })
}

/// `X-Pg-Sig`: 64 lower-case hexadecimal digits, as PHP's `hash_hmac` prints them and its `hash_equals` compares them.
fn signature(headers: &HeaderMap) -> Result<[u8; 32], Refusal> {
    let mut values = headers.get_all(SIGNATURE).iter();
    let value = values.next().filter(|value| !value.is_empty()).ok_or(Refusal::NoSignature)?;
    if values.next().is_some() {
        return Err(Refusal::Malformed("X-Pg-Sig stands twice"));
    }
    let bad = Refusal::BadSignature("not 64 lower-case hexadecimal digits");
    let mut bytes = [0; 32];
    let (pairs, rest) = value.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return Err(bad);
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let digit = |at: u8| match at {
            b'0'..=b'9' => Ok(at - b'0'),
            b'a'..=b'f' => Ok(at - b'a' + 10),
            _ => Err(bad),
        };
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

/// `2020-11-26T16:22:32-03:00`: RFC 3339 with seconds and offset, and nothing that jiff reads beyond it.
fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = bytes.len() >= 20
        && bytes.iter().zip(b"0000-00-00T00:00:00").all(|(&byte, &model)| match model {
            b'0' => byte.is_ascii_digit(),
            separator => byte == separator,
        });
    let offset = text.get(19..).unwrap_or_default().trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let has_offset = offset == "Z"
        || (offset.len() == 6
            && offset.bytes().zip(*b"+00:00").all(|(byte, model)| match model {
                b'0' => byte.is_ascii_digit(),
                b'+' => byte == b'+' || byte == b'-',
                separator => byte == separator,
            }));
    shape && has_offset && text.parse::<jiff::Timestamp>().is_ok()
}

#[cfg(test)]
mod tests;
