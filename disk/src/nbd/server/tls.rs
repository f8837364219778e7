//! TLS of the server: certificates in a folder, named as QEMU and nbdkit name them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::nbd::error::NbdError;
use crate::nbd::tls::{failed, read, roots_of};

/// Who we are, and whom we let in.
#[derive(Clone)]
pub struct TlsServer(TlsAcceptor);

impl TlsServer {
    /// `certificates` holds `server-cert.pem` and `server-key.pem`; with `ca-cert.pem`, clients must have a
    /// certificate of that authority.
    pub fn new(certificates: &Path) -> Result<Self, NbdError> {
        let own = read(&certificates.join("server-cert.pem"))?;
        let key = certificates.join("server-key.pem");
        let key = PrivateKeyDer::from_pem_file(&key)
            .map_err(|error| failed(format!("{}: {error}", key.display())))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
        let authority = certificates.join("ca-cert.pem");
        // A link that leads nowhere is no leave to let everybody in.
        let builder = match authority.symlink_metadata().is_ok() {
            false => builder.with_no_client_auth(),
            true => {
                let roots = Arc::new(roots_of(&authority)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(failed)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder.with_single_cert(own, key).map_err(failed)?;
        Ok(TlsServer(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        self.0.accept(stream).await
    }
}
