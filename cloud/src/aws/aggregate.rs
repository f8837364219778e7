//! The checksum over all blocks of a snapshot.

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};

/// SHA-256 over the SHA-256 digests (as bytes) of all blocks that are put, in the order of their indices: aggregation `LINEAR`
/// (EBS direct APIs, CompleteSnapshot). That the digests are taken as bytes and not as base64 is not said there; AWS Labs'
/// `coldsnap` does it so.
///
/// Its state can be written down, so that whoever goes on with a snapshot need not read again what is there.
#[derive(Debug, Clone, Default)]
pub(super) struct Aggregate(Sha256);

impl Aggregate {
    pub(super) fn add(&mut self, digest: &[u8; 32]) {
        self.0.update(digest);
    }

    pub(super) fn finish(&self) -> [u8; 32] {
        self.0.clone().finalize().into()
    }

    pub(super) fn to_hex(&self) -> String {
        hex::encode(self.0.serialize())
    }

    /// `None`: this is no state.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let mut state = SerializedState::<Sha256>::default();
        hex::decode_to_slice(text, &mut state).ok()?;
        Sha256::deserialize(&state).ok().map(Aggregate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_sha_256_of_the_digests() {
        let digests = [[1; 32], [2; 32], [3; 32]];
        let mut aggregate = Aggregate::default();
        for digest in &digests {
            aggregate = Aggregate::from_hex(&aggregate.to_hex()).unwrap();
            aggregate.add(digest);
        }
        let whole = ring::digest::digest(&ring::digest::SHA256, &digests.concat());
        assert_eq!(aggregate.finish(), whole.as_ref());
    }

    proptest! {
        #[test]
        fn any_text_is_a_state_or_none(text in "\\PC{0,20}|[0-9a-f]{200,220}") {
            let _ = Aggregate::from_hex(&text);
        }
    }
}
