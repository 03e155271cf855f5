//! Where it goes, and what is left out.

use clap::Parser;

use super::*;

const CONFIG: &str = r#"
[listener]
address = "0.0.0.0:8080"
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

fn config() -> Config {
    Config::parse(CONFIG, std::path::Path::new("/"), &|_| None).expect("good")
}

fn arguments(line: &str) -> Box<cli::Send> {
    let cli = cli::Cli::try_parse_from(format!("quittance send {line}").split(' ')).expect("a command line");
    let cli::Command::Send(arguments) = cli.command else { panic!("send") };
    arguments
}

/// The URL that is called.
fn url(line: &str) -> String {
    let (config, arguments) = (config(), arguments(line));
    let source = the_source(&config, &arguments).expect("a source");
    let made = made::make(source, &arguments, "2026-11-20T08:15:30Z".parse().expect("a time")).expect("made");
    let to = destination(&config, source, arguments.to.as_deref()).expect("a place");
    made.url(&to.place, to.query.as_deref())
}

#[test]
fn it_goes_to_the_listener_of_the_configuration_or_to_the_place_that_is_named() {
    assert_eq!(url("paygol"), "http://127.0.0.1:8080/paygol", "0.0.0.0 can be bound, not called");
    assert_eq!(url("paygol --to http://[::1]:9000"), "http://[::1]:9000/paygol");
    assert_eq!(url("paygol --to http://127.0.0.1:9000/"), "http://127.0.0.1:9000/paygol");
    assert_eq!(url("paygol --to http://localhost:9000/notify.php?a=1"), "http://localhost:9000/notify.php?a=1");
}

#[test]
fn a_buyer_comes_back_to_the_return_url_of_the_order() {
    let tail = "?message=error&message_type=wrong&indicator_status=ERROR17";
    let own = url("clickkw --order 42 --status failed");
    let tag = own.strip_prefix("http://127.0.0.1:8080/kw/42/").and_then(|rest| rest.strip_suffix(tail)).expect("a tag");
    assert_eq!(tag.len(), 22);
    assert_eq!(url("clickkw --order 42 --status failed --to http://x/kw"), format!("http://x/kw/42/{tag}{tail}"));
    // Whoever names a return URL means that one, whatever --order says.
    let named = format!("clickkw --status failed --to http://x/other/7/{tag}");
    assert_eq!(url(&named), format!("http://x/other/7/{tag}{tail}"));
    let forged = url("clickkw --order 42 --status failed --forge");
    assert_ne!(forged, own);
}

#[test]
fn no_secret_shows_in_debug_output() {
    let (config, arguments) = (config(), arguments("paygol"));
    let source = the_source(&config, &arguments).expect("a source");
    let made = made::make(source, &arguments, System.now()).expect("made");
    assert!(!format!("{made:?}").contains("x-pg-sig"));
    assert!(!format!("{arguments:?}").contains("hush"));
}

#[test]
fn what_has_no_place_in_a_notification_is_told() {
    let (config, arguments) = (config(), arguments("clickkw --amount 6 --currency KWD"));
    let source = the_source(&config, &arguments).expect("a source");
    let made = made::make(source, &arguments, System.now()).expect("made");
    assert_eq!(made.notes, ["left out: what clickkw sends has no place for --amount, --currency"]);
}
