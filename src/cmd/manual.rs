//! `quittance completions` and `quittance man`: made of the same types that read the command line, so that neither can
//! be older than it.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;

use super::{Failure, Out, talk};
use crate::cli::{Cli, Shell};

const NAME: &str = "quittance";

/// Prints a shell's completions.
///
/// # Errors
/// [`Failure`] when stdout cannot be written.
pub fn completions<W: Write>(shell: Shell, out: &mut Out<W>) -> Result<(), Failure> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    out.bytes(&script)
}

/// Prints the manual page; or writes it and a page for each command into a folder.
///
/// # Errors
/// [`Failure`] when the folder or stdout cannot be written.
pub fn pages<W: Write>(folder: Option<&Path>, out: &mut Out<W>) -> Result<(), Failure> {
    let command = Cli::command().disable_help_subcommand(true);
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).context("making the page")?;
        return out.bytes(&page);
    };
    clap_mangen::generate_to(command, folder).with_context(|| format!("writing pages into {}", folder.display()))?;
    talk(&format!("the manual is in {}: man -l {}/{NAME}.1", folder.display(), folder.display()));
    Ok(())
}
