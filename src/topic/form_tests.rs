//! What each form's connections get of a batch: made once, with its place, counted, and joined by itself.

use super::*;
use crate::topic::Deflate;

/// A payload of this many bytes that the tests' deflater makes short.
const SMALL: &[u8] = &[b'.'; 100];

/// Stands for a deflater: what is long becomes its length.
fn shorten(payload: &[u8], out: &mut Vec<u8>) -> bool {
    let worth = payload.len() > 20;
    if worth {
        out.extend_from_slice(payload.len().to_string().as_bytes());
    }
    worth
}

fn none(_: &[u8], _: &mut Vec<u8>) -> bool {
    panic!("nothing is to be deflated");
}

fn waiting(payloads: &[&[u8]]) -> (Arc<Router>, LocalTopics, Turn<Toy>) {
    let (router, mut subject) = loop_with(8);
    subject.join(&named("t"), 0, Since::Now, &Operator).unwrap();
    let topic = router.topic(&named("t")).unwrap();
    for payload in payloads {
        router.publish(&topic, Draft::encode(None, false, payload), Some(0)).unwrap();
    }
    subject.drain_mailbox(|_| {});
    let turn = subject.begin_turn(&mut TurnBudget::new(9), |_, _| true).unwrap();
    (router, subject, turn)
}

fn end(subject: &mut LocalTopics, turn: Turn<Toy>) {
    assert_eq!(subject.next_subscriber(&turn, &mut TurnBudget::new(9)), Some(0));
    subject.end_turn(turn, |_, _| {});
}

/// Stands for a deflater of runs: a message becomes its place in them, and the first also what is before it.
#[derive(Default)]
struct Runs {
    begun: usize,
    long: bool,
}

impl Deflate for &mut Runs {
    fn alone(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        shorten(payload, out)
    }

    fn begin_run(&mut self, bytes: usize) -> bool {
        self.begun += 1;
        bytes > 20
    }

    fn go_on(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(if self.long { payload } else { b"r" });
        payload != b"t 3 no"
    }
}

#[test]
fn a_run_is_made_once_of_several_messages_and_only_if_it_saves_anything() {
    let ways = [
        (&[SMALL, b"small"][..], false, &b"\xc1\x01r\xc1\x01r"[..], 1),
        // By itself, too short, no smaller, and one of which there can be none.
        (&[SMALL], false, b"\xc1\x03104", 0),
        (&[b"1", b"2"], false, b"\x81\x05t 1 1\x81\x05t 2 2", 1),
        (&[SMALL, b"small"], true, b"\xc1\x03104\x81\x09t 2 small", 1),
        (&[SMALL, b"small", b"no"], false, b"\xc1\x03104\x81\x09t 2 small\x81\x06t 3 no", 1),
    ];
    for (payloads, long, frames, begun) in ways {
        let (_router, mut subject, mut turn) = waiting(payloads);
        let mut runs = Runs { long, ..Runs::default() };
        let choice = subject.choose(&mut turn, Toy::Named, || Encoding::DeflatedInRuns, &mut runs);
        let again = subject.choose(&mut turn, Toy::Named, || Encoding::DeflatedInRuns, &mut runs);
        assert_eq!((again, turn.batch().frames(choice), runs.begun), (choice, frames, begun), "{payloads:?}");
        let rest = turn.batch().rest_of_run(choice, 4);
        assert_eq!(rest, (frames.len() == 6).then_some((1, &b"\xc1\x01r"[..], 1)), "{payloads:?}");
        let plain = subject.choose(&mut turn, Toy::Named, || Encoding::Plain, none);
        assert_eq!(turn.batch().rest_of_run(plain, 4), None);
        end(&mut subject, turn);
    }
}

