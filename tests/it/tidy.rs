//! The shape of the tree: who may know whom, what a file must say, how long it may be.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the tree: its path below the root with `/`, and its text.
struct File {
    path: String,
    text: String,
    /// Compiled for tests only.
    is_test: bool,
}

fn files(folder: &str) -> Vec<File> {
    fn walk(root: &Path, at: PathBuf, into: &mut Vec<File>) {
        for entry in fs::read_dir(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, path, into);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                into.push(File { path, text, is_test: false });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    walk(root, root.join(folder), &mut all);
    assert!(!all.is_empty(), "nothing in {folder}");
    let declared = regex::Regex::new(r"#\[cfg\(test\)\]\s*(?:pub(?:\(\w+\))? )?mod (\w+);").unwrap();
    let tests: Vec<String> = all
        .iter()
        .flat_map(|file| {
            let base = file.path.trim_end_matches(".rs").trim_end_matches("/lib").to_owned();
            declared.captures_iter(&file.text).map(move |found| format!("{base}/{}", &found[1])).collect::<Vec<_>>()
        })
        .collect();
    for file in &mut all {
        file.is_test = tests.iter().any(|t| file.path == format!("{t}.rs") || file.path.starts_with(&format!("{t}/")));
    }
    all
}

impl File {
    /// Whether it is `src/<module>.rs` or below `src/<module>/`.
    fn is_of(&self, module: &str) -> bool {
        self.path == format!("src/{module}.rs") || self.path.starts_with(&format!("src/{module}/"))
    }

    /// Lines of code with their numbers: no comments, no tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let text = if self.is_test { "" } else { &self.text };
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        lines
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]") && !line.starts_with("mod tests"))
            .map(|(at, line)| (at, line.split(" //").next().unwrap_or(line)))
            .filter(|(_, line)| !line.starts_with("//"))
    }

    /// Places where `word` stands alone in code.
    fn names(&self, word: &str) -> Vec<String> {
        let pattern = regex::Regex::new(&format!(r"\b{word}\b")).unwrap();
        self.code().filter(|(_, l)| pattern.is_match(l)).map(|(at, l)| format!("{}:{at}: {l}", self.path)).collect()
    }
}

/// Places in which one of `modules` is imported or called: `crate::name`, `super::name`, or within `crate::{..}`.
fn imports(file: &File, modules: &[&str]) -> Vec<String> {
    let all = modules.join("|");
    let pattern = regex::Regex::new(&format!(r"\b(crate|quittance)::(\{{[^}}]*\b)?({all})\b")).unwrap();
    file.code().filter(|(_, l)| pattern.is_match(l)).map(|(at, l)| format!("{}:{at}: {l}", file.path)).collect()
}

#[track_caller]
fn none(places: Vec<String>, rule: &str) {
    assert!(places.is_empty(), "{rule}:\n{}", places.join("\n"));
}

#[test]
fn the_listener_knows_no_relay_and_no_sink() {
    let places =
        files("src").iter().filter(|f| f.is_of("listener")).flat_map(|f| imports(f, &["relay", "sink"])).collect();
    none(places, "the store is the only coupling between receiving and sending");
}

#[test]
fn the_relay_knows_no_listener_and_no_provider() {
    let places =
        files("src").iter().filter(|f| f.is_of("relay")).flat_map(|f| imports(f, &["listener", "provider"])).collect();
    none(places, "an event in the journal is complete");
}

#[test]
fn a_provider_touches_no_store_no_network_and_is_not_async() {
    // The answer depends on what the store decided: the outcome's vocabulary, and nothing else of it.
    let vocabulary = regex::Regex::new(r"\bcrate::store::(Committed|\{Committed, Outcome\}|Outcome);").unwrap();
    let mut places = Vec::new();
    for file in files("src").iter().filter(|f| f.is_of("provider")) {
        places.extend(
            imports(file, &["store", "listener", "admin", "app"]).into_iter().filter(|l| !vocabulary.is_match(l)),
        );
        for word in ["async", "await", "tokio", "hyper", "axum", r"std::net::Tcp\w+", "std::fs", "std::thread"] {
            places.extend(file.names(word));
        }
    }
    none(places, "a provider is pure, synchronous and without I/O");
}

