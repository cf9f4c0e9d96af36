//! Compressed messages of a client, and their offers: what inflates must be the same however the bytes are cut,
//! within the bound whatever the bytes promise, and what is deflated again must come back.

use std::sync::Arc;

use fantail::wire::deflate::{Agreement, ClientContext, Contexts, Deflater, Inflater, negotiate};
use flate2::{Compress, Compression, FlushCompress};

const CONTENT_BYTES_MAX: usize = 1 << 20;

/// Bytes kept of one client.
const WINDOW_BYTES: usize = 32 * 1024;

/// Takes the bytes as frames on a connection with compression, as one compressed payload, as content to compress,
/// and as an offer.
pub fn check(data: &[u8]) {
    crate::frames::check_with(data, true);
    let (level, bytes) = crate::choice(data);
    let mut inflater = Inflater::new();
    if let Ok(content) = inflater.inflate(bytes, CONTENT_BYTES_MAX) {
        assert!(content.len() <= CONTENT_BYTES_MAX);
    }
    context(level, bytes);
    let mut deflater = Deflater::new(level as u32 % 10, 1);
    for content in [bytes, &bytes.repeat(3)] {
        if let Some(deflated) = deflater.try_deflate(content) {
            assert!(deflated.len() < content.len());
            assert_eq!(inflater.inflate(deflated, content.len()), Ok(content));
        }
    }
    if let Ok(field) = std::str::from_utf8(bytes)
        && let Ok(Some(Agreement { answer, window_bits, .. })) = negotiate([field].into_iter())
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

/// A client's messages are understood whether it begins each anew or goes on, and no more than a window is kept of it.
/// Taken as what a client sends, the bytes are understood or not, and no more is kept either.
fn context(choice: usize, bytes: &[u8]) {
    let total = Arc::new(Contexts::new(1 << 20));
    let mut inflater = Inflater::keeping(Arc::clone(&total));
    let (mut sent, mut raw) = (ClientContext::default(), ClientContext::default());
    let mut client = Compress::new(Compression::new(choice as u32 % 9 + 1), false);
    // Zero bytes end messages, and some come again.
    for piece in bytes.split(|&byte| byte == 0).filter(|piece| !piece.is_empty()).take(32) {
        let content = piece.repeat(1 + choice % 3 * 40);
        if choice & 0x80 == 0 {
            client.reset();
        }
        let mut payload = Vec::with_capacity(content.len() * 2 + 1024);
        client.compress_vec(&content, &mut payload, FlushCompress::Sync).expect("room");
        payload.truncate(payload.len().saturating_sub(4));
        assert_eq!(sent.inflate(&mut inflater, &payload, CONTENT_BYTES_MAX), Ok(&content[..]));
        let _ = raw.inflate(&mut inflater, piece, CONTENT_BYTES_MAX);
        assert!(total.bytes() <= 2 * WINDOW_BYTES, "{} bytes kept of two clients", total.bytes());
    }
    drop((sent, raw));
    assert_eq!(total.bytes(), 0, "given back");
}
