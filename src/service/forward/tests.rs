//! The service against applications that are well, restart, err, lie, and are slow.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::metrics::calls::{CallOutcome, FAILURES, Labelled};
use crate::metrics::forward::{CALLS_BRING, MessageOutcome};
use crate::service::kit::{Server, answered, ok};
use crate::topic::Key;

const BOUNDS: Bounds =
    Bounds { messages_max: 10_000, bytes_max: 1 << 26, batch_messages_max: 16, batch_bytes_max: 1 << 16 };

/// Everybody who was told something, in order.
type Heard = Arc<Mutex<Vec<(u32, Told)>>>;

struct Kit {
    forward: Forward,
    heard: Heard,
    url: String,
    named: Vec<Arc<Named>>,
}

fn secret_file() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("fantail-forward-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, "a secret of some length, at least").unwrap();
    path.to_str().unwrap().to_owned()
}

impl Kit {
    fn new(url: String, change: impl FnOnce(&mut ForwardPlan)) -> Self {
        let secret = secret_file();
        let mut plan = ForwardPlan {
            secret_file: secret.clone(),
            ca: None,
            calls_max: 3,
            deadline: Duration::from_secs(30),
            tried_for: Duration::from_secs(300),
            bounds: BOUNDS,
        };
        change(&mut plan);
        let forward = Forward::new(plan, "00ff".to_owned()).unwrap();
        std::fs::remove_file(secret).unwrap();
        let heard = Heard::default();
        let hears = Arc::clone(&heard);
        forward.start(
            move |sender, told| {
                hears.lock().unwrap().extend(told.into_iter().map(|told| (sender.key.slot, told)));
            },
            |_, _| true,
        );
        let named = forward.prepare([url.as_str()]).unwrap();
        Self { forward, heard, url, named }
    }

    fn send(&self, slot: u32, text: &str) -> bool {
        let message = Message {
            sender: Sender { loop_index: 0, key: Key { slot, generation: 1 } },
            topic: "a".into(),
            binary: false,
            document: false,
            payload: text.as_bytes().into(),
            identity: None,
            admission: 0,
            address: None,
            dialect: "plain",
            request: None,
            number: 0,
            time_ms: 0,
            taken_ms: 0,
        };
        self.forward.send(&self.url, message)
    }

    fn wait_for(&self, count: usize) -> Vec<(u32, Told)> {
        wait_for("everybody to be told", || self.heard.lock().unwrap().len() >= count);
        self.heard.lock().unwrap().clone()
    }

    /// How many have ended so: taken, refused, failed, full.
    fn counted(&self) -> [u64; 4] {
        let of = |place| self.forward.facts().messages.of(MessageOutcome::ALL[place]);
        std::array::from_fn(of)
    }
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The payloads of a request, each with its id.
fn rows(request: &str) -> Vec<(String, String)> {
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    body["messages"].as_array().unwrap().iter().map(|row| (text(&row["id"]), text(&row["data"]))).collect()
}

#[test]
fn an_application_that_restarts_and_errs_gets_everything_in_the_order_of_each() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let server = Server::start(move |_, stream| match counted.fetch_add(1, Ordering::SeqCst) % 7 {
        2 => false,
        4 => stream.write_all(&answered("503 Wait", "")).is_ok(),
        5 => stream.write_all(&answered("500 Oh", "")).is_ok(),
        _ => stream.write_all(&answered("204 Taken", "")).is_ok(),
    });
    let kit = Kit::new(server.url(), |_| {});
    for number in 0..300 {
        assert!(kit.send(number % 5, &format!("{}/{:03}", number % 5, number)));
    }
    let told = kit.wait_for(300);
    assert!(told.iter().all(|(_, told)| told.fate == Fate::Taken(None)));
    assert_eq!(kit.counted(), [300, 0, 0, 0]);
    wait_for("nothing to be held", || kit.forward.facts().waiting_bytes == 0);
    // In the order in which they came first, those of each are in order, and what came again has its name.
    let requests = server.requests.lock().unwrap().clone();
    let (mut names, mut seen): (HashMap<String, String>, Vec<Vec<String>>) =
        (HashMap::new(), vec![Vec::new(); 5]);
    for (id, text) in requests.iter().flat_map(|request| rows(request)) {
        if let Some(before) = names.insert(id, text.clone()) {
            assert_eq!(before, text);
            continue;
        }
        seen[text[..1].parse::<usize>().unwrap()].push(text);
    }
    assert_eq!(names.len(), 300);
    assert!(seen.iter().all(|of| of.is_sorted() && of.len() == 60), "{seen:?}");
}

