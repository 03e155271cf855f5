//! The tables that are there once: listener, admin, store, retention, quarantine, policy and relay.
//!
//! Bounds are wide: they catch a wrong unit, not a wrong taste.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::raw::Section;
use super::secret::{Rule, Secret};
use super::{Admin, Amqp, Listener, Quarantine, Retention, SinkStart, StoreSettings, Traces, units};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const ADDRESS: &str = "write an IP address and a port, as in \"127.0.0.1:8080\" or \"[::1]:8080\"";
/// Longest public URL: a return URL has 255 characters in all.
const MAX_PUBLIC_URL: usize = 200;

/// `[listener]`.
pub(super) fn listener(mut section: Section<'_>) -> Option<Listener> {
    let timeout = Duration::from_millis(100)..=Duration::from_secs(600);
    let address = address(&mut section, SocketAddr::from(([127, 0, 0, 1], 8080)));
    let remedy = "write how the world reaches the listener, as in \"https://pay.example.com\"";
    let public_url = section.required_text("public_url", remedy).filter(|url| match check_public_url(url) {
        Ok(()) => true,
        Err(message) => {
            section.problem("public_url", message, remedy);
            false
        }
    });
    let max_connections = section.count("max_connections", 4096, 1..=1_000_000) as usize;
    let max_body_bytes = section.size("max_body", 64 * KIB, KIB..=16 * MIB) as usize;
    // Below 8 KiB the HTTP library cannot read a request's head.
    let max_header_bytes = section.size("max_header", 16 * KIB, 8 * KIB..=256 * KIB) as usize;
    let header_timeout = section.duration("header_timeout", 5 * SECOND, timeout.clone());
    let body_timeout = section.duration("body_timeout", 10 * SECOND, timeout.clone());
    let request_timeout = section.duration("request_timeout", 15 * SECOND, timeout);
    let idle_timeout = section.duration("idle_timeout", 60 * SECOND, Duration::from_millis(100)..=3600 * SECOND);
    let max_in_flight = section.count("max_in_flight", 1024, 1..=1_000_000) as usize;
    section.finish();
    Some(Listener {
        address: address?,
        public_url: public_url?,
        max_connections,
        max_body_bytes,
        max_header_bytes,
        header_timeout,
        body_timeout,
        request_timeout,
        idle_timeout,
        max_in_flight,
    })
}

/// `[admin]`.
pub(super) fn admin(mut section: Section<'_>, listener: Option<&Listener>) -> Option<Admin> {
    let address = address(&mut section, SocketAddr::from(([127, 0, 0, 1], 9090)));
    let given = section.has("token");
    let token = admin_token(&mut section);
    if let Some(address) = address {
        if !address.ip().to_canonical().is_loopback() && !given {
            let message = format!("is missing, and {} can be reached from elsewhere", address.ip());
            section.problem("token", message, "set a token, or listen on 127.0.0.1");
        }
        if listener.is_some_and(|listener| overlap(listener.address, address)) {
            section.problem("address", "is the listener's", "give the admin listener a port of its own");
        }
    }
    section.finish();
    Some(Admin { address: address?, token })
}

/// `admin.token`.
pub(super) fn admin_token(section: &mut Section<'_>) -> Option<Secret> {
    section.secret("token", Rule::Secret)
}

/// `store.path`, relative to the file.
pub(super) fn store_path(section: &mut Section<'_>) -> Option<PathBuf> {
    let path = section.required_text("path", "write the folder that keeps everything, as in \"/var/lib/quittance\"");
    path.map(|path| section.document().base.join(path))
}

/// `[store]`.
pub(super) fn store(mut section: Section<'_>, listener: Option<&Listener>) -> Option<StoreSettings> {
    let path = store_path(&mut section);
    let segment_bytes = section.size("segment", 64 * MIB, 64 * KIB..=GIB);
    let largest = listener.map_or(0, |listener| (listener.max_body_bytes + listener.max_header_bytes) as u64);
    if segment_bytes < 4 * largest {
        let message = format!("{} holds fewer than four of the largest notifications", units::show_size(segment_bytes));
        let remedy = format!("make it at least {}, or listener.max_body smaller", units::show_size(4 * largest));
        section.problem("segment", message, remedy);
    }
    let index_lag = section.count("index_lag", 65_536, 1..=16_777_216) as usize;
    section.finish();
    Some(StoreSettings { path: path?, segment_bytes, index_lag })
}

