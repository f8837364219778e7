//! What may be claimed of a point, decided from what was seen. Pure.

use console::Finding;
use vault_format::manifest::Consistency;
use virtual_disk::InUse;

use super::qemu::checkpoint::GuestFreeze;

/// What came of the `before` hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freeze {
    /// The VM has no such hook.
    NotAsked,
    Done,
    /// It did its work, and printed that no more than this may be claimed.
    Said(Consistency),
    Failed(String),
}

/// Why the disks of a list are not read. After a hook that failed something else may lie at their paths, such as the base
/// disk that a running VM no longer writes to: a point of it would be weeks old, and dated now. Who asks for nothing gets
/// what lies there.
pub fn refusal(freeze: &Freeze, asked: Consistency) -> Option<String> {
    match freeze {
        Freeze::Failed(why) if asked > Consistency::None => Some(format!(
            "the before hook failed, so nothing was read: {why}"
        )),
        _ => None,
    }
}

/// A consistency, and why it is not higher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub consistency: Consistency,
    pub why: String,
}

impl Judged {
    /// The same of a guest that is not to be frozen: that is why there is no more. A hook may have frozen it all the same.
    pub fn not_to_be_frozen(self, guest: &GuestFreeze, why: Option<&str>) -> Judged {
        match (guest, why) {
            (GuestFreeze::NotAsked, Some(why)) if self.consistency == Consistency::Crash => {
                Judged {
                    why: why.to_owned(),
                    ..self
                }
            }
            _ => self,
        }
    }
}

fn at_most(judged: Judged, most: Consistency) -> Judged {
    match judged.consistency <= most {
        true => judged,
        false => Judged {
            consistency: most,
            why: format!("the before hook said so (it printed `consistency {most}`)"),
        },
    }
}

/// `uses` has the path and the use of every disk that is captured.
///
/// A hook that failed may have frozen some of the disks and stopped halfway: nothing is known of
/// them then, also where nothing seems to use them.
pub fn judge(freeze: &Freeze, uses: &[(String, InUse)]) -> Judged {
    let judged = |consistency, why: String| Judged { consistency, why };
    match freeze {
        Freeze::Failed(why) => judged(Consistency::None, format!("the before hook failed: {why}")),
        Freeze::Done => judged(
            Consistency::FileSystem,
            "a hook freezes file systems, not applications".into(),
        ),
        Freeze::Said(most) => at_most(judge(&Freeze::Done, uses), *most),
        Freeze::NotAsked => match uses.iter().find_map(in_use) {
            Some(why) => judged(Consistency::None, why),
            None => judged(
                Consistency::Crash,
                "nothing has the disks in use, and no hook froze them".into(),
            ),
        },
    }
}

/// Of a running VM whose disks were frozen at one instant by its hypervisor. `guest_hooks`: the guest's own freeze
/// hooks quiesce its applications, as its owner says.
pub fn judge_live(
    guest: &GuestFreeze,
    hook: &Freeze,
    guest_hooks: bool,
    asked: Consistency,
) -> Judged {
    let judged = |consistency, why: &str| Judged {
        consistency,
        why: why.to_owned(),
    };
    match (guest, hook) {
        (_, Freeze::Said(most)) => {
            at_most(judge_live(guest, &Freeze::Done, guest_hooks, asked), *most)
        }
        (GuestFreeze::Done { .. }, Freeze::Failed(why)) => judged(
            Consistency::FileSystem,
            &format!("the guest agent froze the file systems, but the before hook failed: {why}"),
        ),
        (GuestFreeze::Done { system, .. }, _) if guest_hooks || system.quiesces_applications() => {
            judged(
                Consistency::Application,
                "the guest's own hooks, or VSS, did it",
            )
        }
        (GuestFreeze::Done { .. }, Freeze::Done) => judged(
            Consistency::Application,
            "a before hook and the guest agent did it",
        ),
        (GuestFreeze::Done { .. }, _) => judged(
            Consistency::FileSystem,
            "the guest agent froze the file systems; say `guest_hooks = true` if hooks in the guest quiesce its applications",
        ),
        (GuestFreeze::Failed(why), _) => judged(Consistency::Crash, why),
        (GuestFreeze::NotAsked, Freeze::Done) => judged(
            Consistency::FileSystem,
            "a hook freezes file systems, not applications",
        ),
        (GuestFreeze::NotAsked, Freeze::Failed(why)) => judged(Consistency::Crash, why),
        (GuestFreeze::NotAsked, Freeze::NotAsked) if asked > Consistency::Crash => judged(
            Consistency::Crash,
            "the VM has neither a guest agent nor a before hook in the configuration",
        ),
        (GuestFreeze::NotAsked, Freeze::NotAsked) => {
            judged(Consistency::Crash, "nothing was frozen in the guest")
        }
    }
}

fn in_use((path, used): &(String, InUse)) -> Option<String> {
    match used {
        InUse::No => None,
        InUse::Yes(by) => Some(format!("{path} is in use: {by}")),
        InUse::Unknown(why) => Some(format!("whether {path} is in use cannot be told: {why}")),
    }
}

