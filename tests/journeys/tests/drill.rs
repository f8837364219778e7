//! `drill` of VMs that hold no guest: what it writes when nothing boots, and what it leaves when it cannot begin.

use std::fs;
use std::path::PathBuf;

use journeys::*;

/// More than keep their disks open between judging and booting.
const VMS: usize = 5;

fn drill(site: &Site, words: &[&str]) -> Run {
    let mut command = site.restore_command(&["drill", "--json", "--accel", "tcg"]);
    command.args(["--reports", "drills", "--cache-folder", "."]);
    Run::of(command.args(words))
}

fn manifests(site: &Site) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![site.path("vault")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.components().any(|part| part.as_os_str() == "points") => {
                    found.push(path);
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn a_drill_tells_what_it_foretold_what_the_vault_lacks_and_boots_each_vm_from_its_own_disks() {
    if !has("qemu-system-x86_64") {
        return;
    }
    let site = Site::new();
    let names: Vec<String> = (0..VMS).map(|number| format!("vm{number}")).collect();
    let mut sources = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let disk = format!("{name}.raw");
        make_random(&site.path(&disk), 2 * MIB, number as u64 + 1);
        sources.push(site.disks(&[&disk]));
    }
    let vms: Vec<(&str, &str)> = names
        .iter()
        .zip(&sources)
        .map(|(name, source)| (name.as_str(), source.as_str()))
        .collect();
    site.configure(&vms);
    site.sync();
    let whole = manifests(&site);
    assert_eq!(whole.len(), VMS, "{whole:?}");
    site.sync();
    let newer = manifests(&site);
    let damaged = newer.iter().find(|path| !whole.contains(path));
    let damaged = damaged.expect("a second point");
    fs::write(damaged, b"cut off").expect("damaged");
    let settings = names
        .iter()
        .map(|name| format!("[[vm]]\nname = \"{name}\"\nmemory = \"64 MiB\"\nwait = \"3s\"\n"));
    fs::write(site.path("drill.toml"), settings.collect::<String>()).expect("written");

    // What cannot begin leaves nothing behind.
    fs::write(site.path("wrong"), "another passphrase\n").expect("written");
    drill(&site, &["--passphrase-file", "wrong"]).exits(1);
    assert!(!site.path("drills").exists());
    drill(&site, &["--dry-run"]).exits(3);
    assert!(!site.path("drills").exists());

    let run = drill(&site, &["--config", "drill.toml"]).exits(3);
    let told = run.json();
    let report = &told["report"];
    let file = told["json"].as_str().expect("a report");
    let file = fs::read(site.path(file)).expect("the report");
    let file: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
    assert_eq!(&file, report, "what is told is what is written");
    let foretold = &report["cost"]["foretold"];
    assert_eq!(foretold["bytes"], 300_000_000 * VMS as u64, "{report:#}");
    assert!(foretold["minutes"].as_f64() > Some(0.0), "{report:#}");
    let found = report["vault_findings"].as_array().expect("a list");
    let name = damaged.file_name().expect("a name").to_string_lossy();
    let named = |one: &serde_json::Value| one["on"].as_str().is_some_and(|on| on.contains(&*name));
    assert!(found.iter().any(named), "{name}: {report:#}");
    let page = fs::read_to_string(site.path(told["html"].as_str().expect("a page")));
    let page = page.expect("the page");
    assert!(page.contains("Found in the vault") && page.contains(&*name));
    for (number, vm) in report["vms"].as_array().expect("VMs").iter().enumerate() {
        assert_eq!(vm["vm"], names[number], "{report:#}");
        let error = vm["error"].as_str().unwrap_or_default();
        assert!(error.contains("no sign of life"), "{vm:#}");
        // The firmware looked for a boot loader on it.
        let read = vm["boot"]["read_bytes"].as_u64().unwrap_or_default();
        assert!(read >= 512, "{vm:#}");
    }
}
