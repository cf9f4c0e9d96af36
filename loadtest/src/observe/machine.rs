//! The machine that the generator runs on, so that a result says where it is from. What can't be read is `None`.

use fantail::sys::limits;

use crate::result::report::Machine;

/// Reads what does not change while the process runs.
pub(crate) fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = read("/proc/cpuinfo").and_then(|text| line(&text, "model name"));
    let memory = read("/proc/meminfo").and_then(|text| line(&text, "MemTotal"));
    let kib: Option<u64> = memory.and_then(|text| text.split(' ').next()?.parse().ok());
    Machine {
        kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
        processor,
        processors: std::thread::available_parallelism().ok().map(|count| count.get() as u64),
        memory_bytes: kib.map(|kib| kib * 1024),
        files_hard: limits::nofile().ok().map(|nofile| nofile.hard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_told() {
        let machine = machine();
        assert!(
            machine.kernel.is_some_and(|kernel| kernel.starts_with(|letter: char| letter.is_ascii_digit()))
        );
        assert!(machine.processors.is_some_and(|count| count > 0));
        assert!(machine.memory_bytes.is_some_and(|bytes| bytes > 64 * 1024 * 1024));
    }
}
