//! What a provider would send, made from its documents and a source's secrets.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::Timestamp;
use jiff::tz::{self, TimeZone};
use rsa::RsaPrivateKey;
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs8::DecodePrivateKey;
use rsa::rand_core::{OsRng, RngCore};
use zeroize::Zeroizing;

use crate::cli;
use crate::cmd::sender::{Fields, Post, flipped, form, panel, pg_sig, plat_sign, return_tail};
use crate::config::{CLICKPAY_FIELDS, CLICKPAY_OPTIONAL_FIELDS};
use crate::config::{ClickGem, ClickKw, ClickPay, OrderIdFrom, Paygol, PaygolLegacy, ProviderSettings, Source};
use crate::event::OrderId;
use crate::provider::rsa_recovery::PublicKey;

/// A notification that is ready to be posted.
#[derive(Debug)]
pub(super) struct Made {
    /// The order that it is about.
    pub(super) order: String,
    /// The provider's number, where it sends one.
    pub(super) transaction: Option<String>,
    /// What to tell before it is sent.
    pub(super) notes: Vec<String>,
    /// Method, headers and body; its target is what follows the source's path.
    pub(super) post: Post,
}

/// No key or indicator is longer.
const MAX_FILE: u64 = 64 * 1024;
const CLICKPAY_AMOUNTS: [&str; 3] = ["10000.00", "10000", "10000.0"];
const CLICKPAY_FEES: [&str; 6] = ["250.00", "250", "250.0", "2500", "2500.00", "0"];

impl Made {
    /// The whole URL at a place. A place that is an order's return URL already is taken as it is.
    pub(super) fn url(&self, place: &str, query: Option<&str>) -> String {
        let (tail, own) = self.post.target.split_once('?').unwrap_or((&self.post.target, ""));
        let tail = if tail.is_empty() || is_return_url(place) { "" } else { tail };
        let queries: Vec<&str> = query.into_iter().chain([own]).filter(|query| !query.is_empty()).collect();
        let mark = if queries.is_empty() { "" } else { "?" };
        format!("{place}{tail}{mark}{}", queries.join("&"))
    }
}

/// `.../<order>/<tag>`, a tag being 16 bytes in base64url.
fn is_return_url(place: &str) -> bool {
    let mut parts = place.rsplit('/');
    let (tag, order) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    tag.len() == 22 && plain(tag) && !order.is_empty() && plain(order)
}

/// Makes it.
///
/// # Errors
/// A sentence on what is missing in the arguments or the configuration.
pub(super) fn make(source: &Source, arguments: &cli::Send, now: Timestamp) -> anyhow::Result<Made> {
    let mut made = match &source.provider {
        ProviderSettings::ClickPay(settings) => clickpay(settings, arguments, now)?,
        ProviderSettings::Paygol(settings) => paygol(settings, arguments, now)?,
        ProviderSettings::PaygolLegacy(settings) => paygol_legacy(settings, arguments, now)?,
        ProviderSettings::ClickKw(settings) => clickkw(source, settings, arguments, now)?,
        ProviderSettings::ClickGem(settings) => clickgem(source, settings, arguments, now)?,
    };
    made.notes.extend(useless(&source.provider, arguments));
    Ok(made)
}

/// What was given and has no place in this provider's notification.
fn useless(provider: &ProviderSettings, arguments: &cli::Send) -> Option<String> {
    use ProviderSettings as P;
    let browser = matches!(provider, P::ClickKw(_) | P::ClickGem(_));
    let given = [
        ("--amount", arguments.amount.is_some() && browser),
        ("--currency", arguments.currency.is_some() && !matches!(provider, P::Paygol(_) | P::PaygolLegacy(_))),
        ("--transaction", arguments.transaction.is_some() && browser),
        ("--private-key", arguments.private_key.is_some() && !matches!(provider, P::ClickPay(_))),
        ("--indicator", arguments.indicator.is_some() && !matches!(provider, P::ClickKw(_))),
        ("--indicator-file", arguments.indicator_file.is_some() && !matches!(provider, P::ClickKw(_))),
    ];
    let names: Vec<&str> = given.iter().filter(|(_, useless)| *useless).map(|(name, _)| *name).collect();
    let (word, names) = (provider.word(), names.join(", "));
    (!names.is_empty()).then(|| format!("left out: what {word} sends has no place for {names}"))
}

