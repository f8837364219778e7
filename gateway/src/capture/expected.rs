//! How a capture goes into the outbox, decided before anything is frozen.

use console::show;
use vault_store::gateway::{CapturePlan, Hold, OutboxUse, plan_capture};

/// What the reading of so many changed bytes adds to the outbox at most, apart from what is compressed: metadata.
fn expected_bytes(changed: u64) -> u64 {
    changed + changed / 64 + (1 << 20)
}

/// For one VM; `Err` says why it is not begun. What it takes is taken in `outbox` for who comes after it.
pub fn hold(outbox: &mut OutboxUse, vm: &str, changed: u64) -> Result<Hold, String> {
    let expected = expected_bytes(changed);
    let plan = plan_capture(outbox, vm, expected);
    if plan != CapturePlan::NoRoom {
        outbox.used_bytes += expected;
    }
    match plan {
        CapturePlan::Append => Ok(Hold::Checkpoint),
        CapturePlan::Supersede => Ok(Hold::Superseding),
        CapturePlan::NoRoom => Err(format!(
            "{} changed, and the outbox has no room for it ({} of {} are taken): raise `max` in [outbox], or let the uplink catch up; the changes are kept by the hypervisor meanwhile",
            show::size(changed),
            show::size(outbox.used_bytes),
            show::size(outbox.most_bytes),
        )),
    }
}

/// Whether it fits behind what waits already: what a first sync's passes have to come to.
pub fn fits(outbox: &OutboxUse, vm: &str, changed: u64) -> bool {
    plan_capture(outbox, vm, expected_bytes(changed)) == CapturePlan::Append
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_begun_and_says_what_to_do() {
        let mut outbox = OutboxUse {
            most_bytes: 100 << 20,
            used_bytes: 80 << 20,
            ..OutboxUse::default()
        };
        let outbox = &mut outbox;
        assert_eq!(hold(outbox, "dc01", 8 << 20), Ok(Hold::Checkpoint));
        // Of the same instant: what the first one takes is taken, and what its replacement would take.
        let why = hold(outbox, "dc02", 8 << 20).expect_err("no room");
        assert!(why.contains("raise `max` in [outbox]"), "{why}");
        assert_eq!(hold(outbox, "dc02", 1 << 20), Ok(Hold::Checkpoint));
        let why = hold(outbox, "dc01", 10 << 20).expect_err("no room");
        assert!(why.contains("raise `max` in [outbox]"), "{why}");
        assert!(!fits(outbox, "dc01", 10 << 20));
    }
}
