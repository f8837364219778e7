//! The folder: vault, kit, passphrase, gateway key, configuration and the sparse disk that a gateway syncs.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::shape::{CHUNK_BYTES, Shape};
use crate::vault;

pub const PASSPHRASE: &str = "synthetic vault of the bench";
/// Raised when what is prepared changes: an older folder is then made anew.
const LAYOUT: u32 = 2;
/// One chunk of the sparse disk in so many has data: 1 GiB of 4 TiB.
const CHUNKS_PER_DATA: u64 = 4096;

pub struct Site {
    folder: PathBuf,
}

impl Site {
    pub fn new(folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        Ok(Site { folder })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn vault(&self) -> PathBuf {
        self.path("vault")
    }

    pub fn vault_url(&self) -> String {
        format!("file://{}", self.vault().display())
    }

    /// Makes everything, unless the folder's stamp says that this very shape is there.
    pub fn prepare(&self, shape: &Shape) -> Result<()> {
        let stamp = json!({"layout": LAYOUT, "chunks": shape.chunks}).to_string();
        let stamp_path = self.path("stamp.json");
        if fs::read_to_string(&stamp_path).is_ok_and(|found| found == stamp) {
            return Ok(());
        }
        self.clear()?;
        vault::build(self, shape)?;
        self.write_sparse_disk(shape)?;
        self.write_configuration()?;
        fs::write(&stamp_path, stamp).with_context(|| format!("{}", stamp_path.display()))
    }

    /// Removes what an earlier `prepare` made, and nothing else.
    fn clear(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot make {}", self.folder.display()))?;
        for name in [
            "stamp.json",
            "sparse.img",
            "kit.json",
            "passphrase",
            "gateway.key",
            "gateway.toml",
        ] {
            gone(&self.path(name), |path| fs::remove_file(path))?;
        }
        for name in ["vault", "state"] {
            gone(&self.path(name), |path| fs::remove_dir_all(path))?;
        }
        Ok(())
    }

    fn write_sparse_disk(&self, shape: &Shape) -> Result<()> {
        let path = self.path("sparse.img");
        let file = File::create(&path)?;
        file.set_len(shape.disk_bytes())
            .with_context(|| format!("{}: a sparse file of 4 TiB is needed", path.display()))?;
        let mut noise = blake3::Hasher::new().update(b"sparse disk").finalize_xof();
        let mut chunk = vec![0; CHUNK_BYTES as usize];
        for nth in 0..shape.chunks / CHUNKS_PER_DATA {
            noise.fill(&mut chunk);
            file.write_all_at(&chunk, nth * CHUNKS_PER_DATA * u64::from(CHUNK_BYTES))?;
        }
        Ok(())
    }

    fn write_configuration(&self) -> Result<()> {
        // A JSON string is a TOML string.
        let text = |path: PathBuf| json!(path).to_string();
        let configuration = format!(
            "state = {}\n\n[vault]\nurl = {}\nkey = {}\n\n[[policy]]\nname = \"bench\"\nrpo = \"1d\"\n\n[[vm]]\nname = \"sparse\"\npolicy = \"bench\"\nsource = {{ disks = [{}] }}\n",
            text(self.path("state")),
            json!(self.vault_url()),
            text(self.path("gateway.key")),
            text(self.path("sparse.img")),
        );
        fs::write(self.path("gateway.toml"), configuration)?;
        self.write_private("passphrase", &format!("{PASSPHRASE}\n"))
    }

    /// Readable by its owner alone, as the programs want keys.
    pub fn write_private(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options
            .open(&path)
            .with_context(|| format!("{}", path.display()))?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(file.write_all(text.as_bytes())?)
    }

    /// What the bench runs under its clock, in this order.
    pub fn commands(&self) -> Result<Value> {
        let own = std::env::current_exe()?;
        let gateway = own.with_file_name("sparesite-gateway");
        let gateway = |command: &str| {
            let config = self.path("gateway.toml");
            json!([gateway, "--config", config, command, "--json"])
        };
        Ok(json!({
            "rebuild": gateway("rebuild"),
            "sync": gateway("sync"),
            "open": [own, "open", self.folder],
        }))
    }
}

fn gone(path: &Path, remove: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
    match remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
