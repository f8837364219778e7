//! The control log (section 3): one numbered row of who may write, epochs, fences, damage, proofs.

use crate::fence::Fence;
use crate::ids::{ObjectHash, PointId, VaultId, VmId, WriterId, object_hash};
use crate::keys::{SigningKey, VerifyingKey};
use crate::metadata_object::{Writer, from_json};
use crate::proof::{Proof, Proven, VmProofs};
use crate::signed_json::{Signer, Unverified, sign_as_control, sign_as_writer};
use crate::{FormatError, names};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Numbers missing in a row, of log entries or points, that are believed to be lost ones: anybody with a writer's key can
/// make up a high number, and to count up to it would take for ever.
pub const MOST_LOST: u64 = 1000;

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LogEntry {
    Writer {
        writer: WriterId,
        public_key: String,
        label: String,
    },
    Revoke {
        writer: WriterId,
        trusted: BTreeMap<VmId, String>,
    },
    Epoch {
        writer: WriterId,
        /// VMs that another writer captured so far, and this one does from now on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        vms: Vec<VmId>,
    },
    Fence {
        vms: Vec<VmId>,
        /// The run that failed over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<String>,
        /// `<epoch>-<sequence>` of each VM's newest point that is none of another fence.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        last: BTreeMap<VmId, String>,
    },
    Unfence {
        vms: Vec<VmId>,
    },
    Damage {
        objects: Vec<String>,
    },
    Proof(Proof),
}

impl LogEntry {
    /// Whether a reader that does not know this kind must stop. A proof changes nothing that a reader does: one of an
    /// older version would refuse the vault for news that it can do without.
    fn is_critical(&self) -> bool {
        !matches!(self, LogEntry::Proof(_))
    }
}

#[derive(Serialize, Deserialize)]
struct Payload<E> {
    number: u64,
    previous: ObjectHash,
    time: String,
    critical: bool,
    entry: E,
}

/// A VM that one writer took over from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    pub writer: WriterId,
    /// The epoch that it took for that.
    pub epoch: u64,
}

/// What the log up to some number comes to. The chain of hashes makes a changed or swapped entry show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlLog {
    pub vault: VaultId,
    /// Number of the last entry read; 0 for none.
    pub number: u64,
    last: ObjectHash,
    /// Label of each writer that was ever let in.
    pub writers: BTreeMap<WriterId, String>,
    /// Revoked writers, and the newest point of theirs that is trusted, by VM.
    pub revoked: BTreeMap<WriterId, BTreeMap<VmId, PointId>>,
    /// Newest epoch of each writer.
    pub epochs: BTreeMap<WriterId, u64>,
    /// All fences of each VM, in their order.
    #[serde(default)]
    pub fences: BTreeMap<VmId, Vec<Fence>>,
    /// The last takeover of each VM.
    #[serde(default)]
    pub takeovers: BTreeMap<VmId, Takeover>,
    /// Objects that are lost or damaged, and the entry that says so.
    pub damaged: BTreeMap<String, u64>,
    /// What is known of each VM's drills. A gateway that passed over them while it was older has them from the next drill on.
    #[serde(default)]
    pub proofs: BTreeMap<VmId, VmProofs>,
    /// Entries that are void, and why.
    pub void: BTreeMap<u64, String>,
}

impl ControlLog {
    pub fn new(vault: VaultId) -> Self {
        ControlLog {
            vault,
            number: 0,
            last: ObjectHash(vault.0),
            writers: BTreeMap::new(),
            revoked: BTreeMap::new(),
            epochs: BTreeMap::new(),
            fences: BTreeMap::new(),
            takeovers: BTreeMap::new(),
            damaged: BTreeMap::new(),
            proofs: BTreeMap::new(),
            void: BTreeMap::new(),
        }
    }

    /// Name of the next entry.
    pub fn next_name(&self) -> String {
        names::log(self.number + 1)
    }

    fn payload(&self, entry: &LogEntry, time: &str) -> String {
        let payload = Payload {
            number: self.number + 1,
            previous: self.last,
            time: time.into(),
            critical: entry.is_critical(),
            entry,
        };
        match serde_json::to_string(&payload) {
            Ok(text) => text,
            Err(_) => unreachable!("a log entry is JSON"),
        }
    }

    /// The bytes of the next entry, signed by the control key.
    pub fn encode_as_control(&self, control: &SigningKey, entry: &LogEntry, time: &str) -> Vec<u8> {
        sign_as_control(
            control,
            &self.vault,
            &self.next_name(),
            self.payload(entry, time),
        )
    }

    /// The bytes of the next entry, signed by a writer.
    pub fn encode_as_writer(&self, writer: &Writer, entry: &LogEntry, time: &str) -> Vec<u8> {
        sign_as_writer(writer, &self.next_name(), self.payload(entry, time))
    }

    /// Takes in the next entry. A void one takes up its number and is noted in `void`; an error means that this
    /// version may not go on (an unknown critical entry).
    pub fn read(&mut self, control: &VerifyingKey, bytes: &[u8]) -> Result<(), FormatError> {
        let entry = self.check(control, bytes);
        if let Err(error @ FormatError::Unknown { .. }) = entry {
            return Err(error);
        }
        self.number += 1;
        self.last = object_hash(bytes);
        match entry {
            Ok(Some((entry, time))) => self.apply(entry, time),
            Ok(None) => {}
            Err(why) => drop(self.void.insert(self.number, why.to_string())),
        }
        Ok(())
    }

