//! HTTP to the store: metering, the store's clock, and giving up when nothing moves.
//!
//! `object_store` builds requests and signs them; this service, given to it as its
//! connector, performs each attempt. So retries and listings' pages are counted too.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use jiff::Timestamp;
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpResponseBody, HttpService,
};

use super::classify::{Answer, deepest, note_refusal};
use super::credentials::CredentialsTrouble;
use super::progress::{Progress, ReceivedBody, SentBody, Stalled};
use super::throttle::Throttle;
use super::{Meter, RequestKind};

/// A refusal's body is a short XML document; more is not read.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// When an attempt is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To a TCP and TLS connection.
    pub connect: Duration,
    /// Without a byte moving in either direction. The kernel may hold 4 MiB of a body that
    /// was written to it, half a minute's worth at 1 Mbit/s: keep this well above.
    pub no_progress: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            no_progress: Duration::from_secs(90),
        }
    }
}

/// The newest `Date` header, seconds since 1970; 0 before the first.
#[derive(Debug, Clone, Default)]
pub(super) struct StoreClock(Arc<AtomicI64>);

impl StoreClock {
    pub(super) fn newest(&self) -> Option<Timestamp> {
        match self.0.load(Relaxed) {
            0 => None,
            seconds => Timestamp::from_second(seconds).ok(),
        }
    }

    fn read(&self, headers: &HeaderMap) {
        let date = headers
            .get(http::header::DATE)
            .and_then(|d| d.to_str().ok());
        if let Some(zoned) = date.and_then(|d| jiff::fmt::rfc2822::parse(d).ok()) {
            self.0.fetch_max(zoned.timestamp().as_second(), Relaxed);
        }
    }
}

/// Connector and service in one; clones share meter and clock.
#[derive(Debug, Clone)]
pub(super) struct MeteredHttp {
    pub meter: Meter,
    pub clock: StoreClock,
    pub throttle: Throttle,
    pub timeouts: Timeouts,
    /// Host and port of the store: what goes elsewhere (token and metadata services) is
    /// neither billed nor the store's clock.
    pub authority: String,
    /// Certificate authorities beside the system's, PEM.
    pub extra_roots: Vec<reqwest::Certificate>,
    pub loopback: bool,
}

impl HttpConnector for MeteredHttp {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        super::tls::install_ring();
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp);
        let allow_http = allow_http.as_deref() == Some("true");
        // Only the options for instance metadata allow http for a store that is not local.
        let metadata = allow_http && !self.loopback;
        let connect = match metadata {
            true => Duration::from_secs(2),
            false => self.timeouts.connect,
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("sparesite/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .https_only(!allow_http)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(connect)
            .pool_idle_timeout(Duration::from_secs(45))
            .tls_certs_merge(self.extra_roots.iter().cloned());
        if self.loopback || metadata {
            builder = builder.no_proxy();
        }
        #[cfg(target_os = "linux")]
        {
            builder = builder.tcp_user_timeout(self.timeouts.no_progress);
        }
        let client = builder
            .build()
            .map_err(|error| object_store::Error::Generic {
                store: "http",
                source: Box::new(error),
            })?;
        Ok(HttpClient::new(Service {
            http: self.clone(),
            client,
        }))
    }
}

#[derive(Debug)]
struct Service {
    http: MeteredHttp,
    client: reqwest::Client,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri().clone();
        let ours = uri
            .authority()
            .is_some_and(|a| a.as_str() == self.http.authority);
        let method = request.method().clone();
        // Token and metadata services count into a meter that nobody reads.
        let meter = match ours {
            true => self.http.meter.clone(),
            false => Meter::new(),
        };
        meter.request(kind_of(&method, &uri));
        let response = match self.exchange(request, &meter).await {
            Ok(response) => response,
            Err(error) if ours => return Err(error),
            Err(error) => return Err(token_service_failed(&uri, error)),
        };
        if ours {
            self.http.clock.read(response.headers());
        }
        match response.status().is_success() {
            true => Ok(response),
            false => Ok(note(response, ours, &method).await),
        }
    }
}

