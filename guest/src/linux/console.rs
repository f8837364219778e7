//! Whether the guest is seen and entered through its serial port.

use serde::Serialize;

use super::{boot::BootEntry, tree::Tree};

/// A PC's first serial port, and that of ARM's machines.
const PORTS: [&str; 2] = ["ttyS0", "ttyAMA0"];

#[derive(Clone, Debug, Default, Serialize)]
pub struct ConsoleFacts {
    /// The kernel's consoles as its command line names them.
    pub kernel: Vec<String>,
    /// One of them is the serial port.
    pub serial: bool,
    /// Who asks for a login there: a unit, a line of inittab.
    pub login: Option<String>,
    /// The login is switched off by hand.
    pub masked: bool,
}

pub fn inspect(tree: &Tree<'_>, entry: Option<&BootEntry>) -> ConsoleFacts {
    let kernel = entry
        .map(|entry| entry.values("console"))
        .unwrap_or_default();
    let mut port = kernel
        .iter()
        .map(|console| console.split(',').next().unwrap_or_default());
    let port = port.rfind(|port| PORTS.contains(port));
    let mut facts = ConsoleFacts {
        serial: port.is_some(),
        kernel: kernel.into_iter().map(str::to_owned).collect(),
        ..ConsoleFacts::default()
    };
    let port = port.unwrap_or(PORTS[0]);
    let unit = format!("serial-getty@{port}.service");
    let masks = [
        format!("/etc/systemd/system/{unit}"),
        "/etc/systemd/system/serial-getty@.service".into(),
    ];
    facts.masked = masks
        .iter()
        .any(|path| tree.link(path).as_deref() == Some("/dev/null"));
    let enabled = tree
        .link(&format!("/etc/systemd/system/getty.target.wants/{unit}"))
        .is_some();
    let template = tree.exists("/lib/systemd/system/serial-getty@.service");
    // systemd-getty-generator(8) starts one on each console of the kernel.
    if !facts.masked && template && (enabled || facts.serial) {
        facts.login = Some(unit);
    } else if let Some(line) = inittab(tree, port) {
        facts.login = Some(line);
    }
    facts
}

/// `T0:23:respawn:/sbin/getty -L ttyS0 115200 vt100`
fn inittab(tree: &Tree<'_>, port: &str) -> Option<String> {
    let upstart = format!("/etc/init/{port}.conf");
    if tree.exists(&upstart) {
        return Some(upstart);
    }
    let text = tree.text("/etc/inittab")?;
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    let line = lines.find(|line| line.contains("respawn") && line.contains(port))?;
    Some(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        linux::{boot::Loader, tree::Unread},
        paper::TreeOnPaper,
    };

    fn entry(command_line: &str) -> BootEntry {
        BootEntry {
            loader: Loader::Grub,
            config: String::new(),
            title: None,
            volume: String::new(),
            kernel: None,
            initrds: Vec::new(),
            command_line: command_line.into(),
            root: None,
            chain: None,
        }
    }

    #[test]
    fn logins() {
        let unread = Unread::default();
        let systemd = TreeOnPaper::default().file("/lib/systemd/system/serial-getty@.service", "x");
        let on = |files: &TreeOnPaper, line: &str| {
            inspect(&Tree::of_one("sda", files, &unread), Some(&entry(line)))
        };
        let facts = on(&systemd, "ro console=tty0 console=ttyS0,115200");
        assert!(facts.serial && facts.login.is_some() && !facts.masked);
        let facts = on(&systemd, "ro quiet");
        assert!(!facts.serial && facts.login.is_none());
        let masked = systemd.link(
            "/etc/systemd/system/serial-getty@ttyS0.service",
            "/dev/null",
        );
        let facts = on(&masked, "console=ttyS0");
        assert!(facts.masked && facts.login.is_none());
        let inittab = TreeOnPaper::default().file(
            "/etc/inittab",
            "#x\nT0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\n",
        );
        assert!(on(&inittab, "").login.is_some());
    }
}
