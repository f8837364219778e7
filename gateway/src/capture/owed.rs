//! `after` hooks that are owed: noted in the state folder before the `before` hook runs, so that a gateway that was killed
//! between the two, or lost its power, runs them when it comes back.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use console::Finding;
use tokio::sync::Mutex;
use vault_format::keys::IdKey;

use super::hooks::{after_failed, run_after};
use crate::{config::Config, source::hook::Occasion, whole_file};

const MOST_NOTE_BYTES: u64 = 4096;

/// A note in the state folder: the `after` hook of a VM is to be run.
#[derive(Debug, Clone)]
pub struct Note(PathBuf);

impl Note {
    /// The hook ran.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!("{} cannot be removed: {error}", self.0.display());
        }
    }
}

pub struct Owed {
    folder: PathBuf,
    id_key: IdKey,
    /// What an earlier process left.
    left: Mutex<Vec<(Note, Occasion)>>,
}

impl Owed {
    /// What an earlier process left is read now, before anything is added.
    pub fn open(state: &Path, id_key: IdKey) -> Owed {
        let folder = state.join("hooks");
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        let left = files.filter_map(|file| {
            let path = file.path();
            let bytes = whole_file::read(&path, MOST_NOTE_BYTES)?;
            Some((Note(path), serde_json::from_slice(&bytes).ok()?))
        });
        Owed {
            left: Mutex::new(left.collect()),
            folder,
            id_key,
        }
    }

    /// Notes that the `after` hook of this occasion is to be run.
    pub fn note(&self, on: &Occasion) -> io::Result<Note> {
        let path = self
            .folder
            .join(format!("{}.json", self.id_key.vm_id(&on.vm)));
        fs::create_dir_all(&self.folder)?;
        whole_file::write(&path, &serde_json::to_vec(on)?)?;
        fs::File::open(&self.folder)?.sync_all()?;
        Ok(Note(path))
    }

    /// Runs what an earlier process left, of one VM or of all. A hook that fails stays owed.
    pub async fn pay(&self, config: &Config, only: Option<&str>) -> Vec<Finding> {
        // Held to the end: a VM's next `before` waits for its last `after`.
        let mut left = self.left.lock().await;
        let mut findings = Vec::new();
        let of_these = |(_, on): &mut (Note, Occasion)| only.is_none_or(|vm| on.vm == vm);
        for (note, on) in left.extract_if(.., of_these) {
            let on_vm = format!("VM {}", on.vm);
            let vm = config.vms.iter().find(|vm| vm.name == on.vm);
            let Some(hook) = vm.and_then(|vm| vm.after.as_ref()) else {
                note.remove();
                findings.push(Finding::new(
                    "an after hook did not run: the VM may still be frozen",
                    on_vm,
                    "the gateway ended between its hooks, and the configuration has the after hook no more",
                    "look at the VM now, and thaw it by hand",
                ));
                continue;
            };
            findings.push(match run_after(hook, &on).await {
                Err(why) => after_failed(&on.vm, hook, why),
                Ok(()) => {
                    note.remove();
                    Finding::new(
                        "the VM stayed frozen for longer",
                        on_vm,
                        "an earlier run of the gateway was killed between its hooks; the after hook ran just now",
                        "look whether the VM and its applications do well",
                    )
                }
            });
        }
        findings
    }
}
