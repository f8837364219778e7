//! What a Windows guest's registry and files say: version, drivers, disks, network, Remote Desktop, restarts that are due.

mod drivers;
mod facts;
mod files;
pub mod registry;
mod software;
mod system;
#[cfg(test)]
pub(crate) mod tests;

pub use drivers::{Driver, DriverKind};
pub use facts::{
    Adapter, FirewallRule, Hibernation, HiveFacts, RemoteDesktop, Version, WindowsFacts,
};

use registry::{HIVE_LIMIT, Hive, LOG_LIMIT};

use crate::GuestError;
use crate::file_system::FileSystem;
use crate::storage::Volume;

const CONFIG: &str = "/Windows/System32/config";

/// Facts of the Windows on an NTFS volume with `/Windows/System32/config/SYSTEM`. Without that hive there are none;
/// what else cannot be read is told in [`WindowsFacts::unread`]. A disk that cannot be read ends it.
pub fn inspect(volume: &Volume, files: &dyn FileSystem) -> Result<WindowsFacts, GuestError> {
    let mut facts = WindowsFacts {
        place: volume.place.clone(),
        ..WindowsFacts::default()
    };
    // One hive after the other: either may have 256 MiB.
    {
        let hive = open(&volume.place, files, "SYSTEM")?;
        facts.hives.push(HiveFacts::of("SYSTEM", &hive));
        system::gather(&hive, &mut facts)?;
    }
    match open(&volume.place, files, "SOFTWARE") {
        Ok(hive) => {
            facts.hives.push(HiveFacts::of("SOFTWARE", &hive));
            software::gather(&hive, &mut facts)?;
        }
        Err(e) => facts.miss(e)?,
    }
    files::gather(files, &mut facts)?;
    Ok(facts)
}

fn open(place: &str, files: &dyn FileSystem, name: &str) -> Result<Hive, GuestError> {
    let path = format!("{CONFIG}/{name}");
    let what = format!("{place} {path}");
    let Some(file) = files.read(&path, HIVE_LIMIT)? else {
        let why = "it is not there".to_owned();
        return Err(GuestError::Damaged { what, why });
    };
    let mut logs = Vec::new();
    for number in [1, 2] {
        match files.read(&format!("{path}.LOG{number}"), LOG_LIMIT) {
            Ok(log) => logs.extend(log),
            Err(e @ GuestError::Disk(_)) => return Err(e),
            // The hive is read without it then, and says that it is unflushed.
            Err(e) => tracing::debug!("{what}: log {number}: {e}"),
        }
    }
    Hive::open(&what, file, &logs)
}
