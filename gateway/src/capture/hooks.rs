//! The owner's programs before and after a VM is frozen.

use std::cell::OnceCell;

use console::Finding;
use tokio::task::JoinHandle;

use crate::{
    config::Vm,
    interrupt::Interrupt,
    source::{
        consistency::Freeze,
        hook::{HOOK_TIMEOUT, HookKind, run_hook},
    },
};

/// Runs the `before` hook, if the VM has one.
pub async fn freeze_by_hook(vm: &Vm, interrupt: &Interrupt) -> Freeze {
    let Some(hook) = &vm.before else {
        return Freeze::NotAsked;
    };
    let stop = interrupt.wait();
    match run_hook(hook, HookKind::Before, &vm.name, HOOK_TIMEOUT, stop).await {
        Ok(()) => Freeze::Done,
        Err(why) => Freeze::Failed(why),
    }
}

/// The `after` hook: runs once, as a task of its own, so that nothing that is given up ends it halfway.
pub struct Thaw<'v> {
    vm: &'v Vm,
    task: OnceCell<JoinHandle<Result<(), String>>>,
}

impl<'v> Thaw<'v> {
    pub fn of(vm: &'v Vm) -> Self {
        Thaw {
            vm,
            task: OnceCell::new(),
        }
    }

    pub fn start(&self) {
        let Some(hook) = &self.vm.after else { return };
        self.task.get_or_init(|| {
            let (hook, name) = (hook.clone(), self.vm.name.clone());
            let never = std::future::pending();
            tokio::spawn(async move {
                run_hook(&hook, HookKind::After, &name, HOOK_TIMEOUT, never).await
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
