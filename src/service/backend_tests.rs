//! Threads that call a server of tests: how many, how often, and what becomes of what it says.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};

use super::super::kit::{Server, answered, ok};
use super::*;
use crate::metrics::backend::CALLS_BRING;
use crate::metrics::calls::FAILURES;
use crate::topic::Key;

const SOON: Duration = Duration::from_secs(60);

fn plan(url: &str) -> BackendPlan {
    let call = caller::Plan { url: url.to_owned(), ca: None, deadline: SOON, idle_max: 8 };
    BackendPlan { call, calls_max: 8, waiting_max: 1_000, keep: SOON, claims: Vec::new() }
}

fn started(plan: &BackendPlan) -> (Backend, Receiver<(Asker, Arc<Verdict>)>) {
    let backend = Backend::new(plan).unwrap();
    let (tell, told) = mpsc::channel();
    backend
        .start(move |asker, verdict| {
            let _ = tell.send((asker, verdict));
        })
        .unwrap();
    (backend, told)
}

fn asker(ticket: u32) -> Asker {
    Asker { loop_index: 0, key: Key { slot: ticket, generation: 1 }, ticket }
}

fn question(text: &str) -> Request {
    Request { fields: vec![("cookie".to_owned(), text.as_bytes().to_vec())], body: Some(b"{}".to_vec()) }
}

