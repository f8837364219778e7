//! Hooks: programs of the owner, run here, before or after something of the plan.

use std::time::Duration;

use recovery_plan::Hook;
use recovery_plan::run::{Owner, When};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Context, StepError, Words};
use crate::failover::world::World;
use crate::program;
use console::show;

/// Where the plan writes none.
const WAIT: Duration = Duration::from_secs(600);
/// Kept of what it said.
const MOST_SAID: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Back,
}

pub async fn run(
    context: &Context,
    of: &Owner,
    when: When,
    number: usize,
    direction: Direction,
) -> Result<Words, StepError> {
    let hook = find(&context.world, of, when, number)?;
    let words = match direction {
        Direction::Forward => &hook.command,
        Direction::Back => &hook.undo,
    };
    let Some((name, arguments)) = words.split_first() else {
        return Ok(Words::new());
    };
    let mut command = Command::new(name);
    command.args(arguments);
    command
        .env("SPARESITE_RUN", &context.world.run)
        .env("SPARESITE_KIND", context.world.kind_word())
        .env("SPARESITE_PLAN", &context.world.plan.name)
        .env("SPARESITE_ADDRESSES", addresses(context));
    if let Owner::Vm(vm) = of {
        command.env("SPARESITE_VM", vm);
        if let Some(address) = address(context, vm) {
            command.env("SPARESITE_ADDRESS", address);
        }
    }
    let wait = hook
        .wait
        .map_or(WAIT, |wait| Duration::from_secs(wait.seconds()));
    let shown = words.join(" ");
    let ran = timeout(wait, program::run(&mut command)).await;
    let ran = ran.map_err(|_| {
        StepError::new(format!(
            "hook `{shown}` did not end within {}",
            show::duration(wait)
        ))
    })?;
    let (status, said) =
        ran.map_err(|error| StepError::new(format!("hook `{shown}` cannot be run: {error}")))?;
    let said: String = show::printable(said.trim())
        .chars()
        .take(MOST_SAID)
        .collect();
    match status.success() {
        true => Ok(Words::from([("said".into(), said)])),
        false => Err(StepError::new(format!(
            "hook `{shown}` failed ({status}): {said}"
        ))),
    }
}

fn find<'a>(
    world: &'a World,
    of: &Owner,
    when: When,
    number: usize,
) -> Result<&'a Hook, StepError> {
    let hooks = match of {
        Owner::Group(name) => {
            let group = world.plan.groups.iter().find(|group| group.name == *name);
            group.map(|group| (&group.before, &group.after))
        }
        Owner::Vm(name) => {
            let vm = world.plan.vms.iter().find(|vm| vm.name == *name);
            vm.map(|vm| (&vm.before, &vm.after))
        }
    };
    let hooks = hooks.map(|(before, after)| match when {
        When::Before => before,
        When::After => after,
    });
    let hook = hooks.and_then(|hooks| hooks.get(number.checked_sub(1)?));
    hook.ok_or_else(|| StepError::new("its hook is not in the plan"))
}

fn address<'a>(context: &'a Context, vm: &str) -> Option<&'a str> {
    let made = context.made.get(&format!("instance {vm}"))?;
    made.get("address").map(String::as_str)
}

/// Of all VMs that run by now: `dc01=10.0.0.5 db=10.0.0.6`.
fn addresses(context: &Context) -> String {
    let vms = context.world.plan.vms.iter();
    let all = vms.filter_map(|vm| Some(format!("{}={}", vm.name, address(context, &vm.name)?)));
    all.collect::<Vec<_>>().join(" ")
}
