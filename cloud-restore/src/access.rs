//! Opening the vault with the recovery kit: what nearly every command begins with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use console::{Failure, Finding, show::printable};
use vault_format::kit::Kit;
use vault_format::names;
use vault_store::StoreError;
use vault_store::objects::{Meter, ObjectError, Objects, OpenOptions, open_vault_url};
use vault_store::read::{Point, PointList, Vault};

use crate::failure::attempting;
use crate::kit_file::{read_kit, unlock};
use crate::vm_point::VmPoint;

/// With which kit, and which vault.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Recovery kit")]
pub struct AccessArgs {
    /// The recovery kit
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "SPARESITE_KIT",
        hide_env_values = true
    )]
    kit: Option<OsString>,

    /// The vault, if it is no longer where the kit says
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SPARESITE_VAULT",
        hide_env_values = true
    )]
    vault: Option<String>,

    /// A file with the kit's passphrase on one line; asked for without it
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "SPARESITE_PASSPHRASE_FILE",
        hide_env_values = true
    )]
    passphrase_file: Option<OsString>,
}

/// An opened vault, and what opened it.
pub struct OpenVault {
    pub vault: Vault,
    pub kit: Kit,
    pub kit_path: PathBuf,
    /// Where the vault was found.
    pub url: String,
    pub meter: Meter,
}

impl AccessArgs {
    pub async fn open(&self) -> Result<OpenVault, Failure> {
        let kit_path = path(&self.kit).ok_or_else(|| {
            Failure::usage("no recovery kit is given")
                .remedy("give --kit FILE, or set SPARESITE_KIT to its path")
        })?;
        let kit = read_kit(kit_path)?;
        let given = self.vault.as_deref().filter(|url| !url.is_empty());
        let url = given.unwrap_or(&kit.vault_url).to_owned();
        // Before the passphrase is asked for: a mistyped URL shows at once.
        let meter = Meter::new();
        let region = kit.region.as_deref().filter(|_| url == kit.vault_url);
        let objects = open_objects(&url, region, meter.clone()).await?;
        let keys = unlock(&kit, kit_path, path(&self.passphrase_file))?;
        let vault = Vault::open(Arc::clone(&objects), &kit, keys)
            .await
            .map_err(attempting(format!(
                "cannot open the vault {}",
                printable(&url)
            )))?;
        refuse_foreign(&vault, &*objects, kit_path).await?;
        Ok(OpenVault {
            vault,
            kit,
            kit_path: kit_path.to_owned(),
            url,
            meter,
        })
    }
}

impl OpenVault {
    /// The recovery point that was named on the command line.
    pub async fn find_point(&self, wanted: &VmPoint) -> Result<Point, Failure> {
        let found = self.vault.find_point(&wanted.vm, &wanted.selector).await;
        found.map_err(attempting(format!("cannot open recovery point {wanted}")))
    }

    /// Of all VMs.
    pub async fn points(&self) -> Result<PointList, Failure> {
        self.vault.points().await.map_err(self.cannot_list())
    }

    /// Why recovery points cannot be listed.
    pub fn cannot_list(&self) -> impl FnOnce(StoreError) -> Failure {
        let url = printable(&self.url);
        attempting(format!("cannot list the recovery points in {url}"))
    }

    /// What opening the vault found.
    pub fn findings(&self) -> Vec<Finding> {
        let note = |text: &String| {
            Finding::new(
                text,
                format!("vault {}", self.url),
                "",
                "run `sparesite-restore verify`",
            )
        };
        self.vault.findings.iter().map(note).collect()
    }
}

/// An empty variable is none.
fn path(given: &Option<OsString>) -> Option<&Path> {
    given
        .as_deref()
        .filter(|path| !path.is_empty())
        .map(Path::new)
}

async fn open_objects(
    url: &str,
    region: Option<&str>,
    meter: Meter,
) -> Result<Arc<dyn Objects>, Failure> {
    let region = region.map(|region| ("AWS_REGION".to_owned(), region.to_owned()));
    let options = OpenOptions {
        settings: BTreeMap::from_iter(region),
        meter,
        ..OpenOptions::default()
    };
    open_vault_url(url, options)
        .await
        .map_err(|error| match error {
            ObjectError::BadUrl { .. } => Failure::usage(error.to_string()),
            other => attempting(format!("cannot open the vault {}", printable(url)))(other.into()),
        })
}

