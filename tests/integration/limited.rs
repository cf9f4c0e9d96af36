//! Patterns of which less than all is for a client: what comes is decided topic by topic, as topics appear and as tokens
//! and rules change.

use std::collections::BTreeSet;

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::bearers::{RULES, SECRET, Secret, token};
use crate::client::{Peer, assert_upgraded};
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports, wait_for};

fn start(config: &ConfigFile, loops: &str) -> Server {
    Server::spawn(on_free_ports(&["--config", config.path(), "--loops", loops], &[]))
}

fn speaker(server: &Server, token: Option<&str>) -> Peer {
    let mut peer = server.connect();
    let field = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let fields = format!("Sec-WebSocket-Protocol: fantail.json.v1\r\n{field}");
    assert_upgraded(&peer.ask_upgrade("/ws", &fields));
    peer
}

fn hear(peer: &mut Peer) -> Value {
    serde_json::from_str(&peer.text()).expect("JSON")
}

fn say(peer: &mut Peer, command: &Value) {
    peer.send_frame(Opcode::Text, command.to_string().as_bytes());
}

fn ask(peer: &mut Peer, command: &Value) -> Value {
    say(peer, command);
    hear(peer)
}

fn subscribe(peer: &mut Peer, topic: &str) -> Value {
    ask(peer, &json!({"type": "subscribe", "topic": topic}))
}

/// The topics of so many messages, and that no more have come.
fn topics(peer: &mut Peer, count: usize) -> BTreeSet<String> {
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        let told = hear(peer);
        assert_eq!(told["type"], "message", "{told}, {topics:?}");
        let topic = told["topic"].as_str().expect("a topic").to_owned();
        assert!(topics.insert(topic), "twice: {told}");
    }
    assert_eq!(ask(peer, &json!({"type": "ping"})), json!({"type": "pong"}), "{topics:?}");
    topics
}

fn publish(server: &Server, topic: &str) {
    assert_eq!(server.publish(topic, b"x").status, 200, "{topic}");
}

