//! `gateway-key issue`: lets a gateway into the vault.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, OutputArgs, PrivateFile};
use jiff::Timestamp;
use serde::Serialize;
use vault_format::control_log::ControlLog;
use vault_store::setup;

use crate::access::AccessArgs;
use crate::failure::attempting;
use crate::vm_point::vm_name;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sparesite-restore gateway-key issue --label site2 --output gateway.key

Then, on the gateway: sparesite-gateway init --join gateway.key. The key lets it add recovery points \
and find what it added; it cannot delete, and cannot open what is stored.")]
pub struct KeyIssueArgs {
    /// What to call the gateway; no gateway that is let in has this name
    #[arg(long, value_parser = vm_name)]
    label: String,
    /// The key's file; it must not exist
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Serialize)]
struct Document<'a> {
    key: String,
    label: &'a str,
    writer: String,
    vault: &'a str,
}

pub async fn run(args: KeyIssueArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let mut open = access.open().await?;
    refuse_taken(&open.vault.log, &args.label)?;
    // Before the vault lets it in: a key that cannot be written is of no use to anybody.
    let file = PrivateFile::prepare(&args.output)?;
    let key = setup::issue_key(&mut open.vault, &args.label, &open.url, Timestamp::now())
        .await
        .map_err(attempting("cannot let the new gateway into the vault"))?;
    let writer = key.writer.id.to_string();
    file.publish(key.to_json().as_bytes()).map_err(|failure| {
        let what = format!("the key of gateway {} was issued, and is lost: {failure}", args.label);
        Failure::failed(what).because(failure).remedy(format!(
            "revoke it (`sparesite-restore gateway-key revoke {writer} --trust-none`), and issue another"
        ))
    })?;
    let document = Document {
        key: args.output.display().to_string(),
        label: &args.label,
        writer,
        vault: &open.url,
    };
    match output.json {
        true => console::print_json(&document)?,
        false => console::print(&format!(
            "Gateway {} (writer {}) may add to the vault {}.\nIts key is {}: take it to the gateway, then remove it \
             here.\n",
            document.label, document.writer, document.vault, document.key
        ))?,
    }
    Ok(Exit::Done)
}

/// Labels name gateways when one is revoked, so no two that may write share one.
fn refuse_taken(log: &ControlLog, label: &str) -> Result<(), Failure> {
    let taken = log
        .writers
        .iter()
        .find(|(id, known)| *known == label && !log.revoked.contains_key(id));
    match taken {
        Some((writer, _)) => Err(Failure::failed(format!(
            "there is a gateway {label} already: writer {writer}"
        ))
        .remedy("choose another --label, or revoke that one first")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_format::{VaultId, WriterId};

    #[test]
    fn a_label_is_free_again_once_revoked() {
        let mut log = ControlLog::new(VaultId([0; 32]));
        let writer = WriterId([1; 16]);
        log.writers.insert(writer, "site1".into());
        assert!(refuse_taken(&log, "site1").is_err());
        assert!(refuse_taken(&log, "site2").is_ok());
        log.revoked.insert(writer, Default::default());
        assert!(refuse_taken(&log, "site1").is_ok());
    }
}
