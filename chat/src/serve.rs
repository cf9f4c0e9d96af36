//! Puts the parts together and serves until it is told to stop: the edge, the database, the task that tells the edge, and
//! the port.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use fantail::sys::limits;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::api::{self, App};
use crate::cli::Arguments;
use crate::connections::{self, Bounds};
use crate::edge::embedded::{Embedded, Wanted};
use crate::edge::{Admin, Edge, Public, Signer};
use crate::limits::Limits;
use crate::outbox::Teller;
use crate::passwords::Passwords;
use crate::store::Store;

/// Descriptors for anything but connections of the port: the database, the edge, standard streams.
const DESCRIPTORS_OF_OUR_OWN: usize = 256;

/// Serves. Ends well when it is told to stop.
pub(crate) async fn run(arguments: Arguments) -> Result<(), String> {
    let mut stops = [SignalKind::terminate(), SignalKind::interrupt()]
        .map(|kind| signal(kind).map_err(|error| format!("signals cannot be taken: {error}")));
    let [Ok(terminate), Ok(interrupt)] = &mut stops else {
        return Err("signals cannot be taken".to_owned());
    };
    check_urls(&arguments)?;
    let store = Store::open(&arguments.database).await?;
    let device_key = store.secret("device").await.map_err(|error| format!("the database: {error:?}"))?;
    let listener = TcpListener::bind(arguments.listen).await;
    let listener =
        listener.map_err(|error| format!("{} cannot be listened on: {error}", arguments.listen))?;
    let listen = listener.local_addr().map_err(|error| error.to_string())?;
    let (mut embedded, edge) = edge(&arguments, listen, &store).await?;
    let written = Arc::new(Notify::new());
    let edge = Arc::new(edge);
    let teller = Teller { store: store.clone(), edge: Arc::clone(&edge), written: Arc::clone(&written) };
    tokio::spawn(teller.run());
    let bounds = bounds(&arguments)?;
    let app = App {
        store: store.clone(),
        edge,
        written,
        passwords: Passwords::new(),
        limits: Limits::new(),
        device_key,
        is_secure: is_https(arguments.public_url.as_deref()),
        proxies: arguments.proxies,
        history: i64::from(arguments.history),
    };
    let told = arguments.public_url.unwrap_or_else(|| format!("http://{listen}/"));
    println!("fantail-chat ready {told} pid={}", std::process::id());
    let router = api::router(Arc::new(app));
    let moved = async |port| {
        if let Err(error) = remember_port(&store, listen.ip(), port).await {
            tracing::warn!("where the edge is now is not remembered: {error}");
        }
    };
    let kept = async {
        match &mut embedded {
            Some(embedded) => embedded.keep(moved).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = connections::serve(listener, router, bounds) => {}
        () = kept => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn is_https(url: Option<&str>) -> bool {
    url.is_some_and(|url| url.starts_with("https://"))
}

/// A page that came over https:// may connect to nothing else.
fn check_urls(arguments: &Arguments) -> Result<(), String> {
    let (public, edge) = (arguments.public_url.as_deref(), arguments.edge_public_url.as_deref());
    for (option, url) in [("--public-url", public), ("--edge-public-url", edge)] {
        if url.is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
            return Err(format!("{option} begins with http:// or https://"));
        }
    }
    if !is_https(public) || is_https(edge) || is_https(arguments.edge.as_deref()) {
        return Ok(());
    }
    if arguments.edge.is_some() {
        return Err("--public-url is https://, so --edge has to be, too: browsers let such a page connect to nothing else".to_owned());
    }
    Err("--public-url is https://, and the edge that is started speaks no TLS: put the proxy in front of it, too, with \
         --edge-port for where it listens and --edge-public-url https://… for where pages find it, or use --edge"
        .to_owned())
}

/// How many connections there may be: as many as are asked for, if descriptors suffice.
fn bounds(arguments: &Arguments) -> Result<Bounds, String> {
    let limit = limits::raise_nofile().map_err(|error| format!("the limit on descriptors: {error}"))?.soft;
    let have = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(DESCRIPTORS_OF_OUR_OWN).max(1);
    let asked = usize::try_from(arguments.connections).unwrap_or(usize::MAX);
    if have < asked {
        tracing::warn!(
            "{have} connections at most instead of {asked}: the limit on descriptors is {limit} (ulimit -n)"
        );
    }
    let of_address =
        usize::try_from(arguments.connections_per_address).ok().filter(|_| arguments.proxies == 0);
    Ok(Bounds { all: asked.min(have), of_address })
}

async fn edge(
    arguments: &Arguments,
    listen: SocketAddr,
    store: &Store,
) -> Result<(Option<Embedded>, Edge), String> {
    let (Some(public), Some(admin), Some(secret)) =
        (&arguments.edge, &arguments.edge_admin, &arguments.edge_token_secret)
    else {
        let (embedded, edge) = own_edge(arguments, listen.ip(), store).await?;
        return Ok((Some(embedded), edge));
    };
    if !["http://", "https://"].iter().any(|scheme| public.starts_with(scheme)) {
        return Err(format!("--edge begins with http:// or https://: {public}"));
    }
    if !admin.starts_with("http://") {
        return Err(format!("--edge-admin begins with http://: {admin}"));
    }
    let key = arguments.edge_admin_key.as_deref().map(read).transpose()?;
    let edge = Edge {
        public: Public::Url(public.trim_end_matches('/').to_owned()),
        signer: Signer::new(&read(secret)?)?,
        admin: Admin::new(admin, key.map(|key| key.trim().to_owned())),
    };
    edge.admin.started().await.map_err(|failure| format!("the edge's admin port {admin}: {}", failure.0))?;
    Ok((None, edge))
}

/// An edge of this program's own: where it was the last time, if nobody else is there now, so that open pages find it again.
async fn own_edge(arguments: &Arguments, ip: IpAddr, store: &Store) -> Result<(Embedded, Edge), String> {
    let public = arguments.edge_public_url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
    let wanted = Wanted { ip, port: arguments.edge_port, is_fixed: arguments.edge_port != 0, public };
    if wanted.is_fixed {
        return Embedded::start(wanted).await;
    }
    let told = |error| format!("the database: {error:?}");
    let before = store.recall(&port_name(ip)).await.map_err(told)?.and_then(|text| text.parse().ok());
    let again = match before {
        Some(port) => Embedded::start(Wanted { port, ..wanted.clone() }).await,
        None => Err(String::new()),
    };
    let (embedded, edge) = match again {
        Ok(started) => started,
        Err(_) => Embedded::start(wanted).await?,
    };
    remember_port(store, ip, embedded.port()).await?;
    Ok((embedded, edge))
}

async fn remember_port(store: &Store, ip: IpAddr, port: u16) -> Result<(), String> {
    let remembered = store.remember(&port_name(ip), &port.to_string()).await;
    remembered.map_err(|error| format!("the database: {error:?}"))
}

/// Under which name the port is remembered.
fn port_name(ip: IpAddr) -> String {
    format!("edge port of {ip}")
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
