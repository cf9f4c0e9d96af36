//! Event streams: what their readers get, what they may never contain, how they begin and end, and who may read them.

use std::net::Shutdown;

use fantail::wire::frame::Opcode;

use crate::client::{Answer, Peer, frame, publish_lines};
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports, wait_for};

/// One event as a page gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) data: String,
    pub(crate) id: String,
}

/// What a reader makes of a stream, by the letter of the standard (HTML, 9.2.6): from bytes, line by line.
#[derive(Default)]
struct Reader {
    events: Vec<Event>,
    retry: Option<u64>,
    comments: usize,
    /// What is there of an event.
    kind: String,
    data: String,
    id: String,
    /// What a browser would come back with.
    last_id: String,
}

impl Reader {
    /// Takes whole lines.
    fn take(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).expect("a stream is UTF-8");
        assert!(text.ends_with('\n'), "a piece ends with a line: {text:?}");
        assert!(!text.contains('\r'), "its lines end with LF: {text:?}");
        for line in text.split_terminator('\n') {
            self.line(line);
        }
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            let mut data = std::mem::take(&mut self.data);
            self.id.clone_into(&mut self.last_id);
            if data.pop().is_some() {
                let kind = if kind.is_empty() { "message".to_owned() } else { kind };
                self.events.push(Event { kind, data, id: self.id.clone() });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data += value;
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" => self.retry = Some(value.parse().expect("digits")),
            field => panic!("a field nobody sends: {field:?}"),
        }
    }
}

/// A stream that a test reads.
pub(crate) struct Stream {
    peer: Peer,
    pub(crate) answer: Answer,
    reader: Reader,
    coded: Option<Coded>,
    /// Bytes of chunks.
    bytes: usize,
}

/// A body in gzip, which is read piece by piece.
struct Coded {
    inflater: flate2::Decompress,
    began: bool,
}

impl Coded {
    fn text(&mut self, piece: &[u8]) -> Vec<u8> {
        let piece = if std::mem::replace(&mut self.began, true) {
            piece
        } else {
            assert_eq!(piece[..4], [0x1f, 0x8b, 8, 0]);
            &piece[10..]
        };
        let mut text = Vec::with_capacity(1 << 20);
        let before = self.inflater.total_in();
        self.inflater.decompress_vec(piece, &mut text, flate2::FlushDecompress::Sync).expect("blocks");
        assert_eq!(self.inflater.total_in() - before, piece.len() as u64, "all of it is text at once");
        text
    }
}

impl Stream {
    pub(crate) fn open(server: &Server, path: &str) -> Self {
        Self::ask(server, path, "")
    }

    pub(crate) fn ask(server: &Server, path: &str, fields: &str) -> Self {
        let mut peer = server.connect();
        peer.send(request(server, "GET", path, fields).as_bytes());
        let answer = peer.answer_to(true);
        let coded = answer.field("content-encoding").map(|coding| {
            assert_eq!(coding, "gzip");
            Coded { inflater: flate2::Decompress::new(false), began: false }
        });
        let mut stream = Self { peer, answer, reader: Reader::default(), coded, bytes: 0 };
        if stream.answer.status == 200 {
            assert_eq!(stream.answer.field("content-type"), Some("text/event-stream"));
            assert_eq!(stream.answer.field("transfer-encoding"), Some("chunked"));
            assert!(stream.chunk(), "it begins at once");
            assert!(stream.reader.retry.is_some_and(|retry| retry > 0) && stream.reader.events.is_empty());
        }
        stream
    }

    /// Reads one chunk, which holds whole lines and one event at most. `false`: the body has ended.
    fn chunk(&mut self) -> bool {
        let Some(mut bytes) = self.peer.chunk() else { return false };
        self.bytes += bytes.len();
        if let Some(coded) = &mut self.coded {
            bytes = coded.text(&bytes);
        }
        let before = self.reader.events.len();
        self.reader.take(&bytes);
        assert!(self.reader.events.len() <= before + 1, "one chunk an event");
        assert!(self.reader.data.is_empty() && self.reader.kind.is_empty(), "and it is all of it");
        true
    }

