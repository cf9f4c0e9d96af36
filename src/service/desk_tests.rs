//! What is asked, joined, kept and forgotten, step by step.

use super::*;

const WALL: u64 = 1_800_000_000;

fn desk(waiting_max: usize, keep_ms: u64) -> Desk {
    Desk::new(Bounds { waiting_max, keep: Duration::from_millis(keep_ms) })
}

fn asker(slot: u32) -> Asker {
    Asker { loop_index: 1, key: Key { slot, generation: 7 }, ticket: slot }
}

fn request(text: &str) -> (Digest, Request) {
    let mut digest = [0; 32];
    digest[..text.len()].copy_from_slice(text.as_bytes());
    (digest, Request { fields: Vec::new(), body: Some(text.as_bytes().to_vec()) })
}

fn ask(desk: &mut Desk, now_ms: u64, text: &str, slot: u32) -> Asked {
    let (digest, request) = request(text);
    desk.ask(now_ms, digest, request, asker(slot))
}

fn call(text: &str) -> Next {
    let (digest, request) = request(text);
    Next::Call(digest, request)
}

/// Ends a call; who was told, in order.
fn end(desk: &mut Desk, now_ms: u64, text: &str, outcome: Outcome) -> (Vec<u32>, Arc<Verdict>) {
    let called = desk.called(now_ms, request(text).0, outcome, WALL);
    (called.askers.iter().map(|asker| asker.ticket).collect(), called.verdict)
}

fn deny() -> Outcome {
    Outcome::Verdict(Verdict::Deny, 0)
}

