//! What several commands print for people: times, money, tables.
//!
//! A text from outside is escaped here or in `Out`, never printed as it is. Colours come after widths, and only on a
//! terminal whose user did not say NO_COLOR.

use std::io::IsTerminal;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::printable;

/// How things are shown: in whose time, and whether in colour.
pub(super) struct Style {
    zone: TimeZone,
    colour: bool,
}

/// A column's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Style {
    /// For stdout, in the time zone of this machine or of `TZ`.
    pub(super) fn of_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|said| said.is_empty());
        Self { zone: TimeZone::system(), colour: wanted && std::io::stdout().is_terminal() }
    }

    /// A moment as the API writes it, to the second: `2026-11-20 09:15:30+01:00`. What is no moment stays as it is.
    pub(super) fn time(&self, moment: &Value) -> String {
        let Some(text) = moment.as_str() else { return "-".to_owned() };
        let Ok(at) = text.parse::<Timestamp>() else { return text.to_owned() };
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
    }

    /// A verdict with its colour. Takes it padded, so that widths are counted before.
    pub(super) fn verdict(&self, padded: &str) -> String {
        let code = match padded.trim() {
            "fulfil" => "32",
            "compare" => "36",
            "hold" => "33",
            "none" => "2",
            _ => return padded.to_owned(),
        };
        if self.colour { format!("\u{1b}[{code}m{padded}\u{1b}[0m") } else { padded.to_owned() }
    }
}

/// A text of a document, escaped; `-` where it is null or absent.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

/// An amount as the API writes it: `10,000.00 IDR`; `-` where there is none.
pub(super) fn money(amount: &Value) -> String {
    let member = |name: &str| amount.get(name).and_then(Value::as_str);
    let (Some(value), Some(currency)) = (member("value"), member("currency")) else { return "-".to_owned() };
    let (whole, fraction) = value.split_at(value.find('.').unwrap_or(value.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    printable(&format!("{grouped}{fraction} {currency}"))
}

/// A list of words: `clock, restored`; empty where there is none.
pub(super) fn words(list: &Value) -> String {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Lines with columns as wide as their widest cell, two spaces between them and none at the end. The column `verdict`
/// gets its colour.
pub(super) fn table(
    style: &Style,
    sides: &[Side],
    rows: &[Vec<String>],
    verdict: Option<usize>,
) -> impl Iterator<Item = String> {
    let width_of = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..sides.len()).map(|column| width_of(column).unwrap_or_default()).collect();
    rows.iter().map(move |row| {
        let cells = row.iter().zip(sides.iter().zip(&widths)).enumerate().map(|(column, (cell, (side, width)))| {
            let last = column + 1 == row.len();
            let padded = match side {
                Side::Left if last => cell.clone(),
                Side::Left => format!("{cell:<width$}"),
                Side::Right => format!("{cell:>width$}"),
            };
            if verdict == Some(column) { style.verdict(&padded) } else { padded }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn berlin(colour: bool) -> Style {
        Style { zone: TimeZone::fixed(jiff::tz::offset(1)), colour }
    }

    #[test]
    fn a_moment_is_shown_in_the_readers_time_and_says_which_that_is() {
        assert_eq!(berlin(false).time(&json!("2026-11-20T08:15:30.123Z")), "2026-11-20 09:15:30+01:00");
        assert_eq!(berlin(false).time(&Value::Null), "-");
        assert_eq!(berlin(false).time(&json!("soon")), "soon");
    }

    #[test]
    fn money_keeps_its_digits_and_gets_its_groups() {
        let of = |value: &str, currency: &str| money(&json!({ "value": value, "currency": currency }));
        assert_eq!(of("10000.00", "IDR"), "10,000.00 IDR");
        assert_eq!(of("999", "JPY"), "999 JPY");
        assert_eq!(of("1234567.890", "KWD"), "1,234,567.890 KWD");
        assert_eq!(of("0.5", "USD"), "0.5 USD");
        assert_eq!(money(&Value::Null), "-");
    }

    #[test]
    fn a_table_is_as_wide_as_its_widest_cell_and_has_colours_on_terminals_only() {
        let rows = vec![vec!["é".into(), "fulfil".into(), "1".into()], vec!["long".into(), "none".into(), "20".into()]];
        let sides = [Side::Left, Side::Left, Side::Right];
        let plain: Vec<String> = table(&berlin(false), &sides, &rows, Some(1)).collect();
        assert_eq!(plain, ["é     fulfil   1", "long  none    20"]);
        let coloured: Vec<String> = table(&berlin(true), &sides, &rows, Some(1)).collect();
        assert_eq!(coloured, ["é     \u{1b}[32mfulfil\u{1b}[0m   1", "long  \u{1b}[2mnone  \u{1b}[0m  20"]);
    }

    #[test]
    fn a_text_from_outside_moves_no_cursor() {
        assert_eq!(text(&json!("a\u{1b}[2J")), "a\\u{1b}[2J");
        assert_eq!(words(&json!(["a\n", "b"])), "a\\u{a}, b");
        assert_eq!((text(&Value::Null), text(&json!(""))), ("-".to_owned(), "\"\"".to_owned()));
    }
}
