//! The executable as a process: exit statuses, one daemon a store, mistakes told all at once.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::fixtures;
use crate::harness::{Config, Daemon, Folder, quittance, sources};

fn run(folder: &Folder, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = quittance(folder.path(), arguments).output().expect("the executable runs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

fn folder_with(config: &str) -> Folder {
    let folder = Folder::new();
    fs::write(folder.path().join("config.toml"), config).unwrap();
    folder
}

#[test]
fn a_second_daemon_on_the_same_store_exits_1_and_names_the_firsts_pid() {
    let daemon = Daemon::start();
    let out = quittance(daemon.folder(), &["--config", "quittance.toml", "serve"]).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains(&daemon.pid().to_string()), "{said}");
    assert_eq!(daemon.admin_get("/readyz").status, 200, "the first one is unharmed");
    let lock: Value = serde_json::from_slice(&fs::read(daemon.store().join("lock")).unwrap()).unwrap();
    assert_eq!(lock["pid"], daemon.pid());
    assert!(lock["admin"].as_str().unwrap().contains(&daemon.admin.to_string()), "{lock}");
}

#[test]
fn a_lock_that_a_killed_daemon_left_is_no_obstacle() {
    let mut daemon = Daemon::start();
    daemon.kill();
    assert!(daemon.store().join("lock").exists());
    daemon.start_again();
    assert_eq!(daemon.admin_get("/readyz").status, 200);
}

#[test]
fn every_mistake_of_a_configuration_is_told_at_once_with_its_path_and_exit_2() {
    let folder = folder_with(
        r#"
[listener]
adress = "127.0.0.1:0"
max_body = "lots"
[admin]
address = "0.0.0.0:9090"
[store]
[[source]]
name = "Not A Name"
provider = "clickpay"
path = "clickpay"
currency = "IDR"
order_pattern = "("
public_keys = []
[[source]]
name = "paygol"
provider = "paygol"
path = "/x"
service_id = "1"
secrets = ["changeme"]
[[source]]
name = "ipn"
provider = "paygol-legacy"
path = "/x"
service_id = "1"
secrets = ["${PAYGOL_SECRET}"]
"#,
    );
    for command in ["check", "serve"] {
        let (status, out, said) = run(&folder, &[command]);
        assert_eq!(status, Some(2), "{said}");
        assert_eq!(out, "", "talk goes to stderr");
        for path in [
            "listener.adress",
            "listener.max_body",
            "listener.public_url",
            "admin",
            "store.path",
            "source[0].name",
            "source[0].path",
            "source[0].order_pattern",
            "source[0].public_keys",
            "source[1].secrets",
            "source[2].secrets",
            "/x",
        ] {
            assert!(
                said.contains(path) || said.contains(&path.replace("source[", "source.").replace(']', "")),
                "{path} is not in\n{said}"
            );
        }
        assert!(!said.contains("panicked"), "{said}");
        assert!(!said.contains("changeme"), "a secret, even a bad one, is not repeated: {said}");
    }
}

#[test]
fn a_placeholder_or_an_unexpanded_secret_is_refused() {
    // V2
    for secret in
        ["", "changeme", "changemechangeme", "secret", "short", "${PAYGOL_SECRET_OF_SIXTEEN}", "                    "]
    {
        let config = format!(
            "[listener]\npublic_url = \"https://pay.example.com\"\n[store]\npath = \"store\"\n[[source]]\nname = \"p\"\nprovider = \"paygol\"\npath = \"/p\"\nservice_id = \"1\"\nsecrets = [\"{secret}\"]\n"
        );
        let (status, _, said) = run(&folder_with(&config), &["check"]);
        assert_eq!(status, Some(2), "{secret:?} passed: {said}");
        assert!(said.contains("secrets"), "{said}");
    }
}

#[test]
fn a_secret_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let config = "[listener]\npublic_url = \"https://pay.example.com\"\n[store]\npath = \"store\"\n[[source]]\nname = \"p\"\nprovider = \"paygol\"\npath = \"/p\"\nservice_id = \"1\"\nsecrets = [{ file = \"secret.txt\" }]\n";
    let folder = folder_with(config);
    let file = folder.path().join("secret.txt");
    fs::write(&file, format!("{}\n", fixtures::PAYGOL_SECRET)).unwrap();
    for (mode, wanted) in [(0o644, Some(2)), (0o640, Some(2)), (0o600, Some(0))] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let (status, out, said) = run(&folder, &["check"]);
        assert_eq!(status, wanted, "{mode:o}: {said}");
        assert!(!format!("{out}{said}").contains(fixtures::PAYGOL_SECRET));
    }
}

