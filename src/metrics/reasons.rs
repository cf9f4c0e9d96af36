//! Why connections end and requests are refused: one row per reason, the same for the metric label, the close
//! code or status, and the words the peer reads. Pure data.

macro_rules! reasons {
    ($(#[$doc:meta])* $Name:ident : $Code:ty { $($(#[$row:meta])* $Variant:ident = $label:literal, $code:expr, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $Name { $($(#[$row])* $Variant,)* }

        impl $Name {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$Variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The metric label.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$Variant => $label,)* }
            }

            /// What the peer reads.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$Variant => $text,)* }
            }

            fn code(self) -> $Code {
                match self { $(Self::$Variant => $code,)* }
            }
        }
    };
}

reasons! {
    /// Why a connection ended.
    CloseReason: Option<u16> {
        /// Closing handshake, started by the peer.
        Normal = "normal", Some(1000), "";
        /// The peer ended its stream without a close frame.
        PeerClosed = "peer_closed", None, "";
        /// The peer reset the connection.
        PeerReset = "peer_reset", None, "";
        /// The server is going away.
        Drain = "drain", Some(1001), "server is going away";
        /// A violation of RFC 6455.
        Protocol = "protocol", Some(1002), "protocol error";
        /// Text that is not UTF-8.
        BadUtf8 = "bad_utf8", Some(1007), "text is not UTF-8";
        /// A compressed message that does not inflate.
        BadDeflate = "bad_deflate", Some(1007), "compressed message is corrupt";
        /// A compressed message refers to what there was no room to keep.
        DeflateFull = "deflate_full", Some(1013), "no room to keep what compressed messages refer to";
        /// Too many messages that may not be published to their topics.
        IgnoredPublishes = "ignored_publishes", Some(1008), "you may not publish such messages to this topic";
        /// Too many messages that were no command.
        BadCommands = "bad_commands", Some(1008), "too many messages that are no command; see docs/protocol.md";
        /// More messages than the connection may send.
        MessageRate = "message_rate", Some(1008), "too many messages; see admission.messages_per_second";
        /// More messages than the bearer of its token may send over all their connections.
        IdentityRate = "identity_rate", Some(1008), "too many messages of one bearer; see auth.identity_messages_per_second";
        /// More bytes than the connection may send.
        ByteRate = "byte_rate", Some(1008), "too many bytes; see admission.bytes_per_second";
        /// A message of more fragments than one may have.
        TooManyFragments = "too_many_fragments", Some(1008), "too many fragments";
        /// The bearer's token has ended.
        TokenExpired = "token_expired", Some(3005), "the token has expired; come back with another";
        /// A topic or pattern of its path was closed to it by rules that were reloaded.
        TopicClosed = "topic_closed", Some(3007), "you may not subscribe to this topic any more";
        /// The bearer of the token has connected again, and has as many connections as they may.
        OldestOfIdentity = "oldest_of_identity", Some(3006), "you have connected again, and this was the oldest connection that you may have";
        /// Closed through the admin port, whose request gives the code.
        Admin = "admin", Some(1000), "";
        /// Closed by the application, whose answer gives the code.
        Application = "application", Some(1000), "";
        /// A message over the limit.
        TooBig = "too_big", Some(1009), "message too big";
        /// No answer to a ping.
        HeartbeatTimeout = "heartbeat_timeout", None, "";
        /// An outbox made no progress.
        WriteTimeout = "write_timeout", None, "";
        /// No request came.
        HandshakeTimeout = "handshake_timeout", None, "";
        /// The peer did not answer a close frame.
        CloseTimeout = "close_timeout", None, "";
        /// All connections together hold too much half-received.
        InboxFull = "inbox_full", Some(1013), "the server holds too many unfinished messages; try again later";
        /// It did not read what its topics sent, and their policy says so.
        SlowConsumer = "slow_consumer", Some(1013), "you read too slowly; try again later";
        /// It did not read its answers while all connections together have too much waiting.
        OutboxFull = "outbox_full", Some(1013), "the server holds too many unread answers; try again later";
        /// The last answer of an HTTP conversation was sent.
        HttpDone = "http_done", None, "";
        /// On the admin port: it had shown no key, and somebody else needed its place.
        Displaced = "displaced", None, "";
        /// The request was refused.
        Refused = "refused", None, "";
        /// A record of TLS was wrong, or the handshake failed.
        Tls = "tls", None, "";
        /// The kernel failed us.
        Io = "io", None, "";
    }
}

