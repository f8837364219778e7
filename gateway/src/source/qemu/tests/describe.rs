use serde_json::json;

use super::*;
use crate::source::qemu::{
    tests::fixture::{DISK_BYTES, IDE_QCOW2, Kind, SCSI_RAW_IOTHREAD, TestQemu, VIRTIO_QCOW2},
    view::BlockView,
};

const CD: Kind = Kind {
    format: "raw",
    arguments: &[
        "-drive",
        "if=none,id=drive-{id},media=cdrom,readonly=on,format=raw,file={file}",
        "-device",
        "ide-cd,drive=drive-{id},id={id},bus=ide.2",
    ],
};

#[tokio::test]
async fn a_real_qemu_is_described() {
    let disks = [
        ("vd0", VIRTIO_QCOW2),
        ("sc0", SCSI_RAW_IOTHREAD),
        ("ide0", IDE_QCOW2),
        ("cloudinit0", CD),
    ];
    let nic = "virtio-net-pci,netdev=net0,mac=52:54:00:01:02:03,id=nic0";
    let extra = [
        "-netdev",
        "user,id=net0",
        "-device",
        nic,
        "-smp",
        "2,sockets=1,cores=2",
    ];
    let qemu = TestQemu::start_with(&disks, &extra).await;
    let mut session = qemu.monitor().session().await.expect("a monitor");
    let now = jiff::Timestamp::now().as_second();
    let facts = Facts::ask(&mut session, now).await.expect("facts");
    drop(session);
    let Description { hardware, limits } = describe(&facts);
    assert!(
        hardware.machine.starts_with("pc-q35-"),
        "{}",
        hardware.machine
    );
    assert_eq!(hardware.firmware, Firmware::Bios);
    assert_eq!((hardware.tpm, hardware.memory_bytes), (None, 32 << 20));
    assert_eq!((hardware.cpus.count, hardware.cpus.cores), (2, 2));
    assert_eq!(hardware.clock_offset_seconds, 0);
    let nic = &hardware.nics[0];
    assert_eq!(
        (nic.id.as_str(), nic.mac.as_str()),
        ("nic0", "52:54:00:01:02:03")
    );
    assert_eq!(
        (nic.model.as_str(), nic.network.as_deref()),
        ("virtio-net-pci", Some("user"))
    );
    let mut seen: Vec<_> = hardware.disks.iter().collect();
    seen.sort_by_key(|disk| &disk.id);
    let brief: Vec<_> = seen
        .iter()
        .map(|d| (&d.id[..], &d.bus[..], &d.format[..]))
        .collect();
    let expected = [
        ("ide0", "sata", "qcow2"),
        ("sc0", "scsi", "raw"),
        ("vd0", "virtio", "qcow2"),
    ];
    assert_eq!(brief, expected);
    assert!(seen.iter().all(|disk| disk.size_bytes == DISK_BYTES));
    let scsi = seen[1];
    assert_eq!(scsi.serial.as_deref(), Some("S-sc0"));
    assert_eq!(scsi.address.as_deref(), Some("0:0:0"));
    assert_eq!(scsi.file, qemu.path("sc0").display().to_string());
    let said = |on: &str| {
        limits
            .iter()
            .find(|limit| limit.on == on)
            .expect("said")
            .clone()
    };
    assert_eq!(said("sc0").lack, Lack::NotTracked);
    assert_eq!(said("vd0").lack, Lack::Note);
    assert_eq!(said("cloudinit0").lack, Lack::Skipped);
    assert!(said("cloudinit0").why.contains("cloud-init"));
}

fn facts(device: Value, kind: &str, node: Value) -> Facts {
    let path = "/machine/peripheral/d0";
    let device = json!([device]);
    let view = BlockView::read(device, json!([]), json!([node]), json!([]), json!([]));
    Facts {
        view: view.expect("a view"),
        devices: [(path.to_owned(), json!({ "type": kind }))].into(),
        version: (10, 0),
        ..Facts::default()
    }
}

fn inserted() -> Value {
    json!({ "device": "", "qdev": "d0", "inserted": { "node-name": "n" } })
}

fn node(driver: &str, read_only: bool, compat: &str) -> Value {
    json!({ "node-name": "n", "drv": driver, "ro": read_only, "image": { "virtual-size": 1,
        "filename": "/x", "format-specific": { "data": { "compat": compat } } } })
}

#[test]
fn what_cannot_be_captured_or_tracked_is_named() {
    let cases = [
        ("scsi-hd", node("qcow2", false, "1.1"), Lack::Note, 1),
        ("scsi-hd", node("qcow2", false, "0.10"), Lack::NotTracked, 1),
        ("scsi-hd", node("vmdk", false, ""), Lack::NotTracked, 1),
        ("scsi-hd", node("qcow2", true, "1.1"), Lack::Skipped, 0),
        ("scsi-cd", node("raw", false, ""), Lack::Skipped, 0),
        (
            "scsi-block",
            node("host_device", false, ""),
            Lack::NotCaptured,
            0,
        ),
        (
            "scsi-generic",
            node("host_device", false, ""),
            Lack::NotCaptured,
            0,
        ),
    ];
    for (kind, node, lack, count) in cases {
        let found = describe(&facts(inserted(), kind, node));
        assert_eq!(found.hardware.disks.len(), count, "{kind}");
        let lacks: Vec<Lack> = found.limits.iter().map(|limit| limit.lack).collect();
        assert_eq!(lacks, [lack], "{kind}");
    }
    let empty = json!({ "device": "", "qdev": "d0", "removable": true });
    let found = describe(&facts(empty, "ide-cd", node("raw", false, "")));
    assert_eq!(found.limits[0].why, "an empty drive");
}

