//! Publishing many messages at once, and retrying without publishing twice.

use std::thread;

use crate::server::{Server, wait_for};

fn lines(count: usize, topic: &str) -> String {
    (0..count).map(|number| format!("{{\"topic\":\"{topic}\",\"payload\":\"m{number}\"}}\n")).collect()
}

#[test]
fn a_batch_is_answered_line_by_line_and_delivered_in_order() {
    let server = Server::start(&["--loops", "2"], &[]);
    let mut peer = server.websocket("/ws/a");
    let body = "{\"topic\":\"a\",\"payload\":\"one\"}\nrubbish\n{\"topic\":\"b\",\"payload\":\"x\"}\n\
                {\"payload_base64\":\"/wA=\",\"topic\":\"a\"}\n{\"topic\":\"a\",\"payload\":\"\\u20ac\",\"binary\":true}";
    let answer = server.post("/publish", "", body.as_bytes());
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/x-ndjson")));
    let text = answer.text();
    let rows: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(rows.len(), 5);
    let offsets: Vec<_> = rows.iter().map(|row| row["offset"].as_u64()).collect();
    assert_eq!(offsets, [Some(1), None, Some(1), Some(2), Some(3)]);
    assert_eq!((&rows[0]["subscribers"], &rows[1]["error"]), (&1.into(), &"bad_request".into()));
    assert_eq!(peer.text(), "one");
    assert_eq!(peer.frame().payload, [0xff, 0]);
    assert_eq!(peer.frame().payload, "€".as_bytes());
    assert_eq!(server.post("/publish", "", b"").body, b"", "no lines, no answers");
}

#[test]
fn a_large_batch_comes_back_in_chunks_and_nothing_is_lost() {
    const COUNT: usize = 100_000;
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_MAILBOX_ENTRIES_MAX", "512")]);
    let mut peer = server.websocket("/ws/a");
    let mut admin = server.connect_admin();
    let body = lines(COUNT, "a");
    let reader = thread::spawn(move || {
        for number in 0..COUNT {
            assert_eq!(peer.text(), format!("m{number}"));
        }
    });
    let head =
        format!("POST /publish HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", server.admin, body.len());
    admin.send(head.as_bytes());
    admin.send(body.as_bytes());
    // The loop goes on while the batch is under way.
    assert_eq!(server.get("/healthz").status, 200);
    let answer = admin.answer();
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
    let text = answer.text();
    assert_eq!(text.lines().count(), COUNT);
    for (number, line) in text.lines().enumerate() {
        assert!(line.contains(&format!("\"offset\":{},", number + 1)), "line {number}: {line}");
    }
    reader.join().expect("every message came once and in order");
    admin.send(format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", server.admin).as_bytes());
    assert_eq!(admin.answer().status, 200, "the connection goes on");
}

#[test]
fn a_batch_goes_on_without_its_sender() {
    const COUNT: usize = 80_000;
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_ADMIN_IDEMPOTENCY_BYTES_MAX", "1 MiB")]);
    let body = lines(COUNT, "a");
    let mut admin = server.connect_admin();
    let head = format!(
        "POST /publish HTTP/1.1\r\nHost: {}\r\nIdempotency-Key: k\r\nContent-Length: {}\r\n\r\n",
        server.admin,
        body.len()
    );
    admin.send(head.as_bytes());
    admin.send(body.as_bytes());
    let messages = || server.get("/topics?topic=a").json()["messages"].as_u64().unwrap_or(0);
    // What has begun has arrived whole.
    wait_for("the batch to begin", || server.get("/topics?topic=a").status == 200 && messages() > 0);
    drop(admin);
    wait_for("the batch to be done", || messages() == COUNT as u64);
    let retry = server.post("/publish", "Idempotency-Key: k\r\n", body.as_bytes());
    assert_eq!(retry.status, 409, "{COUNT} lines of answer are more than is kept: it is not done twice");
    assert_eq!(server.publish("a", b"next").json()["offset"], COUNT as u64 + 1);
}

#[test]
fn http_1_0_gets_its_answer_up_to_the_end_of_the_stream() {
    let server = Server::start(&["--loops", "1"], &[]);
    let body = lines(30_000, "a");
    let mut admin = server.connect_admin();
    admin.send(
        format!("POST /publish HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", server.admin, body.len())
            .as_bytes(),
    );
    admin.send(body.as_bytes());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut admin.stream, &mut text).expect("text to the end");
    let (head, rows) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200") && !head.contains("chunked"), "{head}");
    assert_eq!(rows.lines().count(), 30_000);
}

#[test]
fn a_retry_publishes_once() {
    let server = Server::start(&["--loops", "1"], &[]);
    let key = "Idempotency-Key: 8e03978e-40d5\r\n";
    let first = server.post("/publish/a", key, b"x");
    let again = server.post("/publish/a", key, b"x");
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(
        (first.field("idempotency-replayed"), again.field("idempotency-replayed")),
        (None, Some("true"))
    );
    assert_eq!(first.body, again.body);
    for (path, body) in
        [("/publish/a", "y"), ("/publish/b", "x"), ("/publish/a?binary=1", "x"), ("/publish", "x")]
    {
        assert_eq!(server.post(path, key, body.as_bytes()).status, 422, "{path} {body}");
    }
    assert_eq!(server.post("/publish/a", "", b"x").json()["offset"], 2, "only the first one was published");
    // A refusal is not kept.
    let other = "Idempotency-Key: other\r\n";
    assert_eq!(server.post("/publish/a", other, b"\xff").status, 400);
    assert_eq!(server.post("/publish/a", other, b"fine").status, 200);

    let batch = "Idempotency-Key: batch\r\n";
    let first = server.post("/publish", batch, lines(10, "a").as_bytes());
    let again = server.post("/publish", batch, lines(10, "a").as_bytes());
    assert_eq!(first.body, again.body);
    assert_eq!(again.field("idempotency-replayed"), Some("true"));
    assert_eq!(server.get("/topics?topic=a").json()["messages"], 13);
    let twice = "Idempotency-Key: a\r\nIdempotency-Key: b\r\n";
    for bad in ["Idempotency-Key: \r\n", "Idempotency-Key: é\r\n", twice] {
        assert_eq!(server.post("/publish/a", bad, b"x").status, 400, "{bad:?}");
    }
    let long = format!("Idempotency-Key: {}\r\n", "k".repeat(256));
    assert_eq!(server.post("/publish/a", &long, b"x").status, 400);
}

#[test]
fn answers_are_kept_for_a_while_only() {
    let server = Server::start(
        &["--loops", "1"],
        &[("FANTAIL_ADMIN_IDEMPOTENCY_KEYS_MAX", "2"), ("FANTAIL_ADMIN_IDEMPOTENCY_SECONDS", "3600")],
    );
    let post = |key: u32| server.post("/publish/a", &format!("Idempotency-Key: {key}\r\n"), b"x");
    for key in 0..3 {
        assert_eq!(post(key).status, 200);
    }
    assert_eq!(post(2).field("idempotency-replayed"), Some("true"));
    assert_eq!(post(0).field("idempotency-replayed"), None, "the oldest of three is not kept");
}
