//! `run`: the daemon. Locks the state, opens the vault, and gives the loop its work.

mod sync_work;

use std::{path::Path, sync::Arc, time::Duration};

use console::{Exit, Failure, OrFailure};
use vault_store::{
    StoreError,
    objects::{OpenOptions, Throttle},
};

use crate::{
    capture::{Asking, Capturer},
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
    let open = VaultAccess::open(&config.vault.url, options);
    let access = interrupt.or(open).await??;
    let mut gateway = open_gateway(&config, access.objects.clone());
    for _ in 0..TRIES {
        let Err(error) = &gateway else { break };
        if !matches!(error.downcast_ref(), Some(StoreError::StateInUse(_))) {
            break;
        }
        tokio::time::sleep(TRY_AGAIN).await;
        gateway = open_gateway(&config, access.objects.clone());
    }
    let gateway = gateway?;
    let asked = Asking {
        is_patient: true,
        ..Asking::default()
    };
    let pace = throttle.clone();
    let capturer = Capturer::new(config.clone(), &gateway, interrupt.clone(), pace, asked)?;
    let meter = access.meter;
    let work = SyncWork::new(config.clone(), gateway, capturer, meter, interrupt.clone());
    let clock = Arc::new(SystemClock);
    let daemon = Daemon::new(config, Arc::new(work), clock, throttle, notifier, interrupt)?;
    daemon.run().await?;
    Ok(Exit::Done)
}
