//! The disks of a VM that NBD servers show, opened for capture: with what changed, where a server has a dirty bitmap that
//! is named after a capture that is known.

use std::{sync::Arc, time::Duration};

use console::{Failure, OrFailure};
use vault_store::{
    Extents,
    gateway::{DiskCapture, KnownCapture},
};
use virtual_disk::{
    NbdDisk,
    nbd::{NbdConnection, NbdOptions, NbdUri, TlsClient, wire::BASE_ALLOCATION},
};

use super::live_disk::LiveDisk;
use crate::{
    config::{NbdExport, SINCE},
    interrupt::Interrupt,
};

/// A server may be far away, and open its disk only now.
const ANSWER: Duration = Duration::from_secs(120);
const CONNECTIONS: usize = 4;

/// Opens all exports. Blocks.
pub fn open_all(
    exports: &[NbdExport],
    known: &[KnownCapture],
    interrupt: &Interrupt,
) -> Result<Vec<DiskCapture>, Failure> {
    let open = |export: &NbdExport| {
        let failure = || {
            Failure::failed(format!(
                "disk {} ({}) cannot be opened",
                export.name, export.uri
            ))
        };
        open(export, known, interrupt).or_failure(failure)
    };
    exports.iter().map(open).collect()
}

/// What a connection of ours is asked for.
fn options(uri: &NbdUri, contexts: Vec<String>) -> Result<NbdOptions, virtual_disk::nbd::NbdError> {
    let tls = match &uri.tls {
        Some(tls) => Some(TlsClient::new(&tls.server, tls.certificates.as_deref())?),
        None => None,
    };
    Ok(NbdOptions {
        export: uri.export.clone(),
        contexts,
        timeout: ANSWER,
        tls,
    })
}

fn open(
    export: &NbdExport,
    known: &[KnownCapture],
    interrupt: &Interrupt,
) -> anyhow::Result<DiskCapture> {
    let uri = NbdUri::parse(&export.uri)?;
    let asked = context(export, known);
    let mut all = vec![BASE_ALLOCATION.to_owned()];
    all.extend(asked.iter().map(|(_, context)| context.clone()));
    let first = NbdConnection::connect(&uri.address, &options(&uri, all)?)?;
    let size_bytes = first.export().size_bytes;
    let found = asked.filter(|(capture, context)| {
        let then = capture.disks.iter().find(|(name, _)| *name == export.name);
        first.export().has_context(context) && then.is_some_and(|(_, bytes)| *bytes == size_bytes)
    });
    drop(first);
    if let (None, Some(bitmap), false) = (&found, &export.bitmap, known.is_empty()) {
        tracing::info!(
            "disk {}: the server shows no bitmap {bitmap} of the newest capture: all of it is compared",
            export.name
        );
    }
    let context = found.as_ref().map(|(_, context)| context.as_str());
    let options = options(&uri, Vec::new())?;
    let disk = LiveDisk::connect(
        &export.name,
        (&uri.address, options),
        context,
        CONNECTIONS,
        interrupt.clone(),
    )?;
    let source: Arc<dyn Extents> = Arc::new(disk);
    Ok(DiskCapture {
        name: export.name.clone(),
        source: Some(source),
        size_bytes,
        since: found.map(|(capture, _)| capture.id),
    })
}

/// The NBD context of the newest known capture's bitmap. One of an older capture may be that of a disk that was put back to
/// a copy from before the newest: what it says is not all that differs.
fn context<'k>(
    export: &NbdExport,
    known: &'k [KnownCapture],
) -> Option<(&'k KnownCapture, String)> {
    let (bitmap, capture) = (export.bitmap.as_ref()?, known.first()?);
    let name = bitmap.replace(SINCE, &capture.id.to_string());
    Some((capture, format!("qemu:dirty-bitmap:{name}")))
}

/// The disk alone, for who wants little of it. Blocks.
pub fn reader(export: &NbdExport) -> anyhow::Result<NbdDisk> {
    let uri = NbdUri::parse(&export.uri)?;
    let options = options(&uri, vec![BASE_ALLOCATION.to_owned()])?;
    Ok(NbdDisk::connect(&export.name, uri.address, options, 1)?)
}

/// Whether it answers; its size. Blocks.
pub fn size_bytes(export: &NbdExport) -> Result<u64, String> {
    let uri = NbdUri::parse(&export.uri).map_err(|error| error.to_string())?;
    let options = options(&uri, Vec::new()).map_err(|error| error.to_string())?;
    let connection = NbdConnection::connect(&uri.address, &options);
    Ok(connection
        .map_err(|error| error.to_string())?
        .export()
        .size_bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        process::{Child, Command, Stdio},
    };

    use tokio::sync::watch;
    use vault_format::ids::CaptureId;

    use super::*;

    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn run(program: &str, arguments: &[&str]) {
        let ran = Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .status();
        assert!(ran.expect("runs").success(), "{program} {arguments:?}");
    }

    fn known(number: u8, bytes: u64) -> KnownCapture {
        KnownCapture {
            id: CaptureId([number; 16]),
            disks: vec![("data".into(), bytes)],
        }
    }

    fn opened(socket: &Path, known: &[KnownCapture]) -> DiskCapture {
        let export = NbdExport {
            name: "data".into(),
            uri: format!("nbd+unix:///?socket={}", socket.display()),
            bitmap: Some("cp-{since}".into()),
        };
        let (_, interrupt) = watch::channel(false);
        let mut all = open_all(&[export], known, &Interrupt::of(interrupt)).expect("opens");
        all.swap_remove(0)
    }

    #[test]
    fn a_bitmap_named_after_a_known_capture_is_the_delta_since_then() {
        const BYTES: u64 = 8 << 20;
        let folder = tempfile::tempdir().expect("a folder");
        let (image, socket) = (folder.path().join("a.qcow2"), folder.path().join("s"));
        let file = image.display().to_string();
        run("qemu-img", &["create", "-q", "-f", "qcow2", &file, "8M"]);
        let bitmap = format!("cp-{}", CaptureId([2; 16]));
        run(
            "qemu-img",
            &["bitmap", "--add", "-g", "65536", &file, &bitmap],
        );
        run("qemu-io", &["-f", "qcow2", "-c", "write 1M 4k", &file]);
        let server = Command::new("qemu-nbd")
            .args(["-r", "-t", "-e", "8", "-f", "qcow2", "-B", &bitmap, "-k"])
            .args([&socket, &image])
            .spawn();
        let _server = Server(server.expect("qemu-nbd starts"));
        for _ in 0..500 {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let disk = opened(&socket, &[known(2, BYTES), known(1, BYTES)]);
        assert_eq!(disk.since, Some(CaptureId([2; 16])));
        let source = disk.source.expect("read");
        let first = source.next_change(0).expect("a map");
        assert_eq!(first, Some(1 << 20..(1 << 20) + 65536));
        assert_eq!(source.next_change((1 << 20) + 65536).expect("a map"), None);
        // Of another capture, of one before the newest, or of the disk when it was smaller: nothing is known.
        let older = [known(3, BYTES), known(2, BYTES)];
        for others in [&older[..1], &older, &[known(2, BYTES / 2)]] {
            let disk = opened(&socket, others);
            assert_eq!(disk.since, None);
            let all = disk.source.expect("read").next_change(0).expect("a map");
            assert_eq!(all, Some(0..BYTES));
        }
    }
}
