//! An allocator that counts: how many allocations live and how many bytes they hold. Tests
//! install it with `#[global_allocator]`. Never changes what the system's allocator does.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator with two counters.
#[derive(Debug)]
pub struct CountingAllocator {
    live: AtomicUsize,
    bytes: AtomicUsize,
}

impl CountingAllocator {
    /// Counters at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { live: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    /// Allocations that were not given back yet.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Bytes asked for by them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn came(&self, bytes: usize) {
        self.live.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn went(&self, bytes: usize) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Default for CountingAllocator {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments and its answer comes back
// unchanged; the counters are plain atomics, which neither allocate nor unwind.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about the layout is passed on.
        let at = unsafe { System.alloc(layout) };
        if !at.is_null() {
            self.came(layout.size());
        }
        at
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about the layout is passed on.
        let at = unsafe { System.alloc_zeroed(layout) };
        if !at.is_null() {
            self.came(layout.size());
        }
        at
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise that `at` is of this allocator and layout is passed on; it is the
        // system's own.
        unsafe { System.dealloc(at, layout) };
        self.went(layout.size());
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc`, and the caller's promise about the new size is passed on.
        let moved = unsafe { System.realloc(at, layout, size) };
        if !moved.is_null() {
            // It replaces one allocation by another.
            self.went(layout.size());
            self.came(size);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lives_is_counted_and_what_went_is_not() {
        let counting = CountingAllocator::new();
        let layout = |bytes| Layout::from_size_align(bytes, 8).unwrap();
        // SAFETY: both layouts have a size, and each block is given back once, with the layout that it then has.
        unsafe {
            let first = counting.alloc(layout(100));
            let second = counting.alloc_zeroed(layout(50));
            assert_eq!((counting.live(), counting.bytes()), (2, 150));
            let first = counting.realloc(first, layout(100), 300);
            assert_eq!((counting.live(), counting.bytes()), (2, 350));
            counting.dealloc(first, layout(300));
            counting.dealloc(second, layout(50));
        }
        assert_eq!((counting.live(), counting.bytes()), (0, 0));
    }
}
