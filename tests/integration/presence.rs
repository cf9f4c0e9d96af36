//! `presence` of a topic rule over real connections: a list and its events agree, however members come and go.

use std::collections::BTreeSet;

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::bearers::{SECRET, Secret, token};
use crate::client::{Peer, assert_upgraded};
use crate::json::{hear, say, speaker};
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports, wait_for};
use crate::sse::{Event, Stream};

const RULES: &str = "[[topic]]\npattern = \"people\"\npresence = \"full\"\npresence_grace_seconds = 0\n\
                     presence_interval_ms = 100\n\
                     [[topic]]\npattern = \"crowd\"\npresence = \"counts\"\npresence_grace_seconds = 0\n\
                     [[topic]]\npattern = \"desk\"\npresence = \"full\"\npresence_grace_seconds = 0\n\
                     presence_interval_ms = 100\npresence_state_seconds = 3600\n\
                     [[topic]]\npattern = \"held\"\npresence = \"full\"\npresence_grace_seconds = 3600\n";

fn start(config: &ConfigFile) -> Server {
    Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]))
}

fn ask(peer: &mut Peer, command: &Value) -> Value {
    say(peer, command);
    hear(peer)
}

/// What somebody knows of a topic who has asked for its list and its events.
struct Observer {
    peer: Peer,
    epoch: String,
    version: u64,
    members: BTreeSet<String>,
}

impl Observer {
    fn new(server: &Server, topic: &str) -> Self {
        Self::of(speaker(server, "/ws"), topic)
    }

    fn of(mut peer: Peer, topic: &str) -> Self {
        let answer = ask(&mut peer, &json!({"type": "presence", "id": 1, "topic": topic, "events": true}));
        assert_eq!(
            (&answer["type"], &answer["id"], &answer["topic"]),
            (&json!("presence"), &json!(1), &json!(topic))
        );
        let (epoch, version) = place(&answer);
        let members: BTreeSet<String> = ids(&answer).into_iter().collect();
        assert_eq!(answer["count"], members.len());
        Self { peer, epoch, version, members }
    }

    /// Reads events until the list is as is wanted.
    fn until(&mut self, wanted: impl Fn(&BTreeSet<String>) -> bool) {
        while !wanted(&self.members) {
            let event = hear(&mut self.peer);
            assert_eq!((&event["type"], event.get("id")), (&json!("presence"), None), "{event}");
            assert_eq!(place(&event), (self.epoch.clone(), self.version + 1), "no hole");
            self.version += 1;
            let named =
                |member: &str| event[member].as_array().into_iter().flatten().filter_map(Value::as_str);
            for joined in named("joined") {
                assert!(self.members.insert(joined.to_owned()), "{event}");
            }
            for left in named("left") {
                assert!(self.members.remove(left), "{event}");
            }
            assert_eq!(event["count"], self.members.len(), "{event}");
        }
    }

    fn until_count(&mut self, count: usize) {
        self.until(|members| members.len() == count);
    }
}

fn place(told: &Value) -> (String, u64) {
    let version = told["version"].as_str().expect("a version");
    let (epoch, offset) = version.split_once(':').expect("EPOCH:OFFSET");
    (epoch.to_owned(), offset.parse().expect("an offset"))
}

fn ids(told: &Value) -> Vec<String> {
    let members = told["members"].as_array().expect("a list");
    members.iter().map(|member| member["id"].as_str().expect("an id").to_owned()).collect()
}

