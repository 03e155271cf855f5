//! What is posted, and what must come of it: the providers whose word the buyer's browser carries.

use serde_json::Value;

use super::cases::{Case, expectation};
use crate::cmd::sender::{self, Fields, Keys, Post, flipped, return_path, with};

/// Where the buyer is sent.
fn page(name: &str, order: &str) -> String {
    format!("303 https://shop.example.com/{name}?order={order}")
}

/// An expectation with the session that goes along.
fn session(mut expectation: Value, members: &[(&str, &str)]) -> Value {
    if let Some(object) = expectation.as_object_mut() {
        object.extend(members.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
    }
    expectation
}

pub(super) fn clickkw(keys: &Keys) -> Vec<Case> {
    let order = |number: u32| format!("{}", 400_000 + number);
    let indicator = |number: u32| format!("8bd3b7a5c2f1{number:04x}");
    let url = |number: u32| return_path("/clickkw", "clickkw", &keys.clickkw_return, &order(number));
    let back = |url: String, message: &str, message_type: &str, indicator: &str| {
        Post::get(format!("{url}?message={message}&message_type={message_type}&indicator_status={indicator}"))
    };
    let success = |number: u32, with: u32| back(url(number), "success", "success", &indicator(with));
    let error = |number: u32| back(url(number), "error", "wrong", "ERROR17");
    let expects = |number: u32| {
        let body = expectation("clickkw", &order(number), "6.00", "KWD");
        let session_id = format!("SESSION{number:010}");
        session(body, &[("session_id", session_id.as_str()), ("indicator_status", indicator(number).as_str())])
    };
    let case = |name, post, spoilt, answer: String| Case::new("clickkw", name, post, spoilt, &answer);
    let flipped_tag = |number: u32| {
        let url = url(number);
        let (front, tag) = url.rsplit_once('/').unwrap_or_default();
        back(format!("{front}/{}", flipped(tag)), "success", "success", &indicator(number))
    };
    vec![
        case("right-indicator", success(1, 1), success(1, 999), page("thanks", &order(1)))
            .expecting(expects(1))
            .told("payment.paid", "fulfil"),
        case("repeat", success(2, 2), success(2, 999), page("thanks", &order(2)))
            .expecting(expects(2))
            .after(success(2, 2)),
        case("wrong-tag", flipped_tag(3), success(3, 3), page("sorry", "")).expecting(expects(3)),
        case("wrong-indicator", success(4, 999), success(4, 4), page("sorry", &order(4)))
            .expecting(expects(4))
            .told("payment.unknown", "hold"),
        case("error", error(5), success(5, 5), page("sorry", &order(5)))
            .expecting(expects(5))
            .told("payment.pending", "none"),
        case("error-then-success", success(6, 6), success(6, 999), page("thanks", &order(6)))
            .expecting(expects(6))
            .after(error(6))
            .told("payment.paid", "fulfil"),
        case("back-button", error(7), success(7, 999), page("thanks", &order(7)))
            .expecting(expects(7))
            .after(success(7, 7))
            .told("payment.pending", "none"),
        case("not-registered", success(8, 8), flipped_tag(8), page("sorry", &order(8))).told("payment.unknown", "hold"),
    ]
}

pub(super) fn clickgem(keys: &Keys) -> Vec<Case> {
    let order = |number: u32| format!("G-{number:05}");
    let getid = |number: u32| format!("25271cc72dca94b28ead9829fb31{number:04x}");
    let url = |number: u32| return_path("/clickgem", "clickgem", &keys.clickgem_return, &order(number));
    let fields = |status: &str| -> Fields {
        vec![("api_signature", keys.clickgem_signature.clone()), ("status", status.to_owned())]
    };
    let post = |number: u32, status: &str| Post::form(url(number), &fields(status));
    let forged = |number: u32| {
        Post::form(url(number), &with(&fields("paid"), "api_signature", &flipped(&keys.clickgem_signature)))
    };
    let multipart = |number: u32, status: &str| {
        let part = |(name, value): &(&str, String)| {
            format!("--boundary0\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let body = fields(status).iter().map(part).collect::<String>() + "--boundary0--\r\n";
        let headers = vec![("content-type", "multipart/form-data; boundary=boundary0".to_owned())];
        Post { headers, body: body.into_bytes(), ..Post::form(url(number), &[]) }
    };
    let get = |number: u32, getid: &str| Post::get(format!("{}?getid={getid}", url(number)));
    let paid_with = |number: u32, id: u32| {
        Post::form(format!("{}?{}", url(number), sender::form(&[("getid", getid(id))])), &fields("paid"))
    };
    let expects = |number: u32| {
        session(expectation("clickgem", &order(number), "6.00", "USD"), &[("session_id", getid(number).as_str())])
    };
    let case = |name, post, spoilt, answer: String| Case::new("clickgem", name, post, spoilt, &answer);
    vec![
        case("genuine", post(1, "paid"), forged(1), page("wait", &order(1))).told("payment.paid", "hold"),
        case("repeat", post(2, "paid"), post(2, "refunded"), page("wait", &order(2))).after(post(2, "paid")),
        case("forged", forged(3), post(3, "paid"), page("sorry", "")),
        case("multipart", multipart(4, "paid"), post(4, "cancelled"), page("wait", &order(4)))
            .expecting(expects(4))
            .told("payment.paid", "hold"),
        case("getid", get(5, &getid(5)), get(5, "25271"), page("wait", &order(5)))
            .expecting(expects(5))
            .told("payment.unknown", "hold"),
        case("foreign-getid", paid_with(6, 106), post(6, "cancelled"), page("wait", &order(6)))
            .expecting(expects(6))
            .expecting(expects(106))
            .told("payment.paid", "hold"),
        case("cancelled", post(7, "cancelled"), post(7, "paid"), page("sorry", &order(7)))
            .told("payment.canceled", "none"),
        case("refunded", post(8, "refunded"), forged(8), page("sorry", &order(8))).told("refund.refunded", "hold"),
    ]
}
