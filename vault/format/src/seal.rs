//! Sealing (section 5): synthetic, so that no clone, fork or clock set back can repeat a nonce.

use crate::FormatError;
use crate::keys::Secret;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes that sealing adds: s (24) and the tag (16).
pub const SEAL_BYTES: usize = 24 + 16;
const S: usize = 24;
const TAG: usize = 16;

/// A key made ready for sealing: the two keys that section 5 derives from it.
#[derive(Clone)]
pub struct Sealer {
    synthetic: Secret,
    sealing: Secret,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl Sealer {
    pub fn new(key: &Secret) -> Self {
        Sealer {
            synthetic: Secret(blake3::derive_key("sparesite/1 synthetic value", &key.0)),
            sealing: Secret(blake3::derive_key("sparesite/1 sealing key", &key.0)),
        }
    }

    /// Appends `s ‖ C ‖ T` to `out`.
    pub fn seal(&self, associated: &[u8], payload: &[u8], out: &mut Vec<u8>) {
        let mut hasher = blake3::Hasher::new_keyed(&self.synthetic.0);
        hasher
            .update(&(associated.len() as u64).to_le_bytes())
            .update(associated)
            .update(payload);
        let mut s = [0; S];
        s.copy_from_slice(&hasher.finalize().as_bytes()[..S]);
        out.reserve(payload.len() + SEAL_BYTES);
        out.extend_from_slice(&s);
        let begin = out.len();
        out.extend_from_slice(payload);
        // AES-256-GCM refuses only payloads of 64 GiB and more; the largest here is a root of 256 MiB.
        let tag = self.key(&s).and_then(|key| {
            key.seal_in_place_separate_tag(nonce(), Aad::from(associated), &mut out[begin..])
        });
        match tag {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            Err(_) => unreachable!("AES-256-GCM takes any payload below 64 GiB"),
        }
    }

    /// Opens `s ‖ C ‖ T` in place, and returns where in `sealed` the payload is.
    pub fn open<'a>(
        &self,
        associated: &[u8],
        sealed: &'a mut [u8],
        what: &'static str,
    ) -> Result<&'a [u8], FormatError> {
        if sealed.len() < SEAL_BYTES {
            let left = sealed.len() as u64;
            return Err(FormatError::Truncated {
                what,
                needed: SEAL_BYTES as u64,
                left,
            });
        }
        let mut s = [0; S];
        s.copy_from_slice(&sealed[..S]);
        let key = self.key(&s).map_err(|_| FormatError::Sealed(what))?;
        debug_assert_eq!(AES_256_GCM.tag_len(), TAG);
        let plain = key
            .open_in_place(nonce(), Aad::from(associated), &mut sealed[S..])
            .map_err(|_| FormatError::Sealed(what))?;
        Ok(plain)
    }

    fn key(&self, s: &[u8; S]) -> Result<LessSafeKey, ring::error::Unspecified> {
        let key = blake3::keyed_hash(&self.sealing.0, s);
        Ok(LessSafeKey::new(UnboundKey::new(
            &AES_256_GCM,
            key.as_bytes(),
        )?))
    }
}

/// Fixed, because each payload has a key of its own (derived from s).
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Codec numbers (section 5).
pub const CODEC_NONE: u8 = 0;
pub const CODEC_ZSTD: u8 = 1;

/// zstd at one level, its context kept for reuse.
pub struct Coder {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Coder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Coder")
    }
}

impl Coder {
    /// `level` 1 to 19; 1 is what the targets are set at.
    pub fn new(level: i32) -> Self {
        Coder {
            zstd: zstd::bulk::Compressor::new(level).ok(),
            buffer: Vec::new(),
        }
    }

    /// The coded payload and its codec: zstd where that is shorter, else the payload itself.
    pub fn code<'a>(&'a mut self, payload: &'a [u8]) -> (u8, &'a [u8]) {
        if looks_random(payload) {
            return (CODEC_NONE, payload);
        }
        self.buffer.resize(payload.len().saturating_sub(1), 0);
        let coded = self
            .zstd
            .as_mut()
            .and_then(|z| z.compress_to_buffer(payload, &mut self.buffer[..]).ok());
        match coded {
            Some(n) if n < payload.len() => (CODEC_ZSTD, &self.buffer[..n]),
            _ => (CODEC_NONE, payload),
        }
    }
}

/// Bytes that are looked at, in this many places, to tell whether a payload is worth compressing.
const SAMPLES: usize = 16;
const SAMPLE_BYTES: usize = 1024;
/// A smaller payload is compressed and compared: a patch's size is the line's load.
const LEAST_SAMPLED_BYTES: usize = 64 << 10;

