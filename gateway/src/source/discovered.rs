//! VMs that hosts run, found for `discover`: domains of libvirt, VMs of Proxmox VE, and plain QEMUs by their command
//! lines.

use std::path::{Path, PathBuf};

use super::{
    host::{Host, HostError},
    libvirt, proxmox,
};

/// The command lines of all processes that look like QEMU, each after a byte that none has.
const PROCESSES: &str = r#"for p in /proc/[0-9]*; do
    case $(readlink "$p/exe" 2>/dev/null) in *qemu*|*kvm*) printf '\036'; cat "$p/cmdline" 2>/dev/null ;; esac
done
exit 0"#;
const HAS: &str = r#"[ -e /etc/pve/.vmlist ] && echo proxmox; command -v virsh >/dev/null && echo libvirt; exit 0"#;
const AGENT: &str = "org.qemu.guest_agent.0";
/// Whose QEMUs have a manager that is asked in their place.
const MANAGED: [&str; 3] = ["/var/run/qemu-server/", "/run/qemu-server/", "/libvirt/"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Qemu {
        qmp: PathBuf,
        agent: Option<PathBuf>,
    },
    Proxmox {
        vmid: u32,
        /// As [`proxmox::Cluster::id`].
        cluster: String,
    },
    Libvirt {
        domain: String,
    },
}

/// A VM that could be protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// What its hypervisor calls it.
    pub name: String,
    /// As the configuration calls it; none for this machine.
    pub host: Option<String>,
    pub place: Place,
}

/// What a host runs, and what could not be asked there.
pub async fn on(
    host: &Host,
    name: Option<&str>,
) -> Result<(Vec<Discovered>, Vec<String>), HostError> {
    let has = host.run("sh", &["-c", HAS]).await?;
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let vm = |vm: String, place| Discovered {
        name: vm,
        host: name.map(str::to_owned),
        place,
    };
    if has.lines().any(|line| line == "proxmox") {
        match proxmox::list(host, Path::new("/")).await {
            Ok(all) => found.extend(all.vms.into_iter().map(|listed| {
                let (vmid, cluster) = (listed.vmid, all.id.clone());
                let called = listed.name.unwrap_or_else(|| format!("vm{vmid}"));
                vm(called, Place::Proxmox { vmid, cluster })
            })),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if has.lines().any(|line| line == "libvirt") {
        match libvirt::list(host, &libvirt::uri(host)).await {
            Ok(all) => found.extend(
                all.into_iter()
                    .map(|domain| vm(domain.clone(), Place::Libvirt { domain })),
            ),
            Err(error) => problems.push(error.to_string()),
        }
    }
    let processes = host.run("sh", &["-c", PROCESSES]).await?;
    found.extend(
        processes
            .split('\u{1e}')
            .filter_map(qemu)
            .map(|(name, place)| vm(name, place)),
    );
    Ok((found, problems))
}

/// A QEMU by its command line: its name, and its sockets. None without a QMP socket of its own.
fn qemu(line: &str) -> Option<(String, Place)> {
    let words: Vec<&str> = line.split('\0').collect();
    let values = |option: &'static str| {
        let pairs = words.windows(2);
        pairs
            .filter(move |pair| {
                pair[0].trim_start_matches('-') == option && pair[0].starts_with('-')
            })
            .map(|pair| pair[1])
    };
    let part = |value: &str, name: &str| {
        let mut parts = value.split(',');
        parts.find_map(|part| {
            part.strip_prefix(name)?
                .strip_prefix('=')
                .map(str::to_owned)
        })
    };
    let socket = |id: &str| {
        let mut all = values("chardev").filter(|value| value.starts_with("socket,"));
        let of = all.find(|value| part(value, "id").as_deref() == Some(id))?;
        part(of, "path")
    };
    let direct = values("qmp").find_map(|value| value.strip_prefix("unix:"));
    let direct = direct.map(|value| value.split(',').next().unwrap_or_default().to_owned());
    let qmp = direct.or_else(|| {
        let mut monitors = values("mon").filter(|v| part(v, "mode").as_deref() == Some("control"));
        monitors.find_map(|value| {
            let first = value.split(',').next().filter(|first| !first.contains('='));
            socket(&part(value, "chardev").or(first.map(str::to_owned))?)
        })
    })?;
    if !qmp.starts_with('/') || MANAGED.iter().any(|place| qmp.contains(place)) {
        return None;
    }
    let mut channels =
        values("device").filter(|value| part(value, "name").as_deref() == Some(AGENT));
    let agent = channels.find_map(|value| socket(&part(value, "chardev")?));
    let agent = agent
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from);
    let name = values("name").next().map(|value| {
        part(value, "guest")
            .unwrap_or_else(|| value.split(',').next().unwrap_or_default().to_owned())
    });
    let qmp = PathBuf::from(qmp);
    let stem = qmp
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    Some((name.or(stem)?, Place::Qemu { qmp, agent }))
}

