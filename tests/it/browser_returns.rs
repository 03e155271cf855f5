//! What the buyer's browser carries is not believed for what it says, and the buyer always gets a page.

use serde_json::{Value, json};

use crate::fixtures::{self, GEM_API_SIGNATURE, GEM_RETURN_SECRET, KW_RETURN_SECRET};
use crate::harness::{Config, Daemon};
use crate::http::Answer;

const THANKS: &str = "https://shop.example.com/thanks?order=";
const SORRY: &str = "https://shop.example.com/sorry?order=";

fn session(number: u32) -> Value {
    json!({ "session_id": format!("session-{number}"), "indicator_status": indicator(number) })
}

fn indicator(number: u32) -> String {
    format!("kw-indicator-{number:08}")
}

#[track_caller]
fn success(daemon: &Daemon, path: &str, indicator: &str) -> Answer {
    daemon.get(&format!("{path}?message=success&message_type=success&indicator_status={indicator}"))
}

#[track_caller]
fn declined(daemon: &Daemon, path: &str, code: u32) -> Answer {
    daemon.get(&format!("{path}?message=error&message_type=wrong&indicator_status=ERROR{code}"))
}

#[track_caller]
fn lands(answer: &Answer, page: &str, order: &str) {
    assert_eq!((answer.status, answer.location()), (303, format!("{page}{order}").as_str()), "{answer:?}");
}

fn alarms(daemon: &Daemon, source: &str, kind: &str) -> f64 {
    daemon.metric(&format!(r#"quittance_forgery_alarms_total{{kind="{kind}",source="{source}"}}"#))
}

#[test]
fn the_return_url_is_the_one_that_anyone_can_compute_with_the_secret() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw", "42", ("6.000", "KWD"), session(1));
    assert_eq!(path, format!("/clickkw/42/{}", fixtures::tag(KW_RETURN_SECRET, "clickkw", "42")));
    let path = daemon.expects("clickgem", "42", ("6", "CGM"), json!({}));
    assert_eq!(path, format!("/clickgem/42/{}", fixtures::tag(GEM_RETURN_SECRET, "clickgem", "42")));
}

#[test]
fn the_right_indicator_within_its_session_fulfils_only_where_the_source_says_so() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw-trust", "42", ("6.000", "KWD"), session(1));
    lands(&success(&daemon, &path, &indicator(1)), THANKS, "42");
    let data = daemon.only_event();
    assert_eq!((data["verdict"].as_str(), data["assurance"].as_str()), (Some("fulfil"), Some("browser")), "{data:#}");
    assert_eq!(data["expectation"], "unchecked", "no amount was named");
}

#[test]
fn a_wrong_indicator_first_does_not_take_the_place_of_the_right_one() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw-trust", "42", ("6.000", "KWD"), session(1));
    lands(&success(&daemon, &path, "guessed-indicator"), SORRY, "42");
    lands(&daemon.get(&format!("{path}?message=success&message_type=success")), SORRY, "42");
    for event in daemon.events() {
        assert_eq!((event["status"].as_str(), event["verdict"].as_str()), (Some("unknown"), Some("hold")));
        assert_eq!(event["reasons"], json!(["wrong_indicator"]));
    }
    assert!(alarms(&daemon, "clickkw-trust", "wrong_indicator") >= 1.0);
    lands(&success(&daemon, &path, &indicator(1)), THANKS, "42");
    assert_eq!(daemon.last_event()["verdict"], "fulfil");
}

#[test]
fn however_many_wrong_indicators_come_the_right_one_is_taken() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw-trust", "42", ("6.000", "KWD"), session(1));
    for guess in 0..40 {
        lands(&success(&daemon, &path, &format!("guess-number-{guess:04}")), SORRY, "42");
    }
    assert!(daemon.feed().len() <= 16, "{} kept", daemon.feed().len());
    lands(&success(&daemon, &path, &indicator(1)), THANKS, "42");
    assert_eq!(daemon.last_event()["verdict"], "fulfil");
}

#[test]
fn two_declined_cards_and_then_success_is_one_paid_order() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw-trust", "42", ("6.000", "KWD"), session(1));
    lands(&declined(&daemon, &path, 5), SORRY, "42");
    lands(&declined(&daemon, &path, 51), SORRY, "42");
    lands(&success(&daemon, &path, &indicator(1)), THANKS, "42");
    let events = daemon.events();
    let (last, before) = events.split_last().unwrap();
    for event in before {
        assert_eq!((event["status"].as_str(), event["verdict"].as_str()), (Some("pending"), Some("none")));
        assert_eq!(event["reasons"], json!(["browser_error"]));
    }
    assert_eq!((last["status"].as_str(), last["verdict"].as_str()), (Some("paid"), Some("fulfil")));
}

