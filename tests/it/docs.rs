//! Every command, configuration, request and program in `docs/` is run as it stands there.
//!
//! A fenced block says by its language what is done with it: `toml` becomes `config.toml` (`toml append` is added to it);
//! `sh` is run by bash in the page's folder, `sh daemon` in the background until the next one, `sh stopped` after it was
//! stopped; `http` is a request and its answer. Only addresses are changed, since pages are tried side by side. What
//! needs a broker, systemd or a network says so (`broker`, `test=..`), and that its commands exist is checked.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Folder, eventually, signal};
use crate::http;

#[path = "../../examples/consume.rs"]
#[expect(dead_code, reason = "its main is for whoever runs it")]
mod consume;

struct Block {
    language: String,
    mark: String,
    text: String,
    line: usize,
}

fn page(name: &str) -> (PathBuf, Vec<Block>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
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
struct Reader {
    folder: Folder,
    config: String,
    ports: [u16; 2],
    daemon: Option<Child>,
    serve: Vec<String>,
}

impl Reader {
    fn new() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let (folder, config) = (Folder::new(), String::new());
        Self { folder, config, ports: [free(), free()], daemon: None, serve: Vec::new() }
    }

    /// The same text with ports of its own.
    fn own_ports(&self, text: &str) -> String {
        text.replace("127.0.0.1:8080", &format!("127.0.0.1:{}", self.ports[0]))
            .replace("127.0.0.1:9090", &format!("127.0.0.1:{}", self.ports[1]))
    }

    fn configure(&mut self, text: &str) {
        self.stop();
        self.config = text.to_owned();
        if !text.contains("[admin]") {
            self.config = format!("[admin]\naddress = \"127.0.0.1:9090\"\n\n{}", self.config);
            self.config = self.config.replace("[listener]\n", "[listener]\naddress = \"127.0.0.1:8080\"\n");
        }
        let text = self.own_ports(&self.config);
        std::fs::write(self.folder.path().join("config.toml"), text).expect("written");
    }

    fn bash(&self, script: &str) -> Output {
        let executable = Path::new(env!("CARGO_BIN_EXE_quittance")).parent().expect("its folder");
        let path = format!("{}:{}", executable.display(), std::env::var("PATH").expect("a PATH"));
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &self.own_ports(script)]).current_dir(self.folder.path());
        bash.env("PATH", path).env_remove("QUITTANCE_CONFIG").env("QUITTANCE_AMQP_URL", "amqp://127.0.0.1:1/%2f");
        bash.stdin(Stdio::null()).output().expect("bash runs")
    }

    fn start(&mut self) {
        self.stop();
        let mut command = Command::new(env!("CARGO_BIN_EXE_quittance"));
        command.args(&self.serve).current_dir(self.folder.path()).env_remove("QUITTANCE_CONFIG");
        command.stderr(std::fs::File::create(self.folder.path().join("serve.log")).expect("a log"));
        self.daemon = Some(command.spawn().expect("it runs"));
        eventually("the page's daemon is ready", || {
            let output = self.bash("quittance check --live");
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        });
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            signal(daemon.id(), Signal::TERM);
            assert!(daemon.wait().expect("ours").success(), "the page's daemon did not stop well");
        }
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

