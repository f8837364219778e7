//! Recovery plans as commands read them, from a file or from the vault, and the table of prices.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use console::{Failure, OrFailure, show};
use jiff::Timestamp;
use recovery_plan::prices::Prices;
use serde::{Deserialize, Serialize};
use vault_format::manifest::is_name;
use vault_store::read::Runs;

use recovery_plan::Plan;

use crate::access::{AccessArgs, OpenVault};
use crate::failure::attempting;

/// No plan of a small site comes near; what is larger is some other file.
const MOST_BYTES: u64 = 4 << 20;

/// A plan on the command line: a file, or the name of one that the vault keeps. A file is written with a `/` or a `.`, or is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanSource {
    File(PathBuf),
    Kept(String),
}

impl FromStr for PlanSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let is_file = text.contains(['/', '.']) || path.is_file();
        match is_file || !is_name(text) {
            true => Ok(PlanSource::File(path)),
            false => Ok(PlanSource::Kept(text.to_owned())),
        }
    }
}

impl fmt::Display for PlanSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanSource::File(path) => write!(f, "{}", path.display()),
            PlanSource::Kept(name) => write!(f, "plan {name} in the vault"),
        }
    }
}

/// What is kept of a plan in the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPlan {
    pub time: Timestamp,
    /// As it was written.
    pub plan: String,
}

impl PlanSource {
    fn text_of_file(&self) -> Result<Option<String>, Failure> {
        match self {
            PlanSource::File(path) => text(path).map(Some),
            PlanSource::Kept(_) => Ok(None),
        }
    }

    async fn text(&self, open: &OpenVault) -> Result<String, Failure> {
        match self {
            PlanSource::File(path) => text(path),
            PlanSource::Kept(name) => Ok(kept(open, name).await?.plan),
        }
    }
}

/// The plan, its text, and the vault. A file that is no plan is told before the passphrase is asked for.
pub async fn open(
    source: &PlanSource,
    access: &AccessArgs,
) -> Result<(OpenVault, String, Plan), Failure> {
    let read = |text: &str| {
        Plan::parse(text).map_err(|error| {
            Failure::usage(format!("{source} is no recovery plan that holds together"))
                .because(error)
        })
    };
    let of_file = source.text_of_file()?;
    of_file.as_deref().map(read).transpose()?;
    let open = access.open().await?;
    let text = match of_file {
        Some(text) => text,
        None => source.text(&open).await?,
    };
    let plan = read(&text)?;
    Ok((open, text, plan))
}

/// The newest text of the plan of this name in the vault.
pub async fn kept(open: &OpenVault, name: &str) -> Result<KeptPlan, Failure> {
    let runs = Runs::of(&open.vault);
    let kept = runs.kept(runs.plan_id(name)).await;
    let kept = kept.map_err(attempting(format!("cannot read plan {name} in the vault")))?;
    let none = || {
        Failure::failed(format!("the vault keeps no plan {:?}", show::printable(name)))
            .remedy("`sparesite-restore plan list` tells which it keeps; `plan keep FILE` adds one; a file is written as ./FILE")
    };
    parsed(name, &kept.ok_or_else(none)?)
}

pub fn parsed(name: &str, bytes: &[u8]) -> Result<KeptPlan, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::failed(format!(
            "what the vault keeps of plan {} cannot be read",
            show::printable(name)
        ))
        .because(error)
        .remedy("get a newer sparesite-restore")
    })
}

pub fn text(path: &Path) -> Result<String, Failure> {
    let failed = || Failure::usage(format!("cannot read {}", path.display()));
    let file = File::open(path).or_failure(failed)?;
    let mut text = String::new();
    file.take(MOST_BYTES + 1)
        .read_to_string(&mut text)
        .or_failure(failed)?;
    match text.len() as u64 > MOST_BYTES {
        true => Err(failed().because("it is larger than 4 MiB: is it the right file?")),
        false => Ok(text),
    }
}

/// The owner's, else those that come with the program.
pub fn prices(path: Option<&Path>) -> Result<Prices, Failure> {
    let Some(path) = path else {
        return Ok(Prices::aws());
    };
    Prices::parse(&text(path)?).map_err(|why| {
        Failure::usage(format!("{} is no table of prices", path.display()))
            .because(why)
            .remedy("`plan prices` prints the one that comes with the program: change a copy of it")
    })
}
