//! `tools/`: each version's files, against its SHA256SUMS.

use super::Verification;
use crate::StoreError;
use crate::read::ranges::get_exact;
use ring::digest::{Context, SHA256};
use std::collections::{BTreeMap, BTreeSet};
use vault_format::names;

const SUMS: &str = "SHA256SUMS";
const STEP_BYTES: u64 = 8 << 20;
/// No list of checksums is longer.
const MAX_SUMS_BYTES: u64 = 1 << 20;

impl Verification<'_> {
    pub(super) async fn check_tools(&mut self) -> Result<(), StoreError> {
        let tools = self.below(names::TOOLS);
        let folder = |name: &str| name.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        let folders: BTreeSet<String> = tools.iter().filter_map(|(name, _)| folder(name)).collect();
        for folder in folders {
            let list = format!("{folder}/{SUMS}");
            let Some(size) = self.listed.get(&list).copied() else {
                self.damage(
                    &list,
                    "it is missing, so that the tools beside it cannot be checked",
                );
                continue;
            };
            if size > MAX_SUMS_BYTES {
                self.damage(&list, "it is too long for a list of checksums");
                continue;
            }
            self.read(size);
            let text = self.objects.get(&list).await?;
            let Some(sums) = std::str::from_utf8(&text).ok().and_then(parse_sums) else {
                self.damage(&list, "it is no list of checksums");
                continue;
            };
            for (file, sum) in &sums {
                self.check_tool(&format!("{folder}/{file}"), sum).await?;
            }
            for (name, _) in tools
                .iter()
                .filter(|(name, _)| name.rsplit_once('/').is_some_and(|(f, _)| f == folder))
            {
                let file = &name[folder.len() + 1..];
                if file != SUMS && !sums.contains_key(file) {
                    self.report
                        .findings
                        .push(format!("{name} is not named in {list}; it was not checked"));
                }
            }
        }
        Ok(())
    }

    async fn check_tool(&mut self, name: &str, sum: &str) -> Result<(), StoreError> {
        let Some(size) = self.listed.get(name).copied() else {
            self.damage(name, "it is missing");
            return Ok(());
        };
        let mut context = Context::new(&SHA256);
        let mut at = 0;
        while at < size {
            let end = size.min(at + STEP_BYTES);
            context.update(&get_exact(&*self.objects, name, at..end).await?);
            self.read(end - at);
            at = end;
        }
        let found: String = context
            .finish()
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if found != sum {
            self.damage(name, "its SHA-256 is not the one in SHA256SUMS");
        }
        Ok(())
    }
}

/// Lines of `<64 hex>  <file>`, as `sha256sum` writes them.
fn parse_sums(text: &str) -> Option<BTreeMap<String, String>> {
    let line = |line: &str| {
        let (sum, file) = line.split_once(' ')?;
        let file = file.strip_prefix([' ', '*'])?;
        let hex = sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit());
        (hex && !file.is_empty()).then(|| (file.to_owned(), sum.to_ascii_lowercase()))
    };
    text.lines().filter(|l| !l.is_empty()).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_lists_are_read_as_sha256sum_writes_them() {
        let sum = "ab".repeat(32);
        let sums = parse_sums(&format!("{sum}  one\n{sum} *two-2.md\n")).unwrap();
        assert_eq!(sums.keys().collect::<Vec<_>>(), ["one", "two-2.md"]);
        for wrong in [
            "xyz  file".to_owned(),
            sum.clone(),
            format!("{sum}  "),
            format!("{sum}file"),
        ] {
            assert_eq!(parse_sums(&wrong), None, "{wrong}");
        }
    }
}
