//! Rooms: found, made, joined, left, and who is in them.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::done;
use super::{App, Asked, At, Body, Failure, Session, Shared};
use crate::limits::{LISTS, ROOMS};
use crate::names;
use crate::store::messages::topic;
use crate::store::rooms::{self, Role};

type Told = Result<Json<Value>, Failure>;

#[derive(Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    name: String,
    #[serde(default)]
    after: String,
}

/// Open rooms, some at a time: `next` is the `after` of those behind them.
pub(super) async fn open(State(app): Shared, session: Session, Asked(search): Asked<Search>) -> Told {
    app.take(LISTS, &session.person.id)?;
    let (rooms, next) = app.store.open_rooms(&names::part(&search.name), &search.after).await?;
    Ok(Json(json!({"rooms": rooms, "next": next})))
}

#[derive(Deserialize)]
pub(super) struct Further {
    #[serde(default)]
    after: String,
}

#[derive(Deserialize)]
pub(super) struct NewRoom {
    name: String,
    open: bool,
}

pub(super) async fn add(State(app): Shared, session: Session, Body(asked): Body<NewRoom>) -> Told {
    let name = names::room(&asked.name).map_err(|why| Failure::invalid("name", &why))?;
    app.take(ROOMS, &session.person.id)?;
    let id = done(app.store.add_room(&session.person.id, &name, &names::key(&name), asked.open)).await?;
    Ok(written(&app, json!({"id": id, "name": name})))
}

pub(super) async fn join(State(app): Shared, session: Session, At(room): At<String>) -> Told {
    app.take(ROOMS, &session.person.id)?;
    done(app.store.join(&room, &session.person.id)).await?;
    Ok(written(&app, json!({})))
}

pub(super) async fn leave(State(app): Shared, session: Session, At(room): At<String>) -> Told {
    app.take(ROOMS, &session.person.id)?;
    done(app.store.leave(&room, &session.person.id)).await?;
    Ok(written(&app, json!({})))
}

#[derive(Deserialize)]
pub(super) struct Invitation {
    name: String,
}

pub(super) async fn invite(
    State(app): Shared,
    session: Session,
    At(room): At<String>,
    Body(asked): Body<Invitation>,
) -> Told {
    app.take(ROOMS, &session.person.id)?;
    let person = app.store.person_by_key(&names::asked(&asked.name)).await?;
    let nobody = || Failure::invalid("name", "there is nobody of this name: check how it is written");
    let person = person.ok_or_else(nobody)?;
    done(app.store.invite(&room, &session.person.id, &person.id)).await?;
    Ok(written(&app, json!({"id": person.id, "name": person.name})))
}

/// Members, some at a time, by name.
pub(super) async fn members(
    State(app): Shared,
    session: Session,
    At(room): At<String>,
    Asked(further): Asked<Further>,
) -> Told {
    app.take(LISTS, &session.person.id)?;
    let (members, next) = done(app.store.members(&room, &session.person.id, &further.after)).await?;
    Ok(Json(json!({"members": members, "next": next})))
}

#[derive(Deserialize)]
pub(super) struct Appointment {
    /// `owner`, `moderator`, `member`, `banned` or `removed`.
    role: String,
}

pub(super) async fn appoint(
    State(app): Shared,
    session: Session,
    At((room, person)): At<(String, String)>,
    Body(asked): Body<Appointment>,
) -> Told {
    app.take(ROOMS, &session.person.id)?;
    let role = match &*asked.role {
        "removed" => None,
        role => match Role::read(role).filter(|role| *role != Role::Invited) {
            Some(role) => Some(role),
            None => {
                return Err(Failure::invalid(
                    "role",
                    "a role is owner, moderator, member, banned or removed",
                ));
            }
        },
    };
    let actor = rooms::Named { id: &session.person.id, name: &session.person.name };
    done(app.store.appoint(&room, &actor, &person, role)).await?;
    Ok(written(&app, json!({})))
}

/// Names that one question asks for at most.
const NAMES_MAX: usize = 100;

#[derive(Deserialize)]
pub(super) struct Named {
    /// Ids, with commas between them.
    ids: String,
}

/// What people are called who are in this room; of others it says nothing.
pub(super) async fn names(
    State(app): Shared,
    session: Session,
    At(room): At<String>,
    Asked(asked): Asked<Named>,
) -> Told {
    app.take(LISTS, &session.person.id)?;
    let ids: Vec<_> = asked.ids.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
    if ids.len() > NAMES_MAX {
        return Err(Failure::bad_request("ids names at most 100 people: ask for the others behind them"));
    }
    let people = done(app.store.names(&room, &session.person.id, &ids)).await?;
    Ok(Json(json!({"people": people})))
}

/// For pages that the edge does not tell it by itself: who has this room open somewhere, as the edge knows it, some at a time.
pub(super) async fn online(
    State(app): Shared,
    session: Session,
    At(room): At<String>,
    Asked(further): Asked<Further>,
) -> Told {
    app.take(LISTS, &session.person.id)?;
    // First, since the edge tells this program everything.
    done(app.store.names(&room, &session.person.id, &[])).await?;
    if !further.after.bytes().all(|byte| byte.is_ascii_alphanumeric()) || further.after.len() > 64 {
        return Err(Failure::bad_request("after is the next of the answer before"));
    }
    let present = app.edge.admin.present(&topic(&room), &further.after).await;
    let away = |failure: crate::edge::Failure| {
        tracing::warn!("who is online can't be had: {}", failure.0);
        Failure::away("edge_away", "who is online can't be had at the moment")
    };
    let present = present.map_err(away)?;
    let people = done(app.store.names(&room, &session.person.id, &present.ids)).await?;
    Ok(Json(json!({"count": present.count, "people": people, "next": present.next})))
}

/// Something was written that the edge is to be told.
pub(super) fn written(app: &App, answer: Value) -> Json<Value> {
    app.written.notify_one();
    Json(answer)
}
