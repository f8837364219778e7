//! The terminal as the bars see it. indicatif takes a draw that fails for a defect and panics with its lock held; here
//! a terminal that is gone (a lost session) only shows nothing.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use indicatif::{ProgressDrawTarget, TermLike};

use crate::stdio;

/// As often as indicatif does by itself.
const MOST_PER_SECOND: u8 = 20;
/// Where the terminal does not tell, or is gone.
const USUAL: (u16, u16) = (24, 80);

/// Stderr, where it is a terminal that can draw.
pub(crate) fn target() -> ProgressDrawTarget {
    // Asked of indicatif, which knows `TERM=dumb` too.
    match ProgressDrawTarget::stderr().is_hidden() {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::term_like_with_hz(Box::<Screen>::default(), MOST_PER_SECOND),
    }
}

/// A draw is put together, and written at its end.
#[derive(Debug, Default)]
struct Screen {
    draw: Mutex<Vec<u8>>,
}

impl Screen {
    fn draw(&self) -> MutexGuard<'_, Vec<u8>> {
        self.draw.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, text: &str) -> io::Result<()> {
        self.draw().extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn move_cursor(&self, n: usize, direction: char) -> io::Result<()> {
        match n {
            // To a terminal, 0 is 1.
            0 => Ok(()),
            n => self.add(&format!("\x1b[{n}{direction}")),
        }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        let columns = stdio::columns(io::stderr());
        columns.map_or(USUAL.1, |columns| columns.try_into().unwrap_or(u16::MAX))
    }

    fn height(&self) -> u16 {
        let size = rustix::termios::tcgetwinsize(io::stderr());
        size.map_or(USUAL.0, |size| match size.ws_row {
            0 => USUAL.0,
            rows => rows,
        })
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.add(s)?;
        self.add("\n")
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.add(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    /// Never an error: see above.
    fn flush(&self) -> io::Result<()> {
        let draw = std::mem::take(&mut *self.draw());
        if !stdio::gave_up_bars() {
            let _ = stdio::write_all(&mut io::stderr().lock(), &draw);
        }
        Ok(())
    }
}
