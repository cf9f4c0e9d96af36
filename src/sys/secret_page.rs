//! Memory for secrets: a mapping of its own that is left out of core dumps, and whose places are zeroed when what lies
//! in them goes.
//!
//! Owns the mapping. Driven by whoever keeps keys. Never moves what it holds, so that no copy is left behind.

use std::io;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};

/// Bytes of one mapping: sixteen of the kernel's pages, so that what a nearly empty one wastes is little and a million
/// keys are a few thousand mappings, most of which the kernel merges.
pub const SECRET_PAGE_BYTES: usize = 64 * 1024;

/// A mapping with places for values of one type. Memory of places that were never used is not touched.
#[derive(Debug)]
pub struct SecretPage<T> {
    base: NonNull<T>,
    /// A bit for each place.
    taken: Box<[u64]>,
    len: usize,
    holds: PhantomData<T>,
}

// SAFETY: it owns what it holds, as a Box would.
unsafe impl<T: Send> Send for SecretPage<T> {}

impl<T: Default> SecretPage<T> {
    /// Places in one page.
    pub const PLACES: usize = SECRET_PAGE_BYTES / size_of::<T>();

    const FITS: () = assert!(
        size_of::<T>() > 0 && size_of::<T>() <= SECRET_PAGE_BYTES && align_of::<T>() <= 4_096,
        "a mapping begins at a page of memory"
    );

    /// A page in which nothing lies.
    ///
    /// # Errors
    /// The kernel has no memory, or maps no more.
    pub fn new() -> io::Result<Self> {
        let () = Self::FITS;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SECRET_PAGE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(base.cast::<T>()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let page = Self {
            base,
            taken: vec![0; Self::PLACES.div_ceil(64)].into_boxed_slice(),
            len: 0,
            holds: PhantomData,
        };
        // SAFETY: the range is the mapping just made, and the advice changes no byte of it. If it fails, `page` unmaps it.
        let advised = unsafe { libc::madvise(base.as_ptr().cast(), SECRET_PAGE_BYTES, libc::MADV_DONTDUMP) };
        super::checked(advised)?;
        Ok(page)
    }

    /// What lies at a place.
    #[must_use]
    pub fn at(&mut self, place: usize) -> Option<&mut T> {
        if !self.has(place) {
            return None;
        }
        // SAFETY: the place is inside the mapping and its bit says that a value was written there; the page is borrowed.
        Some(unsafe { &mut *self.base.as_ptr().add(place) })
    }

    /// The default value at a free place, to be filled where it lies. `None`: there is no such place, or it is taken.
    #[must_use]
    pub fn take(&mut self, place: usize) -> Option<&mut T> {
        if place >= Self::PLACES || self.has(place) {
            return None;
        }
        *self.taken.get_mut(place / 64)? |= 1 << (place % 64);
        self.len += 1;
        // SAFETY: the place is inside the mapping, aligned because the mapping is, and holds no value that would be lost.
        unsafe {
            let at = self.base.as_ptr().add(place);
            at.write(T::default());
            Some(&mut *at)
        }
    }

    /// Lets go what lies at a place, and zeroes it. Whether there was anything.
    pub fn remove(&mut self, place: usize) -> bool {
        if !self.has(place) {
            return false;
        }
        if let Some(bits) = self.taken.get_mut(place / 64) {
            *bits &= !(1 << (place % 64));
        }
        self.len -= 1;
        // SAFETY: the place holds a value, which nobody reads any more: its bit is cleared. All its bytes, padding
        // included, lie inside the mapping; volatile writes are not left out although nobody reads them.
        unsafe {
            let at = self.base.as_ptr().add(place);
            at.drop_in_place();
            for byte in 0..size_of::<T>() {
                at.cast::<u8>().add(byte).write_volatile(0);
            }
        }
        compiler_fence(Ordering::SeqCst);
        true
    }

    /// Whether nothing lies in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether something lies at a place.
    #[inline]
    #[must_use]
    pub fn has(&self, place: usize) -> bool {
        place < Self::PLACES && self.taken.get(place / 64).is_some_and(|bits| bits & (1 << (place % 64)) != 0)
    }
}

impl<T> Drop for SecretPage<T> {
    fn drop(&mut self) {
        let places = SECRET_PAGE_BYTES / size_of::<T>();
        for place in 0..places {
            if self.taken.get(place / 64).is_some_and(|bits| bits & (1 << (place % 64)) != 0) {
                // SAFETY: the place holds a value, and the page is going: nobody reads it again. The kernel gives the
                // memory to others only zeroed.
                unsafe { self.base.as_ptr().add(place).drop_in_place() };
            }
        }
        // SAFETY: the mapping was made by `new` with this size and is unmapped once.
        unsafe { libc::munmap(self.base.as_ptr().cast(), SECRET_PAGE_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[derive(Default)]
    struct Secret {
        word: [u8; 32],
        gone: Option<Rc<Cell<u32>>>,
    }

    impl Drop for Secret {
        fn drop(&mut self) {
            if let Some(gone) = &self.gone {
                gone.set(gone.get() + 1);
            }
        }
    }

    /// The bytes of the mapping, whatever lies there.
    fn bytes<T>(page: &SecretPage<T>) -> Vec<u8> {
        // SAFETY: the mapping is readable, as long as the page lives, and the places looked at hold no uninitialised bytes:
        // the kernel's zeroes or what the tests wrote.
        unsafe { std::slice::from_raw_parts(page.base.as_ptr().cast::<u8>(), SECRET_PAGE_BYTES) }.to_vec()
    }

    #[test]
    fn a_place_is_zeroed_when_what_lies_there_goes() {
        let mut page = SecretPage::<[u8; 32]>::new().unwrap();
        *page.take(3).unwrap() = [0xA5; 32];
        assert!(bytes(&page).contains(&0xA5), "the test would see it");
        assert!(page.remove(3));
        assert!(bytes(&page).iter().all(|&byte| byte == 0));
        assert!(page.is_empty() && page.at(3).is_none() && !page.remove(3));
    }

    #[test]
    fn places_are_apart_and_taken_once() {
        let mut page = SecretPage::<Secret>::new().unwrap();
        for place in 0..SecretPage::<Secret>::PLACES {
            page.take(place).unwrap().word = [place as u8; 32];
        }
        assert!(page.take(7).is_none(), "taken");
        assert!(
            page.take(SecretPage::<Secret>::PLACES).is_none() && page.at(usize::MAX).is_none(),
            "outside"
        );
        for place in 0..SecretPage::<Secret>::PLACES {
            assert_eq!(page.at(place).unwrap().word, [place as u8; 32]);
        }
    }

    #[test]
    fn what_is_left_goes_with_its_page() {
        let gone = Rc::new(Cell::new(0));
        let mut page = SecretPage::<Secret>::new().unwrap();
        for place in [0, 5, SecretPage::<Secret>::PLACES - 1] {
            page.take(place).unwrap().gone = Some(Rc::clone(&gone));
        }
        page.remove(5);
        assert_eq!(gone.get(), 1);
        drop(page);
        assert_eq!(gone.get(), 3);
    }

    #[test]
    fn the_kernel_leaves_it_out_of_core_dumps() {
        let mut page = SecretPage::<[u8; 32]>::new().unwrap();
        page.take(0).unwrap()[0] = 1;
        let address = page.base.as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&address);
            }
            if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                // "dd" is "do not include area into core dump".
                assert!(flags.split(' ').any(|flag| flag == "dd"), "{flags}");
                return;
            }
        }
        panic!("no mapping holds {address:x}");
    }
}
