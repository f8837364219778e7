//! Keys (section 4). Secret halves are wiped from memory when dropped, and never shown.

use crate::FormatError;
use crate::ids::{ChunkId, Tag, VaultId, VmId, WriterId};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// 32 secret bytes.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Reads 64 hex digits; the error says what was expected, never what was found.
    pub fn from_hex(text: &str) -> Result<Self, FormatError> {
        let mut out = [0; 32];
        hex::decode_to_slice(text, &mut out)
            .map_err(|_| FormatError::damaged("a key is not 64 hex digits"))?;
        Ok(Secret(out))
    }

    fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0))
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        Secret::from_hex(&text).map_err(serde::de::Error::custom)
    }
}

/// Names chunks and VMs. Keyed, so that the store cannot test for known content.
#[derive(Clone, Debug)]
pub struct IdKey {
    chunk: Secret,
    vm: Secret,
}

impl IdKey {
    pub fn new(key: &Secret) -> Self {
        IdKey {
            chunk: key.clone(),
            vm: Secret(blake3::derive_key("sparesite/1 vm name", &key.0)),
        }
    }

    /// The key itself, for hashing chunks and for key files.
    pub fn secret(&self) -> &Secret {
        &self.chunk
    }

    /// The id of a whole (padded) chunk.
    pub fn chunk_id(&self, chunk: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.chunk.0, chunk).as_bytes())
    }

    pub fn vm_id(&self, name: &str) -> VmId {
        VmId(first_16(blake3::keyed_hash(&self.vm.0, name.as_bytes())))
    }
}

/// Seals manifests, segments, layers and trailers; numbered, so that it can be replaced.
#[derive(Clone, Debug)]
pub struct MetadataKey {
    pub number: u32,
    pub secret: Secret,
}

impl MetadataKey {
    /// The tag of a metadata object with this root (section 2).
    pub fn tag(&self, root: &[u8]) -> Tag {
        let key = Secret(blake3::derive_key("sparesite/1 object tag", &self.secret.0));
        Tag(first_16(blake3::keyed_hash(&key.0, root)))
    }
}

/// All metadata keys that somebody holds; the newest is for writing.
#[derive(Clone, Debug, Default)]
pub struct MetadataKeys(Vec<MetadataKey>);

impl MetadataKeys {
    /// `keys` in any order; at least one, numbers distinct.
    pub fn new(mut keys: Vec<MetadataKey>) -> Result<Self, FormatError> {
        keys.sort_by_key(|k| k.number);
        if keys.is_empty() || keys.windows(2).any(|w| w[0].number == w[1].number) {
            return Err(FormatError::damaged("no metadata key, or one number twice"));
        }
        Ok(MetadataKeys(keys))
    }

    pub fn newest(&self) -> &MetadataKey {
        &self.0[self.0.len() - 1]
    }

    pub fn number(&self, number: u32) -> Result<&MetadataKey, FormatError> {
        let found = self.0.iter().find(|k| k.number == number);
        found.ok_or(FormatError::MissingKey {
            kind: "metadata",
            number,
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = &MetadataKey> {
        self.0.iter()
    }
}

pub(crate) fn first_16(hash: blake3::Hash) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}

/// Public half of the recovery key: seals what only the recovery kit can open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryPublic(pub [u8; 32]);

/// Private half of the recovery key.
#[derive(Clone, Debug)]
pub struct RecoveryKey(Secret);

/// Length of an HPKE-sealed 32-byte key: `enc` ‖ ciphertext ‖ tag.
pub const SEALED_KEY_BYTES: usize = 80;

impl RecoveryPublic {
    /// Seals a 32-byte key (section 1, HPKE). `seed` is 32 random bytes, used for nothing else.
    pub fn seal(
        &self,
        key: &Secret,
        info: &[u8],
        seed: Secret,
    ) -> Result<[u8; SEALED_KEY_BYTES], FormatError> {
        let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&self.0)
            .map_err(|_| FormatError::damaged("the recovery public key is no X25519 key"))?;
        let (enc, mut context) = hpke::setup_sender_with_rng::<
            ChaCha20Poly1305,
            HkdfSha256,
            X25519HkdfSha256,
        >(&OpModeS::Base, &public, info, &mut SeedRng::new(seed))
        .map_err(|_| FormatError::Sealed("a key for the recovery key"))?;
        let sealed = context
            .seal(&key.0, &[])
            .map_err(|_| FormatError::Sealed("a key for the recovery key"))?;
        let mut out = [0; SEALED_KEY_BYTES];
        out[..32].copy_from_slice(&enc.to_bytes());
        out[32..].copy_from_slice(&sealed);
        Ok(out)
    }
}

impl RecoveryKey {
    pub fn from_bytes(bytes: Secret) -> Self {
        RecoveryKey(bytes)
    }

    pub fn secret(&self) -> &Secret {
        &self.0
    }

    pub fn public(&self) -> Result<RecoveryPublic, FormatError> {
        let public = <X25519HkdfSha256 as Kem>::sk_to_pk(&self.private()?);
        let mut out = [0; 32];
        out.copy_from_slice(&public.to_bytes());
        Ok(RecoveryPublic(out))
    }

    fn private(&self) -> Result<<X25519HkdfSha256 as Kem>::PrivateKey, FormatError> {
        <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&self.0.0)
            .map_err(|_| FormatError::damaged("the recovery key is no X25519 key"))
    }

