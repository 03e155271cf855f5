//! `clickpay`: ClickPay's (open.clickpay.click, Indonesia) notifications of pay-ins and pay-outs.
//!
//! What is signed are the values of all fields but `platSign`, in byte order of their names, joined without names or
//! separators, by RSA private encryption without a hash ([`super::rsa_recovery`]). A genuine signature therefore says
//! less than it seems: [`super::split`] counts what else the string could say, and the assurance follows from that.
//!
//! `message` reads a body, `meaning` says what it tells, `ordinary` what `check` prints of a source.

mod meaning;
mod message;
mod ordinary;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;

use self::meaning::Meaning;
use self::message::Message;
use super::rsa_recovery::PublicKey;
use super::split::{Ambiguity, Grammars, Reader};
use super::{
    Answer, Claim, Ordinary, Proof, Provider, Received, Refusal, RefusalStyle, Refused, SignedString, Verified,
};
use crate::config;
use crate::event::{AccountName, Assurance, Currency, Digest, SourceName};
use crate::store::Committed;

/// One source of `clickpay`.
pub struct ClickPay {
    source: SourceName,
    account: AccountName,
    currency: Currency,
    keys: Vec<PublicKey>,
    /// The key that held last: most sources rotate once in years, and the next notification is by the same one.
    last_key: AtomicUsize,
    grammars: Arc<Grammars>,
    /// By key, everybody who may read what it signed.
    readers: HashMap<Digest, Arc<[Reader]>>,
    has_order_pattern: bool,
    has_amount_pattern: bool,
}

/// What sources that share a key have to do with each other: what it signed may be meant for any of them.
#[derive(Default)]
pub struct Kin {
    /// Compiled once, however many sources write their numbers alike.
    grammars: HashMap<Writing, Arc<Grammars>>,
    readers: HashMap<Digest, Vec<Reader>>,
}

/// How a source's messages are written: patterns, fields, optional fields.
type Writing = (Option<String>, Option<String>, Vec<String>, Vec<String>);

/// A refusal, and whether a corrected key or a later version may yet find the request genuine.
struct Refuse {
    refusal: Refusal,
    may_be_genuine: bool,
}

/// What a signature that held proves.
struct Held {
    signed: SignedString,
    /// Position of the key in the config, from 1.
    key: u16,
    /// The string that was signed.
    string: String,
    /// The values as they were signed.
    fields: Vec<(String, String)>,
}

impl ClickPay {
    /// With the settings of one source, which is among those that `kin` was made of.
    pub fn new(source: &config::Source, settings: &config::ClickPay, kin: &Kin) -> Self {
        let fingerprints = settings.public_keys.iter().map(PublicKey::fingerprint);
        let readers = fingerprints.map(|key| (key, kin.readers.get(&key).cloned().unwrap_or_default().into()));
        Self {
            source: source.name.clone(),
            account: source.account.clone(),
            currency: settings.currency,
            keys: settings.public_keys.clone(),
            last_key: AtomicUsize::new(0),
            grammars: kin.grammars.get(&writing(settings)).map_or_else(|| compiled(settings), Arc::clone),
            readers: readers.collect(),
            has_order_pattern: settings.order_pattern.is_some(),
            has_amount_pattern: settings.amount_pattern.is_some(),
        }
    }

    fn judge(&self, received: &Received) -> Result<(Held, Meaning), Refuse> {
        if received.method != Method::POST {
            return Err(Refuse::for_good(Refusal::Method));
        }
        let message = Message::read(&received.headers, &received.body)?;
        let held = self.authenticate(message)?;
        let meaning = Meaning::of(&held.fields, &self.grammars, self.currency);
        let meaning = meaning.map_err(|why| Refuse::for_good(Refusal::Malformed(why)))?;
        Ok((held, meaning))
    }

    /// Finds the key and the reading of the values under which the signature holds.
    fn authenticate(&self, message: Message) -> Result<Held, Refuse> {
        let signature = message.signature()?;
        let bad = |why| Refuse { refusal: Refusal::BadSignature(why), may_be_genuine: true };
        let readings = message.readings();
        let first = self.last_key.load(Ordering::Relaxed);
        let others = (0..self.keys.len()).filter(|number| *number != first);
        for (number, key) in std::iter::once(first).chain(others).filter_map(|n| self.keys.get(n).map(|key| (n, key))) {
            let Ok(recovered) = key.recover(&signature) else { continue };
            for fields in &readings {
                let string: String = fields.iter().map(|(_, value)| value.as_str()).collect();
                if let Some(signed) = recovered.proves(string.as_bytes()) {
                    self.last_key.store(number, Ordering::Relaxed);
                    let key = u16::try_from(number + 1).unwrap_or(u16::MAX);
                    return Ok(Held { signed, key, string, fields: fields.clone() });
                }
            }
        }
        Err(bad("no key of the source made platSign over these values"))
    }

