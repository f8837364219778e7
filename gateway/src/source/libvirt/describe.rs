//! A domain as libvirt describes it, for the manifest; and what of it cannot be captured or tracked, with what that
//! costs. Pure.

use virtual_disk::Format;

use super::{plan::WantedDisk, xml::Element};
use crate::{
    config,
    source::qemu::describe::{Cpus, Description, Disk, Firmware, Hardware, Lack, Limit, Nic},
};

const RESYNC: &str =
    "the whole disk is read and compared each time (a resync), while the backup job is held";

/// `sizes` are by target; `now` is our clock in seconds since 1970.
pub fn describe(domain: &Element, sizes: &[(String, u64)], now: i64) -> Description {
    let mut limits = Vec::new();
    let mut disks = Vec::new();
    for element in domain
        .at("devices")
        .into_iter()
        .flat_map(|all| all.all("disk"))
    {
        disks.extend(disk(element, sizes, &mut limits));
    }
    others(domain, &mut limits);
    let tpm = domain.at("devices/tpm");
    if tpm.is_some() {
        limits.push(limit(
            Lack::NotCaptured,
            "TPM",
            "its secrets lie outside of the guest's disks",
            "what is sealed to it does not open after a recovery: keep BitLocker's recovery key",
        ));
    }
    let firmware = firmware(domain);
    if let Firmware::Uefi { .. } = firmware {
        limits.push(limit(
            Lack::Note,
            "UEFI variables",
            "they lie outside of the guest's disks",
            "boot entries and enrolled keys are made anew; the boot loader's default path has to work",
        ));
    }
    let hardware = Hardware {
        qemu: format!("libvirt ({})", domain.attribute("type").unwrap_or_default()),
        machine: domain
            .of("os/type", "machine")
            .unwrap_or_default()
            .to_owned(),
        firmware,
        tpm: tpm.map(|tpm| tpm.attribute("model").unwrap_or("tpm").to_owned()),
        cpus: cpus(domain),
        memory_bytes: domain.at("memory").map_or(0, bytes),
        clock_offset_seconds: clock(domain, now),
        disks,
        nics: nics(domain),
    };
    Description { hardware, limits }
}

/// The disks of a domain that is off, as a list that is read as it lies; none where one of them is no file or device.
pub fn as_list(disks: &[Disk], exclude: &[String]) -> Option<Vec<config::Disk>> {
    let listed = |disk: &Disk| {
        let format = Format::ALL
            .into_iter()
            .find(|format| format.name() == disk.format);
        disk.file.starts_with('/').then(|| config::Disk {
            name: disk.id.clone(),
            path: disk.file.clone().into(),
            format,
            exclude: exclude.contains(&disk.id),
        })
    };
    disks.iter().map(listed).collect()
}

/// All targets, also of what is not captured: libvirt wants each to be named.
pub fn targets(domain: &Element) -> Vec<String> {
    let all = domain
        .at("devices")
        .into_iter()
        .flat_map(|all| all.all("disk"));
    all.filter_map(|disk| Some(disk.of("target", "dev")?.to_owned()))
        .collect()
}

/// The channel that libvirt speaks to a guest agent through.
pub fn has_agent(domain: &Element) -> bool {
    let all = domain.at("devices").into_iter();
    let mut channels = all.flat_map(|all| all.all("channel"));
    channels.any(|channel| channel.of("target", "name") == Some("org.qemu.guest_agent.0"))
}

impl From<&Disk> for WantedDisk {
    fn from(disk: &Disk) -> Self {
        WantedDisk {
            id: disk.id.clone(),
            format: disk.format.clone(),
            size_bytes: disk.size_bytes,
        }
    }
}

fn limit(lack: Lack, on: &str, why: impl Into<String>, cost: &str) -> Limit {
    Limit {
        lack,
        on: on.to_owned(),
        why: why.into(),
        cost: cost.to_owned(),
    }
}

