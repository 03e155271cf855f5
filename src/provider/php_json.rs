//! The text that Paygol signs: what PHP 8.2 gives for
//! `$fields = json_decode($body, true); ksort($fields); json_encode($fields)`, no flags.
//!
//! A port of what that does and nothing more: integer-like keys become integers, `ksort` compares by PHP 8's loose
//! rules, arrays with keys 0 to n-1 in order become lists, `/` and everything outside ASCII are escaped. Where PHP
//! would print a number anew (fractions, exponents, integers outside 64 bits) there is no canonical form here:
//! such a body can only be verified raw. The test compares with the distribution's php-cli.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::json::Value;

/// Levels of nesting that `json_decode` takes at its default depth of 512, which counts the innermost value too; the
/// body's own object is the first.
const MAX_DEPTH: usize = 511;

/// The canonical form of a body's fields as [`super::json::object`] read them. `None` where `json_decode` refuses the
/// body, a number would be printed anew, a nested key stands twice, or the keys are so odd that `ksort`'s loose
/// comparison puts them in no order at all (`2`, `10`, `1a`).
pub fn canonical(fields: &[(String, Value)]) -> Option<Vec<u8>> {
    let mut members = Vec::with_capacity(fields.len());
    for (key, value) in ksort(fields)? {
        let node = match value {
            Value::Text(text) => Node::Text(text.clone()),
            Value::Number(literal) => Node::number(literal)?,
            Value::Bool(true) => Node::Literal("true"),
            Value::Bool(false) => Node::Literal("false"),
            Value::Null => Node::Literal("null"),
            Value::Nested(literal) => {
                let mut parser = Parser { text: literal, at: 0 };
                let node = parser.value(2)?;
                parser.at_end().then_some(node)?
            }
        };
        members.push((key.clone(), node));
    }
    let mut out = Vec::new();
    Node::Array(members).encode(&mut out);
    Some(out)
}

/// A decoded value. Integers and words print as they stood, so they stay literals.
enum Node<'a> {
    Literal(&'a str),
    Text(String),
    Array(Vec<(String, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// An integer of 64 bits; `None` for what PHP makes a float.
    fn number(literal: &'a str) -> Option<Self> {
        let literal = if literal == "-0" { "0" } else { literal };
        literal.parse::<i64>().is_ok().then_some(Self::Literal(literal))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Literal(literal) => out.extend_from_slice(literal.as_bytes()),
            Self::Text(text) => encode_text(text, out),
            Self::Array(members) => {
                // An empty object and an empty list are one thing once they are a PHP array.
                let is_list =
                    members.iter().enumerate().all(|(index, (key, _))| integer(key) == i64::try_from(index).ok());
                out.push(if is_list { b'[' } else { b'{' });
                for (index, (key, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    if !is_list {
                        encode_text(key, out);
                        out.push(b':');
                    }
                    value.encode(out);
                }
                out.push(if is_list { b']' } else { b'}' });
            }
        }
    }
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '/' => out.extend_from_slice(b"\\/"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            ' '..='\u{7f}' => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    out.push(b'"');
}

/// Reads the inside of a nested value. The text is well-formed JSON already; whatever is not comes out as `None`.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Option<Node<'a>> {
        match self.peek()? {
            b'"' => self.string().map(Node::Text),
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            _ => {
                let rest = self.text.get(self.at..)?;
                let len = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
                let literal = rest.get(..len)?;
                self.at += len;
                match literal {
                    "true" | "false" | "null" => Some(Node::Literal(literal)),
                    number => Node::number(number),
                }
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Node<'a>> {
        self.open(depth)?;
        let (mut members, mut seen) = (Vec::new(), HashSet::new());
        while !self.take(b'}') {
            if !members.is_empty() && !self.take(b',') {
                return None;
            }
            self.peek().filter(|&byte| byte == b'"')?;
            let key = self.string()?;
            if !seen.insert(key.clone()) || !self.take(b':') {
                return None;
            }
            let value = self.value(depth + 1)?;
            members.push((key, value));
        }
        Some(Node::Array(members))
    }

    fn list(&mut self, depth: usize) -> Option<Node<'a>> {
        self.open(depth)?;
        let mut members = Vec::new();
        while !self.take(b']') {
            if !members.is_empty() && !self.take(b',') {
                return None;
            }
            let value = self.value(depth + 1)?;
            members.push((members.len().to_string(), value));
        }
        Some(Node::Array(members))
    }

    fn string(&mut self) -> Option<String> {
        let rest = self.text.get(self.at..)?;
        let mut escaped = false;
        let end = rest.bytes().skip(1).position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })?;
        let literal = rest.get(..end + 2)?;
        self.at += literal.len();
        serde_json::from_str(literal).ok() // refuses lone surrogates, as json_decode does
    }

    fn open(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        (depth <= MAX_DEPTH).then_some(())
    }

    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        self.at += rest.iter().take_while(|byte| b" \t\n\r".contains(byte)).count();
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }
}

