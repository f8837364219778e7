//! What most commands begin with: the configuration, the gateway key, the vault behind its meter.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use console::{Failure, OrFailure, Progress};
use vault_format::{gateway_key::GatewayKey, names};
use vault_store::{
    gateway::{Gateway, GatewayOptions},
    objects::{Meter, ObjectError, Objects, OpenOptions, open_vault_url},
};
use zeroize::Zeroizing;

use crate::config::{Config, Vm};

/// A key file has about two KiB.
const MOST_KEY_BYTES: u64 = 1 << 20;

pub fn load_config(file: &Path) -> Result<Config, Failure> {
    Config::load(file).map_err(|error| Failure::usage(error.to_string()))
}

/// A configuration that may have no VM yet.
pub fn load_for_discovery(file: &Path) -> Result<Config, Failure> {
    Config::load_for_discovery(file).map_err(|error| Failure::usage(error.to_string()))
}

/// Where systemd keeps the file that it loaded for us under this name (`LoadCredential=`), if it did.
fn credential(path: &Path, folder: Option<PathBuf>) -> PathBuf {
    let loaded = folder
        .zip(path.file_name())
        .map(|(folder, name)| folder.join(name));
    let loaded = loaded.filter(|loaded| loaded.is_file());
    loaded.unwrap_or_else(|| path.to_owned())
}

pub fn read_key(path: &Path) -> Result<GatewayKey, Failure> {
    let path = &credential(
        path,
        std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
    );
    let shown = path.display();
    let unreadable = || Failure::failed(format!("cannot read the gateway key {shown}"));
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 << 10));
    File::open(path)
        .and_then(|file| file.take(MOST_KEY_BYTES).read_to_end(&mut bytes))
        .or_failure(|| {
            unreadable()
                .remedy("run as the user that owns it, or make it with `sparesite-gateway init`")
        })?;
    GatewayKey::parse(&bytes).or_failure(|| {
        unreadable().remedy(
            "name the file that `init` wrote as `key` in [vault], or have a new key issued with \
             `sparesite-restore gateway-key issue`",
        )
    })
}

/// An opened vault; the meter counts every request made through `objects`.
#[derive(Debug)]
pub struct VaultAccess {
    pub objects: Arc<dyn Objects>,
    pub meter: Meter,
}

impl VaultAccess {
    pub async fn open(url: &str, options: OpenOptions) -> Result<Self, Failure> {
        let meter = options.meter.clone();
        let objects = open_vault_url(url, options).await.map_err(|error| {
            let failure = match error {
                ObjectError::BadUrl { .. } => Failure::usage,
                _ => Failure::failed,
            };
            failure(error.to_string())
        })?;
        Ok(VaultAccess { objects, meter })
    }
}

/// A directory vault that is not there is one that is not mounted: nothing may be written into the empty mount point.
/// Looked for without a request, so a cycle's count stays what it is.
fn check_mounted(url: &str) -> Result<(), Failure> {
    let Some(folder) = url.strip_prefix("file://") else {
        return Ok(());
    };
    let folder = Path::new(folder);
    let has = |name: String| folder.join(name).exists();
    match has(names::vault(1)) || has(names::log(1)) {
        true => Ok(()),
        false => Err(Failure::failed(format!("there is no vault at {url}"))
            .remedy("mount it if it is not mounted, or check the vault URL; nothing was captured")),
    }
}

/// The gateway over `objects`, its state locked.
pub fn open_gateway(config: &Config, objects: Arc<dyn Objects>) -> anyhow::Result<Gateway> {
    let key = read_key(&config.vault.key)?;
    check_mounted(&config.vault.url)?;
    Ok(Gateway::open(
        objects,
        key,
        &config.state,
        GatewayOptions {
            outbox_bytes: config.outbox.max.0,
            ..GatewayOptions::default()
        },
    )?)
}

/// Progress in bytes that came from the vault: what calls it counts objects.
pub fn received<'p>(meter: &'p Meter, progress: &'p Progress) -> impl Fn(u64) + Sync + 'p {
    let told = AtomicU64::new(meter.snapshot().bytes_received);
    move |_objects| {
        let received = meter.snapshot().bytes_received;
        let before = told.fetch_max(received, Ordering::Relaxed);
        progress.add(received.saturating_sub(before));
    }
}

/// The VMs called `names`, all of them if there are none, in the order in which they are synced.
pub fn choose<'c>(config: &'c Config, names: &[String]) -> Result<Vec<&'c Vm>, Failure> {
    let vms = config.vms_by_priority();
    let unknown: Vec<_> = names
        .iter()
        .filter(|name| !vms.iter().any(|vm| vm.name == **name))
        .map(|name| {
            let known: Vec<_> = vms.iter().map(|vm| vm.name.as_str()).collect();
            format!(
                "no VM is called {name:?} in the configuration; there are {}",
                known.join(", ")
            )
        })
        .collect();
    if !unknown.is_empty() {
        return Err(Failure::usage(unknown.join("\n")));
    }
    Ok(vms
        .into_iter()
        .filter(|vm| names.is_empty() || names.contains(&vm.name))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_credential_stands_over_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, loaded) = (
            Path::new("/etc/x/gateway.key"),
            folder.path().join("gateway.key"),
        );
        let found = || credential(path, Some(folder.path().to_owned()));
        assert_eq!(found(), path);
        std::fs::write(&loaded, "key").expect("written");
        assert_eq!(found(), loaded);
        assert_eq!(credential(path, None), path);
    }
}
