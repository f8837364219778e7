//! Hypervisors, hosts, groups, the uplink and the rooms: what they may say, and the words for
//! what they may not.

use console::units::{BitRate, Bytes};

use super::{
    super::{
        source::{LibvirtSource, NbdExport, ProxmoxSource, QemuSource},
        uplink::UplinkWindow,
    },
    *,
};

const GOOD: &str = r#"
state = "/var/lib/sparesite/state"
timezone = "Europe/Berlin"

[vault]
url = "s3://acme-dr/site1"
key = "gateway.key"

[uplink]
cap = "20 Mbit/s"
[[uplink.window]]
days = "mon-fri"
hours = "08:00-18:00"
cap = "2 Mbit/s"
[[uplink.window]]
cap = "off"

[outbox]
max = "80 GB"

[scratch]
folder = "/srv/scratch"
max = "5 GB"

[alert]
command = "alert.sh"

[[host]]
name = "pve1"
ssh = "root@pve1.lan"
[[host]]
name = "pve2"
ssh = "root@pve2.lan"

[[policy]]
name = "servers"
rpo = "1h"

[[vm]]
name = "dc01"
policy = "servers"
source = { proxmox = { host = "pve1", vmid = 101 }, guest_hooks = true, exclude = ["scsi1"] }

[[vm]]
name = "db"
policy = "servers"
source = { qemu = { qmp = "/run/qemu/db.qmp", guest_agent = "/run/qemu/db.qga" }, before = "freeze", after = "thaw" }

[[vm]]
name = "app"
policy = "servers"
source.libvirt = { host = "pve1", domain = "app" }

[[vm]]
name = "esx"
policy = "servers"
source = { nbd = [{ uri = "nbds://backup.lan/a" }, { name = "data", uri = "nbd+unix:///b?socket=/run/b", bitmap = "cp-{since}" }] }

[[vm]]
name = "mail"
policy = "servers"
source.proxmox = { host = "pve2", vmid = 102 }

[[vm]]
name = "files"
policy = "servers"
source.disks = ["/srv/files.raw"]

[[group]]
name = "shop"
vms = ["dc01", "db"]
"#;

fn export(name: &str, uri: &str, bitmap: Option<&str>) -> NbdExport {
    NbdExport {
        name: name.into(),
        uri: uri.into(),
        bitmap: bitmap.map(String::from),
    }
}

#[test]
fn every_kind_of_source_becomes_a_plain_value() {
    let config = parse(GOOD).expect("good");
    let sources: Vec<_> = config.vms.iter().map(|vm| &vm.source).collect();
    let proxmox = Source::Proxmox(ProxmoxSource {
        host: Some(0),
        vmid: 101,
        exclude: vec!["scsi1".into()],
    });
    let qemu = Source::Qemu(QemuSource {
        host: None,
        qmp: "/run/qemu/db.qmp".into(),
        guest_agent: Some("/run/qemu/db.qga".into()),
        exclude: vec![],
    });
    let libvirt = Source::Libvirt(LibvirtSource {
        host: Some(0),
        domain: "app".into(),
        exclude: vec![],
    });
    let nbd = Source::Nbd(vec![
        export("disk0", "nbds://backup.lan/a", None),
        export("data", "nbd+unix:///b?socket=/run/b", Some("cp-{since}")),
    ]);
    assert_eq!(sources[..4], [&proxmox, &qemu, &libvirt, &nbd]);
    let [dc01, db, .., mail, files] = &config.vms[..] else {
        panic!("{config:?}");
    };
    assert!(dc01.guest_hooks && !db.guest_hooks);
    assert_eq!(
        db.before.as_deref(),
        Some(Path::new("/etc/sparesite/freeze"))
    );
    assert_eq!((db.disks().len(), files.disks().len()), (0, 1));
    let ssh = |vm: &Vm| vm.host().map(|host| config.hosts[host].ssh.as_str());
    assert_eq!((ssh(dc01), ssh(db)), (Some("root@pve1.lan"), None));
    assert_eq!(ssh(mail), Some("root@pve2.lan"));
    assert_eq!(config.groups[0].vms, [0, 1]);
    let group = |vm| config.group_of(vm).map(|group| group.name.as_str());
    assert_eq!((group("db"), group("app")), (Some("shop"), None));
}

