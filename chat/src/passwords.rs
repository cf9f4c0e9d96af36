//! Passwords: Argon2id, so many at a time and no more, on threads that may compute. Each takes memory and a core for a
//! while, so who comes when too many wait is told to come again.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::BASE64URL_NOPAD;
use tokio::sync::Semaphore;

use crate::random;

/// OWASP's second choice for Argon2id: 19 MiB, two passes.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Hashes at a time: two cores' worth, 38 MiB.
const AT_A_TIME: usize = 2;
/// Who may wait for one; beyond, the wait would be longer than anybody's patience.
const WAITING_MAX: usize = 64;

/// Too many wait already.
#[derive(Debug)]
pub(crate) struct Busy;

/// Makes and checks hashes.
pub(crate) struct Passwords {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        Self { running: Arc::new(Semaphore::new(AT_A_TIME)), waiting: Semaphore::new(WAITING_MAX) }
    }

    /// What is stored of a password.
    pub(crate) async fn stored(&self, password: &str) -> Result<String, Busy> {
        let salt = random::bytes::<16>();
        let hash = self.hash(password.to_owned(), salt, MEMORY_KIB, PASSES).await?;
        Ok(format!("argon2id${MEMORY_KIB}${PASSES}${}${hash}", BASE64URL_NOPAD.encode(&salt)))
    }

    /// Whether it is this password. Without anything stored it takes as long, so that nobody can tell who has an account.
    pub(crate) async fn is_right(&self, password: &str, stored: Option<&str>) -> Result<bool, Busy> {
        let parts = stored.and_then(parts);
        let (memory, passes, salt, expected) = parts.unwrap_or((MEMORY_KIB, PASSES, [0; 16], String::new()));
        let hash = self.hash(password.to_owned(), salt, memory, passes).await?;
        // Both are hashes: how long a comparison takes tells nothing that helps to find the password.
        Ok(hash == expected)
    }

    async fn hash(&self, password: String, salt: [u8; 16], memory: u32, passes: u32) -> Result<String, Busy> {
        let _waiting = self.waiting.try_acquire().map_err(|_| Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Busy)?;
        let work = move || {
            // Held by the work itself: a client that leaves ends neither it nor its place.
            let _running = running;
            let params = Params::new(memory, passes, 1, Some(32)).ok()?;
            let mut hash = [0; 32];
            let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon.hash_password_into(password.as_bytes(), &salt, &mut hash).ok()?;
            Some(BASE64URL_NOPAD.encode(&hash))
        };
        tokio::task::spawn_blocking(work).await.ok().flatten().ok_or(Busy)
    }
}

/// Memory, passes, salt and hash of what is stored.
fn parts(stored: &str) -> Option<(u32, u32, [u8; 16], String)> {
    let parts: Vec<&str> = stored.split('$').collect();
    let ["argon2id", memory, passes, salt, hash] = parts[..] else { return None };
    let salt = BASE64URL_NOPAD.decode(salt.as_bytes()).ok()?.try_into().ok()?;
    Some((memory.parse().ok()?, passes.parse().ok()?, salt, hash.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_right_one_and_no_other() {
        let passwords = Passwords::new();
        let stored = passwords.stored("correct horse").await.unwrap();
        assert!(stored.starts_with("argon2id$19456$2$") && !stored.contains("horse"), "{stored}");
        assert!(passwords.is_right("correct horse", Some(&stored)).await.unwrap());
        for (password, stored) in [("correct hors", Some(&*stored)), ("correct horse", None), ("", Some(""))]
        {
            assert!(!passwords.is_right(password, stored).await.unwrap());
        }
    }

    #[tokio::test]
    async fn who_comes_when_too_many_wait_is_told() {
        let passwords = Passwords::new();
        let _all = passwords.waiting.acquire_many(u32::try_from(WAITING_MAX).unwrap()).await.unwrap();
        assert!(passwords.stored("correct horse").await.is_err());
    }
}
