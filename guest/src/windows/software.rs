//! Facts of the hive SOFTWARE: version and edition, restarts that are due, policy over Remote Desktop.

use super::facts::{Version, WindowsFacts};
use super::registry::Hive;
use super::system::{number, text};
use crate::GuestError;

const VERSION: &str = r"Microsoft\Windows NT\CurrentVersion";
const POLICY: &str = r"Policies\Microsoft\Windows NT\Terminal Services";

/// Keys that are there while a restart is due. Windows makes them so that a restart takes them away.
const RESTART_KEYS: [(&str, &str); 2] = [
    (
        r"Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending",
        "a component waits for a restart (Component Based Servicing)",
    ),
    (
        r"Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\RebootRequired",
        "an update waits for a restart (Windows Update)",
    ),
];

pub fn gather(hive: &Hive, facts: &mut WindowsFacts) -> Result<(), GuestError> {
    let version = version(hive);
    facts.version = facts.take(version)?;
    for (key, why) in RESTART_KEYS {
        let is_due = hive.key(key).map(|key| key.is_some());
        if facts.take(is_due)? {
            facts.pending_restart.push(why.to_owned());
        }
    }
    let denied = number(hive.value(POLICY, "fDenyTSConnections"));
    facts.remote_desktop.denied_by_policy = facts.take(denied)?.map(|denied| denied != 0);
    Ok(())
}

fn version(hive: &Hive) -> Result<Version, GuestError> {
    let Some(key) = hive.key(VERSION)? else {
        return Ok(Version::default());
    };
    let text = |name| text(key.value(name));
    let number = |name| number(key.value(name));
    // Since 10 in numbers; the text says 6.3 for ever.
    let major = number("CurrentMajorVersionNumber")?;
    let number = match (major, number("CurrentMinorVersionNumber")?) {
        (Some(major), minor) => Some((major, minor.unwrap_or_default())),
        _ => text("CurrentVersion")?.as_deref().and_then(parsed),
    };
    let build = match text("CurrentBuildNumber")? {
        Some(build) => Some(build),
        None => text("CurrentBuild")?,
    };
    Ok(Version {
        product: text("ProductName")?,
        number,
        build: build.and_then(|build| build.trim().parse().ok()),
        edition: text("EditionID")?,
        installation: text("InstallationType")?,
    })
}

fn parsed(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
