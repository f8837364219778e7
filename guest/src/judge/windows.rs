//! From facts of a Windows guest to findings: which of them keep it from booting, from being reached, from seeing its
//! disks. Every remedy is a command of the running guest, run as Administrator.

mod boot;
mod network;
mod settings;
#[cfg(test)]
mod tests;
mod version;

use super::{Finding, Severity, Target};
use crate::windows::WindowsFacts;

/// All rules. `several_disks`: more than the boot disk is captured. `disk_buses`: as the manifest records them
/// (`virtio`, `scsi`, `sata`, `ide`, `nvme`), asked for [`Target::Qemu`] alone; none recorded stands for virtio.
pub fn rules(
    facts: &WindowsFacts,
    several_disks: bool,
    disk_buses: &[String],
    target: Target,
    findings: &mut Vec<Finding>,
) {
    let mut judge = Judge {
        facts,
        target,
        findings,
    };
    version::judge(&mut judge);
    boot::judge(&mut judge, disk_buses);
    network::judge(&mut judge, disk_buses);
    settings::judge(&mut judge, several_disks);
}

struct Judge<'a> {
    facts: &'a WindowsFacts,
    target: Target,
    findings: &'a mut Vec<Finding>,
}

impl Judge<'_> {
    /// `what` goes on after the volume's name.
    fn find(
        &mut self,
        code: &'static str,
        severity: Severity,
        what: impl AsRef<str>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (place, what) = (&self.facts.place, what.as_ref());
        self.findings.push(Finding {
            code,
            severity,
            target: self.target,
            what: format!("{place}: {what}"),
            why: why.into(),
            remedy: remedy.into(),
        });
    }

    /// What is put behind a statement that a hive makes.
    fn doubt(&self, hive: &str) -> String {
        let lacks =
            |facts: &&crate::windows::HiveFacts| facts.name == hive && facts.lacks_changes();
        match self.facts.hives.iter().find(lacks) {
            Some(_) => format!(
                " (the registry hive {hive} was captured before it was flushed, and its log could not be replayed: \
                 newest changes may be missing here)"
            ),
            None => String::new(),
        }
    }

    /// Hinders in a cloud, where there is no screen and no keyboard; a note at QEMU, which has both.
    fn hinders_in_cloud(&self) -> Severity {
        match self.target {
            Target::Aws | Target::Azure => Severity::Hinders,
            Target::Qemu => Severity::Note,
        }
    }

    /// 6.1 and 6.2 have no NVMe driver of their own.
    fn is_before_2012_r2(&self) -> bool {
        self.facts
            .version
            .number
            .is_some_and(|number| number < (6, 3))
    }
}