impl Service {
    async fn exchange(
        &self,
        request: HttpRequest,
        meter: &Meter,
    ) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = reqwest::Url::from_str(&parts.uri.to_string())
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let progress = Progress::new(self.http.timeouts.no_progress);
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(match body.content_length() {
            0 => reqwest::Body::from(Bytes::new()),
            _ => {
                let throttle = self.http.throttle.clone();
                reqwest::Body::wrap(SentBody::new(
                    body,
                    throttle,
                    meter.clone(),
                    progress.clone(),
                ))
            }
        });
        let response = tokio::select! {
            response = self.client.execute(request) => response.map_err(http_error)?,
            stalled = progress.stalled() => {
                return Err(HttpError::new(HttpErrorKind::Timeout, stalled));
            }
        };
        let (parts, body) = http::Response::<reqwest::Body>::from(response).into_parts();
        let body = ReceivedBody::new(body, meter.clone(), self.http.timeouts.no_progress);
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

fn kind_of(method: &Method, uri: &Uri) -> RequestKind {
    let query = uri.query().unwrap_or_default();
    let is = |pair: &str| query.split('&').any(|part| part == pair);
    match *method {
        Method::HEAD => RequestKind::Head,
        Method::GET if is("list-type=2") || is("comp=list") => RequestKind::List,
        Method::GET => RequestKind::Get,
        _ => RequestKind::Put,
    }
}

pub(super) fn http_error(error: reqwest::Error) -> HttpError {
    let kind = if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_timeout() {
        HttpErrorKind::Timeout
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}

fn token_service_failed(uri: &Uri, error: HttpError) -> HttpError {
    let cause = format!(
        "the token service {} cannot be reached ({})",
        uri.host().unwrap_or_default(),
        deepest(&error)
    );
    HttpError::new(error.kind(), CredentialsTrouble::Missing(cause))
}

/// Notes what a refusal says, and gives it back whole.
async fn note(response: HttpResponse, ours: bool, method: &Method) -> HttpResponse {
    let (parts, body) = response.into_parts();
    let body = match *method {
        Method::HEAD => Bytes::new(),
        _ => read_refusal(body).await,
    };
    let text = String::from_utf8_lossy(&body);
    let header = parts.headers.get("x-ms-error-code");
    let header = header
        .and_then(|code| code.to_str().ok())
        .map(str::to_owned);
    let message = [
        element(&text, "Message"),
        element(&text, "AuthenticationErrorDetail"),
    ];
    let message = match ours {
        true => message.into_iter().flatten().collect::<Vec<_>>().join(" "),
        false => text.chars().take(300).collect(),
    };
    note_refusal(Answer {
        status: parts.status.as_u16(),
        code: header
            .or_else(|| element(&text, "Code"))
            .unwrap_or_default(),
        message: message.split_whitespace().collect::<Vec<_>>().join(" "),
        from_token_service: !ours,
    });
    // Not as text: object_store refuses a body that is not UTF-8.
    let text = text.into_owned();
    HttpResponse::from_parts(parts, text.into())
}

async fn read_refusal(body: HttpResponseBody) -> Bytes {
    use futures::StreamExt;
    let mut bytes = Vec::new();
    let mut stream = body.bytes_stream();
    while let Some(Ok(part)) = stream.next().await {
        let room = MAX_REFUSAL_BYTES - bytes.len();
        bytes.extend_from_slice(&part[..part.len().min(room)]);
        if bytes.len() == MAX_REFUSAL_BYTES {
            break;
        }
    }
    bytes.into()
}

fn element(xml: &str, name: &str) -> Option<String> {
    let start = xml.find(&format!("<{name}>"))? + name.len() + 2;
    let end = xml[start..].find("</")? + start;
    Some(xml[start..end].chars().take(300).collect())
}

/// Whether an endpoint's host is this machine, the only one that plain http is for.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

impl From<Stalled> for HttpError {
    fn from(stalled: Stalled) -> Self {
        HttpError::new(HttpErrorKind::Timeout, stalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_method_and_query() {
        let kind = |method: Method, uri: &str| kind_of(&method, &uri.parse().unwrap());
        assert_eq!(kind(Method::PUT, "http://h/b/x"), RequestKind::Put);
        assert_eq!(kind(Method::GET, "http://h/b/x"), RequestKind::Get);
        assert_eq!(kind(Method::HEAD, "http://h/b/x"), RequestKind::Head);
        let list = "http://h/b?list-type=2&prefix=p";
        assert_eq!(kind(Method::GET, list), RequestKind::List);
        let list = "http://h/c?restype=container&comp=list";
        assert_eq!(kind(Method::GET, list), RequestKind::List);
        // An object whose name merely looks like it.
        assert_eq!(
            kind(Method::GET, "http://h/b/list-type=2"),
            RequestKind::Get
        );
    }

    #[test]
    fn the_clock_is_the_newest_date() {
        let clock = StoreClock::default();
        assert_eq!(clock.newest(), None);
        let read = |date: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("date", date.parse().unwrap());
            clock.read(&headers);
        };
        read("Sun, 22 Nov 2026 08:55:40 GMT");
        read("Sun, 22 Nov 2026 08:55:39 GMT");
        read("yesterday");
        let newest = clock.newest().unwrap().to_string();
        assert_eq!(newest, "2026-11-22T08:55:40Z");
    }

    #[test]
    fn refusals_are_read_from_xml() {
        let xml = "<Error><Code>NoSuchBucket</Code><Message>no\n such</Message></Error>";
        assert_eq!(element(xml, "Code").as_deref(), Some("NoSuchBucket"));
        assert_eq!(element(xml, "Missing"), None);
        assert_eq!(element("<Code>endless", "Code"), None);
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "localhost.example.org", "s3.amazonaws.com", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
