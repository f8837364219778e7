//! `targets`: the clouds and hypervisors that the guests shall boot in, which preflight judges them for.

use guest_inspection::judge::Target;

use super::{
    nearest::nearest,
    problem::Notes,
    section::{self, Section},
};

const WORDS: [(&str, Target); 3] = [
    ("aws", Target::Aws),
    ("azure", Target::Azure),
    ("qemu", Target::Qemu),
];

/// As it is written in the file.
pub fn word(target: Target) -> &'static str {
    match target {
        Target::Aws => "aws",
        Target::Azure => "azure",
        Target::Qemu => "qemu",
    }
}

/// In the order of the file.
pub(super) fn read(root: &Section, notes: &mut Notes) -> Vec<Target> {
    let mut targets = Vec::new();
    let Some(value) = root.get("targets") else {
        return targets;
    };
    for entry in section::list("`targets`", value, notes) {
        let Some(given) = section::text("a target of `targets`", entry, notes) else {
            continue;
        };
        let Some((_, target)) = WORDS.iter().find(|(word, _)| *word == given) else {
            let meant = match nearest(given, WORDS.map(|(word, _)| word)) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => "known are \"aws\", \"azure\", \"qemu\"".to_owned(),
            };
            let note = format!("`targets` lists {given:?}, which is none: {meant}");
            notes.at(&entry.span(), note);
            continue;
        };
        if targets.contains(target) {
            notes.at(&entry.span(), format!("`targets` lists {given:?} twice"));
            continue;
        }
        targets.push(*target);
    }
    targets
}