/// `[retention]`.
pub(super) fn retention(mut section: Section<'_>) -> Retention {
    let bodies = section.duration("bodies", 90 * DAY, SECOND..=36_500 * DAY);
    let keys = section.duration("keys", 400 * DAY, SECOND..=36_500 * DAY);
    if keys < bodies {
        section.problem("keys", "is shorter than bodies", "keep keys at least as long as what they find");
    }
    section.finish();
    Retention { bodies, keys }
}

/// `[quarantine]`.
pub(super) fn quarantine(mut section: Section<'_>, listener: Option<&Listener>) -> Quarantine {
    let max_bytes = section.size("bytes", 64 * MIB, 64 * KIB..=1024 * GIB);
    let largest = listener.map_or(0, |listener| (listener.max_body_bytes + listener.max_header_bytes) as u64);
    if max_bytes < 8 * largest {
        let message = format!("{} holds fewer than eight of the largest notifications", units::show_size(max_bytes));
        let remedy = format!("make it at least {}, or listener.max_body smaller", units::show_size(8 * largest));
        section.problem("bytes", message, remedy);
    }
    let max_age = section.duration("age", 30 * DAY, SECOND..=3650 * DAY);
    section.finish();
    Quarantine { max_bytes, max_age }
}

/// `[policy]`: whether `fulfil` is never said.
pub(super) fn policy(mut section: Section<'_>) -> bool {
    let word = section.text("fulfil");
    if let Some(other) = word.as_deref().filter(|word| !matches!(*word, "match" | "never")) {
        section.problem("fulfil", format!("{other:?} is no policy"), "write \"match\" or \"never\"");
    }
    section.finish();
    word.as_deref() == Some("never")
}

/// `[relay.amqp]` and `[relay.feed]`.
pub(super) fn relay(mut section: Section<'_>) -> (Option<Amqp>, Vec<String>) {
    let amqp = section.section("amqp");
    let amqp = if amqp.present() { self::amqp(amqp) } else { None };
    let mut feed = section.section("feed");
    let consumers = feed.texts("consumers").unwrap_or_default();
    for (index, name) in consumers.iter().enumerate() {
        let key = format!("consumers[{index}]");
        if !is_consumer(name) {
            feed.problem(&key, format!("{name:?} is no consumer's name"), "use [A-Za-z0-9._-], 64 characters at most");
        }
        if consumers.iter().take(index).any(|other| other == name) {
            feed.problem(&key, format!("{name:?} stands twice"), "leave one of them out");
        }
    }
    feed.finish();
    section.finish();
    (amqp, consumers)
}