fn listed(server: &Server, query: &str) -> Value {
    let answer = server.get(&format!("/presence?{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn stream(server: &Server, path: &str) -> Peer {
    let mut peer = server.connect();
    peer.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
    peer.some();
    peer
}

#[test]
fn whoever_reads_the_list_and_every_event_knows_who_is_there() {
    let config = ConfigFile::new(RULES);
    let server = start(&config);
    let mut observer = Observer::new(&server, "people");
    assert!(observer.members.is_empty());
    // Patterns are no way to events, nor onto the list.
    let mut pattern = speaker(&server, "/ws/**");
    hear(&mut pattern);
    let mut plain = server.websocket("/ws/people");
    observer.until_count(1);
    let mut json = speaker(&server, "/ws/other");
    hear(&mut json);
    assert_eq!(ask(&mut json, &json!({"type": "subscribe", "topic": "people"}))["type"], "subscribed");
    let streaming = stream(&server, "/sse/people");
    let many = stream(&server, "/sse/other?topic=people");
    let gone = server.websocket("/ws/people");
    observer.until_count(5);
    // A second reader, who comes later and reads the list in pages.
    let mut late = Observer::new(&server, "people");
    assert_eq!((&late.members, late.version), (&observer.members, observer.version));
    let page = |query: &str| ids(&listed(&server, &format!("topic=people{query}")));
    let all: Vec<String> = observer.members.iter().cloned().collect();
    assert_eq!(page(""), all);
    assert_eq!(page("&limit=2"), all[..2]);
    assert_eq!(listed(&server, "topic=people&limit=2")["next"], all[1]);
    assert_eq!(page(&format!("&after={}", all[1].replace('~', "%7E"))), all[2..]);
    assert_eq!(listed(&server, "topic=people&limit=0")["count"], 5);
    assert_eq!(server.metric("fantail_presence_members", ""), 5);
    // Connections end in all ways that there are.
    plain.send_frame(Opcode::Close, &[3, 232]);
    assert_eq!(plain.frame().close_code(), Some(1000));
    observer.until_count(4);
    drop(gone);
    observer.until_count(3);
    drop(streaming);
    observer.until_count(2);
    drop(many);
    observer.until_count(1);
    assert_eq!(ask(&mut json, &json!({"type": "unsubscribe", "topic": "people"}))["type"], "unsubscribed");
    observer.until_count(0);
    late.until_count(0);
    assert_eq!(late.version, observer.version);
    server.await_metric("fantail_presence_members", "", |members| members == 0);
    server.await_metric("fantail_presence_bytes", "", |bytes| bytes == 0);
    assert_eq!(server.publish("other", b"the only message").status, 200);
    assert_eq!(hear(&mut pattern)["topic"], "other", "patterns mean no events");
}

#[test]
fn whom_the_operator_closes_leaves() {
    let config = ConfigFile::new(RULES);
    let server = start(&config);
    let mut observer = Observer::new(&server, "people");
    let _plain = server.websocket("/ws/people");
    let _other = server.websocket("/ws/people");
    observer.until_count(2);
    assert_eq!(server.post("/connections/close?topic=people", "", b"").status, 200);
    observer.until_count(0);
}

#[test]
fn events_come_on_demand_and_end_on_demand() {
    let config = ConfigFile::new(RULES);
    let server = start(&config);
    let mut peer = speaker(&server, "/ws/people");
    hear(&mut peer);
    wait_for("the list", || listed(&server, "topic=people")["count"] == 1);
    let quiet = ask(&mut peer, &json!({"type": "presence", "topic": "people"}));
    assert_eq!((quiet.get("id"), &quiet["count"]), (None, &json!(1)));
    assert_eq!(ids(&quiet), [quiet["self"].as_str().expect("its own id")]);
    let begun = ask(&mut peer, &json!({"type": "presence", "topic": "people", "events": true, "limit": 0}));
    assert_eq!((ids(&begun).len(), &begun["count"]), (0, &json!(1)));
    let other = server.websocket("/ws/people");
    let event = hear(&mut peer);
    assert_eq!((event["joined"].as_array().map(Vec::len), &event["count"]), (Some(1), &json!(2)));
    // Asked again, it goes on as it was.
    let again = ask(&mut peer, &json!({"type": "presence", "id": "x", "topic": "people", "events": true}));
    assert_eq!(
        (&again["id"], &again["count"], &again["version"]),
        (&json!("x"), &json!(2), &event["version"])
    );
    let ended = ask(&mut peer, &json!({"type": "presence", "id": 3, "topic": "people", "events": false}));
    assert_eq!((&ended["id"], &ended["count"]), (&json!(3), &json!(2)));
    drop(other);
    wait_for("the list", || listed(&server, "topic=people")["count"] == 1);
    assert_eq!(ask(&mut peer, &json!({"type": "ping"}))["type"], "pong", "nothing of that was told");
}

#[test]
fn events_end_with_a_subscription_that_is_ended_and_where_nobody_may_ask_for_them_any_more() {
    let config = ConfigFile::new(RULES);
    let server = start(&config);
    let mut peer = speaker(&server, "/ws/people");
    hear(&mut peer);
    let begin = json!({"type": "presence", "id": 1, "topic": "people", "events": true, "limit": 0});
    wait_for("the list", || listed(&server, "topic=people")["count"] == 1);
    assert_eq!(ask(&mut peer, &begin)["id"], 1);
    let unsubscribe = || server.post("/connections/unsubscribe?topic=people", "", b"").json();
    let subscriptions_end = || server.await_metric("fantail_subscriptions", "", |left| left == 0);
    assert_eq!(unsubscribe(), json!({"unsubscribed": 1}));
    assert_eq!(hear(&mut peer)["type"], "unsubscribed");
    subscriptions_end();
    // Who has nothing but the events is meant, too.
    server.await_metric("fantail_presence_members", "", |members| members == 0);
    assert_eq!(ask(&mut peer, &begin)["id"], 1);
    assert_eq!(unsubscribe(), json!({"unsubscribed": 1}));
    assert_eq!(hear(&mut peer)["type"], "unsubscribed");
    subscriptions_end();
    assert_eq!(ask(&mut peer, &begin)["id"], 1);
    config.write("");
    assert_eq!(server.post("/reload", "", b"").status, 200);
    // A loop takes new rules in its next turn.
    let look = json!({"type": "presence", "topic": "people", "limit": 0});
    wait_for("the rule", || ask(&mut peer, &look)["code"] == "no_presence");
    let end = json!({"type": "presence", "id": 2, "topic": "people", "events": false});
    assert_eq!(ask(&mut peer, &end)["code"], "no_presence");
    subscriptions_end();
}

#[test]
fn connections_of_one_bearer_are_one_member() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&format!("{RULES}{}", secret.issuer("")));
    let server = start(&config);
    let come = |sub: &str, path: &str| {
        let mut peer = server.connect();
        let field = format!(
            "Authorization: Bearer {}\r\nSec-WebSocket-Protocol: fantail.json.v1\r\n",
            token(sub, "")
        );
        assert_upgraded(&peer.ask_upgrade(path, &field));
        peer
    };
    let mut observer = Observer::of(come("observer", "/ws"), "people");
    let first = come("alice", "/ws/people");
    let mut second = come("alice", "/ws");
    assert_eq!(ask(&mut second, &json!({"type": "subscribe", "topic": "people"}))["type"], "subscribed");
    let _bob = come("~bob", "/ws/people");
    let both = ["alice", "~~bob"].map(str::to_owned);
    observer.until_count(2);
    assert!(observer.members.iter().eq(&both), "{:?}", observer.members);
    // One of two goes, and then somebody else comes: that is all that is told.
    drop(first);
    server.await_metric("fantail_subscriptions", "", |subscriptions| subscriptions == 3);
    let carol = come("carol", "/ws/people");
    observer.until_count(3);
    assert!(observer.members.contains("alice") && observer.members.contains("carol"));
    let page = ask(&mut second, &json!({"type": "presence", "topic": "people"}));
    assert_eq!((&page["self"], page["count"].as_u64()), (&json!("alice"), Some(3)));
    assert_eq!(ask(&mut second, &json!({"type": "unsubscribe", "topic": "people"}))["type"], "unsubscribed");
    observer.until_count(2);
    assert!(!observer.members.contains("alice"));
    let gone = ask(&mut second, &json!({"type": "presence", "topic": "people"}));
    assert_eq!((gone.get("self"), gone["count"].as_u64()), (None, Some(2)));
    drop(carol);
    observer.until_count(1);
}

