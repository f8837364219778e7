//! What is asked of the vault before a capture, and done without where it is out of reach.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use console::Finding;
use tokio::sync::Mutex;
use vault_store::{StoreError, gateway::Gateway, objects::Retry};

use super::{CaptureError, Capturer, Doing};
use crate::{commands::finding_in_words, config::Vm};

/// A capture that is due does not wait longer for the vault to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// While the last one did not get an answer.
const LITTLE_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries of a pass.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Capturer {
    fn patience(&self) -> Duration {
        match self.is_out_of_reach.load(Relaxed) {
            true => LITTLE_PATIENCE,
            false => PATIENCE,
        }
    }

    /// Reads the log's news and settles what earlier cycles left. Where the vault does not answer, a VM that is known is
    /// captured without: its point waits.
    pub(super) async fn ask_vault(
        &self,
        gateway: &mut Gateway,
        vm: &Vm,
    ) -> Result<Vec<Finding>, CaptureError> {
        // A rebuild takes its time, and without it nothing is captured.
        let is_patient = self.is_patient && !gateway.is_in_doubt();
        let asked = async {
            let mut words = Vec::new();
            if self.is_patient {
                words.extend(gateway.begin_cycle(&|_| {}).await?.findings);
            }
            words.extend(gateway.prepare_vm(&vm.name).await?);
            Ok::<_, StoreError>(words)
        };
        let asked = async {
            match is_patient {
                true => tokio::time::timeout(self.patience(), asked).await.ok(),
                false => Some(asked.await),
            }
        };
        let asked = tokio::select! {
            asked = asked => asked,
            () = self.interrupt.wait() => return Err(CaptureError::Interrupted),
        };
        let why = match asked {
            Some(Ok(words)) => {
                self.is_out_of_reach.store(false, Relaxed);
                let on = format!("VM {}", vm.name);
                return Ok(words
                    .into_iter()
                    .map(|words| finding_in_words(&on, words))
                    .collect());
            }
            Some(Err(error)) if !is_out_of_reach(&error) || !self.is_patient => {
                return Err(error.into());
            }
            Some(Err(error)) => error,
            None => StoreError::Other("the vault did not answer in time".into()),
        };
        self.is_out_of_reach.store(true, Relaxed);
        match gateway.can_capture_unasked(&vm.name)? {
            true => {
                tracing::warn!("VM {} is captured without asking the vault: {why}", vm.name);
                Ok(Vec::new())
            }
            false => Err(CaptureError::OutOfReach(why.to_string())),
        }
    }

    /// Reads the log's news only: a fence may be gone. Where the vault does not answer, what is known counts.
    pub(super) async fn read_news(&self, gateway: &Mutex<Gateway>) {
        let news = async {
            let mut gateway = self.turn(gateway).await.ok()?;
            // A rebuild takes its time.
            let is_in_doubt = gateway.is_in_doubt();
            let read = gateway.begin_cycle(&|_| {});
            match is_in_doubt {
                true => Some(read.await),
                false => tokio::time::timeout(self.patience(), read).await.ok(),
            }
        };
        let read = tokio::select! {
            read = news => read,
            () = self.interrupt.wait() => return,
        };
        let out_of_reach = match &read {
            Some(Ok(_)) => false,
            Some(Err(error)) => is_out_of_reach(error),
            None => true,
        };
        self.is_out_of_reach.store(out_of_reach, Relaxed);
        if let Some(Err(error)) = read {
            tracing::warn!("the control log's news cannot be read: {error}");
        }
    }

    /// After a pass could not send. In the daemon it waits for the vault to come back, and goes on where it was; what is
    /// no matter of the way there is the error that it was.
    pub(super) async fn wait_for_vault(
        &self,
        vm: &str,
        work: &str,
        tries: &mut Tries,
        error: CaptureError,
    ) -> Result<(), CaptureError> {
        let out_of_reach = match &error {
            CaptureError::OutOfReach(_) => true,
            CaptureError::Store(error) => is_out_of_reach(error),
            _ => false,
        };
        if !self.is_patient || !out_of_reach {
            return Err(error);
        }
        let words = format!("{work}: waits for the vault: {error}");
        // Whatever it was: nothing is read meanwhile.
        let is_pass = true;
        self.say(vm, Some(Doing { words, is_pass }));
        tracing::warn!("VM {vm}: {work}: {error}; it goes on where it was");
        tokio::select! {
            () = tokio::time::sleep(tries.next()) => Ok(()),
            () = self.interrupt.wait() => Err(CaptureError::Interrupted),
        }
    }
}

/// Slices of a pass that failed since the vault was out of reach, one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// The pause before the next try: 1 s, doubled up to a minute.
    fn next(&mut self) -> Duration {
        let pause = Duration::from_secs(1 << self.0.min(6)).min(LONGEST_PAUSE);
        self.0 += 1;
        pause
    }
}

/// Whether it is the way to the vault that failed, and not the vault that refused.
fn is_out_of_reach(error: &StoreError) -> bool {
    match error {
        StoreError::Object(error) => matches!(error.retry(), Retry::Briefly | Retry::Patiently),
        _ => false,
    }
}
