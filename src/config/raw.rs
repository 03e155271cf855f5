//! Reads TOML key by key and notes every problem instead of stopping at the first.
//!
//! serde's `deny_unknown_fields` ends at the first mistake; an operator with five wants to see five. So the getters
//! of [`Section`] are the schema: what nobody asked for when a section ends is an unknown key.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use super::secret::{self, Rule, Secret};
use super::units;

/// Looks up an environment variable.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// What all sections of one file share.
pub(super) struct Document<'d> {
    /// The whole text, for line numbers.
    pub text: &'d str,
    /// What relative paths are relative to.
    pub base: &'d Path,
    /// The environment.
    pub env: Env<'d>,
    /// Everything found so far.
    pub problems: RefCell<Vec<Problem>>,
    /// Every key that was asked for, `source.path`: the test of the example compares it with the file.
    #[cfg(test)]
    pub asked: RefCell<std::collections::BTreeSet<String>>,
}

/// A table of the file, or a place where one is missing: then every getter gives its default.
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    path: String,
    line: Option<usize>,
    table: Option<&'d DeTable<'d>>,
    known: Vec<&'static str>,
}

/// The most secrets or keys of one source at a time.
const MAX_SECRETS: usize = 16;

type Value<'d> = &'d Spanned<DeValue<'d>>;

impl<'d> Document<'d> {
    pub(super) fn new(text: &'d str, base: &'d Path, env: Env<'d>) -> Self {
        Self {
            text,
            base,
            env,
            problems: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    /// The file itself as a section.
    pub(super) fn root(&'d self, table: &'d DeTable<'d>) -> Section<'d> {
        Section { document: self, path: String::new(), line: None, table: Some(table), known: Vec::new() }
    }

    /// Line and column of a byte, from 1; columns are characters.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (before.bytes().filter(|b| *b == b'\n').count() + 1, column)
    }

    /// Whether nothing was found yet.
    pub(super) fn clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }
}

impl<'d> Section<'d> {
    /// Whether the file has this table.
    pub(super) fn present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the file has this key, however wrong its value is.
    pub(super) fn has(&self, key: &str) -> bool {
        self.peek(key).is_some()
    }

    /// The path of one of its keys.
    pub(super) fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// Notes a problem with a key, or with the section itself where `key` is empty.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let line = self.peek(key).map(|value| self.document.position(value.span().start).0).or(self.line);
        self.note(self.path_of(key), line, message.into(), remedy.into());
    }

