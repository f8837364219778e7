//! The site's gateway is told, in the vault, that a VM is failed over: it adds no more recovery points of it.

use jiff::Timestamp;
use vault_format::control_log::LogEntry;
use vault_store::setup::append_to_log;

use super::{Context, StepError, Words};
use crate::failure::attempting;

pub async fn fence(mut context: Context, vm: &str) -> Result<Words, StepError> {
    let id = context.world.point(vm)?.manifest.facts.vm_id;
    let was = context.world.log.lock().await.fenced.contains(&id);
    // One that another run set is not this run's to take away.
    let was = context
        .notes
        .get("was_fenced")
        .cloned()
        .unwrap_or_else(|| was.to_string());
    context.note([("was_fenced", was.clone())]).await?;
    if was != "true" {
        append(&context, &LogEntry::Fence { vms: vec![id] }).await?;
    }
    Ok(Words::from([("was_fenced".into(), was)]))
}

pub async fn unfence(context: Context, vm: &str) -> Result<(), StepError> {
    let id = context.world.point(vm)?.manifest.facts.vm_id;
    if context
        .notes
        .get("was_fenced")
        .is_some_and(|was| was == "true")
    {
        return Ok(());
    }
    if !context.world.log.lock().await.fenced.contains(&id) {
        return Ok(());
    }
    append(&context, &LogEntry::Unfence { vms: vec![id] }).await
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
    )
    .await;
    appended.map_err(attempting("cannot write the fence into the vault"))?;
    Ok(())
}