#[test]
fn what_a_member_says_of_itself_is_told_to_all_until_it_ends() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&format!("{RULES}{}", secret.issuer("")));
    let server = start(&config);
    let come = |sub: &str, path: &str| {
        let mut peer = server.connect();
        let field = format!(
            "Authorization: Bearer {}\r\nSec-WebSocket-Protocol: fantail.json.v1\r\n",
            token(sub, "")
        );
        assert_upgraded(&peer.ask_upgrade(path, &field));
        if path != "/ws" {
            hear(&mut peer);
        }
        peer
    };
    let mut first = come("alice", "/ws/desk");
    let mut second = come("alice", "/ws/desk");
    wait_for("the list", || listed(&server, "topic=desk")["count"] == 1);
    let mut reader = come("observer", "/ws");
    let begun = ask(&mut reader, &json!({"type": "presence", "id": 1, "topic": "desk", "events": true}));
    assert_eq!(begun["members"], json!([{"id": "alice"}]));
    let says = |state: Value| json!({"type": "state", "topic": "desk", "state": state});
    let told = |reader: &mut Peer, state: Value| {
        let event = hear(reader);
        assert_eq!(
            (&event["states"], &event["count"]),
            (&json!([{"id": "alice", "state": state}]), &json!(1))
        );
    };
    // With an id it is answered, without one it is not.
    let named = json!({"type": "state", "id": 2, "topic": "desk", "state": {"typing": [true, " \r\n"]}});
    assert_eq!(ask(&mut first, &named), json!({"type": "state", "id": 2, "topic": "desk"}));
    told(&mut reader, named["state"].clone());
    say(&mut second, &says(json!("away")));
    told(&mut reader, json!("away"));
    assert_eq!(listed(&server, "topic=desk")["members"], json!([{"id": "alice", "state": "away"}]));
    let page = ask(&mut second, &json!({"type": "presence", "topic": "desk"}));
    assert_eq!(page["members"], json!([{"id": "alice", "state": "away"}]));
    assert_eq!(server.metric("fantail_presence_states", ""), 1);
    // It is the member's: who said it may go.
    drop(second);
    server.await_metric("fantail_subscriptions", "", |left| left == 2);
    say(&mut first, &says(Value::Null));
    told(&mut reader, Value::Null);
    // It ends by itself.
    say(&mut first, &json!({"type": "state", "topic": "desk", "state": 1, "seconds": 1}));
    told(&mut reader, json!(1));
    told(&mut reader, Value::Null);
    // And with the member.
    say(&mut first, &says(json!(2)));
    told(&mut reader, json!(2));
    drop(first);
    let gone = hear(&mut reader);
    assert_eq!((&gone["left"], gone.get("states")), (&json!(["alice"]), None));
    server.await_metric("fantail_presence_states", "", |states| states == 0);
    server.await_metric("fantail_presence_bytes", "", |bytes| bytes == 0);
}

