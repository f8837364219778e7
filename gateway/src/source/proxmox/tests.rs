//! Against a stand-in for a node: the files of a Proxmox VE host in a folder, and a real QEMU whose sockets lie where
//! Proxmox puts them; over a real sshd where one is installed.

use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;

use super::*;
use crate::source::{
    host::tests::sshd,
    qemu::{
        LiveVm, Scratch, VmPlace, checkpoint,
        tests::fixture::{
            DISK_BYTES, MIB, TestQemu, VIRTIO_QCOW2, byte_at, disk, guard, mark, open, request,
        },
    },
};

/// As pmxcfs writes it.
const VMLIST: &str = r#"{
"version": 7,
"ids": {
"101": { "node": "pve1", "type": "qemu", "version": 5 },
"102": { "node": "pve2", "type": "qemu", "version": 6 },
"200": { "node": "pve1", "type": "lxc", "version": 2 }}

}
"#;
const CONF: &str = "\
agent: 1,fstrim_cloned_disks=1
boot: order=scsi0;ide2
efidisk0: local-lvm:vm-101-disk-1,efitype=4m,size=4M
ide2: local:iso/debian.iso,media=cdrom,size=600M
name: dc01
scsi0: local-lvm:vm-101-disk-0,iothread=1,size=32G
scsihw: virtio-scsi-single
virtio1: nas:101/vm-101-disk-0.qcow2,size=8G

[before-upgrade]
agent: 0
lock: snapshot
scsi5: local-lvm:vm-101-disk-9,size=1G
";

fn node() -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    let shared = root.path().join(SHARED);
    for (node, vmid, conf) in [("pve1", 101, CONF), ("pve2", 102, "name: db\nagent: 0\n")] {
        let folder = shared.join("nodes").join(node).join("qemu-server");
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join(format!("{vmid}.conf")), conf).expect("written");
    }
    fs::write(shared.join(".vmlist"), VMLIST).expect("written");
    symlink("nodes/pve1", shared.join("local")).expect("linked");
    fs::create_dir_all(root.path().join(SOCKETS)).expect("made");
    root
}

