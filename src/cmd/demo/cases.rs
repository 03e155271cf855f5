//! What is posted, and what must come of it: the providers that post from server to server. The table of design.md
//! section 5 says why.

use serde_json::{Value, json};

use super::browser_cases;
use crate::cmd::sender::{self, Fields, Keys, Post, flipped, panel, pg_sig, plat_sign, with};

/// One thing that a provider, or somebody who is none, may do.
pub(super) struct Case {
    pub(super) provider: &'static str,
    pub(super) name: &'static str,
    /// What the order system registers first, as the body of `POST /api/v1/expectations`.
    pub(super) expectations: Vec<Value>,
    /// What is posted first.
    pub(super) before: Vec<Post>,
    /// How many events come of that.
    pub(super) events_before: usize,
    /// What the case is about.
    pub(super) post: Post,
    /// The same, spoilt so that something else must come of it.
    pub(super) spoilt: Post,
    /// Status, and phrase or page.
    pub(super) answer: String,
    /// The event's type; `None`: no event.
    pub(super) event: Option<&'static str>,
    /// Its verdict.
    pub(super) verdict: Option<&'static str>,
}

impl Case {
    /// One post, and what it must be answered.
    pub(super) fn new(provider: &'static str, name: &'static str, post: Post, spoilt: Post, answer: &str) -> Self {
        Self {
            provider,
            name,
            expectations: Vec::new(),
            before: Vec::new(),
            events_before: 0,
            post,
            spoilt,
            answer: answer.to_owned(),
            event: None,
            verdict: None,
        }
    }

    /// It becomes this event.
    pub(super) fn told(mut self, event: &'static str, verdict: &'static str) -> Self {
        (self.event, self.verdict) = (Some(event), Some(verdict));
        self
    }

    /// This was registered before.
    pub(super) fn expecting(mut self, expectation: Value) -> Self {
        self.expectations.push(expectation);
        self
    }

    /// This was posted before and became an event.
    pub(super) fn after(mut self, post: Post) -> Self {
        self.before.push(post);
        self.events_before += 1;
        self
    }

    /// `<provider>/<case>`, as `--break` names it.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.provider, self.name)
    }
}

/// Every case, in the order in which it is posted.
pub(super) fn all(keys: &Keys) -> Vec<Case> {
    let mut cases = clickpay(keys);
    cases.extend(paygol(keys));
    cases.extend(paygol_legacy(keys));
    cases.extend(browser_cases::clickkw(keys));
    cases.extend(browser_cases::clickgem(keys));
    cases
}

/// The demo's configuration.
pub(super) fn config(keys: &Keys) -> String {
    let Keys { paygol, paygol_ipn, clickkw_return, clickgem_return, clickgem_signature, .. } = keys;
    let (platform, loose) = (panel(&keys.platform), panel(&keys.loose));
    let pages = "success_url = 'https://shop.example.com/thanks?order={order_id}'\n\
                 pending_url = 'https://shop.example.com/wait?order={order_id}'\n\
                 failure_url = 'https://shop.example.com/sorry?order={order_id}'\n";
    format!(
        r"
        [listener]
        address = '127.0.0.1:0'
        public_url = 'https://pay.example.com'
        [admin]
        address = '127.0.0.1:0'
        [store]
        path = 'store'
        segment = '1MiB'

        [[source]]
        name = 'clickpay'
        provider = 'clickpay'
        path = '/clickpay'
        order_pattern = '^T[0-9]{{13}}$'
        amount_pattern = '^[0-9]+\.[0-9]{{2}}$'
        public_keys = ['{platform}']

        [[source]]
        name = 'clickpay-loose'
        provider = 'clickpay'
        path = '/clickpay-loose'
        public_keys = ['{loose}']

        [[source]]
        name = 'paygol'
        provider = 'paygol'
        path = '/paygol'
        service_id = '123'
        secrets = ['{paygol}']

        [[source]]
        name = 'paygol-ipn'
        provider = 'paygol-legacy'
        path = '/paygol/ipn'
        service_id = '124'
        secrets = ['{paygol_ipn}']

        [[source]]
        name = 'clickkw'
        provider = 'clickkw'
        path = '/clickkw'
        accept_indicator = true
        return_secret = '{clickkw_return}'
        {pages}
        [[source]]
        name = 'clickgem'
        provider = 'clickgem'
        path = '/clickgem'
        api_signature = '{clickgem_signature}'
        return_secret = '{clickgem_return}'
        {pages}"
    )
}

