//! What an account may have: quotas, and the key that volumes are encrypted with.

use serde_json::json;

use super::Aws;
use super::json::Service;
use crate::{CloudError, Kind};

/// A KMS key, as far as volumes are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    /// `Enabled`, or what it is instead: `Disabled`, `PendingDeletion`.
    pub state: String,
    /// Symmetric, to encrypt and decrypt: EBS takes no other (Amazon EBS User Guide, "Requirements for EBS encryption").
    pub encrypts: bool,
}

impl Aws {
    /// The account's quota in this region, else AWS's default: where nobody asked for more, there may be no value of the account's
    /// own. In the quota's own unit.
    pub async fn quota(&self, service: &str, code: &str) -> Result<f64, CloudError> {
        let attempted = format!("ask for the quota {code}");
        let body = json!({"ServiceCode": service, "QuotaCode": code});
        let ask = |operation| self.ask_json(Service::Quotas, operation, &body, &attempted);
        let answer = match ask("GetServiceQuota").await {
            Err(error) if error.kind == Kind::NotFound => ask("GetAWSDefaultServiceQuota").await?,
            other => other?,
        };
        let value = answer["Quota"]["Value"].as_f64();
        let value = value.filter(|value| value.is_finite() && *value >= 0.0);
        value
            .ok_or_else(|| CloudError::new(attempted, Kind::Refused, "", "the answer has no value"))
    }

    /// `None`: this region has no such key.
    pub async fn key(&self, arn: &str) -> Result<Option<KeyState>, CloudError> {
        let attempted = format!("look at the key {arn}");
        let body = json!({"KeyId": arn});
        match self
            .ask_json(Service::Keys, "DescribeKey", &body, &attempted)
            .await
        {
            Ok(answer) => {
                let key = &answer["KeyMetadata"];
                let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
                Ok(Some(KeyState {
                    state: text("KeyState"),
                    encrypts: text("KeyUsage") == "ENCRYPT_DECRYPT"
                        && text("KeySpec") == "SYMMETRIC_DEFAULT",
                }))
            }
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
