use vault_format::ids::WriterId;

use super::*;
use crate::source::qemu::view::{Device, Export};

fn mark() -> Mark {
    Mark::of(&WriterId([0xab; 16]))
}

fn device(id: &str, chain: &[&str]) -> Device {
    Device {
        id: id.into(),
        qom_path: Some(format!("/machine/peripheral/{id}")),
        drive: String::new(),
        removable: false,
        chain: chain.iter().map(|name| name.to_string()).collect(),
    }
}

fn export(id: &str) -> Export {
    Export {
        id: id.into(),
        kind: "nbd".into(),
        node_name: "n".into(),
    }
}

fn with_nodes(names: &[&str]) -> BlockView {
    let node = |name: &&str| {
        let node = serde_json::json!({ "node-name": name, "drv": "raw", "ro": false,
            "image": { "virtual-size": 1 } });
        (
            name.to_string(),
            serde_json::from_value(node).expect("a node"),
        )
    };
    BlockView {
        nodes: names.iter().map(node).collect(),
        ..BlockView::default()
    }
}

const CBW: &str = "sparesite-abababab-cbw0";

#[test]
fn users_go_before_what_they_use() {
    let [bound, scratch, snap, stopped] =
        ["bound0", "scratch0", "snap0", "stopped"].map(|kind| mark().node(kind));
    let names = [&bound, &scratch, &snap, &stopped].map(String::as_str);
    let mut view = with_nodes(&[&names[..], &[CBW, "theirs", "sparesite-cdcdcdcd-cbw0"]].concat());
    view.devices = vec![device("vd0", &[CBW, "image"])];
    let found = leftovers(&view, &mark());
    assert_eq!(found.readers, [snap]);
    assert_eq!(found.nodes, [CBW.to_owned(), scratch, bound, stopped]);
    assert!(found.has_filters && found.stopped);
    let back = PutBack {
        qom_path: "/machine/peripheral/vd0".into(),
        node: "image".into(),
    };
    assert_eq!((found.put_back, found.blocked), (vec![back], vec![]));
}

#[test]
fn a_filter_under_somebody_elses_is_not_torn_out() {
    let mut view = with_nodes(&[CBW]);
    view.devices = vec![device("vd0", &["their-filter", CBW, "image"])];
    let found = leftovers(&view, &mark());
    assert_eq!(
        (found.put_back, found.blocked),
        (vec![], vec!["vd0".to_owned()])
    );
}

#[test]
fn another_gateways_filter_is_not_ours_to_move() {
    let mut view = with_nodes(&["sparesite-cdcdcdcd-cbw0"]);
    view.devices = vec![device("vd0", &["sparesite-cdcdcdcd-cbw0", "image"])];
    view.exports = vec![export("their-export")];
    let found = leftovers(&view, &mark());
    let none = Leftovers {
        foreign_exports: true,
        ..Leftovers::default()
    };
    assert_eq!(found, none);
}
