//! Every policy in every state, and long random histories against a model that is as plain as can be.

use proptest::prelude::*;

use super::*;
use crate::topic::Access;

/// Frames of the table: a header of two bytes and this much.
const PAYLOAD: usize = 98;
const FRAME: usize = 100;

const TOTAL: u64 = 1 << 30;

fn policy(slow: SlowPolicy) -> TopicPolicy {
    TopicPolicy {
        publish: Access::Nobody,
        slow,
        messages_max: 3,
        bytes_max: 10 * FRAME,
        message_bytes_max: 1 << 20,
        disconnect_after_drops: 0,
        ..TopicPolicy::default()
    }
}

fn message(offset: u64) -> Message {
    Message::sample(1, offset, &[offset as u8; PAYLOAD])
}

/// Offsets of the messages in the queue, of all topics.
fn queued(outbox: &Outbox) -> Vec<u64> {
    let offset = |entry: &Queued| match entry {
        Queued::Message(message) => Some(message.offset()),
        Queued::Own(_) => None,
    };
    outbox.queue.iter().filter_map(offset).collect()
}

/// One state of the table: what is there before message 9 comes.
#[derive(Clone, Copy, Debug)]
enum State {
    Empty,
    Room,
    FullByMessages,
    FullByBytes,
    /// Only a message whose first byte has left.
    HalfSent,
    /// The same with full bounds behind it.
    HalfSentFull,
    /// A large one has begun to leave: the bound on bytes is passed by it alone.
    LargeHalfSent,
    /// All outboxes together are full and nothing waits here.
    TotalFullEmpty,
    /// The same with one message waiting.
    TotalFullOne,
    /// Full to the last half of the reserve, with one message waiting.
    ReserveOne,
}

fn prepare(state: State, slow: SlowPolicy, budget: &OutboxBudget) -> (Outbox, TopicPolicy) {
    let mut outbox = Outbox::new(0, Encoding::Plain);
    let mut policy = policy(slow);
    let mut fill = |count: u64| {
        for offset in 1..=count {
            let newest = TopicPolicy { slow: SlowPolicy::DropNewest, ..policy };
            assert_eq!(outbox.admit(&message(offset), &newest, budget), Admitted::Admitted { displaced: 0 });
        }
    };
    match state {
        State::Empty | State::TotalFullEmpty => {}
        State::Room => fill(2),
        State::FullByMessages | State::HalfSentFull => fill(3),
        State::FullByBytes => {
            fill(2);
            policy.bytes_max = 2 * FRAME + 1;
        }
        State::HalfSent | State::TotalFullOne | State::ReserveOne => fill(1),
        State::LargeHalfSent => assert!(outbox.push_rest(Message::sample(1, 1, &[0; 5_000]), 7, budget)),
    }
    match state {
        State::HalfSent => {
            outbox.advance(1, 0, budget);
            policy.messages_max = 1;
        }
        State::HalfSentFull => {
            outbox.advance(1, 0, budget);
        }
        State::TotalFullEmpty | State::TotalFullOne => budget.charge_own((TOTAL / 8 * 7) as usize),
        State::ReserveOne => budget.charge_own((TOTAL / 16 * 15) as usize),
        _ => {}
    }
    (outbox, policy)
}

