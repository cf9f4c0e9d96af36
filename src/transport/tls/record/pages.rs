//! Where the lean connections of a loop lie: beside the slots, by a number that the stream has anyway.
//!
//! Owns their pages, which come with the first connection in them and go with the last. Driven by the loop's TLS state.
//! Keys are written where they stay and never moved.

use std::io;

use rustls::ExtractedSecrets;

use super::Lean;
use super::keylog::TrafficSecrets;
use crate::sys::secret_page::{SECRET_PAGE_BYTES, SecretPage};

/// All lean connections of one loop.
#[derive(Debug, Default)]
pub struct LeanPages {
    pages: Vec<Option<SecretPage<Lean>>>,
}

impl LeanPages {
    /// Goes on with a connection where rustls ends, under `index`, which is free.
    ///
    /// # Errors
    /// There is no memory, or `traffic` is not what `extracted` was made of. The keys are gone then, and the connection
    /// can't go on.
    pub fn take_over(
        &mut self,
        index: u32,
        extracted: &ExtractedSecrets,
        traffic: &TrafficSecrets,
    ) -> io::Result<()> {
        let (page_index, place) = split(index);
        if page_index >= self.pages.len() {
            self.pages.resize_with(page_index + 1, || None);
        }
        let Some(page) = self.pages.get_mut(page_index) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let page = match page {
            Some(page) => page,
            None => page.insert(SecretPage::new()?),
        };
        let lean = page.take(place).ok_or(io::ErrorKind::AlreadyExists)?;
        if lean.fill(extracted, traffic) {
            return Ok(());
        }
        self.remove(index);
        Err(io::ErrorKind::InvalidData.into())
    }

    /// The connection under an index, if it is lean.
    #[inline]
    #[must_use]
    pub fn get(&mut self, index: u32) -> Option<&mut Lean> {
        let (page, place) = split(index);
        self.pages.get_mut(page)?.as_mut()?.at(place)
    }

    /// Whether the connection under an index is lean.
    #[inline]
    #[must_use]
    pub fn has(&self, index: u32) -> bool {
        let (page, place) = split(index);
        self.pages.get(page).and_then(Option::as_ref).is_some_and(|page| page.has(place))
    }

    /// Zeroes what is kept under an index. Whether there was anything.
    pub fn remove(&mut self, index: u32) -> bool {
        let (page_index, place) = split(index);
        let Some(Some(page)) = self.pages.get_mut(page_index) else { return false };
        let was = page.remove(place);
        if page.is_empty() {
            self.pages[page_index] = None;
            while matches!(self.pages.last(), Some(None)) {
                self.pages.pop();
            }
            if self.pages.is_empty() {
                self.pages = Vec::new();
            }
        }
        was
    }

    /// Bytes of the pages.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.pages.iter().flatten().count() * SECRET_PAGE_BYTES
    }
}

fn split(index: u32) -> (usize, usize) {
    let places = SecretPage::<Lean>::PLACES;
    (index as usize / places, index as usize % places)
}
