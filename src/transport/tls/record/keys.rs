//! The keys of one direction, as they lie in memory, and how they follow each other.
//!
//! Owns the schedule behind the handshake (RFC 8446, 7.2 and 7.3) and the making of nonces. Driven by sealing and opening.
//! Keeps no expanded key: that is made when it is used.

use std::fmt;

use aws_lc_rs::aead::{self, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{self, KeyType, Prk};
use rustls::ConnectionTrafficSecrets;
use zeroize::{Zeroize as _, Zeroizing};

use super::fault::Fault;

/// The longest hash of a suite.
pub(super) const SECRET_BYTES_MAX: usize = 48;

/// The longest key of a suite.
const KEY_BYTES_MAX: usize = 32;

/// Bytes of a tag, whichever suite.
pub(super) const TAG_BYTES: usize = 16;

/// The cipher suites of TLS 1.3 that rustls has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Suite {
    /// TLS_AES_128_GCM_SHA256
    #[default]
    Aes128Gcm,
    /// TLS_AES_256_GCM_SHA384
    Aes256Gcm,
    /// TLS_CHACHA20_POLY1305_SHA256
    ChaCha20Poly1305,
}

impl Suite {
    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Self::Aes256Gcm => hkdf::HKDF_SHA384,
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => hkdf::HKDF_SHA256,
        }
    }

    /// Bytes of a traffic secret: of the suite's hash.
    pub(super) fn secret_bytes(self) -> usize {
        self.hkdf().len()
    }
}

/// Plain data of a fixed size. Fields are longer than shorter suites need; the rest is zero.
pub(super) struct Keys {
    secret: [u8; SECRET_BYTES_MAX],
    key: [u8; KEY_BYTES_MAX],
    iv: [u8; NONCE_LEN],
}

impl Default for Keys {
    fn default() -> Self {
        Self { secret: [0; SECRET_BYTES_MAX], key: [0; KEY_BYTES_MAX], iv: [0; NONCE_LEN] }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.key.zeroize();
        self.iv.zeroize();
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// Copies what rustls gives out to where it stays. `secret` is the traffic secret that the keys were made of.
    ///
    /// `None`: that is not so, or it is a suite that has come since. They would go on until the first KeyUpdate and fail
    /// then.
    pub(super) fn fill(&mut self, extracted: &ConnectionTrafficSecrets, secret: &[u8]) -> Option<Suite> {
        let (suite, key, iv) = match extracted {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::ChaCha20Poly1305, key, iv),
            _ => return None,
        };
        copy(&mut self.secret, secret.get(..suite.secret_bytes()).filter(|all| all.len() == secret.len())?)?;
        copy(&mut self.key, key.as_ref())?;
        copy(&mut self.iv, iv.as_ref())?;
        let mut made = Zeroizing::new([0; NONCE_LEN]);
        self.expand(suite, b"iv", &mut *made).ok()?;
        (*made == self.iv).then_some(suite)
    }

    /// The key as the cipher wants it. Costs a hundred nanoseconds with AES, a tenth of that with ChaCha20.
    pub(super) fn expanded(&self, suite: Suite) -> Result<LessSafeKey, Fault> {
        let algorithm = suite.aead();
        let key = self.key.get(..algorithm.key_len()).ok_or(Fault::Internal)?;
        UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| Fault::Internal)
    }

    /// RFC 8446, 5.3: the sequence number, padded to the left, over the IV.
    pub(super) fn nonce(&self, sequence: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, of) in nonce.iter_mut().skip(NONCE_LEN - size_of::<u64>()).zip(sequence.to_be_bytes()) {
            *byte ^= of;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// RFC 8446, 7.2: the next generation of the secret, and key and IV out of it (7.3). The last one is gone.
    pub(super) fn update(&mut self, suite: Suite) -> Result<(), Fault> {
        let mut next = Zeroizing::new([0; SECRET_BYTES_MAX]);
        let secret = next.get_mut(..suite.secret_bytes()).ok_or(Fault::Internal)?;
        self.expand(suite, b"traffic upd", secret)?;
        self.secret.copy_from_slice(&*next);
        let mut key = Zeroizing::new([0; KEY_BYTES_MAX]);
        let part = key.get_mut(..suite.aead().key_len()).ok_or(Fault::Internal)?;
        self.expand(suite, b"key", part)?;
        self.key.copy_from_slice(&*key);
        let mut iv = Zeroizing::new([0; NONCE_LEN]);
        self.expand(suite, b"iv", &mut *iv)?;
        self.iv = *iv;
        Ok(())
    }

    /// HKDF-Expand-Label(secret, label, "", length) of RFC 8446, 7.1.
    fn expand(&self, suite: Suite, label: &[u8], out: &mut [u8]) -> Result<(), Fault> {
        let secret = self.secret.get(..suite.secret_bytes()).ok_or(Fault::Internal)?;
        let length = (out.len() as u16).to_be_bytes();
        let label_length = [(LABEL_PREFIX.len() + label.len()) as u8];
        let info = [&length[..], &label_length, LABEL_PREFIX, label, &[0]];
        Prk::new_less_safe(suite.hkdf(), secret)
            .expand(&info, Length(out.len()))
            .and_then(|made| made.fill(out))
            .map_err(|_| Fault::Internal)
    }
}

const LABEL_PREFIX: &[u8] = b"tls13 ";

/// How much to make.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Copies to the front. `None`: it is longer than there is room.
fn copy(to: &mut [u8], from: &[u8]) -> Option<()> {
    to.get_mut(..from.len())?.copy_from_slice(from);
    Some(())
}

#[cfg(test)]
impl Keys {
    /// What tells one key from another.
    pub(super) fn key_for_tests(&self) -> &[u8] {
        &self.key
    }
}