#[test]
fn sled_is_named_in_the_embedded_store_only() {
    let places = files("src").iter().filter(|f| !f.is_of("store/embedded")).flat_map(|f| f.names("sled")).collect();
    none(places, "sled is the embedded store's index and nobody else's");
}

#[test]
fn lapin_is_named_in_the_amqp_sink_only() {
    let places =
        files("src").iter().filter(|f| !f.path.starts_with("src/sink/amqp")).flat_map(|f| f.names("lapin")).collect();
    none(places, "lapin is the AMQP sink's");
}

#[test]
fn hyper_is_named_in_the_listeners_only() {
    let places = files("src")
        .iter()
        .filter(|f| !f.is_of("listener") && !f.is_of("admin"))
        .flat_map(|f| [f.names("hyper"), f.names("hyper_util")].concat())
        .collect();
    none(places, "HTTP stays in listener and admin");
}

#[test]
fn status_codes_of_the_public_listener_stand_in_one_file() {
    let places = files("src")
        .iter()
        .filter(|f| f.is_of("listener") && f.path != "src/listener/respond.rs")
        .flat_map(|f| f.names("StatusCode"))
        .collect();
    none(places, "one total match from refusal to response, in listener/respond.rs");
}

#[test]
fn time_tasks_and_channels_come_from_their_one_place() {
    let mut places = Vec::new();
    for file in files("src") {
        if file.path != "src/clock.rs" {
            places.extend(file.names(r"(SystemTime|Timestamp|Zoned)::now"));
        }
        if file.path != "src/drain.rs" {
            places.extend(file.names(r"(tokio|task)::spawn"));
        }
        places.extend(file.names("unbounded_channel"));
    }
    none(places, "clock.rs tells the time, drain.rs starts tasks, every channel has a limit");
}

#[test]
fn every_module_says_what_it_is_for() {
    let all = ["src", "tests"].into_iter().flat_map(files);
    let silent = all.filter(|f| !f.text.starts_with("//! ")).map(|f| f.path).collect();
    none(silent, "a module starts with //!");
}

#[test]
fn a_file_above_600_lines_names_its_reason() {
    let all = ["src", "tests"].into_iter().flat_map(files);
    let long = all.filter(|f| f.text.lines().count() > 600 && !f.text.contains("//! Long because "));
    none(long.map(|f| format!("{}: {} lines", f.path, f.text.lines().count())).collect(), "split it");
}

#[test]
fn no_file_is_called_mod_utils_helpers_common_types_or_misc() {
    let banned = ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "common.rs", "types.rs", "misc.rs"];
    let all = ["src", "tests"].into_iter().flat_map(files);
    let bad = all.filter(|f| banned.iter().any(|name| f.path.ends_with(&format!("/{name}")))).map(|f| f.path);
    none(bad.collect(), "if it has no name, it is not a thing yet");
}

#[test]
fn nothing_unfinished_is_left() {
    let mut places = Vec::new();
    for file in files("src") {
        let unfinished = ["todo!(", "unimplemented!(", "dbg!("];
        let here = file.code().filter(|(_, line)| unfinished.iter().any(|word| line.contains(word)));
        places.extend(here.map(|(at, line)| format!("{}:{at}: {line}", file.path)));
        places.extend(
            file.text
                .lines()
                .filter(|l| l.contains("FIXME") || l.contains("(to come)"))
                .map(|l| format!("{}: {l}", file.path)),
        );
    }
    none(places, "no stub, no TODO");
}

#[test]
fn main_is_a_checklist_of_under_60_lines() {
    let main = files("src").into_iter().find(|f| f.path == "src/main.rs").unwrap();
    assert!(main.text.lines().count() < 60);
}

#[test]
fn the_architecture_is_drawn_in_under_200_lines() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    assert!(text.lines().count() < 200);
    assert!(text.contains("**Invariant:**"));
    let missing: Vec<String> = files("src")
        .iter()
        .filter_map(|f| f.path.strip_prefix("src/")?.strip_suffix(".rs").map(str::to_owned))
        .filter(|module| !module.contains('/') && module != "lib" && !text.contains(&format!("`{module}")))
        .collect();
    none(missing, "the code map names every module at the top");
}
