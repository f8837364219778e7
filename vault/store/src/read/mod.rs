#[derive(Debug)]
pub struct Vault {
    pub objects: std::sync::Arc<dyn crate::objects::Objects>,
    pub config: vault_format::vault_config::VaultConfig,
    pub keys: vault_format::kit::KitKeys,
    pub id_key: vault_format::keys::IdKey,
    pub trust: vault_format::metadata_object::Trust,
    pub log: vault_format::control_log::ControlLog,
    pub findings: Vec<String>,
}
