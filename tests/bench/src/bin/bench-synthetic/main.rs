//! `bench-synthetic`: a vault that knows 16 million chunks, made in minutes from the format alone, to measure what
//! memory a sync and the opening of a recovery point take at that size.

mod open;
mod shape;
mod site;
mod vault;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use shape::{FULL_CHUNKS, Shape};
use site::Site;

#[derive(Parser)]
#[command(
    version,
    about = "A vault that knows 16 million chunks, its packs sparse files"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make vault, kit, gateway key and configuration, unless FOLDER has them; print the commands to measure
    Prepare {
        folder: PathBuf,
        /// Chunks known to the vault; a multiple of 65,536
        #[arg(long, default_value_t = FULL_CHUNKS)]
        chunks: u64,
    },
    /// Open the newest recovery point of VM `big`, go through its whole map, look up chunk ids
    Open {
        folder: PathBuf,
        /// Ids to look up
        #[arg(long, default_value_t = 100_000)]
        ids: u64,
    },
}

fn main() -> anyhow::Result<()> {
    let printed = match Arguments::parse().command {
        Command::Prepare { folder, chunks } => {
            let site = Site::new(&folder)?;
            site.prepare(&Shape::new(chunks)?)?;
            site.commands()?
        }
        Command::Open { folder, ids } => open::open(&Site::new(&folder)?, ids)?,
    };
    println!("{printed}");
    Ok(())
}
