//! `bench-limit`: the work of a sync and of an assemble in a minimal loop.

use std::path::PathBuf;

use bench::limit::store::{StoreOptions, load, store};
use bench::limit::{copy, hash, read};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    version,
    about = "What this machine can do at best: two threads, nothing else"
)]
struct Arguments {
    /// In KiB
    #[arg(long, default_value_t = 256)]
    chunk: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read the disk's data
    Read { image: PathBuf },
    /// Read and hash: a sync that finds nothing
    Hash { image: PathBuf },
    /// Read and write sparse
    Copy { image: PathBuf, output: PathBuf },
    /// Read, BLAKE3 with subtrees, zstd, AES-256-GCM, write packs of 32 MiB
    Store {
        image: PathBuf,
        folder: PathBuf,
        #[arg(long, default_value_t = 1, allow_hyphen_values = true)]
        level: i32,
        /// Wait for each pack to be on the disk
        #[arg(long)]
        fsync: bool,
    },
    /// Read such packs, open, decompress, verify, write sparse
    Load {
        folder: PathBuf,
        output: PathBuf,
        /// Size of the disk
        #[arg(long)]
        disk_bytes: u64,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let chunk_bytes = arguments.chunk << 10;
    let measured = match arguments.command {
        Command::Read { image } => read(&image, chunk_bytes)?,
        Command::Hash { image } => hash(&image, chunk_bytes)?,
        Command::Copy { image, output } => copy(&image, &output, chunk_bytes)?,
        Command::Store {
            image,
            folder,
            level,
            fsync,
        } => {
            let options = StoreOptions {
                chunk_bytes,
                level,
                fsync,
            };
            store(&image, &folder, options)?
        }
        Command::Load {
            folder,
            output,
            disk_bytes,
        } => load(&folder, &output, disk_bytes, chunk_bytes)?,
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
