//! The cap over real connections and real files: many uploads at once, and none beside the pace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::S3Server;
use vault_store::objects::{Created, Objects, OpenOptions, Rate, Throttle, open_vault_url};

/// 8 Mbit/s.
const RATE: u64 = 1_000_000;
const UPLOADS: usize = 3;
const EACH: usize = 1 << 20;

async fn open(
    url: &str,
    settings: BTreeMap<String, String>,
    throttle: &Throttle,
) -> Arc<dyn Objects> {
    let options = OpenOptions {
        settings,
        environment: false,
        throttle: throttle.clone(),
        ..OpenOptions::default()
    };
    open_vault_url(url, options).await.unwrap()
}

/// Uploads together; the bytes per second that they came to.
async fn upload(objects: &Arc<dyn Objects>, folder: &str) -> f64 {
    let began = Instant::now();
    let creates = (0..UPLOADS).map(|number| {
        let (objects, name) = (objects.clone(), format!("{folder}/{number}"));
        tokio::spawn(async move { objects.create(&name, vec![7; EACH].into()).await })
    });
    for created in futures::future::join_all(creates).await {
        assert_eq!(created.unwrap().unwrap(), Created::New);
    }
    (UPLOADS * EACH) as f64 / began.elapsed().as_secs_f64()
}

async fn hold(objects: Arc<dyn Objects>, throttle: &Throttle) {
    // A burst may be a quarter of a second ahead, and the last piece of each is not waited for.
    let most = RATE as f64 * 1.05 + RATE as f64 * 0.25 / 3.0;
    let reached = upload(&objects, "capped").await;
    assert!(reached < most, "{reached} bytes a second");
    throttle.set(Rate::Unlimited);
    let reached = upload(&objects, "free").await;
    assert!(reached > most, "{reached} bytes a second");
    throttle.set(Rate::Off);
    let off = objects.create("off", "x".into());
    let waits = tokio::time::timeout(Duration::from_millis(300), off).await;
    assert!(waits.is_err());
    assert_eq!(objects.size("off").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_all_uploads_together_keep_the_cap() {
    let server = S3Server::start();
    let throttle = Throttle::new(Rate::bytes_per_second(RATE));
    let url = format!("s3://{}/v", server.create_bucket());
    hold(open(&url, server.env(), &throttle).await, &throttle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn into_a_directory_all_uploads_together_keep_the_cap() {
    let folder = tempfile::tempdir().unwrap();
    let throttle = Throttle::new(Rate::bytes_per_second(RATE));
    let url = format!("file://{}", folder.path().display());
    hold(open(&url, BTreeMap::new(), &throttle).await, &throttle).await;
}