#[test]
fn uplink_and_rooms_become_plain_values() {
    let config = parse(GOOD).expect("good");
    assert_eq!(config.timezone.iana_name(), Some("Europe/Berlin"));
    let rate = |megabits: u64| Cap::Rate(BitRate(megabits * 1_000_000));
    assert_eq!(config.uplink.cap, Some(rate(20)));
    let window = |days: &str, from, until, cap| UplinkWindow {
        days: days.parse().expect("days"),
        from,
        until,
        cap,
    };
    assert_eq!(
        config.uplink.windows,
        [
            window("mon-fri", 480, 1080, rate(2)),
            window("mon-sun", 0, 1440, Cap::Off)
        ]
    );
    assert_eq!(config.outbox.max, Bytes(80_000_000_000));
    assert_eq!(config.scratch.folder, Path::new("/srv/scratch"));
    assert_eq!(config.scratch.max, Bytes(5_000_000_000));
    let alert = config.alert_command.as_deref();
    assert_eq!(alert, Some(Path::new("/etc/sparesite/alert.sh")));
}

#[test]
fn what_is_not_written_has_a_default() {
    let config = parse(super::GOOD).expect("good");
    assert_eq!(config.uplink, Uplink::default());
    assert_eq!(config.outbox.max, Bytes(40_000_000_000));
    assert_eq!(config.scratch.folder, Path::new("/var/tmp"));
    assert_eq!(config.scratch.max, Bytes(10_000_000_000));
    assert_eq!(config.alert_command, None);
    assert!(config.hosts.is_empty() && config.groups.is_empty());
}

/// What is said of the good file with the one `from` replaced by `to`. Where a place is told, it
/// is that line.
fn refused(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from}");
    let before = GOOD.split(from).next().unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let message = parse(&GOOD.replace(from, to)).expect_err(to);
    let place = format!("gateway.toml:{line}:");
    let Some((_column, rest)) = message
        .strip_prefix(&place)
        .and_then(|m| m.split_once(": "))
    else {
        panic!("line {line}: {message}");
    };
    rest.to_owned()
}

const DAYS: &str = "days = \"mon-fri\"";
const PVE: &str = "{ host = \"pve1\", vmid = 101 }";
const QMP: &str = "{ qmp = \"/run/qemu/db.qmp\", guest_agent = \"/run/qemu/db.qga\" }";
const NBDS: &str = "{ uri = \"nbds://backup.lan/a\" }";
const SHOP: &str = "vms = [\"dc01\", \"db\"]";

