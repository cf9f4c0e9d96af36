//! The application's HTTP: what a request has to be, who it is from, and what is answered when something is wrong. Each
//! answer is JSON; an error has a code for the page and a sentence that says what to do.

mod account;
mod cookies;
mod envelope;
mod failure;
mod messages;
mod private;
mod read;
mod rooms;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, patch, post};
use tokio::sync::Notify;

use crate::edge::Edge;
use crate::limits::{Limit, Limits, READS, network};
use crate::page;
use crate::passwords::Passwords;
use crate::random;
use crate::store::people::Person;
use crate::store::{Store, now};

pub(crate) use failure::Failure;
use read::{Asked, At, Body};

/// The field in which a page shows that it has read an answer of ours.
const CSRF: &str = "x-csrf-token";

/// What all requests share.
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) edge: Arc<Edge>,
    /// Wakes the task that tells the edge.
    pub(crate) written: Arc<Notify>,
    pub(crate) passwords: Passwords,
    pub(crate) limits: Limits,
    pub(crate) device_key: String,
    /// Cookies only over TLS.
    pub(crate) is_secure: bool,
    pub(crate) proxies: usize,
    pub(crate) history: i64,
}

type Shared = State<Arc<App>>;

/// Every path.
pub(crate) fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route("/register", post(account::register))
        .route("/login", post(account::login))
        .route("/logout", post(account::logout))
        .route("/logout-everywhere", post(account::logout_everywhere))
        .route("/password", post(account::password))
        .route("/account/delete", post(account::delete))
        .route("/me", get(account::me))
        .route("/edge", get(account::edge))
        .route("/rooms", get(rooms::open).post(rooms::add))
        .route("/rooms/{room}/join", post(rooms::join))
        .route("/rooms/{room}/leave", post(rooms::leave))
        .route("/rooms/{room}/invite", post(rooms::invite))
        .route("/rooms/{room}/members", get(rooms::members))
        .route("/rooms/{room}/members/{person}", post(rooms::appoint))
        .route("/rooms/{room}/online", get(rooms::online))
        .route("/rooms/{room}/names", get(rooms::names))
        .route("/rooms/{room}/messages", get(messages::list).post(messages::post))
        .route("/rooms/{room}/messages/{seq}", patch(messages::edit).delete(messages::delete))
        .route("/rooms/{room}/seen", post(messages::seen))
        .merge(private::routes())
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing_here)
        .layer(middleware::from_fn(guard))
        .layer(DefaultBodyLimit::max(read::BODY_BYTES_MAX));
    page::routes(Router::new().nest("/api", api))
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing_here)
        .layer(middleware::from_fn(read::head))
        .with_state(app)
}

async fn nothing_here() -> Failure {
    Failure::not_found("there is nothing at this path: check how it is written")
}

async fn wrong_method() -> Failure {
    Failure::wrong_method("this path is not for this method: the field Allow says for which it is")
}

/// What changes something comes from a page of this very origin, and says that it is JSON, which no form can.
async fn guard(request: Request, next: Next) -> Response {
    use axum::response::IntoResponse;
    if !matches!(*request.method(), Method::GET | Method::HEAD)
        && let Err(failure) = comes_from_here(request.headers())
    {
        return failure.into_response();
    }
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

fn comes_from_here(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_here = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin",
        // A browser that does not say where it is sends the origin; what is no browser has no cookies of others.
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) == text("host"),
        (None, None) => true,
    };
    if !is_here {
        return Err(Failure::forbidden("other_site", "this came from a page of another site"));
    }
    let kind = text("content-type").unwrap_or_default();
    if kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        Ok(())
    } else {
        Err(Failure::bad_request("what is sent has to be JSON: Content-Type: application/json"))
    }
}

/// Who a request is from, by its session; of one that changes something also that a page of ours has made it.
pub(crate) struct Session {
    pub(crate) person: Person,
    pub(crate) id: String,
}

impl FromRequestParts<Arc<App>> for Session {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let id = cookies::session(&parts.headers, app.is_secure).ok_or_else(Failure::logged_out)?;
        let person = app.store.person_of_session(&id).await?.ok_or_else(Failure::logged_out)?;
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        let shown = parts.headers.get(CSRF).map(|value| value.as_bytes());
        if !is_read && shown != Some(csrf(&id).as_bytes()) {
            return Err(Failure::forbidden("csrf", "this page is not of this session: load it again"));
        }
        if is_read {
            app.take(READS, &person.id)?;
        }
        Ok(Self { person, id })
    }
}

/// What a page has to show, made of what only its cookie says.
fn csrf(session: &str) -> String {
    random::hash("csrf", session)
}

/// The address a request is from: an IPv6 network counts as one.
pub(crate) struct From(pub(crate) String);

impl FromRequestParts<Arc<App>> for From {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let fields = parts.headers.get_all("x-forwarded-for").iter().filter_map(|field| field.to_str().ok());
        let hops: Vec<&str> = fields.flat_map(|field| field.split(',')).map(str::trim).collect();
        let told = hops.len().checked_sub(app.proxies).filter(|_| app.proxies > 0).map(|at| hops[at]);
        let address: Option<IpAddr> = told.and_then(|told| told.parse().ok()).or(peer);
        Ok(Self(address.map(network).unwrap_or_default()))
    }
}

impl App {
    /// Takes one of what somebody may do so often, or says when again.
    fn take(&self, limit: Limit, who: &str) -> Result<(), Failure> {
        self.limits.take(limit, who).map_err(Failure::too_often)
    }

    /// From when on a token of somebody can be, in seconds since 1970: now, which is behind what was taken back last, once the
    /// edge has taken it back. It is waited for and not counted ahead, or a token would outlive what is taken back next.
    async fn issuable(&self, person: &str) -> Result<i64, Failure> {
        // What was just written is told within a round; an edge that is away can't be connected to anyway.
        for _ in 0..80 {
            let last = self.store.last_revoked(person).await?;
            let now = now();
            match last {
                // Its second counts as a whole; one more, since two clocks are never one.
                Some(when) if now >= when + 2 => return Ok(now),
                Some(_) => {}
                None => self.written.notify_one(),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Failure::away("edge_away", "the edge can't be reached: this is tried again by itself"))
    }
}
