//! What the volume's files say by being there.

use super::drivers;
use super::facts::WindowsFacts;
use crate::GuestError;
use crate::file_system::FileSystem;

pub fn gather(files: &dyn FileSystem, facts: &mut WindowsFacts) -> Result<(), GuestError> {
    drivers::look_for_files(files, facts)?;
    if exists(files, facts, "/Windows/WinSxS/pending.xml")? {
        let why = "updates are half installed (WinSxS\\pending.xml)".to_owned();
        facts.pending_restart.push(why);
    }
    facts.hibernation.file_bytes = facts.take(files.size("/hiberfil.sys"))?;
    // The signature is the file system's to read: the file is as large as the guest's memory.
    let says_so = |state: &String| state.to_ascii_lowercase().contains("hibernat");
    facts.hibernation.hibernated = files.state().iter().any(says_so);
    // Version 1 is a set of scripts, without a service.
    if exists(
        files,
        facts,
        "/ProgramData/Amazon/EC2-Windows/Launch/Module",
    )? {
        facts.agents.push("EC2Launch v1".to_owned());
    }
    Ok(())
}

fn exists(
    files: &dyn FileSystem,
    facts: &mut WindowsFacts,
    path: &str,
) -> Result<bool, GuestError> {
    Ok(facts.take(files.kind(path))?.is_some())
}
