//! The command line: clap types only. What the commands do: [`crate::cmd`].

mod doctor;
mod export;
mod look;
mod operate;
mod send;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::config::units;
use crate::event::{Currency, Decimal, Kind};
pub use doctor::Doctor;
pub use export::Export;
pub use look::{List, Show, Tail};
pub use operate::{Consumer, Consumers, DeadLetter, DeadLetters, Quarantine, Quarantined, Replay, Settle};
pub use send::Send;

/// Receives payment notifications, proves them, keeps them on disk, answers, and hands on one event for each.
#[derive(Debug, Parser)]
#[command(
    name = "quittance",
    version,
    arg_required_else_help = true,
    after_help = "Begin with:
  quittance demo                          every provider, over real HTTP, with throw-away keys
  quittance --config my.toml check        what is wrong with a configuration, or what each source is worth
  quittance --config my.toml serve        the daemon
  quittance --config my.toml send paygol  a test notification, signed as Paygol would
  quittance --config my.toml list         what came in

The configuration is --config, else $QUITTANCE_CONFIG, else ./config.toml, else /etc/quittance/config.toml. \
    $QUITTANCE_LOG says how much is logged: error, warn, info (serve's default), debug.

Exit status: 0 done; 1 the operation failed; 2 the command line or the configuration is wrong."
)]
pub struct Cli {
    /// The configuration.
    #[arg(long, global = true, env = "QUITTANCE_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon until SIGTERM.
    Serve(Serve),
    /// Tell everything that is wrong with the configuration, or what each source is worth.
    Check(Check),
    /// Show the main job with throw-away keys: genuine, repeated, forged and shifted notifications of every provider.
    Demo(Demo),
    /// Say which payment is expected, so that the event about it can say `fulfil`.
    Expect(Expect),
    /// Send a test notification, signed as the provider signs.
    Send(Box<Send>),
    /// List the notifications that were kept.
    List(List),
    /// Show one notification, or what happened to an order.
    Show(Show),
    /// Print events as they come.
    Tail(Tail),
    /// Print notifications as JSON lines, for an archive or another program.
    Export(Export),
    /// Look at store, index, broker, clock, keys, file rights and disk, and say what to do.
    Doctor(Doctor),
    /// End a hold by hand.
    Settle(Settle),
    /// Send kept events again.
    Replay(Box<Replay>),
    /// Look at what the sink refused for good, and try it again.
    DeadLetters(DeadLetters),
    /// Look at what was refused and may yet prove genuine, and let it in.
    Quarantine(Quarantine),
    /// Look at the readers of the feed, and forget one.
    Consumers(Consumers),
    /// Print a shell's completions.
    Completions(Completions),
    /// Print the manual page.
    Man(Man),
}

/// `quittance serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Everything is bound and opened before anything is accepted. SIGTERM or SIGINT: what is in flight is \
    finished within 10 seconds. SIGHUP: keys, sources and limits are read anew; a bad configuration is refused whole.

  quittance --config /etc/quittance/config.toml serve"
)]
pub struct Serve {
    /// The store comes from a backup: hold every event, from now on and after every later start, until
    /// --restored-ended.
    #[arg(long, conflicts_with = "restored_ended")]
    pub restored: bool,
    /// What happened since the backup has been compared with the providers: stop holding.
    #[arg(long)]
    pub restored_ended: bool,
    /// The clock is right although it is before the newest record or more than 48 hours after it: told once, after a
    /// long stop or a mended clock. Until then every event is held and nothing expires.
    #[arg(long)]
    pub confirm_clock: bool,
}

/// `quittance check`.
#[derive(Debug, Args)]
#[command(
    after_help = "For each source: its URL, what verdict an ordinary genuine payment gets, why, and what would make it better; for \
    ClickPay also between which fields bytes could move. Nothing is started and nothing is changed.

  quittance check                         before a start, as in systemd's ExecStartPre=
  quittance check --live                  after it: exit 0 once the daemon takes notifications"
)]
pub struct Check {
    /// Also reach the broker of [relay.amqp].
    #[arg(long, conflicts_with = "live")]
    pub connect: bool,
    /// Only ask the running daemon whether it is ready.
    #[arg(long)]
    pub live: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// `quittance demo`.
#[derive(Debug, Args)]
#[command(after_help = "Needs no configuration and nothing else installed. A line for each case:
  <provider>  <case>  <HTTP answer>  <event type or ->  <verdict or ->  ok|WRONG

  quittance demo
  quittance demo --break paygol/genuine   spoils that case's input on purpose: exit 1")]
pub struct Demo {
    /// Keep the daemon running until Ctrl-C, to look around.
    #[arg(long)]
    pub stay: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// Spoil the input of one case, `<provider>/<case>`, to see that the demo can fail.
    #[arg(long = "break", value_name = "PROVIDER/CASE")]
    pub break_case: Option<String>,
}

/// `quittance expect`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("what").required(true).args(["source", "from"]),
    after_help = "Prints the return URL where the source has one: hand it to the provider when the payment is made.

