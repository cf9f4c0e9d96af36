//! Masking of payloads (RFC 6455 section 5.3), which is its own inverse.
//!
//! Owns one function over bytes; called wherever client frames are read or written. Never allocates.

/// Masks or unmasks `payload`, whose first byte is the byte number `offset` of its frame's payload.
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut key = mask;
    key.rotate_left(offset & 3);
    let word = u64::from(u32::from_ne_bytes(key));
    let word = word | word << 32;
    // Whole words of a fixed size are what the compiler turns into vector instructions.
    let (words, rest) = payload.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(word.to_ne_bytes()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x11, 0x22, 0x84, 0xF8];

    fn byte_loop(payload: &mut [u8], mask: [u8; 4], offset: usize) {
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[(offset + i) % 4];
        }
    }

    #[test]
    fn agrees_with_a_byte_loop_at_every_offset_alignment_and_length() {
        let source: Vec<u8> = (0..160u32).map(|i| (i * 37 + 11) as u8).collect();
        for start in 0..16 {
            for len in 0..=(source.len() - start).min(100) {
                for offset in (0..9).chain([usize::MAX - 3, usize::MAX]) {
                    let mut ours = source.clone();
                    let mut theirs = source.clone();
                    apply_mask(&mut ours[start..start + len], MASK, offset);
                    byte_loop(&mut theirs[start..start + len], MASK, offset & 3);
                    assert_eq!(ours, theirs, "start {start} len {len} offset {offset}");
                }
            }
        }
    }

    #[test]
    fn pieces_at_their_offsets_make_the_whole() {
        let source: Vec<u8> = (0..64).collect();
        let mut whole = source.clone();
        apply_mask(&mut whole, MASK, 0);
        for cut in 0..=source.len() {
            let mut pieces = source.clone();
            let (left, right) = pieces.split_at_mut(cut);
            apply_mask(left, MASK, 0);
            apply_mask(right, MASK, cut);
            assert_eq!(pieces, whole, "cut {cut}");
        }
    }
}
