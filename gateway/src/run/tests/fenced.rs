//! The daemon while a VM of its site is failed over.

use super::*;
use crate::fenced::{Fenced, Hook};

fn fence(diverged_point: Option<u64>) -> Fenced {
    Fenced {
        entry: 9,
        run: Some("4f2a".into()),
        at: "2026-11-20T00:00:00Z".into(),
        on_fenced: Hook::Ran,
        on_fenced_failure: None,
        diverged_point,
        diverged_waits: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_was_failed_over_is_asked_for_now_and_then_and_goes_on_when_that_is_undone() {
    let state = tempfile::tempdir().expect("a folder");
    let _lock = RunLock::take(state.path()).expect("locked").expect("free");
    let run = Run::begin(state.path(), "", |site| {
        site.failing = Some(1);
        site.vms[1].fence = Some(fence(Some(7)));
        site.vms[1].alone = true;
    });
    tokio::time::sleep(12 * HOUR).await;
    let ages = run.ages();
    assert!(ages[0] <= HOUR && ages[2] <= HOUR, "{ages:?}");
    let tries = run
        .work
        .site(|site| site.captures.iter().filter(|(vms, _)| vms == &[1]).count());
    assert!((20..40).contains(&tries), "{tries}");
    let status = live_status(state.path()).expect("it lives");
    assert_eq!(status.vms[1].fence, Some(fence(Some(7))));
    assert_eq!(
        (status.vms[1].failures, &status.vms[1].last_failure),
        (0, &None),
        "as it should be"
    );
    // Before its disks are kept, a capture that fails is a failure.
    run.work.site(|site| site.vms[1].fence = Some(fence(None)));
    tokio::time::sleep(2 * HOUR).await;
    let status = live_status(state.path()).expect("it lives");
    assert!(status.vms[1].failures > 0, "nothing of it is kept");
    run.work.site(|site| {
        site.failing = None;
        site.vms[1].fence = None;
    });
    tokio::time::sleep(HOUR).await;
    assert!(run.ages()[1] <= HOUR);
    run.stop().await;
}

/// Real time: a program is run.
#[tokio::test]
async fn each_fencing_is_told_once_also_over_restarts() {
    let state = tempfile::tempdir().expect("a folder");
    let command = state.path().join("alert.sh");
    let script = "#!/bin/sh\necho \"$SPARESITE_ALERT $SPARESITE_ALERT_STATE\" >>\"$0.said\"\n";
    std::fs::write(&command, script).expect("written");
    std::fs::set_permissions(&command, PermissionsExt::from_mode(0o700)).expect("executable");
    let alert = format!("[alert]\ncommand = \"{}\"\n", command.display());
    let path = state.path().join("alert.sh.said");
    let said = || std::fs::read_to_string(&path).unwrap_or_default();
    let again = Fenced {
        entry: 12,
        ..fence(None)
    };
    let mut expected = String::new();
    for (fence, news) in [
        (Some(fence(None)), "fenced raised\n"),
        (Some(fence(Some(5))), "diverged-kept raised\n"),
        (Some(fence(Some(5))), ""),
        (
            Some(again),
            "fenced resolved\ndiverged-kept resolved\nfenced raised\n",
        ),
        (None, "fenced resolved\n"),
    ] {
        let run = Run::begin(state.path(), &alert, |site| site.vms[0].fence = fence);
        expected += news;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if said() == expected && !news.is_empty() {
                break;
            }
        }
        run.stop().await;
        assert_eq!(said(), expected);
    }
}
