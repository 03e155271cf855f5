//! `quittance doctor`.

use clap::Args;

use crate::store::Noted;

/// `quittance doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Changes nothing, and may be asked beside a running daemon. Exit status 1 if something is wrong.

  quittance doctor                        what is wrong, and what to do about it
  quittance doctor --verify               walk the whole journal: damage, retirement and tampering told apart
  quittance doctor --verify --since 4711:9f86d0..
                                          the same, and whether anything up to that head was changed since it was noted
  quittance doctor --rebuild-index        build the index anew from the journal; the daemon must not run

The daemon notes its journal's head as <position>:<hash> in the log every hour, and in every message it sends to the \
    broker as the header x-quittance-head. Whoever can write the journal's files can write all of it anew: a head that was \
    noted elsewhere is what they cannot reach."
)]
pub struct Doctor {
    /// Walk the whole journal.
    #[arg(long, conflicts_with = "rebuild_index")]
    pub verify: bool,
    /// A head that was noted elsewhere, as POSITION:HASH or the hash alone.
    #[arg(long, value_name = "HASH", requires = "verify")]
    pub since: Option<Noted>,
    /// Throw the index away and build it from the journal.
    #[arg(long)]
    pub rebuild_index: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}
