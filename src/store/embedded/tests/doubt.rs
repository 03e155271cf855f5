//! Sequences in which something must stay in doubt, or must not be taken for a doubt.

use super::*;
use crate::event::Status;
use crate::provider::Bearer;
use crate::store::Registration;

fn session(order: &str, session: &str, indicator: &str, amount: &str, now: Timestamp) -> Registration {
    Registration {
        session: Some(session.to_owned()),
        indicator: Some(Bearer::new(indicator)),
        ..expectation("clickkw", order, amount, "KWD", now)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_payment_that_was_contradicted_is_not_settled_by_a_late_expectation() {
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    store.expect(expectation("paygol", "A", "1.00", "CLP", at)).await.expect("registered");
    let held = store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    let twin = store.commit(Said { price: "9000.00", ..Said::paid("A", "1") }.verified(at)).await.expect("kept");
    assert_eq!((held.verdict, twin.outcome), (Verdict::Hold, Outcome::Conflict));
    folder.clock.set(at + SignedDuration::from_hours(25));
    store.expect(expectation("paygol", "A", "7500", "CLP", folder.clock.now())).await.expect("the first has expired");
    assert_eq!(store.events(Position(0), 10).expect("readable").len(), 2, "nobody can tell which of them is true");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_back_button_finds_the_right_page_also_after_another_session_was_registered() {
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    let back = |indicator| conformance::returned("42", "success", Some(indicator), true, at);
    store.expect(session("42", "s1", "right-1", "6.000", at)).await.expect("registered");
    let paid = store.commit(back("right-1")).await.expect("kept");
    assert_eq!((paid.verdict, paid.status), (Verdict::Fulfil, Status::Paid));
    store.expect(session("42", "s2", "right-2", "6.000", at)).await.expect("registered");
    let again = store.commit(back("right-1")).await.expect("known");
    assert_eq!((again.outcome, again.indicator_right), (Outcome::Duplicate, true));
    assert!(again.alarms.is_empty(), "{again:?}");
    // Registered once more, with another amount: it still counts once, for what it was.
    store.close();
    drop(store);
    let store = folder.start();
    let again = store.commit(back("right-1")).await.expect("known");
    assert_eq!((again.outcome, again.indicator_right), (Outcome::Duplicate, true));
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indicator_of_an_expired_session_is_right_and_fulfils_no_other_amount() {
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    store.expect(session("42", "s1", "right-1", "6.000", at)).await.expect("registered");
    let later = at + SignedDuration::from_hours(25);
    folder.clock.set(later);
    store.expect(session("42", "s2", "right-2", "7.000", later)).await.expect("the first has expired");
    let old = store.commit(conformance::returned("42", "success", Some("right-1"), true, later)).await.expect("kept");
    assert_eq!((old.verdict, old.status, old.indicator_right), (Verdict::Hold, Status::Paid, true));
    let new = store.commit(conformance::returned("42", "success", Some("right-2"), true, later)).await.expect("kept");
    assert_eq!(new.verdict, Verdict::Fulfil);
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_late_expectation_settled_is_known_on_day_401() {
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    store.expect(expectation("paygol", "A", "1.00", "CLP", at)).await.expect("registered");
    let held = store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    assert_eq!(held.verdict, Verdict::Hold);
    folder.clock.set(at + SignedDuration::from_hours(25));
    store.expect(expectation("paygol", "A", "7500", "CLP", folder.clock.now())).await.expect("settles it");
    let never = Said { status: "created", ..Said::paid("B", "2") };
    store.commit(never.verified(folder.clock.now())).await.expect("kept");
    for n in 0..60 {
        let filler = Said::paid(&format!("O{n}"), &format!("x{n}"));
        store.commit(filler.verified(folder.clock.now())).await.expect("kept");
    }
    for day in 0..230 {
        folder.clock.set(folder.clock.now() + SignedDuration::from_hours(44));
        let alive = Said::paid(&format!("alive{day}"), &format!("alive{day}"));
        store.commit(alive.verified(folder.clock.now())).await.expect("kept");
    }
    conformance::until("keys of what was not told are retired", || {
        let live = store.0.live.get().expect("open");
        let key = live.keys.seen(&conformance::name("paygol"), &never.verified(at).idempotency);
        matches!(live.index.get(&key), Ok(None))
    })
    .await;
    let old = store.commit(Said::paid("A", "1").verified(folder.clock.now())).await.expect("known");
    assert_eq!(old.outcome, Outcome::Duplicate, "what was settled was told");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_conflict_keep_their_bodies_while_nobody_has_settled_it() {
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    store.commit(Said::paid("A", "1").verified(at)).await.expect("kept");
    let twin = store.commit(Said { price: "9000.00", ..Said::paid("A", "1") }.verified(at)).await.expect("kept");
    for n in 0..60 {
        store.commit(Said::paid(&format!("O{n}"), &format!("x{n}")).verified(at)).await.expect("kept");
    }
    for day in 0..80 {
        folder.clock.set(folder.clock.now() + SignedDuration::from_hours(44));
        let alive = Said::paid(&format!("alive{day}"), &format!("alive{day}"));
        store.commit(alive.verified(folder.clock.now())).await.expect("kept");
    }
    conformance::until("bodies are retired", || store.horizon() > Position(30)).await;
    let kept = store.notification(twin.notification).expect("readable").expect("there");
    assert!(kept.request.is_some() && kept.event.is_some(), "an operator must see what contradicts: {kept:?}");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_held_events_of_several_sources_the_oldest_fulfils() {
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    // The order is first heard of at one source, and paid first at the other.
    store.expect(expectation("paygol", "A", "1.00", "CLP", at)).await.expect("registered");
    let oldest = Said { source: "paygol-b", ..Said::paid("A", "1") };
    let oldest = store.commit(oldest.verified(at)).await.expect("kept");
    let later = store.commit(Said::paid("A", "2").verified(at)).await.expect("kept");
    assert_eq!((oldest.verdict, later.verdict), (Verdict::Hold, Verdict::Hold));
    folder.clock.set(at + SignedDuration::from_hours(25));
    store.expect(expectation("paygol", "A", "7500", "CLP", folder.clock.now())).await.expect("settles one");
    let feed = conformance::feed(&store);
    let settled: Vec<_> = feed.iter().filter(|event| event["data"]["relates_to"]["as"] == "settles").collect();
    assert_eq!(settled.len(), 1, "one payment fulfils one expectation");
    assert_eq!(settled[0]["data"]["relates_to"]["id"].as_str(), oldest.event.map(|id| id.to_string()).as_deref());
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_signed_before_an_expectation_was_registered_anew_came_before_it() {
    let folder = Folder::new();
    let store = folder.start();
    let at = folder.clock.now();
    store.expect(expectation("paygol", "A", "7500", "CLP", at)).await.expect("registered");
    folder.clock.set(at + SignedDuration::from_hours(25));
    let between = store.commit(Said::paid("B", "1").verified(folder.clock.now())).await.expect("kept");
    store.expect(expectation("paygol", "A", "7500", "CLP", folder.clock.now())).await.expect("registered anew");
    conformance::until("all of it is in the index", || store.figures().index_lag == 0).await;
    let live = store.0.live.get().expect("open");
    let terms = live.terms.now();
    let account = &terms.accounts[&conformance::name("paygol")];
    let key = live.keys.order(account, &crate::event::OrderId::new("A").expect("an order"));
    let Ok(Some(super::super::state::Value::Order(order))) = live.index.get(&key) else { panic!("is known") };
    let expected = order.expectation(crate::event::Kind::Payment).expect("registered");
    assert!(expected.registered > between.notification.position(), "an ambiguous string of then would be believed");
    store.close();
}

/// The provider of a ClickGem source.
pub(super) fn clickgem() -> Arc<dyn crate::provider::Provider> {
    use crate::config::{ClickGem, Pages, ProviderSettings, Secret, Source};
    use crate::provider::browser::PageUrl;
    let page = || PageUrl::parse("https://shop.example/page").expect("a URL");
    let settings = ClickGem {
        api_signature: Secret::new("api-signature-of-the-test".into()),
        return_secret: Secret::new("return-secret-of-the-test".into()),
        pages: Pages { success: page(), failure: page(), pending: None },
    };
    let (name, provider) = (conformance::name("clickgem"), ProviderSettings::ClickGem(settings));
    let account = crate::event::AccountName::new("clickgem").expect("a name");
    let source = Source { name, account, path: "/gem".into(), provider };
    crate::provider::build_all(&[source]).remove(0)
}

/// A buyer's return from ClickGem: what was posted, or a mere look at the page.
pub(super) fn came_back(order: &str, getid: u32, posted: Option<&str>, at: Timestamp) -> crate::provider::Received {
    let path = clickgem().return_path(&crate::event::OrderId::new(order).expect("an order")).expect("has one");
    crate::provider::Received {
        method: if posted.is_some() { http::Method::POST } else { http::Method::GET },
        rest: path.strip_prefix("/gem").expect("under the path").to_owned(),
        path,
        query: Some(format!("getid={getid:032x}")),
        headers: http::HeaderMap::new(),
        body: posted.map(|text| bytes::Bytes::copy_from_slice(text.as_bytes())).unwrap_or_default(),
        remote: std::net::Ipv4Addr::LOCALHOST.into(),
        at,
    }
}

fn came_back_with(getid: u32, at: Timestamp) -> crate::provider::Verified {
    let received = came_back("42", getid, None, at);
    clickgem().verify(received).map_err(|refused| refused.refusal).expect("the tag is right")
}

/// A store that knows the ClickGem source.
pub(super) fn with_clickgem(folder: &Folder) -> Embedded {
    let gem = (conformance::name("clickgem"), crate::event::AccountName::new("clickgem").expect("a name"));
    let mut options = folder.options();
    options.terms.accounts.insert(gem.0, gem.1);
    folder.start_with(options)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_return_url_cannot_fill_the_journal_with_it() {
    let folder = Folder::new();
    let store = with_clickgem(&folder);
    let at = folder.clock.now();
    let registered =
        Registration { session: Some(format!("{:032x}", 99)), ..expectation("clickgem", "42", "6.00", "EUR", at) };
    store.expect(registered).await.expect("registered");
    for getid in 0..60 {
        store.commit(came_back_with(getid, at)).await.expect("answered");
    }
    assert_eq!(store.events(Position(0), 100).expect("readable").len(), 16);
    let right = store.commit(came_back_with(99, at)).await.expect("kept");
    assert_eq!((right.outcome, right.event.is_some()), (Outcome::New, true), "the right one is never refused");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_clock_two_years_ahead_retires_nothing() {
    let folder = Folder::new();
    let store = folder.start();
    let pending = |n: u32| Said { status: "created", ..Said::paid(&format!("O{n}"), &n.to_string()) };
    for n in 0..80 {
        store.commit(pending(n).verified(folder.clock.now())).await.expect("kept");
    }
    conformance::until("all of it is in the index", || store.figures().index_lag == 0).await;
    store.close();
    drop(store);
    folder.clock.set(folder.clock.now() + SignedDuration::from_hours(2 * 365 * 24));
    // Nobody has judged this clock when the thread that retires first looks at it.
    let store = folder.start_with(Options { retention_tick: Duration::from_millis(1), ..folder.options() });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(store.horizon(), Position(0), "no body is retired");
    for n in 0..80 {
        let again = store.commit(pending(n).verified(folder.clock.now())).await.expect("known");
        assert_eq!(again.outcome, Outcome::Duplicate, "its key is kept");
    }
    store.close();
}
