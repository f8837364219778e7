use super::{ifcfg, ifupdown, ini, netplan, *};
use crate::{linux::tree::Unread, paper::TreeOnPaper};

#[test]
fn ifupdown_of_debian() {
    let text = "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n\nallow-hotplug ens18\n\
                iface ens18 inet static\n\taddress 10.0.0.5/24\n\tgateway 10.0.0.1\n\tbroken\nauto eth1\niface eth1 inet dhcp\n  hwaddress ether 52:54:00:12:34:56\n";
    let mut all = Vec::new();
    ifupdown::parse("/etc/network/interfaces", text, &mut all);
    assert_eq!(all.len(), 2);
    assert_eq!(
        (all[0].one_name(), all[0].dhcp, all[0].addresses.len()),
        (Some("ens18"), false, 1)
    );
    assert_eq!(all[1].mac.as_deref(), Some("52:54:00:12:34:56"));
    assert!(all[1].dhcp);
}

#[test]
fn networkd_files() {
    let all = ini::network_file("x", "[Match]\nName=en*\n[Network]\nDHCP=yes\n").expect("one");
    assert_eq!((all.one_name(), all.dhcp), (None, true));
    let all = ini::network_file(
        "x",
        "[Match]\nMACAddress=52:54:00:12:34:56\n[Network]\nAddress=10.0.0.2/24\n",
    )
    .expect("one");
    assert!(all.mac.is_some() && !all.dhcp && all.addresses == ["10.0.0.2/24"]);
    let link = ini::link_file(
        "x",
        "[Match]\nMACAddress=52:54:00:12:34:56\n[Link]\nName=lan0\n",
    )
    .expect("one");
    assert!(link.renames && link.mac.is_some());
    assert_eq!(
        ini::link_file("x", "[Match]\nOriginalName=*\n[Link]\nNamePolicy=keep\n"),
        None
    );
}

#[test]
fn network_manager_keyfiles() {
    let text = "[connection]\nid=ens3\ntype=ethernet\ninterface-name=ens3\n[ethernet]\nmac-address=52:54:00:12:34:56\n\
                [ipv4]\naddress1=10.0.0.2/24,10.0.0.1\nmethod=manual\n";
    let one = ini::keyfile("x", text).expect("one");
    assert_eq!((one.name.as_deref(), one.dhcp), (Some("ens3"), false));
    assert!(one.mac.is_some() && one.addresses.len() == 1);
    assert_eq!(
        ini::keyfile("x", "[connection]\ntype=ethernet\nautoconnect=false\n"),
        None
    );
}

#[test]
fn netplan_files() {
    let text = "# This file is generated from information provided by the datasource.\nnetwork:\n    version: 2\n    ethernets:\n        ens3:\n            dhcp4: true\n            match:\n                macaddress: \"52:54:00:12:34:56\"\n            set-name: ens3\n        lan:\n            match: {name: 'en*', driver: virtio_net}\n            addresses: [10.0.0.2/24, \"10.0.0.3/24\"]\n        eth9:\n            addresses:\n            - 10.1.0.2/24\n            - 10.1.0.3/24:\n                label: x\n    bridges:\n        br0:\n            dhcp4: yes # a comment\n";
    let all = netplan::interfaces("/etc/netplan/50-cloud-init.yaml", text);
    assert_eq!(all.len(), 4);
    assert!(
        all[0].dhcp
            && all[0].renames
            && all[0].mac.is_some()
            && all[0].by_cloud_init
            && all[0].name.is_none()
    );
    assert_eq!(
        (
            all[1].name.as_deref(),
            all[1].one_name(),
            all[1].addresses.len()
        ),
        (Some("en*"), None, 2)
    );
    assert_eq!(
        (all[2].one_name(), all[2].addresses.len(), all[2].dhcp),
        (Some("eth9"), 2, false)
    );
    assert!(all[3].made && all[3].dhcp);
}

#[test]
fn ifcfg_files() {
    let redhat = "/etc/sysconfig/network-scripts/ifcfg-eth0";
    let one = ifcfg::parse(
        redhat,
        "TYPE=Ethernet\nBOOTPROTO=dhcp\nDEVICE=eth0\nHWADDR=52:54:00:12:34:56\nONBOOT=yes\n",
    )
    .expect("one");
    assert_eq!(
        (one.one_name(), one.dhcp, one.mac.is_some(), one.made),
        (Some("eth0"), true, true, false)
    );
    assert_eq!(ifcfg::parse(redhat, "DEVICE=eth0\nONBOOT=no\n"), None);
    let one = ifcfg::parse(
        "/etc/sysconfig/network/ifcfg-eth1",
        "BOOTPROTO='static'\nSTARTMODE='auto'\nIPADDR='10.0.0.2/24'\n",
    )
    .expect("one");
    assert_eq!(
        (one.one_name(), one.dhcp, one.addresses.len()),
        (Some("eth1"), false, 1)
    );
}

#[test]
fn rules_and_names() {
    let rule = "SUBSYSTEM==\"net\", ACTION==\"add\", ATTR{address}==\"52:54:00:12:34:56\", NAME=\"eth0\"\n";
    let files = TreeOnPaper::default()
        .file("/etc/udev/rules.d/70-persistent-net.rules", rule)
        .file(
            "/etc/udev/rules.d/71-other.rules",
            "# ATTR{address}==\"1\", NAME=\"x\"\n",
        )
        .file("/usr/sbin/NetworkManager", "ELF")
        .link("/etc/systemd/network/99-default.link", "/dev/null");
    let unread = Unread::default();
    let tree = Tree::of_one("sda:1", &files, &unread);
    let facts = inspect(&tree, Some("ro"));
    assert_eq!(
        facts.mac_rules,
        ["/etc/udev/rules.d/70-persistent-net.rules"]
    );
    assert!(facts.old_names && facts.automatic_dhcp);
    let files = files.file(
        "/etc/NetworkManager/conf.d/server.conf",
        "[main]\nno-auto-default=*\n",
    );
    let facts = inspect(
        &Tree::of_one("sda:1", &files, &unread),
        Some("net.ifnames=0"),
    );
    assert!(!facts.automatic_dhcp);
}

proptest::proptest! {
    #[test]
    fn any_text_is_parsed(any in "(?s).{0,120}", yaml in "(network|ethernets|match|:|: |- |-|\n|  |\\[|\\]|\\{|\\}|,|\"|'|#|é|a){0,60}") {
        for text in [any, yaml] {
            let _ = (netplan::interfaces("x", &text), super::yaml::parse(&text), ini::network_file("x", &text));
            let _ = (ini::keyfile("x", &text), ifcfg::parse("/ifcfg-a", &text));
            ifupdown::parse("x", &text, &mut Vec::new());
        }
    }
}
