//! TLS for NBD: X.509 with the system's roots, or with a folder of certificates as libnbd's and QEMU's tools take it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::connection::Socket;
use super::error::NbdError;

/// Whom to trust, who we are, and the name that the server has to prove.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    server: ServerName<'static>,
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

pub(super) fn failed(what: impl fmt::Display) -> NbdError {
    NbdError::Tls(what.to_string())
}

impl TlsClient {
    /// `certificates` holds `ca-cert.pem`, and `client-cert.pem` with `client-key.pem` where the server asks who we are.
    pub fn new(server: &str, certificates: Option<&Path>) -> Result<Self, NbdError> {
        let name = ServerName::try_from(server.to_owned());
        let server = name.map_err(|_| failed(format!("{server:?} is no name of a server")))?;
        let roots = match certificates {
            Some(folder) => roots_of(&folder.join("ca-cert.pem"))?,
            None => system_roots()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_root_certificates(roots);
        let own = certificates.map(|folder| folder.join("client-cert.pem"));
        let config = match own.filter(|file| file.exists()) {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let key = file.with_file_name("client-key.pem");
                let key = PrivateKeyDer::from_pem_file(&key)
                    .map_err(|error| failed(format!("{}: {error}", key.display())))?;
                let certificates = read(&file)?;
                builder
                    .with_client_auth_cert(certificates, key)
                    .map_err(failed)?
            }
        };
        Ok(TlsClient {
            config: Arc::new(config),
            server,
        })
    }

    /// The whole handshake: who the server is, is known before anything is asked.
    pub(super) fn begin(
        &self,
        mut socket: Socket,
    ) -> Result<StreamOwned<ClientConnection, Socket>, NbdError> {
        let mut connection =
            ClientConnection::new(self.config.clone(), self.server.clone()).map_err(failed)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(failed)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }
}

pub(super) fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, NbdError> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    all.map_err(|error| failed(format!("{}: {error}", file.display())))
}

pub(super) fn roots_of(file: &Path) -> Result<RootCertStore, NbdError> {
    let mut roots = RootCertStore::empty();
    for certificate in read(file)? {
        roots
            .add(certificate)
            .map_err(|error| failed(format!("{}: {error}", file.display())))?;
    }
    match roots.is_empty() {
        true => Err(failed(format!("{} holds no certificate", file.display()))),
        false => Ok(roots),
    }
}

fn system_roots() -> Result<RootCertStore, NbdError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(failed(
            "this machine has no root certificates: install ca-certificates, or give \
             tls-certificates=FOLDER in the URI",
        )),
        false => Ok(roots),
    }
}
