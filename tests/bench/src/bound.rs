//! The least that a change can cost here: each changed 4 KiB block, as it is
//! after the change, compressed alone with zstd 1, and never more than itself.

use anyhow::Context;

use crate::BLOCK;

pub struct BlockBound {
    compressor: zstd::bulk::Compressor<'static>,
    output: Vec<u8>,
}

impl BlockBound {
    pub fn new() -> anyhow::Result<Self> {
        let compressor = zstd::bulk::Compressor::new(1).context("cannot start zstd")?;
        let output = vec![0; zstd::zstd_safe::compress_bound(BLOCK)];
        Ok(Self { compressor, output })
    }

    pub fn bytes_of(&mut self, block: &[u8]) -> anyhow::Result<u64> {
        let sealed = self
            .compressor
            .compress_to_buffer(block, self.output.as_mut_slice())
            .context("cannot compress a block")?;
        Ok(sealed.min(block.len()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Random;

    #[test]
    fn random_costs_itself_and_zeros_next_to_nothing() {
        let mut bound = BlockBound::new().unwrap();
        let mut block = [0; BLOCK];
        assert!(bound.bytes_of(&block).unwrap() < 32);
        Random::new(3).fill(&mut block);
        assert_eq!(bound.bytes_of(&block).unwrap(), BLOCK as u64);
    }
}