#[test]
fn mistakes_of_sources_are_named() {
    for (from, to, message) in [
        (
            PVE,
            "{ host = \"pve1\" }",
            "`vmid` is missing in `proxmox` of VM \"dc01\": write vmid = 101",
        ),
        (
            PVE,
            "{ host = \"pve1\", vmid = 7 }",
            "`vmid` in `proxmox` of VM \"dc01\" is 7: it must be a whole number from 100 to 999999999",
        ),
        (
            PVE,
            "{ host = \"pev1\", vmid = 101 }",
            "`host` in `proxmox` of VM \"dc01\" names no host: \"pev1\": did you mean \"pve1\"?",
        ),
        (
            PVE,
            "{ hots = \"pve1\", vmid = 101 }",
            "unknown key `hots` in `proxmox` of VM \"dc01\": did you mean `host`?",
        ),
        (
            PVE,
            "101",
            "`proxmox` of VM \"dc01\" is a number: it must be a table",
        ),
        (
            PVE,
            "{ vmid = 101 }, qemu = { qmp = \"/q\" }",
            "VM \"dc01\" has two sources, `qemu` and `proxmox`: keep one",
        ),
        (
            QMP,
            "{ guest_agent = \"/a\" }",
            "`qmp` is missing in `qemu` of VM \"db\": write qmp = \"/run/qemu/db.qmp\"",
        ),
        (
            QMP,
            "{ host = \"pve1\", qmp = \"db.qmp\" }",
            "`qmp` in `qemu` of VM \"db\" is \"db.qmp\": it must be an absolute path on the VM's host",
        ),
        (
            QMP,
            "{ qmp = \"/run/qemu/db.qmp\" }, guest_hooks = true",
            "`guest_hooks` in the source of VM \"db\" needs a guest agent that freezes: name its socket as guest_agent in `qemu`, or remove it",
        ),
        (
            NBDS,
            "{ uri = \"http://backup.lan/a\" }",
            "`uri` in an NBD disk of VM \"esx\": \"http://backup.lan/a\" is no NBD URI: its scheme is not known; write nbd://MACHINE/EXPORT, nbds://MACHINE/EXPORT or nbd+unix:///EXPORT?socket=PATH",
        ),
        (
            NBDS,
            "{ uri = \"nbd+unix:///a\" }",
            "`uri` in an NBD disk of VM \"esx\": \"nbd+unix:///a\" is no NBD URI: it names no socket; write nbd://MACHINE/EXPORT, nbds://MACHINE/EXPORT or nbd+unix:///EXPORT?socket=PATH",
        ),
        (
            NBDS,
            "{ uri = \"nbds://backup.lan/a\", bitmap = \"daily\" }",
            "`bitmap` in an NBD disk of VM \"esx\" is \"daily\": it must hold {since}, which stands for the capture since which it records, such as \"sparesite-{since}\"; the `before` hook finds the new capture in SPARESITE_CAPTURE",
        ),
        (
            NBDS,
            "{ name = \"Data\", uri = \"nbds://backup.lan/a\" }",
            "a second disk \"data\" in VM \"esx\": give each its own name",
        ),
        (
            NBDS,
            "{ uri = \"nbd+unix:///b?socket=/run/b\" }",
            "VM \"esx\" names the NBD export nbd+unix:///b?socket=/run/b twice",
        ),
        (
            "source.disks = [\"/srv/files.raw\"]",
            "source = { proxmox = { host = \"pve1\", vmid = 101 } }",
            "VM \"files\" names the Proxmox VM 101 on pve1, which VM \"dc01\" names already",
        ),
        (
            "source.disks = [\"/srv/files.raw\"]",
            "source = { disks = [\"/srv/files.raw\"], exclude = [\"files\"] }",
            "`exclude` in the source of VM \"files\" is for hypervisors: with a list of disks, write exclude = true in the disk's own table",
        ),
        (
            "domain = \"app\"",
            "domain = \"--all\"",
            "`domain` in `libvirt` of VM \"app\" is \"--all\": it must not begin with `-` or hold control characters",
        ),
    ] {
        assert_eq!(refused(from, to), message, "{to}");
    }
}

