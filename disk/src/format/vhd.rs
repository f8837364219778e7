//! The footer of a VHD: the last 512 bytes, all of what makes a fixed VHD of a raw
//! disk. Source: Microsoft's Virtual Hard Disk Image Format Specification (2006).

use super::{be_u32, be_u64};

pub const FOOTER_BYTES: usize = 512;
pub const COOKIE: &[u8; 8] = b"conectix";
/// Azure takes whole MiB only.
pub const AZURE_ALIGNMENT: u64 = 1 << 20;
/// 1 MiB is the smallest multiple; Azure itself asks for 20 MiB at least.
pub const AZURE_MIN_BYTES: u64 = 20 << 20;

const SECTOR_BYTES: u64 = 512;
const VERSION: u32 = 0x0001_0000;
const FEATURES_RESERVED: u32 = 2;
const NO_DATA_OFFSET: u64 = u64::MAX;
const CHECKSUM_AT: usize = 64;
/// QEMU believes Current Size, instead of the geometry, of few creators only, this
/// one (Hyper-V) among them.
const CREATOR: &[u8; 4] = b"win ";
const CREATOR_VERSION: u32 = 0x000a_0000;
const CREATOR_HOST: &[u8; 4] = b"Wi2k";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VhdKind {
    Fixed,
    Dynamic,
    Differencing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub cylinders: u16,
    pub heads: u8,
    pub sectors_per_track: u8,
}

