//! `[[source]]`: one table by itself. What sources must be to each other: `rules`.

use crate::event::{AccountName, Currency, SourceName};
use crate::provider::browser::PageUrl;
use crate::provider::rsa_recovery::PublicKey;
use crate::provider::split::check_pattern;

use super::raw::Section;
use super::secret::{Rule, Secret};
use super::{ClickGem, ClickKw, ClickPay, OrderIdFrom, Pages, Paygol, PaygolLegacy, ProviderSettings, Source};

/// The fields of a documented pay-in (protocols.md, ClickPay).
pub const CLICKPAY_FIELDS: [&str; 10] =
    ["code", "email", "method", "msg", "name", "orderNum", "payData", "payFee", "payMoney", "platOrderNum"];
/// Fields seen at siblings of the platform.
pub const CLICKPAY_OPTIONAL_FIELDS: [&str; 3] = ["phone", "status", "vaNumber"];
/// Without these a notification is malformed.
const CLICKPAY_REQUIRED_FIELDS: [&str; 5] = ["code", "msg", "orderNum", "payMoney", "platOrderNum"];
/// Of all fields together: more are never decided (protocols.md).
const CLICKPAY_MAX_FIELDS: usize = 24;
const PROVIDERS: &str = "write clickpay, paygol, paygol-legacy, clickkw or clickgem";
/// The gateway's limit for a return URL (protocols.md, Click KW).
const MAX_RETURN_URL: usize = 255;
/// `/<tag>`: 16 bytes in base64url.
const TAG: usize = 23;

/// A table of `[[source]]`, as far as it could be read, with what the rules between sources need to know of it.
pub(super) struct Parsed<'d> {
    /// To note problems with.
    pub section: Section<'d>,
    pub name: Option<SourceName>,
    pub account: Option<AccountName>,
    pub path: Option<String>,
    /// The provider's word, where it is one.
    pub word: Option<&'static str>,
    pub shared_secret: bool,
    /// Its secrets, each with its key and what it is for.
    pub secrets: Vec<(Use, String, Secret)>,
    pub provider: Option<ProviderSettings>,
}

/// What a secret is for. Who may know it follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Signs notifications.
    Paygol,
    /// Travels in every notification's URL.
    PaygolLegacy,
    /// Signs return URLs; ours alone.
    Return,
    /// Travels through the buyer's browser.
    ApiSignature,
    /// Opens the admin API.
    AdminToken,
}

/// Reads one table. Unknown keys are told once everything was asked for.
pub(super) fn read<'d>(mut section: Section<'d>, public_url: Option<&str>) -> Parsed<'d> {
    let name =
        section.required_text("name", "give it a name, as in \"clickpay-id\"; it is for ever").and_then(|text| {
            let name = SourceName::new(&text);
            if name.is_none() {
                section.problem("name", format!("{text:?} is no name"), "use [a-z0-9-], 1 to 32 characters");
            }
            name
        });
    let account = match section.text("account") {
        None => name.as_ref().and_then(|name| AccountName::new(name.as_str())),
        Some(text) => {
            let account = AccountName::new(&text);
            if account.is_none() {
                section.problem("account", format!("{text:?} is no name"), "use [a-z0-9-], 1 to 32 characters");
            }
            account
        }
    };
    let path =
        section.required_text("path", "write where its notifications arrive, as in \"/clickpay\"").filter(|path| {
            check_path(path)
                .map_err(|(message, remedy)| section.problem("path", format!("{path:?} {message}"), remedy))
                .is_ok()
        });
    let word = section.required_text("provider", PROVIDERS);
    let mut parsed =
        Parsed { section, name, account, path, word: None, shared_secret: false, secrets: Vec::new(), provider: None };
    match word.as_deref() {
        Some("clickpay") => parsed.take("clickpay", clickpay),
        Some("paygol") => parsed.take("paygol", paygol),
        Some("paygol-legacy") => parsed.take("paygol-legacy", paygol_legacy),
        Some("clickkw") => {
            parsed.take("clickkw", clickkw);
            // An order id is an INT(11): ten digits.
            check_return_url(&parsed, public_url, 10);
        }
        Some("clickgem") => {
            parsed.take("clickgem", clickgem);
            check_return_url(&parsed, public_url, 1);
        }
        Some(other) => parsed.section.problem("provider", format!("{other:?} is no provider"), PROVIDERS),
        None => {}
    }
    parsed
}

