//! How fast uploads may go at an instant, and until when that holds. Pure.

use jiff::{
    Timestamp, ToSpan, Zoned,
    civil::{DateTime, Time},
    tz::TimeZone,
};
use vault_store::objects::Rate;

use crate::config::{Cap, Uplink, UplinkWindow};

/// A rate and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapNow {
    pub rate: Rate,
    /// `None`: for good.
    pub until: Option<Timestamp>,
}

/// Windows repeat every week; a day more, since one may begin the evening before.
const HORIZON_DAYS: i64 = 8;

/// `at` is in the time zone of the configuration.
pub fn cap_at(uplink: &Uplink, at: &Zoned) -> CapNow {
    let zone = at.time_zone();
    let rate = |at: Timestamp| rate_of(in_force(uplink, at.to_zoned(zone.clone()).datetime()));
    let now = rate(at.timestamp());
    let mut changes = edges(uplink, at);
    changes.retain(|edge| *edge > at.timestamp());
    changes.sort_unstable();
    CapNow {
        rate: now,
        until: changes.into_iter().find(|edge| rate(*edge) != now),
    }
}

fn rate_of(cap: Option<Cap>) -> Rate {
    match cap {
        None => Rate::Unlimited,
        Some(Cap::Off) => Rate::Off,
        Some(Cap::Rate(rate)) => Rate::bytes_per_second(rate.bytes_per_second()),
    }
}

fn in_force(uplink: &Uplink, local: DateTime) -> Option<Cap> {
    let window = uplink.windows.iter().find(|window| covers(window, local));
    window.map_or(uplink.cap, |window| Some(window.cap))
}

fn covers(window: &UplinkWindow, local: DateTime) -> bool {
    let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
    let (from, until) = (i32::from(window.from), i32::from(window.until));
    let today = window.days.contains(local.weekday());
    let yesterday = window.days.contains(local.weekday().previous());
    match from < until {
        true => today && (from..until).contains(&minute),
        // Past midnight: the morning belongs to the day before.
        false => (today && minute >= from) || (yesterday && minute < until),
    }
}

/// Every instant of the coming week at which the cap may change.
fn edges(uplink: &Uplink, at: &Zoned) -> Vec<Timestamp> {
    if uplink.windows.is_empty() {
        return Vec::new();
    }
    let zone = at.time_zone();
    let minutes = uplink.windows.iter().flat_map(|w| [w.from, w.until]);
    let minutes: Vec<u16> = minutes.collect();
    let mut edges = Vec::new();
    for day in 0..=HORIZON_DAYS {
        let Ok(date) = at.date().checked_add(day.days()) else {
            break;
        };
        let midnight = date.to_datetime(Time::midnight());
        for minute in &minutes {
            let local = midnight.checked_add(i64::from(*minute).minutes());
            edges.extend(local.into_iter().flat_map(|local| instants(local, zone)));
        }
    }
    // The clock is put forward or back: a window may begin or end in the gap.
    edges.extend(
        zone.following(at.timestamp())
            .take(1)
            .map(|t| t.timestamp()),
    );
    edges
}

