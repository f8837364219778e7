//! What a run consists of.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::living::is_asked;
use crate::order::starts;
use crate::plan::{Hook, Plan, PlannedVm};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunKind {
    /// A rehearsal in the isolated network: nothing is fenced, and all of it ends.
    Test,
    /// The bad day, without the site.
    Failover,
}

/// How [`steps`] derives them, and names them: a record says by which number it was begun. It changes with any of both.
pub const DERIVATION: u32 = 4;

/// One step. Its name is the same whoever derives it, so that a record can be read by another program run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub kind: StepKind,
    /// Indices of the steps that have to be done before it; all are smaller than its own.
    pub after: Vec<usize>,
}

impl Step {
    pub fn name(&self) -> String {
        self.kind.to_string()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    /// Something in the cloud that tears the test down even if this program dies.
    Deadline,
    /// The site's gateway may add no more recovery points of the VM.
    Fence { vm: String },
    /// The guest is made ready for the cloud, on copies of what it changes.
    Convert { vm: String },
    /// A disk of the recovery point, as the cloud's snapshot.
    Snapshot { vm: String, disk: String },
    /// What the cloud starts the VM from.
    Image { vm: String },
    Hook {
        of: Owner,
        when: When,
        number: usize,
        has_undo: bool,
        may_fail: bool,
    },
    /// Nothing that lives answers where the VM would be twice, or a second domain controller would be.
    Alone { vm: String },
    /// The recovery VM, created and started.
    Instance { vm: String },
    /// All its probes hold.
    Serves { vm: String },
    /// Waited after a group.
    Delay { group: String },
}

/// Whose hook it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    Group(String),
    Vm(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepKind::Deadline => f.write_str("deadline"),
            StepKind::Fence { vm } => write!(f, "fence {vm}"),
            StepKind::Convert { vm } => write!(f, "convert {vm}"),
            StepKind::Snapshot { vm, disk } => write!(f, "snapshot {vm} {disk}"),
            StepKind::Image { vm } => write!(f, "image {vm}"),
            StepKind::Hook {
                of, when, number, ..
            } => {
                let (kind, name) = match of {
                    Owner::Group(name) => ("group", name),
                    Owner::Vm(name) => ("vm", name),
                };
                let when = match when {
                    When::Before => "before",
                    When::After => "after",
                };
                write!(f, "hook {when} {kind} {name} {number}")
            }
            StepKind::Alone { vm } => write!(f, "alone {vm}"),
            StepKind::Instance { vm } => write!(f, "instance {vm}"),
            StepKind::Serves { vm } => write!(f, "serves {vm}"),
            StepKind::Delay { group } => write!(f, "delay {group}"),
        }
    }
}

impl StepKind {
    /// Whether what needs it goes on although it failed.
    pub fn may_fail(&self) -> bool {
        matches!(self, StepKind::Hook { may_fail: true, .. })
    }

    /// Whether it may be counted as done before it was tried: it makes nothing, and what needs it waits for all else itself.
    pub fn may_be_skipped_early(&self) -> bool {
        matches!(self, StepKind::Alone { .. })
    }

    /// Whether it leaves something behind that an undo has to take away.
    pub fn leaves_something(&self) -> bool {
        match self {
            StepKind::Deadline
            | StepKind::Fence { .. }
            | StepKind::Snapshot { .. }
            | StepKind::Image { .. }
            | StepKind::Instance { .. } => true,
            StepKind::Hook { has_undo, .. } => *has_undo,
            StepKind::Convert { .. }
            | StepKind::Alone { .. }
            | StepKind::Serves { .. }
            | StepKind::Delay { .. } => false,
        }
    }
}

