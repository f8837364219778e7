//! extlinux and syslinux: `DEFAULT`, `LABEL`, `KERNEL`, `INITRD`, `APPEND` (wiki.syslinux.org, "Config").

use super::grub_run::Start;

/// Labels that are read.
const LABELS: usize = 1000;

#[derive(Default)]
struct Label {
    name: String,
    default: bool,
    start: Start,
}

/// What is started by itself, and how many labels there are.
pub fn parse(text: &str) -> (Option<Start>, usize) {
    let mut default = String::new();
    let mut labels: Vec<Label> = Vec::new();
    for line in text.lines().map(str::trim) {
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        let key = key.to_ascii_lowercase();
        if key == "label" && labels.len() < LABELS {
            labels.push(Label {
                name: value.to_owned(),
                ..Label::default()
            });
            continue;
        }
        match (key.as_str(), labels.last_mut()) {
            // `DEFAULT` and `ONTIMEOUT` stand before the labels or after them.
            ("default" | "ontimeout", _) => default = value.to_owned(),
            ("menu", Some(label)) if value.eq_ignore_ascii_case("default") => label.default = true,
            ("menu", Some(label)) => {
                let title = value.split_once(char::is_whitespace);
                let title = title.filter(|(word, _)| word.eq_ignore_ascii_case("label"));
                if let Some((_, title)) = title {
                    label.start.title = Some(title.trim().to_owned());
                }
            }
            ("kernel" | "linux", Some(label)) => label.start.kernel = Some(value.to_owned()),
            ("initrd", Some(label)) => label.start.initrds = list(value),
            ("append", Some(label)) => {
                let (initrd, options): (Vec<&str>, Vec<&str>) = value
                    .split_ascii_whitespace()
                    .partition(|word| word.starts_with("initrd="));
                if let Some(paths) = initrd.last() {
                    label.start.initrds = list(&paths["initrd=".len()..]);
                }
                label.start.command_line = options.join(" ");
            }
            _ => {}
        }
    }
    let count = labels.len();
    let named = labels
        .iter()
        .position(|label| label.name.eq_ignore_ascii_case(&default));
    let marked = labels.iter().position(|label| label.default);
    let Some(index) = marked.or(named).or((count > 0).then_some(0)) else {
        return (None, 0);
    };
    let label = labels.swap_remove(index);
    let started = label.start.kernel.is_some().then(|| Start {
        title: label.start.title.clone().or(Some(label.name)),
        ..label.start
    });
    (started, count)
}

fn list(paths: &str) -> Vec<String> {
    let paths = paths.split(',').filter(|path| !path.is_empty());
    paths.take(100).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_label() {
        let text = "DEFAULT l1\nTIMEOUT 30\nLABEL l0\n LINUX ../vmlinuz-old\nLABEL l1\n  MENU LABEL Debian\n  LINUX ../vmlinuz\n  INITRD ../initrd.img\n  APPEND root=UUID=1 ro\n";
        let (start, count) = parse(text);
        let start = start.expect("a start");
        assert_eq!((start.kernel.as_deref(), count), (Some("../vmlinuz"), 2));
        assert_eq!(start.initrds, ["../initrd.img"]);
        assert_eq!(start.title.as_deref(), Some("Debian"));
        let (start, _) = parse("label a\nkernel /k\nappend initrd=/i.img root=/dev/sda1\n");
        let start = start.expect("a start");
        assert_eq!(
            (start.initrds, start.command_line),
            (vec!["/i.img".to_owned()], "root=/dev/sda1".to_owned())
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed(text in "(?s).{0,100}", words in "(label|menu|default|append|kernel|initrd=|initrd|\n| |é){0,40}") {
            let _ = (parse(&text), parse(&words));
        }
    }
}
