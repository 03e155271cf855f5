//! What the fuzz targets share: one fixed configuration, requests made of bytes, and the properties that must hold.

pub mod journal;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use num_bigint::BigUint;
use quittance::config::{Config, ProviderSettings};
use quittance::event::OrderId;
use quittance::listener::{Endpoint, Routes};
use quittance::metrics::Metrics;
use quittance::provider::split::{Grammars, Type};
use quittance::provider::{self, Provider, Received};
use sha2::Sha256;

const SECRET: &str = "7c1a6a24-7943-102d-92f8-29573711ad31";

/// One source of each provider; the ClickPay key is the throw-away key of the tests.
const CONFIG: &str = r#"
[listener]
public_url = "https://pay.example.com"
[store]
path = "store"
[[source]]
name = "clickpay"
provider = "clickpay"
path = "/clickpay"
currency = "IDR"
public_keys = ["MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDJCrnKPOYK38aMO4G9fXwC5/TgotruSbNFmCp4PiL9mbZ4kTNSRNMd8efbd/znyALzEim36NGuKZFN5yfZ/VhEhlnlN1q20Z/L8aa79x7AHufjBn3Hsusf9aAb9FLeGssRPy5wpbit3KoUrcoaRCDvoUHQr0KnQOyERF7Y8wKtqwIDAQAB"]
[[source]]
name = "paygol"
provider = "paygol"
path = "/paygol"
service_id = "123"
secrets = ["7c1a6a24-7943-102d-92f8-29573711ad31"]
[[source]]
name = "paygol-ipn"
provider = "paygol-legacy"
path = "/paygol/ipn"
service_id = "124"
secrets = ["5d0f9c3e-legacy-4b1a-8c2d-7e6f5a4b3c2d"]
[[source]]
name = "clickkw"
provider = "clickkw"
path = "/clickkw"
currency = "KWD"
return_secret = "kw-return-4f8a2c6e1b9d7305"
success_url = "https://shop.example.com/thanks?order={order_id}"
failure_url = "https://shop.example.com/sorry?order={order_id}"
[[source]]
name = "clickgem"
provider = "clickgem"
path = "/clickgem"
api_signature = "gem-api-0c7e5a3f9b1d2846"
return_secret = "gem-return-93b1d5f7e2a8c604"
success_url = "https://shop.example.com/thanks?order={order_id}"
failure_url = "https://shop.example.com/sorry?order={order_id}"
"#;

/// The modulus of that key, hex.
const N: &str = "c90ab9ca3ce60adfc68c3b81bd7d7c02e7f4e0a2daee49b345982a783e22fd99b67891335244d31df1e7db77fce7c802\
f31229b7e8d1ae29914de727d9fd58448659e5375ab6d19fcbf1a6bbf71ec01ee7e3067dc7b2eb1ff5a01bf452de1acb\
113f2e70a5b8addcaa14adca1a4420efa141d0af42a740ec84445ed8f302adab";
/// Its private exponent, hex.
const D: &str = "683356f8ab77d04b0bedc32a0bbcee79d31fe90e7fcae208391a15691d4ba585f63da784a22f69fd2b54b13c0fa952d1\
b48ac574bd0770edba92562d219f5e0fbaca12c06bb474acf90a4cba6a1a1a0bcc1d0c29b8f847024b77ee0952f7df8c\
85b4485e087c0f78c814c200e1bed11e0babf845a188cd2f21e48df82c72029";

fn config() -> Config {
    Config::parse(CONFIG, Path::new("/nowhere"), &|_| None).expect("the fixed configuration is right")
}

fn routes() -> &'static Routes {
    static ROUTES: OnceLock<Routes> = OnceLock::new();
    ROUTES.get_or_init(|| {
        let config = config();
        let metrics = Metrics::new(&config.sources, jiff::Timestamp::UNIX_EPOCH).expect("series");
        let providers = config.sources.iter().zip(provider::build_all(&config.sources));
        Routes::new(providers.map(|(source, provider)| Endpoint::new(source, provider, &metrics)))
    })
}

/// The providers of the fixed configuration, in its order: clickpay, paygol, paygol-legacy, clickkw, clickgem.
pub fn providers() -> &'static [Arc<dyn Provider>] {
    static PROVIDERS: OnceLock<Vec<Arc<dyn Provider>>> = OnceLock::new();
    PROVIDERS.get_or_init(|| provider::build_all(&config().sources))
}

