//! The connections of the application's port: how many there may be, and of one address; how long each may take to ask,
//! and to take its answer. Whoever is over is told so at once. Knows no path and no person.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::Sleep;

use crate::limits::network;

const TIMES: Times =
    Times { head: Duration::from_secs(30), write: Duration::from_secs(30), linger: Duration::from_secs(2) };
/// The longest head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How often what a peer still sends is read and forgotten when its connection is to end.
const LINGER_READS_MAX: u32 = 64;
/// How long it waits when the system has no descriptor for another connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n\
    Connection: close\r\nContent-Length: 100\r\n\r\n\
    {\"error\":{\"code\":\"busy\",\"message\":\"there are too many connections at the moment: try again in 5 s\"}}";

/// How long a peer may take.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// From the end of one answer, or the beginning of the connection, to the end of the next head.
    head: Duration,
    /// In which it takes none of what it is sent.
    write: Duration,
    /// To end its side, once its connection is to end.
    linger: Duration,
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) all: usize,
    /// Of one address; `None` where all come from a proxy.
    pub(crate) of_address: Option<usize>,
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, router: Router, bounds: Bounds) {
    let places = Arc::new(Places { bounds, taken: Mutex::default() });
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection can't be taken: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        match Places::take(&places, peer.ip()) {
            Some(place) => {
                // Answers are written whole.
                let _ = stream.set_nodelay(true);
                tokio::spawn(converse(stream, peer, router.clone(), place, TIMES));
            }
            // It has room for that much, or is told nothing.
            None => drop(stream.try_write(FULL.as_bytes())),
        }
    }
}

async fn converse<S>(stream: S, peer: SocketAddr, router: Router, place: Place, times: Times)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(times.head).max_buf_size(HEAD_BYTES_MAX);
    let stream = Told { stream, time: times.write, stalled: None, instead: Vec::new() };
    let mut connection = server.serve_connection(TokioIo::new(stream), service);
    // A peer that leaves or breaks a rule ends its own connection.
    if (&mut connection).await.is_err() {
        let stream = connection.into_parts().io.into_inner();
        let _ = tokio::time::timeout(times.linger, linger(stream)).await;
    }
    drop(place);
}

/// Closes so that what was said arrives: a system that closes with something unread takes it back (RFC 9112, 9.6).
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: Told<S>) {
    let _ = stream.shutdown().await;
    let mut room = [0; 4_096];
    for _ in 0..LINGER_READS_MAX {
        if !stream.read(&mut room).await.is_ok_and(|read| read > 0) {
            return;
        }
    }
}

/// Who is connected.
struct Places {
    bounds: Bounds,
    taken: Mutex<(usize, HashMap<String, usize>)>,
}

/// One connection's, given back when it ends.
struct Place {
    places: Arc<Places>,
    address: String,
}

impl Places {
    fn take(this: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut taken = this.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of_each) = &mut *taken;
        let here = of_each.get(&address).copied().unwrap_or_default();
        if *all >= this.bounds.all || this.bounds.of_address.is_some_and(|most| here >= most) {
            return None;
        }
        *all += 1;
        of_each.insert(address.clone(), here + 1);
        Some(Place { places: Arc::clone(this), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of_each) = &mut *taken;
        *all -= 1;
        if let Some(here) = of_each.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                of_each.remove(&self.address);
            }
        }
    }
}

/// A stream that ends when its peer takes nothing for too long, and that puts JSON in the place of what hyper says by
/// itself, without a body, to a head that it can't read.
struct Told<S> {
    stream: S,
    time: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    /// What is still to be written in the place of something that hyper takes for written.
    instead: Vec<u8>,
}

impl<S: AsyncWrite + Unpin> Told<S> {
    /// What `written` waits for is bounded in time.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let time = self.time;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, written)
    }

    fn write_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let bytes = std::mem::take(&mut self.instead);
            let written = self.write_some(cx, &bytes);
            self.instead = bytes;
            let count = ready!(written)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

