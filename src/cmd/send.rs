//! `quittance send`: a test notification with the secrets of a configured source, posted as its provider would.
//!
//! What is sent is made in `send/made` from the protocols, not from the receiving code; tests have it accepted by code
//! that is not ours.

mod made;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::json;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use self::made::Made;
use super::{Failure, Out, talk};
use crate::cli;
use crate::clock::{Clock, System};
use crate::config::{Config, Pages, ProviderSettings, Source};

/// What is shown of an answer.
const MAX_ANSWER: u64 = 64 * 1024;
const MAX_SHOWN: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);

/// Where it goes.
#[derive(Debug, PartialEq, Eq)]
struct Destination {
    /// `http://127.0.0.1:8080/paygol`
    place: String,
    /// What stood behind its `?`.
    query: Option<String>,
}

/// What came back.
struct Answer {
    status: u16,
    body: String,
    location: Option<String>,
}

/// Makes it, posts it, prints each answer.
///
/// # Errors
/// [`Failure::Usage`] where it cannot be made of the configuration and the arguments; [`Failure::Told`] when an answer was a
/// refusal; [`Failure::Operation`] when none came.
pub fn run<W: Write>(config: &Config, arguments: &cli::Send, out: &mut Out<W>) -> Result<(), Failure> {
    let source = the_source(config, arguments).map_err(Failure::Usage)?;
    let made = made::make(source, arguments, System.now()).map_err(Failure::Usage)?;
    let to = destination(config, source, arguments.to.as_deref()).map_err(Failure::Usage)?;
    made.notes.iter().for_each(|note| talk(note));
    let url = made.url(&to.place, to.query.as_deref());
    let tls = if to.place.starts_with("https:") { trusted()? } else { TlsConfig::default() };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .user_agent(concat!("quittance/", env!("CARGO_PKG_VERSION"), " (test)"))
        .build()
        .into();
    let mut refused = 0_u32;
    for _ in 0..arguments.repeat {
        // The URL itself may hold a secret: it is named without.
        let answer = post(&agent, &url, &made).with_context(|| {
            format!(
                "posting to {}: is the daemon running, and is this where it, or the proxy before it, listens?",
                to.place
            )
        })?;
        let accepted = accepts(source, &answer);
        refused += u32::from(!accepted);
        print(source, &made, &to.place, &answer, accepted, arguments.json, out)?;
    }
    if refused == 0 {
        return Ok(());
    }
    talk(&match arguments.repeat {
        1 => "refused; the receiver's log says why".to_owned(),
        of => format!("{refused} of {of} refused; the receiver's log says why"),
    });
    Err(Failure::Told)
}

fn the_source<'c>(config: &'c Config, arguments: &cli::Send) -> anyhow::Result<&'c Source> {
    let of_provider = |source: &&Source| source.provider.word() == arguments.provider;
    let provider = &arguments.provider;
    if let Some(name) = &arguments.source {
        let source = config.sources.iter().find(|source| source.name.as_str() == name);
        let source = source.ok_or_else(|| anyhow!("--source: there is no source {name} in the configuration"))?;
        let right = Some(source).filter(of_provider);
        return right
            .ok_or_else(|| anyhow!("--source: {name} is a source of {}, not of {provider}", source.provider.word()));
    }
    let mut sources = config.sources.iter().filter(of_provider);
    match (sources.next(), sources.next()) {
        (Some(source), None) => Ok(source),
        (None, _) => Err(anyhow!("the configuration has no source of {provider}; add a [[source]] with its secrets")),
        (Some(_), Some(_)) => {
            let names: Vec<&str> =
                config.sources.iter().filter(of_provider).map(|source| source.name.as_str()).collect();
            Err(anyhow!("several sources are of {provider}: say --source {}", names.join(" or --source ")))
        }
    }
}

/// The place that `--to` names, or the listener of the configuration.
fn destination(config: &Config, source: &Source, to: Option<&str>) -> anyhow::Result<Destination> {
    const REMEDY: &str = "write --to http://HOST:PORT or https://HOST/PATH";
    let Some(to) = to else {
        let mut address = config.listener.address;
        if address.port() == 0 {
            return Err(anyhow!("listener.address leaves the port to the system; {REMEDY}, as serve printed it"));
        }
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        return Ok(Destination { place: format!("http://{address}{}", source.path), query: None });
    };
    let uri: http::Uri = to.parse().map_err(|_| anyhow!("--to: {to:?} is no URL; {REMEDY}"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority))
            if !authority.host().is_empty() && !authority.as_str().contains('@') =>
        {
            let path = if matches!(uri.path(), "" | "/") { source.path.as_str() } else { uri.path() };
            let place = format!("{scheme}://{authority}{}", path.trim_end_matches('/'));
            Ok(Destination { place, query: uri.query().map(str::to_owned) })
        }
        _ => Err(anyhow!("--to: {to:?} is no http URL; {REMEDY}")),
    }
}

/// The system's certificates, or instead of them those in the PEM file that `SSL_CERT_FILE` names, as for the broker.
fn trusted() -> Result<TlsConfig, Failure> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        let remedy = "install ca-certificates, or name a PEM file in SSL_CERT_FILE";
        return Err(Failure::Operation(anyhow!("https: there is no certificate to trust{why}; {remedy}")));
    }
    let roots = found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

fn post(agent: &ureq::Agent, url: &str, made: &Made) -> anyhow::Result<Answer> {
    let mut request = http::Request::builder().method(made.post.method.clone()).uri(url);
    for (name, value) in &made.post.headers {
        request = request.header(*name, value);
    }
    let mut response = agent.run(request.body(made.post.body.clone())?)?;
    let location = response.headers().get(http::header::LOCATION).and_then(|place| place.to_str().ok());
    let (status, location) = (response.status().as_u16(), location.map(str::to_owned));
    let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec()?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), location })
}

/// Whether the provider would be content, and not send it again.
fn accepts(source: &Source, answer: &Answer) -> bool {
    let page = |pages: &Pages| {
        // A refused browser is sent to the failure page without an order.
        answer.status / 100 == 2
            || answer.status == 303 && answer.location.as_deref() != Some(pages.failure.render(None).as_str())
    };
    match &source.provider {
        ProviderSettings::ClickPay(_) => answer.status == 200 && answer.body.trim() == "SUCCESS",
        ProviderSettings::Paygol(_) | ProviderSettings::PaygolLegacy(_) => answer.status / 100 == 2,
        ProviderSettings::ClickKw(settings) => page(&settings.pages),
        ProviderSettings::ClickGem(settings) => page(&settings.pages),
    }
}

fn print<W: Write>(
    source: &Source,
    made: &Made,
    to: &str,
    answer: &Answer,
    accepted: bool,
    as_json: bool,
    out: &mut Out<W>,
) -> Result<(), Failure> {
    let said: String = answer.body.trim_end().chars().take(MAX_SHOWN).collect();
    let Answer { status, location, .. } = answer;
    if as_json {
        return out.json(&json!({
            "provider": source.provider.word(), "source": source.name, "to": to, "order_id": made.order,
            "transaction_id": made.transaction, "status": status, "answer": said, "location": location,
            "accepted": accepted,
        }));
    }
    let of = made.transaction.as_ref().map(|transaction| format!("  transaction {transaction}")).unwrap_or_default();
    let said = location.as_ref().unwrap_or(&said);
    out.line(&format!("{status} {said}  {}  order {}{of}", source.name, made.order))
}

#[cfg(test)]
mod tests;
