//! Reading the control log from its first entry to its last.

use crate::StoreError;
use crate::objects::Objects;
use futures::{StreamExt, stream};
use std::collections::BTreeSet;
use vault_format::control_log::{ControlLog, MOST_LOST};
use vault_format::keys::VerifyingKey;
use vault_format::names::{self, Name};
use vault_format::vault_config::VaultConfig;

/// Entries read at the same time.
const AT_ONCE: usize = 8;

/// The log, and what is wrong with it: lost entries are passed over, void ones say nothing; both are findings.
pub(super) async fn read_log(
    objects: &dyn Objects,
    config: &VaultConfig,
) -> Result<(ControlLog, Vec<String>), StoreError> {
    let listed = objects.list(names::LOG).await?;
    let numbers: BTreeSet<u64> = listed
        .iter()
        .filter_map(|object| match names::parse(&object.name)? {
            Name::Log(number) if number > 0 => Some(number),
            _ => None,
        })
        .collect();
    let mut log = ControlLog::new(config.id);
    let get = |number: u64| async move { (number, objects.get(&names::log(number)).await) };
    let mut findings = Vec::new();
    let mut entries = stream::iter(numbers).map(get).buffered(AT_ONCE);
    while let Some((number, entry)) = entries.next().await {
        // A number far behind the others is a made-up one: to count up to it would take for ever.
        if number > log.number + MOST_LOST {
            findings.push(format!(
                "control log entry {number} is far behind the others, the last of which is {}: it is left out",
                log.number
            ));
            break;
        }
        while log.number + 1 < number {
            log.skip_lost("it is lost");
        }
        match entry.map_err(StoreError::from) {
            Ok(bytes) => take(&mut log, &config.control, &bytes)?,
            Err(e) if e.is_damage() => log.skip_lost(&e.to_string()),
            Err(e) => return Err(e),
        }
    }
    // Entries that came while these were read.
    read_on(objects, &mut log, &config.control).await?;
    let void = log.void.iter();
    findings
        .extend(void.map(|(number, why)| format!("{} says nothing: {why}", names::log(*number))));
    Ok((log, findings))
}

/// Reads from where `log` ends to the first number that is not there.
pub(crate) async fn read_on(
    objects: &dyn Objects,
    log: &mut ControlLog,
    control: &VerifyingKey,
) -> Result<(), StoreError> {
    loop {
        match objects.get(&log.next_name()).await {
            Ok(bytes) => take(log, control, &bytes)?,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

fn take(log: &mut ControlLog, control: &VerifyingKey, bytes: &[u8]) -> Result<(), StoreError> {
    let name = log.next_name();
    log.read(control, bytes).map_err(StoreError::format(&name))
}