    /// The next event.
    pub(crate) fn event(&mut self) -> Event {
        while self.reader.events.is_empty() {
            assert!(self.chunk(), "the stream ended before an event");
        }
        self.reader.events.remove(0)
    }
}

fn request(server: &Server, method: &str, path: &str, fields: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", server.listen)
}

/// A position as it is written into ids.
fn position(id: &str) -> (u64, u64) {
    let (epoch, offset) = id.split_once(':').expect("EPOCH:OFFSET");
    assert_eq!(epoch.len(), 16, "{id}");
    (u64::from_str_radix(epoch, 16).expect("an epoch"), offset.parse().expect("an offset"))
}

#[test]
fn events_are_the_messages_of_the_topic_in_order_each_with_its_position() {
    let server = Server::start(&["--loops", "3"], &[("FANTAIL_PUBLISH_TOPICS", "*")]);
    let mut streams: Vec<Stream> = (0..12).map(|_| Stream::open(&server, "/sse/a%2Fb")).collect();
    let mut plain = server.websocket("/ws/a%2Fb?echo=0");
    let mut other = Stream::open(&server, "/sse/other");
    for number in 0..30 {
        match number % 2 {
            0 => assert_eq!(server.publish("a/b", number.to_string().as_bytes()).status, 200),
            _ => plain.send_frame(Opcode::Text, number.to_string().as_bytes()),
        }
        for stream in &mut streams {
            assert_eq!(stream.event().data, number.to_string());
        }
    }
    server.publish("a/b", b"last");
    server.publish("other", b"elsewhere");
    let last: Vec<Event> = streams.iter_mut().map(Stream::event).collect();
    assert!(last.iter().all(|event| event == &last[0]), "{last:?}");
    assert_eq!(
        (last[0].kind.as_str(), last[0].data.as_str(), position(&last[0].id).1),
        ("message", "last", 31)
    );
    let elsewhere = other.event();
    assert_eq!((elsewhere.data.as_str(), position(&elsewhere.id).1), ("elsewhere", 1));
    assert_ne!(position(&elsewhere.id).0, position(&last[0].id).0, "an epoch of its own");
}

/// What a payload may be, and what a page gets of it. Browsers and libraries read the same table back, in tests/browsers.
fn payloads() -> Vec<(String, String)> {
    serde_json::from_str(include_str!("../fixtures/sse/payloads.json")).expect("pairs")
}

#[test]
fn no_payload_is_anything_but_the_data_of_its_event() {
    let server = Server::start(&["--loops", "2"], &[]);
    let mut stream = Stream::open(&server, "/sse/t");
    let retry = stream.reader.retry;
    let payloads = payloads();
    for (offset, (payload, data)) in (1..).zip(&payloads) {
        assert_eq!(server.publish("t", payload.as_bytes()).status, 200);
        let event = stream.event();
        assert_eq!((event.kind.as_str(), event.data.as_str()), ("message", data.as_str()), "{payload:?}");
        assert_eq!(position(&event.id).1, offset);
    }
    // In a burst, too, where one write has many of them.
    let lines: Vec<String> = payloads
        .iter()
        .map(|(payload, _)| serde_json::json!({ "topic": "t", "payload": payload }).to_string() + "\n")
        .collect();
    assert_eq!(server.post("/publish", "", lines.concat().as_bytes()).status, 200);
    for (payload, data) in &payloads {
        assert_eq!(stream.event().data, *data, "{payload:?}");
    }
    assert_eq!((stream.reader.retry, stream.reader.comments), (retry, 0));
}