impl Parsed<'_> {
    fn take(&mut self, word: &'static str, read: fn(&mut Self) -> Option<ProviderSettings>) {
        self.word = Some(word);
        self.provider = read(self);
    }

    /// A secret that must be there.
    fn secret(&mut self, purpose: Use, key: &'static str, remedy: &str) -> Option<Secret> {
        self.section.require(key, remedy);
        let secret = self.section.secret(key, Rule::Secret)?;
        self.secrets.push((purpose, key.to_owned(), secret.clone()));
        Some(secret)
    }

    /// Tells unknown keys and gives the source where all of it is there. Which keys a source has depends on its
    /// provider: without one they cannot be told.
    pub(super) fn finish(self) -> Option<Source> {
        if self.word.is_some() {
            self.section.finish();
        }
        Some(Source { name: self.name?, account: self.account?, path: self.path?, provider: self.provider? })
    }

    /// Whether notifications arrive below its path.
    pub(super) fn has_return_url(&self) -> bool {
        matches!(self.word, Some("clickkw" | "clickgem"))
    }
}

fn clickpay(source: &mut Parsed<'_>) -> Option<ProviderSettings> {
    let section = &mut source.section;
    let currency = currency(section, "IDR");
    let order_pattern = pattern(section, "order_pattern");
    let amount_pattern = pattern(section, "amount_pattern");
    let fields = fields(section, "fields", &CLICKPAY_FIELDS);
    let optional_fields = fields_besides(section, "optional_fields", &CLICKPAY_OPTIONAL_FIELDS, &fields);
    for required in CLICKPAY_REQUIRED_FIELDS {
        if !fields.iter().any(|field| field == required) {
            section.problem("fields", format!("{required} is missing"), "no notification can be read without it");
        }
    }
    if fields.len() + optional_fields.len() > CLICKPAY_MAX_FIELDS {
        let message = format!("with optional_fields there are more than {CLICKPAY_MAX_FIELDS}");
        section.problem("fields", message, "name only what the platform sends");
    }
    let remedy = "write [{ file = \"clickpay.pem\" }]: the platform's public key from the provider's panel";
    let texts = section.secrets("public_keys", Rule::PublicKey, remedy);
    let mut public_keys: Vec<PublicKey> = Vec::new();
    for (key, text) in &texts {
        match PublicKey::parse(text.expose()) {
            Ok(parsed) if public_keys.iter().any(|other| other.fingerprint() == parsed.fingerprint()) => {
                section.problem(key, "is a key that stands here already", "leave one of them out");
            }
            Ok(parsed) => public_keys.push(parsed),
            Err(message) => section.problem(key, message, ""),
        }
    }
    let currency = currency?;
    let settings = ClickPay { currency, order_pattern, amount_pattern, fields, optional_fields, public_keys };
    Some(ProviderSettings::ClickPay(settings))
}

fn paygol(source: &mut Parsed<'_>) -> Option<ProviderSettings> {
    let (service_id, order_id_from, secrets) = service(source, Use::Paygol);
    let (service_id, bearer) = (service_id?, source.shared_secret);
    Some(ProviderSettings::Paygol(Paygol { service_id, order_id_from, secrets, bearer }))
}

fn paygol_legacy(source: &mut Parsed<'_>) -> Option<ProviderSettings> {
    let (service_id, order_id_from, secrets) = service(source, Use::PaygolLegacy);
    let service_id = service_id?;
    Some(ProviderSettings::PaygolLegacy(PaygolLegacy { service_id, order_id_from, secrets }))
}

fn service(source: &mut Parsed<'_>, purpose: Use) -> (Option<String>, OrderIdFrom, Vec<Secret>) {
    let section = &mut source.section;
    let service_id = section.required_text("service_id", "write the service's number from the provider's panel");
    let service_id = service_id.filter(|id| {
        let fits = id.len() <= 64 && id.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            section.problem("service_id", "is no service's number", "use at most 64 visible ASCII characters");
        }
        fits
    });
    let order_id_from = match section.text("order_id_from").as_deref() {
        None | Some("custom") => OrderIdFrom::Custom,
        Some("transaction_id") => OrderIdFrom::TransactionId,
        Some(other) => {
            section.problem(
                "order_id_from",
                format!("{other:?} is no field"),
                "write \"custom\" or \"transaction_id\"",
            );
            OrderIdFrom::Custom
        }
    };
    source.shared_secret = section.boolean("shared_secret", false);
    let remedy = "write [{ env = \"PAYGOL_SECRET\" }]: the service's secret from the provider's panel";
    let keyed = section.secrets("secrets", Rule::Secret, remedy);
    let secrets = keyed.iter().map(|(_, secret)| secret.clone()).collect();
    source.secrets.extend(keyed.into_iter().map(|(key, secret)| (purpose, key, secret)));
    (service_id, order_id_from, secrets)
}

const RETURN_SECRET: &str = "make one with `openssl rand -hex 32`: it signs the return URLs";