reasons! {
    /// Why a request was refused.
    RefuseReason: u16 {
        /// Not HTTP as it should be.
        BadRequest = "bad_request", 400, "bad request";
        /// TLS on a port that speaks none.
        TlsOnPlain = "tls_on_plain", 400, "this port speaks no TLS; use http:// or ws://, or the port of TLS";
        /// HTTP without TLS on the port of TLS.
        PlainHttp = "plain_http", 400, "this port speaks TLS; use https:// or wss://";
        /// A trusted proxy that does not begin with a PROXY header.
        ProxyHeader = "proxy_header", 400, "a PROXY header is expected from this network";
        /// No key, or none that is known, on the admin port.
        KeyMissing = "key_missing", 401, "the admin port needs a key: Authorization: Bearer KEY";
        /// A topic that needs a token, and none was shown.
        TokenMissing = "token_missing", 401, "this needs a token; see docs/tokens.md";
        /// A token that is not taken.
        TokenInvalid = "token_invalid", 401, "the token is not taken";
        /// A token whose time is over.
        TokenExpired = "token_expired", 401, "the token has expired";
        /// A token that was revoked.
        TokenRevoked = "token_revoked", 401, "the token was revoked";
        /// More than one token.
        TokenTwice = "token_twice", 400, "more than one token; show it in one way";
        /// A topic that the token does not name.
        TokenScope = "token_scope", 403, "the token is not for this topic, or not for all that the pattern means";
        /// A key without the scope that the request needs.
        KeyScope = "key_scope", 403, "this key does not have the scope that the request needs";
        /// A topic that clients may not subscribe to.
        SubscribeDenied = "subscribe_denied", 403, "you may not subscribe to this topic, or to all that the pattern means";
        /// The application does not know who asks.
        BackendUnidentified = "backend_unidentified", 401, "the application does not know who you are";
        /// The application does not let them in.
        BackendDenied = "backend_denied", 403, "the application does not let you in";
        /// A page from elsewhere.
        ForeignOrigin = "foreign_origin", 403, "origin not allowed; see origin.allowed";
        /// A page from elsewhere, on the admin port.
        AdminOrigin = "admin_origin", 403, "the admin port does not serve pages from elsewhere";
        /// A Host that is not this machine, on the admin port.
        AdminHost = "admin_host", 403, "host not allowed on the admin port; see admin.hosts";
        /// No such path.
        NotFound = "not_found", 404, "not found";
        /// Not with this method.
        MethodNotAllowed = "method_not_allowed", 405, "method not allowed";
        /// The request took too long.
        Timeout = "timeout", 408, "the request did not arrive in time";
        /// A request with the same Idempotency-Key is at work, or its answer was too large to keep.
        KeyInUse = "key_in_use", 409, "a request with this Idempotency-Key is under way, or its answer was not kept";
        /// The body is too large.
        TooLarge = "too_large", 413, "the request body is too large";
        /// The message is not what its topic takes.
        InvalidMessage = "invalid_message", 422, "the message is not what this topic takes";
        /// Another request had the same Idempotency-Key.
        KeyReused = "key_reused", 422, "this Idempotency-Key was used for another request";
        /// A WebSocket upgrade is needed here.
        UpgradeRequired = "upgrade_required", 426, "this path speaks WebSocket version 13";
        /// The address holds too many connections, on the admin port too many that have shown no key.
        TooManyFromAddress = "too_many_from_address", 429, "too many connections from your address";
        /// The bearer of the token has as many connections as may be.
        TooManyOfIdentity = "too_many_of_identity", 429, "you have as many connections open as you may";
        /// The address opens connections too fast.
        ConnectRate = "connect_rate", 429, "your address connects too fast";
        /// As many topics exist as were made for the address and may be.
        TopicShare = "topic_share", 429, "your address has made as many topics as it may";
        /// The address makes topics too fast.
        TopicRate = "topic_rate", 429, "your address makes topics too fast";
        /// The head is too large.
        HeadTooLarge = "head_too_large", 431, "the request head is too large";
        /// A transfer coding nobody knows.
        NotImplemented = "not_implemented", 501, "transfer coding not implemented";
        /// The connection limit is reached.
        AtCapacity = "at_capacity", 503, "the server is at its connection limit";
        /// Too many requests are awaited.
        Handshakes = "handshakes", 503, "too many connections are waiting with their request";
        /// All connections together hold too much half-received.
        InboxFull = "inbox_full", 503, "the server holds too many unfinished requests; try again later";
        /// The server is going away.
        Draining = "draining", 503, "the server is going away";
        /// Request bodies on the admin port hold too much together.
        BodiesFull = "bodies_full", 503, "all request bodies together are too large; try again";
        /// A mailbox or the topic table is full.
        Busy = "busy", 503, "busy; try again";
        /// The application could not be asked, or has not answered in time.
        BackendDown = "backend_down", 503, "the application that is asked who you are does not answer; try again later";
        /// A token whose key is not among those of its issuer yet, which are being fetched.
        TokenKeyAwaited = "token_key_awaited", 503, "the keys of the token's issuer are being fetched; try again later";
        /// Too many handshakes wait for the application.
        BackendBusy = "backend_busy", 503, "too many connections wait for the application; try again later";
        /// A loop did not answer the admin loop.
        LoopStuck = "loop_stuck", 504, "a loop did not answer within 5 s";
        /// Not this version of HTTP.
        Version = "http_version", 505, "HTTP/1.1 is spoken here";
    }
}

