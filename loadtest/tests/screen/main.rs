//! The screen on a pseudo-terminal: what it shows, in which sizes, how it ends, and what it costs.

#[path = "../accept/mod.rs"]
mod accept;
#[path = "../pty/mod.rs"]
mod pty;
#[path = "../reports/server.rs"]
#[expect(dead_code, reason = "only its echo is wanted")]
mod server;

use std::net::TcpListener;
use std::time::Instant;

use pty::Pty;
use server::echo_and_fan_out;

const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

fn echo(duration: &str, env: &[(&str, &str)], size: (u16, u16)) -> Pty {
    let url = format!("ws://{}/echo", echo_and_fan_out());
    let args = ["echo", "--url", &url, "--connections", "5", "--rate", "200", "--duration", duration];
    Pty::start(env!("CARGO_BIN_EXE_fantail-loadtest"), &args, env, size)
}

fn has(screen: &[String], words: &str) -> bool {
    screen.iter().any(|line| line.contains(words))
}

#[test]
fn it_shows_the_run_and_q_ends_it_with_its_report() {
    let mut pty = echo("60s", &[], (100, 30));
    let mut screen = Vec::new();
    pty.wait("figures", |pty| {
        screen = pty.screen();
        ["received", "/s  sent ", "p99", "each second"].iter().all(|words| has(&screen, words))
    });
    for words in [
        "fantail-loadtest  ws://127.0.0.1:",
        " left",
        "5 of 5 open",
        "asked for ",
        "outstanding",
        "each second",
        "q: end now",
    ] {
        assert!(has(&screen, words), "{words}: {screen:#?}");
    }
    assert!(screen.iter().all(|line| line.chars().count() <= 100), "{screen:#?}");
    let begin = Instant::now();
    pty.press("q");
    let (code, said) = pty.end();
    assert!(begin.elapsed().as_secs() < 30, "long before its minute is over");
    let report = said.rsplit(LEAVE).next().unwrap();
    assert!(said.contains("\x1b[?1049h") && said.matches(LEAVE).count() == 1, "{said:?}");
    assert!(report.contains("interrupted") && report.contains("round trip"), "{report}");
    assert_eq!(code, Some(0), "{report}");
}

#[test]
fn it_fits_small_terminals_and_follows_their_size() {
    let mut pty = echo("60s", &[], (30, 4));
    let fits = |pty: &Pty, columns: usize, rows: usize| {
        let screen = pty.screen();
        screen.len() <= rows && screen.iter().all(|line| line.chars().count() <= columns)
    };
    pty.wait("the small screen", |pty| fits(pty, 30, 4) && has(&pty.screen(), "connections   5 of"));
    assert!(!has(&pty.screen(), "each second"), "{:?}", pty.screen());
    pty.resize((120, 40));
    pty.wait("the large one", |pty| has(&pty.screen(), "each second") && has(&pty.screen(), "Ctrl-C twice"));
    for (columns, rows) in [(12, 2), (1, 1), (60, 3)] {
        pty.resize((columns, rows));
        pty.wait("another size", |pty| fits(pty, columns.into(), rows.into()));
    }
    pty.press("q");
    assert_eq!(pty.end().0, Some(0));
}

#[test]
fn ctrl_c_ends_it_early_and_twice_at_once() {
    let mut pty = echo("60s", &[], (80, 24));
    pty.wait("figures", |pty| has(&pty.screen(), "received"));
    pty.press("\x03");
    let (code, said) = pty.end();
    assert!(said.rsplit(LEAVE).next().unwrap().contains("interrupted"), "{said:?}");
    assert_eq!(code, Some(0));

    // Nobody answers there, so the first one waits for handshakes to end.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", silent.local_addr().unwrap());
    let args = ["idle", "--url", &url, "--connections", "1"];
    let mut pty = Pty::start(env!("CARGO_BIN_EXE_fantail-loadtest"), &args, &[], (80, 24));
    pty.wait("the screen", |pty| has(&pty.screen(), "q: end now"));
    let _held = silent.accept().unwrap();
    pty.press("\x03");
    pty.wait("its answer", |pty| has(&pty.screen(), "ending early"));
    pty.press("\x03");
    let (code, said) = pty.end();
    assert!(said.contains(LEAVE), "{said:?}");
    assert_eq!(code, Some(130));
}

#[test]
fn who_wants_plain_lines_gets_them() {
    for env in [("NO_COLOR", "1"), ("TERM", "dumb"), ("CI", "true")] {
        let pty = echo("1500ms", &[env], (80, 24));
        let (code, said) = pty.end();
        assert!(!said.contains('\x1b') && said.contains("open 5"), "{env:?}: {said:?}");
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn it_costs_the_run_next_to_nothing() {
    let mut pty = echo("60s", &[], (120, 40));
    pty.wait("figures", |pty| has(&pty.screen(), "p99"));
    let tasks = format!("/proc/{}/task", pty.child.id());
    let screen = std::fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path());
    let screen = screen
        .into_iter()
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == "screen");
    let screen = screen.expect("a thread of its own").join("schedstat");
    let ran_ns =
        || -> u64 { std::fs::read_to_string(&screen).unwrap().split(' ').next().unwrap().parse().unwrap() };
    let (begin, before) = (Instant::now(), ran_ns());
    std::thread::sleep(std::time::Duration::from_secs(4));
    let share = (ran_ns() - before) as f64 / begin.elapsed().as_nanos() as f64;
    println!("the screen's thread used {:.3} % of a core", share * 100.0);
    assert!(share < 0.02, "{share}");
    pty.press("q");
    pty.end();
}
