//! Disks that are read elsewhere than they lie: where a hook says, and behind somebody else's NBD server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

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

/// It ends with the test.
struct Nbdkit(Child);

impl Drop for Nbdkit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_disk_behind_an_nbd_server_comes_back() {
    if !Path::new("/usr/bin/nbdkit").exists() {
        return testkit::skip("nbdkit");
    }
    let site = Site::new();
    make_disk(&site.path("vm.raw"), 8 * MIB, 1);
    let socket = site.shown("nbd.socket");
    let mut serve = Command::new("nbdkit");
    serve.args(["-f", "-r", "-U", &socket, "file", &site.shown("vm.raw")]);
    let _server = Nbdkit(
        serve
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nbdkit starts"),
    );
    wait_until("nbdkit answers", || UnixStream::connect(&socket).is_ok());
    let source = format!("{{ nbd = {{ uri = \"nbd+unix:///?socket={socket}\" }} }}");
    site.configure(&[("vm", &source)]);
    site.sync();
    site.assert_comes_back("vm@1", "vm.raw");
    fill(&site.path("vm.raw"), 3 * MIB, 64 * KIB, 5);
    zero(&site.path("vm.raw"), 4 * MIB, MIB);
    site.sync();
    site.assert_comes_back("vm@2", "vm.raw");
}