#[test]
fn the_back_button_after_success_changes_nothing_and_the_buyer_sees_thanks() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw-trust", "42", ("6.000", "KWD"), session(1));
    lands(&success(&daemon, &path, &indicator(1)), THANKS, "42");
    lands(&declined(&daemon, &path, 5), THANKS, "42");
    lands(&success(&daemon, &path, &indicator(1)), THANKS, "42");
    let events = daemon.events();
    assert_eq!(events.len(), 2, "{events:#?}");
    assert_eq!((events[1]["status"].as_str(), events[1]["verdict"].as_str()), (Some("pending"), Some("none")));
    assert_eq!(events[1]["stale"], true);
}

#[test]
fn a_wrong_indicator_after_a_payment_is_sent_to_the_failure_page_with_the_order_and_so_is_its_repeat() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw-trust", "42", ("6.000", "KWD"), session(1));
    lands(&success(&daemon, &path, "guessed-indicator"), SORRY, "42");
    lands(&success(&daemon, &path, &indicator(1)), THANKS, "42");
    lands(&success(&daemon, &path, "guessed-indicator"), SORRY, "42");
    lands(&success(&daemon, &path, "another-guess-01"), SORRY, "42");
    lands(&daemon.get(&format!("{path}?message=success&message_type=success")), SORRY, "42");
    lands(&declined(&daemon, &path, 5), THANKS, "42");
    lands(&success(&daemon, &path, &indicator(1)), THANKS, "42");
    assert_eq!(alarms(&daemon, "clickkw-trust", "wrong_indicator"), 4.0, "a repeat is an alarm too");
}

#[test]
fn a_success_without_its_message_type_is_proven_by_the_indicator_all_the_same() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw-trust", "42", ("6.000", "KWD"), session(1));
    lands(&daemon.get(&format!("{path}?message=success&indicator_status={}", indicator(1))), THANKS, "42");
    assert_eq!(daemon.only_event()["verdict"], "fulfil");
}

#[test]
fn a_repeat_of_what_was_held_gets_the_page_of_today_once_the_payment_was_told() {
    const WAIT: &str = "https://shop.example.com/wait?order=";
    // Two sources of one account; the second one believes the indicator.
    let sources = crate::harness::sources()
        .replace(
            "name = \"clickkw\"",
            "name = \"clickkw\"\npending_url = \"https://shop.example.com/wait?order={order_id}\"",
        )
        .replace("name = \"clickkw-trust\"", "name = \"clickkw-trust\"\naccount = \"clickkw\"");
    let daemon = Daemon::with(Config { sources, ..Config::default() });
    let path = daemon.expects("clickkw", "42", ("6.000", "KWD"), session(1));
    lands(&success(&daemon, &path, &indicator(1)), WAIT, "42");
    lands(&success(&daemon, &path, &indicator(1)), WAIT, "42");
    let trusted = format!("/kw/42/{}", fixtures::tag(KW_RETURN_SECRET, "clickkw-trust", "42"));
    lands(&success(&daemon, &trusted, &indicator(1)), THANKS, "42");
    assert_eq!(daemon.verdicts(), ["hold", "fulfil"]);
    lands(&success(&daemon, &path, &indicator(1)), THANKS, "42");
    assert_eq!(daemon.feed().len(), 2, "a repeat all the same");
}

#[test]
fn a_second_session_pays_and_the_first_ones_indicator_is_not_told_again() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw-trust", "42", ("6.000", "KWD"), session(1));
    assert_eq!(path, daemon.expects("clickkw-trust", "42", ("6.000", "KWD"), session(2)));
    lands(&success(&daemon, &path, &indicator(2)), THANKS, "42");
    assert_eq!(daemon.last_event()["verdict"], "fulfil");
    lands(&success(&daemon, &path, &indicator(1)), THANKS, "42");
    assert_eq!(daemon.verdicts().iter().filter(|v| v.as_str() == "fulfil").count(), 1, "{:#?}", daemon.feed());
}

#[test]
fn an_error_with_the_right_indicator_is_a_contradiction() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw-trust", "42", ("6.000", "KWD"), session(1));
    daemon.get(&format!("{path}?message=error&message_type=wrong&indicator_status={}", indicator(1)));
    let data = daemon.only_event();
    assert_eq!((data["verdict"].as_str(), &data["reasons"]), (Some("hold"), &json!(["contradiction"])));
}

#[test]
fn without_an_expectation_a_return_is_unknown_and_held() {
    let daemon = Daemon::start();
    let path = format!("/kw/42/{}", fixtures::tag(KW_RETURN_SECRET, "clickkw-trust", "42"));
    assert_eq!(success(&daemon, &path, &indicator(1)).status, 303);
    let data = daemon.only_event();
    assert_eq!((data["status"].as_str(), data["verdict"].as_str()), (Some("unknown"), Some("hold")));
    assert_eq!(data["expectation"], "unregistered");
}