fn disk(element: &Element, sizes: &[(String, u64)], limits: &mut Vec<Limit>) -> Option<Disk> {
    let id = element.of("target", "dev")?;
    let kind = element.attribute("device").unwrap_or("disk");
    let skipped = match kind {
        "disk" if element.attribute("type") == Some("vhostuser") => Some((
            Lack::NotCaptured,
            "a disk that another process serves the guest past QEMU (vhost-user); libvirt has no backup jobs for it",
            "what is on it is not restored; capture it where it is served",
        )),
        "disk" => None,
        "cdrom" | "floppy" => Some((
            Lack::Skipped,
            "a removable medium",
            "none, if the guest boots without",
        )),
        _ => Some((
            Lack::NotCaptured,
            "a device of the host, passed through to the guest past QEMU",
            "what is on it is not restored; capture it by a program in the guest",
        )),
    };
    let skipped = skipped.or_else(|| {
        element.child("readonly").map(|_| {
            (
                Lack::Skipped,
                "it is read-only",
                "it is not restored; attach it writable to have it",
            )
        })
    });
    if let Some((lack, why, cost)) = skipped {
        limits.push(limit(lack, id, why, cost));
        return None;
    }
    let format = element.of("driver", "type").unwrap_or("raw");
    if format != "qcow2" {
        let why = format!("libvirt tracks changes in qcow2 images only, and this one is {format}");
        limits.push(limit(Lack::NotTracked, id, why, RESYNC));
    }
    let source = element.child("source");
    let part = |names: &[&str]| names.iter().find_map(|name| source?.attribute(name));
    let file = part(&["file", "dev", "name", "volume"]).unwrap_or_default();
    let address = element.child("address").map(|address| {
        let part = |name| address.attribute(name).unwrap_or("0");
        match address.attribute("type") {
            Some("drive") => format!("{}:{}:{}", part("controller"), part("target"), part("unit")),
            _ => format!("{}:{}.{}", part("bus"), part("slot"), part("function")),
        }
    });
    let size = sizes.iter().find(|(name, _)| name == id);
    Some(Disk {
        id: id.to_owned(),
        bus: element.of("target", "bus").unwrap_or("other").to_owned(),
        address,
        boot_index: element
            .of("boot", "order")
            .and_then(|order| order.parse().ok()),
        serial: element
            .child("serial")
            .map(|serial| serial.words().to_owned()),
        node: String::new(),
        format: format.to_owned(),
        file: file.to_owned(),
        size_bytes: size.map_or(0, |(_, bytes)| *bytes),
        backing: None,
        shared: false,
    })
}

/// Storage of the guest that is no disk of libvirt.
fn others(domain: &Element, limits: &mut Vec<Limit>) {
    let Some(devices) = domain.child("devices") else {
        return;
    };
    let not_restored = "what is on it is not restored; capture it by a program in the guest";
    for (number, _) in devices.all("filesystem").enumerate() {
        let on = format!("filesystem{number}");
        limits.push(limit(
            Lack::NotCaptured,
            &on,
            "a folder of the host, shared with the guest",
            not_restored,
        ));
    }
    for (number, device) in devices.all("hostdev").enumerate() {
        let on = format!("hostdev{number}");
        let (lack, cost) = match device.attribute("type") {
            Some("scsi" | "scsi_host") => (Lack::NotCaptured, not_restored),
            _ => (
                Lack::Note,
                "the recovery VM does not have it; if it holds data, that is not restored",
            ),
        };
        limits.push(limit(
            lack,
            &on,
            "a device of the host, passed through to the guest",
            cost,
        ));
    }
}

