//! `send`: a test notification, as a provider would make it.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::{currency, decimal, look::source};
use crate::config::Secret;

/// The words of the providers, as the configuration writes them.
pub const PROVIDERS: [&str; 5] = ["clickpay", "paygol", "paygol-legacy", "clickkw", "clickgem"];

/// `quittance send`.
#[derive(Debug, Args)]
#[command(
    after_help = "Makes a notification with the secrets of a source of the configuration and posts it to the listener: a new \
    transaction each time, unless --transaction names one. Where the provider has no notification but the buyer's browser \
    (clickkw, clickgem), the return URL of the order is called as the browser would.

  quittance send paygol --order 100042 --amount 10.00 --currency USD
  quittance send paygol --order 100042 --repeat 3           the same one three times: one event
  quittance send paygol --order 100042 --forge              a wrong signature: refused
  quittance send clickpay --private-key platform.key        the other half of the source's public_keys
  quittance send clickkw --order 100042 --indicator-file indicator
  quittance send paygol --to https://pay.example.com        through what terminates TLS before it
  quittance send clickkw --to \"$(quittance expect --source clickkw --order 7 --amount 6.00 --currency KWD)\"

A line for each answer. Exit status 1 when one of them was a refusal."
)]
pub struct Send {
    /// Whose notification.
    #[arg(value_name = "PROVIDER", value_parser = PossibleValuesParser::new(PROVIDERS))]
    pub provider: String,
    /// The source, where the configuration has several of that provider.
    #[arg(long, value_name = "NAME", value_parser = source)]
    pub source: Option<String>,
    /// Where to, as http://HOST:PORT/PATH or https://HOST/PATH. Without a path the source's is added; a source's path gets the order's return URL where
    /// the provider has one. Left out: the listener of the configuration.
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// The order's number. Left out: one made of the time.
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub order: Option<String>,
    /// How much, as a plain decimal. Left out: 10000.00 for clickpay, else 10.00.
    #[arg(long, value_name = "DECIMAL", value_parser = decimal)]
    pub amount: Option<String>,
    /// In which currency (paygol). Left out: USD. The others have none in a notification.
    #[arg(long, value_name = "CODE", value_parser = currency)]
    pub currency: Option<String>,
    /// paid, pending, failed, canceled, refunded, partially_paid, as far as the provider has it; else the provider's own
    /// word, sent as it is.
    #[arg(long, value_name = "WORD", default_value = "paid")]
    pub status: String,
    /// The provider's number of the transaction. Left out: a new one.
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub transaction: Option<String>,
    /// How often the same notification is sent in all.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub repeat: u32,
    /// With a wrong signature, key or tag.
    #[arg(long)]
    pub forge: bool,
    /// clickpay: the platform's private key, PEM or base64 (PKCS#8 or PKCS#1).
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// clickkw: the session's indicator; prefer --indicator-file. Left out: one that nobody knows.
    #[arg(long, value_name = "TEXT", conflicts_with = "indicator_file")]
    pub indicator: Option<Secret>,
    /// clickkw: a file with the session's indicator; - for standard input.
    #[arg(long, value_name = "FILE")]
    pub indicator_file: Option<PathBuf>,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}
