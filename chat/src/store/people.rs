//! People and their sessions. What identifies a session is kept as a hash: who reads the database can't be somebody.

use super::private::leave_conversations;
use super::rooms::leave_all;
use super::{Result, Row, Store, Writing, now};
use crate::random;

/// How long a session lasts that is not ended, in seconds.
pub(crate) const SESSION_SECONDS: i64 = 30 * 86_400;
/// Sessions of one person; beyond, the one that ends first goes.
const SESSIONS_MAX: i64 = 20;

/// Somebody with an account.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) password: String,
}

impl Store {
    /// Makes an account, or `None` if a name that looks like this one is taken.
    pub(crate) async fn add_person(&self, name: &str, key: &str, password: &str) -> Result<Option<Person>> {
        let id = random::id();
        let done = sqlx::query("INSERT INTO people VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING")
            .bind(&id)
            .bind(name)
            .bind(key)
            .bind(password)
            .bind(now() * 1_000)
            .execute(&self.pool)
            .await?;
        let person = Person { id, name: name.to_owned(), password: password.to_owned() };
        Ok((done.rows_affected() == 1).then_some(person))
    }

    pub(crate) async fn person_by_key(&self, key: &str) -> Result<Option<Person>> {
        let query = sqlx::query("SELECT id, name, password FROM people WHERE key = $1").bind(key);
        query.fetch_optional(&self.pool).await?.map(|row| person(&row)).transpose()
    }

    /// Who has this session, if it has not ended.
    pub(crate) async fn person_of_session(&self, session: &str) -> Result<Option<Person>> {
        let query = "SELECT p.id, p.name, p.password FROM sessions s JOIN people p ON p.id = s.person
                     WHERE s.hash = $1 AND s.expires > $2";
        let query = sqlx::query(query).bind(session_hash(session)).bind(now());
        query.fetch_optional(&self.pool).await?.map(|row| person(&row)).transpose()
    }

    /// Begins a session and gives what identifies it. `None` if the password that opened it is not the account's any
    /// more: who has just ended every session by another one means this, too.
    pub(crate) async fn add_session(&self, person: &Person) -> Result<Option<String>> {
        let session = random::key();
        let mut writing = self.begin().await?;
        // Takes the lock that a change of the password takes: one of the two waits for the other.
        let lock = "UPDATE people SET password = password WHERE id = $1 AND password = $2";
        let query = sqlx::query(lock).bind(&person.id).bind(&person.password);
        if query.execute(&mut *writing).await?.rows_affected() == 0 {
            return Ok(None);
        }
        let person = &*person.id;
        sqlx::query("DELETE FROM sessions WHERE expires <= $1").bind(now()).execute(&mut *writing).await?;
        let too_many = "DELETE FROM sessions WHERE hash IN
            (SELECT hash FROM sessions WHERE person = $1 ORDER BY expires DESC, hash LIMIT 1000 OFFSET $2)";
        sqlx::query(too_many).bind(person).bind(SESSIONS_MAX - 1).execute(&mut *writing).await?;
        sqlx::query("INSERT INTO sessions VALUES ($1, $2, $3)")
            .bind(session_hash(&session))
            .bind(person)
            .bind(now() + SESSION_SECONDS)
            .execute(&mut *writing)
            .await?;
        writing.commit().await?;
        Ok(Some(session))
    }

    pub(crate) async fn end_session(&self, session: &str) -> Result<()> {
        let query = sqlx::query("DELETE FROM sessions WHERE hash = $1").bind(session_hash(session));
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// Ends every session of somebody, and takes their tokens back.
    pub(crate) async fn end_sessions(&self, person: &str) -> Result<()> {
        let mut writing = self.begin().await?;
        end_sessions(&mut writing, person).await?;
        writing.commit().await?;
        Ok(())
    }

    /// Changes a password and ends every session. `false` if it has been changed since `before` was read.
    pub(crate) async fn set_password(&self, person: &str, before: &str, password: &str) -> Result<bool> {
        let mut writing = self.begin().await?;
        let query = sqlx::query("UPDATE people SET password = $1 WHERE id = $2 AND password = $3");
        let done = query.bind(password).bind(person).bind(before).execute(&mut *writing).await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        end_sessions(&mut writing, person).await?;
        writing.commit().await?;
        Ok(true)
    }

    /// Deletes an account with its sessions, out of all its rooms, as a whole or not at all; messages stay, nobody's,
    /// and private ones with whom they were written to.
    /// `false` if its password has been changed since `person` was read.
    pub(crate) async fn delete_person(&self, person: &Person) -> Result<bool> {
        let mut writing = self.begin().await?;
        leave_all(&mut writing, &person.id).await?;
        leave_conversations(&mut writing, &person.id).await?;
        revoke(&mut writing, &person.id).await?;
        let query = sqlx::query("DELETE FROM people WHERE id = $1 AND password = $2");
        let done = query.bind(&person.id).bind(&person.password).execute(&mut *writing).await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        writing.commit().await?;
        Ok(true)
    }
}

async fn end_sessions(writing: &mut Writing, person: &str) -> Result<()> {
    sqlx::query("DELETE FROM sessions WHERE person = $1").bind(person).execute(&mut **writing).await?;
    revoke(writing, person).await
}

/// Asks for somebody's tokens to be taken back, with what the transaction writes.
pub(super) async fn revoke(writing: &mut Writing, person: &str) -> Result<()> {
    let query = sqlx::query("INSERT INTO revocations VALUES ($1, $2, $3, 0)");
    query.bind(random::id()).bind(person).bind(now()).execute(&mut **writing).await?;
    Ok(())
}

fn person(row: &sqlx::any::AnyRow) -> Result<Person> {
    Ok(Person { id: row.try_get("id")?, name: row.try_get("name")?, password: row.try_get("password")? })
}

fn session_hash(session: &str) -> String {
    random::hash("session", session)
}
