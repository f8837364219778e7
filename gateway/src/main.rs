//! `sparesite-gateway`: captures the disks of a site's VMs into the vault. It only adds.

mod alerts;
mod capture;
mod commands;
mod config;
mod fenced;
mod interrupt;
mod jobs;
mod proofs;
mod run;
mod schedule;
mod source;
mod vault_access;
mod whole_file;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};
use console::{Exit, Failure, Manual, OrFailure, OutputArgs};

use commands::{
    VmArgs, check, discover, init, jobs as jobs_command, points, rebuild, run as run_command,
    status, sync,
};
use source::qemu::guard;

/// Replicates the VM disks of a site into an encrypted vault in object storage
#[derive(Debug, Parser)]
#[command(name = "sparesite-gateway", version, after_help = EXAMPLES)]
struct Cli {
    /// The configuration
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/sparesite/gateway.toml"
    )]
    config: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  sparesite-gateway init --vault s3://acme-dr/site1 --key /etc/sparesite/gateway.key --kit kit.json
  sparesite-gateway check
  sparesite-gateway sync
  sparesite-gateway status --json

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 done with findings.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a vault, the gateway key and the recovery kit; or add this gateway to a vault
    Init(init::InitArgs),
    /// Try everything that a sync needs, and look for what would spoil a recovery
    #[command(after_help = check::EXAMPLES)]
    Check(VmArgs),
    /// Find VMs on this machine and the configured hosts, and print [[vm]] blocks for the configuration
    #[command(after_help = discover::EXAMPLES)]
    Discover,
    /// Capture every VM, or those named, and publish a recovery point of each
    #[command(after_help = sync::EXAMPLES)]
    Sync(sync::SyncArgs),
    /// Keep every VM at its RPO target: the daemon
    #[command(after_help = run_command::EXAMPLES)]
    Run,
    /// List the recovery points in the vault
    #[command(after_help = points::EXAMPLES)]
    Points(VmArgs),
    /// Show each VM's newest recovery point and whether its RPO target is met; needs no network
    #[command(after_help = status::EXAMPLES)]
    Status,
    /// List what ran, newest first, and why it failed
    #[command(after_help = jobs_command::EXAMPLES)]
    Jobs(jobs_command::JobsArgs),
    /// Rebuild the state folder from the vault
    #[command(after_help = rebuild::EXAMPLES)]
    Rebuild,
    /// Started by a capture: thaws the guests if the gateway is killed while they are frozen
    #[command(name = guard::COMMAND, hide = true)]
    ThawGuard,
    #[command(flatten)]
    Manual(Manual),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    console::run(|| {
        console::init_logging(&cli.output)?;
        if let Command::Manual(manual) = &cli.command {
            return manual.run(Cli::command());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .or_failure(|| Failure::failed("cannot start the program's threads"))?;
        let ended = runtime.block_on(run(&cli));
        // What was dropped may still hold a thread; a stop does not wait for it.
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    })
}

async fn run(cli: &Cli) -> anyhow::Result<Exit> {
    let (config, json) = (&cli.config, cli.output.json);
    match &cli.command {
        Command::Init(args) => init::run(args, json).await,
        Command::Check(args) => check::run(config, args, json).await,
        Command::Discover => discover::run(config, json).await,
        Command::Sync(args) => sync::run(config, args, json).await,
        Command::Run => run_command::run(config).await,
        Command::Points(args) => points::run(config, args, json).await,
        Command::Status => status::run(config, json),
        Command::Jobs(args) => jobs_command::run(config, args, json),
        Command::Rebuild => rebuild::run(config, json).await,
        Command::ThawGuard => guard::run()
            .await
            .map(|()| Exit::Done)
            .map_err(|why| Failure::failed(why).into()),
        Command::Manual(manual) => manual.run(Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_may_be_named_before_and_after_the_command() {
        for line in ["g --config /c sync dc01", "g sync --config /c dc01"] {
            let cli = Cli::try_parse_from(line.split(' ')).expect("parses");
            assert_eq!(cli.config, PathBuf::from("/c"));
            let Command::Sync(args) = cli.command else {
                panic!("{line}");
            };
            assert_eq!(args.vms.vms, ["dc01"]);
        }
    }
}
