//! A judged statement: everything about a notification that must outlive its parts.

use jiff::Timestamp;

use super::super::fields::{Fields, Writer};
use super::{millis, put_money, read_money, tag, time};
use crate::event::{
    AccountName, Assurance, Digest, EventId, ExpectationResult, Kind, Money, NotificationId, OrderId, Reason,
    SourceName, Status, Verdict,
};
use crate::provider::SignedString;
use crate::store::{ByHand, Committed, KeptOutcome, Outcome};

/// A judged statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The notification.
    pub id: NotificationId,
    /// Its event; `None` for a conflict that is kept but not told.
    pub event: Option<EventId>,
    /// The source that received it.
    pub source: SourceName,
    /// Its account then.
    pub account: AccountName,
    /// The provider's word.
    pub provider: String,
    /// How it came to be kept.
    pub outcome: KeptOutcome,
    /// When it arrived.
    pub received_at: Timestamp,
    /// What moves.
    pub kind: Kind,
    /// In which state.
    pub status: Status,
    /// The order.
    pub order: Option<OrderId>,
    /// The provider's number.
    pub transaction: Option<String>,
    /// What was paid.
    pub amount: Option<Money>,
    /// What had been asked for.
    pub requested: Option<Money>,
    /// How it was authenticated.
    pub assurance: Assurance,
    /// What came of comparing with the expectation.
    pub expectation: ExpectationResult,
    /// What the order system may do.
    pub verdict: Verdict,
    /// Why not more.
    pub reasons: Vec<Reason>,
    /// The idempotency key within the source.
    pub idempotency: Digest,
    /// The digest over what decides.
    pub digest: Digest,
    /// The signed string.
    pub signed: Option<SignedString>,
    /// ClickGem: the `getid`.
    pub getid: Option<String>,
    /// Click KW: hash of the indicator under the store's key.
    pub indicator: Option<[u8; 16]>,
    /// Click KW: it is one that was registered.
    pub indicator_right: bool,
    /// Click KW: the source accepted indicators.
    pub accept_indicator: bool,
    /// How it was authenticated, for `show`.
    pub scheme: String,
    /// With which of the source's keys.
    pub key: u16,
    /// Count within order and source.
    pub sequence: u64,
    /// A final state of the order was kept before.
    pub stale: bool,
    /// The event that this one settles.
    pub settles: Option<EventId>,
    /// Somebody let it in or settled it by hand.
    pub by_hand: Option<Box<ByHand>>,
}

impl Statement {
    /// What a sender of this very notification is told, now and whenever it comes again.
    pub fn committed(&self, outcome: Outcome) -> Committed {
        Committed {
            outcome,
            notification: self.id,
            event: self.event,
            order: self.order.clone(),
            kind: self.kind,
            status: self.status,
            verdict: self.verdict,
            indicator_right: self.indicator_right,
            order_paid: false,
            alarms: Vec::new(),
        }
    }

    /// The amount that an expectation is compared with.
    pub fn comparable(&self) -> Option<&Money> {
        self.requested.as_ref().or(self.amount.as_ref())
    }

    /// Whether the order system was told to book it.
    pub fn told(&self) -> bool {
        matches!(self.verdict, Verdict::Fulfil | Verdict::Compare)
    }

    /// Whether it may count as a state of its order: a contradiction and what only an operator let in may not, before
    /// it is told.
    pub fn counts(&self) -> bool {
        self.told() || (self.outcome != KeptOutcome::Conflict && self.assurance != Assurance::Operator)
    }

    /// Whether a browser brought it and it says nothing of a payment: a wrong indicator, a bare `getid`. Whoever has
    /// the order's return URL can make as many different ones as he likes.
    pub fn says_nothing(&self) -> bool {
        self.assurance == Assurance::Browser && self.status == Status::Unknown
    }

