//! Private messages, as far as the server has to do with them: envelopes of the right form pass, in order, once, to the two
//! and nobody else. What is inside is random here; that pages can open what pages seal is tested with pages.

use std::sync::atomic::{AtomicU8, Ordering};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use sqlx::{Connection, Row};

use crate::kit::{Chat, Database, Live, PASSWORD, Person};

fn base64(length: usize, byte: u8) -> String {
    BASE64URL_NOPAD.encode(&vec![byte; length])
}

/// A key that is the only one of its kind in a test.
fn key() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let mut point = [NEXT.fetch_add(1, Ordering::Relaxed); 65];
    point[0] = 4;
    BASE64URL_NOPAD.encode(&point)
}

/// How many rows a table has, as somebody sees who opens the file.
fn rows(database: &Database, table: &str) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}", database.path());
        let mut connection = sqlx::AnyConnection::connect(&url).await.expect("a database");
        let query = format!("SELECT COUNT(*) AS rows FROM {table}");
        let row = sqlx::query(&query).fetch_one(&mut connection).await.expect("a count");
        row.try_get("rows").expect("a number")
    })
}

/// A device: its name and its key.
type Device = (String, String);

fn add_device(person: &mut Person) -> Device {
    let key = key();
    let told = person.good("POST", "/devices", &json!({"key": key, "name": "Chromium on Linux"}));
    (told["device"].as_str().expect("a name").to_owned(), key)
}

/// A conversation between two, as one of them writes in it.
struct Talk<'a> {
    id: &'a str,
    from: &'a str,
    to: &'a str,
    device: &'a Device,
    all: Vec<&'a Device>,
}

impl Talk<'_> {
    fn body(&self, client_id: &str) -> Value {
        let mut devices: Vec<&str> = self.all.iter().map(|(id, _)| &**id).collect();
        devices.sort_unstable();
        let header = json!({"v": 1, "conversation": self.id, "from": self.from, "to": self.to, "device": self.device.0,
            "key": self.device.1, "id": client_id, "after": null, "commitment": base64(32, 5), "devices": devices});
        let part = json!({"enc": self.device.1, "key": base64(48, 7)});
        let keys: serde_json::Map<_, _> = devices.iter().map(|id| ((*id).to_owned(), part.clone())).collect();
        json!({"client_id": client_id, "envelope": {"header": header.to_string(), "iv": base64(12, 1),
            "body": base64(256 + 16, 9), "keys": keys}})
    }

    fn path(&self) -> String {
        format!("/conversations/{}/messages", self.id)
    }

    fn send(&self, person: &mut Person, client_id: &str) -> Value {
        person.good("POST", &self.path(), &self.body(client_id))
    }

    fn refused(&self, person: &mut Person, client_id: &str) -> (u16, String) {
        person.bad("POST", &self.path(), &self.body(client_id))
    }
}

fn begin(person: &mut Person, name: &str) -> String {
    let told = person.good("POST", "/conversations", &json!({"name": name}));
    told["id"].as_str().expect("an id").to_owned()
}

fn listed(person: &mut Person, id: &str) -> Value {
    let told = person.get("/conversations");
    let list = told["conversations"].as_array().expect("a list");
    list.iter().find(|one| one["id"] == id).cloned().unwrap_or_default()
}

/// On one's own topic.
fn own(person: &mut Person) -> Live {
    let mut live = person.live();
    let topic = format!("people/{}", person.id);
    assert_eq!(live.ask(&json!({"type": "subscribe", "id": 1, "topic": topic}))["type"], "subscribed");
    live
}

fn hear(live: &mut Live) -> Value {
    loop {
        let mut told = live.message();
        if told["private"].is_object() {
            return told["private"].take();
        }
    }
}

