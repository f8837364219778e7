//! The VM as QEMU describes it, for the manifest; and what of it cannot be captured or tracked,
//! with what that costs. Pure; `facts` asks.

mod disks;
mod facts;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use facts::Facts;

/// The first QEMU whose copy-before-write filter gives itself up rather than fail a guest's write (`on-cbw-error`).
const OLDEST: (u64, u64) = (7, 1);
/// The clock's base is told from its time; a guest's own drift is less than half of this.
const CLOCK_STEP_SECONDS: i64 = 900;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    pub qemu: String,
    /// `pc-q35-10.0`
    pub machine: String,
    pub firmware: Firmware,
    /// Its model, such as `tpm-crb`.
    pub tpm: Option<String>,
    pub cpus: Cpus,
    pub memory_bytes: u64,
    /// What the guest's clock is ahead of UTC: 0 where its base is UTC.
    pub clock_offset_seconds: i64,
    pub disks: Vec<Disk>,
    pub nics: Vec<Nic>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Firmware {
    Bios,
    Uefi {
        /// None where QEMU does not tell.
        secure_boot: Option<bool>,
        code: String,
        /// The file of its variables.
        variables: Option<String>,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus {
    pub count: u64,
    pub sockets: u64,
    pub cores: u64,
    pub threads: u64,
    pub model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub id: String,
    /// `virtio`, `scsi`, `sata`, `ide`, `nvme`, `usb`.
    pub bus: String,
    /// On its bus.
    pub address: Option<String>,
    pub boot_index: Option<i64>,
    pub serial: Option<String>,
    pub node: String,
    pub format: String,
    pub file: String,
    pub size_bytes: u64,
    pub backing: Option<String>,
    /// Other VMs may write to it too.
    #[serde(default)]
    pub shared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    pub id: String,
    pub model: String,
    pub mac: String,
    /// The bridge or the interface on the host, or what kind of network QEMU makes.
    pub network: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lack {
    /// It holds data, and no recovery point has it.
    NotCaptured,
    /// Its changes are lost at times; the whole disk is compared then.
    NotTracked,
    /// Left out, as a recovery does not need it.
    Skipped,
    /// Worth knowing.
    Note,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub lack: Lack,
    pub on: String,
    pub why: String,
    pub cost: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub hardware: Hardware,
    pub limits: Vec<Limit>,
}

/// In the order in which QEMU names the disks, which is that of its command line.
pub fn describe(facts: &Facts) -> Description {
    let mut limits = Vec::new();
    limits.extend(too_old(facts.version));
    let disks = disks::disks(facts, &mut limits);
    disks::others(facts, &mut limits);
    let firmware = firmware(facts);
    if let Firmware::Uefi { .. } = firmware {
        limits.push(Limit {
            lack: Lack::Note,
            on: "UEFI variables".into(),
            why: "they lie outside of the guest's disks".into(),
            cost: "boot entries and enrolled keys are made anew; the boot loader's default path \
                   has to work"
                .into(),
        });
    }
    let tpm = facts.tpm["model"].as_str().map(str::to_owned);
    if tpm.is_some() {
        limits.push(Limit {
            lack: Lack::NotCaptured,
            on: "TPM".into(),
            why: "its secrets lie outside of the guest's disks".into(),
            cost: "what is sealed to it does not open after a recovery: keep BitLocker's recovery \
                   key"
            .into(),
        });
    }
    let hardware = Hardware {
        qemu: format!("{}.{}", facts.version.0, facts.version.1),
        machine: text(&facts.machine, "type")
            .trim_end_matches("-machine")
            .to_owned(),
        firmware,
        tpm,
        cpus: cpus(facts),
        memory_bytes: sum(&facts.memory, &["base-memory", "plugged-memory"]),
        clock_offset_seconds: clock_offset(&facts.machine["rtc-time"], facts.now_seconds),
        disks,
        nics: nics(facts),
    };
    Description { hardware, limits }
}

fn too_old((major, minor): (u64, u64)) -> Option<Limit> {
    ((major, minor) < OLDEST).then(|| Limit {
        lack: Lack::NotCaptured,
        on: format!("QEMU {major}.{minor}"),
        why: "its copy-before-write filter cannot give itself up (on-cbw-error came with 7.1), and a capture may not \
              fail a guest's write"
            .into(),
        cost: "no capture of this VM works: upgrade QEMU, and stop and start the VM; or capture its disks while it is off"
            .into(),
    })
}

fn text(value: &Value, part: &str) -> String {
    value[part].as_str().unwrap_or_default().to_owned()
}

fn sum(value: &Value, parts: &[&str]) -> u64 {
    let numbers = parts.iter().filter_map(|part| value[part].as_u64());
    numbers.fold(0, u64::saturating_add)
}

fn firmware(facts: &Facts) -> Firmware {
    let flash = |number: usize| {
        let path = format!("/machine/system.flash{number}");
        let mut devices = facts.view.devices.iter();
        let device = devices.find(|d| d.qom_path.as_deref() == Some(&path))?;
        Some(facts.view.image(device)?.image.filename.clone())
    };
    let bios = text(&facts.machine, "firmware");
    let code = flash(0).or_else(|| is_uefi(&bios).then_some(bios));
    let Some(code) = code else {
        return Firmware::Bios;
    };
    let enrolled = ["secboot", "secure", ".ms."].iter();
    let secure_boot = match (
        &facts.flash_is_secure,
        enrolled.clone().any(|w| code.contains(w)),
    ) {
        (true, _) => Some(true),
        (false, true) => None,
        (false, false) => Some(false),
    };
    Firmware::Uefi {
        secure_boot,
        code,
        variables: flash(1),
    }
}

fn is_uefi(file: &str) -> bool {
    let name = file.to_ascii_lowercase();
    ["ovmf", "edk2", "efi"]
        .iter()
        .any(|word| name.contains(word))
}

fn cpus(facts: &Facts) -> Cpus {
    let smp = &facts.machine["smp"];
    let number = |part: &str| smp[part].as_u64().unwrap_or(1);
    let dies = number("dies").saturating_mul(number("clusters"));
    Cpus {
        count: facts.cpu_count,
        sockets: number("sockets"),
        cores: number("cores").saturating_mul(dies),
        threads: number("threads"),
        model: facts.cpu_type.trim_end_matches("-x86_64-cpu").to_owned(),
    }
}

/// From the guest's clock and ours; QEMU does not tell the base.
fn clock_offset(clock: &Value, now_seconds: i64) -> i64 {
    let part = |name: &str| clock[name].as_i64().and_then(|n| i16::try_from(n).ok());
    let byte = |name: &str| clock[name].as_i64().and_then(|n| i8::try_from(n).ok());
    let parts = (|| {
        let year = part("tm_year")?.checked_add(1900)?;
        let month = byte("tm_mon")?.checked_add(1)?;
        let (day, hour) = (byte("tm_mday")?, byte("tm_hour")?);
        let (minute, second) = (byte("tm_min")?, byte("tm_sec")?);
        jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()
    })();
    let utc = parts.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok());
    let Some(utc) = utc else { return 0 };
    let ahead = utc.timestamp().as_second() - now_seconds;
    (ahead + CLOCK_STEP_SECONDS / 2).div_euclid(CLOCK_STEP_SECONDS) * CLOCK_STEP_SECONDS
}

/// From `info network`, the only place where QEMU tells a NIC's network: a line for each NIC, and
/// one below it for what it is connected to.
fn nics(facts: &Facts) -> Vec<Nic> {
    let mut nics: Vec<Nic> = Vec::new();
    for line in facts.network.lines() {
        let below = line.trim_start().strip_prefix("\\ ");
        let Some((id, rest)) = below.unwrap_or(line).split_once(':') else {
            continue;
        };
        let value = |name: &str| {
            let mut pairs = rest
                .split(',')
                .filter_map(|pair| pair.trim().split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
        };
        let kind = value("type");
        match (below, kind.as_deref(), nics.last_mut()) {
            (None, Some("nic"), _) => nics.push(Nic {
                id: id.trim().to_owned(),
                model: value("model").unwrap_or_default(),
                mac: value("macaddr").unwrap_or_default(),
                network: None,
            }),
            // A bridge helper's tap has no name that stays; its bridge has.
            (Some(_), _, Some(nic)) => nic.network = value("br").or(value("ifname")).or(kind),
            _ => {}
        }
    }
    nics
}

#[cfg(test)]
#[path = "tests/describe.rs"]
mod tests;