#[test]
fn a_state_is_refused_to_who_may_not_have_one() {
    let config = ConfigFile::new(RULES);
    let server = start(&config);
    let mut peer = speaker(&server, "/ws/desk?topic=people&topic=crowd");
    (0..3).for_each(|_| drop(hear(&mut peer)));
    for (topic, code) in [("people", "no_state"), ("crowd", "no_state"), ("other", "not_listed")] {
        let told = ask(&mut peer, &json!({"type": "state", "id": 1, "topic": topic, "state": 1}));
        assert_eq!(
            (&told["type"], &told["code"], &told["topic"]),
            (&json!("error"), &json!(code), &json!(topic))
        );
    }
    for bad in [
        json!({"type": "state", "topic": "desk"}),
        json!({"type": "state", "topic": "desk", "state": "x".repeat(1_023)}),
        json!({"type": "state", "topic": "*presence:desk", "state": 1}),
        json!({"type": "state", "topic": "desk", "state": 1, "seconds": 3_601}),
    ] {
        assert_eq!(ask(&mut peer, &bad)["code"], "bad_command", "{bad}");
    }
    let largest = json!({"type": "state", "id": 2, "topic": "desk", "state": "x".repeat(1_022)});
    assert_eq!(ask(&mut peer, &largest)["type"], "state");
    // However slow the machine is, of so many some come within one second of the one before.
    let burst = vec![largest; 300];
    burst.iter().for_each(|command| say(&mut peer, command));
    let refused = (0..burst.len()).filter(|_| hear(&mut peer)["code"] == "state_rate").count();
    assert!(refused > 0);
    assert_eq!(server.metric("fantail_presence_states_refused_total", ""), refused as u64);
}

/// What somebody knows who reads an event stream of "people".
struct Reader {
    stream: Stream,
    version: String,
    members: BTreeSet<String>,
    last_id: String,
}

impl Reader {
    fn of(mut stream: Stream) -> Self {
        assert_eq!(stream.answer.status, 200);
        let Event { kind, data, id } = stream.event();
        let list: Value = serde_json::from_str(&data).expect("JSON");
        assert_eq!(
            (kind.as_str(), &list["type"], &list["topic"]),
            ("presence", &json!("presence"), &json!("people"))
        );
        assert!(list["self"].as_str().is_some_and(|own| own.starts_with('~')), "{data}");
        let members: BTreeSet<String> = ids(&list).into_iter().collect();
        assert_eq!(list["count"], members.len());
        let version = list["version"].as_str().expect("a version").to_owned();
        assert!(id.ends_with(&format!(",{version}")), "{id}");
        Self { stream, version, members, last_id: id }
    }

    /// Comes back with what it has seen last.
    fn come_back(&mut self, server: &Server) {
        let field = format!("Last-Event-ID: {}\r\n", self.last_id);
        self.stream = Stream::ask(server, "/sse/people?presence=1", &field);
    }

