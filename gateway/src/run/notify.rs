//! Telling systemd: ready, what it does, alive, stopping. Nothing, where nobody listens.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// sd_notify(3).
#[derive(Debug, Default)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As systemd set it up for this process.
    pub fn from_environment() -> Self {
        let socket = env::var("NOTIFY_SOCKET").ok();
        let ours =
            env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let usec = env::var("WATCHDOG_USEC").ok().filter(|_| ours);
        Notifier::new(socket.as_deref(), usec.as_deref())
    }

    fn new(socket: Option<&str>, watchdog_usec: Option<&str>) -> Self {
        let to = socket.and_then(|socket| {
            let address = match socket.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(socket),
            };
            Some((UnixDatagram::unbound().ok()?, address.ok()?))
        });
        let usec = watchdog_usec
            .and_then(|usec| usec.parse().ok())
            .filter(|usec| *usec > 0);
        Notifier {
            to,
            watchdog: usec.map(Duration::from_micros),
        }
    }

    /// How often to say that we live: thrice before it is too late.
    pub fn beat(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 3)
    }

    pub fn ready(&self) {
        self.send("READY=1");
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    pub fn status(&self, words: &str) {
        self.send(&format!("STATUS={}", words.replace('\n', " ")));
    }

    /// That nobody hears it must not stop a capture.
    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::debug!("systemd cannot be told {message}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(server: &UnixDatagram) -> String {
        let mut bytes = [0; 200];
        let timeout = Some(Duration::from_secs(10));
        server.set_read_timeout(timeout).expect("set");
        let length = server.recv(&mut bytes).expect("heard");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    fn speak(notifier: &Notifier, server: &UnixDatagram) {
        notifier.ready();
        notifier.status("3 VMs\nall well");
        notifier.alive();
        notifier.stopping();
        for expected in [
            "READY=1",
            "STATUS=3 VMs all well",
            "WATCHDOG=1",
            "STOPPING=1",
        ] {
            assert_eq!(heard(server), expected);
        }
    }

    #[test]
    fn a_listener_hears_all_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let server = UnixDatagram::bind(&path).expect("bound");
        let notifier = Notifier::new(path.to_str(), Some("30000000"));
        assert_eq!(notifier.beat(), Some(Duration::from_secs(10)));
        speak(&notifier, &server);

        let name = format!("sparesite-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let server = UnixDatagram::bind_addr(&address).expect("bound");
        speak(
            &Notifier::new(Some(&format!("@{name}")), Some("3")),
            &server,
        );
    }

    #[test]
    fn without_a_listener_nothing_happens() {
        let notifier = Notifier::new(None, Some("rubbish"));
        assert_eq!(notifier.beat(), None);
        notifier.ready();
        Notifier::new(Some("/nonexistent/notify"), None).ready();
    }
}
