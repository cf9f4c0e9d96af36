//! What signatures are checked with: aws-lc-rs, which TLS brings anyway.
//!
//! A [`Verifier`] is a key made ready for one algorithm, as keys are read and never by a loop. Tried on tokens of the RFCs before
//! the first key is taken. Pure computation.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::signatures::{Digest, Signatures};
use super::{Parts, decoded};

/// A key for one algorithm. A token cannot make another use of it.
pub(super) struct Verifier {
    pub(super) algorithm: Algorithm,
    key: Ready,
}

enum Ready {
    Secret(Box<hmac::Key>),
    /// `name` is a digest of the algorithm and the key: equal for no two.
    Public {
        key: ParsedPublicKey,
        name: Digest,
    },
}

/// A public key as it is read.
#[derive(Clone, Copy)]
pub(super) enum PublicKey<'a> {
    /// Modulus and exponent, without leading zeroes.
    Rsa { n: &'a [u8], e: &'a [u8] },
    /// An uncompressed point (SEC 1, 2.3.3) of the curve of its algorithm.
    Point(&'a [u8]),
    /// RFC 8032, 5.1.5.
    Ed25519(&'a [u8]),
}

impl Verifier {
    /// With a secret, for HS256, HS384 or HS512; nothing for another algorithm.
    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Option<Self> {
        let hash = match algorithm {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            _ => return None,
        };
        Some(Self { algorithm, key: Ready::Secret(Box::new(hmac::Key::new(hash, secret))) })
    }

    /// With a public key; nothing if it is none, or one of another kind than the algorithm's.
    pub(super) fn public(algorithm: Algorithm, key: PublicKey<'_>) -> Option<Self> {
        let key = match key {
            PublicKey::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.to_parsed_public_key(rsa_parameters(algorithm)?)
            }
            PublicKey::Point(bytes) => {
                let curve: &'static dyn VerificationAlgorithm = match algorithm {
                    Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
                    Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED,
                    _ => return None,
                };
                ParsedPublicKey::new(curve, bytes)
            }
            PublicKey::Ed25519(bytes) if algorithm == Algorithm::EdDSA => {
                ParsedPublicKey::new(&ED25519, bytes)
            }
            PublicKey::Ed25519(_) => return None,
        };
        let key = key.ok()?;
        let mut name = Context::new(&SHA256);
        name.update(format!("{algorithm:?} ").as_bytes());
        name.update(key.as_ref());
        let name = name.finish().as_ref().try_into().ok()?;
        Some(Self { algorithm, key: Ready::Public { key, name } })
    }

    /// Whether this is the signature of a token: computed, or of a public key remembered.
    pub(super) fn verifies(&self, parts: &Parts<'_>, signature: &[u8], signatures: &mut Signatures) -> bool {
        let message = parts.message.as_bytes();
        match &self.key {
            // In constant time.
            Ready::Secret(secret) => hmac::verify(secret, message, signature).is_ok(),
            Ready::Public { key, name } => {
                signatures.is_right(name, parts.token, || key.verify_sig(message, signature).is_ok())
            }
        }
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// One token of the RFCs, with its key.
struct Known {
    algorithm: Algorithm,
    key: &'static [&'static str],
    token: &'static str,
}

