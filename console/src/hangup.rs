//! The end of the terminal, as the programs hear it.

use std::fs;

/// Whether SIGHUP is to end this program in order: not where `nohup` (or `trap '' HUP`) said that it does not count.
/// Ask before anything listens for it.
pub fn hangup_counts() -> bool {
    !ignores_hangup(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// As proc(5) has it: a mask of 64 bits, SIGHUP the lowest.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_heeded() {
        let status = |mask: &str| format!("Name:\tx\nSigIgn:\t{mask}\nSigCgt:\t0000000000000001\n");
        assert!(ignores_hangup(&status("0000000000001001")));
        assert!(!ignores_hangup(&status("0000000000001000")));
        assert!(!ignores_hangup(""));
    }
}
