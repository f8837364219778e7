//! The keys of the golden vault (`vault/format/tests/golden_vault`): all from fixed seeds, so targets can seal and sign.

use std::sync::LazyLock;

use vault_format::gateway_key::{GatewayKey, issue_gateway_key};
use vault_format::ids::WriterId;
use vault_format::keys::{MetadataKey, RecoveryKey, Secret, SigningKey};
use vault_format::seal::Sealer;
use vault_format::vault_config::VaultConfig;

pub const CONFIG: &[u8] = include_bytes!("../../fixtures/golden/v1/bucket/vault/0000000001.json");
pub const CHUNK_BYTES: u32 = 65_536;

pub struct Golden {
    pub control: SigningKey,
    pub recovery: RecoveryKey,
    pub config: VaultConfig,
    pub key: GatewayKey,
    pub data: Sealer,
}

impl Golden {
    pub fn metadata(&self) -> &MetadataKey {
        self.key.trust.keys.newest()
    }
}

fn seed(name: &str) -> Secret {
    Secret(blake3::derive_key(
        "sparesite golden vault",
        name.as_bytes(),
    ))
}

pub fn golden() -> &'static Golden {
    static GOLDEN: LazyLock<Golden> = LazyLock::new(make);
    &GOLDEN
}

fn make() -> Golden {
    let control = SigningKey::from_seed(seed("control")).expect("a seed");
    let recovery = RecoveryKey::from_bytes(seed("recovery"));
    let config = VaultConfig::first(CONFIG).expect("the fixture is a vault");
    let (id_key, metadata) = config.open_keys(&recovery).expect("its keys open");
    let writer = seed("writer");
    let writer = WriterId(std::array::from_fn(|i| writer.0[i]));
    let about = ("golden gateway", "file:///golden");
    let shared = (&id_key, &metadata);
    let key = issue_gateway_key(&control, &config, shared, about, writer, seed("writer key"))
        .expect("a key is issued");
    Golden {
        control,
        recovery,
        config,
        key,
        data: Sealer::new(&seed("data key")),
    }
}
