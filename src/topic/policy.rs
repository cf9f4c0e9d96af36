//! A topic's policy where every loop can read it without a lock: two words of atomics. Written when the
//! topic is created and when rules are replaced, read by publishers and on the slow path of a delivery.

use super::sync::{AtomicU64, Ordering};
use crate::config::{SlowPolicy, TopicPolicy};

const BIT_PUBLISH: u64 = 1;
const SHIFT_SLOW: u32 = 1;
const SHIFT_MESSAGES: u32 = 8;
const SHIFT_DROPS: u32 = 32;
const MESSAGES_MAX: u64 = (1 << (SHIFT_DROPS - SHIFT_MESSAGES)) - 1;

/// The cell. While rules are replaced a reader may see one word of the old policy and one of the new;
/// either is a bound that was configured.
#[derive(Debug)]
pub struct PolicyCell {
    /// Publish right, slow consumer policy, messages, drops in a row.
    rules: AtomicU64,
    /// Bytes that may wait, and above them bytes of the largest message.
    sizes: AtomicU64,
}

impl PolicyCell {
    /// A cell that holds `policy`.
    pub fn new(policy: &TopicPolicy) -> Self {
        let (rules, sizes) = pack(policy);
        Self { rules: AtomicU64::new(rules), sizes: AtomicU64::new(sizes) }
    }

    /// Replaces it.
    pub fn store(&self, policy: &TopicPolicy) {
        let (rules, sizes) = pack(policy);
        self.rules.store(rules, Ordering::Relaxed);
        self.sizes.store(sizes, Ordering::Relaxed);
    }

    /// What it holds.
    pub fn load(&self) -> TopicPolicy {
        unpack(self.rules.load(Ordering::Relaxed), self.sizes.load(Ordering::Relaxed))
    }
}

/// The bounds of checked settings fit their bits; larger ones are cut to the largest that does.
fn pack(policy: &TopicPolicy) -> (u64, u64) {
    let size = |bytes: usize| u64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
    let rules = u64::from(policy.client_publish)
        | (policy.slow as u64) << SHIFT_SLOW
        | u64::from(policy.messages_max).min(MESSAGES_MAX) << SHIFT_MESSAGES
        | u64::from(policy.disconnect_after_drops) << SHIFT_DROPS;
    (rules, size(policy.bytes_max) | size(policy.message_bytes_max) << 32)
}

fn unpack(rules: u64, sizes: u64) -> TopicPolicy {
    let [drop_newest, drop_oldest, latest, disconnect] = SlowPolicy::ALL;
    TopicPolicy {
        client_publish: rules & BIT_PUBLISH != 0,
        slow: match rules >> SHIFT_SLOW & 3 {
            0 => drop_newest,
            1 => drop_oldest,
            2 => latest,
            _ => disconnect,
        },
        messages_max: (rules >> SHIFT_MESSAGES & MESSAGES_MAX) as u32,
        bytes_max: (sizes & u64::from(u32::MAX)) as usize,
        message_bytes_max: (sizes >> 32) as usize,
        disconnect_after_drops: (rules >> SHIFT_DROPS) as u32,
    }
}