#[test]
fn what_is_no_text_is_base64_with_a_kind_of_its_own() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut stream = Stream::open(&server, "/sse/t");
    for (payload, data) in
        [(&b""[..], ""), (b"\0\xff\r\n", "AP8NCg=="), (b"text all the same", "dGV4dCBhbGwgdGhlIHNhbWU=")]
    {
        assert_eq!(server.publish("t?binary=1", payload).status, 200);
        let event = stream.event();
        assert_eq!((event.kind.as_str(), event.data.as_str()), ("binary", data));
    }
    let large = vec![b'\n'; 1 << 20];
    assert_eq!(server.publish("t", &large).status, 200);
    assert_eq!(stream.event().data.len(), large.len(), "however many lines it has");
}

#[test]
fn a_quiet_stream_has_comments_as_often_as_is_asked_for() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_TIMEOUTS_SSE_HEARTBEAT_SECONDS", "0.2")]);
    let mut stream = Stream::open(&server, "/sse/quiet");
    while stream.reader.comments < 3 {
        assert!(stream.chunk());
        assert!(stream.reader.events.is_empty());
    }
    server.publish("quiet", b"and then");
    assert_eq!(stream.event().data, "and then");
}

const GZIP: &str = "Accept-Encoding: deflate, gzip;q=0.5\r\n";

/// About as long as events of dashboards are.
fn long(number: usize) -> String {
    format!(
        "{{\"number\":{number},\"readings\":[{}]}}",
        ["{\"sensor\":\"hall\",\"celsius\":20.5}"; 40].join(",")
    )
}

#[test]
fn who_accepts_gzip_reads_the_same_events_each_as_soon_as_the_others() {
    let coded =
        [("FANTAIL_DEFLATE_EVENT_STREAMS", "true"), ("FANTAIL_TIMEOUTS_SSE_HEARTBEAT_SECONDS", "0.2")];
    let config = ConfigFile::new("[[topic]]\npattern = \"h*\"\nhistory_messages = 100\n");
    let mut server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "3"], &coded));
    let mut plain: Vec<Stream> = (0..4).map(|_| Stream::open(&server, "/sse/h")).collect();
    let mut packed: Vec<Stream> = (0..4).map(|_| Stream::ask(&server, "/sse/h", GZIP)).collect();
    assert!(
        packed.iter().all(|stream| stream.coded.is_some())
            && plain.iter().all(|stream| stream.coded.is_none())
    );
    for stream in plain.iter().chain(&packed) {
        let vary: Vec<_> = stream.answer.fields("vary").collect();
        assert_eq!(vary, ["Origin", "Accept-Encoding"]);
    }
    let payloads = [long(1), "short".into(), long(2).replace(',', ",\n"), String::new(), "x".repeat(100_000)];
    for payload in &payloads {
        server.publish("h", payload.as_bytes());
        let events: Vec<Event> = plain.iter_mut().chain(&mut packed).map(Stream::event).collect();
        assert!(events.iter().all(|event| event == &events[0] && event.data == *payload));
    }
    assert!(packed[0].bytes < plain[0].bytes / 20, "{} of {}", packed[0].bytes, plain[0].bytes);
    // A burst, part of which is deflated.
    let lines: String = (0..50)
        .map(|number| {
            let payload = if number % 3 == 0 { number.to_string() } else { long(number) };
            serde_json::json!({ "topic": "h", "payload": payload }).to_string() + "\n"
        })
        .collect();
    publish_lines(server.admin, &lines);
    for number in 0..50 {
        let expected = if number % 3 == 0 { number.to_string() } else { long(number) };
        assert!(plain.iter_mut().chain(&mut packed).all(|stream| stream.event().data == expected));
    }
    // What is kept, and what is missing, is told in the same coding.
    let nowhere = format!("{GZIP}Last-Event-ID: 00000000000000ab:9\r\n");
    let mut late = Stream::ask(&server, "/sse/h", &nowhere);
    assert!(late.coded.is_some());
    assert_eq!(late.event().kind, "gap");
    for payload in &payloads {
        assert_eq!(late.event().data, *payload);
    }
    let mut again = Stream::ask(&server, "/sse/h?history=2", GZIP);
    assert_eq!((again.event().data, again.event().data), (48.to_string(), long(49)));
    // Comments, and the end.
    while again.reader.comments == 0 {
        assert!(again.chunk());
    }
    server.terminate();
    while again.chunk() {}
    assert!(again.reader.retry.is_some());
    server.await_exit();
}