#[test]
fn the_publishers_frames_are_joined_by_encoding_and_only_when_asked_for() {
    let (router, mut subject) = loop_with(8);
    subject.join(&named("t"), 0, Since::Now, &Operator).unwrap();
    let topic = router.topic(&named("t")).unwrap();
    let publish = |payload: &[u8], deflated: Option<&[u8]>| {
        router.publish(&topic, Draft::encode_both(None, true, payload, deflated), Some(0)).unwrap();
    };
    // Passes: one message alone, a mixed batch, one that nothing was deflated in.
    let passes = [vec![Some(b"1")], vec![None, Some(b"2"), Some(b"3")], vec![None, None]];
    for (pass, deflated) in passes.iter().enumerate() {
        deflated.iter().for_each(|deflated| publish(b"long", deflated.map(|bytes| &bytes[..])));
        assert!(router.mailbox(0).unwrap().reserved().1 >= 6 * deflated.len() as u64);
        subject.drain_mailbox(|_| {});
        let mut turn = subject.begin_turn(&mut TurnBudget::new(9), |_, _| true).unwrap();
        let plain: Vec<u8> = deflated.iter().flat_map(|_| *b"\x82\x04long").collect();
        let choice = subject.choose(&mut turn, Toy::Raw, || Encoding::Plain, none);
        assert_eq!((choice, turn.batch().frames(choice)), (Choice::Raw(Encoding::Plain), &plain[..]));
        assert_eq!(turn.batch().made(), 0, "made before anybody asked");
        let wanted: Vec<u8> = deflated
            .iter()
            .flat_map(|deflated| {
                deflated.map_or(b"\x82\x04long".to_vec(), |bytes| [b"\xc2\x01", &bytes[..]].concat())
            })
            .collect();
        for encoding in [Encoding::Deflated, Encoding::DeflatedWithin(8), Encoding::Deflated] {
            let choice = subject.choose(&mut turn, Toy::Raw, || encoding, none);
            assert_eq!(choice.encoding() == Encoding::Deflated, pass < 2, "pass {pass}");
            assert_eq!(turn.batch().frames(choice), wanted, "pass {pass}");
        }
        end(&mut subject, turn);
        assert_eq!(router.mailbox(0).unwrap().reserved(), (0, 0), "the room of both frames comes back");
    }
}

#[test]
fn a_form_is_made_once_for_all_who_want_it_and_keeps_the_place() {
    for payloads in [&[&b"one"[..]][..], &[b"one", b"two", b""]] {
        let (router, mut subject, mut turn) = waiting(payloads);
        let choice = subject.choose(&mut turn, Toy::Named, || Encoding::Plain, none);
        let again = subject.choose(&mut turn, Toy::Named, || Encoding::Plain, none);
        assert_eq!((again, turn.batch().made()), (choice, 1));
        let raw = turn.batch().messages().to_vec();
        let mut frames = Vec::new();
        for ((message, raw), payload) in turn.messages_of(choice).iter().zip(&raw).zip(payloads) {
            assert_eq!((message.topic_id(), message.offset()), (raw.topic_id(), raw.offset()));
            assert_eq!(message.origin(), raw.origin());
            let text = format!("t {} {}", raw.offset(), String::from_utf8_lossy(payload));
            assert_eq!(message.frame(), [&[0x81, text.len() as u8][..], text.as_bytes()].concat());
            frames.extend_from_slice(message.frame());
        }
        let made = turn.messages_of(choice).as_ptr();
        assert_eq!(
            (turn.messages_of(choice).as_ptr(), turn.messages_of(choice).len()),
            (made, payloads.len())
        );
        let batch = turn.batch();
        let pieces = batch.pieces(choice).map(|(raw, bytes)| (raw.offset(), bytes));
        let whole = turn.batch().made_of(choice).iter().map(|message| (message.offset(), message.frame()));
        assert!(pieces.eq(whole));
        assert_eq!((batch.frames(choice), choice.encoding()), (&frames[..], Encoding::Plain));
        end(&mut subject, turn);
        assert_eq!(router.mailbox(0).unwrap().reserved(), (0, 0));
    }
}

