//! Every shape of header, whole and cut at every byte.

use super::*;
use proptest::prelude::*;

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = V2_START.to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&(rest.len() as u16).to_be_bytes());
    header.extend_from_slice(rest);
    header
}

fn v2_tcp4(source: [u8; 4], tlvs: &[u8]) -> Vec<u8> {
    let mut rest = source.to_vec();
    rest.extend_from_slice(&[127, 0, 0, 1, 0x12, 0x34, 0x1f, 0x90]);
    rest.extend_from_slice(tlvs);
    v2(0x21, 0x11, &rest)
}

fn v2_tcp6(source: Ipv6Addr) -> Vec<u8> {
    let mut rest = source.octets().to_vec();
    rest.extend_from_slice(&[0; 20]);
    v2(0x21, 0x21, &rest)
}

/// Parsed from each prefix as it grows: nothing until the last byte, the header at it, the same with more.
fn taken(header: &[u8]) -> Option<IpAddr> {
    for cut in 0..header.len() {
        assert_eq!(parse_proxy(&header[..cut]), Ok(None), "cut at {cut} of {header:02x?}");
    }
    let whole = parse_proxy(header).unwrap().expect("whole");
    assert_eq!(whole.len, header.len());
    let mut more = header.to_vec();
    more.extend_from_slice(b"GET / HTTP/1.1\r\n");
    assert_eq!(parse_proxy(&more), Ok(Some(whole)));
    whole.source
}

/// Refused at some byte and at every one after it.
fn refused(header: &[u8]) -> ProxyError {
    let mut error = None;
    for cut in 0..=header.len() {
        match (parse_proxy(&header[..cut]), error) {
            (Err(now), None) => error = Some(now),
            (Ok(Some(taken)), _) => panic!("{header:02x?} was taken: {taken:?}"),
            (Ok(None), Some(_)) => panic!("{header:02x?} was refused and then not"),
            _ => {}
        }
    }
    error.unwrap_or_else(|| panic!("{header:02x?} was not refused"))
}

#[test]
fn headers_of_version_1_are_taken() {
    for (line, source) in [
        ("PROXY TCP4 192.0.2.1 127.0.0.1 65535 0\r\n", Some("192.0.2.1")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255")),
        ("PROXY TCP6 2001:db8::1 ::1 1 443\r\n", Some("2001:db8::1")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 443\r\n", Some("192.0.2.1")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    ] {
        assert_eq!(taken(line.as_bytes()).map(|address| address.to_string()).as_deref(), source, "{line:?}");
    }
}

#[test]
fn lines_that_are_none_are_refused() {
    for line in [
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 2\n",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 2 3\r\n",
        "PROXY  TCP4 192.0.2.1 127.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1\r\n",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 127.0.0.1 01 2\r\n",
        "PROXY TCP4 192.0.2.1 127.0.0.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 127.0.0.1 1 \r\n",
        "PROXY TCP4 192.0.2 127.0.0.1 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 127.0.0.1 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY UDP4 192.0.2.1 127.0.0.1 1 2\r\n",
        "PROXY tcp4 192.0.2.1 127.0.0.1 1 2\r\n",
        "PROXY \r\n",
        "PROXY UNKNOWN\r\r\n",
        "PROXY UNKNOWN\t\r\n",
        "PROXY UNKNOWN \u{e9}\r\n",
        "PROXY UNKNOWNX\r\n",
    ] {
        assert_eq!(refused(line.as_bytes()), ProxyError::BadLine, "{line:?}");
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(refused(endless.as_bytes()), ProxyError::BadLine);
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 16));
    assert_eq!((longest.len(), taken(longest.as_bytes())), (V1_BYTES_MAX, None));
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 15));
    assert_eq!(refused(longer.as_bytes()), ProxyError::BadLine);
}