    /// Passes over a lost entry: what it said is unknown, and the chain begins anew behind it.
    pub fn skip_lost(&mut self, why: &str) {
        self.number += 1;
        self.void.insert(self.number, why.to_owned());
    }

    /// The entry and its time; `None` for one to pass over.
    fn check(
        &self,
        control: &VerifyingKey,
        bytes: &[u8],
    ) -> Result<Option<(LogEntry, String)>, FormatError> {
        let (payload, signer) =
            Unverified::parse(bytes)?.verify(control, &self.vault, &self.next_name())?;
        let payload: Payload<serde_json::Value> = from_json(payload.as_bytes(), "a log entry")?;
        if payload.number != self.number + 1 {
            return Err(FormatError::damaged(
                "it speaks of another number than its name",
            ));
        }
        let after_lost = self.void.contains_key(&self.number);
        if payload.previous != self.last && !after_lost {
            return Err(FormatError::damaged(
                "it does not follow on the entry before it",
            ));
        }
        let kind = payload.entry["kind"].as_str().unwrap_or("none").to_owned();
        let entry: LogEntry = match serde_json::from_value(payload.entry) {
            Ok(entry) => entry,
            Err(_) if !payload.critical => return Ok(None),
            // Else a stolen gateway key could stop every reader.
            Err(_) if signer != Signer::Control => {
                return Err(FormatError::Signature(
                    "a writer may not say something critical".into(),
                ));
            }
            Err(_) => return Err(FormatError::unknown("control log entry", kind)),
        };
        let allowed = match (&signer, &entry) {
            (Signer::Control, LogEntry::Epoch { .. }) => false,
            (Signer::Control, _) => true,
            (Signer::Writer(id, _), LogEntry::Epoch { writer, .. }) => {
                id == writer && !self.revoked.contains_key(id)
            }
            (Signer::Writer(..), _) => false,
        };
        match allowed {
            true => Ok(Some((entry, payload.time))),
            false => Err(FormatError::Signature(
                "its signer has no right to say this".into(),
            )),
        }
    }

    fn apply(&mut self, entry: LogEntry, time: String) {
        match entry {
            LogEntry::Writer { writer, label, .. } => drop(self.writers.insert(writer, label)),
            LogEntry::Revoke { writer, trusted } => {
                let parse = |(vm, point): (VmId, String)| Some((vm, PointId::parse(&point).ok()?));
                self.revoked
                    .insert(writer, trusted.into_iter().filter_map(parse).collect());
            }
            LogEntry::Epoch { writer, vms } => {
                let epoch = self.number;
                self.epochs.insert(writer, epoch);
                self.takeovers
                    .extend(vms.into_iter().map(|vm| (vm, Takeover { writer, epoch })));
            }
            LogEntry::Fence { vms, run, last } => {
                for vm in vms {
                    let last = last.get(&vm);
                    let fence = Fence {
                        number: self.number,
                        time: time.clone(),
                        run: run.clone(),
                        last: last.and_then(|point| PointId::parse(point).ok()),
                        until: None,
                    };
                    self.set_fence(vm, fence);
                }
            }
            LogEntry::Unfence { vms } => vms.iter().for_each(|vm| self.end_fence(vm)),
            LogEntry::Damage { objects } => {
                self.damaged
                    .extend(objects.into_iter().map(|object| (object, self.number)));
            }
            LogEntry::Proof(proof) => {
                let (number, vm) = (self.number, proof.vm);
                let proven = Proven {
                    number,
                    time,
                    proof,
                };
                let before = self.proofs.remove(&vm);
                self.proofs.insert(vm, VmProofs::after(before, proven));
            }
        }
    }

    /// What people call a writer: its label, and its id if that is unknown.
    pub fn label(&self, writer: &WriterId) -> String {
        match self.writers.get(writer) {
            Some(label) => format!("{label} (writer {writer})"),
            None => format!("of writer {writer}"),
        }
    }

    /// Number of the last entry that names damage; 0 for none.
    pub fn last_damage(&self) -> u64 {
        self.damaged.values().copied().max().unwrap_or(0)
    }

    /// Who took `vm` over in a later epoch than `epoch`, if that is not `writer` itself. What a revoked writer took counts
    /// no more.
    pub fn taken_from(&self, writer: &WriterId, vm: &VmId, epoch: u64) -> Option<&Takeover> {
        self.takeovers.get(vm).filter(|takeover| {
            takeover.writer != *writer
                && takeover.epoch > epoch
                && !self.revoked.contains_key(&takeover.writer)
        })
    }

    /// Whether a point of `writer` is to be trusted.
    pub fn trusts(&self, writer: &WriterId, vm: &VmId, point: PointId) -> bool {
        self.revoked
            .get(writer)
            .is_none_or(|trusted| trusted.get(vm).is_some_and(|last| point <= *last))
    }
}

#[cfg(test)]
mod tests;
