//! `run`: the daemon. Locks the state, opens the vault, and gives the loop its work.

mod sync_work;

use std::{path::Path, sync::Arc};

use console::{Exit, Failure, OrFailure};
use vault_store::objects::{OpenOptions, Throttle};

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

pub async fn run(config: &Path) -> anyhow::Result<Exit> {
    let config = Arc::new(load_config(config)?);
    let notifier = Notifier::from_environment();
    let interrupt = Interrupt::listen("the next run goes on")?;
    let state = config.state.display();
    let lock = RunLock::take(&config.state)
        .or_failure(|| Failure::failed(format!("the state folder {state} cannot be locked")))?;
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
    let gateway = open_gateway(&config, access.objects)?;
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
