//! `vault/<n>.json` (section 3): what this vault is, and the shared keys, sealed to the recovery key.

use crate::ids::{ObjectHash, VaultId, hex_array, object_hash};
use crate::keys::{
    IdKey, MetadataKey, MetadataKeys, RecoveryKey, RecoveryPublic, SEALED_KEY_BYTES, Secret,
    SigningKey, VerifyingKey,
};
use crate::metadata_object::from_json;
use crate::record::check_chunk_bytes;
use crate::signed_json::{Signer, Unverified, sign_as_control};
use crate::{BLOCK_BYTES, FORMAT, FormatError, names};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeyKind {
    Id,
    Metadata,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SharedKey {
    kind: KeyKind,
    number: u32,
    sealed: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Payload {
    format: u16,
    number: u64,
    previous: Option<ObjectHash>,
    required_features: Vec<String>,
    created: String,
    nonce: String,
    chunk_bytes: u32,
    block_bytes: u32,
    recovery_key: String,
    control_key: String,
    keys: Vec<SharedKey>,
}

/// What `init` decides; everything random is an argument.
#[derive(Debug)]
pub struct NewVault<'a> {
    pub created: String,
    pub nonce: [u8; 16],
    pub chunk_bytes: u32,
    pub recovery: RecoveryPublic,
    pub control: &'a SigningKey,
    pub id_key: &'a Secret,
    pub metadata_key: &'a Secret,
    /// For HPKE, one a key; used for nothing else.
    pub seeds: [Secret; 2],
}

fn key_info(kind: KeyKind, number: u32, nonce: &[u8; 16]) -> Vec<u8> {
    let kind = match kind {
        KeyKind::Id => b"id".as_slice(),
        KeyKind::Metadata => b"metadata",
    };
    [
        b"sparesite/1 shared key\0".as_slice(),
        kind,
        &number.to_le_bytes(),
        nonce,
    ]
    .concat()
}

impl NewVault<'_> {
    /// The bytes of `vault/0000000001.json`; the vault's id is their hash.
    pub fn encode(self) -> Result<Vec<u8>, FormatError> {
        check_chunk_bytes(self.chunk_bytes)?;
        let [seed_id, seed_metadata] = self.seeds;
        let seal = |kind, key: &Secret, seed| -> Result<SharedKey, FormatError> {
            let sealed = self
                .recovery
                .seal(key, &key_info(kind, 1, &self.nonce), seed)?;
            Ok(SharedKey {
                kind,
                number: 1,
                sealed: hex::encode(sealed),
            })
        };
        let payload = Payload {
            format: FORMAT,
            number: 1,
            previous: None,
            required_features: Vec::new(),
            created: self.created,
            nonce: hex::encode(self.nonce),
            chunk_bytes: self.chunk_bytes,
            block_bytes: BLOCK_BYTES as u32,
            recovery_key: hex::encode(self.recovery.0),
            control_key: hex::encode(self.control.public().0),
            keys: vec![
                seal(KeyKind::Id, self.id_key, seed_id)?,
                seal(KeyKind::Metadata, self.metadata_key, seed_metadata)?,
            ],
        };
        let payload =
            serde_json::to_string(&payload).map_err(|e| FormatError::damaged(e.to_string()))?;
        Ok(sign_as_control(
            self.control,
            &VaultId([0; 32]),
            &names::vault(1),
            payload,
        ))
    }
}

/// The vault's numbers, checked: each signed by the control key of the one before.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    pub id: VaultId,
    pub created: String,
    pub chunk_bytes: u32,
    pub recovery: RecoveryPublic,
    pub control: VerifyingKey,
    /// Number of the newest configuration object.
    pub number: u64,
    nonce: [u8; 16],
    keys: Vec<SharedKey>,
    last: ObjectHash,
}