fn allow(expires: u64) -> Outcome {
    let json = format!(r#"{{"allow":true,"sub":"alice","exp":{expires}}}"#);
    match Told::read(json.as_bytes(), WALL, &[]).unwrap() {
        Some(told) => Outcome::Verdict(Verdict::Allow(Box::new(told)), json.len()),
        None => panic!("{json}"),
    }
}

#[test]
fn equal_questions_are_one_call_and_others_are_their_own() {
    let mut desk = desk(10, 1_000);
    assert_eq!(ask(&mut desk, 0, "a", 1), Asked::Waits);
    assert_eq!(ask(&mut desk, 0, "b", 2), Asked::Waits);
    assert_eq!(ask(&mut desk, 0, "a", 3), Asked::Waits);
    assert_eq!((desk.next(0), desk.next(0), desk.next(0)), (call("a"), call("b"), Next::Nothing));
    // Under way, it is joined all the same.
    assert_eq!(ask(&mut desk, 1, "a", 4), Asked::Waits);
    assert_eq!((desk.next(1), desk.waiting()), (Next::Nothing, 4));
    let (told, verdict) = end(&mut desk, 5, "a", deny());
    assert_eq!((told, &*verdict, desk.waiting()), (vec![1, 3, 4], &Verdict::Deny, 1));
    // Kept for a second, of that question alone.
    assert_eq!(ask(&mut desk, 1_004, "a", 5), Asked::Answered(verdict));
    assert_eq!(ask(&mut desk, 1_005, "a", 5), Asked::Waits);
    assert_eq!(desk.next(1_005), call("a"));
}

#[test]
fn an_answer_holds_no_longer_than_its_bearer() {
    let mut desk = desk(10, 5_000);
    for (text, expires, holds) in [("a", WALL + 2, 2_000), ("b", WALL + 60, 5_000)] {
        ask(&mut desk, 0, text, 1);
        desk.next(0);
        end(&mut desk, 0, text, allow(expires));
        assert!(matches!(ask(&mut desk, holds - 1, text, 2), Asked::Answered(_)), "{text}");
        assert_eq!(ask(&mut desk, holds, text, 2), Asked::Waits, "{text}");
    }
    let mut none = self::desk(10, 0);
    ask(&mut none, 0, "a", 1);
    none.next(0);
    end(&mut none, 0, "a", deny());
    assert_eq!(ask(&mut none, 0, "a", 2), Asked::Waits, "nothing is kept");
}

#[test]
fn who_is_forgotten_is_not_told_and_not_called_for() {
    let mut desk = desk(2, 0);
    ask(&mut desk, 0, "a", 1);
    ask(&mut desk, 0, "b", 2);
    assert_eq!(ask(&mut desk, 0, "c", 3), Asked::Full);
    assert_eq!(ask(&mut desk, 0, "a", 3), Asked::Full, "whoever it is");
    assert!(desk.forget(&request("a").0, &asker(1)));
    assert!(!desk.forget(&request("a").0, &asker(1)));
    assert!(!desk.forget(&request("b").0, &asker(9)), "not one of those who ask");
    // It comes again, and has its old place.
    ask(&mut desk, 0, "a", 4);
    assert_eq!((desk.next(0), desk.next(0), desk.next(0)), (call("a"), call("b"), Next::Nothing));
    // Of a call that is under way the answer is kept, though nobody waits.
    assert!(desk.forget(&request("b").0, &asker(2)));
    assert_eq!(end(&mut desk, 0, "b", deny()).0, [] as [u32; 0]);
    assert!(!desk.forget(&request("b").0, &asker(2)));
    assert_eq!((end(&mut desk, 0, "a", deny()).0, desk.waiting()), (vec![4], 0));
    // Those who come and go leave nothing behind, though nobody calls.
    for number in 0..10_000 {
        let text = format!("{number}");
        ask(&mut desk, 0, &text, 1);
        assert!(desk.forget(&request(&text).0, &asker(1)));
        assert!(desk.queued() <= QUEUE_SLACK + 1);
    }
    assert_eq!((desk.next(0), desk.pending.len(), desk.waiting()), (Next::Nothing, 0, 0));
}

#[test]
fn one_that_fails_is_left_alone_and_those_who_wait_are_told() {
    let mut desk = desk(100, 1_000);
    for slot in 0..8 {
        ask(&mut desk, 0, &format!("{slot}"), slot);
    }
    for slot in 0..5 {
        assert_eq!(desk.next(0), call(&format!("{slot}")));
    }
    for slot in 0..5 {
        let (told, verdict) = end(&mut desk, 0, &format!("{slot}"), Outcome::Failed(None));
        assert_eq!((told, &*verdict), (vec![slot], &Verdict::Down));
    }
    assert!(!desk.is_open(0));
    let mut told = Vec::new();
    while let Next::Down(askers) = desk.next(0) {
        told.extend(askers.iter().map(|asker| asker.ticket));
    }
    assert_eq!((told, desk.waiting()), (vec![5, 6, 7], 0));
    assert_eq!(ask(&mut desk, 999, "x", 1), Asked::Answered(Arc::new(Verdict::Down)));
    // One tries it, and the others are told no; when it is back, it is back for all.
    assert_eq!((ask(&mut desk, 1_000, "x", 1), desk.next(1_000)), (Asked::Waits, call("x")));
    assert_eq!(ask(&mut desk, 1_000, "y", 2), Asked::Answered(Arc::new(Verdict::Down)));
    end(&mut desk, 1_001, "x", deny());
    assert_eq!((ask(&mut desk, 1_001, "y", 2), desk.next(1_001)), (Asked::Waits, call("y")));
    // It asks to be left alone.
    end(&mut desk, 1_001, "y", Outcome::Failed(Some(Duration::from_secs(20))));
    assert_eq!(ask(&mut desk, 21_000, "z", 2), Asked::Answered(Arc::new(Verdict::Down)));
    assert_eq!(ask(&mut desk, 21_001, "z", 2), Asked::Waits);
    // What was kept before is said all the same.
    assert_eq!(ask(&mut desk, 1_500, "x", 3), Asked::Answered(Arc::new(Verdict::Deny)));
}

#[test]
fn an_answer_that_says_nothing_is_about_one_question_and_nobody_else_is_refused_by_it() {
    let mut desk = desk(100, 1_000);
    for slot in 0..20 {
        let text = format!("{slot}");
        assert_eq!(ask(&mut desk, 0, &text, slot), Asked::Waits);
        assert_eq!(desk.next(0), call(&text));
        let (told, verdict) = end(&mut desk, 0, &text, Outcome::Useless);
        assert_eq!((told, &*verdict), (vec![slot], &Verdict::Useless));
        assert_eq!(ask(&mut desk, 0, &text, slot), Asked::Waits, "and it is not kept");
        assert!(desk.forget(&request(&text).0, &asker(slot)));
        assert!(desk.is_open(0));
    }
    // A server that is back shows it by any answer.
    for slot in 0..5 {
        ask(&mut desk, 0, &format!("f{slot}"), slot);
        desk.next(0);
        end(&mut desk, 0, &format!("f{slot}"), Outcome::Failed(None));
    }
    assert!(!desk.is_open(0));
    assert_eq!((ask(&mut desk, 1_000, "x", 1), desk.next(1_000)), (Asked::Waits, call("x")));
    end(&mut desk, 1_000, "x", Outcome::Useless);
    assert_eq!((ask(&mut desk, 1_000, "y", 2), desk.next(1_000)), (Asked::Waits, call("y")));
}

#[test]
fn questions_that_wait_are_bounded_by_bytes() {
    let mut desk = desk(10_000, 0);
    let large = |text: &str| {
        let (digest, _) = request(text);
        (digest, Request { fields: Vec::new(), body: Some(vec![0; 1 << 20]) })
    };
    for number in 0..64 {
        let (digest, request) = large(&number.to_string());
        assert_eq!(desk.ask(0, digest, request, asker(number)), Asked::Waits, "{number}");
    }
    assert_eq!(ask(&mut desk, 0, "one more", 64), Asked::Full);
    assert_eq!(ask(&mut desk, 0, "7", 64), Asked::Waits, "one that waits already takes none");
    // Room comes of those who leave, of those who are called for, and of those who are told that nobody is.
    assert!(desk.forget(&request("0").0, &asker(0)));
    assert!(matches!(desk.next(0), Next::Call(..)));
    assert_eq!(desk.waiting_bytes, 62 << 20);
    for _ in 0..5 {
        assert!(matches!(desk.next(0), Next::Call(..)));
    }
    for number in 1..6 {
        end(&mut desk, 0, &number.to_string(), Outcome::Failed(None));
    }
    while let Next::Down(_) = desk.next(0) {}
    assert_eq!((desk.waiting_bytes, desk.pending.len()), (0, 1), "the sixth is under way");
}

#[test]
fn what_is_kept_is_bounded_by_bytes() {
    let mut desk = desk(10, 60_000);
    let large = 1 << 20;
    for number in 0..40 {
        let text = format!("{number}");
        ask(&mut desk, 0, &text, 1);
        desk.next(0);
        end(&mut desk, 0, &text, Outcome::Verdict(Verdict::Deny, large));
        assert!(desk.kept_bytes <= KEPT_BYTES_MAX, "{number}");
    }
    assert_eq!((desk.kept.len(), desk.kept_order.len()), (15, 15));
    assert!(matches!(ask(&mut desk, 0, "39", 1), Asked::Answered(_)));
    assert_eq!(ask(&mut desk, 0, "0", 1), Asked::Waits, "the oldest went");
    desk.next(0);
    // What holds no longer goes with the next that is kept.
    end(&mut desk, 60_001, "0", Outcome::Verdict(Verdict::Deny, 0));
    assert_eq!((desk.kept.len(), desk.kept_bytes), (1, KEPT_BYTES));
}