#[test]
fn questions_are_asked_as_many_at_a_time_as_they_may_and_each_is_told() {
    const CALLS_MAX: usize = 8;
    const QUESTIONS: u32 = 100;
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, highest) = (Arc::clone(&under_way), Arc::clone(&most));
    let full = AtomicBool::new(false);
    let server = Server::start(move |request, stream| {
        let count = now.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(count, Ordering::SeqCst);
        // The first wait for each other: so many are under way together, however slow the machine is.
        let began = Instant::now();
        while !full.load(Ordering::SeqCst) && began.elapsed() < SOON {
            full.store(now.load(Ordering::SeqCst) >= CALLS_MAX, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(1));
        }
        let sub = request.lines().find_map(|line| line.strip_prefix("cookie: ")).unwrap();
        now.fetch_sub(1, Ordering::SeqCst);
        stream.write_all(&ok(&format!(r#"{{"allow":true,"sub":"{sub}"}}"#))).is_ok()
    });
    let (backend, told) = started(&BackendPlan { calls_max: CALLS_MAX, ..plan(&server.url()) });
    for number in 0..QUESTIONS {
        assert_eq!(backend.ask(question(&format!("n{number}")), asker(number)).1, Asked::Waits);
    }
    for _ in 0..QUESTIONS {
        let (asker, verdict) = told.recv_timeout(SOON).unwrap();
        let Verdict::Allow(told) = &*verdict else { panic!("{verdict:?}") };
        assert_eq!(*told.claims.sub, *format!("n{}", asker.ticket), "each its own answer");
    }
    assert_eq!((most.load(Ordering::SeqCst), server.asked()), (CALLS_MAX, QUESTIONS as usize));
    let facts = backend.facts();
    let asked = |facts: &BackendFacts, way| facts.questions.of(way);
    assert_eq!((facts.waiting, facts.left_alone), (0, false));
    assert_eq!((facts.calls.of(CallOutcome::Allow), asked(&facts, QuestionWay::Call)), (100, 100));
    let (_, again) = backend.ask(question("n7"), asker(0));
    assert!(matches!(again, Asked::Answered(verdict) if matches!(*verdict, Verdict::Allow(_))));
    assert_eq!((server.asked(), asked(&backend.facts(), QuestionWay::Kept)), (QUESTIONS as usize, 1));
}

#[test]
fn equal_questions_under_way_are_one_call_and_all_are_told() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let server = Server::start(move |_, stream| {
        let _ = gone.lock().unwrap().recv_timeout(SOON);
        stream.write_all(&ok(r#"{"allow":false}"#)).is_ok()
    });
    let (backend, told) = started(&plan(&server.url()));
    let digests: Vec<_> = (0..50).map(|number| backend.ask(question("same"), asker(number)).0).collect();
    assert!(backend.forget(&digests[7], &asker(7)));
    go.send(()).unwrap();
    let mut tickets: Vec<u32> = (0..49)
        .map(|_| told.recv_timeout(SOON).unwrap())
        .map(|(asker, verdict)| {
            assert_eq!(*verdict, Verdict::Deny);
            asker.ticket
        })
        .collect();
    tickets.sort_unstable();
    assert_eq!(tickets, (0..50).filter(|number| *number != 7).collect::<Vec<_>>());
    assert_eq!((server.asked(), backend.facts().questions.of(QuestionWay::Joined)), (1, 49));
}

#[test]
fn what_it_says_is_believed_only_as_it_is_meant() {
    let long = format!(r#"{{"allow":true,"sub":"a","data":"{}"}}"#, "x".repeat(10 << 20));
    for (answer, verdict, ended) in [
        (answered("401 No", "who?"), Verdict::Unidentified, CallOutcome::Unidentified),
        (answered("403 No", "no"), Verdict::Deny, CallOutcome::Deny),
        (ok(r#"{"allow":false}"#), Verdict::Deny, CallOutcome::Deny),
        (ok("<html>welcome</html>"), Verdict::Useless, CallOutcome::Nonsense),
        (ok(r#"{"allow":"yes","sub":"root"}"#), Verdict::Useless, CallOutcome::Nonsense),
        (
            ok(r#"{"allow":true,"sub":"a/b","subscribe":["users/{sub}/**"]}"#),
            Verdict::Useless,
            CallOutcome::Nonsense,
        ),
        (answered("204 None", ""), Verdict::Useless, CallOutcome::Status),
        (answered("400 Bad\r\nRetry-After: 300", ""), Verdict::Useless, CallOutcome::Status),
        (answered("431 Large", ""), Verdict::Useless, CallOutcome::Status),
        (answered("429 Many", ""), Verdict::Down, CallOutcome::Status),
        (answered("500 Oh", r#"{"allow":true,"sub":"root"}"#), Verdict::Down, CallOutcome::Status),
        (answered("302 Found\r\nLocation: /ok", ""), Verdict::Useless, CallOutcome::Redirect),
        (ok(&long), Verdict::Useless, CallOutcome::TooLong),
    ] {
        let server = Server::saying(answer);
        let (backend, told) = started(&plan(&server.url()));
        backend.ask(question("a"), asker(1));
        assert_eq!(*told.recv_timeout(SOON).unwrap().1, verdict, "{ended:?}");
        let facts = backend.facts();
        assert_eq!((facts.calls.of(ended), facts.calls.total()), (1, 1), "{ended:?}: {facts:?}");
        assert!(CALLS_BRING.iter().chain(&FAILURES).any(|shown| *shown == ended), "{ended:?} has no sample");
        assert!(!facts.left_alone, "{ended:?}: it says nothing of others");
    }
}

#[test]
fn one_that_fails_again_and_again_is_left_alone_and_everybody_is_told_at_once() {
    let server = Server::saying(answered("500 Oh", ""));
    let (backend, told) = started(&BackendPlan { calls_max: 1, ..plan(&server.url()) });
    for number in 0..40 {
        backend.ask(question(&number.to_string()), asker(number));
    }
    let facts = loop {
        let facts = backend.facts();
        if facts.waiting == 0 {
            break facts;
        }
        thread::sleep(Duration::from_millis(1));
    };
    // Those who came when it was left alone already were told as they asked.
    let down = facts.questions.of(QuestionWay::Down);
    for _ in 0..40 - down {
        assert_eq!(*told.recv_timeout(SOON).unwrap().1, Verdict::Down);
    }
    // A pause may have ended meanwhile, and each allows one more call.
    assert!((5..40).contains(&server.asked()), "{}", server.asked());
    // It asks to be left alone for longer than this test can take.
    let server = Server::saying(answered("503 Busy\r\nRetry-After: 300", ""));
    let (backend, told) = started(&plan(&server.url()));
    backend.ask(question("a"), asker(1));
    assert_eq!(*told.recv_timeout(SOON).unwrap().1, Verdict::Down);
    assert_eq!(backend.ask(question("b"), asker(2)).1, Asked::Answered(Arc::new(Verdict::Down)));
    assert_eq!((server.asked(), backend.facts().left_alone), (1, true));
}