    pub(super) fn write(&self, out: &mut Writer) {
        let id = |id: Option<EventId>| id.map(EventId::to_bytes);
        out.put(tag::ID, &self.id.to_bytes());
        out.put_some(tag::EVENT, id(self.event).as_ref().map(<[u8; 16]>::as_slice));
        out.put_text(tag::SOURCE, Some(self.source.as_str()));
        if self.account.as_str() != self.source.as_str() {
            out.put_text(tag::ACCOUNT, Some(self.account.as_str()));
        }
        out.put_text(tag::PROVIDER, Some(&self.provider));
        out.put(tag::OUTCOME, &[self.outcome.code()]);
        out.put_number(tag::RECEIVED_AT, millis(self.received_at));
        out.put(tag::KIND, &[self.kind.code()]).put(tag::STATUS, &[self.status.code()]);
        out.put_text(tag::ORDER, self.order.as_ref().map(OrderId::as_str));
        out.put_text(tag::TRANSACTION, self.transaction.as_deref());
        put_money(out, tag::AMOUNT, self.amount.as_ref());
        put_money(out, tag::REQUESTED, self.requested.as_ref());
        out.put(tag::ASSURANCE, &[self.assurance.code()]).put(tag::EXPECTATION, &[self.expectation.code()]);
        out.put(tag::VERDICT, &[self.verdict.code()]);
        if !self.reasons.is_empty() {
            let codes: Vec<u8> = self.reasons.iter().map(|reason| reason.code()).collect();
            out.put(tag::REASONS, &codes);
        }
        out.put(tag::IDEMPOTENCY, &self.idempotency.0).put(tag::DIGEST, &self.digest.0);
        if let Some(signed) = &self.signed {
            out.put(tag::SIGNED_KEY, &signed.key.0).put(tag::SIGNED_HASH, &signed.hash.0);
        }
        out.put_text(tag::GETID, self.getid.as_deref());
        out.put_some(tag::INDICATOR, self.indicator.as_ref().map(<[u8; 16]>::as_slice));
        let flags = [self.indicator_right, self.accept_indicator, self.stale];
        out.put_number(tag::FLAGS, (0..).zip(flags).map(|(bit, set)| u64::from(set) << bit).sum());
        out.put_text(tag::SCHEME, Some(&self.scheme)).put_number(tag::KEY, self.key.into());
        out.put_number(tag::SEQUENCE, self.sequence);
        out.put_some(tag::SETTLES, id(self.settles).as_ref().map(<[u8; 16]>::as_slice));
        out.put_text(tag::WHO, self.by_hand.as_ref().map(|by| by.who()));
        out.put_text(tag::REASON, self.by_hand.as_ref().map(|by| by.reason()));
    }

    pub(super) fn read(fields: &Fields<'_>) -> Option<Self> {
        let source = SourceName::new(fields.text(tag::SOURCE)?)?;
        let flags = fields.number(tag::FLAGS);
        let reasons = fields.get(tag::REASONS).unwrap_or_default();
        Some(Self {
            id: NotificationId::from_bytes(fields.array(tag::ID)?),
            event: fields.array(tag::EVENT).map(EventId::from_bytes),
            account: AccountName::new(fields.text(tag::ACCOUNT).unwrap_or(source.as_str()))?,
            source,
            provider: fields.text(tag::PROVIDER)?.to_owned(),
            outcome: KeptOutcome::from_code(fields.code(tag::OUTCOME)?)?,
            received_at: time(fields.number(tag::RECEIVED_AT)),
            kind: Kind::from_code(fields.code(tag::KIND)?)?,
            status: Status::from_code(fields.code(tag::STATUS)?)?,
            order: fields.text(tag::ORDER).and_then(OrderId::new),
            transaction: fields.text(tag::TRANSACTION).map(str::to_owned),
            amount: read_money(fields, tag::AMOUNT),
            requested: read_money(fields, tag::REQUESTED),
            assurance: Assurance::from_code(fields.code(tag::ASSURANCE)?)?,
            expectation: ExpectationResult::from_code(fields.code(tag::EXPECTATION)?)?,
            verdict: Verdict::from_code(fields.code(tag::VERDICT)?)?,
            reasons: reasons.iter().map(|code| Reason::from_code(*code)).collect::<Option<_>>()?,
            idempotency: Digest(fields.array(tag::IDEMPOTENCY)?),
            digest: Digest(fields.array(tag::DIGEST)?),
            signed: fields
                .array(tag::SIGNED_KEY)
                .zip(fields.array(tag::SIGNED_HASH))
                .map(|(key, hash)| SignedString { key: Digest(key), hash: Digest(hash) }),
            getid: fields.text(tag::GETID).map(str::to_owned),
            indicator: fields.array(tag::INDICATOR),
            indicator_right: flags & 1 != 0,
            accept_indicator: flags & 2 != 0,
            stale: flags & 4 != 0,
            scheme: fields.text(tag::SCHEME)?.to_owned(),
            key: fields.number(tag::KEY) as u16,
            sequence: fields.number(tag::SEQUENCE),
            settles: fields.array(tag::SETTLES).map(EventId::from_bytes),
            by_hand: fields
                .text(tag::WHO)
                .zip(fields.text(tag::REASON))
                .map(|(who, why)| Box::new(ByHand::kept(who, why))),
        })
    }
}
