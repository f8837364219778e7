//! Object names (section 2): built and parsed in one place.

use crate::ids::{PackName, PlanId, PointId, Tag, VmId, WriterId, decimal};
use crate::run_record::RunName;

pub const PACKS: &str = "packs/";
pub const INDEX: &str = "index/";
pub const MAPS: &str = "maps/";
pub const POINTS: &str = "points/";
pub const LOG: &str = "control/log/";
pub const RUNS: &str = "control/runs/";
pub const VAULT: &str = "vault/";
pub const TOOLS: &str = "tools/";

pub fn vault(number: u64) -> String {
    format!("{VAULT}{number:010}.json")
}

pub fn log(number: u64) -> String {
    format!("{LOG}{number:010}")
}

pub fn pack(name: &PackName) -> String {
    let hex = name.to_string();
    format!("{PACKS}{}/{hex}", &hex[..2])
}

pub fn points_of(vm: &VmId) -> String {
    format!("{POINTS}{vm}/")
}

pub fn point(vm: &VmId, point: PointId) -> String {
    format!("{POINTS}{vm}/{point}")
}

pub fn runs_of(plan: &PlanId) -> String {
    format!("{RUNS}{plan}/")
}

pub fn run(run: RunName) -> String {
    format!("{}{:010}/", runs_of(&run.plan), run.run)
}

pub fn run_entry(name: RunName, number: u64) -> String {
    format!("{}{number:010}", run(name))
}

/// A segment's span: packs `first..=last` of a writer's epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub writer: WriterId,
    pub epoch: u64,
    pub first: u64,
    pub last: u64,
}

impl Span {
    /// Whether `self` holds all that `other` holds, and is not the very same span.
    pub fn supersedes(&self, other: &Span) -> bool {
        self.writer == other.writer
            && self.epoch == other.epoch
            && self.first <= other.first
            && self.last >= other.last
            && (self.first, self.last) != (other.first, other.last)
    }

    /// The name without its tag: what the sealing is bound to.
    pub fn prefix(&self) -> String {
        format!(
            "{INDEX}{}/{:010}-{:010}-{:010}-",
            self.writer, self.epoch, self.first, self.last
        )
    }
}

pub fn segment(span: &Span, tag: &Tag) -> String {
    format!("{}{tag}", span.prefix())
}

pub fn maps_of(writer: &WriterId) -> String {
    format!("{MAPS}{writer}/")
}

pub fn layer(writer: &WriterId, tag: &Tag) -> String {
    format!("{MAPS}{writer}/{tag}")
}

/// What an object's name says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Vault(u64),
    Log(u64),
    Pack(PackName),
    Segment(Span, Tag),
    Layer(WriterId, Tag),
    Point(VmId, PointId),
    /// A run, and the number of its entry.
    Run(RunName, u64),
    Tool,
}

/// Parses any object name; `None` for what is no name of this format.
pub fn parse(name: &str) -> Option<Name> {
    if let Some(rest) = name.strip_prefix(VAULT) {
        return decimal(rest.strip_suffix(".json")?).map(Name::Vault);
    }
    if let Some(rest) = name.strip_prefix(LOG) {
        return decimal(rest).map(Name::Log);
    }
    if let Some(rest) = name.strip_prefix(RUNS) {
        let mut parts = rest.split('/');
        let plan = PlanId::from_hex(parts.next()?).ok()?;
        let (run, number) = (decimal(parts.next()?)?, decimal(parts.next()?)?);
        return parts
            .next()
            .is_none()
            .then_some(Name::Run(RunName { plan, run }, number));
    }
    if let Some(rest) = name.strip_prefix(PACKS) {
        let (short, whole) = rest.split_once('/')?;
        let pack = PackName::from_hex(whole).ok()?;
        return whole
            .starts_with(short)
            .then_some(())
            .filter(|_| short.len() == 2)
            .map(|_| Name::Pack(pack));
    }
    if let Some(rest) = name.strip_prefix(POINTS) {
        let (vm, point) = rest.split_once('/')?;
        return Some(Name::Point(
            VmId::from_hex(vm).ok()?,
            PointId::parse(point).ok()?,
        ));
    }
    if let Some(rest) = name.strip_prefix(MAPS) {
        let (writer, tag) = rest.split_once('/')?;
        return Some(Name::Layer(
            WriterId::from_hex(writer).ok()?,
            Tag::from_hex(tag).ok()?,
        ));
    }
    if let Some(rest) = name.strip_prefix(INDEX) {
        return parse_segment(rest);
    }
    name.starts_with(TOOLS).then_some(Name::Tool)
}

fn parse_segment(rest: &str) -> Option<Name> {
    let (writer, rest) = rest.split_once('/')?;
    let parts: Vec<&str> = rest.split('-').collect();
    let [epoch, first, last, tag] = parts[..] else {
        return None;
    };
    let span = Span {
        writer: WriterId::from_hex(writer).ok()?,
        epoch: decimal(epoch)?,
        first: decimal(first)?,
        last: decimal(last)?,
    };
    Some(Name::Segment(span, Tag::from_hex(tag).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_name_is_read_back() {
        let writer = WriterId([0xab; 16]);
        let span = Span {
            writer,
            epoch: 3,
            first: 0,
            last: 63,
        };
        let id = PointId {
            epoch: 2,
            sequence: 17,
        };
        let failover = RunName {
            plan: PlanId([7; 16]),
            run: 2,
        };
        for (text, name) in [
            (vault(1), Name::Vault(1)),
            (log(42), Name::Log(42)),
            (
                pack(&PackName([0x5a; 32])),
                Name::Pack(PackName([0x5a; 32])),
            ),
            (
                segment(&span, &Tag([1; 16])),
                Name::Segment(span, Tag([1; 16])),
            ),
            (
                layer(&writer, &Tag([2; 16])),
                Name::Layer(writer, Tag([2; 16])),
            ),
            (point(&VmId([9; 16]), id), Name::Point(VmId([9; 16]), id)),
            (run_entry(failover, 12), Name::Run(failover, 12)),
            ("tools/0.1.0/SHA256SUMS".into(), Name::Tool),
        ] {
            assert_eq!(parse(&text), Some(name), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_told() {
        let upper = format!("packs/5A/{}", "5A".repeat(32));
        for text in [
            "",
            "packs/",
            "packs/ab/cd",
            "vault/1.json",
            "control/log/1",
            "points/x/1-1",
            "control/runs/07070707070707070707070707070707/1/1",
            "control/runs/x/0000000001/0000000001",
            "maps/",
            upper.as_str(),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_wider_span_supersedes_and_an_equal_one_does_not() {
        let wide = Span {
            writer: WriterId([1; 16]),
            epoch: 1,
            first: 0,
            last: 511,
        };
        let narrow = Span {
            first: 64,
            last: 127,
            ..wide
        };
        assert!(wide.supersedes(&narrow));
        assert!(!narrow.supersedes(&wide));
        assert!(!wide.supersedes(&wide));
        assert!(!wide.supersedes(&Span { epoch: 2, ..narrow }));
    }
}
