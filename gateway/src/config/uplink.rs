//! `[uplink]`: how fast uploads may go together, and when it is another speed.

use std::{fmt, str::FromStr};

use console::units::BitRate;
use jiff::civil::Weekday;

use super::{
    problem::Notes,
    section::{self, Keys, Section, Value},
};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uplink {
    /// Outside every window; `None` is no cap.
    pub cap: Option<Cap>,
    /// Where several cover a moment, the first of the file counts.
    pub windows: Vec<UplinkWindow>,
}

/// All uploads together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// Nothing is sent.
    Off,
    Rate(BitRate),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkWindow {
    /// On which it begins.
    pub days: Days,
    /// Minutes after midnight, below 1440.
    pub from: u16,
    /// Up to 1440; at or before `from` it is on the next day.
    pub until: u16,
    pub cap: Cap,
}

/// A set of weekdays, a bit each, Monday lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(u8);

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
pub const DAY_MINUTES: u16 = 24 * 60;

/// So that a piece of a request is sent every few seconds, and no store takes us for dead.
const LEAST_RATE: BitRate = BitRate(64_000);

impl Days {
    pub const ALL: Days = Days(0x7f);

    pub fn contains(self, day: Weekday) -> bool {
        self.0 & 1 << day.to_monday_zero_offset() != 0
    }
}

impl FromStr for Days {
    type Err = String;

    /// `mon-fri`, `sat,sun`, `fri-mon,wed`.
    fn from_str(text: &str) -> Result<Self, String> {
        let refuse =
            |why: String| format!("{text:?} is not days such as \"mon-fri\" or \"sat,sun\": {why}");
        let day = |name: &str| {
            let name = name.trim();
            DAYS.iter()
                .position(|day| day.eq_ignore_ascii_case(name))
                .ok_or_else(|| refuse(format!("no such day: {name:?}")))
        };
        let mut days = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (mut at, last) = (day(first)?, day(last)?);
            days |= 1 << at;
            while at != last {
                at = (at + 1) % 7;
                days |= 1 << at;
            }
        }
        Ok(Days(days))
    }
}

/// `08:00-18:00`; past midnight where it ends before it begins.
struct Hours(u16, u16);

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| {
            Err(format!(
                "{text:?} is not hours such as \"08:00-18:00\": {why}"
            ))
        };
        let Some((from, until)) = text.split_once('-') else {
            return refuse("it must be two times with `-` between");
        };
        match (minutes(from), minutes(until)) {
            (Some(from), Some(until)) if from == until => {
                refuse("it begins when it ends; leave `hours` out for the whole day")
            }
            (Some(from), Some(until)) if from < DAY_MINUTES => Ok(Hours(from, until)),
            _ => refuse("a time is two digits, `:` and two digits, 24:00 at the end only"),
        }
    }
}

fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let two = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<u16>().ok())?
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let at = hours * 60 + minutes;
    (minutes < 60 && at <= DAY_MINUTES).then_some(at)
}

impl FromStr for Cap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "off" {
            return Ok(Cap::Off);
        }
        let rate: BitRate = text.parse().map_err(|error| format!("{error}"))?;
        match rate {
            BitRate(0) => Ok(Cap::Off),
            rate if rate < LEAST_RATE => Err(format!(
                "{rate} is too slow: write {LEAST_RATE} or more, or \"off\" for no uploads"
            )),
            rate => Ok(Cap::Rate(rate)),
        }
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Cap::Off => f.write_str("off"),
            Cap::Rate(rate) => rate.fmt(f),
        }
    }
}

const UPLINK: Keys = Keys {
    known: &["cap", "window"],
    later: &["transfer_allowance"],
};
const WINDOW: Keys = Keys {
    known: &["days", "hours", "cap"],
    later: &[],
};

pub(super) fn read(root: &Section, notes: &mut Notes) -> Option<Uplink> {
    let Some(value) = root.get("uplink") else {
        return Some(Uplink::default());
    };
    let uplink = Section::of("[uplink]", value, notes)?;
    uplink.check_keys(&UPLINK, notes);
    let cap = uplink
        .get("cap")
        .and_then(|value| section::parsed(&uplink.called("cap"), value, notes));
    let tables = match uplink.get("window") {
        Some(value) => section::tables("uplink.window", value, notes),
        None => &[],
    };
    let windows = tables.iter().filter_map(|table| read_window(table, notes));
    Some(Uplink {
        cap,
        windows: windows.collect(),
    })
}

fn read_window(table: &Value, notes: &mut Notes) -> Option<UplinkWindow> {
    let window = Section::of("[[uplink.window]]", table, notes)?;
    window.check_keys(&WINDOW, notes);
    let days = match window.get("days") {
        Some(value) => section::parsed(&window.called("days"), value, notes),
        None => Some(Days::ALL),
    };
    let hours = match window.get("hours") {
        Some(value) => section::parsed(&window.called("hours"), value, notes),
        None => Some(Hours(0, DAY_MINUTES)),
    };
    let cap = window
        .required("cap", "cap = \"2 Mbit/s\", or \"off\"", notes)
        .and_then(|value| section::parsed(&window.called("cap"), value, notes));
    let Hours(from, until) = hours?;
    Some(UplinkWindow {
        days: days?,
        from,
        until,
        cap: cap?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_single_ranges_and_around_the_week_s_end() {
        let days = |text: &str| {
            let days: Days = text.parse().expect(text);
            let mut week = Weekday::Monday.cycle_forward().take(7);
            let mut marks = String::new();
            week.by_ref()
                .for_each(|day| marks.push(if days.contains(day) { 'x' } else { '.' }));
            marks
        };
        for (text, expected) in [
            ("mon-fri", "xxxxx.."),
            ("sat,sun", ".....xx"),
            ("fri-mon", "x...xxx"),
            ("Tue, thu-fri", ".x.xx.."),
            ("mon-sun", "xxxxxxx"),
            ("wed-wed", "..x...."),
        ] {
            assert_eq!(days(text), expected, "{text}");
        }
        for text in ["", "mon-", "mo", "mon;tue", "weekdays", "mon,"] {
            assert!(text.parse::<Days>().is_err(), "{text}");
        }
    }

    #[test]
    fn hours_are_exact() {
        let hours = |text: &str| text.parse::<Hours>().map(|Hours(a, b)| (a, b)).ok();
        for (text, expected) in [
            ("08:00-18:00", Some((480, 1080))),
            ("22:30 - 06:00", Some((1350, 360))),
            ("00:00-24:00", Some((0, 1440))),
            ("24:00-06:00", None),
            ("8-18", None),
            ("8:00-18:00", None),
            ("08:00-24:01", None),
            ("08:60-18:00", None),
            ("08:00-08:00", None),
            ("+8:00-18:00", None),
        ] {
            assert_eq!(hours(text), expected, "{text}");
        }
    }

    #[test]
    fn a_cap_is_a_rate_or_off() {
        assert_eq!("off".parse(), Ok(Cap::Off));
        assert_eq!("0 Mbit/s".parse(), Ok(Cap::Off));
        assert_eq!("2 Mbit/s".parse(), Ok(Cap::Rate(BitRate(2_000_000))));
        let slow = "1 kbit/s".parse::<Cap>().expect_err("too slow");
        assert_eq!(
            slow,
            "1 kbit/s is too slow: write 64 kbit/s or more, or \"off\" for no uploads"
        );
    }
}
