//! The command line.

use clap::{Parser, Subcommand};
use console::OutputArgs;

use crate::{access::AccessArgs, command};

/// Brings VM disks back from a Sparesite vault
///
/// Needs the recovery kit, its passphrase, and read access to the vault. The cloud's credentials
/// come from its own standard chain (profiles, environment, instance role), never from here.
#[derive(Debug, Parser)]
#[command(name = "sparesite-restore", version, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  export SPARESITE_KIT=kit.json
  sparesite-restore points
  sparesite-restore assemble dc01 --output dc01.raw
  sparesite-restore verify --read-data

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with findings.")]
pub struct Cli {
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List protected VMs and their recovery points
    Points(command::points::PointsArgs),
    /// Build the disks of a recovery point
    Assemble(command::assemble::AssembleArgs),
    /// Serve the disks of a recovery point over NBD, straight from the vault
    Serve(command::serve::ServeArgs),
    /// Boot a recovery point in QEMU, straight from the vault
    Boot(command::boot::BootArgs),
    /// Judge from outside whether the guest of a recovery point will boot there
    Preflight(command::preflight::PreflightArgs),
    /// Mend a guest on an overlay, so that it will
    Convert(command::convert::ConvertArgs),
    /// Prove that the newest recovery points boot, and write it down
    Drill(command::drill::DrillArgs),
    /// Draft and judge recovery plans: what starts where, in which order, on the bad day
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Carry out a recovery plan: rehearse it, or fail over
    Failover(command::failover::FailoverArgs),
    /// Accept a failover
    Commit(command::commit::CommitArgs),
    /// Take away everything that a run made
    Undo(command::undo::UndoArgs),
    /// List runs of recovery plans
    Runs(command::runs::RunsArgs),
    /// Remove what a run left in the cloud, by its tag
    Sweep(command::sweep::SweepArgs),
    /// Check that what is stored, and which recovery points can be restored
    Verify(command::verify::VerifyArgs),
    /// Check or renew the recovery kit
    #[command(subcommand)]
    Kit(KitCommand),
    /// Let gateways into the vault, and end their trust
    #[command(subcommand)]
    GatewayKey(GatewayKeyCommand),
    #[command(flatten)]
    Manual(console::Manual),
}

#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Draft a plan from what the vault knows
    New(command::plan_new::PlanNewArgs),
    /// Judge a plan, price it, and print it as an ordered list
    Check(command::plan_check::PlanCheckArgs),
    /// Keep a plan in the vault
    Keep(command::plan_keep::PlanKeepArgs),
    /// List the plans that the vault keeps
    #[command(after_help = "\
Example:
  sparesite-restore plan list")]
    List,
    /// Print a plan that the vault keeps
    Show(command::plan_keep::PlanShowArgs),
    /// Print the table of prices and instance types, to be edited
    #[command(after_help = "\
Example:
  sparesite-restore plan prices >my-prices.toml")]
    Prices,
}

#[derive(Debug, Subcommand)]
pub enum KitCommand {
    /// Prove that kit and passphrase open the vault and each VM's newest recovery point
    #[command(after_help = "\
Example:
  sparesite-restore kit check --kit kit.json

Do it when the kit is made, and once a year from where it is kept.")]
    Check,
    /// Make a new kit for the same vault, under a new passphrase
    New(command::kit_new::KitNewArgs),
}

