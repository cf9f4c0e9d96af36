//! The C allocator, which is Rust's default one, so that [`trim`] acts on every allocation of the process. Driven by
//! the maintenance thread.

/// Gives free memory at the heap's top and whole free pages inside it back to the kernel.
///
/// It takes every arena's lock in turn and may run for milliseconds: the maintenance thread's work, never a
/// loop's. Returns whether anything went back. Without glibc there is nothing to do.
pub fn trim() -> bool {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes no pointer, may be called from any thread and locks what it walks.
        unsafe { libc::malloc_trim(0) == 1 }
    }
    #[cfg(not(target_env = "gnu"))]
    {
        false
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn freed_pages_go_back() {
        crate::sys::tests::alone("sys::memory::tests::freed_pages_go_back", || {
            let rss = || crate::sys::process::memory(None).unwrap().user_bytes();
            let before = rss();
            // Small blocks come from the heap; one survivor at its end keeps free() from trimming by itself.
            let blocks: Vec<Vec<u8>> = (0..16_384).map(|_| vec![1_u8; 2048]).collect();
            let survivor = vec![1_u8; 2048];
            let peak = rss();
            assert!(peak >= before + (24 << 20), "{before} then {peak}");
            drop(blocks);
            trim();
            let after = rss();
            assert!(after + (16 << 20) <= peak, "{peak} then {after}");
            drop(survivor);
        });
    }
}