#[test]
fn every_policy_in_every_state() {
    use Admitted::{Close, Dropped};
    use SlowPolicy::{Disconnect, DropNewest, DropOldest, Latest};
    let admitted = |displaced| Admitted::Admitted { displaced };
    let table: &[(State, SlowPolicy, Admitted, &[u64])] = &[
        (State::Empty, DropNewest, admitted(0), &[9]),
        (State::Empty, DropOldest, admitted(0), &[9]),
        (State::Empty, Latest, admitted(0), &[9]),
        (State::Empty, Disconnect, admitted(0), &[9]),
        (State::Room, DropNewest, admitted(0), &[1, 2, 9]),
        (State::Room, DropOldest, admitted(0), &[1, 2, 9]),
        (State::Room, Latest, admitted(2), &[9]),
        (State::Room, Disconnect, admitted(0), &[1, 2, 9]),
        (State::FullByMessages, DropNewest, Dropped, &[1, 2, 3]),
        (State::FullByMessages, DropOldest, admitted(1), &[2, 3, 9]),
        (State::FullByMessages, Latest, admitted(3), &[9]),
        (State::FullByMessages, Disconnect, Close { dropped: 4 }, &[]),
        (State::FullByBytes, DropNewest, Dropped, &[1, 2]),
        (State::FullByBytes, DropOldest, admitted(1), &[2, 9]),
        (State::FullByBytes, Latest, admitted(2), &[9]),
        (State::FullByBytes, Disconnect, Close { dropped: 3 }, &[]),
        (State::HalfSent, DropNewest, Dropped, &[1]),
        (State::HalfSent, DropOldest, admitted(0), &[1, 9]),
        (State::HalfSent, Latest, admitted(0), &[1, 9]),
        (State::HalfSent, Disconnect, Close { dropped: 1 }, &[1]),
        (State::HalfSentFull, DropNewest, Dropped, &[1, 2, 3]),
        (State::HalfSentFull, DropOldest, admitted(1), &[1, 3, 9]),
        (State::HalfSentFull, Latest, admitted(2), &[1, 9]),
        (State::HalfSentFull, Disconnect, Close { dropped: 3 }, &[1]),
        (State::LargeHalfSent, DropNewest, Dropped, &[1]),
        (State::LargeHalfSent, DropOldest, admitted(0), &[1, 9]),
        (State::LargeHalfSent, Latest, admitted(0), &[1, 9]),
        (State::LargeHalfSent, Disconnect, Close { dropped: 1 }, &[1]),
        (State::TotalFullEmpty, DropNewest, Dropped, &[]),
        (State::TotalFullEmpty, DropOldest, Dropped, &[]),
        (State::TotalFullEmpty, Latest, Dropped, &[]),
        (State::TotalFullEmpty, Disconnect, Close { dropped: 1 }, &[]),
        (State::TotalFullOne, DropNewest, Dropped, &[1]),
        (State::TotalFullOne, DropOldest, admitted(1), &[9]),
        (State::TotalFullOne, Latest, admitted(1), &[9]),
        (State::TotalFullOne, Disconnect, Close { dropped: 2 }, &[]),
        (State::ReserveOne, DropNewest, Dropped, &[1]),
        (State::ReserveOne, DropOldest, Dropped, &[1]),
        (State::ReserveOne, Latest, Dropped, &[1]),
        (State::ReserveOne, Disconnect, Close { dropped: 2 }, &[]),
    ];
    for &(state, slow, verdict, left) in table {
        let budget = OutboxBudget::new(TOTAL);
        let (mut outbox, policy) = prepare(state, slow, &budget);
        let own = budget.used() - charged(&outbox);
        assert_eq!(outbox.admit(&message(9), &policy, &budget), verdict, "{state:?} {slow:?}");
        assert_eq!(queued(&outbox), left, "{state:?} {slow:?}");
        assert_eq!(budget.used() - own, charged(&outbox), "{state:?} {slow:?}");
        outbox.give_up(&budget);
        assert_eq!(budget.used(), own, "{state:?} {slow:?}");
    }
}

/// What the entries of the queue should count, each message being in no other outbox.
fn charged(outbox: &Outbox) -> u64 {
    let cost = |entry: &Queued| match entry {
        Queued::Message(message) => message.frame_len() as u64 + 16,
        Queued::Own(bytes) => bytes.len() as u64,
    };
    outbox.queue.iter().map(cost).sum()
}

