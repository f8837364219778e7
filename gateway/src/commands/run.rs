//! `run`: the daemon. Locks the state, opens the vault, and gives the loop its work.

mod sync_work;

use std::{path::Path, sync::Arc, time::Duration};

use console::{Exit, Failure, OrFailure};
use vault_store::{
    StoreError,
    gateway::Gateway,
    objects::{Objects, OpenOptions, Throttle},
};

use crate::{
    capture::{Asking, Capturer},
    config::Config,
    interrupt::Interrupt,
    run::{Daemon, Notifier, RunLock, SystemClock},
    vault_access::{VaultAccess, load_config, open_gateway},
};
use sync_work::SyncWork;

pub const EXAMPLES: &str = "\
Keeps every VM at its RPO target until it is told to stop (SIGTERM or Ctrl-C), which takes ten
seconds at most. `status` and `jobs` tell meanwhile what it does.

Examples:
  sparesite-gateway run
  systemctl enable --now sparesite-gateway";

const TRY_AGAIN: Duration = Duration::from_millis(250);
const TRIES: usize = 12;

pub async fn run(config: &Path) -> anyhow::Result<Exit> {
    let config = Arc::new(load_config(config)?);
    let notifier = Notifier::from_environment();
    let interrupt = Interrupt::listen("the next run goes on")?;
    let state = config.state.display();
    let take = || {
        RunLock::take(&config.state)
            .or_failure(|| Failure::failed(format!("the state folder {state} cannot be locked")))
    };
    let mut lock = take()?;
    // A `status` that looks into the state has it for a moment.
    for _ in 0..TRIES {
        if lock.is_some() {
            break;
        }
        tokio::time::sleep(TRY_AGAIN).await;
        lock = take()?;
    }
    let Some(_lock) = lock else {
        return Err(
            Failure::failed(format!("another `run` is at work on {state}"))
                .remedy("look at it with `sparesite-gateway status`, or stop it first")
                .into(),
        );
    };
    let throttle = Throttle::default();
    let options = OpenOptions {
        throttle: throttle.clone(),
        ..OpenOptions::default()
    };
    // To be told to stop meanwhile is a stop in good order.
    let access = tokio::select! {
        access = VaultAccess::open(&config.vault.url, options) => access?,
        () = interrupt.wait() => return Ok(Exit::Done),
    };
    notifier.status(
        "opening the state; after a power loss it is repaired first, which may take minutes",
    );
    let Some(gateway) = open_state(&config, &access.objects, &interrupt).await? else {
        return Ok(Exit::Done);
    };
    let asked = Asking {
        is_patient: true,
        ..Asking::default()
    };
    let pace = throttle.clone();
    let capturer = Capturer::new(config.clone(), &gateway, interrupt.clone(), pace, asked)?;
    let work = SyncWork::new(config.clone(), gateway, capturer, access, interrupt.clone());
    let clock = Arc::new(SystemClock);
    let daemon = Daemon::new(config, Arc::new(work), clock, throttle, notifier, interrupt)?;
    daemon.run().await?;
    Ok(Exit::Done)
}

/// `None`: told to stop before it was open.
async fn open_state(
    config: &Arc<Config>,
    objects: &Arc<dyn Objects>,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<Gateway>> {
    let mut tries = TRIES;
    loop {
        let (config, objects) = (config.clone(), objects.clone());
        let open = move || open_gateway(&config, objects);
        let Some(opened) = beside(interrupt, open).await? else {
            return Ok(None);
        };
        let is_in_use =
            |error: &anyhow::Error| matches!(error.downcast_ref(), Some(StoreError::StateInUse(_)));
        match opened {
            Err(error) if tries > 0 && is_in_use(&error) => tries -= 1,
            opened => return opened.map(Some),
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// What comes of work that keeps its thread; `None`: told to stop before. The work is left behind then, and ends with the
/// process.
async fn beside<T: Send + 'static>(
    interrupt: &Interrupt,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        done = tokio::task::spawn_blocking(work) => Ok(Some(done?)),
        () = interrupt.wait() => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_stop_does_not_wait_for_a_state_that_is_being_repaired() {
        let (stop, came) = tokio::sync::watch::channel(false);
        let interrupt = Interrupt::of(came);
        let opened = beside(&interrupt, || 7).await.expect("no panic");
        assert_eq!(opened, Some(7));
        let (repaired, repair) = mpsc::channel::<()>();
        let open = beside(&interrupt, move || repair.recv());
        let stopped = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stop.send_replace(true);
        };
        let both = async { tokio::join!(open, stopped).0 };
        let opened = tokio::time::timeout(Duration::from_secs(10), both).await;
        drop(repaired);
        let opened = opened.expect("in time").expect("no panic");
        assert!(opened.is_none());
    }
}
