//! [`Totals`]: how much may wait over all connections, in bytes, as settings and memory come to it. A pure function:
//! `server` passes the memory in.

use super::settings::Settings;
use super::topic::TopicRule;

/// What is left out of the settings is a share of the memory that the process may have. Together with what may be in
/// both ports' inboxes it is little more than half of it: the rest is for connections, the kernel's part of their
/// sockets, and the program. The most is what a machine with plenty of memory gives.
const OUTBOX: Share = Share { part: 4, most: 256 << 20 };
const INBOX: Share = Share { part: 16, most: 256 << 20 };
const ADMIN_BODIES: Share = Share { part: 16, most: 128 << 20 };
const CONTEXTS: Share = Share { part: 32, most: 64 << 20 };
const HISTORY: Share = Share { part: 8, most: 256 << 20 };
const HISTORY_FORMS: Share = Share { part: 32, most: 63 * HISTORY_FORMS_MOST };
const HISTORY_FORMS_MOST: usize = 16 << 20;
const REPLIES: Share = Share { part: 64, most: 16 << 20 };
const MAILBOXES: Share = Share { part: 16, most: 63 * MAILBOX_MOST };
const MAILBOX_MOST: usize = 64 << 20;

/// One part of the memory, up to a number of bytes.
struct Share {
    part: u64,
    most: usize,
}

impl Share {
    fn of(&self, memory: Option<u64>) -> usize {
        let share = memory.map_or(u64::MAX, |memory| memory / self.part);
        usize::try_from(share).unwrap_or(usize::MAX).min(self.most)
    }
}

/// The bounds in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// `outbox.bytes_total`.
    pub outbox: usize,
    /// `limits.inbox_bytes_total`, which each of the two ports has.
    pub inbox: usize,
    /// `limits.admin_body_bytes_total`.
    pub admin_bodies: usize,
    /// `admin.idempotency_bytes_max`.
    pub replies: usize,
    /// `deflate.context_bytes_total`.
    pub contexts: usize,
    /// `mailbox.bytes_max`, which each loop has.
    pub mailbox: usize,
    /// `limits.history_bytes_max`.
    pub history: usize,
    /// `limits.history_forms_bytes_max`, which each loop has.
    pub history_forms: usize,
    /// Client loops.
    loops: usize,
}

impl Totals {
    /// What the settings say, and for what they leave out a share of `memory`, but so much that the largest message
    /// fits. Without a known `memory` it is the most.
    #[must_use]
    pub fn derive(settings: &Settings, loops: usize, memory: Option<u64>) -> Self {
        let loops = loops.max(1);
        let mailbox =
            (MAILBOXES.of(memory) / loops).min(MAILBOX_MOST).max(settings.largest_topic_message().0);
        let outbox = OUTBOX.of(memory).max(settings.outbox_total_min());
        // Where no topic keeps anything, no part of the memory is set aside for it.
        let keeps = settings.topics.iter().any(TopicRule::keeps);
        let forms = settings.limits.history_forms_bytes_max;
        let forms = forms.unwrap_or((HISTORY_FORMS.of(memory) / loops).min(HISTORY_FORMS_MOST));
        Self {
            outbox: settings.outbox.bytes_total.unwrap_or(outbox),
            // One alone always fits into these two.
            inbox: settings.limits.inbox_bytes_total.unwrap_or(INBOX.of(memory)),
            admin_bodies: settings.limits.admin_body_bytes_total.unwrap_or(ADMIN_BODIES.of(memory)),
            // At least a few short ones.
            replies: settings.admin.idempotency_bytes_max.unwrap_or(REPLIES.of(memory).max(64 << 10)),
            // At least what one client may refer back to.
            contexts: settings.deflate.context_bytes_total.unwrap_or(CONTEXTS.of(memory).max(32 << 10)),
            mailbox: settings.mailbox.bytes_max.unwrap_or(mailbox),
            history: if keeps { settings.limits.history_bytes_max.unwrap_or(HISTORY.of(memory)) } else { 0 },
            history_forms: if keeps { forms } else { 0 },
            loops,
        }
    }

    /// All together, both ports and all loops.
    #[must_use]
    pub fn all(&self) -> u64 {
        let times = |bytes: usize, count: usize| (bytes as u64).saturating_mul(count as u64);
        [
            times(self.outbox, 1),
            times(self.inbox, 2),
            times(self.admin_bodies, 1),
            times(self.replies, 1),
            times(self.contexts, 1),
            times(self.mailbox, self.loops),
            times(self.history, 1),
            times(self.history_forms, self.loops),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::PresenceMode;

    fn derive(settings: &Settings, loops: usize, mebibytes: u64) -> Totals {
        Totals::derive(settings, loops, Some(mebibytes << 20))
    }

    #[test]
    fn they_are_about_half_of_the_memory_or_the_most() {
        let settings = Settings::default();
        for (mebibytes, loops) in [(96, 1), (512, 2), (1_024, 4), (16 << 10, 16)] {
            let totals = derive(&settings, loops, mebibytes);
            assert!(totals.all() <= (mebibytes << 20) / 32 * 18, "{mebibytes}: {totals:?}");
        }
        let most = Totals::derive(&settings, 2, None);
        assert_eq!(most, derive(&settings, 2, 64 << 10));
        assert_eq!((most.outbox, most.inbox), (256 << 20, 256 << 20));
        assert_eq!((most.admin_bodies, most.mailbox), (128 << 20, 64 << 20));
        assert_eq!((most.contexts, most.replies), (64 << 20, 16 << 20));
        assert_eq!(derive(&settings, 1, 48).replies, (48 << 20) / 64);
    }

    #[test]
    fn the_largest_message_fits_into_the_smallest_share() {
        let totals = derive(&Settings::default(), 63, 16);
        assert!(totals.outbox / 8 * 7 >= 16 << 20, "an echo's: {totals:?}");
        assert_eq!(totals.mailbox, 1 << 20);
        assert!(totals.all() > 16 << 20, "that is more than there is, which whoever asks is told");
    }

    #[test]
    fn what_is_kept_has_a_share_where_anything_is() {
        let of = |set: fn(&mut TopicRule)| {
            let mut rule = TopicRule::default();
            set(&mut rule);
            let totals = derive(&Settings { topics: vec![rule], ..Settings::default() }, 1, 1_024);
            (totals.history > 0, totals.history_forms > 0)
        };
        assert_eq!(of(|_| {}), (false, false));
        assert_eq!(of(|rule| rule.presence = Some(PresenceMode::Off)), (false, false));
        assert_eq!(of(|rule| rule.history_messages = Some(1)), (true, true));
        // Events of who comes and goes are kept for who comes back.
        assert_eq!(of(|rule| rule.presence = Some(PresenceMode::Counts)), (true, true));
    }

    #[test]
    fn what_is_set_stays() {
        let mut settings = Settings::default();
        settings.outbox.bytes_total = Some(300 << 20);
        settings.mailbox.bytes_max = Some(5 << 20);
        let totals = derive(&settings, 3, 64);
        assert_eq!((totals.outbox, totals.mailbox), (300 << 20, 5 << 20));
        assert_eq!(totals.inbox, 4 << 20);
    }
}
