//! The gateway key: readable, whole, and nobody else's to read.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use console::Finding;
use vault_format::gateway_key::GatewayKey;

use super::Checks;
use crate::vault_access::read_key;

const WHAT: &str = "gateway key";

/// The key, if it can be used.
pub fn check(path: &Path, checks: &mut Checks) -> Option<GatewayKey> {
    let on = path.display().to_string();
    let key = match read_key(path) {
        Ok(key) => key,
        Err(failure) => {
            let why = std::error::Error::source(&failure).map(ToString::to_string);
            let remedy = "run check as the user that syncs; make or join a vault with `init`";
            let finding = Finding::new(failure.to_string(), on, why.unwrap_or_default(), remedy);
            checks.found(WHAT, finding);
            return None;
        }
    };
    let mode = fs::metadata(path).map_or(0, |about| about.mode() & 0o777);
    let detail = format!("{}, writer {}", key.label, key.writer.id);
    checks.add(WHAT, &on, judge_mode(path, mode).map_or(Ok(detail), Err));
    Some(key)
}

fn judge_mode(path: &Path, mode: u32) -> Option<Finding> {
    (mode & 0o077 != 0).then(|| {
        let shown = path.display();
        Finding::new(
            format!("others than its owner have rights to it (mode {mode:04o})"),
            shown.to_string(),
            "with it one can add to the vault in this gateway's name",
            format!("chmod 600 {shown}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_have_rights() {
        for (mode, found) in [
            (0o600, false),
            (0o400, false),
            (0o640, true),
            (0o604, true),
            (0o610, true),
        ] {
            assert_eq!(
                judge_mode(Path::new("/k"), mode).is_some(),
                found,
                "{mode:o}"
            );
        }
    }
}