#[test]
fn of_a_pattern_those_topics_come_that_claim_and_rule_allow() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&format!("{RULES}{}", secret.issuer("")));
    let server = start(&config, "2");
    let claims = r#","subscribe":["chat/a/*","chat/b","users/{sub}/**","staff/**","listed/x"]"#;
    let (listed, silent) = (token("alice", claims), token("bob", ""));
    let names = [
        "chat/a",
        "chat/a/",
        "chat/a/1",
        "chat/a/1/2",
        "chat/b",
        "chat/b/c",
        "chat/bb",
        "chatx/b",
        "users/alice/inbox",
        "users/alicex/inbox",
        "users/bob/inbox",
        "staff/rota",
        "listed/x",
        "listed/y",
        "open/1",
    ];
    let of_alice =
        ["chat/a/", "chat/a/1", "chat/b", "users/alice/inbox", "listed/x", "open/1"].map(str::to_owned);
    let begins = |start: &str| of_alice.iter().filter(|name| name.starts_with(start)).cloned().collect();
    let expected = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let mut peers: Vec<(Peer, &str, BTreeSet<String>)> = Vec::new();
    for (who, pattern, limited, wanted) in [
        (Some(&listed), "**", true, begins("")),
        (Some(&listed), "chat/**", true, begins("chat/")),
        (Some(&listed), "chat/*", true, expected(&["chat/b"])),
        (Some(&listed), "chat/a/*", false, begins("chat/a/")),
        (Some(&listed), "*/*/*", true, expected(&["chat/a/", "chat/a/1", "users/alice/inbox"])),
        (Some(&listed), "users/*/inbox", true, expected(&["users/alice/inbox"])),
        (Some(&listed), "open/*", false, expected(&["open/1"])),
        (Some(&silent), "listed/../*", false, BTreeSet::new()),
        (Some(&silent), "users/**", false, expected(&names[8..11])),
        (Some(&silent), "**", true, expected(&[&names[..11], &names[14..]].concat())),
        (None, "**", true, expected(&["open/1"])),
        (None, "open/*", false, expected(&["open/1"])),
    ] {
        let mut peer = speaker(&server, who.map(String::as_str));
        let told = subscribe(&mut peer, pattern);
        if pattern == "listed/../*" {
            // Dots mean nothing in names: it is a pattern of topics that only a claim opens.
            assert_eq!(told["code"], "not_allowed", "{told}");
            continue;
        }
        assert_eq!(told["pattern"], *pattern, "{told}");
        assert_eq!(told.get("limited"), limited.then_some(&json!(true)), "{told}");
        peers.push((peer, pattern, wanted));
    }
    // Topics that come into being by it, and then such as are there.
    for _ in 0..2 {
        names.iter().for_each(|name| publish(&server, name));
        for (peer, pattern, wanted) in &mut peers {
            assert_eq!(topics(peer, wanted.len()), *wanted, "{pattern}");
        }
    }
    // What can never come is refused, and so is less than all where nobody would know.
    let mut peer = speaker(&server, Some(&listed));
    for pattern in ["staff/**", "users/bob/*", "chat/b/*", "listed/*/x"] {
        assert_eq!(subscribe(&mut peer, pattern)["code"], "not_allowed", "{pattern}");
    }
    assert_eq!(subscribe(&mut speaker(&server, None), "chat/**")["code"], "unauthorized");
    let mut plain = server.connect();
    let answer = plain.ask_upgrade("/ws/chat/**", &format!("Authorization: Bearer {listed}\r\n"));
    assert_eq!(answer.status, 403);
    // A part counts as nothing of its own, and nothing is left of what has ended.
    assert_eq!(server.metric("fantail_pattern_subscriptions", ""), peers.len() as u64);
    drop((peers, peer));
    server.await_metric("fantail_pattern_subscriptions", "", |left| left == 0);
    server.await_metric("fantail_patterns", "", |left| left == 0);
}