/// The fields in `ksort`'s order. PHP's comparison of keys is no order in general, and what its sort then gives hangs
/// on the algorithm: each field goes where the number of those before it says, and two at one place mean `None`.
fn ksort(fields: &[(String, Value)]) -> Option<Vec<&(String, Value)>> {
    let mut sorted: Vec<_> = fields.iter().collect();
    let numeric = |key: &str| integer(key).is_some() || Numeric::parse(key).is_some();
    if !fields.iter().any(|(key, _)| numeric(key)) {
        sorted.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
        return Some(sorted);
    }
    let mut places = vec![None; fields.len()];
    for (index, field) in fields.iter().enumerate() {
        let is_before = |(at, other): (usize, &(String, Value))| {
            at != index && compare_keys(&other.0, &field.0).then(at.cmp(&index)).is_lt()
        };
        let place = fields.iter().enumerate().filter(|&(at, other)| is_before((at, other))).count();
        if places.get_mut(place)?.replace(field).is_some() {
            return None;
        }
    }
    places.into_iter().collect()
}

/// The integer that PHP makes of a key: decimal as PHP itself would print it, 64 bits.
fn integer(key: &str) -> Option<i64> {
    key.parse::<i64>().ok().filter(|number| number.to_string() == key)
}

/// `php_array_key_compare_unstable_i` of PHP 8.2.
fn compare_keys(a: &str, b: &str) -> Ordering {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(number), None) => compare_integer_to_string(number, b),
        (None, Some(number)) => compare_integer_to_string(number, a).reverse(),
        (None, None) => compare_strings(a, b),
    }
}

/// `compare_longs_to_string`.
fn compare_integer_to_string(number: i64, string: &str) -> Ordering {
    match Numeric::parse(string) {
        Some(Numeric::Integer(other)) => number.cmp(&other),
        Some(Numeric::Float { value, .. }) => compare_floats(number as f64, value),
        None => number.to_string().as_bytes().cmp(string.as_bytes()),
    }
}

/// `zendi_smart_strcmp`.
fn compare_strings(a: &str, b: &str) -> Ordering {
    let as_bytes = || a.as_bytes().cmp(b.as_bytes());
    let (Some(left), Some(right)) = (Numeric::parse(a), Numeric::parse(b)) else { return as_bytes() };
    match (left, right) {
        (Numeric::Integer(left), Numeric::Integer(right)) => left.cmp(&right),
        (
            Numeric::Float { value: left, overflow: left_over },
            Numeric::Float { value: right, overflow: right_over },
        ) => {
            let both_over = left_over != 0 && left_over == right_over && left - right == 0.0;
            if both_over || (left == right && !left.is_finite()) { as_bytes() } else { compare_floats(left, right) }
        }
        (Numeric::Integer(_), Numeric::Float { overflow, .. }) if overflow != 0 => 0.cmp(&overflow),
        (Numeric::Float { overflow, .. }, Numeric::Integer(_)) if overflow != 0 => overflow.cmp(&0),
        (Numeric::Integer(left), Numeric::Float { value: right, .. }) => compare_floats(left as f64, right),
        (Numeric::Float { value: left, .. }, Numeric::Integer(right)) => compare_floats(left, right as f64),
    }
}

/// `ZEND_NORMALIZE_BOOL` of the difference.
fn compare_floats(a: f64, b: f64) -> Ordering {
    (a - b).partial_cmp(&0.0).unwrap_or(Ordering::Equal)
}

/// What `_is_numeric_string_ex` finds in a string.
#[derive(Clone, Copy, Debug)]
enum Numeric {
    Integer(i64),
    /// `overflow` is the sign of an integer that does not fit 64 bits, else 0.
    Float {
        value: f64,
        overflow: i8,
    },
}

impl Numeric {
    /// White space, a sign, digits, a point, an exponent, white space.
    fn parse(string: &str) -> Option<Self> {
        let spaces = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}');
        let text = string.trim_matches(spaces);
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let whole = unsigned.bytes().take_while(u8::is_ascii_digit).count();
        let behind = unsigned.get(whole..)?;
        if whole > 0 && behind.is_empty() {
            let sign = if text.starts_with('-') { -1 } else { 1 };
            return Some(match text.parse() {
                Ok(number) => Self::Integer(number),
                Err(_) => Self::Float { value: text.parse().ok()?, overflow: sign },
            });
        }
        let fraction = behind.strip_prefix('.').map(|rest| rest.bytes().take_while(u8::is_ascii_digit).count());
        let exponent = behind.get(fraction.map_or(0, |digits| digits + 1)..)?;
        let well_formed = whole > 0 || fraction.is_some_and(|digits| digits > 0);
        let exponent_well_formed = exponent.strip_prefix(['e', 'E']).map_or(exponent.is_empty(), |power| {
            let digits = power.strip_prefix(['+', '-']).unwrap_or(power);
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        });
        let value = (well_formed && exponent_well_formed).then(|| text.parse().ok())??;
        Some(Self::Float { value, overflow: 0 })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use base64::prelude::*;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::super::json;
    use super::*;

