//! Which recovery point a VM is brought back at.

use std::fmt;
use std::str::FromStr;

use console::show;
use jiff::{SignedDuration, Timestamp};
use vault_format::manifest::Consistency;

use crate::anomaly::anomalies;
use crate::known::KnownPoint;

/// An anomaly longer ago than this before the newest point is not the one that the VM is brought back from.
const ANOMALY_DAYS: i64 = 14;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PointRule {
    #[default]
    Latest,
    /// The newest at which applications were quiesced.
    LatestApplication,
    /// The newest that a drill booted.
    LatestProven,
    /// The newest that was captured then or earlier.
    At(Timestamp),
    /// The one before the first anomalous point of the last 14 days; the latest if there is none.
    BeforeAnomaly,
}

impl FromStr for PointRule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "latest" => Ok(PointRule::Latest),
            "latest-application" => Ok(PointRule::LatestApplication),
            "latest-proven" => Ok(PointRule::LatestProven),
            "before-anomaly" => Ok(PointRule::BeforeAnomaly),
            time => time.parse().map(PointRule::At).map_err(|_| {
                "a point rule is `latest`, `latest-application`, `latest-proven`, `before-anomaly`, or a time such as \
                 2026-11-22T08:00:00Z (the newest point at or before it)"
            }),
        }
    }
}

impl fmt::Display for PointRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PointRule::Latest => f.write_str("latest"),
            PointRule::LatestApplication => f.write_str("latest-application"),
            PointRule::LatestProven => f.write_str("latest-proven"),
            PointRule::At(at) => write!(f, "{at}"),
            PointRule::BeforeAnomaly => f.write_str("before-anomaly"),
        }
    }
}

/// A point, and what is to be said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen<'a> {
    pub point: &'a KnownPoint,
    /// Points that are newer, and lost with it.
    pub newer: usize,
    /// Why it is not the newest.
    pub why: Option<String>,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPoint {
    #[error("it has no recovery point yet")]
    None,
    #[error("no recovery point has its applications quiesced")]
    NotApplication,
    #[error("no recovery point was booted by a drill")]
    NotProven,
    #[error("no recovery point was captured at or before {0}")]
    NotThen(Timestamp),
    #[error("all its recovery points are anomalous, or come after one that is")]
    Anomalous,
}

/// `points` in their order, the oldest first: the order counts, not the clocks.
pub fn choose<'a>(rule: PointRule, points: &'a [KnownPoint]) -> Result<Chosen<'a>, NoPoint> {
    let newest = |holds: &dyn Fn(&KnownPoint) -> bool| points.iter().rposition(holds);
    let mut why = None;
    let number = match rule {
        PointRule::Latest => newest(&|_| true).ok_or(NoPoint::None),
        _ if points.is_empty() => Err(NoPoint::None),
        PointRule::LatestApplication => {
            newest(&|point| point.consistency == Consistency::Application)
                .ok_or(NoPoint::NotApplication)
        }
        PointRule::LatestProven => newest(&|point| point.proven).ok_or(NoPoint::NotProven),
        PointRule::At(at) => {
            newest(&|point| point.captured_at.is_some_and(|captured| captured <= at))
                .ok_or(NoPoint::NotThen(at))
        }
        PointRule::BeforeAnomaly => match first_anomaly(points) {
            None => newest(&|_| true).ok_or(NoPoint::None),
            Some((first, what)) => {
                why = Some(format!("{} is anomalous: {what}", points[first].sequence));
                first.checked_sub(1).ok_or(NoPoint::Anomalous)
            }
        },
    }?;
    let newer = points.len() - 1 - number;
    if newer > 0 && why.is_none() {
        why = Some(format!("as `{rule}` asks"));
    }
    Ok(Chosen {
        point: &points[number],
        newer,
        why,
    })
}