/// Why a handshake of TLS, or a connection over it, came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TlsFailure {
    /// HTTP without TLS.
    PlainHttp,
    /// Neither TLS nor HTTP.
    NotTls,
    /// Neither version, suite nor group in common.
    Incompatible,
    /// The client insists on another protocol than HTTP/1.1.
    Protocol,
    /// No certificate of a kind that the client knows.
    NoCertificate,
    /// The client ended the handshake with an alert: mostly it does not trust the certificate.
    Refused,
    /// The client has shown no certificate, and has to.
    ClientMissing,
    /// No authority that is trusted has signed the client's certificate.
    ClientUntrusted,
    /// The client's certificate has expired, or is not valid yet.
    ClientExpired,
    /// The client's certificate was revoked.
    ClientRevoked,
    /// Anything else is wrong with the client's certificate.
    ClientInvalid,
    /// A rule of the handshake was broken.
    Handshake,
    /// The peer left, or its time was over, before the handshake was done.
    Left,
    /// A record of an open connection was wrong.
    Record,
    /// The peer ended an open connection with an alert.
    Alert,
}

impl TlsFailure {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::PlainHttp,
        Self::NotTls,
        Self::Incompatible,
        Self::Protocol,
        Self::NoCertificate,
        Self::Refused,
        Self::ClientMissing,
        Self::ClientUntrusted,
        Self::ClientExpired,
        Self::ClientRevoked,
        Self::ClientInvalid,
        Self::Handshake,
        Self::Left,
        Self::Record,
        Self::Alert,
    ];
    /// How many there are.
    pub const COUNT: usize = 15;

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::PlainHttp => "plain_http",
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::Protocol => "other_protocol",
            Self::NoCertificate => "no_certificate",
            Self::Refused => "refused_by_client",
            Self::ClientMissing => "client_certificate_missing",
            Self::ClientUntrusted => "client_certificate_untrusted",
            Self::ClientExpired => "client_certificate_expired",
            Self::ClientRevoked => "client_certificate_revoked",
            Self::ClientInvalid => "client_certificate_invalid",
            Self::Handshake => "handshake",
            Self::Left => "left",
            Self::Record => "record",
            Self::Alert => "alert",
        }
    }
}

/// Why a slow consumer missed a message: the policy that dropped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// It came when there was no room.
    DropNewest,
    /// It was the oldest when there was no room for a new one.
    DropOldest,
    /// A newer one took its place.
    Latest,
    /// It closed its connection, or waited when that happened.
    Disconnect,
    /// A subscriber that was behind came too late to read it.
    Expired,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] =
        [Self::DropNewest, Self::DropOldest, Self::Latest, Self::Disconnect, Self::Expired];
    /// How many there are.
    pub const COUNT: usize = 5;

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::DropNewest => "drop-newest",
            Self::DropOldest => "drop-oldest",
            Self::Latest => "latest",
            Self::Disconnect => "disconnect",
            Self::Expired => "expired",
        }
    }
}

/// Why a message was not what its topic takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum InvalidReason {
    /// It is binary.
    NotText,
    /// It is no JSON, or such that readers differ in what it says.
    NotJson,
    /// It does not fit the schema.
    Schema,
    /// It is too deep, or has too many values, to be held against the schema.
    TooComplex,
}

impl InvalidReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::NotText, Self::NotJson, Self::Schema, Self::TooComplex];
    /// How many there are.
    pub const COUNT: usize = 4;

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NotText => "not_text",
            Self::NotJson => "not_json",
            Self::Schema => "schema",
            Self::TooComplex => "too_complex",
        }
    }
}

impl CloseReason {
    /// The close code sent, if a close frame is.
    #[must_use]
    pub fn close_code(self) -> Option<u16> {
        self.code()
    }

    /// The reason behind a close code that a violation calls for.
    #[must_use]
    pub fn of_close_code(code: u16) -> Self {
        match code {
            1007 => Self::BadUtf8,
            1008 => Self::TooManyFragments,
            1009 => Self::TooBig,
            _ => Self::Protocol,
        }
    }
}

impl RefuseReason {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.code()
    }

    /// Whether the same request may be let in another time.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self.status(), 429 | 503)
    }

    /// The reason behind a status that a bad head or body calls for.
    #[must_use]
    pub fn of_head_status(status: u16) -> Self {
        match status {
            405 => Self::MethodNotAllowed,
            413 => Self::TooLarge,
            426 => Self::UpgradeRequired,
            431 => Self::HeadTooLarge,
            501 => Self::NotImplemented,
            505 => Self::Version,
            _ => Self::BadRequest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique() {
        let mut labels: Vec<_> = CloseReason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), CloseReason::COUNT);
    }

    #[test]
    fn statuses_come_back_as_their_reason() {
        for reason in [RefuseReason::HeadTooLarge, RefuseReason::TooLarge, RefuseReason::Version] {
            assert_eq!(RefuseReason::of_head_status(reason.status()), reason);
        }
    }
}
