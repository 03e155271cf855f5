//! What is judged before anything is registered, and what is printed.

use std::cell::RefCell;

use clap::Parser;

use super::*;

const CONFIG: &str = r#"
[listener]
public_url = "https://pay.example.com"
[store]
path = "store"
[[source]]
name = "kw"
provider = "clickkw"
path = "/kw"
return_secret = "1f1a6a24-7943-102d-92f8-29573711ad33"
success_url = "https://shop.example.com/a"
failure_url = "https://shop.example.com/b"
"#;

fn now() -> Timestamp {
    "2026-11-20T08:15:30Z".parse().expect("a time")
}

fn arguments(line: &str) -> cli::Expect {
    let cli = cli::Cli::try_parse_from(format!("quittance expect {line}").split(' ')).expect("a command line");
    let cli::Command::Expect(arguments) = cli.command else { panic!("expect") };
    arguments
}

fn judged(documents: &[Value]) -> Result<(), Failure> {
    let config = Config::parse(CONFIG, Path::new("/"), &|_| None).expect("good");
    let wanted: Vec<Wanted> =
        documents.iter().map(|document| Wanted { place: "f:1".to_owned(), document: document.clone() }).collect();
    Judge::new(&config).all(&wanted, now())
}

#[test]
fn the_command_line_says_what_the_api_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("indicator");
    std::fs::write(&file, "7c1a6a24\n").expect("written");
    let line = format!(
        "--source kw --order 100042 --amount 6.00 --currency KWD --session s1 --indicator-file {} --expires 2h",
        file.display()
    );
    let arguments = arguments(&line);
    let wanted = with_life(vec![from_arguments(&arguments).expect("read")], &arguments, now()).expect("a time");
    assert_eq!(
        wanted[0].document,
        json!({
            "source": "kw", "order_id": "100042", "session_id": "s1", "indicator_status": "7c1a6a24",
            "amount": { "value": "6.00", "currency": "KWD" }, "expires_at": "2026-11-20T10:15:30.000Z",
        })
    );
    assert!(judged(&[wanted[0].document.clone()]).is_ok());
}

#[test]
fn a_file_with_one_mistake_registers_nothing() {
    let good = json!({ "source": "kw", "order_id": "1", "amount": { "value": "6.00", "currency": "KWD" } });
    assert!(judged(&[good.clone(), good.clone()]).is_ok());
    for (name, value) in
        [("source", json!("none")), ("order_id", json!("A-1")), ("amount", json!("6")), ("extra", json!(1))]
    {
        let mut bad = good.clone();
        bad[name] = value;
        let done = judged(&[good.clone(), bad]);
        assert!(matches!(done, Err(Failure::Operation(error)) if error.to_string().contains("1 of 2")), "{name}");
    }
}

#[test]
fn lines_that_are_not_json_are_told_all_at_once() {
    let read = parse("{\"source\":\"kw\"}\n\n{oops\n{\"a\":1}\nhush\n", "f");
    assert!(matches!(read, Err(Failure::Operation(error)) if error.to_string().contains("2 lines of f")));
    let read = parse("{\"source\":\"kw\"}\n\n{\"a\":1}\n", "f").expect("JSON");
    assert_eq!(read.iter().map(|one| one.place.as_str()).collect::<Vec<_>>(), ["f:1", "f:3"]);
    assert!(matches!(parse("\n\n", "f"), Err(Failure::Operation(_))));
}

#[test]
fn what_is_refused_stops_nobody_else_and_ends_in_failure() {
    let wanted: Vec<Wanted> = (1..=3)
        .map(|order| Wanted { place: format!("f:{order}"), document: json!({ "order_id": order.to_string() }) })
        .collect();
    let asked = RefCell::new(0);
    let mut bytes = Vec::new();
    let arguments = arguments("--from f --json");
    let done = register(&wanted, &mut Out::to(&mut bytes), &arguments, |document| {
        *asked.borrow_mut() += 1;
        if document["order_id"] == "2" { Err(anyhow!("no")) } else { Ok(document.clone()) }
    });
    assert!(matches!(done, Err(Failure::Told)));
    assert_eq!(*asked.borrow(), 3);
    assert_eq!(String::from_utf8(bytes).expect("UTF-8"), "{\"order_id\":\"1\"}\n{\"order_id\":\"3\"}\n");
}

#[test]
fn without_a_daemon_the_store_is_opened_and_holds_the_registration_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.toml");
    std::fs::write(&file, CONFIG).expect("written");
    let config = Config::load(&file).expect("good");
    let line = "--source kw --order 100042 --amount 6.00 --currency KWD --session s1 --indicator 7c1a6a24 --json";
    let expect = || {
        let mut bytes = Vec::new();
        let done = run(&config, &file, &arguments(line), &mut Out::to(&mut bytes));
        (done, serde_json::from_slice::<Value>(&bytes).unwrap_or_default())
    };
    let (done, first) = expect();
    assert!(done.is_ok(), "{done:?}");
    let url = first["return_url"].as_str().expect("a URL");
    assert!(url.starts_with("https://pay.example.com/kw/100042/"), "{url}");
    assert_eq!(url.len(), "https://pay.example.com/kw/100042/".len() + 22);
    // The same again is no second one: it keeps the first one's end.
    let (done, second) = expect();
    assert!(done.is_ok(), "{done:?}");
    assert_eq!(first, second);
    // And another amount contradicts it: the store remembers.
    let other = arguments(&line.replace("6.00", "7.00"));
    assert!(matches!(run(&config, &file, &other, &mut Out::to(Vec::new())), Err(Failure::Told)));
}