    /// The next event, which is of who comes and goes.
    fn step(&mut self) {
        let Event { kind, data, id } = self.stream.event();
        let event: Value = serde_json::from_str(&data).expect("JSON");
        let ((epoch, before), told) = (place(&json!({ "version": self.version })), place(&event));
        assert_eq!((kind.as_str(), told), ("presence", (epoch, before + 1)), "no hole: {data}");
        let named = |member: &str| event[member].as_array().cloned().unwrap_or_default();
        for joined in named("joined") {
            assert!(self.members.insert(joined.as_str().expect("an id").to_owned()), "{data}");
        }
        for left in named("left") {
            assert!(self.members.remove(left.as_str().expect("an id")), "{data}");
        }
        assert_eq!((&event["count"], &event["type"]), (&json!(self.members.len()), &json!("presence")));
        self.version = event["version"].as_str().expect("a version").to_owned();
        assert!(id.ends_with(&format!(",{}", self.version)), "{id}");
        self.last_id = id;
    }

    /// Reads until it knows so many.
    fn until_count(&mut self, count: usize) {
        while self.members.len() != count {
            self.step();
        }
    }
}

#[test]
fn a_stream_tells_who_is_there_and_goes_on_where_its_reader_was() {
    let config = ConfigFile::new(RULES);
    let server = start(&config);
    let first = server.websocket("/ws/people");
    wait_for("the list", || listed(&server, "topic=people")["count"] == 1);
    let mut reader = Reader::of(Stream::open(&server, "/sse/people?presence=1"));
    // Itself among them.
    reader.until_count(2);
    assert_eq!(server.publish("people", b"a message").status, 200);
    let message = reader.stream.event();
    assert_eq!((message.kind.as_str(), message.data.as_str()), ("topic:people", "a message"));
    assert!(message.id.ends_with(&format!(":1,{}", reader.version)), "{}", message.id);
    reader.last_id = message.id;
    let _second = server.websocket("/ws/people");
    reader.until_count(3);
    // While it is away somebody comes and somebody goes, and it is somebody else when it is back: all that is told to it, as
    // if it had never been away.
    let before = reader.members.clone();
    let _third = server.websocket("/ws/people");
    drop((first, std::mem::replace(&mut reader.stream, Stream::open(&server, "/sse/other"))));
    wait_for("who is left", || {
        let now = ids(&listed(&server, "topic=people"));
        now.len() == 2 && now.iter().any(|id| !before.contains(id))
    });
    reader.come_back(&server);
    wait_for("its return", || listed(&server, "topic=people")["count"] == 3);
    let all: BTreeSet<String> = ids(&listed(&server, "topic=people")).into_iter().collect();
    while reader.members != all {
        reader.step();
    }
    // Of another life nothing is known any more, and the list is told anew.
    let stale = format!(
        "Last-Event-ID: {},00000000000000ab:7\r\n",
        reader.last_id.split(',').next().unwrap_or_default()
    );
    let mut again = Reader::of(Stream::ask(&server, "/sse/people?presence=1", &stale));
    again.until_count(4);
}

#[test]
fn a_stream_is_refused_who_is_there_where_nobody_is_told() {
    let secret = Secret::new(SECRET);
    let closed = "[[topic]]\npattern = \"closed\"\npresence = \"full\"\nsubscribe = \"nobody\"\n\
                  [[topic]]\npattern = \"named\"\npresence = \"full\"\nsubscribe = \"claim\"\n";
    let config = ConfigFile::new(&format!("{RULES}{closed}{}", secret.issuer("")));
    let server = start(&config);
    let named = token("alice", ",\"subscribe\":[\"named\"]");
    let field = |token: &str| format!("Authorization: Bearer {token}\r\n");
    for (path, token, status) in [
        ("/sse/named?presence=1", named.as_str(), 200),
        ("/sse/named?topic=people&presence=1", &named, 403),
        ("/sse/people?presence=1", &token("bob", ""), 200),
        ("/sse/closed?presence=1", &token("bob", ""), 403),
        ("/sse/lobby?presence=1", &token("bob", ""), 404),
        ("/sse/people?topic=lobby&presence=1", &token("bob", ""), 404),
        ("/sse/people?presence=2", &token("bob", ""), 400),
        ("/sse/people?topic=a/*&presence=1", &token("bob", ""), 400),
    ] {
        assert_eq!(Stream::ask(&server, path, &field(token)).answer.status, status, "{path}");
    }
}

