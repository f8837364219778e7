//! One run of a program, and what every run must keep to.

use std::process::{Command, Stdio};

use serde_json::Value;

/// What a run left: its exit code and what it said.
#[derive(Debug)]
pub struct Run {
    /// As a user would have typed it.
    pub line: String,
    /// `None`: a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        command.stdin(Stdio::null());
        let line = line_of(command);
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("{line}: cannot be started: {error}"));
        Self::from_output(line, &output)
    }

    pub fn from_output(line: String, output: &std::process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let run = Run {
            line,
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        // Whatever was asked of it, a program of ours never answers with these.
        for word in [
            "panicked",
            "internal fault",
            "stack backtrace",
            "RUST_BACKTRACE",
        ] {
            assert!(!run.said().contains(word), "{word}: {run}");
        }
        run
    }

    fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code of {self}");
        self
    }

    /// Done, without findings.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Every word is in what it said, whatever the case of its first letter.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        let said = self.said();
        for word in words {
            assert!(
                said.contains(word),
                "{word:?} is not in what this said: {self}"
            );
        }
        self
    }

    /// The one document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not one JSON document ({error}): {self}"))
    }

    /// The `what` of all findings in the document, those of VMs too.
    #[track_caller]
    pub fn findings(&self) -> Vec<String> {
        let document = self.json();
        let vms = document["vms"].as_array().cloned().unwrap_or_default();
        let lists = std::iter::once(&document).chain(&vms);
        let found = lists
            .filter_map(|part| part["findings"].as_array())
            .flatten();
        found.map(|finding| finding["what"].to_string()).collect()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (line, code) = (&self.line, self.code);
        write!(
            f,
            "`{line}`\nexit code {code:?}\nstdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        )
    }
}

pub(crate) fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