  quittance expect --source paygol --order 100042 --amount 10.00 --currency USD
  quittance expect --source clickkw --order 100042 --amount 6.00 --currency KWD \\
      --session 8f3a1c --indicator-file - < indicator
  quittance expect --from expectations.jsonl

A line of the file is what the admin API takes:
  {\"source\":\"paygol\",\"order_id\":\"100042\",\"amount\":{\"value\":\"10.00\",\"currency\":\"USD\"}}
All lines are looked at before the first is registered."
)]
pub struct Expect {
    /// The source at which the notification will arrive.
    #[arg(long, value_name = "NAME", requires_all = ["order", "amount", "currency"])]
    pub source: Option<String>,
    /// The order's number.
    #[arg(long, value_name = "ID", requires = "source")]
    pub order: Option<String>,
    /// How much, as a plain decimal.
    #[arg(long, value_name = "DECIMAL", value_parser = decimal, requires = "source")]
    pub amount: Option<String>,
    /// In which currency, as in KWD.
    #[arg(long, value_name = "CODE", value_parser = currency, requires = "source")]
    pub currency: Option<String>,
    /// What moves.
    #[arg(long, value_parser = PossibleValuesParser::new(Kind::ALL.iter().map(|kind| kind.as_str())), requires = "source")]
    pub kind: Option<String>,
    /// Click KW: the session; ClickGem: the getid.
    #[arg(long, value_name = "ID", requires = "source")]
    pub session: Option<String>,
    /// Click KW: the session's indicator. A command line can be read by everybody on the machine: rather use
    /// --indicator-file.
    #[arg(long, value_name = "TEXT", requires = "source", conflicts_with = "indicator_file")]
    pub indicator: Option<crate::config::Secret>,
    /// Click KW: a file with the session's indicator; - for standard input.
    #[arg(long, value_name = "FILE", requires = "source")]
    pub indicator_file: Option<PathBuf>,
    /// How long the expectation holds: 30m, 24h, 7d. Left out: 24h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub expires: Option<Duration>,
    /// Many at once: a file with a JSON object a line; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "source")]
    pub from: Option<PathBuf>,
    /// One JSON object a line, as the admin API answers.
    #[arg(long)]
    pub json: bool,
}

/// `quittance completions`.
#[derive(Debug, Args)]
#[command(after_help = "  quittance completions bash > /etc/bash_completion.d/quittance
  quittance completions zsh > \"${fpath[1]}/_quittance\"
  quittance completions fish > ~/.config/fish/completions/quittance.fish")]
pub struct Completions {
    /// Which shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A shell that can be completed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
}

/// `quittance man`.
#[derive(Debug, Args)]
#[command(after_help = "  quittance man | man -l -
  quittance man --dir /usr/share/man/man1     this page and one for each command")]
pub struct Man {
    /// Write it and the pages of all commands into this folder instead.
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

fn decimal(text: &str) -> Result<String, &'static str> {
    Decimal::parse(text)
        .filter(|value| !value.is_zero())
        .map(|_| text.to_owned())
        .ok_or("write a decimal above zero, as in 6.000")
}

fn currency(text: &str) -> Result<String, &'static str> {
    Currency::parse(text).map(|_| text.to_owned()).ok_or("write its ISO 4217 code, as in KWD")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    units::duration(text).filter(|duration| !duration.is_zero()).ok_or("write a number with s, m, h or d, as in 24h")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[track_caller]
    fn refused(line: &str, why: &str) {
        let error = Cli::try_parse_from(line.split(' ')).expect_err("must be refused");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(why), "{error}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        const EXPECT: &str = "quittance expect --source kw --order 1 --currency KWD";
        refused("quittance expect", "required");
        refused("quittance expect --source kw", "--order");
        refused(&format!("{EXPECT} --amount 0.000"), "above zero");
        refused(&format!("{EXPECT} --amount -6"), "");
        refused(&format!("{EXPECT} --amount 6,0"), "decimal");
        refused(&format!("{EXPECT} --amount 6.0 --kind gift"), "possible values: payment, payout, refund");
        refused(&format!("{EXPECT} --amount 6.0 --expires 1y"), "24h");
        refused(&format!("{EXPECT} --amount 6.0 --from x.jsonl"), "cannot be used with");
        refused(&format!("{EXPECT} --amount 6.0 --indicator a --indicator-file b"), "cannot be used with");
        refused("quittance check --live --connect", "cannot be used with");
        Cli::try_parse_from(format!("{EXPECT} --amount 6.000 --expires 90m").split(' ')).expect("good");
        Cli::try_parse_from("quittance check --config x.toml".split(' ')).expect("--config stands anywhere");
    }

    #[test]
    fn an_indicator_does_not_show_in_debug_output() {
        let line = "quittance expect --source kw --order 1 --amount 6 --currency KWD --indicator hush";
        let cli = Cli::try_parse_from(line.split(' ')).expect("good");
        assert!(!format!("{cli:?}").contains("hush"));
    }
}