/// An expectation of a payment.
pub(super) fn expectation(source: &str, order: &str, value: &str, currency: &str) -> Value {
    json!({ "source": source, "order_id": order, "amount": { "value": value, "currency": currency } })
}

fn clickpay(keys: &Keys) -> Vec<Case> {
    let order = |number: u32| format!("T{number:013}");
    let pay_in = |number: u32| -> Fields {
        vec![
            ("code", "00".to_owned()),
            ("email", "buyer@example.com".to_owned()),
            ("method", "QRIS".to_owned()),
            ("msg", "SUCCESS".to_owned()),
            ("name", "Neo".to_owned()),
            ("orderNum", order(number)),
            ("payData", "https://link.example/pay".to_owned()),
            ("payFee", "250.00".to_owned()),
            ("payMoney", "10000.00".to_owned()),
            ("platOrderNum", format!("{}", 552_538_080_348_270_000_u64 + u64::from(number))),
        ]
    };
    let pay_out = |number: u32, status: &str, message: &str| -> Fields {
        vec![
            ("bankCode", "014".to_owned()),
            ("description", "withdrawal".to_owned()),
            ("fee", "7000.00".to_owned()),
            ("feeType", "1".to_owned()),
            ("money", "200000.00".to_owned()),
            ("name", "Siswanto".to_owned()),
            ("number", "0060011643339".to_owned()),
            ("orderNum", order(number)),
            ("platOrderNum", format!("W{}", 6_202_407_231_620_000_u64 + u64::from(number))),
            ("status", status.to_owned()),
            ("statusMsg", message.to_owned()),
        ]
    };
    // The create answer of an unpaid order whose buyer chose e-mail and name so that it reads as a paid notification.
    let create_answer = |number: u32| -> Fields {
        vec![
            ("email", "00x@y.zz".to_owned()),
            ("method", "QRIS".to_owned()),
            ("name", "SUCCESSNeo".to_owned()),
            ("orderNum", order(number)),
            ("payData", "https://link.example/pay".to_owned()),
            ("payFee", "250.00".to_owned()),
            ("payMoney", "10000.00".to_owned()),
            ("platOrderNum", format!("{}", 552_538_080_348_270_000_u64 + u64::from(number))),
            ("platRespCode", "SUCCESS".to_owned()),
            ("platRespMessage", "success".to_owned()),
        ]
    };
    let send = |fields: &Fields, signature: String| {
        let mut signed = fields.clone();
        signed.push(("platSign", signature));
        Post::json("/clickpay", &signed)
    };
    let signed = |fields: Fields| send(&fields, plat_sign(&keys.platform, &fields));
    let spoilt = |fields: Fields| send(&fields, flipped(&plat_sign(&keys.platform, &fields)));
    let case = |name, post, spoilt, answer| Case::new("clickpay", name, post, spoilt, answer);
    let (kept, refused) = ("200 SUCCESS", "401 FAIL");

    let form = |fields: Fields| {
        let mut signed = fields.clone();
        signed.push(("platSign", plat_sign(&keys.platform, &fields)));
        Post::form("/clickpay", &signed)
    };
    // The same signed string, cut elsewhere: a fee of 250.0010 and a payment of 000.00.
    let shifted = |number| {
        let cut = with(&with(&pay_in(number), "payFee", "250.0010"), "payMoney", "000.00");
        send(&cut, plat_sign(&keys.platform, &pay_in(number)))
    };
    let posing = |number| {
        let answer = create_answer(number);
        let number = format!("{}SUCCESSsuccess", 552_538_080_348_270_000_u64 + u64::from(number));
        let cut = with(&with(&with(&pay_in(12), "email", "x@y.zz"), "orderNum", &order(12)), "platOrderNum", &number);
        send(&cut, plat_sign(&keys.platform, &answer))
    };
    // The protocol's own example of the hole: a fee of 250 and a payment of 10000, or 2 and 5010000.
    let loose = |number: u32, fee: &str, money: &str| {
        let genuine = with(&with(&pay_in(number), "payFee", "250"), "payMoney", "10000");
        let mut sent = with(&with(&genuine, "payFee", fee), "payMoney", money);
        sent.push(("platSign", plat_sign(&keys.loose, &genuine)));
        Post::json("/clickpay-loose", &sent)
    };
    let expects = |number: u32, kind: &str| {
        let value = if kind == "payout" { "200000.00" } else { "10000.00" };
        let mut body = expectation("clickpay", &order(number), value, "IDR");
        if let Some(body) = body.as_object_mut() {
            body.insert("kind".to_owned(), kind.into());
        }
        body
    };

    vec![
        case("genuine", signed(pay_in(1)), spoilt(pay_in(1)), kept).told("payment.paid", "compare"),
        case("repeat", signed(pay_in(2)), signed(pay_in(102)), kept).after(signed(pay_in(2))),
        case("forged", send(&pay_in(3), plat_sign(&keys.forger, &pay_in(3))), signed(pay_in(3)), refused),
        case("unsigned", Post::json("/clickpay", &pay_in(4)), signed(pay_in(4)), refused),
        case("expected", signed(pay_in(5)), signed(pay_in(105)), kept)
            .expecting(expects(5, "payment"))
            .told("payment.paid", "fulfil"),
        case("other-amount", signed(with(&pay_in(6), "payMoney", "9999.00")), signed(pay_in(6)), kept)
            .expecting(expects(6, "payment"))
            .told("payment.paid", "hold"),
        case("form", form(pay_in(7)), spoilt(pay_in(7)), kept).told("payment.paid", "compare"),
        case("failed", signed(with(&with(&pay_in(8), "code", "01"), "msg", "FAIL")), signed(pay_in(8)), kept)
            .told("payment.failed", "none"),
        case("conflict", signed(with(&pay_in(9), "payMoney", "90000.00")), signed(pay_in(9)), kept)
            .after(signed(pay_in(9)))
            .told("payment.paid", "hold"),
        case("shifted", shifted(10), signed(pay_in(10)), kept).told("payment.paid", "hold"),
        case("shifted-then-genuine", signed(pay_in(11)), signed(pay_in(111)), kept)
            .after(shifted(11))
            .told("payment.paid", "hold"),
        case("create-answer", posing(12), signed(pay_in(12)), kept).told("payment.paid", "hold"),
        case("ambiguous", loose(13, "2", "5010000"), loose(13, "2", "5010001"), kept).told("payment.paid", "hold"),
        case("payout", signed(pay_out(14, "2", "SUCCESS")), spoilt(pay_out(14, "2", "SUCCESS")), kept)
            .expecting(expects(14, "payout"))
            .told("payout.paid", "fulfil"),
        case("payout-failed", signed(pay_out(15, "4", "FAIL")), signed(pay_out(15, "0", "PENDING")), kept)
            .expecting(expects(15, "payout"))
            .told("payout.failed", "fulfil"),
        case(
            "payout-forged",
            send(&pay_out(16, "4", "FAIL"), plat_sign(&keys.platform, &pay_out(16, "2", "SUCCESS"))),
            signed(pay_out(16, "4", "FAIL")),
            refused,
        ),
    ]
}

