//! Tests of request heads: the shapes used for smuggling, and what must be accepted.

use super::*;
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { bytes_max: 8192, fields_max: 64 };

/// What a head says, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    method: String,
    target: String,
    host: String,
    body: Body,
    keep_alive: bool,
    len: usize,
}

fn told(bytes: &[u8], limits: &HeadLimits) -> Result<Option<Told>, HeadError> {
    let mut store = field_store();
    Ok(parse_head(bytes, &mut store, limits)?.map(|(head, len)| Told {
        method: head.method.to_owned(),
        target: head.target.to_owned(),
        host: head.host.to_owned(),
        body: head.body,
        keep_alive: head.keep_alive,
        len,
    }))
}

fn error(bytes: &[u8]) -> Option<HeadError> {
    told(bytes, &LIMITS).err()
}

/// A request of HTTP/1.1 with a Host and these further lines.
fn with(lines: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

#[test]
fn smuggling_shapes_are_refused() {
    use HeadError::*;
    let cases: [(&str, HeadError, u16); 31] = [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", LengthAndEncoding, 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", LengthAndEncoding, 400),
        ("transfer-encoding: identity\r\ncontent-length: 5\r\n", LengthAndEncoding, 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", DuplicateLength, 400),
        ("Content-Length: 5\r\ncontent-length: 5\r\n", DuplicateLength, 400),
        ("Content-Length: 5, 5\r\n", BadLength, 400),
        ("Content-Length: +5\r\n", BadLength, 400),
        ("Content-Length: -0\r\n", BadLength, 400),
        ("Content-Length: 0x5\r\n", BadLength, 400),
        ("Content-Length: 5 5\r\n", BadLength, 400),
        ("Content-Length: 5_0\r\n", BadLength, 400),
        ("Content-Length:\r\n", BadLength, 400),
        ("Content-Length: 18446744073709551616\r\n", BadLength, 400),
        ("Transfer-Encoding: xchunked\r\n", UnknownEncoding, 501),
        ("Transfer-Encoding: gzip, chunked\r\n", UnknownEncoding, 501),
        ("Transfer-Encoding: \"chunked\"\r\n", UnknownEncoding, 501),
        ("Transfer-Encoding: chunked;q=1\r\n", UnknownEncoding, 501),
        ("Transfer-Encoding: chunked, identity\r\n", BadEncoding, 400),
        ("Transfer-Encoding: chunked, chunked\r\n", BadEncoding, 400),
        ("Transfer-Encoding: chunked,\r\n", BadEncoding, 400),
        ("Transfer-Encoding:\r\n", BadEncoding, 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", BadEncoding, 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", BadEncoding, 400),
        ("Transfer-Encoding : chunked\r\n", SpaceBeforeColon, 400),
        ("Content-Length\t: 5\r\n", SpaceBeforeColon, 400),
        ("X: a\r\n Transfer-Encoding: chunked\r\n", FoldedField, 400),
        ("X: a\r\n\tb\r\n", FoldedField, 400),
        ("host: b\r\n", DuplicateHost, 400),
        ("Host: a\r\n", DuplicateHost, 400),
        ("Expect: more\r\n", UnknownExpectation, 417),
        ("no colon\r\n", BadField, 400),
    ];
    for (lines, expected, status) in cases {
        assert_eq!(error(&with(lines)), Some(expected), "{lines:?}");
        assert_eq!(expected.status(), status);
        assert!(!expected.reason().is_empty());
    }
}

#[test]
fn request_lines_and_line_ends_are_strict() {
    use HeadError::*;
    let cases: [(&[u8], HeadError); 33] = [
        (b"GET / HTTP/1.1\nHost: a\n\n", BareLineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", BareLineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineEnd),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", BareLineEnd),
        (b"GET / HTTP/1.1\r\rHost: a\r\n\r\n", BareLineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", ControlCharacter),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", ControlCharacter),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\x01: b\r\n\r\n", ControlCharacter),
        (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", ControlCharacter),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ControlCharacter),
        (b"GET / HTTP/1.1\r\n\r\n", MissingHost),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BadHost),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BadHost),
        (b"GET / HTTP/1.1\r\nHost: u@b\r\n\r\n", BadHost),
        (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", BadHost),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", EncodingInHttp10),
        (b"GET / HTTP/2.0\r\n\r\n", BadVersion),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadVersion),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", BadVersion),
        (b"GET / HTTP/0.9\r\n\r\n", BadVersion),
        (b"GET / FTP/1.1\r\nHost: a\r\n\r\n", BadRequestLine),
        (b"GET /\r\n\r\n", BadRequestLine),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequestLine),
        (b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", BadRequestLine),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequestLine),
        (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequestLine),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        (b"GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        (b"GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
    ];
    for (bytes, expected) in cases {
        assert_eq!(error(bytes), Some(expected), "{}", bytes.escape_ascii());
    }
    assert_eq!(HeadError::BadVersion.status(), 505);
}

