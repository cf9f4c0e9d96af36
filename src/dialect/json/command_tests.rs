//! What is a command, what is none, and what is said of it.

use super::*;

fn named(names: &[&str]) -> Vec<Wanted> {
    names.iter().map(|name| wanted(name).unwrap()).collect()
}

fn good(message: &str) -> Command<'_> {
    read(message).unwrap_or_else(|bad| panic!("{message}: {bad:?}"))
}

fn bad(message: &str) -> (Option<&str>, String) {
    match read(message) {
        Err(Bad { id, text }) => (id, text.into_owned()),
        Ok(command) => panic!("{message} was taken: {command:?}"),
    }
}

#[test]
fn commands_are_read_whatever_the_order_of_their_members() {
    let begin = |id, names: &[&str], since| {
        let what = What::Subscribe { topics: named(names), since };
        Command { id, what }
    };
    let subscribe = |id, names: &[&str]| begin(id, names, Since::Now);
    let after = Since::After(Position { epoch: 0xab, offset: 7 });
    let read_from = |from, limit| {
        let what = What::History { topic: TopicName::of("a"), from, limit };
        Command { id: None, what }
    };
    let says = |state: Option<&str>, seconds| {
        let what = What::State { topic: TopicName::of("a"), state: state.map(Box::from), seconds };
        Command { id: None, what }
    };
    for (message, command) in [
        (r#"{"type":"subscribe","id":1,"topic":"a"}"#, subscribe(Some("1"), &["a"])),
        (r#" {"topic":"a/\u00e9","id":"x","type":"subscribe"} "#, subscribe(Some("\"x\""), &["a/é"])),
        (r#"{"topics":["a","b"],"\u0074ype":"subscribe"}"#, subscribe(None, &["a", "b"])),
        (r#"{"type":"subscribe","topic":"a/*"}"#, subscribe(None, &["a/*"])),
        (r#"{"type":"subscribe","topics":["a","**"]}"#, subscribe(None, &["a", "**"])),
        (
            r#"{"type":"unsubscribe","topic":"a/*/b"}"#,
            Command { id: None, what: What::Unsubscribe(named(&["a/*/b"])) },
        ),
        (r#"{"type":"subscribe","topic":"a","since":"00000000000000ab:7"}"#, begin(None, &["a"], after)),
        (
            r#"{"type":"subscribe","topics":["a","b"],"history":10}"#,
            begin(None, &["a", "b"], Since::Last(10)),
        ),
        (
            r#"{"type":"unsubscribe","topic":"a"}"#,
            Command { id: None, what: What::Unsubscribe(named(&["a"])) },
        ),
        (r#"{"type":"history","topic":"a"}"#, read_from(PageFrom::Since(Since::Last(u32::MAX)), 100)),
        (
            r#"{"type":"history","topic":"a","since":"00000000000000ab:7","limit":0}"#,
            read_from(PageFrom::Since(after), 0),
        ),
        (
            r#"{"type":"history","topic":"a","reverse":true,"limit":1000}"#,
            read_from(PageFrom::Newest(None), 1_000),
        ),
        (
            r#"{"type":"state","topic":"a","state":{ "a b" : "c \" \\" , "d":[1,
                null]},"seconds":5}"#,
            says(Some(r#"{"a b":"c \" \\","d":[1,null]}"#), Some(5)),
        ),
        (r#"{"type":"state","topic":"a","state":"typing"}"#, says(Some("\"typing\""), None)),
        (r#"{"type":"state","topic":"a","state":null}"#, says(None, None)),
        (r#"{"type":"ping","id":-7}"#, Command { id: Some("-7"), what: What::Ping }),
    ] {
        assert_eq!(good(message), command, "{message}");
    }
}

#[test]
fn what_is_published_is_a_piece_of_the_command_unless_it_is_escaped() {
    let payload = |data: &str| match good(&format!("{{\"type\":\"publish\",\"topic\":\"t\",{data}}}")).what {
        What::Publish { payload: Payload::Text(Cow::Borrowed(text)), .. } => (text.as_bytes().to_vec(), true),
        What::Publish { payload: Payload::Text(Cow::Owned(text)), .. } => (text.into_bytes(), false),
        What::Publish { payload: Payload::Binary(bytes), .. } => (bytes, false),
        other => panic!("{other:?}"),
    };
    for (data, bytes, is_piece) in [
        (r#""data": {"a" : [1, 2]} "#, &br#"{"a" : [1, 2]}"#[..], true),
        (r#""data":[]"#, b"[]", true),
        (r#""data":"plain""#, b"plain", true),
        (r#""data":"""#, b"", true),
        (r#""data":"a\n\ud83d\ude00""#, "a\n\u{1f600}".as_bytes(), false),
        (r#""data":"{\"a\":1}""#, br#"{"a":1}"#, false),
        (r#""data_base64":"AP8=""#, b"\x00\xff", false),
        (r#""data_base64":"""#, b"", false),
    ] {
        assert_eq!(payload(data), (bytes.to_vec(), is_piece), "{data}");
    }
}

#[test]
fn ids_come_back_as_they_were_written() {
    let longest = format!("\"{}\"", "x".repeat(64));
    for id in ["0", "-0", "00", "1", "18446744073709551616000", "\"\"", "\"\\u00e9 \\\"\"", &longest] {
        let message = format!("{{\"type\":\"ping\",\"id\":{id}}}");
        match read(&message) {
            Ok(command) => {
                assert_eq!(command.id, Some(id));
                assert!(serde_json::from_str::<serde_json::Value>(id).is_ok(), "{id}");
            }
            Err(_) => assert_eq!(id, "00", "no JSON at all"),
        }
    }
    for id in ["1.0", "1e3", "null", "true", "[]", "{}", "\"\\ud800\""] {
        let message = format!("{{\"type\":\"ping\",\"id\":{id}}}");
        assert_eq!(bad(&message), (None, "id is a string or a whole number".into()), "{id}");
    }
    for id in [format!("\"{}\"", "x".repeat(65)), "1".repeat(67), format!("\"{}\"", "\\n".repeat(33))] {
        let message = format!("{{\"type\":\"ping\",\"id\":{id}}}");
        assert_eq!(bad(&message), (None, "id has more than 64 bytes".into()), "{id}");
    }
}

#[test]
fn slips_are_told_with_their_nearest_and_their_id() {
    for (message, says) in [
        (
            r#"{"id":7,"type":"subscibe","topic":"a"}"#,
            "unknown type \"subscibe\"; did you mean \"subscribe\"?",
        ),
        (r#"{"id":7,"type":"dance"}"#, "unknown type \"dance\"; expects subscribe, unsubscribe"),
        (r#"{"id":7,"topic":"a"}"#, "type is missing; it is one of subscribe"),
        (r#"{"id":7,"type":1}"#, "type is missing"),
        (r#"{"id":7,"type":"subscribe","topik":"a"}"#, "unknown member \"topik\"; did you mean \"topic\"?"),
        (r#"{"id":7,"type":"ping","topic":"a"}"#, "unknown member \"topic\"; expects type, id"),
        (
            r#"{"id":7,"type":"subscribe","topic":"a","data":1}"#,
            "unknown member \"data\"; expects type, id, topic",
        ),
        (r#"{"id":7,"type":"subscribe"}"#, "topic is missing"),
        (r#"{"id":7,"type":"subscribe","topic":1}"#, "topic is a string"),
        (r#"{"id":7,"type":"subscribe","topic":""}"#, "a topic name has 1 to 200 bytes"),
        (r#"{"id":7,"type":"subscribe","topic":"a*"}"#, "in a pattern * stands for one whole level"),
        (r#"{"id":7,"type":"unsubscribe","topic":"**/a"}"#, "in a pattern * stands for one whole level"),
        (r#"{"id":7,"type":"subscribe","topics":["a","*/b*"]}"#, "in a pattern * stands for one whole level"),
        (r#"{"id":7,"type":"subscribe","topic":"a/*","history":1}"#, "a pattern has no place"),
        (r#"{"id":7,"type":"subscribe","topics":["a","b/*"],"history":1}"#, "a pattern has no place"),
        (
            r#"{"id":7,"type":"subscribe","topic":"a/*","since":"00000000000000ab:7"}"#,
            "a pattern has no place",
        ),
        (r#"{"id":7,"type":"publish","topic":"a/*","data":""}"#, "a topic name has no control characters"),
        (r#"{"id":7,"type":"history","topic":"a/*"}"#, "a topic name has no control characters"),
        (r#"{"id":7,"type":"subscribe","topic":"a","topics":["b"]}"#, "topic and topics are both there"),
        (r#"{"id":7,"type":"subscribe","topics":[]}"#, "topics is empty"),
        (r#"{"id":7,"type":"subscribe","topics":"a"}"#, "topics is a list of strings"),
        (r#"{"id":7,"type":"subscribe","topics":["a",1]}"#, "topics is a list of strings"),
        (r#"{"id":7,"type":"subscribe","topics":["a",""]}"#, "a topic name has 1 to 200 bytes"),
        (r#"{"id":7,"type":"subscribe","topic":"a","since":"7"}"#, "a position is EPOCH:OFFSET"),
        (r#"{"id":7,"type":"subscribe","topic":"a","since":7}"#, "since is a string"),
        (
            r#"{"id":7,"type":"subscribe","topic":"a","since":"00000000000000ab:7","history":1}"#,
            "since and history",
        ),
        (
            r#"{"id":7,"type":"subscribe","topics":["a"],"since":"00000000000000ab:7"}"#,
            "since is a place in one",
        ),
        (r#"{"id":7,"type":"subscribe","topic":"a","history":-1}"#, "history is a whole number"),
        (r#"{"id":7,"type":"subscribe","topic":"a","history":1.5}"#, "history is a whole number"),
        (r#"{"id":7,"type":"subscribe","topic":"a","history":4294967296}"#, "history is a whole number"),
        (r#"{"id":7,"type":"history"}"#, "topic is missing"),
        (r#"{"id":7,"type":"history","topic":"a","limit":1001}"#, "limit is a whole number up to 1000"),
        (r#"{"id":7,"type":"history","topic":"a","limit":-1}"#, "limit is a whole number up to 1000"),
        (r#"{"id":7,"type":"history","topic":"a","limit":"1"}"#, "limit is a whole number up to 1000"),
        (r#"{"id":7,"type":"history","topic":"a","reverse":1}"#, "reverse is true or false"),
        (
            r#"{"id":7,"type":"history","topic":"a","reverse":true,"since":"00000000000000ab:7"}"#,
            "reverse begins",
        ),
        (r#"{"id":7,"type":"history","topics":["a"]}"#, "unknown member \"topics\"; did you mean \"topic\"?"),
        (r#"{"id":7,"type":"subscribe","topic":"a","topic":"b"}"#, "topic is there twice"),
        (r#"{"id":7,"type":"ping","type":"ping"}"#, "type is there twice"),
        (r#"{"id":7,"type":"publish","topic":"a"}"#, "data is missing"),
        (r#"{"id":7,"type":"publish","topic":"a","data":1}"#, "data is an object, a list or a string"),
        (r#"{"id":7,"type":"publish","topic":"a","data":null}"#, "data is an object, a list or a string"),
        (r#"{"id":7,"type":"publish","topic":"a","data":"\ud800"}"#, "data has half of a surrogate pair"),
        (r#"{"id":7,"type":"publish","topic":"a","data":["\ud800"]}"#, "data is nested deeper than 64, or"),
        (r#"{"id":7,"type":"publish","topic":"a","data":[1e999]}"#, "data is nested deeper than 64, or"),
        (
            r#"{"id":7,"type":"publish","topic":"a","data":"","data_base64":""}"#,
            "data and data_base64 are both",
        ),
        (r#"{"id":7,"type":"publish","topic":"a","data_base64":"AP8"}"#, "data_base64 is not base64"),
        (r#"{"id":7,"type":"publish","topic":"a","data_base64":1}"#, "data_base64 is a string"),
        (r#"{"id":7,"type":"state","topic":"a"}"#, "state is missing; null ends it"),
        (r#"{"id":7,"type":"state","state":1}"#, "topic is missing"),
        (r#"{"id":7,"type":"state","topic":"a/*","state":1}"#, "a topic name has no control characters"),
        (r#"{"id":7,"type":"state","topic":"a","state":1e999}"#, "state is nested deeper than 64, or"),
        (r#"{"id":7,"type":"state","topic":"a","state":"\ud800"}"#, "state is nested deeper than 64, or"),
        (
            r#"{"id":7,"type":"state","topic":"a","state":1,"seconds":0}"#,
            "seconds is a whole number from 1 to 3600",
        ),
        (
            r#"{"id":7,"type":"state","topic":"a","state":1,"seconds":3601}"#,
            "seconds is a whole number from 1",
        ),
        (
            r#"{"id":7,"type":"state","topic":"a","state":null,"seconds":1}"#,
            "a state that ends has no seconds",
        ),
    ] {
        let (id, text) = bad(message);
        assert_eq!(id, Some("7"), "{message}");
        assert!(text.starts_with(says), "{message}: {text}");
    }
    assert_eq!(bad(r#"{"id":7,"id":7,"type":"ping"}"#).1, "id is there twice");
}

#[test]
fn what_is_no_object_is_told_briefly_however_long_or_deep() {
    let deep = "[".repeat(500_000);
    let long = format!("\"{}\"", "x".repeat(500_000));
    let named = format!("{{\"type\":\"ping\",\"{}\":1}}", "y".repeat(500_000));
    let typed = format!("{{\"type\":\"{}\"}}", "z".repeat(500_000));
    let nested = format!("{{\"type\":\"ping\",\"other\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let data = format!(
        "{{\"type\":\"publish\",\"topic\":\"a\",\"data\":{}{}}}",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    let said = format!("{{\"type\":\"state\",\"topic\":\"a\",\"state\":\"{}\"}}", "x".repeat(1_023));
    let many = format!("{{\"type\":\"subscribe\",\"topics\":[{}\"a\"]}}", "\"a\",".repeat(100_000));
    for (message, says) in [
        ("", "not JSON at line 1, column 0"),
        ("subscribe", "not JSON at line 1"),
        ("{\"type\":\"ping\"", "not JSON at line 1"),
        ("{\"type\":\"ping\"}{}", "more follows behind the object"),
        ("{\"type\":\"ping\"}\0", "more follows behind the object"),
        ("[]", "a command is a JSON object"),
        ("null", "a command is a JSON object"),
        (&deep, "a command is a JSON object"),
        (&long, "a command is a JSON object"),
        (&named, "unknown member \"yyy"),
        (&typed, "unknown type \"zzz"),
        (&nested, "unknown member \"other\""),
        (&data, "data is nested deeper than 64"),
        (&many, "topics names more than 256"),
        (&said, "state has more than 1024 bytes"),
    ] {
        let (_, text) = bad(message);
        let shown = message.get(..60).unwrap_or(message);
        assert!(text.starts_with(says), "{shown}: {text}");
        assert!(text.len() < 200 && !text.contains('\n'), "{shown}: {text}");
    }
}
