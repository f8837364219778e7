//! A one-off schedule that starts what tears a test down (EventBridge Scheduler, CreateSchedule and DeleteSchedule).

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use reqwest::Method;
use serde_json::{Value, json};

use super::Aws;
use super::http::{ANSWER, Call};
use crate::{CloudError, Kind};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRequest {
    /// 1 to 64 of `[0-9a-zA-Z-_.]`.
    pub name: String,
    pub group: String,
    pub at: Timestamp,
    /// ARN of what is started.
    pub target: String,
    /// ARN of the role by which it is.
    pub role: String,
    /// What the target is given.
    pub input: Value,
}

impl Aws {
    /// Makes it, or finds the one that has the name.
    pub async fn schedule(&self, request: &ScheduleRequest) -> Result<(), CloudError> {
        let at = request
            .at
            .to_zoned(TimeZone::UTC)
            .strftime("%Y-%m-%dT%H:%M:%S");
        let body = json!({
            "GroupName": request.group,
            "Description": "tears a failover test down",
            "ScheduleExpression": format!("at({at})"),
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "DELETE",
            "ClientToken": request.name,
            "Target": {
                "Arn": request.target,
                "RoleArn": request.role,
                "Input": request.input.to_string(),
                // It is worth nothing if it is lost to a moment's trouble.
                "RetryPolicy": {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 86400},
            },
        });
        let attempted = format!("schedule the test's end ({})", request.name);
        let url = format!("{}/schedules/{}", self.0.scheduler_url, request.name);
        match self
            .schedules(Method::POST, url, body.to_string(), attempted)
            .await
        {
            Err(error) if error.kind != Kind::Exists => Err(error),
            _ => Ok(()),
        }
    }

    pub async fn remove_schedule(&self, group: &str, name: &str) -> Result<(), CloudError> {
        let group: String = form_urlencoded::byte_serialize(group.as_bytes()).collect();
        let url = format!(
            "{}/schedules/{name}?groupName={group}",
            self.0.scheduler_url
        );
        let attempted = format!("remove the schedule {name}");
        match self
            .schedules(Method::DELETE, url, String::new(), attempted)
            .await
        {
            Err(error) if error.kind != Kind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn schedules(
        &self,
        method: Method,
        url: String,
        body: String,
        attempted: String,
    ) -> Result<Bytes, CloudError> {
        let call = Call {
            service: "scheduler",
            method,
            url,
            headers: vec![("content-type", "application/json".into())],
            body: body.into(),
            digest: None,
            timeout: ANSWER,
            lane: 0,
            attempted,
        };
        self.0.http.answer(&call, refusal).await
    }
}

/// The code is in a header, perhaps with more behind it (Smithy, AWS restJson1 protocol, "Operation error serialization").
pub(super) fn refusal(word: &str, body: &[u8]) -> (String, String) {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    let word = match word {
        "" => text("__type").or_else(|| text("code")).unwrap_or_default(),
        word => word.to_owned(),
    };
    let code = word.split(':').next().unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default().to_owned();
    let message = text("Message")
        .or_else(|| text("message"))
        .unwrap_or_default();
    (code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_s_code_is_in_its_header_or_its_body() {
        let said = |word, body: &str| refusal(word, body.as_bytes());
        let told = (String::from("ConflictException"), String::from("there"));
        assert_eq!(
            said("ConflictException:http://x/", r#"{"Message":"there"}"#),
            told
        );
        assert_eq!(
            said(
                "",
                r#"{"__type":"a.b#ConflictException","message":"there"}"#
            ),
            told
        );
        assert_eq!(said("", "<html>"), (String::new(), String::new()));
    }
}
