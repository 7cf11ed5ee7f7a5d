//! Signed tokens (JWT): who the user is and the auth revision that the permissions are of, signed by a key that
//! the member has, or by somebody else whose public key it has. Nothing is remembered of those given out.
//!
//! A token is `header.claims.signature`, each in unpadded URL-safe base64; the header names the algorithm, and
//! only the configured one is taken. Not here: the arithmetic (`aws-lc-rs`), and the keys' files (`keys`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use etch_state::auth::AuthInfo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::keys::{Algorithm, Keys};
use crate::config::values::parse_duration;

/// The lifetime where none is given.
const TTL_SECONDS: f64 = 300.0;

/// Why the options of `--auth-token` are of no use.
pub const BAD_OPTIONS: &str = "auth: invalid auth options";

/// What signs and verifies.
pub struct Jwt {
    algorithm: Algorithm,
    keys: Keys,
    ttl_seconds: f64,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt").field("algorithm", &self.algorithm.name()).finish_non_exhaustive()
    }
}

/// The options behind the kind, each at most once.
pub fn options(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let mut options: Vec<(&str, &str)> = Vec::new();
    for option in text.split(',').skip(1) {
        let mut parts = option.split('=');
        let (Some(name), Some(value), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(BAD_OPTIONS.to_owned());
        };
        if options.iter().any(|(known, _)| *known == name) {
            return Err(BAD_OPTIONS.to_owned());
        }
        options.push((name, value));
    }
    Ok(options)
}

impl Jwt {
    /// As the options say; the files are read here.
    pub fn open(options: &[(&str, &str)]) -> Result<Self, String> {
        let option = |name: &str| {
            options.iter().find(|(n, _)| *n == name).map(|(_, v)| *v).filter(|v| !v.is_empty())
        };
        let ttl_seconds = match option("ttl") {
            None => TTL_SECONDS,
            Some(text) => {
                let nanos =
                    parse_duration(text).map_err(|why| format!("{BAD_OPTIONS}: ttl: {why}"))?;
                nanos as f64 / 1e9
            }
        };
        let read = |name: &str| match option(name) {
            None => Ok(None),
            Some(path) => std::fs::read(path)
                .map(Some)
                .map_err(|e| format!("{BAD_OPTIONS}: {name}: {path}: {e}")),
        };
        let (public, private) = (read("pub-key")?, read("priv-key")?);
        let method = option("sign-method").unwrap_or_default();
        Self::new(method, private.as_deref(), public.as_deref(), ttl_seconds)
    }

    /// Of a method's name, and what is in the files of keys.
    pub fn new(
        method: &str,
        private: Option<&[u8]>,
        public: Option<&[u8]>,
        ttl_seconds: f64,
    ) -> Result<Self, String> {
        let algorithm = Algorithm::named(method).ok_or_else(|| {
            format!("{BAD_OPTIONS}: sign-method: auth: invalid auth signature method")
        })?;
        let keys = Keys::new(algorithm, private, public)?;
        Ok(Self { algorithm, keys, ttl_seconds })
    }

    /// A token for a user at a revision. The error is etcd's.
    pub fn sign(&self, user: &str, revision: u64, now_seconds: f64) -> Result<String, String> {
        let header = json!({"alg": self.algorithm.name(), "typ": "JWT"});
        let exp = (now_seconds + self.ttl_seconds).floor() as i64;
        let claims = json!({"exp": exp, "revision": revision, "username": user});
        let mut token = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.keys.sign(token.as_bytes())?;
        token.push('.');
        BASE64.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Whom a token names, and until when; or why it is worth nothing.
    fn verify(&self, token: &str, now_seconds: f64) -> Result<(AuthInfo, f64), &'static str> {
        let mut parts = token.rsplitn(2, '.');
        let (Some(signature), Some(signed)) = (parts.next(), parts.next()) else {
            return Err("token is malformed");
        };
        let (header, claims) = signed.split_once('.').ok_or("token is malformed")?;
        let header = decode(header).ok_or("token is malformed")?;
        if header.get("alg").and_then(Value::as_str) != Some(self.algorithm.name()) {
            return Err("invalid signing method");
        }
        let signature = BASE64.decode(signature).map_err(|_| "token is malformed")?;
        if !self.keys.verify(signed.as_bytes(), &signature) {
            return Err("token signature is invalid");
        }
        let claims = decode(claims).ok_or("token is malformed")?;
        let moment = |name: &str| match claims.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or("token has invalid claims"),
        };
        let ends = moment("exp")?.unwrap_or(f64::INFINITY);
        if now_seconds >= ends {
            return Err("token is expired");
        }
        if moment("nbf")?.is_some_and(|begins| now_seconds < begins) {
            return Err("token is not valid yet");
        }
        let user = claims.get("username").and_then(Value::as_str).ok_or("no user in the token")?;
        let revision =
            claims.get("revision").and_then(Value::as_f64).ok_or("no revision in the token")?;
        Ok((AuthInfo { username: Arc::from(user), revision: revision as u64 }, ends))
    }
}

