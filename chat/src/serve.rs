//! Puts the parts together and serves until it is told to stop: the edge, the database, the task that tells the edge, and
//! the port.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::api::{self, App};
use crate::cli::Arguments;
use crate::edge::embedded::Embedded;
use crate::edge::{Admin, Edge, Public, Signer};
use crate::limits::Limits;
use crate::outbox::Teller;
use crate::passwords::Passwords;
use crate::store::Store;

/// Serves. Ends well when it is told to stop.
pub(crate) async fn run(arguments: Arguments) -> Result<(), String> {
    let mut stops = [SignalKind::terminate(), SignalKind::interrupt()]
        .map(|kind| signal(kind).map_err(|error| format!("signals cannot be taken: {error}")));
    let [Ok(terminate), Ok(interrupt)] = &mut stops else {
        return Err("signals cannot be taken".to_owned());
    };
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
    let app = App {
        store,
        edge,
        written,
        passwords: Passwords::new(),
        limits: Limits::new(),
        device_key,
        is_secure: arguments.public_url.as_ref().is_some_and(|url| url.starts_with("https://")),
        proxies: arguments.proxies,
        history: i64::from(arguments.history),
    };
    let told = arguments.public_url.unwrap_or_else(|| format!("http://{listen}/"));
    println!("fantail-chat ready {told} pid={}", std::process::id());
    let service = api::router(Arc::new(app)).into_make_service_with_connect_info::<SocketAddr>();
    let kept = async {
        match &mut embedded {
            Some(embedded) => embedded.keep().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        served = axum::serve(listener, service) => served.map_err(|error| error.to_string()),
        () = kept => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn edge(
    arguments: &Arguments,
    listen: SocketAddr,
    store: &Store,
) -> Result<(Option<Embedded>, Edge), String> {
    let (Some(public), Some(admin), Some(secret)) =
        (&arguments.edge, &arguments.edge_admin, &arguments.edge_token_secret)
    else {
        let (embedded, edge) = own_edge(arguments.edge_port, listen.ip(), store).await?;
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
async fn own_edge(port: u16, ip: IpAddr, store: &Store) -> Result<(Embedded, Edge), String> {
    if port != 0 {
        return Embedded::start(ip, port).await;
    }
    let told = |error| format!("the database: {error:?}");
    let name = format!("edge port of {ip}");
    let before = store.recall(&name).await.map_err(told)?.and_then(|text| text.parse().ok());
    // Bound for a moment only: whoever takes it in between is found out by the edge.
    let is_free = |port: &u16| std::net::TcpListener::bind((ip, *port)).is_ok();
    let again = match before.filter(is_free) {
        Some(port) => Embedded::start(ip, port).await,
        None => Err(String::new()),
    };
    let (embedded, edge) = match again {
        Ok(started) => started,
        Err(_) => Embedded::start(ip, 0).await?,
    };
    if let Public::Port(port) = edge.public {
        store.remember(&name, &port.to_string()).await.map_err(told)?;
    }
    Ok((embedded, edge))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
