//! Names of policies, VMs, hosts and groups: what they are made of, and each used once.

use super::{
    problem::Notes,
    section::{self, Section},
};

/// Why a text is no name, if it is none. Names become file names and parts of `VM@POINT`.
pub(super) fn not_a_name(name: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match name {
        _ if name.len() > 64 => Some("a name has at most 64 characters"),
        _ if !name.bytes().all(allowed) => {
            Some("a name is made of A-Z, a-z, 0-9, `.`, `_` and `-`")
        }
        // Nor `.` and `..`; and no argument of a command reads as an option.
        _ if name.starts_with(['.', '-']) => Some("a name does not begin with `.` or `-`"),
        _ => None,
    }
}

/// The names of one kind, each to be used once. Case does not tell two apart: restored on a file
/// system that ignores it, one would overwrite the other.
pub(super) struct Names {
    kind: &'static str,
    taken: Vec<(String, String)>,
}

impl Names {
    pub fn new(kind: &'static str) -> Self {
        Names {
            kind,
            taken: Vec::new(),
        }
    }

    /// As written, in the order of the file.
    pub fn all(self) -> Vec<String> {
        self.taken.into_iter().map(|(name, _)| name).collect()
    }

    /// Reads `name`, and calls the section by it from then on.
    pub fn read(&mut self, section: &mut Section, notes: &mut Notes) -> Option<String> {
        let value = section.required("name", "name = \"NAME\"", notes)?;
        let name = section::text(&section.called("name"), value, notes)?;
        section.rename(format!("{} {name:?}", self.kind));
        if let Some(why) = not_a_name(name) {
            notes.at(
                &value.span(),
                format!("{name:?} is no name for a {}: {why}", self.kind),
            );
            return None;
        }
        let folded = name.to_ascii_lowercase();
        if let Some((first, _)) = self.taken.iter().find(|(_, taken)| *taken == folded) {
            let note = match first == name {
                true => format!("a second {} {name:?}: give each its own name", self.kind),
                false => format!(
                    "{} {name:?} differs from {first:?} by case only: give it another name",
                    self.kind
                ),
            };
            notes.at(&value.span(), note);
            return None;
        }
        self.taken.push((name.to_owned(), folded));
        Some(name.to_owned())
    }
}
