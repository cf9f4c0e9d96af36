//! Signatures with public keys that were found right lately, so that whoever comes back with a token has it computed once.
//!
//! Each loop has its own. To check a signature is a pure function, and its answer is kept by a digest of all that goes into
//! it: the algorithm, the key and every byte of the token. So there is nothing to forget when keys change: who asks has the
//! key that it may be signed with now. Times, audience and revocation are looked at with each token. What is wrong is not kept, so that
//! nobody takes room who has no token.

use aws_lc_rs::digest::{Context, SHA256};

/// Of SHA-256: no two things are found that have the same.
pub(super) type Digest = [u8; 32];

/// Where there is none: nobody finds what has this digest.
const NONE: Digest = [0; 32];

/// What is known of signatures, and what came of asking.
#[derive(Debug, Default)]
pub struct Signatures {
    /// Those that were right, each where its first bytes say; one takes the place of another.
    right: Vec<Digest>,
    room: usize,
    asked: Asked,
}

/// How signatures were checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Computed, right or not.
    pub computed: u64,
    /// Known to be right.
    pub known: u64,
}

impl Signatures {
    /// Keeps so many from now on, 32 bytes each once there is one; none of those before if that is another number.
    pub fn set_room(&mut self, room: usize) {
        if self.room != room {
            self.room = room;
            self.right = Vec::new();
        }
    }

    /// What came of asking since this was last called.
    pub fn take_asked(&mut self) -> Asked {
        std::mem::take(&mut self.asked)
    }

    /// Whether the signature of a token is that of the key of this name, which `compute` finds out if it is not known.
    pub(super) fn is_right(&mut self, name: &Digest, token: &str, compute: impl FnOnce() -> bool) -> bool {
        if self.room == 0 {
            self.asked.computed += 1;
            return compute();
        }
        let digest = digest(name, token);
        if self.place(&digest).is_some_and(|kept| *kept == digest) {
            self.asked.known += 1;
            return true;
        }
        self.asked.computed += 1;
        let is_right = compute();
        if is_right {
            if self.right.is_empty() {
                self.right = vec![NONE; self.room];
            }
            if let Some(place) = self.place(&digest) {
                *place = digest;
            }
        }
        is_right
    }

    fn place(&mut self, digest: &Digest) -> Option<&mut Digest> {
        let number = digest.first_chunk().copied().map_or(0, u64::from_le_bytes);
        let place = number.checked_rem(self.right.len() as u64)?;
        self.right.get_mut(place as usize)
    }
}

/// Of a key's name and a token. The name is of one length, so that no part of it can pass for one of the token.
fn digest(name: &Digest, token: &str) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(name);
    context.update(token.as_bytes());
    context.finish().as_ref().try_into().unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(room: usize) -> Signatures {
        let mut signatures = Signatures::default();
        signatures.set_room(room);
        signatures
    }

    #[test]
    fn what_was_right_is_not_computed_again_and_what_was_wrong_is() {
        let mut signatures = of(64);
        let (key, other) = ([1; 32], [2; 32]);
        assert!(!signatures.is_right(&key, "a.b.c", || false), "wrong");
        assert!(signatures.right.is_empty(), "nobody has taken room");
        assert!(signatures.is_right(&key, "a.b.c", || true));
        assert!(signatures.is_right(&key, "a.b.c", || unreachable!("it is known")));
        assert_eq!(signatures.take_asked(), Asked { computed: 2, known: 1 });
        // Neither by another key nor with another byte.
        for (key, token) in [(other, "a.b.c"), (key, "a.b.d"), (key, "a.b.c "), (key, "a.b"), (key, "")] {
            assert!(!signatures.is_right(&key, token, || false), "{token:?}");
        }
        assert_eq!(signatures.take_asked(), Asked { computed: 5, known: 0 });
    }

    #[test]
    fn it_has_so_much_room_and_no_more() {
        let mut signatures = of(8);
        let tokens: Vec<String> = (0..100).map(|number| format!("a.{number}.c")).collect();
        for token in &tokens {
            assert!(signatures.is_right(&[1; 32], token, || true));
        }
        assert_eq!((signatures.right.len(), signatures.right.capacity()), (8, 8));
        signatures.take_asked();
        // The last is there, and of all the others at most as many as there is room for.
        assert!(signatures.is_right(&[1; 32], &tokens[99], || unreachable!("it came last")));
        let known = tokens.iter().filter(|token| signatures.is_right(&[1; 32], token, || false)).count();
        assert!((1..=8).contains(&known), "{known}");
        signatures.set_room(0);
        assert!(signatures.right.capacity() == 0 && !signatures.is_right(&[1; 32], &tokens[99], || false));
    }
}
