//! What the vault knows of the protected VMs, as recovery plans are judged by it.

use std::collections::BTreeMap;

use recovery_plan::anomaly::{Anomaly, anomalies};
use recovery_plan::known::{KnownDisk, KnownHardware, KnownPoint, KnownVm};
use vault_format::control_log::ControlLog;
use vault_format::ids::PointId;
use vault_format::proof::ProofLevel;
use vault_store::read::{Point, PointList};

use crate::hardware::{Architecture, Firmware, Hardware};

/// All VMs that have a point, by their names.
pub fn known_vms(list: &PointList, log: &ControlLog) -> Vec<KnownVm> {
    by_vm(list)
        .into_iter()
        .filter_map(|(name, points)| {
            let proven = proven(log, points.last()?);
            let known = |points: &[&Point]| -> Vec<KnownPoint> {
                let all = points.iter().map(|point| known_point(point, proven));
                all.collect()
            };
            let diverged = list
                .points
                .iter()
                .filter(|point| point.diverged.is_some() && point.manifest.facts.vm == name);
            Some(KnownVm {
                name: name.to_owned(),
                points: known(&points),
                diverged: known(&diverged.collect::<Vec<&Point>>()),
            })
        })
        .collect()
}

/// What is unusual about listed points, by the points' objects.
pub fn unusual(list: &PointList) -> BTreeMap<&str, Anomaly> {
    let mut found = BTreeMap::new();
    for points in by_vm(list).into_values() {
        let known = points.iter().map(|point| known_point(point, None));
        let all = anomalies(&known.collect::<Vec<KnownPoint>>());
        for (point, anomaly) in points.into_iter().zip(all) {
            found.extend(anomaly.map(|anomaly| (point.object.as_str(), anomaly)));
        }
    }
    found
}

/// Each VM's points in their order, the oldest first. Without those that diverged: they are no part of its history.
fn by_vm(list: &PointList) -> BTreeMap<&str, Vec<&Point>> {
    let mut all = BTreeMap::<&str, Vec<&Point>>::new();
    for point in list.points.iter().filter(|its| its.diverged.is_none()) {
        all.entry(&point.manifest.facts.vm).or_default().push(point);
    }
    for points in all.values_mut() {
        points.sort_by_key(|point| point.manifest.facts.point);
    }
    all
}

/// The point of the newest drill that passed; not if a later one of the same point did not.
fn proven(log: &ControlLog, newest: &Point) -> Option<PointId> {
    let proofs = log.proofs.get(&newest.manifest.facts.vm_id)?;
    let passed = proofs.passed()?;
    let (newest, failed) = (&proofs.newest.proof, !proofs.newest.proof.passed);
    if failed && newest.point == passed.proof.point {
        return None;
    }
    (passed.proof.level >= ProofLevel::Booted).then_some(passed.proof.point)
}

fn known_point(point: &Point, proven: Option<PointId>) -> KnownPoint {
    let facts = &point.manifest.facts;
    let hardware = Hardware::of(&point.manifest);
    KnownPoint {
        id: facts.point,
        captured_at: facts.captured_at.parse().ok(),
        consistency: facts.consistency,
        changed_bytes: facts.bytes.changed,
        sent_bytes: facts.bytes.sent,
        proven: proven == Some(facts.point),
        disks: disks(&hardware),
        hardware: known_hardware(&hardware),
    }
}

/// The one that boots first.
fn disks(hardware: &Hardware) -> Vec<KnownDisk> {
    let boots = hardware.boot_disk().map(|disk| disk.name.as_str());
    let mut disks: Vec<_> = hardware.disks.iter().collect();
    disks.sort_by_key(|disk| Some(disk.name.as_str()) != boots);
    let known = |disk: &crate::hardware::DiskHardware| KnownDisk {
        name: disk.name.clone(),
        size_bytes: disk.size_bytes,
        excluded: disk.excluded,
    };
    disks.into_iter().map(known).collect()
}

