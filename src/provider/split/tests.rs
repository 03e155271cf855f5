//! The counter against the Python oracle, and against bounds on its work.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::*;

const S1: &str =
    "00buyer@example.comQRISSUCCESSNeoT1231511321515https://link.example/pay250.0010000.00552538080348274688";
const ORDER: &str = "^T[0-9]{13}$";
const AMOUNT: &str = r"^[0-9]+\.[0-9]{2}$";
const DOCUMENTED: [&str; 10] =
    ["code", "email", "method", "msg", "name", "orderNum", "payData", "payFee", "payMoney", "platOrderNum"];
const OPTIONAL: [&str; 3] = ["phone", "status", "vaNumber"];

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn grammars(order: Option<&str>, amount: Option<&str>) -> Arc<Grammars> {
    Arc::new(Grammars::new(order, amount, &owned(&DOCUMENTED), &owned(&OPTIONAL)).expect("patterns compile"))
}

fn shop() -> AccountName {
    AccountName::new("shop").expect("a name")
}

fn ambiguity_of(grammars: &Arc<Grammars>, string: &str) -> Ambiguity {
    let reader = Reader { accounts: vec![shop()], grammars: Arc::clone(grammars) };
    Ambiguity::new(&[reader].into(), string, false)
}

fn s1_fields() -> Vec<(String, String)> {
    [
        ("code", "00"),
        ("email", "buyer@example.com"),
        ("method", "QRIS"),
        ("msg", "SUCCESS"),
        ("name", "Neo"),
        ("orderNum", "T1231511321515"),
        ("payData", "https://link.example/pay"),
        ("payFee", "250.00"),
        ("payMoney", "10000.00"),
        ("platOrderNum", "552538080348274688"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A generator that gives the same numbers everywhere (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
    fn of<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
    fn text(&mut self, alphabet: &str, shortest: usize, longest: usize) -> String {
        let alphabet: Vec<char> = alphabet.chars().collect();
        (0..shortest + self.below(longest - shortest + 1)).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

fn value(name: &str, numbers: &mut Numbers) -> String {
    match name {
        "code" => numbers.of(&["00", "00", "01", "10"]).to_owned(),
        "email" => {
            numbers.of(&["00x@y.zz", "a@bc", "b00uyer@ex.co", "0@\u{e9}\u{a0}x", "buyer@example.com"]).to_owned()
        }
        "method" => numbers.of(&["QRIS", "BNI", "A-1", "CASHIER-OVO"]).to_owned(),
        "msg" | "statusMsg" => numbers.of(&["SUCCESS", "FAIL", "FAILED", "PENDING", "Paid"]).to_owned(),
        "name" => {
            numbers.of(&["Neo", "SUCCESSNeo", "Neo1", "7", "No\u{eb}l 12", "\u{6771}\u{4eac}", "x\ty"]).to_owned()
        }
        "orderNum" => numbers.of(&["T1", "1", "T1231511321515", "23", "A_b-9", "00"]).to_owned(),
        "payData" | "originData" => numbers.of(&["https://l/p", "1", "12x", "p 1.5", "00\u{1f4b3}0"]).to_owned(),
        "payFee" | "fee" => numbers.of(&["0", "0.00", "250.00", "1.5", "7000", "2"]).to_owned(),
        "payMoney" | "money" | "amount" => numbers.of(&["10000.00", "1", "0", "0.10", "200000", "5.0"]).to_owned(),
        "platOrderNum" => numbers.of(&["12345678", "W_12345678", "W0620240723", "552538080348274688"]).to_owned(),
        "phone" => numbers.of(&["+620811", "082113086611"]).to_owned(),
        "status" => numbers.of(&["SUCCESS", "NO_PAY", "PAY_ERROR", "2", "4", "0"]).to_owned(),
        "vaNumber" | "number" => numbers.of(&["123456", "0060011643339"]).to_owned(),
        "bankCode" => numbers.of(&["014", "0014"]).to_owned(),
        "feeType" => numbers.of(&["0", "1"]).to_owned(),
        "platRespCode" => numbers.of(&["SUCCESS", "FAIL"]).to_owned(),
        _ => numbers.of(&["Success", "wd", "Test 1", "1"]).to_owned(),
    }
}

/// Strings as messages of each type have them, some of them spoiled, and some of no type at all.
fn generated(numbers: &mut Numbers) -> Value {
    const TYPES: [&[&str]; 4] = [
        &[
            "code",
            "email",
            "method",
            "msg",
            "name",
            "orderNum",
            "payData",
            "payFee",
            "payMoney",
            "phone",
            "platOrderNum",
            "status",
            "vaNumber",
        ],
        &[
            "bankCode",
            "description",
            "fee",
            "feeType",
            "money",
            "name",
            "number",
            "orderNum",
            "platOrderNum",
            "status",
            "statusMsg",
        ],
        &[
            "email",
            "method",
            "name",
            "orderNum",
            "originData",
            "payData",
            "payFee",
            "payMoney",
            "platOrderNum",
            "platRespCode",
            "platRespMessage",
            "productDetail",
        ],
        &["amount", "fee", "msg", "orderNum", "platOrderNum", "platRespCode", "platRespMessage", "status"],
    ];
    let mut string = String::new();
    for name in TYPES[[0, 0, 0, 1, 1, 2, 2, 3][numbers.below(8)]] {
        let rare = ["phone", "status", "vaNumber", "description", "originData"].contains(name) && numbers.below(3) > 0;
        if !rare || (*name == "status" && string.len() < 40) {
            string += &value(name, numbers);
        }
    }
    match numbers.below(12) {
        0 => string = numbers.text("01A@x. \u{e9}", 1, 40),
        1 => string.truncate(string.char_indices().nth(numbers.below(string.chars().count())).map_or(0, |(at, _)| at)),
        2 => string += numbers.of(&["1", "SUCCESS", "2SUCCESS", "\n"]),
        _ => {}
    }
    let mut case = json!({ "string": string });
    if numbers.below(3) == 0 {
        case["order"] = json!(numbers.of(&[ORDER, "[0-9]{1,4}", "T[0-9]+|A_.*", "(?i)[a-z]{1,3}[0-9]+"]));
    }
    if numbers.below(3) == 0 {
        case["amount"] = json!(numbers.of(&[AMOUNT, "[1-9][0-9]{0,12}", r"[0-9]{1,6}(\.[0-9]{1,2})?"]));
    }
    if numbers.below(4) == 0 {
        case["optional"] = json!(
            numbers.of(&["", "status", "phone,description"]).split(',').filter(|n| !n.is_empty()).collect::<Vec<_>>()
        );
    }
    if numbers.below(6) == 0 {
        case["fields"] = json!(["code", "msg", "orderNum", "payMoney", "platOrderNum"]);
    }
    case
}

fn oracle(cases: &[Value]) -> Vec<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fixtures/clickpay/decide_many.py");
    let mut python = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 must be installed");
    let mut stdin = python.stdin.take().expect("piped");
    let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let done = python.wait_with_output().expect("python ran");
    writer.join().expect("no panic").expect("written");
    assert!(done.status.success());
    let out = String::from_utf8(done.stdout).expect("UTF-8");
    out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn names(list: &Value) -> Option<Vec<String>> {
    Some(list.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[test]
fn thousands_of_strings_are_judged_as_the_oracle_judges_them() {
    let mut numbers = Numbers(0x5EED);
    let cases: Vec<Value> = (0..2500).map(|_| generated(&mut numbers)).collect();
    let answers = oracle(&cases);
    assert_eq!(answers.len(), cases.len());
    let mut seen = [0; 4]; // none, one, several, capped
    for (case, expected) in cases.iter().zip(&answers) {
        let string = case["string"].as_str().expect("a string");
        let fields = names(&case["fields"]).unwrap_or_else(|| owned(&DOCUMENTED));
        let optional = names(&case["optional"]).unwrap_or_else(|| owned(&OPTIONAL));
        let grammars = Grammars::new(case["order"].as_str(), case["amount"].as_str(), &fields, &optional);
        let grammars = Arc::new(grammars.expect("patterns compile"));
        let count = expected["count"].as_u64().expect("a count") as usize;
        let kinds = names(&expected["kinds"]).expect("a list");
        for (is, kind) in [(Type::PayIn, "payin"), (Type::PayOut, "payout")] {
            let reading = grammars.read(string, is, &[]);
            assert_eq!(reading.decisions, count.min(CAP), "{case}");
            assert_eq!(reading.cross_type, kinds.iter().any(|other| other != kind), "{case}");
        }
        seen[match count {
            0 => 0,
            1 => 1,
            2..CAP => 2,
            _ => 3,
        }] += 1;
        let ambiguity = ambiguity_of(&grammars, string);
        let finals = expected["final"].as_array().expect("a list");
        for decision in finals.iter().take(40) {
            let part = |i: usize| decision[i].as_str().expect("text");
            let kind = if part(0) == "payin" { Kind::Payment } else { Kind::Payout };
            let amount = Decimal::parse(part(2)).expect("a decimal");
            assert!(ambiguity.allows(&shop(), kind, part(1), &amount), "{case} {decision}");
            let near = Decimal::parse(&format!("{}1", part(2))).expect("a decimal");
            assert!(!ambiguity.allows(&shop(), kind, part(1), &near), "{case} {decision}");
        }
        if finals.len() as u64 == expected["finals"].as_u64().expect("a count") {
            let mut orders: Vec<&str> = finals.iter().filter_map(|decision| decision[1].as_str()).collect();
            orders.sort_unstable();
            orders.dedup();
            let mut candidates = ambiguity.candidate_orders().expect("few");
            candidates.sort_unstable();
            assert!(candidates.iter().all(|(account, _)| *account == shop()));
            assert_eq!(candidates.into_iter().map(|(_, order)| order).collect::<Vec<_>>(), orders, "{case}");
        }
    }
    assert!(seen.iter().all(|count| *count > 100), "the generator has gone one-sided: {seen:?}");
}

#[test]
fn the_sample_message_has_as_many_decisions_as_the_protocol_says() {
    let count = |order, amount| {
        let reading = grammars(order, amount).read(S1, Type::PayIn, &s1_fields());
        (reading.decisions, reading.cross_type)
    };
    assert_eq!(count(None, None), (64, false), "12,966 in truth");
    assert_eq!(count(None, Some(AMOUNT)), (64, false), "258 in truth");
    assert_eq!(count(Some(ORDER), None), (45, false));
    assert_eq!(count(Some(ORDER), Some(AMOUNT)), (1, false));
}

#[test]
fn fields_that_the_cuts_of_one_decision_share_differently_are_named() {
    let reading = grammars(Some(ORDER), Some(AMOUNT)).read(S1, Type::PayIn, &s1_fields());
    assert_eq!(reading.unproven, ["email", "method", "payData", "payFee", "phone", "platOrderNum", "vaNumber"]);
    let no_optional = Grammars::new(Some(ORDER), Some(AMOUNT), &owned(&DOCUMENTED), &[]).expect("compiles");
    let reading = no_optional.read(S1, Type::PayIn, &s1_fields());
    assert_eq!(reading.unproven, ["email", "method", "payData", "payFee"], "comQ + RIS is an e-mail and a method too");
}

#[test]
fn what_a_capped_count_leaves_out_is_still_allowed_exactly() {
    let grammars = grammars(None, None);
    let ambiguity = ambiguity_of(&grammars, S1);
    let says = |account: &AccountName, kind: Kind, order: &str, amount: &str| {
        ambiguity.allows(account, kind, order, &Decimal::parse(amount).expect("a decimal"))
    };
    let allows = |order: &str, amount: &str| says(&shop(), Kind::Payment, order, amount);
    assert!(allows("T1231511321515", "10000"));
    assert!(allows("1231511321515", "10000.00"), "the T may belong to the name");
    assert!(allows("T1231511321515", "0010000.00".trim_start_matches('0')));
    assert!(!allows("T1231511321516", "10000.00"));
    assert!(!allows("T1231511321515", "99999.00"));
    assert!(!says(&shop(), Kind::Payout, "T1231511321515", "10000"));
    assert!(!says(&shop(), Kind::Refund, "T1231511321515", "10000"));
    let stranger = AccountName::new("stranger").expect("a name");
    assert!(!says(&stranger, Kind::Payment, "T1231511321515", "10000"), "who has not the key is told nothing");
    let orders = ambiguity.candidate_orders().expect("fewer than 4096");
    assert!(orders.len() > CAP && orders.contains(&(shop(), "1231511321515".to_owned())));
    assert!(!format!("{ambiguity:?}").contains("buyer"), "personal data stays out of Debug");
}

#[test]
fn too_many_candidate_orders_are_no_list() {
    let grammars =
        Grammars::new(None, None, &owned(&["code", "msg", "note", "orderNum", "payMoney", "platOrderNum"]), &[]);
    let mut numbers = Numbers(9);
    let string = format!("00SUCCESS{}110000.0012345678", numbers.text("abcdefghijklmnop", 800, 800));
    // `note` and nothing behind it but digits: every suffix of up to 32 characters is an order; only those.
    let ambiguity = ambiguity_of(&Arc::new(grammars.expect("compiles")), &string);
    assert!(ambiguity.candidate_orders().is_some_and(|orders| orders.len() < 200));
    let names = owned(&["a", "code", "msg", "orderNum", "p", "payMoney", "platOrderNum"]);
    let grammars = Grammars::new(None, None, &names, &[]).expect("compiles");
    let middle: String =
        (0..60).map(|_| format!("00SUCCESS{}", numbers.text("abcdefghijklmnopqrst", 90, 90))).collect();
    let string = format!("{middle}10000.0012345678");
    let ambiguity = ambiguity_of(&Arc::new(grammars), &string[string.len().saturating_sub(2000)..]);
    assert!(ambiguity.candidate_orders().is_none_or(|orders| orders.len() <= MAX_CANDIDATES));
}

#[test]
fn the_worst_strings_of_two_kibibytes_take_a_bounded_number_of_steps() {
    let undescribed = owned(&[&DOCUMENTED[..], &["aaa", "n2", "pa"]].concat());
    let sources = [
        grammars(None, None),
        grammars(Some(ORDER), Some(AMOUNT)),
        grammars(Some("[a-z]{32}"), Some("[1-9]")),
        Arc::new(Grammars::new(None, None, &undescribed, &owned(&OPTIONAL)).expect("compiles")),
        Arc::new(Grammars::new(Some(".{1,32}"), Some("[0-9]{1,18}"), &undescribed, &[]).expect("compiles")),
    ];
    let mut worst = Steps::default();
    for string in worst_strings() {
        for grammars in &sources {
            let (_, steps) = grammars.read_counting(&string, Type::PayIn, &[]);
            worst = worst.max(steps);
        }
    }
    assert!(worst.0 > 10_000, "the strings are no longer hard: {worst:?}");
    assert!(worst.0 < 300_000, "{worst:?}");
}

/// Strings in which as much as possible could be anything.
fn worst_strings() -> Vec<String> {
    let mut strings = Vec::new();
    for filling in ["1", "a", "A", "0", "10.", "SUCCESS", "00SUCCESS", "a@b", "\u{e9}", "1a", "+1"] {
        for length in [100, 300, 700, 1100, 1300, 1340, 1700, 1880, 2048] {
            let body: String = filling.chars().cycle().take(length).collect();
            strings.push(body.clone());
            strings.push(format!("00a@bcQRISSUCCESS{body}250.0010000.00552538080348274688"));
            strings.push(format!("014{body}7000120000012345678W000112345678902SUCCESS"));
            strings.push(format!("a@bcQRIS{body}1.001.0012345678SUCCESSSuccessTest"));
            strings.push(format!("1.001.00{body}T112345678SUCCESSokSUCCESS"));
        }
    }
    strings.iter().map(|string| string.chars().take(2048).collect()).collect()
}

#[test]
#[ignore = "prints times; the bound is on steps"]
fn time_of_the_worst_strings() {
    let undescribed = owned(&[&DOCUMENTED[..], &["aaa", "n2", "pa"]].concat());
    for (name, grammars) in [
        ("documented", grammars(None, None)),
        ("patterns", grammars(Some(ORDER), Some(AMOUNT))),
        ("undescribed", Arc::new(Grammars::new(None, None, &undescribed, &owned(&OPTIONAL)).expect("compiles"))),
    ] {
        let time = |string: &str| {
            let runs = 50;
            let begin = std::time::Instant::now();
            for _ in 0..runs {
                std::hint::black_box(grammars.read(std::hint::black_box(string), Type::PayIn, &[]));
            }
            begin.elapsed() / runs
        };
        let mut all: Vec<_> = worst_strings().into_iter().map(|s| (time(&s), s)).collect();
        all.sort();
        let (worst, string) = all.last().expect("some");
        println!("{name}: S1 {:?}, worst {worst:?} {} chars {:.60}", time(S1), string.len(), string);
    }
}

#[test]
fn a_pattern_that_cannot_be_used_is_refused_with_a_sentence() {
    for good in [ORDER, AMOUNT, "[A-Za-z0-9_-]{1,32}", r"\d+", "INV-.*", "\u{437}\u{430}\u{43a}[0-9]+"] {
        assert_eq!(check_pattern(good), Ok(()), "{good}");
    }
    for bad in ["(", "[0-9]{40}", "", "^$", r"\bT1\b", "(.{1,500}){500}", &"a".repeat(2000)] {
        let error = check_pattern(bad).expect_err(bad);
        assert!(error.contains(' '), "{bad}: {error}");
    }
}

#[test]
fn grammars_that_were_never_checked_hold_everything() {
    let grammars = Arc::new(Grammars::hold_everything(&owned(&DOCUMENTED), &owned(&OPTIONAL)));
    assert_eq!(grammars.read(S1, Type::PayIn, &s1_fields()).decisions, 0);
    assert_eq!(grammars.fits(Type::PayIn, "orderNum", "T1"), Some(false));
}

proptest::proptest! {
    #[test]
    fn no_string_makes_it_panic(string in "\\PC{0,300}|[0-9SUCES@.\u{0}é]{0,600}", order: String, amount in "[0-9]{1,9}") {
        let grammars = grammars(None, None);
        for is in [Type::PayIn, Type::PayOut] {
            let reading = grammars.read(&string, is, &s1_fields());
            proptest::prop_assert!(reading.decisions <= CAP);
        }
        let ambiguity = ambiguity_of(&grammars, &string);
        let _ = ambiguity.allows(&shop(), Kind::Payment, &order, &Decimal::parse(&amount).expect("digits"));
        let _ = ambiguity.candidate_orders();
        let _ = check_pattern(&order);
        for name in DOCUMENTED {
            let _ = grammars.fits(Type::PayIn, name, &string);
        }
    }
}
