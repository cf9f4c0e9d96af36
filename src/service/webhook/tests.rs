//! The webhook against receivers that die, err, are slow, or are not there.

use std::io::Write;
use std::sync::atomic::AtomicUsize;

use serde_json::Value;

use super::*;
use crate::service::kit::{Server, answered, ok};

fn start(url: &str, bytes_max: usize) -> Webhook {
    let plan = Plan { url: url.to_owned(), ca: None, deadline: Duration::from_secs(60), idle_max: 1 };
    let secret = Secret::parse("a secret of some length, at least").unwrap();
    let target = Target { caller: Caller::new(&plan).unwrap(), secret };
    let bounds = Bounds { queue_bytes: bytes_max, message_bytes: 100 };
    Webhook::start(target, "00ff".to_owned(), bounds, Wanted::default(), Arc::default()).unwrap()
}

fn field<'a>(request: &'a str, name: &str) -> &'a str {
    let lines = request.split("\r\n\r\n").next().unwrap_or_default().lines();
    lines
        .filter_map(|line| line.split_once(": "))
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .unwrap()
        .1
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Topics of a request's events.
fn topics(request: &str) -> Vec<String> {
    let body = body(request);
    let events = body["events"].as_array().unwrap();
    events.iter().map(|event| event["topic"].as_str().unwrap().to_owned()).collect()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_receiver_that_fails_gets_the_same_batch_again_and_nothing_is_lost_or_overtaken() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    // First it leaves without a word, then it errs, then it is well.
    let server = Server::start(move |_, stream| match counted.fetch_add(1, Ordering::SeqCst) {
        0 => false,
        1 | 2 => stream.write_all(&answered("500 Internal Server Error", "")).is_ok(),
        _ => stream.write_all(&ok("")).is_ok(),
    });
    let webhook = start(&server.url(), 1 << 20);
    let sent: Vec<String> = (0..2_500).map(|number| format!("topic {number}")).collect();
    for topic in &sent {
        webhook.shared.take(What::occupied(topic));
    }
    let counts = Arc::clone(&webhook.shared.counts);
    wait_for("everything to be taken", || counts.reading().events[0].1 == 2_500);
    webhook.finish(Duration::from_secs(60));

    let requests = server.requests.lock().unwrap().clone();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let mut told = Vec::new();
    for request in &requests {
        let (id, text) = (field(request, "webhook-id"), request.split_once("\r\n\r\n").unwrap().1);
        match seen.iter().find(|(known, _)| *known == id) {
            Some((_, before)) => assert_eq!(*before, text, "the same batch under the same name"),
            None => {
                seen.push((id, text));
                told.extend(topics(request));
            }
        }
        assert!(field(request, "webhook-signature").starts_with("v1,"), "{request:.300}");
    }
    assert_eq!(told, sent);
    assert!(requests.len() > seen.len(), "it was tried again");
    assert!(counts.reading().failed_calls >= 2);
    assert_eq!(counts.reading().queue_bytes, 0);
}

#[test]
fn a_receiver_that_is_slow_holds_nobody_up_and_is_told_what_it_missed() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let held = Arc::clone(&gate);
    let server = Server::start(move |_, stream| {
        let open = held.0.lock().unwrap();
        let wait = held.1.wait_timeout_while(open, Duration::from_secs(60), |open| !*open);
        drop(wait.unwrap());
        stream.write_all(&ok("")).is_ok()
    });
    let webhook = start(&server.url(), 4_096);
    webhook.shared.take(What::occupied("first"));
    wait_for("the first to be under way", || server.asked() == 1);
    for number in 0..1_000 {
        webhook.shared.take(What::occupied(&format!("topic {number}")));
    }
    let counts = Arc::clone(&webhook.shared.counts);
    let lost = counts.reading().events[1].1;
    assert!((900..1_000).contains(&lost) && counts.reading().queue_bytes <= 4_096, "{:?}", counts.reading());
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    webhook.finish(Duration::from_secs(60));
    let requests = server.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 2);
    assert_eq!(body(&requests[1])["missed"], lost);
    assert_eq!(topics(&requests[1]).len() as u64, 1_000 - lost);
    assert_eq!(
        counts.reading().events,
        [("delivered", 1_001 - lost), ("overflowed", lost), ("undelivered", 0)]
    );
}

#[test]
fn what_is_left_where_the_time_for_the_end_is_over_is_counted() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let held = Arc::clone(&gate);
    let server = Server::start(move |_, stream| {
        let open = held.0.lock().unwrap();
        drop(held.1.wait_timeout_while(open, Duration::from_secs(60), |open| !*open).unwrap());
        stream.write_all(&ok("")).is_ok()
    });
    let webhook = start(&server.url(), 4_096);
    webhook.shared.take(What::occupied("first"));
    wait_for("the first to be under way", || server.asked() == 1);
    webhook.shared.take(What::occupied("second"));
    webhook.shared.take(What::vacated("third"));
    assert_eq!(webhook.finish(Duration::ZERO), 3, "under way, waiting, held back");
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert_eq!(webhook.finish(Duration::from_secs(60)), 0);
}

#[test]
fn a_batch_that_is_given_up_is_missed_in_the_next() {
    let server = Server::start(|request, stream| match request.contains("first") {
        true => stream.write_all(&answered("500 Internal Server Error", "")).is_ok(),
        false => stream.write_all(&ok("")).is_ok(),
    });
    let webhook = start(&server.url(), 4_096);
    webhook.shared.take(What::occupied("first"));
    wait_for("it to be refused", || webhook.shared.counts.reading().failed_calls > 0);
    webhook.shared.take(What::vacated("second"));
    // In the end it is given up.
    assert_eq!(webhook.finish(Duration::from_secs(60)), 0);
    let requests = server.requests.lock().unwrap().clone();
    let (last, before) = requests.split_last().unwrap();
    assert_eq!((topics(last), &body(last)["missed"]), (vec!["second".to_owned()], &1.into()));
    assert!(before.iter().all(|request| topics(request) == ["first"]), "{before:?}");
    assert_eq!(
        webhook.shared.counts.reading().events,
        [("delivered", 1), ("overflowed", 0), ("undelivered", 1)]
    );
}

#[test]
fn in_the_end_what_is_held_back_is_told_and_what_can_not_be_is_counted() {
    let server = Server::saying(ok(""));
    let webhook = start(&server.url(), 4_096);
    webhook.shared.take(What::vacated("a"));
    webhook.finish(Duration::from_secs(60));
    let requests = server.requests.lock().unwrap().clone();
    assert_eq!(body(&requests[0])["events"][0]["type"], "vacated");

    // A port that is taken and that nobody listens on.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    nobody.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = nobody.local_addr().unwrap().as_socket().unwrap();
    let webhook = start(&format!("http://{address}/"), 4_096);
    let counts = Arc::clone(&webhook.shared.counts);
    webhook.shared.take(What::occupied("a"));
    wait_for("a try to fail", || counts.reading().failed_calls > 0);
    webhook.finish(Duration::from_secs(60));
    assert_eq!(counts.reading().events, [("delivered", 0), ("overflowed", 0), ("undelivered", 1)]);
}
