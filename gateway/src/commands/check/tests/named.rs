//! What of a running VM is not captured, or costs a resync, is named with what it comes to.

use serde_json::json;

use super::*;
use crate::source::qemu::tests::{
    agent::{StandIn, State},
    fixture::{SCSI_RAW_IOTHREAD, TestQemu, VIRTIO_QCOW2, mark},
};

async fn checked(qemu: &TestQemu) -> Checks {
    let text = format!(
        "state = \"/s\"\n[vault]\nurl = \"file:///v\"\nkey = \"/k\"\n\
         [scratch]\nfolder = {:?}\nmax = \"16 MB\"\n\
         [[policy]]\nname = \"p\"\nrpo = \"1h\"\nconsistency = \"file-system\"\n\
         [[vm]]\nname = \"db\"\npolicy = \"p\"\nsource = {{ qemu = {{ qmp = {:?}, guest_agent = {:?} }} }}\n",
        qemu.folder.path(),
        qemu.path("qmp"),
        qemu.path("qga"),
    );
    let config = Config::parse(&text, Path::new("t"), Path::new("/"));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let mut checks = Checks::default();
    running::qemu(&config, &config.vms[0], &mark(), &mut checks).await;
    checks
}

#[tokio::test]
async fn a_disk_that_the_guest_has_over_iscsi_is_a_finding() {
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2)]).await;
    let disk = |bus: &str| json!([{ "bus-type": bus, "dev": "/dev/sda" }]);
    let agent = StandIn::new(State {
        fsinfo: json!([
            { "mountpoint": "/", "disk": disk("virtio") },
            { "mountpoint": "/srv/mail", "disk": disk("iscsi") },
            { "mountpoint": "/proc" },
        ]),
        ..State::default()
    });
    agent.serve(qemu.path("qga"));
    let checks = checked(&qemu).await;
    let [found] = &checks.findings[..] else {
        panic!("{:?}", checks.findings);
    };
    assert_eq!(found.what, "a disk may not be captured");
    assert_eq!(found.on, "VM db: /srv/mail");
    assert!(found.why.contains("iSCSI"), "{found:?}");
    assert!(found.remedy.contains("is not restored"), "{found:?}");
    let answers = |check: &&Checked| check.what == "guest agent" && check.ok;
    assert!(checks.done.iter().any(|check| answers(&check)));
}

#[tokio::test]
async fn a_raw_disk_costs_a_resync_after_each_stop_and_how_long_is_said() {
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2), ("sd0", SCSI_RAW_IOTHREAD)]).await;
    StandIn::default().serve(qemu.path("qga"));
    // A hole of 45 GB: five minutes.
    let grown = json!({ "node-name": "raw-sd0", "size": 45_000_000_000_u64 });
    qemu.run("block_resize", grown).await;
    let checks = checked(&qemu).await;
    let [found] = &checks.findings[..] else {
        panic!("{:?}", checks.findings);
    };
    assert_eq!(found.what, "changes are not tracked at all times");
    assert!(found.on.contains("sd0"), "{found:?}");
    assert!(found.why.contains("raw"), "{found:?}");
    let cost = "after each stop of the VM the whole disk is read and compared (a resync)";
    assert_eq!(found.remedy, cost);
    let disk = checks.done.iter().find(|check| check.on == "db/sd0");
    let detail = &disk.expect("it is named").detail;
    assert!(detail.starts_with("raw "), "{detail}");
    let time = "a resync reads it in about 5m (at 150 MB/s)";
    assert!(detail.ends_with(time), "{detail}");
}

#[tokio::test]
async fn a_device_past_qemus_block_layer_is_not_captured_and_said_so() {
    let far = "-device qemu-xhci -chardev null,id=far -device usb-redir,chardev=far,id=far0";
    let far: Vec<&str> = far.split(' ').collect();
    let qemu = TestQemu::start_with(&[("vd0", VIRTIO_QCOW2)], &far).await;
    StandIn::default().serve(qemu.path("qga"));
    let checks = checked(&qemu).await;
    let [found] = &checks.findings[..] else {
        panic!("{:?}", checks.findings);
    };
    assert_eq!(found.what, "is not captured");
    assert_eq!(found.on, "VM db: far0");
    assert!(found.why.contains("USB"), "{found:?}");
    assert!(found.remedy.contains("is not restored"), "{found:?}");
}