/// Which of [`providers`] a target is for.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum At {
    ClickPay,
    Paygol,
    PaygolLegacy,
    ClickKw,
    ClickGem,
}

/// A request made of bytes: a letter, the query to the end of the line, and the body. `j` JSON, `f` a form, `m`
/// multipart; a capital letter has it signed, or at a return URL tagged, as the provider would.
pub fn notification(at: At, data: &[u8]) {
    let Some((&letter, rest)) = data.split_first() else { return };
    let (query, body) = match rest.iter().position(|&b| b == b'\n') {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (rest, &[][..]),
    };
    let genuine = letter.is_ascii_uppercase();
    let provider = &providers()[at as usize];
    let mut headers = http::HeaderMap::new();
    let media = match letter.to_ascii_lowercase() {
        b'f' => "application/x-www-form-urlencoded",
        b'm' => "multipart/form-data; boundary=b0undary",
        _ => "application/json",
    };
    headers.insert("content-type", http::HeaderValue::from_static(media));
    let mut body = body.to_vec();
    let mut query = String::from_utf8_lossy(query).into_owned();
    let mut path = String::new();
    match at {
        At::ClickPay if genuine => body = with_plat_sign(&body),
        At::Paygol if genuine => {
            if let Ok(value) = http::HeaderValue::from_str(&hex(&mac(SECRET, &body))) {
                headers.insert("x-pg-sig", value);
            }
        }
        At::PaygolLegacy if genuine => query += "&key=5d0f9c3e-legacy-4b1a-8c2d-7e6f5a4b3c2d",
        At::ClickKw | At::ClickGem => {
            let order = OrderId::new("42").expect("not empty");
            let base = if matches!(at, At::ClickKw) { "/clickkw" } else { "/clickgem" };
            path = match provider.return_path(&order) {
                Some(path) if genuine => path[base.len()..].to_owned(),
                _ => "/42/AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            };
            if genuine && matches!(at, At::ClickGem) && body.starts_with(b"status=") {
                body.extend_from_slice(b"&api_signature=gem-api-0c7e5a3f9b1d2846");
            }
        }
        _ => {}
    }
    for method in provider.methods() {
        let received = Received {
            method: method.clone(),
            path: format!("/x{path}"),
            rest: path.clone(),
            query: Some(query.clone()),
            headers: headers.clone(),
            body: body.clone().into(),
            remote: IpAddr::V4(Ipv4Addr::LOCALHOST),
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        verify(provider.as_ref(), received);
    }
}

/// Verifies twice. Whatever came in: no panic, the same result, and cuts that lie where they say.
pub fn verify(provider: &dyn Provider, received: Received) {
    match (provider.verify(received.clone()), provider.verify(received)) {
        (Ok(one), Ok(two)) => {
            assert_eq!((one.idempotency, one.digest, one.key), (two.idempotency, two.digest, two.key));
            assert_eq!(one.details, two.details);
            for cut in &one.cuts {
                let place = match cut.place {
                    provider::Place::Path => one.received.path.as_bytes(),
                    provider::Place::Query => one.received.query.as_deref().unwrap_or_default().as_bytes(),
                    provider::Place::Body => &one.received.body,
                };
                assert!(place.get(cut.range.clone()).is_some(), "a cut outside of what is kept");
            }
        }
        (Err(one), Err(two)) => assert_eq!(one.refusal, two.refusal),
        _ => panic!("verified once and refused once"),
    }
}

/// Lays every type of message over the string: the count is bounded, and what nothing fits has no decision.
pub fn count_decisions(string: &str) {
    static GRAMMARS: OnceLock<[Arc<Grammars>; 2]> = OnceLock::new();
    let both = GRAMMARS.get_or_init(|| {
        let Some(ProviderSettings::ClickPay(settings)) = config().sources.into_iter().next().map(|s| s.provider) else {
            panic!("the first source is ClickPay's");
        };
        let make = |order, amount| Grammars::new(order, amount, &settings.fields, &settings.optional_fields);
        let strict = make(Some("^T[0-9]{13}$"), Some(r"^[0-9]+\.[0-9]{2}$"));
        [make(None, None), strict].map(|grammars| Arc::new(grammars.expect("patterns that are right")))
    });
    let sent: Vec<(String, String)> = vec![("orderNum".into(), string.chars().take(8).collect())];
    let [loose, strict] = both.each_ref().map(|grammars| grammars.read(string, Type::PayIn, &sent));
    for reading in [&loose, &strict] {
        assert!(reading.decisions <= 64);
        assert!(!reading.cross_type || reading.decisions >= 1);
    }
    assert!(strict.decisions <= loose.decisions, "a narrower grammar allows no more");
}

/// The first request in these bytes, sent to the source that its path names: at most one is asked.
pub fn request(data: &[u8]) {
    let end = data.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(data.len());
    let head = String::from_utf8_lossy(&data[..end]);
    let body = data.get(end + 4..).unwrap_or_default();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(Ok(method)), Some(Ok(uri))) =
        (words.next().map(str::parse::<http::Method>), words.next().map(str::parse::<http::Uri>))
    else {
        return;
    };
    let mut headers = http::HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')).take(64) {
        if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), http::HeaderValue::from_str(value.trim())) {
            headers.append(name, value);
        }
    }
    let Some((endpoint, rest)) = routes().find(uri.path()) else { return };
    assert!(uri.path() == format!("{}{rest}", endpoint.path), "what is routed is the path itself");
    if !endpoint.provider.methods().contains(&method) {
        return;
    }
    let received = Received {
        method,
        path: uri.path().to_owned(),
        rest: rest.to_owned(),
        query: uri.query().map(str::to_owned),
        headers,
        body: body.to_vec().into(),
        remote: IpAddr::V4(Ipv4Addr::LOCALHOST),
        at: jiff::Timestamp::UNIX_EPOCH,
    };
    verify(endpoint.provider.as_ref(), received);
}