#[derive(Debug, Subcommand)]
pub enum GatewayKeyCommand {
    /// Make a key for a new gateway
    Issue(command::key_issue::KeyIssueArgs),
    /// Stop trusting a gateway's key
    Revoke(command::key_revoke::KeyRevokeArgs),
    /// List the gateways that were ever let in
    #[command(after_help = "\
Example:
  sparesite-restore gateway-key list")]
    List,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, error::ErrorKind};

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            for inner in command.get_subcommands() {
                check(inner);
            }
            let ours = !matches!(command.get_name(), "completions" | "man" | "help");
            if ours && !command.has_subcommands() {
                let help = command.get_after_help().map(ToString::to_string);
                let name = command.get_name();
                assert!(help.is_some_and(|h| h.contains("Example")), "{name}");
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn what_interface_md_writes_is_accepted() {
        for line in [
            "sparesite-restore --kit k points",
            "sparesite-restore points dc01 --kit k --vault file:///v --passphrase-file p --json",
            "sparesite-restore assemble dc01@latest --output d",
            "sparesite-restore assemble dc01@7 --output d --disk sda --format raw,vhd,vhdx,vmdk,qcow2",
            "sparesite-restore assemble dc01@2026-11-22T08:00:00Z --output d --in-place --no-sync",
            "sparesite-restore assemble dc01 --output d --in-place --dry-run --json",
            "sparesite-restore assemble dc01 --definition libvirt",
            "sparesite-restore assemble dc01 --definition proxmox --output d --disk sda",
            "sparesite-restore assemble dc01 --definition hyperv --json",
            "sparesite-restore serve dc01@7 --listen 127.0.0.1:10809",
            "sparesite-restore serve dc01 --listen /run/x --disk sda --read-only --cache 1GiB --cache-folder /c",
            "sparesite-restore serve dc01 --listen 0.0.0.0:1 --tls /t --overlay /o --json",
            "sparesite-restore boot dc01@latest",
            "sparesite-restore drill",
            "sparesite-restore drill dc01 db@7 --config c --reports r --dry-run --no-log --accel tcg --json",
            "sparesite-restore preflight dc01@7 --target aws,azure,qemu --json",
            "sparesite-restore boot dc01 --network --forward 2222:22 --vnc 127.0.0.1:1 --firmware uefi --disk-bus nvme",
            "sparesite-restore plan new dc01 db --name core --region eu-central-1 --output p --prices q",
            "sparesite-restore plan check p --prices q --json",
            "sparesite-restore plan prices",
            "sparesite-restore plan keep p.toml",
            "sparesite-restore plan list --json",
            "sparesite-restore plan show whole-site",
            "sparesite-restore failover p",
            "sparesite-restore failover p --test --point db@41 --point dc01@latest --deadline 2h --clean-up --no-probes",
            "sparesite-restore failover p --test --no-deadline --reports r --cache 1GiB --json",
            "sparesite-restore failover p --dry-run --json",
            "sparesite-restore commit r",
            "sparesite-restore undo r",
            "sparesite-restore undo r --skip s",
            "sparesite-restore failover p --skip s",
            "sparesite-restore runs",
            "sparesite-restore runs r --json",
            "sparesite-restore sweep r --region eu-central-1 --failover --dry-run",
            "sparesite-restore verify --read-data --no-log --quiet",
            "sparesite-restore kit check --log-format json",
            "sparesite-restore kit new --output k2",
            "sparesite-restore gateway-key issue --label site2 --output k",
            "sparesite-restore gateway-key revoke site2 --trust-none",
            "sparesite-restore gateway-key revoke site2 --trust a@3 --trust b@latest",
            "sparesite-restore gateway-key list",
            "sparesite-restore completions bash",
            "sparesite-restore man /tmp",
        ] {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for (line, kind) in [
            (
                "sparesite-restore assemble dc01",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "sparesite-restore assemble dc01 --definition libvirt --dry-run",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "sparesite-restore assemble dc01 --definition xen",
                ErrorKind::InvalidValue,
            ),
            (
                "sparesite-restore assemble dc01@ --output d",
                ErrorKind::ValueValidation,
            ),
            (
                "sparesite-restore assemble d/c --output d",
                ErrorKind::ValueValidation,
            ),
            (
                "sparesite-restore assemble dc01 --output d --format vdi",
                ErrorKind::ValueValidation,
            ),
            (
                "sparesite-restore assemble dc01 --output d --format raw,",
                ErrorKind::ValueValidation,
            ),
            ("sparesite-restore points a/b", ErrorKind::ValueValidation),
            (
                "sparesite-restore gateway-key revoke site2",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "sparesite-restore gateway-key revoke site2 --trust-none --trust-existing",
                ErrorKind::ArgumentConflict,
            ),
            (
                "sparesite-restore gateway-key issue --label a/b --output k",
                ErrorKind::ValueValidation,
            ),
            (
                "sparesite-restore failover p --clean-up",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "sparesite-restore failover p --test --deadline soon",
                ErrorKind::ValueValidation,
            ),
            (
                "sparesite-restore reprotect p",
                ErrorKind::InvalidSubcommand,
            ),
            (
                "sparesite-restore plan new",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "sparesite-restore plan new --region Frankfurt",
                ErrorKind::ValueValidation,
            ),
            (
                "sparesite-restore serve dc01 --read-only --overlay o",
                ErrorKind::ArgumentConflict,
            ),
            (
                "sparesite-restore boot dc01 --forward 22",
                ErrorKind::ValueValidation,
            ),
            (
                "sparesite-restore boot dc01 --disk-bus floppy",
                ErrorKind::InvalidValue,
            ),
            (
                "sparesite-restore preflight dc01 --target gcp",
                ErrorKind::InvalidValue,
            ),
            (
                "sparesite-restore drill --cache many",
                ErrorKind::ValueValidation,
            ),
        ] {
            assert_eq!(
                parse(line).map(drop).map_err(|e| e.kind()),
                Err(kind),
                "{line}"
            );
        }
    }
}
