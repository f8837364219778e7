//! Which alerts stand, decided from what is known of each VM. Pure.

use std::{collections::BTreeMap, time::Duration};

use console::show;
use jiff::Timestamp;

use super::{AlertKind, Subject};
use crate::fenced::{Fenced, Hook};

/// What is known of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmHealth {
    pub name: String,
    pub rpo_target: Duration,
    /// The instant of its newest published point.
    pub published_at: Option<Timestamp>,
    /// When the gateway first had it in its configuration.
    pub known_since: Timestamp,
    /// Jobs of it that failed in a row.
    pub failures: u32,
    pub last_failure: String,
    /// It was failed over.
    pub fenced: Option<Fenced>,
}

/// Failures in a row that are more than bad luck.
const FAILURES: u32 = 3;
/// For a first sync, or a whole RPO target if that is longer.
const FIRST_SYNC: Duration = Duration::from_secs(24 * 3600);

/// Every alert that stands now, with its words.
pub fn standing(now: Timestamp, vms: &[VmHealth]) -> BTreeMap<Subject, String> {
    let mut alerts = BTreeMap::new();
    for vm in vms {
        let fence = vm.fenced.as_ref().map(|fenced| fenced.entry);
        let mut stands = |alert, message: String| {
            let vm = vm.name.clone();
            alerts.insert(Subject { vm, alert, fence }, message);
        };
        if let Some(fenced) = &vm.fenced {
            // Told with what came of it.
            if fenced.on_fenced != Hook::NotYet {
                stands(AlertKind::Fenced, fenced.words(&vm.name));
            }
            if fenced.on_fenced == Hook::Failed {
                stands(AlertKind::OnFencedFailed, fenced.words(&vm.name));
            }
            if fenced.diverged_point.is_some() {
                stands(AlertKind::DivergedKept, fenced.words(&vm.name));
            }
        }
        let target = show::duration(vm.rpo_target);
        match vm.published_at {
            _ if vm.fenced.is_some() => {}
            Some(at) => {
                let age = since(at, now);
                if age > vm.rpo_target {
                    let age = show::duration(age);
                    stands(
                        AlertKind::RpoMissed,
                        format!(
                            "{}: RPO target missed: achieved RPO is {age}, the target is {target}",
                            vm.name
                        ),
                    );
                }
            }
            None => {
                let known = since(vm.known_since, now);
                if known > FIRST_SYNC.max(vm.rpo_target) {
                    let known = show::duration(known);
                    stands(
                        AlertKind::NeverSynced,
                        format!(
                            "{}: no recovery point yet, {known} after it was configured",
                            vm.name
                        ),
                    );
                }
            }
        }
        let may_fail = vm
            .fenced
            .as_ref()
            .is_some_and(|fenced| !fenced.lacks_its_point());
        if vm.failures >= FAILURES && !may_fail {
            let (count, why) = (vm.failures, &vm.last_failure);
            stands(
                AlertKind::JobFailing,
                format!("{}: failed {count} times in a row: {why}", vm.name),
            );
        }
    }
    alerts
}

/// Nothing, for a time in the future.
fn since(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("a time")
    }

    fn found(vm: VmHealth) -> Vec<(AlertKind, String)> {
        let alerts = standing(at(0), &[vm]).into_iter();
        alerts
            .map(|(subject, message)| (subject.alert, message))
            .collect()
    }

    fn vm() -> VmHealth {
        VmHealth {
            name: "dc01".into(),
            rpo_target: Duration::from_secs(3600),
            published_at: Some(at(-3600)),
            known_since: at(-1_000_000),
            failures: 2,
            last_failure: "disk a: no such file".into(),
            fenced: None,
        }
    }

    #[test]
    fn a_target_is_missed_from_the_next_second_on() {
        assert_eq!(found(vm()), []);
        let late = VmHealth {
            published_at: Some(at(-7200)),
            ..vm()
        };
        let words = "dc01: RPO target missed: achieved RPO is 2h, the target is 1h";
        assert_eq!(found(late), [(AlertKind::RpoMissed, words.into())]);
        let just = VmHealth {
            published_at: Some(at(-3601)),
            ..vm()
        };
        assert_eq!(found(just).len(), 1);
        let future = VmHealth {
            published_at: Some(at(9000)),
            ..vm()
        };
        assert_eq!(found(future), []);
    }

    #[test]
    fn a_first_sync_has_a_day_or_its_target() {
        let new = |known: i64, target| VmHealth {
            published_at: None,
            known_since: at(-known),
            rpo_target: Duration::from_secs(target),
            ..vm()
        };
        assert_eq!(found(new(86_400, 3600)), []);
        let words = "dc01: no recovery point yet, 2d after it was configured";
        assert_eq!(
            found(new(172_800, 3600)),
            [(AlertKind::NeverSynced, words.into())]
        );
        assert_eq!(found(new(172_800, 604_800)), []);
    }

    #[test]
    fn a_vm_that_was_failed_over_is_told_of_that_and_of_nothing_else() {
        let fenced = |on_fenced, diverged_point| Fenced {
            entry: 9,
            run: Some("4f2a".into()),
            at: "noon".into(),
            on_fenced,
            on_fenced_failure: None,
            diverged_point,
            diverged_waits: false,
        };
        let kinds = |on_fenced, diverged_point| {
            let late = VmHealth {
                published_at: Some(at(-7200)),
                failures: 9,
                fenced: Some(fenced(on_fenced, diverged_point)),
                ..vm()
            };
            let kinds = found(late).into_iter().map(|(kind, _)| kind);
            kinds.collect::<Vec<_>>()
        };
        assert_eq!(kinds(Hook::NotYet, None), []);
        // Nine times its disks could not be kept.
        let lacks = [AlertKind::JobFailing, AlertKind::Fenced];
        assert_eq!(kinds(Hook::Ran, None), lacks);
        let failed = [AlertKind::Fenced, AlertKind::OnFencedFailed];
        assert_eq!(kinds(Hook::Failed, None), failed);
        let kept = [AlertKind::Fenced, AlertKind::DivergedKept];
        assert_eq!(kinds(Hook::NotConfigured, Some(5)), kept);
    }

    #[test]
    fn the_third_failure_in_a_row_is_one_too_many() {
        let failing = VmHealth {
            failures: 3,
            ..vm()
        };
        let words = "dc01: failed 3 times in a row: disk a: no such file";
        assert_eq!(found(failing), [(AlertKind::JobFailing, words.into())]);
    }
}