fn paygol(keys: &Keys) -> Vec<Case> {
    let fields = |number: u32| -> Fields {
        vec![
            ("country", "CL".to_owned()),
            ("completed_at", "2026-11-20T16:22:32-03:00".to_owned()),
            ("currency", "CLP".to_owned()),
            ("created_at", "2026-11-20T16:19:27-03:00".to_owned()),
            ("custom", format!("{}", 200_000 + number)),
            ("method", "webpay".to_owned()),
            ("price", "7500.00".to_owned()),
            ("service_id", "123".to_owned()),
            ("status", "completed".to_owned()),
            ("transaction_id", format!("ZISS-A7Q8-RE2Z-{number:04}")),
        ]
    };
    let send = |fields: &Fields, signature: String| Post::json("/paygol", fields).header("x-pg-sig", signature);
    let signed = |fields: Fields| send(&fields, pg_sig(&keys.paygol, &fields));
    let spoilt = |fields: Fields| send(&fields, flipped(&pg_sig(&keys.paygol, &fields)));
    let case = |name, post, spoilt, answer| Case::new("paygol", name, post, spoilt, answer);
    let (kept, refused) = ("200 OK", "401 refused");
    let expects = |number: u32| expectation("paygol", &format!("{}", 200_000 + number), "7500", "CLP");
    vec![
        case("genuine", signed(fields(1)), spoilt(fields(1)), kept).told("payment.paid", "compare"),
        case("repeat", signed(fields(2)), signed(fields(102)), kept).after(signed(fields(2))),
        case("forged", send(&fields(3), pg_sig(&keys.paygol_ipn, &fields(3))), signed(fields(3)), refused),
        case("unsigned", Post::json("/paygol", &fields(4)), signed(fields(4)), refused),
        case("wrong-service", signed(with(&fields(5), "service_id", "666")), signed(fields(5)), refused),
        case("expected", signed(fields(6)), signed(fields(106)), kept)
            .expecting(expects(6))
            .told("payment.paid", "fulfil"),
        case("price-of-a-cent", signed(with(&fields(7), "price", "0.01")), signed(fields(7)), kept)
            .expecting(expects(7))
            .told("payment.paid", "hold"),
        case("failed", signed(with(&fields(8), "status", "failed")), signed(fields(8)), kept)
            .told("payment.failed", "none"),
        case(
            "forged-failure",
            send(&with(&fields(9), "status", "failed"), pg_sig(&keys.paygol, &fields(9))),
            signed(with(&fields(9), "status", "failed")),
            refused,
        ),
    ]
}

