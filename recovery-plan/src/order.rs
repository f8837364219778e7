//! What starts when.

use crate::plan::{Plan, PlannedVm};

/// VMs that may start at the same time.
#[derive(Debug, Clone, PartialEq)]
pub struct Start<'a> {
    /// Index into [`Plan::groups`].
    pub group: usize,
    pub vms: Vec<&'a PlannedVm>,
}

/// The order of a plan: group after group, and within one what is needed before what needs it.
///
/// What could never start (it waits for itself) is not in it; [`Plan::parse`] refuses such plans.
pub fn starts(plan: &Plan) -> Vec<Start<'_>> {
    let mut all = Vec::new();
    for (number, group) in plan.groups.iter().enumerate() {
        let mut waiting: Vec<&PlannedVm> = plan.vms_of(&group.name).collect();
        loop {
            let waits =
                |vm: &&PlannedVm| waiting.iter().any(|other| vm.needs.contains(&other.name));
            let (later, now): (Vec<_>, Vec<_>) = waiting.iter().copied().partition(waits);
            if now.is_empty() {
                break;
            }
            all.push(Start {
                group: number,
                vms: now,
            });
            waiting = later;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{plan, vm};

    fn order(plan: &Plan) -> Vec<Vec<&str>> {
        starts(plan)
            .into_iter()
            .map(|start| start.vms.into_iter().map(|vm| vm.name.as_str()).collect())
            .collect()
    }

    #[test]
    fn groups_follow_each_other_and_needs_order_within_one() {
        let more = [
            vm("web", "servers", "needs = [\"db\", \"dc01\"]"),
            vm("db", "servers", ""),
            vm("mail", "servers", ""),
            vm("front", "servers", "needs = [\"web\"]"),
        ];
        let plan = plan(&more.concat());
        assert_eq!(
            order(&plan),
            [vec!["dc01"], vec!["db", "mail"], vec!["web"], vec!["front"]]
        );
        assert_eq!(starts(&plan)[0].group, 0);
        assert_eq!(starts(&plan)[3].group, 1);
    }
}
