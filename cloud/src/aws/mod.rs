//! AWS: EBS direct for disks, EC2 for what runs on them, EventBridge Scheduler for a test's deadline; Service Quotas and KMS for what
//! the account allows.

mod aggregate;
mod ec2;
mod http;
mod identity;
mod image;
mod instance;
mod inventory;
mod json;
mod limits;
mod pace;
mod region;
mod retry;
mod rights;
mod schedule;
mod snapshot;
mod volume;
mod window;
mod xml;

use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ebs::config::IdentityCache;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::service_config::ServiceConfigKey;

use crate::{CloudError, Kind};
use ec2::Ec2;
use http::Http;
use identity::Identity;
use pace::Pace;
use window::Window;

pub use image::{BootMode, ImageRequest, MappedVolume, SNAPSHOT_FAILED};
pub use instance::{InstanceRequest, Launched};
pub use inventory::{Inventory, Tagged};
pub use limits::KeyState;
pub use region::{Interface, SubnetSeen};
pub use rights::MadeImage;
pub use schedule::ScheduleRequest;
pub use snapshot::{FillError, Mark, SnapshotRequest};
pub use volume::{PublicImage, VolumeRequest, windows_device};

/// Blocks of all disks that are under way at once: AWS's own sizing is 100 for 1,000 a second (EBS direct APIs, "Optimize
/// performance"); others saw calls stall with more than 64.
const PUTS_AT_ONCE: usize = 64;
/// A little below the quotas of an account: PutSnapshotBlock 1,000 a second, StartSnapshot and CompleteSnapshot 10.
const PUTS_PER_SECOND: f64 = 950.0;
const STARTS_PER_SECOND: f64 = 5.0;
/// For a block, sent and answered. It is not answered at all now and then: outside of AWS two of three long uploads had one
/// (coldsnap, issue 437). On a line too narrow for all that are under way, fewer are from then on.
const BLOCK_PATIENCE: Duration = Duration::from_secs(60);

/// One account and region.
#[derive(Clone)]
pub struct Aws(Arc<Shared>);

struct Shared {
    region: String,
    identity: Identity,
    ebs: aws_sdk_ebs::Client,
    ebs_url: String,
    ec2: Ec2,
    http: Http,
    scheduler_url: String,
    quotas_url: String,
    kms_url: String,
    puts: Window,
    put_pace: Pace,
    /// For a block, sent and answered.
    block_patience: Duration,
    start_pace: Pace,
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Aws({})", self.0.region)
    }
}

/// Names and values, as AWS has them on what it makes.
pub type Tags = Vec<(String, String)>;

impl Aws {
    /// Credentials and endpoints come from the standard chain. Whether they are good shows at the first call.
    pub async fn open(region: &str) -> Result<Aws, CloudError> {
        Self::of(
            &configured(region).await,
            region,
            PUTS_PER_SECOND,
            BLOCK_PATIENCE,
        )
    }

    /// Without regard to an account's quota of blocks: for a bench that measures this program.
    pub async fn open_unpaced(region: &str) -> Result<Aws, CloudError> {
        Self::of(&configured(region).await, region, 1e6, BLOCK_PATIENCE)
    }

    fn of(
        config: &SdkConfig,
        region: &str,
        puts_per_second: f64,
        block_patience: Duration,
    ) -> Result<Aws, CloudError> {
        // An error says that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Some(chain) = config.credentials_provider() else {
            let why = "neither keys nor a profile are configured";
            return Err(CloudError::new(
                "get AWS credentials",
                Kind::Credentials,
                "",
                why,
            ));
        };
        let identity = Identity::new(chain);
        let http = Http::new(identity.clone(), region)?;
        let ec2 = Ec2::new(http.clone(), endpoint(config, "EC2", "ec2", region)?);
        let mut ebs = aws_sdk_ebs::config::Builder::from(config)
            .http_client(tls_client())
            .credentials_provider(identity.clone())
            // It keeps them itself, and forgets them when they are refused.
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .timeout_config(patience());
        ebs.set_endpoint_url(custom_endpoint(config, "EBS")?);
        Ok(Aws(Arc::new(Shared {
            region: region.to_owned(),
            ebs: aws_sdk_ebs::Client::from_conf(ebs.build()),
            ebs_url: endpoint(config, "EBS", "ebs", region)?,
            ec2,
            scheduler_url: endpoint(config, "Scheduler", "scheduler", region)?,
            quotas_url: endpoint(config, "Service Quotas", "servicequotas", region)?,
            kms_url: endpoint(config, "KMS", "kms", region)?,
            http,
            identity,
            puts: Window::new(PUTS_AT_ONCE),
            block_patience,
            put_pace: Pace::new(puts_per_second),
            start_pace: Pace::new(STARTS_PER_SECOND),
        })))
    }

    /// Whether the standard chain has any credentials at all, good or not.
    pub async fn has_credentials(&self) -> bool {
        self.0.identity.is_configured().await
    }
}

async fn configured(region: &str) -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(tls_client())
        .region(Region::new(region.to_owned()));
    loader.load().await
}

fn tls_client() -> aws_smithy_runtime_api::client::http::SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https()
}

fn patience() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(10))
        .operation_attempt_timeout(Duration::from_secs(60))
        .build()
}

fn endpoint(
    config: &SdkConfig,
    service: &str,
    host: &str,
    region: &str,
) -> Result<String, CloudError> {
    if let Some(custom) = custom_endpoint(config, service)? {
        return Ok(custom);
    }
    let domain = match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    Ok(format!("https://{host}.{region}.{domain}"))
}

/// That of the service (`AWS_ENDPOINT_URL_EC2`, a profile's `services` section), else that of all.
fn custom_endpoint(config: &SdkConfig, service: &str) -> Result<Option<String>, CloudError> {
    let key = ServiceConfigKey::builder()
        .service_id(service)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build();
    let of_service = config
        .service_config()
        .zip(key.ok())
        .and_then(|(config, key)| config.load_config(key));
    let found = of_service.or_else(|| config.endpoint_url().map(str::to_owned));
    let Some(url) = found else { return Ok(None) };
    let url = url.trim_end_matches('/').to_owned();
    match is_safe(&url) {
        true => Ok(Some(url)),
        false => {
            let why = format!(
                "the endpoint {url} is plain http, which is only for this machine; use https"
            );
            Err(CloudError::new(
                format!("use {service}"),
                Kind::Refused,
                "",
                why,
            ))
        }
    }
}

fn is_safe(url: &str) -> bool {
    let Ok(uri) = url.parse::<::http::Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let here = host
        .parse::<std::net::IpAddr>()
        .is_ok_and(|a| a.is_loopback());
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => here || host == "localhost",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_only_for_this_machine() {
        for url in [
            "http://127.0.0.1:5000",
            "http://localhost",
            "http://[::1]:1",
            "https://x.example",
        ] {
            assert!(is_safe(url), "{url}");
        }
        for url in [
            "http://10.0.0.1",
            "http://x.example",
            "ftp://127.0.0.1",
            "x",
            "",
        ] {
            assert!(!is_safe(url), "{url}");
        }
    }

    #[test]
    fn endpoints_follow_the_region() {
        let config = SdkConfig::builder().build();
        let of = |region| endpoint(&config, "EC2", "ec2", region).unwrap();
        assert_eq!(of("eu-central-1"), "https://ec2.eu-central-1.amazonaws.com");
        assert_eq!(of("cn-north-1"), "https://ec2.cn-north-1.amazonaws.com.cn");
    }
}
