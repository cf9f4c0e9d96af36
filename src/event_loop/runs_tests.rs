//! Messages that leave together, deflated as a run: who may be sent one, and that each message can be read wherever the
//! kernel stops.

use super::*;
use crate::wire::frame::{Sender, decode_header};
use crate::wire::http::chunked::ChunkedDecoder;
use flate2::{Decompress, FlushDecompress};

const RESETS: &str = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";
const GOES_ON: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

struct World {
    edition: Arc<Edition>,
    core: Core<Fake>,
}

impl World {
    fn new() -> Self {
        let edition = edition(1, 100, RouterLimits::default(), |settings| {
            settings.deflate.event_streams = true;
            settings.publish.topics = vec!["*".to_owned()];
        });
        let core = core(&edition, Port::Client);
        Self { edition, core }
    }

    /// A subscriber, which has read how it begins, and that.
    fn arrives(&mut self, request: &[u8]) -> (Fake, Key, Vec<u8>) {
        let fake = Fake::says(request);
        let key = arrive(&mut self.core, &fake);
        self.settle();
        let start = fake.take();
        (fake, key, start)
    }

    fn client(&mut self, path: &str, offer: &str) -> (Fake, Key) {
        let offer = format!("Sec-WebSocket-Protocol: fantail.json.v1\r\n{offer}");
        let (fake, key, _) = self.arrives(&upgrade(path, &offer));
        (fake, key)
    }

    fn publish(&mut self, numbers: std::ops::Range<usize>) {
        self.queue(numbers);
        self.settle();
    }

    fn queue(&mut self, numbers: std::ops::Range<usize>) {
        let topic = self.edition.router.topic(&TopicName::of("news")).unwrap();
        for number in numbers {
            let draft = Draft::encode(None, false, document(number).as_bytes());
            self.edition.router.publish(&topic, draft, None).unwrap();
        }
    }

    fn settle(&mut self) {
        while self.core.has_work() || !self.edition.router.mailbox(0).unwrap().is_empty() {
            self.core.run_ready();
            self.core.drain_mailbox(|_| {});
            self.core.fanout_turn();
        }
    }

    fn goes_on(&mut self, fake: &Fake, key: Key) {
        fake.has_room(None);
        self.core.on_event(key, WRITABLE);
        self.settle();
    }
}

/// What resembles the others and is long enough to be deflated by itself.
fn document(number: usize) -> String {
    let rows: Vec<_> = (0..12)
        .map(|at| format!("{{\"sensor\":\"hall-{at}\",\"celsius\":{}}}", number * 37 % 41 + at))
        .collect();
    format!("[{number},{}]", rows.join(","))
}

/// The numbers of the documents in so many frames, and how many of these were deflated. `resets`: by who forgets each.
fn told(mut bytes: &[u8], resets: bool) -> (Vec<u64>, usize) {
    let mut decoder = Decompress::new(false);
    let (mut numbers, mut deflated) = (Vec::new(), 0);
    while !bytes.is_empty() {
        let header = decode_header(bytes, Sender::Server).expect("legal").expect("whole");
        let (frame, rest) = bytes.split_at(header.header_len + header.payload_len as usize);
        let payload = &frame[header.header_len..];
        let mut content = Vec::with_capacity(1 << 16);
        if header.rsv1 {
            deflated += 1;
            if resets {
                decoder.reset(false);
            }
            let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
            decoder.decompress_vec(&whole, &mut content, FlushDecompress::Sync).expect("it can be read");
        } else {
            content.extend_from_slice(payload);
        }
        let message: serde_json::Value = serde_json::from_slice(&content).expect("JSON");
        let number = message["data"][0].as_u64().unwrap_or_else(|| panic!("{message}"));
        assert_eq!(message["data"].to_string().len(), document(number as usize).len());
        numbers.push(number);
        bytes = rest;
    }
    (numbers, deflated)
}

/// The numbers of the documents in the events of a stream in gzip.
fn events(chunks: &[u8]) -> Vec<u64> {
    let (mut body, mut text) = (Vec::new(), Vec::with_capacity(1 << 20));
    ChunkedDecoder::default().decode_into(chunks, &mut body, 1 << 20).expect("chunks");
    Decompress::new(false).decompress_vec(&body[10..], &mut text, FlushDecompress::Sync).expect("blocks");
    let text = String::from_utf8(text).expect("text");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()[0].as_u64().unwrap()).collect()
}

#[test]
fn who_may_forget_gets_each_message_by_itself_and_the_others_less() {
    let mut world = World::new();
    let ((forgets, _), (goes_on, _)) = (world.client("/ws/news", RESETS), world.client("/ws/news", GOES_ON));
    world.publish(0..20);
    world.publish(20..21);
    let (each, run) = (forgets.take(), goes_on.take());
    let wanted: Vec<_> = (0..21).collect();
    assert_eq!(told(&each, true), (wanted.clone(), 21));
    assert_eq!(told(&run, false), (wanted, 21));
    assert!(run.len() * 3 < each.len() * 2, "{} and {}", run.len(), each.len());
}

#[test]
fn who_does_not_get_its_own_back_can_read_the_others() {
    let mut world = World::new();
    let (fake, key) = world.client("/ws/news?echo=0", GOES_ON);
    let own = format!("{{\"type\":\"publish\",\"topic\":\"news\",\"data\":{}}}", document(5));
    world.queue(0..3);
    let mut frame = Vec::new();
    push_frame(&mut frame, Opcode::Text, own.as_bytes(), Some(MASK));
    fake.say(&frame);
    world.core.on_event(key, READABLE);
    world.publish(6..9);
    assert_eq!(world.edition.router.topic(&TopicName::of("news")).unwrap().next_offset(), 8);
    assert_eq!(told(&fake.take(), false).0, [0, 1, 2, 6, 7, 8]);
}

#[test]
fn every_message_can_be_read_wherever_the_kernel_stops() {
    let mut whole = World::new();
    let (client, _) = whole.client("/ws/news", GOES_ON);
    whole.publish(0..5);
    let bytes = client.take().len();
    for room in (0..=bytes + 3).step_by(3) {
        let mut world = World::new();
        let (client, client_key) = world.client("/ws/news", GOES_ON);
        let (stream, stream_key, start) =
            world.arrives(b"GET /sse/news HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n");
        let head = start.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
        client.has_room(Some(room));
        stream.has_room(Some(room));
        world.publish(0..5);
        // Behind what waits, and then behind nothing.
        world.publish(5..7);
        world.goes_on(&client, client_key);
        world.goes_on(&stream, stream_key);
        world.publish(7..10);
        let wanted: Vec<_> = (0..10).collect();
        assert_eq!(told(&client.take(), false).0, wanted, "cut at {room}");
        assert_eq!(events(&[&start[head..], &stream.take()].concat()), wanted, "cut at {room}");
        assert_eq!(world.core.counters.deliveries.value(), 20, "cut at {room}");
        assert_eq!(world.edition.router.mailbox(0).unwrap().reserved(), (0, 0));
    }
}
