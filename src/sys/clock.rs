//! Clocks: time since the process started, and processor time used.
//!
//! Event loops take one reading a turn from here. The room knows no ticks; they are made elsewhere.

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: OnceLock<Instant> = OnceLock::new();

/// Milliseconds since the first call in this process; it never goes backwards.
pub fn monotonic_ms() -> u64 {
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds on the clock of [`monotonic_ms`].
pub fn monotonic_ns() -> u64 {
    let elapsed = START.get_or_init(Instant::now).elapsed();
    // Read twice a turn; 64 bits of nanoseconds are enough for five hundred years.
    elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos())
}

/// Nanoseconds since 1970 (UTC), as the machine has been told; it may go backwards.
pub fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())
}

/// Microseconds on the kernel's CLOCK_MONOTONIC, by which other processes go, too.
pub fn system_monotonic_us() -> io::Result<u64> {
    Ok(u64::try_from(read(libc::CLOCK_MONOTONIC)?.as_micros()).unwrap_or(u64::MAX))
}

/// Nanoseconds on the same clock; 0 if the kernel has none, which no Linux is without.
#[inline]
pub fn system_monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live, writable timespec for the whole call; the call keeps no pointer to it. Where it fails the
    // time stays as it is.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    // It counts from the start of the machine, so neither is below zero.
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Lets sleeps and timed waits of the calling thread end when they are due. The kernel may otherwise end them up to
/// 50 us later, to save wake-ups.
pub fn sleep_precisely() -> io::Result<()> {
    // SAFETY: this option takes a number of nanoseconds and no pointer.
    super::checked(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) }).map(drop)
}

/// Processor time of the calling thread, user and system together.
pub fn thread_cpu_time() -> io::Result<Duration> {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time of a whole process (`None`: this one), in nanoseconds and with threads that have ended.
///
/// The kernel lets any process read this clock of any other one; a sandbox may not, see
/// [`super::process::cpu_time`] for the reading that falls back to procfs.
pub fn process_cpu_time(pid: Option<u32>) -> io::Result<Duration> {
    let Some(pid) = pid else { return read(libc::CLOCK_PROCESS_CPUTIME_ID) };
    let pid = super::single_process(pid)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a live, writable clockid_t for the whole call; the call keeps no pointer to it.
    let code = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    // This one call returns its error instead of leaving it in errno.
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    read(clock)
}

fn read(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live, writable timespec for the whole call; the call keeps no pointer to it.
    super::checked(unsafe { libc::clock_gettime(clock, &mut time) })?;
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Ok(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(at_least: Duration) {
        let start = thread_cpu_time().unwrap();
        while thread_cpu_time().unwrap() - start < at_least {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn monotonic_time_advances() {
        let start = monotonic_ms();
        let deadline = Instant::now() + Duration::from_secs(5);
        while monotonic_ms() == start {
            assert!(Instant::now() < deadline, "the clock stands still");
        }
        assert!(monotonic_ms() > start);
    }

    #[test]
    fn the_kernels_clock_is_one_in_both_units() {
        let before_us = system_monotonic_us().unwrap();
        let now_ns = system_monotonic_ns();
        let after_us = system_monotonic_us().unwrap();
        assert!((before_us..=after_us).contains(&(now_ns / 1_000)), "{before_us} {now_ns} {after_us}");
    }

    #[test]
    fn a_precise_sleeper_has_no_slack() {
        let slack = || {
            // SAFETY: this option takes no argument and returns a number.
            unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }
        };
        let (before, after) = std::thread::spawn(move || {
            let before = slack();
            sleep_precisely().unwrap();
            (before, slack())
        })
        .join()
        .unwrap();
        // A real-time thread has none in the first place.
        assert!(after == 1 || before == 0, "{before} before, {after} after");
    }

    #[test]
    fn process_time_keeps_what_an_ended_thread_used() {
        let before = process_cpu_time(None).unwrap();
        std::thread::spawn(|| spin(Duration::from_millis(20))).join().unwrap();
        let used = process_cpu_time(None).unwrap() - before;
        assert!(used >= Duration::from_millis(20), "{used:?}");
    }

    #[test]
    fn another_process_can_be_read() {
        let own = process_cpu_time(Some(std::process::id())).unwrap();
        assert!(own > Duration::ZERO);
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let reading = process_cpu_time(Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(reading.unwrap() < Duration::from_secs(5));
        assert!(process_cpu_time(Some(child.id())).is_err(), "it has been reaped");
    }
}
