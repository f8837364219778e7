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
use vault_store::read::Vault;

use crate::failure::attempting;
use crate::kit_file::{read_kit, unlock};

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
    let what = match found {
        Some(_) => format!(
            "{store} is not the vault of the recovery kit {}",
            kit.display()
        ),
        None => format!("there is no vault at {store}"),
    };
    Err(Failure::failed(what)
        .because(vault.findings.join("; "))
        .remedy(
            "check --vault (without it, the kit's own URL is used), or take the kit of this vault",
        ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use console::Exit;

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
}
