//! What a certificate says of its bearer. Not here: whether it is to be believed.

use std::net::IpAddr;

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The parts of a certificate that decisions are made by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// The last of its common names, which is the one that Go takes.
    pub common_name: String,
    /// The names it may stand for.
    pub dns_names: Vec<String>,
    /// The addresses it may stand for.
    pub addresses: Vec<IpAddr>,
    /// The second after which it is no longer good.
    pub not_after: i64,
}

impl Leaf {
    /// Takes a certificate apart.
    pub(crate) fn parse(der: &[u8]) -> Result<Leaf, String> {
        let cert = parse(der)?;
        let common_name =
            cert.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
        let mut leaf = Leaf {
            common_name: common_name.unwrap_or_default().to_owned(),
            not_after: cert.validity().not_after.timestamp(),
            ..Leaf::default()
        };
        let names = cert.subject_alternative_name().map_err(|e| format!("x509: {e}"))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => leaf.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => leaf.addresses.push(address(bytes)?),
                _ => {}
            }
        }
        Ok(leaf)
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        Ok(_) => Err("x509: trailing data".to_owned()),
        Err(error) => Err(format!("x509: malformed certificate: {error}")),
    }
}

/// The public key in a certificate, as DER.
pub fn public_key(der: &[u8]) -> Result<Vec<u8>, String> {
    Ok(parse(der)?.public_key().raw.to_vec())
}

/// The serial number of a certificate, without leading zeros.
pub(crate) fn serial(der: &[u8]) -> Result<Vec<u8>, String> {
    Ok(bare(parse(der)?.raw_serial()).to_vec())
}

/// A number without its leading zeros.
pub(crate) fn bare(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn address(bytes: &[u8]) -> Result<IpAddr, String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(four.into());
    }
    <[u8; 16]>::try_from(bytes)
        .map(IpAddr::from)
        .map_err(|_| format!("x509: cannot parse IP address of length {}", bytes.len()))
}
