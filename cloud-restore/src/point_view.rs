//! Recovery points as they are printed: for people, and as JSON.

use std::collections::BTreeMap;

use console::{Finding, show};
use jiff::Timestamp;
use serde::Serialize;
use vault_format::manifest::{Consistency, Facts};
use vault_store::read::{Point, PointList};

#[derive(Debug, Serialize)]
pub struct PointJson<'a> {
    pub sequence: u64,
    pub id: String,
    pub vm: &'a str,
    /// The gateway's clock.
    pub captured_at: &'a str,
    /// The store's clock, as last seen before publishing.
    pub store_time: Option<&'a str>,
    pub consistency: Consistency,
    pub disks: Vec<DiskJson<'a>>,
    /// What this point added to the vault, in records.
    pub stored_bytes: u64,
    pub expires_at: Option<&'a str>,
    pub hold: bool,
    /// The control log's entry of the fence that it is set aside for: only its number means it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diverged: Option<u64>,
    /// What is unusual about it, against the VM's own history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct DiskJson<'a> {
    pub name: &'a str,
    pub size_bytes: u64,
    /// Not captured; recreated empty.
    pub excluded: bool,
}

impl<'a> PointJson<'a> {
    pub fn of(point: &'a Point) -> Self {
        let facts = &point.manifest.facts;
        let disks = point.manifest.disks.iter().map(|disk| DiskJson {
            name: &disk.name,
            size_bytes: disk.size_bytes,
            excluded: disk.excluded,
        });
        PointJson {
            sequence: facts.point.sequence,
            id: facts.point.to_string(),
            vm: &facts.vm,
            captured_at: &facts.captured_at,
            store_time: facts.store_time.as_deref(),
            consistency: facts.consistency,
            disks: disks.collect(),
            stored_bytes: facts.bytes.sent,
            expires_at: facts.expires_at.as_deref(),
            hold: facts.hold,
            diverged: point.diverged,
            anomaly: None,
        }
    }
}

/// `dc01@17`.
pub fn name(facts: &Facts) -> String {
    format!("{}@{}", facts.vm, facts.point.sequence)
}

/// When it was captured, as people here write it; as it is where it is no time.
pub fn captured(facts: &Facts) -> String {
    match facts.captured_at.parse() {
        Ok(at) => show::time_local(at),
        Err(_) => facts.captured_at.clone(),
    }
}

/// How old it is; a clock that was ahead makes it `in 5m`.
pub fn age(facts: &Facts, now: Timestamp) -> String {
    let at = facts.captured_at.parse();
    at.map_or_else(|_| "?".into(), |at| show::age(at, now))
}

/// `sda 20 GiB, sdb 4 GiB (empty)`.
pub fn disks(point: &Point) -> String {
    let text = point.manifest.disks.iter().map(|disk| {
        let empty = if disk.excluded { " (excluded)" } else { "" };
        format!("{} {}{empty}", disk.name, show::size(disk.size_bytes))
    });
    text.collect::<Vec<_>>().join(", ")
}

/// The newest point of each VM, by its place in the order of points; none that diverged.
pub fn newest_by_vm(list: &PointList) -> BTreeMap<&str, &Point> {
    let mut newest = BTreeMap::<&str, &Point>::new();
    for point in list.points.iter().filter(|its| its.diverged.is_none()) {
        let kept = newest.entry(&point.manifest.facts.vm).or_insert(point);
        if kept.manifest.facts.point < point.manifest.facts.point {
            *kept = point;
        }
    }
    newest
}

/// What is wrong with listed points. Those that do not open are in no list of points.
pub fn findings(list: &PointList) -> Vec<Finding> {
    let damaged = list.damaged.iter().map(|(object, why)| {
        let remedy = "run `sparesite-restore verify`; no other recovery point depends on this one";
        Finding::new("recovery point does not open", object, why, remedy)
    });
    let untrusted = list.untrusted.iter().map(|(object, why)| {
        let remedy = "it is not restored: its gateway's key was revoked before it; see `sparesite-restore \
                      gateway-key list`";
        Finding::new("recovery point is not trusted", object, why, remedy)
    });
    let own = list.points.iter().flat_map(of_point);
    damaged.chain(untrusted).chain(own).collect()
}

