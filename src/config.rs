//! The configuration as the rest of the program sees it: a tree that cannot be wrong.
//!
//! `raw` reads the TOML key by key, `settings`, `source` and `rules` turn it into the tree and tell all problems at
//! once, each with its TOML path and a remedy. Secrets never leave [`secret::Secret`] except to be compared or hashed.

pub mod problem;
mod raw;
mod reload;
mod rules;
pub mod secret;
mod settings;
pub(crate) mod source;
#[cfg(test)]
mod tests;
pub mod units;

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::event::{AccountName, Currency, SourceName};
use crate::provider::browser::PageUrl;
use crate::provider::rsa_recovery::PublicKey;
pub use problem::{Problem, Problems};
pub use raw::Env;
pub use reload::needs_restart;
pub use secret::Secret;
pub use settings::is_consumer;
pub use source::{CLICKPAY_FIELDS, CLICKPAY_OPTIONAL_FIELDS};

/// Everything the daemon was told.
#[derive(Debug)]
pub struct Config {
    /// The public listener.
    pub listener: Listener,
    /// The admin listener.
    pub admin: Admin,
    /// The journal and its index.
    pub store: StoreSettings,
    /// What is kept how long.
    pub retention: Retention,
    /// Refused notifications that may be genuine.
    pub quarantine: Quarantine,
    /// `policy.fulfil = "never"`: every `fulfil` becomes `compare`.
    pub fulfil_never: bool,
    /// The relay; `None`: the feed alone.
    pub amqp: Option<Amqp>,
    /// Names of feed consumers whose acknowledgement counts.
    pub feed_consumers: Vec<String>,
    /// Where spans go; `None`: nowhere.
    pub traces: Option<Traces>,
    /// The sources, in the file's order.
    pub sources: Vec<Source>,
}

/// What a command needs to find and ask the running daemon, and nothing else: at a shell the secrets of the sources are
/// often out of reach, since systemd or a container hands them to the daemon alone.
#[derive(Clone, Debug)]
pub struct Contact {
    /// The store's folder, whose lock names the daemon.
    pub store: PathBuf,
    /// The admin API's bearer token.
    pub token: Option<Secret>,
}

/// `[listener]`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where to listen; port 0 lets the system choose.
    pub address: SocketAddr,
    /// How the world reaches it, without a trailing slash.
    pub public_url: String,
    /// Above: the connection is closed.
    pub max_connections: usize,
    /// Above: 413.
    pub max_body_bytes: usize,
    /// Above: 413.
    pub max_header_bytes: usize,
    /// Time for a request's head.
    pub header_timeout: Duration,
    /// Time for a request's body.
    pub body_timeout: Duration,
    /// Time for a request in all.
    pub request_timeout: Duration,
    /// Time between two requests of a connection.
    pub idle_timeout: Duration,
    /// Requests that may wait for the committer; above: 503.
    pub max_in_flight: usize,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where to listen.
    pub address: SocketAddr,
    /// The bearer token; required on another address than loopback.
    pub token: Option<Secret>,
}

/// `[store]`.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The store's folder.
    pub path: PathBuf,
    /// Size at which a segment is sealed.
    pub segment_bytes: u64,
    /// Records the index may lag behind; above: 503.
    pub index_lag: usize,
}

/// `[retention]`.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// How long requests and events are kept whole.
    pub bodies: Duration,
    /// How long keys are kept that no `fulfil` or `compare` hangs on.
    pub keys: Duration,
}

/// `[quarantine]`.
#[derive(Clone, Copy, Debug)]
pub struct Quarantine {
    /// Per source.
    pub max_bytes: u64,
    /// Older ones go.
    pub max_age: Duration,
}

/// `[traces]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// The collector's URL without OTLP's own path and without a trailing slash.
    pub endpoint: String,
    /// Of so many traces one is kept.
    pub one_in: u64,
}

/// `[relay.amqp]`.
#[derive(Clone, Debug)]
pub struct Amqp {
    /// Broker URLs with credentials, tried in turn.
    pub urls: Vec<Secret>,
    /// Topic exchange.
    pub exchange: String,
    /// Queue bound with `#`.
    pub queue: String,
    /// Whether to declare them.
    pub declare: bool,
    /// Unconfirmed messages at most.
    pub window: u16,
    /// Refusals after which an event is a dead letter.
    pub attempts: u32,
    /// Where a sink begins that is new to a store with events.
    pub start: Option<SinkStart>,
}

