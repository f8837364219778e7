//! The cap over real connections and real files: many uploads at once, none beside the pace, and packs of a size for it.

use crate::site::*;
use crate::tracked::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::S3Server;
use vault_store::gateway::{Gateway, GatewayOptions, Hold};
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

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_wait_are_as_large_as_the_uplink_takes_in_half_a_minute() {
    let site = Site::new().await;
    let url = format!("file://{}", site.vault_folder().display());
    let throttle = Throttle::default();
    let options = OpenOptions {
        throttle: throttle.clone(),
        ..OpenOptions::default()
    };
    let objects = open_vault_url(&url, options).await.unwrap();
    let options = GatewayOptions {
        pack_bytes: 8 << 20,
        uploads: 30,
        ..small_packs()
    };
    let mut gateway = Gateway::open(objects, site.key(), &site.state_folder(), options).unwrap();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    let mut vm = TrackedDisk::new(vec![0; 200 * CHUNK]);
    let mut dice = Dice(90);
    let mut largest = async |gateway: &mut Gateway, chunks: std::ops::Range<usize>| {
        let mut bytes = vec![0; chunks.len() * CHUNK];
        dice.fill(&mut bytes);
        vm.write(chunks.start * CHUNK, &bytes);
        let checkpoint = checkpoint(gateway, "vm", &mut vm);
        let capture = checkpoint.capture("vm", 1_700_000_000);
        let captured = gateway.capture(capture, Hold::Checkpoint, &|_| {}, crash);
        captured.await.unwrap();
        let files = std::fs::read_dir(site.state_folder().join("outbox")).unwrap();
        let sizes = files.map(|file| file.unwrap().metadata().unwrap().len());
        sizes.max().unwrap()
    };
    let unknown = largest(&mut gateway, 0..48).await;
    assert!(unknown > 3_000_000, "one pack of all: {unknown}");
    // A thirtieth of it for each: 1 MB in half a minute, so the smallest packs there are.
    throttle.set(Rate::bytes_per_second(1_000_000));
    gateway.uploader().send_all().await.unwrap();
    throttle.set(Rate::Unlimited);
    let slow = largest(&mut gateway, 48..120).await;
    assert!((2_000_000..2_400_000).contains(&slow), "{slow}");
    // A fast one again, and then a cap before anything was sent by it.
    gateway.uploader().send_all().await.unwrap();
    let fast = largest(&mut gateway, 120..160).await;
    assert!(fast > 2_500_000, "{fast}");
    gateway.uploader().send_all().await.unwrap();
    throttle.set(Rate::bytes_per_second(1_000_000));
    let capped = largest(&mut gateway, 160..200).await;
    assert!((2_000_000..2_400_000).contains(&capped), "{capped}");
}
