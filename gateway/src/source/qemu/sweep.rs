//! Takes out of a QEMU what a capture put there: after a capture, and at the start of a gateway
//! that was killed in one. What to do is decided from what QEMU says that it has.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use vault_format::ids::CaptureId;
use virtual_disk::nbd::{self, NbdAddress};

use super::{
    LiveVm,
    position::{Mark, surplus},
    view::BlockView,
};
use crate::source::{
    guest_agent::AgentError,
    qmp::{QmpError, Session},
};

/// Between two looks at something that QEMU finishes by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// What is done sooner is waited for with the monitor held: QEMU tells it of the end, and who comes next need not hear it.
const SOON: Duration = Duration::from_millis(200);
/// For an export to close: its client's last request has to end.
const EXPORT_CLOSES: Duration = Duration::from_secs(20);
/// The node that says that we paused the VM.
pub const STOPPED: &str = "stopped";
/// The node that says that we asked for the freeze of its file systems: another program's freeze is not ours to end.
pub const FROZEN: &str = "frozen";
const TEMPORARY: &str = "temp-";

/// The bitmap that an export shows: a copy, as one that records cannot be exported.
pub fn temporary_bitmap(mark: &Mark, capture: &CaptureId) -> String {
    format!("{}{TEMPORARY}{capture}", mark.prefix())
}

/// What is in the way, in the order in which it has to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    pub exports: Vec<String>,
    /// Somebody else's exports are on the NBD server: it stays.
    pub foreign_exports: bool,
    /// Nodes over a filter: they go before it.
    pub readers: Vec<String>,
    pub put_back: Vec<PutBack>,
    pub nodes: Vec<String>,
    pub has_filters: bool,
    /// (node, bitmap)
    pub bitmaps: Vec<(String, String)>,
    pub jobs: Vec<String>,
    /// The VM was paused by us, and nobody told it to go on.
    pub stopped: bool,
    /// Its file systems may be frozen by us still. The node that says so goes when they are not.
    pub frozen: bool,
    /// Our filters that have somebody else's node above them.
    pub blocked: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutBack {
    pub qom_path: String,
    pub node: String,
}

/// Pure: what of ours is in a QEMU, bitmaps of captures left out.
pub fn leftovers(view: &BlockView, mark: &Mark) -> Leftovers {
    let mut found = Leftovers::default();
    for export in &view.exports {
        match mark.owns(&export.id) {
            true => found.exports.push(export.id.clone()),
            false if export.kind == "nbd" => found.foreign_exports = true,
            false => {}
        }
    }
    for device in &view.devices {
        let place = device.chain.iter().position(|name| mark.owns(name));
        let below = place.and_then(|at| device.chain.get(at + 1));
        match (place, below, &device.qom_path) {
            (None, ..) => {}
            (Some(0), Some(node), Some(qom_path)) => found.put_back.push(PutBack {
                qom_path: qom_path.clone(),
                node: node.clone(),
            }),
            _ => found.blocked.push(device.id.clone()),
        }
    }
    let mut nodes: Vec<(u8, &String)> = Vec::new();
    for (name, node) in &view.nodes {
        if name == &mark.node(STOPPED) {
            found.stopped = true;
        }
        if name == &mark.node(FROZEN) {
            found.frozen = true;
        } else if mark.owns(name) {
            nodes.push((rank(name, mark), name));
        }
        let ours = |name: &str| name.starts_with(&format!("{}{TEMPORARY}", mark.prefix()));
        let ours = node.dirty_bitmaps.iter().filter(|b| ours(&b.name));
        found
            .bitmaps
            .extend(ours.map(|b| (name.clone(), b.name.clone())));
    }
    nodes.sort();
    found.has_filters = nodes.iter().any(|(rank, _)| *rank == FILTER);
    for (rank, name) in nodes {
        match rank {
            0 => found.readers.push(name.clone()),
            _ => found.nodes.push(name.clone()),
        }
    }
    let jobs = view.jobs.iter().filter(|job| mark.owns(&job.id));
    found.jobs = jobs.map(|job| job.id.clone()).collect();
    found
}

/// The rank of the copy-before-write filters.
const FILTER: u8 = 1;

/// Users before what they use.
fn rank(name: &str, mark: &Mark) -> u8 {
    let kind = name.strip_prefix(&mark.prefix()).unwrap_or_default();
    let kinds = ["snap", "cbw", "scratch", "bound"];
    let at = kinds.iter().position(|prefix| kind.starts_with(prefix));
    at.map_or(9, |at| at as u8)
}

/// What a sweep did, for the log; and what it could not do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    pub done: Vec<String>,
    pub left: Vec<String>,
}