/// `relay.amqp.start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkStart {
    /// With what comes from now on.
    Now,
    /// With the oldest event kept.
    Beginning,
}

/// One `[[source]]`.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name, for ever.
    pub name: SourceName,
    /// Its account; the name where left out.
    pub account: AccountName,
    /// Where it listens, `/clickpay`.
    pub path: String,
    /// What its provider needs.
    pub provider: ProviderSettings,
}

/// Settings by provider.
#[derive(Clone, Debug)]
pub enum ProviderSettings {
    /// `clickpay`
    ClickPay(ClickPay),
    /// `paygol`
    Paygol(Paygol),
    /// `paygol-legacy`
    PaygolLegacy(PaygolLegacy),
    /// `clickkw`
    ClickKw(ClickKw),
    /// `clickgem`
    ClickGem(ClickGem),
}

impl ProviderSettings {
    /// The provider's word, as the configuration writes it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::ClickPay(_) => "clickpay",
            Self::Paygol(_) => "paygol",
            Self::PaygolLegacy(_) => "paygol-legacy",
            Self::ClickKw(_) => "clickkw",
            Self::ClickGem(_) => "clickgem",
        }
    }
}

/// `provider = "clickpay"`.
#[derive(Clone, Debug)]
pub struct ClickPay {
    /// The notification carries none.
    pub currency: Currency,
    /// How this shop's order numbers look: a regular expression that must match the whole of one.
    pub order_pattern: Option<String>,
    /// How this platform writes amounts, likewise.
    pub amount_pattern: Option<String>,
    /// Fields that every pay-in carries.
    pub fields: Vec<String>,
    /// Fields that it may carry.
    pub optional_fields: Vec<String>,
    /// The platform's keys, 1024 to 4096 bits.
    pub public_keys: Vec<PublicKey>,
}

/// Where Paygol's order id comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderIdFrom {
    /// The merchant's own value.
    Custom,
    /// Paygol's number.
    TransactionId,
}

/// `provider = "paygol"`.
#[derive(Clone, Debug)]
pub struct Paygol {
    /// The service.
    pub service_id: String,
    /// Where the order id comes from.
    pub order_id_from: OrderIdFrom,
    /// Secrets, several while one rotates.
    pub secrets: Vec<Secret>,
    /// `shared_secret = true`: a legacy source, here or elsewhere, has the same secret, so a signature is worth no
    /// more than the key in a legacy URL.
    pub bearer: bool,
}

/// `provider = "paygol-legacy"`.
#[derive(Clone, Debug)]
pub struct PaygolLegacy {
    /// The service.
    pub service_id: String,
    /// Where the order id comes from.
    pub order_id_from: OrderIdFrom,
    /// Secrets, several while one rotates.
    pub secrets: Vec<Secret>,
}

/// `provider = "clickkw"`.
#[derive(Clone, Debug)]
pub struct ClickKw {
    /// The gateway's currency.
    pub currency: Currency,
    /// Signs return URLs.
    pub return_secret: Secret,
    /// Whether the right, unused indicator fulfils.
    pub accept_indicator: bool,
    /// Where the buyer goes.
    pub pages: Pages,
}

/// `provider = "clickgem"`.
#[derive(Clone, Debug)]
pub struct ClickGem {
    /// The static secret that comes along.
    pub api_signature: Secret,
    /// Signs return URLs.
    pub return_secret: Secret,
    /// Where the buyer goes.
    pub pages: Pages,
}

/// Where a buyer's browser is sent.
#[derive(Clone, Debug)]
pub struct Pages {
    /// After a payment.
    pub success: PageUrl,
    /// After anything else.
    pub failure: PageUrl,
    /// After a payment that is held; `success` where left out.
    pub pending: Option<PageUrl>,
}

/// The largest file that is read as a configuration.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most sources of one daemon.
const MAX_SOURCES: usize = 256;

