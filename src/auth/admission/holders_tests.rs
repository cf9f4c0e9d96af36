//! Who is counted, who is refused, and who is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::auth::identity::SharedRights;
use crate::auth::token::Claims;

fn who(issuer: Option<&str>, sub: &str) -> Arc<Identity> {
    let claims = Claims {
        sub: sub.into(),
        subscribe: None,
        publish: None,
        expires: 7,
        good_until: 7,
        issued: None,
        jti: None,
        issuer: issuer.map(Into::into),
        carried: None,
    };
    Identity::new(claims, &mut SharedRights::default())
}

fn taken(table: &Holders, who: &Identity) -> Option<(usize, u32)> {
    table.take_oldest(who).map(|taken| (taken.loop_index, taken.slot))
}

#[test]
fn a_bearer_has_as_many_as_may_be_and_two_issuers_name_two() {
    let table = Holders::new(2, WhenFull::Refuse);
    let (ours, theirs) = (who(Some("us"), "alice"), who(Some("them"), "alice"));
    let unnamed = who(None, "alice");
    for (nth, who) in [&ours, &theirs, &unnamed].into_iter().enumerate() {
        let entered = [0, 1, 2].map(|slot| table.try_enter(who, nth, slot, 5, true));
        assert_eq!(entered, [true, true, false]);
        assert_eq!(table.take_oldest(who), None, "nobody gives way where newcomers are refused");
    }
    table.leave(&ours, 0, 1);
    let entered = [3, 4].map(|slot| table.try_enter(&ours, 0, slot, 5, true));
    assert_eq!(entered, [true, false], "what was refused is not counted");
    for (nth, who) in [&ours, &theirs, &unnamed].into_iter().enumerate() {
        (0..5).for_each(|slot| table.leave(who, nth, slot));
    }
    assert_eq!(table.len(), 0);
    table.leave(&ours, 0, 1);
    assert_eq!(table.len(), 0, "who was not counted in is not counted out");
}

#[test]
fn without_a_limit_nothing_is_counted() {
    let table = Holders::new(0, WhenFull::CloseOldest);
    let alice = who(None, "alice");
    assert!((0..100).all(|slot| table.try_enter(&alice, 0, slot, 5, true)));
    assert_eq!((table.len(), table.take_oldest(&alice)), (0, None));
}

#[test]
fn the_oldest_gives_way_on_whichever_loop_and_once() {
    let table = Holders::new(2, WhenFull::CloseOldest);
    let alice = who(None, "alice");
    assert!(table.try_enter(&alice, 1, 7, 50, true));
    assert!(table.try_enter(&alice, 0, 9, 50, true));
    assert_eq!(table.take_oldest(&alice), None, "they may have two");
    // Two that come at once.
    assert!(table.try_enter(&alice, 0, 3, 50, true) && table.try_enter(&alice, 1, 4, 50, true));
    assert_eq!([(); 3].map(|()| taken(&table, &alice)), [Some((1, 7)), Some((0, 9)), None]);
    // Its slot may be somebody else's, or its own once more, when it is looked for.
    let handle = table.shard(&alice).0;
    let gone = Taken { loop_index: 1, slot: 7, handle, period: 1 };
    assert!(table.is_taken(&alice, &gone) && !table.is_taken(&who(None, "bob"), &gone));
    assert!(!table.is_taken(&alice, &Taken { slot: 4, ..gone }));
    table.leave(&alice, 1, 7);
    assert!(!table.try_enter(&alice, 0, 5, 50, false), "one that nobody gives way to");
    assert_eq!(table.len(), 1);
    table.leave(&alice, 0, 3);
    table.leave(&alice, 1, 4);
    assert_eq!(table.len(), 0);
}

#[test]
fn who_comes_back_in_a_loop_is_soon_refused() {
    let table = Holders::new(1, WhenFull::CloseOldest);
    let alice = who(None, "alice");
    let mut replaced = 0;
    for nth in 0..1_000 {
        // A hundred a second.
        if table.try_enter(&alice, 0, nth, 100 + nth / 10, true) {
            replaced += usize::from(table.take_oldest(&alice).is_some());
        }
    }
    assert!((20..=REPLACED_AT_ONCE + 11).contains(&replaced), "{replaced}");
    assert!(table.try_enter(&who(None, "bob"), 0, 7, 200, true));
}

#[test]
fn a_limit_that_comes_later_or_is_lowered_holds_for_those_who_are_there() {
    let table = Holders::new(0, WhenFull::Refuse);
    let alice = who(None, "alice");
    assert!((0..5).all(|slot| table.try_enter(&alice, 0, slot, 40 + slot, true)));
    table.set(4, WhenFull::CloseOldest);
    // One comes while the others are not counted yet, and one is counted twice.
    assert!(table.try_enter(&alice, 0, 9, 60, true));
    for slot in [4, 2, 3, 2, 1, 0] {
        table.enter_late(&alice, 0, slot, 40 + slot);
    }
    table.enter_late(&alice, 0, 9, 1);
    assert_eq!([(); 3].map(|()| taken(&table, &alice)), [Some((0, 0)), Some((0, 1)), None]);
    table.set(1, WhenFull::CloseOldest);
    let gone = [(); 4].map(|()| taken(&table, &alice).map(|(_, slot)| slot));
    assert_eq!(gone, [Some(2), Some(3), Some(4), None]);
    table.set(0, WhenFull::Refuse);
    table.leave(&alice, 0, 9);
    assert_eq!(table.len(), 0, "who was counted is counted out, though nothing is limited any more");
}

