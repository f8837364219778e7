//! `kit new`: the same keys under a new passphrase, in a new file and on a new page.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, OrFailure, OutputArgs, PrivateFile};
use jiff::Timestamp;
use serde::Serialize;
use tokio::task::block_in_place;
use vault_format::kit::Kit;
use vault_format::kit_page::kit_page;
use vault_format::names;
use vault_format::vault_config::VaultConfig;
use vault_store::setup;
use zeroize::Zeroizing;

use crate::access::{AccessArgs, OpenVault};
use crate::failure::attempting;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore kit new --kit old.json --output new.json
  sparesite-restore kit new --output new.json --new-passphrase-file words.txt
  sparesite-restore kit new --vault s3://acme-dr-2/site1 --region eu-west-1 --output new.json

The new kit opens the same vault with the same keys. The old kit goes on opening it: if it may be \
in wrong hands, a new kit is no remedy, but a new vault is.")]
pub struct KitNewArgs {
    /// The new kit's file; its page to print is FILE.html. Neither may exist
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// A file with the new passphrase on one line. Without it six random words are made and printed
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Ask for the new passphrase on the terminal
    #[arg(long, conflicts_with = "new_passphrase_file")]
    ask_passphrase: bool,
    /// The region of the vault's bucket, if the vault was moved
    #[arg(long)]
    region: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    kit: String,
    page: String,
    vault: &'a str,
    vault_id: String,
    created: &'a str,
    /// Only if it was made here: it is nowhere else.
    passphrase: Option<&'a str>,
}

pub async fn run(args: KitNewArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let page_path = page_path(&args.output);
    let open = access.open().await?;
    // Both, before a passphrase is made for what could not be written.
    let (kit_file, page_file) = (
        PrivateFile::prepare(&args.output)?,
        PrivateFile::prepare(&page_path)?,
    );
    let made = args.new_passphrase_file.is_none() && !args.ask_passphrase;
    let passphrase = match made {
        true => setup::generate_passphrase().map_err(attempting("cannot make a passphrase"))?,
        false => block_in_place(|| {
            console::read_new_passphrase(
                args.new_passphrase_file.as_deref(),
                "Passphrase of the new kit: ",
            )
        })?,
    };
    let kit = close(&open, args.region.as_deref(), &passphrase).await?;
    let page = kit_page(&kit).or_failure(|| Failure::failed("cannot make the kit's page"))?;
    kit_file.publish(kit.to_json().as_bytes())?;
    if let Err(failure) = page_file.publish(page.as_bytes()) {
        // A kit whose passphrase nobody was told.
        let _ = fs::remove_file(&args.output);
        return Err(failure.into());
    }
    let document = Document {
        kit: args.output.display().to_string(),
        page: page_path.display().to_string(),
        vault: &open.url,
        vault_id: kit.vault_id.to_string(),
        created: &kit.created,
        passphrase: made.then_some(&passphrase),
    };
    match output.json {
        true => console::print_json(&document)?,
        false => console::print(&text(&document, &open.kit_path))?,
    }
    Ok(Exit::Done)
}

/// Makes the kit, and opens it once: better to fail now than on the day.
async fn close(
    open: &OpenVault,
    region: Option<&str>,
    passphrase: &Zeroizing<String>,
) -> Result<Kit, Failure> {
    let failed = || Failure::failed(format!("cannot make a kit for the vault {}", open.url));
    let mut old = open.kit.clone();
    if old.vault.is_none() {
        old.vault = Some(configuration(open).await?);
    }
    let moved = open.url != open.kit.vault_url;
    let region = region.or(open.kit.region.as_deref().filter(|_| !moved));
    block_in_place(|| {
        let place = (open.url.as_str(), region);
        let kit = setup::new_kit(&open.vault, &old, place, passphrase, Timestamp::now())
            .or_failure(failed)?;
        let again = Kit::parse(kit.to_json().as_bytes()).or_failure(failed)?;
        let keys = again.open(passphrase).or_failure(failed)?;
        match keys.recovery.secret() == open.vault.keys.recovery.secret() {
            true => Ok(kit),
            false => Err(failed().because("it would not open to the same keys")),
        }
    })
}

/// The vault's first object, which a kit from a QR code does not have.
async fn configuration(open: &OpenVault) -> Result<String, Failure> {
    let name = names::vault(1);
    let failed = || {
        Failure::failed(format!("cannot read the vault's configuration, {name}"))
            .remedy("use the kit's file, which has a copy of it, in place of its QR code")
    };
    let bytes = open.vault.objects.get(&name).await.or_failure(failed)?;
    let config = VaultConfig::first(&bytes).or_failure(failed)?;
    if config.id != open.vault.config.id {
        return Err(failed().because("it is another vault's"));
    }
    String::from_utf8(bytes.to_vec()).or_failure(failed)
}

/// `kit.json` has the page `kit.json.html`.
fn page_path(kit: &Path) -> PathBuf {
    let mut name = OsString::from(kit);
    name.push(".html");
    name.into()
}

fn text(made: &Document, old: &Path) -> String {
    let passphrase = match made.passphrase {
        Some(passphrase) => format!(
            "Its passphrase, which is shown this once:\n\n    {passphrase}\n\nWrite it down; keep it apart from \
             the kit.\n"
        ),
        None => String::new(),
    };
    format!(
        "The new recovery kit is {kit}; print {page}.\n{passphrase}Keep the kit away from the site, and try it: \
         `sparesite-restore kit check --kit {kit}`.\nThe old kit, {old}, still opens the vault: destroy it and its \
         copies, if the new one replaces it.\n",
        kit = made.kit,
        page = made.page,
        old = old.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lies_beside_the_kit() {
        assert_eq!(page_path(Path::new("/a/kit")), Path::new("/a/kit.html"));
        assert_eq!(page_path(Path::new("kit.json")), Path::new("kit.json.html"));
    }

    #[test]
    fn a_made_passphrase_is_told_and_a_given_one_is_not() {
        let document = |passphrase| Document {
            kit: "k".into(),
            page: "k.html".into(),
            vault: "file:///v",
            vault_id: String::new(),
            created: "",
            passphrase,
        };
        assert!(text(&document(Some("six words")), Path::new("old")).contains("    six words\n"));
        let given = text(&document(None), Path::new("old"));
        assert!(!given.contains("passphrase, which"), "{given}");
        assert!(given.contains("old, still opens the vault"), "{given}");
    }
}
