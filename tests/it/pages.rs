//! A page of the documentation, followed as it stands: every command, configuration, request and program in it is run.
//!
//! A fenced block says by its language what is done with it: `toml` becomes `config.toml` (`toml append` is added to it);
//! `sh` is run by bash in the page's folder, `sh daemon` in the background until the next one, `sh stopped` after it was
//! stopped, `sh clone` where nothing is yet; `http` is a request and its answer. Only addresses are changed, since pages are
//! tried side by side. What is marked `broker` is run where there is one (tests/broker). Of what needs systemd, or would
//! not end (`test=..`), it is checked that its commands exist.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::harness::{Folder, eventually, eventually_within, signal};
use crate::http;
use rustix::process::Signal;

/// A fenced block of a page.
pub struct Block {
    pub language: String,
    pub mark: String,
    pub text: String,
    line: usize,
}

/// A page by its path from the project's root, and its blocks.
pub fn page(name: &str) -> (PathBuf, Vec<Block>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = std::fs::read_to_string(&file).expect("the page");
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(info), false) => {
                let (language, mark) = info.split_once(' ').unwrap_or((info, ""));
                blocks.push(Block { language: language.into(), mark: mark.into(), text: String::new(), line: at + 1 });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                let block = blocks.last_mut().expect("open");
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!open, "{name}: a block is not closed");
    (file, blocks)
}

/// A page being tried.
pub struct Reader {
    pub folder: Folder,
    config: String,
    pub ports: [u16; 2],
    daemon: Option<Child>,
    serve: Vec<String>,
    /// The URL of a broker that the page may use.
    broker: Option<String>,
}

