//! Messages: everybody's, in order, once; changed, deleted, counted, paged.

use serde_json::{Value, json};

use crate::kit::{Chat, Database, Person};

fn texts(page: &Value) -> Vec<&str> {
    let messages = page["messages"].as_array().expect("messages").iter();
    messages
        .filter(|message| message["kind"] == "text")
        .map(|message| message["text"].as_str().unwrap())
        .collect()
}

fn numbers(page: &Value) -> Vec<i64> {
    page["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| message["seq"].as_i64().unwrap())
        .collect()
}

/// One conversation as two see it, with whatever database.
pub(crate) fn converse(chat: &Chat) {
    let (mut alice, mut bob) = (chat.register("alice"), chat.register("bob"));
    let mut live = bob.live();
    live.subscribe("lobby");
    let sent = alice.say("lobby", "1", "first <script>alert(1)</script> '; DROP TABLE messages; -- é 🎈");
    assert_eq!(live.hear(sent["text"].as_str().unwrap()), sent);
    // Sent again, since the answer was lost: the same message, and nobody hears it twice.
    assert_eq!(alice.say("lobby", "1", "first, again"), sent);
    let second = alice.say("lobby", "2", "second");
    let heard = live.message();
    assert_eq!(heard, second);
    assert_eq!(heard["change"].as_i64().unwrap(), sent["change"].as_i64().unwrap() + 1);
    assert_eq!(bob.room("lobby")["unread"], 2);
    bob.good("POST", "/rooms/lobby/seen", &json!({"seq": sent["seq"]}));
    assert_eq!(bob.room("lobby")["unread"], 1);
    assert_eq!(alice.room("lobby")["unread"], 0);

    let path = format!("/rooms/lobby/messages/{}", second["seq"]);
    let edited = alice.good("PATCH", &path, &json!({"text": "second, better"}));
    assert_eq!(live.hear("second, better"), edited);
    assert_eq!((&edited["seq"], &edited["sent"]), (&second["seq"], &second["sent"]));
    let deleted = alice.good("DELETE", &path, &json!({}));
    let heard = live.message();
    assert_eq!((&heard, &heard["text"]), (&deleted, &json!("")));
    assert_eq!(bob.room("lobby")["unread"], 0);

    // What a page missed: each message as it is now, once, whatever became of it in between.
    let missed = bob.get(&format!("/rooms/lobby/messages?after_change={}", sent["change"]));
    assert_eq!(numbers(&missed), [second["seq"].as_i64().unwrap()]);
    assert_eq!(missed["change"], deleted["change"]);
    let none = bob.get(&format!("/rooms/lobby/messages?after_change={}", missed["change"]));
    assert_eq!((numbers(&none), &none["change"]), (vec![], &missed["change"]));
}

#[test]
fn everybody_has_each_message_once_as_it_is_now() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    converse(&chat);
}

#[test]
fn words_that_were_taken_back_are_nowhere_to_be_had() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob) = (chat.register("alice"), chat.register("bob"));
    let mut live = bob.live();
    let at = live.subscribe("lobby");
    let since = format!("{}:{}", at["epoch"].as_str().unwrap(), at["offset"]);
    let deleted = alice.say("lobby", "1", "taken back");
    let edited = alice.say("lobby", "2", "taken back, too");
    live.hear("taken back, too");
    alice.good("DELETE", &format!("/rooms/lobby/messages/{}", deleted["seq"]), &json!({}));
    alice.good("PATCH", &format!("/rooms/lobby/messages/{}", edited["seq"]), &json!({"text": "said better"}));
    live.hear("said better");
    // Neither who comes anew nor who comes back from before, nor who asks for what was, hears them again.
    let topic = "rooms/lobby";
    for ask in [
        json!({"type": "subscribe", "id": 1, "topic": topic, "history": 100}),
        json!({"type": "subscribe", "id": 1, "topic": topic, "since": since}),
        json!({"type": "history", "id": 1, "topic": topic, "limit": 100}),
    ] {
        let mut other = bob.live();
        let mut told = vec![other.ask(&ask)];
        if ask["type"] == "history" {
            other.subscribe("lobby");
        }
        let fresh = format!("fresh {ask}");
        alice.say("lobby", &format!("fresh-{}", ask.to_string().len()), &fresh);
        while told.last().is_some_and(|last| last["data"]["text"] != *fresh) {
            told.push(other.next().unwrap());
        }
        assert!(told.iter().all(|one| !one.to_string().contains("taken back")), "{told:?}");
    }
}

#[test]
fn history_comes_in_pages() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &["--history", "10"]);
    let mut alice = chat.register("alice");
    for number in 0..25 {
        alice.say("lobby", &number.to_string(), &format!("message {number}"));
    }
    let newest = alice.get("/rooms/lobby/messages");
    assert_eq!(texts(&newest), (15..25).map(|number| format!("message {number}")).collect::<Vec<_>>());
    assert_eq!(newest["more"], true);
    let mut all = numbers(&newest);
    let mut page = newest;
    while page["more"] == true {
        page = alice.get(&format!("/rooms/lobby/messages?before={}", all[0]));
        all.splice(0..0, numbers(&page));
    }
    assert_eq!(all, (1..=26).collect::<Vec<_>>());
}

#[test]
fn what_is_wrong_with_a_message_is_said() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("alice");
    let long = "a".repeat(4_001);
    for (id, text, status) in
        [("12345678", "", 422), ("12345678", &*long, 422), ("12345678", "a\u{7}", 422), ("short", "a", 400)]
    {
        let tried = alice.bad("POST", "/rooms/lobby/messages", &json!({"client_id": id, "text": text}));
        assert_eq!(tried.0, status, "{text}");
    }
    assert_eq!(alice.bad("POST", "/rooms/lobby/messages", &json!({"text": 1})).0, 400);
    // Whoever sends without end is told when again.
    let body = |number: i32| json!({"client_id": format!("client-{number}"), "text": "x"});
    let sent = (0..200).map(|number| alice.call("POST", "/rooms/lobby/messages", &body(number)).0);
    assert!(sent.collect::<Vec<_>>().contains(&429));
}

#[test]
fn many_at_once_leave_no_hole_and_no_double() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("alice");
    let mut live = alice.live();
    live.subscribe("lobby");
    let people: Vec<Person> = (0..4).map(|number| chat.register(&format!("person{number}"))).collect();
    std::thread::scope(|scope| {
        for (number, person) in people.iter().enumerate() {
            scope.spawn(move || {
                let mut person = person.clone();
                for message in 0..10 {
                    person.say("lobby", &format!("{number}-{message}"), &format!("{number} {message}"));
                    person.say("lobby", &format!("{number}-{message}"), "again");
                }
            });
        }
    });
    let mut heard = Vec::new();
    while heard.iter().filter(|message: &&Value| message["kind"] == "text").count() < 40 {
        heard.push(live.message());
    }
    let changes: Vec<i64> = heard.iter().map(|message| message["change"].as_i64().unwrap()).collect();
    assert_eq!(changes, (changes[0]..changes[0] + changes.len() as i64).collect::<Vec<_>>());
    let page = alice.get("/rooms/lobby/messages?after_change=0");
    let said: Vec<&Value> = page["messages"].as_array().unwrap().iter().collect();
    assert_eq!(said[said.len() - 40..], heard.iter().rev().take(40).rev().collect::<Vec<_>>());
}
