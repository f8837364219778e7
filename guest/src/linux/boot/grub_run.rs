//! Runs a grub.cfg on paper, to find what GRUB would start by itself: variables, tests, the menu and its default.

use std::collections::BTreeMap;

use super::grub_script::{Command, Piece, Word, parse};
use crate::linux::device_name::DeviceName;

/// Commands that are run; a grub.cfg of a hundred kernels has some thousand.
const STEPS: usize = 200_000;
/// Of a variable and of a command line: the kernel takes 2 to 4 KiB.
const VALUE_BYTES: usize = 16 << 10;
const VARIABLES: usize = 2000;
/// Of one menu.
const ENTRIES: usize = 10_000;
/// What a variable holds that `search` set: the volume, by what it was sought.
pub const SOUGHT: &str = "sought/";

/// What `linux`, `initrd` and the like leave to be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    pub title: Option<String>,
    /// As GRUB reads it: on [`Start::root`], or on the device in brackets before it.
    pub kernel: Option<String>,
    pub initrds: Vec<String>,
    pub command_line: String,
    pub root: Root,
    /// Another program is started instead (`chainloader`).
    pub chain: Option<String>,
}

/// Where paths without a device begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// By `search`.
    pub found: Option<DeviceName>,
    /// The variable: `hd0,gpt2`.
    pub device: Option<String>,
}

/// What running a configuration ends with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub start: Option<Start>,
    pub entries: usize,
    /// Another configuration takes over: its path, and where from.
    pub configuration: Option<(String, Root)>,
    /// `default` names no entry, so the first one is started.
    pub unknown_default: Option<String>,
}

/// An entry that lies outside of the script: by the Boot Loader Specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideEntry {
    pub id: String,
    pub title: String,
    pub kernel: String,
    pub initrds: Vec<String>,
    pub options: String,
}

enum Entry<'a> {
    Menu {
        title: String,
        id: Option<String>,
        submenu: bool,
        body: &'a [Command],
    },
    Outside(&'a OutsideEntry),
}

struct Run<'a> {
    variables: BTreeMap<String, String>,
    outside: &'a [OutsideEntry],
    entries: Vec<Entry<'a>>,
    start: Start,
    root: Root,
    configuration: Option<(String, Root)>,
    steps: usize,
}

/// `environment` is grubenv's content; `outside` are the entries that `blscfg` adds, in the order of the menu.
pub fn run(
    script: &str,
    environment: &BTreeMap<String, String>,
    outside: &[OutsideEntry],
    uefi: bool,
) -> Outcome {
    let commands = parse(script);
    let platform = if uefi { "efi" } else { "pc" };
    let mut variables = environment.clone();
    variables.insert("grub_platform".into(), platform.into());
    variables.insert("grub_cpu".into(), "x86_64".into());
    // Ubuntu's cloud images try without an initial file system first; this asks for what has to work in the end.
    variables.insert("initrdfail".into(), "1".into());
    let mut run = Run {
        variables,
        outside,
        entries: Vec::new(),
        start: Start::default(),
        root: Root::default(),
        configuration: None,
        steps: STEPS,
    };
    run.commands(&commands);
    let mut outcome = Outcome {
        entries: run.entries.len(),
        ..Outcome::default()
    };
    let flat = run.started();
    if run.entries.is_empty() && flat.is_none() {
        outcome.configuration = run.configuration.take();
        return outcome;
    }
    if run.entries.is_empty() {
        outcome.start = flat;
        return outcome;
    }
    let default = run.variables.get("default").cloned().unwrap_or_default();
    let (start, found) = run.choose(&default);
    outcome.start = start;
    outcome.unknown_default = (!found).then_some(default);
    outcome
}

impl<'a> Run<'a> {
    fn started(&self) -> Option<Start> {
        let any = self.start.kernel.is_some() || self.start.chain.is_some();
        any.then(|| self.start.clone())
    }

