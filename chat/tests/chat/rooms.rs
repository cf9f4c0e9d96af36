//! Rooms: open and by invitation, roles, who is put out.

use serde_json::{Value, json};

use crate::kit::{Chat, Database, Live, Person, wait_for};

fn role(person: &mut Person, room: &str) -> String {
    person.room(room)["role"].as_str().unwrap_or("none").to_owned()
}

fn appoint(actor: &mut Person, room: &str, person: &Person, role: &str) -> (u16, Value) {
    actor.call("POST", &format!("/rooms/{room}/members/{}", person.id), &json!({"role": role}))
}

#[test]
fn a_room_by_invitation_is_for_those_who_are_invited() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob, mut carol) =
        (chat.register("alice"), chat.register("bob"), chat.register("carol"));
    let made = alice.good("POST", "/rooms", &json!({"name": "the den", "open": false}));
    let den = made["id"].as_str().unwrap().to_owned();
    let listed = bob.get("/rooms")["rooms"].clone();
    assert!(!listed.as_array().unwrap().iter().any(|room| room["id"] == *den), "{listed}");
    // Nobody learns from it whether it is there.
    let (messages, join) = (format!("/rooms/{den}/messages"), format!("/rooms/{den}/join"));
    assert_eq!(bob.bad("POST", &join, &json!({})), (404, "not_found".to_owned()));
    assert_eq!(bob.bad("POST", "/rooms/nowhere/join", &json!({})), (404, "not_found".to_owned()));
    assert_eq!(bob.bad("GET", &messages, &json!({})).0, 403);
    assert_eq!(bob.bad("POST", &format!("/rooms/{den}/invite"), &json!({"name": "bob"})).0, 403);
    assert_eq!(bob.live().subscribe(&den)["code"], "not_allowed");

    alice.good("POST", &format!("/rooms/{den}/invite"), &json!({"name": "BOB"}));
    let nobody = alice.bad("POST", &format!("/rooms/{den}/invite"), &json!({"name": "nobody"}));
    assert_eq!(nobody, (422, "invalid".to_owned()));
    assert_eq!(role(&mut bob, &den), "invited");
    assert_eq!(bob.bad("GET", &messages, &json!({})).0, 403);
    bob.good("POST", &join, &json!({}));
    assert_eq!(bob.live().subscribe(&den)["type"], "subscribed");
    bob.say(&den, "1", "in here");
    assert_eq!(carol.bad("POST", &messages, &json!({"client_id": "12345678", "text": "x"})).0, 403);

    // The same name may be an open room's; another like it may not.
    carol.good("POST", "/rooms", &json!({"name": "The Den", "open": true}));
    let again = bob.bad("POST", "/rooms", &json!({"name": "THE  DEN", "open": true}));
    assert_eq!(again, (409, "taken".to_owned()));
}

#[test]
fn who_is_put_out_hears_nothing_more() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob, mut carol) =
        (chat.register("alice"), chat.register("bob"), chat.register("carol"));
    let mut live = bob.live();
    live.subscribe("lobby");
    let old = bob.get("/edge");

    assert_eq!(appoint(&mut carol, "lobby", &bob, "removed").0, 403);
    assert_eq!(appoint(&mut alice, "lobby", &bob, "banned").0, 200);
    assert_eq!(live.end(), Some(3003));
    assert!(Live::try_connect(old["url"].as_str().unwrap(), old["token"].as_str().unwrap()).is_none());
    assert_eq!(bob.live().subscribe("lobby")["code"], "not_allowed");
    assert_eq!(bob.bad("POST", "/rooms/lobby/join", &json!({})), (403, "banned".to_owned()));
    assert_eq!(role(&mut bob, "lobby"), "none");
    let said = carol.get("/rooms/lobby/messages")["messages"].clone();
    let last = said.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["kind"], &last["author"]["name"], &last["text"]),
        (&json!("banned"), &json!("bob"), &json!("alice"))
    );

    assert_eq!(appoint(&mut alice, "lobby", &bob, "removed").0, 200);
    bob.good("POST", "/rooms/lobby/join", &json!({}));
    assert_eq!(bob.live().subscribe("lobby")["type"], "subscribed");
}

#[test]
fn a_token_that_was_made_just_after_others_were_taken_back_is_taken_back_by_the_next_ban() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob) = (chat.register("alice"), chat.register("bob"));
    let made = alice.good("POST", "/rooms", &json!({"name": "a room", "open": true}));
    let room = made["id"].as_str().unwrap().to_owned();
    bob.good("POST", &format!("/rooms/{room}/join"), &json!({}));
    bob.good("POST", &format!("/rooms/{room}/leave"), &json!({}));
    let made = bob.get("/edge");
    assert_eq!(appoint(&mut alice, "lobby", &bob, "banned").0, 200);
    // Once it is taken back, the next one can be had, which says so.
    bob.get("/edge");
    assert!(Live::try_connect(made["url"].as_str().unwrap(), made["token"].as_str().unwrap()).is_none());
}

