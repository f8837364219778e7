//! The owner's programs before and after a VM is frozen.

use std::{cell::OnceCell, path::PathBuf};

use console::Finding;
use tokio::task::JoinHandle;

use crate::{
    config::Vm,
    interrupt::Interrupt,
    source::{
        consistency::Freeze,
        hook::{HOOK_TIMEOUT, HookKind, Occasion, printed_disks, run_hook},
    },
};

/// What a `before` hook did, and the paths that it printed for disks of the VM.
pub struct Before {
    pub freeze: Freeze,
    pub disks: Vec<(String, PathBuf)>,
}

/// Runs the `before` hook, if the VM has one.
pub async fn freeze_by_hook(vm: &Vm, on: &Occasion, interrupt: &Interrupt) -> Before {
    let none = |freeze| Before {
        freeze,
        disks: Vec::new(),
    };
    let Some(hook) = &vm.before else {
        return none(Freeze::NotAsked);
    };
    let stop = interrupt.wait();
    let said = match run_hook(hook, HookKind::Before, on, HOOK_TIMEOUT, stop).await {
        Ok(said) => said,
        Err(why) => return none(Freeze::Failed(why)),
    };
    // Only a list has paths; what a hook of another source prints is for people.
    let names: Vec<&str> = vm.disks().iter().map(|disk| disk.name.as_str()).collect();
    match names.is_empty() {
        true => none(Freeze::Done),
        false => match printed_disks(&said, &names) {
            Ok(disks) => Before {
                freeze: Freeze::Done,
                disks,
            },
            Err(why) => none(Freeze::Failed(format!("{}: {why}", hook.display()))),
        },
    }
}

/// The `after` hook: runs once, as a task of its own, so that nothing that is given up ends it halfway.
pub struct Thaw<'v> {
    vm: &'v Vm,
    on: Occasion,
    task: OnceCell<JoinHandle<Result<(), String>>>,
}

impl<'v> Thaw<'v> {
    pub fn of(vm: &'v Vm, on: Occasion) -> Self {
        Thaw {
            vm,
            on,
            task: OnceCell::new(),
        }
    }

    pub fn start(&self) {
        let Some(hook) = &self.vm.after else { return };
        self.task.get_or_init(|| {
            let (hook, on) = (hook.clone(), self.on.clone());
            let never = std::future::pending();
            tokio::spawn(async move {
                run_hook(&hook, HookKind::After, &on, HOOK_TIMEOUT, never)
                    .await
                    .map(drop)
            })
        });
    }

    /// Not ended by an interrupt: it is what an interrupt waits for.
    pub async fn end(self) -> Option<Finding> {
        let why = match self.task.into_inner()?.await {
            Ok(ended) => ended.err()?,
            Err(error) => error.to_string(),
        };
        let hook = self.vm.after.as_ref()?;
        Some(Finding::new(
            "the after hook failed: the VM may still be frozen",
            format!("VM {}", self.vm.name),
            why,
            format!("look at the VM now, and run {} by hand", hook.display()),
        ))
    }
}