fn clickkw(source: &mut Parsed<'_>) -> Option<ProviderSettings> {
    let currency = currency(&mut source.section, "KWD");
    let return_secret = source.secret(Use::Return, "return_secret", RETURN_SECRET);
    let accept_indicator = source.section.boolean("accept_indicator", false);
    let pages = pages(&mut source.section);
    let (currency, return_secret, pages) = (currency?, return_secret?, pages?);
    Some(ProviderSettings::ClickKw(ClickKw { currency, return_secret, accept_indicator, pages }))
}

fn clickgem(source: &mut Parsed<'_>) -> Option<ProviderSettings> {
    let remedy = "write { env = \"CLICKGEM_SIGNATURE\" }: the signature from the provider's panel";
    let api_signature = source.secret(Use::ApiSignature, "api_signature", remedy);
    let return_secret = source.secret(Use::Return, "return_secret", RETURN_SECRET);
    let pages = pages(&mut source.section);
    let (api_signature, return_secret, pages) = (api_signature?, return_secret?, pages?);
    Some(ProviderSettings::ClickGem(ClickGem { api_signature, return_secret, pages }))
}

fn pages(section: &mut Section<'_>) -> Option<Pages> {
    let example = "write where the buyer goes, as in \"https://shop.example.com/thanks?order={order_id}\"";
    let mut page = |key, required: bool| {
        if required {
            section.require(key, example);
        }
        let text = section.text(key)?;
        PageUrl::parse(&text).map_err(|message| section.problem(key, message, "")).ok()
    };
    let (success, failure) = (page("success_url", true), page("failure_url", true));
    let pending = page("pending_url", false);
    Some(Pages { success: success?, failure: failure?, pending })
}

fn currency(section: &mut Section<'_>, default: &str) -> Option<Currency> {
    let text = section.text("currency").unwrap_or_else(|| default.to_owned());
    let currency = Currency::parse(&text);
    if currency.is_none() {
        section.problem("currency", format!("{text:?} is no currency"), "write its ISO 4217 code, as in \"IDR\"");
    }
    currency
}

fn pattern(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let text = section.text(key)?;
    match check_pattern(&text) {
        Ok(()) => Some(text),
        Err(message) => {
            section.problem(key, message, "");
            None
        }
    }
}

fn fields(section: &mut Section<'_>, key: &'static str, default: &[&str]) -> Vec<String> {
    fields_besides(section, key, default, &[])
}

/// A list of field names without repeats, and without those in `others`. A default gives way to `others`.
fn fields_besides(section: &mut Section<'_>, key: &'static str, default: &[&str], others: &[String]) -> Vec<String> {
    let Some(names) = section.texts(key) else {
        return default.iter().map(|name| (*name).to_owned()).filter(|name| !others.contains(name)).collect();
    };
    for (index, name) in names.iter().enumerate() {
        let at = format!("{key}[{index}]");
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if !(1..=64).contains(&name.len()) || !name.bytes().all(word) || name == "platSign" {
            section.problem(&at, format!("{name:?} is no signed field"), "use names as the platform sends them");
        }
        if names.iter().take(index).any(|other| other == name) || others.contains(name) {
            section.problem(&at, format!("{name:?} stands twice"), "leave one of them out");
        }
    }
    names
}

/// Plain segments, so that there is one way to write a path and no proxy can read another one in it.
fn check_path(path: &str) -> Result<(), (&'static str, &'static str)> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(("does not begin with a slash", "write it as in \"/clickpay\""));
    };
    if rest.is_empty() {
        return Err(("is the root", "give every source a path of its own, as in \"/clickpay\""));
    }
    if path.ends_with('/') {
        return Err(("ends with a slash", "leave the last slash out"));
    }
    if path.len() > 128 {
        return Err(("is longer than 128 characters", "make it shorter"));
    }
    if rest.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(("has an empty segment or one of dots", "write plain segments, as in \"/paygol/ipn\""));
    }
    if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b)) {
        return Err(("has other characters than [A-Za-z0-9._~-]", "write plain segments, as in \"/paygol/ipn\""));
    }
    Ok(())
}

/// A return URL is `<public_url><path>/<order_id>/<tag>`; the gateway takes 255 characters.
fn check_return_url(parsed: &Parsed<'_>, public_url: Option<&str>, longest_order: usize) {
    let (Some(public_url), Some(path)) = (public_url, &parsed.path) else { return };
    let length = public_url.len() + path.len() + 1 + longest_order + TAG;
    if length > MAX_RETURN_URL {
        let message = format!(
            "makes return URLs of {length} characters (public_url {}, path {}, order {}, tag {TAG}), more than {MAX_RETURN_URL}",
            public_url.len(),
            path.len(),
            longest_order + 1,
        );
        let remedy = format!("make path or listener.public_url {} characters shorter", length - MAX_RETURN_URL);
        parsed.section.problem("path", message, remedy);
    }
}