#[test]
fn the_same_secret_for_paygol_and_its_legacy_is_refused_unless_both_say_shared_secret() {
    let config = |shared: &str| {
        let secret = fixtures::PAYGOL_SECRET;
        format!(
            "[listener]\npublic_url = \"https://pay.example.com\"\n[store]\npath = \"store\"\n[[source]]\nname = \"a\"\nprovider = \"paygol\"\npath = \"/a\"\nservice_id = \"1\"\nsecrets = [\"{secret}\"]\n{shared}\n[[source]]\nname = \"b\"\nprovider = \"paygol-legacy\"\npath = \"/b\"\nservice_id = \"1\"\nsecrets = [\"{secret}\"]\n{shared}\n"
        )
    };
    let (status, _, said) = run(&folder_with(&config("")), &["check"]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("shared_secret"), "{said}");
    let (status, _, said) = run(&folder_with(&config("shared_secret = true")), &["check"]);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn check_prints_url_verdict_and_ambiguous_neighbours_of_each_source() {
    let config = Config { store_path: "store".into(), ..Config::default() };
    let folder = folder_with(&config.render());
    let (status, out, said) = run(&folder, &["check"]);
    assert_eq!(status, Some(0), "{said}");
    let all = format!("{out}{said}");
    for url in
        ["https://pay.example.com/clickpay", "https://pay.example.com/paygol/ipn", "https://pay.example.com/clickkw"]
    {
        assert!(all.contains(url), "{url} is not in\n{all}");
    }
    for word in ["compare", "hold", "fulfil", "payFee", "payMoney", "orderNum", "order_pattern"] {
        assert!(all.contains(word), "{word} is not in\n{all}");
    }
    assert!(!folder.path().join("store/journal").exists(), "check makes no store");
    assert!(!all.contains(fixtures::PAYGOL_SECRET) && !all.contains(fixtures::GEM_API_SIGNATURE));
}

#[test]
fn a_store_where_none_can_be_is_a_mistake_of_the_configuration_told_with_its_key_and_exit_2() {
    for place in ["config.toml", "config.toml/store", "/proc/none/store", "/dev/null"] {
        let config = Config { store_path: place.into(), ..Config::default() };
        let folder = folder_with(&config.render());
        for command in ["check", "serve"] {
            let (status, _, said) = run(&folder, &[command]);
            assert_eq!(status, Some(2), "{command} with {place}: {said}");
            assert!(said.contains("store.path"), "{command} with {place}: {said}");
        }
    }
}

#[test]
fn check_live_asks_the_running_daemon() {
    let mut daemon = Daemon::start();
    let check = |daemon: &Daemon| {
        quittance(daemon.folder(), &["--config", "quittance.toml", "check", "--live"]).output().unwrap().status.code()
    };
    assert_eq!(check(&daemon), Some(0));
    daemon.kill();
    assert_eq!(check(&daemon), Some(1));
}

#[test]
fn a_wrong_command_line_or_a_missing_configuration_is_exit_2() {
    let folder = Folder::new();
    for arguments in [&["surprise"][..], &["serve", "--surprise"], &["check", "--config", "nowhere.toml"], &[]] {
        let (status, _, said) = run(&folder, arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {said}");
        assert!(!said.is_empty());
    }
    let (status, out, _) = run(&folder, &["--help"]);
    assert_eq!(status, Some(0));
    assert!(out.contains("serve") && out.contains("demo") && out.contains("expect"));
    let (status, out, _) = run(&folder, &["--version"]);
    assert_eq!((status, out.trim()), (Some(0), concat!("quittance ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn serve_says_where_it_listens_and_what_each_source_is_worth() {
    let daemon = Daemon::start();
    let log = daemon.log();
    assert!(log.contains(&daemon.public.to_string()) && log.contains(&daemon.admin.to_string()), "{log}");
    for url in ["https://pay.example.com/clickpay/strict", "https://pay.example.com/clickgem"] {
        assert!(log.contains(url), "{url} is not in\n{log}");
    }
    let at_open = sources().matches("[[source]]").count();
    assert!(log.matches("https://pay.example.com/").count() >= at_open);
}

#[test]
fn expect_registers_with_the_running_daemon_and_prints_the_return_url() {
    let daemon = Daemon::start();
    let expect = |arguments: &[&str]| {
        let all = [&["--config", "quittance.toml", "expect"], arguments].concat();
        let out = quittance(daemon.folder(), &all).output().unwrap();
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).trim().to_owned(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    let arguments = [
        "--source",
        "clickkw-trust",
        "--order",
        "42",
        "--amount",
        "6.000",
        "--currency",
        "KWD",
        "--session",
        "s-1",
        "--indicator",
        "kw-indicator-0001",
    ];
    let (status, out, said) = expect(&arguments);
    assert_eq!(status, Some(0), "{said}");
    let tag = fixtures::tag(fixtures::KW_RETURN_SECRET, "clickkw-trust", "42");
    assert!(out.contains(&format!("https://pay.example.com/kw/42/{tag}")), "{out}");
    assert!(!format!("{out}{said}").contains("kw-indicator-0001"));
    let answer =
        daemon.get(&format!("/kw/42/{tag}?message=success&message_type=success&indicator_status=kw-indicator-0001"));
    assert_eq!(answer.status, 303);
    assert_eq!(daemon.only_event()["verdict"], "fulfil");

    let lines = [
        json!({ "source": "paygol", "order_id": "a", "amount": { "value": "1.00", "currency": "EUR" } }),
        json!({ "source": "paygol", "order_id": "b", "amount": { "value": "2.00", "currency": "EUR" } }),
    ];
    fs::write(daemon.folder().join("orders.jsonl"), lines.map(|l| l.to_string()).join("\n")).unwrap();
    let (status, _, said) = expect(&["--from", "orders.jsonl"]);
    assert_eq!(status, Some(0), "{said}");
    let (status, _, said) = expect(&["--source", "paygol", "--order", "a", "--amount", "9", "--currency", "EUR"]);
    assert_eq!(status, Some(1), "another amount is refused: {said}");
}

#[test]
fn demo_is_right_and_every_spoiled_case_is_found_wrong() {
    let folder = Folder::new();
    let (status, out, said) = run(&folder, &["demo", "--json"]);
    assert_eq!(status, Some(0), "{said}");
    let cases: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for provider in ["clickpay", "paygol", "paygol-legacy", "clickkw", "clickgem"] {
        assert!(cases.iter().any(|c| c["provider"] == provider), "no case of {provider}");
    }
    for case in &cases {
        let keys: Vec<&str> = case.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["provider", "case", "answer", "event", "verdict", "ok"]);
        assert_eq!(case["ok"], true, "{case}");
    }
    for case in &cases {
        let name = format!("{}/{}", fixtures::text(&case["provider"]), fixtures::text(&case["case"]));
        let (status, out, said) = run(&folder, &["demo", "--break", &name]);
        assert_eq!(status, Some(1), "{name}: {out}{said}");
        assert!(out.contains("WRONG"), "{name}: {out}");
    }
    let (status, out, _) = run(&folder, &["demo"]);
    assert_eq!(status, Some(0));
    let count = cases.len();
    assert!(out.contains(&format!("{count} of {count} as they must be")), "{out}");
    let (status, _, _) = run(&folder, &["demo", "--break", "nobody/nothing"]);
    assert_eq!(status, Some(2));
}
