//! The executable: reads the command line, runs the command, and ends with its status.

use std::process::ExitCode;

use clap::Parser;
use quittance::{cli, cmd};

/// The system's allocator took a fifth of the processor's time of a notification, and more below sled.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::Cli::try_parse() {
        Ok(cli) => cmd::run(cli),
        Err(help_or_error) => {
            // Help goes to stdout and is success; a reader that closed the pipe has seen enough of either.
            let _ = help_or_error.print();
            ExitCode::from(if help_or_error.use_stderr() { 2 } else { 0 })
        }
    }
}