fn paygol_legacy(keys: &Keys) -> Vec<Case> {
    let fields = |number: u32| -> Fields {
        vec![
            ("transaction_id", format!("LEGA-CY00-IPN0-{number:04}")),
            ("service_id", "124".to_owned()),
            ("country", "ES".to_owned()),
            ("custom", format!("{}", 300_000 + number)),
            ("price", "6800.00".to_owned()),
            ("currency", "CLP".to_owned()),
            ("frmprice", "10.00".to_owned()),
            ("frmcurrency", "EUR".to_owned()),
            ("method", "webpay".to_owned()),
            ("key", keys.paygol_ipn.clone()),
        ]
    };
    let send = |fields: Fields| Post::get(format!("/paygol/ipn?{}", sender::form(&fields)));
    let spoilt = |fields: Fields| send(with(&fields, "key", &flipped(&keys.paygol_ipn)));
    let unkeyed = |fields: Fields| send(fields.into_iter().filter(|(name, _)| *name != "key").collect());
    let case = |name, post, spoilt, answer| Case::new("paygol-legacy", name, post, spoilt, answer);
    let (kept, refused) = ("200 OK", "401 refused");
    let expects = |number: u32| expectation("paygol-ipn", &format!("{}", 300_000 + number), "10.00", "EUR");
    vec![
        case("genuine", send(fields(1)), spoilt(fields(1)), kept).told("payment.paid", "hold"),
        case("repeat", send(fields(2)), send(fields(102)), kept).after(send(fields(2))),
        case("forged", spoilt(fields(3)), send(fields(3)), refused),
        case("unsigned", unkeyed(fields(4)), send(fields(4)), refused),
        case("wrong-service", send(with(&fields(5), "service_id", "125")), send(fields(5)), refused),
        case("expected", send(fields(6)), send(fields(106)), kept).expecting(expects(6)).told("payment.paid", "fulfil"),
        case("other-amount", send(with(&fields(7), "frmprice", "1.00")), send(fields(7)), kept)
            .expecting(expects(7))
            .told("payment.paid", "hold"),
        case("form", Post::form("/paygol/ipn", &fields(8)), spoilt(fields(8)), kept).told("payment.paid", "hold"),
    ]
}