#[test]
fn roles_allow_what_they_say() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob, mut carol) =
        (chat.register("alice"), chat.register("bob"), chat.register("carol"));
    let made = alice.good("POST", "/rooms", &json!({"name": "a room", "open": true}));
    let room = made["id"].as_str().unwrap().to_owned();
    for person in [&mut bob, &mut carol] {
        person.good("POST", &format!("/rooms/{room}/join"), &json!({}));
    }
    assert_eq!(appoint(&mut alice, &room, &bob, "moderator").0, 200);
    assert_eq!(appoint(&mut alice, &room, &bob, "king").0, 422);
    assert_eq!(appoint(&mut bob, &room, &alice, "removed").0, 403);
    assert_eq!(appoint(&mut bob, &room, &carol, "moderator").0, 403);
    assert_eq!(appoint(&mut bob.clone(), &room, &bob, "owner").0, 403);

    let text = carol.say(&room, "1", "carol's own");
    let path = format!("/rooms/{room}/messages/{}", text["seq"]);
    assert_eq!(bob.bad("PATCH", &path, &json!({"text": "bob's"})), (403, "not_yours".to_owned()));
    assert_eq!(bob.good("DELETE", &path, &json!({}))["deleted"], true);
    assert_eq!(carol.bad("PATCH", &path, &json!({"text": "back"})).0, 404);

    // Who owned it has gone; who led it follows. The last one takes it along.
    alice.good("POST", &format!("/rooms/{room}/leave"), &json!({}));
    assert_eq!(role(&mut bob, &room), "owner");
    assert_eq!(appoint(&mut bob, &room, &carol, "owner").0, 200);
    assert_eq!(
        (role(&mut bob, &room), role(&mut carol, &room)),
        ("moderator".to_owned(), "owner".to_owned())
    );
    for person in [&mut bob, &mut carol] {
        person.good("POST", &format!("/rooms/{room}/leave"), &json!({}));
    }
    assert_eq!(alice.bad("POST", &format!("/rooms/{room}/join"), &json!({})).0, 404);
}

#[test]
fn who_is_there_is_told_by_name() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob) = (chat.register("alice"), chat.register("bob"));
    let (mut one, mut two) = (alice.live(), alice.live());
    one.subscribe("lobby");
    two.subscribe("lobby");
    let mut three = bob.live();
    three.subscribe("lobby");
    // Who asks too often is told so, and asks again.
    let told = wait_for("both are there", || {
        let (status, told) = bob.call("GET", "/rooms/lobby/online", &json!({}));
        (status == 200 && told["count"] == 2).then_some(told)
    });
    let mut names: Vec<_> =
        told["people"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["alice", "bob"]);
    let mut called = |ids: &str| bob.call("GET", &format!("/rooms/lobby/names?ids={ids}"), &Value::Null);
    let both = format!("{},nobody,,%27%20OR%201%3D1,{}", alice.id, alice.id);
    assert_eq!(called(&both), (200, json!({"people": [{"id": alice.id, "name": "alice", "role": "owner"}]})));
    assert_eq!(called(""), (200, json!({"people": []})));
    assert_eq!(called(&["x"; 101].join(",")).0, 400);
    let mut carol = chat.register("carol");
    carol.good("POST", "/rooms/lobby/leave", &json!({}));
    for path in ["/rooms/lobby/online", &format!("/rooms/lobby/names?ids={}", alice.id)] {
        assert_eq!(carol.bad("GET", path, &json!({})), (403, "not_member".to_owned()));
    }
    let of_carol = format!("/rooms/lobby/names?ids={}", carol.id);
    assert_eq!(bob.get(&of_carol), json!({"people": []}));
}

#[test]
fn whoever_is_in_no_room_of_somebody_cannot_end_their_connections() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut mallory) = (chat.register("alice"), chat.register("mallory"));
    let mut live = alice.live();
    live.subscribe("lobby");
    let made = mallory.good("POST", "/rooms", &json!({"name": "a trap", "open": false}));
    let trap = made["id"].as_str().unwrap().to_owned();
    let invite = format!("/rooms/{trap}/invite");
    for role in ["removed", "banned", "removed"] {
        mallory.good("POST", &invite, &json!({"name": "alice"}));
        assert_eq!(appoint(&mut mallory, &trap, &alice, role).0, 200, "{role}");
    }
    // Tokens are taken back before what was written later is published.
    mallory.say("lobby", "1", "still there?");
    live.hear("still there?");
}

#[test]
fn a_room_is_found_however_its_name_is_written_and_no_other_is_the_lobby() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("alice");
    let mut make = |name: &str| alice.call("POST", "/rooms", &json!({"name": name, "open": true})).0;
    assert_eq!(make("\u{c9}cole d'Hiver"), 200);
    for name in ["Lobby", "LOBBY", "l\u{43e}bby"] {
        assert_eq!(make(name), 409, "{name}");
    }
    let mut found = |part: &str| alice.get(&format!("/rooms?name={part}"))["rooms"].as_array().unwrap().len();
    for part in ["%C3%89cole", "%C3%A9COLE", "hiver", "Lobby", "lob"] {
        assert_eq!(found(part), 1, "{part}");
    }
    assert_eq!(found(&"a".repeat(4_000)), 0);
    assert_eq!(found("%25"), 0, "it would be everything");
}
