//! What would go wrong by the plan alone, whatever the vault has.

use console::Finding;

use super::on;
use crate::draft;
use crate::living::living;
use crate::order::starts;
use crate::plan::{Licence, Plan, PlannedVm};

pub(super) fn judge(plan: &Plan, findings: &mut Vec<Finding>) {
    placeholders(plan, findings);
    controllers(plan, findings);
    unasked(plan, findings);
    brought_licences(plan, findings);
}

/// What `plan new` could not know.
fn placeholders(plan: &Plan, findings: &mut Vec<Finding>) {
    let subnets = plan
        .subnets
        .iter()
        .filter(|subnet| subnet.id.contains(draft::TO_FILL));
    for subnet in subnets {
        findings.push(Finding::new(
            "its `id` is still to be filled in",
            format!("subnet {}", subnet.name),
            "a plan that was drafted does not know your network",
            "write the id that your cloud gave it",
        ));
    }
}

/// Whoever logs in, and every name, needs them.
fn controllers(plan: &Plan, findings: &mut Vec<Finding>) {
    let order: Vec<(usize, &PlannedVm)> = starts(plan)
        .into_iter()
        .enumerate()
        .flat_map(|(step, start)| start.vms.into_iter().map(move |vm| (step, vm)))
        .collect();
    let Some((first, _)) = order.iter().find(|(_, vm)| vm.domain_controller) else {
        return;
    };
    let early: Vec<&str> = order
        .iter()
        .filter(|(step, vm)| step <= first && !vm.domain_controller)
        .map(|(_, vm)| vm.name.as_str())
        .collect();
    if !early.is_empty() {
        findings.push(Finding::new(
            "VMs start before the first domain controller serves, or with it",
            early.join(", "),
            "they find neither names nor accounts",
            "put the domain controllers into the first group, alone",
        ));
    }
}

/// A second one beside a living one would go on from where the recovery point is: the directory forks (USN rollback).
fn unasked(plan: &Plan, findings: &mut Vec<Finding>) {
    let controllers = plan.vms.iter().filter(|vm| vm.domain_controller);
    for vm in controllers.filter(|vm| living(plan, vm).controllers.is_empty()) {
        findings.push(Finding::new(
            "nobody is asked whether a domain controller lives",
            on(vm),
            "a failover does not know where they are on site",
            "write its `site_address`, and the others' into `site_controllers`",
        ));
    }
}

/// AWS takes licences of Windows that the owner brings on Dedicated Hosts, and nothing here asks for those ("Microsoft Licensing
/// on AWS", Windows Server).
fn brought_licences(plan: &Plan, findings: &mut Vec<Finding>) {
    let brought = |vm: &&PlannedVm| vm.licence == Some(Licence::Byol);
    for vm in plan.vms.iter().filter(brought) {
        findings.push(Finding::new(
            "its licence of Windows would not count there",
            on(vm),
            "AWS takes licences of your own on Dedicated Hosts only, and it is started on shared hardware",
            "write `licence = \"included\"`",
        ));
    }
}
