//! Finding recovery points: every manifest whose signature holds, in order of epoch and sequence.

use super::Vault;
use super::promised::Promised;
use crate::StoreError;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use vault_format::FormatError;
use vault_format::ids::{ObjectHash, PointId, VmId, WriterId};
use vault_format::manifest::Manifest;
use vault_format::names::{self, Name};

/// Manifests read at the same time.
const AT_ONCE: usize = 8;

/// Recovery points, and what could not be counted as one.
#[derive(Debug, Default)]
pub struct PointList {
    pub points: Vec<Point>,
    /// Object and reason: manifests that are damaged, or gone although others tell of them.
    pub damaged: Vec<(String, String)>,
    /// Object and reason: manifests of writers that were revoked before.
    pub untrusted: Vec<(String, String)>,
}

/// One recovery point.
#[derive(Clone, Debug)]
pub struct Point {
    pub manifest: Manifest,
    pub writer: WriterId,
    pub hash: ObjectHash,
    pub object: String,
    /// The log's entry of the fence that it is set aside for: its VM was failed over, and this is not on the way on. It is
    /// meant by its number only.
    pub diverged: Option<u64>,
    /// What its reader should know, such as newer points that are damaged.
    pub findings: Vec<String>,
}

/// Which point of a VM is meant. Only by its number is a diverged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointSelector {
    Latest,
    Sequence(u64),
    /// The newest at or before this time.
    At(Timestamp),
}

impl FromStr for PointSelector {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let end_of_day = |date: Date| {
            let day = date.to_datetime(Time::MAX).to_zoned(TimeZone::UTC).ok()?;
            Some(PointSelector::At(day.timestamp()))
        };
        let wrong = || {
            StoreError::Other(format!(
                "`{}` names no recovery point; write `latest`, a sequence number, a date (2026-07-05: its end, in UTC) or a \
                 time (2026-07-05T12:00:00Z)",
                text.escape_debug()
            ))
        };
        if text == "latest" {
            return Ok(PointSelector::Latest);
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text
                .parse()
                .map(PointSelector::Sequence)
                .map_err(|_| wrong());
        }
        if let Ok(time) = text.parse() {
            return Ok(PointSelector::At(time));
        }
        text.parse().ok().and_then(end_of_day).ok_or_else(wrong)
    }
}

impl std::fmt::Display for PointSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PointSelector::Latest => f.write_str("latest"),
            PointSelector::Sequence(n) => write!(f, "{n}"),
            PointSelector::At(time) => write!(f, "at or before {time}"),
        }
    }
}

/// What reading one manifest came to.
pub(super) enum Read {
    Whole(Box<Point>),
    Damaged(String, String),
    Untrusted(Box<Point>, String),
}

impl Vault {
    /// All points, by VM name and order. Reads every manifest.
    pub async fn points(&self) -> Result<PointList, StoreError> {
        let listed = self.list_points(names::POINTS).await?;
        let newest: BTreeMap<VmId, PointId> =
            listed.iter().map(|(_, vm, point)| (*vm, *point)).collect();
        let mut list = self.read_points(listed).await?;
        let (mut promised, mut hashes) = (Promised::default(), HashMap::new());
        for point in &list.points {
            promised.note(&point.object, &point.manifest.facts);
            hashes.insert(point.object.as_str(), point.hash);
        }
        let broken = promised.broken(
            |vm| newest.get(vm).copied(),
            |object| hashes.get(object).copied(),
        );
        list.damaged.extend(broken);
        Ok(list)
    }

    /// The points of one VM.
    pub async fn points_of(&self, vm: &str) -> Result<PointList, StoreError> {
        let vm_id = self.id_key.vm_id(vm);
        self.read_points(self.list_points(&names::points_of(&vm_id)).await?)
            .await
    }

    /// One point. If newer manifests that were meant too are damaged, the next whole one is taken, and says so.
    pub async fn find_point(
        &self,
        vm: &str,
        selector: &PointSelector,
    ) -> Result<Point, StoreError> {
        let vm_id = self.id_key.vm_id(vm);
        let mut listed = self.list_points(&names::points_of(&vm_id)).await?;
        if listed.is_empty() {
            return Err(StoreError::NoSuchVm {
                vm: vm.to_owned(),
                known: self.known_vms().await?,
            });
        }
        let known = known_points(&listed);
        if let PointSelector::Sequence(n) = selector {
            listed.retain(|(_, _, point)| point.sequence == *n);
        }
        let mut findings = Vec::new();
        // Newest first: the order is by epoch and sequence, never by a clock.
        let mut reads = stream::iter(listed.into_iter().rev())
            .map(|at| self.read_point(at))
            .buffered(4);
        while let Some(read) = reads.next().await {
            match read? {
                Read::Whole(mut point) if selected(selector, &point)? => {
                    point.findings = findings;
                    return Ok(*point);
                }
                Read::Whole(_) => {}
                Read::Damaged(object, why) => {
                    findings.push(format!("{object} is damaged and was passed over: {why}"))
                }
                Read::Untrusted(point, why) => {
                    findings.push(format!(
                        "{} is not trusted and was passed over: {why}",
                        point.object
                    ));
                }
            }
        }
        let asked = match findings.as_slice() {
            [] => selector.to_string(),
            _ => format!("{selector} ({})", findings.join("; ")),
        };
        Err(StoreError::NoSuchPoint {
            vm: vm.to_owned(),
            asked,
            known,
        })
    }