#[test]
fn so_many_losses_in_a_row_close_under_every_policy() {
    // The first `latest` takes the place of three at once.
    for (slow, expected) in
        [(SlowPolicy::DropNewest, 4), (SlowPolicy::DropOldest, 4), (SlowPolicy::Latest, 2)]
    {
        let budget = OutboxBudget::new(TOTAL);
        let policy = TopicPolicy { disconnect_after_drops: 4, ..policy(slow) };
        let (mut outbox, _) = prepare(State::FullByMessages, SlowPolicy::DropNewest, &budget);
        let (mut missed, mut came) = (0, 0);
        let dropped_at_close = loop {
            came += 1;
            match outbox.admit(&message(10 + came), &policy, &budget) {
                Admitted::Admitted { displaced } => missed += displaced,
                Admitted::Dropped => missed += 1,
                Admitted::Close { dropped } => break dropped,
                Admitted::Behind => unreachable!("of another policy"),
            }
        };
        assert_eq!(came, expected, "{slow:?}");
        assert_eq!(missed + dropped_at_close, 3 + came, "{slow:?}: all there were");
        assert_eq!((outbox.bytes(), budget.used()), (0, 0), "{slow:?}");
    }
}

#[test]
fn a_message_without_a_loss_starts_the_row_again() {
    let budget = OutboxBudget::new(TOTAL);
    let policy = TopicPolicy { disconnect_after_drops: 2, ..policy(SlowPolicy::DropNewest) };
    let (mut outbox, _) = prepare(State::FullByMessages, SlowPolicy::DropNewest, &budget);
    for round in 0..5 {
        assert_eq!(outbox.admit(&message(10), &policy, &budget), Admitted::Dropped, "round {round}");
        assert_eq!(outbox.advance(FRAME, 1, &budget), 1);
        assert_eq!(outbox.admit(&message(11), &policy, &budget), Admitted::Admitted { displaced: 0 });
    }
    assert_eq!(outbox.admit(&message(12), &policy, &budget), Admitted::Dropped);
    assert_eq!(outbox.admit(&message(13), &policy, &budget), Admitted::Close { dropped: 4 });
}

#[test]
fn drops_are_counted_even_where_nothing_may_be_queued() {
    let budget = OutboxBudget::new(TOTAL);
    let policy = TopicPolicy { disconnect_after_drops: 3, ..policy(SlowPolicy::DropNewest) };
    let (mut outbox, _) = prepare(State::TotalFullEmpty, SlowPolicy::DropNewest, &budget);
    assert_eq!(outbox.admit(&message(1), &policy, &budget), Admitted::Dropped);
    assert_eq!(outbox.admit(&message(2), &policy, &budget), Admitted::Dropped);
    assert_eq!(outbox.admit(&message(3), &policy, &budget), Admitted::Close { dropped: 1 });
}

#[test]
fn a_large_message_waits_alone_and_topics_do_not_take_each_others_room() {
    let budget = OutboxBudget::new(TOTAL);
    let policy = policy(SlowPolicy::DropNewest);
    let mut outbox = Outbox::new(0, Encoding::Plain);
    let large = Message::sample(1, 1, &[0; 5_000]);
    assert_eq!(outbox.admit(&large, &policy, &budget), Admitted::Admitted { displaced: 0 });
    assert_eq!(outbox.admit(&message(2), &policy, &budget), Admitted::Dropped);
    for offset in 1..=3 {
        let other = Message::sample(2, offset, &[0; PAYLOAD]);
        assert_eq!(outbox.admit(&other, &policy, &budget), Admitted::Admitted { displaced: 0 });
    }
    assert_eq!(outbox.admit(&Message::sample(2, 4, &[0; PAYLOAD]), &policy, &budget), Admitted::Dropped);
}

#[test]
fn latest_is_replaced_where_it_stands() {
    let budget = OutboxBudget::new(TOTAL);
    let latest = policy(SlowPolicy::Latest);
    let mut outbox = Outbox::new(0, Encoding::Plain);
    for topic in [1, 2, 3] {
        outbox.admit(&Message::sample(topic, topic, &[0; 5]), &latest, &budget);
    }
    let verdict = outbox.admit(&Message::sample(2, 22, &[0; 500]), &latest, &budget);
    assert_eq!(verdict, Admitted::Admitted { displaced: 1 });
    assert_eq!(queued(&outbox), [1, 22, 3]);
    assert_eq!(outbox.bytes(), 7 + 504 + 7);
}

