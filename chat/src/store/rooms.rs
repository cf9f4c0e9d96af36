//! Rooms and who is in them, in which role. A room has an owner as long as it has members; without any it is gone, but
//! for the lobby.

use serde_json::{Value, json};
use sqlx::any::AnyRow;

use super::messages::{Answer, Place, notice, take_place};
use super::outbox::tell_person;
use super::people::revoke;
use super::{Result, Row, Store, Writing, now_ms};
use crate::random;

/// The room that is always there, and that newcomers are in.
pub(crate) const LOBBY: &str = "lobby";
/// Rooms of one person: a token lists 64 topics, and a connection of the edge takes as many.
const ROOMS_MAX: i64 = 50;
/// Members of a room, invited and banned ones counted.
const MEMBERS_MAX: i64 = 20_000;
/// People that a list has at a time.
const LISTED_MAX: i64 = 200;
/// Rooms that a list has at a time; the members of each are counted for it.
const FOUND_MAX: i64 = 50;
/// Invitations to a room, and to one person, that wait for an answer.
const INVITED_MAX: (i64, i64) = (500, 50);

/// Why something is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoRoom,
    NoMessage,
    NoPerson,
    NotMember,
    NotYours,
    NotAllowed,
    Banned,
    NameTaken,
    /// The name of a message was used for another one.
    Repeated,
    TooManyRooms,
    InvitationsFull,
    RoomFull,
    NoConversation,
    TooManyConversations,
    /// Somebody wants to write to themselves.
    Oneself,
    /// Who is written to has no account any more.
    HasLeft,
    /// Who writes blocks whom they write to.
    Blocking,
    /// Whom they write to blocks them.
    Blocked,
    /// A message is not sealed for exactly the devices that there are, by one of its author's.
    OtherDevices,
    NoDevice,
    /// A device is somebody else's.
    DeviceTaken,
    TooManyDevices,
}

/// What somebody is in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Role {
    Banned,
    Invited,
    Member,
    Moderator,
    Owner,
}

impl Role {
    const ALL: [(&str, Self); 5] = [
        ("banned", Self::Banned),
        ("invited", Self::Invited),
        ("member", Self::Member),
        ("moderator", Self::Moderator),
        ("owner", Self::Owner),
    ];

    pub(crate) fn read(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, role)| *role)
    }

    fn text(self) -> &'static str {
        Self::ALL.iter().find(|(_, role)| *role == self).map_or("", |(name, _)| name)
    }

    /// Whether they read and write.
    pub(crate) fn is_in(self) -> bool {
        self >= Self::Member
    }

    /// Whether they may invite, remove and ban.
    pub(crate) fn leads(self) -> bool {
        self >= Self::Moderator
    }
}

impl Store {
    /// Makes a room and its owner.
    pub(crate) async fn add_room(
        &self,
        person: &str,
        name: &str,
        key: &str,
        is_open: bool,
    ) -> Answer<String> {
        let id = random::id();
        // Of a room by invitation nobody else learns that its name is taken.
        let key = if is_open { key } else { &*id };
        let mut writing = self.begin().await?;
        if rooms_of(&mut writing, person).await? >= ROOMS_MAX {
            return Ok(Err(Refusal::TooManyRooms));
        }
        let insert = "INSERT INTO rooms VALUES ($1, $2, $3, $4, 0, 0, $5) ON CONFLICT DO NOTHING";
        let query =
            sqlx::query(insert).bind(&id).bind(name).bind(key).bind(i64::from(is_open)).bind(now_ms());
        if query.execute(&mut *writing).await?.rows_affected() == 0 {
            return Ok(Err(Refusal::NameTaken));
        }
        if let Some(place) = take_place(&mut writing, &id, true).await? {
            set_role(&mut writing, &id, person, Role::Owner).await?;
            notice(&mut writing, &id, &place, "made", person, "").await?;
        }
        tell_person(&mut writing, person).await?;
        writing.commit().await?;
        Ok(Ok(id))
    }