#[test]
fn a_token_with_fewer_rights_ends_what_it_does_not_allow_and_says_so() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&secret.issuer(""));
    let server = start(&config, "1");
    let of = |list: &str| token("alice", &format!(r#","subscribe":{list}"#));
    let mut peer = speaker(&server, Some(&of(r#"["chat/**","news","mail/*"]"#)));
    for topic in ["news", "chat/b", "chat/**", "chat/*/x", "mail/*"] {
        let told = subscribe(&mut peer, topic);
        assert_eq!((&told["type"], told.get("limited")), (&json!("subscribed"), None), "{told}");
    }
    let refresh = |token: String| json!({"type": "refresh", "id": 7, "token": token});
    let refreshed = |peer: &mut Peer, list: &str| {
        let told = ask(peer, &refresh(of(list)));
        assert_eq!((&told["type"], &told["id"]), (&json!("refreshed"), &json!(7)), "{told}");
    };
    refreshed(&mut peer, r#"["chat/b","chat/a/*","mail/**"]"#);
    for (member, name) in [("pattern", "chat/**"), ("pattern", "chat/*/x"), ("topic", "news")] {
        let told = hear(&mut peer);
        let what = (&told["type"], &told[member], &told["code"], told.get("id"));
        assert_eq!(what, (&json!("unsubscribed"), &json!(name), &json!("not_allowed"), None), "{told}");
        assert!(told["message"].as_str().is_some_and(|text| text.contains("token")), "{told}");
    }
    let all = ["news", "chat/b", "chat/a/x", "chat/z", "mail/1"];
    let publish_all = || all.iter().for_each(|name| publish(&server, name));
    let expected = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    publish_all();
    assert_eq!(topics(&mut peer, 2), expected(&["chat/b", "mail/1"]));
    // Asked for again it is less, and with a wider token more again, without a word and without a hole.
    assert_eq!(subscribe(&mut peer, "chat/**")["limited"], true);
    publish_all();
    assert_eq!(topics(&mut peer, 3), expected(&["chat/a/x", "chat/b", "mail/1"]));
    refreshed(&mut peer, r#"["chat/b","chat/a/*","chat/z","mail/**"]"#);
    publish_all();
    assert_eq!(topics(&mut peer, 4), expected(&["chat/a/x", "chat/b", "chat/z", "mail/1"]));
    refreshed(&mut peer, r#"["**"]"#);
    publish_all();
    assert_eq!(topics(&mut peer, 4), expected(&["chat/a/x", "chat/b", "chat/z", "mail/1"]));
    assert_eq!(ask(&mut peer, &json!({"type": "unsubscribe", "topic": "chat/**"}))["pattern"], "chat/**");
    publish_all();
    assert_eq!(topics(&mut peer, 2), expected(&["chat/b", "mail/1"]), "its parts end with it");
    // A first token opens what was closed to nobody in particular.
    let mut late = speaker(&server, None);
    assert_eq!(subscribe(&mut late, "chat/**")["code"], "unauthorized");
    let shown = ask(&mut late, &json!({"type": "authenticate", "token": of(r#"["chat/b"]"#)}));
    assert_eq!(shown["type"], "authenticated");
    assert_eq!(subscribe(&mut late, "chat/**")["limited"], true);
    publish_all();
    assert_eq!(topics(&mut late, 1), expected(&["chat/b"]));
}

#[test]
fn rules_that_change_hold_for_patterns_at_once() {
    let secret = Secret::new(SECRET);
    let issuer = secret.issuer("");
    let config = ConfigFile::new(&issuer);
    let server = start(&config, "1");
    let listed = token("alice", r#","subscribe":["chat/b","chat/secret"]"#);
    let mut alice = speaker(&server, Some(&listed));
    assert_eq!(subscribe(&mut alice, "chat/**")["limited"], true);
    let mut bob = speaker(&server, Some(&token("bob", "")));
    assert_eq!(subscribe(&mut bob, "chat/**").get("limited"), None);
    let publish_all = || ["chat/a", "chat/b", "chat/secret"].iter().for_each(|name| publish(&server, name));
    let names = |names: &[&str]| names.iter().map(|name| format!("chat/{name}")).collect::<BTreeSet<_>>();
    publish_all();
    assert_eq!(topics(&mut alice, 2), names(&["b", "secret"]));
    assert_eq!(topics(&mut bob, 3), names(&["a", "b", "secret"]));
    // The loop has the rules when it refuses, or lets in, who has no token.
    let reload = |rules: &str, probe: &str, status: u16| {
        config.write(&format!("{rules}{issuer}"));
        assert_eq!(server.post("/reload", "", b"").status, 200);
        wait_for("the loop to have the rules", || {
            let mut peer = server.connect();
            let fields = format!("Authorization: Bearer {}\r\n", token("eve", ""));
            peer.ask_upgrade(probe, &fields).status == status
        });
    };
    let closed = "[[topic]]\npattern = \"chat/secret\"\nsubscribe = \"nobody\"\n";
    reload(closed, "/ws/chat/secret", 403);
    for peer in [&mut alice, &mut bob] {
        assert_eq!(hear(peer), json!({"type": "limited", "pattern": "chat/**"}));
    }
    publish_all();
    assert_eq!(topics(&mut alice, 1), names(&["b"]));
    assert_eq!(topics(&mut bob, 2), names(&["a", "b"]));
    // Where everybody may, a list limits nobody any more.
    let open = "[[topic]]\npattern = \"chat/*\"\nsubscribe = \"anyone\"\n";
    reload(open, "/ws/chat/secret", 101);
    wait_for("the pattern to reach further", || {
        publish(&server, "chat/a");
        say(&mut alice, &json!({"type": "ping"}));
        let told = hear(&mut alice);
        let more = told["topic"] == "chat/a";
        if more {
            while hear(&mut alice)["type"] != "pong" {}
        }
        more
    });
}