fn known_hardware(hardware: &Hardware) -> KnownHardware {
    KnownHardware {
        cpus: hardware.cpus.as_ref().map(|cpus| cpus.count),
        memory_bytes: hardware.memory_bytes,
        uefi: hardware
            .firmware
            .map(|firmware| matches!(firmware, Firmware::Uefi { .. })),
        tpm: hardware.tpm.is_some(),
        other_architecture: hardware
            .architecture
            .is_some_and(|is| is != Architecture::X86_64),
        nics: hardware.nics.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point_view::tests::point;
    use serde_json::json;
    use vault_format::ids::{ObjectHash, VaultId, VmId};
    use vault_format::proof::{Proof, Proven};

    fn list(points: Vec<Point>) -> PointList {
        PointList {
            points,
            damaged: Vec::new(),
            untrusted: Vec::new(),
        }
    }

    #[test]
    fn a_vm_is_what_its_newest_point_tells_and_its_points_are_in_order() {
        let mut newest = point("b", 2, 5, &["sda", "sdb"]);
        newest.manifest.facts.hardware = Some(json!({
            "machine": "pc-q35-10.0", "cpus": {"count": 3}, "memory_bytes": 1 << 31, "firmware": {"kind": "uefi"},
            "disks": [{"id": "sda", "boot_index": 2}, {"id": "sdb", "boot_index": 1}], "nics": [{}, {}],
        }));
        let passed = Proven {
            number: 4,
            time: "2026-11-22T08:00:00Z".into(),
            proof: Proof {
                vm: VmId([1; 16]),
                point: PointId {
                    epoch: 1,
                    sequence: 9,
                },
                level: ProofLevel::Probed,
                passed: true,
                target: "qemu".into(),
                report: ObjectHash([0; 32]),
                software: String::new(),
                took_seconds: 1,
            },
        };
        let mut log = ControlLog::new(VaultId([0; 32]));
        let proofs = json!({"newest": passed, "passed_before": null});
        log.proofs
            .insert(VmId([1; 16]), serde_json::from_value(proofs).unwrap());
        let vms = known_vms(
            &list(vec![
                newest,
                point("b", 1, 9, &["sda"]),
                point("a", 1, 1, &["swap"]),
            ]),
            &log,
        );
        let names: Vec<&str> = vms.iter().map(|vm| vm.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let sequences: Vec<u64> = vms[1]
            .points
            .iter()
            .map(|point| point.id.sequence)
            .collect();
        assert_eq!(sequences, [9, 5], "the epoch counts first");
        let proven: Vec<bool> = vms[1].points.iter().map(|point| point.proven).collect();
        assert_eq!(proven, [true, false]);
        let newest = &vms[1].points[1];
        let hardware = &newest.hardware;
        assert_eq!(
            (hardware.cpus, hardware.uefi, hardware.nics),
            (Some(3), Some(true), 2)
        );
        assert!(!hardware.other_architecture);
        assert_eq!(newest.disks[0].name, "sdb", "the one that boots");
        assert!(vms[0].points[0].disks[0].excluded);
    }

    #[test]
    fn what_is_unusual_is_told_of_the_point_that_it_is() {
        let mut points: Vec<Point> = (1..=28).map(|number| point("a", 1, number, &[])).collect();
        points
            .iter_mut()
            .for_each(|point| point.manifest.facts.bytes.changed = 1 << 20);
        for (day, point) in (1..).zip(&mut points) {
            point.manifest.facts.captured_at = format!("2026-11-{day:02}T08:00:00Z");
        }
        points[26].manifest.facts.bytes.changed = 1 << 30;
        points.reverse();
        let list = list(points);
        let unusual = unusual(&list);
        let expected = list.points[1].object.as_str();
        assert_eq!(unusual.into_keys().collect::<Vec<_>>(), [expected]);
    }
}
