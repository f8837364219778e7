//! Running VMs, and disks behind NBD servers: can they be asked, what of them cannot be captured or tracked and what that
//! costs, and is there room for a capture. Changes nothing there.

use std::path::Path;

use console::{Finding, show};
use jiff::Timestamp;
use vault_format::manifest::Consistency;

use super::{Checks, all_of_it, guest::Met, reading};
use crate::{
    capture::place,
    config::{Config, NbdExport, Vm},
    source::{
        host::{Host, Reach},
        nbd_list,
        qemu::{
            LiveVm,
            describe::{Description, Facts, Lack, Limit, describe},
            position::Mark,
        },
        qmp::QmpError,
    },
};

/// A VM whose QEMU we speak to.
pub async fn qemu(config: &Config, vm: &Vm, mark: &Mark, checks: &mut Checks) -> Option<Met> {
    let cannot = |why: String| {
        Finding::new(
            "the VM cannot be asked",
            on(vm),
            why,
            "start it if it is off; else see to the way there: a capture needs it",
        )
    };
    let (live, reach, facts) = match ask(config, vm, mark).await {
        Ok(asked) => asked,
        Err(why) => {
            checks.found("hypervisor", cannot(why));
            return None;
        }
    };
    let description = describe(&facts);
    let (host, version) = (live.place.host.name(), &description.hardware.qemu);
    checks.ok(
        "hypervisor",
        &vm.name,
        format!("{host}: QEMU {version} answers"),
    );
    described(vm, &description, checks);
    let nodes = facts.view.nodes.values();
    let bitmaps: Vec<_> = nodes
        .flat_map(|node| &node.dirty_bitmaps)
        .filter(|b| mark.owns(&b.name))
        .collect();
    let kept = bitmaps.iter().filter(|bitmap| bitmap.persistent).count();
    let coarse = bitmaps.iter().map(|bitmap| bitmap.granularity).max();
    let detail = coarse.map_or_else(
        || "none yet: the first capture compares all of the disks".to_owned(),
        |coarse| {
            format!(
                "{} bitmaps, {kept} of them persistent, granularity {}",
                bitmaps.len(),
                show::size(coarse)
            )
        },
    );
    checks.ok("tracking", &vm.name, detail);
    let foreign = facts
        .view
        .exports
        .iter()
        .find(|export| !mark.owns(&export.id));
    checks.add(
        "NBD server",
        &vm.name,
        match foreign {
            None => Ok("free".into()),
            Some(export) => Err(Finding::new(
                "QEMU's NBD server is in use",
                on(vm),
                format!(
                    "export {} is another program's, and QEMU serves one NBD server",
                    export.id
                ),
                "captures wait until that program is done",
            )),
        },
    );
    agent(config, vm, &live, checks).await;
    let free = free_bytes(&live.place.host, &config.scratch.folder).await;
    scratch(config, vm, free, checks);
    Some(Met::Qemu {
        live: Box::new(live),
        reach: Box::new(reach),
        hardware: Box::new(description.hardware),
    })
}

async fn ask(config: &Config, vm: &Vm, mark: &Mark) -> Result<(LiveVm, Reach, Facts), String> {
    let place = place(config, vm).await.map_err(|e| e.to_string())?;
    let reach = place.host.reach(&place.wanted(mark)).await;
    let reach = reach.map_err(|error| error.to_string())?;
    let live = LiveVm::new(place, mark.clone(), &reach);
    let facts = async {
        let mut session = live.monitor.session().await?;
        Facts::ask(&mut session, Timestamp::now().as_second()).await
    };
    let facts = facts.await.map_err(|error: QmpError| error.to_string())?;
    Ok((live, reach, facts))
}

