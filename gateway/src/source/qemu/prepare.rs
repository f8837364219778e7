//! All of a checkpoint that can be done while the guest runs undisturbed: what comes before the
//! instant, and the exports after it.

use console::show;
use serde_json::{Value, json};
use vault_format::ids::CaptureId;
use virtual_disk::nbd::NbdAddress;

use super::{
    LiveVm,
    checkpoint::{CheckpointError, DiskRequest, Request},
    held::{Held, HeldDisk, NewBitmap},
    instant::Moment,
    position::{self, Delta, DiskNow, NoDelta, keeps_bitmaps},
    scratch,
    sweep::{ScratchIs, Swept, remove_scratch, take_out, temporary_bitmap},
    view::{BlockView, Device, Node},
};
use crate::source::qmp::{QmpError, Session};

/// The unit of change; QEMU is asked for more where it allows no bitmap so fine.
const GRANULARITY: u64 = 4096;
const COARSEST: u64 = 1 << 30;
/// Jobs that give a device another node when they end.
const MOVING_JOBS: [&str; 3] = ["mirror", "commit", "stream"];
/// States of the VM: its last moments here, or its first.
const MIGRATING: [&str; 4] = ["inmigrate", "finish-migrate", "postmigrate", "colo"];
/// States of a migration that does not go on. While its memory is copied the VM itself is `running`.
const NO_MIGRATION: [&str; 4] = ["none", "completed", "failed", "cancelled"];

pub struct Prepared {
    pub request: Request,
    pub disks: Vec<PreparedDisk>,
}

pub struct PreparedDisk {
    pub id: String,
    pub qom_path: String,
    /// The filter, to be inserted; none for a running pass.
    pub filter: Option<String>,
    top: String,
    image: String,
    size_bytes: u64,
    delta: Result<Delta, NoDelta>,
    bitmap: NewBitmap,
}

/// `sharing`: how many VMs use their host's scratch folder at once; none for a pass over running disks, which needs none.
pub async fn prepare(request: Request, sharing: Option<u64>) -> Result<Prepared, CheckpointError> {
    let prepared = prepare_disks(&request, sharing).await;
    match prepared {
        Ok(disks) => Ok(Prepared { request, disks }),
        Err(error) => {
            undo(&request.vm, &request.capture).await;
            Err(error)
        }
    }
}

/// Takes out what this capture made, its bitmaps too. The older ones go on recording.
pub async fn undo(vm: &LiveVm, capture: &CaptureId) {
    let mut swept = Swept::default();
    let result = async {
        take_out(vm, ScratchIs::Doubtful, &mut swept).await?;
        remove_capture(vm, capture).await
    };
    if let Err(error) = result.await {
        swept.left.push(error.to_string());
    }
    remove_scratch(vm, &mut swept).await;
    if !swept.left.is_empty() {
        let left = &swept.left;
        tracing::warn!(
            vm = vm.name(),
            "of a failed capture stays until the next: {left:?}"
        );
    }
}

async fn remove_capture(vm: &LiveVm, capture: &CaptureId) -> Result<(), QmpError> {
    let mut session = vm.monitor.session().await?;
    let view = BlockView::of(&mut session).await?;
    let name = vm.mark.bitmap(capture);
    for (node, state) in &view.nodes {
        if state.dirty_bitmaps.iter().any(|bitmap| bitmap.name == name) {
            let arguments = json!({ "node": node, "name": name });
            session.run("block-dirty-bitmap-remove", arguments).await?;
        }
    }
    Ok(())
}

fn at<'a>(vm: &'a LiveVm, doing: &'static str) -> impl Fn(QmpError) -> CheckpointError + use<'a> {
    move |source| CheckpointError::Qmp {
        vm: vm.name().to_owned(),
        doing,
        source,
    }
}

