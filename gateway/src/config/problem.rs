//! What is wrong in the file, and where.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::section::Section;

/// Everything that is wrong with a configuration file, in the order of the file. Prints one
/// `FILE:LINE:COLUMN: …` line each; a line that is not TOML is shown below.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    file: PathBuf,
    problems: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    /// Line and column, from 1; `None` where it concerns the file as a whole.
    at: Option<(usize, usize)>,
    text: String,
    offending_line: Option<String>,
}

impl ConfigError {
    pub(super) fn unreadable(file: &Path, why: String) -> Self {
        let text = format!("cannot read the configuration: {why}; name it with --config FILE");
        let problems = vec![Problem {
            at: None,
            text,
            offending_line: None,
        }];
        ConfigError {
            file: file.to_owned(),
            problems,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (place, problem) in self.problems.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some((line, column)) = problem.at {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {}", problem.text)?;
            if let (Some(offending), Some((line, column))) = (&problem.offending_line, problem.at) {
                let margin = " ".repeat(line.to_string().len());
                let caret = " ".repeat(column - 1);
                write!(f, "\n  {line} | {offending}\n  {margin} | {caret}^")?;
            }
        }
        Ok(())
    }
}

/// Problems found so far, at byte offsets of the text.
#[derive(Default)]
pub(super) struct Notes {
    found: Vec<(Option<usize>, String)>,
}

impl Notes {
    pub fn at(&mut self, span: &Range<usize>, text: impl Into<String>) {
        self.found.push((Some(span.start), text.into()));
    }

    /// Something that has no place because it is missing altogether.
    pub fn missing(&mut self, text: impl Into<String>) {
        self.found.push((None, text.into()));
    }
}

/// Runs `read` over the text; its value counts only if there was nothing to note.
pub(super) fn collect<T>(
    text: &str,
    file: &Path,
    read: impl FnOnce(&Section, &mut Notes) -> Option<T>,
) -> Result<T, ConfigError> {
    let fail = |problems| {
        Err(ConfigError {
            file: file.to_owned(),
            problems,
        })
    };
    let (root, broken) = DeTable::parse_recoverable(text);
    if !broken.is_empty() {
        // What was read around a syntax error would only raise complaints that follow from it.
        return fail(broken.iter().map(|error| syntax(text, error)).collect());
    }
    let mut notes = Notes::default();
    let value = read(&Section::root(root.get_ref()), &mut notes);
    match value {
        Some(value) if notes.found.is_empty() => Ok(value),
        _ => {
            notes
                .found
                .sort_by_key(|(offset, _)| offset.unwrap_or(usize::MAX));
            notes.found.dedup();
            let placed = notes.found.into_iter().map(|(offset, note)| Problem {
                at: offset.map(|offset| line_and_column(text, offset)),
                text: note,
                offending_line: None,
            });
            fail(placed.collect())
        }
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let at = line_and_column(text, error.span().map_or(text.len(), |span| span.start));
    // A tab counts as one column, and is shown as one, so that the caret stands right.
    let line = text
        .lines()
        .nth(at.0 - 1)
        .unwrap_or_default()
        .replace('\t', " ");
    let offending_line = (at.1 <= 200).then(|| line.chars().take(200).collect());
    Problem {
        at: Some(at),
        text: error.message().replace('\n', ", "),
        offending_line,
    }
}

/// Both from 1; columns are characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let start = before
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |end| end + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    (
        line,
        String::from_utf8_lossy(&before[start..]).chars().count() + 1,
    )
}
