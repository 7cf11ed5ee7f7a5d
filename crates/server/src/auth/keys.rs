//! The keys of signed tokens: from PEM files to something that signs and verifies. Not here: what is signed
//! (`jwt`).

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, ParsedPublicKey,
    RsaEncoding, RsaKeyPair, VerificationAlgorithm,
};

/// How an algorithm signs.
#[derive(Clone, Copy)]
enum Method {
    Rsa(&'static dyn RsaEncoding),
    Ec(&'static EcdsaSigningAlgorithm),
    Ed,
}

/// A way to sign, by the name that tokens give it.
#[derive(Clone, Copy)]
pub struct Algorithm(&'static Row);

struct Row {
    name: &'static str,
    kind: Kind,
}

enum Kind {
    Secret(&'static hmac::Algorithm),
    Pair(Method, &'static dyn VerificationAlgorithm),
}

const fn rsa(
    name: &'static str,
    sign: &'static dyn RsaEncoding,
    verify: &'static dyn VerificationAlgorithm,
) -> Row {
    Row { name, kind: Kind::Pair(Method::Rsa(sign), verify) }
}

const fn ec(
    name: &'static str,
    sign: &'static EcdsaSigningAlgorithm,
    verify: &'static dyn VerificationAlgorithm,
) -> Row {
    Row { name, kind: Kind::Pair(Method::Ec(sign), verify) }
}

static ALGORITHMS: [Row; 13] = [
    rsa("RS256", &signature::RSA_PKCS1_SHA256, &signature::RSA_PKCS1_2048_8192_SHA256),
    rsa("RS384", &signature::RSA_PKCS1_SHA384, &signature::RSA_PKCS1_2048_8192_SHA384),
    rsa("RS512", &signature::RSA_PKCS1_SHA512, &signature::RSA_PKCS1_2048_8192_SHA512),
    rsa("PS256", &signature::RSA_PSS_SHA256, &signature::RSA_PSS_2048_8192_SHA256),
    rsa("PS384", &signature::RSA_PSS_SHA384, &signature::RSA_PSS_2048_8192_SHA384),
    rsa("PS512", &signature::RSA_PSS_SHA512, &signature::RSA_PSS_2048_8192_SHA512),
    ec("ES256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING, &signature::ECDSA_P256_SHA256_FIXED),
    ec("ES384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING, &signature::ECDSA_P384_SHA384_FIXED),
    ec("ES512", &signature::ECDSA_P521_SHA512_FIXED_SIGNING, &signature::ECDSA_P521_SHA512_FIXED),
    Row { name: "EdDSA", kind: Kind::Pair(Method::Ed, &signature::ED25519) },
    Row { name: "HS256", kind: Kind::Secret(&hmac::HMAC_SHA256) },
    Row { name: "HS384", kind: Kind::Secret(&hmac::HMAC_SHA384) },
    Row { name: "HS512", kind: Kind::Secret(&hmac::HMAC_SHA512) },
];

impl Algorithm {
    /// The one with this name. `none` is not one of them.
    pub fn named(name: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|row| row.name == name).map(Self)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name
    }
}

enum Private {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// What a member signs and verifies with.
pub enum Keys {
    /// One secret for both.
    Secret(Box<hmac::Key>),
    /// A pair; without the private half it can only verify.
    Pair(Option<Box<Signer>>, ParsedPublicKey),
}

/// A private key.
pub struct Signer(Private);

const MISSING: &str = "auth: missing key data";
const MISMATCH: &str = "auth: public and private keys don't match";
const VERIFY_ONLY: &str = "auth: token signing attempted with verify-only key";

impl Keys {
    /// From the files' contents.
    pub fn new(
        algorithm: Algorithm,
        private: Option<&[u8]>,
        public: Option<&[u8]>,
    ) -> Result<Self, String> {
        let filled = |file: Option<&[u8]>| file.is_some_and(|bytes| !bytes.is_empty());
        let (method, verify) = match &algorithm.0.kind {
            Kind::Secret(hash) => {
                let secret = private.filter(|_| filled(private)).ok_or(MISSING)?;
                return Ok(Self::Secret(Box::new(hmac::Key::new(**hash, secret))));
            }
            Kind::Pair(method, verify) => (*method, *verify),
        };
        let given = public
            .filter(|_| filled(public))
            .map(|file| parse_public(method, verify, file))
            .transpose()?;
        let Some(private) = private.filter(|_| filled(private)) else {
            return Ok(Self::Pair(None, given.ok_or(MISSING)?));
        };
        let signer = Signer::parse(method, private)?;
        let own = ParsedPublicKey::new(verify, signer.public_key())
            .map_err(|e| format!("the private key is of no use: {e}"))?;
        if given.is_some_and(|given| !same(&given, &own)) {
            return Err(MISMATCH.to_owned());
        }
        Ok(Self::Pair(Some(Box::new(signer)), own))
    }

    /// A signature of the message.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Secret(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Pair(Some(signer), _) => signer.sign(message),
            Self::Pair(None, _) => Err(VERIFY_ONLY.to_owned()),
        }
    }

    /// Whether this is a signature of the message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            // Compared in constant time, as its library says.
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Pair(_, public) => public.verify_sig(message, signature).is_ok(),
        }
    }
}

impl Signer {
    fn parse(method: Method, file: &[u8]) -> Result<Self, String> {
        let pem = pem::parse(file).map_err(|e| format!("the private key's file: {e}"))?;
        let der = pem.contents();
        let refused = |e: aws_lc_rs::error::KeyRejected| format!("the private key is refused: {e}");
        let private = match method {
            Method::Rsa(encoding) => {
                let key = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
                Private::Rsa(key.map_err(refused)?, encoding)
            }
            Method::Ec(algorithm) => {
                Private::Ec(EcdsaKeyPair::from_private_key_der(algorithm, der).map_err(refused)?)
            }
            Method::Ed => Private::Ed(Ed25519KeyPair::from_pkcs8(der).map_err(refused)?),
        };
        Ok(Self(private))
    }

    fn public_key(&self) -> &[u8] {
        match &self.0 {
            Private::Rsa(key, _) => key.public_key().as_ref(),
            Private::Ec(key) => key.public_key().as_ref(),
            Private::Ed(key) => key.public_key().as_ref(),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let random = SystemRandom::new();
        match &self.0 {
            Private::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, message, &mut signature).map_err(|e| e.to_string())?;
                Ok(signature)
            }
            Private::Ec(key) => {
                let signature = key.sign(&random, message).map_err(|e| e.to_string())?;
                Ok(signature.as_ref().to_vec())
            }
            Private::Ed(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}

/// A public key as it is, or in a certificate; of an Ed25519 key etcd takes no certificate.
fn parse_public(
    method: Method,
    verify: &'static dyn VerificationAlgorithm,
    file: &[u8],
) -> Result<ParsedPublicKey, String> {
    let pem = pem::parse(file).map_err(|e| format!("the public key's file: {e}"))?;
    let key = if pem.tag() == "CERTIFICATE" && !matches!(method, Method::Ed) {
        etch_tls::public_key(pem.contents()).map_err(|e| format!("the public key's file: {e}"))?
    } else {
        pem.contents().to_vec()
    };
    ParsedPublicKey::new(verify, &key).map_err(|e| format!("the public key is refused: {e}"))
}

fn same(a: &ParsedPublicKey, b: &ParsedPublicKey) -> bool {
    let der = |key: &ParsedPublicKey| {
        AsDer::<PublicKeyX509Der<'static>>::as_der(key).ok().map(|der| der.as_ref().to_vec())
    };
    der(a).is_some() && der(a) == der(b)
}
