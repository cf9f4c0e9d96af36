//! Where connections really go: `--connect-to`, and several addresses in turn.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;
use tungstenite::handshake::server::{Request, Response};

use crate::rooms::Rooms;
use crate::{error, listen, output, run};

/// Accepts everybody; the hosts that clients asked for.
#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
fn counting_server() -> (u16, Arc<Mutex<Vec<String>>>) {
    let (listener, address) = listen();
    let hosts = Arc::<Mutex<Vec<String>>>::default();
    let shared = hosts.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let hosts = shared.clone();
            thread::spawn(move || {
                let callback = |request: &Request, response: Response| {
                    hosts.lock().unwrap().push(request.headers()["host"].to_str().unwrap().to_owned());
                    Ok(response)
                };
                let mut socket = tungstenite::accept_hdr(stream.unwrap(), callback).unwrap();
                while socket.read().is_ok() {}
            });
        }
    });
    (address.port(), hosts)
}

#[test]
fn connections_go_where_they_are_told_and_ask_for_what_they_were_given() {
    let servers = [counting_server(), counting_server(), counting_server()];
    let places = servers.each_ref().map(|(port, _)| format!("chat.invalid:81:127.0.0.1:{port}"));
    let mut args = vec!["idle", "--url", "ws://chat.invalid:81/x", "--connections", "30", "--threads", "2"];
    args.extend(places.iter().flat_map(|place| ["--connect-to", place.as_str()]));
    args.extend(["--duration", "50ms"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["connections"]["opened"]), (0, &json!(30)), "{table}");
    for (_, hosts) in &servers {
        let hosts = hosts.lock().unwrap();
        assert!(hosts.len() == 10 && hosts.iter().all(|host| host == "chat.invalid:81"), "{hosts:?}");
    }
    let said = String::from_utf8(output(&args).stderr).unwrap();
    assert!(said.contains("3 addresses, used in turn: 127.0.0.1:"), "{said}");
}

#[test]
fn publishers_go_there_too() {
    let rooms = Rooms::start(Duration::ZERO);
    let (ws, http) = (format!("ws.invalid:80:{}", rooms.ws), format!("http.invalid:80:{}", rooms.http));
    let mut args = vec!["fanout", "--url", "ws://ws.invalid/ws/{topic}", "--connections", "5"];
    args.extend(["--publish-url", "http://http.invalid/publish/{topic}", "--rate", "50", "--duration", "1s"]);
    args.extend(["--connect-to", &ws, "--connect-to", &http]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["deliveries"]), (0, &json!(250)), "{table}");
    assert!(
        rooms.posted().heads.iter().any(|head| head.contains("http.invalid")),
        "{:?}",
        rooms.posted().heads
    );
}

#[test]
fn a_way_that_is_none_is_refused() {
    let said = error(2, &["idle", "--connect-to", "chat.invalid:81"]);
    assert!(said.contains("HOST:PORT:ADDRESS:PORT"), "{said}");
    let said = error(2, &["idle", "--url", "ws://chat.invalid:81/"]);
    assert!(said.contains("cannot resolve chat.invalid"), "{said}");
}
