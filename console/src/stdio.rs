//! The only writers of stdout and stderr. A progress bar on the terminal steps aside for them,
//! and a reader that went away (`| head`, a lost session) neither panics nor stops the work: what is
//! left of the output is dropped, and the exit code still tells how the work ended.

use std::{
    io::{self, ErrorKind, Write},
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use indicatif::MultiProgress;
use rustix::{
    fs::{FileType, fstat},
    io::Errno,
};
use serde::Serialize;

use crate::screen;

/// All bars on the terminal.
pub(crate) static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(screen::target()));

static GAVE_UP_BARS: AtomicBool = AtomicBool::new(false);

/// From now on nothing is drawn, and nothing waits for the bars: a fault may have come in the midst of a draw, and this
/// very thread holds their lock, or has left it poisoned.
pub(crate) fn give_up_bars() {
    GAVE_UP_BARS.store(true, Ordering::Relaxed);
}

pub(crate) fn gave_up_bars() -> bool {
    GAVE_UP_BARS.load(Ordering::Relaxed)
}

/// With the bars out of the way.
fn aside<T>(write: impl FnOnce() -> T) -> T {
    match gave_up_bars() {
        true => write(),
        false => BARS.suspend(write),
    }
}

/// How the program was asked to speak; set once by `init_logging`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    pub quiet: bool,
    /// Everything on stderr is one JSON object a line.
    pub json_lines: bool,
}

pub(crate) static MANNER: OnceLock<Manner> = OnceLock::new();

pub(crate) fn manner() -> Manner {
    MANNER.get().copied().unwrap_or_default()
}

/// Prints text for people on stdout, and ends its last line.
pub fn print(text: &str) -> anyhow::Result<()> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    to_stdout(format!("{text}{end}").as_bytes())
}

/// Prints the one JSON document of this run on stdout. A second one is refused: whoever parses
/// stdout would break on it.
pub fn print_json<T: Serialize>(document: &T) -> anyhow::Result<()> {
    static PRINTED: AtomicBool = AtomicBool::new(false);
    let text = serde_json::to_vec_pretty(document).context("cannot write the result as JSON")?;
    anyhow::ensure!(
        !PRINTED.swap(true, Ordering::Relaxed),
        "a second JSON document for stdout: this is a defect of the program, please report it"
    );
    to_stdout(&[text.as_slice(), b"\n"].concat())
}

fn to_stdout(text: &[u8]) -> anyhow::Result<()> {
    aside(|| still_read(write_all(&mut io::stdout().lock(), text), is_device))
        .context("cannot write to stdout")
}

pub(crate) fn write_all(out: &mut impl Write, text: &[u8]) -> io::Result<()> {
    out.write_all(text)?;
    out.flush()
}

/// A terminal that is gone answers as a failing disk does; it is asked for only then.
fn still_read(result: io::Result<()>, is_device: fn() -> bool) -> io::Result<()> {
    let left = |error: &io::Error| {
        error.kind() == ErrorKind::BrokenPipe
            || error.raw_os_error() == Some(Errno::IO.raw_os_error()) && is_device()
    };
    match result {
        Err(error) if left(&error) => Ok(()),
        other => other,
    }
}

/// A terminal that is gone no longer says that it is one.
fn is_device() -> bool {
    fstat(io::stdout())
        .is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::CharacterDevice)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Error,
}

/// A line (or some) on stderr; with `--log-format json` the fields instead, shaped as the logs.
/// That stderr is gone is nobody's failure.
pub(crate) fn note(level: Level, text: &str, fields: impl FnOnce() -> serde_json::Value) {
    let text = if manner().json_lines {
        json_line(level, &fields())
    } else {
        text.to_owned()
    };
    aside(|| {
        let _ = write_all(&mut io::stderr().lock(), text.as_bytes());
    });
}

fn json_line(level: Level, fields: &serde_json::Value) -> String {
    let level = match level {
        Level::Info => "INFO",
        Level::Error => "ERROR",
    };
    let now = jiff::Timestamp::now().to_string();
    format!(
        "{}\n",
        serde_json::json!({ "timestamp": now, "level": level, "fields": fields })
    )
}

/// Where the logs go: stderr, with the bars out of the way for each event.
#[derive(Debug, Default)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        aside(|| {
            let _ = write_all(&mut io::stderr().lock(), event);
        });
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Columns of the terminal behind `stream`; `None` if it is none.
pub(crate) fn columns(stream: impl rustix::fd::AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    // A serial console reports 0: it is a terminal of unknown width.
    Some(if size.ws_col == 0 {
        80
    } else {
        usize::from(size.ws_col)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_left_is_no_error_and_a_full_disk_is() {
        let gone = || Err(Errno::IO.into());
        assert!(still_read(Err(ErrorKind::BrokenPipe.into()), || false).is_ok());
        assert!(still_read(gone(), || true).is_ok());
        assert!(still_read(gone(), || false).is_err());
        assert!(still_read(Err(ErrorKind::StorageFull.into()), || true).is_err());
        assert!(still_read(Ok(()), || false).is_ok());
    }

    /// As the hook of a panic in the midst of a draw does.
    #[test]
    fn a_fault_is_told_by_who_holds_the_bars() {
        let (told, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            BARS.suspend(|| {
                give_up_bars();
                note(Level::Error, "", || serde_json::json!({}));
            });
            let _ = told.send(());
        });
        let ended = ended.recv_timeout(std::time::Duration::from_secs(20));
        assert!(ended.is_ok(), "it waits for itself");
    }

    #[test]
    fn a_second_document_is_refused() {
        assert!(print_json(&serde_json::json!({ "points": [] })).is_ok());
        let second = print_json(&1).expect_err("one document only");
        assert!(
            second.to_string().starts_with("a second JSON document"),
            "{second}"
        );
    }

    #[test]
    fn a_json_line_is_one_object_on_one_line() {
        let line = json_line(Level::Error, &serde_json::json!({ "message": "a\nb" }));
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["level"], "ERROR");
        assert_eq!(value["fields"]["message"], "a\nb");
    }
}