    fn verified(&self, received: Received, held: Held, meaning: Meaning) -> Verified {
        let reading = self.grammars.read(&held.string, meaning.is, &held.fields);
        // A message that does not fit the grammars is not among the readings that were counted, so that one reading
        // would be another one than the sent.
        let proven = reading.decisions == 1 && !reading.cross_type && meaning.problems_of_grammar == 0;
        let readers = self.readers.get(&held.signed.key).cloned().unwrap_or_default();
        let ambiguity = (!proven).then(|| Ambiguity::new(&readers, &held.string, reading.cross_type));
        let mut unproven: Vec<String> =
            reading.unproven.iter().map(|name| meaning::name_in_event(meaning.is, name).to_owned()).collect();
        unproven.sort_unstable();
        let words: Vec<(&str, &str)> =
            meaning.words.iter().filter_map(|(name, word)| Some((*name, word.as_deref()?))).collect();
        let mut key_parts: Vec<Option<&[u8]>> = vec![Some(meaning.kind.as_str().as_bytes())];
        key_parts.push(meaning.details.transaction_id.as_ref().map(|number| number.as_bytes()));
        key_parts.extend(meaning.words.iter().map(|(_, word)| word.as_ref().map(|word| word.as_bytes())));
        Verified {
            source: self.source.clone(),
            account: self.account.clone(),
            provider: self.word(),
            received,
            cuts: Vec::new(),
            scheme: "rsa-recovery",
            key: held.key,
            kind: meaning.kind,
            claim: Claim::Status(meaning.status),
            assurance: if proven { Assurance::Signed } else { Assurance::Ambiguous },
            unproven,
            ambiguity,
            problems: meaning.problems,
            idempotency: Digest::of_parts(key_parts),
            digest: Verified::digest_of(meaning.kind, &words, &meaning.details),
            details: meaning.details,
            signed: Some(held.signed),
            getid: None,
            accept_indicator: false,
            proof: Proof::shown(),
        }
    }
}

impl Provider for ClickPay {
    fn word(&self) -> &'static str {
        "clickpay"
    }
    fn methods(&self) -> &'static [Method] {
        &[Method::POST]
    }
    fn verify(&self, received: Received) -> Result<Verified, Refused> {
        match self.judge(&received) {
            Ok((held, meaning)) => Ok(self.verified(received, held, meaning)),
            Err(Refuse { refusal, may_be_genuine: true }) => Err(Refused::for_now(refusal, received)),
            Err(Refuse { refusal, may_be_genuine: false }) => Err(Refused::for_good(refusal, received)),
        }
    }
    fn answer(&self, _committed: &Committed) -> Answer {
        // A notification of a failed payment was processed too: anything else would make it come again.
        Answer::Phrase("SUCCESS")
    }
    fn refusal_style(&self) -> RefusalStyle {
        RefusalStyle::Phrase("FAIL")
    }
    fn ordinary(&self) -> Ordinary {
        ordinary::of(&self.grammars, self.has_order_pattern, self.has_amount_pattern)
    }
}

impl Kin {
    /// Of all sources of a configuration.
    pub fn of(sources: &[config::Source]) -> Self {
        let mut kin = Self::default();
        for source in sources {
            let config::ProviderSettings::ClickPay(settings) = &source.provider else { continue };
            let grammars = kin.grammars.entry(writing(settings)).or_insert_with(|| compiled(settings));
            for key in &settings.public_keys {
                let readers = kin.readers.entry(key.fingerprint()).or_default();
                match readers.iter_mut().find(|reader| Arc::ptr_eq(&reader.grammars, grammars)) {
                    Some(reader) if reader.accounts.contains(&source.account) => {}
                    Some(reader) => reader.accounts.push(source.account.clone()),
                    None => {
                        let accounts = vec![source.account.clone()];
                        readers.push(Reader { accounts, grammars: Arc::clone(grammars) });
                    }
                }
            }
        }
        kin
    }
}

fn writing(settings: &config::ClickPay) -> Writing {
    let config::ClickPay { order_pattern, amount_pattern, fields, optional_fields, .. } = settings.clone();
    (order_pattern, amount_pattern, fields, optional_fields)
}

fn compiled(settings: &config::ClickPay) -> Arc<Grammars> {
    let (fields, optional) = (&settings.fields, &settings.optional_fields);
    let (order, amount) = (settings.order_pattern.as_deref(), settings.amount_pattern.as_deref());
    // The config was checked; should a pattern fail all the same, holding everything is the safe side.
    let grammars =
        Grammars::new(order, amount, fields, optional).unwrap_or_else(|_| Grammars::hold_everything(fields, optional));
    Arc::new(grammars)
}

impl Refuse {
    fn for_good(refusal: Refusal) -> Self {
        Self { refusal, may_be_genuine: false }
    }
}

#[cfg(test)]
mod tests;
