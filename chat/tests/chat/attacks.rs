//! What hostile people send: SQL and other text in every place, sessions of somebody else's making, requests of other
//! sites, passwords without end. On both databases.

use serde_json::{Value, json};

use crate::kit::{Chat, Database, PASSWORD, Person};
use crate::postgres::Postgres;
use crate::skip::skipped;

/// Runs the same with SQLite, behind a proxy that says where each request is from.
fn with_sqlite(test: fn(&Chat)) {
    let database = Database::new();
    test(&Chat::start(database.path(), &["--proxies", "1"]));
}

/// Runs the same with PostgreSQL, if it is installed.
fn with_postgres(test: fn(&Chat)) {
    let Some(mut postgres) = Postgres::new() else { return skipped("postgresql") };
    postgres.start();
    let chat = Chat::start(&postgres.url(), &["--proxies", "1"]);
    test(&chat);
}

fn in_url(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Text that means something to a database, or to whoever puts statements together.
fn hostile() -> Vec<String> {
    let short = [
        "'",
        "''",
        "' OR 1=1 --",
        "'; DROP TABLE messages; --",
        "\"; DELETE FROM people; --",
        "a' || (SELECT password FROM people LIMIT 1) || '",
        "1; SELECT pg_sleep(60)",
        "/* comment */ x",
        "-- ",
        "$1",
        "$$x$$",
        "\\",
        "\\'; --",
        "%",
        "_%",
        "NULL",
        "x\u{2019}\u{ff07}\u{2bc} é 🎈",
        "\u{fdfa}\u{10ffff}",
        "0 UNION SELECT name, key, password FROM people",
    ];
    let mut all: Vec<_> = short.map(str::to_owned).into();
    all.push("'".repeat(3_000));
    all.push(format!("{}' OR ''='", "é".repeat(900)));
    all
}

/// Every request that has a place for text, with `text` in each of them; whether the place is the body's.
fn everywhere(text: &str, own: &Value) -> Vec<(&'static str, String, Value)> {
    let path = in_url(text);
    let (member, seq) = (own["author"]["id"].as_str().expect("an id"), own["seq"].to_string());
    let mut all = vec![
        ("POST", "/register".to_owned(), json!({"name": text, "password": PASSWORD})),
        ("POST", "/register".to_owned(), json!({"name": "somebody", "password": format!("{text}\n")})),
        ("POST", "/login".to_owned(), json!({"name": text, "password": "wrong password"})),
        ("POST", "/login".to_owned(), json!({"name": "somebody", "password": text})),
        ("POST", "/password".to_owned(), json!({"old": text, "new": PASSWORD})),
        ("POST", "/account/delete".to_owned(), json!({"password": text})),
        ("GET", format!("/rooms?name={path}"), json!({})),
        ("GET", format!("/rooms?after={path}"), json!({})),
        ("POST", "/rooms".to_owned(), json!({"name": text, "open": true})),
        ("POST", "/rooms".to_owned(), json!({"name": text, "open": false})),
        ("POST", "/rooms/lobby/invite".to_owned(), json!({"name": text})),
        ("GET", format!("/rooms/lobby/members?after={path}"), json!({})),
        ("GET", format!("/rooms/lobby/online?after={path}"), json!({})),
        ("POST", format!("/rooms/lobby/members/{path}"), json!({"role": "removed"})),
        ("POST", format!("/rooms/lobby/members/{member}"), json!({"role": text})),
        ("GET", format!("/rooms/lobby/messages?before={path}"), json!({})),
        ("GET", format!("/rooms/lobby/messages?after_change={path}"), json!({})),
        ("POST", "/rooms/lobby/messages".to_owned(), json!({"client_id": text, "text": "x"})),
        ("POST", "/rooms/lobby/seen".to_owned(), json!({"seq": text})),
        ("PATCH", format!("/rooms/lobby/messages/{path}"), json!({"text": "x"})),
        ("DELETE", format!("/rooms/lobby/messages/{path}"), json!({})),
        ("POST", "/rooms/lobby/messages".to_owned(), json!({text: "x", "client_id": text, "text": text})),
        ("PATCH", format!("/rooms/lobby/messages/{seq}"), json!({"text": text})),
    ];
    for (method, end) in [
        ("POST", "join"),
        ("POST", "leave"),
        ("GET", "members"),
        ("GET", "online"),
        ("GET", "messages"),
        ("POST", "seen"),
        ("POST", "invite"),
        ("POST", "messages"),
    ] {
        let body = match end {
            "seen" => json!({"seq": 1}),
            "invite" => json!({"name": "alice"}),
            "messages" => json!({"client_id": "12345678", "text": "x"}),
            _ => json!({}),
        };
        all.push((method, format!("/rooms/{path}/{end}"), body));
    }
    all
}

fn text_in_every_place(chat: &Chat) {
    let mut alice = chat.enter(Person::at(&chat.url, "192.0.2.1"), "alice");
    let kept = alice.say("lobby", "kept", "kept");
    for (number, text) in hostile().iter().enumerate() {
        let mut person =
            chat.enter(Person::at(&chat.url, &format!("10.0.0.{number}")), &format!("person{number}"));
        // As it is, in a message: it comes back letter by letter.
        let said = person.say("lobby", "said", text);
        assert_eq!(said["text"], text.trim_end());
        let read = alice.get("/rooms/lobby/messages");
        assert_eq!(read["messages"].as_array().expect("a list").last(), Some(&said));
        for (method, path, body) in everywhere(text, &said) {
            let (status, told) = person.call(method, &path, &body);
            assert!(status < 500, "{method} {path} {body}: {status} {told}");
            if status >= 400 {
                assert!(told["error"]["code"].is_string() && told["error"]["message"].is_string(), "{told}");
            }
        }
    }
    // Nothing was done that nobody asked for.
    let read =
        alice.get(&format!("/rooms/lobby/messages?before={}", kept["seq"].as_i64().expect("a number") + 1));
    assert_eq!(read["messages"].as_array().expect("a list").last(), Some(&kept));
    alice.good("POST", "/login", &json!({"name": "alice", "password": PASSWORD}));
    assert_eq!(alice.room("lobby")["role"], "owner");
}

#[test]
fn text_in_every_place_is_text() {
    with_sqlite(text_in_every_place);
}

#[test]
fn text_in_every_place_is_text_to_postgres() {
    with_postgres(text_in_every_place);
}

fn nul_is_refused(chat: &Chat) {
    let mut alice = chat.enter(Person::at(&chat.url, "192.0.2.1"), "alice");
    let said = alice.say("lobby", "said", "said");
    for text in ["\0", "a\0b", "'\0"] {
        for (method, path, body) in everywhere(text, &said) {
            assert_eq!(
                alice.bad(method, &path, &body),
                (400, "bad_request".to_owned()),
                "{method} {path} {body}"
            );
        }
    }
    // Bytes that are no text.
    for path in ["/rooms/%FF/messages", "/rooms/%C3%28/members", "/rooms/%ED%A0%80/online"] {
        assert_eq!(alice.bad("GET", path, &json!({})), (400, "bad_request".to_owned()), "{path}");
    }
    for body in [&b"{\"name\":\"\xff\"}"[..], b"{\"name\":\"\\ud800\"}", b"{", b"[]", b"", b"{\"name\":1}"] {
        let (status, told) = alice.send_bytes("POST", "/rooms/lobby/invite", "application/json", body);
        assert_eq!(status, 400, "{told}");
        assert!(told.contains("bad_request"), "{told}");
    }
    assert_eq!(
        alice.get("/rooms/lobby/messages")["messages"].as_array().expect("a list").last(),
        Some(&said)
    );
}

#[test]
fn what_no_database_keeps_is_refused() {
    with_sqlite(nul_is_refused);
}

#[test]
fn what_postgres_does_not_keep_is_refused() {
    with_postgres(nul_is_refused);
}

#[test]
fn nobody_has_a_session_that_somebody_else_has_made() {
    with_sqlite(|chat| {
        let mallory = chat.enter(Person::at(&chat.url, "192.0.2.9"), "mallory");
        let mut alice = chat.enter(Person::at(&chat.url, "192.0.2.1"), "alice");
        let session = |person: &Person| {
            let found = person.cookies.iter().find(|(name, _)| name.ends_with("_session"));
            found.expect("a session").1.clone()
        };
        let login = json!({"name": "alice", "password": PASSWORD});
        for planted in [session(&mallory), "a".repeat(43), "fixed".to_owned(), session(&alice), String::new()]
        {
            let mut victim = Person::at(&chat.url, "192.0.2.1");
            victim.cookies = vec![("fantail_chat_session".to_owned(), planted.clone())];
            victim.good("POST", "/login", &login);
            assert_ne!(session(&victim), planted);
            assert_eq!(victim.get("/me")["name"], "alice");
            // What was shown is nobody's any more.
            let mut other = Person::at(&chat.url, "192.0.2.9");
            other.cookies = vec![("fantail_chat_session".to_owned(), planted)];
            assert_eq!(other.bad("GET", "/me", &json!({})), (401, "logged_out".to_owned()));
            alice = victim;
        }
        // Another password, too, ends what was there before.
        let before = alice.clone();
        alice.good("POST", "/password", &json!({"old": PASSWORD, "new": "another one of them"}));
        assert_ne!(session(&alice), session(&before));
        assert_eq!(before.clone().bad("GET", "/me", &json!({})).0, 401);
    });
}

/// Fields that are sent besides, the kind of the body, and the status that is answered.
type Forged<'a> = (&'a [(&'a str, &'a str)], &'a str, u16);

/// Everything that changes something, as a page of Alice's sends it.
fn changing(message: &Value, bob: &str) -> Vec<(&'static str, String, Value)> {
    let seq = message["seq"].to_string();
    vec![
        ("POST", "/logout".to_owned(), json!({})),
        ("POST", "/logout-everywhere".to_owned(), json!({})),
        ("POST", "/password".to_owned(), json!({"old": PASSWORD, "new": "another one of them"})),
        ("POST", "/account/delete".to_owned(), json!({"password": PASSWORD})),
        ("POST", "/rooms".to_owned(), json!({"name": "forged", "open": true})),
        ("POST", "/rooms/lobby/join".to_owned(), json!({})),
        ("POST", "/rooms/lobby/leave".to_owned(), json!({})),
        ("POST", "/rooms/lobby/invite".to_owned(), json!({"name": "bob"})),
        ("POST", format!("/rooms/lobby/members/{bob}"), json!({"role": "banned"})),
        ("POST", "/rooms/lobby/messages".to_owned(), json!({"client_id": "12345678", "text": "forged"})),
        ("PATCH", format!("/rooms/lobby/messages/{seq}"), json!({"text": "forged"})),
        ("DELETE", format!("/rooms/lobby/messages/{seq}"), json!({})),
        ("POST", "/rooms/lobby/seen".to_owned(), json!({"seq": 1})),
    ]
}

#[test]
fn what_another_site_makes_a_browser_send_changes_nothing() {
    with_sqlite(|chat| {
        let mut alice = chat.enter(Person::at(&chat.url, "192.0.2.1"), "alice");
        let bob = chat.enter(Person::at(&chat.url, "192.0.2.2"), "bob");
        let message = alice.say("lobby", "own", "own words");
        let before = (alice.get("/me"), alice.get("/rooms/lobby/messages"), alice.get("/rooms"));
        let open = [
            ("POST", "/register".to_owned(), json!({"name": "forged", "password": PASSWORD})),
            ("POST", "/login".to_owned(), json!({"name": "bob", "password": PASSWORD})),
        ];
        let json = "application/json";
        let here = chat.url.clone();
        let cross: [Forged; 11] = [
            (&[("Sec-Fetch-Site", "cross-site")], json, 403),
            (&[("Sec-Fetch-Site", "same-site")], json, 403),
            (&[("Sec-Fetch-Site", "none")], json, 403),
            (&[("Sec-Fetch-Site", "cross-site"), ("Origin", &here)], json, 403),
            (&[("Origin", "http://evil.example")], json, 403),
            (&[("Origin", "null")], json, 403),
            (&[("Origin", "http://127.0.0.1")], json, 403),
            (&[("Origin", &here)], "text/plain", 400),
            (&[("Sec-Fetch-Site", "same-origin")], "application/x-www-form-urlencoded", 400),
            (&[("Sec-Fetch-Site", "same-origin")], "multipart/form-data; boundary=x", 400),
            (&[], "text/plain;application/json", 400),
        ];
        for (method, path, body) in changing(&message, &bob.id).iter().chain(&open) {
            for (fields, kind, status) in cross {
                let mut forged = alice.clone();
                forged
                    .fields
                    .extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
                let told = forged.send(method, path, kind, body.to_string());
                assert_eq!(told.0, status, "{method} {path} {fields:?} {kind}: {}", told.1);
            }
        }
        for (method, path, body) in changing(&message, &bob.id) {
            for csrf in [String::new(), "0".repeat(64), bob.csrf.clone(), alice.csrf.to_uppercase()] {
                let mut forged = alice.clone();
                forged.csrf = csrf;
                assert_eq!(forged.bad(method, &path, &body), (403, "csrf".to_owned()), "{method} {path}");
            }
        }
        assert_eq!((alice.get("/me"), alice.get("/rooms/lobby/messages"), alice.get("/rooms")), before);
    });
}

#[test]
fn ten_thousand_tries_from_everywhere_open_nothing_and_lock_nobody_out() {
    with_sqlite(|chat| {
        let mut alice = chat.enter(Person::at(&chat.url, "192.0.2.1"), "alice");
        let start = std::time::Instant::now();
        let attack = |from: usize| {
            let mut person = Person::new(&chat.url);
            (0..2_500).fold([0; 2], |[looked, refused], number| {
                let address = format!("10.{from}.{}.{}", number / 250, number % 250);
                person.fields = vec![("X-Forwarded-For".to_owned(), address)];
                let body = json!({"name": "alice", "password": format!("guess number {from} {number}")});
                match person.bad("POST", "/login", &body) {
                    (403, _) => [looked + 1, refused],
                    (429, _) => [looked, refused + 1],
                    other => panic!("{other:?}"),
                }
            })
        };
        let counts: Vec<[usize; 2]> = std::thread::scope(|scope| {
            let attackers: Vec<_> = (0..4).map(|from| scope.spawn(move || attack(from))).collect();
            attackers.into_iter().map(|attacker| attacker.join().expect("ended")).collect()
        });
        let looked: usize = counts.iter().map(|count| count[0]).sum();
        let refused: usize = counts.iter().map(|count| count[1]).sum();
        assert_eq!(looked + refused, 10_000);
        // Ten, and one each minute that it took; src/limits.rs plays a whole hour.
        let minutes = usize::try_from(start.elapsed().as_secs() / 60).expect("short");
        assert!((10..=11 + minutes).contains(&looked), "{looked} in {minutes} minutes");
        let right = json!({"name": "alice", "password": PASSWORD});
        assert_eq!(Person::at(&chat.url, "198.51.100.1").bad("POST", "/login", &right).0, 429);
        // Her own browser has been logged in before.
        alice.good("POST", "/logout", &json!({}));
        alice.good("POST", "/login", &right);
        assert_eq!(alice.get("/me")["name"], "alice");
    });
}

#[test]
fn right_passwords_of_ones_own_account_buy_no_more_tries() {
    with_sqlite(|chat| {
        let mut mallory = chat.enter(Person::at(&chat.url, "192.0.2.9"), "mallory");
        let right = json!({"name": "mallory", "password": PASSWORD});
        let start = std::time::Instant::now();
        let mut looked = 0;
        for number in 0..40 {
            let wrong = json!({"name": format!("somebody{number}"), "password": "wrong password"});
            looked += u64::from(mallory.call("POST", "/login", &right).0 == 200);
            looked += u64::from(mallory.call("POST", "/login", &wrong).0 == 403);
        }
        // The bucket of an address, with what flows in while it is emptied.
        assert!((30..=31 + start.elapsed().as_secs() / 6).contains(&looked), "{looked}");
    });
}
