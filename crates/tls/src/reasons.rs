//! Why a handshake failed, in the words that etcd's logs have for it. Not here: who writes the log.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};
use x509_parser::time::ASN1Time;

/// A reason of our own, on its way through rustls.
#[derive(Debug)]
pub(crate) struct Reason(pub(crate) String);

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Reason {}

/// The error that refuses a client's certificate for a reason of our own.
pub(crate) fn refusal(why: String) -> Error {
    let other = rustls::OtherError(std::sync::Arc::new(Reason(why)));
    Error::InvalidCertificate(CertificateError::Other(other))
}

/// Whether the other side has just gone away, which is no news.
pub(crate) fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe | ConnectionAborted)
}

/// What went wrong in a handshake.
pub(crate) fn of_io(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(tls) => of_tls(tls),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => error.to_string(),
    }
}

fn of_tls(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(why)))
            if why.downcast_ref::<Reason>().is_some() =>
        {
            why.to_string()
        }
        Error::InvalidCertificate(why) => {
            format!("tls: failed to verify certificate: x509: {}", of_certificate(why))
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // Which everybody sends since TLS 1.2.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => "tls: client offered only unsupported versions".to_owned(),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "tls: no cipher suite supported by both client and server".to_owned()
        }
        Error::NoApplicationProtocol => {
            "tls: client requested unsupported application protocols".to_owned()
        }
        Error::AlertReceived(alert) => format!("remote error: tls: {}", of_alert(*alert)),
        other => format!("tls: {other}"),
    }
}

fn of_certificate(why: &CertificateError) -> String {
    const TIME: &str = "certificate has expired or is not yet valid";
    match why {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        CertificateError::BadSignature => {
            "certificate signed by unknown authority (one of the same name is trusted, with another key)"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::NotValidYet => TIME.to_owned(),
        CertificateError::ExpiredContext { time, not_after: end } => {
            format!("{TIME}: current time {} is after {}", date(time), date(end))
        }
        CertificateError::NotValidYetContext { time, not_before: begin } => {
            format!("{TIME}: current time {} is before {}", date(time), date(begin))
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".to_owned()
        }
        CertificateError::BadEncoding => "malformed certificate".to_owned(),
        other => other.to_string(),
    }
}

fn date(time: &rustls::pki_types::UnixTime) -> String {
    rfc3339(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// A second of Unix time as Go prints it.
pub(crate) fn rfc3339(seconds: i64) -> String {
    match ASN1Time::from_timestamp(seconds) {
        Ok(time) => {
            let time = time.to_datetime();
            format!(
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
                time.year(),
                u8::from(time.month()),
                time.day(),
                time.hour(),
                time.minute(),
                time.second()
            )
        }
        Err(_) => format!("second {seconds}"),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    let text = match alert {
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        AlertDescription::UserCanceled => "user canceled",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::InternalError => "internal error",
        other => return format!("{other:?}"),
    };
    text.to_owned()
}
