//! Handshakes over a pipe: who is let in, what is said of who is not, files that change, bounds.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;

use super::*;

/// A directory with an authority and what it has signed.
struct Files {
    dir: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Files {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("etch-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let files = Files { authority: authority("ours"), dir };
        files.write("ca.pem", &files.authority.pem());
        files.sign("server", "server", &["localhost"], |_| {});
        files
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        // As who renews certificates does it: whole, and by another file.
        fs::write(self.path("new"), text).expect("written");
        fs::rename(self.path("new"), self.path(name)).expect("renamed");
    }

    /// A certificate and its key as `NAME.pem` and `NAME-key.pem`.
    fn sign(
        &self,
        file: &str,
        common_name: &str,
        names: &[&str],
        with: impl FnOnce(&mut CertificateParams),
    ) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        with(&mut params);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.authority).expect("signed");
        self.write(&format!("{file}-key.pem"), &key.serialize_pem());
        self.write(&format!("{file}.pem"), &cert.pem());
    }

    fn revoke(&self, serials: &[u64]) -> Vec<u8> {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            // Long over: etcd does not look at it.
            next_update: date_time_ymd(2020, 2, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.authority).expect("signed").der().to_vec()
    }

    fn options(&self) -> Options {
        Options {
            cert_file: self.path("server.pem"),
            key_file: self.path("server-key.pem"),
            ..Options::default()
        }
    }

    fn mutual(&self) -> Options {
        Options { client_cert_auth: true, trusted_ca_file: self.path("ca.pem"), ..self.options() }
    }

    /// A client that shows this certificate, if any.
    fn client(&self, identity: Option<&str>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let Some(name) = identity else { return builder.with_no_client_auth() };
        let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.pem")));
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}-key.pem")));
        builder
            .with_client_auth_cert(vec![chain.expect("a certificate")], key.expect("a key"))
            .expect("an identity")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

fn silent() -> Box<dyn Fn(Event) + Send + Sync> {
    Box::new(|_| {})
}

fn remote() -> Option<std::net::SocketAddr> {
    Some("127.0.0.1:7".parse().expect("an address"))
}

type Pipe = tokio::io::DuplexStream;

/// One handshake; the second value is the certificate that the client saw.
async fn meet(
    acceptor: &Acceptor,
    client: ClientConfig,
    san: SanCheck,
) -> (Result<Secured<Pipe>, Refused>, Option<Vec<u8>>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let gate = Gate::new(Bounds::default());
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from("localhost").expect("a name");
    let (met, seen) = tokio::join!(acceptor.accept(far, remote(), &gate, san), async {
        let stream = connector.connect(name, near).await.ok()?;
        let seen = stream.get_ref().1.peer_certificates().map(|certs| certs[0].to_vec());
        // The pipe stays until the server has read all of it.
        Some((stream, seen))
    });
    assert_eq!(gate.under_way(), 0);
    let seen = seen.and_then(|(_, seen)| seen);
    (met, seen)
}

async fn refused(acceptor: &Acceptor, client: ClientConfig) -> String {
    match meet(acceptor, client, SanCheck::Skip).await.0 {
        Ok(_) => "let in".to_owned(),
        Err(refused) => refused.why,
    }
}

#[tokio::test]
async fn a_client_is_let_in_by_its_certificate_and_bears_its_name() {
    let files = Files::new();
    files.sign("ann", "ann", &[], |_| {});
    files.sign("twice", "first", &[], |params| {
        params.distinguished_name.push(DnType::OrganizationName, "o");
    });
    let acceptor = Acceptor::new(files.mutual(), silent()).expect("good files");
    let mut client = files.client(Some("ann"));
    client.alpn_protocols = vec![b"h2".to_vec()];
    let secured = meet(&acceptor, client, SanCheck::Demand).await.0.expect("let in");
    assert_eq!(secured.common_name.as_deref(), Some("ann"));
    assert_eq!(secured.alpn, Alpn::Http2);
    let secured = meet(&acceptor, files.client(Some("twice")), SanCheck::Skip).await.0;
    let secured = secured.expect("let in");
    assert_eq!((secured.common_name.as_deref(), secured.alpn), (Some("first"), Alpn::None));
    let open = Acceptor::new(files.options(), silent()).expect("good files");
    // A certificate that nobody has asked for and nobody has checked counts for nothing.
    let secured = meet(&open, files.client(Some("ann")), SanCheck::Skip).await.0.expect("let in");
    assert_eq!(secured.common_name, None);
}