async fn agent(config: &Config, vm: &Vm, live: &LiveVm, checks: &mut Checks) {
    let asked = config.policy_of(vm).consistency;
    let Some(agent) = &live.agent else {
        return checks.add("guest agent", &vm.name, no_agent(vm, asked));
    };
    let state = async {
        let mut session = agent.session().await?;
        let frozen = session.is_frozen().await?;
        Ok::<_, crate::source::guest_agent::AgentError>((frozen, session.past_hypervisor().await))
    };
    match state.await {
        Ok((true, _)) => checks.found(
            "guest agent",
            Finding::new(
                "the guest's file systems are frozen",
                on(vm),
                "another backup freezes them now, or left them so",
                "thaw them by guest-fsfreeze-thaw if none is going on",
            ),
        ),
        Ok((false, past)) => {
            checks.ok("guest agent", &vm.name, "answers");
            for (file_system, why) in past {
                checks.found(
                    "disks of the guest",
                    Finding::new(
                        "a disk may not be captured",
                        format!("VM {}: {file_system}", vm.name),
                        why,
                        "what is on a disk past the hypervisor is not restored; capture it where it is served",
                    ),
                );
            }
        }
        Err(error) => checks.found(
            "guest agent",
            Finding::new(
                "the guest agent does not answer",
                on(vm),
                error.to_string(),
                format!("points are crash consistent without it, and {asked} is asked"),
            ),
        ),
    }
}

pub(super) fn no_agent(vm: &Vm, asked: Consistency) -> Result<String, Finding> {
    match asked >= Consistency::FileSystem && vm.before.is_none() {
        false => Ok("none, and none is needed".into()),
        true => Err(Finding::new(
            format!("nothing freezes the guest, and {asked} is asked"),
            on(vm),
            "it has neither a guest agent nor a before hook",
            "install qemu-guest-agent in the guest and give the VM its channel, or ask for \"crash\"",
        )),
    }
}

/// Disks behind NBD servers. Blocks.
pub fn exports(vm: &Vm, exports: &[NbdExport], checks: &mut Checks) {
    for export in exports {
        let name = format!("{}/{}", vm.name, export.name);
        checks.add(
            "disk",
            &name,
            match nbd_list::size_bytes(export) {
                Ok(bytes) => Ok(exported(export, bytes)),
                Err(why) => Err(Finding::new(
                    "cannot be opened",
                    format!("disk {name}"),
                    why,
                    "",
                )),
            },
        );
    }
}

fn exported(export: &NbdExport, bytes: u64) -> String {
    let costs = match &export.bitmap {
        Some(bitmap) => format!(
            "what changed comes from bitmap {bitmap}; without it all is read, in {}",
            reading(bytes)
        ),
        None => all_of_it(bytes),
    };
    format!("{}: {}, {costs}", export.uri, show::size(bytes))
}

pub(super) fn on(vm: &Vm) -> String {
    format!("VM {}", vm.name)
}

pub(super) fn described(vm: &Vm, description: &Description, checks: &mut Checks) {
    for disk in &description.hardware.disks {
        let name = format!("{}/{}", vm.name, disk.id);
        let excluded = match vm.exclude().contains(&disk.id) {
            true => ", excluded: recreated empty",
            false => "",
        };
        let resync = reading(disk.size_bytes);
        let size = show::size(disk.size_bytes);
        checks.ok(
            "disk",
            name,
            format!(
                "{} {}, {size}, a resync reads it in {resync}{excluded}",
                disk.format, disk.file
            ),
        );
    }
    for limit in &description.limits {
        limited(vm, limit, checks);
    }
}

fn limited(vm: &Vm, limit: &Limit, checks: &mut Checks) {
    let name = format!("{}: {}", vm.name, limit.on);
    let what = match limit.lack {
        Lack::NotCaptured => "is not captured",
        Lack::NotTracked => "changes are not tracked at all times",
        Lack::Skipped | Lack::Note => {
            return checks.ok("limit", name, format!("{}: {}", limit.why, limit.cost));
        }
    };
    checks.found(
        "limit",
        Finding::new(
            what,
            format!("VM {name}"),
            limit.why.clone(),
            limit.cost.clone(),
        ),
    );
}

