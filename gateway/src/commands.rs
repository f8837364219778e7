//! The commands, one module each.

pub mod check;
pub mod discover;
pub mod init;
pub mod jobs;
pub mod points;
pub mod rebuild;
pub mod run;
pub mod status;
pub mod sync;

use clap::Args;
use console::{Exit, Finding};

/// Which VMs a command is for.
#[derive(Debug, Args)]
pub struct VmArgs {
    /// Names of VMs in the configuration; all of them if none is named
    #[arg(value_name = "VM")]
    pub vms: Vec<String>,
}

/// A finding in the vault's own words, which tell the remedy as well.
pub fn finding_in_words(on: &str, words: String) -> Finding {
    Finding::new(words, on, "", "")
}

/// Prints findings for people and gives the exit code that goes with them.
fn told(findings: &[Finding]) -> anyhow::Result<Exit> {
    console::print_findings(findings)?;
    Ok(Exit::of(findings))
}
