//! The processor time that control groups allow the generator, and how long they held it back because that was used up.
//! Read at the run's beginning and end; what the kernel does not say is `None`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::result::report::QuotaReport;

/// The group that allows least.
#[derive(Clone, Debug)]
struct Group {
    folder: PathBuf,
    processors: f64,
}

/// See the module's head. `None` where no group limits anything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quota {
    group: Option<Group>,
    held_ns: Option<u64>,
}

impl Quota {
    /// Looks for the group that limits this process most, and reads how long it has held its members back.
    pub(crate) fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let groups = folders(&read("/proc/self/cgroup"), &read("/proc/self/mounts"));
        let limited = groups.into_iter().filter_map(|folder| {
            let processors = processors(&folder)?;
            Some(Group { folder, processors })
        });
        let group = limited.min_by(|a, b| a.processors.total_cmp(&b.processors));
        let held_ns = group.as_ref().and_then(|group| held_ns(&group.folder));
        Self { group, held_ns }
    }

    /// What it allows, and how long it has held back since.
    pub(crate) fn report(&self) -> QuotaReport {
        let Some(group) = &self.group else { return QuotaReport::default() };
        let grown = |now: u64| Some(now.saturating_sub(self.held_ns?) as f64 / 1e9);
        QuotaReport {
            processors_allowed: Some(group.processors),
            held_back_seconds: held_ns(&group.folder).and_then(grown),
        }
    }
}

/// The folders of the groups that a process is in and that its processor time counts in, up to the roots.
/// `groups` and `mounts` are the kernel's lists of these names in `/proc/self`.
fn folders(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for mount in mounts.lines() {
        let mut fields = mount.split(' ').skip(1);
        let (Some(place), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let holds_processors = |list: &str| list.split(',').any(|name| name == "cpu");
        let member = groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let its = match kind {
                "cgroup2" => controllers.is_empty(),
                "cgroup" => holds_processors(options) && holds_processors(controllers),
                _ => false,
            };
            its.then_some(path)
        });
        let Some(member) = member else { continue };
        let root = Path::new(place);
        let mut folder = root.join(member.trim_start_matches('/'));
        // In a container the path may be the host's, of which only the end is mounted.
        if !folder.is_dir() {
            folder = root.to_owned();
        }
        found.extend(folder.ancestors().take_while(|folder| folder.starts_with(root)).map(Path::to_owned));
    }
    found
}

/// How many processors a group allows at once; `None` if it does not limit them.
fn processors(folder: &Path) -> Option<f64> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(text) => text.split_once(' ').map(|(quota, period)| (quota.to_owned(), period.to_owned()))?,
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // No limit is "max", or -1.
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// For how long a group has held its members back, in nanoseconds, on each processor by itself.
fn held_ns(folder: &Path) -> Option<u64> {
    let text = fs::read_to_string(folder.join("cpu.stat")).ok()?;
    text.lines().find_map(|line| match line.split_once(' ')? {
        ("throttled_usec", microseconds) => Some(microseconds.parse::<u64>().ok()? * 1_000),
        ("throttled_time", nanoseconds) => nanoseconds.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("fantail-quota-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("a/b")).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn both_layouts_of_the_kernel_are_read() {
        let root = Folder::new("layouts");
        let file = |name: &str, text: &str| fs::write(root.0.join(name), text).unwrap();
        file("a/cpu.max", "20000 100000\n");
        file("a/cpu.stat", "usage_usec 5\nnr_throttled 3\nthrottled_usec 1500\n");
        assert_eq!(processors(&root.0.join("a")), Some(0.2));
        assert_eq!(held_ns(&root.0.join("a")), Some(1_500_000));
        file("a/cpu.max", "max 100000\n");
        assert_eq!(processors(&root.0.join("a")), None);
        file("a/b/cpu.cfs_quota_us", "150000\n");
        file("a/b/cpu.cfs_period_us", "100000\n");
        file("a/b/cpu.stat", "nr_periods 9\nthrottled_time 42\n");
        assert_eq!((processors(&root.0.join("a/b")), held_ns(&root.0.join("a/b"))), (Some(1.5), Some(42)));
        file("a/b/cpu.cfs_quota_us", "-1\n");
        assert_eq!((processors(&root.0.join("a/b")), processors(&root.0)), (None, None));
    }

    #[test]
    fn the_groups_above_count_too() {
        let root = Folder::new("above");
        let place = root.0.to_str().unwrap();
        let old = folders(
            "4:memory:/x\n1:cpu,cpuacct:/a/b\n",
            &format!("cgroup {place} cgroup rw,cpu,cpuacct 0 0\n"),
        );
        assert_eq!(old, [root.0.join("a/b"), root.0.join("a"), root.0.clone()]);
        let new = folders("0::/a\n", &format!("none {place} cgroup2 rw 0 0\nproc /proc proc rw 0 0\n"));
        assert_eq!(new, [root.0.join("a"), root.0.clone()]);
        // What is not mounted here is the host's path.
        let host = folders("0::/of/the/host\n", &format!("none {place} cgroup2 rw 0 0\n"));
        assert_eq!(host, std::slice::from_ref(&root.0));
        assert!(folders("1:memory:/a\n", &format!("cgroup {place} cgroup rw,memory 0 0\n")).is_empty());
    }

    #[test]
    fn who_is_not_limited_says_nothing() {
        let report = Quota::default().report();
        assert_eq!((report.processors_allowed, report.held_back_seconds), (None, None));
    }
}
