//! `quittance export`.

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::look::{source, when};
use crate::event::{Status, Verdict};
use crate::store::KeptOutcome;

/// `quittance export`.
#[derive(Debug, Args)]
#[command(
    after_help = "Newest first, one JSON object a line: the objects of `list --json`, or with --whole those of `show --json`, which \
    hold the requests as they came. Asks the running daemon; without one it opens the store itself.

  quittance export > notifications.jsonl
  quittance export --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z --whole | gzip > november.jsonl.gz

A request may hold names and addresses of people: keep what --whole prints as you keep the store."
)]
pub struct Export {
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
    /// With the request, how it was proven, the event, and what became of it.
    #[arg(long)]
    pub whole: bool,
}
