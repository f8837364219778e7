//! What the store reports, as failures for people: what was attempted, why it failed, what to do.

use console::Failure;
use vault_format::FormatError;
use vault_store::StoreError;

/// Most of the store's errors carry their remedy; this adds what was attempted, and the remedy
/// where only this program knows it.
pub fn attempting(attempt: impl Into<String>) -> impl FnOnce(StoreError) -> Failure {
    let attempt = attempt.into();
    move |error| {
        let failure = match &error {
            StoreError::NoSuchVm { .. } | StoreError::NoSuchPoint { .. } => {
                return Failure::failed(error.to_string())
                    .remedy("name one of those; `sparesite-restore points` lists them all");
            }
            StoreError::Format {
                name,
                error: FormatError::Unknown { what, found },
            } => return newer(attempt, name, what, found),
            StoreError::Format { .. } | StoreError::LostChunk { .. } => {
                Failure::failed(attempt).remedy(
                    "choose another recovery point; `sparesite-restore verify` tells which are whole",
                )
            }
            StoreError::OtherVault { .. } => {
                Failure::failed(attempt).remedy("check the vault URL, and take the kit of this vault")
            }
            _ => Failure::failed(attempt),
        };
        failure.because(error)
    }
}

fn newer(attempt: String, name: &str, what: &str, found: &str) -> Failure {
    Failure::failed(attempt)
        .because(format!(
            "object {name}: {what} {found} is unknown to this version, {}",
            env!("CARGO_PKG_VERSION")
        ))
        .remedy("get a newer sparesite-restore; the newest that this site used is in the vault, under tools/")
}
