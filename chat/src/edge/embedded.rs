//! An edge of the chat's own, in a process of its own: its configuration and secrets in a folder that only this user may
//! read, started again where it was if it ends, gone when the chat is.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::process::{ARGUMENT, FOLDER};
use super::{Admin, Edge, Public, Signer};
use crate::random;

/// What it may take until it is ready.
const START: Duration = Duration::from_secs(60);
/// How long after its end it is started again: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How often it looks whether a port is free, and after how long again.
const SOON: u32 = 40;
const LOOK: Duration = Duration::from_millis(50);

/// Where it is to be found.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) ip: IpAddr,
    /// 0 for a free one.
    pub(crate) port: u16,
    /// Whether it may be at no other.
    pub(crate) is_fixed: bool,
    /// Where pages find it, if not at that port of the host that they are from.
    pub(crate) public: Option<String>,
}

/// A running edge.
pub(crate) struct Embedded {
    folder: Folder,
    child: Child,
    _pipes: Pipes,
    listen: SocketAddr,
    is_fixed: bool,
    /// Told to pages.
    port: Arc<AtomicU16>,
    admin: Admin,
}

/// Its admin port is only this program's, and another one each time.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Embedded {
    /// Starts one. At a port that it is to have and that is taken it waits a little: it may be that of an edge that is
    /// just ending, since its chat has.
    pub(crate) async fn start(wanted: Wanted) -> Result<(Self, Edge), String> {
        let (secret, key) = (random::key(), random::id());
        let folder =
            Folder::new(&secret, &key).map_err(|error| format!("no folder for the edge: {error}"))?;
        let listen = SocketAddr::new(wanted.ip, wanted.port);
        if wanted.port != 0 && !is_soon_free(listen).await {
            return Err(format!(
                "{listen} is taken, where the edge is to listen: choose another --edge-port"
            ));
        }
        let (child, pipes, listen, admin) = spawn(&folder, listen).await?;
        let port = Arc::new(AtomicU16::new(listen.port()));
        let admin = Admin::new(&format!("http://{admin}"), Some(key));
        let public = wanted.public.map_or_else(|| Public::Port(Arc::clone(&port)), Public::Url);
        let edge = Edge { public, signer: Signer::new(&secret)?, admin: admin.clone() };
        Ok((Self { folder, child, _pipes: pipes, listen, is_fixed: wanted.is_fixed, port, admin }, edge))
    }

    /// Where clients find it.
    pub(crate) fn port(&self) -> u16 {
        self.listen.port()
    }

    /// Starts it again whenever it ends: where it was, since open pages look there; elsewhere if that has been taken and
    /// it may be. `moved` is told the port then. Never returns.
    pub(crate) async fn keep(&mut self, moved: impl AsyncFn(u16)) {
        loop {
            let ended = self.child.wait().await;
            self.admin.moved(None);
            tracing::warn!("the edge has ended ({}) and is started again", told(ended));
            let mut wait = AGAIN.0;
            loop {
                tokio::time::sleep(wait).await;
                let mut listen = self.listen;
                if !is_soon_free(listen).await {
                    if self.is_fixed {
                        tracing::error!(
                            "{listen} is taken, where the edge is to listen (--edge-port): free it"
                        );
                        wait = (wait * 2).min(AGAIN.1);
                        continue;
                    }
                    listen.set_port(0);
                }
                match spawn(&self.folder, listen).await {
                    Ok((child, pipes, listen, admin)) => {
                        (self.child, self._pipes) = (child, pipes);
                        self.admin.moved(Some(format!("http://{admin}")));
                        if listen != self.listen {
                            tracing::warn!("{} was taken: the edge is at {listen} now", self.listen);
                            self.listen = listen;
                            self.port.store(listen.port(), Ordering::Relaxed);
                            moved(listen.port()).await;
                        }
                        tracing::info!("the edge runs again");
                        break;
                    }
                    Err(error) => tracing::error!("{error}"),
                }
                wait = (wait * 2).min(AGAIN.1);
            }
        }
    }
}

/// Whether an address can be listened on, now or within a moment. Whoever takes it right behind this is found out by the
/// edge.
async fn is_soon_free(address: SocketAddr) -> bool {
    for _ in 0..SOON {
        if std::net::TcpListener::bind(address).is_ok() {
            return true;
        }
        tokio::time::sleep(LOOK).await;
    }
    false
}

fn told(ended: std::io::Result<std::process::ExitStatus>) -> String {
    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// This program's ends of the edge's pipes. It lives as long as the first is open, which waiting for it would close.
type Pipes = (ChildStdin, Lines<BufReader<ChildStdout>>);

type Started = (Child, Pipes, SocketAddr, SocketAddr);

async fn spawn(folder: &Folder, listen: SocketAddr) -> Result<Started, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let mut command = Command::new(program);
    command.arg(ARGUMENT).arg(&folder.0).args(["serve", "--config"]).arg(folder.0.join("fantail.toml"));
    command.args(["--listen", &listen.to_string(), "--admin", &ANY.to_string()]);
    // Variables win over files: those of somebody's own server are not meant for this one.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FANTAIL_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("the edge cannot be started: {error}"))?;
    let (Some(alive), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the edge has no pipes".to_owned());
    };
    let mut lines = BufReader::new(out).lines();
    let ready = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.starts_with("fantail ready ") {
                return Some(line);
            }
        }
        None
    };
    let ready = tokio::time::timeout(START, ready).await.ok().flatten();
    let ready = ready.ok_or("the edge did not start; it has said why above")?;
    let field = |name: &str| ready.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok());
    match (field("listen="), field("admin=")) {
        (Some(listen), Some(admin)) => Ok((child, (alive, lines), listen, admin)),
        _ => Err(format!("the edge says that it is ready, but not where: {ready}")),
    }
}

/// The folder with its configuration, which goes with the chat.
struct Folder(PathBuf);

impl Folder {
    fn new(secret: &str, key: &str) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("{FOLDER}{}", random::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Self(path);
        folder.write("token.secret", secret)?;
        folder.write("admin.keys", &format!("admin:{key}\n"))?;
        folder.write("fantail.toml", &configuration(&folder.0))?;
        Ok(folder)
    }

    fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.0.join(name))?;
        file.write_all(text.as_bytes())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What docs/chat.md says that any edge for the chat needs, and little else. Tokens and not origins say who may come: a
/// page of somebody else has none.
fn configuration(folder: &Path) -> String {
    // A string of JSON is one of TOML.
    let file = |name: &str| serde_json::json!(folder.join(name).display().to_string());
    format!(
        r#"[origin]
allowed = ["*"]

[admin]
keys_file = {keys}

[drain]
seconds = 0

[log]
level = "warn"

[[auth.issuer]]
issuer = "fantail-chat"
audience = ["fantail-chat"]
hmac_file = {secret}

{rules}"#,
        keys = file("admin.keys"),
        secret = file("token.secret"),
        rules = RULES
    )
}

/// The rules of the chat's topics.
const RULES: &str = r#"[[topic]]
pattern = "rooms/*"
subscribe = "claim"
publish = "nobody"
message_bytes_max = "64 KiB"
policy = "disconnect"
presence = "full"
presence_state_seconds = 10

[[topic]]
pattern = "people/*"
subscribe = "claim"
publish = "nobody"
policy = "disconnect"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_the_same_rules() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/chat.md")).unwrap();
        assert!(page.contains(RULES), "docs/chat.md and RULES differ");
    }
}