    /// A text; empty ones are refused, since nothing here may be empty.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.value(key)?;
        let text = self.as_text(key, value)?;
        if text.is_empty() {
            self.problem(key, "is empty", "give it a value or leave the key out");
            return None;
        }
        Some(text.to_owned())
    }

    /// A text that must be there.
    pub(super) fn required_text(&mut self, key: &'static str, remedy: &str) -> Option<String> {
        self.require(key, remedy);
        self.text(key)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        match self.value(key).map(|value| value.get_ref()) {
            None => default,
            Some(DeValue::Boolean(value)) => *value,
            Some(other) => {
                self.problem(key, format!("is {}, not true or false", kind(other)), "write true or false");
                default
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn count(&mut self, key: &'static str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let Some(value) = self.value(key) else { return default };
        let range = format!("write a whole number from {} to {}", bounds.start(), bounds.end());
        let DeValue::Integer(integer) = value.get_ref() else {
            self.problem(key, format!("is {}, not a number", kind(value.get_ref())), range);
            return default;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if bounds.contains(&number) => number,
            _ => {
                self.problem(key, format!("{integer} is out of bounds"), range);
                default
            }
        }
    }

    /// A duration within bounds.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let [low, high] = [bounds.start(), bounds.end()].map(|bound| units::show_duration(*bound));
        let remedy = format!("write a number with ms, s, m, h or d, as in \"30s\", from {low} to {high}");
        self.measure(key, default, units::duration, |value| bounds.contains(value), "a duration", &remedy)
    }

    /// A size in bytes within bounds.
    pub(super) fn size(&mut self, key: &'static str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let [low, high] = [bounds.start(), bounds.end()].map(|bound| units::show_size(*bound));
        let remedy = format!("write a number with B, KiB, MiB or GiB, as in \"64KiB\", from {low} to {high}");
        self.measure(key, default, units::size, |value| bounds.contains(value), "a size", &remedy)
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let DeValue::Array(list) = value.get_ref() else {
            self.problem(
                key,
                format!("is {}, not a list", kind(value.get_ref())),
                "write a list, as in [\"a\", \"b\"]",
            );
            return None;
        };
        let texts: Vec<_> = list
            .iter()
            .enumerate()
            .filter_map(|(index, item)| self.as_text(&format!("{key}[{index}]"), item).map(str::to_owned))
            .collect();
        (texts.len() == list.len()).then_some(texts)
    }

    /// A secret under `rule`, where the key is there.
    pub(super) fn secret(&mut self, key: &'static str, rule: Rule) -> Option<Secret> {
        let value = self.value(key)?;
        self.load(key, value, rule)
    }

    /// A list of secrets that must be there and hold at least one, each with its key (`secrets[0]`); one alone needs
    /// no brackets.
    pub(super) fn secrets(&mut self, key: &'static str, rule: Rule, remedy: &str) -> Vec<(String, Secret)> {
        self.require(key, remedy);
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(list) = value.get_ref() else {
            return self.load(key, value, rule).into_iter().map(|secret| (key.to_owned(), secret)).collect();
        };
        if list.is_empty() {
            self.problem(key, "is empty", remedy);
        }
        if list.len() > MAX_SECRETS {
            let message = format!("has more than {MAX_SECRETS} entries");
            self.problem(key, message, "keep the current one and those that are being rotated out");
        }
        let mut secrets: Vec<(String, Secret)> = Vec::new();
        for (index, item) in list.iter().take(MAX_SECRETS).enumerate() {
            let own = format!("{key}[{index}]");
            let Some(secret) = self.load(&own, item, rule) else { continue };
            match secrets.iter().find(|(_, other)| other.same(&secret)) {
                Some((other, _)) => self.problem(&own, format!("is the same as {other}"), "leave one of them out"),
                None => secrets.push((own, secret)),
            }
        }
        secrets
    }

    /// Notes that a key is missing.
    pub(super) fn require(&mut self, key: &'static str, remedy: &str) {
        if self.value(key).is_none() {
            self.problem(key, "is missing", remedy);
        }
    }

    /// The table under a key.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'d> {
        let value = self.value(key);
        let table = value.and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.problem(key, format!("is {}, not a table", kind(other)), format!("write [{}]", self.path_of(key)));
                None
            }
        });
        self.child(self.path_of(key), value, table)
    }

    /// The tables under a key that is written `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'d>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(list) = value.get_ref() else {
            self.problem(
                key,
                format!("is {}, not a list of tables", kind(value.get_ref())),
                format!("write [[{key}]]"),
            );
            return Vec::new();
        };
        if list.is_empty() {
            self.problem(key, "is empty", format!("add a [[{key}]]"));
        }
        let mut sections = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            match item.get_ref() {
                DeValue::Table(table) => sections.push(self.child(path, Some(item), Some(table))),
                other => {
                    let line = Some(self.document.position(item.span().start).0);
                    self.note(path, line, format!("is {}, not a table", kind(other)), format!("write [[{key}]]"));
                }
            }
        }
        sections
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        for (key, _) in table.iter() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let nearest = self.known.iter().map(|known| (distance(known, name), known)).min();
            let remedy = match nearest {
                Some((0..=2, known)) => format!("did you mean {known}?"),
                _ => format!("known here: {}", self.known.join(", ")),
            };
            let line = Some(self.document.position(key.span().start).0);
            self.note(self.path_of(&name.escape_debug().to_string()), line, "unknown key".to_owned(), remedy);
        }
    }

    /// Where the configuration is, and the environment with it.
    pub(super) fn document(&self) -> &'d Document<'d> {
        self.document
    }

    fn note(&self, path: String, line: Option<usize>, message: String, remedy: String) {
        let problem = Problem { path, line, message, remedy };
        let mut problems = self.document.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    fn child(&self, path: String, value: Option<Value<'d>>, table: Option<&'d DeTable<'d>>) -> Section<'d> {
        let line = value.map(|value| self.document.position(value.span().start).0);
        Section { document: self.document, path, line, table, known: Vec::new() }
    }

    fn value(&mut self, key: &'static str) -> Option<Value<'d>> {
        if !self.known.contains(&key) {
            self.known.push(key);
            #[cfg(test)]
            {
                let path = self.path_of(key);
                let generic = path.split_once('[').and_then(|(list, rest)| Some((list, rest.split_once(']')?.1)));
                let path = generic.map_or(path.clone(), |(list, rest)| format!("{list}{rest}"));
                self.document.asked.borrow_mut().insert(path);
            }
        }
        self.peek(key)
    }

    /// The value of `key`, or of `key[index]`, for its line.
    fn peek(&self, key: &str) -> Option<Value<'d>> {
        let (name, index) = key.split_once('[').map_or((key, None), |(name, index)| (name, index.strip_suffix(']')));
        let value = self.table?.get(name)?;
        match (index.and_then(|index| index.parse::<usize>().ok()), value.get_ref()) {
            (Some(index), DeValue::Array(list)) => list.get(index),
            _ => Some(value),
        }
    }

    fn as_text(&self, key: &str, value: Value<'d>) -> Option<&'d str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text),
            other => {
                self.problem(key, format!("is {}, not a text", kind(other)), "put it in quotes");
                None
            }
        }
    }

    fn measure<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
        fits: impl Fn(&T) -> bool,
        what: &str,
        remedy: &str,
    ) -> T {
        let Some(value) = self.value(key) else { return default };
        let DeValue::String(text) = value.get_ref() else {
            self.problem(key, format!("is {}, not {what}", kind(value.get_ref())), remedy);
            return default;
        };
        match parse(text) {
            Some(value) if fits(&value) => value,
            Some(_) => {
                self.problem(key, format!("{text:?} is out of bounds"), remedy);
                default
            }
            None => {
                self.problem(key, format!("{text:?} is not {what}"), remedy);
                default
            }
        }
    }

    fn load(&self, key: &str, value: Value<'d>, rule: Rule) -> Option<Secret> {
        match secret::load(value.get_ref(), self.document, rule) {
            Ok(secret) => Some(secret),
            Err(fault) => {
                self.problem(key, fault.message, fault.remedy);
                None
            }
        }
    }
}

/// What a value is, for "is a number, not a text".
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Edit distance, for "did you mean". Keys from outside may be of any length: far ones are not worth the work.
fn distance(known: &str, other: &str) -> usize {
    if known.len().abs_diff(other.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in known.bytes().enumerate() {
        let mut before = i;
        let mut left = i + 1;
        for (b, cell) in other.bytes().zip(row.iter_mut().skip(1)) {
            let replaced = before + usize::from(a != b);
            before = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edit_distance_is_the_usual_one() {
        assert_eq!(distance("path", "path"), 0);
        assert_eq!(distance("path", "pth"), 1);
        assert_eq!(distance("kitten", "sittin"), 2);
        assert_eq!(distance("address", "adress"), 1);
        assert_eq!(distance("", "ab"), 2);
        assert_eq!(distance("name", &"n".repeat(100_000)), usize::MAX);
    }
}