#[test]
fn who_came_while_the_limit_was_lifted_is_younger_than_who_was_there() {
    let table = Holders::new(3, WhenFull::CloseOldest);
    let alice = who(None, "alice");
    assert!((1..3).all(|slot| table.try_enter(&alice, 0, slot, 10 * slot, true)));
    table.set(0, WhenFull::CloseOldest);
    assert!(table.try_enter(&alice, 1, 3, 30, true));
    table.set(1, WhenFull::CloseOldest);
    assert!(table.is_empty(), "the walk counts them again");
    // One comes while it does, and another reload before it is through.
    assert!(table.try_enter(&alice, 1, 4, 40, true));
    table.enter_late(&alice, 1, 3, 30);
    table.set(2, WhenFull::CloseOldest);
    assert!(table.try_enter(&alice, 1, 5, 41, true));
    for slot in [2, 1] {
        table.enter_late(&alice, 0, slot, 10 * slot);
    }
    assert_eq!(
        [(); 4].map(|()| taken(&table, &alice)),
        [Some((0, 1)), Some((0, 2)), Some((1, 3)), None],
        "by when they came"
    );
}

#[test]
fn who_was_to_make_room_stays_once_the_limit_is_lifted_and_so_does_who_has_the_slot_then() {
    let table = Holders::new(1, WhenFull::CloseOldest);
    let alice = who(None, "alice");
    assert!((1..3).all(|slot| table.try_enter(&alice, 0, slot, 10, true)));
    let gone = table.take_oldest(&alice).unwrap();
    assert!(table.is_taken(&alice, &gone));
    table.set(0, WhenFull::CloseOldest);
    table.leave(&alice, 0, 1);
    assert!(table.try_enter(&alice, 0, 1, 20, true));
    assert!(!table.is_taken(&alice, &gone), "nobody has to go");
    table.set(2, WhenFull::CloseOldest);
    assert!(!table.is_taken(&alice, &gone), "one that is not counted yet");
}

#[test]
fn two_bearers_are_not_taken_for_one_by_a_part_of_what_they_are_known_by() {
    let table = Holders::new(1, WhenFull::CloseOldest);
    // Of 200,000 about five pairs have 32 bits in common.
    let mut halves = BTreeMap::new();
    for nth in 0..200_000 {
        let bearer = who(None, &nth.to_string());
        let half = table.shard(&bearer).0 >> (HANDLE_BITS - u32::BITS);
        let Some(other) = halves.insert(half, nth) else { continue };
        let other = who(None, &other.to_string());
        assert!(table.try_enter(&other, 0, 1, 5, true) && table.try_enter(&bearer, 0, 2, 5, true));
        assert_eq!((table.take_oldest(&other), table.take_oldest(&bearer)), (None, None));
        let wrong = Taken { loop_index: 0, slot: 1, handle: table.shard(&bearer).0, period: 1 };
        assert!(!table.is_taken(&other, &wrong));
        table.leave(&other, 0, 1);
        table.leave(&bearer, 0, 2);
        assert!(table.is_empty());
    }
}

#[test]
fn a_connection_costs_fourteen_bytes_and_what_grows_beside() {
    let table = Holders::new(5, WhenFull::Refuse);
    let count = 20_000_u32;
    let all: Vec<_> = (0..count).map(|nth| who(None, &nth.to_string())).collect();
    for (nth, who) in (0_u32..).zip(&all) {
        assert!(table.try_enter(who, 0, nth, 5, true));
    }
    let bytes = || -> usize {
        let of = |shard: &Mutex<Shard>| shard.lock().unwrap().entries.capacity() * size_of::<Entry>();
        table.shards.iter().map(of).sum()
    };
    assert_eq!(size_of::<Entry>(), 14);
    assert!(bytes() <= count as usize * 16, "{}", bytes());
    (0_u32..).zip(&all).for_each(|(nth, who)| table.leave(who, 0, nth));
    assert!(table.is_empty() && bytes() <= SHARDS * 16 * size_of::<Entry>(), "{}", bytes());
}

proptest! {
    /// Newcomers and leavers in any order, on two loops: never more than may be once the oldest are taken, the oldest always first, and
    /// no count left over.
    #[test]
    fn it_keeps_what_a_list_would(steps in prop::collection::vec((0_u32..4, 0_usize..2, 0_u32..6, any::<bool>()), 0..200)) {
        let table = Holders::new(2, WhenFull::CloseOldest);
        let bearers: Vec<_> = (0..4).map(|nth| who(None, &nth.to_string())).collect();
        let mut lists: BTreeMap<u32, Vec<(usize, u32)>> = BTreeMap::new();
        let mut taken: BTreeSet<(usize, u32)> = BTreeSet::new();
        for (nth, (bearer, loop_index, slot, comes)) in (0_u32..).zip(steps) {
            let who = &bearers[bearer as usize];
            // A slot is one connection's at a time.
            let slot = slot * 4 + bearer;
            let list = lists.entry(bearer).or_default();
            if comes && taken.insert((loop_index, slot)) {
                // Slowly enough that nobody is refused.
                prop_assert!(table.try_enter(who, loop_index, slot, nth * 100, true));
                list.push((loop_index, slot));
                while let Some(gone) = table.take_oldest(who) {
                    prop_assert_eq!((gone.loop_index, gone.slot), list.remove(0));
                }
                prop_assert!(list.len() <= 2);
            } else if !comes && taken.remove(&(loop_index, slot)) {
                table.leave(who, loop_index, slot);
                list.retain(|own| *own != (loop_index, slot));
            }
        }
        let expected = lists.values().filter(|list| !list.is_empty()).count();
        prop_assert_eq!(table.len(), expected);
    }
}