impl Swept {
    fn note(&mut self, what: String, result: Result<(), QmpError>) -> Result<(), QmpError> {
        match result {
            Ok(()) => self.done.push(what),
            Err(QmpError::Refused { desc, .. }) => self.left.push(format!("{what}: {desc}")),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether the scratch space is known to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScratchIs {
    /// The capture went well to its end.
    Good,
    /// Tried first: QEMU waits for a copy that hangs when its filter is taken out, and its guest
    /// with it. A filter whose snapshot is broken does no harm where it is.
    Doubtful,
}

/// Removes exports, filters, nodes, temporary bitmaps and the NBD server. The monitor is let go while something else is
/// waited for.
pub async fn take_out(vm: &LiveVm, scratch: ScratchIs, swept: &mut Swept) -> Result<(), QmpError> {
    let found = first_look(vm, swept).await?;
    if scratch == ScratchIs::Doubtful && found.has_filters && !vm.scratch_answers().await {
        let folder = vm.place.scratch.folder.display();
        swept.left.push(format!(
            "everything: the scratch folder {folder} hangs, and QEMU would wait for it; the \
             guest is not affected meanwhile, see to the disk of that folder"
        ));
        return Ok(());
    }
    close_exports(vm, &found.exports, swept).await?;
    let server_is_ours = !found.exports.is_empty() || answers(vm).await;
    let mut session = vm.monitor.session().await?;
    let found = leftovers(&BlockView::of(&mut session).await?, &vm.mark);
    let mut run = Run {
        session: &mut session,
        swept,
    };
    if server_is_ours && !found.foreign_exports {
        run.command("NBD server", "", "nbd-server-stop", json!({}))
            .await?;
    }
    run.remove(&found).await
}

/// What is there; and the VM goes on, if it is still as we paused it.
async fn first_look(vm: &LiveVm, swept: &mut Swept) -> Result<Leftovers, QmpError> {
    let mut session = vm.monitor.session().await?;
    let found = leftovers(&BlockView::of(&mut session).await?, &vm.mark);
    if !found.stopped {
        return Ok(found);
    }
    let status = session.run("query-status", json!({})).await?;
    if status["status"] == "paused" {
        tracing::warn!("VM {}: left paused by a capture that was killed", vm.name());
        let mut run = Run {
            session: &mut session,
            swept,
        };
        run.command("pause", "", "cont", json!({})).await?;
    }
    Ok(found)
}

/// Deleting an export begins its end.
async fn close_exports(vm: &LiveVm, exports: &[String], swept: &mut Swept) -> Result<(), QmpError> {
    if exports.is_empty() {
        return Ok(());
    }
    let mut session = vm.monitor.session().await?;
    for export in exports {
        let mut run = Run {
            session: &mut session,
            swept,
        };
        let close = json!({ "id": export, "mode": "hard" });
        run.command("export", export, "block-export-del", close)
            .await?;
    }
    let began = Instant::now();
    loop {
        let open = session.run("query-block-exports", json!({})).await?;
        let mut open = open.as_array().into_iter().flatten();
        if !open.any(|e| e["id"].as_str().is_some_and(|id| vm.mark.owns(id))) {
            return Ok(());
        }
        if began.elapsed() >= EXPORT_CLOSES {
            swept.left.push("an export that does not close".into());
            return Ok(());
        }
        session = look_again(vm, session, began).await?;
    }
}

/// Waits before the next look at what began then; the monitor is let go meanwhile if it takes its time.
pub async fn look_again(
    vm: &LiveVm,
    session: Session,
    began: Instant,
) -> Result<Session, QmpError> {
    if began.elapsed() < SOON {
        sleep(LOOK_AGAIN).await;
        return Ok(session);
    }
    drop(session);
    sleep(LOOK_AGAIN).await;
    vm.monitor.session().await
}

/// Whether an NBD server answers where only we put one. A socket that a dead QEMU left does not.
async fn answers(vm: &LiveVm) -> bool {
    let address = NbdAddress::Unix(vm.nbd_here.clone());
    let listed = move || nbd::list(&address, Duration::from_secs(5)).is_ok();
    tokio::task::spawn_blocking(listed).await.unwrap_or(false)
}

/// Removes our bitmaps that no capture of `keep` (newest first) started.
pub async fn drop_bitmaps(
    vm: &LiveVm,
    session: &mut Session,
    keep: &[CaptureId],
    swept: &mut Swept,
) -> Result<(), QmpError> {
    let view = BlockView::of(session).await?;
    let mut run = Run { session, swept };
    for (name, node) in &view.nodes {
        for bitmap in surplus(&vm.mark, &node.dirty_bitmaps, keep) {
            run.remove_bitmap(name, &bitmap).await?;
        }
    }
    Ok(())
}

struct Run<'a> {
    session: &'a mut Session,
    swept: &'a mut Swept,
}

impl Run<'_> {
    async fn command(
        &mut self,
        what: &str,
        name: &str,
        command: &str,
        arguments: serde_json::Value,
    ) -> Result<(), QmpError> {
        let result = self.session.run(command, arguments).await.map(drop);
        self.swept
            .note(format!("{what} {name}").trim().to_owned(), result)
    }

    async fn delete(&mut self, node: &str) -> Result<(), QmpError> {
        let arguments = json!({ "node-name": node });
        self.command("node", node, "blockdev-del", arguments).await
    }

    async fn remove_bitmap(&mut self, node: &str, bitmap: &str) -> Result<(), QmpError> {
        let arguments = json!({ "node": node, "name": bitmap });
        let command = "block-dirty-bitmap-remove";
        self.command("bitmap", bitmap, command, arguments).await
    }

    /// In the order in which it has to go.
    async fn remove(&mut self, found: &Leftovers) -> Result<(), QmpError> {
        for node in &found.readers {
            self.delete(node).await?;
        }
        for back in &found.put_back {
            let set = json!({ "path": back.qom_path, "property": "drive", "value": back.node });
            self.command("filter of", &back.qom_path, "qom-set", set)
                .await?;
        }
        for device in &found.blocked {
            let why = "somebody else's node is above our filter; it goes with the next sweep";
            self.swept.left.push(format!("filter of {device}: {why}"));
        }
        for node in &found.nodes {
            self.delete(node).await?;
        }
        for (node, bitmap) in &found.bitmaps {
            self.remove_bitmap(node, bitmap).await?;
        }
        for job in &found.jobs {
            self.command("job", job, "job-dismiss", json!({ "id": job }))
                .await?;
        }
        Ok(())
    }
}

/// At the start of the gateway: takes out all that a killed one left in this VM, thaws it if that may have frozen it, and
/// removes the bitmaps of captures that are not in `trusted` (newest first; none where that is not known: all stay).
///
/// A VM that is off has nothing to sweep but its scratch files.
pub async fn sweep(vm: &LiveVm, trusted: Option<&[CaptureId]>) -> Result<Swept, QmpError> {
    let mut swept = Swept::default();
    let frozen = thaw_ours(vm, &mut swept).await;
    let result = sweep_monitor(vm, trusted, &mut swept).await;
    remove_scratch(vm, &mut swept).await;
    swept.left.extend(frozen);
    result.map(|()| swept)
}

/// Files that QEMU has open still are removed with the rest of what is left.
pub async fn remove_scratch(vm: &LiveVm, swept: &mut Swept) {
    if !swept.left.is_empty() {
        return;
    }
    if let Err(why) = vm.remove_scratch().await {
        swept.left.push(format!("scratch files: {why}"));
    }
}

async fn sweep_monitor(
    vm: &LiveVm,
    trusted: Option<&[CaptureId]>,
    swept: &mut Swept,
) -> Result<(), QmpError> {
    take_out(vm, ScratchIs::Doubtful, swept).await?;
    let Some(trusted) = trusted else {
        return Ok(());
    };
    let mut session = vm.monitor.session().await?;
    drop_bitmaps(vm, &mut session, trusted, swept).await
}

/// Before all else, as the guest waits; but a paused guest's agent answers nothing, so the VM goes on first. Where the
/// monitor does not tell whose a freeze is, it may be ours. What could not be done.
async fn thaw_ours(vm: &LiveVm, swept: &mut Swept) -> Option<String> {
    let agent = vm.agent.as_ref()?;
    let is_marked = match first_look(vm, swept).await {
        Ok(found) if !found.frozen => return None,
        looked => looked.is_ok(),
    };
    let thawed = async {
        let mut session = agent.session().await?;
        if session.is_frozen().await? {
            return session.thaw().await.map(Some);
        }
        Ok(None)
    };
    match thawed.await {
        Ok(count) => {
            let freeze = count.map(|count| format!("freeze of {count} file systems"));
            swept.done.extend(freeze);
        }
        // A guest without an agent was not frozen by one.
        Err(AgentError::Absent { .. } | AgentError::Connect { .. }) if !is_marked => return None,
        Err(error) => return Some(format!("freeze: {error}")),
    }
    if is_marked && let Ok(mut session) = vm.monitor.session().await {
        let arguments = json!({ "node-name": vm.mark.node(FROZEN) });
        let _ = session.run("blockdev-del", arguments).await;
    }
    None
}

#[cfg(test)]
#[path = "tests/leftovers.rs"]
mod tests;
