//! Nodes in a QEMU that say whose a pause or a freeze is, for the sweep after a kill.

use serde_json::json;

use super::{CheckpointError, Prepared, command, failed};
use crate::source::{
    qemu::sweep::{FROZEN, STOPPED},
    qmp::{QmpError, Session},
};

/// Which VMs run and have to be paused: one that somebody paused stays as it is. Before anything is frozen, so that a
/// frozen guest waits for the insertion alone. The marks say, if all of us are killed, that pause and freeze are ours.
pub async fn add(vms: &[Prepared], pause: bool) -> Result<Vec<bool>, CheckpointError> {
    let mut running = vec![false; vms.len()];
    for (place, vm) in vms.iter().enumerate() {
        let marked = async {
            let mut session = vm.request.vm.monitor.session().await?;
            if vm.request.freeze {
                add_one(vm, &mut session, FROZEN).await?;
            }
            if pause {
                let status = session.run("query-status", json!({})).await?;
                running[place] = status["running"] == json!(true);
            }
            if running[place] {
                add_one(vm, &mut session, STOPPED).await?;
            }
            Ok(())
        };
        let marked: Result<(), QmpError> = marked.await;
        marked.map_err(|error| failed(vms, (place, error)))?;
    }
    Ok(running)
}

/// That of a freeze whose thaw was left to a guard is there still.
async fn add_one(vm: &Prepared, session: &mut Session, kind: &str) -> Result<(), QmpError> {
    let node = json!({ "driver": "null-co", "node-name": vm.request.vm.mark.node(kind) });
    match command(session, "blockdev-add", node).await {
        Err(error) if error.refusal().is_some_and(|why| why.contains("uplicate")) => Ok(()),
        other => other,
    }
}

/// A sweep takes what stays.
pub async fn remove(vms: &[Prepared], running: &[bool], all_go_on: bool, all_thawed: bool) {
    for (vm, running) in vms.iter().zip(running) {
        let stopped = (*running && all_go_on).then_some(STOPPED);
        let frozen = (vm.request.freeze && all_thawed).then_some(FROZEN);
        if stopped.or(frozen).is_some()
            && let Ok(mut session) = vm.request.vm.monitor.session().await
        {
            for kind in stopped.into_iter().chain(frozen) {
                let arguments = json!({ "node-name": vm.request.vm.mark.node(kind) });
                let _ = session.run("blockdev-del", arguments).await;
            }
        }
    }
}
