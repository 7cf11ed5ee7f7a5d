//! Go's names of cipher suites, and which of them rustls speaks. Not here: the order of preference, which is
//! rustls' own (Go, too, has stopped to heed the order that it is given).

use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::{CipherSuite, SupportedCipherSuite};

/// What Go calls them, and ours. Those without are names that Go knows and that nobody should use: static RSA,
/// CBC, RC4, 3DES. Go ignores the suites of TLS 1.3 in such a list, and so do we: they are always on.
const NAMES: &[(&str, Option<CipherSuite>)] = &[
    ("TLS_AES_128_GCM_SHA256", None),
    ("TLS_AES_256_GCM_SHA384", None),
    ("TLS_CHACHA20_POLY1305_SHA256", None),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_RSA_WITH_RC4_128_SHA", None),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", None),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", None),
    ("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", None),
    ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", None),
    ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", None),
];

/// Whether Go knows every name, with etcd's text for one that it does not.
pub fn check(names: &[String]) -> Result<(), String> {
    match names.iter().find(|name| !NAMES.iter().any(|(known, _)| known == name)) {
        Some(name) => Err(format!("unexpected TLS cipher suite {name:?}")),
        None => Ok(()),
    }
}

/// Go's HTTP/2 server insists on one of two suites, unless TLS 1.3 is the oldest version.
pub fn check_http2(names: &[String]) -> Result<(), String> {
    const NEEDED: [&str; 2] =
        ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];
    if names.is_empty() || names.iter().any(|name| NEEDED.contains(&name.as_str())) {
        return Ok(());
    }
    Err(format!(
        "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher \
         (need at least one of {} or {})",
        NEEDED[0], NEEDED[1]
    ))
}

/// The suites to offer for these names: all of TLS 1.3, and of TLS 1.2 those that are named, or all if none is.
pub(crate) fn chosen(names: &[String]) -> Vec<SupportedCipherSuite> {
    let named = |of: CipherSuite| {
        NAMES.iter().any(|(name, ours)| *ours == Some(of) && names.iter().any(|n| n == name))
    };
    [
        suite::TLS13_AES_256_GCM_SHA384,
        suite::TLS13_AES_128_GCM_SHA256,
        suite::TLS13_CHACHA20_POLY1305_SHA256,
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ]
    .into_iter()
    .filter(|suite| names.is_empty() || suite.tls13().is_some() || named(suite.suite()))
    .collect()
}

/// Those of these names that ask for what is not spoken. Who gives TLS 1.3's gets them anyway.
pub(crate) fn unspoken(names: &[String]) -> Vec<String> {
    let tls13 = |name: &str| NAMES[..3].iter().any(|(known, _)| *known == name);
    let spoken = |name: &str| NAMES.iter().any(|(known, ours)| *known == name && ours.is_some());
    names.iter().filter(|name| !spoken(name) && !tls13(name)).cloned().collect()
}
