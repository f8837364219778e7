//! What comparing with an old copy came to, for the pass that writes: the old copy is read once. Two bits for each
//! position: 4 MiB for a disk of 4 TiB.

use super::old_copy::Change;

#[derive(Debug, Default)]
pub(super) struct Decisions(Vec<u8>);

const PER_BYTE: u64 = 4;

impl Decisions {
    /// Positions are noted in order, or again.
    pub fn note(&mut self, position: u64, change: Change) {
        let at = (position / PER_BYTE) as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        let shift = 2 * (position % PER_BYTE);
        self.0[at] = self.0[at] & !(3 << shift) | (change as u8) << shift;
    }

    /// A position that was never noted is written: right in any case.
    pub fn at(&self, position: u64) -> Change {
        let byte = self.0.get((position / PER_BYTE) as usize);
        match byte.map(|byte| byte >> (2 * (position % PER_BYTE)) & 3) {
            Some(1) => Change::Keep,
            Some(2) => Change::Zero,
            _ => Change::Write,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read() {
        let mut decisions = Decisions::default();
        let all = [Change::Keep, Change::Write, Change::Zero];
        let change = |position: u64| all[(position * position % 7 % 3) as usize];
        (0..1000).for_each(|position| decisions.note(position, change(position)));
        decisions.note(500, Change::Zero);
        let wrong = (0..1000).find(|p| *p != 500 && decisions.at(*p) != change(*p));
        assert_eq!(wrong, None);
        assert_eq!(decisions.at(500), Change::Zero);
        assert_eq!(decisions.at(5000), Change::Write);
    }
}
