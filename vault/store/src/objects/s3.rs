//! A vault in an S3 bucket; region, endpoint and credentials from the AWS standard chain.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_types::service_config::ServiceConfigKey;
use object_store::aws::{AmazonS3Builder, Checksum, S3ConditionalPut};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::ObjectError;
use super::adapter::{Backend, StoreObjects};
use super::credentials::ChainCredentials;
use super::endpoint::Endpoint;
use super::http::{MeteredHttp, StoreClock};
use super::open::OpenOptions;
use super::settings::Settings;

pub(super) async fn open_s3(
    bucket: &str,
    prefix: &str,
    options: &OpenOptions,
) -> Result<StoreObjects, ObjectError> {
    super::tls::install_ring();
    let url = match prefix {
        "" => format!("s3://{bucket}"),
        prefix => format!("s3://{bucket}/{prefix}"),
    };
    let misconfigured = |cause: String| ObjectError::Misconfigured {
        store: url.clone(),
        cause,
    };
    let settings = Settings::new(options.settings.clone(), options.environment);
    let config = load_config(&settings).await;
    let custom = custom_endpoint(&settings, &config);
    let region = match (config.region(), &custom) {
        (Some(region), _) => region.to_string(),
        // Servers that are not AWS mostly sign for this one.
        (None, Some(_)) => "us-east-1".to_owned(),
        (None, None) => {
            return Err(misconfigured(
                "no region is set; set AWS_REGION or the profile's region".to_owned(),
            ));
        }
    };
    // A dot in a bucket's name does not fit the wildcard certificate of virtual hosts.
    let path_style = custom.is_some() || bucket.contains('.');
    let endpoint = custom.unwrap_or_else(|| aws_endpoint(bucket, &region, path_style));
    let endpoint = Endpoint::parse(&endpoint).map_err(&misconfigured)?;

    let clock = StoreClock::default();
    let connector = MeteredHttp {
        meter: options.meter.clone(),
        clock: clock.clone(),
        throttle: options.throttle.clone(),
        timeouts: options.timeouts,
        authority: endpoint.authority.clone(),
        extra_roots: extra_roots(&settings).await.map_err(&misconfigured)?,
        loopback: endpoint.loopback,
    };
    let credentials = Arc::new(ChainCredentials::new(credentials_of(&settings, &config)));
    let store = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_endpoint(endpoint.url)
        .with_virtual_hosted_style_request(!path_style)
        .with_credentials(credentials.clone())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // A bucket with Object Lock refuses a PUT without a checksum.
        .with_checksum_algorithm(Checksum::SHA256)
        .with_client_options(ClientOptions::new().with_allow_http(endpoint.loopback))
        .with_retry(no_retries())
        .with_http_connector(connector)
        .build()
        .map_err(|error| misconfigured(super::classify::deepest(&error)))?;
    Ok(StoreObjects::new(
        Arc::new(store),
        Backend::Http {
            clock,
            credentials: Some(credentials),
        },
        prefix.to_owned(),
        url,
        options.meter.clone(),
    ))
}

/// Retrying is one layer's work, in `retrying`, where it is counted and bounded.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: std::time::Duration::ZERO,
    }
}

async fn load_config(settings: &Settings) -> SdkConfig {
    let ring = Provider::Rustls(CryptoMode::Ring);
    let client = aws_smithy_http_client::Builder::new()
        .tls_provider(ring)
        .build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(client);
    let region = settings
        .overridden("AWS_REGION")
        .or_else(|| settings.overridden("AWS_DEFAULT_REGION"));
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    if let Some(profile) = settings.overridden("AWS_PROFILE") {
        loader = loader.profile_name(profile);
    }
    let mut files = EnvConfigFiles::builder();
    let mut any = false;
    for (name, kind) in [
        ("AWS_CONFIG_FILE", EnvConfigFileKind::Config),
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            EnvConfigFileKind::Credentials,
        ),
    ] {
        if let Some(path) = settings.overridden(name) {
            files = files.with_file(kind, path);
            any = true;
        }
    }
    if any {
        loader = loader.profile_files(files.build());
    } else if !settings.environment() {
        let nothing = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, "");
        loader = loader.profile_files(nothing.build()).no_credentials();
    }
    loader.load().await
}

fn credentials_of(settings: &Settings, config: &SdkConfig) -> Option<SharedCredentialsProvider> {
    let keys = settings
        .overridden("AWS_ACCESS_KEY_ID")
        .zip(settings.overridden("AWS_SECRET_ACCESS_KEY"));
    let Some((id, secret)) = keys else {
        return config.credentials_provider();
    };
    let token = settings.overridden("AWS_SESSION_TOKEN");
    let fixed = Credentials::new(id, secret, token, None, "settings");
    Some(SharedCredentialsProvider::new(fixed))
}

fn custom_endpoint(settings: &Settings, config: &SdkConfig) -> Option<String> {
    let overridden = settings
        .overridden("AWS_ENDPOINT_URL_S3")
        .or_else(|| settings.overridden("AWS_ENDPOINT_URL"));
    if overridden.is_some() || !settings.environment() {
        return overridden;
    }
    // Knows AWS_ENDPOINT_URL_S3 and the profile's `services` section.
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build();
    let of_service = config
        .service_config()
        .zip(key.ok())
        .and_then(|(config, key)| config.load_config(key));
    of_service.or_else(|| config.endpoint_url().map(str::to_owned))
}

fn aws_endpoint(bucket: &str, region: &str, path_style: bool) -> String {
    let domain = match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    match path_style {
        true => format!("https://s3.{region}.{domain}"),
        false => format!("https://{bucket}.s3.{region}.{domain}"),
    }
}

async fn extra_roots(settings: &Settings) -> Result<Vec<reqwest::Certificate>, String> {
    let Some(path) = settings.get("AWS_CA_BUNDLE") else {
        return Ok(Vec::new());
    };
    let pem = tokio::fs::read(&path).await;
    let pem = pem.map_err(|error| format!("AWS_CA_BUNDLE {path} cannot be read: {error}"))?;
    reqwest::Certificate::from_pem_bundle(&pem)
        .map_err(|_| format!("AWS_CA_BUNDLE {path} holds no PEM certificates"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_endpoints_follow_region_and_bucket() {
        assert_eq!(
            aws_endpoint("b", "eu-central-1", false),
            "https://b.s3.eu-central-1.amazonaws.com"
        );
        assert_eq!(
            aws_endpoint("b.c", "cn-north-1", true),
            "https://s3.cn-north-1.amazonaws.com.cn"
        );
    }
}
