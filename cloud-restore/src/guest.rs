//! A guest's disks in the vault, looked at from outside: only the chunks that the question needs are fetched.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use console::Failure;
use guest_inspection::facts::{Facts, Machine};
use guest_inspection::judge::{Judgement, Severity, Verdict};
use guest_inspection::storage::NamedDisk;
use tokio::runtime::Handle;
use virtual_disk::nbd::server::{Export, Piece};
use virtual_disk::nbd::wire::STATE_ZERO;
use virtual_disk::{DiskError, DiskReader};

use crate::hardware::{Architecture, Bus, Firmware, Hardware, NicModel};
use crate::machine::{bus_name, nic_device};
use crate::served::{Opened, ServedDisk};

/// One request's share of a long read.
const MOST_AT_ONCE: usize = 16 << 20;

/// What the VM is, as far as its recovery point says. Disks in the order of `hardware`, without excluded ones.
pub fn machine(name: &str, hardware: &Hardware) -> Machine {
    let kept = || hardware.disks.iter().filter(|disk| !disk.excluded);
    let buses: Option<Vec<Bus>> = kept().map(|disk| disk.bus).collect();
    let cpus = hardware.cpus.as_ref();
    Machine {
        name: name.to_owned(),
        firmware: hardware.firmware.map(|firmware| match firmware {
            Firmware::Bios => "bios".to_owned(),
            Firmware::Uefi { .. } => "uefi".to_owned(),
        }),
        architecture: hardware
            .architecture
            .map(|architecture| match architecture {
                Architecture::X86_64 => "x86_64".to_owned(),
                Architecture::Aarch64 => "aarch64".to_owned(),
            }),
        cpus: cpus.and_then(|cpus| u32::try_from(cpus.count).ok()),
        memory_bytes: hardware.memory_bytes,
        nics: hardware.nics.len(),
        disk_buses: buses
            .unwrap_or_default()
            .into_iter()
            .map(|bus| bus_name(bus).to_owned())
            .collect(),
        nic_models: hardware
            .nics
            .iter()
            .map(|nic| nic_device(nic.model.unwrap_or(NicModel::Virtio)).to_owned())
            .collect(),
        excluded_disks: hardware
            .disks
            .iter()
            .filter(|disk| disk.excluded)
            .map(|disk| disk.name.clone())
            .collect(),
    }
}

/// What preflight says, in a line.
pub fn told(judged: &Judgement) -> String {
    let verdict = verdict_name(judged.verdict);
    let grave = judged
        .findings
        .iter()
        .filter(|finding| finding.severity > Severity::Note);
    let grave: Vec<String> = grave
        .map(|finding| format!("{}: {}", finding.code, finding.what))
        .collect();
    match grave.is_empty() {
        true => verdict.to_owned(),
        false => format!("{verdict} ({})", grave.join("; ")),
    }
}

/// For people.
pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Boots => "boots",
        Verdict::DoesNotBoot => "does not boot",
        Verdict::Unknown => "unknown",
    }
}

/// Looks at the guest; whatever cannot be read is in the facts.
pub async fn inspect(machine: Machine, disks: &[Opened]) -> Result<Facts, Failure> {
    let handle = Handle::current();
    let reader = |opened: &Opened| NamedDisk {
        name: opened.name.clone(),
        reader: Arc::new(Blocking {
            name: opened.name.clone(),
            disk: opened.disk.clone(),
            handle: handle.clone(),
        }),
    };
    let disks: Vec<NamedDisk> = disks.iter().map(reader).collect();
    let looking = tokio::task::spawn_blocking(move || guest_inspection::inspect(machine, &disks));
    looking
        .await
        .map_err(|error| Failure::failed("looking at the guest ended early").because(error))
}

/// A served disk for code that waits.
struct Blocking {
    name: String,
    disk: Arc<ServedDisk>,
    handle: Handle,
}

impl Blocking {
    fn failed(&self, why: impl ToString) -> DiskError {
        DiskError::Io {
            action: "read",
            path: PathBuf::from(&self.name),
            source: io::Error::other(why.to_string()),
        }
    }
}

impl DiskReader for Blocking {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.disk.size_bytes()) {
            return Err(self.failed("a read past the disk's end"));
        }
        let mut at = offset;
        for part in buf.chunks_mut(MOST_AT_ONCE) {
            let length = part.len() as u32;
            let reading = async {
                match self.disk.read_now(at, length) {
                    Some(read) => read,
                    None => self.disk.read(at, length).await,
                }
            };
            let mut rest = part;
            for piece in self.handle.block_on(reading).map_err(|e| self.failed(e))? {
                let (here, behind) = rest.split_at_mut(piece.length() as usize);
                match piece {
                    Piece::Data(bytes) => here.copy_from_slice(&bytes),
                    Piece::Zeroes(_) => here.fill(0),
                }
                rest = behind;
            }
            at += u64::from(length);
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        let size = self.disk.size_bytes();
        let mut at = offset;
        while at < size {
            let extents = self.handle.block_on(self.disk.extents(at, size - at));
            for extent in extents.map_err(|e| self.failed(e))? {
                if extent.flags & STATE_ZERO == 0 {
                    return Ok(Some(at..at + extent.length));
                }
                at += extent.length;
            }
        }
        Ok(None)
    }
}
