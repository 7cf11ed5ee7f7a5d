//! The list of revoked certificates, read as etcd reads it: whoever shows a certificate whose serial number is
//! in the file is refused, whoever has issued it. Not here: signatures and ages of lists, which etcd does not
//! look at either: the file is trusted as the certificates' files are.

use std::collections::HashSet;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::leaf::{bare, serial};

/// Serial numbers that are not let in.
#[derive(Debug, Default)]
pub(crate) struct Revoked(HashSet<Vec<u8>>);

impl Revoked {
    /// Reads a list as DER, or one or several as PEM.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Revoked, String> {
        let mut revoked = Revoked::default();
        let pem: Vec<_> = CertificateRevocationListDer::pem_slice_iter(bytes)
            .collect::<Result<_, _>>()
            .unwrap_or_default();
        if pem.is_empty() {
            revoked.add(bytes)?;
        }
        for list in &pem {
            revoked.add(list)?;
        }
        Ok(revoked)
    }

    fn add(&mut self, der: &[u8]) -> Result<(), String> {
        let (rest, list) = CertificateRevocationList::from_der(der)
            .map_err(|_| "x509: malformed crl".to_owned())?;
        if !rest.is_empty() {
            return Err("x509: malformed crl: trailing data".to_owned());
        }
        self.0.extend(list.iter_revoked_certificates().map(|one| bare(one.raw_serial()).to_vec()));
        Ok(())
    }

    /// The error for the first of a client's certificates that is in the list.
    pub(crate) fn check<'a>(
        &self,
        chain: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        for der in chain {
            let serial = serial(der)?;
            if self.0.contains(&serial) {
                let hex: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
                return Err(format!("transport: certificate serial {hex} revoked"));
            }
        }
        Ok(())
    }
}
