//! The configuration of a port, made of its files and made anew when they change. Not here: a connection's
//! handshake (`accept`).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_native_certs::load_native_certs;
use x509_parser::time::ASN1Time;

use crate::ciphers;
use crate::crl::Revoked;
use crate::files::{self, Stamp};
use crate::leaf::Leaf;
use crate::options::{Options, Version};
use crate::reasons::rfc3339;
use crate::verifier::Verifier;

/// What whoever made an acceptor should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These files have changed, and new connections get what is in them now.
    Reloaded(Vec<String>),
    /// Files have changed and are no good; what they were before goes on to count.
    Kept(String),
    /// Something that is allowed and most likely not meant.
    Warning(String),
}

type Tell = Box<dyn Fn(Event) + Send + Sync>;

/// The server's end of TLS for a port or several. Shared by all threads.
pub struct Acceptor {
    options: Options,
    paths: Vec<String>,
    tell: Tell,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    stamps: Vec<Option<Stamp>>,
    texts: Vec<Vec<u8>>,
    /// Whether a change of a file would show in its stamp.
    settled: bool,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Reads and checks everything. The error names the file and what is wrong with it.
    pub fn new(options: Options, tell: Tell) -> Result<Acceptor, String> {
        options.check()?;
        ciphers::check(&options.cipher_suites)?;
        let unspoken = ciphers::unspoken(&options.cipher_suites);
        if !unspoken.is_empty() {
            let list = unspoken.join(", ");
            tell(Event::Warning(format!("cipher suites that are not spoken: {list}")));
        }
        let mut paths = vec![options.cert_file.clone(), options.key_file.clone()];
        let others = [
            &options.trusted_ca_file,
            &options.crl_file,
            &options.client_cert_file,
            &options.client_key_file,
        ];
        paths.extend(others.into_iter().filter(|path| !path.is_empty()).cloned());
        let stamps: Vec<_> = paths.iter().map(|path| Stamp::of(path)).collect();
        let texts = read_all(&paths)?;
        let config = Arc::new(load(&options, &paths, &texts, &tell)?);
        let state = Mutex::new(State { config, settled: settled(&stamps), stamps, texts });
        Ok(Acceptor { options, paths, tell, state })
    }

    /// What it was made of.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What counts now. Where a file has changed, it is read here; otherwise each costs one look at its metadata.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        let stamps: Vec<_> = self.paths.iter().map(|path| Stamp::of(path)).collect();
        let (config, event) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let event = if state.stamps == stamps && state.settled {
                None
            } else {
                self.reload(&mut state, stamps)
            };
            (Arc::clone(&state.config), event)
        };
        if let Some(event) = event {
            (self.tell)(event);
        }
        config
    }

    fn reload(&self, state: &mut State, stamps: Vec<Option<Stamp>>) -> Option<Event> {
        let seen = state.stamps == stamps;
        state.settled = settled(&stamps);
        state.stamps = stamps;
        let texts = match read_all(&self.paths) {
            Ok(texts) if texts == state.texts => return None,
            Ok(texts) => texts,
            Err(why) => return (!seen).then_some(Event::Kept(why)),
        };
        match load(&self.options, &self.paths, &texts, &self.tell) {
            Ok(config) => {
                let changed = self.paths.iter().zip(texts.iter().zip(&state.texts));
                let changed =
                    changed.filter(|(_, (new, old))| new != old).map(|(path, _)| path.clone());
                let event = Event::Reloaded(changed.collect());
                state.config = Arc::new(config);
                state.texts = texts;
                Some(event)
            }
            // Said once for each change, not for each connection.
            Err(why) => (!seen).then_some(Event::Kept(why)),
        }
    }
}

fn settled(stamps: &[Option<Stamp>]) -> bool {
    stamps.iter().flatten().all(Stamp::is_settled)
}

fn read_all(paths: &[String]) -> Result<Vec<Vec<u8>>, String> {
    paths.iter().map(|path| files::read(path)).collect()
}

/// Makes a configuration of the files' texts.
fn load(
    options: &Options,
    paths: &[String],
    texts: &[Vec<u8>],
    tell: &Tell,
) -> Result<ServerConfig, String> {
    let text = |path: &str| paths.iter().position(|p| p == path).map_or(&[][..], |at| &texts[at]);
    let provider = Arc::new(CryptoProvider {
        cipher_suites: ciphers::chosen(&options.cipher_suites),
        ..aws_lc_rs::default_provider()
    });
    let own = identity(&options.cert_file, &options.key_file, &text, &provider, tell)?;
    if !options.client_cert_file.is_empty() {
        identity(&options.client_cert_file, &options.client_key_file, &text, &provider, tell)?;
    }
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(options))
        .map_err(|_| {
            format!(
                "none of the cipher suites is spoken, and TLS 1.3 is switched off: {}",
                options.cipher_suites.join(", ")
            )
        })?;
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(own));
    let mut config = if options.demands_certificates() {
        let (file, list) = (options.trusted_ca_file.as_str(), options.crl_file.as_str());
        let roots = if file.is_empty() { of_system()? } else { files::roots(file, text(file))? };
        let revoked = if list.is_empty() {
            Revoked::default()
        } else {
            Revoked::parse(text(list)).map_err(|why| format!("{list}: {why}"))?
        };
        let verifier = Verifier::new(roots, revoked, options, provider)
            .map_err(|why| format!("{file}: {why}"))?;
        let mut config =
            builder.with_client_cert_verifier(Arc::new(verifier)).with_cert_resolver(resolver);
        // Who was let in once is looked at again each time: certificates are revoked.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    } else {
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.send_tls13_tickets = 1;
        config
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn versions(options: &Options) -> Vec<&'static SupportedProtocolVersion> {
    let mut versions = Vec::new();
    if options.max_version.is_none_or(|max| max >= Version::Tls13) {
        versions.push(&TLS13);
    }
    if options.min_version <= Version::Tls12 {
        versions.push(&TLS12);
    }
    versions
}

/// A certificate with the key that belongs to it.
fn identity<'t>(
    cert_file: &str,
    key_file: &str,
    text: &impl Fn(&str) -> &'t [u8],
    provider: &CryptoProvider,
    tell: &Tell,
) -> Result<CertifiedKey, String> {
    let chain = files::chain(cert_file, text(cert_file))?;
    let key = files::key(key_file, text(key_file))?;
    let leaf = Leaf::parse(&chain[0]).map_err(|why| format!("{cert_file}: {why}"))?;
    let identity = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("{key_file}: tls: private key does not match public key of {cert_file}")
        }
        rustls::Error::InvalidCertificate(why) => format!("{cert_file}: x509: {why}"),
        other => format!("{key_file}: tls: failed to parse private key: {other}"),
    })?;
    if leaf.not_after < ASN1Time::now().timestamp() {
        let end = rfc3339(leaf.not_after);
        tell(Event::Warning(format!("{cert_file}: the certificate has expired at {end}")));
    }
    Ok(identity)
}

/// The authorities that the system trusts, as Go's server takes them where it is given none.
fn of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "clients must show a certificate, but there is no trusted authority: give --trusted-ca-file"
                .to_owned(),
        );
    }
    Ok(roots)
}
