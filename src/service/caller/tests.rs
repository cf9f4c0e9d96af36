//! Calls to servers that answer, lie, drip, end early or are not there.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::thread;

use super::super::kit::{Server, answered, ok};
use super::*;

fn caller_within(url: &str, deadline: Duration) -> Caller {
    Caller::new(&Plan { url: url.to_owned(), ca: None, deadline, idle_max: 4 }).unwrap()
}

/// With a deadline that no test waits for.
fn caller(url: &str) -> Caller {
    caller_within(url, DEADLINE_MAX)
}

fn posted(body: &str) -> Request {
    Request { fields: vec![("x-a".to_owned(), b"1".to_vec())], body: Some(body.as_bytes().to_vec()) }
}

#[test]
fn calls_say_what_they_were_given_over_one_connection() {
    let server = Server::saying(ok("{}"));
    let caller = caller(&server.url());
    for body in ["one", "two"] {
        let answer = caller.ask(&posted(body)).unwrap();
        assert_eq!(answer, Answer { status: 200, retry_after: None, fresh: None, body: b"{}".to_vec() });
    }
    caller.ask(&Request::default()).unwrap();
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    let requests = server.requests.lock().unwrap();
    let fields = |request: &str| -> Vec<String> {
        let head = request.split("\r\n\r\n").next().unwrap();
        let mut fields: Vec<_> = head.lines().skip(1).map(str::to_ascii_lowercase).collect();
        fields.sort();
        fields
    };
    assert!(requests[0].starts_with("POST /ask HTTP/1.1\r\n") && requests[0].ends_with("\r\n\r\none"));
    assert!(requests[2].starts_with("GET /ask HTTP/1.1\r\n"), "{}", requests[2]);
    let host = format!("host: {}", server.address);
    let common = ["accept: application/json", host.as_str(), "user-agent: fantail"];
    assert_eq!(fields(&requests[2]), common);
    assert_eq!(fields(&requests[0]), [common[0], "content-length: 3", common[1], common[2], "x-a: 1"]);
}

#[test]
fn fields_as_long_as_the_longest_head_are_sent() {
    let server = Server::saying(ok("{}"));
    let long = |name: &str, bytes| (name.to_owned(), vec![b'x'; bytes]);
    let fields = vec![long("cookie", 64 << 10), long("cookie", 64 << 10), long("x-a", 20_000)];
    let answer = caller(&server.url()).ask(&Request { fields, body: Some(b"{}".to_vec()) });
    assert_eq!(answer.map(|answer| answer.status), Ok(200));
    let many = (0..400).map(|_| ("cookie".to_owned(), b"a=b".to_vec())).collect();
    let answer = caller(&server.url()).ask(&Request { fields: many, body: Some(b"{}".to_vec()) });
    assert_eq!(answer.map(|answer| answer.status), Ok(200));
    assert_eq!(server.requests.lock().unwrap()[1].matches("cookie: a=b\r\n").count(), 400);
}

#[test]
fn answers_of_any_status_are_answers_but_redirects() {
    for (status, expected) in [("401 No", 401), ("503 Busy\r\nRetry-After: 7", 503)] {
        let server = Server::saying(answered(status, "x"));
        let answer = caller(&server.url()).ask(&posted("")).unwrap();
        assert_eq!((answer.status, answer.retry_after.is_some()), (expected, expected == 503));
    }
    let elsewhere = Server::saying(ok("{}"));
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let server = Server::saying(answered(&format!("{status}\r\nLocation: {}", elsewhere.url()), ""));
        let error = caller(&server.url()).ask(&posted("")).unwrap_err();
        assert!(matches!(error, CallError::Redirect(_)), "{error:?}");
    }
    assert_eq!(elsewhere.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn retry_after_is_seconds_or_a_date_and_five_minutes_at_most() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let seconds = |value| pause_of(value, now).map(|pause| pause.as_secs());
    assert_eq!(seconds(" 7 "), Some(7));
    assert_eq!(seconds("Sun, 06 Nov 1994 08:49:57 GMT"), Some(20));
    assert_eq!(seconds("Sun, 06 Nov 1994 08:49:17 GMT"), Some(0), "it is past");
    assert_eq!(seconds("18446744073709551615"), Some(300));
    assert_eq!((seconds("soon"), seconds("-1")), (None, None));
}

#[test]
fn liars_are_told_by_what_they_do() {
    let long = "x".repeat(10 << 20);
    let endless_head = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(1 << 16));
    let chunk = format!("100000\r\n{}\r\n", "z".repeat(1 << 20));
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    for (answer, expected) in [
        (ok(&long), CallError::TooLong),
        (endless_head.into_bytes(), CallError::TooLong),
        (chunked.into_bytes(), CallError::TooLong),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec(), CallError::NotHttp),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(), CallError::NotHttp),
    ] {
        let server = Server::saying(answer);
        let error = caller(&server.url()).ask(&posted("a secret")).unwrap_err();
        assert_eq!(error, expected);
        assert!(!error.to_string().contains("secret"));
    }
    // Exactly as long as it may be.
    let server = Server::saying(ok(&"x".repeat(1 << 20)));
    assert_eq!(caller(&server.url()).ask(&posted("")).unwrap().body.len(), 1 << 20);
}

