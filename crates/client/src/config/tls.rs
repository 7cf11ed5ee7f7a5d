//! What a connection needs for TLS: files or PEM text in, a rustls configuration out. Who connects is in `net::dial`.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, Result};

/// Certificates, either in a file or as PEM text.
///
/// Files are read again for each new connection, so that renewed certificates need no restart.
///
/// ```
/// use etch_client::{Pem, Tls};
///
/// let mut tls = Tls::new();
/// tls.ca = Some(Pem::File("ca.pem".into()));
/// assert_eq!(tls, Tls::new().ca_file("ca.pem"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// A path.
    File(PathBuf),
    /// The text itself.
    Text(Vec<u8>),
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>> {
        match self {
            Pem::Text(text) => Ok(text.clone()),
            Pem::File(path) => std::fs::read(path)
                .map_err(|e| Error::Invalid(format!("cannot read {}: {e}", path.display()))),
        }
    }

    fn name(&self) -> String {
        match self {
            Pem::Text(_) => "the given PEM text".into(),
            Pem::File(path) => path.display().to_string(),
        }
    }
}

/// How to be safe on the wire.
///
/// The default trusts the system's authorities and shows no certificate.
///
/// ```
/// use etch_client::{Config, Tls};
///
/// let tls = Tls::new().ca_file("ca.pem").identity_files("client.pem", "client-key.pem");
/// let config = Config::new(["https://10.0.0.1:2379"]).tls(tls);
/// assert!(config.tls.is_some());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities to trust; those of the system if there is none.
    pub ca: Option<Pem>,
    /// The client's own certificate chain and its key.
    pub identity: Option<(Pem, Pem)>,
    /// The name that the server's certificate must bear; the endpoint's host if there is none.
    pub server_name: Option<String>,
    skip_verify: bool,
}

impl Tls {
    /// The system's authorities, no certificate of our own.
    pub fn new() -> Tls {
        Tls::default()
    }

    /// Trusts the authorities in this file, and no other.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Tls {
        self.ca = Some(Pem::File(path.into()));
        self
    }

    /// Trusts the authorities in this PEM text, and no other.
    #[must_use]
    pub fn ca_pem(mut self, text: impl Into<Vec<u8>>) -> Tls {
        self.ca = Some(Pem::Text(text.into()));
        self
    }

    /// Shows the certificate in these files.
    #[must_use]
    pub fn identity_files(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Tls {
        self.identity = Some((Pem::File(cert.into()), Pem::File(key.into())));
        self
    }

    /// Shows the certificate in these PEM texts.
    #[must_use]
    pub fn identity_pem(mut self, cert: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Tls {
        self.identity = Some((Pem::Text(cert.into()), Pem::Text(key.into())));
        self
    }

    /// Expects this name in the server's certificate, whatever the endpoint's host is.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Tls {
        self.server_name = Some(name.into());
        self
    }

    /// Believes any server. Whoever sits on the path can then read and change everything: for tests alone.
    #[must_use]
    pub fn dangerously_skip_verify(mut self) -> Tls {
        self.skip_verify = true;
        self
    }

    /// Whether [`Tls::dangerously_skip_verify`] was called.
    pub fn skips_verify(&self) -> bool {
        self.skip_verify
    }

    /// Reads the files and makes rustls' configuration of them, for HTTP/2.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a file is missing or is not what it should be.
    pub fn load(&self) -> Result<Arc<ClientConfig>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Invalid(format!("TLS: {e}")))?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert)?;
                let der = PrivateKeyDer::from_pem_slice(&key.read()?)
                    .map_err(|e| Error::Invalid(format!("{}: no usable key: {e}", key.name())))?;
                builder
                    .with_client_auth_cert(chain, der)
                    .map_err(|e| Error::Invalid(format!("{}: {e}", cert.name())))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(pem) => {
                for cert in certificates(pem)? {
                    roots.add(cert).map_err(|e| Error::Invalid(format!("{}: {e}", pem.name())))?;
                }
            }
            // A machine's store often has entries that are not understood: the others count.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        Ok(roots)
    }
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>> {
    let text = pem.read()?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(certs) if !certs.is_empty() => Ok(certs),
        Ok(_) => Err(Error::Invalid(format!("{}: no certificate in it", pem.name()))),
        Err(e) => Err(Error::Invalid(format!("{}: {e}", pem.name()))),
    }
}

/// Believes any certificate, yet not a broken handshake.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
