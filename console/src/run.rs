//! The outermost frame of both programs: runs, reports a failure on stderr, gives the exit code.

use std::{
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
};

use crate::{
    Exit, Failure,
    show::printable,
    stdio::{self, Level},
};

/// Runs a program. A failure is printed to stderr as `error: …` lines with its causes and its
/// remedy; a panic as one `error:` line. Never a backtrace.
pub fn run(program: impl FnOnce() -> anyhow::Result<Exit>) -> ExitCode {
    panic::set_hook(Box::new(|fault| {
        stdio::give_up_bars();
        let place = fault
            .location()
            .map(|at| format!(" at {}:{}", at.file(), at.line()));
        let text = fault.payload_as_str().unwrap_or("no message");
        report(&Report {
            what: format!("internal fault{}: {text}", place.unwrap_or_default()),
            causes: Vec::new(),
            remedy: Some("this is a defect of the program: please report this line".into()),
        });
    }));
    match panic::catch_unwind(AssertUnwindSafe(program)) {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(error)) => {
            report(&Report::of(&error));
            exit_of(&error).into()
        }
        Err(_already_reported) => Exit::Failed.into(),
    }
}

/// The outermost [`Failure`] in the chain decides.
fn failure_in(error: &anyhow::Error) -> Option<&Failure> {
    error
        .downcast_ref()
        .or_else(|| error.chain().find_map(|cause| cause.downcast_ref()))
}

fn exit_of(error: &anyhow::Error) -> Exit {
    failure_in(error).map_or(Exit::Failed, Failure::exit)
}

#[derive(Debug, PartialEq, Eq)]
struct Report {
    what: String,
    causes: Vec<String>,
    remedy: Option<String>,
}

impl Report {
    /// Many errors repeat their source in their own text: a cause is told only if nothing
    /// before it said it.
    fn of(error: &anyhow::Error) -> Self {
        let what = error.to_string();
        let mut told = what.clone();
        let mut causes = Vec::new();
        for cause in error.chain().skip(1).map(|cause| cause.to_string()) {
            if cause.trim().is_empty() || told.contains(&cause) {
                continue;
            }
            // `cause: its own cause` after `what: cause` tells the new part only once.
            told.push('\n');
            told.push_str(&cause);
            causes.push(cause);
        }
        let remedies = error
            .downcast_ref::<Failure>()
            .into_iter()
            .chain(
                error
                    .chain()
                    .filter_map(|cause| cause.downcast_ref::<Failure>()),
            )
            .find_map(Failure::remedy_text);
        let remedy = remedies
            .filter(|remedy| !told.contains(remedy))
            .map(Into::into);
        Report {
            what,
            causes,
            remedy,
        }
    }

    /// Each line of the message is an `error:` of its own, but for those that illustrate the
    /// one before (indented).
    fn text(&self) -> String {
        let mut text = String::new();
        let mut push = |prefix: &str, line: &str| {
            text.push_str(prefix);
            text.push_str(&printable(line));
            text.push('\n');
        };
        for line in self.what.lines().filter(|line| !line.trim().is_empty()) {
            push(if line.starts_with(' ') { "" } else { "error: " }, line);
        }
        for cause in &self.causes {
            push("  cause: ", &cause.trim_end().replace('\n', "\n    "));
        }
        if let Some(remedy) = &self.remedy {
            push("  remedy: ", remedy);
        }
        text
    }
}

fn report(report: &Report) {
    stdio::note(Level::Error, &report.text(), || {
        serde_json::json!({
            "message": report.what, "causes": report.causes, "remedy": report.remedy
        })
    });
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::{Context, anyhow};

    use super::*;
    use crate::OrFailure;

    fn refused() -> io::Error {
        io::Error::new(io::ErrorKind::PermissionDenied, "permission denied")
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read /k: {source}")]
    struct Repeats {
        source: io::Error,
    }

    #[test]
    fn a_failure_tells_what_cause_and_remedy_once_each() {
        let error: anyhow::Error = Err::<(), _>(Repeats { source: refused() })
            .or_failure(|| Failure::usage("no usable gateway key").remedy("run as root"))
            .expect_err("fails")
            .into();
        assert_eq!(
            Report::of(&error).text(),
            "error: no usable gateway key\n  cause: cannot read /k: permission denied\n  \
             remedy: run as root\n"
        );
        assert_eq!(exit_of(&error), Exit::Usage);
    }

    #[test]
    fn a_failure_is_found_under_context_and_as_context() {
        let under = anyhow::Error::from(Failure::usage("bad url").remedy("use s3://"))
            .context("cannot open the vault");
        assert_eq!(exit_of(&under), Exit::Usage);
        assert_eq!(
            Report::of(&under).text(),
            "error: cannot open the vault\n  cause: bad url\n  remedy: use s3://\n"
        );
        let above = Err::<(), _>(refused())
            .context(Failure::usage("x"))
            .expect_err("fails");
        assert_eq!(exit_of(&above), Exit::Usage);
        assert_eq!(exit_of(&anyhow!("plain")), Exit::Failed);
    }

    #[test]
    fn each_problem_is_a_line_and_escapes_are_harmless() {
        let error = anyhow!("a.toml:1:1: bad\n  1 | x\n    | ^\na.toml:2:1: \x1b[31mworse\n");
        assert_eq!(
            Report::of(&error).text(),
            "error: a.toml:1:1: bad\n  1 | x\n    | ^\nerror: a.toml:2:1: \\u{1b}[31mworse\n"
        );
    }

    #[test]
    fn a_remedy_that_the_text_already_gives_is_not_repeated() {
        let error = anyhow::Error::from(Failure::failed("it broke: mend it").remedy("mend it"));
        assert_eq!(Report::of(&error).text(), "error: it broke: mend it\n");
    }
}
