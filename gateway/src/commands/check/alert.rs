//! The alert command: would it be run? It is not tried: it would tell somebody of nothing.

use std::path::Path;

use super::{Checks, disks::can_run};

const ON: &str = "[alert] command";

pub fn check(command: Option<&Path>, checks: &mut Checks) {
    if let Some(command) = command {
        checks.add("alert", ON, can_run("the alert command", ON, command));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_command_that_cannot_be_run_is_found_before_an_alert_needs_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let command = folder.path().join("alert.sh");
        let findings = || {
            let mut checks = Checks::default();
            check(Some(&command), &mut checks);
            assert_eq!(checks.done.len(), 1);
            checks.findings
        };
        let missing = findings();
        assert_eq!(missing[0].what, "the alert command cannot be run");
        assert_eq!(missing[0].on, ON);
        fs::write(&command, "#!/bin/sh\n").expect("written");
        assert_eq!(
            findings()[0].remedy,
            format!("chmod +x {}", command.display())
        );
        fs::set_permissions(&command, PermissionsExt::from_mode(0o700)).expect("set");
        assert!(findings().is_empty());
        let mut none = Checks::default();
        check(None, &mut none);
        assert!(none.done.is_empty());
    }
}