/// Whether a feed consumer may be called so: `[A-Za-z0-9._-]{1,64}`.
pub fn is_consumer(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn amqp(mut section: Section<'_>) -> Option<Amqp> {
    let remedy = "write \"amqp://user:password@host:5672/vhost\" (or amqps), best as { env = \"..\" }";
    let urls = section.secrets("url", Rule::BrokerUrl, remedy);
    for (key, url) in &urls {
        // The URL holds a password: what is wrong with it is said without it.
        let known = ["amqp://", "amqps://"].iter().find_map(|scheme| url.expose().strip_prefix(scheme));
        let host = known.map(|rest| rest.split('/').next().unwrap_or_default().rsplit('@').next().unwrap_or_default());
        let message = match host {
            None => "does not begin with amqp:// or amqps://",
            Some("") => "names no host",
            Some(_) if url.expose().chars().any(|c| c.is_control() || c == ' ') => "has a space or control character",
            Some(_) => continue,
        };
        section.problem(key, message, remedy);
    }
    let exchange = broker_name(&mut section, "exchange", 255);
    // `<queue>.dead` must fit too.
    let queue = broker_name(&mut section, "queue", 250);
    let declare = section.boolean("declare", true);
    let window = section.count("window", 256, 1..=65_535);
    let attempts = section.count("attempts", 5, 1..=1000);
    let start = section.text("start");
    let start = start.and_then(|word| match word.as_str() {
        "now" => Some(SinkStart::Now),
        "beginning" => Some(SinkStart::Beginning),
        other => {
            section.problem("start", format!("{other:?} is no start"), "write \"now\" or \"beginning\"");
            None
        }
    });
    section.finish();
    let window = u16::try_from(window).ok()?;
    let attempts = u32::try_from(attempts).ok()?;
    let urls: Vec<_> = urls.into_iter().map(|(_, url)| url).collect();
    (!urls.is_empty()).then_some(Amqp { urls, exchange, queue, declare, window, attempts, start })
}

/// `[traces]`.
pub(super) fn traces(mut section: Section<'_>) -> Option<Traces> {
    if !section.present() {
        return None;
    }
    const REMEDY: &str =
        "write the URL of an OpenTelemetry collector near by, as in \"http://127.0.0.1:4318\", or leave [traces] out";
    let endpoint = section.required_text("endpoint", REMEDY);
    let one_in = section.count("one_in", 1, 1..=1_000_000);
    if let Some(url) = &endpoint {
        let why = if url.starts_with("https:") {
            Err("is https: spans go to a collector near by, which can pass them on over TLS".to_owned())
        } else {
            check_public_url(url)
        };
        if let Err(why) = why {
            section.problem("endpoint", why, REMEDY);
        }
    }
    section.finish();
    Some(Traces { endpoint: endpoint?, one_in })
}

fn broker_name(section: &mut Section<'_>, key: &'static str, max: usize) -> String {
    let name = section.text(key).unwrap_or_else(|| "payments".to_owned());
    if name.len() > max || name.chars().any(char::is_control) {
        let remedy = format!("use at most {max} bytes without control characters");
        section.problem(key, "is too long, or has control characters", remedy);
    }
    name
}

fn address(section: &mut Section<'_>, default: SocketAddr) -> Option<SocketAddr> {
    if !section.has("address") {
        return Some(default);
    }
    let text = section.text("address")?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        section.problem("address", format!("{text:?} is no address"), ADDRESS);
    }
    parsed
}

/// Whether two listeners would fight for one port. Port 0 is another one each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || any(one.ip()) || any(other.ip()))
}

/// Absolute, http or https, a host, no user, query, fragment or trailing slash. A path is for a proxy in front
/// that takes it off.
fn check_public_url(url: &str) -> Result<(), String> {
    let say = |what: &str| Err(what.to_owned());
    if url.len() > MAX_PUBLIC_URL {
        return Err(format!("is longer than {MAX_PUBLIC_URL} characters"));
    }
    if url.ends_with('/') {
        return say("ends with a slash");
    }
    if url.contains(['?', '#']) {
        return say("has a query or fragment");
    }
    let Ok(uri) = url.parse::<http::Uri>() else { return say("is no URL") };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return say("does not begin with http:// or https://");
    }
    let Some(authority) = uri.authority() else { return say("names no host") };
    if authority.as_str().contains('@') {
        return say("holds a user or password");
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') {
        return say("names no host, or a colon without a port");
    }
    if authority.as_str().len() > authority.host().len() && authority.port_u16().is_none_or(|port| port == 0) {
        return say("has a port that is none");
    }
    let path = uri.path();
    if path.contains("//") || path.split('/').any(|part| part == "." || part == "..") || path.contains('%') {
        return say("has a path with \"//\", dots or percent signs");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_urls_are_absolute_and_bare() {
        for good in
            ["https://pay.example.com", "http://127.0.0.1:8080", "https://[::1]:8443", "https://a.example/hooks"]
        {
            assert_eq!(check_public_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "pay.example.com",
            "https://pay.example.com/",
            "ftp://pay.example.com",
            "https://pay.example.com?a=b",
            "https://pay.example.com#a",
            "https://user:pw@pay.example.com",
            "https://",
            "/pay",
            "https://a b.example",
            "https://a.example/x//y",
            "https://a.example/../y",
            "https://a.example:",
            "https://a.example:0",
            "https://a.example:99999",
            "https://a.example/%2e",
        ] {
            assert!(check_public_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_listeners_do_not_share_a_port() {
        let at = |text: &str| text.parse().expect("an address");
        assert!(overlap(at("127.0.0.1:8080"), at("127.0.0.1:8080")));
        assert!(overlap(at("0.0.0.0:8080"), at("127.0.0.1:8080")));
        assert!(!overlap(at("127.0.0.1:8080"), at("127.0.0.1:9090")));
        assert!(!overlap(at("127.0.0.1:0"), at("127.0.0.1:0")));
    }
}
