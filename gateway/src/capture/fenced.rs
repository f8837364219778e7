//! VMs behind a fence: the owner's `on_fenced` is run once, what the disks hold is kept as one diverged point, and nothing
//! else of them is captured.

use tokio::sync::Mutex;
use vault_store::{
    StoreError,
    gateway::{Gateway, OnFenced, VmFence},
};

use super::{CaptureError, Captured, Capturer};
use crate::{config::Vm, fenced::Fenced, source::hook::run_on_fenced};

impl Capturer {
    /// Captures VMs at one instant. What fails before that fails all of them; but one that was failed over, each for itself.
    pub async fn capture(
        &self,
        gateway: &Mutex<Gateway>,
        vms: &[&Vm],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Vec<Captured> {
        let mut behind = self.behind_fences(gateway, vms).await;
        if !behind.is_empty() && self.is_patient {
            self.read_news(gateway).await;
            behind = self.behind_fences(gateway, vms).await;
        }
        let is_free = |behind: &[&str], vm: &&Vm| !behind.contains(&vm.name.as_str());
        let free: Vec<&Vm> = vms
            .iter()
            .copied()
            .filter(|vm| is_free(&behind, vm))
            .collect();
        let mut captured = match free.is_empty() {
            true => Vec::new(),
            false => self.capture_free(gateway, &free, progress).await,
        };
        // The log's news are read on the way: a fence that they bring failed its whole group.
        if captured.iter().any(is_of_fence) {
            behind = self.behind_fences(gateway, vms).await;
            captured.retain(|one| one.outcome.is_ok());
            let is_done = |vm: &&Vm| captured.iter().any(|one| one.vm == vm.name);
            let again: Vec<&Vm> = free
                .into_iter()
                .filter(|vm| is_free(&behind, vm) && !is_done(vm))
                .collect();
            if !again.is_empty() {
                captured.extend(self.capture_free(gateway, &again, progress).await);
            }
        }
        let behind = vms.iter().filter(|vm| !is_free(&behind, vm));
        for vm in behind {
            captured.push(self.capture_fenced(gateway, vm, progress).await);
        }
        captured
    }

    /// As far as is known here.
    async fn behind_fences<'c>(&self, gateway: &Mutex<Gateway>, vms: &[&'c Vm]) -> Vec<&'c str> {
        let gateway = gateway.lock().await;
        let names = vms.iter().map(|vm| vm.name.as_str());
        // A state that fails fails the capture too, which tells.
        names
            .filter(|vm| gateway.fence(vm).is_ok_and(|fence| fence.is_some()))
            .collect()
    }

    /// One of them whose fence is gone meanwhile is captured as ever.
    async fn capture_fenced(
        &self,
        gateway: &Mutex<Gateway>,
        vm: &Vm,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Captured {
        let mut captured = match self.settle(gateway, vm).await {
            Err(error) => Captured::of(vm, Err(error)),
            Ok(Some(fence)) if !fence.is_to_be_kept() => {
                let (vm_name, by) = (vm.name.clone(), by(&fence));
                let fenced = StoreError::Fenced { vm: vm_name, by };
                Captured::of(vm, Err(fenced.into()))
            }
            Ok(_) => {
                let mut only = self.capture_free(gateway, &[vm], progress).await;
                only.pop()
                    .unwrap_or_else(|| Captured::of(vm, Err(CaptureError::Interrupted)))
            }
        };
        let fence = gateway.lock().await.fence(&vm.name);
        captured.fence = fence.ok().flatten().map(Fenced::from);
        captured
    }

    /// Runs `on_fenced`, unless it did its work for this fence already. What comes of it is remembered once it ended: killed
    /// before, it is run again.
    async fn settle(
        &self,
        gateway: &Mutex<Gateway>,
        vm: &Vm,
    ) -> Result<Option<VmFence>, CaptureError> {
        let known = || async { Ok::<_, CaptureError>(gateway.lock().await.fence(&vm.name)?) };
        let Some(fence) = known().await? else {
            return Ok(None);
        };
        let on_fenced = match (&fence.on_fenced, &vm.on_fenced) {
            (Some(OnFenced::Done), _) | (Some(OnFenced::Nothing), None) => return Ok(Some(fence)),
            (_, None) => OnFenced::Nothing,
            (_, Some(program)) => {
                let by = by(&fence);
                tracing::error!(
                    "VM {}: it was failed over by {by}: running on_fenced",
                    vm.name
                );
                let of = (fence.run.as_deref().unwrap_or_default(), &*fence.time);
                let ran = run_on_fenced(program, &vm.name, of, self.interrupt.wait()).await;
                if self.interrupt.came() && ran.is_err() {
                    return Err(CaptureError::Interrupted);
                }
                match ran {
                    Ok(said) => {
                        tracing::info!("VM {}: on_fenced ran; it said: {}", vm.name, said.trim());
                        OnFenced::Done
                    }
                    Err(why) => OnFenced::Failed(why),
                }
            }
        };
        let noting = gateway.lock().await;
        noting.note_on_fenced(&vm.name, fence.number, on_fenced)?;
        drop(noting);
        known().await
    }
}

fn by(fence: &VmFence) -> String {
    let run = fence.run.as_deref().unwrap_or("that is not named");
    format!("run {run} at {}", fence.time)
}

fn is_of_fence(captured: &Captured) -> bool {
    matches!(
        captured.outcome,
        Err(CaptureError::Store(StoreError::Fenced { .. }))
    )
}
