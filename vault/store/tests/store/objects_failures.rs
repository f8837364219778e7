//! What goes wrong over the wire is named, counted, and retried where that can help.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::{AzuriteServer, CountingProxy, ProxyFault, S3Server};
use vault_store::objects::{
    Created, Meter, ObjectError, Objects, OpenOptions, RetryPolicy, Timeouts, Usage, open_vault_url,
};

fn only(settings: BTreeMap<String, String>) -> OpenOptions {
    OpenOptions {
        settings,
        environment: false,
        retry: RetryPolicy {
            first_pause: Duration::from_millis(5),
            ..RetryPolicy::default()
        },
        ..OpenOptions::default()
    }
}

/// A bucket on moto behind a proxy.
struct Bucket {
    proxy: CountingProxy,
    objects: Arc<dyn Objects>,
    meter: Meter,
    _server: S3Server,
}

async fn bucket() -> Bucket {
    let server = S3Server::start();
    let proxy = CountingProxy::start(server.port());
    let meter = Meter::new();
    let options = OpenOptions {
        meter: meter.clone(),
        ..only(server.env_through(proxy.port))
    };
    let url = format!("s3://{}/v", server.create_bucket());
    Bucket {
        objects: open_vault_url(&url, options).await.unwrap(),
        proxy,
        meter,
        _server: server,
    }
}

fn assert_counts(usage: Usage, proxy: &CountingProxy) {
    let counts = proxy.counts();
    let method = |wanted: &str| {
        let lines = counts
            .requests
            .iter()
            .filter(|line| line.starts_with(wanted));
        lines.count() as u64
    };
    assert_eq!(usage.put, method("PUT "), "{:?}", counts.requests);
    assert_eq!(usage.head, method("HEAD "), "{:?}", counts.requests);
    assert_eq!(
        usage.get + usage.list,
        method("GET "),
        "{:?}",
        counts.requests
    );
    assert_eq!(usage.requests(), counts.requests.len() as u64);
    assert_eq!(usage.bytes_sent, counts.request_body_bytes);
    assert_eq!(usage.bytes_received, counts.response_body_bytes);
}

async fn one_of_each(objects: &dyn Objects) {
    let bytes = vec![7u8; 3 << 20];
    let created = objects.create("a/big", bytes.into()).await.unwrap();
    assert_eq!(created, Created::New);
    let again = objects.create("a/big", "x".into()).await.unwrap();
    assert_eq!(again, Created::Exists);
    objects.get("a/big").await.unwrap();
    objects.get_range("a/big", 5..1_000_005).await.unwrap();
    objects.get("a/none").await.unwrap_err();
    objects.size("a/big").await.unwrap();
    objects.list("a").await.unwrap();
}

const ONE_OF_EACH: [u64; 4] = [2, 3, 1, 1];

