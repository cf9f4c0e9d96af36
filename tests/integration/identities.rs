//! What one bearer may have, over all loops and by whichever name: connections, and who is meant where two issuers name the same.

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::bearers::{SECRET, Secret, token};
use crate::client::Peer;
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports, wait_for};

const JSON: &str = "Sec-WebSocket-Protocol: fantail.json.v1\r\n";

/// A server with two issuers, and their secrets.
fn start(more: &str) -> (Server, [Secret; 2], ConfigFile) {
    let secrets = [Secret::new(SECRET), Secret::new(SECRET)];
    let [us, them] = ["us", "them"].map(|name| format!("issuer = {name:?}"));
    let issuers = format!("{}{}", secrets[0].issuer(&us), secrets[1].issuer(&them));
    let config = ConfigFile::new(&format!("{more}\n{issuers}"));
    let server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]));
    (server, secrets, config)
}

fn of(issuer: &str, sub: &str) -> String {
    token(sub, &format!(r#","iss":{issuer:?}"#))
}

/// A connection that shows a token at once, and the status of its answer.
fn show(server: &Server, issuer: &str, sub: &str, more: &str) -> (Peer, u16) {
    let mut peer = server.connect();
    let answer = peer.ask_upgrade("/ws/a", &format!("Authorization: Bearer {}\r\n{more}", of(issuer, sub)));
    if answer.status == 429 {
        assert_eq!(answer.field("retry-after"), Some("10"));
        assert_eq!(answer.text(), "you have as many connections open as you may\n");
    }
    (peer, answer.status)
}

#[test]
fn a_bearer_has_as_many_connections_as_may_be_over_all_loops() {
    let (server, _secrets, _config) =
        start("[auth]\nconnections_per_identity_max = 2\n[publish]\ntopics = [\"*\"]");
    let mut kept: Vec<Peer> = Vec::new();
    for (issuer, sub, status) in [
        ("us", "alice", 101),
        ("us", "alice", 101),
        ("us", "alice", 429),
        ("us", "bob", 101),
        ("them", "alice", 101),
        ("us", "alice", 429),
    ] {
        let (peer, got) = show(&server, issuer, sub, "");
        assert_eq!(got, status, "{issuer} {sub}");
        kept.push(peer);
    }
    assert_eq!(server.metric("fantail_refusals_total", "too_many_of_identity"), 2);
    assert_eq!(server.metric("fantail_identities", ""), 3);
    // Who shows the token in a message is told so there, and stays nobody.
    let mut late = server.connect();
    assert_eq!(late.ask_upgrade("/ws", JSON).status, 101);
    let mut ask = |message: Value| -> Value {
        late.send_frame(fantail::wire::frame::Opcode::Text, message.to_string().as_bytes());
        serde_json::from_str(&late.text()).expect("JSON")
    };
    let shown = json!({"type": "authenticate", "id": 1, "token": of("us", "alice")});
    let told = ask(shown.clone());
    assert_eq!((&told["type"], &told["code"]), (&"error".into(), &"busy".into()), "{told}");
    // One of the two makes room, and a refresh takes none.
    kept.remove(0);
    wait_for("room", || ask(shown.clone())["type"] == "authenticated");
    assert_eq!(ask(json!({"type": "refresh", "id": 2, "token": of("us", "alice")}))["type"], "refreshed");
    assert_eq!(show(&server, "us", "alice", "").1, 429);
}

#[test]
fn of_two_issuers_who_name_the_same_one_can_be_meant() {
    let (server, _secrets, _config) =
        start("[[topic]]\npattern = \"a\"\npresence = \"full\"\n[publish]\ntopics = [\"*\"]");
    let [(mut ours, _), (mut theirs, _)] = ["us", "them"].map(|issuer| show(&server, issuer, "alice", ""));
    let listed = |query: &str| {
        let found = server.get(&format!("/connections?{query}")).json();
        let rows = found["connections"].as_array().expect("a list").clone();
        rows.iter().map(|row| format!("{} {}", row["identity"], row["issuer"])).collect::<Vec<_>>()
    };
    let all = |query: &str| {
        // A page is of one loop.
        let mut rows: Vec<_> =
            ["0:0", "1:0"].iter().flat_map(|at| listed(&format!("{query}&cursor={at}"))).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    };
    assert_eq!(all("identity=alice"), ["\"alice\" \"them\"", "\"alice\" \"us\""]);
    assert_eq!(all("identity=alice&issuer=us"), ["\"alice\" \"us\""]);
    assert_eq!(all("issuer=nobody"), [""; 0]);
    wait_for("both members", || server.get("/presence?topic=a").json()["count"] == 2);
    let members = server.get("/presence?topic=a").json()["members"].clone();
    assert_eq!(members, json!([{"id": "them|alice"}, {"id": "us|alice"}]));
    // A token of another bearer of that name is no further one of this.
    let revoked = server.post("/revoke?identity=alice&issuer=us", "", b"");
    assert_eq!(revoked.json(), json!({"closed": 1}));
    assert_eq!(ours.frame().close_code(), Some(3003));
    theirs.ping_pong();
    assert_eq!(show(&server, "us", "alice", "").1, 401);
    assert_eq!(show(&server, "them", "alice", "").1, 101);
    assert_eq!(server.post("/revoke?jti=x&issuer=us", "", b"").status, 400);
}

#[test]
fn fields_about_people_are_told_as_far_as_they_are_listed() {
    let (server, _secrets, _config) =
        start("[admin]\nconnection_fields = [\"identity\"]\n[publish]\ntopics = [\"*\"]");
    let (_peer, status) = show(&server, "us", "alice", "");
    assert_eq!(status, 101);
    let rows: Vec<Value> = ["0:0", "1:0"]
        .iter()
        .flat_map(|at| {
            let found = server.get(&format!("/connections?identity=alice&cursor={at}")).json();
            found["connections"].as_array().expect("a list").clone()
        })
        .collect();
    let row = rows.first().expect("alice's");
    assert_eq!((&row["identity"], &row["issuer"]), (&"alice".into(), &"us".into()));
    assert_eq!((&row["peer"], &row["subscriptions"]), (&"127.0.0.0/24".into(), &1.into()));
    assert_eq!((&row["topics"], &row["dialect"]), (&json!([]), &"plain".into()), "{row}");
}

#[test]
fn a_bearer_speaks_so_fast_over_all_connections_and_loops() {
    let limited = "[auth]\nidentity_messages_per_second = 1\nidentity_messages_burst = 6\n\
                   [publish]\ntopics = [\"*\"]\n[[topic]]\npattern = \"open\"\nsubscribe = \"anyone\"";
    let (server, secrets, config) = start(limited);
    let enter = |issuer: &str, sub: &str| {
        let mut peer = server.connect();
        let shown = format!("Authorization: Bearer {}\r\n{JSON}", of(issuer, sub));
        assert_eq!(peer.ask_upgrade("/ws", &shown).status, 101);
        peer
    };
    // Whether a ping of this number is answered, or the connection closed for the rate.
    let ping = |peer: &mut Peer, id: usize| -> bool {
        peer.send_frame(Opcode::Text, json!({"type": "ping", "id": id}).to_string().as_bytes());
        let frame = peer.frame();
        let is_answer = frame.opcode == Opcode::Text;
        let text = String::from_utf8_lossy(&frame.content()).into_owned();
        if is_answer {
            assert!(text.contains("pong"), "{text}");
        } else {
            assert_eq!(frame.close_code(), Some(1008));
            assert!(text.contains("auth.identity_messages_per_second"), "{text}");
        }
        is_answer
    };
    // More connections than loops, each with a share of the burst; and others, who are not concerned.
    let mut ours: Vec<Peer> = (0..6).map(|_| enter("us", "alice")).collect();
    let mut others = [enter("them", "alice"), enter("us", "bob")];
    let mut answered = 0;
    let ended = (0..60).find(|nth| {
        let goes_on = ping(&mut ours[nth % 6], *nth);
        answered += usize::from(goes_on);
        !goes_on
    });
    assert!(ended.is_some() && answered >= 6, "{answered}");
    server.await_metric("fantail_closes_total", "identity_rate", |closed| closed == 1);
    assert_eq!(server.metric("fantail_closes_total", "message_rate"), 0);
    // To come back is no way around it.
    let again = (0..60).find(|nth| !ping(&mut enter("us", "alice"), *nth));
    assert!(again.is_some_and(|nth| nth < 30), "{again:?}");
    assert!(others.iter_mut().all(|peer| (0..5).all(|nth| ping(peer, nth))));
    // Who is nobody has no such rate.
    let mut nobody = server.websocket("/ws/open");
    (0..20).for_each(|_| nobody.ping_pong());
    // A reload takes it back, for those who are there, too.
    let issuers: String = ["us", "them"]
        .iter()
        .zip(&secrets)
        .map(|(name, secret)| secret.issuer(&format!("issuer = {name:?}")))
        .collect();
    config.write(&format!("{}\n{issuers}", limited.replace("second = 1", "second = 0")));
    server.signal("HUP");
    server.await_log("identity_messages_per_second");
    wait_for("the loops", || (0..20).all(|nth| ping(&mut enter("us", "alice"), nth)));
}

/// How many connections alice of us has now.
fn count(server: &Server) -> usize {
    let found = server.get("/connections?identity=alice&issuer=us").json();
    found["connections"].as_array().expect("a list").len()
}

fn closed_as_oldest(peer: &mut Peer) {
    let frame = peer.frame();
    assert_eq!((frame.opcode, frame.close_code()), (Opcode::Close, Some(3006)));
    assert!(String::from_utf8_lossy(&frame.content()).contains("you have connected again"));
    // Whose close frame is not answered is counted as that.
    peer.send_frame(Opcode::Close, &frame.payload);
}

fn capped(most: usize, full: &str) -> String {
    format!(
        "[auth]\nconnections_per_identity_max = {most}\nconnections_per_identity_full = {full:?}\n[timeouts]\nclose_seconds = 0.2\n"
    )
}

#[test]
fn a_newcomer_replaces_the_oldest_on_whichever_loop() {
    let (server, _secrets, _config) = start(&capped(2, "close-oldest"));
    let mut own: Vec<Peer> = (0..2).map(|_| show(&server, "us", "alice", "").0).collect();
    let mut others = [show(&server, "them", "alice", ""), show(&server, "us", "bob", "")];
    for _ in 0..6 {
        let (newest, status) = show(&server, "us", "alice", "");
        assert_eq!(status, 101);
        closed_as_oldest(&mut own.remove(0));
        own.push(newest);
    }
    // A token in a message makes one of theirs, too.
    let mut late = server.connect();
    assert_eq!(late.ask_upgrade("/ws", JSON).status, 101);
    let shown = json!({"type": "authenticate", "id": 1, "token": of("us", "alice")});
    late.send_frame(Opcode::Text, shown.to_string().as_bytes());
    assert!(late.text().contains("authenticated"));
    closed_as_oldest(&mut own.remove(0));
    // Who is refused for something else replaces nobody, and a poll nobody either.
    let scope = format!("Authorization: Bearer {}\r\n", token("alice", r#","iss":"us","subscribe":["b"]"#));
    assert_eq!(server.connect().ask_upgrade("/ws/a", &scope).status, 403);
    let mut poll = server.connect();
    let bearer = of("us", "alice");
    poll.send(
        format!(
            "GET /poll/a?wait=1 HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {bearer}\r\n\r\n",
            server.listen
        )
        .as_bytes(),
    );
    assert_eq!(poll.answer().status, 429);
    own[0].ping_pong();
    late.ping_pong();
    others.iter_mut().for_each(|(peer, _)| peer.ping_pong());
    server.await_metric("fantail_closes_total", "oldest_of_identity", |closed| closed == 7);
    wait_for("those who are gone", || count(&server) == 2);
}

#[test]
fn newcomers_at_once_leave_as_many_as_may_be() {
    let (server, _secrets, _config) = start(&capped(3, "close-oldest"));
    let entered: Vec<(Peer, u16)> = std::thread::scope(|scope| {
        let listen = server.listen;
        let enter = || {
            scope.spawn(move || {
                let mut peer = Peer::connect(listen);
                let shown = format!("Authorization: Bearer {}\r\n", of("us", "alice"));
                let status = peer.ask_upgrade("/ws/a", &shown).status;
                (peer, status)
            })
        };
        let threads: Vec<_> = (0..12).map(|_| enter()).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(entered.iter().all(|(_, status)| *status == 101), "at once they may replace 16");
    wait_for("those who are gone", || count(&server) == 3);
    assert_eq!(server.metric("fantail_identities", ""), 1);
}

#[test]
fn a_cap_that_is_set_or_lowered_holds_for_those_who_are_there() {
    let (server, secrets, config) = start("");
    let mut own: Vec<Peer> = (0..9).map(|_| show(&server, "us", "alice", "").0).collect();
    let (mut bob, _) = show(&server, "us", "bob", "");
    let names = ["us", "them"].map(|name| format!("issuer = {name:?}"));
    let reload = |most: usize, full: &str| {
        let issuers = format!("{}{}", secrets[0].issuer(&names[0]), secrets[1].issuer(&names[1]));
        config.write(&format!("{}{issuers}", capped(most, full)));
        assert_eq!(server.post("/reload", "", b"").status, 200);
    };
    // Where newcomers are refused, those who are there stay, and are counted.
    reload(5, "refuse");
    wait_for("the walk", || show(&server, "us", "alice", "").1 == 429);
    wait_for("those who came before it", || count(&server) == 9);
    reload(9, "close-oldest");
    let (mut newest, status) = show(&server, "us", "alice", "");
    assert_eq!(status, 101);
    wait_for("the oldest to go", || count(&server) == 9);
    reload(5, "close-oldest");
    wait_for("the oldest to go", || count(&server) == 5);
    reload(1, "close-oldest");
    wait_for("the oldest to go", || count(&server) == 1);
    own.iter_mut().for_each(closed_as_oldest);
    newest.ping_pong();
    bob.ping_pong();
    // And lifted: who was counted is counted out.
    reload(0, "refuse");
    let more: Vec<_> = (0..5).map(|_| show(&server, "us", "alice", "")).collect();
    assert!(more.iter().all(|(_, status)| *status == 101));
    drop((more, newest, bob));
    wait_for("their ends", || server.metric("fantail_identities", "") == 0);
}

#[test]
fn who_comes_back_in_a_loop_is_soon_refused() {
    let (server, _secrets, _config) = start(&capped(1, "close-oldest"));
    let began = std::time::Instant::now();
    // Nobody leaves by themselves, so each one more would have to replace another.
    let entered: Vec<(Peer, u16)> = (0..120).map(|_| show(&server, "us", "alice", "")).collect();
    let let_in = entered.iter().filter(|(_, status)| *status == 101).count() as u64;
    let most = 1 + 16 + 1 + began.elapsed().as_secs();
    assert!((17..=most).contains(&let_in), "{let_in} of {most}");
    assert!(entered.iter().all(|(_, status)| [101, 429].contains(status)));
    wait_for("those who were replaced", || count(&server) == 1);
    assert_eq!(show(&server, "us", "bob", "").1, 101);
}
