//! `doctor --verify`: the whole journal, record by record.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use super::super::{Failure, Out, talk};
use crate::cli;
use crate::config::Config;
use crate::store::embedded::inspect::{self, Compared, Finding, What};

/// Walks the journal and prints what was found.
///
/// # Errors
/// [`Failure::Told`] if it is not sound; [`Failure`] when it cannot be read, or stdout cannot be written.
pub fn run<W: Write>(config: &Config, arguments: &cli::Doctor, out: &mut Out<W>) -> Result<(), Failure> {
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("reading the journal {bar:40} {bytes}/{total_bytes} {eta}");
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let mut progress = |read, total| {
        if let Some(bar) = &bar {
            bar.set_length(total);
            bar.set_position(read);
        }
    };
    let report = inspect::verify(&config.store.path, arguments.since, &mut progress);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let report = report.context("verifying the journal")?;
    if arguments.json {
        out.json(&report)?;
        return if report.is_sound() { Ok(()) } else { Err(Failure::Told) };
    }
    out.line(&format!("segments     {} ({})", report.segments, indicatif::HumanBytes(report.bytes)))?;
    out.line(&format!("records      {}", report.records))?;
    out.line(&format!(
        "retired      {} records, and requests and events of {} more",
        report.heads_retired, report.parts_retired
    ))?;
    out.line(&format!("lost         {} records", report.heads_lost))?;
    if report.torn_bytes > 0 {
        out.line(&format!("unfinished   {} bytes at the end, never acknowledged", report.torn_bytes))?;
    }
    out.line(&format!("head         {}:{}", report.position, report.hash))?;
    for finding in &report.findings {
        print(finding, out)?;
    }
    let told = report.findings.len() as u64;
    let all = report.damaged + report.tampered;
    if all > told {
        out.line(&format!("             and {} more places", all - told))?;
    }
    if let Some(since) = report.since {
        out.line(&format!("since        {}", since_line(since)))?;
    }
    if report.is_sound() {
        talk("every record is as it was written");
        return Ok(());
    }
    if report.damaged > 0 {
        talk(
            "damage: look at the disk (smartctl, dmesg); restore what is lost from a backup, or ask the providers for it",
        );
    }
    if report.tampered > 0 || matches!(report.since, Some(Compared::Changed | Compared::Truncated)) {
        talk(
            "tampering: somebody who can write the store's files changed them; keep a copy, and compare it with a backup",
        );
    }
    if report.since == Some(Compared::Gone) {
        talk("the noted head is gone: note a newer one");
    }
    Err(Failure::Told)
}

fn print<W: Write>(finding: &Finding, out: &mut Out<W>) -> Result<(), Failure> {
    let word = match finding.what {
        What::Damage => "DAMAGE",
        What::Tampering => "TAMPERING",
    };
    let records = match (finding.from, finding.to) {
        (Some(from), Some(to)) if from == to => format!(", record {from}"),
        (Some(from), Some(to)) => format!(", records {from} to {to}"),
        _ => String::new(),
    };
    let offset = finding.offset.map(|offset| format!(" at byte {offset}")).unwrap_or_default();
    out.line(&format!("{word:12} {}{offset}{records}: {}", finding.file, finding.why))
}

fn since_line(since: Compared) -> String {
    match since {
        Compared::Same { position } => format!("nothing up to record {position} was changed since its head was noted"),
        Compared::Changed => "CHANGED: no head has the noted hash where it was noted".to_owned(),
        Compared::Truncated => "TRUNCATED: the journal ends before the noted head".to_owned(),
        Compared::Gone => "unknown: the noted head was retired or lost".to_owned(),
    }
}