#[test]
fn mistakes_of_hosts_groups_uplink_and_rooms_are_named() {
    for (from, to, message) in [
        (
            "ssh = \"root@pve1.lan\"",
            "ssh = \"-oProxyCommand=x\"",
            "`ssh` in host \"pve1\" is \"-oProxyCommand=x\": write what ssh takes as its destination, such as \"root@pve1.lan\"",
        ),
        (
            SHOP,
            "vms = [\"dc01\"]",
            "group \"shop\" has fewer than two VMs: list them, or remove it",
        ),
        (
            SHOP,
            "vms = [\"dc01\", \"bd\"]",
            "group \"shop\" names no VM: \"bd\": did you mean \"db\"?",
        ),
        (
            SHOP,
            "vms = [\"dc01\", \"dc01\"]",
            "group \"shop\" lists the VM \"dc01\" twice",
        ),
        (
            SHOP,
            "vms = [\"dc01\", \"files\"]",
            "group \"shop\" lists the VM \"files\", whose source is a list of disks: only VMs of a hypervisor can be frozen at one instant",
        ),
        (
            SHOP,
            "vms = [\"dc01\", \"app\"]",
            "group \"shop\" lists the VM \"app\", whose source is `libvirt`, which begins the backup of one domain at a time: protect it without the group, or as `qemu` by a QMP socket of its own",
        ),
        (
            DAYS,
            "days = \"mon-frei\"",
            "`days` in [[uplink.window]]: \"mon-frei\" is not days such as \"mon-fri\" or \"sat,sun\": no such day: \"frei\"",
        ),
        (
            "hours = \"08:00-18:00\"",
            "hours = \"8-18\"",
            "`hours` in [[uplink.window]]: \"8-18\" is not hours such as \"08:00-18:00\": a time is two digits, `:` and two digits, 24:00 at the end only",
        ),
        (
            "[[uplink.window]]\ndays",
            "[[uplink.window]]\nhours = \"20:00-06:00\"\n[[uplink.window]]\ndays",
            "`cap` is missing in [[uplink.window]]: write cap = \"2 Mbit/s\", or \"off\"",
        ),
        (
            "cap = \"20 Mbit/s\"",
            "cap = \"20 MB/s\"",
            "`cap` in [uplink]: \"20 MB/s\" is not a rate such as \"8 Mbit/s\" (bit/s, kbit/s, Mbit/s, Gbit/s): no such unit: \"MB/s\"",
        ),
        (
            "max = \"80 GB\"",
            "max = \"1 MB\"",
            "`max` in [outbox] is 1 MB: it must be 16 MB or more",
        ),
        (
            "folder = \"/srv/scratch\"",
            "folder = \"scratch\"",
            "`folder` in [scratch] is \"scratch\": it must be an absolute path on the VM's host",
        ),
        (
            "command = \"alert.sh\"",
            "comand = 1\ncommand = \"alert.sh\"",
            "unknown key `comand` in [alert]: did you mean `command`?",
        ),
        (
            "\"Europe/Berlin\"",
            "\"Europe/Berlln\"",
            "`timezone` is \"Europe/Berlln\", which this machine does not know: write one such as \"Europe/Berlin\" (`timedatectl list-timezones`)",
        ),
    ] {
        let found = refused(from, to);
        assert!(found.contains(message), "{to}: {found}");
    }
}

#[test]
fn no_cut_of_the_file_panics() {
    for end in 0..GOOD.len() {
        let _ = parse(&GOOD[..end]);
    }
}

#[test]
fn the_packaged_example_is_accepted() {
    let config = parse(include_str!("../../../../packaging/gateway.toml")).expect("good");
    assert_eq!(config.state, Path::new("/var/lib/sparesite/state"));
    assert_eq!(config.vault.key, Path::new("/etc/sparesite/gateway.key"));
}

#[test]
fn what_is_run_for_a_fenced_vm_is_its_own_or_that_of_the_file() {
    let vm = |name: &str, more: &str| {
        format!("[[vm]]\nname = \"{name}\"\npolicy = \"p\"\nsource.disks = [\"/{name}\"]\n{more}")
    };
    let head = "state = \"/s\"\non_fenced = \"off.sh\"\n[vault]\nurl = \"s3://acme-dr\"\nkey = \"k\"\n[[policy]]\nname = \"p\"\nrpo = \"1h\"\n";
    let text = head.to_owned() + &vm("a", "") + &vm("b", "on_fenced = \"/bin/b\"\n");
    let config = parse(&text).expect("good");
    let run = config.vms.iter().map(|vm| vm.on_fenced.as_deref());
    let run: Vec<_> = run.collect();
    let expected = ["/etc/sparesite/off.sh", "/bin/b"].map(|path| Some(Path::new(path)));
    assert_eq!(run, expected);
}
