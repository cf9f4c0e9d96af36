//! What signatures are made and checked with: aws-lc-rs, which TLS brings anyway, behind the interface of `jsonwebtoken`.
//!
//! Chosen once for the process and tried on tokens of the RFCs before the first key is taken. Pure computation.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};

static PROVIDER: CryptoProvider = CryptoProvider { signer_factory, verifier_factory, key_utils: KEY_UTILS };

/// Conversions of private keys, which nothing here has: they fail where those of the crate would panic.
const KEY_UTILS: KeyUtils = KeyUtils {
    rsa_pub_components_from_private_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
    rsa_pub_components_from_public_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
    ec_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    ed_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    compute_digest: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
};

/// One token of the RFCs: algorithm, key, what is signed, the signature.
struct Known {
    algorithm: Algorithm,
    key: fn() -> Result<DecodingKey>,
    signed: &'static str,
    signature: &'static str,
}

/// A token of each kind of key but RSA, whose modulus is as long as all of these together.
const KNOWN: [Known; 3] = [
    // RFC 7515, A.1.
    Known {
        algorithm: Algorithm::HS256,
        key: || {
            let secret =
                "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
            let bytes = data_encoding::BASE64URL_NOPAD.decode(secret.as_bytes());
            DecodingKey::from_secret(&bytes.map_err(|_| ErrorKind::InvalidKeyFormat)?)
        },
        signed: "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
        signature: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    },
    // RFC 7515, A.3.
    Known {
        algorithm: Algorithm::ES256,
        key: || {
            DecodingKey::from_ec_components(
                "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            )
        },
        signed: "eyJhbGciOiJFUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
        signature: "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    },
    // RFC 8037, A.4.
    Known {
        algorithm: Algorithm::EdDSA,
        key: || DecodingKey::from_ed_components("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"),
        signed: "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
        signature: "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    },
];

/// Chooses aws-lc-rs for the process, and tries it: without a choice the crate panics at the first token.
///
/// # Errors
/// It does not compute what the RFCs say, or something else in the process was faster to choose.
pub(super) fn install() -> std::result::Result<(), &'static str> {
    // Refused from the second time on.
    let _ = PROVIDER.install_default();
    if !CryptoProvider::try_get_default().is_some_and(|chosen| std::ptr::eq(chosen, &PROVIDER)) {
        return Err("another cryptography was chosen for tokens in this process");
    }
    for known in &KNOWN {
        let check = |signed: &[u8]| {
            let key = (known.key)().ok()?;
            jsonwebtoken::crypto::verify(known.signature, signed, &key, known.algorithm).ok()
        };
        let mut other = known.signed.as_bytes().to_vec();
        other.push(b'x');
        if check(known.signed.as_bytes()) != Some(true) || check(&other) != Some(false) {
            return Err("the cryptography of this build does not check tokens as the RFCs do");
        }
    }
    Ok(())
}

fn hash(algorithm: Algorithm) -> Result<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Ok(hmac::HMAC_SHA256),
        Algorithm::HS384 => Ok(hmac::HMAC_SHA384),
        Algorithm::HS512 => Ok(hmac::HMAC_SHA512),
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    }
}

/// Signs with secrets; whoever has a private key signs elsewhere.
fn signer_factory(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    if key.family() != AlgorithmFamily::Hmac {
        return Err(ErrorKind::UnsupportedAlgorithm.into());
    }
    let secret = hmac::Key::new(hash(*algorithm)?, key.as_bytes());
    Ok(Box::new(Hmac { algorithm: *algorithm, secret }))
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    // A public key must never be the secret of an HMAC, nor the other way round.
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    if key.family() == AlgorithmFamily::Hmac {
        let secret = hmac::Key::new(hash(*algorithm)?, key.try_get_as_bytes()?);
        return Ok(Box::new(Hmac { algorithm: *algorithm, secret }));
    }
    Ok(Box::new(PublicKey { algorithm: *algorithm, key: key.clone() }))
}

struct Hmac {
    algorithm: Algorithm,
    secret: hmac::Key,
}

impl Signer<Vec<u8>> for Hmac {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, SignatureError> {
        Ok(hmac::sign(&self.secret, message).as_ref().to_vec())
    }
}

impl JwtSigner for Hmac {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Hmac {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), SignatureError> {
        // In constant time.
        hmac::verify(&self.secret, message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for Hmac {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

struct PublicKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl PublicKey {
    fn with(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> std::result::Result<(), SignatureError> {
        let bytes = self.key.try_get_as_bytes().map_err(|_| SignatureError::new())?;
        UnparsedPublicKey::new(algorithm, bytes).verify(message, signature).map_err(|_| SignatureError::new())
    }

    fn rsa(
        &self,
        parameters: &'static RsaParameters,
        message: &[u8],
        signature: &[u8],
    ) -> std::result::Result<(), SignatureError> {
        let DecodingKeyKind::RsaModulusExponent { n, e } = self.key.kind() else {
            return self.with(parameters, message, signature);
        };
        RsaPublicKeyComponents { n, e }
            .verify(parameters, message, signature)
            .map_err(|_| SignatureError::new())
    }
}

impl Verifier<Vec<u8>> for PublicKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), SignatureError> {
        match self.algorithm {
            Algorithm::ES256 => self.with(&ECDSA_P256_SHA256_FIXED, message, signature),
            Algorithm::ES384 => self.with(&ECDSA_P384_SHA384_FIXED, message, signature),
            Algorithm::EdDSA => self.with(&ED25519, message, signature),
            Algorithm::RS256 => self.rsa(&RSA_PKCS1_2048_8192_SHA256, message, signature),
            Algorithm::RS384 => self.rsa(&RSA_PKCS1_2048_8192_SHA384, message, signature),
            Algorithm::RS512 => self.rsa(&RSA_PKCS1_2048_8192_SHA512, message, signature),
            Algorithm::PS256 => self.rsa(&RSA_PSS_2048_8192_SHA256, message, signature),
            Algorithm::PS384 => self.rsa(&RSA_PSS_2048_8192_SHA384, message, signature),
            Algorithm::PS512 => self.rsa(&RSA_PSS_2048_8192_SHA512, message, signature),
            _ => Err(SignatureError::new()),
        }
    }
}

impl JwtVerifier for PublicKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_of_the_rfcs_are_right_again_and_again() {
        assert_eq!(install(), Ok(()));
        assert_eq!(install(), Ok(()));
    }

    #[test]
    fn a_key_of_one_kind_is_none_of_another() {
        let ec = (KNOWN[1].key)().unwrap();
        let secret = (KNOWN[0].key)().unwrap();
        for (algorithm, key) in
            [(Algorithm::HS256, &ec), (Algorithm::ES256, &secret), (Algorithm::RS256, &ec)]
        {
            assert!(verifier_factory(&algorithm, key).is_err(), "{algorithm:?}");
        }
        let of_other_curve = verifier_factory(&Algorithm::ES384, &ec).unwrap();
        assert!(of_other_curve.verify(b"x", &vec![0; 96]).is_err());
    }
}