async fn prepare_disks(
    request: &Request,
    sharing: Option<u64>,
) -> Result<Vec<PreparedDisk>, CheckpointError> {
    let vm = &request.vm;
    let asking = at(vm, "asking for its disks");
    let mut swept = Swept::default();
    let taken = take_out(vm, ScratchIs::Doubtful, &mut swept).await;
    taken.map_err(&asking)?;
    if !swept.done.is_empty() || !swept.left.is_empty() {
        tracing::warn!(vm = vm.name(), "an earlier capture had left: {swept:?}");
    }
    let mut session = vm.monitor.session().await.map_err(&asking)?;
    may_capture(vm, &mut session).await?;
    let view = BlockView::of(&mut session).await.map_err(&asking)?;
    let mut disks = Vec::new();
    for wish in &request.disks {
        disks.push(disk(vm, &view, wish)?);
    }
    start_server(vm, &mut session).await?;
    for (disk, wish) in disks.iter_mut().zip(&request.disks) {
        begin_tracking(request, &view, &mut session, disk, wish).await?;
    }
    drop(session);
    if let Some(sharing) = sharing {
        add_filters(vm, &mut disks, sharing).await?;
    }
    Ok(disks)
}

/// Each disk's filter, with its scratch space.
async fn add_filters(
    vm: &LiveVm,
    disks: &mut [PreparedDisk],
    sharing: u64,
) -> Result<(), CheckpointError> {
    let failed = |why: String| CheckpointError::Scratch {
        vm: vm.name().to_owned(),
        host: vm.place.host.name().to_owned(),
        folder: vm.place.scratch.folder.clone(),
        why,
    };
    let free = vm.make_scratch().await;
    let free = free.map_err(|error| failed(error.to_string()))?;
    let max = vm.place.scratch.max_bytes;
    let max = scratch::spare_bytes(free, sharing, max).map_err(|spare| {
        let (free, spare) = (show::size(free), show::size(spare));
        failed(format!(
            "{free} are free there; of its half, {spare} would be this capture's, which is too little"
        ))
    })?;
    let sizes: Vec<u64> = disks.iter().map(|disk| disk.size_bytes).collect();
    let shares = scratch::shares(&sizes, max);
    for (number, (disk, share)) in disks.iter_mut().zip(shares).enumerate() {
        let added = scratch::add_filter(vm, number, &disk.top, disk.size_bytes, share).await;
        disk.filter = Some(added.map_err(|error| match error {
            QmpError::Refused { .. } => failed(error.to_string()),
            error => at(vm, "making its scratch space")(error),
        })?);
    }
    Ok(())
}

pub async fn may_still_capture(vm: &LiveVm) -> Result<(), CheckpointError> {
    let session = vm.monitor.session().await;
    let mut session = session.map_err(at(vm, "asking for its state"))?;
    may_capture(vm, &mut session).await
}

async fn may_capture(vm: &LiveVm, session: &mut Session) -> Result<(), CheckpointError> {
    let asking = at(vm, "asking for its state");
    let not_now = |what: String| CheckpointError::NotNow {
        vm: vm.name().to_owned(),
        what,
    };
    let status = session
        .run("query-status", json!({}))
        .await
        .map_err(&asking)?;
    let status = status["status"].as_str().unwrap_or_default();
    if MIGRATING.contains(&status) {
        return Err(not_now(format!("migrating ({status})")));
    }
    let migration = session.run("query-migrate", json!({})).await;
    if let Some(status) = migrates(&migration.map_err(&asking)?) {
        return Err(not_now(format!("migrating ({status})")));
    }
    let jobs = session
        .run("query-block-jobs", json!({}))
        .await
        .map_err(&asking)?;
    let kinds = jobs.as_array().into_iter().flatten();
    let mut kinds = kinds.filter_map(|job| job["type"].as_str());
    match kinds.find(|kind| MOVING_JOBS.contains(kind)) {
        Some(kind) => Err(not_now(format!("moving a disk (a {kind} job runs)"))),
        None => Ok(()),
    }
}

/// Pure: the state of a migration that is under way.
fn migrates(answer: &Value) -> Option<&str> {
    // There is none where there never was a migration.
    let status = answer["status"].as_str()?;
    (!NO_MIGRATION.contains(&status)).then_some(status)
}

