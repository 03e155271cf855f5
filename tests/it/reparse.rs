//! `replay --reparse`: today's code and configuration over the requests as they were kept, and what differs.

use std::fs;

use serde_json::{Value, json};

use crate::fixtures::{self, text};
use crate::harness::{self, Daemon};

/// Runs the command; its pages.
#[track_caller]
fn pages(daemon: &Daemon, more: &[&str]) -> Vec<Value> {
    let all = [&["--config", "quittance.toml", "replay", "--reparse", "--json"], more].concat();
    let output = harness::quittance(daemon.folder(), &all).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    lines.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

fn counts(page: &Value) -> [u64; 5] {
    ["looked_at", "same", "differ", "refused", "undecidable"].map(|name| page[name].as_u64().expect("a number"))
}

/// One of each provider. What Click KW's browser carried is known to nobody but the browser.
fn one_of_each() -> Daemon {
    let daemon = Daemon::start();
    let buyer = json!({ "custom": "100042", "name": "Rosa Parks", "email": "rosa@example.com" });
    assert_eq!(daemon.paygol(&fixtures::paygol(buyer)).status, 200);
    assert_eq!(daemon.legacy(&fixtures::legacy(json!({}))).status, 200);
    assert_eq!(daemon.clickpay("/clickpay", &fixtures::pay_in(json!({ "name": "Rosa Parks" }))).status, 200);
    let session = json!({ "session_id": "session-1", "indicator_status": "kw-indicator-00000001" });
    let path = daemon.expects("clickkw", "42", ("6.000", "KWD"), session);
    let query = "?message=success&message_type=success&indicator_status=kw-indicator-00000001";
    assert_eq!(daemon.get(&format!("{path}{query}")).status, 303);
    daemon
}

fn edit(daemon: &Daemon, change: impl FnOnce(&str) -> String) {
    let file = daemon.folder().join("quittance.toml");
    let config = fs::read_to_string(&file).expect("its configuration");
    let changed = change(&config);
    assert_ne!(changed, config, "the test must change something");
    fs::write(&file, changed).expect("written");
}

#[track_caller]
fn of_source<'p>(page: &'p Value, source: &str) -> &'p Value {
    let all = page["differences"].as_array().expect("a list");
    all.iter().find(|one| one["source"] == source).unwrap_or_else(|| panic!("nothing of {source}: {page:#}"))
}

#[test]
fn the_same_code_says_the_same_and_nothing_is_written_or_sent() {
    let mut daemon = one_of_each();
    let (head, feed) = (daemon.ask("/api/v1/status")["store"]["head"].clone(), daemon.feed());
    for with_a_daemon in [true, false] {
        let found = pages(&daemon, &["--all"]);
        assert_eq!((found.len(), counts(&found[0])), (1, [4, 3, 0, 0, 1]), "{found:#?}");
        let browser = of_source(&found[0], "clickkw");
        assert_eq!((&browser["today"], &browser["fields"]), (&json!("undecidable"), &json!([])));
        assert_eq!(counts(&pages(&daemon, &["--source", "paygol"])[0]), [1, 1, 0, 0, 0]);
        if with_a_daemon {
            assert_eq!(daemon.ask("/api/v1/status")["store"]["head"], head, "nothing was written");
            assert!(daemon.stop().success());
        }
    }
    daemon.start_again();
    assert_eq!(daemon.feed(), feed, "nothing was sent");
}

#[test]
fn what_differs_today_is_named_and_nothing_of_a_person_is_shown() {
    let mut daemon = one_of_each();
    let transaction = text(&daemon.ask("/api/v1/notifications?source=paygol")["notifications"][0]["transaction_id"]);
    assert!(daemon.stop().success());
    edit(&daemon, |config| {
        let other = config.replace("path = \"/paygol\"\n", "path = \"/paygol\"\norder_id_from = \"transaction_id\"\n");
        let keys = fixtures::folder().join("keys");
        let [mine, another] = ["clickpay-1024.pem", "clickpay-other.pem"].map(|name| keys.join(name));
        let other = other.replace(&mine.display().to_string(), &another.display().to_string());
        other.replace(fixtures::LEGACY_SECRET, "another-secret-of-the-legacy-source")
    });
    daemon.start_again();
    let found = pages(&daemon, &["--all"]).remove(0);
    let ours = of_source(&found, "paygol");
    let fields = ours["fields"].as_array().expect("a list");
    let order = fields.iter().find(|field| field["name"] == "order_id").expect("the order differs");
    assert_eq!((&order["kept"], &order["today"]), (&json!("100042"), &json!(transaction)), "{ours:#}");
    assert_eq!(ours["today"], "differs");
    let hidden = |field: &&Value| field["shown"] == false;
    assert!(fields.iter().filter(hidden).all(|field| field["kept"].is_null() && field["today"].is_null()), "{ours:#}");
    let signed = of_source(&found, "clickpay-id");
    assert_eq!((&signed["today"], &signed["reason"]), (&json!("refused"), &json!("bad_signature")));
    assert_eq!(of_source(&found, "paygol-ipn")["today"], "undecidable", "its secret is none of today's");
    let printed = found.to_string();
    for personal in ["Rosa", "rosa@", fixtures::LEGACY_SECRET, "kw-indicator"] {
        assert!(!printed.contains(personal), "{personal} is shown: {found:#}");
    }

    // For people it is a line each.
    let all = ["--config", "quittance.toml", "replay", "--reparse", "--source", "paygol"];
    let output = harness::quittance(daemon.folder(), &all).output().expect("it runs");
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains(&format!("order_id: \"100042\" -> \"{transaction}\"")), "{printed}");
    assert!(said.contains("1 looked at: 0 say the same today, 1 differ"), "{said}");
}

#[test]
fn pages_of_a_look_go_on_and_what_sends_is_refused_with_it() {
    let daemon = Daemon::start();
    for n in 0..520 {
        assert_eq!(daemon.legacy(&fixtures::legacy(json!({ "transaction_id": format!("T{n}") }))).status, 200);
    }
    let found = pages(&daemon, &["--all"]);
    assert!(found.len() > 1 && found.last().is_some_and(|page| page["next"].is_null()), "{} pages", found.len());
    assert_eq!(found.iter().map(|page| counts(page)[1]).sum::<u64>(), 520);
    for (document, status) in [
        (json!({ "exchange": "books" }), 422),
        (json!({ "rate": "max" }), 422),
        (json!({ "sorce": "paygol" }), 422),
        (json!({ "after": "nonsense" }), 400),
        (json!([]), 400),
    ] {
        let answer = daemon.admin_post("/api/v1/replays/reparse", &document);
        assert_eq!(answer.status, status, "{document}: {answer:?}");
    }
}
