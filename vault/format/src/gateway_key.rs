//! A gateway's key file (section 4): enough to add and to find, not enough to open chunk data.

use crate::FormatError;
use crate::ids::{VaultId, WriterId, hex_array};
use crate::keys::{
    Certificate, IdKey, MetadataKey, MetadataKeys, RecoveryPublic, Secret, SigningKey, VerifyingKey,
};
use crate::metadata_object::{Trust, Writer, from_json};
use crate::record::check_chunk_bytes;
use crate::vault_config::VaultConfig;
use serde::{Deserialize, Serialize};

const KIND: &str = "sparesite gateway key";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    kind: String,
    format: u64,
    label: String,
    vault_url: String,
    vault_id: VaultId,
    chunk_bytes: u32,
    recovery_key: String,
    control_key: String,
    writer: WriterId,
    signing_seed: Secret,
    certificate: String,
    id_key: Secret,
    metadata_keys: Vec<MetadataKeyJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetadataKeyJson {
    number: u32,
    key: Secret,
}

/// An opened gateway key.
#[derive(Debug)]
pub struct GatewayKey {
    pub label: String,
    /// Where the vault was when the key was issued.
    pub vault_url: String,
    pub chunk_bytes: u32,
    pub recovery: RecoveryPublic,
    pub id_key: IdKey,
    pub writer: Writer,
    pub trust: Trust,
}

/// Makes a key for a new writer. `writer` and `seed` are random.
pub fn issue_gateway_key(
    control: &SigningKey,
    config: &VaultConfig,
    (id_key, metadata_keys): (&IdKey, &MetadataKeys),
    (label, vault_url): (&str, &str),
    writer: WriterId,
    seed: Secret,
) -> Result<GatewayKey, FormatError> {
    let key = SigningKey::from_seed(seed)?;
    let certificate = Certificate::issue(control, &config.id, &writer, key.public());
    Ok(GatewayKey {
        label: label.to_owned(),
        vault_url: vault_url.to_owned(),
        chunk_bytes: config.chunk_bytes,
        recovery: config.recovery,
        id_key: id_key.clone(),
        writer: Writer {
            vault: config.id,
            id: writer,
            key,
            certificate,
        },
        trust: Trust {
            vault: config.id,
            control: config.control,
            keys: metadata_keys.clone(),
        },
    })
}

impl GatewayKey {
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        #[derive(Deserialize)]
        struct Head {
            kind: String,
            format: u64,
        }
        let head: Head = from_json(bytes, "a gateway key")?;
        if head.kind != KIND {
            return Err(FormatError::damaged(format!(
                "this is a `{}`, not a `{KIND}`",
                head.kind.escape_debug()
            )));
        }
        if head.format != 1 {
            return Err(FormatError::unknown("gateway key version", head.format));
        }
        // Where, not what: serde_json's words may quote a secret.
        let wrong = |e: serde_json::Error| {
            let (line, column) = (e.line(), e.column());
            FormatError::damaged(format!(
                "a gateway key: wrong at line {line}, column {column}"
            ))
        };
        let file: KeyFile = serde_json::from_slice(bytes).map_err(wrong)?;
        check_chunk_bytes(file.chunk_bytes)?;
        let key = SigningKey::from_seed(file.signing_seed)?;
        let signature = hex_array(&file.certificate, "a certificate")?;
        let certificate = Certificate {
            public_key: key.public(),
            signature,
        };
        let control = VerifyingKey(hex_array(&file.control_key, "the control key")?);
        certificate.verify(&control, &file.vault_id, &file.writer)?;
        let metadata = |k: MetadataKeyJson| MetadataKey {
            number: k.number,
            secret: k.key,
        };
        let keys = MetadataKeys::new(file.metadata_keys.into_iter().map(metadata).collect())?;
        Ok(GatewayKey {
            label: file.label,
            vault_url: file.vault_url,
            chunk_bytes: file.chunk_bytes,
            recovery: RecoveryPublic(hex_array(&file.recovery_key, "the recovery key")?),
            id_key: IdKey::new(&file.id_key),
            writer: Writer {
                vault: file.vault_id,
                id: file.writer,
                key,
                certificate,
            },
            trust: Trust {
                vault: file.vault_id,
                control,
                keys,
            },
        })
    }

    /// The text of the key file, which is to be readable by its owner alone.
    pub fn to_json(&self) -> zeroize::Zeroizing<String> {
        let metadata = |k: &MetadataKey| MetadataKeyJson {
            number: k.number,
            key: k.secret.clone(),
        };
        let file = KeyFile {
            kind: KIND.into(),
            format: 1,
            label: self.label.clone(),
            vault_url: self.vault_url.clone(),
            vault_id: self.writer.vault,
            chunk_bytes: self.chunk_bytes,
            recovery_key: hex::encode(self.recovery.0),
            control_key: hex::encode(self.trust.control.0),
            writer: self.writer.id,
            signing_seed: self.writer.key.seed().clone(),
            certificate: hex::encode(self.writer.certificate.signature),
            id_key: self.id_key.secret().clone(),
            metadata_keys: self.trust.keys.iter().map(metadata).collect(),
        };
        match serde_json::to_string_pretty(&file) {
            Ok(text) => zeroize::Zeroizing::new(text + "\n"),
            Err(_) => unreachable!("a key file is JSON"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_where_a_key_file_is_wrong_and_quotes_no_secret() {
        let secret = "5e".repeat(32);
        let file = format!(
            r#"{{"kind": "{KIND}", "format": 1, "label": "a", "metadata_keys": ["{secret}"]}}"#
        );
        let error = GatewayKey::parse(file.as_bytes())
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("line 1, column"), "{error}");
        assert!(!error.contains("5e5e"), "{error}");
    }
}
