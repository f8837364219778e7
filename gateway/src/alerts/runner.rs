//! Runs the operator's command for an alert.

use std::{path::Path, time::Duration};

use super::{Change, Told};
use crate::{interrupt::Interrupt, source::hook::run_program};

/// To send a mail, or to call a web hook.
const WITHIN: Duration = Duration::from_secs(60);

/// Tells each change in turn, and notes it as told if the command says so by ending well. What is
/// not told is left for the next time.
pub async fn tell(command: &Path, changes: &[Change], told: &mut Told, interrupt: &Interrupt) {
    for change in changes {
        let alert = change.subject.alert.to_string();
        let state = if change.resolved {
            "resolved"
        } else {
            "raised"
        };
        let message = words(&change.message);
        let env = [
            ("SPARESITE_VM", change.subject.vm.as_str()),
            ("SPARESITE_ALERT", alert.as_str()),
            ("SPARESITE_ALERT_STATE", state),
            ("SPARESITE_MESSAGE", message.as_str()),
        ];
        let ended = run_program(command, &env, WITHIN, interrupt.wait()).await;
        let noted = match ended {
            Ok(()) => told.told(change).map_err(|error| error.to_string()),
            Err(why) => Err(why),
        };
        if let Err(why) = noted {
            tracing::error!(
                vm = change.subject.vm,
                alert,
                state,
                "the alert could not be told: {why}"
            );
        }
    }
}

/// An environment takes no zero bytes, and no message needs a page.
fn words(message: &str) -> String {
    message.chars().filter(|c| *c != '\0').take(1000).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::alerts::{AlertKind, Subject};

    #[tokio::test]
    async fn the_command_has_all_in_its_environment_and_is_asked_again_if_it_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        let command = folder.path().join("alert.sh");
        let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n[ -e fail ] && exit 1\n\
            echo \"$SPARESITE_VM|$SPARESITE_ALERT|$SPARESITE_ALERT_STATE|$SPARESITE_MESSAGE\" >>said\n";
        fs::write(&command, script).expect("written");
        fs::set_permissions(&command, PermissionsExt::from_mode(0o700)).expect("executable");
        let mut told = Told::open(folder.path());
        let subject = Subject {
            vm: "dc01".into(),
            alert: AlertKind::RpoMissed,
            fence: None,
        };
        let stands = BTreeMap::from([(subject, "it is late".to_owned())]);
        let (_sender, came) = tokio::sync::watch::channel(false);
        let interrupt = Interrupt::of(came);

        fs::write(folder.path().join("fail"), "").expect("written");
        tell(&command, &told.changes(&stands), &mut told, &interrupt).await;
        fs::remove_file(folder.path().join("fail")).expect("removed");
        for standing in [&stands, &stands, &BTreeMap::new()] {
            tell(&command, &told.changes(standing), &mut told, &interrupt).await;
        }
        let said = fs::read_to_string(folder.path().join("said")).expect("said");
        assert_eq!(
            said,
            "dc01|rpo-missed|raised|it is late\ndc01|rpo-missed|resolved|dc01: rpo-missed is resolved\n"
        );
    }
}