fn clickpay(settings: &ClickPay, arguments: &cli::Send, now: Timestamp) -> anyhow::Result<Made> {
    let order = match &arguments.order {
        Some(order) => order.clone(),
        None => {
            let made = [format!("T{}", now.as_millisecond()), now.as_millisecond().to_string()];
            let fits = |order: &String| matches(settings.order_pattern.as_deref(), order);
            made.into_iter().find(fits).ok_or_else(|| missing("--order", "order_pattern", &settings.order_pattern))?
        }
    };
    let amount_fits = |amount: &&str| matches(settings.amount_pattern.as_deref(), amount);
    let amount = match arguments.amount.as_deref() {
        Some(amount) => amount,
        None => CLICKPAY_AMOUNTS
            .into_iter()
            .find(amount_fits)
            .ok_or_else(|| missing("--amount", "amount_pattern", &settings.amount_pattern))?,
    };
    let fee = CLICKPAY_FEES.into_iter().find(amount_fits).unwrap_or("250.00");
    // Only siblings of the platform send a status of its own; without it there is paid and failed.
    let (code, msg, status) = match arguments.status.as_str() {
        "paid" => ("00", "SUCCESS", None),
        "failed" => ("01", "FAIL", None),
        "pending" => ("00", "PENDING", Some("NO_PAY")),
        "canceled" => ("01", "CANCEL", Some("PAY_CANCEL")),
        other => {
            let words = other.split_once('/').ok_or_else(|| {
                anyhow!("--status: clickpay has paid, pending, failed and canceled, or CODE/MSG as in 00/SUCCESS")
            })?;
            (words.0, words.1, None)
        }
    };
    let transaction = arguments.transaction.clone().unwrap_or_else(|| digits(18));
    let value = |name: &'static str| match name {
        "code" => code,
        "email" => "buyer@example.com",
        "method" => "QRIS",
        "msg" => msg,
        "name" => "Neo",
        "orderNum" => &order,
        "payData" => "https://link.example/pay",
        "payFee" => fee,
        "payMoney" => amount,
        "platOrderNum" => &transaction,
        "phone" => "082113086611",
        "status" => status.unwrap_or(if code == "00" { "SUCCESS" } else { "PAY_ERROR" }),
        _ => "8808123456",
    };
    let mut fields: Fields = Vec::new();
    let wanted = settings.fields.iter().map(String::as_str);
    let besides = status.map(|_| "status").filter(|name| !settings.fields.iter().any(|known| known == name));
    for wanted in wanted.chain(besides) {
        let mut known = CLICKPAY_FIELDS.into_iter().chain(CLICKPAY_OPTIONAL_FIELDS);
        let name = known.find(|known| *known == wanted).ok_or_else(|| {
            anyhow!("send does not know what the source's field {wanted} holds; it sends documented fields only")
        })?;
        fields.push((name, value(name).to_owned()));
    }
    let (key, notes) = clickpay_key(settings, arguments)?;
    fields.push(("platSign", plat_sign(&key, &fields)));
    Ok(Made { order, transaction: Some(transaction), notes, post: Post::json("", &fields) })
}

fn matches(pattern: Option<&str>, text: &str) -> bool {
    // The configuration was checked: a pattern that does not read cannot stand in it.
    pattern.is_none_or(|p| regex::Regex::new(&format!("^(?:{p})$")).is_ok_and(|p| p.is_match(text)))
}

fn missing(option: &str, key: &str, pattern: &Option<String>) -> anyhow::Error {
    anyhow!("say {option}: the source's {key} is {}", pattern.as_deref().unwrap_or_default())
}

/// The key to sign with, and what to tell of it.
fn clickpay_key(settings: &ClickPay, arguments: &cli::Send) -> anyhow::Result<(RsaPrivateKey, Vec<String>)> {
    if arguments.forge {
        let bits = settings.public_keys.first().map_or(1024, |key| key.bits() as usize);
        return Ok((RsaPrivateKey::new(&mut OsRng, bits).context("making a key that nobody trusts")?, Vec::new()));
    }
    let Some(file) = &arguments.private_key else {
        bail!(
            "clickpay signs with the platform's private key, which only the platform has: make a pair for tests (openssl \
             genrsa 2048), put its public half into the source's public_keys, and name the private one with --private-key"
        );
    };
    let key = private_key(&read(file)?).with_context(|| format!("--private-key {}", file.display()))?;
    let own = PublicKey::parse(&panel(&key)).map(|key| key.fingerprint());
    let known = own.is_ok_and(|own| settings.public_keys.iter().any(|known| known.fingerprint() == own));
    let note = (!known).then(|| "the source's public_keys do not hold this key's other half".to_owned());
    Ok((key, note.into_iter().collect()))
}

