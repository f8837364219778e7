//! A VM's disks and hooks: do they open, and what consistency can be expected.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, FileTypeExt},
    path::Path,
};

use console::{Finding, show};
use rustix::fs::{Access, access};
use vault_format::manifest::Consistency;
use virtual_disk::{Format, InUse, format};

use super::{Checks, all_of_it};
use crate::{
    config::{Disk, Vm},
    source::{
        consistency::{self, Freeze},
        disk_list::{self, Observed},
        hook::HookKind,
    },
};

pub fn check(vm: &Vm, asked: Consistency, checks: &mut Checks) {
    let uses = Observed::now(vm).uses();
    for disk in vm.disks() {
        let shown = disk.path.display().to_string();
        let used = uses.iter().find(|(path, _)| *path == shown);
        let outcome = opens(vm, disk, used.map(|(_, used)| used));
        checks.add("disk", &format!("{}/{}", vm.name, disk.name), outcome);
    }
    hooks(vm, checks);
    // A hook is not tried: it would freeze the guest.
    let freeze = match vm.before {
        Some(_) => Freeze::Done,
        None => Freeze::NotAsked,
    };
    let judged = consistency::judge(&freeze, &uses);
    let outcome = match consistency::finding(&vm.name, asked, &freeze, &judged) {
        Some(finding) => Err(finding),
        None => Ok(format!("{} expected, {asked} asked", judged.consistency)),
    };
    checks.add("consistency", &vm.name, outcome);
}

pub fn hooks(vm: &Vm, checks: &mut Checks) {
    for (kind, hook) in [(HookKind::Before, &vm.before), (HookKind::After, &vm.after)] {
        if let Some(hook) = hook {
            let on = format!("{}: {}", vm.name, kind.name());
            let what = format!("the {} hook", kind.name());
            let ran = can_run(&what, &format!("VM {}", vm.name), hook);
            checks.add("hook", &on, ran);
        }
    }
    if let Some(program) = &vm.on_fenced {
        let ran = can_run("on_fenced", &format!("VM {}", vm.name), program);
        checks.add("hook", &format!("{}: on_fenced", vm.name), ran);
    }
    if vm.before.is_some() && vm.after.is_none() {
        checks.found("hook", no_thaw(vm));
    }
}

fn opens(vm: &Vm, disk: &Disk, used: Option<&InUse>) -> Result<String, Finding> {
    let shown = disk.path.display();
    let size_bytes = match disk_list::open(disk) {
        Ok(reader) => reader.size_bytes(),
        Err(failure) => {
            let why = std::error::Error::source(&failure).map(ToString::to_string);
            return Err(Finding::new(
                "cannot be opened",
                format!("disk {} of VM {}", disk.name, vm.name),
                why.unwrap_or_else(|| failure.to_string()),
                "",
            ));
        }
    };
    let format = disk.format.unwrap_or_else(|| seen_format(&disk.path));
    let used = match used {
        _ if disk.exclude => "excluded: recreated empty".to_owned(),
        None | Some(InUse::No) => "not in use".to_owned(),
        Some(InUse::Yes(by)) => format!("in use: {by}"),
        Some(InUse::Unknown(why)) => format!("use unknown: {why}"),
    };
    let costs = match disk.exclude {
        true => String::new(),
        false => format!(", {}", all_of_it(size_bytes)),
    };
    let size = show::size(size_bytes);
    Ok(format!("{shown}: {format}, {size}, {used}{costs}"))
}

/// The format of a disk that opened without being told one: what its content shows.
fn seen_format(path: &Path) -> Format {
    let mut ends = ([0; format::HEAD_BYTES], [0; format::TAIL_BYTES]);
    let read = File::open(path).and_then(|file| {
        let size = file.metadata()?.len();
        file.read_exact_at(&mut ends.0, 0)?;
        file.read_exact_at(&mut ends.1, size.saturating_sub(format::TAIL_BYTES as u64))
    });
    match read {
        Ok(()) => format::detect(&ends.0, &ends.1).unwrap_or(Format::Raw),
        Err(_) => Format::Raw,
    }
}

/// Whether a program of the site, which is not tried, is one. `what` it is, and of whom (`on`).
pub fn can_run(what: &str, on: &str, program: &Path) -> Result<String, Finding> {
    let shown = program.display().to_string();
    let found = |why: String, remedy: String| {
        Err(Finding::new(
            format!("{what} cannot be run"),
            on,
            why,
            remedy,
        ))
    };
    match fs::metadata(program) {
        Err(error) => found(format!("{shown}: {error}"), "correct its path".into()),
        Ok(about) if !about.is_file() => found(
            format!("{shown} is {}", kind_of(&about)),
            "name a program or a script".into(),
        ),
        Ok(_) => match access(program, Access::EXEC_OK) {
            Ok(()) => Ok(format!("{shown} exists and may be run; it was not tried")),
            Err(error) => found(format!("{shown}: {error}"), format!("chmod +x {shown}")),
        },
    }
}

fn kind_of(about: &fs::Metadata) -> &'static str {
    let kind = about.file_type();
    match kind.is_dir() {
        true => "a folder",
        false if kind.is_block_device() => "a device",
        false => "no file",
    }
}

fn no_thaw(vm: &Vm) -> Finding {
    Finding::new(
        "there is a before hook and no after hook",
        format!("VM {}", vm.name),
        "what before freezes stays frozen after the sync",
        "name the program that thaws as `after` of the source",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Source;

    #[test]
    fn what_a_cycle_reads_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        let file = File::create(&path).expect("made");
        file.set_len(3_000_000_000).expect("sparse");
        let disk = |exclude| Disk {
            name: "vda".into(),
            path: path.clone(),
            format: Some(Format::Raw),
            exclude,
        };
        let vm = vm();
        let said = opens(&vm, &disk(false), None).map_err(|f| f.why);
        let costs =
            "not in use, not tracked: each cycle reads all of it, in about 20s (at 150 MB/s)";
        assert!(
            said.as_ref().is_ok_and(|said| said.ends_with(costs)),
            "{said:?}"
        );
        let said = opens(&vm, &disk(true), None).map_err(|f| f.why);
        assert!(said.is_ok_and(|said| said.ends_with("recreated empty")));
    }

    fn vm() -> Vm {
        Vm {
            name: "dc01".into(),
            policy: 0,
            priority: None,
            source: Source::Disks(Vec::new()),
            before: None,
            after: None,
            guest_hooks: false,
            on_fenced: None,
        }
    }

    #[test]
    fn a_hook_is_a_program_that_may_be_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let hook = folder.path().join("freeze");
        let judge = |path: &Path| can_run("a hook", "VM dc01", path).map_err(|f| f.remedy);
        assert_eq!(judge(&hook), Err("correct its path".into()));
        fs::write(&hook, "#!/bin/sh\n").expect("written");
        assert_eq!(judge(&hook), Err(format!("chmod +x {}", hook.display())));
        fs::set_permissions(&hook, PermissionsExt::from_mode(0o700)).expect("set");
        assert!(judge(&hook).is_ok());
        assert_eq!(
            judge(folder.path()),
            Err("name a program or a script".into())
        );
    }
}