fn first_anomaly(points: &[KnownPoint]) -> Option<(usize, crate::anomaly::Anomaly)> {
    let newest = points.iter().rev().find_map(|point| point.captured_at)?;
    let since = newest
        .checked_sub(SignedDuration::from_hours(ANOMALY_DAYS * 24))
        .ok()?;
    let all = anomalies(points).into_iter().enumerate();
    let recent = |number: usize| points[number].captured_at.is_some_and(|at| at >= since);
    all.filter_map(|(number, anomaly)| Some((number, anomaly?)))
        .find(|(number, _)| recent(*number))
}

impl Chosen<'_> {
    /// How old it is; empty where its time is none.
    pub fn age(&self, now: Timestamp) -> String {
        let age = |at: Timestamp| show::duration(now.duration_since(at).unsigned_abs());
        self.point.captured_at.map(age).unwrap_or_default()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A quiet one, a day after the one before it.
    pub fn point(sequence: u64) -> KnownPoint {
        let first: Timestamp = "2026-10-01T02:00:00Z".parse().unwrap();
        KnownPoint {
            sequence,
            captured_at: Some(first + SignedDuration::from_hours(24 * sequence as i64)),
            consistency: Consistency::FileSystem,
            changed_bytes: 10 << 20,
            sent_bytes: 5 << 20,
            proven: false,
        }
    }

    fn points() -> Vec<KnownPoint> {
        let mut points: Vec<_> = (1..=30).map(point).collect();
        points[11].consistency = Consistency::Application;
        points[20].consistency = Consistency::Application;
        points[17].proven = true;
        points
    }

    fn chosen(rule: &str, points: &[KnownPoint]) -> Result<u64, NoPoint> {
        choose(rule.parse().unwrap(), points).map(|chosen| chosen.point.sequence)
    }

    #[test]
    fn each_rule_takes_the_newest_of_what_it_asks_for() {
        let points = points();
        assert_eq!(chosen("latest", &points), Ok(30));
        assert_eq!(chosen("latest-application", &points), Ok(21));
        assert_eq!(chosen("latest-proven", &points), Ok(18));
        assert_eq!(chosen("2026-10-06T02:00:00Z", &points), Ok(5));
        assert_eq!(chosen("2026-10-06T01:59:59Z", &points), Ok(4));
        assert_eq!(chosen("before-anomaly", &points), Ok(30));
    }

    #[test]
    fn what_is_not_there_is_said_and_never_replaced() {
        let plain = [point(1), point(2)];
        assert_eq!(chosen("latest", &[]), Err(NoPoint::None));
        assert_eq!(chosen("before-anomaly", &[]), Err(NoPoint::None));
        assert_eq!(
            chosen("latest-application", &plain),
            Err(NoPoint::NotApplication)
        );
        assert_eq!(chosen("latest-proven", &plain), Err(NoPoint::NotProven));
        let early = "2026-01-01T00:00:00Z";
        assert_eq!(
            chosen(early, &plain),
            Err(NoPoint::NotThen(early.parse().unwrap()))
        );
        assert!(
            "newest"
                .parse::<PointRule>()
                .unwrap_err()
                .contains("`latest-proven`")
        );
    }

    #[test]
    fn the_point_before_the_first_recent_anomaly_is_taken() {
        let mut points = points();
        // Two that are recent, and one of weeks ago that is nobody's concern any more.
        for number in [9, 25, 27] {
            points[number].changed_bytes = 500 << 20;
        }
        let chosen = choose(PointRule::BeforeAnomaly, &points).unwrap();
        assert_eq!((chosen.point.sequence, chosen.newer), (25, 5));
        let why = chosen.why.unwrap();
        assert!(why.starts_with("26 is anomalous: 500 MiB changed"), "{why}");
        assert_eq!(choose(PointRule::Latest, &points).unwrap().why, None);
    }

    #[test]
    fn a_clock_that_went_back_does_not_change_the_order() {
        let mut points = points();
        points[29].captured_at = points[3].captured_at;
        points[28].captured_at = None;
        assert_eq!(chosen("latest", &points), Ok(30));
        assert_eq!(chosen("2026-10-06T02:00:00Z", &points), Ok(30));
    }
}
