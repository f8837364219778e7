//! Signed requests to AWS services that have no SDK crate here.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use futures::StreamExt;
use http::HeaderMap;
use jiff::Timestamp;
use reqwest::Method;

use super::identity::{Identity, chain_of};
use super::retry::{passing, retrying};
use crate::error::kind_of;
use crate::{CloudError, Kind};

const CLIENTS: usize = 4;
const CONNECT: Duration = Duration::from_secs(10);
/// Until a whole answer is there; EC2 answers within seconds.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// How long a call is tried again while something passing is in the way.
const PATIENCE: Duration = Duration::from_secs(120);
/// AWS bears 5 minutes, S3 15 (AWS General Reference, Signature Version 4).
const MOST_SKEW: i64 = 240;
/// A page of any answer is smaller.
const MOST_BYTES: usize = 16 << 20;

#[derive(Debug, Clone)]
pub(super) struct Http {
    /// With connections of their own: with one alone others saw calls that nobody answered (coldsnap, issue 437).
    clients: Vec<reqwest::Client>,
    identity: Identity,
    region: String,
}

/// A call, as it can be made several times.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// As it stands in the signature's scope: `ec2`.
    pub service: &'static str,
    pub method: Method,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// SHA-256 of the body in hexadecimal, where it is known already.
    pub digest: Option<String>,
    /// Until the whole answer is there.
    pub timeout: Duration,
    /// By which of the clients it goes; any number.
    pub lane: usize,
    /// For errors: `start "db"`.
    pub attempted: String,
}

impl Http {
    pub(super) fn new(identity: Identity, region: &str) -> Result<Self, CloudError> {
        let client = || {
            reqwest::Client::builder()
                .user_agent(concat!("sparesite/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT)
                .build()
        };
        let clients: Result<_, _> = (0..CLIENTS).map(|_| client()).collect();
        let clients = clients.map_err(|error: reqwest::Error| {
            CloudError::new("make an HTTP client", Kind::Refused, "", chain_of(&error))
        })?;
        Ok(Http {
            clients,
            identity,
            region: region.to_owned(),
        })
    }

    /// The answer to a call that succeeded. `code` reads the cloud's word, and what it says, from one that did not: its
    /// header `x-amzn-errortype`, and its body.
    pub(super) async fn answer(
        &self,
        call: &Call,
        code: impl Fn(&str, &[u8]) -> (String, String),
    ) -> Result<Bytes, CloudError> {
        retrying(PATIENCE, passing(None), || self.once(call, &code)).await
    }

    /// The same, tried once.
    pub(super) async fn once(
        &self,
        call: &Call,
        code: impl Fn(&str, &[u8]) -> (String, String),
    ) -> Result<Bytes, CloudError> {
        let fails =
            |kind, code: &str, why: String| CloudError::new(&call.attempted, kind, code, why);
        let no_answer = |error: reqwest::Error| {
            let kind = match error.is_timeout() {
                true => Kind::Late,
                false => Kind::Unavailable,
            };
            fails(
                kind,
                "",
                format!("no answer: {}", chain_of(&error.without_url())),
            )
        };
        let credentials = self.identity.get().await?;
        let request = self.signed(call, &credentials)?;
        let client = &self.clients[call.lane % self.clients.len()];
        let response = client.execute(request).await.map_err(no_answer)?;
        let status = response.status();
        let ahead = seconds_ahead(response.headers());
        let word = response.headers().get("x-amzn-errortype");
        let word = word
            .and_then(|word| word.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(part) = stream.next().await {
            let part = part.map_err(no_answer)?;
            if body.len() + part.len() > MOST_BYTES {
                let why = "the answer is larger than any of this service";
                return Err(fails(Kind::Refused, "", why.into()));
            }
            body.extend_from_slice(&part);
        }
        if status.is_success() {
            return Ok(body.into());
        }
        let (code, message) = code(&word, &body);
        let kind = kind_of(status.as_u16(), &code);
        if kind == Kind::Credentials {
            // A clock that is wrong makes good credentials look bad, with any of these codes.
            if let Some(ahead) = ahead.filter(|ahead| ahead.abs() > MOST_SKEW) {
                let why =
                    format!("{message}: the clock of this machine is {ahead} s ahead of AWS's");
                return Err(fails(Kind::Clock, &code, why));
            }
            self.identity
                .forget(Some(credentials.access_key_id()))
                .await;
        }
        let message = match message.is_empty() {
            true => format!("HTTP status {}", status.as_u16()),
            false => message,
        };
        Err(fails(kind, &code, message))
    }

    fn signed(
        &self,
        call: &Call,
        credentials: &Credentials,
    ) -> Result<reqwest::Request, CloudError> {
        let fails = |why: String| CloudError::new(&call.attempted, Kind::Refused, "", why);
        let identity = credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(call.service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| fails(chain_of(&error)))?;
        let headers = call
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        let body = match &call.digest {
            Some(digest) => SignableBody::Precomputed(digest.clone()),
            None => SignableBody::Bytes(&call.body),
        };
        let signable = SignableRequest::new(call.method.as_str(), &call.url, headers, body)
            .map_err(|error| fails(chain_of(&error)))?;
        let signed = sign(signable, &parameters.into()).map_err(|error| fails(chain_of(&error)))?;
        let (instructions, _) = signed.into_parts();
        let mut request = http::Request::builder()
            .method(call.method.clone())
            .uri(&call.url)
            .body(call.body.clone())
            .map_err(|error| fails(chain_of(&error)))?;
        for (name, value) in &call.headers {
            let value = value
                .parse()
                .map_err(|_| fails(format!("{name} is no header")))?;
            request.headers_mut().insert(*name, value);
        }
        instructions.apply_to_request_http1x(&mut request);
        let mut request =
            reqwest::Request::try_from(request).map_err(|error| fails(chain_of(&error)))?;
        *request.timeout_mut() = Some(call.timeout);
        Ok(request)
    }
}

/// By the answer's `Date`.
fn seconds_ahead(headers: &HeaderMap) -> Option<i64> {
    let date = headers.get(http::header::DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(Timestamp::now().as_second() - theirs.as_second())
}
