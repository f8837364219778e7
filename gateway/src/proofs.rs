//! What drills proved of a VM, as `status` and the status file tell it.

use std::time::Duration;

use console::{Finding, show};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vault_format::proof::{Proven, VmProofs};

/// Of one VM; part of its object in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proofs {
    /// The newest one; `null`: no drill was ever told of.
    #[serde(default)]
    pub proof: Option<ShownProof>,
    /// The newest one that passed.
    #[serde(default)]
    pub last_passed_proof: Option<ShownProof>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownProof {
    /// `preflight`, `booted` or `probed`: what was to be shown.
    pub level: String,
    pub passed: bool,
    pub point: String,
    /// RFC 3339, the clock of who ran the drill.
    pub at: String,
    pub target: String,
}

impl From<&Proven> for ShownProof {
    fn from(proven: &Proven) -> Self {
        let proof = &proven.proof;
        ShownProof {
            level: proof.level.to_string(),
            passed: proof.passed,
            point: proof.point.to_string(),
            at: proven.time.clone(),
            target: proof.target.clone(),
        }
    }
}

impl From<Option<&VmProofs>> for Proofs {
    fn from(known: Option<&VmProofs>) -> Self {
        Proofs {
            proof: known.map(|known| (&known.newest).into()),
            last_passed_proof: known.and_then(VmProofs::passed).map(Into::into),
        }
    }
}

impl Proofs {
    /// For a column: `booted 3d`, `failed 2h`, `never`.
    pub fn words(&self, now: Timestamp) -> String {
        let Some(proof) = &self.proof else {
            return "never".into();
        };
        let what = if proof.passed { &proof.level } else { "failed" };
        match proof.age(now) {
            Some(age) => format!("{what} {age}"),
            None => what.to_owned(),
        }
    }

    /// That the newest proof failed.
    pub fn failed(&self, vm: &str, now: Timestamp) -> Option<Finding> {
        let proof = self.proof.as_ref().filter(|proof| !proof.passed)?;
        let ago = |proof: &ShownProof| proof.age(now).map(|age| format!(" {age} ago"));
        let before = self.last_passed_proof.as_ref().map_or_else(
            || "no drill of it has passed yet".into(),
            |passed| {
                let (level, ago) = (&passed.level, ago(passed).unwrap_or_default());
                format!("the last one that passed: {level}{ago}")
            },
        );
        let ShownProof {
            level,
            point,
            target,
            ..
        } = proof;
        let ago = ago(proof).unwrap_or_default();
        Some(Finding::new(
            "its last drill failed",
            format!("VM {vm}"),
            format!(
                "recovery point {point} did not get as far as `{level}` in {target}{ago}; {before}"
            ),
            "read the drill's report, repair what it names, and run the drill again",
        ))
    }
}

impl ShownProof {
    /// Its largest unit only: a proof is renewed each week, and its column shall be narrow.
    fn age(&self, now: Timestamp) -> Option<String> {
        let at: Timestamp = self.at.parse().ok()?;
        // The drill's clock may be ahead of ours.
        let seconds = now.duration_since(at).as_secs().max(0);
        let age = show::duration(Duration::from_secs(seconds as u64));
        age.split(' ').next().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_format::ids::{ObjectHash, VmId};
    use vault_format::{
        PointId,
        control_log::{ControlLog, LogEntry},
        ids::VaultId,
        keys::{Secret, SigningKey},
        proof::{Proof, ProofLevel},
    };

    const VM: VmId = VmId([1; 16]);

    /// What a log with these drills comes to: (day, level, passed).
    fn after(drills: &[(i8, ProofLevel, bool)]) -> Proofs {
        let control = SigningKey::from_seed(Secret([1; 32])).expect("a key");
        let mut log = ControlLog::new(VaultId([2; 32]));
        for (day, level, passed) in drills {
            let entry = LogEntry::Proof(Proof {
                vm: VM,
                point: PointId {
                    epoch: 2,
                    sequence: 7,
                },
                level: *level,
                passed: *passed,
                target: "qemu".into(),
                report: ObjectHash([3; 32]),
                software: "test".into(),
                took_seconds: 60,
            });
            let time = format!("2026-01-{day:02}T00:00:00Z");
            let bytes = log.encode_as_control(&control, &entry, &time);
            log.read(&control.public(), &bytes).expect("read");
        }
        log.proofs.get(&VM).into()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_proof_is_told_by_its_level_and_age() {
        let passed = after(&[(1, ProofLevel::Booted, true)]);
        let failed = after(&[
            (1, ProofLevel::Probed, true),
            (9, ProofLevel::Probed, false),
        ]);
        for (proofs, now, expected) in [
            (after(&[]), "2026-01-01T00:00:00Z", "never"),
            (passed.clone(), "2026-01-04T05:00:00Z", "booted 3d"),
            (passed.clone(), "2025-12-31T00:00:00Z", "booted 0s"),
            (failed.clone(), "2026-01-09T02:30:00Z", "failed 2h"),
            (
                after(&[(1, ProofLevel::Preflight, true)]),
                "2027-01-01T00:00:00Z",
                "preflight 365d",
            ),
        ] {
            assert_eq!(proofs.words(at(now)), expected);
        }
        let mut timeless = passed;
        timeless.proof.as_mut().expect("one").at = "yesterday".into();
        assert_eq!(timeless.words(Timestamp::UNIX_EPOCH), "booted");
    }

    #[test]
    fn a_drill_that_failed_is_found_until_one_passes() {
        let now = at("2026-01-09T02:30:00Z");
        let found = |drills: &[_]| after(drills).failed("dc01", now).map(|found| found.why);
        let (booted, probed) = (ProofLevel::Booted, ProofLevel::Probed);
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[(1, booted, false), (2, booted, true)]), None);
        assert_eq!(
            found(&[(1, booted, true), (9, probed, false)]).as_deref(),
            Some(
                "recovery point 0000000002-0000000007 did not get as far as `probed` in qemu 2h ago; \
                 the last one that passed: booted 8d ago"
            )
        );
        let why = found(&[(9, booted, false)]).expect("found");
        assert!(why.ends_with("; no drill of it has passed yet"), "{why}");
    }

    #[test]
    fn json_says_null_where_nothing_is_known() {
        let json = serde_json::to_value(after(&[])).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({"proof": null, "last_passed_proof": null})
        );
        let proofs = after(&[(1, ProofLevel::Booted, true)]);
        let json = serde_json::to_value(&proofs).expect("JSON");
        let shown = serde_json::json!({"level": "booted", "passed": true, "point": "0000000002-0000000007",
            "at": "2026-01-01T00:00:00Z", "target": "qemu"});
        assert_eq!(
            json,
            serde_json::json!({"proof": &shown, "last_passed_proof": &shown})
        );
        assert_eq!(
            serde_json::from_value::<Proofs>(json).expect("read"),
            proofs
        );
    }
}