fn disk(
    vm: &LiveVm,
    view: &BlockView,
    wish: &DiskRequest,
) -> Result<PreparedDisk, CheckpointError> {
    let found: Vec<&Device> = view.devices.iter().filter(|d| d.id == wish.id).collect();
    let [device] = found[..] else {
        let names: Vec<&str> = view.devices.iter().map(|d| d.id.as_str()).collect();
        return Err(CheckpointError::NoDisk {
            vm: vm.name().to_owned(),
            disk: wish.id.clone(),
            has: names.join(", "),
        });
    };
    let cannot = |why: &str| CheckpointError::Disk {
        vm: vm.name().to_owned(),
        disk: wish.id.clone(),
        why: why.to_owned(),
    };
    let qom_path = device.qom_path.clone();
    let qom_path = qom_path.ok_or_else(|| cannot("no device of the guest has it"))?;
    let top = device
        .chain
        .first()
        .ok_or_else(|| cannot("it is an empty drive"))?;
    if vm.mark.owns(top) {
        return Err(cannot("the filter of an earlier capture is still in place"));
    }
    let image: &Node = view
        .image(device)
        .ok_or_else(|| cannot("QEMU does not name the image under it"))?;
    if image.read_only {
        return Err(cannot("it is read-only: nothing changes there"));
    }
    Ok(PreparedDisk {
        id: wish.id.clone(),
        qom_path,
        filter: None,
        top: top.clone(),
        image: image.node_name.clone(),
        size_bytes: image.image.virtual_size,
        delta: Err(NoDelta::NothingTrusted),
        bitmap: NewBitmap::default(),
    })
}

async fn start_server(vm: &LiveVm, session: &mut Session) -> Result<(), CheckpointError> {
    let path = vm.nbd_on_host.display().to_string();
    let address = json!({ "type": "unix", "data": { "path": path } });
    match session
        .run("nbd-server-start", json!({ "addr": address }))
        .await
    {
        Err(error)
            if error
                .refusal()
                .is_some_and(|words| words.contains("already running")) =>
        {
            Err(CheckpointError::ServerTaken {
                vm: vm.name().to_owned(),
            })
        }
        other => other.map(drop).map_err(at(vm, "starting its NBD server")),
    }
}

/// Decides where the changes come from, and starts the bitmap of this capture.
async fn begin_tracking(
    request: &Request,
    view: &BlockView,
    session: &mut Session,
    disk: &mut PreparedDisk,
    wish: &DiskRequest,
) -> Result<(), CheckpointError> {
    let vm = &request.vm;
    let Some(image) = view.nodes.get(&disk.image) else {
        return Ok(());
    };
    let now = DiskNow {
        size_bytes: disk.size_bytes,
        driver: &image.driver,
    };
    let position = position::plan(&vm.mark, now, &image.dirty_bitmaps, &wish.trusted);
    let tracking = at(vm, "tracking its changes");
    for name in &position.remove {
        let arguments = json!({ "node": disk.image, "name": name });
        let removed = session
            .try_ask("block-dirty-bitmap-remove", arguments)
            .await;
        removed.map_err(&tracking)?;
    }
    disk.delta = match wish.shared && position.delta.is_ok() {
        true => Err(NoDelta::Shared),
        false => position.delta,
    };
    let name = vm.mark.bitmap(&request.capture);
    let persistent = keeps_bitmaps(&image.driver);
    let added = add_bitmap(session, &disk.image, &name, persistent).await;
    disk.bitmap = added.map_err(&tracking)?;
    Ok(())
}

/// As fine as QEMU allows, and persistent if the image can store it.
async fn add_bitmap(
    session: &mut Session,
    node: &str,
    name: &str,
    mut persistent: bool,
) -> Result<NewBitmap, QmpError> {
    let mut granularity = GRANULARITY;
    let mut not_persistent = (!persistent).then(|| "the image format stores no bitmaps".to_owned());
    loop {
        let arguments = json!({
            "node": node, "name": name, "persistent": persistent, "granularity": granularity,
        });
        match session.run("block-dirty-bitmap-add", arguments).await {
            Ok(_) => {
                return Ok(NewBitmap {
                    granularity,
                    not_persistent,
                });
            }
            Err(QmpError::Refused { desc, .. }) if too_fine(&desc) && granularity < COARSEST => {
                granularity *= 2;
            }
            Err(QmpError::Refused { desc, .. }) if persistent => {
                (persistent, granularity) = (false, GRANULARITY);
                not_persistent = Some(desc);
            }
            Err(error) => return Err(error),
        }
    }
}