/// A vault that lost its first object opens with the kit's copy of it, and so would any bucket:
/// the control log, signed by this kit's key, tells a damaged vault from another one or none.
async fn refuse_foreign(vault: &Vault, objects: &dyn Objects, kit: &Path) -> Result<(), Failure> {
    if vault.findings.is_empty() || !vault.log.writers.is_empty() {
        return Ok(());
    }
    let store = objects.describe();
    let found = objects.size(&names::vault(1)).await.map_err(|error| {
        attempting(format!("cannot open the vault {store}"))(StoreError::from(error))
    })?;
    let failure = match found {
        Some(_) => Failure::failed(format!(
            "{store} is not the vault of the recovery kit {}",
            kit.display()
        ))
        .because(vault.findings.join("; ")),
        None => Failure::failed(format!("there is no vault at {store}")),
    };
    Err(failure.remedy(
        "check --vault (without it, the kit's own URL is used), or take the kit of this vault",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use console::Exit;
    use vault_format::kit::{Argon2idCosts, NewKit};
    use vault_store::setup::{self, VaultRequest};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_missing_kit_is_wrong_usage() {
        for kit in [None, Some(OsString::new())] {
            let access = AccessArgs {
                kit,
                ..AccessArgs::default()
            };
            let failure = access.open().await.err().expect("no kit");
            assert_eq!(failure.exit(), Exit::Usage);
        }
    }

    /// A vault in `folder`, and its kit as `init` makes it.
    async fn make_vault(folder: &Path) -> Kit {
        std::fs::create_dir(folder).unwrap();
        let url = format!("file://{}", folder.display());
        let made = setup::prepare_vault(&VaultRequest {
            url: &url,
            region: None,
            chunk_bytes: 65536,
            label: "site1",
            passphrase: "six words",
            now: jiff::Timestamp::UNIX_EPOCH,
        })
        .unwrap();
        let objects = open_objects(&url, None, Meter::new()).await.unwrap();
        made.publish(&*objects, &[]).await.unwrap();
        made.kit
    }

    /// The same kit, opened at no cost.
    fn cheap(kit: &Kit) -> Kit {
        NewKit {
            vault_url: kit.vault_url.clone(),
            region: None,
            vault_id: kit.vault_id,
            created: kit.created.clone(),
            vault: kit.vault.clone().unwrap(),
            keys: &kit.open("six words").unwrap(),
            salt: [1; 16],
            costs: Argon2idCosts {
                memory_kib: 64,
                iterations: 1,
                parallelism: 1,
            },
        }
        .close("six words")
        .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_vault_opens_and_another_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let kit = cheap(&make_vault(&at("a")).await);
        make_vault(&at("b")).await;
        std::fs::create_dir(at("empty")).unwrap();
        std::fs::write(at("kit"), kit.to_json()).unwrap();
        std::fs::write(at("words"), "six words\n").unwrap();
        let access = |vault: Option<&str>| AccessArgs {
            kit: Some(at("kit").into()),
            vault: vault.map(|name| format!("file://{}", at(name).display())),
            passphrase_file: Some(at("words").into()),
        };
        let refused = async |vault| {
            let opened = access(vault).open().await;
            opened.err().expect("does not open").to_string()
        };

        assert_eq!(access(None).open().await.unwrap().findings(), []);
        let other = refused(Some("b")).await;
        assert!(other.contains("is not the vault of"), "{other}");
        let none = refused(Some("empty")).await;
        assert!(none.starts_with("there is no vault at"), "{none}");
        let nowhere = refused(Some("nowhere")).await;
        assert!(nowhere.starts_with("cannot open the vault"), "{nowhere}");

        std::fs::write(at("a").join(names::vault(1)), b"{}").unwrap();
        assert_eq!(access(None).open().await.unwrap().findings().len(), 1);
        std::fs::write(at("words"), "other words").unwrap();
        let wrong = refused(None).await;
        assert!(wrong.starts_with("wrong passphrase"), "{wrong}");
    }
}
