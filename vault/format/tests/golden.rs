//! Golden vaults: fixed keys, nonces and times give fixed bytes. A vault of each format version stays in
//! `tests/fixtures/golden/` for ever; bytes that change while the version does not are a broken format.

mod golden_vault;

use golden_vault::GoldenVault;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vault_format::kit::Kit;
use vault_format::manifest::Manifest;
use vault_format::metadata_object::Trust;
use vault_format::vault_config::VaultConfig;
use vault_format::{FORMAT, names};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden")
}

fn files_below(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path
                        .strip_prefix(root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned();
                    out.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
    }
    out
}

fn write(root: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn the_bytes_of_this_version_do_not_change() {
    let root = fixtures().join(format!("v{FORMAT}"));
    let built = GoldenVault::build().files();
    if !root.exists() {
        write(&root, &built);
        panic!(
            "{} was missing and has been written: look at it, let the second reader read it, commit it",
            root.display()
        );
    }
    let stored = files_below(&root);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&built),
        names(&stored),
        "objects of the golden vault of version {FORMAT}"
    );
    for (name, bytes) in &built {
        assert!(
            &stored[name] == bytes,
            "{name}: its bytes changed, but the format version did not"
        );
    }
}

#[test]
fn every_golden_vault_is_of_a_version_that_a_test_knows() {
    let known: Vec<String> = (1..=FORMAT).map(|version| format!("v{version}")).collect();
    let mut found: Vec<String> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(
        found, known,
        "each folder of tests/fixtures/golden needs a test, and each version a folder"
    );
}

#[test]
fn the_golden_vault_opens_with_its_kit_alone() {
    let vault = GoldenVault::build();
    let kit = Kit::parse(vault.kit.to_json().as_bytes()).unwrap();
    let keys = kit.open(golden_vault::PASSPHRASE).unwrap();
    let config = VaultConfig::first(&vault.objects[&names::vault(1)]).unwrap();
    let (_, metadata) = config.open_keys(&keys.recovery).unwrap();
    let trust = Trust {
        vault: config.id,
        control: config.control,
        keys: metadata,
    };
    let points: Vec<&String> = vault
        .objects
        .keys()
        .filter(|name| name.starts_with(names::POINTS))
        .collect();
    assert_eq!(points.len(), 4);
    for name in points {
        let (manifest, _, _) = Manifest::open(&trust, name, &vault.objects[name]).unwrap();
        assert_eq!(&manifest.object_name(), name);
    }
}
