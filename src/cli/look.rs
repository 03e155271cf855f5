//! The commands that look something up: `list`, `show`, `tail`.

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args};

use crate::config::units;
use crate::event::{SourceName, Status, Verdict};
use crate::store::KeptOutcome;

/// `quittance list`.
#[derive(Debug, Args)]
#[command(after_help = "Newest first. Asks the running daemon; without one it opens the store itself.

  quittance list                                        the newest hundred
  quittance list --source paygol --since 2h             of one source, in the last two hours
  quittance list --verdict hold --all --json            everything that waits for a decision, for a program
  quittance list --order 100042

Then: quittance show ID, or quittance show --order SOURCE/ORDER.")]
pub struct List {
    /// Only of this source.
    #[arg(long, value_name = "NAME", value_parser = source)]
    pub source: Option<String>,
    /// Only of this order.
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub order: Option<String>,
    /// Only what came to be kept in this way.
    #[arg(long, value_parser = PossibleValuesParser::new(KeptOutcome::ALL.iter().map(|word| word.as_str())))]
    pub outcome: Option<String>,
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
    /// How many at most, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// All of them, page after page.
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
    /// Go on where the list before ended: the text that it told.
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// `quittance show`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("which").required(true).args(["id", "order"]),
    after_help = "Everything that is kept about a notification: the request as it came, with its secrets cut out, how it was \
    proven, the event, and what became of it. Or everything that happened to an order, oldest first.

  quittance show 019aa2f4-6f0d-7a10-8d40-6a1d5a0f2b11
  quittance show --order paygol/100042
  quittance show --json 019aa2f4-6f0d-7a10-8d40-6a1d5a0f2b11 | jq -r .request.body | base64 -d

A request may hold names and addresses of people: what this prints is not for a public place."
)]
pub struct Show {
    /// A notification's id, from `list`; an event's id, as a consumer sees it, will do.
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// An order's history instead.
    #[arg(long, value_name = "SOURCE/ORDER", value_parser = source_and_order)]
    pub order: Option<(String, String)>,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `quittance tail`.
#[derive(Debug, Args)]
#[command(
    after_help = "The newest events of the feed, then each one as it comes, until Ctrl-C. Nothing is acknowledged by it.

  quittance tail                          the newest hundred, and what comes
  quittance tail -n 0                     only what comes
  quittance tail -n all --no-follow --json > events.jsonl

With --json a line is an entry of the feed: {\"cursor\":..,\"replay\":..,\"event\":{..}}. Its cursor is what --after takes."
)]
pub struct Tail {
    /// How many of the events that are there already: a number, or all.
    #[arg(short = 'n', long, value_name = "N", default_value = "100", value_parser = lines)]
    pub lines: u64,
    /// Everything after this cursor of the feed instead.
    #[arg(long, value_name = "CURSOR", conflicts_with = "lines")]
    pub after: Option<String>,
    /// End where the feed ends now.
    #[arg(long)]
    pub no_follow: bool,
    /// Go on as events come: the default.
    #[arg(short, long, conflicts_with = "no_follow")]
    pub follow: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

pub(super) fn source(text: &str) -> Result<String, &'static str> {
    SourceName::new(text).map(|_| text.to_owned()).ok_or("a source's name is [a-z0-9-], 1 to 32 characters")
}

fn source_and_order(text: &str) -> Result<(String, String), &'static str> {
    // An order may hold a slash; a source's name cannot.
    let parts = text.split_once('/').filter(|(name, order)| SourceName::new(name).is_some() && !order.is_empty());
    parts.map(|(name, order)| (name.to_owned(), order.to_owned())).ok_or("write SOURCE/ORDER, as in paygol/100042")
}

fn lines(text: &str) -> Result<u64, &'static str> {
    if text == "all" { Ok(u64::MAX) } else { text.parse().map_err(|_| "write a number, or all") }
}

/// A time, or how long ago: read by whoever answers, and refused here where nobody could read it.
pub(super) fn when(text: &str) -> Result<String, &'static str> {
    let reads = text.parse::<jiff::Timestamp>().is_ok() || units::duration(text).is_some();
    reads.then(|| text.to_owned()).ok_or("write a time like 2026-11-20T08:15:30Z, or how long ago, like 2h")
}