    /// Joins an open room, or one that somebody is invited to. Who is in it already stays.
    pub(crate) async fn join(&self, room: &str, person: &str) -> Answer<()> {
        let mut writing = self.begin().await?;
        let Some(place) = take_place(&mut writing, room, true).await? else {
            return Ok(Err(Refusal::NoRoom));
        };
        let query = "SELECT is_open, (SELECT COUNT(*) FROM members WHERE room = $1) AS members,
                     (SELECT COUNT(*) FROM members WHERE room = $1 AND role = 'owner') AS owners FROM rooms WHERE id = $1";
        let row = sqlx::query(query).bind(room).fetch_one(&mut *writing).await?;
        let (is_open, members, owners): (i64, i64, i64) =
            (row.try_get("is_open")?, row.try_get("members")?, row.try_get("owners")?);
        match role_of(&mut writing, room, person).await? {
            Some(Role::Banned) => return Ok(Err(Refusal::Banned)),
            Some(role) if role.is_in() => return Ok(Ok(())),
            Some(_) => {}
            None if is_open == 0 => return Ok(Err(Refusal::NoRoom)),
            None if members >= MEMBERS_MAX => return Ok(Err(Refusal::RoomFull)),
            None => {}
        }
        if rooms_of(&mut writing, person).await? >= ROOMS_MAX {
            return Ok(Err(Refusal::TooManyRooms));
        }
        let role = if owners == 0 { Role::Owner } else { Role::Member };
        // Who was invited comes in like anybody else: with nothing unread.
        delete_member(&mut writing, room, person).await?;
        set_role(&mut writing, room, person, role).await?;
        notice(&mut writing, room, &place, "joined", person, "").await?;
        tell_person(&mut writing, person).await?;
        writing.commit().await?;
        Ok(Ok(()))
    }

    /// Leaves a room, or declines to come in.
    pub(crate) async fn leave(&self, room: &str, person: &str) -> Answer<()> {
        let mut writing = self.begin().await?;
        let Some(place) = take_place(&mut writing, room, true).await? else {
            return Ok(Err(Refusal::NoRoom));
        };
        match role_of(&mut writing, room, person).await? {
            Some(Role::Invited) => delete_member(&mut writing, room, person).await?,
            Some(role) if role.is_in() => {
                go(&mut writing, room, &place, person).await?;
                revoke(&mut writing, person).await?;
            }
            _ => return Ok(Err(Refusal::NotMember)),
        }
        tell_person(&mut writing, person).await?;
        writing.commit().await?;
        Ok(Ok(()))
    }

    /// Invites somebody, or lets who was banned come back.
    pub(crate) async fn invite(&self, room: &str, actor: &str, person: &str) -> Answer<()> {
        let mut writing = self.begin().await?;
        let Some(_) = take_place(&mut writing, room, false).await? else { return Ok(Err(Refusal::NoRoom)) };
        if let Err(refusal) = leads(&mut writing, room, actor).await? {
            return Ok(Err(refusal));
        }
        let there = role_of(&mut writing, room, person).await?;
        if there.is_some_and(|role| role >= Role::Invited) {
            return Ok(Ok(()));
        }
        let query = "SELECT (SELECT COUNT(*) FROM members WHERE room = $1 AND role = 'invited') AS here,
            (SELECT COUNT(*) FROM members WHERE room = $1) AS members,
            (SELECT COUNT(*) FROM members WHERE person = $2 AND role = 'invited') AS theirs";
        let row = sqlx::query(query).bind(room).bind(person).fetch_one(&mut *writing).await?;
        let (here, members, theirs): (i64, i64, i64) =
            (row.try_get("here")?, row.try_get("members")?, row.try_get("theirs")?);
        if here >= INVITED_MAX.0 || theirs >= INVITED_MAX.1 {
            return Ok(Err(Refusal::InvitationsFull));
        }
        if members >= MEMBERS_MAX && there.is_none() {
            return Ok(Err(Refusal::RoomFull));
        }
        set_role(&mut writing, room, person, Role::Invited).await?;
        tell_person(&mut writing, person).await?;
        // Not a change that anybody in the room sees, so its number is not used either.
        sqlx::query("UPDATE rooms SET change = change - 1 WHERE id = $1")
            .bind(room)
            .execute(&mut *writing)
            .await?;
        writing.commit().await?;
        Ok(Ok(()))
    }

