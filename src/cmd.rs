//! The commands: what each prints and with what status it ends.
//!
//! Data goes to stdout through [`Out`], talk to stderr through [`talk`]. Nothing from outside reaches a terminal with
//! a control character in it, and a reader that closes the pipe has seen enough: that is success.

mod api;
pub mod check;
mod daemon;
pub mod demo;
pub mod doctor;
pub mod expect;
pub mod export;
pub mod list;
pub mod manual;
pub mod operate;
mod reading;
pub mod replay;
pub mod send;
mod sender;
pub mod serve;
pub mod show;
mod sources;
pub mod tail;

use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Cli, Command};
use crate::config::{Config, Problems};

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub enum Failure {
    /// The reader of stdout has gone: success.
    Closed,
    /// The operation failed, and what there is to say was said: exit status 1.
    Told,
    /// The operation failed: exit status 1.
    Operation(anyhow::Error),
    /// The configuration is wrong: exit status 2.
    Config(Problems),
    /// The command line or the environment is wrong: exit status 2.
    Usage(anyhow::Error),
}

/// stdout, for data.
pub struct Out<W: Write = std::io::StdoutLock<'static>>(W);

/// Runs a command and tells what went wrong.
pub fn run(cli: Cli) -> ExitCode {
    let level = match cli.command {
        Command::Serve(_) => "info",
        // Its daemon is attacked on purpose: that it warns of it would bury what the cases say.
        Command::Demo(_) => "error",
        // What is wrong it says itself, and with what to do.
        Command::Doctor(_) => "error",
        _ => "warn",
    };
    let done = crate::telemetry::start(level).map_err(|error| Failure::Usage(error.into())).and_then(|()| act(cli));
    crate::telemetry::flush();
    match done {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::from(1),
        Err(Failure::Operation(error)) => {
            talk(&format!("quittance: {}", chain(&error)));
            ExitCode::from(1)
        }
        Err(Failure::Usage(error)) => {
            talk(&format!("quittance: {}", chain(&error)));
            ExitCode::from(2)
        }
        Err(Failure::Config(problems)) => {
            problems.to_string().lines().for_each(talk);
            ExitCode::from(2)
        }
    }
}

fn act(cli: Cli) -> Result<(), Failure> {
    let mut out = Out(std::io::stdout().lock());
    let file = config_path(cli.config.as_deref());
    let config = || Config::load(&file).map_err(Failure::Config);
    match &cli.command {
        Command::Serve(arguments) => serve::run(config()?, &file, arguments),
        Command::Demo(arguments) => demo::run(arguments, &mut out),
        Command::Check(arguments) if arguments.live => {
            check::live(&Config::contact(&file).map_err(Failure::Config)?, arguments.json, &mut out)
        }
        Command::Check(arguments) => check::run(&config()?, &file, arguments, &mut out),
        Command::Expect(arguments) => expect::run(&config()?, &file, arguments, &mut out),
        Command::Send(arguments) => send::run(&config()?, arguments, &mut out),
        Command::List(arguments) => list::run(&file, arguments, &mut out),
        Command::Show(arguments) => show::run(&file, arguments, &mut out),
        Command::Tail(arguments) => tail::run(&file, arguments, &mut out),
        Command::Export(arguments) => export::run(&file, arguments, &mut out),
        Command::Doctor(arguments) => doctor::run(&config()?, &file, arguments, &mut out),
        Command::Settle(arguments) => operate::settle(&file, arguments, &mut out),
        Command::Replay(arguments) => replay::run(&file, arguments, &mut out),
        Command::DeadLetters(arguments) => operate::dead_letters(&file, &arguments.what, &mut out),
        Command::Quarantine(arguments) => operate::quarantine(&file, &arguments.what, &mut out),
        Command::Consumers(arguments) => operate::consumers(&file, &arguments.what, &mut out),
        Command::Completions(arguments) => manual::completions(arguments.shell, &mut out),
        Command::Man(arguments) => manual::pages(arguments.dir.as_deref(), &mut out),
    }
}

