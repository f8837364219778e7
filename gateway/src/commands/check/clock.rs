//! This machine's clock against the store's: points are dated by it, and requests are refused when
//! it is far off.

use console::{Finding, show};
use jiff::Timestamp;

/// S3 refuses requests that are dated further off than this.
const MOST_SECONDS: u64 = 15 * 60;

/// The detail of a check that passed, or the finding.
pub fn judge(here: Timestamp, store: Timestamp) -> Result<String, Finding> {
    let off = here.as_second() - store.as_second();
    let direction = if off < 0 { "behind" } else { "ahead of" };
    let length = show::duration(std::time::Duration::from_secs(off.unsigned_abs()));
    let detail = format!("{length} {direction} the store's clock");
    match off.unsigned_abs() {
        0..=1 => Ok("agrees with the store's clock".into()),
        2..=MOST_SECONDS => Ok(detail),
        _ => Err(Finding::new(
            format!("the clock is {detail}"),
            "this machine",
            "recovery points are dated by it, and stores refuse requests that are dated wrongly",
            "set the clock, and keep it set with NTP (timedatectl set-ntp true)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_an_hour_is_let_pass_in_both_directions() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        for (here, passed) in [
            (0, true),
            (900, true),
            (901, false),
            (-900, true),
            (-901, false),
        ] {
            let judged = judge(at(1_000_000 + here), at(1_000_000));
            assert_eq!(judged.is_ok(), passed, "{here}");
        }
        let finding = judge(at(0), at(7200)).expect_err("off");
        assert_eq!(finding.what, "the clock is 2h behind the store's clock");
    }
}
