//! Which recovery point a VM is brought back at.

use std::fmt;
use std::str::FromStr;

use console::show;
use jiff::{SignedDuration, Timestamp};
use vault_format::manifest::Consistency;

use crate::anomaly::{Anomaly, anomalies};
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
    /// The first recent anomaly, if it is of this point or of one before it.
    pub suspect: Option<String>,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPoint {
    #[error("the vault has no recovery point of it that opens")]
    None,
    #[error("no recovery point has its applications quiesced")]
    NotApplication,
    #[error("the drills booted none of its recovery points")]
    NotProven,
    #[error("no recovery point was captured at or before {0}")]
    NotThen(Timestamp),
}

/// `points` in their order, the oldest first: the order counts, not the clocks. `now` only tells clocks that are ahead.
pub fn choose<'a>(
    rule: PointRule,
    points: &'a [KnownPoint],
    now: Timestamp,
) -> Result<Chosen<'a>, NoPoint> {
    let newest = |holds: &dyn Fn(&KnownPoint) -> bool| points.iter().rposition(holds);
    let anomaly = first_anomaly(points, now);
    let number = match rule {
        _ if points.is_empty() => Err(NoPoint::None),
        PointRule::Latest => Ok(points.len() - 1),
        PointRule::LatestApplication => {
            newest(&|point| point.consistency == Consistency::Application)
                .ok_or(NoPoint::NotApplication)
        }
        PointRule::LatestProven => newest(&|point| point.proven).ok_or(NoPoint::NotProven),
        PointRule::At(at) => {
            newest(&|point| point.captured_at.is_some_and(|captured| captured <= at))
                .ok_or(NoPoint::NotThen(at))
        }
        // What is anomalous has a history before it.
        PointRule::BeforeAnomaly => Ok(match &anomaly {
            Some((first, _)) => first.saturating_sub(1),
            None => points.len() - 1,
        }),
    }?;
    let newer = points.len() - 1 - number;
    let told = anomaly.map(|(first, what)| {
        (
            first,
            format!("point {} is unusual: {what}", points[first].id.sequence),
        )
    });
    let why = match (rule, &told) {
        _ if newer == 0 => None,
        (PointRule::BeforeAnomaly, Some((_, told))) => Some(told.clone()),
        _ => Some(format!("as `{rule}` asks")),
    };
    Ok(Chosen {
        point: &points[number],
        newer,
        why,
        suspect: told
            .filter(|(first, _)| *first <= number)
            .map(|(_, told)| told),
    })
}

/// The first anomaly of the last days before the newest point, with those right before it. What has no time, or one that is
/// still to come, counts as recent.
fn first_anomaly(points: &[KnownPoint], now: Timestamp) -> Option<(usize, Anomaly)> {
    let all = anomalies(points);
    let past = |point: &KnownPoint| point.captured_at.filter(|at| *at <= now);
    let newest = points.iter().rev().find_map(past).unwrap_or(now);
    let since = newest.saturating_sub(SignedDuration::from_hours(ANOMALY_DAYS * 24));
    let since = since.unwrap_or(Timestamp::MIN);
    let recent = |number: &usize| past(&points[*number]).is_none_or(|at| at >= since);
    let mut first = (0..points.len()).find(|number| all[*number].is_some() && recent(number))?;
    while first > 0 && all[first - 1].is_some() {
        first -= 1;
    }
    Some((first, all[first]?))
}

impl Chosen<'_> {
    /// How old it is; `in …` of a clock that was ahead; empty where its time is none.
    pub fn age(&self, now: Timestamp) -> String {
        let age = |at| show::age(at, now);
        self.point.captured_at.map(age).unwrap_or_default()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::known::KnownHardware;
    use vault_format::PointId;

    /// A quiet one, a day after the one before it.
    pub fn point(sequence: u64) -> KnownPoint {
        let first: Timestamp = "2026-10-01T02:00:00Z".parse().unwrap();
        KnownPoint {
            id: PointId { epoch: 1, sequence },
            captured_at: Some(first + SignedDuration::from_hours(24 * sequence as i64)),
            consistency: Consistency::FileSystem,
            changed_bytes: 10 << 20,
            sent_bytes: 5 << 20,
            proven: false,
            hardware: KnownHardware::default(),
            disks: Vec::new(),
        }
    }

    fn points() -> Vec<KnownPoint> {
        let mut points: Vec<_> = (1..=30).map(point).collect();
        points[11].consistency = Consistency::Application;
        points[20].consistency = Consistency::Application;
        points[17].proven = true;
        points
    }

    fn now() -> Timestamp {
        "2026-11-01T00:00:00Z".parse().unwrap()
    }

    fn chosen(rule: &str, points: &[KnownPoint]) -> Result<u64, NoPoint> {
        choose(rule.parse().unwrap(), points, now()).map(|chosen| chosen.point.id.sequence)
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
        for number in [25, 27] {
            points[number].changed_bytes = 500 << 20;
        }
        let chosen = choose(PointRule::BeforeAnomaly, &points, now()).unwrap();
        assert_eq!((chosen.point.id.sequence, chosen.newer), (25, 5));
        let why = chosen.why.unwrap();
        assert!(
            why.starts_with("point 26 is unusual: 500 MiB changed"),
            "{why}"
        );
        assert_eq!(chosen.suspect, None);
        // Who takes the latest hears of it.
        let latest = choose(PointRule::Latest, &points, now()).unwrap();
        assert!(latest.suspect.unwrap().contains("point 26"));
        assert_eq!(latest.why, None);
    }

    #[test]
    fn an_old_anomaly_is_nobodys_concern_unless_it_goes_on() {
        let mut points: Vec<_> = (1..=40).map(point).collect();
        points[20].changed_bytes = 500 << 20;
        let now = "2026-12-01T00:00:00Z".parse().unwrap();
        let before = |points: &[KnownPoint]| {
            choose(PointRule::BeforeAnomaly, points, now)
                .unwrap()
                .point
                .id
                .sequence
        };
        assert_eq!(before(&points), 40);
        // It began a day before the 14 days, and went on within them: it is all one.
        points[20].changed_bytes = 1 << 20;
        (points[24].changed_bytes, points[25].changed_bytes) = (500 << 20, 500 << 20);
        assert_eq!(before(&points), 24);
    }

    #[test]
    fn a_clock_that_is_ahead_or_went_back_hides_no_anomaly() {
        let mut points = points();
        points[25].changed_bytes = 500 << 20;
        points[29].captured_at = Some("2099-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(chosen("before-anomaly", &points), Ok(25));
        let latest = choose(PointRule::Latest, &points, now()).unwrap();
        assert!(latest.age(now()).starts_with("in "));
        points[29].captured_at = None;
        assert_eq!(chosen("before-anomaly", &points), Ok(25));
        points[29].captured_at = points[3].captured_at;
        assert_eq!(chosen("latest", &points), Ok(30));
        assert_eq!(chosen("2026-10-06T02:00:00Z", &points), Ok(30));
    }
}