/// `--config` and `QUITTANCE_CONFIG` come as `named`; else `./config.toml`, else `/etc/quittance/config.toml`.
fn config_path(named: Option<&Path>) -> PathBuf {
    let here = Path::new("config.toml");
    match named {
        Some(named) => named.to_owned(),
        None if here.exists() => here.to_owned(),
        None => PathBuf::from("/etc/quittance/config.toml"),
    }
}

/// A line for the operator. Nobody who closed stderr keeps a command from its work.
pub fn talk(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(line));
}

/// From now on SIGINT and SIGTERM end this process with success. For commands that only read and run until then: what
/// was printed was printed whole, line by line.
///
/// # Errors
/// When the system gives no thread or no handler.
fn end_on_signal() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _on_it = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        std::process::exit(0);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    Ok(())
}

/// An error with all its reasons.
pub fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl<W: Write> Out<W> {
    /// To another place than stdout.
    pub fn to(place: W) -> Self {
        Self(place)
    }

    /// A line for people.
    ///
    /// # Errors
    /// [`Failure::Closed`] when nobody reads any more; [`Failure::Operation`] when it cannot be written.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.write(&printable(text))
    }

    /// A line for people, whose texts were escaped one by one and which may have colours in it.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub(in crate::cmd) fn styled(&mut self, line: &str) -> Result<(), Failure> {
        self.write(line)
    }

    /// Whether somebody still reads, as far as that can be known without writing something.
    ///
    /// # Errors
    /// [`Failure::Closed`].
    pub(in crate::cmd) fn check_reader(&self) -> Result<(), Failure> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let stdout = std::io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        let seen = poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let gone = watched.iter().any(|watched| watched.revents().intersects(PollFlags::ERR | PollFlags::HUP));
        if seen.is_ok() && gone { Err(Failure::Closed) } else { Ok(()) }
    }

    /// A line for programs: one JSON object.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn json(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(object).map_err(|error| Failure::Operation(error.into()))?;
        let mut safe = String::with_capacity(text.len());
        // What JSON leaves as it is and a terminal obeys stands inside of strings only, and has an escape there.
        for c in text.chars() {
            if is_dangerous(c) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(safe, "\\u{unit:04x}");
                }
            } else {
                safe.push(c);
            }
        }
        self.write(&safe)
    }

    /// Bytes for programs, as they are: a shell's completions, a manual page.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        written(self.0.write_all(bytes).and_then(|()| self.0.flush()))
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        written(writeln!(self.0, "{text}").and_then(|()| self.0.flush()))
    }
}

fn written(written: std::io::Result<()>) -> Result<(), Failure> {
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Operation(anyhow::Error::new(error).context("writing to stdout")),
    })
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Operation(error)
    }
}

/// A text in which nothing moves a cursor, changes a colour or turns the direction of reading.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_dangerous(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

fn is_dangerous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone(ErrorKind);
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is_one() {
        assert!(matches!(Out::to(Gone(ErrorKind::BrokenPipe)).line("a"), Err(Failure::Closed)));
        assert!(matches!(Out::to(Gone(ErrorKind::StorageFull)).line("a"), Err(Failure::Operation(_))));
    }

    #[test]
    fn nothing_from_outside_reaches_a_terminal_unescaped() {
        let evil = "a\u{1b}[2J\n\u{9b}31m\u{202e}\u{7f}é";
        assert_eq!(printable(evil), "a\\u{1b}[2J\\u{a}\\u{9b}31m\\u{202e}\\u{7f}é");
        let mut bytes = Vec::new();
        Out::to(&mut bytes).json(&serde_json::json!({ "order": evil })).expect("written");
        let text = String::from_utf8(bytes).expect("UTF-8");
        assert!(!text.trim_end().chars().any(is_dangerous), "{text}");
        let back: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back["order"], evil, "a program reads what was meant");
    }
}
