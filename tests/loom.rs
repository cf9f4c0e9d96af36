//! Model checks of the publish, join and wake protocols: loom runs every interleaving of the real
//! files of `src/topic`, compiled here against loom's locks and atomics. Each check comes with a
//! planted fault that the same check must catch.

/// What a form may be carried in; it has no part in the protocols.
mod wire {
    pub(crate) mod frame {
        pub(crate) use fantail::wire::frame::Opcode;
    }
}

/// Reasons; they have no part in them either.
mod metrics {
    pub(crate) use fantail::metrics::InvalidReason;
}

#[path = "../src/topic"]
#[allow(dead_code, unreachable_pub, reason = "the models use a part of what the files offer")]
mod topic {
    pub mod check;
    pub mod entry;
    pub mod form;
    pub mod history;
    pub mod interest;
    pub mod keeper;
    pub mod level_pattern;
    pub mod mailbox;
    pub mod name;
    pub mod pattern;
    pub mod patterns;
    pub mod position;
    pub mod router;
    pub mod rules;
    pub mod schema;
    mod schema_parts;
    pub mod state;
    mod strict;
    pub mod tap;

    /// Loom's versions of what the protocols are built from.
    pub mod sync {
        pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
        pub use loom::sync::{Arc, Mutex, MutexGuard};

