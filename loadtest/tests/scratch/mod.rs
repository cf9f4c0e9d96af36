//! Files that the binary under test writes: a name for each, and removed with the test. Included by the tests that need it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// A file of one test, removed at its end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A name of this test alone; nothing is written yet.
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        Self(folder.join(format!("{}-{number}-{name}", std::process::id())))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// What was written to it.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_else(|error| panic!("{}: {error}", self.path()))
    }

    /// The same, read as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