#[tokio::test]
async fn who_is_not_let_in_is_told_apart() {
    let files = Files::new();
    files.sign("ann", "ann", &[], |_| {});
    files.sign("old", "ann", &[], |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2001, 2, 1);
    });
    files.sign("revoked", "ann", &[], |params| params.serial_number = Some(0xabcd.into()));
    files.sign("elsewhere", "ann", &["10.1.2.3"], |_| {});
    files.sign("server-only", "ann", &[], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    fs::write(files.path("crl.der"), files.revoke(&[7, 0xabcd])).expect("written");
    let options = Options { crl_file: files.path("crl.der"), ..files.mutual() };
    let acceptor = Acceptor::new(options, silent()).expect("good files");
    let failed = "tls: failed to verify certificate: x509: ";
    for (identity, why) in [
        (None, "tls: client didn't provide a certificate".to_owned()),
        (Some("ann"), "let in".to_owned()),
        (Some("revoked"), "transport: certificate serial abcd revoked".to_owned()),
        (Some("server-only"), format!("{failed}certificate specifies an incompatible key usage")),
    ] {
        assert_eq!(refused(&acceptor, files.client(identity)).await, why, "{identity:?}");
    }
    let why = refused(&acceptor, files.client(Some("old"))).await;
    let begin = format!("{failed}certificate has expired or is not yet valid: current time ");
    assert!(why.starts_with(&begin) && why.ends_with(" is after 2001-02-01T00:00:00Z"), "{why}");
    let stranger = Files::new();
    stranger.sign("ann", "ann", &[], |_| {});
    fs::copy(files.path("ca.pem"), stranger.path("ca.pem")).expect("copied");
    let mut client = files.client(None);
    client.client_auth_cert_resolver = stranger.client(Some("ann")).client_auth_cert_resolver;
    let why = refused(&acceptor, client).await;
    let unknown = format!("{failed}certificate signed by unknown authority");
    assert_eq!(why, format!("{unknown} (one of the same name is trusted, with another key)"));
    let (met, _) = meet(&acceptor, files.client(Some("elsewhere")), SanCheck::Demand).await;
    let refused = met.expect_err("another address");
    assert_eq!(refused.why, "x509: certificate is valid for 10.1.2.3, not 127.0.0.1");
    assert_eq!(refused.ip_addresses, ["10.1.2.3"]);
    assert_eq!(refused.server_name, "localhost");
}

#[tokio::test]
async fn names_that_are_allowed() {
    let files = Files::new();
    files.sign("ann", "ann", &["a.example.com"], |_| {});
    let no = "client certificate authentication failed";
    let wants = |cns: &[&str], hosts: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let options =
            Options { allowed_cns: list(cns), allowed_hostnames: list(hosts), ..files.mutual() };
        Acceptor::new(options, silent()).expect("good files")
    };
    for (acceptor, why) in [
        (wants(&[], &["b.example.com", "a.example.com"]), "let in"),
        (wants(&[], &["b.example.com"]), no),
        (wants(&["eve", "ann"], &[]), "let in"),
        (wants(&["eve"], &[]), no),
    ] {
        assert_eq!(refused(&acceptor, files.client(Some("ann"))).await, why);
    }
}

/// What is said of a client that sends these bytes and closes.
async fn says(acceptor: &Acceptor, bytes: &[u8]) -> Refused {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    near.write_all(bytes).await.expect("written");
    near.shutdown().await.expect("shut");
    let gate = Gate::new(Bounds::default());
    acceptor.accept(far, None, &gate, SanCheck::Skip).await.expect_err("refused")
}

#[tokio::test]
async fn what_is_no_handshake_is_named() {
    let files = Files::new();
    let acceptor = Acceptor::new(files.options(), silent()).expect("good files");
    let plain = says(&acceptor, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(plain.why, "tls: first record does not look like a TLS handshake");
    let silent = says(&acceptor, b"").await;
    assert_eq!((silent.why.as_str(), silent.hung_up), ("EOF", true));
    // A hello of TLS 1.1, which has no list of versions.
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x13, 0xc0, 0x14, 1, 0]);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.append(&mut hello);
    let old = says(&acceptor, &record).await;
    assert_eq!(old.why, "tls: client offered only unsupported versions");
}

