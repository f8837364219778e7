//! The recovery kit's file: reading it, and opening it with its passphrase.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use console::{Failure, OrFailure, show::printable};
use tokio::task::block_in_place;
use vault_format::FormatError;
use vault_format::kit::{Kit, KitKeys};

/// A kit has a few kilobytes; what is longer is some other file.
const MOST_KIT_BYTES: u64 = 1 << 20;
/// On a terminal; from a file a wrong passphrase stays wrong.
const ATTEMPTS: usize = 3;

/// The kit in this file, closed.
pub fn read_kit(path: &Path) -> Result<Kit, Failure> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_KIT_BYTES + 1).read_to_end(&mut bytes))
        .or_failure(|| {
            Failure::usage(format!("cannot read the recovery kit {shown}")).remedy(
                "name the kit's file; its printed page has the same as a QR code and as text",
            )
        })?;
    if bytes.len() as u64 > MOST_KIT_BYTES {
        return Err(not_a_kit(path, "it is far too long for one"));
    }
    Kit::parse(&bytes).map_err(|error| match error {
        FormatError::Unknown { .. } => Failure::failed(format!(
            "cannot use the recovery kit {shown}"
        ))
        .because(error)
        .remedy("get a newer sparesite-restore; the one of its site is in the vault, under tools/"),
        FormatError::Checksum => Failure::failed(format!("the recovery kit {shown} is damaged"))
            .because("its checksum does not match")
            .remedy("take another copy of it, or its printed page: the QR code or the text there"),
        other => not_a_kit(path, other.to_string()),
    })
}

fn not_a_kit(path: &Path, why: impl Into<String>) -> Failure {
    Failure::failed(format!("{} is no recovery kit", path.display()))
        .because(why.into())
        .remedy("name the file that `sparesite-gateway init` made with --kit, not the gateway key or the page")
}

/// Asks for the passphrase, unless it is in `file`, and opens the kit with it.
pub fn unlock(kit: &Kit, path: &Path, file: Option<&Path>) -> Result<KitKeys, Failure> {
    let shown = path.display();
    let attempts = if file.is_some() { 1 } else { ATTEMPTS };
    for attempt in 1..=attempts {
        let prompt = format!("Passphrase of the recovery kit {shown}: ");
        // Blocks: on the terminal, then on Argon2id for about a second.
        let opened = block_in_place(|| {
            let passphrase = console::read_passphrase(file, &prompt)?;
            Ok::<_, Failure>(kit.open(&passphrase))
        })?;
        match opened {
            Ok(keys) => return Ok(keys),
            Err(FormatError::Passphrase) if attempt < attempts => {
                tracing::warn!("that is not the passphrase of this kit");
            }
            Err(FormatError::Passphrase) => break,
            Err(error) => {
                return Err(
                    Failure::failed(format!("cannot open the recovery kit {shown}"))
                        .because(error)
                        .remedy("take another copy of the kit, or its printed page"),
                );
            }
        }
    }
    Err(
        Failure::failed(format!("wrong passphrase for the recovery kit {shown}"))
            .because(format!("it was made {}", printable(&kit.created)))
            .remedy(
                "take the passphrase that was written down when this kit was made, as it was typed",
            ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use console::Exit;

    fn refused(bytes: &[u8]) -> Failure {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kit");
        std::fs::write(&path, bytes).unwrap();
        read_kit(&path).expect_err("no kit")
    }

    #[test]
    fn what_is_no_kit_is_told() {
        for bytes in [
            b"".as_slice(),
            b"{}",
            b"\x7fELF",
            br#"{"kind":"sparesite gateway key","format":1}"#,
        ] {
            let failure = refused(bytes);
            assert!(
                failure.to_string().ends_with("is no recovery kit"),
                "{failure}"
            );
            assert_eq!(failure.exit(), Exit::Failed);
        }
        let newer = refused(br#"{"kind":"sparesite recovery kit","format":2}"#);
        assert!(
            newer.to_string().starts_with("cannot use the recovery kit"),
            "{newer}"
        );
        let long = refused(&vec![b' '; MOST_KIT_BYTES as usize + 1]);
        assert!(long.to_string().ends_with("is no recovery kit"), "{long}");
    }
}