impl Reader {
    /// In a folder of its own. Without a broker, blocks that need one are only parsed.
    pub fn new(broker: Option<String>) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let (folder, config) = (Folder::new(), String::new());
        let serve = vec!["serve".to_owned()];
        Self { folder, config, ports: [free(), free()], daemon: None, serve, broker }
    }

    /// The same text with ports of its own.
    fn own_ports(&self, text: &str) -> String {
        text.replace("127.0.0.1:8080", &format!("127.0.0.1:{}", self.ports[0]))
            .replace("127.0.0.1:9090", &format!("127.0.0.1:{}", self.ports[1]))
            .replace("amqp://guest:guest@127.0.0.1:5672/%2f", self.broker())
    }

    /// Where nobody listens, unless there is one.
    fn broker(&self) -> &str {
        self.broker.as_deref().unwrap_or("amqp://127.0.0.1:1/%2f")
    }

    pub fn configure(&mut self, text: &str) {
        self.stop();
        self.config = text.to_owned();
        if !text.contains("[admin]") {
            self.config = format!("[admin]\naddress = \"127.0.0.1:9090\"\n\n{}", self.config);
            self.config = self.config.replace("[listener]\n", "[listener]\naddress = \"127.0.0.1:8080\"\n");
        }
        let text = self.own_ports(&self.config);
        std::fs::write(self.folder.path().join("config.toml"), text).expect("written");
    }

    pub fn bash(&self, script: &str) -> Output {
        let executable = Path::new(env!("CARGO_BIN_EXE_quittance")).parent().expect("its folder");
        let path = format!("{}:{}", executable.display(), std::env::var("PATH").expect("a PATH"));
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &self.own_ports(script)]).current_dir(self.folder.path());
        bash.env("PATH", path).env_remove("QUITTANCE_CONFIG").env("QUITTANCE_AMQP_URL", self.broker());
        bash.stdin(Stdio::null()).output().expect("bash runs")
    }

    pub fn start(&mut self) {
        self.stop();
        let mut command = Command::new(env!("CARGO_BIN_EXE_quittance"));
        command.args(&self.serve).current_dir(self.folder.path()).env_remove("QUITTANCE_CONFIG");
        command.env("QUITTANCE_AMQP_URL", self.broker());
        command.stderr(std::fs::File::create(self.folder.path().join("serve.log")).expect("a log"));
        self.daemon = Some(command.spawn().expect("it runs"));
        eventually("the page's daemon is ready", || {
            let output = self.bash("quittance check --live");
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        });
        // Its queue is there a moment later; a person's hand is slower than that.
        if self.broker.is_some() && self.config.contains("[relay.amqp]") {
            let connected = eventually_within(Duration::from_secs(60), "", || {
                let metrics = self.bash("curl -fsS http://127.0.0.1:9090/metrics");
                let text = String::from_utf8_lossy(&metrics.stdout).into_owned();
                if text.lines().any(|line| line == "quittance_relay_connected 1") { Ok(()) } else { Err(text) }
            });
            connected.unwrap_or_else(|metrics| panic!("the page's daemon is not connected: {metrics}"));
        }
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            signal(daemon.id(), Signal::TERM);
            assert!(daemon.wait().expect("ours").success(), "the page's daemon did not stop well");
        }
    }

    /// The steps from nothing to an executable, with the real git and the real shell. Compiling is what the tests did
    /// already: a `cargo` of their own hands out what they run.
    fn clone_and_build(&self, script: &str, place: &str) {
        let (root, tools) = (env!("CARGO_MANIFEST_DIR"), Folder::new());
        let cargo = format!(
            "#!/bin/sh\n[ \"$*\" = \"build --release\" ] && [ -f Cargo.lock ] && mkdir -p target/release && ln -s {} target/release/\n",
            env!("CARGO_BIN_EXE_quittance")
        );
        let stand_in = tools.path().join("cargo");
        std::fs::write(&stand_in, cargo).expect("written");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&stand_in, executable).expect("made executable");
        let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").expect("a PATH"));
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", script]).current_dir(self.folder.path()).env("PATH", path);
        bash.env_remove("QUITTANCE_CONFIG").stdin(Stdio::null());
        // The address of the page leads to this checkout, whoever owns it.
        let git = [
            (format!("url.{root}.insteadOf"), "https://git.example.com/quittance.git"),
            ("safe.directory".into(), "*"),
        ];
        bash.env("GIT_CONFIG_COUNT", git.len().to_string());
        for (at, (key, value)) in git.into_iter().enumerate() {
            bash.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        let output = bash.output().expect("bash runs");
        assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn request(&self, block: &str) -> Result<(), String> {
        let mut parts = block.trim_end().split("\n\n");
        let mut head = parts.next().unwrap_or_default().lines();
        let (method, target) = head.next().and_then(|line| line.split_once(' ')).ok_or("no request line")?;
        let headers: Vec<(&str, &str)> = head.filter_map(|line| line.split_once(": ")).collect();
        let rest: Vec<&str> = parts.collect();
        let (answer, body) = rest.split_last().ok_or("no answer")?;
        let body = body.first().copied().unwrap_or_default();
        let address = ([127, 0, 0, 1], self.ports[0]).into();
        let got = http::send(address, &http::request(method, target, &headers, body.as_bytes()))
            .map_err(|e| e.to_string())?;
        let said = format!("{} {}", got.status, got.text().trim_end());
        if said == *answer { Ok(()) } else { Err(format!("{said:?} instead of {answer:?}")) }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Follows a page from its first block to its last.
#[track_caller]
pub fn follow(name: &str, mut reader: Reader) {
    let (file, blocks) = page(name);
    for block in &blocks {
        let place = format!("{}:{}", file.display(), block.line);
        match (block.language.as_str(), block.mark.as_str()) {
            (_, mark) if mark.starts_with("test=") => known_commands(&block.text, &place),
            (_, mark) if mark.ends_with("broker") && reader.broker.is_none() => known_commands(&block.text, &place),
            ("sh", "clone") => reader.clone_and_build(&block.text, &place),
            ("toml", "") => reader.configure(&block.text),
            ("toml", "append") => {
                let whole = reader.config.clone() + "\n" + &block.text;
                let runs = reader.daemon.is_some();
                reader.configure(&whole);
                let output = reader.bash("quittance check");
                assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
                if runs {
                    reader.start();
                }
            }
            ("sh", "daemon" | "daemon broker") => {
                let words = block.text.trim().strip_prefix("quittance ").expect("a daemon's command");
                reader.serve = words.split(' ').map(str::to_owned).collect();
                reader.start();
            }
            ("sh", mark @ ("" | "stopped" | "broker")) => {
                if mark == "stopped" {
                    reader.stop();
                }
                let output = reader.bash(&block.text);
                let (out, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert!(output.status.success(), "{place}: {:?}\n{out}{told}", output.status);
            }
            ("http", "") => {
                if reader.daemon.is_none() {
                    reader.start();
                }
                reader.request(&block.text).unwrap_or_else(|why| panic!("{place}: {why}"));
            }
            (language, mark) => panic!("{place}: nobody knows what to do with a block of {language:?} {mark:?}"),
        }
    }
    reader.stop();
}

/// What cannot be run here must at least be written right.
fn known_commands(text: &str, place: &str) {
    let commands = text.lines().map(|line| line.trim_start_matches("target/release/"));
    for line in commands.filter_map(|line| line.strip_prefix("quittance ")) {
        let line = line.split_once(" #").map_or(line, |(command, _)| command);
        let words = std::iter::once("quittance").chain(line.split_whitespace());
        let parsed = <quittance::cli::Cli as clap::Parser>::try_parse_from(words);
        assert!(parsed.is_ok(), "{place}: {line}: {:?}", parsed.err());
    }
}