#[test]
fn a_stream_has_no_frames_and_forms_do_not_mix() {
    let (_, mut subject, mut turn) = waiting(&[b"one", b"two"]);
    let line = subject.choose(&mut turn, Toy::Line, || Encoding::Deflated, none);
    let named = subject.choose(&mut turn, Toy::Named, || Encoding::Plain, none);
    assert_eq!(turn.batch().frames(line), b"1\n2\n");
    assert_eq!(turn.batch().frames(named), b"\x81\x07t 1 one\x81\x07t 2 two");
    let raw = subject.choose(&mut turn, Toy::Raw, || Encoding::Plain, none);
    assert_eq!(turn.batch().frames(raw), b"\x81\x03one\x81\x03two");
    end(&mut subject, turn);
}

#[test]
fn deflated_twins_are_made_with_the_first_who_wants_them() {
    let (router, mut subject, mut turn) = waiting(&[SMALL, b"short", SMALL]);
    let plain = subject.choose(&mut turn, Toy::Named, || Encoding::Plain, none);
    let deflated = subject.choose(&mut turn, Toy::Named, || Encoding::Deflated, shorten);
    assert_eq!(subject.choose(&mut turn, Toy::Named, || Encoding::Deflated, none), deflated, "once");
    // The first bit reserved marks the compressed ones; the short one is the plain one itself.
    let (plains, twins) = (turn.messages_of(plain).to_vec(), turn.messages_of(deflated));
    assert_eq!(twins[0].frame(), b"\xc1\x03104");
    assert_eq!(twins[1].frame(), plains[1].frame());
    assert_eq!(twins.iter().map(Message::offset).collect::<Vec<_>>(), [1, 2, 3]);
    let all: Vec<u8> = turn.messages_of(deflated).iter().flat_map(|twin| twin.frame().to_vec()).collect();
    assert_eq!(turn.batch().frames(deflated), all);
    // A window that one of them does not fit: all plain.
    assert_eq!(subject.choose(&mut turn, Toy::Named, || Encoding::DeflatedWithin(6), none), plain);
    assert_eq!(subject.choose(&mut turn, Toy::Named, || Encoding::DeflatedWithin(9), none), deflated);
    assert_eq!(turn.batch().made(), 2, "no more than two a form");
    end(&mut subject, turn);
    assert_eq!(router.mailbox(0).unwrap().reserved(), (0, 0));
}

#[test]
fn pieces_of_a_coded_body_are_deflated_or_stored() {
    let (router, mut subject, mut turn) = waiting(&[SMALL, b"short"]);
    let stored = subject.choose(&mut turn, Toy::Coded, || Encoding::Plain, none);
    let deflated = subject.choose(&mut turn, Toy::Coded, || Encoding::Deflated, shorten);
    let short = b"a\r\n\x00\x05\x00\xfa\xffshort\r\n";
    let expected = [&b"69\r\n\x00\x64\x00\x9b\xff"[..], SMALL, b"\r\n", short].concat();
    assert_eq!(turn.batch().frames(stored), expected);
    assert_eq!(turn.batch().frames(deflated), [&b"7\r\n100\x00\x00\xff\xff\r\n"[..], short].concat());
    let queued: Vec<u8> =
        turn.messages_of(deflated).iter().flat_map(|message| message.frame().to_vec()).collect();
    assert_eq!(turn.batch().frames(deflated), queued);
    end(&mut subject, turn);
    assert_eq!(router.mailbox(0).unwrap().reserved(), (0, 0));
}

#[test]
fn what_nothing_is_deflated_of_is_the_plain_form() {
    let (router, mut subject, mut turn) = waiting(&[b"one", b"two"]);
    let plain = subject.choose(&mut turn, Toy::Named, || Encoding::Plain, none);
    let before = router.mailbox(0).unwrap().reserved();
    assert_eq!(subject.choose(&mut turn, Toy::Named, || Encoding::Deflated, shorten), plain);
    assert_eq!(subject.choose(&mut turn, Toy::Named, || Encoding::Deflated, none), plain, "tried once");
    assert_eq!(router.mailbox(0).unwrap().reserved(), before, "and takes no room");
    end(&mut subject, turn);
}

