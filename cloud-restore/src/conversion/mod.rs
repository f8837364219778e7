//! Conversion: what keeps a guest from starting at a target is mended on a copy-on-write overlay of its disks, never in the
//! vault. What to change is decided in [`guest_inspection::mend`]; the guest's own tools do it, in an appliance.

mod appliance;
mod patched;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use console::{Failure, OrFailure};
use guest_inspection::facts::Facts;
use guest_inspection::judge::{Judgement, Target, Verdict};
use guest_inspection::mend::{self, Conversion, Outcome, Told};
use serde::{Deserialize, Serialize};
use vault_store::read::{Point, Vault};

use crate::guest;
use crate::hardware::Hardware;
use crate::point_view;
use crate::served::{CacheArgs, Opened, Writes, flush_all, open_disks};

pub use patched::Patched;

/// Beside the overlays: they are whole.
const FILE: &str = "converted.json";
/// Beside overlays that are being made: the folder is ours, and what an attempt that broke off left in it is of no use.
const BEGUN: &str = "converting";

/// What was done to the disks of a recovery point.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Converted {
    /// Of these overlays: others of the same point differ in times and order.
    pub id: String,
    pub vault: String,
    /// `EPOCH-17`
    pub point: String,
    pub target: String,
    /// Those that were changed. Empty: the guest needed nothing, or nothing could be done.
    pub disks: Vec<String>,
    pub mended: Vec<Told>,
    pub left: Vec<Told>,
    /// What preflight says before and after.
    pub before: String,
    pub after: String,
}

impl Converted {
    /// A change in a line, for people.
    pub fn changes(&self) -> Vec<String> {
        self.mended.iter().map(|told| told.words.clone()).collect()
    }

    pub fn left(&self) -> Vec<String> {
        let line = |told: &Told| format!("{}: {}", told.code, told.words);
        self.left.iter().map(line).collect()
    }
}

/// What a conversion works on.
pub struct Work<'a> {
    pub vault: &'a Vault,
    pub point: &'a Point,
    pub target: Target,
    pub cache: &'a CacheArgs,
    /// Of the overlays, for this point and target alone.
    pub folder: &'a Path,
}