    /// Makes somebody a member, moderator or owner (who leads is a moderator then), or with `Banned` or `None` puts them
    /// out, for good or not. Only who stands above both the one and the role may; the owner may do all of it.
    pub(crate) async fn appoint(
        &self,
        room: &str,
        actor: &Named<'_>,
        person: &str,
        role: Option<Role>,
    ) -> Answer<()> {
        let mut writing = self.begin().await?;
        let Some(place) = take_place(&mut writing, room, true).await? else {
            return Ok(Err(Refusal::NoRoom));
        };
        let mine = match leads(&mut writing, room, actor.id).await? {
            Ok(role) => role,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(theirs) = role_of(&mut writing, room, person).await? else {
            return Ok(Err(Refusal::NoPerson));
        };
        let puts_out = role.is_none_or(|role| role == Role::Banned);
        if !puts_out && !theirs.is_in() {
            return Ok(Err(Refusal::NoPerson));
        }
        let above = |role: Role| mine > role || mine == Role::Owner;
        if actor.id == person || !above(theirs) || role.is_some_and(|role| !above(role)) {
            return Ok(Err(Refusal::NotAllowed));
        }
        if Some(theirs) == role {
            return Ok(Ok(()));
        }
        let kind = match (role, theirs) {
            (None, Role::Banned) => "unbanned",
            (None, Role::Invited) => "uninvited",
            (None, _) => "removed",
            (Some(role), _) => role.text(),
        };
        notice(&mut writing, room, &place, kind, person, actor.name).await?;
        match role {
            None => delete_member(&mut writing, room, person).await?,
            Some(role) => set_role(&mut writing, room, person, role).await?,
        }
        if role == Some(Role::Owner) {
            set_role(&mut writing, room, actor.id, Role::Moderator).await?;
            tell_person(&mut writing, actor.id).await?;
        }
        // Who was not in it had no token for it; without this anybody could end anybody's connections, by an invitation
        // that is taken back.
        if puts_out && theirs.is_in() {
            revoke(&mut writing, person).await?;
        }
        tell_person(&mut writing, person).await?;
        writing.commit().await?;
        Ok(Ok(()))
    }

    /// The rooms that somebody is in or invited to, with what they have not read (100 for that many and more).
    pub(crate) async fn rooms(&self, person: &str) -> Result<Vec<Value>> {
        let query = "SELECT r.id, r.name, r.is_open, r.change, m.role, m.seen, (SELECT COUNT(*) FROM
              (SELECT 1 FROM messages x WHERE x.room = r.id AND x.seq > m.seen AND x.kind = 'text' AND x.deleted = 0
               AND COALESCE(x.author, '') <> m.person LIMIT 100) AS counted) AS unread
            FROM members m JOIN rooms r ON r.id = m.room WHERE m.person = $1 AND m.role <> 'banned' ORDER BY r.name, r.id";
        let rows = sqlx::query(query).bind(person).fetch_all(&self.pool).await?;
        let one = |row: &AnyRow| -> Result<Value> {
            let text = |name: &str| -> Result<String> { Ok(row.try_get(name)?) };
            let number = |name: &str| -> Result<i64> { Ok(row.try_get(name)?) };
            Ok(
                json!({"id": text("id")?, "name": text("name")?, "open": number("is_open")? != 0, "role": text("role")?,
                      "change": number("change")?, "seen": number("seen")?, "unread": number("unread")?}),
            )
        };
        rows.iter().map(one).collect()
    }

