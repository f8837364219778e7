//! Telling the gateways what is lost or damaged, so that they build on it no more and send it anew.

use super::Vault;
use super::verify::VerifyReport;
use crate::StoreError;
use crate::setup::append_to_log;
use jiff::Timestamp;
use std::collections::BTreeSet;
use vault_format::control_log::LogEntry;
use vault_format::names;

/// Notes the damaged objects of `report` that the control log does not name yet; returns how many.
pub async fn log_damage(
    vault: &mut Vault,
    report: &VerifyReport,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let new: BTreeSet<String> = report
        .damaged
        .iter()
        .filter(|d| names::parse(&d.object).is_some() && !vault.log.damaged.contains_key(&d.object))
        .map(|d| d.object.clone())
        .collect();
    if new.is_empty() {
        return Ok(0);
    }
    let count = new.len();
    let entry = LogEntry::Damage {
        objects: new.into_iter().collect(),
    };
    append_to_log(
        &*vault.objects,
        &mut vault.log,
        &vault.keys.control,
        &entry,
        now,
    )
    .await?;
    Ok(count)
}
