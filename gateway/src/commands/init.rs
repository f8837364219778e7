//! `init`: makes a vault with its first key and its recovery kit, or joins one that exists.

mod join;
mod new_file;
mod place;
mod tools;

use std::path::{Path, PathBuf};

use clap::Args;
use console::{Exit, Failure, Finding, OrFailure, units::Bytes};
use jiff::Timestamp;
use serde_json::json;
use vault_format::{CHUNK_BYTES_RANGE, kit_page::kit_page};
use vault_store::setup::{PreparedVault, VaultRequest, generate_passphrase, prepare_vault};
use zeroize::Zeroizing;

use super::told;
use crate::interrupt::Interrupt;
use new_file::{NewFile, Written};
use place::Place;
use tools::Tools;

/// Made with `init --vault URL --key FILE --kit FILE`, joined with `--join KEYFILE`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InitArgs {
    /// Where the vault is to be: file:///FOLDER, s3://BUCKET/PREFIX or azure://ACCOUNT/CONTAINER/PREFIX
    #[arg(long, value_name = "URL")]
    vault: String,
    /// The gateway key to write; it can only add to the vault
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The recovery kit to write; FILE.html beside it is its page to print
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "join",
        conflicts_with = "join"
    )]
    kit: Option<PathBuf>,
    /// Read the kit's passphrase here; without it, six words are made and shown once
    #[arg(long, value_name = "FILE", conflicts_with = "join")]
    passphrase_file: Option<PathBuf>,
    /// The bucket's region, for this run and for the kit
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// The unit of storage; cannot be changed later
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "256KiB",
        conflicts_with = "join"
    )]
    chunk_size: Bytes,
    /// What this gateway is called in the vault [default: the machine's name]
    #[arg(long, value_name = "LABEL", conflicts_with = "join")]
    label: Option<String>,
    /// Join a vault that exists, with a key from `sparesite-restore gateway-key issue`
    #[arg(long, value_name = "KEYFILE")]
    join: Option<PathBuf>,
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

pub async fn run(args: &InitArgs, json: bool) -> anyhow::Result<Exit> {
    match (&args.join, &args.kit) {
        (Some(issued), _) => join::run(args, issued, json).await,
        (None, Some(kit)) => make(args, kit, json).await,
        (None, None) => Err(Failure::usage("--kit is missing").into()),
    }
}

async fn make(args: &InitArgs, kit: &Path, json: bool) -> anyhow::Result<Exit> {
    let chunk_bytes = chunk_bytes(args.chunk_size)?;
    let page = page_path(kit);
    new_file::check_new(&[&args.key, kit, &page])?;
    place::check_outside(&args.vault, &[&args.key, kit])?;
    let (passphrase, shown) = passphrase(args.passphrase_file.as_deref())?;
    let tools = Tools::collect()?;
    // From here on a signal must not leave files without a vault, nor a vault without its passphrase.
    let interrupt = Interrupt::listen("no vault was made")?;
    let place = interrupt
        .or(Place::open(&args.vault, args.region.as_deref()))
        .await??;
    let label = args.label.clone().unwrap_or_else(machine_name);
    let request = VaultRequest {
        url: &args.vault,
        region: args.region.as_deref(),
        chunk_bytes,
        label: &label,
        passphrase: &passphrase,
        now: Timestamp::now(),
    };
    let paths = [kit, &page, &args.key];
    let made = match make_in(&place, &request, paths, &interrupt).await {
        Ok(made) => made,
        Err(failure) => {
            place.leave();
            return Err(failure.into());
        }
    };
    let mut findings: Vec<Finding> = tools.finding.into_iter().collect();
    let stored = tokio::select! {
        stored = made.publish(&*place.objects, &tools.files) => stored.map_err(|e| e.to_string()),
        () = interrupt.wait() => Err("interrupted".into()),
    };
    findings.extend(stored.err().map(tools::not_stored));
    let passphrase = shown.then_some(passphrase);
    let vault_id = made.kit.vault_id.to_string();
    if json {
        console::print_json(&json!({
            "vault": args.vault, "vault_id": vault_id, "writer": made.key.writer.id.to_string(),
            "key": args.key, "kit": kit, "kit_page": page,
            "passphrase": passphrase.as_ref().map(|words| words.as_str()),
            "tools": tools.files.iter().map(|tool| &tool.name).collect::<Vec<_>>(),
            "findings": findings,
        }))?;
        return Ok(Exit::of(&findings));
    }
    console::print(&told_text(
        args,
        kit,
        &page,
        &vault_id,
        passphrase.as_ref().map(|w| w.as_str()),
    ))?;
    told(&findings)
}