#[tokio::test]
async fn versions_and_suites_are_those_that_were_asked_for() {
    let files = Files::new();
    let only_12 = |mut client: ClientConfig| {
        client.alpn_protocols.clear();
        ClientConfig::builder_with_provider(client.crypto_provider().clone())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .expect("a version")
            .with_root_certificates({
                let mut roots = RootCertStore::empty();
                roots.add(files.authority.der().clone()).expect("an authority");
                roots
            })
            .with_no_client_auth()
    };
    let suites = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let with = |min, max, names: &[&str]| Options {
        min_version: min,
        max_version: max,
        cipher_suites: suites(names),
        ..files.options()
    };
    let rsa = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    for (options, why) in [
        (with(Version::Tls12, None, &[]), "let in"),
        (with(Version::Tls12, None, &["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"]), "let in"),
        (with(Version::Tls13, None, &[]), "tls: client offered only unsupported versions"),
        // The certificate's key is for ECDSA.
        (
            with(Version::Tls12, None, &[rsa]),
            "tls: no cipher suite supported by both client and server",
        ),
    ] {
        let acceptor = Acceptor::new(options, silent()).expect("good files");
        assert_eq!(refused(&acceptor, only_12(files.client(None))).await, why);
    }
    let error = |options| Acceptor::new(options, silent()).expect_err("no good");
    assert_eq!(error(with(Version::Tls12, None, &["X"])), "unexpected TLS cipher suite \"X\"");
    let none = with(Version::Tls12, Some(Version::Tls12), &["TLS_RSA_WITH_RC4_128_SHA"]);
    assert!(error(none).starts_with("none of the cipher suites is spoken"));
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let files = Files::new();
    files.sign("other", "other", &[], |_| {});
    files.write("empty.pem", "nothing in here\n");
    files.write("torn.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let path = |name: &str| files.path(name);
    let error = |options: Options| Acceptor::new(options, silent()).expect_err("no good");
    let with = |cert: &str, key: &str| Options {
        cert_file: path(cert),
        key_file: path(key),
        ..Options::default()
    };
    let said = [
        (with("none.pem", "server-key.pem"), format!("open {}: no such file or directory", path("none.pem"))),
        (with("server.pem", "none.pem"), format!("open {}: no such file or directory", path("none.pem"))),
        (with("empty.pem", "server-key.pem"), format!("{}: tls: failed to find any PEM data in certificate input", path("empty.pem"))),
        (with("torn.pem", "server-key.pem"), format!("{}: a PEM block has no end", path("torn.pem"))),
        (with("server-key.pem", "server-key.pem"), format!("{}: tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched", path("server-key.pem"))),
        (with("server.pem", "empty.pem"), format!("{}: tls: failed to find any PEM data in key input", path("empty.pem"))),
        (with("server.pem", "server.pem"), format!("{}: tls: found a certificate rather than a key in the PEM for the private key", path("server.pem"))),
        (with("server.pem", "other-key.pem"), format!("{}: tls: private key does not match public key of {}", path("other-key.pem"), path("server.pem"))),
        (Options { trusted_ca_file: path("empty.pem"), ..files.options() }, format!("{}: tls: failed to find any PEM data in certificate input", path("empty.pem"))),
        (Options { crl_file: path("empty.pem"), ..files.mutual() }, format!("{}: x509: malformed crl", path("empty.pem"))),
        (Options { key_file: String::new(), ..files.options() }, format!("KeyFile and CertFile must both be present[key: , cert: {}]", path("server.pem"))),
        (Options { client_key_file: "k".into(), ..files.options() }, "ClientKeyFile and ClientCertFile must both be present or both absent: key: k, cert: ]".to_owned()),
        (
            Options { allowed_cns: vec!["a".into()], allowed_hostnames: vec!["b".into(), "c".into()], ..files.mutual() },
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\"], hostnames=[\"b\" \"c\"])".to_owned(),
        ),
    ];
    for (options, why) in said {
        assert_eq!(error(options), why);
    }
}

#[tokio::test]
async fn new_files_count_at_once_and_broken_ones_never() {
    let files = Files::new();
    files.sign("ann", "ann", &[], |params| params.serial_number = Some(99.into()));
    fs::write(files.path("crl"), files.revoke(&[])).expect("written");
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let tell = Box::new(move |event| told.lock().expect("events").push(event));
    let options = Options { crl_file: files.path("crl"), ..files.mutual() };
    let acceptor = Acceptor::new(options, tell).expect("good files");
    let take = || std::mem::take(&mut *events.lock().expect("events"));
    let ann = || files.client(Some("ann"));
    let first = meet(&acceptor, ann(), SanCheck::Skip).await.1.expect("a certificate");
    assert_eq!(take(), []);

    // The certificate comes before its key: what was there before counts until both are there.
    let key = fs::read_to_string(files.path("server-key.pem")).expect("a key");
    files.sign("server", "server", &["localhost"], |_| {});
    let new_key = fs::read_to_string(files.path("server-key.pem")).expect("a key");
    files.write("server-key.pem", &key);
    for said in [1, 0] {
        let (met, seen) = meet(&acceptor, ann(), SanCheck::Skip).await;
        assert!(met.is_ok());
        assert_eq!(seen.as_ref(), Some(&first));
        let events = take();
        assert_eq!(events.len(), said, "once a change: {events:?}");
        assert!(
            events.iter().all(|e| matches!(e, Event::Kept(why) if why.contains("does not match")))
        );
    }
    files.write("server-key.pem", &new_key);
    let (_, seen) = meet(&acceptor, ann(), SanCheck::Skip).await;
    assert_ne!(seen.expect("a certificate"), first);
    assert_eq!(
        take(),
        [Event::Reloaded(vec![files.path("server.pem"), files.path("server-key.pem")])]
    );

    fs::remove_file(files.path("ca.pem")).expect("removed");
    assert_eq!(refused(&acceptor, ann()).await, "let in");
    assert!(matches!(&take()[..], [Event::Kept(why)] if why.contains("ca.pem: no such file")));
    files.write("ca.pem", &files.authority.pem());

    fs::write(files.path("crl"), files.revoke(&[99])).expect("written");
    assert_eq!(refused(&acceptor, ann()).await, "transport: certificate serial 63 revoked");
    assert_eq!(take(), [Event::Reloaded(vec![files.path("crl")])]);
    // The same size, within the same tick of the file system's clock.
    fs::write(files.path("crl"), files.revoke(&[98])).expect("written");
    assert_eq!(refused(&acceptor, ann()).await, "let in");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_takes_too_long_ends() {
    let files = Files::new();
    let acceptor = Acceptor::new(files.options(), silent()).expect("good files");
    let gate = Gate::new(Bounds::default());
    let (mut near, far) = tokio::io::duplex(64);
    near.write_all(&[22, 3, 1]).await.expect("written");
    let began = tokio::time::Instant::now();
    let refused = acceptor.accept(far, None, &gate, SanCheck::Skip).await.expect_err("in time");
    assert_eq!(refused.why, "tls: the handshake has taken longer than 10s");
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    assert_eq!(gate.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_handshake_too_many_ends_the_oldest() {
    let files = Files::new();
    let acceptor = Acceptor::new(files.options(), silent()).expect("good files");
    let gate = Gate::new(Bounds { handshakes: 2, time: Duration::from_secs(10) });
    let pipes: Vec<_> = (0..3).map(|_| tokio::io::duplex(64)).collect();
    let (_near, mut far): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
    let mut wait = || acceptor.accept(far.remove(0), None, &gate, SanCheck::Skip);
    let (oldest, second, third) = tokio::join!(wait(), wait(), wait());
    assert_eq!(oldest.expect_err("out").why, "tls: too many handshakes at a time");
    for other in [second, third] {
        assert!(other.expect_err("out of time").why.contains("longer than"));
    }
}

#[tokio::test]
async fn a_certificate_of_our_own_is_made_once() {
    let files = Files::new();
    let dir = files.dir.join("fixtures/client");
    let hosts = ["127.0.0.1:2379".to_owned(), "localhost:1".to_owned(), "socket".to_owned()];
    assert!(self_signed(&dir, &hosts, 0).is_err());
    let made = self_signed(&dir, &hosts, 2).expect("made");
    assert!(made.made_until.is_some());
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&made.key_file), mode(&made.cert_file)), (0o700, 0o600, 0o600));
    assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 2);
    let again = self_signed(&dir, &hosts, 2).expect("found");
    assert_eq!(again, SelfSigned { made_until: None, ..made.clone() });

    let options = Options {
        cert_file: made.cert_file.display().to_string(),
        key_file: made.key_file.display().to_string(),
        ..Options::default()
    };
    let acceptor = Acceptor::new(options, silent()).expect("good files");
    let mut roots = RootCertStore::empty();
    let own = CertificateDer::from_pem_file(&made.cert_file).expect("a certificate");
    roots.add(own).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Who trusts it, trusts the server.
    assert_eq!(refused(&acceptor, client).await, "let in");
}