/// The finding, if the consistency is lower than the policy asks, or a hook did not do its work.
pub fn finding(vm: &str, asked: Consistency, freeze: &Freeze, had: &Judged) -> Option<Finding> {
    if had.consistency >= asked {
        let Freeze::Failed(why) = freeze else {
            return None;
        };
        let (what, remedy) = ("the before hook failed", "correct the hook, or remove it");
        return Some(Finding::new(what, format!("VM {vm}"), why, remedy));
    }
    let remedy = match (had.consistency, asked) {
        (Consistency::None, _) => {
            "give a before hook that freezes the disks and an after hook that thaws them, sync \
             while the VM is off, or ask for consistency = \"none\" in its policy"
        }
        (_, Consistency::Application) => {
            "let the before hook quiesce the applications, and ask for consistency = \
             \"file-system\" in the policy: more cannot be told of a hook"
        }
        _ => "give a before hook that freezes the file systems, or ask for less in the policy",
    };
    Some(Finding::new(
        format!("consistency is {}, {asked} was asked", had.consistency),
        format!("VM {vm}"),
        had.why.clone(),
        remedy,
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::source::guest_agent::GuestSystem;

    fn uses(states: &[InUse]) -> Vec<(String, InUse)> {
        states
            .iter()
            .map(|used| ("/srv/a.raw".to_owned(), used.clone()))
            .collect()
    }

    #[test]
    fn crash_is_claimed_only_where_every_disk_is_proved_idle() {
        let (no, yes, unknown) = (
            InUse::No,
            InUse::Yes("process 7 (qemu)".into()),
            InUse::Unknown("not root".into()),
        );
        for (states, expected) in [
            (vec![no.clone(), no.clone()], Consistency::Crash),
            (vec![no.clone(), yes.clone()], Consistency::None),
            (vec![unknown, no], Consistency::None),
        ] {
            let judged = judge(&Freeze::NotAsked, &uses(&states));
            assert_eq!(judged.consistency, expected, "{states:?}");
        }
        let judged = judge(&Freeze::NotAsked, &uses(&[yes]));
        assert_eq!(judged.why, "/srv/a.raw is in use: process 7 (qemu)");
    }

    #[test]
    fn a_hook_freezes_or_leaves_nothing_to_claim() {
        let busy = uses(&[InUse::Yes("a guest".into())]);
        assert_eq!(
            judge(&Freeze::Done, &busy).consistency,
            Consistency::FileSystem
        );
        let failed = judge(&Freeze::Failed("exit 4".into()), &uses(&[InUse::No]));
        assert_eq!(failed.consistency, Consistency::None);
        assert_eq!(failed.why, "the before hook failed: exit 4");
    }

    #[test]
    fn what_a_hook_says_lowers_what_is_claimed_and_raises_nothing() {
        let busy = uses(&[InUse::Yes("a guest".into())]);
        let frozen = GuestFreeze::Done {
            file_systems: 1,
            system: GuestSystem::default(),
            window: Duration::ZERO,
            quiesced: Duration::ZERO,
        };
        let live = |guest: &GuestFreeze, hook: &Freeze| {
            judge_live(guest, hook, true, Consistency::Application).consistency
        };
        for most in [
            Consistency::None,
            Consistency::Crash,
            Consistency::FileSystem,
        ] {
            let hook = Freeze::Said(most);
            assert_eq!(judge(&hook, &busy).consistency, most);
            assert_eq!(live(&frozen, &hook), most);
            assert_eq!(live(&GuestFreeze::NotAsked, &hook), most);
            let failed = GuestFreeze::Failed("no agent".into());
            assert_eq!(live(&failed, &hook), most.min(Consistency::Crash));
        }
    }

    #[test]
    fn a_guest_that_is_not_to_be_frozen_is_the_reason_unless_a_hook_froze_it() {
        let said = |hook: &Freeze, guest: &GuestFreeze| {
            let judged = judge_live(guest, hook, false, Consistency::FileSystem);
            judged.not_to_be_frozen(guest, Some("freeze-fs=0"))
        };
        let not = said(&Freeze::NotAsked, &GuestFreeze::NotAsked);
        assert_eq!(not.why, "freeze-fs=0");
        assert_eq!(not.consistency, Consistency::Crash);
        let hooked = said(&Freeze::Done, &GuestFreeze::NotAsked);
        assert_eq!(hooked.consistency, Consistency::FileSystem);
        assert_ne!(hooked.why, "freeze-fs=0");
    }

    #[test]
    fn what_a_failed_hook_left_is_read_only_where_nothing_is_asked() {
        let failed = Freeze::Failed("exit 4".into());
        for (freeze, asked, refused) in [
            (&failed, Consistency::Crash, true),
            (&failed, Consistency::Application, true),
            (&failed, Consistency::None, false),
            (&Freeze::Done, Consistency::Application, false),
            (&Freeze::NotAsked, Consistency::Crash, false),
        ] {
            let why = refusal(freeze, asked);
            assert_eq!(why.is_some(), refused, "{freeze:?} {asked}");
            assert!(why.is_none_or(|why| why.ends_with(": exit 4")));
        }
    }

    #[test]
    fn less_than_asked_is_a_finding_and_more_is_none() {
        let had = |consistency| Judged {
            consistency,
            why: "why".into(),
        };
        let all = [
            Consistency::None,
            Consistency::Crash,
            Consistency::FileSystem,
            Consistency::Application,
        ];
        for (place, asked) in all.into_iter().enumerate() {
            for (had_place, had_consistency) in all.into_iter().enumerate() {
                let had = had(had_consistency);
                let found = finding("dc01", asked, &Freeze::NotAsked, &had);
                assert_eq!(
                    found.is_some(),
                    had_place < place,
                    "{had_consistency}/{asked}"
                );
            }
        }
        let none = had(Consistency::None);
        let found = |asked, freeze: &Freeze| finding("dc01", asked, freeze, &none);
        let failed = Freeze::Failed("exit 4".into());
        assert!(found(Consistency::None, &failed).is_some());
        let found = found(Consistency::Crash, &failed).expect("found");
        assert_eq!(found.what, "consistency is none, crash was asked");
        assert_eq!(found.on, "VM dc01");
    }
}