#[test]
fn a_head_tells_what_it_says() {
    let bytes = b"\r\nPOST /a%20b/c?x=1&y?z HTTP/1.1\r\nhOsT: Example.org:8080\r\nX-A: 1 \r\nx-a:\t2\r\n\
                  Expect: 100-Continue\r\nContent-Length: 007\r\nX-Empty:\r\nX-Obs: \xff\r\n\r\nbody";
    let mut store = field_store();
    let (head, len) = parse_head(bytes, &mut store, &LIMITS).unwrap().unwrap();
    assert_eq!(&bytes[len..], b"body");
    assert_eq!((head.method, head.path(), head.query()), ("POST", "/a%20b/c", "x=1&y?z"));
    assert_eq!((head.host, head.version_minor), ("Example.org:8080", 1));
    assert_eq!((head.body, head.keep_alive, head.expect_continue), (Body::Length(7), true, true));
    assert_eq!(head.field("X-a"), Some(b"1".as_slice()));
    assert_eq!(head.fields("x-A").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(head.field("x-empty"), Some(b"".as_slice()));
    assert_eq!((head.field("x-obs"), head.field("x-none")), (Some(b"\xff".as_slice()), None));
}

#[test]
fn absolute_targets_lose_scheme_and_authority_and_win_over_host() {
    for (target, expected, path) in [
        ("http://b.org/x?y", "/x?y", "/x"),
        ("HTTPS://b.org", "/", "/"),
        ("ws://b.org?q", "?q", "/"),
        ("wss://b.org/", "/", "/"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
        let mut store = field_store();
        let (head, _) = parse_head(&bytes, &mut store, &LIMITS).unwrap().unwrap();
        assert_eq!((head.target, head.path(), head.host), (expected, path, "b.org"));
    }
}

#[test]
fn connections_are_kept_as_the_version_and_the_fields_say() {
    for (version, line, keep) in [
        (1, "", true),
        (1, "Connection: close\r\n", false),
        (1, "Connection: Upgrade, CLOSE\r\n", false),
        (1, "Connection: keep-alive\r\nConnection: close\r\n", false),
        (1, "Connection: closed\r\n", true),
        (0, "", false),
        (0, "Connection: foo , Keep-Alive\r\n", true),
        (0, "Connection: keep-alive, close\r\n", false),
    ] {
        let bytes = format!("GET / HTTP/1.{version}\r\nHost: a\r\n{line}\r\n");
        assert_eq!(told(bytes.as_bytes(), &LIMITS).unwrap().unwrap().keep_alive, keep, "{version} {line:?}");
    }
    let http10 = told(b"GET / HTTP/1.0\r\n\r\n", &LIMITS).unwrap().unwrap();
    assert_eq!((http10.host.as_str(), http10.body), ("", Body::None));
    let chunked = told(&with("Transfer-Encoding: Chunked\r\n"), &LIMITS).unwrap().unwrap();
    assert_eq!(chunked.body, Body::Chunked);
}

#[test]
fn a_head_is_none_at_every_cut_and_a_byte_more_is_not_its() {
    let bytes = with("Content-Length: 3\r\nX: yes\r\n");
    for cut in 0..bytes.len() {
        assert_eq!(told(&bytes[..cut], &LIMITS), Ok(None), "cut {cut}");
    }
    for body in [b"".as_slice(), b"\n\n", b"a\r\n\r\n"] {
        let whole = [bytes.as_slice(), body].concat();
        assert_eq!(told(&whole, &LIMITS).unwrap().unwrap().len, bytes.len());
    }
}

#[test]
fn a_head_beyond_its_limits_is_refused_even_if_incomplete() {
    let exact = |len: usize| {
        let rest = len - with("X: \r\n").len();
        with(&format!("X: {}\r\n", "y".repeat(rest)))
    };
    assert!(matches!(told(&exact(8192), &LIMITS), Ok(Some(Told { len: 8192, .. }))));
    assert_eq!(error(&exact(8193)), Some(HeadError::TooLarge));
    assert_eq!(told(&exact(9000)[..8191], &LIMITS), Ok(None));
    assert_eq!(error(&exact(9000)[..8192]), Some(HeadError::TooLarge));
    assert_eq!(error(&b"\r\n".repeat(5000)), Some(HeadError::TooLarge));
    assert_eq!(HeadError::TooLarge.status(), 431);
    // A body behind the head does not count.
    let small = HeadLimits { bytes_max: 64, fields_max: 3 };
    let body = [with("X: y\r\n"), vec![b'z'; 1000]].concat();
    assert!(matches!(told(&body, &small), Ok(Some(_))));
    assert!(matches!(told(&with("A: b\r\nC: d\r\n"), &small), Ok(Some(_))));
    assert_eq!(told(&with("A: b\r\nC: d\r\nE: f\r\n"), &small), Err(HeadError::TooManyFields));
    let many = |n: usize| with(&"A: b\r\n".repeat(n));
    assert!(matches!(told(&many(63), &LIMITS), Ok(Some(_))));
    assert_eq!(error(&many(64)), Some(HeadError::TooManyFields));
    // The room there is for fields bounds a limit beyond it, and lets every smaller one be used to the last field.
    for (fields_max, room) in [(256, 256), (FIELDS_MAX, FIELDS_MAX), (usize::MAX, FIELDS_MAX)] {
        let limits = HeadLimits { bytes_max: 64 << 10, fields_max };
        assert!(matches!(told(&many(room - 1), &limits), Ok(Some(_))), "{fields_max}");
        assert_eq!(told(&many(room), &limits), Err(HeadError::TooManyFields), "{fields_max}");
    }
    assert_eq!(HeadError::TooManyFields.status(), 431);
    assert!(HeadError::TooManyFields.reason().contains("fields"));
}

proptest! {
    #[test]
    fn anything_is_parsed_or_refused_and_never_twice_differently(
        bytes in "(GET|POST) /[ -~]{0,5} HTTP/1\\.[01](\r\n|\n)([HhXTC]:? ?[ -~\r\n\t]{0,12}\r\n){0,4}\r\n",
    ) {
        let bytes = bytes.as_bytes();
        let whole = told(bytes, &LIMITS);
        // A part is never an error that the whole is not, and never a whole before its end.
        for cut in 0..bytes.len() {
            match told(&bytes[..cut], &LIMITS) {
                Ok(None) => {}
                Ok(Some(part)) => prop_assert_eq!(Ok(Some(part)), whole.clone()),
                Err(_) => prop_assert!(whole.is_err()),
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = told(&bytes, &LIMITS);
    }
}
