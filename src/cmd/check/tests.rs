//! What is printed, and when it fails.

use std::path::Path;

use super::*;

const CONFIG: &str = r#"
[listener]
public_url = "https://pay.example.com"
[store]
path = "store"
[[source]]
name = "paygol"
provider = "paygol"
path = "/paygol"
service_id = "123"
secrets = ["7c1a6a24-7943-102d-92f8-29573711ad31"]
[[source]]
name = "kw"
provider = "clickkw"
path = "/kw"
return_secret = "1f1a6a24-7943-102d-92f8-29573711ad33"
success_url = "https://shop.example.com/a"
failure_url = "https://shop.example.com/b"
"#;

fn config(folder: &Path) -> Config {
    Config::parse(CONFIG, folder, &|_| None).expect("good")
}

fn check(config: &Config, live: bool, json: bool) -> (Result<(), Failure>, String) {
    let mut bytes = Vec::new();
    let done =
        run(config, Path::new("config.toml"), &cli::Check { connect: false, live, json }, &mut Out::to(&mut bytes));
    (done, String::from_utf8(bytes).expect("UTF-8"))
}

#[test]
fn every_source_is_told_with_url_verdict_and_reason_and_without_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let (done, text) = check(&config(folder.path()), false, false);
    assert!(done.is_ok(), "{done:?}");
    assert!(text.contains("paygol  paygol  https://pay.example.com/paygol\n"), "{text}");
    assert!(text.contains("kw  clickkw  https://pay.example.com/kw/<order_id>/<tag>\n"), "{text}");
    assert!(text.contains("    verdict    compare; with a matching expectation: fulfil\n"), "{text}");
    assert!(!text.contains("7943"), "{text}");
    assert!(!folder.path().join("store").exists(), "a check changes nothing");

    let (done, text) = check(&config(folder.path()), false, true);
    assert!(done.is_ok(), "{done:?}");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["name"], "paygol");
    assert_eq!(lines[0]["ordinary_verdict"], "compare");
    assert_eq!(lines[1]["url"], "https://pay.example.com/kw/<order_id>/<tag>");
}

#[test]
fn a_store_that_cannot_be_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("store"), "a file").expect("written");
    let told = |done: Result<(), Failure>| match done {
        Err(Failure::Config(problems)) => problems.to_string(),
        other => panic!("the configuration names a wrong place: {other:?}"),
    };
    let said = told(check(&config(folder.path()), false, false).0);
    assert!(said.contains("store.path") && said.contains("is not a folder"), "{said}");
    let nowhere = Config::parse(&CONFIG.replace("\"store\"", "\"/proc/none/store\""), folder.path(), &|_| None);
    let said = told(check(&nowhere.expect("good"), false, false).0);
    assert!(said.contains("make the store's folder in /proc"), "{said}");
}

#[test]
fn nobody_is_ready_where_nobody_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let contact = Contact { store: folder.path().to_owned(), token: None };
    let mut bytes = Vec::new();
    let done = live(&contact, false, &mut Out::to(&mut bytes));
    assert!(matches!(done, Err(Failure::Operation(error)) if error.to_string().contains("no daemon holds the store")));
    assert!(bytes.is_empty());
}
