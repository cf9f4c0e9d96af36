//! The page at `/` from outside: one document, and what its headers tell whom. How it behaves in a browser is in
//! `tests/browsers`.

use std::fs;
use std::path::Path;

use crate::client::{Answer, Peer};
use crate::server::{Server, wait_for};

fn ask(server: &Server, method: &str, target: &str, fields: &str) -> Answer {
    let mut peer = Peer::connect(server.listen);
    peer.send(format!("{method} {target} HTTP/1.1\r\n{fields}\r\n").as_bytes());
    peer.answer_to(method == "HEAD")
}

#[test]
fn the_page_is_one_whole_document() {
    let server = Server::start(&[], &[]);
    let page = ask(&server, "GET", "/", "Host: localhost\r\n").text();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{page}");
    for tag in ["html", "head", "style", "body", "template", "dialog", "script"] {
        let count = |text: &str| page.matches(text).count();
        let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
        assert_eq!((opened, count(&format!("</{tag}>"))), (1, 1), "{tag}");
    }
    // Every answer holds all of it until its reader has it.
    assert!(page.len() <= 72 * 1024, "{} bytes", page.len());
    // It asks for no other file, and knows no port before it is told.
    for part in ["src=", "<link", "@import", "url(", "8081"] {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn the_page_tells_the_admin_port_that_the_server_has_to_this_machine_only() {
    let server = Server::start(&[], &[]);
    let admin = server.admin.to_string();
    let here = ask(&server, "HEAD", "/", &format!("Host: {}\r\n", server.listen));
    assert_eq!(here.field("fantail-admin"), Some(admin.as_str()));
    for fields in ["Host: ws.example\r\n", "Host: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n"] {
        let stranger = ask(&server, "GET", "/", fields);
        assert_eq!(stranger.field("fantail-admin"), None, "{fields}");
        assert!(!stranger.text().contains(&admin), "{fields}");
    }
    let locked = Server::start(&[], &[("FANTAIL_ADMIN_KEYS", "admin:0123456789abcdef")]);
    assert_eq!(ask(&locked, "HEAD", "/", "Host: localhost\r\n").field("fantail-admin"), None);
}

#[test]
fn who_may_publish_follows_the_rules_through_a_reload() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{}.toml", std::process::id()));
    let write = |who: &str| {
        let rules = format!("[[topic]]\npattern = \"news\"\npublish = \"{who}\"\n");
        fs::write(&file, rules).expect("a file");
    };
    write("anyone");
    let server = Server::start(&["--config", file.to_str().expect("UTF-8")], &[]);
    let said = |topic: &str| {
        let answer = ask(&server, "HEAD", &format!("/?topic={topic}"), "Host: ws.example\r\n");
        answer.field("fantail-publish").map(str::to_owned)
    };
    assert_eq!(said("news").as_deref(), Some("anyone"));
    assert_eq!(said("lobby").as_deref(), Some("anyone"));
    assert_eq!(said("other").as_deref(), Some("nobody"));
    assert_eq!(ask(&server, "HEAD", "/", "Host: ws.example\r\n").field("fantail-publish"), None);
    write("nobody");
    server.signal("HUP");
    wait_for("the rule to change", || said("news").as_deref() == Some("nobody"));
    let _ = fs::remove_file(&file);
}
