//! The services that take a JSON document and answer with one (AWS JSON 1.1 protocol).

use reqwest::Method;
use serde_json::Value;

use super::Aws;
use super::http::{ANSWER, Call};
use super::schedule::refusal;
use crate::{CloudError, Kind};

/// One of those services.
#[derive(Debug, Clone, Copy)]
pub(super) enum Service {
    Quotas,
    Keys,
}

impl Aws {
    /// `operation` is the action alone: `GetServiceQuota`.
    pub(super) async fn ask_json(
        &self,
        service: Service,
        operation: &str,
        body: &Value,
        attempted: &str,
    ) -> Result<Value, CloudError> {
        let (name, target, url) = match service {
            Service::Quotas => (
                "servicequotas",
                "ServiceQuotasV20190624",
                &self.0.quotas_url,
            ),
            Service::Keys => ("kms", "TrentService", &self.0.kms_url),
        };
        let call = Call {
            service: name,
            method: Method::POST,
            url: format!("{url}/"),
            headers: vec![
                ("content-type", "application/x-amz-json-1.1".into()),
                ("x-amz-target", format!("{target}.{operation}")),
            ],
            body: body.to_string().into(),
            digest: None,
            timeout: ANSWER,
            lane: 0,
            attempted: attempted.to_owned(),
        };
        let answer = self.0.http.answer(&call, refusal).await?;
        serde_json::from_slice(&answer).map_err(|error| {
            let why = format!("the answer is no JSON: {error}");
            CloudError::new(attempted, Kind::Unavailable, "", why)
        })
    }
}
