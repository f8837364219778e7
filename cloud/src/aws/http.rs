//! Signed requests to AWS services that have no SDK crate here.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;

use super::identity::{Identity, chain_of};
use super::resolver::Kept;
use super::retry::{passing, retrying};
use crate::error::kind_of;
use crate::{CloudError, Kind};

/// More than are under way at once: each has its own.
const CONNECTIONS: usize = 128;
const CONNECT: Duration = Duration::from_secs(10);
/// Until a whole answer is there; EC2 answers within seconds.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// How long a call is tried again while something passing is in the way.
const PATIENCE: Duration = Duration::from_secs(120);
/// AWS bears 5 minutes, S3 15 (AWS General Reference, Signature Version 4).
const MOST_SKEW: i64 = 240;
/// A page of any answer is smaller.
const MOST_BYTES: u64 = 16 << 20;

#[derive(Debug, Clone)]
pub(super) struct Http {
    agent: Agent,
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
    /// For errors: `start "db"`.
    pub attempted: String,
}

impl Http {
    /// Proxies are those of the environment.
    pub(super) fn new(identity: Identity, region: &str) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .user_agent(concat!("sparesite/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .max_idle_connections(CONNECTIONS)
            .max_idle_connections_per_host(CONNECTIONS)
            .build();
        Http {
            agent: Agent::with_parts(config, DefaultConnector::default(), Kept::default()),
            identity,
            region: region.to_owned(),
        }
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
        let credentials = self.identity.get().await?;
        let request = self.signed(call, &credentials)?;
        let (agent, limit) = (self.agent.clone(), call.timeout);
        let exchanged = tokio::task::spawn_blocking(move || exchange(&agent, request, limit)).await;
        let exchanged =
            exchanged.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        self.judged(call, &credentials, exchanged, code).await
    }

    /// The same by this thread, which waits meanwhile: no task may be waiting for it.
    pub(super) async fn once_here(
        &self,
        call: &Call,
        code: impl Fn(&str, &[u8]) -> (String, String),
    ) -> Result<Bytes, CloudError> {
        let credentials = self.identity.get().await?;
        let request = self.signed(call, &credentials)?;
        let exchanged = exchange(&self.agent, request, call.timeout);
        self.judged(call, &credentials, exchanged, code).await
    }

    async fn judged(
        &self,
        call: &Call,
        credentials: &Credentials,
        exchanged: Result<Answer, ureq::Error>,
        code: impl Fn(&str, &[u8]) -> (String, String),
    ) -> Result<Bytes, CloudError> {
        let fails =
            |kind, code: &str, why: String| CloudError::new(&call.attempted, kind, code, why);
        let Answer {
            status,
            headers,
            body,
        } = exchanged.map_err(|error| {
            let kind = match error {
                ureq::Error::Timeout(_) => Kind::Late,
                ureq::Error::BodyExceedsLimit(_) | ureq::Error::BadUri(_) => Kind::Refused,
                _ => Kind::Unavailable,
            };
            fails(kind, "", format!("no answer: {}", chain_of(&error)))
        })?;
        if status.is_success() {
            return Ok(body.into());
        }
        let ahead = seconds_ahead(&headers);
        let word = headers.get("x-amzn-errortype");
        let word = word.and_then(|word| word.to_str().ok()).unwrap_or_default();
        let (code, message) = code(word, &body);
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
    ) -> Result<http::Request<Bytes>, CloudError> {
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
        Ok(request)
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Waits for the answer, at most so long.
fn exchange(
    agent: &Agent,
    request: http::Request<Bytes>,
    limit: Duration,
) -> Result<Answer, ureq::Error> {
    let (head, body) = request.into_parts();
    let request = http::Request::from_parts(head, &body[..]);
    let request = agent
        .configure_request(request)
        .timeout_global(Some(limit))
        .build();
    let (head, mut body) = agent.run(request)?.into_parts();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: body.with_config().limit(MOST_BYTES).read_to_vec()?,
    })
}

/// By the answer's `Date`.
fn seconds_ahead(headers: &HeaderMap) -> Option<i64> {
    let date = headers.get(http::header::DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(Timestamp::now().as_second() - theirs.as_second())
}
