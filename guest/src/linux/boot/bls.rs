//! Boot entries as files, by the Boot Loader Specification (uapi-group.org, type #1): what RHEL 8 and later, Fedora and
//! systemd-boot have; and grubenv, which names the default.

use std::{cmp::Ordering, collections::BTreeMap};

use super::grub_run::OutsideEntry;
use crate::linux::tree::Tree;

/// One entry of a menu has at most so many.
const ENTRIES: usize = 200;

/// grubenv: 1,024 bytes of `name=value` lines, filled up with `#` (GRUB manual, 14.2).
pub fn environment(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs
        .take(ENTRIES)
        .map(|(name, value)| (name.to_owned(), value.replace("\\\\", "\\")))
        .collect()
}

fn entry(id: &str, text: &str) -> Option<OutsideEntry> {
    let mut entry = OutsideEntry {
        id: id.to_owned(),
        title: id.to_owned(),
        kernel: String::new(),
        initrds: Vec::new(),
        options: String::new(),
    };
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
    {
        let Some((key, value)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let value = value.trim();
        match key {
            "title" => entry.title = value.to_owned(),
            "linux" => entry.kernel = value.to_owned(),
            // grub2 appends $tuned_initrd, which is empty as a rule.
            "initrd" => {
                let paths = value
                    .split_ascii_whitespace()
                    .filter(|path| !path.starts_with('$'));
                let room = ENTRIES.saturating_sub(entry.initrds.len());
                entry.initrds.extend(paths.take(room).map(str::to_owned));
            }
            "options" => {
                if !entry.options.is_empty() {
                    entry.options.push(' ');
                }
                entry.options.push_str(value);
            }
            _ => {}
        }
    }
    (!entry.kernel.is_empty()).then_some(entry)
}

/// The entries of a folder, the newest first: in the order of GRUB's menu.
pub fn entries(tree: &Tree<'_>, folder: &str) -> Vec<OutsideEntry> {
    let mut paths = tree.files(folder, ".conf");
    paths.truncate(ENTRIES);
    let named = paths.iter().filter_map(|path| {
        let name = path.rsplit('/').next()?.strip_suffix(".conf")?;
        entry(name, &tree.text(path)?)
    });
    let mut entries: Vec<_> = named.collect();
    entries.sort_by(|one, other| compare(&other.id, &one.id));
    entries
}

/// As rpm compares versions: runs of digits by their number, runs of letters by themselves, a digit above a letter.
pub fn compare(one: &str, other: &str) -> Ordering {
    fn run(text: &str) -> Option<(&str, &str)> {
        let text = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let digits = text.starts_with(|c: char| c.is_ascii_digit());
        let same = |c: char| c.is_ascii_alphanumeric() && c.is_ascii_digit() == digits;
        let end = text.find(|c| !same(c)).unwrap_or(text.len());
        (end > 0).then(|| text.split_at(end))
    }
    let (mut one, mut other) = (one, other);
    loop {
        let (first, second) = match (run(one), run(other)) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some((first, rest)), Some((second, others))) => {
                (one, other) = (rest, others);
                (first, second)
            }
        };
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = match (digits(first), digits(second)) {
            (true, true) => {
                let (first, second) = (
                    first.trim_start_matches('0'),
                    second.trim_start_matches('0'),
                );
                first.len().cmp(&second.len()).then(first.cmp(second))
            }
            (first_is, second_is) if first_is != second_is => first_is.cmp(&second_is),
            _ => first.cmp(second),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The entry that systemd-boot takes by itself: loader.conf's `default`, which may be a pattern; else the newest.
pub fn systemd_default<'a>(loader: &str, entries: &'a [OutsideEntry]) -> Option<&'a OutsideEntry> {
    let lines = loader.lines().map(str::trim);
    let mut defaults = lines.filter_map(|line| {
        line.strip_prefix("default")?
            .strip_prefix(char::is_whitespace)
    });
    let wanted = defaults
        .next()
        .map_or("", str::trim)
        .trim_end_matches(".conf");
    let named = |entry: &&OutsideEntry| match wanted.split_once('*') {
        Some((head, tail)) => {
            entry.id.starts_with(head) && entry.id.ends_with(tail.trim_matches('*'))
        }
        None => entry.id == wanted,
    };
    entries.iter().find(named).or(entries.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_rpm_does() {
        let mut ids = [
            "a-5.14.0-70.el9",
            "a-5.14.0-427.13.1.el9_4",
            "a-5.14.0-427.el9",
            "a-0-rescue",
        ];
        ids.sort_by(|one, other| compare(other, one));
        assert_eq!(
            ids,
            [
                "a-5.14.0-427.13.1.el9_4",
                "a-5.14.0-427.el9",
                "a-5.14.0-70.el9",
                "a-0-rescue"
            ]
        );
    }

    #[test]
    fn an_entry_is_parsed() {
        let text = "title Rocky\nversion 5\nlinux /vmlinuz-5\ninitrd /initramfs-5.img $tuned_initrd\noptions root=UUID=1 ro\noptions quiet\n";
        let entry = entry("x", text).expect("an entry");
        assert_eq!(
            (entry.kernel.as_str(), entry.options.as_str()),
            ("/vmlinuz-5", "root=UUID=1 ro quiet")
        );
        assert_eq!(entry.initrds, ["/initramfs-5.img"]);
        let all = [entry];
        assert!(systemd_default("timeout 3\ndefault x*\n", &all).is_some());
        assert!(systemd_default("default none.conf\n", &all).is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(one in "(?s).{0,60}", other in "[-.0-9a-zé]{0,30}") {
            let _ = (entry(&one, &one), environment(&one), compare(&one, &other), compare(&other, &other));
        }
    }
}
