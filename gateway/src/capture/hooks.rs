//! The owner's programs before and after a VM is frozen.

use std::{
    cell::OnceCell,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use console::Finding;
use tokio::task::JoinHandle;
use vault_format::keys::IdKey;

use super::owed::{Note, Owed};
use crate::{
    config::{Config, Vm},
    interrupt::Interrupt,
    source::{
        consistency::Freeze,
        hook::{HOOK_TIMEOUT, HookKind, Occasion, printed_consistency, printed_disks, run_hook},
    },
};

/// What a `before` hook did, and the paths that it printed for disks of the VM.
pub struct Before {
    pub freeze: Freeze,
    pub disks: Vec<(String, PathBuf)>,
}

/// The hooks around captures, and what they still owe.
pub struct Hooks {
    config: Arc<Config>,
    interrupt: Interrupt,
    owed: Owed,
}

impl Hooks {
    pub fn new(config: Arc<Config>, interrupt: Interrupt, id_key: IdKey) -> Self {
        Hooks {
            owed: Owed::open(&config.state, id_key),
            config,
            interrupt,
        }
    }

    /// Runs the `after` hooks that an earlier process owes.
    pub async fn pay(&self) -> Vec<Finding> {
        self.owed.pay(&self.config, None, &self.interrupt).await
    }

    /// Runs the `before` hook, if the VM has one. The `after` hook is owed from here on.
    pub async fn freeze(&self, vm: &Vm, on: Occasion) -> (Before, Thaw) {
        let pay = self.owed.pay(&self.config, Some(&vm.name), &self.interrupt);
        let mut thaw = Thaw {
            vm: vm.name.clone(),
            hook: None,
            note: None,
            earlier: pay.await,
            on,
            task: OnceCell::new(),
        };
        if self.interrupt.came() {
            // Nothing is begun, and what is owed stays so.
            return (Before::none(Freeze::Failed("interrupted".into())), thaw);
        }
        thaw.hook = vm.after.clone();
        let mut lock = None;
        if vm.before.is_some() && thaw.hook.is_some() {
            match self.owed.note(&thaw.on) {
                Ok(note) => {
                    lock = note.lock().ok();
                    thaw.note = Some(note);
                }
                Err(error) => {
                    // Frozen without it, the VM would stay so if we were killed.
                    let why = format!("what it owes cannot be noted in the state folder: {error}");
                    return (Before::none(Freeze::Failed(why)), thaw);
                }
            }
        }
        let before = before(vm, &thaw.on, lock, &self.interrupt).await;
        (before, thaw)
    }
}

impl Before {
    fn none(freeze: Freeze) -> Self {
        let disks = Vec::new();
        Before { freeze, disks }
    }
}

async fn before(vm: &Vm, on: &Occasion, lock: Option<File>, interrupt: &Interrupt) -> Before {
    let Some(hook) = &vm.before else {
        return Before::none(Freeze::NotAsked);
    };
    let stop = interrupt.wait();
    let kind = HookKind::Before;
    let said = match run_hook(hook, (kind, on), lock, HOOK_TIMEOUT, stop).await {
        Ok(said) => said,
        Err(why) => return Before::none(Freeze::Failed(why)),
    };
    let names: Vec<&str> = vm.disks().iter().map(|disk| disk.name.as_str()).collect();
    let understood = || {
        let freeze = printed_consistency(&said)?.map_or(Freeze::Done, Freeze::Said);
        // Only a list has paths; what else a hook of another source prints is for people.
        let disks = match names.is_empty() {
            true => Vec::new(),
            false => printed_disks(&said, &names)?,
        };
        Ok::<_, String>(Before { freeze, disks })
    };
    understood()
        .unwrap_or_else(|why| Before::none(Freeze::Failed(format!("{}: {why}", hook.display()))))
}

/// Not ended by an interrupt: it is what an interrupt waits for.
pub(super) async fn run_after(
    hook: &Path,
    on: &Occasion,
    lock: Option<File>,
) -> Result<(), String> {
    let never = std::future::pending();
    let ran = run_hook(hook, (HookKind::After, on), lock, HOOK_TIMEOUT, never).await;
    ran.map(drop)
}

pub(super) fn after_failed(vm: &str, hook: &Path, why: String) -> Finding {
    Finding::new(
        "the after hook failed: the VM may still be frozen",
        format!("VM {vm}"),
        why,
        format!("look at the VM now, and run {} by hand", hook.display()),
    )
}

/// The `after` hook: runs once, as a task of its own, so that nothing that is given up ends it halfway.
pub struct Thaw {
    vm: String,
    hook: Option<PathBuf>,
    on: Occasion,
    note: Option<Note>,
    /// What came of the hook that an earlier process owed.
    earlier: Vec<Finding>,
    task: OnceCell<JoinHandle<Result<(), String>>>,
}

impl Thaw {
    pub fn start(&self) {
        let Some(hook) = &self.hook else { return };
        self.task.get_or_init(|| {
            let (hook, on, note) = (hook.clone(), self.on.clone(), self.note.clone());
            tokio::spawn(async move {
                // Not waited for: the `before` of this process has ended, or was ended.
                let lock = note.as_ref().and_then(|note| note.lock().ok());
                run_after(&hook, &on, lock).await?;
                note.iter().for_each(Note::remove);
                Ok(())
            })
        });
    }

    pub async fn end(self) -> Vec<Finding> {
        let mut findings = self.earlier;
        let (Some(task), Some(hook)) = (self.task.into_inner(), &self.hook) else {
            return findings;
        };
        let ended = task.await.unwrap_or_else(|error| Err(error.to_string()));
        findings.extend(ended.err().map(|why| after_failed(&self.vm, hook, why)));
        findings
    }
}
