use serde_json::json;

use super::*;

fn node(name: &str, driver: &str) -> Value {
    json!({ "node-name": name, "drv": driver, "ro": false, "file": "/x",
        "image": { "virtual-size": 1024, "filename": "/x" } })
}

fn view(device: Value, stats: Value, nodes: &[Value]) -> BlockView {
    let (devices, stats) = (json!([device]), json!([stats]));
    let read = BlockView::read(devices, stats, json!(nodes), json!([]), json!([]));
    read.expect("a view")
}

#[test]
fn a_device_keeps_its_name_over_a_restart_however_qemu_says_it() {
    let named = |device: &str, qdev: Value| {
        let device = json!({ "device": device, "qdev": qdev,
            "inserted": { "node-name": "#block1" } });
        let view = view(device, json!({}), &[]);
        let device = &view.devices[0];
        (device.id.clone(), device.qom_path.clone())
    };
    let path = |path: &str| Some(path.to_owned());
    let virtio = "/machine/peripheral/vd0/virtio-backend";
    assert_eq!(named("d0", json!(virtio)), ("vd0".into(), path(virtio)));
    let scsi = path("/machine/peripheral/scsi0");
    assert_eq!(named("", json!("scsi0")), ("scsi0".into(), scsi));
    let anonymous = "/machine/peripheral-anon/device[1]";
    assert_eq!(
        named("virtio0", json!(anonymous)),
        ("virtio0".into(), path(anonymous))
    );
    assert_eq!(
        named("", json!(anonymous)),
        ("unnamed-1".into(), path(anonymous))
    );
    let backend = "/machine/peripheral-anon/device[12]/virtio-backend";
    assert_eq!(named("", json!(backend)).0, "unnamed-12");
    assert_eq!(named("d0", json!(null)), ("d0".into(), None));
}

#[test]
fn the_image_is_what_lies_under_the_filters() {
    let device = json!({ "device": "d0", "inserted": { "node-name": "cbw" } });
    let stats = json!({ "node-name": "cbw", "parent": { "node-name": "limit", "parent": {
        "node-name": "mirror", "backing": { "node-name": "image", "parent": {
            "node-name": "file" }, "backing": { "node-name": "base" } } } } });
    let nodes = [
        node("cbw", "copy-before-write"),
        node("limit", "throttle"),
        node("mirror", "mirror_top"),
        node("image", "qcow2"),
        node("file", "file"),
        node("base", "qcow2"),
    ];
    let view = view(device, stats, &nodes);
    let device = &view.devices[0];
    assert_eq!(device.chain, ["cbw", "limit", "mirror", "image", "file"]);
    assert_eq!(view.image(device).expect("an image").node_name, "image");
}

#[test]
fn an_empty_drive_has_no_chain_and_nonsense_is_refused() {
    let empty = view(
        json!({ "device": "cd0", "removable": true }),
        json!({}),
        &[],
    );
    assert_eq!(empty.devices[0].chain, Vec::<String>::new());
    assert!(empty.image(&empty.devices[0]).is_none());
    let none = || json!([]);
    for devices in [json!({}), json!([{ "device": 7 }])] {
        assert!(BlockView::read(devices, none(), none(), none(), none()).is_err());
    }
}

#[test]
fn a_chain_without_end_ends() {
    let mut stats = json!({ "node-name": "a" });
    for _ in 0..100 {
        stats = json!({ "node-name": "a", "parent": stats });
    }
    let device = json!({ "device": "d0", "inserted": { "node-name": "a" } });
    assert!(view(device, stats, &[]).devices[0].chain.len() <= LONGEST_CHAIN + 1);
}