#[test]
fn one_message_that_can_not_be_taken_holds_up_no_other() {
    let server = Server::start(|request, stream| {
        let answer = if request.contains("poison") { "422 No" } else { "204 Taken" };
        stream.write_all(&answered(answer, "")).is_ok()
    });
    let kit = Kit::new(server.url(), |plan| plan.calls_max = 1);
    let texts = ["a", "poison", "b", "c"];
    texts.iter().for_each(|text| assert!(kit.send(1, text)));
    assert!(kit.send(2, "other"));
    let told = kit.wait_for(5);
    let of = |slot: u32| {
        told.iter().filter(|(of, _)| *of == slot).map(|(_, told)| told.fate.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(1), [Fate::Taken(None), Fate::Failed, Fate::Taken(None), Fate::Taken(None)]);
    assert_eq!((of(2), kit.counted()), (vec![Fate::Taken(None)], [4, 0, 1, 0]));
}

#[test]
fn who_lies_is_not_asked_again_and_who_is_away_is_tried_until_the_time_is_over() {
    let long = vec![b'x'; 2 << 20];
    for (answer, ended) in [
        (ok("not JSON"), CallOutcome::Nonsense),
        (ok(r#"{"messages":[{"id":"msg_00ff_99"}]}"#), CallOutcome::Nonsense),
        (answered("302 Elsewhere\r\nLocation: http://127.0.0.1:1/", ""), CallOutcome::Redirect),
        (
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", long.len()).into_bytes(), long.clone()]
                .concat(),
            CallOutcome::TooLong,
        ),
    ] {
        let server = Server::saying(answer);
        let kit = Kit::new(server.url(), |_| {});
        assert!(kit.send(1, "a"));
        assert_eq!(kit.wait_for(1)[0].1.fate, Fate::Failed, "{ended:?}");
        let calls = kit.forward.facts().calls;
        assert_eq!((server.asked(), calls.of(ended), calls.total()), (1, 1, 1), "{ended:?}");
        assert!(CALLS_BRING.iter().chain(&FAILURES).any(|shown| *shown == ended), "{ended:?} has no sample");
    }
    // A port that is taken and that nobody listens on.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    nobody.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = nobody.local_addr().unwrap().as_socket().unwrap();
    let kit = Kit::new(format!("http://{address}/"), |plan| plan.tried_for = Duration::from_millis(300));
    (0..20).for_each(|number| assert!(kit.send(number, "a")));
    assert!(kit.wait_for(20).iter().all(|(_, told)| told.fate == Fate::Failed));
    assert!(kit.forward.facts().calls.total() >= 2, "it was tried again");
    assert_eq!(kit.counted(), [0, 0, 20, 0]);
}

#[test]
fn bounds_refuse_and_the_end_gives_each_one_more_try() {
    let gate = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
    let held = Arc::clone(&gate);
    let server = Server::start(move |_, stream| {
        let open = held.0.lock().unwrap();
        drop(held.1.wait_timeout_while(open, Duration::from_secs(60), |open| !*open).unwrap());
        stream.write_all(&answered("204 Taken", "")).is_ok()
    });
    let kit = Kit::new(server.url(), |plan| plan.bounds.messages_max = 20);
    let sent = (0..15).filter(|number| kit.send(1, &number.to_string())).count();
    assert_eq!((sent, kit.counted()[3]), (10, 5), "half is left for others");
    assert!(kit.send(2, "of another"));
    assert_eq!(kit.forward.facts().waiting, 11);
    assert_eq!(kit.forward.finish(Duration::ZERO), 11);
    assert!(!kit.send(1, "late"));
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert_eq!(kit.forward.finish(Duration::from_secs(60)), 0);
    assert_eq!(kit.counted()[0], 11);
}

#[test]
fn a_url_that_nobody_names_any_more_gets_what_it_is_owed_and_takes_nothing() {
    let gate = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
    let held = Arc::clone(&gate);
    let server = Server::start(move |_, stream| {
        let open = held.0.lock().unwrap();
        drop(held.1.wait_timeout_while(open, Duration::from_secs(60), |open| !*open).unwrap());
        stream.write_all(&answered("204 Taken", "")).is_ok()
    });
    let mut kit = Kit::new(server.url(), |_| {});
    let same = kit.forward.prepare([kit.url.as_str()]).unwrap();
    assert!(Arc::ptr_eq(&same[0], &kit.named[0]));
    (0..3).for_each(|number| assert!(kit.send(1, &number.to_string())));
    kit.named.clear();
    assert!(kit.send(1, "3"), "an edition before the last still names it");
    drop(same);
    assert!(!kit.send(1, "4"));
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert!(kit.wait_for(4).iter().all(|(_, told)| told.fate == Fate::Taken(None)));
    wait_for("its threads to end", || kit.forward.all().is_empty());
}

#[test]
fn a_url_that_nobody_names_any_more_is_let_go_of_by_all_threads_when_the_last_is_given_up() {
    // A port that is taken and that nobody listens on.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    nobody.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = nobody.local_addr().unwrap().as_socket().unwrap();
    let mut kit = Kit::new(format!("http://{address}/"), |plan| {
        (plan.tried_for, plan.bounds.batch_messages_max) = (Duration::from_millis(1_500), 1);
    });
    (0..20).for_each(|number| assert!(kit.send(number, "a")));
    wait_for("it to be left alone", || kit.forward.facts().left_alone == 1);
    // Who gives them up can't tell anybody meanwhile, so that the others have nothing to wait for.
    let heard = Arc::clone(&kit.heard);
    let held = heard.lock().unwrap();
    wait_for("some to be given up", || kit.counted()[2] >= 1);
    kit.named.clear();
    wait_for("the others to wait", || kit.forward.all().iter().all(|upstream| upstream.idle() >= 1));
    drop(held);
    wait_for("its threads to end", || kit.forward.all().is_empty());
}
