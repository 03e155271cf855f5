//! Every class of mistake is told, with its path and a remedy, together with all the others.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

/// S1's key of the published vectors.
const KEY: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDJCrnKPOYK38aMO4G9fXwC5/TgotruSbNFmCp4PiL9mbZ4kTNSRNMd8efbd/znyALzEim36NGuKZFN5yfZ/VhEhlnlN1q20Z/L8aa79x7AHufjBn3Hsusf9aAb9FLeGssRPy5wpbit3KoUrcoaRCDvoUHQr0KnQOyERF7Y8wKtqwIDAQAB";

const HEAD: &str = "[listener]\npublic_url = \"https://pay.example.com\"\n[store]\npath = \"store\"\n";
const PAYGOL: &str = "[[source]]\nname = \"p\"\nprovider = \"paygol\"\npath = \"/p\"\nservice_id = \"1\"\nsecrets = [\"7c1a6a24-7943-102d\"]\n";
const KW: &str = "[[source]]\nname = \"kw\"\nprovider = \"clickkw\"\npath = \"/kw\"\nreturn_secret = \"b21f7c40-0d1e-4a55\"\nsuccess_url = \"https://shop.example.com/a\"\nfailure_url = \"https://shop.example.com/b\"\n";

fn env(name: &str) -> Option<String> {
    match name {
        "PAYGOL_SECRET" => Some("7c1a6a24-7943-102d-92f8-29573711ad31".to_owned()),
        "PAYGOL_IPN_SECRET" => Some("9d1a6a24-7943-102d-92f8-29573711ad32".to_owned()),
        "CLICKKW_RETURN_SECRET" => Some("1f1a6a24-7943-102d-92f8-29573711ad33".to_owned()),
        "CLICKGEM_SIGNATURE" => Some("2e1a6a24-7943-102d-92f8-29573711ad34".to_owned()),
        "CLICKGEM_RETURN_SECRET" => Some("3d1a6a24-7943-102d-92f8-29573711ad35".to_owned()),
        "QUITTANCE_ADMIN_TOKEN" => Some("4c1a6a24-7943-102d-92f8-29573711ad36".to_owned()),
        "QUITTANCE_AMQP_URL" => Some("amqp://shop:pw-of-the-shop@mq.example.com:5672/%2f".to_owned()),
        "CREDENTIALS_DIRECTORY" => Some("creds".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, Path::new("/etc/quittance"), &env)
}

#[track_caller]
fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Each of `paths` has a problem, no other path has one, and each problem says what to do.
#[track_caller]
fn wrong(text: &str, paths: &[&str]) -> String {
    let problems = parse(text).err().map(|problems| problems.list).unwrap_or_default();
    let found: BTreeSet<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let said = problems.iter().map(|problem| format!("{problem}\n")).collect::<String>();
    assert_eq!(found, paths.iter().copied().collect(), "{said}");
    // Whoever parses pages, keys and patterns says in one sentence what is wrong and what to do.
    let says_it = |path: &str| ["_url", "public_keys[", "_pattern"].iter().any(|part| path.contains(part));
    assert!(problems.iter().all(|problem| !problem.remedy.is_empty() || says_it(&problem.path)), "{said}");
    said
}

/// As [`wrong`], for one problem that says `why`.
#[track_caller]
fn one(text: &str, path: &str, why: &str) {
    let said = wrong(text, &[path]);
    assert!(said.contains(why), "{said}");
}

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let config = good(&format!("{HEAD}{PAYGOL}"));
    let listener = &config.listener;
    assert_eq!(listener.address.to_string(), "127.0.0.1:8080");
    assert_eq!((listener.max_connections, listener.max_in_flight), (4096, 1024));
    assert_eq!((listener.max_body_bytes, listener.max_header_bytes), (64 << 10, 16 << 10));
    let seconds = [listener.header_timeout, listener.body_timeout, listener.request_timeout, listener.idle_timeout];
    assert_eq!(seconds.map(|d| d.as_secs()), [5, 10, 15, 60]);
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:9090");
    assert!(config.admin.token.is_none());
    assert_eq!(config.store.path, Path::new("/etc/quittance/store"));
    assert_eq!((config.store.segment_bytes, config.store.index_lag), (64 << 20, 65_536));
    assert_eq!(config.retention.bodies.as_secs(), 90 * 86_400);
    assert_eq!(config.retention.keys.as_secs(), 400 * 86_400);
    assert_eq!((config.quarantine.max_bytes, config.quarantine.max_age.as_secs()), (64 << 20, 30 * 86_400));
    assert!(!config.fulfil_never && config.amqp.is_none() && config.feed_consumers.is_empty());
    let [source] = config.sources.as_slice() else { panic!("one source") };
    assert_eq!((source.name.as_str(), source.account.as_str(), source.path.as_str()), ("p", "p", "/p"));
    let ProviderSettings::Paygol(paygol) = &source.provider else { panic!("paygol") };
    assert!(paygol.order_id_from == OrderIdFrom::Custom && !paygol.bearer && paygol.secrets.len() == 1);
}