#[test]
fn own_bytes_are_never_taken_back() {
    let budget = OutboxBudget::new(TOTAL);
    let mut outbox = Outbox::new(0, Encoding::Plain);
    outbox.push_own(b"rest of a pong", &budget);
    let close = policy(SlowPolicy::Disconnect);
    for offset in 1..=3 {
        outbox.admit(&message(offset), &close, &budget);
    }
    assert_eq!(outbox.admit(&message(4), &close, &budget), Admitted::Close { dropped: 4 });
    assert_eq!(outbox.next_bytes(&mut Vec::new(), 1 << 16), b"rest of a pong");
    let full = OutboxBudget::new(20);
    assert!(outbox.try_push_own(&[1; 20], &full) && !outbox.try_push_own(&[2; 1], &full));
    assert_eq!(outbox.bytes(), 14 + 20);
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Message { topic: u64, size: usize },
    Own(usize),
    Take(usize),
}

/// The model: whole entries in a plain list, everything counted anew at every look.
#[derive(Default)]
struct Model {
    /// Topic (0 for own bytes), offset and size.
    entries: Vec<(u64, u64, usize)>,
    sent: usize,
    row: [u32; 4],
}

impl Model {
    fn begun(&self) -> usize {
        usize::from(self.sent > 0)
    }

    fn used(&self) -> u64 {
        self.entries.iter().map(|(topic, _, size)| *size as u64 + if *topic > 0 { 16 } else { 0 }).sum()
    }

    fn fits(&self, topic: u64, size: usize, policy: &TopicPolicy) -> bool {
        let mine: Vec<usize> =
            self.entries.iter().filter(|entry| entry.0 == topic).map(|entry| entry.2).collect();
        mine.is_empty()
            || mine.len() < policy.messages_max as usize
                && mine.iter().sum::<usize>() + size <= policy.bytes_max
    }

    /// The oldest entry of the topic that has not begun to leave.
    fn oldest(&self, topic: u64) -> Option<usize> {
        (self.begun()..self.entries.len()).find(|at| self.entries[*at].0 == topic)
    }

    fn admit(&mut self, topic: u64, offset: u64, size: usize, policy: &TopicPolicy, total: u64) -> Admitted {
        let used = self.used() + size as u64 + 16;
        let room = used + total / 8 <= total;
        let swap = used + total / 16 <= total;
        let mut lost = 0;
        let mut queued = true;
        match policy.slow {
            SlowPolicy::DropNewest | SlowPolicy::Disconnect => {
                queued = room && self.fits(topic, size, policy)
            }
            SlowPolicy::CatchUp if !room || !self.fits(topic, size, policy) => return Admitted::Behind,
            SlowPolicy::CatchUp => {}
            SlowPolicy::DropOldest if room && self.fits(topic, size, policy) => {}
            SlowPolicy::DropOldest | SlowPolicy::Latest => match self.oldest(topic) {
                None => queued = room,
                Some(_) if !swap => queued = false,
                Some(at) => {
                    let latest = policy.slow == SlowPolicy::Latest;
                    while let Some(oldest) = self.oldest(topic) {
                        self.entries.remove(oldest);
                        lost += 1;
                        if !latest && self.fits(topic, size, policy) {
                            break;
                        }
                    }
                    if latest {
                        self.entries.insert(at, (topic, offset, size));
                        return self.verdict(topic, lost, true, policy);
                    }
                }
            },
        }
        if queued {
            self.entries.push((topic, offset, size));
        } else if policy.slow == SlowPolicy::Disconnect {
            return Admitted::Close { dropped: 1 + self.clear() };
        }
        self.verdict(topic, lost, queued, policy)
    }

