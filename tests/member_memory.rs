//! What a member of a topic costs where its rule has presence, counted by the allocator.

use fantail::dialect::Form;
use fantail::topic::{
    Key, Mail, PresenceLimits, PresenceMode, PresencePolicy, Presences, Router, RouterLimits, STATE_BYTES,
    Saying, Seats, Wake,
};
use fantail_test_support::counting_alloc::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const MEMBERS: u32 = 10_000;

/// With the seat that its loop keeps for it.
const BYTES_PER_MEMBER_MAX: usize = 150;

#[derive(Debug)]
struct NoMail;

impl Mail for NoMail {
    type Form = Form;
    type Control = ();
    type Reply = ();
}

struct NoWake;

impl Wake for NoWake {
    fn wake(&self, _: usize) {}
}

#[test]
fn a_member_is_small_and_is_given_back() {
    let router = Router::<NoMail>::new(1, RouterLimits::default(), Box::new(NoWake)).expect("a loop");
    let presences = Presences::new(PresenceLimits { members_max: MEMBERS.into(), bytes_max: 1 << 30 });
    let policy = PresencePolicy { mode: PresenceMode::Full, grace_ms: 0, interval_ms: 500, state_ms: 10_000 };
    let mut seats = Seats::default();
    let start = ALLOCATOR.used();
    for slot in 0..MEMBERS {
        let member = presences.anonymous(0, Key { slot, generation: slot });
        seats.keep(0, slot, presences.join("crowd", policy, &member, 0).expect("room"));
    }
    let mut now = 0;
    while let Some(due) = presences.turn(&router, now, 0) {
        now = due;
    }
    let each = ALLOCATOR.used().saturating_sub(start).div_ceil(MEMBERS as usize);
    println!("{each} bytes a member");
    assert!((64..=BYTES_PER_MEMBER_MAX).contains(&each), "{each} bytes a member");
    let without = ALLOCATOR.used();
    let text = "\"typing, for a while\"";
    for slot in 0..MEMBERS {
        let said = Saying { state: Some(text), seconds: None };
        seats.say(&presences, (0, slot), policy, said, now).expect("room");
    }
    let until = now + 5_000;
    while let Some(due) = presences.turn(&router, now, 0).filter(|due| *due < until) {
        now = due;
    }
    let state = ALLOCATOR.used().saturating_sub(without).div_ceil(MEMBERS as usize);
    println!("{state} bytes a state");
    // The rate that a connection has set states at is the loop's, beside what is counted.
    assert!((100..=STATE_BYTES as usize + text.len()).contains(&state), "{state} bytes a state");
    for slot in 0..MEMBERS {
        presences.leave(seats.take(0, slot).expect("it is on the list"), now);
    }
    while let Some(due) = presences.turn(&router, now, 0) {
        now = due.max(now);
    }
    let kept = ALLOCATOR.used().saturating_sub(start);
    assert!(kept <= 4_096, "{kept} bytes kept");
}