/// A private key from PEM or bare base64, PKCS#8 or PKCS#1.
fn private_key(text: &str) -> anyhow::Result<RsaPrivateKey> {
    if text.contains("PUBLIC KEY") {
        bail!("this is a public key: the private half signs");
    }
    if text.contains("ENCRYPTED") {
        bail!("this key is encrypted: take its password off (openssl pkey -in FILE -out PLAIN)");
    }
    let base64: Zeroizing<String> =
        text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect::<String>().into();
    let der = BASE64_STANDARD.decode(base64.as_bytes()).map(Zeroizing::new);
    let der = der.map_err(|_| anyhow!("this is neither PEM nor base64"))?;
    RsaPrivateKey::from_pkcs8_der(&der).or_else(|_| {
        RsaPrivateKey::from_pkcs1_der(&der).map_err(drop).map_err(|()| anyhow!("this is no RSA private key"))
    })
}

fn paygol(settings: &Paygol, arguments: &cli::Send, now: Timestamp) -> anyhow::Result<Made> {
    let status = match arguments.status.as_str() {
        "paid" => "completed",
        "pending" => "created",
        other => other,
    };
    let (order, transaction) = paygol_numbers(settings.order_id_from, arguments, now);
    let local =
        |at: Timestamp| at.to_zoned(TimeZone::fixed(tz::offset(-3))).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let begun = now.checked_sub(std::time::Duration::from_secs(185)).unwrap_or(now);
    let custom = if settings.order_id_from == OrderIdFrom::Custom { order.as_str() } else { "test" };
    let fields: Fields = vec![
        ("country", "CL".to_owned()),
        ("completed_at", local(now)),
        ("currency", arguments.currency.clone().unwrap_or_else(|| "USD".to_owned())),
        ("created_at", local(begun)),
        ("custom", custom.to_owned()),
        ("method", "webpay".to_owned()),
        ("price", arguments.amount.clone().unwrap_or_else(|| "10.00".to_owned())),
        ("service_id", settings.service_id.clone()),
        ("status", status.to_owned()),
        ("transaction_id", transaction.clone()),
    ];
    let secret = settings.secrets.first().context("the source has no secret")?;
    let secret = right_or_wrong(secret.expose(), arguments.forge);
    let post = Post::json("", &fields).header("x-pg-sig", pg_sig(&secret, &fields));
    Ok(Made { order, transaction: Some(transaction), notes: Vec::new(), post })
}

fn paygol_legacy(settings: &PaygolLegacy, arguments: &cli::Send, now: Timestamp) -> anyhow::Result<Made> {
    if arguments.status != "paid" {
        bail!("--status: paygol-legacy tells of completed payments only");
    }
    let (order, transaction) = paygol_numbers(settings.order_id_from, arguments, now);
    let (amount, currency) = (arguments.amount.clone(), arguments.currency.clone());
    let (amount, currency) =
        (amount.unwrap_or_else(|| "10.00".to_owned()), currency.unwrap_or_else(|| "USD".to_owned()));
    let custom = if settings.order_id_from == OrderIdFrom::Custom { order.as_str() } else { "test" };
    let secret = settings.secrets.first().context("the source has no secret")?;
    let fields: Fields = vec![
        ("transaction_id", transaction.clone()),
        ("service_id", settings.service_id.clone()),
        ("country", "ES".to_owned()),
        ("custom", custom.to_owned()),
        ("price", amount.clone()),
        ("currency", currency.clone()),
        ("frmprice", amount),
        ("frmcurrency", currency),
        ("method", "webpay".to_owned()),
        ("key", right_or_wrong(secret.expose(), arguments.forge).to_string()),
    ];
    let post = Post::get(format!("?{}", form(&fields)));
    Ok(Made { order, transaction: Some(transaction), notes: Vec::new(), post })
}

