//! Ctrl-C, SIGTERM and SIGHUP: noted once, asked for by whoever works for long.

use std::io;

use console::Failure;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Clones ask about the same signal.
#[derive(Debug, Clone)]
pub struct Interrupt {
    came: watch::Receiver<bool>,
    /// What the failure says about going on.
    then: &'static str,
}

impl Interrupt {
    /// From now on the signals end nothing by themselves. Needs the runtime.
    pub fn listen(then: &'static str) -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // A terminal that is closed asks for the same, unless `nohup` said that it should not count.
        let mut hangup = match console::hangup_counts() {
            true => Some(signal(SignalKind::hangup())?),
            false => None,
        };
        let (sender, came) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                Some(_) = async { hangup.as_mut()?.recv().await } => {}
            }
            sender.send_replace(true);
            // A dropped sender would wake those who wait for no reason.
            std::future::pending::<()>().await;
        });
        Ok(Interrupt { came, then })
    }

    pub fn came(&self) -> bool {
        *self.came.borrow()
    }

    /// Ends when the signal comes.
    pub async fn wait(&self) {
        let mut came = self.came.clone();
        if came.wait_for(|came| *came).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What comes of `work`, or the failure if the signal comes first.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            done = work => Ok(done),
            () = self.wait() => Err(self.failure()),
        }
    }

    /// What the program says when it ends for it.
    pub fn failure(&self) -> Failure {
        Failure::failed(format!("interrupted; {}", self.then))
    }

    #[cfg(test)]
    pub fn of(came: watch::Receiver<bool>) -> Self {
        Interrupt { came, then: "" }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_hangup_is_an_interrupt_and_does_not_end_us() {
        let interrupt = Interrupt::listen("").expect("listens");
        assert!(!interrupt.came());
        kill_process(getpid(), Signal::HUP).expect("sent");
        let came = tokio::time::timeout(Duration::from_secs(10), interrupt.wait()).await;
        assert!(came.is_ok());
    }
}