/// One conversation as two see it, with whatever database.
pub(crate) fn whisper(chat: &Chat) {
    let (mut alice, mut bob) = (chat.register("alice.w"), chat.register("bob.w"));
    let (desk, laptop) = (add_device(&mut alice), add_device(&mut bob));
    let id = &*begin(&mut alice, "BOB.W");
    assert_eq!(begin(&mut bob, "alice.w"), id, "one conversation of two, whoever begins");
    let (from, to) = (alice.id.clone(), bob.id.clone());
    let talk = Talk { id, from: &from, to: &to, device: &desk, all: vec![&desk, &laptop] };
    let (mut hers, mut his) = (own(&mut alice), own(&mut bob));

    let sent = talk.send(&mut alice, "client-1");
    assert_eq!((&sent["seq"], &sent["change"]), (&json!(1), &json!(1)));
    for live in [&mut hers, &mut his] {
        assert_eq!(hear(live), sent);
    }
    // Sent again, since the answer was lost: the same message, and nobody hears it twice.
    assert_eq!(talk.send(&mut alice, "client-1"), sent);
    let second = talk.send(&mut alice, "client-2");
    for live in [&mut hers, &mut his] {
        assert_eq!(hear(live), second);
    }
    assert_eq!((&listed(&mut bob, id)["unread"], &listed(&mut alice, id)["unread"]), (&json!(2), &json!(0)));
    bob.good("POST", &format!("/conversations/{id}/seen"), &json!({"seq": 1}));
    assert_eq!(listed(&mut bob, id)["unread"], 1);

    // bob has another device: what is not for it is not taken, what is for it is.
    let phone = add_device(&mut bob);
    assert_eq!(talk.refused(&mut alice, "client-3"), (409, "other_devices".to_owned()));
    let told = alice.get(&format!("/conversations/{id}/devices"));
    let theirs: Vec<_> = told["theirs"].as_array().expect("devices").iter().map(|one| &one["key"]).collect();
    assert_eq!(theirs, [&laptop.1, &phone.1]);
    let talk = Talk { all: vec![&desk, &laptop, &phone], ..talk };
    let third = talk.send(&mut alice, "client-3");
    assert_eq!(hear(&mut his), third);
    assert_eq!(hear(&mut hers), third);

    // Deleted is gone, and its place stays.
    let path = format!("{}/2", talk.path());
    assert_eq!(bob.bad("DELETE", &path, &json!({})), (403, "not_yours".to_owned()));
    let deleted = alice.good("DELETE", &path, &json!({}));
    assert_eq!((&deleted["deleted"], &deleted["envelope"]), (&json!(true), &Value::Null));
    assert_eq!(hear(&mut his), deleted);
    assert_eq!(alice.bad("DELETE", &path, &json!({})), (404, "not_found".to_owned()));
    assert_eq!(listed(&mut bob, id)["unread"], 1);

    // What a page missed: each message as it is now, once.
    let missed = bob.get(&format!("{}?after_change=1", talk.path()));
    assert_eq!(missed["messages"], json!([third, deleted]));
    assert_eq!((&missed["change"], &missed["more"]), (&deleted["change"], &json!(false)));
    let page = bob.get(&talk.path());
    assert_eq!(page["messages"], json!([sent, deleted, third]));
    assert_eq!(bob.get(&format!("{}?before=2", talk.path()))["messages"], json!([sent]));
}

#[test]
fn two_have_each_message_once_and_in_order() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    whisper(&chat);
}

#[test]
fn history_between_two_comes_in_pages() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &["--history", "10"]);
    let (mut alice, mut bob) = (chat.register("alice"), chat.register("bob"));
    let (desk, laptop) = (add_device(&mut alice), add_device(&mut bob));
    let id = begin(&mut alice, "bob");
    let (from, to) = (alice.id.clone(), bob.id.clone());
    let talk = Talk { id: &id, from: &from, to: &to, device: &desk, all: vec![&desk, &laptop] };
    for number in 0..25 {
        talk.send(&mut alice, &format!("client-{number}"));
    }
    let mut page = bob.get(&talk.path());
    let mut all: Vec<i64> = Vec::new();
    loop {
        let messages = page["messages"].as_array().expect("messages");
        assert!(messages.len() <= 10);
        all.splice(0..0, messages.iter().map(|message| message["seq"].as_i64().expect("a number")));
        if page["more"] == false {
            break;
        }
        page = bob.get(&format!("{}?before={}", talk.path(), all[0]));
    }
    assert_eq!(all, (1..=25).collect::<Vec<_>>());
}

