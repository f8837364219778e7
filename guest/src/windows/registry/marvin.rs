//! Marvin32, the checksum of log entries: published by Microsoft with SymCrypt and .NET.

/// What the registry begins with (<https://github.com/msuhanov/regf>, "Log entries", note 3).
pub const REGISTRY_SEED: u64 = 0x82ef_4d88_7a4e_55c5;

pub fn marvin32(seed: u64, data: &[u8]) -> u64 {
    let mut state = [seed as u32, (seed >> 32) as u32];
    let words = data.chunks_exact(4);
    // The end is marked by a byte of 0x80 behind the last.
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    for word in words {
        mix(
            &mut state,
            u32::from_le_bytes([word[0], word[1], word[2], word[3]]),
        );
    }
    mix(&mut state, u32::from_le_bytes(last));
    mix(&mut state, 0);
    u64::from(state[0]) | u64::from(state[1]) << 32
}

fn mix([low, high]: &mut [u32; 2], word: u32) {
    *low = low.wrapping_add(word);
    *high ^= *low;
    *low = low.rotate_left(20).wrapping_add(*high);
    *high = high.rotate_left(9) ^ *low;
    *low = low.rotate_left(27).wrapping_add(*high);
    *high = high.rotate_left(19);
}

#[cfg(test)]
mod tests {
    use super::marvin32;

    /// The vectors of .NET's own tests.
    #[test]
    fn agrees_with_dotnet() {
        let seed = 0x004f_b61a_001b_dbcc;
        let counting: Vec<u8> = (0..=255).collect();
        for (data, hash) in [
            (&[][..], 0x30ed_35c1_00cd_3c7d),
            (&[0xaf], 0x48e7_3fc7_7d75_ddc1),
            (&[0xe7, 0x0f], 0xb5f6_e1fc_485d_bff8),
            (&[0x37, 0xf4, 0x95], 0xf0b0_7c78_9b8c_f7e8),
            (&[0x86, 0x42, 0xdc, 0x59], 0x7008_f2e8_7e9c_f556),
            (&counting, 0x7dfc_ab33_fcea_d72c),
        ] {
            assert_eq!(marvin32(seed, data), hash, "{data:02x?}");
        }
    }
}
