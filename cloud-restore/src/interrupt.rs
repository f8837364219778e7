//! Ctrl-C, an orderly end from outside, and a terminal that went away.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for one, and names it. SIGHUP is none under `nohup`.
pub async fn came() -> &'static str {
    let hangup_counts = console::hangup_counts();
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            // Without a handler the signal ends the program, as ever.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => "Ctrl-C",
        () = wait(SignalKind::terminate()) => "SIGTERM",
        () = wait(SignalKind::hangup()), if hangup_counts => "SIGHUP",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_terminal_that_went_ends_it_as_ctrl_c_does() {
        let came = came();
        tokio::pin!(came);
        // Listens from the first poll on.
        assert!(futures::poll!(&mut came).is_pending());
        kill_process(getpid(), Signal::HUP).expect("sent");
        let came = tokio::time::timeout(Duration::from_secs(10), came).await;
        assert_eq!(came, Ok("SIGHUP"));
    }
}
