//! `bench-disk`: makes the disk that the targets speak of, and changes it.

use std::path::PathBuf;

use bench::change::{Pattern, apply};
use bench::disk::{FULL_BYTES, Sidecar, ensure_disk};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "The bench's disk and its changes, from a fixed seed")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a raw ext4 disk, sparse, and its sidecar IMAGE.json; keep it if it is there
    Generate {
        #[arg(long)]
        seed: u64,
        /// Size of the disk in MiB; its contents scale with it
        #[arg(long, default_value_t = FULL_BYTES >> 20)]
        mebibytes: u64,
        /// Where the real files come from
        #[arg(long, default_value = "/usr")]
        real_files: PathBuf,
        image: PathBuf,
    },
    /// Apply one change pattern in place; prints what it changed and the bound
    Change {
        #[arg(long, value_enum)]
        pattern: Pattern,
        #[arg(long)]
        seed: u64,
        #[arg(long, default_value_t = 0)]
        cycle: u64,
        /// The disk's sidecar, if it is not beside the image
        #[arg(long, value_name = "IMAGE")]
        sidecar_of: Option<PathBuf>,
        image: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let printed = match Arguments::parse().command {
        Command::Generate {
            seed,
            mebibytes,
            real_files,
            image,
        } => {
            let sidecar = ensure_disk(seed, mebibytes << 20, &real_files, &image)?;
            serde_json::json!({
                "seed": seed,
                "disk_bytes": sidecar.disk_bytes,
                "data_bytes": sidecar.data_bytes,
                "real_bytes": sidecar.real_bytes,
                "table_bytes": sidecar.table.bytes(),
                "table_offset": sidecar.table.iter().next().map(|(offset, _)| offset),
            })
        }
        Command::Change {
            pattern,
            seed,
            cycle,
            sidecar_of,
            image,
        } => {
            let sidecar = Sidecar::load(sidecar_of.as_ref().unwrap_or(&image))?;
            serde_json::to_value(apply(&image, &sidecar, pattern, seed, cycle)?)?
        }
    };
    println!("{printed}");
    Ok(())
}