fn firmware(domain: &Element) -> Firmware {
    let Some(os) = domain.child("os") else {
        return Firmware::Bios;
    };
    let loader = os.child("loader");
    let pflash = loader.is_some_and(|loader| loader.attribute("type") == Some("pflash"));
    if os.attribute("firmware") != Some("efi") && !pflash {
        return Firmware::Bios;
    }
    let enrolled = os.at("firmware").into_iter().flat_map(|f| f.all("feature"));
    let enrolled = enrolled
        .filter(|feature| feature.attribute("name") == Some("enrolled-keys"))
        .find_map(|feature| feature.attribute("enabled"));
    let secure = loader.and_then(|loader| loader.attribute("secure")) == Some("yes");
    Firmware::Uefi {
        secure_boot: match (secure, enrolled) {
            (true, Some(enabled)) => Some(enabled == "yes"),
            (true, None) => None,
            (false, _) => Some(false),
        },
        code: loader.map_or_else(String::new, |loader| loader.words().to_owned()),
        variables: os.child("nvram").map(|nvram| nvram.words().to_owned()),
    }
}

fn cpus(domain: &Element) -> Cpus {
    let vcpu = domain.child("vcpu");
    let count = vcpu.and_then(|vcpu| {
        vcpu.attribute("current")
            .unwrap_or(vcpu.words())
            .parse()
            .ok()
    });
    let count = count.unwrap_or(1);
    let part = |name| {
        domain
            .of("cpu/topology", name)
            .and_then(|n| n.parse::<u64>().ok())
    };
    let mode = domain.of("cpu", "mode").unwrap_or_default();
    let model = domain.at("cpu/model").map_or(mode, Element::words);
    Cpus {
        count,
        sockets: part("sockets").unwrap_or(count),
        cores: part("cores")
            .unwrap_or(1)
            .saturating_mul(part("dies").unwrap_or(1)),
        threads: part("threads").unwrap_or(1),
        model: model.to_owned(),
    }
}

/// As libvirt's units are: KiB where none is said.
fn bytes(element: &Element) -> u64 {
    let unit = match element.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        _ => 1 << 10,
    };
    let number: u64 = element.words().parse().unwrap_or(0);
    number.saturating_mul(unit)
}

fn clock(domain: &Element, now: i64) -> i64 {
    let of = |name| domain.of("clock", name);
    let zone = match (of("offset"), of("timezone")) {
        (Some("variable"), _) => return of("adjustment").and_then(|s| s.parse().ok()).unwrap_or(0),
        (Some("timezone"), Some(name)) => jiff::tz::TimeZone::get(name).ok(),
        (Some("localtime"), _) => Some(jiff::tz::TimeZone::system()),
        _ => None,
    };
    let now = jiff::Timestamp::from_second(now).ok();
    zone.zip(now)
        .map_or(0, |(zone, now)| i64::from(zone.to_offset(now).seconds()))
}

