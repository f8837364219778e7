//! Reading the passphrase of a recovery kit: from a file, or from the terminal without echo.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use zeroize::Zeroizing;

use crate::{Failure, OrFailure};

/// Longer than any passphrase; what is longer is some other file.
const MOST_BYTES: usize = 4096;

/// The passphrase in `file`, without the end of its line; prompts on the terminal if there is no
/// file.
pub fn read_passphrase(file: Option<&Path>, prompt: &str) -> Result<Zeroizing<String>, Failure> {
    match file {
        Some(path) => from_file(path),
        None => from_terminal(prompt),
    }
}

/// A new passphrase: asked twice on the terminal, so that a slip of the fingers is noticed before
/// it locks a kit.
pub fn read_new_passphrase(
    file: Option<&Path>,
    prompt: &str,
) -> Result<Zeroizing<String>, Failure> {
    let first = read_passphrase(file, prompt)?;
    if file.is_none() && *from_terminal("The same again: ")? != *first {
        return Err(Failure::failed("the two passphrases differ").remedy("run the command again"));
    }
    Ok(first)
}

fn from_terminal(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let typed = rpassword::prompt_password(prompt).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "no passphrase was entered",
            _ => "there is no terminal to ask for the passphrase on",
        };
        Failure::usage(why)
            .because(error)
            .remedy("give --passphrase-file FILE, or run the command in a terminal")
    })?;
    not_empty(Zeroizing::new(typed), "the passphrase that was entered")
}

fn from_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let shown = path.display();
    let unreadable = || {
        Failure::usage(format!("cannot read the passphrase file {shown}"))
            .remedy("name a file that holds the passphrase on one line")
    };
    let mut file = File::open(path).or_failure(unreadable)?;
    if file
        .metadata()
        .is_ok_and(|about| about.is_file() && about.mode() & 0o004 != 0)
    {
        tracing::warn!("everyone on this machine can read {shown}: chmod 600 it");
    }
    // Reserved in full, so that growing leaves no copy of the passphrase behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES + 1));
    // `take`, not the size in the metadata: a pipe (`<(pass show …)`) has none.
    file.by_ref()
        .take(MOST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .or_failure(unreadable)?;
    if bytes.len() > MOST_BYTES {
        return Err(unreadable().because(format!("it is longer than {MOST_BYTES} bytes")));
    }
    let text = std::str::from_utf8(&bytes).or_failure(unreadable)?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains(['\n', '\0']) {
        return Err(unreadable().because("it holds more than one line"));
    }
    not_empty(
        Zeroizing::new(line.to_owned()),
        &format!("the passphrase file {shown}"),
    )
}

fn not_empty(passphrase: Zeroizing<String>, from: &str) -> Result<Zeroizing<String>, Failure> {
    match passphrase.is_empty() {
        true => Err(Failure::usage(format!("{from} is empty"))),
        false => Ok(passphrase),
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, fs};

    use super::*;

    fn read(content: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("passphrase");
        fs::write(&path, content).expect("written");
        let told = |failure: Failure| match failure.source() {
            Some(cause) => cause.to_string(),
            None => failure
                .to_string()
                .replace(&path.display().to_string(), "F"),
        };
        read_passphrase(Some(&path), "")
            .map(|p| p.to_string())
            .map_err(told)
    }

    #[test]
    fn one_line_end_is_cut_and_nothing_else() {
        for content in [
            "six plain words",
            "six plain words\n",
            "six plain words\r\n",
        ] {
            assert_eq!(read(content.as_bytes()), Ok("six plain words".into()));
        }
        assert_eq!(read(b"  spaces stay \n"), Ok("  spaces stay ".into()));
        assert_eq!(read(&[b'x'; MOST_BYTES]).map(|p| p.len()), Ok(MOST_BYTES));
    }

    #[test]
    fn what_is_no_passphrase_is_refused() {
        for (content, why) in [
            (&b""[..], "the passphrase file F is empty"),
            (b"\n", "the passphrase file F is empty"),
            (b"two\nlines\n", "it holds more than one line"),
            (b"two\n\n", "it holds more than one line"),
            (&[b'x'; MOST_BYTES + 1], "it is longer than 4096 bytes"),
        ] {
            assert_eq!(read(content), Err(why.into()));
        }
        assert!(read(&[0xff, 0xfe]).expect_err("not text").contains("utf-8"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let failure = read_passphrase(Some(Path::new("/nonexistent/p")), "").expect_err("missing");
        assert_eq!(
            failure.to_string(),
            "cannot read the passphrase file /nonexistent/p"
        );
        assert_eq!(failure.exit(), crate::Exit::Usage);
    }
}
