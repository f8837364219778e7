//! How a program ends: its exit code, and the failure that decides it.

use std::{error::Error, fmt, process::ExitCode};

use crate::Finding;

/// The exit codes that scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// Wrong usage or configuration: nothing was attempted.
    Usage = 2,
    /// Done, and something was found that needs attention.
    Findings = 3,
}

impl Exit {
    /// `Done` without findings, `Findings` with some.
    pub fn of(findings: &[Finding]) -> Self {
        if findings.is_empty() {
            Exit::Done
        } else {
            Exit::Findings
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// What was attempted and on what, with its exit code, its cause and what to do about it.
/// Anything else that ends a program counts as [`Exit::Failed`] without a remedy.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    what: String,
    remedy: Option<String>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    pub fn failed(what: impl Into<String>) -> Self {
        Failure {
            exit: Exit::Failed,
            what: what.into(),
            remedy: None,
            cause: None,
        }
    }

    /// Wrong usage or configuration. Each line of `what` may be a problem of its own.
    pub fn usage(what: impl Into<String>) -> Self {
        Failure {
            exit: Exit::Usage,
            ..Failure::failed(what)
        }
    }

    /// What the reader is to do, as an imperative: `give --vault, or …`.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn remedy_text(&self) -> Option<&str> {
        self.remedy.as_deref()
    }
}

impl Failure {
    /// All of it in a line: what failed, why, and what to do.
    pub fn in_a_line(&self) -> String {
        let mut line = self.what.clone();
        let mut cause = self.source();
        while let Some(one) = cause {
            line += &format!(": {one}");
            cause = one.source();
        }
        if let Some(remedy) = &self.remedy {
            line += &format!("; {remedy}");
        }
        line.replace('\n', "; ")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// Turns any error into the cause of a [`Failure`]:
/// `open(path).or_failure(|| Failure::failed(format!("cannot open {path}")).remedy("…"))?`
pub trait OrFailure<T> {
    fn or_failure(self, failure: impl FnOnce() -> Failure) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> OrFailure<T> for Result<T, E> {
    fn or_failure(self, failure: impl FnOnce() -> Failure) -> Result<T, Failure> {
        self.map_err(|cause| failure().because(cause))
    }
}