/// The order's number and the transaction's: one and the same where the source says so.
fn paygol_numbers(from: OrderIdFrom, arguments: &cli::Send, now: Timestamp) -> (String, String) {
    let made = || {
        const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
        let letter = |byte: u8| char::from(LETTERS.get(usize::from(byte) % 32).copied().unwrap_or(b'A'));
        let mut bytes = [0; 16];
        OsRng.fill_bytes(&mut bytes);
        bytes.chunks(4).map(|group| group.iter().map(|byte| letter(*byte)).collect()).collect::<Vec<String>>().join("-")
    };
    match from {
        OrderIdFrom::Custom => (
            arguments.order.clone().unwrap_or_else(|| format!("TEST-{}", now.as_millisecond())),
            arguments.transaction.clone().unwrap_or_else(made),
        ),
        OrderIdFrom::TransactionId => {
            let one = arguments.transaction.clone().or_else(|| arguments.order.clone()).unwrap_or_else(made);
            (one.clone(), one)
        }
    }
}

fn clickkw(source: &Source, settings: &ClickKw, arguments: &cli::Send, now: Timestamp) -> anyhow::Result<Made> {
    let order = return_order(arguments, || now.as_second().to_string())?;
    let tail = return_tail(source.name.as_str(), settings.return_secret.expose(), &order);
    let indicator = match (&arguments.indicator, &arguments.indicator_file) {
        (Some(indicator), _) => Zeroizing::new(indicator.expose().to_owned()),
        (None, Some(file)) => Zeroizing::new(read(file)?.trim_end_matches(['\r', '\n']).to_owned()),
        (None, None) => Zeroizing::new(digits(24)),
    };
    let fields: Fields = match arguments.status.as_str() {
        "paid" => vec![
            ("message", "success".to_owned()),
            ("message_type", "success".to_owned()),
            ("indicator_status", indicator.to_string()),
        ],
        "failed" | "pending" | "canceled" => vec![
            ("message", "error".to_owned()),
            ("message_type", "wrong".to_owned()),
            ("indicator_status", "ERROR17".to_owned()),
        ],
        _ => bail!("--status: a buyer comes back from clickkw with paid or failed"),
    };
    let post = Post::get(format!("{}?{}", forged_tail(tail, arguments.forge), form(&fields)));
    Ok(Made { order, transaction: None, notes: Vec::new(), post })
}

fn clickgem(source: &Source, settings: &ClickGem, arguments: &cli::Send, now: Timestamp) -> anyhow::Result<Made> {
    let order = return_order(arguments, || format!("TEST-{}", now.as_millisecond()))?;
    let status = match arguments.status.as_str() {
        "partially_paid" => "partial_paid",
        "canceled" | "failed" => "cancelled",
        other => other,
    };
    let fields: Fields = vec![
        ("api_signature", right_or_wrong(settings.api_signature.expose(), arguments.forge).to_string()),
        ("status", status.to_owned()),
    ];
    let tail = return_tail(source.name.as_str(), settings.return_secret.expose(), &order);
    Ok(Made { order, transaction: None, notes: Vec::new(), post: Post::form(tail, &fields) })
}

/// An order whose return URL can be made.
fn return_order(arguments: &cli::Send, made: impl FnOnce() -> String) -> anyhow::Result<String> {
    let order = arguments.order.clone().unwrap_or_else(made);
    let fits = OrderId::new(&order).is_some_and(|order| order.fits_url());
    if fits { Ok(order) } else { bail!("--order: a return URL carries [A-Za-z0-9_-], 1 to 64 characters") }
}

/// `/<order>/<tag>` with a tag that belongs to another order.
fn forged_tail(tail: String, forge: bool) -> String {
    match tail.rsplit_once('/').filter(|_| forge) {
        Some((front, tag)) => format!("{front}/{}", flipped(tag)),
        None => tail,
    }
}

fn right_or_wrong(secret: &str, forge: bool) -> Zeroizing<String> {
    Zeroizing::new(if forge { flipped(secret) } else { secret.to_owned() })
}

fn digits(count: usize) -> String {
    let mut bytes = vec![0; count];
    OsRng.fill_bytes(&mut bytes);
    // No zero in front: some platforms read it as a number.
    bytes.iter().map(|byte| char::from(b'1' + byte % 9)).collect()
}

fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_FILE).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
    };
    read.with_context(|| format!("reading {}", path.display()))?;
    Ok(text)
}