/// The steps of a run, each after those that it needs.
///
/// `disks` are the disks of each VM's recovery point. They are made from the beginning, whatever group their VM is of: that
/// takes longest, and only starting has an order. Fences come first of all, since what a living site adds afterwards would
/// be lost.
pub fn steps(plan: &Plan, kind: RunKind, disks: &BTreeMap<String, Vec<String>>) -> Vec<Step> {
    let mut made = Maker {
        kind,
        steps: Vec::new(),
    };
    let first: Vec<usize> = match kind {
        RunKind::Test => vec![made.add(StepKind::Deadline, Vec::new())],
        RunKind::Failover => {
            let fence = |vm: &PlannedVm| StepKind::Fence {
                vm: vm.name.clone(),
            };
            plan.vms
                .iter()
                .map(|vm| made.add(fence(vm), Vec::new()))
                .collect()
        }
    };
    let order = starts(plan);
    let mut images = BTreeMap::new();
    for vm in order.iter().flat_map(|start| &start.vms) {
        let mut snapshots = Vec::new();
        let disks = disks.get(&vm.name).map_or(&[][..], Vec::as_slice);
        let mut ready = first.clone();
        if vm.convert && !disks.is_empty() {
            let vm = vm.name.clone();
            ready = vec![made.add(StepKind::Convert { vm }, ready)];
        }
        for disk in disks {
            let (vm, disk) = (vm.name.clone(), disk.clone());
            snapshots.push(made.add(StepKind::Snapshot { vm, disk }, ready.clone()));
        }
        // A VM without any disk still is started after the fences.
        snapshots.extend(&first);
        let image = made.add(
            StepKind::Image {
                vm: vm.name.clone(),
            },
            snapshots,
        );
        images.insert(vm.name.as_str(), image);
    }
    let mut serving = BTreeMap::<&str, usize>::new();
    // What the next group waits for.
    let mut turn = first;
    for (number, group) in plan.groups.iter().enumerate() {
        let owner = || Owner::Group(group.name.clone());
        turn = made.hooks(owner, When::Before, &group.before, turn);
        let mut all = turn.clone();
        for vm in order
            .iter()
            .filter(|start| start.group == number)
            .flat_map(|start| &start.vms)
        {
            let owner = || Owner::Vm(vm.name.clone());
            let mut needs = turn.clone();
            needs.extend(
                vm.needs
                    .iter()
                    .filter_map(|needed| serving.get(needed.as_str())),
            );
            needs.extend(images.get(vm.name.as_str()));
            let mut ready = made.hooks(owner, When::Before, &vm.before, needs);
            // Behind its hooks, which may be what ends the living one. The test network leads nowhere.
            if kind == RunKind::Failover && is_asked(plan, vm) {
                let vm = vm.name.clone();
                // Its own needs beside it: who skips it early starts nothing early.
                ready.push(made.add(StepKind::Alone { vm }, ready.clone()));
            }
            let instance = made.add(
                StepKind::Instance {
                    vm: vm.name.clone(),
                },
                ready,
            );
            let serves = made.add(
                StepKind::Serves {
                    vm: vm.name.clone(),
                },
                vec![instance],
            );
            let done = made.hooks(owner, When::After, &vm.after, vec![serves]);
            serving.insert(&vm.name, serves);
            all.extend(done);
        }
        turn = made.hooks(owner, When::After, &group.after, all);
        if group.delay.is_some_and(|delay| delay.seconds() > 0) {
            turn = vec![made.add(
                StepKind::Delay {
                    group: group.name.clone(),
                },
                turn,
            )];
        }
    }
    made.steps
}

struct Maker {
    kind: RunKind,
    steps: Vec<Step>,
}

impl Maker {
    fn add(&mut self, kind: StepKind, mut after: Vec<usize>) -> usize {
        after.sort_unstable();
        after.dedup();
        self.steps.push(Step { kind, after });
        self.steps.len() - 1
    }

    /// One after the other; returns what has to be done for all of them to be.
    fn hooks(
        &mut self,
        owner: impl Fn() -> Owner,
        when: When,
        hooks: &[Hook],
        mut after: Vec<usize>,
    ) -> Vec<usize> {
        for (number, hook) in hooks.iter().enumerate() {
            if self.kind == RunKind::Failover || hook.in_tests {
                let kind = StepKind::Hook {
                    of: owner(),
                    when,
                    number: number + 1,
                    has_undo: !hook.undo.is_empty(),
                    may_fail: hook.may_fail,
                };
                after = vec![self.add(kind, after)];
            }
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{HEAD, vm};

    #[test]
    fn a_guest_that_is_to_be_left_alone_is_not_converted() {
        let text = [
            HEAD.to_owned(),
            vm("dc01", "directory", ""),
            vm("db", "servers", "convert = false"),
        ];
        let plan: Plan = Plan::parse(&text.concat()).expect("a plan");
        let disks = ["dc01", "db"].map(|vm| (vm.to_owned(), vec!["sda".to_owned()]));
        let names: Vec<String> = steps(&plan, RunKind::Test, &disks.into())
            .iter()
            .map(Step::name)
            .collect();
        let place = |name: &str| names.iter().position(|own| own == name);
        assert!(place("convert dc01") < place("snapshot dc01 sda"));
        assert!(place("convert dc01").is_some() && place("convert db").is_none());
        assert!(place("snapshot db sda").is_some(), "{names:?}");
    }
}
