//! The arguments of `init`, and what follows from them alone.

use std::path::{Path, PathBuf};

use clap::Args;
use console::{Failure, units::Bytes};
use vault_format::CHUNK_BYTES_RANGE;

/// Made with `init --vault URL --key FILE --kit FILE`, joined with `--join KEYFILE`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InitArgs {
    /// Where the vault is to be: file:///FOLDER, s3://BUCKET/PREFIX or azure://ACCOUNT/CONTAINER/PREFIX
    #[arg(long, value_name = "URL")]
    pub vault: String,
    /// The gateway key to write; it can only add to the vault
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The recovery kit to write; FILE.html beside it is its page to print
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "join",
        conflicts_with = "join"
    )]
    pub kit: Option<PathBuf>,
    /// Read the kit's passphrase here; without it, six words are made and shown once
    #[arg(long, value_name = "FILE", conflicts_with = "join")]
    pub passphrase_file: Option<PathBuf>,
    /// The bucket's region, for this run and for the kit
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// The unit of storage; cannot be changed later
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "256KiB",
        conflicts_with = "join"
    )]
    pub chunk_size: Bytes,
    /// What this gateway is called in the vault [default: the machine's name]
    #[arg(long, value_name = "LABEL", conflicts_with = "join")]
    pub label: Option<String>,
    /// Join a vault that exists, with a key from `sparesite-restore gateway-key issue`
    #[arg(long, value_name = "KEYFILE")]
    pub join: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Whoever has the kit and its passphrase can restore everything; without them nobody can. Move the
kit off the site, and keep the passphrase apart from it.

Examples:
  sparesite-gateway init --vault s3://acme-dr/site1 --region eu-central-1 \\
      --key /etc/sparesite/gateway.key --kit /root/kit.json
  sparesite-gateway init --vault file:///srv/sparesite/vault --key gateway.key --kit kit.json \\
      --passphrase-file passphrase.txt
  sparesite-gateway init --join issued.key --vault s3://acme-dr/site1 \\
      --key /etc/sparesite/gateway.key";

pub fn chunk_bytes(size: Bytes) -> Result<u32, Failure> {
    let fits = u32::try_from(size.get()).ok();
    fits.filter(|bytes| bytes.is_power_of_two() && CHUNK_BYTES_RANGE.contains(bytes))
        .ok_or_else(|| {
            Failure::usage(format!("--chunk-size {size} is not possible"))
                .remedy("give a power of two from 64KiB to 4MiB; 256KiB suits most sites")
        })
}

pub fn page_path(kit: &Path) -> PathBuf {
    let mut name = kit.as_os_str().to_owned();
    name.push(".html");
    name.into()
}

pub fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "gateway".into(),
        name => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes_are_powers_of_two_in_range() {
        let judge = |text: &str| chunk_bytes(text.parse().expect("a size")).ok();
        assert_eq!(judge("256KiB"), Some(262_144));
        assert_eq!(judge("64KiB"), Some(65_536));
        assert_eq!(judge("4MiB"), Some(4 << 20));
        for wrong in ["32KiB", "8MiB", "100KiB", "256 kB", "16GiB"] {
            assert_eq!(judge(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_page_lies_beside_the_kit() {
        assert_eq!(
            page_path(Path::new("/r/kit.json")),
            Path::new("/r/kit.json.html")
        );
    }
}
