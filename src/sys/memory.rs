//! The C allocator, which is Rust's default one, so that [`trim`] acts on every allocation of the process; driven by
//! the maintenance thread. And the size of a page.

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

/// Bytes in one page of memory.
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf takes no pointer and is safe to call from any thread.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_power_of_two() {
        assert!(page_bytes().is_power_of_two());
        assert!(page_bytes() >= 4096);
    }

    #[cfg(target_env = "gnu")]
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