/// What was found while this point was looked for.
pub fn of_point(point: &Point) -> impl Iterator<Item = Finding> {
    let on = name(&point.manifest.facts);
    let finding =
        move |what: &String| Finding::new(what, &on, "", "run `sparesite-restore verify`");
    point.findings.iter().map(finding)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use vault_format::ids::*;
    use vault_format::manifest::{Disk, Manifest, PointBytes};

    /// A point of `vm` with disks of 1 GiB.
    pub fn point(vm: &str, epoch: u64, sequence: u64, disks: &[&str]) -> Point {
        let disk = |name: &&str| Disk {
            name: (*name).into(),
            size_bytes: 1 << 30,
            excluded: *name == "swap",
            layers: Vec::new(),
        };
        let facts = Facts {
            vm: vm.into(),
            vm_id: VmId([1; 16]),
            point: PointId { epoch, sequence },
            captured_at: "2026-11-22T08:00:00Z".into(),
            store_time: None,
            consistency: Consistency::FileSystem,
            capture: CaptureId([0; 16]),
            previous: None,
            newest: Vec::new(),
            log: 1,
            diverged: None,
            expires_at: None,
            hold: false,
            bytes: PointBytes {
                sent: 42,
                ..PointBytes::default()
            },
            software: String::new(),
            hardware: None,
            packs: Vec::new(),
            unindexed: Vec::new(),
        };
        let manifest = Manifest {
            facts,
            disks: disks.iter().map(disk).collect(),
            entries: Vec::new(),
        };
        Point {
            object: manifest.object_name(),
            manifest,
            writer: WriterId([2; 16]),
            hash: ObjectHash([3; 32]),
            diverged: None,
            findings: Vec::new(),
        }
    }

    #[test]
    fn the_documented_keys_of_a_point() {
        let point = point("dc01", 3, 17, &["sda", "swap"]);
        let json = serde_json::to_value(PointJson::of(&point)).unwrap();
        assert_eq!(json["sequence"], 17);
        assert_eq!(json["id"], "0000000003-0000000017");
        assert_eq!(json["vm"], "dc01");
        assert_eq!(json["captured_at"], "2026-11-22T08:00:00Z");
        assert_eq!(json["consistency"], "file-system");
        assert_eq!(json["disks"][0]["name"], "sda");
        assert_eq!(json["disks"][0]["size_bytes"], 1 << 30);
        assert_eq!(json["disks"][1]["excluded"], true);
        assert_eq!(json["stored_bytes"], 42);
    }

    #[test]
    fn age_is_told_for_any_clock() {
        let mut point = point("dc01", 1, 1, &[]);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let facts = &mut point.manifest.facts;
        assert_eq!(age(facts, at("2026-11-22T11:12:00Z")), "3h 12m");
        assert_eq!(age(facts, at("2026-11-22T07:55:00Z")), "in 5m");
        facts.captured_at = "yesterday".into();
        assert_eq!(
            (age(facts, at("2026-11-22T11:12:00Z")), captured(facts)),
            ("?".into(), "yesterday".into())
        );
    }

    #[test]
    fn the_newest_is_by_order_and_not_by_clock() {
        let mut points = vec![
            point("b", 1, 9, &[]),
            point("a", 2, 3, &[]),
            point("a", 1, 8, &[]),
        ];
        points[1].manifest.facts.captured_at = "2001-01-01T00:00:00Z".into();
        let list = PointList {
            points,
            damaged: Vec::new(),
            untrusted: Vec::new(),
        };
        let newest: Vec<String> = newest_by_vm(&list)
            .values()
            .map(|p| name(&p.manifest.facts))
            .collect();
        assert_eq!(newest, ["a@3", "b@9"]);
    }
}
