//! Proofs (section 3): what a drill found out about one recovery point of one VM, as the control log tells it.

use crate::ids::{ObjectHash, PointId, VmId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a drill was to show; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofLevel {
    /// Judged from outside: nothing that is known of the guest keeps it from booting.
    Preflight,
    /// It was booted from the vault, and gave a sign of life.
    Booted,
    /// Its probes answered.
    Probed,
}

impl fmt::Display for ProofLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProofLevel::Preflight => "preflight",
            ProofLevel::Booted => "booted",
            ProofLevel::Probed => "probed",
        })
    }
}

/// What a drill found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub vm: VmId,
    #[serde(with = "as_text")]
    pub point: PointId,
    pub level: ProofLevel,
    /// Whether `level` was reached.
    pub passed: bool,
    /// Where the VM was booted: `qemu`.
    pub target: String,
    /// Of the drill's report, which stays with who ran the drill: it may hold pictures of a guest's screen.
    pub report: ObjectHash,
    /// What ran the drill, and its version.
    pub software: String,
    pub took_seconds: u64,
}

/// A proof as the log has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// Of its entry in the log.
    pub number: u64,
    /// RFC 3339, the clock of who ran the drill.
    pub time: String,
    pub proof: Proof,
}

/// What is kept of one VM's proofs: two at most, however many drills there were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmProofs {
    pub newest: Proven,
    /// The newest one that passed, where the newest of all did not.
    passed_before: Option<Proven>,
}

impl VmProofs {
    /// What is known once `newest` is.
    pub(crate) fn after(before: Option<VmProofs>, newest: Proven) -> Self {
        let passed_before = match newest.proof.passed {
            true => None,
            false => before.and_then(VmProofs::into_passed),
        };
        VmProofs {
            newest,
            passed_before,
        }
    }

    fn into_passed(self) -> Option<Proven> {
        match self.newest.proof.passed {
            true => Some(self.newest),
            false => self.passed_before,
        }
    }

    /// The newest one that passed.
    pub fn passed(&self) -> Option<&Proven> {
        match self.newest.proof.passed {
            true => Some(&self.newest),
            false => self.passed_before.as_ref(),
        }
    }
}

/// A point as the log's other entries name it: `<epoch>-<sequence>`.
mod as_text {
    use super::PointId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(point: &PointId, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(point)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<PointId, D::Error> {
        PointId::parse(&String::deserialize(d)?).map_err(Error::custom)
    }
}
