//! All that a running VM's point may claim, in a table.

use std::time::Duration;

use vault_format::manifest::Consistency::{self, Application, Crash, FileSystem, None as Nothing};

use super::{
    consistency::{Freeze, judge_live},
    guest_agent::GuestSystem,
    qemu::checkpoint::GuestFreeze,
};

fn agent(id: &str) -> GuestFreeze {
    GuestFreeze::Done {
        file_systems: 2,
        window: Duration::from_millis(40),
        quiesced: Duration::from_millis(90),
        system: GuestSystem {
            id: id.into(),
            ..GuestSystem::default()
        },
    }
}

#[test]
fn a_point_claims_what_was_seen_and_never_more() {
    let linux = || agent("debian");
    let windows = || agent("mswindows");
    let no_agent = || GuestFreeze::Failed("the agent said no".into());
    let none = || GuestFreeze::NotAsked;
    let hook_failed = || Freeze::Failed("exit 4".into());
    let table: [(GuestFreeze, Freeze, bool, Consistency, &str); 17] = [
        (
            linux(),
            Freeze::NotAsked,
            false,
            FileSystem,
            "guest_hooks = true",
        ),
        (linux(), Freeze::NotAsked, true, Application, "own hooks"),
        (
            linux(),
            Freeze::Done,
            false,
            Application,
            "a before hook and",
        ),
        (linux(), Freeze::Done, true, Application, "own hooks"),
        // The hook was to quiesce the application, whatever else does.
        (linux(), hook_failed(), false, FileSystem, "exit 4"),
        (linux(), hook_failed(), true, FileSystem, "exit 4"),
        (windows(), Freeze::NotAsked, false, Application, "VSS"),
        (windows(), Freeze::Done, false, Application, "VSS"),
        (windows(), hook_failed(), false, FileSystem, "exit 4"),
        // The file systems were not frozen: what else was done does not help.
        (no_agent(), Freeze::NotAsked, false, Crash, "said no"),
        (no_agent(), Freeze::Done, true, Crash, "said no"),
        (no_agent(), hook_failed(), false, Crash, "said no"),
        (none(), Freeze::Done, false, FileSystem, "not applications"),
        (none(), Freeze::Done, true, FileSystem, "not applications"),
        (none(), hook_failed(), true, Crash, "exit 4"),
        (
            none(),
            Freeze::NotAsked,
            true,
            Crash,
            "neither a guest agent",
        ),
        (
            none(),
            Freeze::NotAsked,
            false,
            Crash,
            "neither a guest agent",
        ),
    ];
    for (guest, hook, guest_hooks, expected, why) in table {
        let judged = judge_live(&guest, &hook, guest_hooks, Application);
        let row = format!("{guest:?}, {hook:?}, {guest_hooks}: {judged:?}");
        assert_eq!(judged.consistency, expected, "{row}");
        assert!(judged.why.contains(why), "{why}: {row}");
    }
    for asked in [Nothing, Crash] {
        let judged = judge_live(&none(), &Freeze::NotAsked, false, asked);
        assert_eq!(judged.consistency, Crash);
        assert_eq!(judged.why, "nothing was frozen in the guest");
    }
}