#[track_caller]
fn follow(name: &str) {
    let (file, blocks) = page(name);
    let mut reader = Reader::new();
    for block in &blocks {
        let place = format!("{}:{}", file.display(), block.line);
        match (block.language.as_str(), block.mark.as_str()) {
            (_, mark) if mark.starts_with("test=") || mark == "broker" => known_commands(&block.text, &place),
            ("toml", "") => reader.configure(&block.text),
            ("toml", "append") => {
                let whole = reader.config.clone() + "\n" + &block.text;
                reader.configure(&whole);
                let output = reader.bash("quittance check");
                assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
            }
            ("sh", "daemon") => {
                let words = block.text.trim().strip_prefix("quittance ").expect("a daemon's command");
                reader.serve = words.split(' ').map(str::to_owned).collect();
                reader.start();
            }
            ("sh", mark @ ("" | "check" | "stopped")) => {
                if mark == "stopped" {
                    reader.stop();
                }
                let output = reader.bash(&block.text);
                let (out, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert!(output.status.success(), "{place}: {:?}\n{out}{told}", output.status);
            }
            ("http", "") => {
                if reader.daemon.is_none() {
                    reader.serve = vec!["serve".to_owned()];
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
    for line in text.lines().filter_map(|line| line.strip_prefix("quittance ")) {
        let words = std::iter::once("quittance").chain(line.split(' '));
        let parsed = <quittance::cli::Cli as clap::Parser>::try_parse_from(words);
        assert!(parsed.is_ok(), "{place}: {line}: {:?}", parsed.err());
    }
}

#[test]
fn the_quick_start_gets_from_a_secret_to_an_event() {
    follow("quickstart.md");
}

#[test]
fn the_page_on_operations_can_be_followed() {
    follow("operations.md");
}

#[test]
fn the_page_of_each_provider_can_be_followed() {
    for provider in ["clickpay", "paygol", "paygol-legacy", "clickkw", "clickgem"] {
        follow(&format!("providers/{provider}.md"));
    }
}

#[test]
fn every_page_is_followed_and_every_link_leads_somewhere() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let link = regex::Regex::new(r"\]\(([a-z/.-]+\.md)\)").expect("a pattern");
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/docs.rs"));
    let source = source.expect("this file");
    for folder in [docs.clone(), docs.join("providers")] {
        for entry in std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let Some("md") = entry.extension().and_then(|extension| extension.to_str()) else { continue };
            let text = std::fs::read_to_string(&entry).expect("a page");
            for to in link.captures_iter(&text) {
                assert!(folder.join(&to[1]).exists(), "{}: {}", entry.display(), &to[1]);
            }
            let stem = entry.file_stem().and_then(|stem| stem.to_str()).expect("a name");
            assert!(stem == "README" || source.contains(stem), "{stem} is followed by no test");
        }
    }
}

/// Each program is run against a real feed: a fulfilled order, one to compare that is equal, one that is not, a held one
/// and a failed one, and the whole feed a second time.
#[test]
fn the_consumers_of_consuming_md_book_once_and_obey_the_verdict() {
    let (_, blocks) = page("consuming.md");
    let block = |language: &str| &blocks.iter().find(|block| block.language == language).expect(language).text;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/consume.rs");
    assert_eq!(*block("rust"), std::fs::read_to_string(example).expect("the example"), "the page shows the example");
    assert_eq!(blocks.len(), 5, "a program that no test runs");

    let mut reader = Reader::new();
    reader.configure(&page("operations.md").1.iter().find(|block| block.language == "toml").expect("one").text);
    reader.serve = vec!["serve".to_owned()];
    reader.start();
    let sent = reader.bash(
        "quittance expect --source paygol --order F --amount 5.00 --currency USD
         quittance send paygol --order F --amount 5.00
         quittance send paygol --order 100042 --amount 10.00
         quittance send paygol --order OTHER --amount 10.00
         quittance expect --source paygol --order H --amount 9.00 --currency USD
         quittance send paygol --order H --amount 1.00
         quittance send paygol --order N --status failed",
    );
    assert!(sent.status.success(), "{sent:?}");
    let feed = format!("http://127.0.0.1:{}", reader.ports[1]);
    for (language, command) in [("python", "/usr/bin/python3 p"), ("php", "php p"), ("js", "node p"), ("rust", "")] {
        let file = reader.folder.path().join(format!("shop-{language}.json"));
        std::fs::write(&file, block("json")).expect("written");
        std::fs::write(reader.folder.path().join("p"), block(language)).expect("written");
        let run = || {
            if command.is_empty() {
                while consume::step(&feed, file.to_str().expect("UTF-8"), "0s").expect("it consumes") {}
                return;
            }
            let output = reader.bash(&format!("{command} {feed} {} 0s", file.display()));
            assert!(output.status.success(), "{language}: {output:?}");
        };
        let shop = || serde_json::from_str::<Value>(&std::fs::read_to_string(&file).expect("there")).expect("JSON");
        run();
        let first = shop();
        assert_eq!(first["booked"], json!({ "F": "payment.paid", "100042": "payment.paid" }), "{language}");
        let look: Vec<&Value> = first["look"].as_object().expect("an object").values().collect();
        assert_eq!(look, [&json!("OTHER"), &json!("H")], "{language}");
        assert_eq!(first["seen"].as_object().expect("an object").len(), 5, "{language}");
        // Everything once more, as after a crash before the cursor was noted: booked orders were taken off meanwhile.
        let mut again = first.clone();
        (again["cursor"], again["booked"]) = (Value::Null, json!({ "x": "y" }));
        std::fs::write(&file, again.to_string()).expect("written");
        run();
        assert_eq!(shop()["booked"], json!({ "x": "y" }), "{language} books again what it has seen");
    }
}