#[test]
fn streams_are_coded_only_where_that_is_asked_for_and_can_be() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_DEFLATE_EVENT_STREAMS", "true")]);
    for (path, fields) in
        [("/sse/t", ""), ("/sse/t", "Accept-Encoding: br, gzip;q=0\r\n"), ("/sse/t?topic=u", GZIP)]
    {
        let stream = Stream::ask(&server, path, fields);
        assert!(stream.coded.is_none(), "{path} {fields}");
        assert!(stream.answer.fields("vary").any(|vary| vary == "Accept-Encoding"));
    }
    let mut old = server.connect();
    old.send(format!("GET /sse/t HTTP/1.0\r\n{GZIP}\r\n").as_bytes());
    assert_eq!(old.answer_to(true).field("content-encoding"), None);
    let server = Server::start(&["--loops", "1"], &[]);
    let stream = Stream::ask(&server, "/sse/t", GZIP);
    assert_eq!((stream.coded.is_none(), stream.answer.fields("vary").count()), (true, 1));
}

#[test]
fn head_and_options_and_other_methods_are_answered_as_such() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.connect();
    let ask = |peer: &mut Peer, method: &str, fields: &str| {
        peer.send(request(&server, method, "/sse/t", fields).as_bytes());
        peer.answer_to(method == "HEAD")
    };
    let asked = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: last-event-id\r\n";
    let own = format!("Origin: http://{}\r\n{asked}", server.listen);
    let preflight = ask(&mut peer, "OPTIONS", &own);
    assert_eq!((preflight.status, preflight.field("access-control-allow-methods")), (204, Some("GET")));
    assert!(
        preflight.field("access-control-allow-headers").is_some_and(|list| list.contains("Last-Event-ID"))
    );
    let refused = ask(&mut peer, "OPTIONS", &format!("Origin: https://evil.example\r\n{asked}"));
    assert_eq!((refused.status, refused.field("access-control-allow-origin")), (403, None));
    let other = ask(&mut peer, "POST", "Content-Length: 0\r\n");
    assert_eq!((other.status, other.field("allow")), (405, Some("GET, HEAD, OPTIONS")));
    let head = ask(&mut peer, "HEAD", "");
    assert_eq!((head.status, head.field("content-type")), (200, Some("text/event-stream")));
    assert_eq!(head.field("fantail-position"), None, "nothing was made for it");
    peer.expect_end();
    assert_eq!(server.metric("fantail_subscriptions", ""), 0);
    assert_eq!(server.get("/topics").json()["total"], 0);
    // RFC 9110, 9.3.2: where the topics exist, it has every field that GET has, with what GET would say.
    assert_eq!(server.publish("t", b"one").status, 200);
    let names = |answer: &Answer| -> Vec<String> {
        let lines = answer.head.lines().skip(1);
        lines.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
    };
    for fields in ["", "Last-Event-ID: 0000000000000001:5\r\n"] {
        let [head, get] = ["HEAD", "GET"].map(|method| {
            let mut peer = server.connect();
            peer.send(request(&server, method, "/sse/t", fields).as_bytes());
            peer.answer_to(true)
        });
        assert_eq!(names(&head), names(&get));
        for name in ["fantail-position", "fantail-gap"] {
            assert_eq!(head.field(name), get.field(name), "{fields}");
        }
        assert_eq!(head.field("fantail-gap").is_some(), !fields.is_empty());
    }
}

