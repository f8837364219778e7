//! What a guest said on its serial console, as text that is safe to keep and to show.

/// What a report keeps.
const LINES: usize = 60;
const LONGEST_LINE: usize = 240;

/// The last lines that say something, without escape sequences and control characters.
pub fn last_lines(console: &[u8]) -> Vec<String> {
    let text = printable(&String::from_utf8_lossy(console));
    let said = text.lines().map(str::trim_end).filter(|l| !l.is_empty());
    let lines = said.map(|line| match line.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    });
    let mut lines: Vec<String> = lines.collect();
    lines.split_off(lines.len().saturating_sub(LINES))
}

/// Drops escape sequences and control characters. Where the cursor was moved a line ends: firmware and boot menus
/// place their text, and would run together.
pub fn printable(console: &str) -> String {
    let mut out = String::with_capacity(console.len());
    let mut left = console.chars().peekable();
    while let Some(c) = left.next() {
        match c {
            '\x1b' => match left.next_if(|c| !c.is_control()) {
                Some('[') => out.extend(cursor_moved(&mut left)),
                // Titles and other strings for the terminal.
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut left),
                // A few choose a character set by one more.
                Some(' '..='/') => drop(left.next_if(|c| !c.is_control())),
                _ => {}
            },
            '\u{9b}' => out.extend(cursor_moved(&mut left)),
            '\n' | '\r' => out.push('\n'),
            '\t' => out.push(' '),
            c if is_harmful(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// Controls, what makes text read in another order than it is stored, and what is in no document.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Reads a control sequence to its end: a line end if it moves the cursor up, down or away, or clears.
fn cursor_moved(left: &mut Chars<'_>) -> Option<char> {
    while left.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    let end = left.next_if(|c| matches!(c, '@'..='~'))?;
    matches!(end, 'A' | 'B' | 'E' | 'F' | 'H' | 'J' | 'd' | 'f').then_some('\n')
}

/// To its terminator, or the line's end: one that is never closed must not hide the rest.
fn skip_string(left: &mut Chars<'_>) {
    while let Some(c) = left.next_if(|c| !matches!(c, '\n' | '\r')) {
        match c {
            '\x07' | '\u{9c}' => return,
            '\x1b' => {
                left.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_controls_are_dropped() {
        for (said, kept) in [
            ("\x1b[0;32m  OK  \x1b[0m] Started", "  OK  ] Started"),
            ("a\x1b[2J\x1b[1;1Hb", "a\n\nb"),
            ("\x1b]0;title\x07login:", "login:"),
            ("\x1b]0;title\x1b\\login:", "login:"),
            ("\x1b]0;never closed\nlogin:", "\nlogin:"),
            ("\x1b(B\x1b7\x1bcx", "x"),
            ("\u{9b}31mred", "red"),
            ("a\0\x08\x07\x7f\u{85}b\tc", "ab c"),
            ("x\u{202e}gpj\u{2069}", "xgpj"),
            ("\x1b", ""),
            ("\x1b[", ""),
            ("\x1b\x1b[1mx", "x"),
            ("Grüße 東京", "Grüße 東京"),
        ] {
            assert_eq!(printable(said), kept, "{said:?}");
        }
    }

    #[test]
    fn the_last_lines_are_kept_and_empty_ones_are_not() {
        let said: String = (0..100).map(|n| format!("line {n}\r\r\n\r\n")).collect();
        let lines = last_lines(said.as_bytes());
        assert_eq!(lines.len(), 60);
        assert_eq!((&*lines[0], &*lines[59]), ("line 40", "line 99"));
        assert!(last_lines(b"\n \r\n").is_empty());
        assert_eq!(last_lines(b"\xff!\n"), ["\u{fffd}!"]);
        let long = last_lines("ü".repeat(1000).as_bytes());
        assert_eq!(long[0].chars().count(), 241);
    }
}
