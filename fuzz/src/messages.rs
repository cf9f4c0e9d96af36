//! Compressed messages of a client, and their offers: what inflates must be the same however the bytes are cut,
//! within the bound whatever the bytes promise, and what is deflated again must come back.

use fantail::wire::deflate::{Agreement, Deflater, Inflater, negotiate};

const CONTENT_BYTES_MAX: usize = 1 << 20;

/// Takes the bytes as frames on a connection with compression, as one compressed payload, as content to compress,
/// and as an offer.
pub fn check(data: &[u8]) {
    crate::frames::check_with(data, true);
    let (level, bytes) = crate::choice(data);
    let mut inflater = Inflater::new();
    if let Ok(content) = inflater.inflate(bytes, CONTENT_BYTES_MAX) {
        assert!(content.len() <= CONTENT_BYTES_MAX);
    }
    let mut deflater = Deflater::new(level as u32 % 10, 1);
    for content in [bytes, &bytes.repeat(3)] {
        if let Some(deflated) = deflater.try_deflate(content) {
            assert!(deflated.len() < content.len());
            assert_eq!(inflater.inflate(deflated, content.len()), Ok(content));
        }
    }
    if let Ok(field) = std::str::from_utf8(bytes)
        && let Ok(Some(Agreement { answer, window_bits })) = negotiate([field].into_iter())
    {
        assert!(field.contains("permessage-deflate") && answer.starts_with("permessage-deflate"));
        // Some clients take nothing in an answer that they have not offered.
        let mut parameters =
            answer.split(';').skip(1).map(|parameter| parameter.split('=').next().unwrap_or_default());
        let own = "client_no_context_takeover";
        assert!(parameters.all(|name| name.trim() == own || field.contains(name.trim())));
        assert!((8..=15).contains(&window_bits));
    }
}
