//! `init`: makes a vault with its first key and its recovery kit, or joins one that exists.

mod args;
mod join;
mod new_file;
mod place;
pub mod tools;

use std::path::{self, Path};

use console::{Exit, Failure, Finding, OrFailure};
use jiff::Timestamp;
use serde_json::json;
use vault_format::kit_page::kit_page;
use vault_store::setup::{PreparedVault, VaultRequest, generate_passphrase, prepare_vault};
use zeroize::Zeroizing;

use super::told;
use crate::interrupt::Interrupt;
use args::{chunk_bytes, machine_name, page_path};
use new_file::Written;
use place::Place;
use tools::Tools;

pub use args::InitArgs;

pub async fn run(args: &InitArgs, json: bool) -> anyhow::Result<Exit> {
    match (&args.join, &args.kit) {
        (Some(issued), _) => join::run(args, issued, json).await,
        (None, Some(kit)) => make(args, kit, json).await,
        (None, None) => Err(Failure::usage("--kit is missing").into()),
    }
}

async fn make(args: &InitArgs, kit: &Path, json: bool) -> anyhow::Result<Exit> {
    let chunk_bytes = chunk_bytes(args.chunk_size)?;
    // As the configuration takes them: there they start at its own folder.
    let (key, kit) = (absolute(&args.key)?, absolute(kit)?);
    let page = page_path(&kit);
    new_file::check_new(&[&key, &kit, &page])?;
    place::check_outside(&args.vault, &[&key, &kit])?;
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
    let paths = [&*kit, &page, &key];
    let made = match make_in(&place, &request, paths, &interrupt).await {
        Ok(made) => made,
        Err(failure) => {
            place.leave();
            return Err(failure.into());
        }
    };
    let mut findings: Vec<Finding> = tools.finding.into_iter().collect();
    let publish = made.publish(&*place.objects, &tools.files);
    let stored = match interrupt.or(publish).await {
        Ok(stored) => stored.map_err(|error| error.to_string()),
        Err(_) => Err("interrupted".into()),
    };
    findings.extend(stored.err().map(tools::not_stored));
    let words = shown.then_some(&**passphrase);
    if json {
        let tools = tools.files.iter().map(|tool| &tool.name);
        console::print_json(&json!({
            "vault": args.vault, "vault_id": made.kit.vault_id.to_string(),
            "writer": made.key.writer.id.to_string(), "key": key, "kit": kit, "kit_page": page,
            "passphrase": words, "tools": tools.collect::<Vec<_>>(), "findings": findings,
        }))?;
        return Ok(Exit::of(&findings));
    }
    let id = made.kit.vault_id.to_string();
    console::print(&text([&args.vault, &id], [&key, &kit, &page], words))?;
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
        if let Err(failure) = written.write(path, text) {
            return Err(written.take_back(failure));
        }
    }
    let published = tokio::select! {
        biased;
        () = interrupt.wait() => Err(failed().because("interrupted")),
        published = made.publish(&*place.objects, &[]) => published.or_failure(failed),
    };
    match published {
        Ok(()) => Ok(made),
        Err(failure) => {
            let failure = place.explain_leftovers(failure).await;
            Err(written.take_back(failure))
        }
    }
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

fn absolute(path: &Path) -> Result<path::PathBuf, Failure> {
    path::absolute(path).or_failure(|| Failure::usage(format!("{path:?} is no path")))
}

fn text([url, id]: [&str; 2], files: [&Path; 3], passphrase: Option<&str>) -> String {
    let [key, kit, page] = files.map(Path::display);
    let words = passphrase.map(|words| {
        format!(
            "\nThe recovery kit's passphrase, shown this once. Write it down now:\n\n    {words}\n"
        )
    });
    format!(
        "vault made: {url}\n  id           {id}\n  gateway key  {key}\n  recovery kit {kit}\n  \
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
    fn the_passphrase_is_shown_only_if_it_was_made_here() {
        let files = ["/key", "/kit", "/kit.html"].map(Path::new);
        let text = |words| text(["file:///v", "id"], files, words);
        assert!(text(Some("one two")).contains("\n    one two\n"));
        assert!(!text(None).contains("shown this once"));
    }
}
