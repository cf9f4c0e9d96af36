//! An allocator that counts, for each thread, how many allocations live and how many bytes they hold. Tests install it
//! with `#[global_allocator]` and measure what their own thread does: the thread that started a test goes on allocating
//! while it runs. Never changes what the system's allocator does.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Without an initializer to run and without a destructor, so that reading them never allocates.
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

/// What an allocator itself needs for an allocation: its size in front, and steps of 16.
const ALLOCATION_BYTES: usize = 16;

/// The system's allocator, and what each thread has of it. What another thread gives back is missing there and not here.
#[derive(Debug)]
pub struct CountingAllocator;

impl CountingAllocator {
    /// Allocations of this thread that were not given back yet.
    #[must_use]
    pub fn live(&self) -> usize {
        LIVE.get()
    }

    /// Bytes asked for by them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        BYTES.get()
    }

    /// Bytes that they take, with what the allocator itself needs for each.
    #[must_use]
    pub fn used(&self) -> usize {
        self.bytes() + self.live() * ALLOCATION_BYTES
    }

    fn came(&self, bytes: usize) {
        LIVE.set(LIVE.get().wrapping_add(1));
        BYTES.set(BYTES.get().wrapping_add(bytes));
    }

    fn went(&self, bytes: usize) {
        LIVE.set(LIVE.get().wrapping_sub(1));
        BYTES.set(BYTES.get().wrapping_sub(bytes));
    }
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments and its answer comes back
// unchanged; the counters are plain cells of the thread, which neither allocate nor unwind.
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
        let counting = CountingAllocator;
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

    #[test]
    fn what_other_threads_do_is_not_counted_here() {
        let layout = Layout::from_size_align(64, 8).unwrap();
        let elsewhere = std::thread::spawn(move || {
            // SAFETY: the layout has a size, and the block is given back once, with the same one.
            unsafe {
                let block = CountingAllocator.alloc(layout);
                let counted = CountingAllocator.bytes();
                CountingAllocator.dealloc(block, layout);
                counted
            }
        });
        assert_eq!((elsewhere.join().unwrap(), CountingAllocator.bytes()), (64, 0));
    }
}
