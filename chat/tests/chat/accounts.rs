//! Accounts: names and passwords, sessions, other sites, tries without end.

use serde_json::json;

use crate::kit::{Chat, Database, Live, PASSWORD, Person};

#[test]
fn an_account_is_made_left_and_logged_in_to_again() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("Alice");
    let cookies = alice.set.clone();
    assert_eq!(cookies.len(), 2);
    assert!(cookies.iter().all(|cookie| cookie.contains("; HttpOnly; SameSite=Lax")), "{cookies:?}");

    let mut other = Person::new(&chat.url);
    for (name, password, status, code) in [
        ("ALICE", PASSWORD, 409, "taken"),
        // Cyrillic А and е.
        ("\u{410}lic\u{435}", PASSWORD, 409, "taken"),
        ("<b>x</b>", PASSWORD, 422, "invalid"),
        ("bob", "short", 422, "invalid"),
        ("a'; DROP TABLE people; --", PASSWORD, 422, "invalid"),
    ] {
        assert_eq!(
            other.bad("POST", "/register", &json!({"name": name, "password": password})),
            (status, code.to_owned()),
            "{name}"
        );
    }
    assert_eq!(other.bad("GET", "/me", &json!({})).0, 401);
    for name in ["alice", "nobody", "' OR 1=1 --"] {
        let tried = other.bad("POST", "/login", &json!({"name": name, "password": "wrong password"}));
        assert_eq!(tried, (403, "wrong_password".to_owned()));
    }

    // Whoever gave alice a session of theirs does not have the one that she logs in to.
    let before = alice.clone();
    alice.good("POST", "/login", &json!({"name": "alice", "password": PASSWORD}));
    assert_ne!(alice.cookies[0], before.cookies[0]);
    assert_eq!(before.clone().bad("GET", "/me", &json!({})).0, 401);
    assert_eq!(alice.get("/me")["name"], "Alice");

    let stale = alice.clone();
    alice.good("POST", "/logout", &json!({}));
    assert_eq!(stale.clone().bad("GET", "/me", &json!({})).0, 401);
}

#[test]
fn logging_out_everywhere_ends_every_session_and_connection() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut desk = chat.register("alice");
    let mut phone = Person::new(&chat.url);
    phone.good("POST", "/login", &json!({"name": "alice", "password": PASSWORD}));
    let token = phone.get("/edge");
    let mut live = phone.live();
    live.subscribe("lobby");

    desk.good("POST", "/logout-everywhere", &json!({}));
    assert_eq!(live.end(), Some(3003));
    assert_eq!(phone.bad("GET", "/me", &json!({})).0, 401);
    assert!(Live::try_connect(token["url"].as_str().unwrap(), token["token"].as_str().unwrap()).is_none());

    // Another password does the same to everybody but the page that has set it.
    desk.good("POST", "/login", &json!({"name": "alice", "password": PASSWORD}));
    phone.good("POST", "/login", &json!({"name": "alice", "password": PASSWORD}));
    let other = json!({"old": "wrong password", "new": "another one of them"});
    assert_eq!(desk.bad("POST", "/password", &other), (403, "wrong_password".to_owned()));
    desk.good("POST", "/password", &json!({"old": PASSWORD, "new": "another one of them"}));
    assert_eq!(phone.bad("GET", "/me", &json!({})).0, 401);
    desk.live().subscribe("lobby");
    assert_eq!(desk.bad("POST", "/login", &json!({"name": "alice", "password": PASSWORD})).0, 403);
}

#[test]
fn a_deleted_account_leaves_its_messages_and_its_name() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("alice");
    let mut bob = chat.register("bob");
    alice.say("lobby", "1", "hello");
    assert_eq!(alice.bad("POST", "/account/delete", &json!({"password": "wrong password"})).0, 403);
    alice.good("POST", "/account/delete", &json!({"password": PASSWORD}));
    assert_eq!(alice.bad("GET", "/me", &json!({})).0, 401);

    let told = bob.get("/rooms/lobby/messages");
    let messages = told["messages"].as_array().unwrap();
    let hello = messages.iter().find(|message| message["text"] == "hello").unwrap();
    assert!(hello["author"].is_null(), "{hello}");
    // Somebody has to own the lobby.
    assert_eq!(bob.room("lobby")["role"], "owner");
    assert_ne!(chat.register("alice").id, alice.id);
}

#[test]
fn what_another_site_sends_does_nothing() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("alice");
    let room = json!({"name": "a room", "open": true});
    let with = |fields: &[(&str, &str)], alice: &Person| {
        let mut alice = alice.clone();
        alice.fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        alice
    };
    for fields in [
        &[("Sec-Fetch-Site", "cross-site")][..],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "none")],
        &[("Origin", "http://evil.example")],
        &[("Origin", "null")],
    ] {
        let mut forged = with(fields, &alice);
        assert_eq!(forged.bad("POST", "/rooms", &room), (403, "other_site".to_owned()), "{fields:?}");
        let login = json!({"name": "alice", "password": PASSWORD});
        assert_eq!(forged.bad("POST", "/login", &login), (403, "other_site".to_owned()), "{fields:?}");
    }
    // A form can send neither JSON nor the field.
    assert_eq!(alice.send("POST", "/rooms", "text/plain", room.to_string()).0, 400);
    let mut without = alice.clone();
    without.csrf = "0".repeat(64);
    assert_eq!(without.bad("POST", "/rooms", &room), (403, "csrf".to_owned()));
    let origin = alice.url.clone();
    with(&[("Sec-Fetch-Site", "same-origin")], &alice).good("POST", "/rooms", &room);
    with(&[("Origin", &origin)], &alice).good("POST", "/rooms", &json!({"name": "another", "open": true}));
}

#[test]
fn tries_from_everywhere_are_refused_and_the_owner_comes_in() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &["--proxies", "1"]);
    let mut alice = chat.register("alice");
    let mut refused = 0;
    for number in 0..15 {
        let mut attacker = Person::new(&chat.url);
        attacker.fields = vec![("X-Forwarded-For".to_owned(), format!("10.0.{number}.1, 192.0.2.{number}"))];
        let tried = attacker.bad("POST", "/login", &json!({"name": "alice", "password": "wrong password"}));
        if tried.0 == 429 {
            refused += 1;
            // Not even with the right one, since it could be the next guess.
            assert_eq!(
                attacker.bad("POST", "/login", &json!({"name": "Alice", "password": PASSWORD})).0,
                429
            );
        } else {
            assert_eq!(tried, (403, "wrong_password".to_owned()));
        }
    }
    assert!(refused >= 3, "{refused}");
    // Her own browser has logged in before.
    alice.good("POST", "/logout", &json!({}));
    alice.good("POST", "/login", &json!({"name": "alice", "password": PASSWORD}));

    // One address is done after thirty, whomever it tries.
    let mut attacker = Person::new(&chat.url);
    attacker.fields = vec![("X-Forwarded-For".to_owned(), "203.0.113.9".to_owned())];
    let tries = (0..60).map(|number| {
        attacker.bad(
            "POST",
            "/login",
            &json!({"name": format!("somebody{number}"), "password": "wrong password"}),
        )
    });
    assert!(tries.map(|tried| tried.0).any(|status| status == 429));
}
