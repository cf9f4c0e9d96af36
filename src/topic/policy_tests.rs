//! A policy comes out of its cell as it went in.

use super::policy::PolicyCell;
use crate::config::{SlowPolicy, TopicPolicy};

#[test]
fn what_is_stored_is_loaded() {
    let least = TopicPolicy {
        client_publish: false,
        slow: SlowPolicy::DropNewest,
        messages_max: 1,
        bytes_max: 1,
        message_bytes_max: 1,
        disconnect_after_drops: 0,
    };
    let cell = PolicyCell::new(&least);
    assert_eq!(cell.load(), least);
    for slow in SlowPolicy::ALL {
        for client_publish in [false, true] {
            let most = TopicPolicy {
                client_publish,
                slow,
                messages_max: 65_535,
                bytes_max: 1 << 30,
                message_bytes_max: (1 << 30) - 1,
                disconnect_after_drops: 1_000_000_000,
            };
            cell.store(&most);
            assert_eq!(cell.load(), most);
        }
    }
}

#[test]
fn what_does_not_fit_is_cut_and_never_spills() {
    let policy = TopicPolicy {
        client_publish: false,
        slow: SlowPolicy::DropOldest,
        messages_max: u32::MAX,
        bytes_max: usize::MAX,
        message_bytes_max: 5,
        disconnect_after_drops: 7,
    };
    let loaded = PolicyCell::new(&policy).load();
    assert_eq!(
        (loaded.slow, loaded.message_bytes_max, loaded.disconnect_after_drops),
        (SlowPolicy::DropOldest, 5, 7)
    );
    assert_eq!((loaded.messages_max, loaded.bytes_max), ((1 << 24) - 1, u32::MAX as usize));
    assert!(!loaded.client_publish);
}
