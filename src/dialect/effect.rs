//! What a dialect asks for, and what it is told became of it.
//!
//! Pushed by a dialect into the loop's one sink, carried out by the loop after each message, in order. Plain data: an
//! effect names topics by name and bytes by their place, never a slot or a lock.

use std::collections::VecDeque;
use std::fmt;

#[cfg(test)]
use fantail_test_support::planted::{self, Planted};

use super::Tools;
use crate::metrics::CloseReason;
use crate::topic::{
    Gap, Invalid, Joined, LevelPattern, Page, PageFrom, PresencePage, Since, Topic, TopicName,
};

/// Bytes that an effect is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The message in hand from the first of these bytes to before the second; no message has 4 GiB, because no limit
    /// of one has.
    Message(u32, u32),
    /// Bytes of its own.
    Own(Box<[u8]>),
}

impl Piece {
    /// The bytes, of the message in hand or its own.
    #[must_use]
    pub fn of<'a>(&'a self, message: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Message(from, to) => message.get(*from as usize..*to as usize).unwrap_or_default(),
            Self::Own(bytes) => bytes,
        }
    }
}

/// What a whole message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// What was answered and asked for in the context, if anything was.
    Said,
    /// It is to be published as it is to the connection's first topic; nowhere if it has none any more. As
    /// [`Effect::Publish`], without anything to carry: what most messages of most clients mean.
    Relay,
}

/// Something that only the loop can do. Those of a connection that is gone meanwhile are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Publish, as a client may. Where no mailbox has room, it waits, what is behind it waits with it, and nothing more
    /// is read.
    Publish {
        /// The topic.
        topic: TopicName<'static>,
        /// Whether the payload is binary.
        binary: bool,
        /// The payload.
        payload: Piece,
    },
    /// Join a topic.
    Subscribe {
        /// The topic.
        topic: TopicName<'static>,
        /// Where the subscription begins.
        since: Since,
    },
    /// Leave a topic.
    Unsubscribe(TopicName<'static>),
    /// Subscribe to whatever topics a pattern means.
    Watch(LevelPattern),
    /// End that.
    Unwatch(LevelPattern),
    /// Read some of what a topic keeps.
    ReadHistory {
        /// The topic.
        topic: TopicName<'static>,
        /// From where, and in which direction.
        from: PageFrom,
        /// Messages at most; 0 asks for the place alone.
        limit: u16,
    },
    /// Tell who is on a topic.
    Presence(Box<PresenceQuestion>),
    /// Say something of the connection's member on a topic.
    State(Box<StateWish>),
    /// Take a token as that of the connection's bearer.
    Identify {
        /// The token.
        token: Token,
        /// Whether it is another one of the same bearer.
        again: bool,
    },
    /// Count a message that meant nothing here; too many of them end the connection.
    Ignore,
    /// Count a message that was no command, and was answered so; too many of them end the connection.
    CountBad,
    /// End the conversation.
    Close(CloseReason),
}

impl Effect {
    /// Bytes that it holds for as long as it waits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let own = match self {
            Self::Publish { topic, payload: Piece::Own(bytes), .. } => topic.as_str().len() + bytes.len(),
            Self::Publish { topic, .. }
            | Self::Subscribe { topic, .. }
            | Self::Unsubscribe(topic)
            | Self::ReadHistory { topic, .. } => topic.as_str().len(),
            Self::Identify { token, .. } => token.as_str().len(),
            Self::Watch(pattern) | Self::Unwatch(pattern) => pattern.as_str().len(),
            Self::Presence(asked) => {
                let after = asked.after.as_deref().map_or(0, str::len);
                size_of::<PresenceQuestion>() + asked.topic.as_str().len() + after
            }
            Self::State(wish) => {
                let state = wish.state.as_deref().map_or(0, str::len);
                size_of::<StateWish>() + wish.topic.as_str().len() + state
            }
            Self::Ignore | Self::CountBad | Self::Close(_) => 0,
        };
        size_of::<Self>() + own
    }
}

/// A token as a peer has shown it. Never told by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// These words.
    #[must_use]
    pub fn new(words: &str) -> Self {
        Self(words.into())
    }

    /// The words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a token)")
    }
}

