//! Ctrl-C and SIGTERM: noted once, asked for by whoever works for long.

use std::io;

use console::Failure;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Clones ask about the same signal.
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// From now on the signals end nothing by themselves. Needs the runtime.
    pub fn listen() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (came, receiver) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            came.send_replace(true);
            // A dropped sender would wake those who wait for no reason.
            std::future::pending::<()>().await;
        });
        Ok(Interrupt(receiver))
    }

    pub fn came(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when the signal comes.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|came| *came).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What the program says when it ends for it.
    pub fn failure() -> Failure {
        Failure::failed("interrupted; the next sync goes on")
    }

    #[cfg(test)]
    pub fn of(receiver: watch::Receiver<bool>) -> Self {
        Interrupt(receiver)
    }
}