#[test]
fn all_problems_are_told_at_once_with_path_remedy_and_line() {
    let text = r#"
surprise = 1
[listener]
address = "localhost"
public_url = "https://pay.example.com/"
max_conections = 5
max_body = "64KB"
header_timeout = 5
idle_timeout = "9h"
max_in_flight = 0
[admin]
address = "0.0.0.0:9090"
[store]
segment = "1GiB "
index_lag = "many"
[retention]
keys = "10d"
[policy]
fulfil = "always"
[relay.feed]
consumers = ["shop", "a b"]
[[source]]
name = "Bad Name"
provider = "paypal"
[[source]]
name = "p"
provider = "paygol"
path = "/p/"
servce_id = "1"
secrets = ["changeme"]
"#;
    let said = wrong(
        text,
        &[
            "surprise",
            "listener.address",
            "listener.public_url",
            "listener.max_conections",
            "listener.max_body",
            "listener.header_timeout",
            "listener.idle_timeout",
            "listener.max_in_flight",
            "admin.token",
            "store.path",
            "store.segment",
            "store.index_lag",
            "retention.keys",
            "policy.fulfil",
            "relay.feed.consumers[1]",
            "source[0].name",
            "source[0].provider",
            "source[0].path",
            "source[1].path",
            "source[1].service_id",
            "source[1].servce_id",
            "source[1].secrets[0]",
        ],
    );
    assert!(said.contains("source[1].path: \"/p/\" ends with a slash; leave the last slash out (line 28)"), "{said}");
    assert!(said.contains("max_conections: unknown key; did you mean max_connections? (line 6)"), "{said}");
    let shown = parse(text).expect_err("wrong").to_string();
    assert!(shown.lines().all(|line| line.starts_with("config.toml: ")), "{shown}");
}

