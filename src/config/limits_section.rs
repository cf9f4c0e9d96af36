//! `[limits]`: how much a peer may send. The numbers derived from the machine are in `limits`.

use super::section::{Checker, section};
use super::value::{Bytes, BytesOrAutomatic, Count};

section! {
    /// How much one peer may send, and what all of them together may hold half-received.
    LimitsSection ["limits"] {
        /// Largest message on a topic.
        live "message_bytes_max" => message_bytes_max: usize as Bytes = 1 << 20,
        /// Largest message on /echo.
        live "echo_bytes_max" => echo_bytes_max: usize as Bytes = 16 << 20,
        /// Most fragments of one message. What bounds memory is the message's size: a fragment holds nothing by itself.
        live "fragments_max" => fragments_max: usize as Count = 16 << 20,
        /// Largest request head.
        live "head_bytes_max" => head_bytes_max: usize as Bytes = 8 << 10,
        /// Most header fields of a request.
        live "head_fields_max" => head_fields_max: usize as Count = 256,
        /// Largest request body on the admin port; requests that publish nothing have at most 64 KiB.
        live "admin_body_bytes_max" => admin_body_bytes_max: usize as Bytes = 16 << 20,
        /// Bytes of request bodies on the admin port over all its connections, batches under way included; over it,
        /// the request whose body grows is answered 503; one alone always fits. 0 takes a sixteenth of the memory that the
        /// process may have, at most 128 MiB.
        live "admin_body_bytes_total" => admin_body_bytes_total: Option<usize> as BytesOrAutomatic = None,
        /// Most topics there are at once, 1,024 that nobody subscribes to included; whoever would make one more is
        /// answered 503.
        "topics_max" => topics_max: usize as Count = 1_000_000,
        /// Bytes that all topics together keep of their messages, 80 for each message besides; over it, those that
        /// keep most lose their oldest messages. 0 takes an eighth of the memory that the process may have, at most 256 MiB.
        live "history_bytes_max" => history_bytes_max: Option<usize> as BytesOrAutomatic = None,
        /// Bytes of kept messages that each loop holds ready in the forms of who reads them. 0 takes a thirty-second of
        /// the memory that the process may have, shared out over the loops, at most 16 MiB for each.
        live "history_forms_bytes_max" => history_forms_bytes_max: Option<usize> as BytesOrAutomatic = None,
        /// Most different patterns that connections subscribe to at once, and on one loop most of which only parts come;
        /// whoever comes with one more is answered 503, or busy.
        "patterns_max" => patterns_max: usize as Count = 65_536,
        /// Most members of one topic that are listed where its rule has presence; whoever comes then is served as ever, but
        /// neither listed nor counted there.
        live "presence_members_max" => presence_members_max: usize as Count = 100_000,
        /// Bytes that the members of all topics take, 128 for each and its id, and for each state 224 and its text; over it, as
        /// above, and a state is refused.
        live "presence_bytes_max" => presence_bytes_max: usize as Bytes = 64 << 20,
        /// Most topics and patterns one connection subscribes to.
        live "subscriptions_max" => subscriptions_max: usize as Count = 64,
        /// Most requests of one loop that wait for something at a time, such as long polls; whoever comes then is answered
        /// 503.
        live "parked_max" => parked_max: usize as Count = 16_384,
        /// Messages from a client that may not publish are ignored up to this number, then it is closed.
        live "ignored_publishes_max" => ignored_publishes_max: usize as Count = 100,
        /// Messages of a json client that are no command, or show a token that is not taken, are answered up to this number,
        /// then it is closed.
        live "bad_commands_max" => bad_commands_max: usize as Count = 100,
        /// Bytes of half-received heads and messages over all connections of a port, and of what waits until a
        /// peer has read its answers or a mailbox has room. Over it, the connection that sends more is closed with
        /// 1013 or refused with 503; one alone always fits. 0 takes a sixteenth of the memory that the process may
        /// have, at most 256 MiB.
        live "inbox_bytes_total" => inbox_bytes_total: Option<usize> as BytesOrAutomatic = None,
    }
}

impl LimitsSection {
    /// The largest message any endpoint takes.
    pub fn largest_message_bytes(&self) -> usize {
        self.message_bytes_max.max(self.echo_bytes_max)
    }

    fn check_values(&self, check: &mut Checker<'_>) {
        const GIB: usize = 1 << 30;
        check.within("message_bytes_max", self.message_bytes_max, 1..=GIB);
        check.within("echo_bytes_max", self.echo_bytes_max, 1..=GIB);
        check.within("fragments_max", self.fragments_max, 1..=1 << 30);
        // A browser's upgrade request is 500 to 700 bytes without cookies; a head must fit the scratch buffer.
        check.within("head_bytes_max", self.head_bytes_max, 512..=64 << 10);
        // The room for fields is on the loop's stack; a proxy alone adds some ten.
        check.within("head_fields_max", self.head_fields_max, 16..=1_024);
        check.within("admin_body_bytes_max", self.admin_body_bytes_max, 1..=GIB);
        check.within("topics_max", self.topics_max, 1..=100_000_000);
        check.within("patterns_max", self.patterns_max, 0..=100_000_000);
        check.within("presence_members_max", self.presence_members_max, 0..=100_000_000);
        check.within("presence_bytes_max", self.presence_bytes_max, 0..=1 << 40);
        check.within("subscriptions_max", self.subscriptions_max, 1..=65_535);
        check.within("parked_max", self.parked_max, 1..=100_000_000);
        check.within("ignored_publishes_max", self.ignored_publishes_max, 0..=u32::MAX as usize);
        check.within("bad_commands_max", self.bad_commands_max, 0..=u32::MAX as usize);
        let most = self.largest_message_bytes();
        if let Some(total) = self.inbox_bytes_total.filter(|total| *total < most) {
            let problem = format!("expects at least {most}, so that the largest message fits, got {total}");
            check.report("inbox_bytes_total", problem);
        }
        let body = self.admin_body_bytes_max;
        if let Some(total) = self.admin_body_bytes_total.filter(|total| *total < body) {
            let problem = format!("expects at least limits.admin_body_bytes_max = {body}, got {total}");
            check.report("admin_body_bytes_total", problem);
        }
    }
}