/// What is said in the place of these bytes, if they are an answer of hyper's own. Answers of this program have a
/// `Content-Type`, and no body of theirs has a line that ends like those of a head.
fn instead_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(bytes.strip_suffix(b"\r\n\r\n")?).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ").filter(|rest| rest.starts_with('4'))?.lines().next()?;
    if head.to_ascii_lowercase().contains("\r\ncontent-type:") {
        return None;
    }
    let (code, message) = match status.get(..3)? {
        "414" => ("too_long", "an address here has at most 4,096 bytes: ask for less"),
        "431" => ("too_large", "a head has at most 16 KiB and 100 fields: send less, perhaps fewer cookies"),
        _ => ("bad_request", "this is no request of HTTP/1.1 that can be read: check how it is written"),
    };
    let body = serde_json::json!({"error": {"code": code, "message": message}}).to_string();
    let length = body.len();
    let fields = format!("Content-Type: application/json\r\nConnection: close\r\nContent-Length: {length}");
    Some(format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n{body}").into_bytes())
}

impl<S: AsyncRead + Unpin> AsyncRead for Told<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Told<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.write_instead(cx))?;
        if let Some(instead) = instead_of(bytes) {
            self.instead = instead;
            return Poll::Ready(Ok(bytes.len()));
        }
        self.write_some(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_instead(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_instead(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hyper_says_by_itself_is_replaced() {
        let told = instead_of(b"HTTP/1.1 414 URI Too Long\r\ncontent-length: 0\r\ndate: x\r\n\r\n").unwrap();
        let told = String::from_utf8(told).unwrap();
        assert!(
            told.starts_with("HTTP/1.1 414 URI Too Long\r\n") && told.contains(r#""code":"too_long""#),
            "{told}"
        );
        for own in [
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 400 and so on",
            r#"HTTP/1.1 400 x\r\n\r\n","text":"#,
        ] {
            assert_eq!(instead_of(own.as_bytes()), None, "{own}");
        }
        let body = FULL.split("\r\n\r\n").nth(1).unwrap();
        assert!(FULL.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }

    /// A connection to a server of one path, whose buffer has this many bytes, and its end.
    fn connection(bytes: usize, times: Times) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<()>) {
        let (here, there) = tokio::io::duplex(bytes);
        let bounds = Bounds { all: 1, of_address: None };
        let places = Arc::new(Places { bounds, taken: Mutex::default() });
        let place = Places::take(&places, IpAddr::from([127, 0, 0, 1])).unwrap();
        let router = Router::new().route("/", axum::routing::get(|| async { "x".repeat(100_000) }));
        (here, tokio::spawn(converse(there, SocketAddr::from(([127, 0, 0, 1], 1)), router, place, times)))
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_and_an_answer_that_is_not_taken_end_the_connection() {
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(3_600));
        for (sent, head, write) in [
            ("", short, long),
            ("GET / HTTP/1.1\r\nHost", short, long),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", long, short),
        ] {
            let start = std::time::Instant::now();
            let (mut here, ended) = connection(1_000, Times { head, write, linger: short });
            here.write_all(sent.as_bytes()).await.unwrap();
            ended.await.unwrap();
            assert!(start.elapsed() >= short, "{sent}");
        }
        // One that asks and takes its answers stays.
        let (mut here, ended) = connection(1_000, Times { head: long, write: long, linger: short });
        let mut room = vec![0; 100_000];
        for _ in 0..3 {
            here.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            here.read_exact(&mut room).await.unwrap();
        }
        assert!(!ended.is_finished());
    }

    #[test]
    fn places_are_counted_of_each_address_and_given_back() {
        let bounds = Bounds { all: 3, of_address: Some(2) };
        let places = Arc::new(Places { bounds, taken: Mutex::default() });
        let take = |address: &str| Places::take(&places, address.parse().unwrap());
        let one = take("192.0.2.1").unwrap();
        let _two = take("192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none());
        let _three = take("192.0.2.2").unwrap();
        assert!(take("192.0.2.3").is_none());
        drop(one);
        assert!(take("192.0.2.3").is_some());
        assert_eq!(places.taken.lock().unwrap().1.len(), 2);
    }
}