    fn verdict(&mut self, topic: u64, lost: u64, queued: bool, policy: &TopicPolicy) -> Admitted {
        let lost = lost + u64::from(!queued);
        let row = &mut self.row[topic as usize];
        *row = if lost == 0 { 0 } else { *row + lost as u32 };
        if policy.disconnect_after_drops > 0 && *row >= policy.disconnect_after_drops {
            return Admitted::Close { dropped: lost + self.clear() };
        }
        if queued { Admitted::Admitted { displaced: lost } } else { Admitted::Dropped }
    }

    fn clear(&mut self) -> u64 {
        let before = self.entries.len();
        let begun = self.begun();
        let mut at = 0;
        self.entries.retain(|entry| {
            at += 1;
            entry.0 == 0 || at <= begun
        });
        (before - self.entries.len()) as u64
    }

    fn take(&mut self, count: usize) -> u64 {
        self.sent += count;
        let mut messages = 0;
        while let Some((topic, _, size)) = self.entries.first().copied().filter(|entry| entry.2 <= self.sent)
        {
            self.sent -= size;
            self.entries.remove(0);
            messages += u64::from(topic > 0);
        }
        messages
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4u64, prop_oneof![1..60usize, 200..900usize]).prop_map(|(topic, size)| Step::Message { topic, size }),
        1 => (1..80usize).prop_map(Step::Own),
        3 => (1..700usize).prop_map(Step::Take),
    ];
    proptest::collection::vec(step, 1..120)
}

fn policies() -> impl Strategy<Value = Vec<TopicPolicy>> {
    let one = (0..SlowPolicy::ALL.len(), 1..5u32, 20..1_500usize, prop_oneof![3 => Just(0u32), 1 => 1..6u32]);
    let one = one.prop_map(|(slow, messages_max, bytes_max, disconnect_after_drops)| TopicPolicy {
        messages_max,
        bytes_max,
        disconnect_after_drops,
        ..policy(SlowPolicy::ALL[slow])
    });
    proptest::collection::vec(one, 3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_as_the_model_has_it(steps in steps(), policies in policies(), total in prop_oneof![Just(1u64 << 30), 800..6_000u64]) {
        let budget = OutboxBudget::new(total);
        let mut outbox = Outbox::new(0, Encoding::Plain);
        let mut model = Model::default();
        let mut contents: Vec<Vec<u8>> = vec![Vec::new()];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Message { topic, size } => {
                    let offset = number as u64 + 1;
                    let message = Message::sample(topic, offset, &vec![number as u8; size]);
                    contents.push(message.frame().to_vec());
                    let policy = &policies[topic as usize - 1];
                    let verdict = model.admit(topic, offset, message.frame_len(), policy, total);
                    prop_assert_eq!(outbox.admit(&message, policy, &budget), verdict, "step {}", number);
                    if matches!(verdict, Admitted::Close { .. }) {
                        break;
                    }
                }
                Step::Own(size) => {
                    let fits = model.used() + size as u64 <= total;
                    contents.push(vec![number as u8; size]);
                    prop_assert_eq!(outbox.try_push_own(&vec![number as u8; size], &budget), fits);
                    if fits {
                        model.entries.push((0, number as u64 + 1, size));
                    }
                }
                Step::Take(most) => {
                    let mut joined = Vec::new();
                    let bytes = outbox.next_bytes(&mut joined, 1 << 16);
                    let count = most.min(bytes.len());
                    contents.push(Vec::new());
                    let wire: Vec<u8> = model.entries.iter().flat_map(|entry| contents[entry.1 as usize].clone()).collect();
                    prop_assert_eq!(bytes, &wire[model.sent..model.sent + bytes.len()]);
                    prop_assert_eq!(outbox.advance(count, 1, &budget), model.take(count));
                }
            }
            prop_assert_eq!(budget.used(), model.used());
            prop_assert_eq!(outbox.bytes(), model.entries.iter().map(|entry| entry.2).sum::<usize>() - model.sent);
            let offsets: Vec<u64> = model.entries.iter().filter(|entry| entry.0 > 0).map(|entry| entry.1).collect();
            prop_assert_eq!(queued(&outbox), offsets);
        }
        let mut joined = Vec::new();
        let rest = outbox.bytes();
        prop_assert_eq!(outbox.next_bytes(&mut joined, 1 << 20).len(), rest);
        outbox.give_up(&budget);
        prop_assert_eq!(budget.used(), 0);
    }
}