async fn free_bytes(host: &Host, folder: &Path) -> Option<u64> {
    let folder = folder.display().to_string();
    let said = host
        .run("df", &["-k", "--output=avail", "--", &folder])
        .await
        .ok()?;
    said.lines()
        .last()?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

pub(super) fn scratch(config: &Config, vm: &Vm, free: Option<u64>, checks: &mut Checks) {
    let (folder, max) = (config.scratch.folder.display(), config.scratch.max.0);
    let found = |why: String| {
        Err(Finding::new(
            "the scratch folder has too little room",
            on(vm),
            why,
            "free some, or give another `folder`, or less as `max`, in [scratch]",
        ))
    };
    checks.add(
        "scratch",
        &vm.name,
        match free {
            None => found(format!("{folder} cannot be looked at on the VM's host")),
            Some(free) if free < max => found(format!(
                "{folder} has {} free, and `max` is {}",
                show::size(free),
                show::size(max)
            )),
            Some(free) => Ok(format!("{folder}: {} free", show::size(free))),
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::qemu::tests::fixture::{SCSI_RAW_IOTHREAD, TestQemu, VIRTIO_QCOW2, mark};

    async fn checked(qemu: &TestQemu, scratch: &Path, max: &str) -> Checks {
        let text = format!(
            "state = \"/s\"\n[vault]\nurl = \"file:///v\"\nkey = \"/k\"\n[scratch]\nfolder = {:?}\nmax = {max:?}\n\
             [[policy]]\nname = \"p\"\nrpo = \"1h\"\nconsistency = \"file-system\"\n\
             [[vm]]\nname = \"db\"\npolicy = \"p\"\nsource = {{ qemu = {{ qmp = {:?} }} }}\n",
            scratch,
            qemu.path("qmp")
        );
        let config = Config::parse(&text, Path::new("t"), Path::new("/"));
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let mut checks = Checks::default();
        super::qemu(&config, &config.vms[0], &mark(), &mut checks).await;
        checks
    }

    fn found(checks: &Checks) -> Vec<&str> {
        checks
            .findings
            .iter()
            .map(|finding| finding.what.as_str())
            .collect()
    }

    #[test]
    fn an_export_without_a_bitmap_is_read_as_a_whole() {
        let export = |bitmap: Option<&str>| NbdExport {
            name: "a".into(),
            uri: "nbd://b/a".into(),
            bitmap: bitmap.map(str::to_owned),
        };
        let said = exported(&export(None), 3_000_000_000);
        assert!(
            said.ends_with("each cycle reads all of it, in about 20s (at 150 MB/s)"),
            "{said}"
        );
        let said = exported(&export(Some("cp-{since}")), 3_000_000_000);
        assert!(
            said.contains("from bitmap cp-{since}") && !said.contains("each cycle"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_tracked_frozen_or_kept_is_named() {
        let mut qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2), ("sd0", SCSI_RAW_IOTHREAD)]).await;
        let folder = tempfile::tempdir().expect("a folder");
        let checks = checked(&qemu, folder.path(), "64 MB").await;
        let frozen = "nothing freezes the guest, and file-system is asked";
        assert_eq!(
            found(&checks),
            ["changes are not tracked at all times", frozen]
        );
        assert!(
            checks.findings[0].on.contains("sd0"),
            "{:?}",
            checks.findings[0]
        );
        let disks: Vec<&str> = checks
            .done
            .iter()
            .filter(|c| c.what == "disk")
            .map(|c| &*c.on)
            .collect();
        assert_eq!(disks, ["db/vd0", "db/sd0"]);
        let checks = checked(&qemu, folder.path(), "900 TB").await;
        assert_eq!(
            found(&checks).last(),
            Some(&"the scratch folder has too little room")
        );
        qemu.kill();
        let checks = checked(&qemu, folder.path(), "64 MB").await;
        assert_eq!(found(&checks), ["the VM cannot be asked"]);
    }
}
