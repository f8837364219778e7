//! NBD over TLS against nbdkit, with certificates made for the test.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use virtual_disk::nbd::{NbdConnection, NbdError, NbdOptions, NbdUri, TlsClient};

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `ca-cert.pem`, and certificates of a server on localhost and of a client.
fn certificates(folder: &Path) {
    let openssl = |line: &str| {
        let made = Command::new("openssl")
            .args(line.split(' '))
            .current_dir(folder)
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "{line}");
    };
    std::fs::write(
        folder.join("server.ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
    )
    .unwrap();
    std::fs::write(folder.join("client.ext"), "extendedKeyUsage=clientAuth").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -days 2 -subj /CN=ca -keyout ca-key.pem -out ca-cert.pem"
    ));
    for who in ["server", "client"] {
        openssl(&format!(
            "req {key} -subj /CN={who} -keyout {who}-key.pem -out {who}.csr"
        ));
        openssl(&format!(
            "x509 -req -days 2 -in {who}.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -extfile {who}.ext -out {who}-cert.pem"
        ));
    }
}

fn nbdkit(arguments: &[&str]) -> (Server, u16) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let server = Command::new("nbdkit")
        .args(["-f", "-i", "127.0.0.1", "-p", &port.to_string(), "-r"])
        .args(arguments)
        .args(["pattern", "1M"])
        .stderr(Stdio::null())
        .spawn();
    let server = Server(server.unwrap());
    let started = std::time::Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "nbdkit does not start"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    (server, port)
}

fn read(uri: &str) -> Result<Vec<u8>, NbdError> {
    let uri = NbdUri::parse(uri).unwrap();
    let tls = match &uri.tls {
        Some(tls) => Some(TlsClient::new(&tls.server, tls.certificates.as_deref())?),
        None => None,
    };
    let options = NbdOptions {
        export: uri.export,
        tls,
        timeout: Duration::from_secs(20),
        ..NbdOptions::default()
    };
    let mut connection = NbdConnection::connect(&uri.address, &options)?;
    let mut bytes = vec![0; 16];
    connection.read(8, &mut bytes)?;
    Ok(bytes)
}

#[test]
fn a_disk_is_read_through_tls_and_never_without() {
    if !Path::new("/usr/bin/nbdkit").exists() {
        testkit::skip("nbdkit");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let place = folder.path().display().to_string();
    let given = format!("tls-certificates={place}");
    let server = ["--tls=require", "--tls-verify-peer"];
    let kit = format!("--tls-certificates={place}");
    let (_server, port) = nbdkit(&[&server[..], &[&kit]].concat());
    let bytes = read(&format!("nbds://localhost:{port}/?{given}")).unwrap();
    assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 16]);
    assert!(read(&format!("nbds://127.0.0.1:{port}/?{given}")).is_ok());

    // Its certificate is not for that name; the system's roots do not know it.
    let error = read(&format!(
        "nbds://localhost:{port}/?{given}&tls-hostname=esx.lan"
    ));
    assert!(matches!(error, Err(NbdError::Tls(_))), "{error:?}");
    let error = read(&format!("nbds://localhost:{port}/"));
    assert!(matches!(error, Err(NbdError::Tls(_))), "{error:?}");
    // It wants TLS, and we were not told to speak it: the words say how.
    let error = read(&format!("nbd://localhost:{port}/")).unwrap_err();
    assert!(error.to_string().contains("nbds://"), "{error}");

    // A server without TLS is not spoken to in the clear.
    let (_plain, port) = nbdkit(&["--tls=off"]);
    assert!(read(&format!("nbd://localhost:{port}/")).is_ok());
    let error = read(&format!("nbds://localhost:{port}/?{given}")).unwrap_err();
    let refused = matches!(error, NbdError::Refused { option: "TLS", .. });
    assert!(refused, "{error:?}");
}
