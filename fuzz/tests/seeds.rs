//! Runs every check over its seeds, over every crash that was ever found, over mutations of both made by a fixed
//! generator, and over the corpus that fuzzing left: what it found stays found, on any machine and in seconds.
//! `FANTAIL_FUZZ_SECONDS=60` goes on for a minute with mutations of seeds and corpus that are new each time;
//! `FANTAIL_FUZZ_TARGET=tls` does all that with one check alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Mutations of each seed, and of one whose check makes handshakes.
const MUTATIONS: usize = 400;
const MUTATED_HANDSHAKES: usize = 40;

/// A small generator with a fixed seed (xorshift64*), so that a failure comes back.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// All checks, or the one that is asked for.
fn checks() -> Vec<&'static (&'static str, fantail_fuzz::Check)> {
    let wanted = std::env::var("FANTAIL_FUZZ_TARGET").ok();
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    let checks: Vec<_> = fantail_fuzz::CHECKS.iter().filter(|(name, _)| is_wanted(name)).collect();
    assert!(!checks.is_empty(), "no such target: {wanted:?}");
    checks
}

fn inputs(name: &str, kinds: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for kind in kinds {
        let Ok(folder) = fs::read_dir(root.join(kind).join(name)) else { continue };
        for entry in folder {
            let path = entry.expect("a readable folder").path();
            found.push((path.clone(), fs::read(path).expect("a readable seed")));
        }
    }
    found.sort();
    found
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            4 if !other.is_empty() => {
                let from = random.below(other.len());
                let len = random.below(other.len() - from + 1);
                bytes.splice(at..at, other[from..from + len].iter().copied());
            }
            _ if !bytes.is_empty() => {
                let len = random.below(bytes.len() - at + 1);
                let piece = bytes[at..at + len].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {}
        }
    }
    bytes.truncate(64 * 1024);
}

#[test]
fn every_check_holds_for_its_seeds_and_their_mutations() {
    for (name, check) in checks() {
        let seeds = inputs(name, &["seeds", "crashes"]);
        assert!(seeds.len() >= 3, "{name} has {} seeds", seeds.len());
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for (path, seed) in &seeds {
            check(seed);
            let rounds = if *name == "tls" { MUTATED_HANDSHAKES } else { MUTATIONS };
            for round in 0..rounds {
                let mut bytes = seed.clone();
                let other = &seeds[random.below(seeds.len())].1;
                mutate(&mut bytes, other, &mut random);
                let held = std::panic::catch_unwind(|| check(&bytes));
                assert!(held.is_ok(), "{name}: mutation {round} of {}: {bytes:?}", path.display());
            }
        }
    }
}

#[test]
fn every_check_holds_for_its_corpus() {
    for (name, check) in checks() {
        let corpus = inputs(name, &["corpus"]);
        assert!(corpus.len() >= 3, "{name} has {} inputs", corpus.len());
        for (path, input) in &corpus {
            let held = std::panic::catch_unwind(|| check(input));
            assert!(held.is_ok(), "{name}: {}", path.display());
        }
    }
}

/// Does nothing unless it is given time; each check gets the same share of it.
#[test]
fn every_check_holds_for_new_mutations_while_there_is_time() {
    let Ok(seconds) = std::env::var("FANTAIL_FUZZ_SECONDS") else { return };
    let share = Duration::from_secs(seconds.parse().expect("seconds")) / checks().len() as u32;
    let seed =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    for (name, check) in checks() {
        let inputs = inputs(name, &["seeds", "crashes", "corpus"]);
        let mut random = Random(seed | 1);
        let (end, mut tried) = (Instant::now() + share, 0);
        while Instant::now() < end {
            let mut bytes = inputs[random.below(inputs.len())].1.clone();
            // Few are changed a lot, so that what is behind the first mistake is reached, too.
            for _ in 0..=random.below(3) {
                let other = &inputs[random.below(inputs.len())].1;
                mutate(&mut bytes, other, &mut random);
            }
            let held = std::panic::catch_unwind(|| check(&bytes));
            assert!(held.is_ok(), "{name}: to be kept in fuzz/crashes/{name}: {bytes:?}");
            tried += 1;
        }
        println!("{name}: {tried} new inputs");
    }
}

#[test]
fn every_target_has_a_program_and_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("a manifest");
    for (name, _) in fantail_fuzz::CHECKS {
        assert!(root.join("fuzz_targets").join(format!("{name}.rs")).is_file(), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
    }
    for folder in ["fuzz_targets", "seeds", "corpus"] {
        let count = fs::read_dir(root.join(folder)).expect("a folder").count();
        assert_eq!(count, fantail_fuzz::CHECKS.len(), "{folder} and CHECKS differ");
    }
}