/// QEMU's refusals for a disk that is too large for so small a granularity.
fn too_fine(desc: &str) -> bool {
    let desc = desc.to_ascii_lowercase();
    ["granularity", "too large", "too big", "too many"]
        .iter()
        .any(|words| desc.contains(words))
}

impl PreparedDisk {
    /// A snapshot that somebody made meanwhile is between the device and the image that has the bitmaps: what was written
    /// since is in none of them.
    fn look_again(&mut self, view: &BlockView) {
        let device = view.devices.iter().find(|device| device.id == self.id);
        let image = device.and_then(|device| view.image(device));
        if self.delta.is_ok() && image.is_none_or(|image| image.node_name != self.image) {
            self.delta = Err(NoDelta::PutUnderSnapshot);
        }
    }
}

impl Prepared {
    /// The exports: after the instant, or of the running disks.
    pub async fn expose(&mut self, moment: Moment) -> Result<Held, CheckpointError> {
        let (vm, capture) = (&self.request.vm, &self.request.capture);
        let exporting = at(vm, "handing out its disks");
        let mut session = vm.monitor.session().await.map_err(&exporting)?;
        let view = BlockView::of(&mut session).await.map_err(&exporting)?;
        self.disks
            .iter_mut()
            .for_each(|disk| disk.look_again(&view));
        let temporary = temporary_bitmap(&vm.mark, capture);
        self.copy_deltas(&mut session, &temporary)
            .await
            .map_err(&exporting)?;
        let mut disks = Vec::new();
        for (number, disk) in self.disks.iter().enumerate() {
            let exported = self.export(&mut session, number, disk, &temporary).await;
            disks.push(exported.map_err(&exporting)?);
        }
        Ok(Held {
            vm: vm.clone(),
            capture: *capture,
            disks,
            freeze: moment.freeze,
            pause: moment.pause,
            at: moment.at,
            since: moment.since,
        })
    }

    /// A copy of each delta's bitmap that no longer records, all in one transaction.
    async fn copy_deltas(&self, session: &mut Session, name: &str) -> Result<(), QmpError> {
        let mut actions = Vec::new();
        for disk in &self.disks {
            if let Ok(delta) = &disk.delta {
                let node = &disk.image;
                actions.push(json!({ "type": "block-dirty-bitmap-add", "data": {
                    "node": node, "name": name, "granularity": delta.granularity,
                    "disabled": true,
                } }));
                actions.push(json!({ "type": "block-dirty-bitmap-merge", "data": {
                    "node": node, "target": name, "bitmaps": [delta.bitmap],
                } }));
            }
        }
        if actions.is_empty() {
            return Ok(());
        }
        let arguments = json!({ "actions": actions });
        session.run("transaction", arguments).await.map(drop)
    }

    async fn export(
        &self,
        session: &mut Session,
        number: usize,
        disk: &PreparedDisk,
        temporary: &str,
    ) -> Result<HeldDisk, QmpError> {
        let vm = &self.request.vm;
        let node = match &disk.filter {
            None => disk.top.clone(),
            Some(filter) => {
                let node = vm.mark.node(&format!("snap{number}"));
                // Only now: the filter under it cannot be read before it is inserted.
                let reader = json!({
                    "driver": "snapshot-access", "node-name": node, "file": filter,
                    "read-only": true,
                });
                session.run("blockdev-add", reader).await?;
                node
            }
        };
        let name = vm.mark.node(&format!("export{number}"));
        let mut arguments = json!({
            "type": "nbd", "id": name, "name": name, "node-name": node, "writable": false,
        });
        let context = disk
            .delta
            .is_ok()
            .then(|| format!("qemu:dirty-bitmap:{temporary}"));
        if context.is_some() {
            arguments["bitmaps"] = json!([{ "node": disk.image, "name": temporary }]);
        }
        session.run("block-export-add", arguments).await?;
        Ok(HeldDisk {
            id: disk.id.clone(),
            size_bytes: disk.size_bytes,
            delta: disk.delta.clone(),
            bitmap: disk.bitmap.clone(),
            frozen: disk.filter.is_some(),
            address: NbdAddress::Unix(vm.nbd_here.clone()),
            export: name,
            context,
        })
    }
}