#[test]
fn a_syntax_error_has_line_and_column_and_shows_nothing_of_the_file() {
    let said = parse("[admin]\ntoken = \"hush-hush-hush-hush\" x\n").expect_err("wrong").to_string();
    assert!(said.starts_with("config.toml: line 2, column 31: is not TOML"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}

#[test]
fn wrong_types_are_told_as_such() {
    one("source = 1\n[listener]\npublic_url = \"https://a.example\"\n[store]\npath = \"s\"", "source", "is a number");
    one(&format!("source = [1]\n{HEAD}"), "source[0]", "not a table");
    one(&format!("admin = \"x\"\n{HEAD}{PAYGOL}"), "admin", "is a text, not a table");
    one(&format!("{HEAD}segment = 5\n{PAYGOL}"), "store.segment", "is a number, not a size");
    one(&format!("{HEAD}index_lag = 1.5\n{PAYGOL}"), "store.index_lag", "not a number");
    one(&format!("{HEAD}{PAYGOL}shared_secret = \"yes\"\n"), "source[0].shared_secret", "not true or false");
    one(&format!("{HEAD}{}", PAYGOL.replace("\"1\"", "1")), "source[0].service_id", "not a text");
    one(&format!("{HEAD}{}", PAYGOL.replace("\"p\"", "\"\"")), "source[0].name", "is empty");
    one(HEAD, "source", "is missing");
    one(&format!("source = []\n{HEAD}"), "source", "is empty");
}

#[test]
fn numbers_have_bounds() {
    for (line, path) in [
        ("max_connections = 0", "listener.max_connections"),
        ("max_connections = 1000001", "listener.max_connections"),
        ("max_connections = -1", "listener.max_connections"),
        ("max_connections = 99999999999999999999999", "listener.max_connections"),
        ("max_body = \"1023B\"", "listener.max_body"),
        ("max_body = \"17MiB\"", "listener.max_body"),
        ("max_header = \"4KiB\"", "listener.max_header"),
        ("body_timeout = \"99ms\"", "listener.body_timeout"),
        ("request_timeout = \"11m\"", "listener.request_timeout"),
    ] {
        one(
            &format!("[store]\npath = \"s\"\n[listener]\npublic_url = \"https://a.example\"\n{line}\n{PAYGOL}"),
            path,
            "out of bounds",
        );
    }
    for (line, path) in [("segment = \"1KiB\"", "store.segment"), ("index_lag = 0", "store.index_lag")] {
        wrong(&format!("{HEAD}{line}\n{PAYGOL}"), &[path]);
    }
    one(&format!("{HEAD}segment = \"64KiB\"\n{PAYGOL}"), "store.segment", "at least 320KiB");
    one(&format!("{HEAD}[quarantine]\nbytes = \"128KiB\"\n{PAYGOL}"), "quarantine.bytes", "at least 640KiB");
    one(&format!("{HEAD}[retention]\nkeys = \"89d\"\n{PAYGOL}"), "retention.keys", "shorter than bodies");
}

#[test]
fn the_admin_listener_needs_a_token_elsewhere_than_on_loopback() {
    let with = |admin: &str| format!("{HEAD}[admin]\n{admin}\n{PAYGOL}");
    for address in ["0.0.0.0:9090", "[::]:9090", "192.0.2.1:9090"] {
        one(&with(&format!("address = \"{address}\"")), "admin.token", "is missing");
        assert!(
            good(&with(&format!("address = \"{address}\"\ntoken = {{ env = \"QUITTANCE_ADMIN_TOKEN\" }}")))
                .admin
                .token
                .is_some()
        );
    }
    for address in ["127.0.0.1:9090", "127.9.9.9:9090", "[::1]:9090", "[::ffff:127.0.0.1]:9090"] {
        good(&with(&format!("address = \"{address}\"")));
    }
    one(&with("address = \"127.0.0.1:8080\""), "admin.address", "is the listener's");
    one(&with("token = \"\""), "admin.token", "is empty");
}

#[test]
fn paths_are_plain_and_apart() {
    let at = |path: &str| format!("{HEAD}{}", PAYGOL.replace("\"/p\"", &format!("\"{path}\"")));
    for path in ["p", "/", "/p/", "//p", "/p//q", "/p/./q", "/p/..", "/p%20q", "/p q", "/p?q", "/ü", "/\\u001b[2J"] {
        wrong(&at(path), &["source[0].path"]);
    }
    for path in ["/p", "/paygol/ipn", "/a.b/c_d-e~f", "/..."] {
        good(&at(path));
    }
    one(&at(&format!("/{}", "a".repeat(128))), "source[0].path", "longer than 128");
    let second = |path: &str| PAYGOL.replace("\"p\"", "\"q\"").replace("\"/p\"", &format!("\"{path}\""));
    one(&format!("{HEAD}{PAYGOL}{}", second("/p")), "source[1].path", "source[0]'s path too");
    good(&format!("{HEAD}{PAYGOL}{}", second("/p/ipn")));
}

#[test]
fn nothing_lies_below_a_return_url() {
    let below = PAYGOL.replace("\"/p\"", "\"/kw/x/y\"");
    one(&format!("{HEAD}{KW}{below}"), "source[1].path", "lies below \\\"/kw\\\"".replace('\\', "").as_str());
    one(&format!("{HEAD}{below}{KW}"), "source[1].path", "lies below");
    good(&format!("{HEAD}{KW}{}", PAYGOL.replace("\"/p\"", "\"/kwx\"")));
}

#[test]
fn return_urls_fit_the_gateway() {
    let with = |length: usize| {
        let host = format!("https://{}.example", vec!["a".repeat(60); 3].join("."));
        // 255 = public_url + path + "/" + 10 + "/" + 22
        let path = format!("/{}", "k".repeat(length - host.len() - 1 - 1 - 10 - 23));
        format!("{}{}", HEAD.replace("https://pay.example.com", &host), KW.replace("\"/kw\"", &format!("\"{path}\"")))
    };
    good(&with(255));
    one(&with(256), "source[0].path", "1 characters shorter");
}

#[test]
fn names_and_accounts_tell_sources_apart() {
    let second = PAYGOL.replace("\"/p\"", "\"/q\"");
    one(&format!("{HEAD}{PAYGOL}{second}"), "source[1].name", "source[0]'s name too");
    one(&format!("{HEAD}{PAYGOL}{KW}account = \"p\"\n"), "source[1].account", "at paygol");
    good(&format!("{HEAD}{PAYGOL}{}account = \"p\"\n", second.replace("\"p\"", "\"q\"")));
}

#[test]
fn a_secret_that_travels_openly_is_used_for_nothing_else() {
    let legacy =
        PAYGOL.replace("\"p\"", "\"ipn\"").replace("\"/p\"", "\"/ipn\"").replace("\"paygol\"", "\"paygol-legacy\"");
    wrong(&format!("{HEAD}{PAYGOL}{legacy}"), &["source[0].shared_secret", "source[1].shared_secret"]);
    wrong(&format!("{HEAD}{PAYGOL}shared_secret = true\n{legacy}"), &["source[1].shared_secret"]);
    let config = good(&format!("{HEAD}{PAYGOL}shared_secret = true\n{legacy}shared_secret = true\n"));
    assert!(matches!(&config.sources[0].provider, ProviderSettings::Paygol(paygol) if paygol.bearer));
    let gem = KW
        .replace("clickkw", "clickgem")
        .replace("return_secret", "api_signature = \"7c1a6a24-7943-102d\"\nreturn_secret");
    one(&format!("{HEAD}{gem}{PAYGOL}"), "source[1].secrets[0]", "same secret as source[0].api_signature");
    let both = gem.replace("b21f7c40-0d1e-4a55", "7c1a6a24-7943-102d");
    one(&format!("{HEAD}{both}"), "source[0].return_secret", "same secret as source[0].api_signature");
    let token = format!("{HEAD}[admin]\ntoken = \"7c1a6a24-7943-102d\"\n{PAYGOL}");
    one(&token, "source[0].secrets[0]", "same secret as admin.token");
    let twice = PAYGOL.replace("[\"7c1a6a24-7943-102d\"]", "[\"7c1a6a24-7943-102d\", \"7c1a6a24-7943-102d\"]");
    one(&format!("{HEAD}{twice}"), "source[0].secrets[1]", "same as secrets[0]");
}

#[test]
fn secrets_come_from_their_places_and_never_show() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("paygol.secret");
    let at = |value: &str| format!("{HEAD}{}", PAYGOL.replace("[\"7c1a6a24-7943-102d\"]", value));
    let parse = |text: &str| {
        Config::parse(text, folder.path(), &|name| match name {
            "CREDENTIALS_DIRECTORY" => Some(folder.path().display().to_string()),
            name => env(name),
        })
    };
    let said = |value: &str| parse(&at(value)).err().map(|problems| problems.to_string()).unwrap_or_default();
    let secret_of = |value: &str| match &parse(&at(value)).expect("good").sources[0].provider {
        ProviderSettings::Paygol(paygol) => paygol.secrets[0].expose().to_owned(),
        _ => panic!("paygol"),
    };
    std::fs::write(&file, "hush-0123456789-hush\n").expect("written");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("set");
    assert_eq!(secret_of("[{ file = \"paygol.secret\" }]"), "hush-0123456789-hush");
    assert_eq!(secret_of("{ file = \"paygol.secret\" }"), "hush-0123456789-hush");
    assert_eq!(secret_of("[{ credential = \"paygol.secret\" }]"), "hush-0123456789-hush");
    assert_eq!(secret_of("[{ env = \"PAYGOL_SECRET\" }]"), "7c1a6a24-7943-102d-92f8-29573711ad31");
    for mode in [0o640, 0o604, 0o620, 0o602] {
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("set");
        let said = said("[{ file = \"paygol.secret\" }]");
        assert!(said.contains("by others") && said.contains("chmod 600") && !said.contains("hush"), "{said}");
    }
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("set");
    std::fs::write(&file, "hush-0123\n456789-hush").expect("written");
    let text = said("[{ file = \"paygol.secret\" }]");
    assert!(text.contains("control character") && !text.contains("hush"), "{text}");
    std::fs::write(&file, b"hush-\xff-0123456789").expect("written");
    assert!(said("[{ file = \"paygol.secret\" }]").contains("is not text"));
    std::fs::write(&file, vec![b'a'; 70_000]).expect("written");
    assert!(said("[{ file = \"paygol.secret\" }]").contains("larger than 64 KiB"));
    for (value, why) in [
        ("[{ file = \"none.secret\" }]", "cannot read"),
        ("[{ file = \".\" }]", "not a regular file"),
        ("[{ env = \"NOT_SET\" }]", "the environment has no \"NOT_SET\""),
        ("[{ credential = \"../x\" }]", "not a credential's name"),
        ("[{ vault = \"x\" }]", "no place for a secret"),
        ("[{ file = \"a\", env = \"B\" }]", "names no place, or several"),
        ("[{ file = 1 }]", "not a text"),
        ("[{}]", "names no place"),
        ("[5]", "is a number, not a secret"),
        ("[]", "is empty"),
        ("[\"\"]", "is empty"),
        ("[\"changeme\"]", "is a placeholder"),
        ("[\"${PAYGOL_SECRET}\"]", "template"),
        ("[\"7c1a6a24-7943\"]", "shorter than 16"),
    ] {
        let text = said(value);
        assert!(text.starts_with("config.toml: source[0].secrets") && text.contains(why), "{value}: {text}");
        assert!(!text.contains("7c1a6a24"), "{text}");
    }
    let shown = format!("{:?}", parse(&at("[{ env = \"PAYGOL_SECRET\" }]")).expect("good"));
    assert!(!shown.contains("7c1a6a24"), "{shown}");
}

#[test]
fn clickpay_settings_are_checked() {
    let with = |lines: &str| {
        format!(
            "{HEAD}[[source]]\nname = \"c\"\nprovider = \"clickpay\"\npath = \"/c\"\npublic_keys = [{KEY:?}]\n{lines}\n"
        )
    };
    let config = good(&with(""));
    let ProviderSettings::ClickPay(clickpay) = &config.sources[0].provider else { panic!("clickpay") };
    assert_eq!(clickpay.fields, CLICKPAY_FIELDS);
    assert_eq!(clickpay.optional_fields, CLICKPAY_OPTIONAL_FIELDS);
    assert_eq!(clickpay.currency.as_str(), "IDR");
    one(
        &with("fields = [\"code\", \"msg\", \"orderNum\", \"payMoney\"]"),
        "source[0].fields",
        "platOrderNum is missing",
    );
    one(&with("optional_fields = [\"code\"]"), "source[0].optional_fields[0]", "stands twice");
    one(&with("optional_fields = [\"platSign\"]"), "source[0].optional_fields[0]", "no signed field");
    one(&with("order_pattern = \"(\""), "source[0].order_pattern", "");
    one(&with("amount_pattern = \"[0-9\""), "source[0].amount_pattern", "");
    one(&with("currency = \"rupiah\""), "source[0].currency", "no currency");
    one(&with("").replace(KEY, &KEY[..40]), "source[0].public_keys[0]", "");
    one(
        &with("").replace(&format!("[{KEY:?}]"), &format!("[{KEY:?}, {:?}]", format!("{KEY}\n"))),
        "source[0].public_keys[1]",
        "",
    );
    let moved = with("fields = [\"code\", \"msg\", \"orderNum\", \"payMoney\", \"platOrderNum\", \"phone\"]");
    let config = good(&moved);
    let ProviderSettings::ClickPay(clickpay) = &config.sources[0].provider else { panic!("clickpay") };
    assert_eq!(clickpay.optional_fields, ["status", "vaNumber"], "a default gives way to what is required");
}

#[test]
fn the_relay_is_read() {
    let with = |lines: &str| format!("{HEAD}[relay.amqp]\n{lines}\n{PAYGOL}");
    let config = good(&with("url = { env = \"QUITTANCE_AMQP_URL\" }\nstart = \"beginning\""));
    let amqp = config.amqp.as_ref().expect("configured");
    assert_eq!((amqp.exchange.as_str(), amqp.queue.as_str(), amqp.declare), ("payments", "payments", true));
    assert_eq!((amqp.window, amqp.attempts, amqp.start), (256, 5, Some(SinkStart::Beginning)));
    one(&with(""), "relay.amqp.url", "is missing");
    one(&with("url = \"http://mq.example.com\""), "relay.amqp.url", "amqp:// or amqps://");
    one(&with("url = [\"amqps://u:p@\"]"), "relay.amqp.url[0]", "names no host");
    one(&with("url = \"amqp://mq\"\nwindow = 65536\n"), "relay.amqp.window", "out of bounds");
    one(&with("url = \"amqp://mq\"\nstart = \"then\"\n"), "relay.amqp.start", "no start");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.toml");
    std::fs::write(&path, with("url = \"amqp://mq.example.com\"")).expect("written");
    assert!(Config::load(&path).is_ok_and(|config| config.amqp.is_some_and(|amqp| amqp.window == 256)));
    std::fs::write(&path, format!("{HEAD}{PAYGOL}")).expect("written");
    assert!(Config::load(&path).is_ok_and(|config| config.store.path == folder.path().join("store")));
}

#[test]
fn the_collector_is_read_and_what_is_wrong_with_it_has_a_remedy() {
    let with = |table: &str| format!("{HEAD}{table}{PAYGOL}");
    assert_eq!(good(&with("")).traces, None);
    let endpoint = "http://127.0.0.1:4318".to_owned();
    let table = "[traces]\nendpoint = \"http://127.0.0.1:4318\"\n";
    assert_eq!(good(&with(table)).traces, Some(Traces { endpoint: endpoint.clone(), one_in: 1 }));
    assert_eq!(good(&with(&format!("{table}one_in = 10\n"))).traces, Some(Traces { endpoint, one_in: 10 }));
    one(&with("[traces]\n"), "traces.endpoint", "leave [traces] out");
    one(&with(&format!("{table}one_in = 0\n")), "traces.one_in", "from 1 to 1000000");
    one(&with(&format!("{table}ratio = 0.5\n")), "traces.ratio", "known here: endpoint, one_in");
    for (url, why) in [
        ("127.0.0.1:4318", "http://127.0.0.1:4318"),
        ("https://otel.example.com", "near by"),
        ("http://127.0.0.1:4318/", "slash"),
        ("http://user:pw-of-it@127.0.0.1:4318", "password"),
    ] {
        let said = wrong(&with(&format!("[traces]\nendpoint = \"{url}\"\n")), &["traces.endpoint"]);
        assert!(said.contains(why) && !said.contains("pw-of-it"), "{said}");
    }
}

#[test]
fn the_example_parses_as_it_is_and_with_every_line_taken_in_and_holds_every_key() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("clickpay.pem"), KEY).expect("written");
    let example = include_str!("../../config.toml.example");
    let shown = |line: &str| {
        line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
    };
    let whole: String =
        example.lines().map(|line| format!("{}\n", if shown(line) { &line[1..] } else { line })).collect();
    let plain = Config::parse(example, folder.path(), &env).unwrap_or_else(|problems| panic!("{problems}"));
    let full = Config::parse(&whole, folder.path(), &env).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(plain.amqp.is_none() && full.amqp.is_some());
    assert!(plain.traces.is_none() && full.traces.is_some());

    // The values shown are the defaults: taking them in changes nothing but the relay, the token and the page.
    let pages = |text: String| {
        text.replace("pending: Some", "pending: None")
            .split("pending: None")
            .map(|part| {
                part.strip_prefix("(PageUrl(\"https://shop.example.com/thanks?order={order_id}\"))")
                    .unwrap_or(part)
                    .to_owned()
            })
            .collect::<String>()
    };
    assert_eq!(format!("{:?}", plain.listener), format!("{:?}", full.listener));
    assert_eq!(format!("{:?}", plain.store), format!("{:?}", full.store));
    assert_eq!(
        format!("{:?}{:?}", plain.retention, plain.quarantine),
        format!("{:?}{:?}", full.retention, full.quarantine)
    );
    assert_eq!(pages(format!("{:?}", plain.sources)), pages(format!("{:?}", full.sources)));

    let document = raw::Document::new(&whole, folder.path(), &env);
    assert!(Config::read(&document).is_some());
    let asked = document.asked.borrow();
    let mut section = String::new();
    let mut held = BTreeSet::new();
    for line in whole.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(|c| c == '[' || c == ']').to_owned();
            held.insert(section.clone());
            section.split('.').next().map(|first| held.insert(first.to_owned()));
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            held.insert(format!("{section}.{key}"));
        }
    }
    let missing: Vec<_> = asked.difference(&held).collect();
    assert!(missing.is_empty(), "config.toml.example lacks {missing:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_gives_a_tree_or_problems(text in ".{0,400}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_value_anywhere_gives_a_tree_or_problems(
        key in "(listener|admin|store|retention|quarantine|policy|relay|relay.amqp|relay.feed|traces|source)",
        name in "(address|public_url|max_body|header_timeout|token|path|segment|keys|url|consumers|name|provider|secrets|fields|endpoint|one_in|\"\"|[a-z_]{1,12})",
        value in "(1|-5|0x7f|1e400|true|\"\"|\"[ -!#-\\[\\]-~]{0,20}\"|\\[\\]|\\[1, \"a\", \\[\\]\\]|\\{\\}|\\{ file = \"x\" \\}|1979-05-27)",
    ) {
        let _ = parse(&format!("[{key}]\n{name} = {value}\n"));
        let _ = parse(&format!("[[{key}]]\n{name} = {value}\nprovider = \"clickkw\"\n"));
        let _ = parse(&format!("[[{key}]]\n{name} = {value}\nprovider = \"paygol\"\n"));
    }
}