#[test]
fn half_an_answer_is_none_and_is_not_asked_for_again() {
    let server = Server::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"allow\":true").unwrap();
        false
    });
    let error = caller(&server.url()).ask(&posted("")).unwrap_err();
    assert!(matches!(error, CallError::Connection(_) | CallError::NotHttp), "{error:?}");
    assert_eq!(server.asked(), 1);
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_made_anew() {
    // Each connection ends behind its first answer, whatever was said of keeping it: sometimes the news comes too late.
    let server = Server::start(|_, stream| {
        stream.write_all(&ok("{}")).unwrap();
        false
    });
    let caller = caller(&server.url());
    for _ in 0..32 {
        assert_eq!(caller.ask(&posted("")).unwrap().status, 200);
    }
    assert_eq!(server.asked(), 32);
    // One that only ends is asked twice and no more.
    let server = Server::start(|_, _| false);
    let error = self::caller(&server.url()).ask(&posted("")).unwrap_err();
    assert!(matches!(error, CallError::Connection(_)), "{error:?}");
    assert_eq!(server.asked(), 2);
}

#[test]
fn one_deadline_is_over_all_of_it() {
    // A byte now and then: each comes soon, and the whole never.
    let dripping = |first: &'static [u8]| {
        Server::start(move |_, stream| {
            let mut all = first.iter().chain(std::iter::repeat(&b'x'));
            all.try_for_each(|byte| {
                thread::sleep(Duration::from_millis(5));
                stream.write_all(&[*byte])
            })
            .is_ok()
        })
    };
    let silent = Server::start(|_, stream| {
        let _ = std::io::Read::read(stream, &mut [0]);
        false
    });
    let body = dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    let head = dripping(b"HTTP/1.1 200 OK\r\nX: ");
    for server in [&silent, &body, &head] {
        let caller = caller_within(&server.url(), Duration::from_millis(150));
        assert_eq!(caller.ask(&posted("")), Err(CallError::Deadline));
    }
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = caller(&format!("http://{gone}/")).ask(&posted("")).unwrap_err();
    assert_eq!(error, CallError::Connection(ErrorKind::ConnectionRefused));
    let error = caller("http://nowhere.invalid/").ask(&posted("")).unwrap_err();
    assert_eq!(error, CallError::Name);
}

#[test]
fn addresses_are_urls_without_secrets_in_them() {
    for good in ["http://a", "https://a.example:8443/x?y=z", "http://127.0.0.1:1/", "http://[::1]:1/x"] {
        assert_eq!(check_url(good), Ok(()), "{good}");
    }
    for bad in
        ["", "a", "/x", "ftp://a/", "http://", "http:///x", "http://u:p@a/", "http://a:/", "http://a b/"]
    {
        assert!(check_url(bad).is_err(), "{bad}");
    }
    assert_eq!(caller("http://a.example/x?key=secret#y").shown(), "http://a.example/x");
    let plan =
        Plan { url: "https://a/".to_owned(), ca: Some("/nowhere".into()), deadline: IDLE, idle_max: 1 };
    assert!(Caller::new(&plan).unwrap_err().contains("/nowhere: cannot be read"));
}

#[test]
fn how_long_an_answer_may_be_believed_is_what_caches_are_told() {
    let of = |fields: &[(header::HeaderName, &'static str)]| {
        let fields = fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        fresh_of(&fields.collect()).map(|fresh| fresh.as_secs())
    };
    let said = |value| of(&[(header::CACHE_CONTROL, value)]);
    for (value, seconds) in [
        ("max-age=3600", Some(3_600)),
        ("public, Max-Age=\"60\" , must-revalidate", Some(60)),
        ("max-age=60, max-age=30", Some(30)),
        ("max-age=60, no-cache", Some(0)),
        ("no-store", Some(0)),
        ("max-age=99999999999999999999999", Some(u64::MAX)),
        ("max-age=-1", Some(0)),
        ("max-age", Some(0)),
        ("s-maxage=5, private", None),
        ("", None),
    ] {
        assert_eq!(said(value), seconds, "{value}");
    }
    let aged = |age| of(&[(header::CACHE_CONTROL, "max-age=60"), (header::AGE, age)]);
    assert_eq!((aged("45"), aged("90"), aged("old"), of(&[])), (Some(15), Some(0), Some(60), None));
}