    /// Open rooms whose names' keys contain that of `part`, in the order of keys behind `after`; and what the next ones are
    /// behind, if there are more.
    pub(crate) async fn open_rooms(&self, part: &str, after: &str) -> Result<(Vec<Value>, Option<String>)> {
        let escaped = part.replace(['\\', '%', '_'], "");
        let query = "SELECT r.id, r.name, r.key, (SELECT COUNT(*) FROM members m WHERE m.room = r.id
              AND m.role IN ('member', 'moderator', 'owner')) AS members
            FROM rooms r WHERE r.is_open = 1 AND r.key LIKE $1 AND r.key > $2 ORDER BY r.key LIMIT $3";
        let query = sqlx::query(query).bind(format!("%{escaped}%")).bind(after).bind(FOUND_MAX + 1);
        let mut rows = query.fetch_all(&self.pool).await?;
        let next = cut(&mut rows, FOUND_MAX, "key")?;
        let one = |row: &AnyRow| -> Result<Value> {
            let (id, name): (String, String) = (row.try_get("id")?, row.try_get("name")?);
            Ok(json!({"id": id, "name": name, "members": row.try_get::<i64, _>("members")?}))
        };
        Ok((rows.iter().map(one).collect::<Result<_>>()?, next))
    }

    /// Who is in a room, for one of them, by name behind `after`; who is invited or banned is for those who lead it. Also
    /// what the next ones are behind, if there are more.
    pub(crate) async fn members(
        &self,
        room: &str,
        person: &str,
        after: &str,
    ) -> Answer<(Vec<Value>, Option<String>)> {
        let mut writing = self.begin().await?;
        let Some(mine) = role_of(&mut writing, room, person).await?.filter(|role| role.is_in()) else {
            return Ok(Err(Refusal::NotMember));
        };
        let query =
            "SELECT p.id, p.name, m.role FROM members m JOIN people p ON p.id = m.person WHERE m.room = $1
            AND (m.role IN ('member', 'moderator', 'owner') OR $2 = 1) AND p.name > $3 ORDER BY p.name LIMIT $4";
        let query = sqlx::query(query).bind(room).bind(i64::from(mine.leads()));
        let mut rows = query.bind(after).bind(LISTED_MAX + 1).fetch_all(&mut *writing).await?;
        let next = cut(&mut rows, LISTED_MAX, "name")?;
        Ok(Ok((rows.iter().map(member).collect::<Result<_>>()?, next)))
    }

    /// Which of these people are in a room, for one of them.
    pub(crate) async fn names(&self, room: &str, person: &str, ids: &[String]) -> Answer<Vec<Value>> {
        let mut writing = self.begin().await?;
        if !role_of(&mut writing, room, person).await?.is_some_and(Role::is_in) {
            return Ok(Err(Refusal::NotMember));
        }
        let ids = &ids[..ids.len().min(usize::try_from(LISTED_MAX).unwrap_or_default())];
        if ids.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        // Only places of values are put together here: one question, however many are there.
        let places: Vec<_> = (2..2 + ids.len()).map(|number| format!("${number}")).collect();
        let query = format!(
            "SELECT p.id, p.name, m.role FROM members m JOIN people p ON p.id = m.person
            WHERE m.room = $1 AND m.role IN ('member', 'moderator', 'owner') AND m.person IN ({})",
            places.join(", ")
        );
        let query = ids.iter().fold(sqlx::query(&query).bind(room), |query, id| query.bind(id));
        let rows = query.fetch_all(&mut *writing).await?;
        Ok(Ok(rows.iter().map(member).collect::<Result<_>>()?))
    }
}

/// Somebody in a room, as pages get them.
fn member(row: &AnyRow) -> Result<Value> {
    let text = |name: &str| -> Result<String> { Ok(row.try_get(name)?) };
    Ok(json!({"id": text("id")?, "name": text("name")?, "role": text("role")?}))
}

/// Of rows that are one more than `most` what the next ones are behind: `by` of the last that stays.
fn cut(rows: &mut Vec<AnyRow>, most: i64, by: &str) -> Result<Option<String>> {
    let most = usize::try_from(most).unwrap_or_default();
    let more = rows.len() > most;
    rows.truncate(most);
    Ok(rows.last().filter(|_| more).map(|row| row.try_get(by)).transpose()?)
}

/// Somebody, and the name that a notice says.
pub(crate) struct Named<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
}

/// What somebody is in a room, as of this transaction.
pub(super) async fn role_of(writing: &mut Writing, room: &str, person: &str) -> Result<Option<Role>> {
    let query =
        sqlx::query("SELECT role FROM members WHERE room = $1 AND person = $2").bind(room).bind(person);
    let Some(row) = query.fetch_optional(&mut **writing).await? else { return Ok(None) };
    let role: String = row.try_get("role")?;
    Ok(Role::read(&role))
}