fn encode(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

fn decode(part: &str) -> Option<Value> {
    let bytes = BASE64.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok().filter(Value::is_object)
}

/// Tokens whose signature one thread has verified: a call with the same token costs a hash, not a signature.
#[derive(Default)]
pub struct Verified {
    /// By the token's hash: looking up says nothing of the token.
    known: RefCell<HashMap<[u8; 32], (AuthInfo, f64)>>,
}

/// Tokens remembered by a thread.
const REMEMBERED: usize = 1024;

impl Verified {
    /// Whom a token names.
    pub fn user(&self, jwt: &Jwt, token: &str, now_seconds: f64) -> Result<AuthInfo, &'static str> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut known = self.known.borrow_mut();
        if let Some((user, ends)) = known.get(&hash) {
            if now_seconds < *ends {
                return Ok(user.clone());
            }
            known.remove(&hash);
        }
        let (user, ends) = jwt.verify(token, now_seconds)?;
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(hash, (user.clone(), ends));
        Ok(user)
    }
}

/// The options that mean nothing to us.
pub fn unknown_options<'a>(options: &[(&'a str, &str)]) -> Vec<&'a str> {
    const KNOWN: [&str; 4] = ["sign-method", "pub-key", "priv-key", "ttl"];
    options.iter().map(|(name, _)| *name).filter(|name| !KNOWN.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};

    use super::*;

    /// A private key's file for an algorithm.
    fn private(name: &str) -> Vec<u8> {
        use aws_lc_rs::encoding::AsDer as _;
        use aws_lc_rs::signature as s;
        let random = SystemRandom::new();
        let ec = |curve| EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap().as_ref().to_vec();
        let der = match &name[..2] {
            "HS" => return b"a secret that is long enough".to_vec(),
            "ES" if name == "ES256" => ec(&s::ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES" if name == "ES384" => ec(&s::ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES" => ec(&s::ECDSA_P521_SHA512_FIXED_SIGNING),
            "Ed" => Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref().to_vec(),
            _ => {
                let key = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
                key.as_der().unwrap().as_ref().to_vec()
            }
        };
        pem::encode(&pem::Pem::new("PRIVATE KEY", der)).into_bytes()
    }

    fn jwt(name: &str, private: &[u8]) -> Jwt {
        let algorithm = Algorithm::named(name).unwrap();
        let keys = Keys::new(algorithm, Some(private), None).unwrap();
        Jwt { algorithm, keys, ttl_seconds: 60.0 }
    }

    const ALL: [&str; 13] = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
        "HS256", "HS384", "HS512",
    ];

    #[test]
    fn each_algorithm_takes_its_own_tokens_and_no_others() {
        let (first, second) = (private("RS256"), private("RS256"));
        for name in ALL {
            let own = if name.starts_with(['R', 'P']) { first.clone() } else { private(name) };
            let signer = jwt(name, &own);
            let token = signer.sign("ann", 7, 1000.0).unwrap();
            let (user, ends) = signer.verify(&token, 1059.0).unwrap();
            assert_eq!((&*user.username, user.revision, ends), ("ann", 7, 1060.0), "{name}");
            assert_eq!(signer.verify(&token, 1060.0), Err("token is expired"), "{name}");
            for other in ALL {
                if other.starts_with(['R', 'P']) && other != name {
                    // The same key, another algorithm: it must not do.
                    assert!(
                        jwt(other, &first).verify(&token, 1000.0).is_err(),
                        "{name} as {other}"
                    );
                }
            }
            if name.starts_with('R') {
                let stranger = jwt(name, &second);
                assert_eq!(stranger.verify(&token, 1000.0), Err("token signature is invalid"));
            }
        }
    }

    #[test]
    fn what_is_not_signed_or_not_a_token_is_worth_nothing() {
        let signer = jwt("HS256", b"secret");
        let signed = |header: Value, claims: Value| {
            let text = format!("{}.{}", encode(&header), encode(&claims));
            let signature = BASE64.encode(signer.keys.sign(text.as_bytes()).unwrap());
            format!("{text}.{signature}")
        };
        let header = json!({"alg": "HS256"});
        let good = json!({"username": "ann", "revision": 3});
        assert!(signer.verify(&signed(header.clone(), good.clone()), 5.0).is_ok(), "no end");
        let none = format!("{}.{}.", encode(&json!({"alg": "none"})), encode(&good));
        assert_eq!(signer.verify(&none, 5.0), Err("invalid signing method"));
        assert!(signer.verify(&signed(json!({"alg": "HS512"}), good.clone()), 5.0).is_err());
        let claims = [
            json!({"revision": 3}),
            json!({"username": "ann"}),
            json!({"username": 1, "revision": 3}),
            json!({"username": "ann", "revision": "3"}),
            json!({"username": "ann", "revision": 3, "exp": "soon"}),
            json!({"username": "ann", "revision": 3, "nbf": 6}),
            json!(["ann"]),
        ];
        for claims in claims {
            assert!(
                signer.verify(&signed(header.clone(), claims.clone()), 5.0).is_err(),
                "{claims}"
            );
        }
        let token = signed(header, good);
        for cut in 0..token.len() {
            assert!(signer.verify(&token[..cut], 5.0).is_err(), "{cut}");
        }
        for at in 0..token.len() {
            let mut broken = token.clone().into_bytes();
            broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
            let broken = String::from_utf8(broken).unwrap();
            let verdict = signer.verify(&broken, 5.0);
            // Bits of the last letter that belong to no byte must be zero.
            assert!(verdict.is_err(), "{at}");
        }
    }

    #[test]
    fn a_public_key_verifies_and_cannot_sign() {
        use aws_lc_rs::encoding::AsDer as _;
        let key = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let file = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der)).into_bytes();
        let private = file("PRIVATE KEY", key.as_der().unwrap().as_ref());
        use aws_lc_rs::signature::KeyPair as _;
        let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        let public = file("PUBLIC KEY", spki.as_ref());
        let algorithm = Algorithm::named("RS256").unwrap();
        let token = jwt("RS256", &private).sign("ann", 7, 0.0).unwrap();
        for public in [public.clone(), file("RSA PUBLIC KEY", key.public_key().as_ref())] {
            let keys = Keys::new(algorithm, None, Some(&public)).unwrap();
            let verifier = Jwt { algorithm, keys, ttl_seconds: 60.0 };
            assert!(verifier.verify(&token, 1.0).is_ok());
            let refused = verifier.sign("ann", 7, 0.0).unwrap_err();
            assert_eq!(refused, "auth: token signing attempted with verify-only key");
        }
        assert!(Keys::new(algorithm, Some(&private), Some(&public)).is_ok());
        let other = super::tests::private("RS256");
        let mismatch = Keys::new(algorithm, Some(&other), Some(&public)).err();
        assert_eq!(mismatch.unwrap(), "auth: public and private keys don't match");
        assert_eq!(Keys::new(algorithm, None, None).err().unwrap(), "auth: missing key data");
        assert!(Keys::new(algorithm, Some(b"nonsense"), None).is_err());
    }

    #[test]
    fn options_come_once_and_with_a_value() {
        assert_eq!(options("jwt,a=b,c=").unwrap(), [("a", "b"), ("c", "")]);
        for bad in ["jwt,a", "jwt,a=b=c", "jwt,a=b,a=c", "jwt,"] {
            assert_eq!(options(bad), Err(BAD_OPTIONS.to_owned()), "{bad}");
        }
        let open = |options: &[(&str, &str)]| Jwt::open(options).err().unwrap_or_default();
        assert!(open(&[]).contains("invalid auth signature method"));
        assert!(open(&[("sign-method", "none")]).contains("invalid auth signature method"));
        assert!(open(&[("sign-method", "RS256")]).contains("missing key data"));
        assert!(open(&[("sign-method", "HS256"), ("priv-key", "/none")]).contains("/none"));
        assert!(open(&[("sign-method", "HS256"), ("ttl", "soon")]).contains("ttl"));
        assert_eq!(unknown_options(&[("ttl", "1s"), ("typ", "x")]), ["typ"]);
    }

    #[test]
    fn a_verified_token_is_remembered_until_its_end() {
        let (signer, verified) = (jwt("HS256", b"secret"), Verified::default());
        let token = signer.sign("ann", 7, 1000.0).unwrap();
        assert!(verified.user(&signer, &token, 1000.0).is_ok());
        assert_eq!(verified.known.borrow().len(), 1);
        assert!(verified.user(&signer, &token, 1059.0).is_ok());
        assert_eq!(verified.user(&signer, &token, 1060.0), Err("token is expired"));
        assert!(verified.known.borrow().is_empty());
        for i in 0..=REMEMBERED as u64 {
            let token = signer.sign("ann", i, 1000.0).unwrap();
            verified.user(&signer, &token, 1000.0).unwrap();
        }
        assert!(verified.known.borrow().len() <= REMEMBERED);
    }
}