#[test]
fn storage_past_qemus_block_layer_is_named() {
    let mut facts = Facts {
        version: (10, 0),
        ..Facts::default()
    };
    let kinds = [
        ("disk0", "vhost-user-blk-pci"),
        ("share0", "vhost-user-fs-pci"),
        ("gpu0", "vfio-pci"),
        ("ssd0", "vfio-pci"),
        ("nic0", "virtio-net-pci"),
        ("key0", "usb-host"),
        ("far0", "usb-redir"),
        ("pmem0", "virtio-pmem-pci"),
        ("vdpa0", "vhost-vdpa-device-pci"),
    ];
    for (id, kind) in kinds {
        let path = format!("/machine/peripheral/{id}");
        facts.devices.insert(path, json!({ "type": kind }));
    }
    facts.pci_classes = [("gpu0".to_owned(), 0x300), ("ssd0".to_owned(), 0x108)].into();
    let limits = describe(&facts).limits;
    let found: Vec<_> = limits
        .iter()
        .map(|limit| (limit.on.as_str(), limit.lack))
        .collect();
    let expected = [
        ("disk0", Lack::NotCaptured),
        ("far0", Lack::NotCaptured),
        ("gpu0", Lack::Note),
        ("key0", Lack::NotCaptured),
        ("pmem0", Lack::NotCaptured),
        ("share0", Lack::NotCaptured),
        ("ssd0", Lack::NotCaptured),
        ("vdpa0", Lack::NotCaptured),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_qemu_that_cannot_be_captured_is_named_with_its_version() {
    let found = |version| {
        let facts = Facts {
            version,
            ..Facts::default()
        };
        describe(&facts).limits
    };
    let limits = found((6, 2));
    assert_eq!(
        (limits[0].lack, &*limits[0].on),
        (Lack::NotCaptured, "QEMU 6.2")
    );
    assert_eq!(found((7, 1)), []);
    assert_eq!(found((10, 0)), []);
}

#[test]
fn firmware_is_told_from_the_flash() {
    let with = |code: &str, secure: bool| {
        let device = json!({ "device": "pflash0", "qdev": "/machine/system.flash0",
            "inserted": { "node-name": "n" } });
        let node = json!({ "node-name": "n", "drv": "raw", "ro": true,
            "image": { "virtual-size": 1, "filename": code } });
        let mut facts = facts(device, "", node);
        facts.flash_is_secure = secure;
        let description = describe(&facts);
        assert_eq!(description.hardware.disks, []);
        match description.hardware.firmware {
            Firmware::Uefi { secure_boot, .. } => secure_boot,
            Firmware::Bios => panic!("{code}"),
        }
    };
    assert_eq!(with("/usr/share/OVMF/OVMF_CODE_4M.fd", false), Some(false));
    assert_eq!(with("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", false), None);
    assert_eq!(
        with("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", true),
        Some(true)
    );
    let by_bios = Facts {
        machine: json!({ "firmware": "/usr/share/ovmf/OVMF.fd" }),
        ..Facts::default()
    };
    let firmware = describe(&by_bios).hardware.firmware;
    assert!(matches!(firmware, Firmware::Uefi { .. }));
}

#[test]
fn the_clocks_base_is_told_from_its_time() {
    // 2026-11-22T18:13:02Z
    let now = 1_795_371_182;
    let clock = |hour: u32, minute: u32| {
        json!({ "tm_year": 126, "tm_mon": 10, "tm_mday": 22, "tm_hour": hour, "tm_min": minute,
            "tm_sec": 2 })
    };
    for (time, expected) in [
        (clock(18, 13), 0),
        (clock(18, 17), 0),
        (clock(18, 9), 0),
        (clock(19, 13), 3600),
        (clock(12, 43), -19_800),
        (json!(null), 0),
        (json!({ "tm_year": 99_999_999, "tm_mon": -4 }), 0),
    ] {
        assert_eq!(clock_offset(&time, now), expected, "{time}");
    }
}

#[test]
fn a_nics_network_is_the_hosts_interface() {
    let network = "net0: index=0,type=nic,model=virtio-net-pci,macaddr=bc:24:11:00:00:01\r\n \
        \\ tap: index=0,type=tap,ifname=tap101i0,script=/x\r\nlonely: index=0,type=user\r\n\
        net1: index=0,type=nic,model=e1000,macaddr=bc:24:11:00:00:02\r\n\
        net2: index=0,type=nic,model=e1000,macaddr=bc:24:11:00:00:03\r\n \
        \\ br: index=0,type=tap,helper=/usr/lib/qemu/qemu-bridge-helper,br=br0";
    let facts = Facts {
        network: network.to_owned(),
        ..Facts::default()
    };
    let nics = describe(&facts).hardware.nics;
    assert_eq!(nics.len(), 3);
    assert_eq!(nics[2].network.as_deref(), Some("br0"));
    assert_eq!(nics[0].network.as_deref(), Some("tap101i0"));
    assert_eq!(
        (nics[1].mac.as_str(), &nics[1].network),
        ("bc:24:11:00:00:02", &None)
    );
}
