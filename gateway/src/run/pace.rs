//! Keeps the throttle of all uploads at what the configuration says for the hour.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use vault_store::objects::Throttle;

use super::Clock;
use crate::{
    config::Uplink,
    schedule::{CapNow, cap_at},
};

/// Looked at again after so long at most: the clock may be set meanwhile.
const STEP: Duration = Duration::from_secs(30);

/// Never ends; drop it to stop.
pub async fn follow_caps(
    uplink: Uplink,
    zone: TimeZone,
    throttle: Throttle,
    clock: Arc<impl Clock>,
) {
    loop {
        let now = clock.now();
        let cap = cap_now(&uplink, &zone, now);
        if throttle.rate() != cap.rate {
            tracing::info!(rate = ?cap.rate, "the uplink's cap changes");
            throttle.set(cap.rate);
        }
        tokio::time::sleep(until(now, cap.until).min(STEP)).await;
    }
}

pub fn cap_now(uplink: &Uplink, zone: &TimeZone, now: Timestamp) -> CapNow {
    cap_at(uplink, &now.to_zoned(zone.clone()))
}

/// How long it is until then; nothing, if it has passed.
pub fn until(now: Timestamp, then: Option<Timestamp>) -> Duration {
    let length = |then: Timestamp| Duration::try_from(then.duration_since(now)).unwrap_or_default();
    then.map_or(Duration::MAX, length)
}

#[cfg(test)]
mod tests {
    use vault_store::objects::Rate;

    use super::*;
    use crate::{config::Config, run::clock::PausedClock};

    /// A week of office hours, watched every ten minutes.
    #[tokio::test(start_paused = true)]
    async fn the_throttle_follows_the_hours_of_a_week() {
        let text = "state = \"/s\"\n[vault]\nurl = \"s3://acme-dr\"\nkey = \"k\"\n[[policy]]\nname = \"p\"\n\
            rpo = \"1h\"\n[[vm]]\nname = \"a\"\npolicy = \"p\"\nsource.disks = [\"/d\"]\n[uplink]\ncap = \"8 Mbit/s\"\n\
            [[uplink.window]]\ndays = \"mon-fri\"\nhours = \"08:00-18:00\"\ncap = \"off\"\n";
        let file = std::path::Path::new("gateway.toml");
        let uplink = Config::parse(text, file, file).expect("good").uplink;
        let zone = TimeZone::get("Europe/Berlin").expect("known");
        // A Monday.
        let start: Timestamp = "2026-11-16T00:00:00+01:00".parse().expect("a time");
        let clock = Arc::new(PausedClock {
            start,
            began: tokio::time::Instant::now(),
        });
        let throttle = Throttle::default();
        let follow = follow_caps(uplink, zone.clone(), throttle.clone(), clock.clone());
        let follow = tokio::spawn(follow);
        let mut off_minutes = 0;
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..7 * 24 * 6 {
            let local = clock.now().to_zoned(zone.clone());
            let weekend = matches!(local.weekday().to_monday_one_offset(), 6 | 7);
            let off = !weekend && (8..18).contains(&local.hour());
            let expected = if off {
                Rate::Off
            } else {
                Rate::bytes_per_second(1_000_000)
            };
            assert_eq!(throttle.rate(), expected, "{local}");
            off_minutes += if off { 10 } else { 0 };
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        assert_eq!(off_minutes, 5 * 10 * 60);
        follow.abort();
    }
}
