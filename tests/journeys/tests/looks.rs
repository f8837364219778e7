//! How the programs look and behave to people and to scripts: help, JSON, quiet, pipes, exit codes.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use journeys::*;

/// `--help` of the program and of every command below it, however deep.
fn helps(name: &str) -> Vec<(Vec<String>, Run)> {
    let mut helps = Vec::new();
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let mut command = Command::new(program(name));
        command
            .args(&path)
            .arg("--help")
            .env("COLUMNS", "40")
            .env_remove("RUST_LOG");
        let run = Run::of(&mut command).ok();
        for inner in commands(&run.stdout) {
            waiting.push([path.clone(), vec![inner]].concat());
        }
        helps.push((path, run));
    }
    helps
}

/// The names under `Commands:`.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with(' '));
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Longer than the terminal is only what cannot be broken: one word, or the usage line.
fn fits(line: &str) -> bool {
    let words = line.split_whitespace().count();
    line.chars().count() <= 40 || words == 1 || line.starts_with("Usage:")
}

#[test]
fn every_help_has_an_example_and_fits_a_narrow_terminal() {
    let mut wrong = Vec::new();
    for (name, expected) in [
        (
            "sparesite-gateway",
            &["check", "init", "points", "rebuild", "status", "sync"][..],
        ),
        (
            "sparesite-restore",
            &["assemble", "gateway-key", "kit", "points", "verify"],
        ),
    ] {
        let mut seen = BTreeSet::new();
        for (path, run) in helps(name) {
            seen.extend(path.first().cloned());
            let generated = path
                .first()
                .is_some_and(|n| n == "completions" || n == "man");
            let group = !path.is_empty() && !commands(&run.stdout).is_empty();
            if !generated && !group && !run.stdout.contains("Example") {
                wrong.push(format!("no example: {run}"));
            }
            let long: Vec<_> = run.stdout.lines().filter(|line| !fits(line)).collect();
            if !long.is_empty() {
                wrong.push(format!(
                    "`{}`: wider than 40 columns:\n{}",
                    run.line,
                    long.join("\n")
                ));
            }
        }
        for command in expected {
            assert!(seen.contains(*command), "{name} has no {command}: {seen:?}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn version_names_the_program() {
    for name in ["sparesite-gateway", "sparesite-restore"] {
        let run = Run::of(Command::new(program(name)).arg("--version")).ok();
        assert!(run.stdout.starts_with(&format!("{name} 0.")), "{run}");
    }
}

fn synced() -> Site {
    let site = Site::new();
    make_disk(&site.path("vm.raw"), 8 * MIB, 1);
    site.configure_one();
    site.sync();
    site
}

#[test]
fn json_is_one_document_and_quiet_is_quiet() {
    let site = synced();
    let back = site.shown("back");
    let issued = site.shown("issued.key");
    let gateway = [
        &["sync"][..],
        &["points"],
        &["status"],
        &["rebuild"],
        &["check"],
    ];
    let restore = [
        &["points"][..],
        &["assemble", "vm", "--output", &back],
        &["verify"],
        &["kit", "check"],
        &[
            "gateway-key",
            "issue",
            "--label",
            "site2",
            "--output",
            &issued,
        ],
        &["gateway-key", "list"],
    ];
    let options = ["--json", "--quiet"];
    let of_gateway = gateway.map(|words| site.gateway(&[words, &options].concat()));
    let of_restore = restore.map(|words| site.restore(&[words, &options].concat()));
    for run in of_gateway.iter().chain(&of_restore) {
        assert!(run.json().is_object(), "{run}");
        assert_eq!(run.stderr, "", "{run}");
        // `check` finds the kit on site, and `kit check` that the vault is here.
        let findings = run.findings();
        let expected = if findings.is_empty() { 0 } else { 3 };
        assert_eq!(run.code, Some(expected), "{run}");
    }
    // Without --json: tables for people, still nothing on stderr.
    let run = site.gateway(&["sync", "--quiet"]).ok();
    assert!(
        run.stderr.is_empty() && run.stdout.contains("vm@3"),
        "{run}"
    );
    // A failure is told even so, and stdout stays empty.
    let run = site
        .restore(&["assemble", "nope", "--output", &back, "--json", "--quiet"])
        .exits(1);
    assert!(
        run.stdout.is_empty() && run.stderr.starts_with("error: "),
        "{run}"
    );
}

/// `| head -1`, and a reader that is gone before the first byte.
#[test]
fn a_reader_that_leaves_is_no_fault() {
    let site = synced();
    for words in [
        &["points"][..],
        &["sync", "--help"],
        &["completions", "bash"],
        &["points", "--json"],
    ] {
        let inner = site.gateway_command(words);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "\"$@\" | head -1", "sh"])
            .arg(inner.get_program())
            .args(inner.get_args());
        let run = Run::of(&mut shell).ok();
        assert_eq!((run.stdout.lines().count(), &*run.stderr), (1, ""), "{run}");

        let mut gone = site.gateway_command(words);
        gone.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = gone.spawn().expect("it starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let run = Run::from_output(format!("{words:?} into a closed pipe"), &output);
        assert_eq!((run.code, &*run.stderr), (Some(0), ""), "{run}");
    }
}

#[test]
fn the_exit_code_tells_how_it_ended() {
    let site = synced();
    site.gateway(&["sync"]).exits(0);
    fs::rename(site.path("vm.raw"), site.path("away.raw")).expect("moved");
    site.gateway(&["sync"]).exits(1);
    fs::rename(site.path("away.raw"), site.path("vm.raw")).expect("moved");
    site.gateway(&["sync", "nope"]).exits(2);
    // Nothing froze the disk, and the policy asks for applications at rest.
    let config = site.path("gateway.toml");
    let text = fs::read_to_string(&config).expect("read");
    fs::write(&config, text.replace("\"none\"", "\"application\"")).expect("written");
    let found = site.gateway(&["sync", "--json"]).exits(3);
    assert!(
        found.findings().concat().contains("application was asked"),
        "{found}"
    );
    let found = site.gateway(&["sync"]).exits(3);
    assert!(found.stdout.contains("finding: VM vm: "), "{found}");
    site.gateway(&["status"]).exits(3);
}
