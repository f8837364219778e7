//! `init --join`: installs a key that was issued for this gateway, once it is proved to be of the
//! vault.

use std::path::Path;

use console::{Exit, Failure, OrFailure, PrivateFile};
use serde_json::json;
use vault_format::{gateway_key::GatewayKey, vault_config::VaultConfig};
use vault_store::setup::read_config;

use super::{InitArgs, new_file::check_new, place};
use crate::vault_access::{VaultAccess, read_key};

pub async fn run(args: &InitArgs, issued: &Path, json: bool) -> anyhow::Result<Exit> {
    let path = super::absolute(&args.key)?;
    check_new(&[&path])?;
    place::check_outside(&args.vault, &[&path])?;
    let key = read_key(issued)?;
    let access = VaultAccess::open(&args.vault, place::options(args.region.as_deref())).await?;
    let (config, _) = read_config(&*access.objects, key.trust.vault, None)
        .await
        .or_failure(|| Failure::failed(format!("cannot join the vault {}", args.vault)))?;
    check_of_vault(&key, &config)?;
    let text = key.to_json();
    PrivateFile::prepare(&path)?.publish(text.as_bytes())?;
    let vault_id = config.id.to_string();
    if json {
        console::print_json(&json!({
            "vault": args.vault, "vault_id": vault_id, "writer": key.writer.id.to_string(),
            "key": path, "label": key.label, "findings": [],
        }))?;
    } else {
        let (url, path, issued) = (&args.vault, path.display(), issued.display());
        console::print(&format!(
            "joined the vault {url} as {}\n  id           {vault_id}\n  gateway key  {path}\n\nNext:\n  \
             1. Delete {issued}: this gateway is the only one that may use it.\n  \
             2. Write /etc/sparesite/gateway.toml, with\n\n         [vault]\n         \
             url = \"{url}\"\n         key = \"{path}\"\n\n  3. Run `sparesite-gateway check`, then \
             `sparesite-gateway sync`.\n",
            key.label
        ))?;
    }
    Ok(Exit::Done)
}

/// The vault's id proves its first number, which names these; a key that says otherwise would
/// seal data to somebody else.
fn check_of_vault(key: &GatewayKey, config: &VaultConfig) -> Result<(), Failure> {
    let same = key.trust.control == config.control
        && key.recovery == config.recovery
        && key.chunk_bytes == config.chunk_bytes;
    match same {
        true => Ok(()),
        false => Err(
            Failure::failed("this gateway key contradicts the vault that it names")
                .remedy("have another one issued with `sparesite-restore gateway-key issue`"),
        ),
    }
}
