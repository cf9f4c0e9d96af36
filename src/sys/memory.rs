//! The C allocator's knobs and the page size. Called at the start and, for [`trim`], by a service thread.
//!
//! Rust's default allocator is the C library's, so these act on every allocation of the process.

/// Gives free memory at the heap's top and whole free pages inside it back to the kernel.
///
/// It takes every arena's lock in turn and may run for milliseconds: a service thread's work, never a
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

/// Bounds the number of arenas, each of which keeps its own free memory. Call it before spawning threads.
///
/// Returns whether the allocator took it. Without glibc there are no arenas.
pub fn limit_arenas(arenas: u16) -> bool {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes no pointer; M_ARENA_MAX is read by later allocations and may change any time.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, libc::c_int::from(arenas)) == 1 }
    }
    #[cfg(not(target_env = "gnu"))]
    {
        let _ = arenas;
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
    fn the_allocator_takes_a_limit() {
        assert!(limit_arenas(64));
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