    /// Says for each base64 line what PHP makes of it: `=` and the text, or why there is none: `decode` fails, a
    /// `float` is in it, or the order of the keys is `cyclic` (two of them are in another order without the others).
    const PHP: &str = r#"
        while (($line = fgets(STDIN)) !== false) {
            $fields = json_decode(base64_decode($line), true);
            if (!is_array($fields)) { echo "decode\n"; continue; }
            $float = false;
            array_walk_recursive($fields, function ($value) use (&$float) { $float = $float || is_float($value); });
            if ($float) { echo "float\n"; continue; }
            $arrived = array_keys($fields);
            ksort($fields);
            $keys = array_keys($fields);
            $cyclic = false;
            foreach ($keys as $i => $first) {
                foreach (array_slice($keys, $i + 1) as $second) {
                    $pair = [];
                    foreach ($arrived as $key) { if ($key === $first || $key === $second) { $pair[$key] = 0; } }
                    ksort($pair);
                    $cyclic = $cyclic || array_keys($pair) !== [$first, $second];
                }
            }
            echo $cyclic ? "cyclic" : "=" . base64_encode(json_encode($fields)), "\n";
        }
    "#;

    fn php(bodies: &[Vec<u8>]) -> Vec<String> {
        let mut php = Command::new("php")
            .args(["-n", "-r", PHP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("php-cli is installed");
        let mut stdin = php.stdin.take().expect("a pipe");
        let lines: String = bodies.iter().map(|body| BASE64_STANDARD.encode(body) + "\n").collect();
        let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
        let output = php.wait_with_output().expect("php runs");
        writer.join().expect("no panic").expect("php reads");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("ASCII").lines().map(str::to_owned).collect()
    }

    fn ours(body: &[u8]) -> Option<Vec<u8>> {
        canonical(&json::object(body, 64).ok()?)
    }

    #[track_caller]
    fn agrees(body: &[u8], php_says: &str) {
        let shown = String::from_utf8_lossy(body);
        match (ours(body), php_says.strip_prefix('=')) {
            (Some(ours), Some(theirs)) => {
                let theirs = BASE64_STANDARD.decode(theirs).expect("base64");
                assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs), "{shown}");
            }
            (None, None) => {}
            (ours, _) => panic!("{}, PHP {php_says}: {shown}", if ours.is_some() { "a form" } else { "none" }),
        }
    }

