//! Signed JSON (section 3): the vault's numbers and the control log, readable without a key.

use crate::FormatError;
use crate::ids::{VaultId, WriterId, hex_array};
use crate::keys::{Certificate, SigningKey, VerifyingKey};
use crate::metadata_object::{Writer, from_json};
use serde::{Deserialize, Serialize};

/// A signed JSON object's largest size, in bytes.
pub const MAX_SIGNED_JSON_BYTES: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame {
    payload: String,
    signer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    signature: String,
    checksum: String,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    Control,
    Writer(WriterId, Certificate),
}

fn message(vault: &VaultId, name: &str, payload: &str) -> Vec<u8> {
    [
        b"sparesite/1 signed json\0".as_slice(),
        &vault.0,
        name.as_bytes(),
        b"\0",
        payload.as_bytes(),
    ]
    .concat()
}

fn checksum(
    payload: &str,
    signer: &str,
    certificate: Option<&str>,
    signature: &[u8; 64],
) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(payload.as_bytes())
        .update(b"\0")
        .update(signer.as_bytes())
        .update(b"\0");
    hasher
        .update(certificate.unwrap_or_default().as_bytes())
        .update(b"\0")
        .update(signature);
    hasher.finalize().to_hex().to_string()
}

fn frame(
    payload: String,
    signer: String,
    certificate: Option<String>,
    signature: [u8; 64],
) -> Vec<u8> {
    let checksum = checksum(&payload, &signer, certificate.as_deref(), &signature);
    let frame = Frame {
        payload,
        signer,
        certificate,
        signature: hex::encode(signature),
        checksum,
    };
    match serde_json::to_vec(&frame) {
        Ok(bytes) => bytes,
        Err(_) => unreachable!("a struct of strings is JSON"),
    }
}

/// Signs with the control key. `vault` is all zero for the vault's own numbers.
pub fn sign_as_control(
    control: &SigningKey,
    vault: &VaultId,
    name: &str,
    payload: String,
) -> Vec<u8> {
    let signature = control.sign(&message(vault, name, &payload));
    frame(payload, "control".into(), None, signature)
}

/// Signs as a writer, whose certificate goes along.
pub fn sign_as_writer(writer: &Writer, name: &str, payload: String) -> Vec<u8> {
    let signature = writer.key.sign(&message(&writer.vault, name, &payload));
    let certificate = [
        &writer.certificate.public_key.0[..],
        &writer.certificate.signature,
    ]
    .concat();
    frame(
        payload,
        writer.id.to_string(),
        Some(hex::encode(certificate)),
        signature,
    )
}

/// A parsed object, its checksum checked, its signature not yet.
#[derive(Debug)]
pub struct Unverified {
    payload: String,
    signer: Signer,
    signature: [u8; 64],
}

impl Unverified {
    /// Checks the frame and the checksum; needs no key.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let frame: Frame = from_json(bytes, "signed JSON")?;
        let signature = hex_array(&frame.signature, "a signature")?;
        if checksum(
            &frame.payload,
            &frame.signer,
            frame.certificate.as_deref(),
            &signature,
        ) != frame.checksum
        {
            return Err(FormatError::Checksum);
        }
        let signer = match (frame.signer.as_str(), frame.certificate) {
            ("control", None) => Signer::Control,
            (writer, Some(certificate)) => {
                let bytes: [u8; 96] = hex_array(&certificate, "a certificate")?;
                let public_key = VerifyingKey(std::array::from_fn(|i| bytes[i]));
                let signature = std::array::from_fn(|i| bytes[32 + i]);
                Signer::Writer(
                    WriterId::from_hex(writer)?,
                    Certificate {
                        public_key,
                        signature,
                    },
                )
            }
            _ => {
                return Err(FormatError::damaged(
                    "signer and certificate do not go together",
                ));
            }
        };
        Ok(Unverified {
            payload: frame.payload,
            signer,
            signature,
        })
    }

    /// The payload without proof: only to learn the control key of the first vault number.
    pub(crate) fn unproved_payload(&self) -> &str {
        &self.payload
    }

    /// Checks signature and certificate, and gives the payload.
    pub fn verify(
        self,
        control: &VerifyingKey,
        vault: &VaultId,
        name: &str,
    ) -> Result<(String, Signer), FormatError> {
        let message = message(vault, name, &self.payload);
        match &self.signer {
            Signer::Control => control.verify(
                &message,
                &self.signature,
                "the control key did not sign this",
            )?,
            Signer::Writer(writer, certificate) => {
                certificate.verify(control, vault, writer)?;
                certificate.public_key.verify(
                    &message,
                    &self.signature,
                    "the writer did not sign this",
                )?;
            }
        }
        Ok((self.payload, self.signer))
    }
}