#[test]
fn an_outbox_counts_and_sends_the_frame_of_its_encoding_and_the_budget_both() {
    let budget = OutboxBudget::new(TOTAL);
    let both = Message::sample_both(1, 1, &[b'x'; PAYLOAD], Some(b"xx"));
    let plain = message(2);
    for (encoding, len) in [(Encoding::Plain, FRAME), (Encoding::Deflated, 4)] {
        let mut outbox = Outbox::new(0, encoding);
        assert!(outbox.push_rest(both.clone(), 3, &budget));
        for more in [&plain, &both] {
            let admitted = outbox.admit(more, &policy(SlowPolicy::DropNewest), &budget);
            assert_eq!(admitted, Admitted::Admitted { displaced: 0 });
        }
        assert_eq!(outbox.bytes(), len - 3 + FRAME + len);
        assert_eq!(budget.used(), (FRAME + 4) as u64 + FRAME as u64 + 3 * REFERENCE_BYTES);
        let wanted = [&both.frame_as(encoding)[3..], plain.frame(), both.frame_as(encoding)].concat();
        let mut joined = Vec::new();
        let bytes = outbox.next_bytes(&mut joined, 1 << 16).to_vec();
        assert_eq!(bytes, wanted);
        assert_eq!(outbox.advance(bytes.len(), 1, &budget), 3);
        assert!(outbox.is_empty() && outbox.bytes() == 0 && budget.used() == 0);
    }
}

#[test]
fn a_begun_message_beyond_the_total_is_told() {
    let budget = OutboxBudget::new(10_000);
    let begin = |number| {
        let mut outbox = Outbox::new(0, Encoding::Plain);
        let fits = outbox.push_rest(Message::sample(number, 1, &[0; 4_000]), 7, &budget);
        (outbox, fits)
    };
    let begun = [begin(1), begin(2), begin(3)];
    assert_eq!(begun.each_ref().map(|(_, fits)| *fits), [true, true, false]);
    begun.into_iter().for_each(|(outbox, _)| outbox.give_up(&budget));
    assert_eq!(budget.used(), 0);
}

