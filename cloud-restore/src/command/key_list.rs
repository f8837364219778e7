//! `gateway-key list`: who was ever let into the vault.

use anyhow::Result;
use console::{Exit, Finding, OutputArgs, table::Table};
use serde::Serialize;
use std::collections::BTreeMap;
use vault_format::WriterId;
use vault_format::control_log::ControlLog;

use crate::access::AccessArgs;

#[derive(Serialize)]
struct Document<'a> {
    writers: Vec<WriterJson<'a>>,
    findings: &'a [Finding],
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct WriterJson<'a> {
    writer: WriterId,
    /// Unknown if the entry that let it in is lost.
    label: Option<&'a str>,
    /// The start of the gateway that is newest, as a number of the control log.
    epoch: Option<u64>,
    revoked: bool,
    /// If revoked: the last trusted point of each VM, by the VM's id.
    trusted: BTreeMap<String, String>,
}

pub async fn run(access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let findings = open.findings();
    let writers = writers(&open.vault.log);
    if output.json {
        console::print_json(&Document {
            writers,
            findings: &findings,
        })?;
    } else {
        print(&writers)?;
        console::print_findings(&findings)?;
    }
    Ok(Exit::of(&findings))
}

fn writers(log: &ControlLog) -> Vec<WriterJson<'_>> {
    let lost = log
        .revoked
        .keys()
        .filter(|id| !log.writers.contains_key(id));
    let entry = |writer: &WriterId| WriterJson {
        writer: *writer,
        label: log.writers.get(writer).map(String::as_str),
        epoch: log.epochs.get(writer).copied(),
        revoked: log.revoked.contains_key(writer),
        trusted: match log.revoked.get(writer) {
            Some(trusted) => trusted
                .iter()
                .map(|(vm, point)| (vm.to_string(), point.to_string()))
                .collect(),
            None => BTreeMap::new(),
        },
    };
    log.writers.keys().chain(lost).map(entry).collect()
}

fn print(writers: &[WriterJson]) -> Result<()> {
    let mut table = Table::new(["LABEL", "WRITER", "STATE"]);
    for writer in writers {
        let state = match (writer.revoked, writer.trusted.len()) {
            (false, _) if writer.epoch.is_none() => "may write; has not yet".into(),
            (false, _) => "may write".into(),
            (true, 0) => "revoked; none of its points is trusted".into(),
            (true, vms) => format!("revoked; earlier points of {vms} VMs are trusted"),
        };
        table.row([
            writer.label.unwrap_or("?").into(),
            writer.writer.to_string(),
            state,
        ]);
    }
    match table.is_empty() {
        true => console::print("no gateways"),
        false => table.print(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_format::{PointId, VaultId, VmId};

    #[test]
    fn revoked_writers_are_listed_even_if_their_entry_is_lost() {
        let mut log = ControlLog::new(VaultId([0; 32]));
        let (known, lost) = (WriterId([1; 16]), WriterId([2; 16]));
        log.writers.insert(known, "site1".into());
        log.epochs.insert(known, 2);
        let trusted = (
            VmId([3; 16]),
            PointId {
                epoch: 2,
                sequence: 9,
            },
        );
        log.revoked.insert(lost, BTreeMap::from([trusted]));
        let listed = writers(&log);
        assert_eq!(listed.len(), 2);
        assert_eq!(
            (listed[0].label, listed[0].epoch, listed[0].revoked),
            (Some("site1"), Some(2), false)
        );
        assert_eq!((listed[1].label, listed[1].revoked), (None, true));
        assert_eq!(
            listed[1].trusted[&VmId([3; 16]).to_string()],
            "0000000002-0000000009"
        );
    }
}
