//! The C allocator, which is Rust's default one, so that what is done here acts on every allocation of the process;
//! driven by the start of the server and by the maintenance thread. And the size of a page.

/// From this size on a block is a mapping of its own, which goes back when it is freed: larger than the frame of the
/// largest message by default, for whose pages the kernel would else be asked with each message.
pub const MAPPED_BYTES_MIN: usize = 2 << 20;

/// Free bytes at the top of a heap that are kept for what comes next: more than a batch of a thousand short messages
/// with its answers takes, whose pages the kernel would else be asked for with each batch (a tenth of its time), and no
/// more than what a loop may cost.
#[cfg(target_env = "gnu")]
const TOP_BYTES_KEPT: libc::c_int = 1 << 20;

/// Makes the allocator give large blocks back as soon as they are freed. Called once, before there are threads; without
/// glibc there is nothing to do.
///
/// By default glibc takes a freed mapping as a sign that such blocks come often: from then on it takes blocks of that
/// size, up to 32 MiB, from the heap of the thread and keeps twice as much free at its top, where [`trim`] leaves the
/// heaps of all threads but the first alone. One large body would so cost its size for good.
pub fn map_large_blocks() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes two numbers and no pointer, and locks what it changes.
        unsafe {
            // Either one turns the adapting off; neither can fail with sizes of this kind.
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN as libc::c_int);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TOP_BYTES_KEPT);
        }
    }
}

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

    #[cfg(target_env = "gnu")]
    #[test]
    fn large_blocks_leave_nothing_behind() {
        crate::sys::tests::alone("sys::memory::tests::large_blocks_leave_nothing_behind", || {
            map_large_blocks();
            let rss = || crate::sys::process::memory(None).unwrap().user_bytes();
            let before = rss();
            // In a thread, whose heap trim() does not reach.
            let after = std::thread::spawn(move || {
                for _ in 0..4 {
                    let large = [vec![1_u8; 16 << 20], vec![1_u8; 8 << 20]];
                    assert!(rss() >= before + (20 << 20));
                    drop(large);
                    let mut growing = Vec::new();
                    growing.resize(MAPPED_BYTES_MIN - 100, 1_u8);
                    growing.resize(16 << 20, 1_u8);
                }
                rss()
            });
            let after = after.join().unwrap();
            let kept = TOP_BYTES_KEPT as u64 + (512 << 10);
            assert!(after < before + kept, "{before} then {after}");
        });
    }
}
