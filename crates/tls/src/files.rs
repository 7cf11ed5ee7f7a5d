//! Files with certificates, keys and lists: read, taken apart, and watched by what the file system says of
//! them. Every error names its file. Not here: what is made of them (`acceptor`).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What tells a file from one that it was replaced by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A clock of files may stand still for so long.
const COARSE: Duration = Duration::from_secs(1);

impl Stamp {
    /// The stamp of a file; none if it cannot be found.
    pub(crate) fn of(path: &str) -> Option<Stamp> {
        let meta = fs::metadata(path).ok()?;
        Some(Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Whether another write would show: two within one tick of the file system's clock look the same.
    pub(crate) fn is_settled(&self) -> bool {
        let written = u64::try_from(self.changed.0).unwrap_or(0);
        let written = UNIX_EPOCH + Duration::from_secs(written);
        SystemTime::now().duration_since(written).is_ok_and(|age| age > COARSE + COARSE)
    }
}

/// Reads a file; the error is Go's text.
pub(crate) fn read(path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            io::ErrorKind::IsADirectory => return format!("read {path}: is a directory"),
            _ => error.to_string(),
        };
        format!("open {path}: {why}")
    })
}

/// All certificates in a PEM text, of which there must be one.
pub(crate) fn chain(path: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|why| format!("{path}: {}", broken(&why)))?;
    if !found.is_empty() {
        return Ok(found);
    }
    let why = match kinds(text).as_slice() {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [kind] if is_key(*kind) => {
            "tls: failed to find certificate PEM data in certificate input, but did find a private \
             key; PEM inputs may have been switched"
                .to_owned()
        }
        skipped => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM \
             blocks of the following types: {skipped:?}"
        ),
    };
    Err(format!("{path}: {why}"))
}

/// The key in a PEM text.
pub(crate) fn key(path: &str, text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        let why = match (error, kinds(text).as_slice()) {
            (_, []) if contains(text, b"ENCRYPTED PRIVATE KEY") => {
                "tls: the private key is encrypted, which is not supported".to_owned()
            }
            (PemError::NoItemsFound, []) => {
                "tls: failed to find any PEM data in key input".to_owned()
            }
            (PemError::NoItemsFound, [SectionKind::Certificate, ..]) => {
                "tls: found a certificate rather than a key in the PEM for the private key"
                    .to_owned()
            }
            (error, _) => format!("tls: failed to parse private key: {}", broken(&error)),
        };
        format!("{path}: {why}")
    })
}

/// The authorities in a PEM text.
pub(crate) fn roots(path: &str, text: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for cert in chain(path, text)? {
        roots.add(cert).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(roots)
}

/// The kinds of a text's PEM blocks, as far as they are known.
fn kinds(text: &[u8]) -> Vec<SectionKind> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(text).map_while(Result::ok).map(|(k, _)| k).collect()
}

fn is_key(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

/// What is wrong with a PEM text, without any of it: it may be a key.
fn broken(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => "a PEM block has no end",
        PemError::IllegalSectionStart { .. } => "a PEM block has a broken first line",
        PemError::Base64Decode(_) => "a PEM block is not base64",
        PemError::SectionTooLarge => "a PEM block is too large",
        PemError::NoItemsFound => "no PEM block of the kind that is needed",
        _ => "it cannot be read as PEM",
    }
}
