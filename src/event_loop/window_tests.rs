//! Connections whose window for what they are sent is small: what is deflated for them fits it, however a write is cut.

use super::*;
use crate::wire::frame::{Sender, decode_header};
use flate2::{Decompress, FlushDecompress};

/// Window of 512 bytes.
const BITS: u8 = 9;

/// A decoder that knows no more of the past than was agreed. It goes on from message to message, as that of a client
/// which did not ask the server to forget.
struct SmallWindow(Decompress);

impl SmallWindow {
    fn content(&mut self, deflated: &[u8]) -> Vec<u8> {
        let mut content = Vec::with_capacity(1 << 16);
        let whole = [deflated, &[0, 0, 0xff, 0xff]].concat();
        self.0.decompress_vec(&whole, &mut content, FlushDecompress::Sync).expect("within the window");
        content
    }
}

/// A text that repeats itself over its whole length and differs from others.
fn text(len: usize, seed: usize) -> Vec<u8> {
    let words: String = (0..).map(|n: usize| format!("{}:{};", seed, n % 40)).take(len).collect();
    words.into_bytes()[..len].to_vec()
}

/// Whole frames of the server: whether each was deflated, and its content.
fn messages(mut bytes: &[u8]) -> Vec<(bool, Vec<u8>)> {
    let mut decoder = SmallWindow(Decompress::new_with_window_bits(false, BITS));
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let header = decode_header(bytes, Sender::Server).expect("legal").expect("whole");
        let (frame, rest) = bytes.split_at(header.header_len + header.payload_len as usize);
        let payload = &frame[header.header_len..];
        let content = if header.rsv1 { decoder.content(payload) } else { payload.to_vec() };
        all.push((header.rsv1, content));
        bytes = rest;
    }
    all
}

/// A subscriber with a small window on a loop of its own.
fn subscriber() -> (Arc<Edition>, Core<Fake>, Fake) {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let offer = format!("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={BITS}\r\n");
    let fake = Fake::says(&upgrade("/ws/t", &offer));
    arrive(&mut core, &fake);
    let answer = String::from_utf8(fake.take()).unwrap();
    assert!(answer.contains("; server_max_window_bits=9\r\n"), "{answer}");
    core.drain_mailbox(|_| {});
    core.fanout_turn();
    (edition, core, fake)
}

fn publish(edition: &Arc<Edition>, payload: &[u8]) {
    let topic = edition.router.topic(&TopicName::of("t")).unwrap();
    let mut deflater = Deflater::new(5, 256);
    let draft = Draft::encode_both(None, false, payload, deflater.try_deflate(payload));
    assert!(draft.frame_len() > payload.len() + 10, "a deflated frame is there");
    edition.router.publish(&topic, draft, None).unwrap();
}

fn deliver(core: &mut Core<Fake>) {
    core.drain_mailbox(|_| {});
    while core.topics.has_work() {
        core.fanout_turn();
    }
}

#[test]
fn what_fits_the_window_is_deflated_and_the_rest_is_plain() {
    let (edition, mut core, fake) = subscriber();
    for (len, deflated) in [(300, true), (512, true), (513, false), (5_000, false)] {
        publish(&edition, &text(len, len));
        deliver(&mut core);
        assert_eq!(messages(&fake.take()), [(deflated, text(len, len))], "{len}");
    }
}

#[test]
fn a_batch_is_plain_if_one_of_its_messages_does_not_fit() {
    let (edition, mut core, fake) = subscriber();
    for (lens, deflated) in [([300, 400, 512], true), ([300, 513, 300], false)] {
        lens.iter().for_each(|len| publish(&edition, &text(*len, *len)));
        deliver(&mut core);
        let wanted: Vec<_> = lens.iter().map(|len| (deflated, text(*len, *len))).collect();
        assert_eq!(messages(&fake.take()), wanted);
    }
}

/// A frame that the kernel has taken in part goes on in the form that it began in.
#[test]
fn every_message_comes_whole_wherever_the_kernel_stops() {
    for lens in [[300, 400, 512], [400, 900, 300]] {
        let whole: usize = lens.iter().map(|len| len + 10).sum();
        for room in (0..whole).step_by(7) {
            let (edition, mut core, fake) = subscriber();
            fake.has_room(Some(room));
            lens.iter().for_each(|len| publish(&edition, &text(*len, *len)));
            deliver(&mut core);
            // Behind what waits, and then behind nothing.
            publish(&edition, &text(350, 1));
            deliver(&mut core);
            fake.has_room(None);
            core.on_event(Key { slot: 0, generation: 1 }, WRITABLE);
            publish(&edition, &text(360, 2));
            deliver(&mut core);
            let mut wanted: Vec<_> = lens.iter().map(|len| text(*len, *len)).collect();
            wanted.extend([text(350, 1), text(360, 2)]);
            let got: Vec<_> = messages(&fake.take()).into_iter().map(|(_, content)| content).collect();
            assert!(got == wanted, "{lens:?} cut at {room}");
        }
    }
}

#[test]
fn an_echo_is_deflated_if_it_fits() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n";
    let fake = Fake::says(&upgrade("/echo", offer));
    let key = arrive(&mut core, &fake);
    fake.take();
    for len in [300, 512, 513, 4_000] {
        let mut frame = Vec::new();
        push_frame(&mut frame, Opcode::Text, &text(len, len), Some(MASK));
        fake.say(&frame);
        core.on_event(key, READABLE);
        assert_eq!(messages(&fake.take()), [(len <= 512, text(len, len))]);
    }
}