impl VaultConfig {
    /// Reads the first number.
    pub fn first(bytes: &[u8]) -> Result<Self, FormatError> {
        let unverified = Unverified::parse(bytes)?;
        let claimed: Payload = check_payload(unverified.unproved_payload(), 1)?;
        let control = VerifyingKey(hex_array(&claimed.control_key, "the control key")?);
        if claimed.previous.is_some() {
            return Err(FormatError::damaged(
                "the vault's first number names a previous one",
            ));
        }
        verify(unverified, &control, 1)?;
        Self::from_payload(VaultId(object_hash(bytes).0), claimed, bytes)
    }

    /// Reads the next number on top of `self`.
    pub fn next(&self, bytes: &[u8]) -> Result<Self, FormatError> {
        let number = self.number + 1;
        let payload = verify(Unverified::parse(bytes)?, &self.control, number)?;
        let payload = check_payload(&payload, number)?;
        if payload.previous != Some(self.last) {
            return Err(FormatError::damaged(
                "a vault number does not follow on the one before",
            ));
        }
        let next = Self::from_payload(self.id, payload, bytes)?;
        let same = |config: &Self| {
            (
                config.chunk_bytes,
                config.recovery,
                config.control,
                config.nonce,
            )
        };
        match same(&next) == same(self) {
            true => Ok(next),
            false => Err(FormatError::damaged(
                "a vault number changes what stays for the life of a vault",
            )),
        }
    }

    fn from_payload(id: VaultId, payload: Payload, bytes: &[u8]) -> Result<Self, FormatError> {
        Ok(VaultConfig {
            id,
            created: payload.created,
            chunk_bytes: payload.chunk_bytes,
            recovery: RecoveryPublic(hex_array(&payload.recovery_key, "the recovery key")?),
            control: VerifyingKey(hex_array(&payload.control_key, "the control key")?),
            number: payload.number,
            nonce: hex_array(&payload.nonce, "the nonce")?,
            keys: payload.keys,
            last: object_hash(bytes),
        })
    }

    /// Opens the shared keys with the recovery key.
    pub fn open_keys(&self, recovery: &RecoveryKey) -> Result<(IdKey, MetadataKeys), FormatError> {
        let mut id_key = None;
        let mut metadata = Vec::new();
        for key in &self.keys {
            let sealed: [u8; SEALED_KEY_BYTES] = hex_array(&key.sealed, "a sealed key")?;
            let secret = recovery.open(&sealed, &key_info(key.kind, key.number, &self.nonce))?;
            match key.kind {
                KeyKind::Id => id_key = Some(IdKey::new(&secret)),
                KeyKind::Metadata => metadata.push(MetadataKey {
                    number: key.number,
                    secret,
                }),
            }
        }
        let id_key = id_key.ok_or_else(|| FormatError::damaged("the vault names no id key"))?;
        Ok((id_key, MetadataKeys::new(metadata)?))
    }
}

fn verify(
    unverified: Unverified,
    control: &VerifyingKey,
    number: u64,
) -> Result<String, FormatError> {
    match unverified.verify(control, &VaultId([0; 32]), &names::vault(number))? {
        (payload, Signer::Control) => Ok(payload),
        (_, Signer::Writer(..)) => Err(FormatError::Signature(
            "a writer may not write vault numbers".into(),
        )),
    }
}

fn check_payload(payload: &str, number: u64) -> Result<Payload, FormatError> {
    #[derive(Deserialize)]
    struct Version {
        format: u64,
    }
    let version: Version = from_json(payload.as_bytes(), "the vault's configuration")?;
    if version.format != u64::from(FORMAT) {
        return Err(FormatError::unknown("vault format version", version.format));
    }
    let payload: Payload = from_json(payload.as_bytes(), "the vault's configuration")?;
    if let Some(feature) = payload.required_features.first() {
        return Err(FormatError::unknown("vault feature", feature));
    }
    if payload.number != number {
        return Err(FormatError::damaged(
            "a vault number speaks of another number than its name",
        ));
    }
    check_chunk_bytes(payload.chunk_bytes)?;
    if payload.block_bytes != BLOCK_BYTES as u32 {
        return Err(FormatError::unknown("block size", payload.block_bytes));
    }
    Ok(payload)
}