#[test]
fn headers_of_version_2_are_taken() {
    assert_eq!(taken(&v2_tcp4([192, 0, 2, 1], b"")), Some([192, 0, 2, 1].into()));
    assert_eq!(taken(&v2_tcp4([192, 0, 2, 1], &[0x04, 0, 3, 1, 2, 3])), Some([192, 0, 2, 1].into()));
    let six: Ipv6Addr = "2001:db8::7".parse().unwrap();
    assert_eq!(taken(&v2_tcp6(six)), Some(six.into()));
    assert_eq!(taken(&v2_tcp6("::ffff:192.0.2.1".parse().unwrap())), Some([192, 0, 2, 1].into()));
    // The proxy itself, whatever family it names; an unknown family; a local client.
    assert_eq!(taken(&v2(0x20, 0x00, b"")), None);
    assert_eq!(taken(&v2(0x20, 0x11, &[9; 12])), None);
    assert_eq!(taken(&v2(0x21, 0x00, &[1, 2, 3])), None);
    assert_eq!(taken(&v2(0x21, 0x31, &[b'/'; 216])), None);
    assert_eq!(taken(&v2_tcp4([1, 2, 3, 4], &[0; 508])), Some([1, 2, 3, 4].into()));
}

#[test]
fn headers_of_version_2_that_lie_are_refused() {
    for (header, error) in [
        (v2(0x11, 0x11, &[0; 12]), ProxyError::BadCommand),
        (v2(0x22, 0x11, &[0; 12]), ProxyError::BadCommand),
        (v2(0x21, 0x12, &[0; 12]), ProxyError::BadFamily),
        (v2(0x21, 0x22, &[0; 36]), ProxyError::BadFamily),
        (v2(0x21, 0x32, &[0; 216]), ProxyError::BadFamily),
        (v2(0x21, 0x41, &[0; 12]), ProxyError::BadFamily),
        (v2(0x21, 0x11, &[0; 11]), ProxyError::BadLength),
        (v2(0x21, 0x21, &[0; 35]), ProxyError::BadLength),
        (v2(0x21, 0x31, &[0; 215]), ProxyError::BadLength),
        (v2(0x21, 0x00, &[0; 521]), ProxyError::BadLength),
        (v2(0x20, 0x00, &[0; 1024]), ProxyError::BadLength),
    ] {
        assert_eq!(refused(&header), error, "{:02x?}", &header[12..16]);
    }
}

#[test]
fn anything_else_is_missing() {
    for other in
        ["GET / HTTP/1.1\r\n", "proxy TCP4", "P\r\n", "\r\n\r\nGET", "\r\n\r\n\0\r\nQUIT\r", " PROXY"]
    {
        assert_eq!(refused(other.as_bytes()), ProxyError::Missing, "{other:?}");
    }
}

proptest! {
    #[test]
    fn any_source_comes_out_of_both_versions(four: [u8; 4], six: [u8; 16], ports: (u16, u16), tlvs in prop::collection::vec(any::<u8>(), 0..508)) {
        let (four, six) = (Ipv4Addr::from(four), Ipv6Addr::from(six));
        let line = format!("PROXY TCP4 {four} 127.0.0.1 {} {}\r\n", ports.0, ports.1);
        prop_assert_eq!(taken(line.as_bytes()), Some(four.into()));
        let line = format!("PROXY TCP6 {six} ::1 {} {}\r\n", ports.0, ports.1);
        prop_assert_eq!(taken(line.as_bytes()), Some(IpAddr::from(six).to_canonical()));
        prop_assert_eq!(taken(&v2_tcp4(four.octets(), &tlvs)), Some(four.into()));
        prop_assert_eq!(taken(&v2_tcp6(six)), Some(IpAddr::from(six).to_canonical()));
    }

    #[test]
    fn garbage_behind_a_true_beginning_never_panics_and_stays_decided(
        version in any::<bool>(),
        garbage in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        let mut bytes = if version { V2_START.to_vec() } else { V1_START.to_vec() };
        bytes.extend_from_slice(&garbage);
        let mut decided = None;
        for cut in 0..=bytes.len() {
            let now = parse_proxy(&bytes[..cut]);
            match decided {
                Some(before) => prop_assert_eq!(now, before),
                None if now != Ok(None) => decided = Some(now),
                None => prop_assert!(cut < V2_BYTES_MAX, "undecided at {}", cut),
            }
            if let Ok(Some(header)) = now {
                prop_assert!(header.len <= cut);
            }
        }
    }
}
