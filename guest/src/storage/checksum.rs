//! The checksums of what lies on disks.

use crc::{CRC_32_ISCSI, CRC_32_ISO_HDLC, Crc};

/// GPT (UEFI 2.10, 5.3.2).
pub(crate) const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// XFS superblocks, ext4 superblocks and journals, the latter without the last inversion.
pub(crate) const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// CRC-32C without inversion at its end, from `seed`, as the Linux kernel's `crc32c_le`.
pub(crate) fn kernel_crc32c(seed: u32, bytes: &[u8]) -> u32 {
    // The crate takes the start value in the order of a polynomial that is not reflected.
    let mut digest = CRC32C.digest_with_initial(seed.reverse_bits());
    digest.update(bytes);
    !digest.finalize()
}

/// LVM2's: CRC-32 from its own start value, without inversion (lib/misc/crc.h, INITIAL_CRC).
pub(crate) fn lvm_crc(bytes: &[u8]) -> u32 {
    let mut digest = CRC32.digest_with_initial(0xf597_a6cf_u32.reverse_bits());
    digest.update(bytes);
    !digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values() {
        assert_eq!(CRC32.checksum(b"123456789"), 0xcbf4_3926);
        assert_eq!(!kernel_crc32c(!0, b"123456789"), 0xe306_9283);
        // In two steps as in one.
        assert_eq!(
            !kernel_crc32c(kernel_crc32c(!0, b"1234"), b"56789"),
            0xe306_9283
        );
    }
}