    fn commands(&mut self, commands: &'a [Command]) {
        for command in commands {
            self.steps = self.steps.saturating_sub(1);
            if self.steps == 0 {
                return;
            }
            match command {
                Command::Simple(words) => self.simple(words),
                Command::If(branches, otherwise) => {
                    let met = branches.iter().find(|(condition, _)| self.holds(condition));
                    self.commands(met.map_or(otherwise, |(_, body)| body));
                }
                Command::Menu {
                    submenu,
                    words,
                    body,
                } if self.entries.len() < ENTRIES => {
                    let words = self.expanded(words);
                    let id = option(&words, "--id").or_else(|| {
                        // $menuentry_id_option stands for --id where the feature is there.
                        let given = words
                            .iter()
                            .position(|word| word == "$menuentry_id_option")?;
                        words.get(given + 1).cloned()
                    });
                    self.entries.push(Entry::Menu {
                        title: words.first().cloned().unwrap_or_default(),
                        id,
                        submenu: *submenu,
                        body,
                    });
                }
                Command::Menu { .. } => {}
            }
        }
    }

    /// The last command of a condition decides.
    fn holds(&mut self, condition: &'a [Command]) -> bool {
        match condition.split_last() {
            Some((Command::Simple(words), before)) => {
                self.commands(before);
                let words = self.expanded(words);
                match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                    ["[", ref test @ .., "]"] | ["test", ref test @ ..] => tested(test),
                    ["false" | "keystatus" | "sleep", ..] => false,
                    _ => true,
                }
            }
            _ => false,
        }
    }

    fn expanded(&self, words: &[Word]) -> Vec<String> {
        let mut all = Vec::new();
        for word in words {
            let mut text = String::new();
            for piece in &word.pieces {
                let piece = match piece {
                    Piece::Literal(text) => text.as_str(),
                    Piece::Variable(name) if name == "menuentry_id_option" => {
                        "$menuentry_id_option"
                    }
                    Piece::Variable(name) => self.variables.get(name).map_or("", String::as_str),
                };
                let room = VALUE_BYTES.saturating_sub(text.len());
                text.extend(piece.chars().take(room));
            }
            if word.quoted || !text.is_empty() {
                all.push(text);
            }
        }
        all
    }

    fn simple(&mut self, words: &[Word]) {
        let words = self.expanded(words);
        let Some((name, arguments)) = words.split_first() else {
            return;
        };
        match (name.as_str(), arguments) {
            ("set", [assignment, ..]) => self.assign(assignment),
            ("unset", [variable, ..]) => {
                self.variables.remove(variable);
            }
            ("linux" | "linux16" | "linuxefi" | "kernel", [kernel, options @ ..]) => {
                self.start.kernel = Some(kernel.clone());
                self.start.command_line = options.join(" ");
                self.start.root = self.root.clone();
            }
            ("initrd" | "initrd16" | "initrdefi", paths) => self.start.initrds = paths.to_vec(),
            ("chainloader", [program, ..]) => {
                self.start.chain = Some(program.clone());
                self.start.root = self.root.clone();
            }
            ("configfile" | "normal", [path, ..]) => {
                self.configuration = Some((path.clone(), self.root.clone()));
            }
            ("blscfg" | "bls_import", _) => {
                let room = ENTRIES.saturating_sub(self.entries.len());
                self.entries
                    .extend(self.outside.iter().take(room).map(Entry::Outside));
            }
            (search, arguments) if search == "search" || search.starts_with("search.") => {
                self.search(search, arguments)
            }
            (assignment, []) if assignment.contains('=') => self.assign(assignment),
            _ => {}
        }
    }

    fn assign(&mut self, assignment: &str) {
        if let Some((name, value)) = assignment
            .split_once('=')
            .filter(|_| self.variables.len() < VARIABLES)
        {
            if name == "root" {
                self.root.device = Some(value.to_owned());
                self.root.found = None;
            }
            self.variables.insert(name.to_owned(), value.to_owned());
        }
    }

    /// `search --fs-uuid --set=root X` and `search.fs_uuid X root`.
    fn search(&mut self, command: &str, arguments: &[String]) {
        let plain: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
        let has = |wanted: &[&str]| arguments.iter().any(|a| wanted.contains(&a.as_str()));
        let (label, file) = match command {
            "search" => (has(&["--label", "-l"]), has(&["--file", "-f"])),
            command => (command.contains("label"), command.contains("file")),
        };
        if file {
            return;
        }
        let (variable, sought) = match (command, &plain[..]) {
            // `--set root` has the variable before what is sought.
            ("search", [variable, sought]) if has(&["--set", "-s"]) => (variable.as_str(), sought),
            ("search", [.., sought]) => ("root", sought),
            (_, [sought, variable, ..]) if !variable.contains(',') => (variable.as_str(), sought),
            (_, [sought, ..]) => ("root", sought),
            _ => return,
        };
        let mut given = arguments.iter().filter_map(|a| a.strip_prefix("--set="));
        let variable = given.next().unwrap_or(variable);
        let found = match label {
            true => DeviceName::Label((*sought).clone()),
            false => DeviceName::Uuid((*sought).clone()),
        };
        if self.variables.len() < VARIABLES {
            self.variables
                .insert(variable.to_owned(), format!("{SOUGHT}{found}"));
        }
        if variable == "root" {
            self.root.found = Some(found);
        }
    }

    /// Follows `default`, as in `1`, `title`, `id` or `Advanced>title`; the first entry where there is none such.
    fn choose(&mut self, default: &str) -> (Option<Start>, bool) {
        let mut found = true;
        let mut path = default.split('>').map(str::trim);
        // A menu within a menu within …: as deep as the parser goes.
        for _ in 0..40 {
            let wanted = path.next().unwrap_or("0");
            let matches = |(index, entry): (usize, &Entry<'_>)| {
                let named = match entry {
                    Entry::Menu { title, id, .. } => {
                        title == wanted || id.as_deref() == Some(wanted)
                    }
                    Entry::Outside(outside) => {
                        outside.title == wanted || outside.id == wanted.trim_end_matches(".conf")
                    }
                };
                (named || wanted.parse() == Ok(index)).then_some(index)
            };
            let index = self.entries.iter().enumerate().find_map(matches);
            found &= index.is_some() || wanted.is_empty();
            let index = index.unwrap_or(0);
            if index >= self.entries.len() {
                return (None, found);
            }
            match self.entries.swap_remove(index) {
                Entry::Outside(outside) => {
                    let options = self.expanded_text(&outside.options);
                    let start = Start {
                        title: Some(outside.title.clone()),
                        kernel: Some(outside.kernel.clone()),
                        initrds: outside.initrds.clone(),
                        command_line: options,
                        root: Root::default(),
                        chain: None,
                    };
                    return (Some(start), found);
                }
                Entry::Menu {
                    title,
                    submenu,
                    body,
                    ..
                } => {
                    self.entries.clear();
                    self.start = Start::default();
                    self.commands(body);
                    if !submenu {
                        let start = self.started().map(|start| Start {
                            title: Some(title),
                            ..start
                        });
                        return (start, found);
                    }
                }
            }
        }
        (None, false)
    }

    /// The options of an entry outside of the script, `$kernelopts` and all.
    fn expanded_text(&self, options: &str) -> String {
        let words = parse(&options.replace(['\n', ';', '#', '\'', '"'], " "));
        match words.first() {
            Some(Command::Simple(words)) => self
                .expanded(words)
                .join(" ")
                .split_ascii_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
            _ => options.to_owned(),
        }
    }
}

fn option(words: &[String], name: &str) -> Option<String> {
    let position = words.iter().position(|word| word.starts_with(name))?;
    match words[position].strip_prefix(name)?.strip_prefix('=') {
        Some(value) => Some(value.to_owned()),
        None => words.get(position + 1).cloned(),
    }
}

/// `[ … ]`: strings, files (of which only grubenv is taken to be there), `!`, `-a`, `-o`.
fn tested(test: &[&str]) -> bool {
    let mut alternatives = test.split(|word| *word == "-o");
    alternatives.any(|all| all.split(|word| *word == "-a").all(tested_one))
}

fn tested_one(test: &[&str]) -> bool {
    match test {
        ["!", rest @ ..] => !tested_one(rest),
        ["-z", text] => text.is_empty(),
        ["-z"] => true,
        ["-n", text] => !text.is_empty(),
        ["-s" | "-f" | "-e", path] => path.ends_with("/grubenv"),
        [one, "=" | "==", other] => one == other,
        [one, "!=", other] => one != other,
        [one, "-eq", other] => one.parse::<i64>().ok() == other.parse().ok(),
        [text] => !text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
#[path = "grub_tests.rs"]
mod tests;
