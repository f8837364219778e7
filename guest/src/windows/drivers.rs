//! The drivers that a target may ask for: their services, and whether their files are there.

use serde::Serialize;

use super::facts::WindowsFacts;
use super::registry::{Hive, Key};
use crate::GuestError;
use crate::file_system::FileSystem;

/// What a driver is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverKind {
    /// Reaches the boot disk, or the bus that it is on: must start at boot.
    Boot,
    /// Found by Plug and Play once Windows runs.
    Network,
}

/// A driver, by its service in `Services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Driver {
    pub service: &'static str,
    pub kind: DriverKind,
    /// The service's key exists.
    pub registered: bool,
    /// 0 boot, 1 system, 2 automatic, 3 on demand, 4 disabled.
    pub start: Option<u32>,
    /// `StartOverride\0`: where it is there, the boot loader (8 and Server 2012 on) takes it for `Start`. Windows sets 3
    /// for boot drivers that the machine had no use for.
    pub start_override: Option<u32>,
    pub image_path: Option<String>,
    /// The file that the service names is there and not empty.
    pub file_present: bool,
    /// The driver store has its package: Plug and Play installs it when the device appears.
    pub staged: bool,
}

/// Service, kind, file where the service names none, INF of its package.
type Known = (&'static str, DriverKind, &'static str, &'static str);

const KNOWN: [Known; 12] = [
    ("stornvme", DriverKind::Boot, "stornvme.sys", "stornvme.inf"),
    ("AWSNVMe", DriverKind::Boot, "AWSNVMe.sys", "awsnvme.inf"),
    ("ena", DriverKind::Network, "ena.sys", "ena.inf"),
    ("xenvbd", DriverKind::Boot, "xenvbd.sys", "xenvbd.inf"),
    ("xennet", DriverKind::Network, "xennet.sys", "xennet.inf"),
    ("vmbus", DriverKind::Boot, "vmbus.sys", "wvmbus.inf"),
    ("storvsc", DriverKind::Boot, "storvsc.sys", "wstorvsc.inf"),
    ("storflt", DriverKind::Boot, "vmstorfl.sys", "wstorflt.inf"),
    ("netvsc", DriverKind::Network, "netvsc.sys", "wnetvsc.inf"),
    ("viostor", DriverKind::Boot, "viostor.sys", "viostor.inf"),
    ("vioscsi", DriverKind::Boot, "vioscsi.sys", "vioscsi.inf"),
    ("netkvm", DriverKind::Network, "netkvm.sys", "netkvm.inf"),
];

const DRIVERS: &str = "/Windows/System32/drivers";
const STORE: &str = "/Windows/System32/DriverStore/FileRepository";

/// From `Services`; files are looked for later.
pub fn registered(services: &Key<'_>) -> Result<Vec<Driver>, GuestError> {
    KNOWN.iter().map(|known| driver(services, known)).collect()
}

fn driver(services: &Key<'_>, &(service, kind, ..): &Known) -> Result<Driver, GuestError> {
    let mut driver = Driver {
        service,
        kind,
        registered: false,
        start: None,
        start_override: None,
        image_path: None,
        file_present: false,
        staged: false,
    };
    let Some(key) = services.subkey(service)? else {
        return Ok(driver);
    };
    driver.registered = true;
    driver.start = number(&key, "Start")?;
    if let Some(overrides) = key.subkey("StartOverride")? {
        driver.start_override = number(&overrides, "0")?;
    }
    if let Some(value) = key.value("ImagePath")? {
        driver.image_path = value.text()?;
    }
    Ok(driver)
}

fn number(key: &Key<'_>, name: &str) -> Result<Option<u32>, GuestError> {
    match key.value(name)? {
        Some(value) => value.number(),
        None => Ok(None),
    }
}

/// `Start` of any service.
pub fn start_of(hive: &Hive, services: &str, name: &str) -> Result<Option<u32>, GuestError> {
    match hive.value(&format!("{services}\\{name}"), "Start")? {
        Some(value) => value.number(),
        None => Ok(None),
    }
}

/// Looks for the files of what [`registered`] found.
pub fn look_for_files(files: &dyn FileSystem, facts: &mut WindowsFacts) -> Result<(), GuestError> {
    let store = facts.take(files.list(STORE))?;
    let packages: Vec<String> = store
        .iter()
        .map(|entry| entry.name.to_ascii_lowercase())
        .collect();
    let mut drivers = std::mem::take(&mut facts.drivers);
    for driver in &mut drivers {
        let Some((_, _, file, inf)) = KNOWN.iter().find(|known| known.0 == driver.service) else {
            continue;
        };
        // `ena.inf_amd64_1c4b6c8f5c1b6d0e`
        let package = format!("{inf}_");
        driver.staged = packages.iter().any(|name| name.starts_with(&package));
        let named = driver.image_path.as_deref().and_then(path_of);
        let path = named.unwrap_or_else(|| format!("{DRIVERS}/{file}"));
        driver.file_present = facts
            .take(files.size(&path))?
            .is_some_and(|bytes| bytes > 0);
    }
    facts.drivers = drivers;
    Ok(())
}

/// A service's `ImagePath` as a path of the volume; `None` for what cannot be one.
fn path_of(image: &str) -> Option<String> {
    let image = image.trim().trim_matches('"').replace('\\', "/");
    let lower = image.to_ascii_lowercase();
    let below = |prefix: &str| lower.starts_with(prefix).then(|| &image[prefix.len()..]);
    let in_windows = ["/systemroot/", "%systemroot%/", "%windir%/"];
    let path = if let Some(rest) = in_windows.into_iter().find_map(below) {
        format!("/Windows/{rest}")
    } else if let Some(rest) = below("/??/c:/").or_else(|| below("c:/")) {
        format!("/{rest}")
    } else if below("system32/").is_some() {
        format!("/Windows/{image}")
    } else {
        return None;
    };
    (!path.split('/').any(|part| part == "..")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn image_paths_are_those_of_the_volume() {
        for (image, path) in [
            (
                r"System32\drivers\stornvme.sys",
                Some("/Windows/System32/drivers/stornvme.sys"),
            ),
            (
                r"\SystemRoot\System32\drivers\ena.sys",
                Some("/Windows/System32/drivers/ena.sys"),
            ),
            (
                r"%SystemRoot%\System32\x.sys",
                Some("/Windows/System32/x.sys"),
            ),
            (r"\??\C:\Drivers\x.sys", Some("/Drivers/x.sys")),
            (r"system32\..\..\x.sys", None),
            (r"\Device\Mup\x", None),
            ("", None),
        ] {
            assert_eq!(path_of(image).as_deref(), path, "{image}");
        }
    }
}