/// The body with the `platSign` that belongs to its other fields, where it is a flat object of strings.
fn with_plat_sign(body: &[u8]) -> Vec<u8> {
    let Ok(mut fields) = serde_json::from_slice::<std::collections::BTreeMap<String, String>>(body) else {
        return body.to_vec();
    };
    fields.remove("platSign");
    let text: String = fields.values().map(String::as_str).collect();
    let (n, d) = (number(N), number(D));
    let mut signature = Vec::new();
    for chunk in text.as_bytes().chunks(117).take(8) {
        let mut block = vec![0, 1];
        block.resize(127 - chunk.len(), 0xff);
        block.push(0);
        block.extend_from_slice(chunk);
        let out = BigUint::from_bytes_be(&block).modpow(&d, &n).to_bytes_be();
        signature.resize(signature.len() + 128 - out.len(), 0);
        signature.extend_from_slice(&out);
    }
    fields.insert("platSign".into(), base64::engine::general_purpose::STANDARD.encode(signature));
    serde_json::to_vec(&fields).unwrap_or_default()
}

fn number(hex: &str) -> BigUint {
    BigUint::parse_bytes(hex.as_bytes(), 16).expect("hex")
}

fn mac(secret: &str, data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(at: At, body: Vec<u8>) -> Received {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", http::HeaderValue::from_static("application/json"));
        headers.insert("x-pg-sig", http::HeaderValue::from_str(&hex(&mac(SECRET, &body))).unwrap());
        let path = if matches!(at, At::Paygol) { "/paygol" } else { "/clickpay" };
        Received {
            method: http::Method::POST,
            path: path.into(),
            rest: String::new(),
            query: None,
            headers,
            body: body.into(),
            remote: IpAddr::V4(Ipv4Addr::LOCALHOST),
            at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    /// Without this a slip in the signing above would leave the targets at the first refusal for ever.
    #[test]
    fn what_the_targets_sign_verifies() {
        let s1 = br#"{"code":"00","email":"buyer@example.com","method":"QRIS","msg":"SUCCESS","name":"Neo","orderNum":"T1","payData":"x","payFee":"1","payMoney":"2","platOrderNum":"552538080348274688"}"#;
        assert!(providers()[At::ClickPay as usize].verify(received(At::ClickPay, with_plat_sign(s1))).is_ok());
        let p1 = br#"{"service_id":"123","status":"completed","transaction_id":"x","custom":"1","price":"1","currency":"EUR"}"#;
        assert!(providers()[At::Paygol as usize].verify(received(At::Paygol, p1.to_vec())).is_ok());
    }
}
