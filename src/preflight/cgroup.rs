//! The memory limit of the control groups a process is in, of both versions, out of the text of their files. Pure.
//!
//! The kernel charges sockets to the group, too, so the limit is one on the connections. A limit of any group
//! above counts as well as the process's own. Inside a container the path of its group may be one of the host's
//! that cannot be seen; then the mounted root is the container's group.

/// A control group that limits memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its folder, without the leading slash.
    pub path: String,
    /// Bytes it may use.
    pub limit: u64,
    /// Bytes it may still use: what it has of the limit, and file pages that the kernel would drop.
    pub free: u64,
}

/// What the files of one version are called.
struct Files {
    root: &'static str,
    limit: &'static str,
    /// Above it the kernel slows the group down until it has given memory back.
    throttle: Option<&'static str>,
    used: &'static str,
    /// The line of memory.stat that tells the file pages nobody has used lately.
    droppable: &'static str,
}

const VERSION_2: Files = Files {
    root: "sys/fs/cgroup",
    limit: "memory.max",
    throttle: Some("memory.high"),
    used: "memory.current",
    droppable: "inactive_file ",
};

const VERSION_1: Files = Files {
    root: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    throttle: None,
    used: "memory.usage_in_bytes",
    droppable: "total_inactive_file ",
};

/// "No limit" of version 1: the largest number of whole pages, whatever a page is.
const UNLIMITED: u64 = 1 << 62;

/// Of all groups of this process, that which leaves the least memory.
pub(super) fn tightest(read: &mut impl FnMut(&str) -> Option<String>) -> Option<Group> {
    let membership = read("proc/self/cgroup")?;
    let mut groups = Vec::new();
    for line in membership.lines() {
        // "0::/path" is version 2, "4:memory:/path" version 1 (cgroups(7)).
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            upwards(&VERSION_2, path, read, &mut groups);
        } else if controllers.split(',').any(|controller| controller == "memory") {
            upwards(&VERSION_1, path, read, &mut groups);
        }
    }
    groups.into_iter().min_by_key(|group| group.free)
}

/// The limits of a group and of all above it.
fn upwards(files: &Files, path: &str, read: &mut impl FnMut(&str) -> Option<String>, found: &mut Vec<Group>) {
    let mut path = path.trim_end_matches('/');
    loop {
        let folder = format!("{}{path}", files.root);
        found.extend(group(files, &folder, read));
        match path.rsplit_once('/') {
            Some((above, _)) => path = above,
            None => return,
        }
    }
}

fn group(files: &Files, folder: &str, read: &mut impl FnMut(&str) -> Option<String>) -> Option<Group> {
    let number = |text: String| text.trim().parse::<u64>().ok();
    // Without a limit version 2 says "max", which is no number.
    let mut bound = |file: &str| read(&format!("{folder}/{file}")).and_then(number);
    let bounds = [bound(files.limit), files.throttle.and_then(&mut bound)];
    let limit = bounds.into_iter().flatten().min()?;
    if limit >= UNLIMITED {
        return None;
    }
    let used = read(&format!("{folder}/{}", files.used)).and_then(number).unwrap_or(0);
    let stat = read(&format!("{folder}/memory.stat")).unwrap_or_default();
    let droppable = stat.lines().find_map(|line| line.strip_prefix(files.droppable)?.parse::<u64>().ok());
    let held = used.saturating_sub(droppable.unwrap_or(0));
    Some(Group { path: folder.to_owned(), limit, free: limit.saturating_sub(held) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tightest_of(files: &[(&str, &str)]) -> Option<Group> {
        tightest(&mut |path: &str| {
            files.iter().find(|(known, _)| *known == path).map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_tightest_of_all_groups_above_counts() {
        let files = [
            ("proc/self/cgroup", "0::/system.slice/fantail.service\n"),
            ("sys/fs/cgroup/system.slice/fantail.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1000000\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "600000\n"),
            ("sys/fs/cgroup/system.slice/memory.stat", "anon 1\ninactive_file 200000\nactive_file 9\n"),
        ];
        let group = tightest_of(&files).unwrap();
        assert_eq!((group.path.as_str(), group.limit), ("sys/fs/cgroup/system.slice", 1_000_000));
        assert_eq!(group.free, 600_000);
    }

    #[test]
    fn a_group_is_not_meant_to_go_above_its_throttle() {
        let limit_of = |max: &'static str, high: &'static str| {
            let files = [
                ("proc/self/cgroup", "0::/\n"),
                ("sys/fs/cgroup/memory.max", max),
                ("sys/fs/cgroup/memory.high", high),
            ];
            tightest_of(&files).map(|group| group.limit)
        };
        assert_eq!(limit_of("1000\n", "800\n"), Some(800));
        assert_eq!(limit_of("max\n", "800\n"), Some(800));
        assert_eq!(limit_of("1000\n", "max\n"), Some(1000));
        assert_eq!(limit_of("max\n", "max\n"), None);
    }

    #[test]
    fn a_path_of_the_host_leads_to_the_mounted_root() {
        let files = [
            ("proc/self/cgroup", "11:cpu,cpuacct:/docker/1f\n4:memory:/docker/1f\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576\n"),
        ];
        let group = tightest_of(&files).unwrap();
        assert_eq!((group.path.as_str(), group.free), ("sys/fs/cgroup/memory", (256 << 20) - (1 << 20)));
    }

    #[test]
    fn no_limit_is_no_group() {
        assert_eq!(tightest_of(&[]), None);
        let files = [
            ("proc/self/cgroup", "4:memory:/\nnonsense\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(tightest_of(&files), None);
    }
}
