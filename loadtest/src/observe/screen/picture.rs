//! What the screen shows, as text of a size. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use crate::result::html::grouped;
use crate::result::report::microseconds_text;

/// Heights of a bar of the sparkline.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Widths up to which names of rows have room.
const NAME_WIDTH: usize = 13;

/// The state of a run at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Where connections go.
    pub(crate) url: String,
    /// Connections to be opened.
    pub(crate) wanted: u64,
    /// Connections open now.
    pub(crate) open: u64,
    /// Connections opened in the last second.
    pub(crate) opened_per_second: f64,
    /// Connections that could not be opened.
    pub(crate) failed: u64,
    /// Connections that ended.
    pub(crate) lost: u64,
    /// Messages that were due in the last second, in deliveries; `None` without a plan.
    pub(crate) asked_per_second: Option<f64>,
    /// Messages sent in the last second; `None` where connections send none.
    pub(crate) sent_per_second: Option<f64>,
    /// Messages that came in the last second.
    pub(crate) received_per_second: f64,
    /// Deliveries that are due and have not come; `None` without a plan.
    pub(crate) outstanding: Option<u64>,
    /// Sends that left late.
    pub(crate) late_sends: u64,
    /// What the next figures are of: "round trip" or "connect latency".
    pub(crate) latency_name: &'static str,
    /// Values of the last seconds.
    pub(crate) latency_count: u64,
    /// Their p50, p90 and p99; `None` where they are too few.
    pub(crate) percentiles: [Option<f64>; 3],
    /// Their longest, in microseconds.
    pub(crate) longest: Option<f64>,
    /// The longest of each second, in microseconds, the last one last.
    pub(crate) by_second: Vec<Option<f64>>,
    /// Failures and losses by cause.
    pub(crate) errors: Vec<(String, u64)>,
    /// Time until the load or the hold ends; `None` where that depends on the server.
    pub(crate) left: Option<Duration>,
}

/// What only the thread that draws knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Now {
    /// Since the screen is there.
    pub(crate) running: Duration,
    /// Since the snapshot was taken.
    pub(crate) age: Duration,
    /// Whether the run is ending early.
    pub(crate) ending: bool,
    /// The last line that was said.
    pub(crate) note: Option<String>,
}

