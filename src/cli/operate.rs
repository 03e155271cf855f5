//! The commands that change something by hand: `settle`, `replay`, `dead-letters`, `quarantine`, `consumers`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::look::{source, when};
use crate::event::{EventId, Status, Verdict};
use crate::replay::request;
use crate::store::operate::Ruling;

/// `quittance settle`.
#[derive(Debug, Args)]
#[command(
    after_help = "Ends a hold by hand, after a look at the provider's own panel: a new event settles the held one. It says \
    fulfil (book what the held event says) or none (there is nothing to book). Who and why are kept.

  quittance list --verdict hold --json     the held ones; settle takes their event_id
  quittance settle 019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10 fulfil --reason \"paid, says the panel\""
)]
pub struct Settle {
    /// The held event's id.
    #[arg(value_name = "EVENT", value_parser = event)]
    pub event: String,
    /// How it ends.
    #[arg(value_parser = PossibleValuesParser::new(Ruling::ALL.iter().map(|word| word.as_str())))]
    pub verdict: String,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `quittance replay`.
#[derive(Debug, Args)]
#[command(
    after_help = "Sends kept events again, with their own ids. First it says how many there are, and asks above ten. A replay \
    survives the daemon: it goes on after a restart. Ctrl-C leaves it running; --cancel ID stops it.

  quittance replay --source paygol --since 2h --dry-run
  quittance replay --order 100042 --yes
  quittance replay --file ids.txt --rate 20/s
  quittance replay --since 7d --to-exchange books --routing-key import
  quittance replay --source paygol --reparse            what today's code says otherwise; nothing is sent"
)]
pub struct Replay {
    /// Only of this source.
    #[arg(long, value_name = "NAME", value_parser = source)]
    pub source: Option<String>,
    /// Only of this order.
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub order: Option<String>,
    /// Only in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(Status::ALL.iter().map(|word| word.as_str())))]
    pub status: Option<String>,
    /// Only with this verdict.
    #[arg(long, value_parser = PossibleValuesParser::new(Verdict::ALL.iter().map(|word| word.as_str())))]
    pub verdict: Option<String>,
    /// Only what arrived then or later: 2026-11-20T08:00:00Z, or how long ago, as in 2h.
    #[arg(long, value_name = "WHEN", value_parser = when)]
    pub since: Option<String>,
    /// Only what arrived before then.
    #[arg(long, value_name = "WHEN", value_parser = when)]
    pub until: Option<String>,
    /// Only this one: an event's id or its notification's. May be given again.
    #[arg(long, value_name = "ID", value_parser = event, conflicts_with_all = FILTERS)]
    pub id: Vec<String>,
    /// Only those whose ids stand in this file, one a line; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = FILTERS)]
    pub file: Option<PathBuf>,
    /// Everything that is kept.
    #[arg(long, conflicts_with_all = FILTERS, conflicts_with_all = ["id", "file"])]
    pub all: bool,
    /// Only say how many there are, and show the first.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// How fast: events a second, or max.
    #[arg(long, value_name = "N/s", default_value = "50/s", value_parser = rate)]
    pub rate: String,
    /// Send nothing: run today's code over what was kept, and say what differs.
    #[arg(long, conflicts_with_all = ["dry_run", "yes", "to_exchange", "reason", "no_wait"])]
    pub reparse: bool,
    /// To another exchange of the broker, which must exist, instead of the relay's own consumers.
    #[arg(long, value_name = "EXCHANGE")]
    pub to_exchange: Option<String>,
    /// With this routing key instead of each event's own.
    #[arg(long, value_name = "KEY", requires = "to_exchange")]
    pub routing_key: Option<String>,
    /// Why; kept with the audit.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Do not wait for its end.
    #[arg(long)]
    pub no_wait: bool,
    /// Stop a replay instead.
    #[arg(long, value_name = "REPLAY", conflicts_with_all = FILTERS, conflicts_with_all = ["id", "file", "all", "dry_run", "reparse"])]
    pub cancel: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

const FILTERS: [&str; 6] = ["source", "order", "status", "verdict", "since", "until"];

/// `quittance dead-letters`.
#[derive(Debug, Args)]
pub struct DeadLetters {
    /// What to do.
    #[command(subcommand)]
    pub what: DeadLetter,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLetter {
    /// List what the sink refused for good and nobody has sent again.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show one, with its event.
    Show {
        /// The event's id.
        #[arg(value_name = "EVENT", value_parser = event)]
        event: String,
    },
    /// Send one or all of them again.
    Retry {
        /// The event's id.
        #[arg(value_name = "EVENT", value_parser = event, required_unless_present = "all")]
        event: Option<String>,
        /// All of them.
        #[arg(long, conflicts_with = "event")]
        all: bool,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// `quittance quarantine`.
#[derive(Debug, Args)]
pub struct Quarantine {
    /// What to do.
    #[command(subcommand)]
    pub what: Quarantined,
}

/// What to do with what was refused and may yet prove genuine.
#[derive(Debug, Subcommand)]
pub enum Quarantined {
    /// List it, oldest first.
    List {
        /// Only of this source.
        #[arg(long, value_name = "NAME", value_parser = source)]
        source: Option<String>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show a request as it came, its secrets cut out.
    Show {
        /// Its id.
        id: String,
    },
    /// Let one in by hand, unproven: its event says operator and hold, and names no order and no amount.
    ///
    /// Nothing can be booked by such an event, so `settle` takes only `refuse` for it: book what the request says in the
    /// order system, once the provider's panel says that it is true. Where a key was wrong, mend it and use `reverify`
    /// instead: then the event says all that the request says.
    Release {
        /// Its id.
        id: String,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Try today's keys on all of it, and let the genuine in with the time of their first arrival.
    Reverify {
        /// Only of this source.
        #[arg(long, value_name = "NAME", value_parser = source)]
        source: Option<String>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// `quittance consumers`.
#[derive(Debug, Args)]
pub struct Consumers {
    /// What to do.
    #[command(subcommand)]
    pub what: Consumer,
}

/// What to do with readers of the feed.
#[derive(Debug, Subcommand)]
pub enum Consumer {
    /// List those whose acknowledgement counts.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Forget one: nothing is kept for it any more.
    Forget {
        /// Its name.
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        name: String,
    },
}

fn event(text: &str) -> Result<String, &'static str> {
    EventId::parse(text).map(|_| text.to_owned()).ok_or("an id is a UUID, as in 019aa2f4-6f0e-7c61-9c5b-2f6f3a1b7d10")
}

fn rate(text: &str) -> Result<String, &'static str> {
    request::rate(text).map(|_| text.to_owned()).ok_or("write events a second, as in 50/s, or max")
}