    /// A JSON string in one of the ways in which a text can be written down; sometimes one that is none.
    fn string_literal(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
        (text, any::<u64>()).prop_map(|(text, mut dice)| {
            let mut literal = String::from("\"");
            for character in text.chars() {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let escape = |units: &mut [u16; 2], upper: bool| {
                    let unit = |unit: &u16| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
                    character.encode_utf16(units).iter().map(unit).collect::<String>()
                };
                match (dice >> 60, character) {
                    (0, _) => literal += &escape(&mut [0; 2], true),
                    (1, _) | (_, '\0'..='\x07' | '\x0b' | '\x0e'..='\x1f') => literal += &escape(&mut [0; 2], false),
                    (_, '"') => literal += "\\\"",
                    (_, '\\') => literal += "\\\\",
                    (2..8, '/') => literal += "\\/",
                    (_, '\x08') => literal += "\\b",
                    (_, '\x0c') => literal += "\\f",
                    (_, '\n') => literal += "\\n",
                    (_, '\r') => literal += "\\r",
                    (_, '\t') => literal += "\\t",
                    (_, plain) => literal.push(plain),
                }
            }
            if dice % 211 == 0 {
                literal += ["\\ud800", "\\uDC00x", "\\u12", "\t", "\\x"][(dice >> 32) as usize % 5];
            }
            literal + "\""
        })
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,12}",
            "[a-z/<>&'\"\\\\\u{0}-\u{1f}\u{7f}]{0,8}",
            "[\u{80}-\u{7ff}\u{800}-\u{d7ff}\u{e000}-\u{ffff}\u{10000}-\u{10ffff}]{0,4}",
            any::<String>(),
        ]
    }

    fn key() -> impl Strategy<Value = String> {
        let numbers = || {
            prop_oneof![
                "-?[0-9]{1,3}",
                "[ \\t\\n\u{b}]?[+-]?[0-9]{0,3}[.]?[0-9]{0,2}([eE][+-]?[0-9]{0,2})?[ \\r\u{c}]?",
                "-?(9223372036854775|18446744073709551|99999999999999999)[0-9]{2,5}",
                "[0-9]{1,2}[a-z.]",
                Just("1e999".to_owned()),
                Just("2e999".to_owned()),
                Just(" ".to_owned()),
            ]
        };
        prop_oneof![
            4 => prop::sample::select(&["country", "completed_at", "price", "Price", "price2", "price10", "", "_"][..])
                .prop_map(str::to_owned),
            3 => numbers(),
            1 => text(),
            1 => "[0-6]",
        ]
    }

    fn scalar() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => string_literal(text()),
            1 => prop::sample::select(&["true", "false", "null", "0", "-1", "9223372036854775807", "-9223372036854775808",
                "9223372036854775808", "-9223372036854775809", "-0", "1.0", "7500.00", "1e3", "0E0", "01", "TRUE", "+1",
                ""][..]).prop_map(str::to_owned),
            2 => any::<i64>().prop_map(|number| number.to_string()),
        ]
    }

    fn object(keys: BoxedStrategy<String>, value: BoxedStrategy<String>, most: usize) -> BoxedStrategy<String> {
        let member = (keys, value).prop_flat_map(|(key, value)| {
            (Just(key.clone()), string_literal(Just(key)), Just(value), "[ \\n\\t\\r]?", "[ ]?")
        });
        prop::collection::vec(member, 0..most)
            .prop_map(|members| {
                let mut seen = HashSet::new();
                let members = members.into_iter().filter(|(key, ..)| seen.insert(key.clone()));
                let members: Vec<_> =
                    members.map(|(_, key, value, a, b)| format!("{a}{key}{b}:{a}{value}{b}")).collect();
                format!("{{{}}}", members.join(","))
            })
            .boxed()
    }

    fn body() -> impl Strategy<Value = String> {
        let nested = scalar().boxed().prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|members| format!("[{}]", members.join(", "))),
                object(prop_oneof![2 => key(), 1 => "[0-3]"].boxed(), inner.boxed(), 5),
            ]
        });
        prop_oneof![
            3 => object(key().boxed(), scalar().boxed(), 12),
            1 => object(key().boxed(), prop_oneof![3 => scalar(), 1 => nested].boxed(), 8),
            1 => object("[0-5]".boxed(), scalar().boxed(), 7),
        ]
    }

    #[test]
    fn agrees_with_php_on_thousands_of_bodies() {
        let mut runner = TestRunner::deterministic();
        let mut bodies: Vec<Vec<u8>> = Vec::new();
        for _ in 0..6000 {
            bodies.push(body().new_tree(&mut runner).expect("a body").current().into_bytes());
        }
        bodies.push(b"{\"a\":\"\xff\"}".to_vec());
        bodies.push("{\"price\":\"7500.00\",\"custom\":\"caf\u{e9} \u{1f600}</a>&'\"}".into());
        for depth in [509, 510, 511, 512] {
            bodies.push(format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)).into_bytes());
            bodies.push(format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)).into_bytes());
        }
        let verdicts = php(&bodies);
        assert_eq!(verdicts.len(), bodies.len());
        for (body, php_says) in bodies.iter().zip(&verdicts) {
            agrees(body, php_says);
        }
        // The generator reaches every case, and most of it is not refusals.
        let count = |word: &str| verdicts.iter().filter(|verdict| verdict.starts_with(word)).count();
        assert!(count("=") > 2500, "{}", count("="));
        for word in ["decode", "float", "cyclic"] {
            assert!(count(word) > 20, "{word}: {}", count(word));
        }
    }

    #[test]
    fn a_nested_key_that_stands_twice_has_no_canonical_form() {
        assert!(ours(br#"{"a":{"b":1}}"#).is_some());
        assert!(ours(br#"{"a":{"b":1,"\u0062":1}}"#).is_none());
    }

    #[test]
    fn the_published_example_is_sorted_and_escaped() {
        let body = br#"{"status":"completed","price":"10.00","custom":"a/b \u00e9"}"#;
        let expected = r#"{"custom":"a\/b \u00e9","price":"10.00","status":"completed"}"#;
        assert_eq!(ours(body).as_deref(), Some(expected.as_bytes()));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_form_or_none(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ours(&body);
            let _ = canonical(&[("a".to_owned(), Value::Nested(String::from_utf8_lossy(&body).into_owned()))]);
        }
    }
}
