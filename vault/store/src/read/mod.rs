//! The reading side of the vault: recovery points, their disks, assembling them, verifying everything. Needs the
//! recovery key. From above: [`Assembly`] and [`DiskImage`] → `engine` (chains of records) → `index`, `overlay` and `packs`.

mod assemble;
mod batch;
mod chains;
mod control;
mod damage;
mod decisions;
mod disk_image;
mod engine;
mod index;
mod limits;
mod metadata;
mod old_copy;
mod overlay;
mod packs;
mod plan;
mod points;
mod promised;
mod proof;
mod ranges;
mod runs;
mod segments;
mod task;
mod verify;
mod writing;

pub use assemble::{AssembleReport, Assembly, DiskAssembly, Survey};
pub(crate) use control::read_on;
pub use damage::log_damage;
pub use disk_image::DiskImage;
pub use limits::disks_at_once;
pub use plan::OnBytes;
pub use points::{Point, PointList, PointSelector};
pub use proof::log_proof;
pub use runs::{Appended, RunEntry, Runs};
pub use verify::{DamagedObject, PointVerdict, VerifyOptions, VerifyReport, verify};

use crate::StoreError;
use crate::objects::Objects;
use crate::setup::read_config;
use std::sync::Arc;
use vault_format::control_log::ControlLog;
use vault_format::keys::IdKey;
use vault_format::kit::{Kit, KitKeys};
use vault_format::metadata_object::Trust;
use vault_format::vault_config::VaultConfig;

/// A vault, opened with its recovery kit.
#[derive(Debug)]
pub struct Vault {
    pub objects: Arc<dyn Objects>,
    pub config: VaultConfig,
    pub keys: KitKeys,
    pub id_key: IdKey,
    pub trust: Trust,
    pub log: ControlLog,
    /// What was found wrong on the way and did not keep the vault from being opened.
    pub findings: Vec<String>,
}

impl Vault {
    /// Reads what was appended to the control log since `log` was read.
    pub async fn read_log_on(&self, log: &mut ControlLog) -> Result<(), StoreError> {
        control::read_on(&*self.objects, log, &self.config.control).await
    }

    /// Reads the vault's numbers and its control log.
    pub async fn open(
        objects: Arc<dyn Objects>,
        kit: &Kit,
        keys: KitKeys,
    ) -> Result<Vault, StoreError> {
        let (config, finding) = read_config(&*objects, kit.vault_id, kit.vault.as_deref()).await?;
        let (id_key, metadata_keys) =
            config
                .open_keys(&keys.recovery)
                .map_err(|error| StoreError::Key {
                    what: "opening the vault's keys with the kit".into(),
                    error,
                })?;
        let trust = Trust {
            vault: config.id,
            control: config.control,
            keys: metadata_keys,
        };
        let (log, log_findings) = control::read_log(&*objects, &config).await?;
        let findings = finding.into_iter().chain(log_findings).collect();
        Ok(Vault {
            objects,
            config,
            keys,
            id_key,
            trust,
            log,
            findings,
        })
    }
}
