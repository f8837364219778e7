//! NBD over TLS against nbdkit, with certificates made for the test.

use std::time::Duration;

use testkit::nbdkit::{Nbdkit, certificates};
use virtual_disk::nbd::{NbdConnection, NbdError, NbdOptions, NbdUri, TlsClient};

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
    if !Nbdkit::is_here() {
        return testkit::skip("nbdkit");
    }
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let place = folder.path().display().to_string();
    let given = format!("tls-certificates={place}");
    let kit = format!("--tls-certificates={place}");
    let server = ["--tls=require", "--tls-verify-peer", &kit, "pattern", "1M"];
    let (_server, port) = Nbdkit::on_a_port(&server);
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
    let (_plain, port) = Nbdkit::on_a_port(&["--tls=off", "pattern", "1M"]);
    assert!(read(&format!("nbd://localhost:{port}/")).is_ok());
    let error = read(&format!("nbds://localhost:{port}/?{given}")).unwrap_err();
    let refused = matches!(error, NbdError::Refused { option: "TLS", .. });
    assert!(refused, "{error:?}");
}
