//! Compressed messages of a worker's connections, inflated.
//!
//! A broadcast brings every connection the same bytes, so the last message is remembered: one that equals it
//! is compared and not inflated again, and the generator does not become the bottleneck of what it measures.

use fantail::wire::deflate::{InflateError, Inflater};

/// A worker's inflater.
#[derive(Debug, Default)]
pub(crate) struct Inflating {
    inflater: Inflater,
    last: Vec<u8>,
    content: Vec<u8>,
}

impl Inflating {
    /// The content of a compressed message of at most `bytes_max` bytes.
    pub(crate) fn inflate(&mut self, deflated: &[u8], bytes_max: usize) -> Result<&[u8], InflateError> {
        // An empty message is told from none by its content: both are empty.
        if self.last != deflated {
            self.last.clear();
            self.content.clear();
            self.content.extend_from_slice(self.inflater.inflate(deflated, bytes_max)?);
            self.inflater.give_back();
            self.last.extend_from_slice(deflated);
        }
        Ok(&self.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fantail::wire::deflate::Deflater;

    #[test]
    fn equal_messages_give_equal_content_and_a_failure_is_not_remembered() {
        let mut deflater = Deflater::new(5, 1);
        let one = deflater.try_deflate(&[b'a'; 100]).unwrap().to_vec();
        let two = deflater.try_deflate(&[b'b'; 200]).unwrap().to_vec();
        let mut inflating = Inflating::default();
        for _ in 0..2 {
            assert_eq!(inflating.inflate(&one, 1_000), Ok(&[b'a'; 100][..]));
            assert_eq!(inflating.inflate(&one, 1_000), Ok(&[b'a'; 100][..]));
            assert_eq!(inflating.inflate(&[0xff, 0xff], 1_000), Err(InflateError::Corrupt));
            assert_eq!(inflating.inflate(&[0xff, 0xff], 1_000), Err(InflateError::Corrupt));
            assert_eq!(inflating.inflate(&two, 1_000), Ok(&[b'b'; 200][..]));
        }
    }
}
