//! What is written for people, tried as it stands there: `docs/` and the README. How a page is followed: `pages`.

use std::path::Path;

use serde_json::{Value, json};

use crate::pages::{Reader, follow, page};

#[path = "../../examples/consume.rs"]
#[expect(dead_code, reason = "its main is for whoever runs it")]
mod consume;

#[test]
fn the_readme_can_be_followed() {
    let mut reader = Reader::new(None);
    reader.configure(&page("docs/operations.md").1.iter().find(|block| block.language == "toml").expect("one").text);
    let built = reader.folder.path().join("target/release");
    std::fs::create_dir_all(&built).expect("made");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_quittance"), built.join("quittance")).expect("made");
    reader.start();
    follow("README.md", reader);
}

#[test]
fn the_quick_start_gets_from_a_secret_to_an_event() {
    follow("docs/quickstart.md", Reader::new(None));
}

#[test]
fn the_page_on_operations_can_be_followed() {
    follow("docs/operations.md", Reader::new(None));
}

#[test]
fn the_page_of_each_provider_can_be_followed() {
    for provider in ["clickpay", "paygol", "paygol-legacy", "clickkw", "clickgem"] {
        follow(&format!("docs/providers/{provider}.md"), Reader::new(None));
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

/// Whoever is woken by an alert finds it on the page, and each command that an operator has.
#[test]
fn the_page_on_operations_knows_every_alert_and_every_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |name: &str| std::fs::read_to_string(root.join(name)).expect("a file");
    let page = text("docs/operations.md");
    let rules = text("packaging/prometheus/alerts.yml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        assert!(page.contains(&format!("`{alert}`")), "{alert} is not explained");
    }
    let cli = <quittance::cli::Cli as clap::CommandFactory>::command();
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        let inner: Vec<_> = command.get_subcommands().filter(|inner| inner.get_name() != "help").collect();
        let names = inner.iter().map(|inner| format!("{} {}", command.get_name(), inner.get_name()));
        let names: Vec<String> = if inner.is_empty() { vec![command.get_name().to_owned()] } else { names.collect() };
        for name in names {
            assert!(page.contains(&format!("quittance {name}")), "quittance {name} is not shown");
        }
    }
}

/// Each program is run against a real feed: a fulfilled order, one to compare that is equal, one that is not, a held one
/// and a failed one, and the whole feed a second time.
#[test]
fn the_consumers_of_consuming_md_book_once_and_obey_the_verdict() {
    let (_, blocks) = page("docs/consuming.md");
    let block = |language: &str| &blocks.iter().find(|block| block.language == language).expect(language).text;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/consume.rs");
    assert_eq!(*block("rust"), std::fs::read_to_string(example).expect("the example"), "the page shows the example");
    assert_eq!(blocks.len(), 6, "a program that no test runs");
    // The sixth needs a broker: tests/broker runs it.

    let mut reader = Reader::new(None);
    reader.configure(&page("docs/operations.md").1.iter().find(|block| block.language == "toml").expect("one").text);
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