impl Work<'_> {
    /// Converts, or finds what was converted before. Where it cannot be done, that is told in
    /// [`Converted::left`]; it is an error where the guest would have started by it, and only by it.
    pub async fn convert(&self) -> Result<Converted, Failure> {
        let hardware = Hardware::of(&self.point.manifest);
        let vm = &self.point.manifest.facts.vm;
        let name = point_view::name(&self.point.manifest.facts);
        if let Some(found) = self.found()? {
            return Ok(found);
        }
        let disks = self.open(&hardware, &Writes::Refused).await?;
        let facts = guest::inspect(guest::machine(vm, &hardware), &disks).await?;
        drop(disks);
        let before = guest_inspection::judge(&facts, self.target);
        let mut converted = Converted {
            id: nonce()?,
            vault: self.vault.config.id.to_string(),
            point: self.point.manifest.facts.point.to_string(),
            target: self.target.name().to_owned(),
            disks: Vec::new(),
            mended: Vec::new(),
            left: Vec::new(),
            before: guest::told(&before),
            after: guest::told(&before),
        };
        let Some(conversion) = mend::conversion(&facts, self.target) else {
            return Ok(converted);
        };
        match self
            .change(&name, &hardware, &facts, &before, &conversion)
            .await
        {
            Ok((disks, outcome, after)) => {
                converted.disks = disks;
                converted.mended = outcome.mended;
                converted.left = outcome.left;
                converted.after = guest::told(&after);
            }
            Err(Refused::Failed(failure)) => return Err(failure),
            Err(Refused::Impossible(failure)) => {
                self.discard();
                if conversion.decides {
                    return Err(failure);
                }
                let words = failure.in_a_line();
                let code = "conversion".to_owned();
                converted.left.push(Told { code, words });
            }
        }
        if !converted.disks.is_empty() {
            self.keep(&converted)?;
        }
        Ok(converted)
    }

    /// What was converted before into this folder.
    fn found(&self) -> Result<Option<Converted>, Failure> {
        let text = match fs::read(self.folder.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable().because(error)),
        };
        let found: Option<Converted> = serde_json::from_slice(&text).ok();
        let same = |own: &Converted| {
            own.point == self.point.manifest.facts.point.to_string()
                && own.vault == self.vault.config.id.to_string()
                && own.target == self.target.name()
        };
        match found.filter(same) {
            Some(found) => Ok(Some(found)),
            None => Err(self.unusable().because(
                "it holds what was converted of another recovery point, or for another target",
            )),
        }
    }

    fn unusable(&self) -> Failure {
        let folder = self.folder.display();
        Failure::failed(format!("cannot use {folder} for what is converted"))
            .remedy("name another folder, or move it away")
    }

    /// All disks that were captured.
    async fn open(&self, hardware: &Hardware, writes: &Writes) -> Result<Vec<Opened>, Failure> {
        let kept = hardware.disks.iter().filter(|disk| !disk.excluded);
        let names: Vec<&str> = kept.map(|disk| disk.name.as_str()).collect();
        open_disks(self.vault, self.point, &names, self.cache, writes).await
    }

    async fn change(
        &self,
        name: &str,
        hardware: &Hardware,
        facts: &Facts,
        before: &Judgement,
        conversion: &Conversion,
    ) -> Result<(Vec<String>, Outcome, Judgement), Refused> {
        let script = mend::script(conversion).ok_or_else(|| {
            let system = facts
                .system()
                .map_or("this guest".into(), |linux| linux.name());
            let failure = Failure::failed(format!("{name}: there is no conversion for {system}"));
            Refused::Impossible(
                failure.remedy("mend it on site: `sparesite-restore preflight` tells how"),
            )
        })?;
        appliance::fits(facts).map_err(Refused::Impossible)?;
        self.make_room()?;
        let writes = Writes::Kept(self.folder.to_owned());
        let disks = self.open(hardware, &writes).await?;
        console::tell(&format!(
            "{name} is converted: the guest's own tools run in an appliance, for some minutes"
        ));
        let said = appliance::run(&disks, &script).await?;
        flush_all(&disks).await?;
        let failed = disks.iter().any(|opened| opened.disk.usage().failures > 0);
        if failed {
            return Err(Failure::failed(format!(
                "a disk of {name} could not be read while it was converted"
            ))
            .into());
        }
        let outcome = whole(name, &said)?;
        let written = |opened: &&Opened| opened.disk.is_changed();
        let changed = disks
            .iter()
            .filter(written)
            .map(|opened| opened.name.clone())
            .collect();
        // Each overlay can be open once.
        drop(disks);
        let disks = self.open(hardware, &writes).await?;
        let machine = guest::machine(&self.point.manifest.facts.vm, hardware);
        let after = guest::inspect(machine, &disks).await?;
        let after = guest_inspection::judge(&after, self.target);
        if rank(after.verdict) > rank(before.verdict) {
            let told = guest::told(&after);
            let what = format!("what its conversion made of {name} would be worse: {told}");
            let failure = Failure::failed(what).remedy("mend it on site");
            return Err(Refused::Impossible(failure));
        }
        Ok((changed, outcome, after))
    }

    /// What an attempt left that came to nothing.
    fn discard(&self) {
        if self.folder.join(BEGUN).exists() {
            let _ = fs::remove_dir_all(self.folder);
        }
    }

    /// An empty folder of ours; never one in which somebody else's files lie.
    fn make_room(&self) -> Result<(), Failure> {
        let begun = self.folder.join(BEGUN);
        if begun.exists() {
            fs::remove_dir_all(self.folder).or_failure(|| self.unusable())?;
        }
        let inside = match fs::read_dir(self.folder) {
            Ok(mut inside) => inside.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(self.unusable().because(error)),
        };
        if inside {
            return Err(self.unusable().because("it is not empty"));
        }
        fs::create_dir_all(self.folder).or_failure(|| self.unusable())?;
        fs::write(begun, "").or_failure(|| self.unusable())
    }

    /// From now on the overlays count.
    fn keep(&self, converted: &Converted) -> Result<(), Failure> {
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(self.folder)?;
            serde_json::to_writer_pretty(&mut file, converted)?;
            file.as_file().sync_all()?;
            file.persist(self.folder.join(FILE))?;
            fs::remove_file(self.folder.join(BEGUN))
        };
        write().or_failure(|| self.unusable())
    }
}

/// What the script told, if it came to its end.
fn whole(name: &str, said: &str) -> Result<Outcome, Refused> {
    let outcome = mend::read(said);
    if outcome.whole {
        return Ok(outcome);
    }
    tracing::debug!("the conversion of {name} said:\n{said}");
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    let last = console::show::printable(last.unwrap_or_default()).into_owned();
    let failure = Failure::failed(format!("the conversion of {name} ended early"));
    let remedy = "RUST_LOG=debug shows all that it said";
    Err(Refused::Impossible(failure.because(last).remedy(remedy)))
}

/// The worse, the higher.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Boots => 0,
        Verdict::Unknown => 1,
        Verdict::DoesNotBoot => 2,
    }
}

/// Why nothing was converted.
enum Refused {
    /// Vault or machine: to be tried again.
    Failed(Failure),
    /// Another attempt ends the same way.
    Impossible(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Refused::Failed(failure)
    }
}

/// 64 random bits.
fn nonce() -> Result<String, Failure> {
    let made: ring::rand::Random<[u8; 8]> = ring::rand::generate(&ring::rand::SystemRandom::new())
        .map_err(|_| Failure::failed("the system gives no random numbers"))?;
    Ok(hex::encode(made.expose()))
}

/// Where the overlays of a run's VM lie, below its reports.
pub fn folder_of(reports: &Path, run: &str, vm: &str) -> PathBuf {
    folder_of_run(reports, run).join(format!("convert-{vm}"))
}

fn folder_of_run(reports: &Path, run: &str) -> PathBuf {
    reports.join(format!("run-{run}"))
}

/// Removes the overlays of a run whose disks are all sent.
pub fn forget(reports: &Path, run: &str) {
    let folder = folder_of_run(reports, run);
    if let Err(error) = fs::remove_dir_all(&folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "cannot remove {}, which is no longer needed", folder.display());
    }
}
