//! Certificates of our own making, for `--auto-tls`: kept in a directory and found there again. Not here: who
//! asks for them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P521_SHA512, SanType,
};
use x509_parser::time::ASN1Time;

use crate::reasons::rfc3339;

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfSigned {
    /// The certificate.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Until when it is good, if it was made just now.
    pub made_until: Option<String>,
}

const YEAR: i64 = 365 * 24 * 60 * 60;

/// Takes what is in the directory from an earlier run, of etcd's as well, or makes a certificate for `hosts`
/// (`host:port`) that is good for so many years.
pub fn self_signed(dir: &Path, hosts: &[String], years: u64) -> Result<SelfSigned, String> {
    if years == 0 {
        return Err("selfSignedCertValidity is invalid,it should be greater than 0".to_owned());
    }
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| failed(&format!("cannot create {}", dir.display()), &e))?;
    let dir = fs::canonicalize(dir).map_err(|e| failed(&dir.display().to_string(), &e))?;
    let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
    if cert_file.exists() && key_file.exists() {
        return Ok(SelfSigned { cert_file, key_file, made_until: None });
    }
    let now = ASN1Time::now().timestamp();
    let end = now.saturating_add(i64::try_from(years).unwrap_or(i64::MAX).saturating_mul(YEAR));
    let (cert, key) = make(hosts, now, end).map_err(|e| failed("cannot make a certificate", &e))?;
    // The certificate last: where there is one, there is its key.
    for (path, text) in [(&key_file, key), (&cert_file, cert)] {
        write(path, &text).map_err(|e| failed(&format!("cannot write {}", path.display()), &e))?;
    }
    Ok(SelfSigned { cert_file, key_file, made_until: Some(rfc3339(end)) })
}

/// Certificate and key as PEM.
fn make(hosts: &[String], begin: i64, end: i64) -> Result<(String, String), String> {
    let time = |at: i64| ASN1Time::from_timestamp(at).map(|t| t.to_datetime());
    let mut params = CertificateParams::default();
    params.not_before = time(begin).map_err(|e| e.to_string())?;
    params.not_after = time(end).map_err(|_| "it would be good for too long".to_owned())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etch");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for host in hosts.iter().filter_map(|host| host.rsplit_once(':')).map(|(host, _)| host) {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = match bare.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if bare.is_empty() => continue,
            Err(_) => SanType::DnsName(bare.try_into().map_err(|e: rcgen::Error| e.to_string())?),
        };
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).map_err(|e| e.to_string())?;
    let cert = params.self_signed(&key).map_err(|e| e.to_string())?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// Writes a file for its owner alone, whole or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension("pem.tmp");
    // Whatever a run that was cut short has left there.
    let _ = fs::remove_file(&part);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path)
}
