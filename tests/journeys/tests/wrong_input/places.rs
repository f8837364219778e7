//! Vaults that are not there, out of reach, or closed to us.

use std::fs;
use std::net::TcpListener;

use journeys::*;
use testkit::{AzuriteServer, CountingProxy, ProxyFault, S3Server};

use super::Refusals;

/// Nobody listens there.
fn closed_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Both programs against the place: the gateway's sync, and points with the kit.
fn try_both(site: &mut Site, refusals: &mut Refusals, what: &str, at: Where, words: &[&str]) {
    let url = at.url.clone();
    site.vault = at;
    site.configure_one();
    let words = [&[&*url], words].concat();
    let sync = site.gateway(&["sync"]);
    refusals.expect(&format!("{what}, sync"), sync, 1, &words);
    let points = site.restore(&["points", "--vault", &url]);
    refusals.expect(&format!("{what}, points"), points, 1, &words);
    let _ = fs::remove_dir_all(site.path("state"));
}

/// A site whose keys and kit are whole, so that only the place is wrong.
fn site() -> Site {
    let site = Site::new();
    make_disk(&site.path("vm.raw"), 8 * MIB, 1);
    site
}

#[test]
fn a_folder_that_is_no_vault_is_refused() {
    let (mut site, mut refusals) = (site(), Refusals::default());
    let folder = |name: &str| Where {
        url: format!("file://{}", site.path(name).display()),
        ..Where::default()
    };
    let (missing, file) = (folder("missing"), folder("vm.raw"));
    let remedy = "check the vault URL";
    try_both(
        &mut site,
        &mut refusals,
        "missing",
        missing,
        &["does not exist", remedy],
    );
    try_both(
        &mut site,
        &mut refusals,
        "a file",
        file,
        &["does not exist", remedy],
    );
    assert!(
        !site.path("missing").exists(),
        "a vault that is not mounted was made anew"
    );
    refusals.finish();
}

/// The mount point of a vault that is not mounted: an empty folder. What was sent there would be
/// missing from the vault, and later points would refer to it.
#[test]
fn a_vault_that_is_not_mounted_is_refused() {
    let (site, mut refusals) = (site(), Refusals::default());
    site.configure_one();
    site.sync();
    fs::rename(site.path("vault"), site.path("away")).expect("unmounted");
    fs::create_dir(site.path("vault")).expect("the mount point");
    fill(&site.path("vm.raw"), MIB, MIB, 9);
    let words = [&*site.vault.url, "check the vault URL"];
    refusals.expect("with its state", site.gateway(&["sync"]), 1, &words);
    let points = site.restore(&["points"]);
    refusals.expect("points", points, 1, &[&site.vault.url, "no vault"]);
    copy_folder(&site.path("state"), &site.path("old-state"));
    fs::remove_dir_all(site.path("state")).expect("removed");
    refusals.expect("with a new state", site.gateway(&["sync"]), 1, &words);
    let left = fs::read_dir(site.path("vault")).expect("read").count();
    fs::remove_dir_all(site.path("vault")).expect("removed");
    fs::rename(site.path("away"), site.path("vault")).expect("mounted");
    // Refused before or after it was made anew.
    drop(fs::remove_dir_all(site.path("state")));
    fs::rename(site.path("old-state"), site.path("state")).expect("moved");
    let mounted = site.gateway(&["sync", "--json"]);
    refusals.finish();
    assert_eq!(left, 0, "something was sent to the mount point");
    mounted.ok();
    site.assert_comes_back("vm", "vm.raw");
}

#[test]
fn s3_out_of_reach_or_closed_is_refused() {
    let (mut site, mut refusals) = (site(), Refusals::default());
    let server = S3Server::start();
    let at = |bucket: &str, port: u16| Where {
        url: format!("s3://{bucket}/site1"),
        env: server.env_through(port),
    };
    let bucket = server.create_bucket();
    let missing = at("no-such-bucket", server.port());
    try_both(
        &mut site,
        &mut refusals,
        "bucket",
        missing,
        &["does not exist", "create it"],
    );
    let closed = at(&bucket, closed_port());
    try_both(
        &mut site,
        &mut refusals,
        "network",
        closed,
        &["cannot be reached", "check the network"],
    );

    let mut nobody = at(&bucket, server.port());
    nobody.env.retain(|name, _| !name.contains("KEY"));
    try_both(
        &mut site,
        &mut refusals,
        "no credentials",
        nobody,
        &["no credentials", "set up a profile"],
    );
    let proxy = CountingProxy::start(0);
    let expired = at(&bucket, proxy.port);
    for _ in 0..20 {
        let body =
            "<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>";
        proxy.next(ProxyFault::status(400, body));
    }
    try_both(
        &mut site,
        &mut refusals,
        "expired",
        expired,
        &["have expired", "renew them"],
    );
    server.require_credentials();
    let invalid = at(&bucket, server.port());
    try_both(
        &mut site,
        &mut refusals,
        "invalid",
        invalid,
        &["does not permit", "credentials"],
    );
    refusals.finish();
}

#[test]
fn azure_out_of_reach_or_closed_is_refused() {
    let (mut site, mut refusals) = (site(), Refusals::default());
    let server = AzuriteServer::start();
    let at = |container: &str, port: u16| Where {
        url: format!("azure://{}/{container}/site1", server.account()),
        env: server.env_through(port),
    };
    let container = server.create_container();
    let missing = at("no-such-container", server.port());
    try_both(
        &mut site,
        &mut refusals,
        "container",
        missing,
        &["does not exist", "create it"],
    );
    let closed = at(&container, closed_port());
    try_both(
        &mut site,
        &mut refusals,
        "network",
        closed,
        &["cannot be reached", "check the network"],
    );
    let mut invalid = at(&container, server.port());
    invalid
        .env
        .insert("AZURE_STORAGE_ACCOUNT_KEY".into(), "d3Jvbmcga2V5".into());
    try_both(
        &mut site,
        &mut refusals,
        "invalid",
        invalid,
        &["does not permit", "credentials"],
    );
    refusals.finish();
}