    /// Opens a key sealed by [`RecoveryPublic::seal`] with the same `info`.
    pub fn open(
        &self,
        sealed: &[u8; SEALED_KEY_BYTES],
        info: &[u8],
    ) -> Result<Secret, FormatError> {
        const WHAT: &str = "a key sealed to the recovery key";
        let enc = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&sealed[..32])
            .map_err(|_| FormatError::Sealed(WHAT))?;
        let mut context = hpke::setup_receiver::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.private()?,
            &enc,
            info,
        )
        .map_err(|_| FormatError::Sealed(WHAT))?;
        let mut plain = context
            .open(&sealed[32..], &[])
            .map_err(|_| FormatError::Sealed(WHAT))?;
        let key: Result<[u8; 32], _> = plain.as_slice().try_into();
        plain.zeroize();
        key.map(Secret).map_err(|_| FormatError::Sealed(WHAT))
    }
}

/// HPKE draws its ephemeral key from an RNG; this one hands out BLAKE3 output of the caller's seed, because this crate
/// draws no randomness of its own.
struct SeedRng(blake3::OutputReader);

impl SeedRng {
    fn new(seed: Secret) -> Self {
        SeedRng(blake3::Hasher::new_keyed(&seed.0).finalize_xof())
    }
}

impl hpke::rand_core::TryRng for SeedRng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut out = [0; 4];
        self.0.fill(&mut out);
        Ok(u32::from_le_bytes(out))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut out = [0; 8];
        self.0.fill(&mut out);
        Ok(u64::from_le_bytes(out))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(out);
        Ok(())
    }
}

impl hpke::rand_core::TryCryptoRng for SeedRng {}

/// An Ed25519 signing key, from its 32-byte seed: the control key, or a writer's.
pub struct SigningKey {
    seed: Secret,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}…)", hex::encode(&self.public().0[..4]))
    }
}

impl SigningKey {
    pub fn from_seed(seed: Secret) -> Result<Self, FormatError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed.0)
            .map_err(|_| FormatError::damaged("a signing key is no Ed25519 seed"))?;
        Ok(SigningKey { seed, pair })
    }

    pub fn seed(&self) -> &Secret {
        &self.seed
    }

    pub fn public(&self) -> VerifyingKey {
        let mut out = [0; 32];
        out.copy_from_slice(self.pair.public_key().as_ref());
        VerifyingKey(out)
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyingKey(pub [u8; 32]);

impl VerifyingKey {
    pub fn verify(
        &self,
        message: &[u8],
        signature: &[u8; 64],
        what: &str,
    ) -> Result<(), FormatError> {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, signature)
            .map_err(|_| FormatError::Signature(what.to_owned()))
    }
}

/// What proves that a writer may add to this vault (section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub public_key: VerifyingKey,
    pub signature: [u8; 64],
}

impl Certificate {
    pub fn issue(
        control: &SigningKey,
        vault: &VaultId,
        writer: &WriterId,
        public_key: VerifyingKey,
    ) -> Self {
        Certificate {
            public_key,
            signature: control.sign(&certificate_message(vault, writer, &public_key)),
        }
    }

    pub fn verify(
        &self,
        control: &VerifyingKey,
        vault: &VaultId,
        writer: &WriterId,
    ) -> Result<(), FormatError> {
        let message = certificate_message(vault, writer, &self.public_key);
        control.verify(
            &message,
            &self.signature,
            "this writer has no valid certificate of this vault",
        )
    }
}

fn certificate_message(vault: &VaultId, writer: &WriterId, public_key: &VerifyingKey) -> Vec<u8> {
    [
        b"sparesite/1 writer certificate\0".as_slice(),
        &vault.0,
        &writer.0,
        &public_key.0,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_sealed_to_the_recovery_key_is_opened_by_it_alone() {
        let recovery = RecoveryKey::from_bytes(Secret([7; 32]));
        let sealed = recovery
            .public()
            .unwrap()
            .seal(&Secret([9; 32]), b"info", Secret([1; 32]))
            .unwrap();
        assert_eq!(recovery.open(&sealed, b"info").unwrap(), Secret([9; 32]));
        assert!(recovery.open(&sealed, b"other").is_err());
        assert!(
            RecoveryKey::from_bytes(Secret([8; 32]))
                .open(&sealed, b"info")
                .is_err()
        );
        let mut flipped = sealed;
        flipped[40] ^= 1;
        assert!(recovery.open(&flipped, b"info").is_err());
    }

    #[test]
    fn a_certificate_binds_vault_writer_and_key() {
        let control = SigningKey::from_seed(Secret([1; 32])).unwrap();
        let writer_key = SigningKey::from_seed(Secret([2; 32])).unwrap();
        let (vault, writer) = (VaultId([3; 32]), WriterId([4; 16]));
        let certificate = Certificate::issue(&control, &vault, &writer, writer_key.public());
        assert!(
            certificate
                .verify(&control.public(), &vault, &writer)
                .is_ok()
        );
        assert!(
            certificate
                .verify(&control.public(), &VaultId([5; 32]), &writer)
                .is_err()
        );
        assert!(
            certificate
                .verify(&control.public(), &vault, &WriterId([5; 16]))
                .is_err()
        );
        assert!(
            certificate
                .verify(&writer_key.public(), &vault, &writer)
                .is_err()
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret([0xaa; 32])), "Secret(…)");
        assert!(!format!("{:?}", IdKey::new(&Secret([0xaa; 32]))).contains("aa"));
    }
}