#[test]
fn what_stands_in_front_fits_whatever_the_messages_are_long() {
    // Headers of 2, 4 and 10 bytes, in turn.
    let lens = [3, 200, 70_000, 5, 65_600, 130, 100, 2];
    for upto in 1..=lens.len() {
        let mut batch = Batch::default();
        let payloads = lens[..upto].iter().map(|&len| vec![b'x'; len]);
        let messages = payloads.zip(1..).map(|(payload, offset)| Message::sample(1, offset, &payload));
        let mut pending = messages.map(Pending::Message).collect();
        batch.fill(&mut pending, usize::MAX);
        let (topic, mut buffers) = (Topic::new(1, 2, &named("t"), 0), Vec::new());
        let choice = batch.choose_derived(Toy::Named, Encoding::Plain, &topic, none, &mut buffers);
        let mut rest = batch.frames(choice);
        for (&len, offset) in lens[..upto].iter().zip(1..) {
            let header = decode_header(rest, Sender::Server).unwrap().unwrap();
            let (frame, behind) = rest.split_at(header.header_len + header.payload_len as usize);
            let text = format!("t {offset} {}", "x".repeat(len));
            assert_eq!(&frame[header.header_len..], text.as_bytes());
            rest = behind;
        }
        assert!(rest.is_empty());
    }
}

#[test]
fn what_is_long_is_not_deflated_on_a_loop() {
    let most = 256 * 1024 - "t 1 ".len();
    for (len, worth) in [(most, true), (most + 1, false)] {
        let (_, mut subject, mut turn) = waiting(&[&vec![b'.'; len]]);
        let plain = subject.choose(&mut turn, Toy::Named, || Encoding::Plain, none);
        let choice = subject.choose(
            &mut turn,
            Toy::Named,
            || Encoding::Deflated,
            |payload: &[u8], out: &mut Vec<u8>| {
                assert!(worth, "{} bytes", payload.len());
                shorten(payload, out)
            },
        );
        assert_eq!(choice != plain, worth);
        end(&mut subject, turn);
    }
}

#[test]
fn what_is_made_counts_in_the_mailbox_until_the_pass_is_over() {
    let limits = RouterLimits {
        mailbox: MailboxLimits { bytes_max: 500, entries_max: 100 },
        ..RouterLimits::default()
    };
    let router = Arc::new(Router::new(1, limits, Box::new(NoWake)).unwrap());
    let mut subject = LocalTopics::new(router.clone(), 0).unwrap();
    subject.join(&named("t"), 0, Since::Now, &Operator).unwrap();
    publish(&router, "t", 100);
    publish(&router, "t", 100);
    subject.drain_mailbox(|_| {});
    let mut turn = subject.begin_turn(&mut TurnBudget::new(9), |_, _| true).unwrap();
    let room = || router.mailbox(0).unwrap().reserved();
    assert_eq!(room(), (2, 204));
    subject.choose(&mut turn, Toy::Named, || Encoding::Plain, none);
    assert_eq!(room(), (2, 204 + 212));
    // Of the twins, which are `0xc1 0x03` and three digits.
    let deflated = subject.choose(&mut turn, Toy::Named, || Encoding::Deflated, shorten);
    assert_eq!(turn.batch().frames(deflated), b"\xc1\x03104\xc1\x03104");
    assert_eq!(room(), (2, 204 + 212 + 10));
    let topic = router.topic(&named("t")).unwrap();
    assert!(router.publish(&topic, Draft::encode(None, true, &[0; 100]), Some(0)).is_err(), "it waits");
    end(&mut subject, turn);
    assert_eq!(room(), (0, 0));
    assert!(router.publish(&topic, Draft::encode(None, true, &[0; 100]), Some(0)).is_ok());
}
