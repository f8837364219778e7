//! A file system with hardly any room, seen by one program only: a tmpfs in a mount namespace of
//! its own, which goes with the program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// $1: folder, $2: KiB, the rest: the program.
const MOUNT: &str =
    r#"folder=$1 size=$2; shift 2; mount -t tmpfs -o "size=${size}k" none "$folder" && exec "$@""#;

/// Runs programs that find a small empty file system at `folder`.
#[derive(Debug)]
pub struct SmallDisk {
    unshare: &'static str,
    folder: PathBuf,
    kib: u64,
}

/// `None`, and said on stderr, where the machine permits no namespaces.
pub fn small_disk(folder: &Path, kib: u64) -> Option<SmallDisk> {
    let permitted = ["-m", "-rm"].into_iter().find(|how| {
        let script = ["sh", "-c", "mount -t tmpfs -o size=64k none \"$1\"", "sh"];
        let mut command = Command::new("unshare");
        command.arg(how).args(script).arg(folder);
        command.stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    });
    if permitted.is_none() {
        testkit::skip("namespace");
    }
    Some(SmallDisk {
        unshare: permitted?,
        folder: folder.to_owned(),
        kib,
    })
}

impl SmallDisk {
    /// The same command on the small disk.
    pub fn wrap(&self, inner: &Command) -> Command {
        let mut command = Command::new("unshare");
        command.args([self.unshare, "sh", "-c", MOUNT, "sh"]);
        command.arg(&self.folder).arg(self.kib.to_string());
        command.arg(inner.get_program()).args(inner.get_args());
        command.env_clear();
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command
    }
}
