//! Disks that are read elsewhere than they lie: where a hook says, and behind somebody else's NBD server.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use testkit::nbdkit::{Nbdkit, certificates};

use super::*;

#[test]
fn the_copy_that_a_before_hook_prints_is_what_comes_back() {
    let site = Site::new();
    make_disk(&site.path("vm.raw"), 8 * MIB, 1);
    let script = |name: &str, text: &str| {
        let path = site.path(name);
        fs::write(&path, format!("#!/bin/sh\nset -e\n{text}\n")).expect("written");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).expect("executable");
        site.shown(name)
    };
    let (disk, copy) = (site.shown("vm.raw"), site.shown("copy.raw"));
    // The guest writes on as soon as the copy is made.
    let before = script(
        "before",
        &format!(
            "cp {disk} {copy}; cp {copy} {}\n\
             printf 'written after the copy' | dd of={disk} bs=4096 seek=1 conv=notrunc status=none\n\
             echo 'disk vm {copy}'",
            site.shown("kept.raw")
        ),
    );
    let after = script("after", &format!("rm {copy}"));
    let source = format!("{{ disks = [\"{disk}\"], before = \"{before}\", after = \"{after}\" }}");
    site.configure(&[("vm", &source)]);
    for point in ["vm@1", "vm@2"] {
        site.sync();
        site.assert_comes_back(point, "kept.raw");
        assert!(!site.path("copy.raw").exists(), "the after hook ran");
        fill(&site.path("vm.raw"), 3 * MIB, 64 * KIB, 5);
    }
}

fn a_disk_comes_back(site: &Site, uri: &str) {
    site.configure(&[("vm", &format!("{{ nbd = {{ uri = \"{uri}\" }} }}"))]);
    site.sync();
    site.assert_comes_back("vm@1", "vm.raw");
    fill(&site.path("vm.raw"), 3 * MIB, 64 * KIB, 5);
    zero(&site.path("vm.raw"), 4 * MIB, MIB);
    site.sync();
    site.assert_comes_back("vm@2", "vm.raw");
}

#[test]
fn a_disk_behind_an_nbd_server_comes_back() {
    if !Nbdkit::is_here() {
        return testkit::skip("nbdkit");
    }
    let site = Site::new();
    make_disk(&site.path("vm.raw"), 8 * MIB, 1);
    let socket = site.shown("nbd.socket");
    let _server = Nbdkit::at(&socket, &["file", &site.shown("vm.raw")]);
    a_disk_comes_back(&site, &format!("nbd+unix:///?socket={socket}"));
}

#[test]
fn a_disk_behind_tls_comes_back_and_is_not_read_in_the_clear() {
    if !Nbdkit::is_here() {
        return testkit::skip("nbdkit");
    }
    let site = Site::new();
    make_disk(&site.path("vm.raw"), 8 * MIB, 1);
    let place = site.folder().display().to_string();
    certificates(site.folder());
    let kit = format!("--tls-certificates={place}");
    let server = [
        "--tls=require",
        "--tls-verify-peer",
        &kit,
        "file",
        &site.shown("vm.raw"),
    ];
    let (_server, port) = Nbdkit::on_a_port(&server);
    let clear = format!("{{ nbd = {{ uri = \"nbd://localhost:{port}/\" }} }}");
    site.configure(&[("vm", &clear)]);
    site.gateway(&["sync"]).exits(1).says(&["nbds://"]);
    a_disk_comes_back(
        &site,
        &format!("nbds://localhost:{port}/?tls-certificates={place}"),
    );
}
