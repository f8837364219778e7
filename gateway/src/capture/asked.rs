//! What is asked of a running VM before anything is frozen: which disks, of what hardware, known since which captures.

use jiff::Timestamp;
use vault_store::gateway::{Gateway, KnownCapture};

use super::{CaptureError, at};
use crate::{
    config::Vm,
    source::{
        qemu::{
            LiveVm,
            checkpoint::DiskRequest,
            describe::{Disk, Facts, Hardware, describe},
            position::Trusted,
        },
        qmp::QmpError,
    },
};

/// A VM, with what is asked of its hypervisor.
#[derive(Clone)]
pub(super) struct Asked<'c> {
    pub vm: &'c Vm,
    pub live: LiveVm,
    pub disks: Vec<DiskRequest>,
    /// Name and size.
    pub excluded: Vec<(String, u64)>,
    pub hardware: Hardware,
}

impl Asked<'_> {
    /// From which captures the changes of each disk may be known, as of now.
    pub fn trust(&mut self, gateway: &Gateway) -> Result<(), CaptureError> {
        let known = gateway.captures(&self.vm.name)?;
        for disk in &mut self.disks {
            disk.trusted = trusted(&known, &disk.id);
        }
        Ok(())
    }
}

/// Of the hypervisor, while the guest runs undisturbed.
pub(super) async fn ask(vm: &Vm, live: LiveVm) -> Result<Asked<'_>, CaptureError> {
    let now = Timestamp::now().as_second();
    let facts = async {
        let mut session = live.monitor.session().await?;
        let uuid = session.run("query-uuid", serde_json::json!({})).await?;
        let facts = Facts::ask(&mut session, now).await?;
        Ok::<_, QmpError>((uuid, facts))
    };
    let (uuid, facts) = facts.await.map_err(|error| at(vm, &error))?;
    let own = std::fs::read_to_string("/sys/class/dmi/id/product_uuid").unwrap_or_default();
    if is_same_machine(uuid["UUID"].as_str().unwrap_or_default(), own.trim()) {
        return Err(at(
            vm,
            &"this gateway runs in it, and cannot go on to thaw what it froze, itself among it; run the gateway elsewhere, or protect this VM from there",
        ));
    }
    let hardware = describe(&facts).hardware;
    let Chosen { read, excluded } = choose(vm, &hardware.disks).map_err(|why| at(vm, &why))?;
    let disks = read.iter().map(|disk| DiskRequest {
        id: disk.id.clone(),
        shared: disk.shared,
        trusted: Vec::new(),
    });
    Ok(Asked {
        vm,
        disks: disks.collect(),
        excluded,
        live,
        hardware,
    })
}

/// From which captures the changes of a disk may be known.
pub(super) fn trusted(known: &[KnownCapture], disk: &str) -> Vec<Trusted> {
    let of = |capture: &KnownCapture| {
        let (_, disk_bytes) = capture.disks.iter().find(|(name, _)| name == disk)?;
        Some(Trusted {
            capture: capture.id,
            disk_bytes: *disk_bytes,
        })
    };
    known.iter().filter_map(of).collect()
}

/// A VM's disks, as its configuration parts them.
pub(super) struct Chosen<'d> {
    pub read: Vec<&'d Disk>,
    /// Name and size.
    pub excluded: Vec<(String, u64)>,
}

/// An error says what is wrong with the configuration.
pub(super) fn choose<'d>(vm: &Vm, disks: &'d [Disk]) -> Result<Chosen<'d>, String> {
    let exclude = vm.exclude();
    let has = |name: &String| disks.iter().any(|disk| disk.id == *name);
    if let Some(unknown) = exclude.iter().find(|name| !has(name)) {
        let names: Vec<&str> = disks.iter().map(|disk| disk.id.as_str()).collect();
        let has = names.join(", ");
        return Err(format!(
            "there is no disk {unknown} to exclude; it has {has}"
        ));
    }
    let (excluded, read): (Vec<_>, Vec<_>) =
        disks.iter().partition(|disk| exclude.contains(&disk.id));
    if read.is_empty() {
        return Err("it has no disk that can be captured; `check` says why".into());
    }
    let excluded = excluded
        .iter()
        .map(|disk| (disk.id.clone(), disk.size_bytes));
    Ok(Chosen {
        excluded: excluded.collect(),
        read,
    })
}

/// All zeros is a VM that was given none.
fn is_same_machine(uuid: &str, own: &str) -> bool {
    let is_given = uuid.chars().any(|c| c != '0' && c != '-');
    is_given && uuid.eq_ignore_ascii_case(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_machine_is_told_by_its_uuid_unless_it_has_none() {
        let uuid = "5a7e517e-0000-4000-8000-00000000d15c";
        assert!(is_same_machine(
            uuid,
            "5A7E517E-0000-4000-8000-00000000D15C"
        ));
        assert!(!is_same_machine(uuid, ""));
        let none = "00000000-0000-0000-0000-000000000000";
        assert!(!is_same_machine(none, none));
    }
}
