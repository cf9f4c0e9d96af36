//! The second attempts of continuous integration: what is broken fails both, what passed at the second is named, and what
//! tells nothing of a single test gets none. A script stands in for cargo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What `cargo` says of a program two of whose tests failed.
const FAILED: &str = "\
     Running tests/faults/main.rs (target/debug/deps/faults-0123456789abcdef)
test pacing::is_even ... FAILED
test pacing::is_exact ... ok
test topics::are_apart ... FAILED
test result: FAILED. 1 passed; 2 failed
error: test failed, to rerun pass `-p fantail-loadtest --test faults`
";

/// What it says of one that ended before it named a test.
const CRASHED: &str = "\
     Running unittests src/lib.rs (target/debug/deps/fantail-0123456789abcdef)
error: test failed, to rerun pass `-p fantail --lib`
";

#[test]
fn what_passes_the_second_time_is_named() {
    let folder = Folder::new("second");
    let said = folder.twice("[ \"$(wc -l <calls)\" -ge 2 ]", &[]);
    assert!(said.status.success() && folder.calls().len() == 2, "{said:?}");
    assert!(text(&said).contains("\nUNSTEADY: sh -c "), "{said:?}");
}

#[test]
fn what_is_broken_fails_with_its_own_status_and_is_not_repeated_where_that_is_not_wanted() {
    for (environment, attempts) in [(&[][..], 2), (&[("FANTAIL_CI_ONCE", "1")][..], 1)] {
        let folder = Folder::new("broken");
        let said = folder.twice("exit 7", environment);
        assert_eq!((said.status.code(), folder.calls().len()), (Some(7), attempts), "{said:?}");
        assert!(!text(&said).contains("UNSTEADY"), "{said:?}");
    }
}

#[test]
fn failed_tests_are_repeated_by_themselves() {
    let folder = Folder::new("failed");
    let said = folder.tests(FAILED, "0", &[]);
    assert!(said.status.success() && text(&said).contains(FAILED), "{said:?}");
    assert!(text(&said).ends_with("UNSTEADY: pacing::is_even topics::are_apart\n"), "{said:?}");
    let first = "test --locked --workspace --no-fail-fast --lib -- --skip=slow";
    let second = "test --locked --workspace --test faults -- --exact pacing::is_even topics::are_apart";
    assert_eq!(folder.calls(), [first, second]);
}

#[test]
fn tests_that_fail_again_fail_the_run() {
    let folder = Folder::new("again");
    let said = folder.tests(FAILED, "101", &[]);
    assert_eq!((said.status.code(), folder.calls().len()), (Some(101), 2), "{said:?}");
    assert!(!text(&said).contains("UNSTEADY"), "{said:?}");
}

#[test]
fn what_names_no_test_or_too_many_is_not_repeated() {
    let many = FAILED.replace("test pacing::is_exact ... ok\n", &"test many::of_them ... FAILED\n".repeat(4));
    let once = [("FANTAIL_CI_ONCE", "1")];
    let cases = [(CRASHED, &[][..]), (&many, &[]), (&format!("{CRASHED}{FAILED}"), &[]), (FAILED, &once)];
    for (report, environment) in cases {
        let folder = Folder::new("unnamed");
        let said = folder.tests(report, "0", environment);
        assert_eq!((said.status.code(), folder.calls().len()), (Some(101), 1), "{said:?}");
    }
}

/// Where checks note each call, in the file `calls`; gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fantail-attempts-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Runs `.ci/twice` with a check that notes its call and then does what `body` says.
    fn twice(&self, body: &str, environment: &[(&str, &str)]) -> Output {
        self.run("twice", &["sh", "-c", &format!("echo called >>calls\n{body}")], environment)
    }

    /// Runs `.ci/tests` with a `cargo` that fails with a report, and the next time ends with a status.
    fn tests(&self, report: &str, second: &str, environment: &[(&str, &str)]) -> Output {
        let environment = [environment, &[("REPORT", report), ("SECOND_STATUS", second)]].concat();
        self.run("tests", &["--lib", "--", "--skip=slow"], &environment)
    }

    fn run(&self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cargo = root.join("tests/fixtures/attempts");
        Command::new(root.join(".ci").join(name))
            .args(arguments)
            .current_dir(&self.0)
            .env("PATH", format!("{}:{}", cargo.display(), std::env::var("PATH").unwrap()))
            .env_remove("FANTAIL_CI_ONCE")
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    /// The arguments of each call.
    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.0.join("calls")).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