#[test]
fn what_waits_of_a_topic_that_was_left_goes_nowhere() {
    let budget = OutboxBudget::new(TOTAL);
    let mut outbox = Outbox::new(0, Encoding::Plain);
    let latest = policy(SlowPolicy::Latest);
    let other = |offset| Message::sample(2, offset, &[0; PAYLOAD]);
    assert!(outbox.push_rest(message(1), 1, &budget));
    for offset in 2..4 {
        outbox.admit(&message(offset), &policy(SlowPolicy::DropNewest), &budget);
    }
    outbox.admit(&other(7), &latest, &budget);
    outbox.forget_topic(1, &budget);
    outbox.push_own(b"left, joined", &budget);
    // The frame that has begun goes on, and what is published to the next subscription comes behind the answers.
    outbox.admit(&message(9), &latest, &budget);
    assert_eq!(queued(&outbox), [1, 7, 9]);
    assert!(matches!(outbox.queue[2], Queued::Own(_)));
    assert_eq!(outbox.bytes(), FRAME - 1 + 2 * FRAME + 12);
    outbox.forget_topic(5, &budget);
    outbox.forget_topic(2, &budget);
    assert_eq!(queued(&outbox), [1, 9]);
    outbox.give_up(&budget);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_note_of_what_was_dropped_stands_where_it_would_have_come() {
    let budget = OutboxBudget::new(TOTAL);
    for (oldest, wanted) in [(true, "answer note 1 2"), (false, "answer 1 2 note")] {
        let mut outbox = Outbox::new(0, Encoding::Plain);
        outbox.push_own(b"answer", &budget);
        for offset in [1, 2] {
            outbox.admit(&message(offset), &policy(SlowPolicy::DropNewest), &budget);
        }
        outbox.push_note(b"", 1, oldest, &budget);
        outbox.push_note(b"note", 1, oldest, &budget);
        let told = outbox.queue.iter().map(|entry| match entry {
            Queued::Message(message) => message.offset().to_string(),
            Queued::Own(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        });
        assert_eq!(told.collect::<Vec<_>>().join(" "), wanted);
        assert_eq!(outbox.bytes(), 6 + 4 + 2 * FRAME);
        // Nothing of the topic waits: it comes behind what does.
        outbox.push_note(b"other", 2, oldest, &budget);
        assert!(matches!(outbox.queue.back(), Some(Queued::Own(bytes)) if **bytes == *b"other"));
        outbox.give_up(&budget);
        assert_eq!(budget.used(), 0);
    }
}

/// What waits, in order.
fn told(outbox: &Outbox) -> String {
    let each = outbox.queue.iter().map(|entry| match entry {
        Queued::Message(message) => message.offset().to_string(),
        Queued::Own(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
    });
    each.collect::<Vec<_>>().join(" ")
}

/// As the event loop does it: one more message, and a word on what is dropped for it.
fn admit_and_tell(outbox: &mut Outbox, offset: u64, policy: &TopicPolicy, budget: &OutboxBudget) {
    let oldest = match outbox.admit(&message(offset), policy, budget) {
        Admitted::Admitted { displaced: 0 } => return,
        Admitted::Admitted { .. } => true,
        _ => false,
    };
    if outbox.is_untold(1, oldest) {
        outbox.push_note(b"note", 1, oldest, budget);
    }
}

#[test]
fn a_row_of_drops_is_told_once_and_once_more_behind_each_message_that_leaves() {
    let budget = OutboxBudget::new(TOTAL);
    let mut outbox = Outbox::new(0, Encoding::Plain);
    let policy = TopicPolicy { messages_max: 3, ..policy(SlowPolicy::DropOldest) };
    for offset in 1..=3 {
        admit_and_tell(&mut outbox, offset, &policy, &budget);
    }
    admit_and_tell(&mut outbox, 4, &policy, &budget);
    admit_and_tell(&mut outbox, 5, &policy, &budget);
    assert_eq!(told(&outbox), "note 3 4 5");
    // The note and a piece of the third leave; what is dropped now is missing behind that.
    outbox.advance(4 + 1, 1, &budget);
    admit_and_tell(&mut outbox, 6, &policy, &budget);
    admit_and_tell(&mut outbox, 7, &policy, &budget);
    assert_eq!(told(&outbox), "3 note 6 7");
    outbox.advance(FRAME - 1 + 4 + FRAME, 2, &budget);
    assert_eq!(told(&outbox), "7");
    for offset in 8..=10 {
        admit_and_tell(&mut outbox, offset, &policy, &budget);
    }
    assert_eq!(told(&outbox), "note 8 9 10");
    outbox.give_up(&budget);
    assert_eq!(budget.used(), 0);
}

#[test]
fn the_newest_that_is_dropped_is_told_behind_what_waits_whatever_the_policy() {
    let budget = OutboxBudget::new(TOTAL);
    let drops = TopicPolicy { messages_max: 2, ..policy(SlowPolicy::DropNewest) };
    let mut outbox = Outbox::new(0, Encoding::Plain);
    for offset in 1..=5 {
        admit_and_tell(&mut outbox, offset, &drops, &budget);
    }
    assert_eq!(told(&outbox), "1 2 note");
    outbox.advance(FRAME, 1, &budget);
    admit_and_tell(&mut outbox, 6, &drops, &budget);
    admit_and_tell(&mut outbox, 7, &drops, &budget);
    assert_eq!(told(&outbox), "2 note 6 note");
    outbox.give_up(&budget);
    // However often what was told behind a message is displaced, notes stay few.
    let mut outbox = Outbox::new(0, Encoding::Plain);
    let keeps = TopicPolicy { messages_max: 1, ..policy(SlowPolicy::DropOldest) };
    let one = TopicPolicy { messages_max: 1, ..drops };
    assert!(outbox.push_rest(message(1), 1, &budget));
    for offset in 1..1_000 {
        admit_and_tell(&mut outbox, 2 * offset, &keeps, &budget);
        admit_and_tell(&mut outbox, 2 * offset + 1, &one, &budget);
    }
    assert!(outbox.queue.len() <= usize::from(NOTES_MAX) + 4, "{}", outbox.queue.len());
    outbox.give_up(&budget);
    assert_eq!(budget.used(), 0);
}

#[test]
fn what_is_dropped_behind_the_answer_to_a_join_is_told_behind_it() {
    let budget = OutboxBudget::new(TOTAL);
    for (slow, wanted) in [
        // Two wait by a pattern, one is dropped and told; behind the answer it is told anew.
        (SlowPolicy::DropNewest, "1 2 note answer note"),
        // Told before what waits by the pattern, and once more when all of that has gone.
        (SlowPolicy::DropOldest, "answer note 6 7"),
        // The newest takes no place ahead of the answer, and later ones take its.
        (SlowPolicy::Latest, "answer note 7"),
    ] {
        let policy = TopicPolicy { messages_max: 2, ..policy(slow) };
        let mut outbox = Outbox::new(0, Encoding::Plain);
        for offset in 1..=3 {
            admit_and_tell(&mut outbox, offset, &policy, &budget);
        }
        outbox.tell_anew(1);
        outbox.push_own(b"answer", &budget);
        for offset in 4..=7 {
            admit_and_tell(&mut outbox, offset, &policy, &budget);
        }
        let told = told(&outbox);
        assert!(told.ends_with(wanted), "{told}");
        outbox.give_up(&budget);
        assert_eq!(budget.used(), 0);
    }
}

#[test]
fn what_is_dropped_between_two_joins_is_told_between_their_answers() {
    let (budget, policy) = (OutboxBudget::new(TOTAL), policy(SlowPolicy::DropOldest));
    let policy = TopicPolicy { messages_max: 4, ..policy };
    // Some of it has begun to leave, or nothing has.
    for (begun, wanted) in
        [(false, "note answer note other! note 5 6 7 8"), (true, "0 note answer note other! note 6 7 8")]
    {
        let mut outbox = Outbox::new(0, Encoding::Plain);
        if begun {
            assert!(outbox.push_rest(message(0), 1, &budget));
        }
        for (offsets, answer) in [(1..=2, b"answer"), (3..=4, b"other!")] {
            for offset in offsets {
                admit_and_tell(&mut outbox, offset, &policy, &budget);
            }
            outbox.tell_anew(1);
            outbox.push_own(answer, &budget);
        }
        for offset in 5..=8 {
            admit_and_tell(&mut outbox, offset, &policy, &budget);
        }
        assert_eq!(told(&outbox), wanted);
        while !outbox.is_empty() {
            let count = outbox.next_bytes(&mut Vec::new(), 0).len();
            outbox.advance(count, 1, &budget);
        }
        assert!(outbox.tallies.iter().all(|tally| tally.before_join == 0));
        assert_eq!(budget.used(), 0);
    }
}

#[test]
fn what_has_begun_before_a_join_keeps_nobody_from_the_place_of_the_newest() {
    let (budget, policy) = (OutboxBudget::new(TOTAL), policy(SlowPolicy::Latest));
    let mut outbox = Outbox::new(0, Encoding::Plain);
    assert!(outbox.push_rest(message(1), 1, &budget));
    outbox.tell_anew(1);
    outbox.push_own(b"answer", &budget);
    admit_and_tell(&mut outbox, 2, &policy, &budget);
    outbox.push_own(b"other", &budget);
    admit_and_tell(&mut outbox, 3, &policy, &budget);
    assert_eq!(told(&outbox), "1 answer note 3 other");
    outbox.give_up(&budget);
    assert_eq!(budget.used(), 0);
}
