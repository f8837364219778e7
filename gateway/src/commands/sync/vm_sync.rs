//! One VM of a cycle: hook, disks, capture, hook.

use std::cell::OnceCell;

use console::{Failure, Finding};
use jiff::Timestamp;
use tokio::task::JoinHandle;
use vault_format::{ids::CaptureId, manifest::Consistency};
use vault_store::{
    StoreError,
    gateway::{Gateway, PointReport, VmCapture},
    setup::random,
};

use crate::{
    commands::finding_in_words,
    config::Vm,
    interrupt::Interrupt,
    source::{
        consistency::{self, Freeze, Judged},
        disk_list::{self, Observed},
        hook::{HOOK_TIMEOUT, HookKind, run_hook},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}", in_one_line(.0))]
    Disk(#[from] Failure),
}

fn in_one_line(failure: &Failure) -> String {
    match std::error::Error::source(failure) {
        Some(cause) => format!("{failure}: {cause}"),
        None => failure.to_string(),
    }
}

pub struct VmSync<'s> {
    pub vm: &'s Vm,
    pub asked: Consistency,
    pub interrupt: &'s Interrupt,
}

/// The `after` hook: runs once, as a task of its own, so that nothing that is given up ends it halfway.
struct Thaw<'v> {
    vm: &'v Vm,
    task: OnceCell<JoinHandle<Result<(), String>>>,
}

impl Thaw<'_> {
    fn start(&self) {
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
    async fn end(self) -> Option<Finding> {
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

impl VmSync<'_> {
    /// The `after` hook runs whatever comes of the rest: the guest must not stay frozen.
    pub async fn run(
        &self,
        gateway: &mut Gateway,
        progress: &(dyn Fn(u64) + Sync),
        findings: &mut Vec<Finding>,
    ) -> Result<PointReport, SyncError> {
        let ready = tokio::select! {
            ready = gateway.prepare_vm(&self.vm.name) => ready?,
            () = self.interrupt.wait() => return Err(SyncError::Interrupted),
        };
        let on = format!("VM {}", self.vm.name);
        findings.extend(ready.into_iter().map(|words| finding_in_words(&on, words)));
        let freeze = self.freeze().await;
        let thaw = Thaw {
            vm: self.vm,
            task: OnceCell::new(),
        };
        let mut judged = None;
        let result = match self.interrupt.came() {
            true => Err(SyncError::Interrupted),
            false => {
                self.capture(gateway, &freeze, &thaw, progress, &mut judged)
                    .await
            }
        };
        thaw.start();
        // Also where nothing came to be read: that the hook failed may be why.
        let judged = judged.unwrap_or_else(|| consistency::judge(&freeze, &[]));
        if result.is_ok() || matches!(freeze, Freeze::Failed(_)) {
            let name = &self.vm.name;
            findings.extend(consistency::finding(name, self.asked, &freeze, &judged));
        }
        findings.extend(thaw.end().await);
        result
    }

    async fn freeze(&self) -> Freeze {
        let Some(hook) = &self.vm.before else {
            return Freeze::NotAsked;
        };
        let stop = self.interrupt.wait();
        match run_hook(hook, HookKind::Before, &self.vm.name, HOOK_TIMEOUT, stop).await {
            Ok(()) => Freeze::Done,
            Err(why) => Freeze::Failed(why),
        }
    }

    /// The guest goes on as soon as its disks are read: what is left to send does not keep it.
    async fn capture(
        &self,
        gateway: &mut Gateway,
        freeze: &Freeze,
        thaw: &Thaw<'_>,
        progress: &(dyn Fn(u64) + Sync),
        judged: &mut Option<Judged>,
    ) -> Result<PointReport, SyncError> {
        // Looked at before we open the disks ourselves.
        let before = tokio::task::block_in_place(|| Observed::now(self.vm));
        let capture = VmCapture {
            name: self.vm.name.clone(),
            id: CaptureId(random()?),
            hardware: None,
            priority: self.vm.priority.unwrap_or(u32::MAX),
            captured_at: Timestamp::now(),
            software: concat!("sparesite-gateway ", env!("CARGO_PKG_VERSION")).into(),
            disks: tokio::task::block_in_place(|| disk_list::open_all(self.vm, self.interrupt))?,
        };
        let after_reading = async || {
            let had = self.judge(freeze, &before);
            thaw.start();
            judged.insert(had).consistency
        };
        let outcome = tokio::select! {
            outcome = gateway.sync_vm(capture, progress, after_reading) => outcome,
            () = self.interrupt.wait() => return Err(SyncError::Interrupted),
        };
        match outcome {
            // Also when the reading noticed it first.
            Err(_) if self.interrupt.came() => Err(SyncError::Interrupted),
            outcome => Ok(outcome?),
        }
    }

    /// That nothing used the disks was true when we looked. It must still be after the reading, or the point is a
    /// smear.
    fn judge(&self, freeze: &Freeze, before: &Observed) -> Judged {
        let judged = consistency::judge(freeze, &before.uses());
        if judged.consistency != Consistency::Crash {
            return judged;
        }
        let after = tokio::task::block_in_place(|| Observed::now(self.vm));
        match before.disturbed(&after) {
            Some(why) => Judged {
                consistency: Consistency::None,
                why,
            },
            None => judged,
        }
    }
}