        /// Loom's mutex poisons no one: a panic ends the model.
        pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
            mutex.lock().expect("the model goes on after a panic")
        }
    }

    /// A message without its bytes, so that a model does not spend its time on encoding.
    pub mod message {
        /// Stands in for the encoded message without a place.
        #[derive(Debug)]
        pub struct Draft(pub usize);

        /// Stands in for the message with its place.
        #[derive(Clone, Debug)]
        pub struct Message {
            pub topic_id: u64,
            pub offset: u64,
        }

        impl Draft {
            pub fn frame_len(&self) -> usize {
                self.0
            }

            pub fn stamp(self, topic_id: u64, offset: u64) -> Message {
                Message { topic_id, offset }
            }
        }

        impl Message {
            pub fn frame_len(&self) -> usize {
                1
            }

            pub fn time_ms(&self) -> u64 {
                0
            }
        }
    }

    // Inside the same parent, because the protocols' steps are visible there only.
    mod models {
        use super::entry::{Join, Mail, Place};
        use super::form::{Carried, Form, Stamped};
        use super::level_pattern::LevelPattern;
        use super::mailbox::{Mailbox, MailboxLimits};
        use super::message::Draft;
        use super::name::TopicName;
        use super::patterns::Patterns;
        use super::position::Since;
        use super::router::{RouterLimits, Wake};
        use super::state::{FIRST_OFFSET, Joined, PublishRefused, Rank, Topic};
        use super::sync::{Arc, AtomicUsize, Ordering};
        use loom::thread;

        const ROOMY: MailboxLimits = MailboxLimits { bytes_max: 1 << 20, entries_max: 1 << 10 };
        const LOCAL: u32 = 5;
        const JOIN: Join = Join { local: LOCAL, slot: 1, ticket: Place::NONE };
        const NAME: TopicName<'static> = TopicName::of("t");

        /// What publishers make, and nothing else.
        #[derive(Clone, Copy, Debug, PartialEq)]
        struct OnlyRaw;

        impl Form for OnlyRaw {
            const RAW: Self = Self;

            fn write(self, _: Stamped<'_>, _: &mut Vec<u8>) -> Carried {
                Carried::Stream
            }
        }

        /// Orders and answers are numbers here.
        #[derive(Debug)]
        struct Numbers;

        impl Mail for Numbers {
            type Form = OnlyRaw;
            type Control = u8;
            type Reply = u8;
        }

        type Entry = super::entry::Entry<Numbers>;
        type Router = super::router::Router<Numbers>;

        /// Explores everything up to this many preemptions, which is where such faults show.
        fn explore(model: impl Fn() + Sync + Send + 'static) {
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = Some(3);
            builder.check(model);
        }

        fn mailboxes(count: usize, limits: MailboxLimits) -> Arc<Vec<Mailbox<Entry>>> {
            Arc::new((0..count).map(|_| Mailbox::new(limits)).collect())
        }

        fn publish(topic: &Topic, mailboxes: &[Mailbox<Entry>]) -> u64 {
            topic
                .publish(Draft(1), mailboxes, Rank::USUAL, |_| true, &Patterns::new(0), |_, _| {})
                .expect("there is room")
                .0
                .offset
        }

        /// What a loop finds in its mailbox: the offsets before its join and those behind it.
        fn split_at_join(mailbox: &Mailbox<Entry>) -> (Vec<u64>, Vec<u64>) {
            let mut entries = Vec::new();
            mailbox.drain(&mut entries);
            let (mut before, mut behind, mut joined) = (Vec::new(), Vec::new(), false);
            for entry in entries {
                match entry {
                    Entry::Join(join) => {
                        assert_eq!(join, JOIN);
                        joined = true;
                    }
                    Entry::Deliver { local, message, .. } => {
                        assert_eq!(local, LOCAL);
                        if joined { behind.push(message.offset) } else { before.push(message.offset) }
                    }
                    Entry::Found(_) | Entry::Control(_) | Entry::Reply(_) => {
                        unreachable!("no model sends one")
                    }
                }
            }
            assert!(joined, "the join is lost");
            (before, behind)
        }

        /// Everything from the promised offset on is the joiner's, in order, and nothing else.
        fn assert_suffix(joined: Joined, behind: &[u64], next_offset: u64) {
            let expected: Vec<u64> = (joined.next_offset..next_offset).collect();
            assert_eq!(behind, expected, "joined at {}", joined.next_offset);
        }

        /// Two publishers and a loop that drains when it was woken. In the end every entry has been
        /// drained or a wake-up is pending.
        fn wake_model(drain: fn(&Mailbox<u8>, &mut Vec<u8>)) {
            let mailbox = Arc::new(Mailbox::new(ROOMY));
            let wakes = Arc::new(AtomicUsize::new(0));
            let publishers: Vec<_> = (0..2)
                .map(|number| {
                    let (mailbox, wakes) = (mailbox.clone(), wakes.clone());
                    thread::spawn(move || {
                        if mailbox.push(number) {
                            wakes.fetch_add(1, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            let (mut seen, mut entries) = (0, Vec::new());
            for _ in 0..2 {
                if wakes.swap(0, Ordering::SeqCst) > 0 {
                    drain(&mailbox, &mut entries);
                    seen += entries.drain(..).count();
                }
            }
            publishers.into_iter().for_each(|publisher| publisher.join().expect("publisher"));
            while wakes.swap(0, Ordering::SeqCst) > 0 {
                drain(&mailbox, &mut entries);
                seen += entries.drain(..).count();
            }
            assert_eq!(seen, 2, "an entry is left and nobody will wake the loop");
        }

        #[test]
        fn no_wake_up_is_lost() {
            explore(|| wake_model(Mailbox::drain));
        }

        #[test]
        #[should_panic(expected = "nobody will wake the loop")]
        fn a_flag_lowered_after_the_drain_is_caught() {
            explore(|| wake_model(Mailbox::drain_lowering_late));
        }

        /// A loop that pushes to itself is not woken; it looks before it sleeps.
        #[test]
        fn a_loop_that_looks_before_it_sleeps_misses_nothing() {
            explore(|| {
                let mailbox = Arc::new(Mailbox::new(ROOMY));
                let wakes = Arc::new(AtomicUsize::new(0));
                let publisher = {
                    let (mailbox, wakes) = (mailbox.clone(), wakes.clone());
                    thread::spawn(move || {
                        if mailbox.push(1) {
                            wakes.fetch_add(1, Ordering::SeqCst);
                        }
                    })
                };
                let (mut seen, mut entries) = (0, Vec::new());
                // The loop owes itself no wake-up.
                mailbox.push(0);
                while !mailbox.is_empty() {
                    mailbox.drain(&mut entries);
                    seen += entries.drain(..).count();
                }
                publisher.join().expect("publisher");
                while wakes.swap(0, Ordering::SeqCst) > 0 {
                    mailbox.drain(&mut entries);
                    seen += entries.drain(..).count();
                }
                assert_eq!(seen, 2);
            });
        }

        /// Two questions whose replies come from elsewhere, with room for one more than there is.
        #[test]
        fn a_reply_always_finds_the_room_its_question_took() {
            explore(|| {
                let mailbox = Arc::new(Mailbox::new(ROOMY));
                mailbox.reserve_replies(super::mailbox::REPLIES_MAX - 2);
                assert!(mailbox.try_reserve_reply() && mailbox.try_reserve_reply());
                let replies: Vec<_> = (0..2)
                    .map(|number| {
                        let mailbox = mailbox.clone();
                        thread::spawn(move || mailbox.push_reply(number))
                    })
                    .collect();
                let mut entries = Vec::new();
                mailbox.drain(&mut entries);
                let taken = entries.len();
                // Each that was taken out has left its room to one further question.
                assert!((0..taken).all(|_| mailbox.try_reserve_reply()));
                replies.into_iter().for_each(|reply| assert!(reply.join().is_ok()));
                mailbox.drain(&mut entries);
                assert_eq!(entries.len(), 2);
                assert!((taken..2).all(|_| mailbox.try_reserve_reply()));
                assert!(!mailbox.try_reserve_reply());
            });
        }

        fn join(topic: &Topic, loop_index: usize, mailboxes: &[Mailbox<Entry>]) {
            topic.join(loop_index, JOIN, Since::Now, &mailboxes[loop_index], None).expect("there is room");
        }

        /// A publisher runs against a join; one more message comes after the join has returned.
        fn join_model(join: fn(&Topic, &Mailbox<Entry>) -> Joined) {
            let topic = Topic::new(1, 2, &NAME, 0);
            let mailboxes = mailboxes(1, ROOMY);
            let publisher = {
                let (topic, mailboxes) = (topic.clone(), mailboxes.clone());
                thread::spawn(move || {
                    publish(&topic, &mailboxes);
                    publish(&topic, &mailboxes);
                })
            };
            let joined = join(&topic, &mailboxes[0]);
            let last = publish(&topic, &mailboxes);
            publisher.join().expect("publisher");
            let (before, behind) = split_at_join(&mailboxes[0]);
            assert!(before.is_empty(), "a message of the joiner came before its join");
            assert!(behind.contains(&last));
            assert_suffix(joined, &behind, topic.next_offset());
        }

        #[test]
        fn a_joiner_gets_everything_from_the_promised_offset_on() {
            explore(|| {
                join_model(|topic, own| topic.join(0, JOIN, Since::Now, own, None).expect("there is room"))
            });
        }

        #[test]
        #[should_panic(expected = "came before its join")]
        fn a_join_pushed_after_the_lock_is_caught() {
            explore(|| join_model(|topic, own| topic.join_pushing_late(0, JOIN, own)));
        }

        /// Two loops join at the same time; what is published afterwards reaches both.
        fn two_joiners_model(join: fn(&Topic, usize, &[Mailbox<Entry>])) {
            let topic = Topic::new(1, 2, &NAME, 0);
            let mailboxes = mailboxes(2, ROOMY);
            let other = {
                let (topic, mailboxes) = (topic.clone(), mailboxes.clone());
                thread::spawn(move || join(&topic, 1, &mailboxes))
            };
            join(&topic, 0, &mailboxes);
            other.join().expect("other loop");
            let offset = publish(&topic, &mailboxes);
            for mailbox in mailboxes.iter() {
                assert_eq!(split_at_join(mailbox).1, [offset], "a loop's interest is lost");
            }
        }

        #[test]
        fn no_join_is_lost() {
            explore(|| two_joiners_model(join));
        }

        #[test]
        #[should_panic(expected = "a loop's interest is lost")]
        fn an_interest_bit_set_outside_the_lock_is_caught() {
            explore(|| {
                two_joiners_model(|topic, index, mailboxes| {
                    topic.join_with_split_lock(index, JOIN, &mailboxes[index]);
                });
            });
        }

        /// The last subscriber goes and a new one comes while a message is published.
        #[test]
        fn interest_that_is_cleared_and_set_again_loses_nothing() {
            explore(|| {
                let topic = Topic::new(1, 2, &NAME, 0);
                let mailboxes = mailboxes(1, ROOMY);
                join(&topic, 0, &mailboxes);
                assert_eq!(split_at_join(&mailboxes[0]), (vec![], vec![]));
                let publisher = {
                    let (topic, mailboxes) = (topic.clone(), mailboxes.clone());
                    thread::spawn(move || publish(&topic, &mailboxes))
                };
                topic.leave(None);
                assert!(topic.clear_interest(0), "nobody else is interested");
                let joined = topic.join(0, JOIN, Since::Now, &mailboxes[0], None).expect("there is room");
                publish(&topic, &mailboxes);
                publisher.join().expect("publisher");
                let (before, behind) = split_at_join(&mailboxes[0]);
                assert!(before.iter().all(|offset| *offset < joined.next_offset));
                assert_suffix(joined, &behind, topic.next_offset());
            });
        }

        /// Two publishers, two loops, one of them with room for a single message: refused messages
        /// leave no gap and no reservation behind.
        #[test]
        fn a_refused_publish_changes_nothing() {
            explore(|| {
                let topic = Topic::new(1, 2, &NAME, 0);
                let tight = MailboxLimits { bytes_max: 8, entries_max: 1 };
                let mailboxes = Arc::new(vec![Mailbox::new(ROOMY), Mailbox::new(tight)]);
                (0..2).for_each(|index| join(&topic, index, &mailboxes));
                let try_publish = |topic: &Topic, mailboxes: &[Mailbox<Entry>]| match topic.publish(
                    Draft(3),
                    mailboxes,
                    Rank::USUAL,
                    |_| true,
                    &Patterns::new(0),
                    |_, _| {},
                ) {
                    Ok(_) => 1,
                    Err(PublishRefused::Full { draft: Draft(3), .. }) => 0,
                    Err(other) => panic!("{other:?}"),
                };
                let publisher = {
                    let (topic, mailboxes) = (topic.clone(), mailboxes.clone());
                    thread::spawn(move || try_publish(&topic, &mailboxes))
                };
                // The loop is done with a message, if there is one, while both publish.
                let mut entries = Vec::new();
                mailboxes[1].drain(&mut entries);
                let done = entries.iter().filter(|entry| matches!(entry, Entry::Deliver { .. })).count();
                mailboxes[1].release(done as u64, 3 * done as u64);
                let accepted = try_publish(&topic, &mailboxes) + publisher.join().expect("publisher");
                assert_eq!(topic.next_offset(), FIRST_OFFSET + accepted);
                let (_, behind) = split_at_join(&mailboxes[0]);
                assert_eq!(behind, (FIRST_OFFSET..FIRST_OFFSET + accepted).collect::<Vec<_>>());
                assert_eq!(mailboxes[0].reserved(), (accepted, 3 * accepted));
                let held = accepted - done as u64;
                assert_eq!(mailboxes[1].reserved(), (held, 3 * held));
            });
        }

        /// The offsets that a loop gets of a topic by pattern.
        fn found(mailbox: &Mailbox<Entry>) -> Vec<u64> {
            let mut entries = Vec::new();
            mailbox.drain(&mut entries);
            let offset = |entry| match entry {
                Entry::Found(found) => found.message.offset,
                other => unreachable!("no model of patterns sends {other:?}"),
            };
            entries.into_iter().map(offset).collect()
        }

        fn publish_watched(topic: &Topic, mailboxes: &[Mailbox<Entry>], patterns: &Patterns) -> u64 {
            let published = topic.publish(Draft(1), mailboxes, Rank::USUAL, |_| true, patterns, |_, _| {});
            published.expect("there is room").0.offset
        }

        /// Two loops subscribe to patterns of a topic while somebody publishes to it: what is published behind a
        /// subscription is its loop's, and nothing comes twice or out of order.
        fn watch_model(watch: fn(&Patterns, &LevelPattern, u64)) {
            let topic = Topic::new(1, 2, &NAME, 0);
            let mailboxes = mailboxes(2, ROOMY);
            let patterns = Arc::new(Patterns::new(8));
            let pattern = |text| LevelPattern::parse(text).expect("a pattern");
            let publisher = {
                let (topic, mailboxes, patterns) = (topic.clone(), mailboxes.clone(), patterns.clone());
                thread::spawn(move || publish_watched(&topic, &mailboxes, &patterns))
            };
            let other = {
                let patterns = patterns.clone();
                thread::spawn(move || watch(&patterns, &LevelPattern::parse("**").expect("a pattern"), 0b10))
            };
            watch(&patterns, &pattern("*"), 0b01);
            let own = publish_watched(&topic, &mailboxes, &patterns);
            other.join().expect("other loop");
            let last = publish_watched(&topic, &mailboxes, &patterns);
            publisher.join().expect("publisher");
            for (mailbox, due) in mailboxes.iter().zip([vec![own, last], vec![last]]) {
                let got = found(mailbox);
                assert!(got.is_sorted_by(|one, two| one < two), "{got:?} is out of order");
                assert!(due.iter().all(|offset| got.contains(offset)), "a pattern's interest is lost");
            }
        }

        #[test]
        fn what_is_published_behind_a_subscription_by_pattern_comes() {
            explore(|| {
                watch_model(|patterns, pattern, loops| {
                    patterns.watch(pattern, loops, || true).expect("there is room");
                });
            });
        }

        #[test]
        #[should_panic(expected = "a pattern's interest is lost")]
        fn a_change_of_patterns_that_is_told_before_it_is_made_is_caught() {
            explore(|| watch_model(Patterns::watch_telling_early));
        }

        /// The last subscriber of a pattern goes and a new one comes while a message is published: the new one gets what
        /// is published behind its coming.
        #[test]
        fn a_pattern_that_goes_and_comes_again_loses_nothing() {
            explore(|| {
                let topic = Topic::new(1, 2, &NAME, 0);
                let mailboxes = mailboxes(1, ROOMY);
                let patterns = Arc::new(Patterns::new(8));
                let pattern = LevelPattern::parse("*").expect("a pattern");
                let first = patterns.watch(&pattern, 1, || true).expect("there is room");
                let publisher = {
                    let (topic, mailboxes, patterns) = (topic.clone(), mailboxes.clone(), patterns.clone());
                    thread::spawn(move || publish_watched(&topic, &mailboxes, &patterns))
                };
                patterns.unwatch(&pattern, 1);
                let second = patterns.watch(&pattern, 1, || true).expect("there is room");
                assert_ne!(first, second, "an id is used again");
                let last = publish_watched(&topic, &mailboxes, &patterns);
                publisher.join().expect("publisher");
                assert!(found(&mailboxes[0]).contains(&last), "a pattern's interest is lost");
            });
        }

        struct NoWake;

        impl Wake for NoWake {
            fn wake(&self, _loop_index: usize) {}
        }

        /// A topic retires while somebody holds it, publishes on it and joins it: both find the one
        /// topic that has its name now.
        #[test]
        fn a_topic_that_retires_in_use_is_looked_up_again() {
            explore(|| {
                let limits = RouterLimits {
                    topics_max: 8,
                    idle_topics_max: 1,
                    mailbox: ROOMY,
                    ..RouterLimits::default()
                };
                let router = Arc::new(Router::new(1, limits, Box::new(NoWake)).expect("one loop"));
                let held = router.topic(&NAME).expect("a topic");
                let rival = {
                    let router = router.clone();
                    // Pushes "t" off the queue of idle topics, unless it is in use by then.
                    thread::spawn(move || drop(router.topic(&TopicName::of("u")).expect("a topic")))
                };
                let mut topic = held.clone();
                while topic.join(0, JOIN, Since::Now, router.mailbox(0).expect("a mailbox"), None).is_none() {
                    topic = router.topic(&NAME).expect("a topic");
                }
                let published = router.publish(&held, Draft(1), None).expect("there is room");
                rival.join().expect("rival");
                assert_eq!(published.epoch, topic.epoch());
                assert_eq!(router.find(&NAME).expect("it is in use").id(), topic.id());
                let (_, behind) = split_at_join(router.mailbox(0).expect("a mailbox"));
                assert_eq!(behind, [published.offset]);
            });
        }
    }
}
