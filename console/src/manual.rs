//! Shell completions and man pages, made from the arguments themselves.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Command, Subcommand};
use clap_complete::Shell;

use crate::{Exit, Failure, OrFailure, print};

/// Flatten this into a program's commands: `#[command(flatten)] Manual(console::Manual)`.
#[derive(Debug, Clone, Subcommand)]
pub enum Manual {
    /// Print the completions for a shell
    Completions { shell: Shell },
    /// Write the man pages into a folder
    Man {
        /// Where `man` looks, such as /usr/local/share/man/man1
        dir: PathBuf,
    },
}

impl Manual {
    /// `program` is the whole command line: `Cli::command()`.
    pub fn run(&self, program: Command) -> anyhow::Result<Exit> {
        match self {
            Manual::Completions { shell } => print(&completions(program, *shell)?)?,
            Manual::Man { dir } => {
                for page in man_pages(program)? {
                    write_page(dir, &page)?;
                }
            }
        }
        Ok(Exit::Done)
    }
}

fn completions(mut program: Command, shell: Shell) -> Result<String, Failure> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut script);
    String::from_utf8(script).or_failure(|| Failure::failed(format!("no completions for {shell}")))
}

struct Page {
    /// `sparesite-restore-points.1`
    file: String,
    text: Vec<u8>,
}

/// A page for the program and one for each visible command, however deep.
fn man_pages(mut program: Command) -> Result<Vec<Page>, Failure> {
    program.build();
    let mut pages = Vec::new();
    let mut waiting = vec![program];
    while let Some(command) = waiting.pop() {
        let visible = |c: &&Command| !c.is_hide_set() && c.get_name() != "help";
        waiting.extend(command.get_subcommands().filter(visible).cloned());
        let page = clap_mangen::Man::new(command);
        let file = page.get_filename();
        let mut text = Vec::new();
        page.render(&mut text)
            .or_failure(|| Failure::failed(format!("cannot write {file}")))?;
        pages.push(Page { file, text });
    }
    Ok(pages)
}

fn write_page(dir: &Path, page: &Page) -> Result<(), Failure> {
    let path = dir.join(&page.file);
    let part = dir.join(format!(".{}.part", page.file));
    let written = fs::write(&part, &page.text).and_then(|()| fs::rename(&part, &path));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written.or_failure(|| {
        Failure::failed(format!("cannot write {}", path.display()))
            .remedy("name a folder that exists and that you may write to")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Command {
        Command::new("sparesite-x")
            .about("Tries things")
            .subcommand(Command::new("points").about("Lists points"))
            .subcommand(
                Command::new("kit")
                    .about("Keys")
                    .subcommand(Command::new("check").about("Tries")),
            )
            .subcommand(Command::new("secret").hide(true))
    }

    #[test]
    fn every_visible_command_has_its_page() {
        let dir = tempfile::tempdir().expect("a folder");
        let exit = Manual::Man {
            dir: dir.path().into(),
        }
        .run(program())
        .expect("written");
        assert_eq!(exit, Exit::Done);
        let mut files: Vec<_> = fs::read_dir(dir.path())
            .expect("read")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .collect();
        files.sort();
        assert_eq!(
            files,
            [
                "sparesite-x-kit-check.1",
                "sparesite-x-kit.1",
                "sparesite-x-points.1",
                "sparesite-x.1"
            ]
        );
        let page = fs::read_to_string(dir.path().join("sparesite-x-points.1")).expect("a page");
        assert!(page.contains("Lists points"), "{page}");
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let missing = Manual::Man {
            dir: "/nonexistent/man1".into(),
        };
        let error = missing.run(program()).expect_err("no folder");
        assert!(
            error
                .to_string()
                .starts_with("cannot write /nonexistent/man1/sparesite-x")
        );
    }

    #[test]
    fn completions_name_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(program(), shell).expect("a script");
            assert!(
                script.contains("points") && script.contains("kit"),
                "{shell}"
            );
        }
    }
}