#[test]
fn nobody_else_reads_writes_or_hears() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob, mut mallory) =
        (chat.register("alice"), chat.register("bob"), chat.register("mallory"));
    let (desk, laptop, evil) = (add_device(&mut alice), add_device(&mut bob), add_device(&mut mallory));
    let id = &*begin(&mut alice, "bob");
    let (from, to, stranger) = (alice.id.clone(), bob.id.clone(), mallory.id.clone());
    let talk = Talk { id, from: &from, to: &to, device: &desk, all: vec![&desk, &laptop] };
    talk.send(&mut alice, "client-1");

    let not_found = (404, "not_found".to_owned());
    for (method, path) in [
        ("GET", "messages"),
        ("GET", "messages?after_change=0"),
        ("GET", "devices"),
        ("DELETE", "messages/1"),
        ("POST", "block"),
    ] {
        let path = format!("/conversations/{id}/{path}");
        assert_eq!(mallory.bad(method, &path, &json!({"block": true})), not_found, "{method} {path}");
    }
    mallory.good("POST", &format!("/conversations/{id}/seen"), &json!({"seq": 1}));
    assert_eq!(listed(&mut bob, id)["unread"], 1);
    assert_eq!(mallory.get("/conversations")["conversations"], json!([]));

    // In her own name, in alice's, with alice's device, with her own.
    let bad_request = (400, "bad_request".to_owned());
    let forged = Talk { id, from: &stranger, to: &to, device: &evil, all: vec![&desk, &laptop] };
    assert_eq!(forged.refused(&mut mallory, "client-2"), not_found);
    assert_eq!(talk.refused(&mut mallory, "client-2"), bad_request);
    assert_eq!(talk.refused(&mut bob, "client-2"), bad_request);
    let other_devices = (409, "other_devices".to_owned());
    for (device, all) in [
        (&laptop, vec![&desk, &laptop]),
        (&evil, vec![&desk, &laptop]),
        (&desk, vec![&desk, &laptop, &evil]),
        (&desk, vec![&laptop]),
        (&desk, vec![&desk]),
        (&desk, vec![&desk, &evil]),
    ] {
        let talk = Talk { id, from: &from, to: &to, device, all };
        assert_eq!(talk.refused(&mut alice, "client-3"), other_devices);
    }
    // Whom it says it is for is not who is in the conversation.
    let turned = Talk { id, from: &from, to: &stranger, device: &desk, all: vec![&desk, &laptop] };
    assert_eq!(turned.refused(&mut alice, "client-4"), not_found);
    // A name of a message that was used in another conversation.
    let other = begin(&mut alice, "mallory");
    let other = Talk { id: &other, from: &from, to: &stranger, device: &desk, all: vec![&desk, &evil] };
    assert_eq!(other.refused(&mut alice, "client-1"), (409, "repeated".to_owned()));

    // The edge lets nobody onto another's topic, and of all of them tells one's own only.
    let (mut live, mut his) = (mallory.live(), own(&mut bob));
    let told = live.ask(&json!({"type": "subscribe", "id": 1, "topic": format!("people/{to}")}));
    assert_eq!(told["type"], "error", "{told}");
    let told = live.ask(&json!({"type": "subscribe", "id": 2, "topic": "people/*"}));
    assert_eq!(told["type"], "subscribed", "{told}");
    let sent = talk.send(&mut alice, "client-5");
    assert_eq!(hear(&mut his), sent);
    add_device(&mut mallory);
    assert_eq!(live.message(), json!({"devices": {"person": stranger}}));
}