/// What is asked of who is on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceQuestion {
    /// The topic.
    pub topic: TopicName<'static>,
    /// Behind whose id the answer goes on.
    pub after: Option<Box<str>>,
    /// Members at most; 0 asks for their number alone.
    pub limit: u16,
    /// Whether every change is to be told from then on, or none any more.
    pub events: Option<bool>,
}

/// What a connection says of its member on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWish {
    /// The topic.
    pub topic: TopicName<'static>,
    /// JSON on one line; `None` for nothing any more.
    pub state: Option<Box<str>>,
    /// After how many seconds it ends by itself, if that is sooner than the topic's rule says.
    pub seconds: Option<u16>,
}

/// Which request of its peer a dialect asks something for. It gets it back with the outcome; nobody else looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tag(Option<Box<str>>);

impl Tag {
    /// Of a request that goes by these words.
    #[must_use]
    pub fn of(words: &str) -> Self {
        Self(Some(words.into()))
    }

    /// The words, if there are any.
    #[must_use]
    pub fn words(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Bytes that it holds outside itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.as_deref().map_or(0, str::len)
    }
}

/// An effect and what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What is to be done.
    pub effect: Effect,
    /// For which request.
    pub tag: Tag,
}

impl Wish {
    /// Bytes that it holds for as long as it waits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.effect.bytes() + size_of::<Tag>() + self.tag.bytes()
    }
}

impl From<Effect> for Wish {
    fn from(effect: Effect) -> Self {
        Self { effect, tag: Tag::default() }
    }
}

/// What became of an effect.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The application has something to say to who has just connected. Told before everything else.
    Welcome {
        /// JSON.
        data: &'a str,
    },
    /// Published, at once or after it has waited.
    Published {
        /// The topic; its name is read by whoever needs it.
        topic: &'a Topic,
        /// The message's place in it.
        offset: u64,
    },
    /// Subscribed, by an effect or as the connection was opened. Told before any message of the topic.
    Joined {
        /// The topic.
        topic: &'a Topic,
        /// The offset of the last message that does not follow.
        offset: u64,
        /// It asked for what it missed, and all of that follows.
        recovered: bool,
        /// What it asked for and does not get.
        gap: Option<Gap>,
    },
    /// Messages of a topic it is subscribed to don't come. Told before the next one that does.
    Gap {
        /// The topic.
        topic: &'a Topic,
        /// Why, and what can be had.
        gap: Gap,
    },
    /// Some of what a topic keeps.
    History {
        /// The topic.
        topic: &'a Topic,
        /// What was read.
        page: &'a Page,
    },
    /// Some of who is on a topic.
    Presence {
        /// What was read.
        page: &'a PresencePage,
        /// As whom the connection itself is listed there, if it is.
        own: Option<&'a str>,
    },
    /// The list of who is on a topic whose changes it is told goes on.
    Listed {
        /// What was read.
        page: &'a PresencePage,
        /// As whom the connection itself is listed there, if it is; told at the beginning of a list.
        own: Option<&'a str>,
        /// Behind whom it goes on; `None` for a list that begins anew.
        after: Option<&'a str>,
        /// The places that the connection has come to with it, as its messages name them.
        at: &'a [u8],
    },
    /// What it says of its member holds.
    Stated {
        /// The topic.
        topic: &'a str,
    },
    /// Subscribed to whatever topics a pattern means, by an effect or as the connection was opened.
    Watching {
        /// The pattern.
        pattern: &'a str,
        /// Rules or the token allow less than all of it, and what they do not allow does not come.
        limited: bool,
    },
    /// The connection belongs to somebody from now on.
    Identified {
        /// To whom.
        sub: &'a str,
        /// When their token ends, in seconds since 1970.
        expires: u64,
        /// Whether it belonged to them before.
        again: bool,
    },
    /// A token was not taken.
    Unidentified {
        /// Why, for programs.
        denial: TokenDenial,
        /// Why, for people.
        text: &'a str,
    },
    /// The connection's token ends soon; behind that, and some grace, the connection does.
    Expires {
        /// When the token ends, in seconds since 1970.
        at: u64,
    },
    /// Not subscribed any more.
    Left {
        /// The topic or pattern.
        topic: &'a str,
    },
    /// Not subscribed any more, because the connection's next token does not allow it, or rules that were reloaded.
    Lost {
        /// The topic or pattern.
        topic: &'a str,
        /// Why.
        denial: Denial,
    },
    /// Still subscribed to a pattern, of which rules that were reloaded may let less come than before.
    Limited {
        /// The pattern.
        pattern: &'a str,
    },
    /// It can't be had.
    Refused {
        /// The topic or pattern.
        topic: &'a str,
        /// Why.
        denial: Denial,
    },
    /// The application has taken a message.
    Forwarded {
        /// To which topic it was sent.
        topic: &'a str,
        /// What the application says to its sender.
        reply: Option<Reply<'a>>,
    },
    /// The application refuses a message.
    Rejected {
        /// To which topic it was sent.
        topic: &'a str,
        /// A word for programs.
        code: &'a str,
        /// What is wrong, for people.
        text: &'a str,
    },
    /// A message is not what its topic takes.
    Invalid {
        /// The topic.
        topic: &'a str,
        /// Why, and where.
        invalid: &'a Invalid,
    },
}

