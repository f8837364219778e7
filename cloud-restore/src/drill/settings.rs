//! `drill.toml`: what is asked of each VM beyond coming up.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use console::units::{Bytes, Duration as Written};
use console::{Failure, OrFailure};
use serde::Deserialize;

use crate::command::boot::{BusArg, FirmwareArg};

/// All settings; VMs that are not named are drilled too, for a sign of life.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(default)]
    pub prices: Option<PriceSettings>,
    #[serde(default, rename = "vm")]
    pub vms: Vec<VmSettings>,
}

/// What reading the vault costs from here.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSettings {
    pub usd_per_gb_egress: f64,
    pub usd_per_1000_get: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSettings {
    pub name: String,
    /// Left out of drills.
    #[serde(default)]
    pub skip: bool,
    pub memory: Option<Bytes>,
    pub cpus: Option<u64>,
    /// Where the recovery point does not tell: of a list of disks, it tells nothing.
    pub firmware: Option<FirmwareArg>,
    pub disk_bus: Option<BusArg>,
    /// What the policy of the site asks for; the vault does not tell.
    pub rpo: Option<Written>,
    pub rto: Option<Written>,
    /// How long to wait for a sign of life.
    pub wait: Option<Written>,
    /// A screen that stands still is a sign of life: for guests that show nothing else. Look at the picture.
    #[serde(default)]
    pub still_screen: bool,
    #[serde(default, rename = "probe")]
    pub probes: Vec<ProbeSettings>,
}

/// One thing to be asked of the guest: exactly one of `tcp`, `http`, `guest` and `command`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeSettings {
    /// A port that takes a connection and holds it.
    pub tcp: Option<u16>,
    /// `8080/health`: answered with a status of 200 to 399.
    pub http: Option<String>,
    /// What the answer must hold.
    pub expect: Option<String>,
    /// Run in the guest by its agent: a program and its arguments.
    pub guest: Option<Vec<String>>,
    /// Run on this machine by a shell, such as a SQL client. $HOST is the guest's address, $PORT_5432 its port 5432.
    pub command: Option<String>,
    /// Ports of the guest that `command` uses.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// How long to try, as services start after the login prompt.
    pub wait: Option<Written>,
}

/// A probe, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Tcp(u16),
    Http { port: u16, path: String },
    Guest(Vec<String>),
    Command(String),
}

impl ProbeSettings {
    pub fn asked(&self) -> Result<Asked, String> {
        let kinds = [
            self.tcp.is_some(),
            self.http.is_some(),
            self.guest.is_some(),
            self.command.is_some(),
        ];
        if kinds.iter().filter(|kind| **kind).count() != 1 {
            return Err("a probe has exactly one of tcp, http, guest and command".into());
        }
        if let Some(port) = self.tcp {
            return Ok(Asked::Tcp(port));
        }
        if let Some(http) = &self.http {
            let (port, path) = http.split_once('/').unwrap_or((http, ""));
            let port = port
                .parse()
                .map_err(|_| format!("http = {http:?}: write PORT/PATH, such as \"80/health\""))?;
            let plain = path.bytes().all(|b| b.is_ascii_graphic());
            return match plain {
                true => Ok(Asked::Http {
                    port,
                    path: format!("/{path}"),
                }),
                false => Err(format!("http = {http:?} holds what no path can")),
            };
        }
        if let Some(words) = &self.guest {
            return match words.is_empty() {
                true => Err("guest names no program".into()),
                false => Ok(Asked::Guest(words.clone())),
            };
        }
        Ok(Asked::Command(self.command.clone().unwrap_or_default()))
    }

    /// Ports of the guest that it needs.
    pub fn all_ports(&self) -> Vec<u16> {
        let own = match self.asked() {
            Ok(Asked::Tcp(port) | Asked::Http { port, .. }) => Some(port),
            _ => None,
        };
        self.ports
            .iter()
            .copied()
            .chain(own)
            .filter(|port| *port != 0)
            .collect()
    }

    pub fn name(&self) -> String {
        match self.asked() {
            Ok(Asked::Tcp(port)) => format!("TCP port {port}"),
            Ok(Asked::Http { port, path }) => format!("HTTP {port}{path}"),
            Ok(Asked::Guest(words)) => format!("in the guest: {}", words.join(" ")),
            Ok(Asked::Command(command)) => format!("from here: {command}"),
            Err(why) => why,
        }
    }
}

impl Settings {
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .or_failure(|| Failure::usage(format!("cannot read {}", path.display())))?;
        let settings: Settings = toml::from_str(&text)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        let mut seen = BTreeMap::new();
        for vm in &settings.vms {
            if seen.insert(&vm.name, ()).is_some() {
                let twice = format!("{}: VM {:?} is there twice", path.display(), vm.name);
                return Err(Failure::usage(twice));
            }
            for probe in &vm.probes {
                probe.asked().map_err(|why| {
                    Failure::usage(format!("{}: VM {:?}: {why}", path.display(), vm.name))
                })?;
            }
        }
        Ok(settings)
    }

    pub fn of(&self, vm: &str) -> VmSettings {
        let named = self.vms.iter().find(|settings| settings.name == vm);
        named.cloned().unwrap_or_else(|| VmSettings {
            name: vm.to_owned(),
            ..VmSettings::default()
        })
    }
}

/// As it is written, else `default`.
pub fn wait(written: Option<Written>, default: Duration) -> Duration {
    written.map_or(default, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_understood_or_refused_by_name() {
        let asked = |text: &str| toml::from_str::<ProbeSettings>(text).unwrap().asked();
        assert_eq!(asked("tcp = 22"), Ok(Asked::Tcp(22)));
        let health = Asked::Http {
            port: 8080,
            path: "/health?x=1".into(),
        };
        assert_eq!(asked("http = \"8080/health?x=1\""), Ok(health));
        assert_eq!(
            asked("http = \"80\""),
            Ok(Asked::Http {
                port: 80,
                path: "/".into()
            })
        );
        let guest = "guest = [\"systemctl\", \"is-active\", \"nginx\"]";
        assert!(matches!(asked(guest), Ok(Asked::Guest(words)) if words.len() == 3));
        for wrong in [
            "",
            "tcp = 1\nhttp = \"2\"",
            "http = \"x/y\"",
            "http = \"80/a b\"",
            "guest = []",
        ] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
        let sql = "command = \"psql -p $PORT_5432\"\nports = [5432]";
        let sql: ProbeSettings = toml::from_str(sql).unwrap();
        assert_eq!(sql.all_ports(), [5432]);
    }

    #[test]
    fn a_file_is_read_and_mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drill.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Settings::read(&path)
        };
        let settings = read(
            "[[vm]]\nname = \"db\"\nrto = \"1h\"\nmemory = \"2 GiB\"\n[[vm.probe]]\ntcp = 5432\n",
        )
        .unwrap();
        assert_eq!(settings.of("db").probes.len(), 1);
        assert_eq!(settings.of("other").probes.len(), 0);
        for wrong in [
            "[[vm]]\nname = \"a\"\n[[vm]]\nname = \"a\"\n",
            "[[vm]]\nnmae = \"a\"\n",
            "[[vm]]\nname=\"a\"\n[[vm.probe]]\n",
        ] {
            assert_eq!(
                read(wrong).unwrap_err().exit(),
                console::Exit::Usage,
                "{wrong}"
            );
        }
    }
}
