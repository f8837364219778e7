//! The vault's own numbers and its control log.

use super::Verification;
use super::points::KnownPoint;
use crate::StoreError;
use crate::setup::read_config;
use vault_format::names;
use vault_format::signed_json::Unverified;

impl Verification<'_> {
    /// `vault/<n>.json`: all there, and one following on the other.
    pub(super) async fn check_config(&mut self) -> Result<(), StoreError> {
        for (name, size) in self.below(names::VAULT) {
            self.read(size);
            if let Some(why) = self.signed_json_fault(&name).await? {
                self.damage(&name, why);
            }
        }
        for number in 1..=self.vault.config.number {
            let name = names::vault(number);
            if !self.listed.contains_key(&name) {
                self.damage(
                    &name,
                    "it is missing; the recovery kit has a copy of the first",
                );
            }
        }
        match read_config(&*self.objects, self.vault.config.id, None).await {
            Ok(_) => Ok(()),
            Err(e @ StoreError::OtherVault { .. }) => {
                self.damage(&names::vault(1), e.to_string());
                Ok(())
            }
            Err(StoreError::Format { name, error }) => {
                self.damage(&name, error.to_string());
                Ok(())
            }
            Err(e) if e.is_damage() => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The control log: no entry missing up to the last that any manifest heeded, none damaged. A void one that is
    /// whole was written by somebody without the right to; it is a finding already.
    pub(super) async fn check_log(&mut self, points: &[KnownPoint]) -> Result<(), StoreError> {
        let last = points
            .iter()
            .map(|p| p.log)
            .max()
            .unwrap_or(0)
            .min(self.vault.log.number + 1000);
        for number in 1..=last.max(self.vault.log.number) {
            let name = names::log(number);
            let Some(size) = self.listed.get(&name).copied() else {
                self.damage(&name, "it is missing: what it said is unknown");
                continue;
            };
            self.read(size);
            if let Some(why) = self.signed_json_fault(&name).await? {
                self.damage(&name, why);
            } else if let Some(why) = self.vault.log.void.get(&number)
                && why.starts_with("signature does not hold: the control key did not sign this")
            {
                self.damage(&name, why.clone());
            }
        }
        Ok(())
    }

    async fn signed_json_fault(&self, name: &str) -> Result<Option<String>, StoreError> {
        match self.objects.get(name).await.map_err(StoreError::from) {
            Ok(bytes) => Ok(Unverified::parse(&bytes).err().map(|e| e.to_string())),
            Err(e) if e.is_damage() => Ok(Some(e.to_string())),
            Err(e) => Err(e),
        }
    }
}