async fn leads(writing: &mut Writing, room: &str, person: &str) -> Answer<Role> {
    Ok(match role_of(writing, room, person).await? {
        Some(role) if role.leads() => Ok(role),
        Some(role) if role.is_in() => Err(Refusal::NotAllowed),
        _ => Err(Refusal::NotMember),
    })
}

async fn rooms_of(writing: &mut Writing, person: &str) -> Result<i64> {
    let query = "SELECT COUNT(*) AS rooms FROM members WHERE person = $1 AND role IN ('member', 'moderator', 'owner')";
    let row = sqlx::query(query).bind(person).fetch_one(&mut **writing).await?;
    Ok(row.try_get("rooms")?)
}

/// Who comes in has nothing unread: what was said before is there to be read, but nobody waits for it.
async fn set_role(writing: &mut Writing, room: &str, person: &str, role: Role) -> Result<()> {
    let query = "INSERT INTO members VALUES ($1, $2, $3, (SELECT newest FROM rooms WHERE id = $1), $4)
        ON CONFLICT (room, person) DO UPDATE SET role = excluded.role";
    let query = sqlx::query(query).bind(room).bind(person).bind(role.text()).bind(now_ms());
    query.execute(&mut **writing).await?;
    Ok(())
}

async fn delete_member(writing: &mut Writing, room: &str, person: &str) -> Result<()> {
    let query = sqlx::query("DELETE FROM members WHERE room = $1 AND person = $2").bind(room).bind(person);
    query.execute(&mut **writing).await?;
    Ok(())
}

/// Somebody leaves a room that they are in, at a place that was taken for it.
async fn go(writing: &mut Writing, room: &str, place: &Place, person: &str) -> Result<()> {
    notice(writing, room, place, "left", person, "").await?;
    delete_member(writing, room, person).await?;
    close_behind(writing, room).await
}

/// Somebody leaves every room that they are in; rooms are locked in one order, so that two who do so don't wait for each
/// other.
pub(super) async fn leave_all(writing: &mut Writing, person: &str) -> Result<()> {
    let query = "SELECT room FROM members WHERE person = $1 AND role IN ('member', 'moderator', 'owner') ORDER BY room";
    for row in sqlx::query(query).bind(person).fetch_all(&mut **writing).await? {
        let room: String = row.try_get("room")?;
        sqlx::query("UPDATE rooms SET change = change WHERE id = $1")
            .bind(&room)
            .execute(&mut **writing)
            .await?;
        // Who was removed meanwhile has left all the same: only what the lock shows counts.
        if role_of(writing, &room, person).await?.is_some_and(Role::is_in)
            && let Some(place) = take_place(writing, &room, true).await?
        {
            go(writing, &room, &place, person).await?;
        }
    }
    Ok(())
}

/// After somebody has left: whoever has led or been there longest owns a room without an owner, and an empty one goes.
async fn close_behind(writing: &mut Writing, room: &str) -> Result<()> {
    let query =
        "SELECT person, role FROM members WHERE room = $1 AND role IN ('member', 'moderator', 'owner')
        ORDER BY CASE role WHEN 'owner' THEN 0 WHEN 'moderator' THEN 1 ELSE 2 END, since, person LIMIT 1";
    let Some(row) = sqlx::query(query).bind(room).fetch_optional(&mut **writing).await? else {
        if room != LOBBY {
            let query = sqlx::query("DELETE FROM rooms WHERE id = $1").bind(room);
            query.execute(&mut **writing).await?;
        }
        return Ok(());
    };
    let (person, role): (String, String) = (row.try_get("person")?, row.try_get("role")?);
    if Role::read(&role) != Some(Role::Owner)
        && let Some(place) = take_place(writing, room, true).await?
    {
        set_role(writing, room, &person, Role::Owner).await?;
        notice(writing, room, &place, "owner", &person, "").await?;
        tell_person(writing, &person).await?;
    }
    Ok(())
}
