//! A domain of libvirt: can it be asked, what of it cannot be captured or tracked, and what a backup job may do to it.
//! Changes nothing there.

use console::Finding;
use jiff::Timestamp;

use super::{
    Checks,
    guest::Met,
    running::{described, no_agent, on, scratch},
};
use crate::{
    capture::domain_of,
    config::{Config, LibvirtSource, Vm},
    source::{
        host::Host,
        libvirt::{Domain, LibvirtError, Seen},
    },
};

pub async fn check(
    config: &Config,
    vm: &Vm,
    source: &LibvirtSource,
    checks: &mut Checks,
) -> Option<Met> {
    let mut domain = domain_of(config, vm, source);
    let now = Timestamp::now().as_second();
    let seen = match domain.look(&config.scratch.folder, now).await {
        Ok(seen) => seen,
        Err(error) => {
            let finding = Finding::new(
                "libvirt cannot be asked for the domain",
                on(vm),
                error.to_string(),
                "correct `domain` or `host`, and give this user the right to manage domains",
            );
            checks.found("hypervisor", finding);
            return None;
        }
    };
    domain.name.clone_from(&seen.uuid);
    checks.add("hypervisor", &vm.name, state(vm, &domain.host, &seen));
    described(vm, &seen.description, checks);
    versions(vm, &domain, &seen, checks).await;
    agent(config, vm, (&domain, &seen), checks).await;
    scratch(config, vm, Some(seen.free_bytes), checks);
    checks.found("guest's writes", Finding::new(
        "a backup job of libvirt can reach the guest",
        on(vm),
        "libvirt gives QEMU no other choice than to fail a guest's write whose old content cannot be kept, and to \
         wait as long as the scratch folder does; only libvirt can end the job, also when it does not answer",
        "keep the scratch folder on a fast local disk with room: a job is given up at `max` in [scratch], or at half of \
         what is free; `qemu` with a QMP socket has no such limit",
    ));
    Some(Met::Libvirt {
        domain: Box::new(domain),
        seen: Box::new(seen),
    })
}

/// Whether a capture can begin at all.
fn state(vm: &Vm, host: &Host, seen: &Seen) -> Result<String, Finding> {
    let detail = format!("{}: the domain is {}", host.name(), seen.state);
    if !seen.persistent {
        return Err(Finding::new(
            "the domain is transient",
            on(vm),
            "libvirt keeps checkpoints of persistent domains only",
            "`virsh define` it",
        ));
    }
    match (seen.is_running(), host) {
        (true, _) => Ok(detail),
        (false, Host::Local) => Ok(format!(
            "{detail}: its disks are read as they lie, all of them each time"
        )),
        (false, Host::Ssh(_)) => Err(Finding::new(
            "the domain is off, and every capture fails",
            on(vm),
            LibvirtError::NotRunning(seen.state.clone()).to_string(),
            "start it, or protect its images as `disks` by a gateway on that host",
        )),
    }
}

/// QEMU keeps no bitmap in an image of qcow2's version 2, and libvirt then begins no job.
async fn versions(vm: &Vm, domain: &Domain, seen: &Seen, checks: &mut Checks) {
    let disks = &seen.description.hardware.disks;
    for disk in disks.iter().filter(|disk| disk.format == "qcow2") {
        if vm.exclude().contains(&disk.id) || !domain.is_version_2(&disk.file).await {
            continue;
        }
        checks.found(
            "limit",
            Finding::new(
                "the image cannot hold a checkpoint, and every capture fails",
                format!("VM {}: {}", vm.name, disk.id),
                format!("{} is qcow2 version 2, without dirty bitmaps", disk.file),
                format!(
                    "`qemu-img amend -f qcow2 -o compat=1.1 {}` while the VM is off",
                    disk.file
                ),
            ),
        );
    }
}

async fn agent(config: &Config, vm: &Vm, (domain, seen): (&Domain, &Seen), checks: &mut Checks) {
    let asked = config.policy_of(vm).consistency;
    if !seen.has_agent {
        return checks.add("guest agent", &vm.name, no_agent(vm, asked));
    }
    if !seen.is_running() {
        return checks.ok("guest agent", &vm.name, "has its channel; the VM is off");
    }
    let beside = match domain.beside_libvirt().await {
        Ok(beside) => beside,
        Err(error) => {
            return checks.found(
                "guest agent",
                Finding::new(
                    "the guest agent does not answer",
                    on(vm),
                    error.to_string(),
                    format!(
                        "install and start qemu-guest-agent in the guest: points are crash consistent without it, and \
                         {asked} is asked; what the guest reaches over iSCSI is not known either"
                    ),
                ),
            );
        }
    };
    let detail = "answers; of NFS and SMB mounts it does not tell, and they are not captured";
    checks.ok("guest agent", &vm.name, detail);
    for file_system in beside {
        checks.found(
            "disks of the guest",
            Finding::new(
                "a file system may not be captured",
                format!("VM {}: {file_system}", vm.name),
                "libvirt knows no disk of the domain under it: the guest reaches it by itself (iSCSI), or by a device \
                 that is passed through",
                "what is on it is not restored; capture it where it is served",
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::source::{host::Ssh, libvirt::tests::fixture::TestLibvirt};

    fn config() -> Config {
        let text = "state = \"/s\"\n[vault]\nurl = \"file:///v\"\nkey = \"/k\"\n\
                    [[policy]]\nname = \"p\"\nrpo = \"1h\"\n\
                    [[vm]]\nname = \"db\"\npolicy = \"p\"\nsource = { libvirt = { domain = \"dc01\" } }\n";
        let config = Config::parse(text, Path::new("t"), Path::new("/"));
        config.unwrap_or_else(|error| panic!("{error}"))
    }

    #[tokio::test]
    async fn what_makes_every_capture_fail_is_named() {
        let Some(libvirt) = TestLibvirt::start().await else {
            return;
        };
        let config = config();
        let vm = &config.vms[0];
        let (domain, far) = (&libvirt.domain, Host::Ssh(Ssh::new("kvm1", "kvm1")));
        let mut seen = libvirt.look().await;
        assert!(state(vm, &far, &seen).is_ok());
        let mut checks = Checks::default();
        versions(vm, domain, &seen, &mut checks).await;
        assert!(checks.findings.is_empty(), "{:?}", checks.findings);
        // There is no guest.
        agent(&config, vm, (domain, &seen), &mut checks).await;
        let finding = checks.findings.pop().expect("one");
        assert_eq!(finding.what, "the guest agent does not answer");

        libvirt.virsh(&["destroy", "dc01"]).await;
        seen = libvirt.look().await;
        assert!(state(vm, &Host::Local, &seen).is_ok());
        let finding = state(vm, &far, &seen).expect_err("off");
        assert_eq!(finding.what, "the domain is off, and every capture fails");
        let old = ["create", "-q", "-f", "qcow2", "-o", "compat=0.10"];
        let image = &seen.description.hardware.disks[0].file;
        let made = [&old[..], &[image.as_str(), "64M"]].concat();
        domain.host.run("qemu-img", &made).await.expect("made");
        versions(vm, domain, &seen, &mut checks).await;
        let found = &checks.findings[0];
        assert_eq!(
            (found.on.as_str(), checks.findings.len()),
            ("VM db: vda", 1)
        );
        seen.persistent = false;
        assert!(state(vm, &Host::Local, &seen).is_err());
    }
}
