//! Public keys as cosign and openssl write them: a SubjectPublicKeyInfo in PEM.
//!
//! Spec: RFC 5280 section 4.1, RFC 5480, RFC 8410, RFC 8017

use base64::Engine as _;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use super::TrustError;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

// object identifiers, as they are encoded
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

// DER tags
const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BIT_STRING: u8 = 0x03;

/// A key that signatures are verified by.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({:?})", self.algorithm)
    }
}

impl PublicKey {
    /// Reads the one key of a PEM text; `name` is where it is from.
    ///
    /// # Errors
    /// If it is not a key of a known kind.
    pub fn from_pem(name: &str, pem: &[u8]) -> Result<Self, TrustError> {
        let wrong = || TrustError::Key {
            name: name.to_owned(),
        };
        let text = std::str::from_utf8(pem).map_err(|_| wrong())?;
        let (_, after) = text.split_once(BEGIN).ok_or_else(wrong)?;
        let (body, rest) = after.split_once(END).ok_or_else(wrong)?;
        if rest.contains(BEGIN) {
            return Err(wrong());
        }
        let body: String = body.split_ascii_whitespace().collect();
        let der = base64::engine::general_purpose::STANDARD.decode(body);
        Self::from_der(&der.map_err(|_| wrong())?).ok_or_else(wrong)
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        let (info, []) = element(der, SEQUENCE)? else {
            return None;
        };
        let (kind, key) = element(info, SEQUENCE)?;
        let (key, []) = element(key, BIT_STRING)? else {
            return None;
        };
        // no bits are left over in the last byte
        let bytes = key.strip_prefix(&[0])?;
        let (object, parameters) = element(kind, OBJECT_IDENTIFIER)?;
        let algorithm: &'static dyn VerificationAlgorithm = match object {
            EC => match element(parameters, OBJECT_IDENTIFIER)?.0 {
                P256 => &signature::ECDSA_P256_SHA256_ASN1,
                P384 => &signature::ECDSA_P384_SHA256_ASN1,
                _ => return None,
            },
            RSA => &signature::RSA_PKCS1_2048_8192_SHA256,
            ED25519 => &signature::ED25519,
            _ => return None,
        };
        Some(Self {
            algorithm,
            bytes: bytes.to_vec(),
        })
    }

    /// Whether `signature` over `message` is by this key.
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(self.algorithm, &self.bytes);
        key.verify(message, signature).is_ok()
    }
}

/// The content of one DER element with the given tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
pub(super) mod tests {
    use base64::engine::general_purpose::STANDARD;
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    };

    use super::*;

    /// What precedes the point of a P-256 key.
    const P256_HEAD: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";

    fn pem(head: &[u8], key: &[u8]) -> String {
        let body = STANDARD.encode([head, key].concat());
        format!("{BEGIN}\n{body}\n{END}\n")
    }

    /// A new key, and its public part in PEM.
    pub(crate) fn new_key() -> (EcdsaKeyPair, String) {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let head = STANDARD.decode(P256_HEAD).unwrap();
        // the last byte of the head is the first one of the point
        let pem = pem(&head[..head.len() - 1], pair.public_key().as_ref());
        (pair, pem)
    }

    #[test]
    fn signatures_count_for_their_key_and_message_only() {
        let (pair, pem_text) = new_key();
        let key = PublicKey::from_pem("key", pem_text.as_bytes()).unwrap();
        let signature = pair.sign(&SystemRandom::new(), b"message").unwrap();
        assert!(key.has_signed(b"message", signature.as_ref()));
        assert!(!key.has_signed(b"massage", signature.as_ref()));
        assert!(!key.has_signed(b"message", b""));
        let other = PublicKey::from_pem("other", new_key().1.as_bytes()).unwrap();
        assert!(!other.has_signed(b"message", signature.as_ref()));

        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let head = [
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        let text = pem(&head, pair.public_key().as_ref());
        let key = PublicKey::from_pem("key", text.as_bytes()).unwrap();
        assert!(key.has_signed(b"message", pair.sign(b"message").as_ref()));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (_, good) = new_key();
        let twice = format!("{good}{good}");
        let cut = good.replace("\n-----END", "AAAA\n-----END");
        let private = good.replace("PUBLIC", "PRIVATE");
        for text in ["", "x", &twice, &cut, &private, &good[..60]] {
            assert!(
                PublicKey::from_pem("key", text.as_bytes()).is_err(),
                "{text}"
            );
        }
        for der in [
            &[][..],
            &[0x30],
            &[0x30, 0x84, 1, 1, 1, 1],
            &[0x30, 0x82, 0xff, 0xff],
        ] {
            assert!(PublicKey::from_der(der).is_none());
        }
    }
}