#[test]
fn numbers_alone_name_nobody() {
    let config = ConfigFile::new(RULES);
    let server = start(&config);
    let mut peer = speaker(&server, "/ws/crowd");
    hear(&mut peer);
    wait_for("the list", || listed(&server, "topic=crowd")["count"] == 1);
    let answer = ask(&mut peer, &json!({"type": "presence", "id": 1, "topic": "crowd", "events": true}));
    let (epoch, version) = place(&answer);
    let place = |offset: u64| format!("{epoch}:{offset}");
    assert_eq!(
        answer,
        json!({"type": "presence", "id": 1, "topic": "crowd", "version": place(version), "count": 1, "self": answer["self"]})
    );
    let _other = server.websocket("/ws/crowd");
    let event = hear(&mut peer);
    assert_eq!(
        event,
        json!({"type": "presence", "topic": "crowd", "version": place(version + 1), "count": 2})
    );
}

#[test]
fn who_has_left_stays_for_the_grace() {
    let config = ConfigFile::new(RULES);
    let server = start(&config);
    let mut observer = Observer::new(&server, "held");
    let first = server.websocket("/ws/held");
    observer.until_count(1);
    drop(first);
    server.await_metric("fantail_subscriptions", "", |subscriptions| subscriptions == 1);
    let _second = server.websocket("/ws/held");
    observer.until_count(2);
    assert_eq!(listed(&server, "topic=held")["count"], 2);
}

#[test]
fn what_is_not_to_be_seen_is_refused() {
    let closed = "[[topic]]\npattern = \"closed\"\npresence = \"full\"\nsubscribe = \"nobody\"\n";
    let config = ConfigFile::new(&format!(
        "{RULES}{closed}[limits]\nsubscriptions_max = 1\npresence_members_max = 1\n"
    ));
    let server = start(&config);
    let mut peer = speaker(&server, "/ws/people");
    hear(&mut peer);
    for (topic, events, code) in [
        ("closed", false, "not_allowed"),
        ("lobby", false, "no_presence"),
        ("people", true, "too_many_topics"),
    ] {
        let told = ask(&mut peer, &json!({"type": "presence", "id": 1, "topic": topic, "events": events}));
        assert_eq!(
            (&told["type"], &told["code"], &told["topic"]),
            (&json!("error"), &json!(code), &json!(topic))
        );
    }
    for bad in [
        json!({"type": "presence"}),
        json!({"type": "presence", "topic": "*presence:people"}),
        json!({"type": "presence", "topic": "people", "events": 1}),
        json!({"type": "presence", "topic": "people", "limit": 1001}),
        json!({"type": "presence", "topic": "people", "after": 1}),
        json!({"type": "subscribe", "topic": "*presence:people"}),
        json!({"type": "history", "topic": "*presence:people"}),
    ] {
        assert_eq!(ask(&mut peer, &bad)["code"], "bad_command", "{bad}");
    }
    for (query, status) in [
        ("topic=lobby", 404),
        ("", 400),
        ("topic=*presence:people", 400),
        ("topic=people&limit=1001", 400),
        ("topic=people&x=1", 400),
    ] {
        assert_eq!(server.get(&format!("/presence?{query}")).status, status, "{query}");
    }
    // Who finds no room on the list is served all the same.
    let mut unlisted = server.websocket("/ws/people");
    server.await_metric("fantail_presence_unlisted_total", "", |unlisted| unlisted == 1);
    wait_for("the list", || listed(&server, "topic=people")["count"] == 1);
    assert_eq!(server.publish("people", b"for all").status, 200);
    assert_eq!(unlisted.text(), "for all");
    drop(unlisted);
    assert_eq!(hear(&mut peer)["data"], "for all");
    assert_eq!(listed(&server, "topic=people")["count"], 1);
}

#[test]
fn what_changes_in_a_moment_is_one_event() {
    let rule = "[[topic]]\npattern = \"people\"\npresence = \"full\"\npresence_grace_seconds = 0\n\
                presence_interval_ms = 60000\n";
    let config = ConfigFile::new(rule);
    let server = start(&config);
    let mut observer = Observer::new(&server, "people");
    let _first = server.websocket("/ws/people");
    observer.until_count(1);
    let _more: Vec<Peer> = (0..20).map(|_| server.websocket("/ws/people")).collect();
    // They are subscribed, and told of in a minute.
    assert_eq!(server.metric("fantail_presence_members", ""), 21);
    server.await_metric("fantail_presence_events_total", "", |events| events == 1);
    assert_eq!(listed(&server, "topic=people")["count"], 1, "a page has what was told");
}
