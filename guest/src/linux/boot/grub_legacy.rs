//! GRUB before version 2, as RHEL 6 and SLES 11 have it: grub.conf or menu.lst (GRUB Legacy manual, 13).

use super::grub_run::{Root, Start};

/// Entries that are read.
const ENTRIES: usize = 1000;

/// What is started by itself, and how many entries there are. A default that is saved on the disk counts as the first.
pub fn parse(text: &str) -> (Option<Start>, usize) {
    let mut default = 0;
    let mut root = Root::default();
    let mut entries: Vec<Start> = Vec::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
    {
        let end = line
            .find(|c: char| c == '=' || c.is_whitespace())
            .unwrap_or(line.len());
        let (key, value) = line.split_at(end);
        let value = value.trim_start_matches(['=', ' ', '\t']).trim();
        let full = entries.len() >= ENTRIES;
        match (key, entries.last_mut()) {
            ("default", _) => default = value.parse().unwrap_or(0),
            ("title", _) if !full => entries.push(Start {
                title: Some(value.to_owned()),
                root: root.clone(),
                ..Start::default()
            }),
            ("root" | "rootnoverify", None) => root.device = device(value),
            ("root" | "rootnoverify", Some(entry)) => entry.root.device = device(value),
            ("kernel", Some(entry)) => {
                let mut words = value
                    .split_ascii_whitespace()
                    .filter(|word| !word.starts_with("--"));
                entry.kernel = words.next().map(str::to_owned);
                entry.command_line = words.collect::<Vec<_>>().join(" ");
            }
            ("initrd", Some(entry)) => entry.initrds = vec![value.to_owned()],
            ("chainloader", Some(entry)) => entry.chain = Some(value.to_owned()),
            _ => {}
        }
    }
    let count = entries.len();
    let index: usize = if default < count { default } else { 0 };
    let entry = (count > 0).then(|| entries.swap_remove(index));
    (
        entry.filter(|entry| entry.kernel.is_some() || entry.chain.is_some()),
        count,
    )
}

/// `(hd0,0)` counts partitions from 0; as GRUB 2 writes it, that is `hd0,1`.
fn device(value: &str) -> Option<String> {
    let inner = value.strip_prefix('(')?.split(')').next()?;
    let (disk, partition) = inner.split_once(',')?;
    let partition: u32 = partition.parse().ok()?;
    Some(format!("{disk},{}", partition.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_entry() {
        let text = "default=1\ntimeout=5\ntitle One\n root (hd0,0)\n kernel /vmlinuz-1 ro\ntitle CentOS (2.6.32)\n\troot (hd0,0)\n\tkernel /vmlinuz-2.6.32 ro root=/dev/mapper/vg-root console=ttyS0\n\tinitrd /initramfs-2.6.32.img\n";
        let (start, count) = parse(text);
        let start = start.expect("an entry");
        assert_eq!(
            (start.kernel.as_deref(), count),
            (Some("/vmlinuz-2.6.32"), 2)
        );
        assert_eq!(
            start.command_line,
            "ro root=/dev/mapper/vg-root console=ttyS0"
        );
        assert_eq!(start.root.device.as_deref(), Some("hd0,1"));
        assert_eq!(start.initrds, ["/initramfs-2.6.32.img"]);
        assert_eq!(
            parse("title Windows\nrootnoverify (hd0,0)\nchainloader +1\n")
                .0
                .and_then(|s| s.chain)
                .as_deref(),
            Some("+1")
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed(text in "(?s).{0,100}", words in "(default|title|root|kernel|initrd|=|\n| |é|\\(hd0,0\\)){0,40}") {
            let _ = (parse(&text), parse(&words));
        }
    }
}
