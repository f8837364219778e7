//! Making vaults, kits and keys: `init`, `kit new`, `gateway-key issue` and `revoke`.

use crate::StoreError;
use crate::objects::{Created, ObjectError, Objects};
use crate::read::{Vault, read_on};
use bytes::Bytes;
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::BTreeMap;
use vault_format::control_log::{ControlLog, LogEntry};
use vault_format::gateway_key::{GatewayKey, issue_gateway_key};
use vault_format::ids::{PointId, WriterId};
use vault_format::keys::{IdKey, MetadataKey, MetadataKeys, RecoveryKey, Secret, SigningKey};
use vault_format::kit::{Argon2idCosts, KIT_COSTS, Kit, KitKeys, NewKit, passphrase_words};
use vault_format::vault_config::{NewVault, VaultConfig};
use vault_format::{VaultId, VmId, names};

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut out = [0; N];
    SystemRandom::new()
        .fill(&mut out)
        .map_err(|_| StoreError::Other("the system gives no random bytes".into()))?;
    Ok(out)
}

pub(crate) fn random_secret() -> Result<Secret, StoreError> {
    Ok(Secret(random()?))
}

/// A passphrase of six random words.
pub fn generate_passphrase() -> Result<zeroize::Zeroizing<String>, StoreError> {
    Ok(passphrase_words(&random()?))
}

/// A file that goes into the vault under `tools/`, so that a restore needs nothing else.
#[derive(Debug)]
pub struct Tool {
    pub name: String,
    pub bytes: Bytes,
}

/// What a new vault needs to know.
#[derive(Debug)]
pub struct VaultRequest<'a> {
    pub url: &'a str,
    pub region: Option<&'a str>,
    pub chunk_bytes: u32,
    /// Of the first gateway.
    pub label: &'a str,
    pub passphrase: &'a str,
    pub now: Timestamp,
}

/// What `init` hands to its user. The vault does not exist yet: [`PreparedVault::publish`] makes it, after kit and key
/// are safely on disk.
#[derive(Debug)]
pub struct PreparedVault {
    pub kit: Kit,
    pub key: GatewayKey,
    config: Vec<u8>,
    writer_entry: Vec<u8>,
}

/// Makes keys, kit and the vault's first objects, in memory. About a second, for Argon2id.
pub fn prepare_vault(request: &VaultRequest<'_>) -> Result<PreparedVault, StoreError> {
    prepare_vault_at(request, KIT_COSTS)
}

/// As [`prepare_vault`], at other costs of guessing the passphrase: tests make many kits.
pub fn prepare_vault_at(
    request: &VaultRequest<'_>,
    costs: Argon2idCosts,
) -> Result<PreparedVault, StoreError> {
    let wrong = |error| StoreError::Key {
        what: "making a vault".into(),
        error,
    };
    let recovery = RecoveryKey::from_bytes(random_secret()?);
    let control = SigningKey::from_seed(random_secret()?).map_err(wrong)?;
    let (id_secret, metadata_secret) = (random_secret()?, random_secret()?);
    let config_bytes = NewVault {
        created: request.now.to_string(),
        nonce: random()?,
        chunk_bytes: request.chunk_bytes,
        recovery: recovery.public().map_err(wrong)?,
        control: &control,
        id_key: &id_secret,
        metadata_key: &metadata_secret,
        seeds: [random_secret()?, random_secret()?],
    }
    .encode()
    .map_err(wrong)?;
    let config = VaultConfig::first(&config_bytes).map_err(wrong)?;
    let metadata = MetadataKeys::new(vec![MetadataKey {
        number: 1,
        secret: metadata_secret,
    }])
    .map_err(wrong)?;
    let keys = KitKeys { recovery, control };
    let key = issue_gateway_key(
        &keys.control,
        &config,
        (&IdKey::new(&id_secret), &metadata),
        (request.label, request.url),
        WriterId(random()?),
        random_secret()?,
    )
    .map_err(wrong)?;
    let entry = writer_entry(&key);
    let writer_entry = ControlLog::new(config.id).encode_as_control(
        &keys.control,
        &entry,
        &request.now.to_string(),
    );
    let kit = NewKit {
        vault_url: request.url.to_owned(),
        region: request.region.map(str::to_owned),
        vault_id: config.id,
        created: request.now.to_string(),
        vault: String::from_utf8_lossy(&config_bytes).into_owned(),
        keys: &keys,
        salt: random()?,
        costs,
    }
    .close(request.passphrase)
    .map_err(wrong)?;
    Ok(PreparedVault {
        kit,
        key,
        config: config_bytes,
        writer_entry,
    })
}

impl PreparedVault {
    /// Creates the vault, and stores the tools in it.
    pub async fn publish(&self, objects: &dyn Objects, tools: &[Tool]) -> Result<(), StoreError> {
        match objects
            .create(&names::vault(1), self.config.clone().into())
            .await?
        {
            Created::New => {}
            Created::Exists if same(objects, &names::vault(1), &self.config).await? => {}
            Created::Exists => return Err(StoreError::VaultExists(objects.describe())),
        }
        objects
            .create(&names::log(1), self.writer_entry.clone().into())
            .await?;
        for tool in tools {
            objects
                .create(
                    &format!("{}{}", names::TOOLS, tool.name),
                    tool.bytes.clone(),
                )
                .await?;
        }
        Ok(())
    }
}

async fn same(objects: &dyn Objects, name: &str, bytes: &[u8]) -> Result<bool, ObjectError> {
    Ok(objects.get(name).await? == bytes)
}

