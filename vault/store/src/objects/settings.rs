//! Where settings come from: the options first, then the process's environment.

use std::collections::BTreeMap;

/// Environment variables under their own names, some of them overridden.
#[derive(Clone, Default)]
pub(super) struct Settings {
    overrides: BTreeMap<String, String>,
    environment: bool,
}

impl Settings {
    pub(super) fn new(overrides: BTreeMap<String, String>, environment: bool) -> Self {
        Self {
            overrides,
            environment,
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        let overridden = self.overrides.get(name).cloned();
        let value = overridden.or_else(|| match self.environment {
            true => std::env::var(name).ok(),
            false => None,
        });
        value.filter(|value| !value.is_empty())
    }

    /// The value of an override alone.
    pub(super) fn overridden(&self, name: &str) -> Option<String> {
        self.overrides.get(name).cloned()
    }

    pub(super) fn environment(&self) -> bool {
        self.environment
    }

    /// All settings whose name begins so; overrides come last and win.
    pub(super) fn with_prefix(&self, prefix: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        if self.environment {
            let all = std::env::vars_os();
            found.extend(
                all.filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
            );
        }
        found.extend(self.overrides.clone());
        found.retain(|(name, value)| name.starts_with(prefix) && !value.is_empty());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_stand_over_the_environment_and_can_stand_alone() {
        let over = BTreeMap::from([("PATH".to_owned(), "mine".to_owned())]);
        let both = Settings::new(over.clone(), true);
        assert_eq!(both.get("PATH").as_deref(), Some("mine"));
        assert_eq!(both.with_prefix("PATH").last().unwrap().1, "mine");
        assert!(Settings::new(BTreeMap::new(), true).get("PATH").is_some());
        assert_eq!(Settings::new(BTreeMap::new(), false).get("PATH"), None);
    }
}
