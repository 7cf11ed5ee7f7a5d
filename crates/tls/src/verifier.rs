//! Who is let in: certificates of trusted authorities, of which the allowed names and the list of revoked
//! ones are looked at. Not here: the addresses that clients come from, for which names are looked up (`san`).

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use crate::crl::Revoked;
use crate::leaf::Leaf;
use crate::names::stands_for;
use crate::options::Options;
use crate::reasons::refusal;

/// rustls' own judge of chains, and etcd's rules after it.
#[derive(Debug)]
pub(crate) struct Verifier {
    chains: Arc<dyn ClientCertVerifier>,
    revoked: Revoked,
    allowed_cns: Vec<String>,
    allowed_hostnames: Vec<String>,
}

impl Verifier {
    /// Lets in whom these authorities vouch for.
    pub(crate) fn new(
        roots: RootCertStore,
        revoked: Revoked,
        options: &Options,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Verifier, String> {
        let chains = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Verifier {
            chains,
            revoked,
            allowed_cns: options.allowed_cns.clone(),
            allowed_hostnames: options.allowed_hostnames.clone(),
        })
    }

    fn is_allowed(&self, leaf: &Leaf) -> bool {
        if !self.allowed_cns.is_empty() {
            return self.allowed_cns.contains(&leaf.common_name);
        }
        self.allowed_hostnames.is_empty()
            || self
                .allowed_hostnames
                .iter()
                .any(|host| stands_for(host, &leaf.dns_names, &leaf.addresses))
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(end_entity, intermediates, now)?;
        let leaf = Leaf::parse(end_entity).map_err(refusal)?;
        if !self.is_allowed(&leaf) {
            return Err(refusal("client certificate authentication failed".to_owned()));
        }
        let chain = std::iter::once(end_entity).chain(intermediates).map(AsRef::as_ref);
        self.revoked.check(chain).map_err(refusal)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