    async fn list_points(&self, prefix: &str) -> Result<Vec<(String, VmId, PointId)>, StoreError> {
        let listed = self.objects.list(prefix).await?;
        let mut out: Vec<_> = listed
            .into_iter()
            .filter_map(|object| match names::parse(&object.name)? {
                Name::Point(vm, point) => Some((object.name, vm, point)),
                _ => None,
            })
            .collect();
        out.sort_by_key(|(_, vm, point)| (*vm, *point));
        Ok(out)
    }

    async fn read_points(
        &self,
        listed: Vec<(String, VmId, PointId)>,
    ) -> Result<PointList, StoreError> {
        let mut out = PointList::default();
        let mut reads = stream::iter(listed)
            .map(|at| self.read_point(at))
            .buffered(AT_ONCE);
        while let Some(read) = reads.next().await {
            match read? {
                Read::Whole(point) => out.points.push(*point),
                Read::Damaged(object, why) => out.damaged.push((object, why)),
                Read::Untrusted(point, why) => out.untrusted.push((point.object, why)),
            }
        }
        out.points.sort_by(|a, b| {
            let key = |p: &Point| (p.manifest.facts.vm_id, p.manifest.facts.point);
            a.manifest
                .facts
                .vm
                .cmp(&b.manifest.facts.vm)
                .then_with(|| key(a).cmp(&key(b)))
        });
        Ok(out)
    }

    pub(super) async fn read_point(
        &self,
        (object, vm, id): (String, VmId, PointId),
    ) -> Result<Read, StoreError> {
        let bytes = match self.objects.get(&object).await.map_err(StoreError::from) {
            Ok(bytes) => bytes,
            Err(e) if e.is_damage() => return Ok(Read::Damaged(object, e.to_string())),
            Err(e) => return Err(e),
        };
        let opened =
            Manifest::open(&self.trust, &object, &bytes).and_then(|(manifest, writer, hash)| {
                match self.id_key.vm_id(&manifest.facts.vm) == vm {
                    true => Ok(Point {
                        object: object.clone(),
                        diverged: self.diverged(&vm, id, &manifest),
                        manifest,
                        writer,
                        hash,
                        findings: Vec::new(),
                    }),
                    false => Err(FormatError::Damaged(
                        "its VM's name does not go with its object name".into(),
                    )),
                }
            });
        Ok(match opened {
            Ok(point) if self.log.trusts(&point.writer, &vm, id) => Read::Whole(Box::new(point)),
            Ok(point) => {
                let why = format!(
                    "its writer {} was revoked, and this point is not among its trusted ones",
                    point.writer
                );
                Read::Untrusted(Box::new(point), why)
            }
            Err(e) => Read::Damaged(object, e.to_string()),
        })
    }

    fn diverged(&self, vm: &VmId, id: PointId, manifest: &Manifest) -> Option<u64> {
        let facts = &manifest.facts;
        self.log.diverged(vm, id, (facts.diverged, facts.log))
    }

    /// Names of the VMs that have a readable point.
    async fn known_vms(&self) -> Result<String, StoreError> {
        let mut by_vm: BTreeMap<VmId, Vec<(String, VmId, PointId)>> = BTreeMap::new();
        for at in self.list_points(names::POINTS).await? {
            by_vm.entry(at.1).or_default().push(at);
        }
        let mut known = Vec::new();
        for (vm, listed) in by_vm {
            let mut name = format!("one whose manifests are all damaged ({vm})");
            for at in listed.into_iter().rev() {
                if let Read::Whole(point) | Read::Untrusted(point, _) = self.read_point(at).await? {
                    name = point.manifest.facts.vm.clone();
                    break;
                }
            }
            known.push(name);
        }
        known.sort();
        Ok(if known.is_empty() {
            "none".into()
        } else {
            known.join(", ")
        })
    }
}

fn selected(selector: &PointSelector, point: &Point) -> Result<bool, StoreError> {
    let time = match selector {
        PointSelector::Sequence(_) => return Ok(true),
        _ if point.diverged.is_some() => return Ok(false),
        PointSelector::Latest => return Ok(true),
        PointSelector::At(time) => time,
    };
    let text = &point.manifest.facts.captured_at;
    let captured: Timestamp = text.parse().map_err(|_| StoreError::Format {
        name: point.object.clone(),
        error: FormatError::Damaged(format!("`{}` is no time", text.escape_debug())),
    })?;
    Ok(captured <= *time)
}

fn known_points(listed: &[(String, VmId, PointId)]) -> String {
    match listed {
        [] => "none".into(),
        [(_, _, only)] => format!("{}", only.sequence),
        [(_, _, first), .., (_, _, last)] => {
            format!(
                "{} recovery points, {} to {}",
                listed.len(),
                first.sequence,
                last.sequence
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_latest_a_number_a_time_or_a_date() {
        let parse = |text: &str| text.parse::<PointSelector>().ok();
        let at = |text: &str| Some(PointSelector::At(text.parse().unwrap()));
        assert_eq!(parse("latest"), Some(PointSelector::Latest));
        assert_eq!(parse("17"), Some(PointSelector::Sequence(17)));
        assert_eq!(parse("2026-07-05T12:00:00Z"), at("2026-07-05T12:00:00Z"));
        assert_eq!(
            parse("2026-07-05T14:00:00+02:00"),
            at("2026-07-05T12:00:00Z")
        );
        assert_eq!(parse("2026-07-05"), at("2026-07-05T23:59:59.999999999Z"));
        for wrong in [
            "",
            "Latest",
            "yesterday",
            "-1",
            "2026-13-01",
            "99999999999999999999",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
