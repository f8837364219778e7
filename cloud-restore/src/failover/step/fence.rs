//! The site's gateway is told, in the vault, that a VM is failed over: it adds no more recovery points of it.

use jiff::Timestamp;
use vault_format::control_log::LogEntry;
use vault_format::ids::VmId;
use vault_store::StoreError;
use vault_store::read::PointSelector;
use vault_store::setup::append_to_log;

use super::{Context, StepError, Words};
use crate::failover::find;
use crate::failure::attempting;

pub async fn fence(mut context: Context, vm: &str) -> Result<Words, StepError> {
    let id = context.world.point(vm)?.manifest.facts.vm_id;
    // So that it can be taken away when the recovery point is gone.
    context.note([("vm_id", id.to_string())]).await?;
    if !is_fenced(&context, id).await? {
        let last = newest(&context, vm).await?;
        let fence = LogEntry::Fence {
            vms: vec![id],
            run: Some(context.world.run.clone()),
            last: last.into_iter().map(|point| (id, point)).collect(),
        };
        append(&context, &fence).await?;
    }
    Ok(context.notes)
}

/// Not while another failover has this VM.
pub async fn unfence(context: Context, vm: &str) -> Result<(), StepError> {
    let noted = context
        .notes
        .get("vm_id")
        .and_then(|id| VmId::from_hex(id).ok());
    // Without a note nothing was written.
    let Some(id) = noted else { return Ok(()) };
    if !is_fenced(&context, id).await? {
        return Ok(());
    }
    for found in find::all(&context.world.open).await? {
        if found.id != context.world.run && found.has(vm) {
            tracing::warn!("VM {vm} stays fenced: run {} has it too", found.id);
            return Ok(());
        }
    }
    append(&context, &LogEntry::Unfence { vms: vec![id] }).await
}

/// The last point that a reader takes by itself: a site that knows of no fence may add others behind it. One that it adds
/// between this look and the fence is set aside too, and is there by its number.
async fn newest(context: &Context, vm: &str) -> Result<Option<String>, StepError> {
    let vault = &context.world.open.vault;
    match vault.find_point(vm, &PointSelector::Latest).await {
        Ok(point) => Ok(Some(point.manifest.facts.point.to_string())),
        Err(StoreError::NoSuchPoint { .. } | StoreError::NoSuchVm { .. }) => Ok(None),
        Err(error) => {
            Err(attempting("cannot look for the VM's newest recovery point")(error).into())
        }
    }
}

/// As the log is now: another process may have written it.
async fn is_fenced(context: &Context, id: VmId) -> Result<bool, StepError> {
    let mut log = context.world.log.lock().await;
    let read = context.world.open.vault.read_log_on(&mut log).await;
    read.map_err(attempting("cannot read the vault's control log"))?;
    Ok(log.fence(&id).is_some())
}

async fn append(context: &Context, entry: &LogEntry) -> Result<(), StepError> {
    let vault = &context.world.open.vault;
    let mut log = context.world.log.lock().await;
    let appended = append_to_log(
        &*vault.objects,
        &mut log,
        &vault.keys.control,
        entry,
        Timestamp::now(),
    );
    let failed = attempting("cannot write the fence into the vault");
    appended.await.map_err(failed)?;
    Ok(())
}
