//! S3 and Azure, by their stand-ins behind a proxy that counts: the journey is the same, and what
//! `sync` says that it used is what the store saw.
//!
//! Leaves the counts as `requests.json` in the cache, where tests/bench/run looks for them.

use std::fs;
use std::path::{Path, PathBuf};

use journeys::*;
use serde_json::{Value, json};
use testkit::{AzuriteServer, CountingProxy, ProxyCounts, ProxyFault, S3Server};

/// The sums over all syncs of a journey.
#[derive(Debug, Default)]
struct Sums {
    reported_requests: u64,
    seen_requests: u64,
    reported_bytes: u64,
    seen_bytes: u64,
}

/// put, get, head, list: as `sync` counts them, from what the proxy saw.
fn kinds(seen: &ProxyCounts) -> [u64; 4] {
    let mut kinds = [0; 4];
    for line in &seen.requests {
        let list = line.contains("list-type=2") || line.contains("comp=list");
        let kind = match line.split(' ').next().unwrap_or_default() {
            "PUT" => 0,
            "GET" if list => 3,
            "GET" => 1,
            "HEAD" => 2,
            other => panic!("{other} is no request that a gateway makes: {line}"),
        };
        kinds[kind] += 1;
    }
    kinds
}

fn reported(report: &Value) -> [u64; 4] {
    ["put", "get", "head", "list"].map(|kind| report["requests"][kind].as_u64().expect("a number"))
}

/// One sync: what it reports must be what was seen.
fn sync_counted(site: &Site, proxy: &CountingProxy, sums: &mut Sums) -> Value {
    proxy.take_counts();
    let report = site.sync();
    let seen = proxy.take_counts();
    let listed = seen.requests.join("\n");
    assert_eq!(
        reported(&report),
        kinds(&seen),
        "put, get, head, list of\n{listed}\n{report}"
    );
    let bytes = |name: &str| report[name].as_u64().expect("a number");
    let of_report = (bytes("bytes_sent"), bytes("bytes_received"));
    let of_proxy = (seen.request_body_bytes, seen.response_body_bytes);
    assert_eq!(
        of_report, of_proxy,
        "bytes sent and received of\n{listed}\n{report}"
    );
    sums.reported_requests += reported(&report).iter().sum::<u64>();
    sums.seen_requests += seen.requests.len() as u64;
    sums.reported_bytes += of_report.0 + of_report.1;
    sums.seen_bytes += of_proxy.0 + of_proxy.1;
    report
}

/// Two VMs through three syncs and back.
fn journey(at: Where, proxy: &CountingProxy) -> Value {
    let (site, mut sums) = (Site::on(at), Sums::default());
    make_disk(&site.path("a.raw"), 8 * MIB, 1);
    make_disk(&site.path("b.raw"), 8 * MIB + 512, 2);
    site.configure(&[
        ("a", &site.disks(&["a.raw"])),
        ("b", &site.disks(&["b.raw"])),
    ]);
    let first = sync_counted(&site, proxy, &mut sums);
    assert_eq!(first["vms"][1]["sequence"], 1, "{first}");

    // The price of an idle site: a GET for the log, a PUT for each VM.
    let idle = sync_counted(&site, proxy, &mut sums);
    assert_eq!(
        reported(&idle),
        [2, 1, 0, 0],
        "put, get, head, list of {idle}"
    );
    let sent = idle["bytes_sent"].as_u64().expect("a number");
    assert!(sent < 8 * KIB, "two manifests: {idle}");

    fs::copy(site.path("b.raw"), site.path("b.old.raw")).expect("copied");
    fill(&site.path("b.raw"), 3 * MIB + 512, 4 * KIB, 30);
    let changed = sync_counted(&site, proxy, &mut sums);
    // A pack more.
    assert_eq!(
        reported(&changed),
        [3, 1, 0, 0],
        "put, get, head, list of {changed}"
    );
    let sent = changed["bytes_sent"].as_u64().expect("a number");
    assert!((4 * KIB..32 * KIB).contains(&sent), "{changed}");

    // What is tried again is paid for again: the log is refused, and an answer is lost.
    fill(&site.path("b.raw"), 5 * MIB, 4 * KIB, 31);
    for fault in [
        ProxyFault::status(503, ""),
        ProxyFault::Pass,
        ProxyFault::LoseAnswer,
    ] {
        proxy.next(fault);
    }
    let [put, get, ..] = reported(&sync_counted(&site, proxy, &mut sums));
    assert!(put >= 4 && get >= 2, "{put} PUTs, {get} GETs");

    proxy.take_counts();
    let verified = site
        .restore(&["verify", "--read-data", "--json"])
        .ok()
        .json();
    let seen = proxy.take_counts();
    let listed = seen.requests.join("\n");
    let fetched = &verified["fetched"];
    assert_eq!(
        fetched["requests"],
        seen.requests.len(),
        "verify: {fetched} of\n{listed}"
    );
    assert_eq!(
        fetched["bytes"], seen.response_body_bytes,
        "verify: {fetched} of\n{listed}"
    );
    site.assert_comes_back("a", "a.raw");
    site.assert_comes_back("b@2", "b.old.raw");
    site.assert_comes_back("b", "b.raw");
    json!({
        "reported_requests": sums.reported_requests, "seen_requests": sums.seen_requests,
        "reported_bytes": sums.reported_bytes, "seen_bytes": sums.seen_bytes,
    })
}

fn on_s3() -> Value {
    let server = S3Server::start();
    let proxy = CountingProxy::start(server.port());
    journey(Where::s3_behind(&proxy, &server), &proxy)
}

fn on_azure() -> Value {
    let server = AzuriteServer::start();
    let proxy = CountingProxy::start(server.port());
    let url = format!(
        "azure://{}/{}/site1",
        server.account(),
        server.create_container()
    );
    journey(
        Where {
            url,
            env: server.env_through(proxy.port),
        },
        &proxy,
    )
}

fn cache() -> PathBuf {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let home = || set("HOME").unwrap_or_default().join(".cache");
    set("SPARESITE_CACHE")
        .unwrap_or_else(|| set("XDG_CACHE_HOME").unwrap_or_else(home).join("sparesite"))
}

fn leave(counts: &Value, folder: &Path) {
    fs::create_dir_all(folder).expect("the cache");
    let part = folder.join(format!("requests.json.{}", std::process::id()));
    fs::write(&part, counts.to_string()).expect("the counts are written");
    fs::rename(part, folder.join("requests.json")).expect("the counts are written");
}

#[test]
fn what_is_reported_is_what_the_stores_saw() {
    let azure = std::thread::spawn(on_azure);
    let s3 = on_s3();
    let azure = azure
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    leave(&json!({ "s3": s3, "azure": azure }), &cache());
}
