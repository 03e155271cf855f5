//! `./bench`: Quittance beside what people use today, and beside what disk and cores allow.
//!
//! Everything that is compared runs in the same call on the same machine, in turns; what is printed are medians of
//! ratios with their spread. `load` makes the load, `material` the signed notifications, `servers` runs what is
//! measured and its yardsticks, `rows` holds the table, `report` writes `benches/RESULTS.md`, `instructions` counts
//! instructions under callgrind.

mod amqp;
#[path = "../../tests/broker/certificates.rs"]
#[expect(dead_code, reason = "the node of the tests serves TLS too")]
mod certificates;
mod harness;
mod instructions;
mod load;
mod material;
#[path = "../../tests/broker/node.rs"]
#[expect(dead_code, reason = "the tests of the relay need more of it")]
mod node;
mod plot;
mod prefill;
mod rawlog;
mod report;
mod rows;
mod servers;

use std::path::{Path, PathBuf};

use material::Material;
use report::Report;

/// What every row gets.
pub struct Bench {
    /// How often each contestant has its turn.
    pub rounds: usize,
    /// Seconds of each turn.
    pub seconds: f64,
    /// Signed notifications.
    pub material: Material,
    /// What is kept between calls.
    pub cache: PathBuf,
    /// What is found.
    pub report: Report,
}

const USAGE: &str = "usage: ./bench [--rounds N] [--seconds S] [--cache FOLDER] [ROW...]
       ./bench --list | --help
       ./bench instructions [--check | --save]

`all` or no row: all of them, which takes hours; --list names them with what each is for. Results are printed and written
to benches/RESULTS.md, a row at a time. Packages that a row needs are installed with apt. The cache (default: `bench` in
cargo's target folder) must lie on the disk that is to be measured; it needs 10 GB for the rows with ten million keys.

  instructions   instructions per notification (callgrind): --check compares with benches/instructions.txt and fails
                 above 5 %, --save writes that file
";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        // `cargo bench` without more: this is not for in between.
        None => return print!("{USAGE}"),
        Some("serve-bare") => return servers::serve_bare(),
        Some("instructions") => std::process::exit(instructions::run(&arguments[1..])),

        Some("--help" | "-h") => return print!("{USAGE}"),
        Some("--list") => return rows::ROWS.iter().for_each(|row| println!("{:<12} {}", row.name, row.what)),
        _ => {}
    }
    let (mut rounds, mut seconds, mut cache, mut wanted) = (5, 5.0, default_cache(), Vec::new());
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().unwrap_or_else(|| wrong(&format!("{argument} needs a value")));
        match argument.as_str() {
            "--rounds" => rounds = value().parse().unwrap_or_else(|_| wrong("--rounds needs a number")),
            "--seconds" => seconds = value().parse().unwrap_or_else(|_| wrong("--seconds needs a number")),
            "--cache" => cache = PathBuf::from(value()),
            "all" => wanted = rows::ROWS.iter().collect(),
            name => match rows::ROWS.iter().find(|row| row.name == name) {
                Some(row) => wanted.push(row),
                None => wrong(&format!("no such row: {name}")),
            },
        }
    }
    if wanted.is_empty() {
        wanted = rows::ROWS.iter().collect();
    }
    std::fs::create_dir_all(&cache).expect("the cache can be made");
    let material = Material::new(&cache);
    let mut bench = Bench { rounds, seconds, material, cache, report: Report::default() };
    let machine = report::machine(&bench.cache);
    println!("{machine}; {rounds} rounds of {seconds} s");
    for row in wanted {
        say(row.name);
        (row.run)(&mut bench, row.name);
        let date = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z").to_string();
        bench.report.write(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/RESULTS.md")), &date, &machine);
        bench.report.lines.clear();
    }
}

/// Beside the executables: on the disk that holds the build.
pub fn default_cache() -> PathBuf {
    let executable = std::env::current_exe().expect("this program");
    let target = executable.ancestors().nth(3).unwrap_or(Path::new("."));
    target.join("bench")
}

/// Talk, on stderr.
pub fn say(text: &str) {
    eprintln!("==> {text}");
}

fn wrong(what: &str) -> ! {
    eprintln!("{what}\n\n{USAGE}");
    std::process::exit(2)
}