/// A token of each kind of key but RSA, whose modulus is as long as all of these together.
const KNOWN: [Known; 3] = [
    // RFC 7515, A.1.
    Known {
        algorithm: Algorithm::HS256,
        key: &["AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"],
        token: "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    },
    // RFC 7515, A.3.
    Known {
        algorithm: Algorithm::ES256,
        key: &["f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"],
        token: "eyJhbGciOiJFUzI1NiJ9.\
                eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    },
    // RFC 8037, A.4.
    Known {
        algorithm: Algorithm::EdDSA,
        key: &["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"],
        token: "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
                hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    },
];

impl Known {
    fn verifier(&self) -> Option<Verifier> {
        let parts = self.key.iter().map(|part| decoded(part).ok()).collect::<Option<Vec<_>>>()?;
        match self.algorithm.family() {
            AlgorithmFamily::Hmac => Verifier::secret(self.algorithm, &parts.concat()),
            AlgorithmFamily::Ec => {
                Verifier::public(self.algorithm, PublicKey::Point(&[&[4][..], &parts.concat()].concat()))
            }
            _ => Verifier::public(self.algorithm, PublicKey::Ed25519(&parts.concat())),
        }
    }

    /// Whether its key takes it, and not what it is with another end of its claims.
    fn holds(&self) -> Option<bool> {
        let verifier = self.verifier()?;
        let parts = Parts::of(self.token).ok()?;
        let signature = decoded(parts.signature).ok()?;
        let other = Parts { message: parts.message.get(..parts.message.len() - 1)?, ..parts };
        let verifies = |parts| verifier.verifies(parts, &signature, &mut Signatures::default());
        Some(verifies(&parts) && !verifies(&other))
    }
}

/// Tries what this build computes.
///
/// # Errors
/// It is not what the RFCs say.
pub(super) fn try_it() -> Result<(), &'static str> {
    match KNOWN.iter().all(|known| known.holds() == Some(true)) {
        true => Ok(()),
        false => Err("the cryptography of this build does not check tokens as the RFCs do"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_of_the_rfcs_are_right() {
        assert_eq!(try_it(), Ok(()));
    }

    #[test]
    fn a_key_of_one_kind_is_none_of_another() {
        let points = [4; 65];
        let (point, number) = (PublicKey::Point(&points), PublicKey::Ed25519(&points[..32]));
        let rsa = PublicKey::Rsa { n: &[0xff; 256], e: &[1, 0, 1] };
        for (algorithm, key) in [
            (Algorithm::HS256, point),
            (Algorithm::HS256, rsa),
            (Algorithm::HS256, number),
            (Algorithm::ES256, rsa),
            (Algorithm::ES256, number),
            (Algorithm::RS256, point),
            (Algorithm::EdDSA, point),
            (Algorithm::EdDSA, rsa),
        ] {
            assert!(Verifier::public(algorithm, key).is_none(), "{algorithm:?}");
        }
        assert!(Verifier::public(Algorithm::PS384, rsa).is_some());
        for algorithm in [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA] {
            assert!(Verifier::secret(algorithm, &points).is_none(), "{algorithm:?}");
        }
        let of_p256 = KNOWN[1].key.iter().map(|part| decoded(part).unwrap()).collect::<Vec<_>>().concat();
        let of_p256 = [&[4][..], &of_p256].concat();
        assert!(Verifier::public(Algorithm::ES256, PublicKey::Point(&of_p256)).is_some());
        assert!(Verifier::public(Algorithm::ES384, PublicKey::Point(&of_p256)).is_none());
    }

    #[test]
    fn no_two_keys_and_algorithms_have_one_name() {
        let name = |algorithm, key| match Verifier::public(algorithm, key).unwrap().key {
            Ready::Public { name, .. } => name,
            Ready::Secret(_) => unreachable!("a public key"),
        };
        let other = [&[0xff; 255][..], &[0xfd]].concat();
        let names = [
            name(Algorithm::RS256, PublicKey::Rsa { n: &[0xff; 256], e: &[3] }),
            name(Algorithm::RS256, PublicKey::Rsa { n: &[0xff; 256], e: &[5] }),
            name(Algorithm::RS512, PublicKey::Rsa { n: &[0xff; 256], e: &[3] }),
            name(Algorithm::PS256, PublicKey::Rsa { n: &[0xff; 256], e: &[3] }),
            name(Algorithm::RS256, PublicKey::Rsa { n: &other, e: &[3] }),
        ];
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        assert_eq!(names[0], name(Algorithm::RS256, PublicKey::Rsa { n: &[0xff; 256], e: &[3] }));
    }
}