/// Files first, fsynced; the vault only once they are safe. If it cannot be made, nothing refers
/// to them and they go again.
async fn make_in(
    place: &Place,
    request: &VaultRequest<'_>,
    [kit, page, key]: [&Path; 3],
    interrupt: &Interrupt,
) -> Result<PreparedVault, Failure> {
    let failed = || Failure::failed(format!("cannot make the vault {}", request.url));
    let made = tokio::task::block_in_place(|| prepare_vault(request)).or_failure(failed)?;
    let html = kit_page(&made.kit)
        .or_failure(|| Failure::failed("cannot make the recovery kit's page"))?;
    let mut written = Written::default();
    let (key_text, kit_text) = (made.key.to_json(), made.kit.to_json());
    for (path, text) in [(kit, &kit_text), (page, &html), (key, &*key_text)] {
        let file = NewFile {
            path,
            bytes: text.as_bytes(),
        };
        if let Err(failure) = written.write(&file) {
            return Err(written.take_back(failure));
        }
    }
    let published = tokio::select! {
        published = made.publish(&*place.objects, &[]) => published.or_failure(failed),
        () = interrupt.wait() => Err(failed().because("interrupted")),
    };
    match published {
        Ok(()) => Ok(made),
        Err(failure) => {
            let failure = place.explain_leftovers(failure).await;
            Err(written.take_back(failure))
        }
    }
}

fn chunk_bytes(size: Bytes) -> Result<u32, Failure> {
    let fits = u32::try_from(size.get()).ok();
    fits.filter(|bytes| bytes.is_power_of_two() && CHUNK_BYTES_RANGE.contains(bytes))
        .ok_or_else(|| {
            Failure::usage(format!("--chunk-size {size} is not possible"))
                .remedy("give a power of two from 64KiB to 4MiB; 256KiB suits most sites")
        })
}

/// The passphrase, and whether it is ours to show.
fn passphrase(file: Option<&Path>) -> Result<(Zeroizing<String>, bool), Failure> {
    match file {
        Some(_) => Ok((console::read_new_passphrase(file, "")?, false)),
        None => {
            let words =
                generate_passphrase().or_failure(|| Failure::failed("cannot make a passphrase"))?;
            Ok((words, true))
        }
    }
}

fn page_path(kit: &Path) -> PathBuf {
    let mut name = kit.as_os_str().to_owned();
    name.push(".html");
    name.into()
}

fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "gateway".into(),
        name => name.into(),
    }
}

fn told_text(
    args: &InitArgs,
    kit: &Path,
    page: &Path,
    vault_id: &str,
    passphrase: Option<&str>,
) -> String {
    let (url, key, kit, page) = (
        &args.vault,
        args.key.display(),
        kit.display(),
        page.display(),
    );
    let words = passphrase.map(|words| {
        format!(
            "\nThe recovery kit's passphrase, shown this once. Write it down now:\n\n    {words}\n"
        )
    });
    format!(
        "vault made: {url}\n  id           {vault_id}\n  gateway key  {key}\n  recovery kit {kit}\n  \
         to print     {page}\n{}\nNext:\n  1. Print the page, copy the kit away from this site, and \
         delete both here. Keep the\n     passphrase apart from them: without the two nobody can \
         restore anything.\n  2. Write /etc/sparesite/gateway.toml, with\n\n         [vault]\n         \
         url = \"{url}\"\n         key = \"{key}\"\n\n  3. Run `sparesite-gateway check`, then \
         `sparesite-gateway sync`.\n",
        words.unwrap_or_default()
    )
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

    #[test]
    fn the_passphrase_is_shown_only_if_it_was_made_here() {
        let args = InitArgs {
            vault: "file:///v".into(),
            key: "/k".into(),
            kit: None,
            passphrase_file: None,
            region: None,
            chunk_size: Bytes(262_144),
            label: None,
            join: None,
        };
        let text = |words| {
            told_text(
                &args,
                Path::new("/kit"),
                Path::new("/kit.html"),
                "id",
                words,
            )
        };
        assert!(text(Some("one two")).contains("\n    one two\n"));
        assert!(!text(None).contains("shown this once"));
    }
}