impl<'a> Outcome<'a> {
    /// A subscription that begins so.
    #[must_use]
    pub fn of_joined(topic: &'a Topic, joined: Joined) -> Self {
        let Joined { next_offset, recovered, gap, .. } = joined;
        #[cfg(test)]
        let (recovered, gap) = match gap.is_some() && planted::strikes(Planted::FalseRecovery) {
            true => (true, None),
            false => (recovered, gap),
        };
        Self::Joined { topic, offset: next_offset - 1, recovered, gap }
    }
}

/// What the application says to who has sent it a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A JSON value that is no string.
    Json(&'a str),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

/// Why an effect can't be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Clients may not publish to the topic.
    NotOpen,
    /// Clients may not subscribe to it, or to all that the pattern means.
    NotForYou,
    /// Only who has shown a token may do so.
    NoToken,
    /// The token does not name the topic, or all that the pattern means.
    NotByToken,
    /// The payload is larger than a message of the topic may be.
    TooLong,
    /// The connection is not subscribed to the topic.
    NoTopic,
    /// It is already.
    Already,
    /// It has as many topics as one connection may have.
    TooMany,
    /// As many topics exist as were made for its address and may be.
    TopicShare,
    /// Its address makes topics too fast.
    TopicRate,
    /// No room for another topic.
    Busy,
    /// No room for another pattern.
    PatternsFull,
    /// Nobody is listed on the topic.
    NoPresence,
    /// Members of the topic say nothing of themselves.
    NoStates,
    /// The connection is not on the topic's list.
    NotListed,
    /// It says too much of its member in one second.
    StateRate,
    /// No room for what it says.
    StatesFull,
    /// The application could not be told, or nobody knows whether it was.
    ForwardFailed,
    /// Too many messages wait for the application.
    ForwardFull,
}

impl Denial {
    /// Whether it is for want of something here or at the application, and so no fault of whoever asked.
    #[must_use]
    pub fn is_for_now(self) -> bool {
        match self {
            Self::Busy | Self::PatternsFull | Self::StatesFull | Self::ForwardFailed | Self::ForwardFull => {
                true
            }
            Self::NotOpen
            | Self::NotForYou
            | Self::NoToken
            | Self::NotByToken
            | Self::TooLong
            | Self::NoTopic
            | Self::Already
            | Self::TooMany
            | Self::TopicShare
            | Self::TopicRate
            | Self::NoPresence
            | Self::NoStates
            | Self::NotListed
            | Self::StateRate => false,
        }
    }

    /// Its code and its words, where a dialect has some for it.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NotOpen => ("not_allowed", "clients may not publish to this topic"),
            Self::NotForYou => {
                ("not_allowed", "you may not subscribe to this topic, or to all that the pattern means")
            }
            Self::NoToken => ("unauthorized", "this needs a token"),
            Self::NotByToken => {
                ("not_allowed", "the token is not for this topic, or not for all that the pattern means")
            }
            Self::TooLong => ("too_large", "the payload is larger than a message of this topic may be"),
            Self::NoTopic => ("not_subscribed", "this connection is not subscribed to the topic"),
            Self::Already => ("already_subscribed", "this connection is subscribed to the topic already"),
            Self::TooMany => ("too_many_topics", "this connection has as many topics as one may have"),
            Self::TopicShare => ("topic_share", "your address has made as many topics as it may"),
            Self::TopicRate => ("topic_rate", "your address makes topics too fast; try again later"),
            Self::Busy => ("busy", "no room for another topic; try again later"),
            Self::NoPresence => ("no_presence", "this topic does not tell who is on it"),
            Self::NoStates => ("no_state", "members of this topic have no state"),
            Self::NotListed => ("not_listed", "this connection is not on the topic's list"),
            Self::StateRate => ("state_rate", "states come too fast; the last one that was taken holds"),
            Self::StatesFull => ("busy", "no room for another state; try again later"),
            Self::ForwardFailed => {
                ("forward_failed", "the application could not be told, or nobody knows whether it was")
            }
            Self::ForwardFull => ("busy", "too many messages wait for the application; try again later"),
            Self::PatternsFull => ("busy", "no room for another pattern; try again later"),
        }
    }
}

