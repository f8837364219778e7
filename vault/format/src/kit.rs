//! The recovery kit (section 4): what must survive the site. The private recovery key and the control key, wrapped under
//! a passphrase.

use crate::FormatError;
use crate::ids::{VaultId, hex_array};
use crate::keys::{RecoveryKey, Secret, SigningKey};
use crate::metadata_object::from_json;
use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

const KIND: &str = "sparesite recovery kit";
const WRAPPED_BYTES: usize = 64 + 16;
/// What a reader spends at most on a kit that somebody else may have written: memory at once, and over all passes
/// (half a minute on two CPUs), and threads.
const MAX_MEMORY_KIB: u32 = 4 * 1024 * 1024;
const MAX_PASSES_KIB: u64 = 32 * 1024 * 1024;
const MAX_PARALLELISM: u32 = 64;

/// Argon2id's costs (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2idCosts {
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
}

/// 256 MiB, 4 passes, 4 lanes: about a second here, and dear for who guesses.
pub const KIT_COSTS: Argon2idCosts = Argon2idCosts {
    memory_kib: 256 * 1024,
    iterations: 4,
    parallelism: 4,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Argon2idJson {
    memory_kib: u32,
    iterations: u32,
    parallelism: u32,
    salt: String,
}

/// A kit as it lies in its file, closed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kit {
    kind: String,
    format: u64,
    pub vault_url: String,
    pub region: Option<String>,
    pub vault_id: VaultId,
    pub created: String,
    argon2id: Argon2idJson,
    wrapped: String,
    /// Text of `vault/0000000001.json`, in case the vault loses it; not in the QR code.
    pub vault: Option<String>,
    checksum: String,
}

/// What a kit opens to.
#[derive(Debug)]
pub struct KitKeys {
    pub recovery: RecoveryKey,
    pub control: SigningKey,
}

/// What goes into a new kit.
#[derive(Debug)]
pub struct NewKit<'a> {
    pub vault_url: String,
    pub region: Option<String>,
    pub vault_id: VaultId,
    pub created: String,
    /// Text of `vault/0000000001.json`.
    pub vault: String,
    pub keys: &'a KitKeys,
    /// Random, for this kit alone: the key that wraps is used once because the salt is.
    pub salt: [u8; 16],
    pub costs: Argon2idCosts,
}

impl NewKit<'_> {
    pub fn close(self, passphrase: &str) -> Result<Kit, FormatError> {
        let mut plain = Zeroizing::new(Vec::with_capacity(WRAPPED_BYTES));
        plain.extend_from_slice(&self.keys.recovery.secret().0);
        plain.extend_from_slice(&self.keys.control.seed().0);
        let key = wrapping_key(passphrase, &self.salt, self.costs)?;
        key.seal_in_place_append_tag(nonce(), Aad::from(associated(&self.vault_id)), &mut *plain)
            .map_err(|_| FormatError::Sealed("the recovery kit"))?;
        let Argon2idCosts {
            memory_kib,
            iterations,
            parallelism,
        } = self.costs;
        let mut kit = Kit {
            kind: KIND.into(),
            format: 1,
            vault_url: self.vault_url,
            region: self.region,
            vault_id: self.vault_id,
            created: self.created,
            argon2id: Argon2idJson {
                memory_kib,
                iterations,
                parallelism,
                salt: hex::encode(self.salt),
            },
            wrapped: hex::encode(&*plain),
            vault: Some(self.vault),
            checksum: String::new(),
        };
        kit.checksum = kit.checksum();
        Ok(kit)
    }
}

impl Kit {
    /// Reads a kit's file, or the text of its QR code.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        #[derive(Deserialize)]
        struct Head {
            kind: String,
            format: u64,
        }
        let head: Head = from_json(bytes, "a recovery kit")?;
        if head.kind != KIND {
            return Err(FormatError::damaged(format!(
                "this is a `{}`, not a `{KIND}`",
                head.kind.escape_debug()
            )));
        }
        if head.format != 1 {
            return Err(FormatError::unknown("recovery kit version", head.format));
        }
        let kit: Kit = from_json(bytes, "a recovery kit")?;
        if kit.checksum() != kit.checksum {
            return Err(FormatError::Checksum);
        }
        Ok(kit)
    }

    pub fn to_json(&self) -> String {
        match serde_json::to_string_pretty(self) {
            Ok(text) => text + "\n",
            Err(_) => unreachable!("a kit is JSON"),
        }
    }

    /// What the QR code holds: all but the vault's configuration, on one line.
    pub fn to_qr_text(&self) -> String {
        match serde_json::to_string(&Kit {
            vault: None,
            ..self.clone()
        }) {
            Ok(text) => text,
            Err(_) => unreachable!("a kit is JSON"),
        }
    }

    fn checksum(&self) -> String {
        let Argon2idJson {
            memory_kib,
            iterations,
            parallelism,
            salt,
        } = &self.argon2id;
        let Kit {
            vault_url,
            vault_id,
            wrapped,
            ..
        } = self;
        let parts = format!(
            "{vault_url}\0{vault_id}\0{memory_kib}\0{iterations}\0{parallelism}\0{salt}\0{wrapped}"
        );
        blake3::hash(parts.as_bytes()).to_hex().to_string()
    }

    /// Unwraps the keys; about a second, and the stated memory.
    pub fn open(&self, passphrase: &str) -> Result<KitKeys, FormatError> {
        let Argon2idJson {
            memory_kib,
            iterations,
            parallelism,
            ..
        } = self.argon2id;
        let passes_kib = u64::from(memory_kib) * u64::from(iterations);
        if memory_kib > MAX_MEMORY_KIB
            || passes_kib > MAX_PASSES_KIB
            || parallelism > MAX_PARALLELISM
        {
            return Err(FormatError::damaged("its Argon2id costs are beyond reason"));
        }
        let salt: [u8; 16] = hex_array(&self.argon2id.salt, "a salt")?;
        let key = wrapping_key(
            passphrase,
            &salt,
            Argon2idCosts {
                memory_kib,
                iterations,
                parallelism,
            },
        )?;
        let mut wrapped =
            Zeroizing::new(hex_array::<WRAPPED_BYTES>(&self.wrapped, "a wrapped key")?);
        let plain = key
            .open_in_place(
                nonce(),
                Aad::from(associated(&self.vault_id)),
                &mut wrapped[..],
            )
            .map_err(|_| FormatError::Passphrase)?;
        let half = |i: usize| Secret(std::array::from_fn(|at| plain[32 * i + at]));
        Ok(KitKeys {
            recovery: RecoveryKey::from_bytes(half(0)),
            control: SigningKey::from_seed(half(1))?,
        })
    }
}