#[test]
fn a_client_of_http_1_0_gets_the_same_without_chunks() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.connect();
    peer.send(b"GET /sse/t HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = peer.answer_to(true);
    assert_eq!((answer.field("transfer-encoding"), answer.field("connection")), (None, Some("close")));
    server.publish("t", b"one\ntwo");
    server.publish("t", b"three");
    assert_eq!(server.post("/connections/close?topic=t", "", b"").status, 200);
    let mut reader = Reader::default();
    reader.take(&peer.rest());
    let data: Vec<&str> = reader.events.iter().map(|event| event.data.as_str()).collect();
    assert_eq!(data, ["one\ntwo", "three"]);
}

#[test]
fn pages_of_other_origins_read_what_the_policy_lets_them_open() {
    let environment =
        [("FANTAIL_ORIGIN_ALLOWED", "https://app.example"), ("FANTAIL_ORIGIN_REQUIRED", "true")];
    let server = Server::start(&["--loops", "1"], &environment);
    let fields = |fields: &str| Stream::ask(&server, "/sse/t", fields).answer;
    let allowed = fields("Origin: https://app.example\r\n");
    assert_eq!(allowed.field("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(allowed.field("access-control-allow-credentials"), Some("true"));
    assert_eq!(allowed.field("vary"), Some("Origin"));
    for refused in
        ["Origin: https://evil.example\r\n", "Origin: null\r\n", "", "Sec-Fetch-Site: cross-site\r\n"]
    {
        let answer = fields(refused);
        assert_eq!((answer.status, answer.field("access-control-allow-origin")), (403, None), "{refused}");
    }
    let own = fields("Sec-Fetch-Site: same-origin\r\n");
    assert_eq!(
        (own.status, own.field("vary"), own.field("access-control-allow-origin")),
        (200, Some("Origin"), None)
    );
}

#[test]
fn a_slip_in_the_url_is_told() {
    let server = Server::start(&["--loops", "1"], &[]);
    for (path, status, words) in [
        ("/sse/", 400, "topic name"),
        ("/sse/a%00", 400, "topic name"),
        ("/sse/a?x=1", 400, "unknown parameter"),
        ("/sse", 404, ""),
    ] {
        let mut peer = server.connect();
        peer.send(request(&server, "GET", path, "Accept: text/event-stream\r\n").as_bytes());
        let answer = peer.answer();
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
}

#[test]
fn who_leaves_frees_its_place_at_once_and_what_it_says_means_nothing() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut half = Stream::open(&server, "/sse/t");
    half.peer.send(&frame(Opcode::Text, b"not for the topic"));
    half.peer.send(request(&server, "GET", "/sse/u", "").as_bytes());
    server.publish("t", b"still");
    assert_eq!(half.event().data, "still");
    half.peer.stream.shutdown(Shutdown::Write).expect("open");
    server.await_metric("fantail_connections", "", |open| open == 0);
    assert_eq!(server.metric("fantail_subscriptions", ""), 0);
}

#[test]
fn a_drain_ends_streams_with_the_time_to_come_back() {
    let mut server = Server::start(&["--loops", "2", "--drain-seconds", "1"], &[]);
    let mut streams: Vec<Stream> = (0..8).map(|_| Stream::open(&server, "/sse/t")).collect();
    server.publish("t", b"before");
    server.terminate();
    for stream in &mut streams {
        assert_eq!(stream.event().data, "before");
        let before = stream.reader.retry.take();
        while stream.chunk() {}
        assert!(before.is_some() && stream.reader.retry.is_some_and(|retry| retry > 0));
        assert_eq!((stream.reader.events.len(), stream.reader.comments), (0, 1), "why, in a comment");
        stream.peer.expect_end();
    }
    wait_for("its end", || server.try_exit().is_some_and(|status| status.success()));
}

#[test]
fn at_its_limits_a_stream_says_when_to_ask_again_and_others_are_refused() {
    let environment =
        [("FANTAIL_ADMISSION_PER_ADDRESS_MAX", "2"), ("FANTAIL_TIMEOUTS_SSE_RETRY_SECONDS", "1")];
    let server = Server::start(&["--loops", "1"], &environment);
    let _inside: Vec<Stream> = (0..2).map(|_| Stream::open(&server, "/sse/t")).collect();
    let mut times = Vec::new();
    for _ in 0..8 {
        let mut peer = server.connect();
        peer.send(request(&server, "GET", "/sse/t", "Accept: text/event-stream\r\n").as_bytes());
        let answer = peer.answer();
        assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/event-stream")));
        let mut reader = Reader::default();
        reader.take(&answer.body);
        assert!(reader.events.is_empty() && reader.comments == 1);
        times.push(reader.retry.expect("when"));
        peer.expect_end();
    }
    assert!(times.iter().all(|time| (2_000..6_000).contains(time)), "{times:?}");
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 1, "each its own: {times:?}");
    let mut program = server.connect();
    program.send(request(&server, "GET", "/sse/t", "").as_bytes());
    assert_eq!(program.answer().status, 429);
    assert_eq!(server.metric("fantail_refusals_total", "too_many_from_address"), 9);
}

#[test]
fn a_stream_begins_with_a_place_that_a_browser_comes_back_with() {
    let server = Server::start(&["--loops", "2"], &[]);
    server.publish("t", b"before");
    let first = Stream::open(&server, "/sse/t");
    let at = first.reader.last_id.clone();
    assert_eq!(first.answer.field("fantail-position"), Some(at.as_str()), "told twice");
    assert_eq!(position(&at).1, 1);
    drop(first);
    // Nothing was missed: no gap, and no empty event for readers that would take it for one.
    let mut again = Stream::ask(&server, "/sse/t", &format!("Last-Event-ID: {at}\r\n"));
    assert_eq!(
        (again.answer.field("fantail-position"), again.answer.field("fantail-gap")),
        (Some(at.as_str()), None)
    );
    assert_eq!(again.reader.last_id, "");
    server.publish("t", b"after");
    let event = again.event();
    assert_eq!((event.data.as_str(), position(&event.id)), ("after", (position(&at).0, 2)));
}

#[test]
fn what_can_not_be_had_is_told_in_the_head_and_as_the_first_event() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut first = Stream::open(&server, "/sse/t");
    for payload in ["1", "2", "3"] {
        server.publish("t", payload.as_bytes());
    }
    let ids: Vec<String> = (0..3).map(|_| first.event().id).collect();
    let (epoch, _) = position(&ids[0]);
    let ahead = format!("{epoch:016x}:99");
    let other = format!("{:016x}:2", epoch ^ 1);
    for (asked, kind) in [
        (ids[0].as_str(), "expired"),
        (&ahead, "ahead"),
        (&other, "other_epoch"),
        ("of another server", "other_epoch"),
    ] {
        let mut stream = Stream::ask(&server, "/sse/t", &format!("Last-Event-ID: {asked}\r\n"));
        assert_eq!(stream.answer.field("fantail-gap"), Some(format!("{kind}; oldest=4").as_str()), "{asked}");
        assert_eq!(stream.answer.field("fantail-position"), Some(ids[2].as_str()));
        let gap = stream.event();
        assert_eq!((gap.kind.as_str(), gap.id.as_str()), ("gap", ids[2].as_str()), "{asked}");
        assert_eq!(gap.data, format!("{{\"topic\":\"t\",\"kind\":\"{kind}\",\"oldest\":4}}"));
    }
    // By the URL, too; a slip there is refused.
    let by_url = Stream::open(&server, &format!("/sse/t?since={}", ids[1]));
    assert_eq!(by_url.answer.field("fantail-gap"), Some("expired; oldest=4"));
    assert_eq!(Stream::open(&server, "/sse/t?since=7").answer.status, 400);
}