/// Whether something at this place is or was a vault.
pub async fn vault_exists(objects: &dyn Objects) -> Result<bool, StoreError> {
    Ok(objects.size(&names::vault(1)).await?.is_some())
}

/// Reads the vault's numbers, in order. `spare` is the first one's text from the kit, for when the vault has lost it.
pub async fn read_config(
    objects: &dyn Objects,
    expected: VaultId,
    spare: Option<&str>,
) -> Result<(VaultConfig, Option<String>), StoreError> {
    let first = names::vault(1);
    let mut finding = None;
    let read = match objects.get(&first).await {
        Ok(bytes) => parse_first(&first, &bytes, expected),
        Err(e) => Err(e.into()),
    };
    let mut config = match (read, spare) {
        (Ok(config), _) => config,
        (Err(e), Some(spare)) if e.is_damage() || matches!(e, StoreError::OtherVault { .. }) => {
            let config = parse_first(&first, spare.as_bytes(), expected)?;
            // Only a vault that has anything else of this id in it is worth going on with: the next reads show.
            finding = Some(format!("{e}; went on with the copy in the recovery kit"));
            config
        }
        (Err(e), _) => return Err(e),
    };
    loop {
        let name = names::vault(config.number + 1);
        match objects.get(&name).await {
            Ok(bytes) => config = config.next(&bytes).map_err(StoreError::format(&name))?,
            Err(e) if e.is_not_found() => return Ok((config, finding)),
            Err(e) => return Err(e.into()),
        }
    }
}

fn parse_first(name: &str, bytes: &[u8], expected: VaultId) -> Result<VaultConfig, StoreError> {
    let config = VaultConfig::first(bytes).map_err(StoreError::format(name))?;
    if config.id != expected {
        return Err(StoreError::OtherVault {
            expected: short(&expected),
            found: short(&config.id),
        });
    }
    Ok(config)
}

fn short(id: &VaultId) -> String {
    id.to_string().chars().take(16).collect()
}

fn writer_entry(key: &GatewayKey) -> LogEntry {
    let public_key = key
        .writer
        .certificate
        .public_key
        .0
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    LogEntry::Writer {
        writer: key.writer.id,
        public_key,
        label: key.label.clone(),
    }
}

/// Numbers of the log that others may take before an entry gets its own. Entries are rare, and the log is read to its end before
/// each further try: who loses so many races has a store that is not in order.
const MOST_TRIES: u32 = 32;

/// Appends `entry`, signed by the control key, under the next free number, which it returns.
pub async fn append_to_log(
    objects: &dyn Objects,
    log: &mut ControlLog,
    control: &SigningKey,
    entry: &LogEntry,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let public = control.public();
    for _ in 0..MOST_TRIES {
        let (name, bytes) = (
            log.next_name(),
            log.encode_as_control(control, entry, &now.to_string()),
        );
        let stored = match objects.create(&name, bytes.clone().into()).await? {
            Created::New => Bytes::from(bytes.clone()),
            Created::Exists => objects.get(&name).await?,
        };
        log.read(&public, &stored)
            .map_err(StoreError::format(&name))?;
        // Also where it exists already: the answer to an earlier attempt may have been lost.
        if stored == bytes {
            return Ok(log.number);
        }
        read_on(objects, log, &public).await?;
    }
    Err(StoreError::Other(format!(
        "others took the next number of the control log {MOST_TRIES} times before this entry could; try again"
    )))
}

/// Lets a new gateway in, and gives its key.
pub async fn issue_key(
    vault: &mut Vault,
    label: &str,
    url: &str,
    now: Timestamp,
) -> Result<GatewayKey, StoreError> {
    let (keys, config) = (&vault.keys, &vault.config);
    let shared = (&vault.id_key, &vault.trust.keys);
    let key = issue_gateway_key(
        &keys.control,
        config,
        shared,
        (label, url),
        WriterId(random()?),
        random_secret()?,
    )
    .map_err(|error| StoreError::Key {
        what: "issuing a gateway key".into(),
        error,
    })?;
    append_to_log(
        &*vault.objects,
        &mut vault.log,
        &vault.keys.control,
        &writer_entry(&key),
        now,
    )
    .await?;
    Ok(key)
}

/// Revokes a gateway's key; `trusted` are its last points that are trusted, by VM.
pub async fn revoke_key(
    vault: &mut Vault,
    writer: WriterId,
    trusted: BTreeMap<VmId, PointId>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let trusted = trusted
        .into_iter()
        .map(|(vm, point)| (vm, point.to_string()))
        .collect();
    let entry = LogEntry::Revoke { writer, trusted };
    append_to_log(
        &*vault.objects,
        &mut vault.log,
        &vault.keys.control,
        &entry,
        now,
    )
    .await?;
    Ok(())
}

/// A new kit for the same vault: same keys, new passphrase.
pub fn new_kit(
    vault: &Vault,
    old: &Kit,
    (url, region): (&str, Option<&str>),
    passphrase: &str,
    now: Timestamp,
) -> Result<Kit, StoreError> {
    NewKit {
        vault_url: url.to_owned(),
        region: region.map(str::to_owned),
        vault_id: vault.config.id,
        created: now.to_string(),
        vault: old.vault.clone().unwrap_or_default(),
        keys: &vault.keys,
        salt: random()?,
        costs: KIT_COSTS,
    }
    .close(passphrase)
    .map_err(|error| StoreError::Key {
        what: "closing the kit".into(),
        error,
    })
}