/// Whether a large payload is compressed or encrypted already, by how evenly its bytes are spread: trying zstd on it
/// would cost 30 times as much.
fn looks_random(payload: &[u8]) -> bool {
    if payload.len() < LEAST_SAMPLED_BYTES {
        return false;
    }
    let mut counts = [0u64; 256];
    let stride = payload.len() / SAMPLES;
    for sample in payload.chunks_exact(stride) {
        sample[..SAMPLE_BYTES]
            .iter()
            .for_each(|byte| counts[usize::from(*byte)] += 1);
    }
    // For n even bytes the squares sum to n²/256 + n, ± 0.2 %; text and programs give twice that and more.
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let n: u64 = counts.iter().sum();
    100 * squares < 102 * (n * n / 256 + n)
}

thread_local! {
    /// A thread's zstd context, kept from record to record: making one costs more than a small record.
    static DECODER: std::cell::RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        const { std::cell::RefCell::new(None) };
}

/// Undoes [`Coder::code`]: `coded` must give exactly `plain_bytes`, never more (a decompression bomb is an error).
pub fn decode(
    codec: u8,
    coded: &[u8],
    plain_bytes: usize,
    what: &'static str,
) -> Result<Vec<u8>, FormatError> {
    match codec {
        CODEC_NONE if coded.len() == plain_bytes => Ok(coded.to_vec()),
        CODEC_NONE => Err(FormatError::damaged(format!(
            "{what}: its length is not the stated one"
        ))),
        CODEC_ZSTD => {
            let plain = DECODER.with_borrow_mut(|decoder| {
                if decoder.is_none() {
                    *decoder = Some(zstd::bulk::Decompressor::new()?);
                }
                match decoder {
                    Some(decoder) => decoder.decompress(coded, plain_bytes),
                    None => unreachable!("made above"),
                }
            });
            let plain = plain.map_err(|e| FormatError::damaged(format!("{what}: zstd: {e}")))?;
            if plain.len() != plain_bytes {
                return Err(FormatError::damaged(format!(
                    "{what}: its length is not the stated one"
                )));
            }
            Ok(plain)
        }
        other => Err(FormatError::unknown("codec", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: u8, associated: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Sealer::new(&Secret([key; 32])).seal(associated, payload, &mut out);
        out
    }

    #[test]
    fn what_is_sealed_opens_only_with_the_same_key_and_associated_data() {
        let sealer = Sealer::new(&Secret([1; 32]));
        assert_eq!(
            sealer
                .open(b"ad", &mut sealed(1, b"ad", b"payload"), "x")
                .unwrap(),
            b"payload"
        );
        assert!(
            sealer
                .open(b"ae", &mut sealed(1, b"ad", b"payload"), "x")
                .is_err()
        );
        assert!(
            sealer
                .open(b"ad", &mut sealed(2, b"ad", b"payload"), "x")
                .is_err()
        );
        assert!(sealer.open(b"ad", &mut [0; 39], "x").is_err());
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let sealer = Sealer::new(&Secret([1; 32]));
        let good = sealed(1, b"ad", b"payload");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(sealer.open(b"ad", &mut bad, "x").is_err(), "bit {bit}");
        }
    }

    #[test]
    fn sealing_differs_wherever_payload_or_associated_data_differ() {
        assert_eq!(sealed(1, b"ad", b"p"), sealed(1, b"ad", b"p"));
        assert_ne!(sealed(1, b"ad", b"p")[..24], sealed(1, b"ad", b"q")[..24]);
        assert_ne!(sealed(1, b"ad", b"p")[..24], sealed(1, b"a", b"dp")[..24]);
    }

    #[test]
    fn only_what_looks_random_everywhere_is_not_compressed() {
        let mut noise = vec![0; 256 << 10];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert!(looks_random(&noise));
        assert!(!looks_random(&noise[..(64 << 10) - 1]), "a patch");
        // Letters of base64: six bits in eight.
        let letters: Vec<u8> = noise.iter().map(|byte| b'0' + byte % 64).collect();
        assert!(!looks_random(&letters));
        // An eighth of it zero: zstd takes that off.
        let mut holey = noise.clone();
        holey[96 << 10..128 << 10].fill(0);
        assert!(!looks_random(&holey));
        let mut coder = Coder::new(1);
        let (codec, coded) = coder.code(&holey);
        assert!(codec == CODEC_ZSTD && coded.len() < 225 << 10);
    }

    #[test]
    fn a_coded_payload_is_kept_only_if_shorter() {
        let mut coder = Coder::new(1);
        let zeros = vec![0; 5000];
        let (codec, coded) = coder.code(&zeros);
        assert_eq!(codec, CODEC_ZSTD);
        assert_eq!(decode(codec, coded, 5000, "x").unwrap(), zeros);
        assert!(
            decode(codec, coded, 4999, "x").is_err(),
            "a bomb by one byte"
        );
        assert!(decode(codec, coded, 5001, "x").is_err());
        let noise = blake3::hash(b"noise");
        assert_eq!(
            coder.code(noise.as_bytes()),
            (CODEC_NONE, noise.as_bytes().as_slice())
        );
        assert_eq!(coder.code(b"").0, CODEC_NONE);
    }
}
