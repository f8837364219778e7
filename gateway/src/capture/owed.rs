//! `after` hooks that are owed: noted in the state folder before the `before` hook runs, so that a gateway that was killed
//! between the two, or lost its power, runs them when it comes back.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use console::Finding;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};
use vault_format::keys::IdKey;

use super::hooks::{after_failed, run_after};
use crate::{
    config::Config,
    interrupt::Interrupt,
    source::hook::{HOOK_TIMEOUT, Occasion},
    whole_file,
};

const MOST_NOTE_BYTES: u64 = 4096;
/// Between two looks whether an earlier hook ended.
const LOOK: Duration = Duration::from_millis(100);

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

    /// What a hook of this VM holds while it runs, also when the gateway that started it is gone. The file stays: one that
    /// is removed while it is held is no lock any more.
    pub fn lock(&self) -> io::Result<File> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(self.0.with_extension("lock"))?;
        file.try_lock()?;
        Ok(file)
    }

    /// The lock once no hook of an earlier process holds it. `None`: one still does after all that a hook may take, or
    /// the file cannot be locked.
    async fn lock_when_free(&self) -> Option<File> {
        let free = async {
            loop {
                match self.lock() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(LOOK).await,
                    lock => return lock.ok(),
                }
            }
        };
        timeout(HOOK_TIMEOUT, free).await.ok().flatten()
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
            path.extension().filter(|ending| *ending == "json")?;
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

    /// Runs what an earlier process left, of one VM or of all at once: no VM stays frozen for another's hook. One that fails,
    /// or waits when the signal to end comes, stays owed.
    pub async fn pay(
        &self,
        config: &Config,
        only: Option<&str>,
        interrupt: &Interrupt,
    ) -> Vec<Finding> {
        // Held to the end: a VM's next `before` waits for its last `after`.
        let mut left = self.left.lock().await;
        let (mut findings, mut at_work) = (Vec::new(), JoinSet::new());
        let of_these = |(_, on): &mut (Note, Occasion)| only.is_none_or(|vm| on.vm == vm);
        for (note, on) in left.extract_if(.., of_these) {
            let vm = config.vms.iter().find(|vm| vm.name == on.vm);
            let Some(hook) = vm.and_then(|vm| vm.after.clone()) else {
                note.remove();
                findings.push(Finding::new(
                    "an after hook did not run: the VM may still be frozen",
                    format!("VM {}", on.vm),
                    "the gateway ended between its hooks, and the configuration has the after hook no more",
                    "look at the VM now, and thaw it by hand",
                ));
                continue;
            };
            let interrupt = interrupt.clone();
            at_work.spawn(async move {
                tokio::select! {
                    lock = note.lock_when_free() => Some(pay(&note, &on, &hook, lock).await),
                    () = interrupt.wait() => None,
                }
            });
        }
        while let Some(paid) = at_work.join_next().await {
            findings.extend(paid.ok().flatten());
        }
        findings
    }
}

/// A `before` that outlived its gateway, and still runs, may make what `after` is to remove: the note stays then.
async fn pay(note: &Note, on: &Occasion, hook: &Path, lock: Option<File>) -> Finding {
    let is_still = lock.is_none();
    if let Err(why) = run_after(hook, on, lock).await {
        return after_failed(&on.vm, hook, why);
    }
    let on_vm = format!("VM {}", on.vm);
    if is_still {
        return Finding::new(
            "the after hook ran while the before hook still did: what that makes yet stays",
            on_vm,
            "an earlier run of the gateway was killed between its hooks, and its before hook has not ended",
            format!("end it, and run {} by hand", hook.display()),
        );
    }
    note.remove();
    Finding::new(
        "the VM stayed frozen for longer",
        on_vm,
        "an earlier run of the gateway was killed between its hooks; the after hook ran just now",
        "look whether the VM and its applications do well",
    )
}
