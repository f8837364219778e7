//! A disk of a running VM as capture reads it: an NBD export of its QEMU, with the blocks that
//! changed since an earlier capture.

use std::{ops::Range, time::Duration};

use vault_store::{Extents, error::DiskFailure};
use virtual_disk::{
    DiskError, DiskReader, NbdDisk,
    nbd::{NbdAddress, NbdError, NbdOptions, wire::BASE_ALLOCATION},
};

use super::qemu::held::HeldDisk;
use crate::interrupt::Interrupt;

/// A server that is alive answers a read within this, a stalled disk below it or not.
const ANSWER: Duration = Duration::from_secs(60);
/// Set in the flags of a `qemu:dirty-bitmap:` extent that is dirty.
const DIRTY: u32 = 1;
/// What QEMU answers for a frozen state that it gave up (EPERM, EACCES, EINVAL).
const GIVEN_UP: [u32; 3] = [1, 13, 22];

pub struct LiveDisk {
    disk: NbdDisk,
    /// A connection that asks for the delta only: QEMU would answer every context each time.
    changes: Option<(NbdDisk, String)>,
    frozen: bool,
    interrupt: Interrupt,
}

impl LiveDisk {
    /// Blocks. `connections` bounds how many threads read at once.
    pub fn open(
        held: &HeldDisk,
        connections: usize,
        interrupt: Interrupt,
    ) -> Result<Self, DiskError> {
        let options = NbdOptions {
            export: held.export.clone(),
            timeout: ANSWER,
            ..NbdOptions::default()
        };
        let place = (&held.address, options);
        let context = held.context.as_deref();
        let disk = Self::connect(&held.id, place, context, connections, interrupt)?;
        Ok(LiveDisk {
            frozen: held.frozen,
            ..disk
        })
    }

    /// Blocks. `context` is that of the bitmap that has what changed.
    pub fn connect(
        name: &str,
        (address, options): (&NbdAddress, NbdOptions),
        context: Option<&str>,
        connections: usize,
        interrupt: Interrupt,
    ) -> Result<Self, DiskError> {
        let connect = |context: &str, connections| {
            let options = NbdOptions {
                contexts: vec![context.to_owned()],
                ..options.clone()
            };
            NbdDisk::connect(name, address.clone(), options, connections)
        };
        let changes = match context {
            None => None,
            Some(context) => {
                let disk = connect(context, 1)?;
                if !disk.export().has_context(context) {
                    let why = format!("{context} is not handed out");
                    return Err(DiskError::Nbd {
                        disk: name.to_owned(),
                        source: NbdError::Protocol(why),
                    });
                }
                Some((disk, context.to_owned()))
            }
        };
        Ok(LiveDisk {
            disk: connect(BASE_ALLOCATION, connections)?,
            changes,
            frozen: false,
            interrupt,
        })
    }

    fn go_on(&self) -> Result<(), DiskFailure> {
        match self.interrupt.came() {
            true => Err("interrupted".into()),
            false => Ok(()),
        }
    }

    fn failure(&self, error: DiskError) -> DiskFailure {
        let refused = match &error {
            DiskError::Nbd {
                source: NbdError::Command { errno, .. },
                ..
            } => GIVEN_UP.contains(errno),
            _ => false,
        };
        match refused && self.frozen {
            true => format!(
                "{error}: QEMU gave the frozen state up rather than fail or stall the guest's \
                 writes, as the scratch space was full or too slow; raise scratch.max, or give a \
                 scratch folder on a faster disk"
            )
            .into(),
            false => error.into(),
        }
    }
}

impl Extents for LiveDisk {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        self.go_on()?;
        let read = self.disk.read_at(offset, buf);
        read.map_err(|error| self.failure(error))
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        self.go_on()?;
        let next = self.disk.next_data(offset);
        next.map_err(|error| self.failure(error))
    }

    /// Everything, where changes are not tracked.
    fn next_change(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        self.go_on()?;
        let size = self.disk.size_bytes();
        match &self.changes {
            None => Ok((offset < size).then_some(offset..size)),
            Some((disk, context)) => disk
                .next_flagged(context, DIRTY, offset)
                .map_err(|error| self.failure(error)),
        }
    }
}