/// Why a token is not taken as a connection's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenDenial {
    /// Its time is over.
    Expired,
    /// It is not good.
    Invalid,
    /// It is another bearer's, or there is one already, or none to be replaced, or nobody issues any.
    NotNow,
    /// The loop has checked as many as it does in one turn, or its key is being fetched.
    Busy,
}

/// The sink of one stretch of messages. Most messages ask for one thing, which allocates nothing.
#[derive(Debug, Default)]
pub struct Effects {
    next: Option<Wish>,
    /// Behind `next`, which is there whenever any of these is. Boxed, so that a sink costs nothing to make and drop.
    #[allow(
        clippy::box_collection,
        reason = "a null pointer is made and dropped for nothing, a deque is not"
    )]
    more: Option<Box<VecDeque<Wish>>>,
}

impl Effects {
    /// Asks for one more thing, behind what was asked for before.
    #[inline]
    pub fn push(&mut self, wish: impl Into<Wish>) {
        let wish = wish.into();
        if self.next.is_none() {
            self.next = Some(wish);
        } else {
            self.more.get_or_insert_default().push_back(wish);
        }
    }

    /// The next to be carried out.
    #[inline]
    pub fn pop(&mut self) -> Option<Wish> {
        let next = self.next.take();
        if let Some(more) = &mut self.more {
            self.next = more.pop_front();
        }
        next
    }

    /// Whether nothing is asked for.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.next.is_none()
    }

    /// Forgets what is left.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes all that is left, to be carried out when the message in hand, `message`, is gone.
    #[must_use]
    pub fn take_rest(&mut self, message: &[u8]) -> Vec<Wish> {
        let mut rest: Vec<Wish> = std::iter::from_fn(|| self.pop()).collect();
        for wish in &mut rest {
            if let Effect::Publish { payload, .. } = &mut wish.effect {
                *payload = Piece::Own(payload.of(message).into());
            }
        }
        rest
    }

    /// Puts back what [`Self::take_rest`] took.
    pub fn restore(&mut self, rest: Vec<Wish>) {
        rest.into_iter().for_each(|wish| self.push(wish));
    }
}

/// What a dialect has in hand for one call.
pub struct Cx<'a> {
    /// Bytes for this connection alone go to its end: answers.
    pub out: &'a mut Vec<u8>,
    /// What else is to be done.
    pub effects: &'a mut Effects,
    /// The loop's tools.
    pub tools: Tools<'a>,
    /// The longest message that may be compressed for the connection, in bytes; 0 if it has not negotiated that.
    pub deflates_up_to: usize,
    /// For which request of the peer an outcome is; of no request where a message is in hand.
    pub tag: &'a Tag,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_message_outlives_it() {
        let mut effects = Effects::default();
        let publish = |payload| Effect::Publish {
            topic: TopicName::parse("t").unwrap().into_owned(),
            binary: false,
            payload,
        };
        let last = |payload| Wish { effect: publish(payload), tag: Tag::of("17") };
        effects.push(publish(Piece::Message(0, 3)));
        effects.push(Effect::Ignore);
        effects.push(last(Piece::Message(4, 7)));
        assert_eq!(effects.pop(), Some(publish(Piece::Message(0, 3)).into()));
        let rest = effects.take_rest(b"one two");
        assert!(effects.is_empty());
        effects.restore(rest);
        assert_eq!(effects.pop(), Some(Effect::Ignore.into()));
        let wish = effects.pop().unwrap();
        assert_eq!(wish, last(Piece::Own((*b"two").into())));
        assert_eq!(wish.bytes(), size_of::<Wish>() + 1 + 3 + 2, "what waits is counted with what it owns");
        assert_eq!(effects.pop(), None);
    }
}