impl Config {
    /// Reads a configuration file with the environment of this process.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let (name, text) = Self::text_of(path)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let named = |problems: Problems| Problems { file: name, ..problems };
        Self::parse(&text, base, &|name| std::env::var(name).ok()).map_err(named)
    }

    /// Reads of a configuration file what it takes to speak to the running daemon. What else is wrong with the file is
    /// not asked: the daemon runs.
    ///
    /// # Errors
    /// What is wrong with `store.path` and `admin.token`.
    pub fn contact(path: &Path) -> Result<Contact, Problems> {
        let (name, text) = Self::text_of(path)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let env = |name: &str| std::env::var(name).ok();
        let document = raw::Document::new(&text, base, &env);
        let found = Self::read_contact(&document);
        let list = document.problems.take();
        match found {
            Some(contact) if list.is_empty() => Ok(contact),
            _ => Err(Problems { file: name, list }),
        }
    }

    fn read_contact(document: &raw::Document<'_>) -> Option<Contact> {
        let table = Self::table(document)?;
        let mut root = document.root(table.get_ref());
        let token = settings::admin_token(&mut root.section("admin"));
        settings::store_path(&mut root.section("store")).map(|store| Contact { store, token })
    }

    /// A file's name as the operator gave it, and its text.
    fn text_of(path: &Path) -> Result<(String, String), Problems> {
        let file_name = path.display().to_string();
        let unreadable = |error: std::io::Error| {
            Problems::one(
                &file_name,
                format!("cannot be read: {error}"),
                "name the file with --config or QUITTANCE_CONFIG",
            )
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        if file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)? as u64 > MAX_FILE_BYTES {
            return Err(Problems::one(&file_name, "is larger than 1 MiB", "name a configuration"));
        }
        Ok((file_name, text))
    }

    /// The tree for a text. Relative paths are relative to `base`; `env` looks up environment variables. Total: any
    /// text gives a tree or its problems.
    ///
    /// # Errors
    /// Everything that is wrong with it, under the name `config.toml`.
    pub fn parse(text: &str, base: &Path, env: Env<'_>) -> Result<Self, Problems> {
        let document = raw::Document::new(text, base, env);
        let config = Self::read(&document);
        let list = document.problems.take();
        let missing = || Problems::one("config.toml", "is incomplete", "compare it with config.toml.example");
        if list.is_empty() {
            config.ok_or_else(missing)
        } else {
            Err(Problems { file: "config.toml".to_owned(), list })
        }
    }

    /// The text as TOML, or the problem that it is none.
    fn table<'d>(document: &raw::Document<'d>) -> Option<toml::Spanned<toml::de::DeTable<'d>>> {
        match toml::de::DeTable::parse(document.text) {
            Ok(table) => Some(table),
            Err(error) => {
                let (line, column) = document.position(error.span().map_or(0, |span| span.start));
                document.problems.borrow_mut().push(Problem {
                    path: format!("line {line}, column {column}"),
                    line: None,
                    message: format!("is not TOML: {}", error.message()),
                    remedy: "see https://toml.io, or compare with config.toml.example".to_owned(),
                });
                None
            }
        }
    }

    fn read(document: &raw::Document<'_>) -> Option<Self> {
        let table = Self::table(document)?;
        let mut root = document.root(table.get_ref());
        let listener = settings::listener(root.section("listener"));
        let admin = settings::admin(root.section("admin"), listener.as_ref());
        let store = settings::store(root.section("store"), listener.as_ref());
        let retention = settings::retention(root.section("retention"));
        let quarantine = settings::quarantine(root.section("quarantine"), listener.as_ref());
        let fulfil_never = settings::policy(root.section("policy"));
        let (amqp, feed_consumers) = settings::relay(root.section("relay"));
        let traces = settings::traces(root.section("traces"));
        let public_url = listener.as_ref().map(|listener| listener.public_url.as_str());
        let tables = root.sections("source");
        if !root.has("source") {
            root.problem("source", "is missing", "add a [[source]]: nothing can arrive");
        }
        if tables.len() > MAX_SOURCES {
            root.problem("source", format!("there are more than {MAX_SOURCES}"), "run a second daemon for the rest");
        }
        let parsed: Vec<_> =
            tables.into_iter().take(MAX_SOURCES).map(|table| source::read(table, public_url)).collect();
        rules::check(&parsed, admin.as_ref());
        let sources: Vec<_> = parsed.into_iter().filter_map(source::Parsed::finish).collect();
        root.finish();
        Some(Self {
            listener: listener?,
            admin: admin?,
            store: store?,
            retention,
            quarantine,
            fulfil_never,
            amqp,
            feed_consumers,
            traces,
            sources,
        })
        .filter(|_| document.clean())
    }
}