#[test]
fn whoever_is_blocked_or_has_left_is_not_written_to() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob) = (chat.register("alice"), chat.register("bob"));
    let (desk, laptop) = (add_device(&mut alice), add_device(&mut bob));
    assert_eq!(alice.bad("POST", "/conversations", &json!({"name": "Alice"})), (422, "oneself".to_owned()));
    assert_eq!(alice.bad("POST", "/conversations", &json!({"name": "nobody"})), (422, "invalid".to_owned()));
    let id = &*begin(&mut alice, "bob");
    // bob learns of it with the first message.
    assert_eq!(listed(&mut bob, id), Value::Null);
    let (from, to) = (alice.id.clone(), bob.id.clone());
    let talk = Talk { id, from: &from, to: &to, device: &desk, all: vec![&desk, &laptop] };
    let back = Talk { id, from: &to, to: &from, device: &laptop, all: vec![&desk, &laptop] };
    talk.send(&mut alice, "client-1");
    assert_eq!(listed(&mut bob, id)["with"], json!({"id": from, "name": "alice"}));

    let block = format!("/conversations/{id}/block");
    bob.good("POST", &block, &json!({"block": true}));
    bob.good("POST", &block, &json!({"block": true}));
    assert_eq!(listed(&mut bob, id)["blocked"], true);
    assert_eq!(talk.refused(&mut alice, "client-2"), (403, "blocked".to_owned()));
    assert_eq!(back.refused(&mut bob, "client-3"), (403, "blocking".to_owned()));
    // What was sent before it is still known to have been.
    assert_eq!(talk.send(&mut alice, "client-1")["seq"], 1);
    bob.good("POST", &block, &json!({"block": false}));
    talk.send(&mut alice, "client-2");

    let mut live = own(&mut alice);
    bob.good("POST", "/account/delete", &json!({"password": PASSWORD}));
    while live.message() != json!({"conversations": "changed"}) {}
    assert_eq!(listed(&mut alice, id)["with"]["name"], "");
    assert_eq!(talk.refused(&mut alice, "client-4"), (410, "has_left".to_owned()));
    assert_eq!(alice.get(&talk.path())["messages"].as_array().map(Vec::len), Some(2));
    // Another of the same name is another person.
    let mut other = chat.register("bob");
    assert_ne!(begin(&mut alice, "bob"), id);
    assert_eq!((rows(&database, "conversations"), rows(&database, "private_messages")), (2, 2));
    // With the second of the two all of it goes, and of nobody else's.
    alice.good("POST", "/account/delete", &json!({"password": PASSWORD}));
    assert_eq!((rows(&database, "conversations"), rows(&database, "private_messages")), (1, 0));
    other.good("POST", "/account/delete", &json!({"password": PASSWORD}));
    for table in ["people", "conversations", "partners", "private_messages", "devices", "blocks"] {
        assert_eq!(rows(&database, table), 0, "{table}");
    }
}

#[test]
fn a_device_that_was_removed_does_not_come_back() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob) = (chat.register("alice"), chat.register("bob"));
    let (desk, _) = (add_device(&mut alice), add_device(&mut alice));
    let old = json!({"key": desk.1, "name": "Chromium on Linux"});
    assert_eq!(alice.good("POST", "/devices", &old)["device"], desk.0);
    alice.good("DELETE", &format!("/devices/{}", desk.0), &json!({}));
    assert_eq!(rows(&database, "removed_devices"), 1);
    for person in [&mut alice, &mut bob] {
        assert_eq!(person.bad("POST", "/devices", &old), (409, "device_taken".to_owned()));
    }
    assert_eq!(alice.get("/devices")["devices"].as_array().map(Vec::len), Some(1));
    alice.good("POST", "/account/delete", &json!({"password": PASSWORD}));
    assert_eq!(rows(&database, "removed_devices"), 0);
}

