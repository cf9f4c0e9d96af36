//! What one bearer may have, over all loops and by whichever name: connections, and who is meant where two issuers name the same.

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