fn associated(vault: &VaultId) -> Vec<u8> {
    [b"sparesite/1 recovery kit\0".as_slice(), &vault.0].concat()
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn wrapping_key(
    passphrase: &str,
    salt: &[u8],
    costs: Argon2idCosts,
) -> Result<LessSafeKey, FormatError> {
    let refused = |e: argon2::Error| FormatError::damaged(format!("Argon2id: {e}"));
    let params = Params::new(
        costs.memory_kib,
        costs.iterations,
        costs.parallelism,
        Some(32),
    )
    .map_err(refused)?;
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut key)
        .map_err(refused)?;
    let unbound = UnboundKey::new(&AES_256_GCM, &key);
    key.zeroize();
    unbound
        .map(LessSafeKey::new)
        .map_err(|_| FormatError::Sealed("the recovery kit"))
}

/// Six words of 2,048 (66 bits) from random bytes, joined by dashes.
pub fn passphrase_words(random: &[u8; 12]) -> Zeroizing<String> {
    let words = bip39::Language::English.word_list();
    let chosen: Vec<&str> = random
        .chunks_exact(2)
        .map(|two| words[usize::from(u16::from_le_bytes([two[0], two[1]])) % words.len()])
        .collect();
    Zeroizing::new(chosen.join("-"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const CHEAP: Argon2idCosts = Argon2idCosts {
        memory_kib: 64,
        iterations: 1,
        parallelism: 1,
    };

    pub(crate) fn kit() -> Kit {
        let keys = KitKeys {
            recovery: RecoveryKey::from_bytes(Secret([1; 32])),
            control: SigningKey::from_seed(Secret([2; 32])).unwrap(),
        };
        NewKit {
            vault_url: "s3://bucket/site".into(),
            region: Some("eu-central-1".into()),
            vault_id: VaultId([3; 32]),
            created: "2026-01-01T00:00:00Z".into(),
            vault: "{}".into(),
            keys: &keys,
            salt: [4; 16],
            costs: CHEAP,
        }
        .close("six words")
        .unwrap()
    }

    #[test]
    fn a_kit_opens_from_its_file_and_from_its_qr_code() {
        for text in [kit().to_json(), kit().to_qr_text()] {
            let keys = Kit::parse(text.as_bytes())
                .unwrap()
                .open("six words")
                .unwrap();
            assert_eq!(keys.recovery.secret(), &Secret([1; 32]));
            assert_eq!(keys.control.seed(), &Secret([2; 32]));
        }
        assert!(
            kit().to_qr_text().len() < 1000,
            "a QR code of moderate size"
        );
    }

    #[test]
    fn a_wrong_passphrase_is_told_from_a_damaged_kit() {
        assert_eq!(
            kit().open("other words").err(),
            Some(FormatError::Passphrase)
        );
        let text = kit().to_json();
        let wrapped = text.find("wrapped").unwrap() + 12;
        let damaged = format!(
            "{}{}{}",
            &text[..wrapped],
            if &text[wrapped..=wrapped] == "0" {
                "1"
            } else {
                "0"
            },
            &text[wrapped + 1..]
        );
        assert_eq!(
            Kit::parse(damaged.as_bytes()).err(),
            Some(FormatError::Checksum)
        );
        assert!(Kit::parse(b"{}").is_err());
        let moved = kit().to_json().replace("s3://bucket", "s3://socket");
        assert_eq!(
            Kit::parse(moved.as_bytes()).err(),
            Some(FormatError::Checksum)
        );
    }

    #[test]
    fn absurd_costs_are_refused_before_they_are_paid() {
        for (memory_kib, iterations, parallelism) in [
            (4 * 1024 * 1024 + 1, 1, 1),
            (4 * 1024 * 1024, 9, 1),
            (64, 1024 * 1024, 1),
            (64 * 1024, 1, 65),
        ] {
            let mut kit = kit();
            kit.argon2id.memory_kib = memory_kib;
            kit.argon2id.iterations = iterations;
            kit.argon2id.parallelism = parallelism;
            assert!(matches!(
                kit.open("six words"),
                Err(FormatError::Damaged(_))
            ));
        }
    }

    #[test]
    fn the_generated_passphrase_has_six_words() {
        let words = passphrase_words(&[0, 0, 1, 0, 2, 0, 255, 7, 0, 8, 255, 255]);
        assert_eq!(
            words.split('-').collect::<Vec<_>>(),
            ["abandon", "ability", "able", "zoo", "abandon", "zoo"]
        );
    }
}