fn nics(domain: &Element) -> Vec<Nic> {
    let all = domain
        .at("devices")
        .into_iter()
        .flat_map(|all| all.all("interface"));
    let nic = |(number, nic): (usize, &Element)| {
        let source = nic.child("source");
        let network = ["network", "bridge", "dev"];
        let network = network.iter().find_map(|name| source?.attribute(name));
        Nic {
            id: nic
                .of("alias", "name")
                .map_or_else(|| format!("net{number}"), str::to_owned),
            model: nic.of("model", "type").unwrap_or_default().to_owned(),
            mac: nic.of("mac", "address").unwrap_or_default().to_owned(),
            network: network.or(nic.attribute("type")).map(str::to_owned),
        }
    };
    all.enumerate().map(nic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `virsh dumpxml` prints a UEFI guest, shortened.
    const DOMAIN: &str = r#"<domain type='kvm'>
  <name>db</name><memory unit='GiB'>4</memory><vcpu placement='static' current='2'>4</vcpu>
  <os firmware='efi'><type arch='x86_64' machine='pc-q35-9.2'>hvm</type>
    <firmware><feature enabled='yes' name='enrolled-keys'/></firmware>
    <loader readonly='yes' secure='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.ms.fd</loader>
    <nvram>/var/lib/libvirt/qemu/nvram/db_VARS.fd</nvram></os>
  <cpu mode='host-model'><topology sockets='1' dies='1' cores='2' threads='1'/></cpu>
  <clock offset='variable' adjustment='3600' basis='utc'/>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/srv/db.qcow2'/>
      <target dev='vda' bus='virtio'/><serial>s1</serial><boot order='1'/></disk>
    <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/vg0/db'/>
      <target dev='sda' bus='scsi'/><address type='drive' controller='0' bus='0' target='0' unit='3'/></disk>
    <disk type='file' device='cdrom'><target dev='sdb' bus='sata'/><readonly/></disk>
    <disk type='vhostuser' device='disk'><driver name='qemu' type='raw'/>
      <source type='unix' path='/run/spdk.sock'/><target dev='vdc' bus='virtio'/></disk>
    <interface type='network'><mac address='52:54:00:00:00:01'/><source network='lan' bridge='virbr1'/>
      <model type='virtio'/><alias name='net0'/></interface>
    <filesystem type='mount'><target dir='share'/></filesystem>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
  </devices></domain>"#;

    #[test]
    fn a_domain_is_described() {
        let domain = Element::read(DOMAIN).expect("XML");
        let sizes = [("vda".to_owned(), 7 << 30), ("sda".to_owned(), 9 << 30)];
        let Description { hardware, limits } = describe(&domain, &sizes, 0);
        assert_eq!(
            (hardware.memory_bytes, hardware.clock_offset_seconds),
            (4 << 30, 3600)
        );
        let cpus = &hardware.cpus;
        assert_eq!((cpus.count, cpus.sockets, cpus.cores), (2, 1, 2));
        let Firmware::Uefi {
            secure_boot,
            variables,
            ..
        } = &hardware.firmware
        else {
            panic!("{:?}", hardware.firmware);
        };
        assert_eq!(*secure_boot, Some(true));
        assert_eq!(
            variables.as_deref(),
            Some("/var/lib/libvirt/qemu/nvram/db_VARS.fd")
        );
        assert_eq!(hardware.tpm.as_deref(), Some("tpm-crb"));
        let nic = &hardware.nics[0];
        assert_eq!(
            (&*nic.mac, nic.network.as_deref()),
            ("52:54:00:00:00:01", Some("lan"))
        );
        let [vda, sda] = &hardware.disks[..] else {
            panic!("{:?}", hardware.disks)
        };
        assert_eq!(
            (&*vda.bus, vda.boot_index, vda.serial.as_deref()),
            ("virtio", Some(1), Some("s1"))
        );
        assert_eq!(
            (&*sda.file, sda.address.as_deref(), sda.size_bytes),
            ("/dev/vg0/db", Some("0:0:3"), 9 << 30)
        );
        let lacks: Vec<_> = limits.iter().map(|l| (l.lack, &*l.on)).collect();
        assert_eq!(
            lacks,
            [
                (Lack::NotTracked, "sda"),
                (Lack::Skipped, "sdb"),
                (Lack::NotCaptured, "vdc"),
                (Lack::NotCaptured, "filesystem0"),
                (Lack::NotCaptured, "TPM"),
                (Lack::Note, "UEFI variables"),
            ]
        );
        assert_eq!(targets(&domain), ["vda", "sda", "sdb", "vdc"]);
        let listed = as_list(&hardware.disks, &["sda".to_owned()]).expect("files");
        let listed: Vec<_> = listed
            .iter()
            .map(|disk| {
                (
                    disk.path.to_str().unwrap_or_default(),
                    disk.format,
                    disk.exclude,
                )
            })
            .collect();
        let [qcow2, raw] = [Some(Format::Qcow2), Some(Format::Raw)];
        assert_eq!(
            listed,
            [("/srv/db.qcow2", qcow2, false), ("/dev/vg0/db", raw, true)]
        );
        let mut disks = hardware.disks;
        disks[0].file = "pool/db".into();
        assert_eq!(as_list(&disks, &[]), None);
    }
}