/// The whole screen with what moves the cursor; each line is cleared behind its text, so that nothing old stays.
pub(crate) fn frame(snapshot: &Snapshot, now: &Now, (columns, rows): (u16, u16)) -> String {
    let (columns, rows) = (usize::from(columns), usize::from(rows));
    let lines = lines(snapshot, now, columns);
    let kept = kept(lines, rows);
    let mut out = String::from("\x1b[H");
    for (index, line) in kept.iter().enumerate() {
        let line: String =
            line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(columns).collect();
        let (on, off) = if index == 0 { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let _ = write!(out, "{}{on}{line}{off}\x1b[K", if index > 0 { "\r\n" } else { "" });
    }
    out.push_str("\x1b[J");
    out
}

/// Those that a screen of so many rows has room for, in their order. What matters least goes first.
fn kept(lines: Vec<(u8, String)>, rows: usize) -> Vec<String> {
    let mut order: Vec<(u8, usize)> = lines.iter().map(|(weight, _)| *weight).zip(0..).collect();
    order.sort_unstable();
    order.truncate(rows.max(1));
    let kept = |place: &usize| order.iter().any(|(_, of)| of == place);
    lines.into_iter().enumerate().filter(|(place, _)| kept(place)).map(|(_, (_, line))| line).collect()
}

/// All lines with their weights, of which 0 goes last.
fn lines(snapshot: &Snapshot, now: &Now, columns: usize) -> Vec<(u8, String)> {
    let row = |name: &str, value: String| format!("{name:NAME_WIDTH$} {value}");
    let per_second = |rate: f64| format!("{}/s", grouped(rate.round()));
    let left = snapshot.left.map(|left| left.saturating_sub(now.age));
    let clock = match left {
        Some(left) if !now.ending => format!("{}, {} left", minutes(now.running), minutes(left)),
        _ => minutes(now.running),
    };
    let title = format!("fantail-loadtest  {}", snapshot.url);
    let room = columns.saturating_sub(clock.chars().count() + 1);
    let title: String = title.chars().take(room).collect();
    let mut lines = vec![(0, format!("{title:room$} {clock}"))];
    let mut connections =
        format!("{} of {} open", grouped(snapshot.open as f64), grouped(snapshot.wanted as f64));
    if snapshot.opened_per_second >= 0.5 {
        let _ = write!(connections, "  +{}", per_second(snapshot.opened_per_second));
    }
    for (name, count) in [("failed", snapshot.failed), ("lost", snapshot.lost)] {
        if count > 0 {
            let _ = write!(connections, "  {name} {}", grouped(count as f64));
        }
    }
    lines.push((1, row("connections", connections)));
    if let Some(asked) = snapshot.asked_per_second {
        let mut rates = format!("asked for {}", per_second(asked));
        if let Some(sent) = snapshot.sent_per_second {
            let _ = write!(rates, "  sent {}", per_second(sent));
        }
        let _ = write!(rates, "  received {}", per_second(snapshot.received_per_second));
        lines.push((2, row("messages", rates)));
        let mut waiting =
            snapshot.outstanding.map_or_else(|| "n/a".to_owned(), |count| grouped(count as f64));
        if snapshot.late_sends > 0 {
            let _ = write!(waiting, "  sent late {}", grouped(snapshot.late_sends as f64));
        }
        lines.push((4, row("outstanding", waiting)));
    }
    if snapshot.latency_count > 0 {
        let time = |value: Option<f64>| microseconds_text(value);
        let [p50, p90, p99] = snapshot.percentiles;
        let mut text = format!("p50 {}", time(p50));
        for (name, value) in [("p90", p90), ("p99", p99)] {
            if value.is_some() {
                let _ = write!(text, "  {name} {}", time(value));
            }
        }
        let _ = write!(
            text,
            "  longest {}  n {}",
            time(snapshot.longest),
            grouped(snapshot.latency_count as f64)
        );
        lines.push((2, row(snapshot.latency_name, text)));
    }
    lines.extend(
        sparkline(&snapshot.by_second, columns.saturating_sub(NAME_WIDTH + 1))
            .map(|text| (5, row("each second", text))),
    );
    if !snapshot.errors.is_empty() {
        let errors: Vec<String> = snapshot
            .errors
            .iter()
            .map(|(name, count)| format!("{name} {}", grouped(*count as f64)))
            .collect();
        lines.push((3, row("errors", errors.join("  "))));
    }
    lines.extend(now.note.as_ref().map(|note| (6, row("said", note.clone()))));
    lines.push((
        1,
        match now.ending {
            true => "ending early, the report comes  Ctrl-C: end at once".to_owned(),
            false => "q: end now and report  Ctrl-C twice: end at once".to_owned(),
        },
    ));
    lines
}

/// The longest of each second as bars of logarithmic height, with the range that they are of.
fn sparkline(by_second: &[Option<f64>], room: usize) -> Option<String> {
    let known = || by_second.iter().flatten().copied().filter(|value| *value > 0.0);
    let (low, high) = (known().reduce(f64::min)?, known().reduce(f64::max)?);
    let range = format!("  {} to {}", microseconds_text(Some(low)), microseconds_text(Some(high)));
    let room = room.saturating_sub(range.chars().count()).max(1);
    let bar = |value: &Option<f64>| match value.filter(|value| *value > 0.0) {
        None => ' ',
        Some(value) => {
            // Half a decade at least from the lowest to the highest bar, or noise would look like a mountain.
            let decades = (high / low).log10().max(0.5);
            let height = ((value / low).log10() / decades * (BARS.len() - 1) as f64).round() as usize;
            BARS.get(height).copied().unwrap_or('█')
        }
    };
    let shown = by_second.get(by_second.len().saturating_sub(room)..).unwrap_or_default();
    Some(shown.iter().map(bar).collect::<String>() + &range)
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3_600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            url: "ws://h/\x1b[31mecho".into(),
            wanted: 1_000,
            open: 999,
            lost: 1,
            asked_per_second: Some(500.0),
            sent_per_second: Some(498.4),
            received_per_second: 497.0,
            outstanding: Some(3),
            latency_name: "round trip",
            latency_count: 50,
            percentiles: [Some(184.0), Some(900.0), None],
            longest: Some(2_000_000.0),
            by_second: vec![Some(200.0), Some(210.0), None, Some(2_000_000.0), Some(300.0)],
            errors: vec![("lost_eof".into(), 1)],
            left: Some(Duration::from_secs(12)),
            ..Snapshot::default()
        }
    }

    fn plain(size: (u16, u16)) -> Vec<String> {
        let now = Now { running: Duration::from_secs(75), age: Duration::from_secs(2), ..Now::default() };
        let frame = frame(&snapshot(), &now, size);
        let text = ["\x1b[H", "\x1b[K", "\x1b[J", "\x1b[1m", "\x1b[0m"]
            .iter()
            .fold(frame, |text, code| text.replace(code, ""));
        assert!(!text.contains('\x1b'), "{text:?}");
        text.split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn everything_has_its_line() {
        let lines = plain((80, 24));
        assert!(
            lines[0].starts_with("fantail-loadtest  ws://h/ [31mecho")
                && lines[0].ends_with("1:15, 0:10 left"),
            "{lines:?}"
        );
        assert_eq!(lines[1], "connections   999 of 1,000 open  lost 1");
        assert_eq!(lines[2], "messages      asked for 500/s  sent 498/s  received 497/s");
        assert_eq!(lines[3], "outstanding   3");
        assert_eq!(
            lines[4], "round trip    p50 184 us  p90 900 us  longest 2.00 s  n 50",
            "what 50 values carry"
        );
        assert_eq!(lines[5], "each second   ▁▁ █▁  200 us to 2.00 s");
        assert_eq!(lines[6], "errors        lost_eof 1");
        assert!(lines[7].starts_with("q: end now"), "{lines:?}");
    }

    #[test]
    fn a_small_screen_has_what_matters_and_nothing_runs_over() {
        for (columns, rows) in [(80, 24), (40, 10), (30, 5), (20, 3), (10, 2), (1, 1)] {
            let lines = plain((columns, rows));
            assert!(lines.len() <= usize::from(rows), "{columns}x{rows}: {lines:?}");
            assert!(
                lines.iter().all(|line| line.chars().count() <= usize::from(columns)),
                "{columns}x{rows}: {lines:?}"
            );
        }
        let lines = plain((60, 4));
        assert!(lines[2].starts_with("messages") && lines[3].starts_with("q: end now"), "{lines:?}");
        let lines = plain((60, 3));
        assert!(lines[1].starts_with("connections") && lines[2].starts_with("q: end now"), "{lines:?}");
    }

    #[test]
    fn noise_is_flat_and_nothing_has_no_line() {
        assert_eq!(sparkline(&[Some(100.0), Some(104.0)], 60).unwrap(), "▁▁  100 us to 104 us");
        assert_eq!(sparkline(&[None, None], 60), None);
        let long = sparkline(&[Some(5.0); 500], 60).unwrap();
        assert_eq!(long.chars().count(), 60);
    }
}
