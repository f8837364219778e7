//! Rounded figures for people: sizes, rates, lengths of time, instants; and text from outside
//! made safe for a terminal.

use std::{borrow::Cow, time::Duration};

use jiff::{Timestamp, tz::TimeZone};

const BINARY: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const DECIMAL: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];

/// Sizes of disks and of memory, in binary units: `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    scaled(bytes, 1024, &BINARY)
}

/// What providers bill and uplinks carry, in decimal units: `1.5 GB`.
pub fn size_decimal(bytes: u64) -> String {
    scaled(bytes, 1000, &DECIMAL)
}

/// `35.2 MiB/s`.
pub fn rate(bytes_per_second: f64) -> String {
    // The cast saturates, and maps NaN to 0.
    format!("{}/s", size(bytes_per_second as u64))
}

/// Three significant digits at least, whole numbers from 100 on.
fn scaled(bytes: u64, base: u64, units: &[&str; 6]) -> String {
    if bytes < base {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.5 of a unit would print as 1000: it belongs to the next one.
    while value >= base as f64 - 0.5 && unit + 1 < units.len() {
        value /= base as f64;
        unit += 1;
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    let digits = format!("{value:.decimals$}");
    let digits = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => &digits,
    };
    format!("{digits} {}", units[unit])
}

/// The two largest parts of a length of time: `3h 12m`, `45s`, `2d 4h`; below a second `0.2s`.
pub fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0 if length.is_zero() => "0s".into(),
        0..10 => {
            let tenths = format!("{:.1}s", length.as_secs_f64());
            tenths.replace(".0s", "s")
        }
        10..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "m"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit} {small}{small_unit}"),
    }
}

/// How long ago it was: `3h 12m`; `in 5m` of a clock that was ahead.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    let length = duration(now.duration_since(at).unsigned_abs());
    match at > now {
        true => format!("in {length}"),
        false => length,
    }
}

/// RFC 3339 in UTC, whole seconds: `2026-11-22T08:56:12Z`. For JSON and for files.
pub fn time_utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 in the machine's time zone: `2026-11-22T09:56:12+01:00`. For people.
pub fn time_local(at: Timestamp) -> String {
    time_in(at, TimeZone::system())
}

/// RFC 3339 in the given time zone, whole seconds.
pub fn time_in(at: Timestamp, zone: TimeZone) -> String {
    at.to_zoned(zone)
        .strftime("%Y-%m-%dT%H:%M:%S%:z")
        .to_string()
}

/// Text from a disk, a vault or a file name, with control characters written out: an escape
/// sequence in a VM's name must not reach the terminal. Line ends are kept.
pub fn printable(text: &str) -> Cow<'_, str> {
    // Also what makes text read other than it is stored: the bidirectional overrides.
    let harmful = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\t' => safe.push(' '),
            c if harmful(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (bytes, binary, decimal) in [
            (0, "0 B", "0 B"),
            (999, "999 B", "999 B"),
            (1000, "1000 B", "1 kB"),
            (1024, "1 KiB", "1.02 kB"),
            (1536, "1.5 KiB", "1.54 kB"),
            (10 << 20, "10 MiB", "10.5 MB"),
            (100 << 30, "100 GiB", "107 GB"),
            ((1 << 30) - 1, "1 GiB", "1.07 GB"),
            (999_999, "977 KiB", "1 MB"),
            (500_000_000_000, "466 GiB", "500 GB"),
            (u64::MAX, "16384 PiB", "18447 PB"),
        ] {
            assert_eq!(
                (size(bytes).as_str(), size_decimal(bytes).as_str()),
                (binary, decimal)
            );
        }
        assert_eq!(rate(36_909_875.0), "35.2 MiB/s");
        assert_eq!(rate(f64::NAN), "0 B/s");
    }

    #[test]
    fn lengths_of_time() {
        for (milliseconds, shown) in [
            (0, "0s"),
            (240, "0.2s"),
            (3_000, "3s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (11_520_000, "3h 12m"),
            (7_200_000, "2h"),
            (187_200_000, "2d 4h"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), shown);
        }
        assert_eq!(duration(Duration::MAX), "213503982334601d 7h");
    }

    #[test]
    fn instants() {
        let at: Timestamp = "2026-11-22T08:56:12.75Z".parse().expect("a time");
        assert_eq!(time_utc(at), "2026-11-22T08:56:12Z");
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(time_in(at, berlin), "2026-11-22T09:56:12+01:00");
        assert_eq!(
            time_local(at)
                .parse::<Timestamp>()
                .expect("RFC 3339")
                .as_second(),
            at.as_second()
        );
    }

    #[test]
    fn escape_sequences_are_written_out() {
        assert_eq!(printable("web-01 ü"), "web-01 ü");
        assert_eq!(printable("a\x1b[2Jb\r\tc\nd"), "a\\u{1b}[2Jb\\u{d} c\nd");
        assert_eq!(printable("x\u{202e}gpj"), "x\\u{202e}gpj");
    }

    proptest! {
        #[test]
        fn a_size_is_at_most_nine_columns_and_close(bytes in 0u64..1 << 60) {
            let shown = size(bytes);
            prop_assert!(shown.len() <= 9, "{}", shown);
            let (number, unit) = shown.split_once(' ').expect("a unit");
            let power = BINARY.iter().position(|u| *u == unit).expect("known");
            let back = number.parse::<f64>().expect("a number") * 1024f64.powi(power as i32);
            prop_assert!((back - bytes as f64).abs() <= bytes as f64 * 0.006, "{}", shown);
        }
    }
}
