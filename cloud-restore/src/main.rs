//! `sparesite-restore`: reads the vault with the recovery kit. Lists recovery points, builds disks
//! from them, verifies what is stored, and keeps kit and gateway keys.

mod access;
mod arguments;
mod command;
mod conversion;
mod definition;
mod drill;
mod failover;
mod failure;
mod fetched;
mod gateway_name;
mod guest;
mod hardware;
mod interrupt;
mod kit_file;
mod known_vms;
mod local_disk;
mod machine;
mod outputs;
mod page;
mod point_view;
mod program;
mod served;
mod under_construction;
mod vm_point;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use console::{Exit, Failure, OrFailure};

use arguments::{Cli, Command, GatewayKeyCommand, KitCommand, PlanCommand};

const LEAST_THREADS: usize = 4;

fn main() -> ExitCode {
    console::run(|| {
        let cli = Cli::parse();
        console::init_logging(&cli.output)?;
        if let Command::Manual(manual) = &cli.command {
            return manual.run(Cli::command());
        }
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // What is served from files on this machine is read where it is asked for: some may wait for a device.
            .worker_threads(cpus.max(LEAST_THREADS))
            .enable_all()
            .build()
            .or_failure(|| Failure::failed("cannot start the program's threads"))?;
        let done = runtime.block_on(run(cli));
        // A read that hangs (a dead mount) must not keep an interrupted program from ending.
        runtime.shutdown_timeout(Duration::from_secs(2));
        done
    })
}

async fn run(cli: Cli) -> Result<Exit> {
    let Cli {
        access,
        output,
        command,
    } = cli;
    match command {
        Command::Points(args) => command::points::run(args, &access, &output).await,
        Command::Assemble(args) => command::assemble::run(args, &access, &output).await,
        Command::Boot(args) => command::boot::run(args, &access, &output).await,
        Command::Preflight(args) => command::preflight::run(args, &access, &output).await,
        Command::Convert(args) => command::convert::run(args, &access, &output).await,
        Command::Drill(args) => command::drill::run(args, &access, &output).await,
        Command::Serve(args) => command::serve::run(args, &access, &output).await,
        Command::Verify(args) => command::verify::run(args, &access, &output).await,
        Command::Failover(args) => command::failover::run(args, &access, &output).await,
        Command::Commit(args) => command::commit::run(args, &access, &output).await,
        Command::Undo(args) => command::undo::run(args, &access, &output).await,
        Command::Runs(args) => command::runs::run(args, &access, &output).await,
        Command::Sweep(args) => command::sweep::run(args, &access, &output).await,
        Command::Plan(PlanCommand::New(args)) => {
            command::plan_new::run(args, &access, &output).await
        }
        Command::Plan(PlanCommand::Check(args)) => {
            command::plan_check::run(args, &access, &output).await
        }
        Command::Plan(PlanCommand::Keep(args)) => {
            command::plan_keep::keep(args, &access, &output).await
        }
        Command::Plan(PlanCommand::List) => command::plan_keep::list(&access, &output).await,
        Command::Plan(PlanCommand::Show(args)) => {
            command::plan_keep::show(args, &access, &output).await
        }
        Command::Plan(PlanCommand::Prices) => command::plan_prices::run(&output),
        Command::Kit(KitCommand::Check) => command::kit_check::run(&access, &output).await,
        Command::Kit(KitCommand::New(args)) => command::kit_new::run(args, &access, &output).await,
        Command::GatewayKey(command) => match command {
            GatewayKeyCommand::Issue(args) => command::key_issue::run(args, &access, &output).await,
            GatewayKeyCommand::Revoke(args) => {
                command::key_revoke::run(args, &access, &output).await
            }
            GatewayKeyCommand::List => command::key_list::run(&access, &output).await,
        },
        Command::Manual(manual) => manual.run(Cli::command()),
    }
}