#[test]
fn several_topics_are_one_stream_that_goes_on_in_each() {
    let server = Server::start(&["--loops", "2"], &[]);
    let path = "/sse/a?topic=error&topic=%E4%B8%96";
    let mut stream = Stream::open(&server, path);
    let begin: Vec<_> = stream.reader.last_id.split(',').map(position).collect();
    assert_eq!(begin.len(), 3);
    for (number, (name, at)) in
        [("a", [1, 0, 0]), ("error", [1, 1, 0]), ("a", [2, 1, 0]), ("世", [2, 1, 1])].iter().enumerate()
    {
        let target = name.replace('世', "%E4%B8%96");
        assert_eq!(server.publish(&target, format!("{number}\nx").as_bytes()).status, 200);
        let event = stream.event();
        assert_eq!((event.kind, event.data), (format!("topic:{name}"), format!("{number}\nx")));
        let places: Vec<_> = event.id.split(',').map(position).collect();
        assert!(places.iter().zip(&begin).all(|(place, begin)| place.0 == begin.0), "{places:?}");
        assert_eq!(places.iter().map(|place| place.1).collect::<Vec<_>>(), at);
    }
    assert_eq!(server.publish("error?binary=1", b"\0").status, 200);
    assert_eq!(stream.event().kind, "binary:error");
    let last = stream.reader.last_id.clone();
    drop(stream);
    server.publish("a", b"missed");
    let mut again = Stream::ask(&server, path, &format!("Last-Event-ID: {last}\r\n"));
    assert_eq!(again.answer.field("fantail-gap"), Some("expired; oldest=4, none, none"));
    let gap = again.event();
    assert_eq!(
        (gap.kind.as_str(), gap.data.as_str()),
        ("gap", "{\"topic\":\"a\",\"kind\":\"expired\",\"oldest\":4}")
    );
    server.publish("error", b"on");
    let event = again.event();
    assert_eq!((event.kind.as_str(), event.data.as_str()), ("topic:error", "on"));
    let places: Vec<_> = event.id.split(',').map(|place| position(place).1).collect();
    assert_eq!(places, [3, 3, 1]);
    let too_many: String = (0..16).map(|number| format!("topic=t{number}&")).collect();
    assert_eq!(
        Stream::open(&server, &format!("/sse/a?{}", too_many.trim_end_matches('&'))).answer.status,
        400
    );
}