fn by_kind(usage: Usage) -> [u64; 4] {
    [usage.put, usage.get, usage.head, usage.list]
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_counts_are_what_the_server_saw() {
    let bucket = bucket().await;
    one_of_each(&bucket.objects).await;
    let usage = bucket.meter.snapshot();
    assert_eq!(by_kind(usage), ONE_OF_EACH);
    assert!(usage.bytes_received > (3 << 20) + 1_000_000);
    assert_counts(usage, &bucket.proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_counts_are_what_the_server_saw() {
    let server = AzuriteServer::start();
    let proxy = CountingProxy::start(server.port());
    let options = only(server.env_through(proxy.port));
    let meter = options.meter.clone();
    let url = format!(
        "azure://{}/{}/v",
        server.account(),
        server.create_container()
    );
    let objects = open_vault_url(&url, options).await.unwrap();
    one_of_each(&objects).await;
    assert_eq!(by_kind(meter.snapshot()), ONE_OF_EACH);
    assert_counts(meter.snapshot(), &proxy);
}

#[tokio::test]
async fn directory_counts_are_the_calls() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let options = only(BTreeMap::new());
    let meter = options.meter.clone();
    one_of_each(&open_vault_url(&url, options).await.unwrap()).await;
    let usage = meter.snapshot();
    assert_eq!(by_kind(usage), ONE_OF_EACH);
    assert_eq!(usage.bytes_sent, (3 << 20) + 1);
    assert_eq!(usage.bytes_received, (3 << 20) + 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_is_counted() {
    let bucket = bucket().await;
    let slow_down = "<Error><Code>SlowDown</Code><Message>Please</Message></Error>";
    bucket.proxy.next(ProxyFault::status(503, slow_down));
    bucket.proxy.next(ProxyFault::status(500, ""));
    let created = bucket.objects.create("a", "12345".into()).await.unwrap();
    assert_eq!(created, Created::New);
    let usage = bucket.meter.snapshot();
    assert_eq!((usage.put, usage.bytes_sent), (3, 15));
    assert_counts(usage, &bucket.proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_answer_was_lost_says_exists() {
    let bucket = bucket().await;
    bucket.proxy.next(ProxyFault::LoseAnswer);
    let created = bucket.objects.create("a", "mine".into()).await.unwrap();
    assert_eq!(created, Created::Exists);
    assert_eq!(bucket.objects.get("a").await.unwrap(), "mine");
    assert_eq!(bucket.meter.snapshot().put, 2);
}

/// S3 answers 409 to a create that raced with another, which may yet fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_retried_and_is_no_exists() {
    let bucket = bucket().await;
    let conflict = "<Error><Code>ConditionalRequestConflict</Code><Message>race</Message></Error>";
    bucket.proxy.next(ProxyFault::status(409, conflict));
    let created = bucket.objects.create("a", "mine".into()).await.unwrap();
    assert_eq!(created, Created::New);
    assert_eq!(bucket.meter.snapshot().put, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_read_again() {
    let bucket = bucket().await;
    let bytes = vec![3u8; 100_000];
    bucket
        .objects
        .create("a", bytes.clone().into())
        .await
        .unwrap();
    bucket.proxy.next(ProxyFault::CutBody(60_000));
    assert_eq!(bucket.objects.get("a").await.unwrap(), bytes);
    bucket.proxy.next(ProxyFault::CutBody(10));
    let range = bucket.objects.get_range("a", 10..90_010).await.unwrap();
    assert_eq!(range, bytes[10..90_010]);
    assert_eq!(bucket.meter.snapshot().get, 4);
    for _ in 0..RetryPolicy::default().attempts {
        bucket.proxy.next(ProxyFault::CutBody(50_000));
    }
    let error = bucket.objects.get("a").await.unwrap_err();
    let lost = matches!(
        error,
        ObjectError::Unreachable {
            connected: true,
            ..
        }
    );
    assert!(lost && error.to_string().contains("broke off"), "{error}");
    assert_eq!(bucket.meter.snapshot().get, 4 + 7);
}

/// A range past the end is the object's fault: asking again would only take time.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_too_short_is_asked_once() {
    let bucket = bucket().await;
    bucket
        .objects
        .create("a", "0123456789".into())
        .await
        .unwrap();
    for range in [8..12, 10..14, 100..104] {
        match bucket.objects.get_range("a", range.clone()).await {
            Err(ObjectError::Truncated { expected: 4, .. }) => {}
            other => panic!("{range:?}: {other:?}"),
        }
    }
    assert_eq!(bucket.meter.snapshot().get, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_time_is_the_servers_date() {
    let bucket = bucket().await;
    assert_eq!(bucket.objects.store_time(), None);
    let date = (
        "Date".to_owned(),
        "Sat, 23 Nov 2126 10:00:00 GMT".to_owned(),
    );
    bucket.proxy.next(ProxyFault::Answer {
        status: 404,
        headers: vec![date],
        body: "<Error><Code>NoSuchKey</Code></Error>".to_owned(),
    });
    bucket.objects.get("a").await.unwrap_err();
    let time = bucket.objects.store_time().unwrap();
    assert_eq!(time.to_string(), "2126-11-23T10:00:00Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_shows_fast() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let settings = [
        ("AWS_ACCESS_KEY_ID", "a".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "b".to_owned()),
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let options = OpenOptions {
        retry: RetryPolicy::default(),
        ..only(settings.into())
    };
    let meter = options.meter.clone();
    let objects = open_vault_url("s3://b/v", options).await.unwrap();
    let start = Instant::now();
    let error = objects.get("a").await.unwrap_err();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    let text = error.to_string();
    match error {
        ObjectError::Unreachable { connected, .. } => assert!(!connected),
        other => panic!("{other}"),
    }
    assert!(
        text.contains("refused") && text.contains("s3://b/v"),
        "{text}"
    );
    assert_eq!(meter.snapshot().get, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up() {
    let proxy = CountingProxy::start(0);
    proxy.next(ProxyFault::Hang(Duration::from_secs(20)));
    let settings = S3Server::fixed_env(proxy.port);
    let options = OpenOptions {
        retry: RetryPolicy::none(),
        timeouts: Timeouts {
            no_progress: Duration::from_millis(400),
            ..Timeouts::default()
        },
        ..only(settings)
    };
    let objects = open_vault_url("s3://b/v", options).await.unwrap();
    let start = Instant::now();
    let error = objects
        .create("a", vec![0; 1 << 20].into())
        .await
        .unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(10));
    let lost = matches!(
        error,
        ObjectError::Unreachable {
            connected: true,
            ..
        }
    );
    assert!(
        lost && error.to_string().contains("no byte moved"),
        "{error}"
    );
}

/// A slow uplink is no stalled one: a body that takes four times the limit, but moves, arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_that_moves_is_not_given_up() {
    use std::io::{Read, Write};
    const BODY: usize = 24 << 20;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut buffer, mut got) = (vec![0; 1 << 20], 0);
        while got < BODY {
            // 1 MiB each 170 ms: 4 s in all.
            stream.read_exact(&mut buffer).unwrap();
            got += buffer.len();
            std::thread::sleep(Duration::from_millis(170));
        }
        let answer = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).unwrap();
        // The request's head is still unread; closing now would reset the connection.
        std::thread::sleep(Duration::from_millis(500));
    });
    let options = OpenOptions {
        retry: RetryPolicy::none(),
        timeouts: Timeouts {
            no_progress: Duration::from_millis(2000),
            ..Timeouts::default()
        },
        ..only(S3Server::fixed_env(port))
    };
    let meter = options.meter.clone();
    let objects = open_vault_url("s3://b/v", options).await.unwrap();
    let start = Instant::now();
    let created = objects.create("a", vec![1; BODY].into()).await.unwrap();
    assert_eq!(created, Created::New);
    assert!(start.elapsed() > Duration::from_millis(3500));
    assert_eq!(meter.snapshot().bytes_sent, BODY as u64);
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_buckets_and_containers_are_named() {
    let s3 = S3Server::start();
    let azurite = AzuriteServer::start();
    let azure_url = format!("azure://{}/absent/v", azurite.account());
    for (url, settings) in [
        ("s3://absent/v", s3.env()),
        (azure_url.as_str(), azurite.env()),
    ] {
        let objects = open_vault_url(url, only(settings)).await.unwrap();
        for error in [
            objects.create("a", "1".into()).await.unwrap_err(),
            objects.get("a").await.unwrap_err(),
            objects.list("").await.unwrap_err(),
        ] {
            let missing = matches!(error, ObjectError::BucketMissing { .. });
            assert!(missing && error.to_string().contains(url), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_credentials_are_denied_without_a_retry() {
    let s3 = S3Server::start();
    let url = format!("s3://{}/v", s3.create_bucket());
    s3.require_credentials();
    let options = only(s3.env());
    let meter = options.meter.clone();
    let objects = open_vault_url(&url, options).await.unwrap();
    let error = objects.get("a").await.unwrap_err();
    assert!(matches!(error, ObjectError::Denied { .. }), "{error}");
    let error = objects.create("a", "1".into()).await.unwrap_err();
    assert!(matches!(error, ObjectError::Denied { .. }), "{error}");
    assert_eq!(meter.snapshot().requests(), 2);

    let azurite = AzuriteServer::start();
    let url = format!(
        "azure://{}/{}",
        azurite.account(),
        azurite.create_container()
    );
    let mut settings = azurite.env();
    let wrong = "d3Jvbmcga2V5IHdyb25nIGtleQ==".to_owned();
    settings.insert("AZURE_STORAGE_ACCOUNT_KEY".to_owned(), wrong.clone());
    let objects = open_vault_url(&url, only(settings)).await.unwrap();
    let error = objects.get("a").await.unwrap_err();
    assert!(matches!(error, ObjectError::Denied { .. }), "{error}");
    let shown = format!("{error} {error:?} {objects:?}");
    assert!(!shown.contains(&wrong), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_credentials_are_fetched_anew_once() {
    let bucket = bucket().await;
    let expired = "<Error><Code>ExpiredToken</Code><Message>over</Message></Error>";
    bucket.proxy.next(ProxyFault::status(400, expired));
    let created = bucket.objects.create("a", "1".into()).await.unwrap();
    assert_eq!(created, Created::New);
    bucket.proxy.next(ProxyFault::status(400, expired));
    bucket.proxy.next(ProxyFault::status(403, expired));
    let error = bucket.objects.get("a").await.unwrap_err();
    let is_expired = matches!(error, ObjectError::CredentialsExpired { .. });
    assert!(is_expired, "{error}");
    assert_eq!(bucket.meter.snapshot().requests(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_credentials_are_said_before_any_request() {
    let proxy = CountingProxy::start(0);
    let mut settings = S3Server::fixed_env(proxy.port);
    settings.remove("AWS_ACCESS_KEY_ID");
    let objects = open_vault_url("s3://b/v", only(settings)).await.unwrap();
    let error = objects.get("a").await.unwrap_err();
    let missing = matches!(error, ObjectError::CredentialsMissing { .. });
    assert!(missing, "{error}");
    assert_eq!(proxy.counts().requests.len(), 0);
}

/// A profile whose credentials come from a program, as companies' log-in tools do it.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_a_profiles_process() {
    let server = S3Server::start();
    let url = format!("s3://{}/v", server.create_bucket());
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config");
    let open = async |json: &str| {
        let text = format!("[profile p]\nregion = us-east-1\ncredential_process = echo '{json}'\n");
        std::fs::write(&config, text).unwrap();
        let mut settings = server.env();
        settings.remove("AWS_ACCESS_KEY_ID");
        settings.remove("AWS_SECRET_ACCESS_KEY");
        settings.remove("AWS_REGION");
        let file = config.display().to_string();
        settings.insert("AWS_CONFIG_FILE".to_owned(), file);
        settings.insert("AWS_PROFILE".to_owned(), "p".to_owned());
        open_vault_url(&url, only(settings)).await.unwrap()
    };
    let good = r#"{"Version":1,"AccessKeyId":"AKIAPROCESS","SecretAccessKey":"s"}"#;
    let created = open(good).await.create("a", "1".into()).await.unwrap();
    assert_eq!(created, Created::New);
    let broken = open("no JSON").await.get("a").await.unwrap_err();
    let missing = matches!(broken, ObjectError::CredentialsMissing { .. });
    assert!(missing, "{broken}");
}

#[tokio::test]
async fn plain_http_leaves_this_machine_never() {
    for (url, name) in [
        ("s3://b/v", "AWS_ENDPOINT_URL"),
        ("azure://a/c/v", "AZURE_STORAGE_ENDPOINT"),
    ] {
        let endpoint = "http://store.example.org:9000".to_owned();
        let settings = BTreeMap::from([(name.to_owned(), endpoint)]);
        let error = open_vault_url(url, only(settings)).await.unwrap_err();
        let refused = matches!(error, ObjectError::Misconfigured { .. });
        assert!(refused && error.to_string().contains("https"), "{error}");
    }
}