/// An hour that comes twice has two; one that is left out has the instants around the gap.
fn instants(local: DateTime, zone: &TimeZone) -> impl Iterator<Item = Timestamp> {
    let both = || zone.to_ambiguous_timestamp(local);
    [both().earlier(), both().later()].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use console::units::BitRate;

    use super::*;
    use crate::config::Config;

    fn uplink(text: &str) -> Uplink {
        let text = format!(
            "state = \"/s\"\n[vault]\nurl = \"s3://acme-dr\"\nkey = \"k\"\n[[policy]]\nname = \"p\"\nrpo = \"1h\"\n\
             [[vm]]\nname = \"a\"\npolicy = \"p\"\nsource.disks = [\"/d\"]\n[uplink]\n{text}"
        );
        let file = std::path::Path::new("gateway.toml");
        Config::parse(&text, file, file).expect(&text).uplink
    }

    fn megabits(rate: u64) -> Rate {
        Rate::bytes_per_second(BitRate(rate * 1_000_000).bytes_per_second())
    }

    #[track_caller]
    fn assert_cap(uplink: &Uplink, at: &str, rate: Rate, until: Option<&str>) {
        let zoned: Zoned = at.parse().expect(at);
        let until = until.map(|at| at.parse::<Zoned>().expect(at).timestamp());
        assert_eq!(cap_at(uplink, &zoned), CapNow { rate, until }, "{at}");
    }

    const OFFICE: &str = "cap = \"20 Mbit/s\"\n[[uplink.window]]\ndays = \"mon-fri\"\n\
        hours = \"08:00-18:00\"\ncap = \"2 Mbit/s\"\n";

    #[test]
    fn office_hours_are_slow_and_the_rest_is_not() {
        let uplink = uplink(OFFICE);
        // 2026-11-20 is a Friday.
        for (at, rate, until) in [
            (
                "2026-11-20T07:59:59+01[Europe/Berlin]",
                20,
                "2026-11-20T08:00+01[Europe/Berlin]",
            ),
            (
                "2026-11-20T08:00:00+01[Europe/Berlin]",
                2,
                "2026-11-20T18:00+01[Europe/Berlin]",
            ),
            (
                "2026-11-20T18:00:00+01[Europe/Berlin]",
                20,
                "2026-11-23T08:00+01[Europe/Berlin]",
            ),
            (
                "2026-11-21T12:00:00+01[Europe/Berlin]",
                20,
                "2026-11-23T08:00+01[Europe/Berlin]",
            ),
        ] {
            assert_cap(&uplink, at, megabits(rate), Some(until));
        }
    }

    #[test]
    fn a_window_past_midnight_belongs_to_the_day_on_which_it_begins() {
        let uplink =
            uplink("[[uplink.window]]\ndays = \"sat\"\nhours = \"22:00-06:00\"\ncap = \"off\"\n");
        for (at, rate, until) in [
            (
                "2026-11-21T03:00+00[UTC]",
                Rate::Unlimited,
                "2026-11-21T22:00+00[UTC]",
            ),
            (
                "2026-11-21T22:00+00[UTC]",
                Rate::Off,
                "2026-11-22T06:00+00[UTC]",
            ),
            (
                "2026-11-22T05:59:59+00[UTC]",
                Rate::Off,
                "2026-11-22T06:00+00[UTC]",
            ),
            (
                "2026-11-22T06:00+00[UTC]",
                Rate::Unlimited,
                "2026-11-28T22:00+00[UTC]",
            ),
        ] {
            assert_cap(&uplink, at, rate, Some(until));
        }
    }

    #[test]
    fn the_first_window_that_covers_the_moment_counts() {
        let uplink = uplink(
            "[[uplink.window]]\nhours = \"12:00-13:00\"\ncap = \"50 Mbit/s\"\n\
             [[uplink.window]]\nhours = \"08:00-18:00\"\ncap = \"2 Mbit/s\"\n",
        );
        assert_cap(
            &uplink,
            "2026-11-20T11:00+00[UTC]",
            megabits(2),
            Some("2026-11-20T12:00+00[UTC]"),
        );
        assert_cap(
            &uplink,
            "2026-11-20T12:00+00[UTC]",
            megabits(50),
            Some("2026-11-20T13:00+00[UTC]"),
        );
    }

    #[test]
    fn without_windows_a_cap_holds_for_good() {
        let at = "2026-11-20T11:00+00[UTC]";
        assert_cap(&uplink(""), at, Rate::Unlimited, None);
        assert_cap(&uplink("cap = \"8 Mbit/s\"\n"), at, megabits(8), None);
        let same = "cap = \"8 Mbit/s\"\n[[uplink.window]]\ndays = \"mon\"\ncap = \"8 Mbit/s\"\n";
        assert_cap(&uplink(same), at, megabits(8), None);
    }

    #[test]
    fn summer_time_moves_no_window_from_its_hours() {
        let uplink = uplink("[[uplink.window]]\nhours = \"02:15-02:45\"\ncap = \"off\"\n");
        // Forward: 02:00 to 03:00 is left out, and the window with it.
        let before = "2026-03-29T01:59+01[Europe/Berlin]";
        assert_cap(
            &uplink,
            before,
            Rate::Unlimited,
            Some("2026-03-30T02:15+02[Europe/Berlin]"),
        );
        // Back: it comes twice.
        for (at, rate, until) in [
            (
                "2026-10-25T02:20+02[Europe/Berlin]",
                Rate::Off,
                "2026-10-25T02:45+02[Europe/Berlin]",
            ),
            (
                "2026-10-25T02:50+02[Europe/Berlin]",
                Rate::Unlimited,
                "2026-10-25T02:15+01[Europe/Berlin]",
            ),
            (
                "2026-10-25T02:20+01[Europe/Berlin]",
                Rate::Off,
                "2026-10-25T02:45+01[Europe/Berlin]",
            ),
        ] {
            assert_cap(&uplink, at, rate, Some(until));
        }
    }

    /// Every minute of two weeks around a change of the clock: until its end, a cap is what it was.
    #[test]
    fn a_cap_holds_until_its_end_and_no_minute_less_or_more() {
        let uplink = uplink(&format!(
            "{OFFICE}[[uplink.window]]\ndays = \"sat\"\nhours = \"21:30-02:30\"\ncap = \"off\"\n"
        ));
        for start in [
            "2026-03-20T00:00+01[Europe/Berlin]",
            "2026-10-18T00:00+02[Europe/Berlin]",
        ] {
            let mut at: Zoned = start.parse().expect(start);
            let mut cap = cap_at(&uplink, &at);
            for _ in 0..14 * 24 * 60 {
                let found = cap_at(&uplink, &at);
                let ended = cap.until.is_some_and(|until| at.timestamp() >= until);
                assert_eq!(found.rate == cap.rate, !ended, "{at}");
                cap = found;
                at = at.checked_add(1.minute()).expect("a time");
            }
        }
    }
}
