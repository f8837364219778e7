//! `rebuild`: the state folder, anew from the vault.

use std::path::Path;

use console::{Exit, Progress};
use serde_json::json;
use vault_store::objects::OpenOptions;

use super::{finding_in_words, told};
use crate::{
    interrupt::Interrupt,
    vault_access::{VaultAccess, load_config, open_gateway, received},
};

pub const EXAMPLES: &str = "\
Reads the vault's index, never the disks' data. Costs time and requests, no data is at risk.

Examples:
  sparesite-gateway rebuild
  sparesite-gateway rebuild --json";

pub async fn run(config: &Path, json: bool) -> anyhow::Result<Exit> {
    let config = load_config(config)?;
    let interrupt = Interrupt::listen("run rebuild again")?;
    let open = VaultAccess::open(&config.vault.url, OpenOptions::default());
    let access = interrupt.or(open).await??;
    let mut gateway = open_gateway(&config, access.objects)?;
    let progress = Progress::start("rebuild", None);
    let count = received(&access.meter, &progress);
    let report = interrupt.or(gateway.rebuild(&count)).await??;
    progress.finish();
    let used = access.meter.snapshot();
    let vault = |words| finding_in_words(&config.vault.url, words);
    let findings: Vec<_> = report.findings.into_iter().map(vault).collect();
    if json {
        console::print_json(&json!({
            "packs": report.packs, "chunks": report.chunks, "vms": report.vms,
            "epoch": report.epoch, "requests": super::sync::requests(&used),
            "bytes_sent": used.bytes_sent, "bytes_received": used.bytes_received,
            "findings": findings,
        }))?;
        return Ok(Exit::of(&findings));
    }
    console::print(&format!(
        "state rebuilt: VMs {}, chunks {}, packs {}, epoch {}\n{}",
        report.vms,
        report.chunks,
        report.packs,
        report.epoch,
        super::sync::used(&used),
    ))?;
    told(&findings)
}
