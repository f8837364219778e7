//! A vault in an Azure Blob container; credentials from `AZURE_STORAGE_*` and, without
//! them, the identity of the machine.

use std::sync::Arc;

use object_store::ClientOptions;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::ObjectError;
use super::adapter::{Backend, StoreObjects};
use super::endpoint::Endpoint;
use super::http::{MeteredHttp, StoreClock};
use super::open::OpenOptions;
use super::settings::Settings;

pub(super) fn open_azure(
    account: &str,
    container: &str,
    prefix: &str,
    options: &OpenOptions,
) -> Result<StoreObjects, ObjectError> {
    super::tls::install_ring();
    let url = format!("azure://{account}/{container}/{prefix}");
    let url = url.trim_end_matches('/').to_owned();
    let misconfigured = |cause: String| ObjectError::Misconfigured {
        store: url.clone(),
        cause,
    };
    let settings = Settings::new(options.settings.clone(), options.environment);
    let endpoint = settings
        .get("AZURE_STORAGE_ENDPOINT")
        .unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
    let endpoint = Endpoint::parse(&endpoint).map_err(&misconfigured)?;
    let clock = StoreClock::default();
    let connector = MeteredHttp {
        meter: options.meter.clone(),
        clock: clock.clone(),
        throttle: options.throttle.clone(),
        timeouts: options.timeouts,
        authority: endpoint.authority.clone(),
        extra_roots: Vec::new(),
        loopback: endpoint.loopback,
    };
    let store = configured(&settings)
        .with_account(account)
        .with_container_name(container)
        .with_endpoint(endpoint.url)
        .with_client_options(ClientOptions::new().with_allow_http(endpoint.loopback))
        .with_retry(super::s3::no_retries())
        .with_http_connector(connector)
        .build()
        .map_err(|error| misconfigured(super::classify::deepest(&error)))?;
    Ok(StoreObjects::new(
        Arc::new(store),
        Backend::Http {
            clock,
            credentials: None,
        },
        prefix.to_owned(),
        url,
        options.meter.clone(),
    ))
}

/// The credential settings alone: place, endpoint and client come from the vault's URL and
/// from us.
fn configured(settings: &Settings) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in settings.with_prefix("AZURE_") {
        // The Azure CLI's name for the account key.
        let name = match name.as_str() {
            "AZURE_STORAGE_KEY" => "azure_storage_account_key".to_owned(),
            _ => name.to_ascii_lowercase(),
        };
        match name.parse() {
            Ok(
                AzureConfigKey::Endpoint
                | AzureConfigKey::UseEmulator
                | AzureConfigKey::UseFabricEndpoint
                | AzureConfigKey::ContainerName
                | AzureConfigKey::AccountName
                | AzureConfigKey::Client(_),
            )
            | Err(_) => {}
            Ok(key) => builder = builder.with_config(key, value),
        }
    }
    if let Some(endpoint) = settings.get("IDENTITY_ENDPOINT") {
        builder = builder.with_msi_endpoint(endpoint);
    }
    builder
}
