//! On what a run was made: a figure without its machine says nothing.

use std::fmt;

use serde_json::{Value, json};

pub struct Machine {
    processor: String,
    cores: usize,
    memory: String,
    disk: String,
    kernel: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let kilobytes: u64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        let temporary = std::env::temp_dir();
        // The longest mount point that the temporary folder lies below.
        let mounts = read("/proc/mounts");
        let disk = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|mount| mount.len() > 2 && temporary.starts_with(mount[1]))
            .max_by_key(|mount| mount[1].len())
            .map(|mount| format!("{} on {}", mount[2], mount[0]));
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: format!("{} GiB", kilobytes.div_ceil(1 << 20)),
            disk: disk.unwrap_or_default(),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        }
    }

    /// As an object.
    pub fn json(&self) -> Value {
        let Self { processor, cores, memory, disk, kernel } = self;
        json!({ "processor": processor, "cores": cores, "memory": memory, "disk": disk, "kernel": kernel })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, memory, disk, kernel } = self;
        write!(f, "{processor}, {cores} cores, {memory} of memory, {disk}, {kernel}")
    }
}
