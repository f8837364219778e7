//! Run records (section 11): what was done in a run of a recovery plan, entry by entry, for whoever goes on with it.
//!
//! An entry is sealed to the kit: it names VMs, addresses and what was made in the cloud, and a gateway has no business
//! with that. What it says is its writer's; here it is bytes.

use serde::{Deserialize, Serialize};

use crate::FormatError;
use crate::ids::{PlanId, VaultId};
use crate::keys::{RecoveryKey, Secret, SigningKey, VerifyingKey, first_16};
use crate::metadata_object::from_json;
use crate::names;
use crate::seal::Sealer;
use crate::signed_json::{Signer, Unverified, sign_as_control};

/// An entry is at most so large, in bytes, before it is sealed: the first one holds a whole plan.
pub const MOST_BYTES: usize = 4 << 20;

/// One run: of a plan, its number from 1. The next one begins when the one before has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunName {
    pub plan: PlanId,
    pub run: u64,
}

/// What the kit's holder seals and names run records with.
#[derive(Clone)]
pub struct RunKeys {
    plan_names: Secret,
    sealer: Sealer,
    vault: VaultId,
}

impl std::fmt::Debug for RunKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunKeys(…)")
    }
}

#[derive(Serialize, Deserialize)]
struct Payload {
    sealed: String,
}

impl RunKeys {
    pub fn new(recovery: &RecoveryKey, vault: VaultId) -> Self {
        let derive = |context| Secret(blake3::derive_key(context, &recovery.secret().0));
        RunKeys {
            plan_names: derive("sparesite/1 plan name"),
            sealer: Sealer::new(&derive("sparesite/1 run record")),
            vault,
        }
    }

    /// Where a plan's runs are: no object's name tells the plan's.
    pub fn plan_id(&self, name: &str) -> PlanId {
        PlanId(first_16(blake3::keyed_hash(
            &self.plan_names.0,
            name.as_bytes(),
        )))
    }

    /// The bytes of one entry. The same entry under the same name gives the same bytes.
    pub fn encode(
        &self,
        control: &SigningKey,
        run: RunName,
        number: u64,
        entry: &[u8],
    ) -> Result<Vec<u8>, FormatError> {
        if entry.len() > MOST_BYTES {
            return Err(FormatError::damaged(
                "an entry of a run record is larger than 4 MiB",
            ));
        }
        let name = names::run_entry(run, number);
        let mut sealed = Vec::new();
        self.sealer
            .seal(&self.associated(&name), entry, &mut sealed);
        let payload = Payload {
            sealed: hex::encode(sealed),
        };
        match serde_json::to_string(&payload) {
            Ok(payload) => Ok(sign_as_control(control, &self.vault, &name, payload)),
            Err(_) => unreachable!("a struct of a string is JSON"),
        }
    }

    /// Checks and opens one entry.
    pub fn decode(
        &self,
        control: &VerifyingKey,
        run: RunName,
        number: u64,
        bytes: &[u8],
    ) -> Result<Vec<u8>, FormatError> {
        let name = names::run_entry(run, number);
        let (payload, signer) = Unverified::parse(bytes)?.verify(control, &self.vault, &name)?;
        if signer != Signer::Control {
            return Err(FormatError::Signature(
                "a writer may not say what a run did".into(),
            ));
        }
        let payload: Payload = from_json(payload.as_bytes(), "an entry of a run record")?;
        let mut sealed = hex::decode(&payload.sealed)
            .map_err(|_| FormatError::damaged("an entry of a run record is not hexadecimal"))?;
        let opened = self.sealer.open(
            &self.associated(&name),
            &mut sealed,
            "an entry of a run record",
        )?;
        Ok(opened.to_vec())
    }

    fn associated(&self, name: &str) -> Vec<u8> {
        [&self.vault.0[..], name.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAULT: VaultId = VaultId([7; 32]);

    fn keys() -> (RunKeys, SigningKey) {
        let recovery = RecoveryKey::from_bytes(Secret([1; 32]));
        let control = SigningKey::from_seed(Secret([2; 32])).unwrap();
        (RunKeys::new(&recovery, VAULT), control)
    }

    fn run(keys: &RunKeys) -> RunName {
        RunName {
            plan: keys.plan_id("whole-site"),
            run: 3,
        }
    }

    #[test]
    fn an_entry_opens_under_its_own_name_only() {
        let (keys, control) = keys();
        let (name, public) = (run(&keys), control.public());
        let bytes = keys.encode(&control, name, 4, b"what was done").unwrap();
        assert_eq!(
            bytes,
            keys.encode(&control, name, 4, b"what was done").unwrap()
        );
        assert_eq!(
            keys.decode(&public, name, 4, &bytes).unwrap(),
            b"what was done"
        );
        assert!(!String::from_utf8_lossy(&bytes).contains("what was done"));
        // Moved to another number, run or plan, or to another vault.
        assert!(keys.decode(&public, name, 5, &bytes).is_err());
        assert!(
            keys.decode(&public, RunName { run: 4, ..name }, 4, &bytes)
                .is_err()
        );
        let other = RunName {
            plan: keys.plan_id("another"),
            ..name
        };
        assert!(keys.decode(&public, other, 4, &bytes).is_err());
        let recovery = RecoveryKey::from_bytes(Secret([1; 32]));
        let elsewhere = RunKeys::new(&recovery, VaultId([8; 32]));
        assert!(elsewhere.decode(&public, name, 4, &bytes).is_err());
        // The right signature, and another kit.
        let stranger = RunKeys::new(&RecoveryKey::from_bytes(Secret([9; 32])), VAULT);
        assert!(stranger.decode(&public, name, 4, &bytes).is_err());
        assert_ne!(stranger.plan_id("whole-site"), name.plan);
    }

    #[test]
    fn what_is_damaged_or_too_large_is_an_error() {
        let (keys, control) = keys();
        let (name, public) = (run(&keys), control.public());
        let bytes = keys.encode(&control, name, 1, b"x").unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(
                keys.decode(&public, name, 1, &damaged).is_err(),
                "byte {at}"
            );
        }
        assert!(
            keys.encode(&control, name, 1, &vec![0; MOST_BYTES + 1])
                .is_err()
        );
        for payload in ["{}", "{\"sealed\":\"xy\"}", "{\"sealed\":\"00\"}", "[]"] {
            let object = names::run_entry(name, 1);
            let signed = sign_as_control(&control, &VAULT, &object, payload.into());
            assert!(keys.decode(&public, name, 1, &signed).is_err(), "{payload}");
        }
    }
}