impl Geometry {
    /// The appendix "CHS Calculation" of the specification, word by word.
    pub fn of_size(size_bytes: u64) -> Self {
        let mut sectors = (size_bytes / SECTOR_BYTES).min(65535 * 16 * 255);
        sectors = sectors.max(1);
        let (per_track, heads, cylinder_heads);
        if sectors >= 65535 * 16 * 63 {
            (per_track, heads, cylinder_heads) = (255, 16, sectors / 255);
        } else {
            let (mut p, mut c) = (17, sectors / 17);
            let mut h = c.div_ceil(1024).max(4);
            if c >= h * 1024 || h > 16 {
                (p, h, c) = (31, 16, sectors / 31);
            }
            if c >= h * 1024 {
                (p, h, c) = (63, 16, sectors / 63);
            }
            (per_track, heads, cylinder_heads) = (p, h, c);
        }
        Self {
            cylinders: (cylinder_heads / heads) as u16,
            heads: heads as u8,
            sectors_per_track: per_track as u8,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhdFooter {
    pub kind: VhdKind,
    pub current_size_bytes: u64,
    pub geometry: Geometry,
    /// Seconds since 2000-01-01T00:00:00Z.
    pub timestamp: u32,
    pub unique_id: [u8; 16],
    pub creator: [u8; 4],
}

impl VhdFooter {
    /// The footer of a fixed disk. Same arguments, same bytes.
    pub fn fixed(size_bytes: u64, timestamp: u32, unique_id: [u8; 16]) -> Self {
        Self {
            kind: VhdKind::Fixed,
            current_size_bytes: size_bytes,
            geometry: Geometry::of_size(size_bytes),
            timestamp,
            unique_id,
            creator: *CREATOR,
        }
    }

    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(COOKIE);
        put(&FEATURES_RESERVED.to_be_bytes());
        put(&VERSION.to_be_bytes());
        put(&NO_DATA_OFFSET.to_be_bytes());
        put(&self.timestamp.to_be_bytes());
        put(&self.creator);
        put(&CREATOR_VERSION.to_be_bytes());
        put(CREATOR_HOST);
        put(&self.current_size_bytes.to_be_bytes()); // original size
        put(&self.current_size_bytes.to_be_bytes());
        put(&self.geometry.cylinders.to_be_bytes());
        put(&[self.geometry.heads, self.geometry.sectors_per_track]);
        let kind: u32 = match self.kind {
            VhdKind::Fixed => 2,
            VhdKind::Dynamic => 3,
            VhdKind::Differencing => 4,
        };
        put(&kind.to_be_bytes());
        put(&[0; 4]); // checksum, below
        put(&self.unique_id);
        let sum = checksum(&out);
        out[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// Parses a footer, or its copy at the start of a dynamic disk.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let short = || "its footer is cut short".to_owned();
        let bytes: &[u8; FOOTER_BYTES] = bytes.first_chunk().ok_or_else(short)?;
        if !bytes.starts_with(COOKIE) {
            return Err("it has no VHD footer at its end".into());
        }
        if be_u32(bytes, CHECKSUM_AT) != Some(checksum(bytes)) {
            return Err("the checksum of its footer is wrong".into());
        }
        let kind = match be_u32(bytes, 60).ok_or_else(short)? {
            2 => VhdKind::Fixed,
            3 => VhdKind::Dynamic,
            4 => VhdKind::Differencing,
            other => return Err(format!("its disk type is {other}, which no VHD has")),
        };
        let mut unique_id = [0; 16];
        unique_id.copy_from_slice(&bytes[68..84]);
        let mut creator = [0; 4];
        creator.copy_from_slice(&bytes[28..32]);
        Ok(Self {
            kind,
            current_size_bytes: be_u64(bytes, 48).ok_or_else(short)?,
            geometry: Geometry {
                cylinders: u16::from_be_bytes([bytes[56], bytes[57]]),
                heads: bytes[58],
                sectors_per_track: bytes[59],
            },
            timestamp: be_u32(bytes, 24).ok_or_else(short)?,
            unique_id,
            creator,
        })
    }
}

/// One's complement of the sum of all bytes, the checksum's own counted as zero.
pub fn checksum(footer: &[u8; FOOTER_BYTES]) -> u32 {
    let sum: u32 = footer
        .iter()
        .enumerate()
        .filter(|(at, _)| !(CHECKSUM_AT..CHECKSUM_AT + 4).contains(at))
        .map(|(_, byte)| u32::from(*byte))
        .sum();
    !sum
}

/// The disk size of the VHD that Azure takes for a disk of `size_bytes`: whole MiB.
pub fn azure_size(size_bytes: u64) -> u64 {
    size_bytes
        .max(AZURE_MIN_BYTES)
        .div_ceil(AZURE_ALIGNMENT)
        .saturating_mul(AZURE_ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cylinders × heads × sectors of sizes on both sides of each step of the specification.
    #[test]
    fn geometry_follows_the_specification() {
        let of = |sectors: u64| {
            let g = Geometry::of_size(sectors * 512);
            (g.cylinders, g.heads, g.sectors_per_track)
        };
        assert_eq!(of(40 * 2048), (963, 5, 17)); // 40 MiB
        assert_eq!(of(4 * 1024 * 17 - 17), (1023, 4, 17));
        assert_eq!(of(4 * 1024 * 17), (140, 16, 31));
        assert_eq!(of(4 * 1024 * 17 + 17), (819, 5, 17));
        assert_eq!(of(16 * 1024 * 17), (561, 16, 31));
        assert_eq!(of(16 * 1024 * 31), (503, 16, 63));
        assert_eq!(of(1 << 21), (2080, 16, 63)); // 1 GiB
        assert_eq!(of(65535 * 16 * 63), (16191, 16, 255));
        assert_eq!(of(1 << 33), (65535, 16, 255)); // 4 TiB: as large as it gets
        assert_eq!(of(0), (0, 4, 17));
    }

    #[test]
    fn the_footer_has_its_fields_where_the_specification_says() {
        let bytes = VhdFooter::fixed(1 << 30, 0x0102_0304, [0xab; 16]).encode();
        assert_eq!(&bytes[..8], b"conectix");
        assert_eq!(bytes[8..16], [0, 0, 0, 2, 0, 1, 0, 0]);
        assert_eq!(bytes[16..24], [0xff; 8]);
        assert_eq!(bytes[24..28], [1, 2, 3, 4]);
        assert_eq!(bytes[40..48], (1_u64 << 30).to_be_bytes());
        assert_eq!(bytes[48..56], (1_u64 << 30).to_be_bytes());
        assert_eq!(
            bytes[56..60],
            [2080_u16.to_be_bytes()[0], 2080_u16.to_be_bytes()[1], 16, 63]
        );
        assert_eq!(bytes[60..64], [0, 0, 0, 2]);
        assert_eq!(bytes[68..84], [0xab; 16]);
        assert_eq!(bytes[84..], [0; 428]);
        // The checksum, counted otherwise: with it, all bytes and its complement cancel out.
        let all: u32 = bytes.iter().map(|b| u32::from(*b)).sum();
        let stored: [u8; 4] = bytes[64..68].try_into().unwrap();
        let own: u32 = stored.iter().map(|b| u32::from(*b)).sum();
        assert_eq!(u32::from_be_bytes(stored), !(all - own));
    }

    #[test]
    fn a_footer_with_any_bit_wrong_is_refused() {
        let footer = VhdFooter::fixed(20 << 20, 0, [1; 16]);
        let bytes = footer.encode();
        assert_eq!(VhdFooter::decode(&bytes), Ok(footer));
        for at in 0..FOOTER_BYTES {
            let mut bad = bytes;
            bad[at] ^= 0x10;
            assert!(VhdFooter::decode(&bad).is_err(), "byte {at}");
        }
        assert!(VhdFooter::decode(&bytes[..511]).is_err());
    }

    #[test]
    fn azure_sizes_are_whole_mebibytes() {
        assert_eq!(azure_size(0), 20 << 20);
        assert_eq!(azure_size(20 << 20), 20 << 20);
        assert_eq!(azure_size((20 << 20) + 1), 21 << 20);
    }
}