/// A `[[vm]]` block. `name` is one that the configuration allows.
pub fn block(name: &str, policy: &str, vm: &Discovered) -> String {
    let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let host = vm
        .host
        .as_deref()
        .map(|host| format!("host = {}, ", text(host)));
    let host = host.unwrap_or_default();
    let path = |path: &Path| text(&path.display().to_string());
    let source = match &vm.place {
        Place::Qemu { qmp, agent } => {
            let agent = agent
                .as_deref()
                .map(|agent| format!(", guest_agent = {}", path(agent)));
            format!(
                "qemu = {{ {host}qmp = {}{} }}",
                path(qmp),
                agent.unwrap_or_default()
            )
        }
        Place::Proxmox { vmid, .. } => format!("proxmox = {{ {host}vmid = {vmid} }}"),
        Place::Libvirt { domain } => format!("libvirt = {{ {host}domain = {} }}", text(domain)),
    };
    format!(
        "[[vm]]\nname = {}\npolicy = {}\nsource = {{ {source} }}\n",
        text(name),
        text(policy)
    )
}

/// A name that the configuration allows, and that none has yet; it is taken then.
pub fn name_of(vm: &str, taken: &mut Vec<String>) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let plain: String = vm.chars().map(allowed).take(56).collect();
    let plain = plain.trim_start_matches(['.', '-']);
    let plain = if plain.is_empty() { "vm" } else { plain };
    let mut name = plain.to_owned();
    let mut number = 2;
    while taken.iter().any(|taken| taken.eq_ignore_ascii_case(&name)) {
        name = format!("{plain}-{number}");
        number += 1;
    }
    taken.push(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Source};

    fn line(words: &str) -> String {
        words.split(' ').collect::<Vec<_>>().join("\0") + "\0"
    }

    #[test]
    fn a_qemu_is_told_from_its_command_line() {
        let plain = line(
            "qemu-system-x86_64 -name guest=db,debug-threads=on -qmp unix:/run/db.qmp,server=on,wait=off",
        );
        let qemu_of = |qmp: &str, agent: Option<&str>| Place::Qemu {
            qmp: qmp.into(),
            agent: agent.map(PathBuf::from),
        };
        assert_eq!(
            qemu(&plain),
            Some(("db".into(), qemu_of("/run/db.qmp", None)))
        );
        let long = line(
            "/usr/bin/kvm -chardev socket,id=m,path=/run/a/m.sock,server=on -mon chardev=m,mode=control \
             -chardev socket,path=/run/a/g.sock,id=g -device virtserialport,chardev=g,name=org.qemu.guest_agent.0",
        );
        let place = qemu_of("/run/a/m.sock", Some("/run/a/g.sock"));
        assert_eq!(qemu(&long), Some(("m".into(), place)));
        for other in [
            "qemu-system-x86_64 -name db",
            "qemu-img convert a b",
            "kvm -qmp unix:/var/run/qemu-server/101.qmp",
            "kvm -qmp unix:relative.sock",
            "kvm -mon mode=control",
            "",
        ] {
            assert_eq!(qemu(&line(other)), None, "{other}");
        }
    }

    #[test]
    fn blocks_are_what_the_configuration_takes() {
        let head = "state = \"/s\"\n[vault]\nurl = \"file:///v\"\nkey = \"/k\"\n[[host]]\nname = \"pve1\"\n\
                    ssh = \"root@pve1\"\n[[policy]]\nname = \"p\"\nrpo = \"1h\"\n";
        let vm = |name: &str, host: Option<&str>, place| Discovered {
            name: name.into(),
            host: host.map(str::to_owned),
            place,
        };
        let odd = "/run/a \"b\"\\c.qmp";
        let found = [
            vm(
                "db",
                None,
                Place::Qemu {
                    qmp: odd.into(),
                    agent: Some("/run/b.qga".into()),
                },
            ),
            vm(
                "Große VM",
                Some("pve1"),
                Place::Libvirt {
                    domain: "Große \"VM\"".into(),
                },
            ),
            vm(
                "DB",
                Some("pve1"),
                Place::Proxmox {
                    vmid: 101,
                    cluster: "pve1".into(),
                },
            ),
            vm("..", None, Place::Libvirt { domain: "x".into() }),
        ];
        let mut taken = Vec::new();
        let blocks = found
            .iter()
            .map(|vm| block(&name_of(&vm.name, &mut taken), "p", vm));
        let text = head.to_owned() + &blocks.collect::<String>();
        let read = Config::parse(&text, Path::new("t"), Path::new("/"));
        let read = read.unwrap_or_else(|error| panic!("{error}\n{text}"));
        let names: Vec<&str> = read.vms.iter().map(|vm| vm.name.as_str()).collect();
        assert_eq!(names, ["db", "Gro-e-VM", "DB-2", "vm"]);
        let Source::Qemu(qemu) = &read.vms[0].source else {
            panic!("{read:?}")
        };
        assert_eq!(qemu.qmp, Path::new(odd));
        let Source::Libvirt(libvirt) = &read.vms[1].source else {
            panic!("{read:?}")
        };
        assert_eq!(
            (libvirt.domain.as_str(), libvirt.host),
            ("Große \"VM\"", Some(0))
        );
    }
}
