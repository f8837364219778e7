//! A site with a gateway, a vault and a recovery kit, all in one temporary folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use testkit::{CountingProxy, S3Server};

use crate::{Run, program, program_folder};

pub const PASSPHRASE: &str = "correct horse battery staple, for journeys only";

/// Where a vault is, and the environment that reaches it.
#[derive(Debug, Clone, Default)]
pub struct Where {
    pub url: String,
    pub env: BTreeMap<String, String>,
}

impl Where {
    /// In a bucket of its own, all requests by way of the proxy, which counts and breaks.
    pub fn s3_behind(proxy: &CountingProxy, server: &S3Server) -> Self {
        Where {
            url: format!("s3://{}/site1", server.create_bucket()),
            env: server.env_through(proxy.port),
        }
    }
}

#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    pub vault: Where,
    /// SPARESITE_BIN's gateway beside a stand-in for the other program: `init` stores that one in
    /// the vault, and a debug build has a hundred MB.
    light: TempDir,
}

impl Site {
    /// With a vault in a folder of its own.
    pub fn new() -> Self {
        let mut site = Self::before_init();
        site.vault.url = format!("file://{}", site.path("vault").display());
        site.init().ok();
        site
    }

    /// With a vault elsewhere.
    pub fn on(vault: Where) -> Self {
        let mut site = Self::before_init();
        site.vault = vault;
        site.init().ok();
        site
    }

    /// A shell script of the site; `$log` is the site's `hooks.log`.
    pub fn script(&self, name: &str, body: &str) -> String {
        let path = self.path(name);
        let text = format!("#!/bin/sh\nlog={}\n{body}\n", self.shown("hooks.log"));
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("executable");
        self.shown(name)
    }

    pub fn before_init() -> Self {
        let site = Site {
            folder: tempfile::tempdir().expect("a temporary folder"),
            vault: Where::default(),
            light: light_programs(),
        };
        let passphrase = site.path("passphrase");
        fs::write(&passphrase, PASSPHRASE).expect("the passphrase is written");
        private(&passphrase);
        site
    }

    pub fn init(&self) -> Run {
        let (key, kit) = (self.path("gateway.key"), self.path("kit.json"));
        self.init_with(&key, &kit)
    }

    pub fn init_with(&self, key: &Path, kit: &Path) -> Run {
        let mut command = self.clean(&self.light.path().join("sparesite-gateway"));
        command.args([
            "init",
            "--label",
            "site1",
            "--vault",
            &self.vault.url,
            "--key",
        ]);
        command.arg(key).arg("--kit").arg(kit);
        command
            .arg("--passphrase-file")
            .arg(self.path("passphrase"));
        Run::of(&mut command)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as it is written in TOML and on command lines.
    pub fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The usual configuration: each VM by its name and its `source`.
    pub fn configure(&self, vms: &[(&str, &str)]) {
        self.configure_as("gateway.toml", "state", "gateway.key", vms);
    }

    pub fn configure_as(&self, file: &str, state: &str, key: &str, vms: &[(&str, &str)]) {
        let mut text = format!(
            "state = \"{}\"\n\n[vault]\nurl = \"{}\"\nkey = \"{}\"\n\n\
             [[policy]]\nname = \"p\"\nrpo = \"1h\"\nconsistency = \"none\"\n",
            self.shown(state),
            self.vault.url,
            self.shown(key),
        );
        for (name, source) in vms {
            text += &format!("\n[[vm]]\nname = \"{name}\"\npolicy = \"p\"\nsource = {source}\n");
        }
        fs::write(self.path(file), text).expect("the configuration is written");
    }

    /// VM `vm` with the one raw disk `vm.raw`.
    pub fn configure_one(&self) {
        self.configure(&[("vm", &self.disks(&["vm.raw"]))]);
    }

    /// The `source` of plain disk paths.
    pub fn disks(&self, names: &[&str]) -> String {
        let paths: Vec<_> = names
            .iter()
            .map(|name| format!("\"{}\"", self.shown(name)))
            .collect();
        format!("{{ disks = [{}] }}", paths.join(", "))
    }

    /// A program in an environment that holds nothing of the machine's own clouds and kits.
    fn clean(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.folder());
        let kept = ["PATH", "SPARESITE_BIN", "LLVM_PROFILE_FILE"];
        for name in kept {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", self.folder())
            .env("TMPDIR", self.folder());
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command.envs(&self.vault.env);
        command
    }

    pub fn gateway_command(&self, words: &[&str]) -> Command {
        self.gateway_command_as("gateway.toml", words)
    }

    pub fn gateway_command_as(&self, config: &str, words: &[&str]) -> Command {
        let mut command = self.clean(&program("sparesite-gateway"));
        command.arg("--config").arg(self.path(config)).args(words);
        command
    }

    pub fn gateway(&self, words: &[&str]) -> Run {
        Run::of(&mut self.gateway_command(words))
    }

    pub fn gateway_as(&self, config: &str, words: &[&str]) -> Run {
        Run::of(&mut self.gateway_command_as(config, words))
    }

    /// With the kit of this site.
    pub fn restore_command(&self, words: &[&str]) -> Command {
        let mut command = self.clean(&program("sparesite-restore"));
        command.env("SPARESITE_KIT", self.path("kit.json"));
        command.env("SPARESITE_PASSPHRASE_FILE", self.path("passphrase"));
        command.args(words);
        command
    }

    pub fn restore(&self, words: &[&str]) -> Run {
        Run::of(&mut self.restore_command(words))
    }

    /// One cycle without findings, as its JSON.
    #[track_caller]
    pub fn sync(&self) -> Value {
        self.gateway(&["sync", "--json"]).ok().json()
    }

    /// Assembles the point into a file of the site's folder, and compares it with the raw disk.
    #[track_caller]
    pub fn assert_comes_back(&self, point: &str, expected: &str) {
        let output = self.shown(&format!("{point}.back.raw"));
        self.restore(&["assemble", point, "--output", &output]).ok();
        crate::assert_same(&self.path(expected), Path::new(&output));
        fs::remove_file(output).expect("it is removed");
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

fn private(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a private file");
}

/// Hard links where the target folder lets us, else copies.
fn light_programs() -> TempDir {
    let beside = tempfile::Builder::new()
        .prefix("journey-")
        .tempdir_in(program_folder());
    let folder = beside
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary folder");
    let (from, to) = (
        program("sparesite-gateway"),
        folder.path().join("sparesite-gateway"),
    );
    if fs::hard_link(&from, &to).is_err() {
        fs::copy(&from, &to).expect("the program is copied");
    }
    let stand_in = b"a stand-in for the restore program\n";
    fs::write(folder.path().join("sparesite-restore"), stand_in).expect("written");
    folder
}

/// The packs of a vault in a folder, with their sizes.
pub fn packs(vault: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for folder in fs::read_dir(vault.join("packs"))
        .into_iter()
        .flatten()
        .flatten()
    {
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let name = file.file_name().into_string().unwrap_or_default();
            // What a killed program left half-written has another name.
            if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                found.push((file.path(), file.metadata().expect("a file").len()));
            }
        }
    }
    found.sort();
    found
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the folder is read").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("the file is copied")),
        }
    }
}