#[tokio::test]
async fn a_vm_is_found_on_the_node_that_has_it() {
    let root = node();
    let find = async |vmid| find(&Host::Local, &[], root.path(), vmid).await;
    let found = find(101).await.expect("found");
    assert_eq!((found.node.as_str(), &found.host), ("pve1", &Host::Local));
    let sockets = root.path().join("var/run/qemu-server");
    assert_eq!(found.qmp, sockets.join("101.qmp"));
    assert_eq!(found.agent, Some(sockets.join("101.qga")));
    assert_eq!(found.settings.name.as_deref(), Some("dc01"));
    let disks: Vec<&str> = found.settings.disks.iter().map(|(id, _)| &**id).collect();
    assert_eq!(disks, ["scsi0", "virtio1"]);

    let other = find(102).await.expect("found");
    assert_eq!(other.host, Host::Ssh(Ssh::new("pve2", "root@pve2")));
    assert_eq!(other.agent, None);
    let words = find(200).await.expect_err("a container").to_string();
    assert!(words.contains("is a container"), "{words}");
    let words = find(103).await.expect_err("no VM").to_string();
    assert_eq!(words, "Proxmox VE knows no VM 103: correct `vmid`");
    let folder = root.path().join(SHARED).join("nodes/pve2/qemu-server");
    fs::write(folder.join("103.conf"), "name: golden\ntemplate: 1\n").expect("written");
    let with = VMLIST.replace(
        "\"200\"",
        "\"103\": { \"node\": \"pve2\", \"type\": \"qemu\" },\n\"200\"",
    );
    fs::write(root.path().join(SHARED).join(".vmlist"), with).expect("written");
    let listed = list(&Host::Local, root.path()).await.expect("listed");
    let listed: Vec<_> = listed
        .vms
        .iter()
        .map(|vm| (vm.vmid, &*vm.node, vm.name.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(listed, [(101, "pve1", "dc01"), (102, "pve2", "db")]);
}

#[tokio::test]
async fn clusters_are_told_from_each_other() {
    let id = async |root: &TempDir| list(&Host::Local, root.path()).await.expect("listed").id;
    let (one, same, other) = (node(), node(), node());
    for (root, authority) in [(&one, "a"), (&same, "a"), (&other, "b")] {
        let file = root.path().join(SHARED).join("pve-root-ca.pem");
        fs::write(file, authority).expect("written");
    }
    assert_eq!(id(&one).await, id(&same).await);
    assert_ne!(id(&one).await, id(&other).await);
    fs::create_dir_all(same.path().join(SHARED).join("nodes/pve3")).expect("made");
    assert_ne!(id(&one).await, id(&same).await);
}

#[tokio::test]
async fn a_vm_that_migrated_is_found_anew_and_a_locked_one_waits() {
    let root = node();
    let shared = root.path().join(SHARED);
    let moved = VMLIST.replace(r#""101": { "node": "pve1""#, r#""101": { "node": "pve2""#);
    fs::write(shared.join(".vmlist"), moved).expect("written");
    let from = shared.join("nodes/pve1/qemu-server/101.conf");
    let to = shared.join("nodes/pve2/qemu-server/101.conf");
    fs::rename(from, &to).expect("moved");
    let found = find(&Host::Local, &[], root.path(), 101)
        .await
        .expect("found");
    assert_eq!(found.host, Host::Ssh(Ssh::new("pve2", "root@pve2")));
    assert!(found.settings.agent);

    fs::write(&to, format!("lock: migrate\n{CONF}")).expect("written");
    let error = find(&Host::Local, &[], root.path(), 101).await;
    let words = error.expect_err("locked").to_string();
    assert!(words.contains("locked (migrate)"), "{words}");
}

/// Nothing listens there.
fn down(name: &str) -> Host {
    let mut ssh = Ssh::new(name, "root@127.0.0.1");
    ssh.options = vec!["-p1".into()];
    Host::Ssh(ssh)
}

#[tokio::test]
async fn while_the_configured_node_is_down_another_of_its_cluster_knows() {
    let Some(sshd) = sshd().await else { return };
    let root = node();
    let named = |name: &str| Ssh {
        name: name.into(),
        ..sshd.ssh.clone()
    };
    let find =
        async |asked: &str, others: &[Ssh]| find(&down(asked), others, root.path(), 101).await;
    let found = find("pve2", &[named("pve2"), named("pve1")]).await;
    let found = found.expect("found");
    assert_eq!(
        (found.node, found.host),
        ("pve1".into(), Host::Ssh(named("pve1")))
    );
    // Of another cluster; and called otherwise than it calls itself.
    for (asked, other) in [("pve9", "pve1"), ("pve2", "site-b")] {
        let error = find(asked, &[named(other)]).await.expect_err("none");
        let words = error.to_string();
        assert!(words.contains(&format!("on {asked} failed")), "{words}");
    }
}

#[tokio::test]
async fn what_is_no_proxmox_is_said() {
    let root = tempfile::tempdir().expect("a folder");
    let none = find(&Host::Local, &[], root.path(), 101).await;
    let words = none.expect_err("none").to_string();
    assert!(words.contains("a node of a Proxmox VE cluster"), "{words}");
    let root = node();
    for hostile in ["", "[]", "{\"ids\": {\"101\": 7}}", "\0\0\0"] {
        fs::write(root.path().join(SHARED).join(".vmlist"), hostile).expect("written");
        let error = find(&Host::Local, &[], root.path(), 101).await;
        assert!(matches!(error, Err(ProxmoxError::Form { .. })), "{hostile}");
    }
}

#[test]
fn another_node_is_reached_as_the_configuration_says_or_by_its_name() {
    let mut asked = Ssh::new("cluster", "admin@pve1.lan");
    asked.options = vec!["-p2222".into()];
    let known = [Ssh::new("pve3", "root@10.0.0.3")];
    let host = |node: &str| host_of(node, Some("pve1"), &Host::Ssh(asked.clone()), &known);
    assert_eq!(host("pve1"), Host::Ssh(asked.clone()));
    assert_eq!(host("pve3"), Host::Ssh(known[0].clone()));
    let by_name = Ssh {
        name: "pve2".into(),
        target: "admin@pve2".into(),
        ..asked.clone()
    };
    assert_eq!(host("pve2"), Host::Ssh(by_name));
}

#[test]
fn the_agent_is_read_as_proxmox_writes_it() {
    for on in [
        "1",
        "enabled=1",
        "1,type=virtio",
        "type=virtio,enabled=1",
        "enabled=On",
    ] {
        assert!(is_on(on), "{on}");
    }
    for off in ["0", "enabled=0", "0,fstrim_cloned_disks=1", ""] {
        assert!(!is_on(off), "{off}");
    }
}

#[tokio::test]
async fn a_guest_that_is_not_to_be_frozen_has_no_agent_for_it() {
    for part in [
        "freeze-fs-on-backup=0",
        "freeze-fs=off",
        "guest-fsfreeze=False",
    ] {
        let root = node();
        let conf = root
            .path()
            .join(SHARED)
            .join("nodes/pve1/qemu-server/101.conf");
        let text = CONF.replacen("agent: 1", &format!("agent: enabled=1,{part}"), 1);
        fs::write(conf, text).expect("written");
        let found = find(&Host::Local, &[], root.path(), 101).await;
        let found = found.expect("found");
        assert_eq!(found.agent, None, "{part}");
        assert_eq!(found.settings.no_freeze.as_deref(), Some(part));
    }
    for freezes in ["1", "1,freeze-fs-on-backup=1", "1,fstrim_cloned_disks=0"] {
        assert_eq!(no_freeze(freezes), None, "{freezes}");
    }
}

#[tokio::test]
async fn a_vm_is_captured_through_the_sockets_of_its_node() {
    let Some(sshd) = sshd().await else { return };
    let (root, qemu) = (node(), TestQemu::start(&[("scsi0", VIRTIO_QCOW2)]).await);
    let there = root.path().join(SOCKETS).join("101.qmp");
    symlink(qemu.path("qmp"), there).expect("linked");
    let asked = Host::Ssh(sshd.ssh.clone());
    let found = find(&asked, &[], root.path(), 101).await.expect("found");
    let place = VmPlace {
        name: "dc01".into(),
        host: found.host,
        qmp: found.qmp,
        agent: None,
        no_freeze: None,
        sockets: found.sockets,
        scratch: Scratch {
            folder: root.path().to_owned(),
            max_bytes: DISK_BYTES,
            timeout: std::time::Duration::from_secs(1),
        },
    };
    let reach = place
        .host
        .reach(&place.wanted(&mark()))
        .await
        .expect("reached");
    let vm = LiveVm::new(place, mark(), &reach);
    qemu.writes("scsi0", 1, 0, MIB).await;
    let held = checkpoint::freeze(vec![request(&vm, 1, &["scsi0"], &[])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    qemu.writes("scsi0", 2, 0, MIB).await;
    let opened = open(disk(&held, "scsi0"));
    assert_eq!(byte_at(&opened, 0, MIB), Some(1));
    drop(opened);
    let swept = held.release().await.expect("released");
    assert_eq!(swept.left, Vec::<String>::new());
}