#[test]
fn who_comes_back_to_a_topic_that_remembers_misses_nothing_and_gets_nothing_twice() {
    let config = ConfigFile::new("[[topic]]\npattern = \"h*\"\nhistory_messages = 100000\n");
    let server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]));
    let lines = |topic: &str, numbers: std::ops::Range<usize>| -> String {
        numbers
            .map(|number| {
                serde_json::json!({ "topic": topic, "payload": number.to_string() }).to_string() + "\n"
            })
            .collect()
    };
    for path in ["/sse/h", "/sse/h?topic=h2"] {
        let total = 3_000;
        let mut stream = Stream::open(&server, path);
        let (mut seen, mut others, mut breaks) = (Vec::new(), 0, 0);
        let admin = server.admin;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for first in (0..total).step_by(20) {
                    publish_lines(admin, &(lines("h", first..first + 20) + &lines("h2", first..first + 1)));
                }
            });
            while seen.len() < total || (path.contains('?') && others < total / 20) {
                let event = stream.event();
                assert_ne!(event.kind, "gap", "{}", event.data);
                if event.kind == "topic:h2" {
                    others += 1;
                } else {
                    seen.push(event.data);
                }
                if (seen.len() + others) % 317 == 0 {
                    // In the middle of whatever comes.
                    let last = format!("Last-Event-ID: {}\r\n", stream.reader.last_id);
                    stream = Stream::ask(&server, path, &last);
                    assert_eq!(stream.answer.field("fantail-gap"), None);
                    breaks += 1;
                }
            }
        });
        let expected: Vec<String> = (0..total).map(|number| number.to_string()).collect();
        assert!(seen == expected, "{path}: {} messages, not each once and in order", seen.len());
        assert!(breaks > 8, "{breaks}");
    }
}
