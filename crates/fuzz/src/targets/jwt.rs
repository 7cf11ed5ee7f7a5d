//! Signed tokens: whatever a caller sends as one, claims of any content that are signed all the same, and files of
//! keys. Not here: what a token's user may do (`auth`).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use etch_server::auth::jwt::{self, Jwt, Verified};

use crate::Target;

/// The first byte says what the rest is: a token, the claims of a signed one behind its header, or a file of keys.
pub const TARGET: Target = Target { name: "jwt", run, seeds, memory: 16 << 20 };

const SECRET: &[u8] = b"a secret that is long enough";
/// The time at which tokens are looked at.
const NOW: f64 = 1000.0;
const METHODS: [&str; 6] = ["HS256", "RS256", "PS512", "ES256", "ES512", "EdDSA"];

fn signer() -> Jwt {
    Jwt::new("HS256", Some(SECRET), None, 60.0).expect("a secret is a key")
}

fn sign(signed: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    format!("{signed}.{}", BASE64.encode(hmac::sign(&key, signed.as_bytes())))
}

fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 3 {
        0 => {
            let Ok(token) = std::str::from_utf8(rest) else { return };
            let _ = jwt::options(token);
            let good = signer().sign("ann", 7, NOW).expect("it has its secret");
            let verdict = Verified::default().user(&signer(), token, NOW);
            assert!(verdict.is_err() || token == good, "a token that nobody signed is taken");
        }
        1 => {
            let (header, claims) = match rest.iter().position(|byte| *byte == 0) {
                Some(at) => (&rest[..at], &rest[at + 1..]),
                None => (&br#"{"alg":"HS256"}"#[..], rest),
            };
            let token = sign(&format!("{}.{}", BASE64.encode(header), BASE64.encode(claims)));
            let verified = Verified::default();
            let first = verified.user(&signer(), &token, NOW);
            assert_eq!(verified.user(&signer(), &token, NOW), first, "asked twice");
        }
        _ => {
            let method = METHODS[usize::from(kind / 3) % METHODS.len()];
            for (private, public) in
                [(Some(rest), None), (None, Some(rest)), (Some(rest), Some(rest))]
            {
                if let Ok(keys) = Jwt::new(method, private, public, 60.0)
                    && let Ok(token) = keys.sign("ann", 7, NOW)
                {
                    let user = Verified::default().user(&keys, &token, NOW);
                    assert_eq!(user.map(|user| user.revision), Ok(7), "{method}: its own token");
                }
            }
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let good = signer().sign("ann", 7, NOW).expect("it has its secret");
    let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode("{}"));
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    vec![
        [b"\0", good.as_bytes()].concat(),
        [b"\0", none.as_bytes()].concat(),
        b"\0jwt,sign-method=HS256,ttl=5m".to_vec(),
        b"\x01{\"username\":\"ann\",\"revision\":3,\"exp\":2000}".to_vec(),
        b"\x01{\"alg\":\"HS256\",\"typ\":\"JWT\"}\0{\"username\":\"ann\",\"revision\":-1e300,\"nbf\":null}".to_vec(),
        [b"\x02", SECRET].concat(),
        [&[2 + 3 * 5], pem.as_bytes()].concat(),
    ]
}
