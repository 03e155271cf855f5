//! The vocabulary: what an event says, in types that cannot say anything else. Pure; no I/O, no async.

pub mod id;
pub mod money;
pub mod status;
pub mod verdict;

use jiff::Timestamp;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

pub use id::{AccountName, Digest, EventId, NotificationId, OrderId, Position, SourceName};
pub use money::{Currency, Decimal, Money};
pub use status::{Kind, Status};
pub use verdict::{Assurance, ExpectationResult, Reason, Relation, Verdict};

/// The normalized statement derived from an authentic notification. Serializes to the CloudEvents JSON of
/// `schema/payment-event.v1.json`; keys that are null are present.
#[derive(Clone, Debug)]
pub struct Event {
    /// Made at commit, never changes.
    pub id: EventId,
    /// The source that received the notification.
    pub source: SourceName,
    /// The notification this was derived from.
    pub notification_id: NotificationId,
    /// When the notification arrived.
    pub received_at: Timestamp,
    /// The provider's word, as in the config.
    pub provider: &'static str,
    /// The merchant account of the source.
    pub account: AccountName,
    /// What moves.
    pub kind: Kind,
    /// In which state it is.
    pub status: Status,
    /// Everything the notification says besides.
    pub details: Details,
    /// How the content was authenticated.
    pub assurance: Assurance,
    /// Fields in which possible cuts of the signed string differ.
    pub unproven: Vec<String>,
    /// The expectation's amount, where one was registered.
    pub expected_amount: Option<Money>,
    /// What came of the comparison with it.
    pub expectation: ExpectationResult,
    /// What the order system may do.
    pub verdict: Verdict,
    /// Why not more.
    pub reasons: Vec<Reason>,
    /// An earlier event that this one speaks about.
    pub relates_to: Option<RelatesTo>,
    /// Counts the events of one order at one source, from 1; 1 where no order is named.
    pub sequence: u64,
    /// A final state of this order was already kept when this came.
    pub stale: bool,
}

/// What a notification says about the payment besides kind and status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// The merchant's order.
    pub order_id: Option<OrderId>,
    /// The provider's number for the payment.
    pub transaction_id: Option<String>,
    /// What the provider says was paid.
    pub amount: Option<Money>,
    /// What the merchant had asked for, where the provider repeats it (Paygol legacy: frmprice, frmcurrency).
    pub requested_amount: Option<Money>,
    /// The provider's fee.
    pub fee: Option<Money>,
    /// Payment method, the provider's word.
    pub method: Option<String>,
    /// Who paid.
    pub payer: Payer,
    /// The merchant's own value, where the provider has a field for it.
    pub custom: Option<String>,
    /// When the provider says it happened, RFC 3339 as the provider wrote it.
    pub occurred_at: Option<String>,
    /// Every other received field, secrets excepted, in the order of arrival.
    pub provider_fields: Vec<(String, String)>,
}

/// Personal data of the buyer as the provider tells it.
#[derive(Clone, Default, PartialEq, Serialize)]
pub struct Payer {
    /// Name.
    pub name: Option<String>,
    /// E-mail address.
    pub email: Option<String>,
    /// Telephone number.
    pub phone: Option<String>,
    /// Country, ISO 3166.
    pub country: Option<String>,
}

/// How an event speaks about an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RelatesTo {
    /// The earlier event.
    pub id: EventId,
    /// What this one is to it.
    #[serde(rename = "as")]
    pub relation: Relation,
}

impl std::fmt::Debug for Payer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Payer(..)") // personal data stays out of logs and panics
    }
}

impl Event {
    /// `<kind>.<status>`.
    pub fn event_type(&self) -> String {
        format!("{}.{}", self.kind, self.status)
    }

    /// `<kind>.<status>.<source>`, the routing key.
    pub fn routing_key(&self) -> String {
        format!("{}.{}.{}", self.kind, self.status, self.source)
    }

    /// The JSON that is kept and relayed.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // strings and numbers only: cannot fail
    }
}

/// RFC 3339 in UTC with milliseconds, as every time in events and API is written.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.3}")
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("source", &format_args!("/sources/{}", self.source))?;
        map.serialize_entry("type", &format_args!("{}.{}", self.kind, self.status))?;
        if let Some(order) = &self.details.order_id {
            map.serialize_entry("subject", order)?;
        }
        map.serialize_entry("time", &format_args!("{:.3}", self.received_at))?;
        map.serialize_entry("datacontenttype", "application/json")?;
        map.serialize_entry("dataschema", "urn:quittance:payment-event:v1")?;
        map.serialize_entry("data", &Data(self))?;
        map.end()
    }
}

struct Data<'a>(&'a Event);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (event, details) = (self.0, &self.0.details);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("provider", event.provider)?;
        map.serialize_entry("account", &event.account)?;
        map.serialize_entry("kind", &event.kind)?;
        map.serialize_entry("status", &event.status)?;
        map.serialize_entry("order_id", &details.order_id)?;
        map.serialize_entry("transaction_id", &details.transaction_id)?;
        map.serialize_entry("amount", &details.amount)?;
        map.serialize_entry("requested_amount", &details.requested_amount)?;
        map.serialize_entry("expected_amount", &event.expected_amount)?;
        map.serialize_entry("fee", &details.fee)?;
        map.serialize_entry("method", &details.method)?;
        map.serialize_entry("payer", &details.payer)?;
        map.serialize_entry("custom", &details.custom)?;
        map.serialize_entry("occurred_at", &details.occurred_at)?;
        map.serialize_entry("received_at", &format_args!("{:.3}", event.received_at))?;
        map.serialize_entry("provider_fields", &Fields(&details.provider_fields))?;
        map.serialize_entry("assurance", &event.assurance)?;
        map.serialize_entry("unproven", &event.unproven)?;
        map.serialize_entry("expectation", &event.expectation)?;
        map.serialize_entry("verdict", &event.verdict)?;
        map.serialize_entry("reasons", &event.reasons)?;
        map.serialize_entry("relates_to", &event.relates_to)?;
        map.serialize_entry("sequence", &event.sequence)?;
        map.serialize_entry("stale", &event.stale)?;
        map.serialize_entry("notification_id", &event.notification_id)?;
        map.end()
    }
}

struct Fields<'a>(&'a [(String, String)]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
