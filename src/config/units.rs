//! Durations (`90d`, `30s`, `500ms`) and sizes (`64KiB`) as the configuration and the command line write them.

use std::time::Duration;

const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A whole number and one of `ms`, `s`, `m`, `h`, `d`. `None` for anything else, also what exceeds `u64`
/// milliseconds.
pub fn duration(text: &str) -> Option<Duration> {
    parse(text, &DURATIONS).map(Duration::from_millis)
}

/// A whole number and one of `B`, `KiB`, `MiB`, `GiB`, in bytes. `None` for anything else: `KB` would leave open
/// whether it is 1000 or 1024.
pub fn size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// The shortest exact way to write a duration of whole milliseconds.
pub fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATIONS)
}

/// The shortest exact way to write a size.
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, word) = text.split_at_checked(digits)?;
    let unit = units.iter().find(|(name, _)| *name == word)?.1;
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().rev().find(|(_, unit)| value >= *unit && value.is_multiple_of(*unit));
    let (name, unit) = fits.or(units.first()).copied().unwrap_or(("", 1));
    format!("{}{name}", value / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_with_their_unit_only() {
        let ms = |text| duration(text).map(|d| d.as_millis());
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("30s"), Some(30_000));
        assert_eq!(ms("15m"), Some(900_000));
        assert_eq!(ms("24h"), Some(86_400_000));
        assert_eq!(ms("90d"), Some(7_776_000_000));
        for bad in ["", "s", "30", "-1s", "1.5h", "30 s", "30S", "1w", "18446744073709551615d", "٣s", "3é"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("1MiB"), Some(1_048_576));
        assert_eq!(size("2GiB"), Some(2_147_483_648));
        assert_eq!(size("17B"), Some(17));
        for bad in ["", "64", "64KB", "64kib", "KiB", "1 MiB", "99999999999999999999B", "18446744073709551615GiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for bytes in [0, 1, 1023, 1024, 65_536, 3 << 20, 1 << 30, u64::MAX] {
            assert_eq!(size(&show_size(bytes)), Some(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(86_400 * 90)), "90d");
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(show_size(65_536), "64KiB");
    }
}