#[test]
fn an_envelope_of_another_form_is_refused() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob) = (chat.register("alice"), chat.register("bob"));
    let (desk, laptop) = (add_device(&mut alice), add_device(&mut bob));
    let id = &*begin(&mut alice, "bob");
    let (from, to) = (alice.id.clone(), bob.id.clone());
    let talk = Talk { id, from: &from, to: &to, device: &desk, all: vec![&desk, &laptop] };
    let bad = |alice: &mut Person, body: &Value| alice.bad("POST", &talk.path(), body).0;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = talk.body("client-1");
        change(&mut body);
        body
    };
    for body in [
        json!({"client_id": "client-1", "text": "in the clear"}),
        json!({"client_id": "client-1", "envelope": "x"}),
        json!({"client_id": "client-1", "envelope": {}}),
        with(&|body| body["text"] = "in the clear".into()),
        with(&|body| body["client_id"] = "short".into()),
        with(&|body| body["client_id"] = "client-2".into()),
        with(&|body| body["envelope"]["text"] = "in the clear".into()),
        with(&|body| body["envelope"]["header"] = "in the clear".into()),
        with(&|body| body["envelope"]["iv"] = base64(16, 1).into()),
        with(&|body| body["envelope"]["body"] = base64(16_128 + 256 + 16, 1).into()),
        with(&|body| body["envelope"]["body"] = "in the clear".into()),
        with(&|body| body["envelope"]["keys"] = json!({})),
        with(&|body| body["envelope"]["keys"][&desk.0]["key"] = base64(49, 1).into()),
        with(&|body| body["envelope"]["keys"][&desk.0]["text"] = "in the clear".into()),
    ] {
        assert_eq!(bad(&mut alice, &body), 400, "{body}");
    }
    let endless = with(&|body| body["envelope"]["body"] = "A".repeat(70_000).into());
    assert_eq!(bad(&mut alice, &endless), 413);
    assert_eq!(alice.get(&talk.path())["messages"], json!([]));
    // The largest that there is goes through, to the pages too.
    let mut live = own(&mut bob);
    let largest = with(&|body| body["envelope"]["body"] = base64(16_128 + 16, 1).into());
    let sent = alice.good("POST", &talk.path(), &largest);
    assert_eq!(hear(&mut live), sent);
}

#[test]
fn devices_are_few_and_ones_own() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob) = (chat.register("alice"), chat.register("bob"));
    let (desk, laptop) = (add_device(&mut alice), add_device(&mut bob));
    // The same once more is the same; another's is not to be had, nor is what is no key.
    let again = json!({"key": desk.1, "name": "\u{202e}x"});
    assert_eq!(alice.good("POST", "/devices", &again)["device"], desk.0);
    assert_eq!(alice.get("/devices")["devices"].as_array().map(Vec::len), Some(1));
    assert_eq!(bob.bad("POST", "/devices", &again), (409, "device_taken".to_owned()));
    for key in ["", "x", &*base64(65, 5), &*base64(33, 4), &*format!("{}=", desk.1)] {
        assert_eq!(alice.bad("POST", "/devices", &json!({"key": key, "name": "x"})).0, 400, "{key}");
    }
    assert_eq!(alice.bad("DELETE", &format!("/devices/{}", laptop.0), &json!({})).0, 404);

    let id = begin(&mut alice, "bob");
    let mut live = own(&mut bob);
    for _ in 1..8 {
        add_device(&mut alice);
    }
    // bob is told, since he has a conversation with her.
    while live.message() != json!({"devices": {"person": alice.id}}) {}
    assert_eq!(
        alice.bad("POST", "/devices", &json!({"key": key(), "name": "x"})),
        (409, "too_many_devices".to_owned())
    );
    alice.good("DELETE", &format!("/devices/{}", desk.0), &json!({}));
    let fresh = add_device(&mut alice);
    let told = bob.get(&format!("/conversations/{id}/devices"));
    let names: Vec<_> = told["theirs"].as_array().expect("devices").iter().map(|one| &one["id"]).collect();
    assert_eq!(names.len(), 8);
    assert!(names.contains(&&json!(fresh.0)) && !names.contains(&&json!(desk.0)));

    // An account that is deleted has none.
    alice.good("POST", "/account/delete", &json!({"password": PASSWORD}));
    assert_eq!(bob.good("POST", "/devices", &again)["device"], desk.0);
}