#[test]
fn a_tag_opens_one_order_at_one_source_only() {
    let daemon = Daemon::start();
    let tag = fixtures::tag(KW_RETURN_SECRET, "clickkw", "42");
    for path in [
        format!("/clickkw/43/{tag}"),
        format!("/kw/42/{tag}"),
        format!("/clickkw/42/{}", &tag[..20]),
        format!("/clickkw/42/{tag}A"),
        format!("/clickkw/42/{}", tag.to_lowercase()),
        "/clickkw/42/".into(),
    ] {
        let answer = success(&daemon, &path, &indicator(1));
        assert!(answer.status == 404 || answer.location() == SORRY, "{path}: {answer:?}");
    }
    assert!(daemon.feed().is_empty());
}

#[test]
fn a_second_question_mark_in_the_return_is_read_leniently() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw-trust", "42", ("6.000", "KWD"), session(1));
    let target = format!("{path}??message=success&message_type=success&indicator_status={}", indicator(1));
    lands(&daemon.get(&target), THANKS, "42");
    assert_eq!(daemon.last_event()["verdict"], "fulfil");
}

#[test]
fn redirect_parameters_decide_nothing_and_leave_no_open_redirect() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickkw", "42", ("6.000", "KWD"), session(1));
    let evil = "&success_url=https://evil.example&order_id=43&amount=0.001&url=//evil.example";
    let answer =
        daemon.get(&format!("{path}?message=success&message_type=success&indicator_status={}{evil}", indicator(1)));
    lands(&answer, THANKS, "42");
    let data = daemon.only_event();
    assert_eq!(data["order_id"], "42");
    assert_eq!(data["amount"], Value::Null);
}

fn gem(daemon: &Daemon, path: &str, status: &str) -> Answer {
    let body = format!("api_signature={GEM_API_SIGNATURE}&status={status}");
    daemon.post(path, "application/x-www-form-urlencoded", body.as_bytes())
}

#[test]
fn clickgems_paid_posted_again_after_a_cancel_is_held() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickgem", "gem-1", ("5", "CGM"), json!({}));
    lands(&gem(&daemon, &path, "cancelled"), SORRY, "gem-1");
    gem(&daemon, &path, "paid");
    gem(&daemon, &path, "paid");
    let events = daemon.events();
    assert_eq!(events.len(), 2, "{events:#?}");
    assert_eq!(events[0]["status"], "canceled");
    assert_eq!((events[1]["status"].as_str(), events[1]["verdict"].as_str()), (Some("paid"), Some("hold")));
    assert!(events[1]["reasons"].as_array().unwrap().contains(&json!("browser")), "{:#}", events[1]);
}

#[test]
fn clickgems_words_are_read_in_both_spellings() {
    let daemon = Daemon::start();
    for (order, word, status) in [
        ("a", "partial_paid", "partially_paid"),
        ("b", "cancelled", "canceled"),
        ("c", "canceled", "canceled"),
        ("d", "refunded", "refunded"),
        ("e", "paid", "paid"),
        ("f", "surprise", "unknown"),
    ] {
        let path = daemon.expects("clickgem", order, ("5", "CGM"), json!({}));
        assert_eq!(gem(&daemon, &path, word).status, 303);
        assert_eq!(daemon.last_event()["status"], status, "{word}");
    }
    assert!(daemon.verdicts().iter().all(|v| v != "fulfil" && v != "compare"));
}

#[test]
fn a_getid_of_order_42_at_order_43_of_the_same_price_is_an_alarm_and_never_told() {
    let daemon = Daemon::start();
    let (mine, other) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
    let path_42 = daemon.expects("clickgem", "42", ("5", "CGM"), json!({ "session_id": mine }));
    let path_43 = daemon.expects("clickgem", "43", ("5", "CGM"), json!({ "session_id": other }));
    assert_eq!(daemon.get(&format!("{path_43}?getid={mine}")).status, 303);
    assert_eq!(alarms(&daemon, "clickgem", "getid"), 1.0);
    let data = daemon.only_event();
    assert_eq!((data["status"].as_str(), data["verdict"].as_str()), (Some("unknown"), Some("hold")));
    assert_eq!(daemon.get(&format!("{path_42}?getid={mine}")).status, 303);
    let data = daemon.last_event();
    assert_eq!(
        (data["order_id"].as_str(), data["status"].as_str(), data["verdict"].as_str()),
        (Some("42"), Some("unknown"), Some("hold"))
    );
    assert_eq!(alarms(&daemon, "clickgem", "getid"), 1.0, "the right getid is no alarm");
}

#[test]
fn a_clickgem_post_without_its_secret_is_refused() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickgem", "gem-1", ("5", "CGM"), json!({}));
    for body in ["status=paid", "api_signature=&status=paid", "api_signature=true&status=paid"] {
        lands(&daemon.post(&path, "application/x-www-form-urlencoded", body.as_bytes()), SORRY, "");
    }
    let upper = format!("api_signature={}&status=paid", GEM_API_SIGNATURE.to_uppercase());
    lands(&daemon.post(&path, "application/x-www-form-urlencoded", upper.as_bytes()), SORRY, "");
    assert!(daemon.feed().is_empty());
}
