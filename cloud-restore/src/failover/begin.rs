//! A run begins: with the plan as it is written now, and the recovery points that its rules choose now.

use std::collections::BTreeMap;

use console::{Failure, Finding};
use jiff::Timestamp;
use recovery_plan::known::KnownVm;
use recovery_plan::run::{DERIVATION, Entry, Event, Run, RunKind, RunPoint, Stored};
use recovery_plan::{Plan, PointRule, choose};
use vault_store::read::PointSelector;

use super::recorder::unreadable;
use crate::vm_point::VmPoint;

/// The first entry of a run's record.
pub fn event(
    kind: RunKind,
    beside: Option<&str>,
    text: &str,
    points: BTreeMap<String, RunPoint>,
) -> Event {
    let run: u64 = rand::random();
    Event::Begun {
        // Names of the cloud's things have it in them.
        run: format!("{run:012x}").chars().take(12).collect(),
        kind,
        plan: text.to_owned(),
        points,
        derivation: DERIVATION,
        beside: beside.map(str::to_owned),
    }
}

/// The run that would be begun, for who only wants to look.
pub fn imagined(event: Event) -> Result<Run, Failure> {
    let entry = Entry {
        previous: String::new(),
        time: Timestamp::now(),
        by: String::new(),
        event,
    };
    let first = Stored {
        number: 1,
        hash: String::new(),
        entry,
    };
    Run::replay(&[first]).map_err(unreadable("that would be begun"))
}

/// Of each VM of the plan, its recovery point by the plan's rule, or the one that was asked for instead.
pub fn points(
    plan: &Plan,
    vms: &[KnownVm],
    asked: &[VmPoint],
    now: Timestamp,
) -> Result<(BTreeMap<String, RunPoint>, Vec<Finding>), Failure> {
    let foreign = asked
        .iter()
        .find(|asked| plan.vms.iter().all(|vm| vm.name != asked.vm));
    if let Some(foreign) = foreign {
        return Err(Failure::usage(format!(
            "{foreign}: there is no such VM in the plan {:?}",
            plan.name
        )));
    }
    let (mut points, mut findings) = (BTreeMap::new(), Vec::new());
    for vm in &plan.vms {
        let cannot = || {
            Failure::failed(format!(
                "VM {:?} has no recovery point to come back at",
                vm.name
            ))
        };
        let known = vms.iter().find(|known| known.name == vm.name);
        let diverged = known.map_or(&[][..], |known| &known.diverged);
        let known = known.map_or(&[][..], |known| &known.points);
        let point = match asked.iter().find(|asked| asked.vm == vm.name) {
            Some(asked) => {
                let found = match &asked.selector {
                    PointSelector::Latest => choose(PointRule::Latest, known, now)
                        .ok()
                        .map(|chosen| chosen.point),
                    PointSelector::Sequence(number) => known
                        .iter()
                        .chain(diverged)
                        .filter(|point| point.id.sequence == *number)
                        .max_by_key(|point| point.id),
                    PointSelector::At(at) => choose(PointRule::At(*at), known, now)
                        .ok()
                        .map(|chosen| chosen.point),
                };
                found.ok_or_else(|| {
                    cannot()
                        .because(format!("there is no {asked}"))
                        .remedy("`sparesite-restore points` lists them")
                })?
            }
            None => {
                let chosen = choose(vm.point, known, now).map_err(|why| {
                    cannot().because(why).remedy(
                        "change its `point` in the plan, or name another one with --point VM@POINT",
                    )
                })?;
                if let Some(suspect) = &chosen.suspect {
                    findings.push(Finding::new(
                        "the recovery point may hold what should not come back",
                        format!("{}@{}", vm.name, chosen.point.id.sequence),
                        suspect,
                        "choose `point = \"before-anomaly\"` in the plan, or name another one with --point VM@POINT",
                    ));
                }
                chosen.point
            }
        };
        let disks = point.disks.iter().map(|disk| disk.name.clone()).collect();
        points.insert(
            vm.name.clone(),
            RunPoint {
                point: point.id.to_string(),
                disks,
            },
        );
    }
    Ok((points, findings))
}
