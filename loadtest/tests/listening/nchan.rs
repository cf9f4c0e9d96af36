//! nchan, a module of nginx that keeps messages and serves both event streams and long polls: what the generator's clients
//! are checked against that nobody here wrote. `.ci/install-presets` brings it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::scratch::Scratch;
use crate::skip::skipped;
use crate::{assert_exact, run};

const PATIENCE: Duration = Duration::from_secs(60);
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// nginx without workers of its own, which ends with the test.
struct Served {
    child: Child,
    folder: Scratch,
    port: u16,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(self.folder.path());
    }
}

fn configuration(folder: &str, port: u16) -> String {
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths: String = paths.map(|name| format!("{name}_temp_path {folder}/{name}; ")).concat();
    format!(
        r"load_module {MODULE}; daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
         events {{ worker_connections 1000; }}
         http {{ access_log off; {paths} nchan_message_buffer_length 10000;
           server {{ listen 127.0.0.1:{port};
             location ~ ^/publish/([\w-]+)$ {{ nchan_publisher; nchan_channel_id $1; }}
             location ~ ^/sse/([\w-]+)$ {{
               nchan_subscriber eventsource; nchan_channel_id $1; nchan_subscriber_first_message newest; }}
             location ~ ^/poll/([\w-]+)$ {{
               nchan_subscriber longpoll; nchan_channel_id $1; nchan_subscriber_first_message newest;
               nchan_subscriber_timeout 2; }}
           }} }}"
    )
}

/// Starts it on a free port, on another one if somebody was quicker.
fn start() -> Option<Served> {
    let nginx = Path::new("/usr/sbin/nginx");
    if !nginx.exists() || !Path::new(MODULE).exists() {
        return None;
    }
    for _ in 0..5 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = Scratch::new("nchan");
        std::fs::create_dir_all(folder.path()).unwrap();
        let file = Path::new(folder.path()).join("nginx.conf");
        std::fs::write(&file, configuration(folder.path(), port)).unwrap();
        let mut command = Command::new(nginx);
        command.arg("-c").arg(&file).args(["-p", folder.path()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut served = Served { child, folder, port };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && served.child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(served);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    panic!("nginx does not start");
}

#[test]
fn nchan_serves_both_and_loses_nothing_for_those_that_come_back() {
    let Some(served) = start() else { return skipped("preset-servers") };
    let place = format!("http://127.0.0.1:{}", served.port);
    let publish = format!("{place}/publish/{{topic}}");
    let load = ["--publish-url", &publish, "--connections", "10", "--rate", "100", "--duration", "1s"];
    let resumes = ["--resume", "--drop-rate", "50", "--backoff", "200ms"];
    let events = format!("{place}/sse/{{topic}}");
    let outcome = run(&[&["fanout", "--url", &events][..], &load, &resumes].concat());
    assert_exact(&outcome, 10);
    assert!(outcome.1["resumed"]["dropped"].as_u64() >= Some(20), "{}", outcome.2);
    // A position of two parts, as HTTP caches have it.
    let polls = format!("{place}/poll/{{topic}}");
    let mut args = vec!["fanout", "--client", "poll", "--url", &polls];
    args.extend([
        "--position",
        r"(?mi)^Last-Modified: (?<modified>[^\r]+)",
        "--header",
        "If-Modified-Since: {modified}",
    ]);
    args.extend(["--position", r"(?mi)^Etag: (?<etag>\S+)", "--header", "If-None-Match: {etag}"]);
    let outcome = run(&[&args, &load[..], &resumes].concat());
    assert_exact(&outcome, 10);
    assert_eq!(outcome.1["resumed"]["unserved"], json!(0), "{}", outcome.2);
}
