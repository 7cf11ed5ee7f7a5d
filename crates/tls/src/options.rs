//! What a side's TLS is made of, as plain data, and whether it goes together. Not here: the files themselves.

/// TLS on one port. Paths that are empty are not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The certificate chain that is shown.
    pub cert_file: String,
    /// Its key.
    pub key_file: String,
    /// A certificate for when we are the client: only checked here.
    pub client_cert_file: String,
    /// Its key.
    pub client_key_file: String,
    /// Clients have to show a certificate. With a file of authorities they have to anyway.
    pub client_cert_auth: bool,
    /// The authorities of clients' certificates; those of the system if none is given.
    pub trusted_ca_file: String,
    /// A list of revoked serial numbers, as DER or PEM.
    pub crl_file: String,
    /// Common names that are let in; any if there is none.
    pub allowed_cns: Vec<String>,
    /// Host names and addresses of which a client's certificate must bear one; any if there is none.
    pub allowed_hostnames: Vec<String>,
    /// Cipher suites by the names that Go has for them; all good ones if there is none.
    pub cipher_suites: Vec<String>,
    /// The oldest version that is spoken.
    pub min_version: Version,
    /// The newest version that is spoken.
    pub max_version: Option<Version>,
}

/// A version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    /// Reads what etcd's flags take. `None` stands for the default.
    pub fn parse(text: &str) -> Result<Option<Version>, String> {
        match text {
            "" => Ok(None),
            "TLS1.2" => Ok(Some(Version::Tls12)),
            "TLS1.3" => Ok(Some(Version::Tls13)),
            other => {
                Err(format!("unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)"))
            }
        }
    }
}

impl Options {
    /// True if there is neither a certificate nor a key: etcd takes this for "no TLS".
    pub fn is_empty(&self) -> bool {
        self.cert_file.is_empty() && self.key_file.is_empty()
    }

    /// True if clients have to show a certificate.
    pub fn demands_certificates(&self) -> bool {
        self.client_cert_auth || !self.trusted_ca_file.is_empty()
    }

    /// Checks what can be checked without a file, with etcd's texts.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.cert_file.is_empty() || self.key_file.is_empty() {
            return Err(format!(
                "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                self.key_file, self.cert_file
            ));
        }
        if self.client_cert_file.is_empty() != self.client_key_file.is_empty() {
            return Err(format!(
                "ClientKeyFile and ClientCertFile must both be present or both absent: key: {}, cert: {}]",
                self.client_key_file, self.client_cert_file
            ));
        }
        if !self.allowed_cns.is_empty() && !self.allowed_hostnames.is_empty() {
            return Err(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={}, hostnames={})",
                quoted(&self.allowed_cns),
                quoted(&self.allowed_hostnames)
            ));
        }
        Ok(())
    }
}

/// A list as Go prints one of strings in quotes.
pub(crate) fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
