//! The one table of reasons: why a connection closed, why a request was refused, why a message was dropped.
//!
//! A row is the log field, the metric label, the close code or status on the wire, and the text.
//! Pure data; every room may name a reason, and nothing else decides what it looks like outside.

/// Declares an enum of reasons with its table, `ALL` and an index for counter arrays.
macro_rules! reasons {
    (
        $(#[doc = $enum_doc:literal])+
        $Name:ident ($(#[doc = $code_doc:literal])+ $code:ident: $Code:ty) {
            $($(#[doc = $doc:literal])+ $Variant:ident = $label:literal, $value:expr, $text:literal;)+
        }
    ) => {
        $(#[doc = $enum_doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $Name {
            $($(#[doc = $doc])+ $Variant,)+
        }

        impl $Name {
            /// Every reason, in the order of [`Self::index`].
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$Variant),+];

            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Position in arrays of counters.
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The log field and metric label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$Variant => $label,)+ }
            }

            $(#[doc = $code_doc])+
            pub const fn $code(self) -> $Code {
                match self { $(Self::$Variant => $value,)+ }
            }

            /// One line for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$Variant => $text,)+ }
            }
        }
    };
}

reasons! {
    /// Why a connection that was accepted is gone.
    CloseReason(
        /// The code of the close frame we send (RFC 6455 §7.4.1); `None` when no close frame is ours to send: the
        /// peer closed first, cannot be reached, or does not speak WebSocket.
        close_code: Option<u16>
    ) {
        /// The peer closed, with a close frame or by ending its stream.
        PeerClosed = "peer_closed", None, "the peer closed";
        /// The peer reset the connection.
        PeerReset = "peer_reset", None, "the peer reset the connection";
        /// The server is leaving.
        Drain = "drain", Some(1001), "the server is going away";
        /// A frame that RFC 6455 does not allow.
        Protocol = "protocol", Some(1002), "protocol error";
        /// Text that is not UTF-8.
        BadUtf8 = "bad_utf8", Some(1007), "text is not UTF-8";
        /// More messages than are ignored from a client that may not publish.
        Policy = "policy", Some(1008), "this connection may not publish";
        /// A message over the size limit.
        TooBig = "too_big", Some(1009), "message too big";
        /// A message of more fragments than allowed.
        TooManyFragments = "too_many_fragments", Some(1009), "message has too many fragments";
        /// A fault of our own.
        Internal = "internal", Some(1011), "internal error";
        /// The memory for half-received messages is used up.
        InboxFull = "inbox_full", Some(1013), "out of receive memory, try again later";
        /// The peer does not read as fast as its topics speak.
        SlowConsumer = "slow_consumer", Some(1013), "reads too slowly, try again later";
        /// No answer to a ping: a close frame would not arrive either.
        HeartbeatTimeout = "heartbeat_timeout", None, "no answer to a heartbeat";
        /// Queued bytes made no progress.
        WriteTimeout = "write_timeout", None, "no progress writing";
        /// No whole request head in time; answered with 408.
        HandshakeTimeout = "handshake_timeout", None, "no request in time";
        /// The peer did not answer our close frame.
        CloseTimeout = "close_timeout", None, "no answer to a close frame";
        /// An HTTP connection idle between requests.
        KeepAliveTimeout = "keep_alive_timeout", None, "idle between requests";
        /// The operating system reported another error.
        Io = "io", None, "input or output error";
        /// A request was refused and the answer has been sent.
        Refused = "refused", None, "refused and answered";
        /// An HTTP exchange is complete.
        HttpDone = "http_done", None, "request answered";
        /// Everything was sent; the peer did not end its stream while we lingered.
        LingerDone = "linger_done", None, "everything sent, waited for the peer long enough";
        /// The server stopped without waiting.
        Stop = "stop", None, "the server stopped";
    }
}

reasons! {
    /// Why a request was refused.
    RefuseReason(
        /// The status of the answer.
        status: u16
    ) {
        /// Not HTTP/1.1, or not unambiguously.
        BadRequest = "bad_request", 400, "bad request";
        /// A page of another origin (client port).
        ForeignOrigin = "foreign_origin", 403, "origin not allowed";
        /// A page of another origin or site (admin port).
        AdminOrigin = "admin_origin", 403, "the admin port takes no requests from other pages";
        /// No such path.
        NotFound = "not_found", 404, "not found";
        /// The path has other methods.
        MethodNotAllowed = "method_not_allowed", 405, "method not allowed";
        /// No whole request in time.
        Timeout = "timeout", 408, "request timeout";
        /// A body over the limit.
        TooLarge = "too_large", 413, "content too large";
        /// A Host that the admin port does not go by (RFC 9110 §15.5.20).
        AdminHost = "admin_host", 421, "not a host of the admin port";
        /// A WebSocket path asked for without an upgrade, or in a version other than 13 (RFC 6455 §4.2.2).
        UpgradeRequired = "upgrade_required", 426, "upgrade required";
        /// A head over the limit.
        HeadTooLarge = "head_too_large", 431, "request head too large";
        /// A transfer coding or expectation that is not implemented.
        NotImplemented = "not_implemented", 501, "not implemented";
        /// As many connections as fit.
        AtCapacity = "at_capacity", 503, "at capacity";
        /// The server is leaving.
        Draining = "draining", 503, "draining";
        /// A publish that does not fit in every mailbox.
        Busy = "busy", 503, "busy, try again";
        /// HTTP of another major version.
        VersionUnsupported = "version_unsupported", 505, "HTTP version not supported";
    }
}

reasons! {
    /// Why a message was not delivered to a subscriber that stays connected: the policy that decided.
    DropReason(
        /// Whether the message that was dropped is the one just published.
        is_newest: bool
    ) {
        /// The outbox was full, and its topic drops what comes last.
        DropNewest = "drop_newest", true, "the outbox is full";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn indexes_follow_all_and_labels_are_unique() {
        fn holds<T: Copy>(
            all: &[T],
            index: fn(T) -> usize,
            label: fn(T) -> &'static str,
            text: fn(T) -> &'static str,
        ) {
            let labels: BTreeSet<_> = all.iter().map(|r| label(*r)).collect();
            assert_eq!(labels.len(), all.len());
            for (position, reason) in all.iter().enumerate() {
                assert_eq!(index(*reason), position);
                assert!(
                    label(*reason).bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                );
                // A close frame's reason has 123 bytes at most (RFC 6455 §5.5, §5.5.1).
                assert!((1..=123).contains(&text(*reason).len()));
            }
        }
        holds(&CloseReason::ALL, CloseReason::index, CloseReason::label, CloseReason::text);
        holds(&RefuseReason::ALL, RefuseReason::index, RefuseReason::label, RefuseReason::text);
        holds(&DropReason::ALL, DropReason::index, DropReason::label, DropReason::text);
    }

    #[test]
    fn codes_may_stand_on_the_wire() {
        for code in CloseReason::ALL.iter().filter_map(|reason| reason.close_code()) {
            // RFC 6455 §7.4.1 and the registry: 1004 to 1006 and 1015 must not be sent.
            assert!(matches!(code, 1000..=1003 | 1007..=1014), "{code}");
        }
        for reason in RefuseReason::ALL {
            assert!((400..=599).contains(&reason.status()));
        }
    }
}
